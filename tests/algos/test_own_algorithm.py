"""An algorithm in a file of one's own is trained like a built-in one."""

from __future__ import annotations

import json
import math
import runpy
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import yaml

from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.algos import MAGRPO, Trainer, TrainerConfig, resolve
from textmarl.envs import Outcome, TaskSet, TextEnv

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_algorithm.py"


class Vowels(TextEnv):
    possible_agents = ["first", "second"]
    tasks = TaskSet.of(["one", "two"])

    def observe(self, agent):
        return f"{agent}: {self.task.data['text']}"

    def judge(self, responses):
        return Outcome({"score": sum(text.count("a") + len(text) for text in responses.values()) / 32})


def train(algorithm, run, env=None):
    env = env or Vowels()
    team = Team.create(
        env.possible_agents, TeamConfig(model="tiny", device="cpu", lora_rank=4, lora_targets=["q_proj"])
    )
    Trainer(
        env, team, algorithm, TrainerConfig(steps=2, warmup_steps=0), Sampling(1.0, max_new_tokens=8), run=run
    ).train()
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_own_algorithm_is_found_by_file_and_class_or_by_the_file_alone():
    own = resolve(f"{EXAMPLE}:BetterPart")
    assert own.__name__ == "BetterPart" and issubclass(own, MAGRPO)
    assert resolve(str(EXAMPLE)).__name__ == "BetterPart"
    assert {field.name for field in fields(own)} - {field.name for field in fields(MAGRPO)} == {"keep"}


def test_own_algorithm_is_trained_and_its_settings_are_recorded(tmp_path):
    algorithm = resolve(f"{EXAMPLE}:BetterPart")(group_size=8, keep=0.25)
    metrics = train(algorithm, tmp_path / "run")
    assert all(math.isfinite(value) for line in metrics for value in line.values())
    assert metrics[0]["grad_norm/first"] > 0
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["algo"]["keep"] == 0.25


def test_own_algorithm_changes_what_is_learned_and_not_what_is_sampled(tmp_path):
    own = train(resolve(str(EXAMPLE))(group_size=8), tmp_path / "own")[0]
    base = train(MAGRPO(group_size=8), tmp_path / "base")[0]
    assert own["score"] == base["score"] and own["generated_tokens"] == base["generated_tokens"]
    assert own["loss/first"] != base["loss/first"]


def test_example_does_what_it_says():
    algorithm = resolve(str(EXAMPLE))(keep=0.5)
    credits = np.array([1.0, 4.0, 2.0, 3.0])
    expected = MAGRPO().advantages(credits)
    np.testing.assert_array_equal(algorithm.advantages(credits), [0, expected[1], 0, expected[3]])


def test_ten_lines_without_a_base_are_enough(tmp_path):
    """The whole of an algorithm: what is collected, what credit it gets, what the loss is."""
    file = tmp_path / "plain.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from textmarl.algos import Algorithm, Group, Sample\n\n"
        "@dataclass\n"
        "class Plain(Algorithm):\n"
        "    bar: float = 0.3\n"
        "    def collect(self, rollout, tasks):\n"
        "        return rollout.collect(tasks, 2)\n"
        "    def credit(self, roots, agents):\n"
        "        for root, (i, agent) in ((root, own) for root in roots for own in enumerate(agents)):\n"
        "            r = root.rewards[:, i]\n"
        "            yield Group([Sample(agent, a.prompt_ids, a.token_ids, a.logprobs, a.finish, x - self.bar, 1 / 4)\n"
        "                         for a, x in zip(root.responses[agent], r)], r)\n"
        "    def loss(self, batch):\n"
        "        return -(batch.weights[:, None] * batch.advantages * batch.logprobs).sum()\n"
    )
    metrics = train(resolve(f"{file}:Plain")(bar=0.1), tmp_path / "run")
    assert [line["reward_evaluations"] for line in metrics] == [4, 4]
    assert metrics[0]["grad_norm/second"] > 0


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("magrppo", "unknown algorithm 'magrppo'; there are: c3, collm, grpo, igrpo, ippo, magrpo"),
        ("nowhere.py:Mine", "'nowhere.py' does not exist"),
        (f"{EXAMPLE}:Best", r"to define the Algorithm 'Best'; it defines: BetterPart"),
        (str(Path(__file__)), r"one Algorithm in .*; it defines: none"),
    ],
)
def test_missing_algorithm_is_reported_with_what_there_is(name, complaint):
    with pytest.raises(ValueError, match=complaint):
        resolve(name)


def test_own_algorithm_trains_in_the_own_environment_of_the_other_example(tmp_path):
    env = runpy.run_path(str(EXAMPLE.with_name("own_environment.py")), run_name="example")["Letters"]()
    metrics = train(resolve(str(EXAMPLE))(group_size=4), tmp_path / "run", env)
    assert [line["step"] for line in metrics] == [1, 2]
    assert 0 < metrics[0]["score"] <= 1
