"""An environment of your own, and two small models trained in it: `python examples/own_environment.py`.

Two writers see 16 letters and may write 12 characters each. In a minute the score rises from under 30 % to over 60 %.
"""

import pettingzoo

from textmarl.envs import Outcome, TaskSet, TextEnv


class Letters(TextEnv):
    possible_agents = ["first", "second"]
    tasks = TaskSet.of(["abcdefghijklmnop", "ghijklmnopqrstuv", "aeioubcdfghjklmn", "klmnopqrstuvwxyz"])

    def observe(self, agent):
        return f"{agent}, write: {self.task.data['text']}"

    def judge(self, responses):
        wanted = set(self.task.data["text"])
        written = set().union(*responses.values())
        return Outcome({"score": len(wanted & written) / len(wanted)})


pettingzoo.register("parallel", "examples/Letters-v0", entry_point=Letters)

if __name__ == "__main__":
    import logging

    from textmarl.agents import Sampling, Team, TeamConfig
    from textmarl.algos import MAGRPO, Trainer, TrainerConfig
    from textmarl.benchmarks.report import write_report

    logging.basicConfig(level=logging.INFO, format="%(message)s")  # a line for each step
    env = pettingzoo.make("parallel", "examples/Letters-v0")
    team = Team.create(env.possible_agents, TeamConfig(model="tiny", tuning="full"))
    config = TrainerConfig(steps=60, tasks_per_step=4, learning_rate=3e-3, eval_samples=16)
    sampling, run = Sampling(temperature=1.0, max_new_tokens=12), "runs/letters-example"
    Trainer(env, team, MAGRPO(group_size=16), config, sampling, eval_env=env, run=run).train()
    print(write_report(run))
