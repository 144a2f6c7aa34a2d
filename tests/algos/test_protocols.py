"""Training under a protocol: who waits is not asked and learns nothing, and a text is credited with what follows it."""

from __future__ import annotations

import json
from collections import Counter as Counted
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textmarl.agents import Response, Sampling, Team, TeamConfig
from textmarl.algos import MAGRPO, Node, Rollout, Trainer, TrainerConfig
from textmarl.algos.algorithm import returns
from textmarl.envs import Outcome, TaskSet, TextEnv
from textmarl.envs.games.relay import Relay
from textmarl.envs.protocols import Discussion, Pipeline, wrap

AGENTS = ["first", "second"]


class Lengths(TextEnv):
    """Pays the numbers that were written; twice, if there are two turns."""

    possible_agents = AGENTS
    tasks = TaskSet.of(["task"])
    max_score = 100.0

    def observe(self, agent: str) -> str:
        return f"{agent}, turn {self.turn}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        return Outcome({"score": 10.0 * int(responses["first"]) + int(responses["second"])})


class Counter:
    """Stands in for a policy: writes 1, 2, 3, ... over all its answers, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []

    def generate(
        self, conversations: Any, sampling: Any, generator: Any, n: int = 1, *rest: Any
    ) -> list[list[Response]]:
        start = n * len(self.asked)
        self.asked += conversations
        numbers = [[start + i * n + k + 1 for k in range(n)] for i in range(len(conversations))]
        return [[Response(str(k), [k], [-1.0], "stop", [0]) for k in row] for row in numbers]


def play(env: Any, **settings: Any) -> tuple[MAGRPO, Node, dict[str, Counter], Rollout]:
    algorithm = MAGRPO(group_size=3, **settings)
    policies = {agent: Counter() for agent in env.possible_agents}
    generators = {agent: torch.Generator() for agent in policies}
    rollout = Rollout(env, policies, Sampling(), generators)  # type: ignore[arg-type]
    (root,) = algorithm.collect(rollout, [(0, 0)])
    return algorithm, root, policies, rollout


def test_in_a_pipeline_only_the_agent_whose_turn_it_is_is_asked() -> None:
    _, root, policies, rollout = play(Pipeline(Lengths()))
    assert policies["first"].asked == [[{"role": "user", "content": "first, turn 0"}]]
    assert [asked[-1]["content"] for asked in policies["second"].asked] == [
        f"second, turn 0\n\nfirst wrote:\n{number}" for number in (1, 2, 3)
    ]
    assert [response.text for response in root.responses["second"]] == ["", "", ""]
    assert [response.text for response in root.children()[2].responses["second"]] == ["7", "8", "9"]
    assert rollout.cost.reward_evaluations == 9, "passing a text on is no evaluation of the reward"


def test_a_text_is_credited_with_the_mean_of_what_followed_it_and_silence_with_nothing() -> None:
    algorithm, root, _, _ = play(Pipeline(Lengths()), normalize="none")
    # first writes 1, 2, 3; after g the second writes 3g - 2, 3g - 1, 3g.
    expected = np.array([10.0 * g + (3 * g - 1) for g in (1, 2, 3)])
    assert returns(root, 1.0)[:, 0] == pytest.approx(expected)
    assert not root.rewards.any(), "nothing is paid before the last stage"
    groups = list(algorithm.credit([root], AGENTS))
    assert [group.samples[0].agent for group in groups] == ["first", "second", "second", "second"]
    assert [s.advantage for s in groups[0].samples] == pytest.approx((expected - expected.mean()).tolist())
    for group in groups[1:]:
        assert [s.advantage for s in group.samples] == pytest.approx([-1.0, 0.0, 1.0])
    # As in every tree, what follows one of three joint actions has a third of its weight.
    assert [group.samples[0].weight for group in groups] == pytest.approx([1 / 3, 1 / 9, 1 / 9, 1 / 9])


def test_who_waits_adds_nothing_to_cross_joint_actions() -> None:
    _, root, _, rollout = play(Pipeline(Lengths()), joint_mode="cross")
    assert root.joint_actions == [(0, 0), (1, 0), (2, 0)]
    assert [child.joint_actions for child in root.children()] == [[(0, 0), (0, 1), (0, 2)]] * 3
    assert rollout.cost.reward_evaluations == 9


@pytest.mark.parametrize("branching", ["tree", "chain"])
@pytest.mark.parametrize("kind", [Pipeline, Discussion])
def test_conversations_alternate_between_what_was_read_and_what_was_written(
    kind: Any, branching: Any
) -> None:
    _, _, policies, rollout = play(kind(Lengths(max_turns=2)), branching=branching)
    for policy in policies.values():
        for conversation in policy.asked:
            roles = [message["role"] for message in conversation]
            assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))] and len(roles) % 2
            assert all(message["content"] for message in conversation)
    if branching == "chain":
        assert rollout.cost.reward_evaluations == 2 * 3


def test_in_relay_only_the_player_in_turn_is_asked_and_learns() -> None:
    algorithm, root, policies, rollout = play(Relay(n_agents=3), normalize="none", baseline="none")
    players = list(policies)
    assert [len(policy.asked) for policy in policies.values()] == [1, 3, 9], (
        "one for each history of its turn"
    )
    assert all(len(conversation) == 1 for policy in policies.values() for conversation in policy.asked)
    assert "The secret word is" in policies["player_0"].asked[0][0]["content"]
    for history, conversation in enumerate(policies["player_1"].asked, start=1):
        assert f"The message of player_0: {history}\n" in conversation[0]["content"]
    groups = list(algorithm.credit([root], players))
    assert Counted(group.samples[0].agent for group in groups) == {
        "player_0": 1,
        "player_1": 3,
        "player_2": 9,
    }
    assert all(sample.token_ids for group in groups for sample in group.samples)
    # The third player writes the numbers 1 to 27; with four words only one of 1, 2, 3, 4 can name the secret, and 5
    # and above name none. What comes of it reaches the first player as the mean over the nine episodes that follow.
    secret = root.envs[0].task.data["secret"] + 1
    paid = [1.0 if n == secret else 0.0 if n <= 4 else -1.0 for n in range(1, 28)]
    by_message = np.array(paid).reshape(3, 9).mean(axis=1)
    assert [s.advantage for s in groups[0].samples] == pytest.approx(by_message.tolist())
    assert rollout.cost.reward_evaluations == 3 + 9 + 27


@pytest.mark.parametrize("protocol", ["pipeline", "discussion", "single"])
def test_a_team_is_trained_under_a_protocol(protocol: Any, tmp_path: Path) -> None:
    class Letters(Lengths):
        def judge(self, responses: dict[str, str]) -> Outcome:
            return Outcome({"score": float(sum(c.isalpha() for text in responses.values() for c in text))})

    # A single agent is paid for texts with a delimiter only: one that a random text often has.
    single = protocol == "single"
    env = wrap(Letters(reward_shift=-2.0), {"name": "single", "delimiter": "e"} if single else protocol)
    team = Team.create(env.possible_agents, TeamConfig(model="tiny", lora_rank=4, device="cpu"))
    trainer = Trainer(
        env,
        team,
        MAGRPO(group_size=4),
        TrainerConfig(steps=1, tasks_per_step=1, eval_tasks=1, eval_samples=1),
        Sampling(temperature=1.0, max_new_tokens=40 if single else 4),
        eval_env=env,
        run=tmp_path / "run",
    )
    assert trainer.train()
    (metrics,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert all(metrics[f"grad_norm/{agent}"] > 0 for agent in env.possible_agents)
    assert metrics["return"] == pytest.approx(metrics["score"] - 2.0), "the shift is paid once a scored turn"
    assert metrics["reward_evaluations"] == (4 if protocol == "single" else 4**2)
    (sample,) = map(json.loads, (tmp_path / "run" / "samples.jsonl").read_text().splitlines())
    acting = {"pipeline": [["first"], ["second"]], "discussion": [AGENTS, AGENTS], "single": [["agent"]]}
    assert [list(turn) for turn in sample["turns"]] == acting[protocol]


# ------------------------------------------------------------------------------------------- room for an answer

LIMIT = 4096  # tokens that the tiny model reads, a character each
ANSWER = 4


class Long(Lengths):
    """The second agent reads a text of `size` characters; who judges is counted."""

    judged = 0

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        self.size = size

    def observe(self, agent: str) -> str:
        return "x" * self.size if agent == "second" and self.turn == 0 else "go on"

    def judge(self, responses: dict[str, str]) -> Outcome:
        type(self).judged += 1
        return Outcome({"score": 0.0})


def trainer_of(env: Any, run: Path, evaluated: bool = False) -> Trainer:
    team = Team.create(
        env.possible_agents, TeamConfig(model="tiny", lora_rank=2, lora_targets=["q_proj"], device="cpu")
    )
    return Trainer(
        env,
        team,
        MAGRPO(group_size=2),
        TrainerConfig(steps=1, tasks_per_step=1, eval_tasks=1, eval_samples=1),
        Sampling(temperature=1.0, max_new_tokens=ANSWER),
        eval_env=env if evaluated else None,
        run=run,
    )


@pytest.mark.parametrize("order", [["first", "second"], ["second", "first"]])
def test_a_prompt_without_room_is_refused_before_anything_is_done_wherever_its_agent_stands(
    order: list[str], tmp_path: Path
) -> None:
    Long.judged = 0
    with pytest.raises(ValueError, match=f"task 'task/0': agent 'second'.* exceed the {LIMIT} tokens"):
        trainer_of(Pipeline(Long(LIMIT), order), tmp_path / "run").train()
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert Long.judged == 0, "no reward is computed to look ahead"


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_prompt_that_only_the_others_texts_make_too_long_is_named_where_it_is_met(
    evaluated: bool, tmp_path: Path
) -> None:
    # Its own text, the line that names the writer (with a blank line before it and the end of line), the final blank
    # line of a conversation and the answer fill the model to the last token: a first agent that writes has no room.
    own = LIMIT - ANSWER - len("\n\nfirst wrote:\n") - len("\n\n")
    with pytest.raises(
        ValueError, match=r"task 'task/0', step 2: agent 'second': a conversation of \d+ tokens"
    ):
        trainer_of(Pipeline(Long(own)), tmp_path / "run", evaluated).train()
    with pytest.raises(ValueError, match="task 'task/0': agent 'second'"):
        trainer_of(Pipeline(Long(own + 1)), tmp_path / "longer").train()


def test_looking_ahead_takes_the_steps_that_only_pass_texts_on() -> None:
    for protocol, passing in (
        ("pipeline", [True, False]),
        ({"name": "discussion", "rounds": 2}, [True, True, False]),
    ):
        env = wrap(Lengths(), protocol)  # type: ignore[arg-type]
        assert env.passes_on is False, "no episode is running"
        env.reset(seed=0)
        seen = []
        while env.agents:
            seen.append(env.passes_on)
            env.step(dict.fromkeys(env.acting, "1"))
        assert seen == passing and env.passes_on is False
