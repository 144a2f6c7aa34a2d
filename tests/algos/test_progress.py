"""What a run begun from Python says while it goes on: through `logging`, and in log.txt."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pettingzoo
import pytest

pytest.importorskip("torch")

import textmarl.envs  # noqa: F401  (registers the environments)
from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.algos import MAGRPO, Observer, Trainer, TrainerConfig


def train(run: Path, observer: Observer | None = None, tuning: Any = "full", steps: int = 2) -> None:
    env = pettingzoo.make("parallel", "textmarl/Chorus-v0", n_agents=2)
    team = Team.create(env.possible_agents, TeamConfig(model="tiny", tuning=tuning, device="cpu"))
    Trainer(
        env,
        team,
        MAGRPO(group_size=2),
        TrainerConfig(steps=steps, tasks_per_step=1, eval_samples=1, eval_every=0),
        Sampling(temperature=1.0, max_new_tokens=2),
        eval_env=env,
        run=run,
        observer=observer,
    ).train()


def test_every_step_and_evaluation_is_logged_and_kept_in_log_txt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "textmarl.algos"):
        train(tmp_path)
    said = [record.getMessage() for record in caplog.records if record.name == "textmarl.algos.trainer"]
    scores = [json.loads(line)["score"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.split(":")[0] for line in said] == [
        "player_0, player_1",
        "evaluation of the untrained team",
        "step 1 of 2",
        "step 2 of 2",
        "evaluation after step 2",
    ]
    assert "prompts shared" in said[0]  # the path that both policies take
    for line, score in zip(said[2:4], scores, strict=True):
        assert f": score {score:.3f} in " in line
    kept = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line.partition("  ")[2] for line in kept] == said


def test_an_observer_that_keeps_the_log_itself_finds_it_untouched(tmp_path: Path) -> None:
    class Keeper(Observer):
        keeps_log = True

    train(tmp_path, Keeper(), steps=1)
    assert not (tmp_path / "log.txt").exists()


@pytest.mark.parametrize(("tuning", "warned"), [("lora", True), ("full", False)])
def test_a_lora_adapter_on_random_weights_is_warned_of_with_the_settings_that_learn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tuning: str, warned: bool
) -> None:
    class Listener(Observer):
        def __init__(self) -> None:
            self.messages: list[str] = []

        def message(self, text: str) -> None:
            self.messages.append(text)

    listener = Listener()
    train(tmp_path, listener, tuning, steps=1)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    for said in (listener.messages, warnings):
        advice = [text for text in said if "random weights" in text]
        assert len(advice) == warned
        assert all("tuning full" in text and "games_tiny.yaml" in text for text in advice)
