"""Partners of a training run, and environments of others, by the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from textmarl.benchmarks.report import write_report
from textmarl.cli import main

Training = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than such a run."""
    monkeypatch.setattr("textmarl.benchmarks.report.write_report", lambda run: run / "report.html")


def lines(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def test_a_partner_plays_in_training_in_evaluation_and_where_the_run_is_an_agent(
    small_training: Training, user_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    partner = f"python:{user_file}:shout"
    assert main(small_training(run, "--trainer.steps", "1", "--team.partners.second", partner)) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["team"]["partners"] == {"second": partner}
    (sample,) = lines(run, "samples.jsonl")
    second = sample["turns"][0]["second"]
    assert second["response"] == second["observation"].upper()
    for record in lines(run, "evaluations.jsonl"):
        assert all(e["turns"][0]["second"]["response"].startswith("WRITE ") for e in record["episodes"])
    assert write_report(run).is_file()
    assert not (run / "adapters" / "second").exists()

    assert main(["train", "--resume", str(run), "--trainer.steps", "2"]) == 0
    assert [line["step"] for line in lines(run, "metrics.jsonl")] == [1, 2]

    capsys.readouterr()
    assert main(["eval", "--agent", f"run:{run}", "--tasks", "1", "--output", "scores"]) == 0
    (episode,) = lines(tmp_path / "scores", "episodes.jsonl")
    assert episode["turns"][0]["second"]["response"].startswith("WRITE ")
    assert main(["diagnose", str(run), "--tasks", "1", "--contexts", "1", "--replays", "2"]) == 0
    assert list(json.loads((run / "diagnostics.json").read_text())["credit"]) == ["first", "all"]


def test_a_run_whose_server_goes_down_says_how_to_go_on_and_goes_on(
    small_training: Training, mock_server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, partner = tmp_path / "run", f"openai:{mock_server.url}#mine"
    words = ["--trainer.steps", "1", "--team.partners.second", partner, "--endpoint.retries", "0"]
    mock_server.script = [
        "ok",
        "ok",
        "ok",
        "ok",
        "ok",
        "500",
    ]  # an evaluation of 4 episodes, then a step of 2
    assert main(small_training(run, *words)) == 2
    told = capsys.readouterr().err
    assert told.startswith("textmarl train: after step 0: the partner 'second' gave no answer")
    assert mock_server.url in told and told.endswith(f"textmarl train --resume {run}\n")
    assert main(["train", "--resume", str(run)]) == 0
    assert len(mock_server.requests) == 6 + 2 + 4, "the step is played again, the first evaluation is not"
    assert {"model": "mine", "temperature": 0.7, "max_tokens": 6}.items() <= mock_server.requests[-1].items()
    (sample,) = lines(run, "samples.jsonl")
    assert sample["turns"][0]["second"]["response"] == "an answer"


FOREIGN = """
import threading
import pettingzoo
from pettingzoo import ParallelEnv

class Parrots(ParallelEnv):
    metadata = {"name": "parrots"}
    possible_agents = ["first", "second"]

    def __init__(self, limit=4):
        self.lock, self.limit, self.agents = threading.Lock(), limit, []

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        return dict.fromkeys(self.agents, "say something"), {}

    def step(self, actions):
        agents, self.agents = self.agents, []
        rewards = {a: float(min(len(text), self.limit)) for a, text in actions.items()}
        return dict.fromkeys(agents, ""), rewards, dict.fromkeys(agents, True), dict.fromkeys(agents, False), {}

pettingzoo.register("parallel", "user/Parrots-v0", entry_point="parrots_of_others:Parrots")
"""


def test_an_environment_of_others_that_cannot_be_copied_trains_in_chains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "parrots_of_others.py"
    file.write_text(FOREIGN, encoding="utf-8")
    words = [
        "train", "--import", str(file), "--env", "user/Parrots-v0", "--env.kwargs.limit", "3", "--team.model", "tiny",
        "--team.lora_rank", "2", "--algo.group_size", "2", "--sampling.max_new_tokens", "4", "--trainer.steps", "1",
        "--trainer.tasks_per_step", "1", "--trainer.eval_tasks", "2", "--trainer.eval_samples", "1",
    ]  # fmt: skip
    assert main([*words, "--run", "tree"]) == 2
    told = capsys.readouterr().err
    assert "parrots cannot be copied half way" in told and "algo.branching chain" in told
    assert not Path("tree").exists()
    assert main([*words, "--run", "chain", "--algo.branching", "chain"]) == 0
    (line,) = lines(Path("chain"), "metrics.jsonl")
    assert line["reward_evaluations"] == 2 and 0 <= line["score"] <= 3
    assert main(["eval", "--agent", "run:chain", "--tasks", "2"]) == 0
    capsys.readouterr()
    assert main(["diagnose", "chain"]) == 2
    assert "replays play on from copies of the environment" in capsys.readouterr().err
