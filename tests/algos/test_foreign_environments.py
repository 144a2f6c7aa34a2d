"""The trainer takes any PettingZoo environment of texts, also one that knows nothing of textmarl."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Text
from pettingzoo import ParallelEnv

from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.algos import MAGRPO, RunDirectory, Trainer, TrainerConfig


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


def train(run, env, eval_env=None, **config) -> RunDirectory:
    """Trains two steps, unless told otherwise, with two responses an agent."""
    team = TeamConfig(model="tiny", lora_rank=4, lora_targets=["q_proj"], device="cpu")
    assert Trainer(
        env,
        Team.create(env.possible_agents, team),
        MAGRPO(group_size=2),
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


def test_numbers_of_numpy_in_infos_are_written_as_numbers(tmp_path):
    info = {"score": np.float32(0.5), "reward_terms": {"half": np.float32(0.5), "whole": np.int64(0)}}
    run = train(tmp_path, Plain({"left": info, "right": info}), steps=1)
    (line,) = run.read("metrics.jsonl")
    assert (line["score"], line["terms/half"], line["terms/whole"]) == (0.5, 0.5, 0)
    assert run.read("samples.jsonl")[0]["reward_terms"] == {"half": 0.5, "whole": 0}
