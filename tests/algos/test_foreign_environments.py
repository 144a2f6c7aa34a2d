"""The trainer takes any PettingZoo environment of texts, also one that knows nothing of textmarl or cannot be copied."""

from __future__ import annotations

import threading
from typing import ClassVar

import numpy as np
import pytest
from gymnasium.spaces import Text
from pettingzoo import ParallelEnv

from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.algos import C3, IGRPO, MAGRPO, PMIC, CoLLM, RunDirectory, Trainer, TrainerConfig


class Plain(ParallelEnv):
    """A ParallelEnv that knows nothing of textmarl: no tasks, empty infos, no score."""

    metadata = {"name": "plain_v0"}
    possible_agents = ["left", "right"]

    def __init__(self, infos=None):
        self.infos, self.turn, self.agents = infos or {}, 0, []

    def observation_space(self, agent):
        return Text(100)

    def action_space(self, agent):
        return Text(100)

    def reset(self, seed=None, options=None):
        self.turn, self.agents = 0, list(self.possible_agents)
        return {a: f"{a} {seed}" for a in self.agents}, {}

    def step(self, actions):
        self.turn += 1
        acting = self.agents
        if self.turn == 2:
            self.agents = []
        rewards = {a: np.float32(len(text) + 1) for a, text in actions.items()}
        ended = dict.fromkeys(acting, False), dict.fromkeys(acting, self.turn == 2)
        return dict.fromkeys(acting, "go on"), rewards, *ended, self.infos


def train(run, env, eval_env=None, algorithm=None, agents=("left", "right"), **config) -> RunDirectory:
    """Trains two steps, unless told otherwise, with two responses an agent."""
    team = TeamConfig(model="tiny", lora_rank=4, lora_targets=["q_proj"], device="cpu")
    assert Trainer(
        env,
        Team.create(agents, team),
        algorithm or MAGRPO(group_size=2),
        TrainerConfig(**{"steps": 2, "warmup_steps": 0, "eval_tasks": 2, "eval_samples": 2, "tasks_per_step": 1, **config}),
        Sampling(temperature=1.0, max_new_tokens=4),
        eval_env,
        run,
    ).train()  # fmt: skip
    return RunDirectory(run)


def test_parallel_env_of_others_is_trained_and_evaluated(tmp_path):
    run = train(tmp_path, Plain(), Plain(), samples_every=1)
    first, _ = run.read("metrics.jsonl")
    assert "score_percent" not in first
    assert first["score"] == pytest.approx(
        first["return"]
    )  # without a score, rewards are summed, as in evaluation
    (sample, _) = run.read("samples.jsonl")
    lengths = [[len(own["response"]) + 1 for own in turn.values()] for turn in sample["turns"]]
    assert sample["score"] == pytest.approx(sum(np.mean(turn) for turn in lengths))
    record = run.read("evaluations.jsonl")[0]
    assert len(record["episodes"]) == 4 and record["max_score"] is None


@pytest.mark.parametrize(
    "algorithm", [CoLLM(group_size=2), PMIC(base="collm", base_kwargs={"group_size": 2})]
)
def test_a_critic_for_all_refuses_agents_that_are_paid_differently(tmp_path, algorithm):
    with pytest.raises(ValueError, match=r"paid \{'left': .*set algo.critic to decentralized"):
        train(tmp_path / "central", Plain(), algorithm=algorithm, samples_every=0)
    train(tmp_path / "own", Plain(), algorithm=CoLLM(group_size=2, critic="decentralized"))


def test_numbers_of_numpy_in_infos_are_written_as_numbers(tmp_path):
    info = {"score": np.float32(0.5), "reward_terms": {"half": np.float32(0.5), "whole": np.int64(0)}}
    run = train(tmp_path, Plain({"left": info, "right": info}), steps=1)
    (line,) = run.read("metrics.jsonl")
    assert (line["score"], line["terms/half"], line["terms/whole"]) == (0.5, 0.5, 0)
    assert run.read("samples.jsonl")[0]["reward_terms"] == {"half": 0.5, "whole": 0}


# --------------------------------------------------------------------- environments that cannot be copied


class Locked(ParallelEnv):
    """Holds a lock, names no metadata, lists its live agents in another order, reads few characters, and is closed."""

    possible_agents: ClassVar[list[str]] = ["left", "right"]
    alive: ClassVar[set[int]] = set()
    made: ClassVar[int] = 0

    def __init__(self):
        self.lock = threading.Lock()
        self.agents, self.turn, self.said = [], 0, ""
        Locked.alive.add(id(self))
        Locked.made += 1

    def observation_space(self, agent):
        return Text(100)

    def action_space(self, agent):
        return Text(10, charset="ab")

    def reset(self, seed=None, options=None):
        self.agents, self.turn, self.said = ["right", "left"], 0, ""
        return {a: f"{a} {seed}" for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions):
        assert all(type(text) is str for text in actions.values())
        self.turn, acting = self.turn + 1, self.agents
        self.said += actions["left"] + actions["right"]
        if self.turn == 2:
            self.agents = []
        rewards = {a: len(self.said) + (a == "left") for a in acting}
        ended = dict.fromkeys(acting, self.turn == 2), dict.fromkeys(acting, False)
        return dict.fromkeys(acting, f"so far: {self.said}"), rewards, *ended, {a: {} for a in acting}

    def close(self):
        Locked.alive.discard(id(self))


CHAIN = MAGRPO(group_size=3, branching="chain")


@pytest.mark.parametrize("algorithm", [CHAIN, IGRPO(group_size=4)], ids=["magrpo, chain", "igrpo"])
def test_chains_are_played_in_an_instance_for_each_episode(tmp_path, algorithm):
    Locked.alive, Locked.made = set(), 0
    run = train(tmp_path, Locked, Locked, algorithm)
    for step in run.read("metrics.jsonl"):
        assert step["reward_evaluations"] == 2 * algorithm.group_size
    (sample, _) = run.read("samples.jsonl")
    first, second = sample["turns"]
    assert second["left"]["observation"] == "so far: " + "".join(
        first[a]["response"] for a in ("left", "right")
    )
    # Two to look at, one to try to copy; two evaluations of two tasks twice; one for each episode of two steps.
    assert Locked.made == 3 + 2 * 4 + 2 * algorithm.group_size
    assert len(Locked.alive) == 2, "what was made for an episode is closed after it"


@pytest.mark.parametrize(
    "algorithm",
    [MAGRPO(group_size=2), MAGRPO(group_size=2, joint_mode="cross"), C3()],
    ids=["tree", "cross", "c3"],
)
def test_who_plays_on_twice_from_one_history_needs_copies(tmp_path, algorithm):
    with pytest.raises(ValueError, match=r"Locked cannot be copied half way.*algo\.branching chain"):
        train(tmp_path, Locked, algorithm=algorithm)


def test_one_instance_that_cannot_be_copied_is_refused_with_what_to_give(tmp_path):
    with pytest.raises(ValueError, match=r"Locked cannot be copied .*give a function that makes one"):
        train(tmp_path, Locked(), algorithm=CHAIN)
    with pytest.raises(ValueError, match="give a function that makes one"):
        train(tmp_path, Plain(), Locked(), algorithm=CHAIN)


class Generating(Plain):
    """Can be copied until an episode begins: then it holds a generator."""

    def reset(self, seed=None, options=None):
        self.stream = (n for n in range(10))
        return super().reset(seed, options)


def test_what_can_be_copied_before_an_episode_begins_needs_no_function(tmp_path):
    run = train(tmp_path, Generating(), Generating(), CHAIN, steps=1)
    assert run.read("metrics.jsonl")[0]["reward_evaluations"] == 6
    with pytest.raises(ValueError, match="generator"):
        train(tmp_path / "tree", Generating())


def test_instances_that_begin_differently_are_no_group(tmp_path):
    class Unseeded(Locked):
        def reset(self, seed=None, options=None):
            return super().reset(id(self), options)

    with pytest.raises(ValueError, match=r"reset with the seed \d+ and show the agents different texts"):
        train(tmp_path, Unseeded, algorithm=CHAIN)


def test_an_observation_that_is_no_text_is_refused_by_its_agent(tmp_path):
    class Numbers(Plain):
        def reset(self, seed=None, options=None):
            super().reset(seed, options)
            return {"left": "text", "right": 3}, {}

    with pytest.raises(TypeError, match="observation of agent 'right' is int, expected a str"):
        train(tmp_path, Numbers())
