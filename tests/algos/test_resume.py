"""A run killed at any moment continues, and leaves the same files as one left alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LINES = ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl")


@pytest.fixture(scope="module")
def play():
    """Train in a process of its own (see killable_runs.py); return how it ended."""
    script = Path(__file__).with_name("killable_runs.py")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )

    def order(run: Path, **what) -> dict:
        process.stdin.write(json.dumps({"run": str(run), **what}) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield order
    process.stdin.close()
    process.wait(timeout=120)


@pytest.fixture(scope="module")
def alone(play, tmp_path_factory) -> Path:
    """A run of 5 steps, evaluated and checkpointed every second one, that nobody disturbed."""
    run = tmp_path_factory.mktemp("runs") / "alone"
    assert play(run) == {"signal": 0, "complete": True}
    return run


@pytest.fixture
def copy(alone, tmp_path) -> Path:
    return Path(shutil.copytree(alone, tmp_path / "copy"))


def lines(run: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


def reproducible(run: Path) -> dict[str, object]:
    """What two equal runs must share to the last bit."""
    measured = ("seconds", "rate/", "memory/")
    result: dict[str, object] = {
        name: [{k: v for k, v in line.items() if not k.startswith(measured)} for line in lines(run, name)]
        for name in LINES
        if (run / name).exists()
    }
    result["samples.jsonl"] = (run / "samples.jsonl").read_bytes()
    weights = sorted((run / "adapters").rglob("*.safetensors"))
    return result | {str(path.relative_to(run)): path.read_bytes() for path in weights}


def everything(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").glob("step-*"))


def test_the_undisturbed_run_is_what_the_others_are_measured_by(alone):
    assert [line["step"] for line in lines(alone, "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in lines(alone, "evaluations.jsonl")] == [0, 2, 4, 5]
    assert [line["step"] for line in lines(alone, "samples.jsonl")] == [1, 2, 3, 4, 5]
    assert checkpoints(alone) == ["step-000004", "step-000005"]  # keep_checkpoints: 2
    assert len({line["grad_norm/first"] for line in lines(alone, "metrics.jsonl")}) == 5  # it does train
    assert len(reproducible(alone)) == 3 + 2  # files of lines, adapters


@pytest.mark.parametrize(
    "moment",
    [
        "evaluation:0",  # before there is any checkpoint
        "update:2",  # in the middle of step 3
        "line:3",  # half a line of metrics is written
        "step:4",  # metrics are written, the checkpoint is not
        "state:4",  # half a checkpoint is written
        "evaluation:5",  # the last one
        "adapters:5",  # half of the adapters are saved
    ],
)
def test_killed_and_resumed_run_leaves_the_same_files(play, alone, tmp_path, moment):
    assert play(tmp_path / "run", kill=moment) == {"signal": signal.SIGKILL}
    assert play(tmp_path / "run", resume=True) == {"signal": 0, "complete": True}
    assert reproducible(tmp_path / "run") == reproducible(alone)
    assert checkpoints(tmp_path / "run") == checkpoints(alone)


@pytest.mark.parametrize("algo", ["ippo", "ippo, shared", "collm"])
def test_what_an_algorithm_learns_beside_the_policies_is_resumed_too(play, tmp_path, algo):
    trainer = {"steps": 4, "eval_tasks": 0}
    assert play(tmp_path / "whole", algo=algo, trainer=trainer)["complete"]
    assert play(tmp_path / "run", algo=algo, trainer=trainer, kill="update:3")["signal"] == signal.SIGKILL
    assert play(tmp_path / "run", algo=algo, trainer=trainer, resume=True)["complete"]
    whole, resumed = (reproducible(tmp_path / name) for name in ("whole", "run"))
    assert resumed == whole
    assert any(
        line.get("value_loss/first", line.get("value_loss/central")) for line in whole["metrics.jsonl"]
    )


def test_run_killed_again_and_again_leaves_the_same_files(play, alone, tmp_path):
    for resume, moment in enumerate(["state:0", "reward:1", "rename:2", "generation:3", "state:5"]):
        assert play(tmp_path / "run", resume=bool(resume), kill=moment) == {"signal": signal.SIGKILL}
    assert play(tmp_path / "run", resume=True)["complete"]
    assert reproducible(tmp_path / "run") == reproducible(alone)


def test_resuming_cuts_the_files_back_to_the_checkpoint(play, alone, tmp_path):
    run = tmp_path / "run"
    play(run, kill="step:4")
    assert [len(lines(run, name)) for name in LINES] == [
        4,
        2,
        3,
    ]  # sample and evaluation of step 4 were to come
    play(run, resume=True, kill="generation:2")
    assert [len(lines(run, name)) for name in LINES] == [2, 2, 2]
    assert reproducible_prefix(run, 2) == reproducible_prefix(alone, 2)


def reproducible_prefix(run: Path, steps: int) -> list[dict]:
    measured = ("seconds", "rate/", "memory/")
    return [
        {k: v for k, v in line.items() if not k.startswith(measured)}
        for line in lines(run, "metrics.jsonl")
        if line["step"] <= steps
    ]


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(play, alone, copy):
    state = copy / "checkpoints" / "step-000005" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    assert play(copy, resume=True)["complete"]
    assert reproducible(copy) == reproducible(alone)
    assert checkpoints(copy) == checkpoints(alone)


def test_damaged_checkpoints_throughout_are_an_error_that_changes_nothing(play, copy):
    for state in copy.glob("checkpoints/*/state.pt"):
        state.write_bytes(b"nothing")
    before = everything(copy)
    error = play(copy, resume=True)["error"]
    assert error.startswith("ValueError: none of the checkpoints in")
    assert "restore the folder from a copy, or start a new run" in error
    assert everything(copy) == before


def test_run_without_checkpoints_is_not_begun_anew_over_its_metrics(play, copy):
    shutil.rmtree(copy / "checkpoints")
    before = everything(copy)
    assert "metrics of trained steps" in play(copy, resume=True)["error"]
    assert everything(copy) == before


def test_lost_lines_are_reported_and_not_filled_up(play, copy):
    (copy / "metrics.jsonl").write_text("")
    assert "lines were lost" in play(copy, resume=True)["error"]
    assert (copy / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize("signal_name", ["interrupt", "terminate"])
def test_first_signal_ends_after_the_current_step_with_a_checkpoint(play, alone, tmp_path, signal_name):
    run = tmp_path / "run"
    assert play(run, **{signal_name: "update:2"}) == {"signal": 0, "complete": False}
    assert [line["step"] for line in lines(run, "metrics.jsonl")] == [1, 2, 3]
    assert checkpoints(run)[-1] == "step-000003"  # not a multiple of checkpoint_every
    assert play(run, resume=True)["complete"]
    assert reproducible(run) == reproducible(alone)


def test_second_interrupt_stops_at_once_and_loses_nothing(play, alone, tmp_path):
    run = tmp_path / "run"
    assert play(run, interrupt="update:3", interrupts=2)["error"].startswith("KeyboardInterrupt")
    assert [line["step"] for line in lines(run, "metrics.jsonl")] == [1, 2, 3]
    assert checkpoints(run)[-1] == "step-000002"
    assert play(run, resume=True)["complete"]
    assert reproducible(run) == reproducible(alone)


def test_interrupted_first_evaluation_is_kept(play, alone, tmp_path):
    run = tmp_path / "run"
    assert play(run, interrupt="evaluation:0") == {"signal": 0, "complete": False}
    assert checkpoints(run) == ["step-000000"]
    assert play(run, resume=True)["complete"]
    assert reproducible(run) == reproducible(alone)


def test_used_directory_is_refused_and_left_as_it_was(play, copy):
    before = everything(copy)
    error = play(copy)["error"]
    assert (
        error.startswith("ValueError") and "already holds a run; go on with it by train(resume=True)" in error
    )
    assert everything(copy) == before


def test_resuming_a_finished_run_changes_nothing(play, copy):
    before = everything(copy)
    assert play(copy, resume=True)["complete"]
    after = everything(copy)
    assert {name.split("/")[0] for name in before if after.get(name) != before[name]} <= {
        "tensorboard",  # written anew, with the same numbers
        "config.yaml",  # the copy's own path
    }
    assert {name for name in after if not name.startswith("tensorboard")} <= before.keys()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"team": {"lora_rank": 1}}, "lora_rank"),
        ({"team": {"tuning": "full"}}, "was started with team.tuning"),
        ({"team": {"lora_targets": ["q_proj"]}}, "lora_targets"),
        ({"agents": ["second", "first"]}, "agents ['first', 'second'], expected ['second', 'first']"),
        ({"agents": ["first"]}, "agents ['first', 'second'], expected ['first']"),
    ],
)
def test_checkpoint_of_another_team_is_refused_and_left_as_it_was(play, copy, changes, complaint):
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6}\n')  # what a resumed run would cut
    before = everything(copy)
    error = play(copy, resume=True, **changes)["error"]
    assert error.startswith("ValueError") and complaint in error
    assert everything(copy) == before
