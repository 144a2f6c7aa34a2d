"""Short training runs in processes that may be killed, for test_resume.py.

Reads one JSON object a line, trains in a fork of this warm process and answers with a JSON line: how the fork ended.
Keys: `run` (folder), `resume`, `kill` / `interrupt` / `terminate` (a moment, see `Moments`), `interrupts` (how many
signals), `trainer` and `team` (changed settings), `agents` (names), `algo` (a name in `ALGORITHMS`).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable

import torch

from textmarl.agents.sampling import Sampling
from textmarl.agents.team import Team, TeamConfig
from textmarl.algos import IPPO, MAGRPO, CoLLM, Observer, RunDirectory, Trainer, TrainerConfig, records
from textmarl.envs import Outcome, TaskSet, TextEnv

TRAINER = {"steps": 5, "checkpoint_every": 2, "eval_every": 2, "eval_tasks": 2, "eval_samples": 1, "eval_batch_size": 1,
           "kl_every": 2, "warmup_steps": 2, "learning_rate": 0.01, "seed": 3, "threads": 1}  # fmt: skip
TEAM = {"model": "tiny", "lora_rank": 4, "lora_targets": ["q_proj", "up_proj"], "device": "cpu"}


# Several updates a step on chains of two turns: whatever a run carries from step to step is in use.
ALGORITHMS = {
    "magrpo": lambda: MAGRPO(group_size=3, branching="chain", minibatches=2),
    "ippo": lambda: IPPO(group_size=3, epochs=2, minibatches=2),
    "ippo, shared": lambda: IPPO(group_size=3, epochs=2, critic_trunk="shared"),
    "collm": lambda: CoLLM(group_size=3),
}


class Letters(TextEnv):
    """Two turns; the share of early letters, so that no two responses score alike."""

    tasks = TaskSet.of(["one", "two", "three"])

    def __init__(self, agents: list[str]):
        self.possible_agents = agents
        super().__init__(max_turns=2)

    def observe(self, agent: str) -> str:
        return f"{agent}: {self.task.data['text']} {self.turn}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        letters = "".join(responses.values())
        return Outcome(
            {"score": sum(ord("z") - ord(c) for c in letters if c.isalpha()) / (25 * len(letters) + 1)}
        )


class Moments(Observer):
    """Acts once at a moment of the run: "<what>:<steps trained so far>".

    What: "generation", "reward", "update" or "evaluation" (the second call in that phase), "step" (metrics are
    written, nothing else is), "line" (half of a metrics line is), "state" (half of a checkpoint's file is), "rename"
    (all of it, but it has no name yet), "adapters" (one of two is saved).
    """

    def __init__(self, moment: str, act: Callable[[], None]):
        self.moment, self.act, self.calls, self.trainer = moment, act, 0, None

    def watch(self, trainer: Trainer) -> None:
        self.trainer = trainer
        trainer.run = KillableRunDirectory(trainer.run.folder, trainer.run.keep_checkpoints)
        trainer.run.moments = self
        first = trainer.team.policies[trainer.agents[0]]
        save, self.trainer.team.save = trainer.team.save, self.save_half
        self.save_one = lambda folder: first.network.save_pretrained(
            folder / "adapters", selected_adapters=[first.name]
        )
        self.save_all = save

    def is_now(self, what: str) -> bool:
        return self.moment == f"{what}:{self.trainer.step}"

    def phase(self, name: str, done: int, total: int) -> None:
        if self.is_now(name):
            self.calls += 1
            if self.calls == 2:
                self.act()

    def step(self, step: int, total: int, metrics: dict) -> None:
        if self.is_now("step"):
            self.act()

    def save_half(self, folder) -> None:
        if self.is_now("adapters"):
            self.save_one(folder)
            self.act()
        self.save_all(folder)


class KillableRunDirectory(RunDirectory):
    moments: Moments

    def append(self, name: str, record: dict) -> None:
        if name == "metrics.jsonl" and self.moments.is_now("line"):
            line = json.dumps(record)
            with (self.folder / name).open("a") as file:
                file.write(line[: len(line) // 2])
            self.moments.act()
        super().append(name, record)

    def save_checkpoint(self, step: int, state: dict) -> None:
        whole = torch.save
        replace = os.replace

        def half(state: dict, file) -> None:
            whole(state, file)
            file.truncate(file.tell() // 2)
            file.flush()
            self.moments.act()

        if self.moments.is_now("state"):
            records.torch.save = half
        if self.moments.is_now("rename"):
            records.os.replace = lambda *paths: self.moments.act()
        super().save_checkpoint(step, state)
        records.torch.save, records.os.replace = whole, replace


def train(order: dict) -> dict:
    """Train once; return {"complete"} or {"error"}, with the observer's messages left out."""
    number = signal.SIGKILL if "kill" in order else signal.SIGTERM if "terminate" in order else signal.SIGINT
    moment = order.get("kill") or order.get("terminate") or order.get("interrupt") or ""

    def act() -> None:
        for _ in range(order.get("interrupts", 1)):
            os.kill(os.getpid(), number)

    agents = order.get("agents", ["first", "second"])
    env, observer = Letters(agents), Moments(moment, act)
    team = Team.create(agents, TeamConfig(**{**TEAM, **order.get("team", {})}))
    algorithm = ALGORITHMS[order.get("algo", "magrpo")]()
    config = TrainerConfig(**{**TRAINER, **order.get("trainer", {})})
    trainer = Trainer(
        env, team, algorithm, config, Sampling(temperature=1.0, max_new_tokens=3), env, order["run"], observer
    )
    observer.watch(trainer)
    try:
        return {"complete": trainer.train(resume=order.get("resume", False))}
    except (Exception, KeyboardInterrupt) as error:
        return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                json.dump(train(json.loads(line)), pipe)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            told = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps({"signal": max(-status, 0), **(json.loads(told) if told else {})}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
