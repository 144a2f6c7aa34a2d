"""`textmarl diagnose` on a finished run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from textmarl.algos import actor_critic
from textmarl.cli import main


def test_a_finished_run_is_diagnosed_in_a_table_and_json(
    trained_run: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained_run
    words = ["diagnose", str(run), "--tasks", "2", "--contexts", "2", "--replays", "2", "--seed", "3"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "credit of magrpo in user/Vowels-v0: 2 replays a response" in printed
    assert all(word in printed for word in ("fidelity", "reliability", "influence", "first", "second", "all"))
    record = json.loads((run / "diagnostics.json").read_text(encoding="utf-8"))
    assert list(record["credit"]) == ["first", "second", "all"]
    assert record["credit"]["all"]["contexts"] == 4 and record["algo"]["group_size"] == 2
    # 2 tasks of 2 joint actions; 2 agents' 2 groups of 2 responses, 2 replays each, and as many drawn freely for both
    # agents of a task together; a candidate for influence twice in each of 4 groups.
    assert record["cost"]["reward_evaluations"] == 4 + 16 + 16 + 8
    assert main(words) == 0
    assert json.loads((run / "diagnostics.json").read_text(encoding="utf-8")) == record


def test_credit_is_that_of_the_critics_that_a_run_has_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = [
        "train",
        "--env",
        "textmarl/Climbing-v0",
        "--algo",
        "collm",
        "--algo.group_size",
        "2",
        "--run",
        str(run),
    ]
    words += [
        "--team.model",
        "tiny",
        "--team.device",
        "cpu",
        "--trainer.steps",
        "2",
        "--trainer.eval_tasks",
        "0",
    ]
    assert main([*words, "--sampling.max_new_tokens", "2", "--trainer.tasks_per_step", "1"]) == 0
    estimate, values = actor_critic.estimate, []

    def watched(critic: Any, positions: list[Any], max_tokens: int) -> None:
        estimate(critic, positions, max_tokens)
        values.extend(value for own in positions for value in own.old_values)

    monkeypatch.setattr(actor_critic, "estimate", watched)
    words = [
        "diagnose",
        str(run),
        "--tasks",
        "1",
        "--contexts",
        "1",
        "--replays",
        "2",
        "--team.device",
        "cpu",
    ]
    assert main(words) == 0
    assert any(values), "an untrained critic values everything at 0"
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.jsonl").unlink()
    capsys.readouterr()
    assert main(words) == 2
    assert "has no checkpoint, where collm keeps what its credit depends on" in capsys.readouterr().err


def test_what_an_algorithm_learned_beside_the_policies_is_taken_up(
    user_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from textmarl.algos import PMIC

    words = ["--import", str(user_file), "--env", "user/Vowels-v0", "--algo", "pmic", "--team.model", "tiny"]
    words += ["--team.lora_rank", "2", "--team.device", "cpu", "--max-new-tokens", "4", "--temperature", "1"]
    words += ["--trainer.steps", "1", "--trainer.eval_tasks", "0", "--algo.base_kwargs.group_size", "4"]
    assert main(["train", *words, "--run", "run"]) == 0
    credit, updates = PMIC.credit, []

    def watched(algorithm: PMIC, roots: Any, agents: Any) -> Any:
        updates.append(int(algorithm.estimators["upper"].trained))
        return credit(algorithm, roots, agents)

    monkeypatch.setattr(PMIC, "credit", watched)
    diagnose = ["diagnose", "run", "--tasks", "1", "--contexts", "1", "--replays", "2"]
    assert main(diagnose) == 0
    assert updates == [PMIC().estimator_updates]
    shutil.rmtree("run/checkpoints")
    assert main(diagnose) == 2
    assert "none of the checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["nowhere"], "'nowhere' has no config.yaml"), ([".", "--replay", "3"], "unknown option --replay")],
)
def test_what_is_no_run_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diagnose", *words]) == 2
    assert message in capsys.readouterr().err


def test_numbers_that_tell_nothing_are_refused(
    trained_run: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained_run
    assert main(["diagnose", str(run), "--tasks", "0"]) == 2
    assert "--tasks and --batch-size must be at least 1" in capsys.readouterr().err
    assert main(["diagnose", str(run), "--replays", "1"]) == 2
    assert "2 or more replays" in capsys.readouterr().err
