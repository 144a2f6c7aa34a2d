"""Five steps of every algorithm on fixed texts: loss and gradient norm of each agent at each step.

    python tests/invariant/pinned.py     # writes pinned.json anew

Do that after a change that is *meant* to change a loss, and say in the commit why the numbers moved. A refactoring leaves
them as they are (`test_pinned.py`).

The texts come from a random generator and not from the model, so what is sampled cannot hide what is computed. The model is
`tiny` in double precision (its norms still round to single precision, which the tolerance of the test allows for), the
optimizer plain gradient descent.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textmarl.agents import Response, Sampling, Team, TeamConfig
from textmarl.algos import C3, GRPO, IGRPO, IPPO, MAGRPO, PMIC, Algorithm, CoLLM, Group, Rollout
from textmarl.algos.update import Updater
from textmarl.envs import Outcome, TaskSet, TextEnv
from textmarl.envs.protocols import Single

FILE = Path(__file__).with_name("pinned.json")
STEPS, LEARNING_RATE = 5, 0.5
SAMPLING = Sampling(temperature=0.8, max_new_tokens=7)

ALGORITHMS: dict[str, Callable[[], Algorithm]] = {
    "magrpo": lambda: MAGRPO(group_size=3),
    "magrpo, paper": lambda: MAGRPO.preset("paper"),
    "magrpo, cross": lambda: MAGRPO(group_size=2, joint_mode="cross", discount=0.9),
    "magrpo, chain": lambda: MAGRPO(group_size=4, branching="chain", length_weighting="token_mean"),
    "magrpo, clipped": lambda: MAGRPO(
        group_size=3, epochs=2, minibatches=2, kl_coef=0.1, baseline="leave_one_out"
    ),
    "magrpo, reinforce": lambda: MAGRPO(group_size=3, baseline="none", normalize="none"),
    "magrpo, max": lambda: MAGRPO(group_size=3, baseline="max", normalize="none"),
    "igrpo": lambda: IGRPO(group_size=6),
    "igrpo, fixed": lambda: IGRPO(group_size=6, partner="fixed", normalize="none"),
    "igrpo, frozen": lambda: IGRPO(group_size=6, partner="frozen"),
    "igrpo, individual": lambda: IGRPO(group_size=4, partner="aligned"),
    "c3": lambda: C3(fan_out=[2, 3]),
    "c3, clipped": lambda: C3(fan_out=3, epochs=2, normalize="std", ratio_level="sequence"),
    "ippo": lambda: IPPO(group_size=3, gae_lambda=0.9, minibatches=2),
    "ippo, turn": lambda: IPPO(group_size=3, level="turn", epochs=2, entropy_coef=0.05, discount=0.9),
    "ippo, shared": lambda: IPPO(group_size=3, critic_trunk="shared", epochs=2, normalize_advantages=False),
    "mappo": lambda: IPPO(group_size=3, critic="central", epochs=2, length_weighting="token_mean"),
    "collm, central": lambda: CoLLM(group_size=3),
    "collm, decentralized": lambda: CoLLM(group_size=3, critic="decentralized", discount=0.9),
    "pmic": lambda: PMIC(base_kwargs={"group_size": 3}, alpha=0.5, beta=0.5, embedding_size=16),
    "pmic, min, around c3": lambda: PMIC(
        base="c3", base_kwargs={"fan_out": 3}, mode="min", beta=0.5, embedding_size=16, positive_size=3
    ),
    "grpo": lambda: GRPO(group_size=4),
    "grpo, paper": lambda: GRPO.preset("paper", group_size=6, branching="chain"),
}


class Letters(TextEnv):
    """Early letters and brevity pay, to each its own part; some joint answers end the episode early."""

    possible_agents = ["first", "second"]
    tasks = TaskSet.of(["one", "another one"])
    individual_rewards = True

    def observe(self, agent: str) -> str:
        return f"{agent}: {self.task.data['text']}" if not self.history else f"again, {agent}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        own = {
            agent: sum(text.count(letter) for letter in "abcdefgh") - (0.1 + 0.2 * i) * len(text)
            for i, (agent, text) in enumerate(responses.items())
        }
        lengths = sum(map(len, responses.values()))
        return Outcome({"score": sum(own.values())}, own, finished=lengths % 4 == 0)


class Dictation:
    """Answers with texts from a random generator, and with the prompt that the policy would have read."""

    def __init__(self, policy: Any, rng: np.random.Generator):
        self.policy, self.rng = policy, rng
        self.end = policy.tokenizer.eos_token_id

    def generate(
        self, conversations: Any, sampling: Sampling, generator: Any, n: int = 1, *rest: Any
    ) -> list[list[Response]]:
        return [[self.answer(conversation) for _ in range(n)] for conversation in conversations]

    def answer(self, conversation: Any) -> Response:
        length = int(self.rng.integers(1, SAMPLING.max_new_tokens + 1))
        tokens = [int(token) for token in self.rng.integers(2, 66, size=length)]
        finished = length < SAMPLING.max_new_tokens
        tokens += [self.end] * finished
        text = self.policy.text(tokens)
        finish = "stop" if finished else "length"
        return Response(text, tokens, [-4.0] * len(tokens), finish, self.policy.encode(conversation))


def trajectory(name: str) -> list[dict[str, dict[str, float]]]:
    """For each step, agent -> its loss and the norm of its gradient."""
    algorithm = ALGORITHMS[name]()
    env: Any = Letters(max_turns=2, reward="individual" if name == "igrpo, individual" else "team")
    env = Single(env, delimiter="a") if name.startswith("grpo") else env
    agents = list(env.possible_agents)
    team = Team.create(agents, TeamConfig(model="tiny", lora_rank=4, dtype="float64", device="cpu"))
    algorithm.setup(team, 11)
    trained = {
        agent: [*policy.parameters().values(), *algorithm.parameters(agent)]
        for agent, policy in team.policies.items()
    }
    updaters = {
        agent: Updater(
            policy, algorithm, SAMPLING, torch.optim.SGD(trained[agent], lr=LEARNING_RATE), 1.0, 512
        )
        for agent, policy in team.policies.items()
    }
    found = []
    for step in range(STEPS):
        rng = np.random.default_rng([7, step])
        policies: Any = {agent: Dictation(policy, rng) for agent, policy in team.policies.items()}
        generators = {agent: torch.Generator() for agent in agents}
        rollout = Rollout(env, policies, SAMPLING, generators)
        roots = algorithm.collect(rollout, [(step, 0), (step, 1)])
        groups: dict[str, list[Group]] = {agent: [] for agent in agents}
        for group in algorithm.credit(roots, agents):
            groups[group.samples[0].agent].append(group)
        result = {
            agent: updaters[agent].update(own, np.random.default_rng([step, i]))
            for i, (agent, own) in enumerate(groups.items())
        }
        # What it learns beside the policies shows in the losses of the next step.
        algorithm.improve(np.random.default_rng([step, len(agents)]))
        found.append(
            {agent: {key: own[key] for key in ("loss", "grad_norm")} for agent, own in result.items()}
        )
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    record = {name: trajectory(name) for name in ALGORITHMS}
    FILE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {FILE}")  # noqa: T201  (run by hand)
