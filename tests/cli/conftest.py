"""A user's file with an environment and agents, and one trained run that several tests read."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from textmarl.cli import main

USER_FILE = '''
import os, signal
import pettingzoo
from textmarl.envs import Outcome, TaskSet, TextEnv

class Vowels(TextEnv):
    """Two agents write texts with many vowels. The rest of the page."""

    possible_agents = ["first", "second"]
    term_names = ("first", "second")
    interrupt_after = None
    judged = 0

    def __init__(self, split="train", bonus: float = 1.0, **kwargs):
        tasks = TaskSet.of([{"id": f"{split}/{letter}", "text": letter} for letter in "aeiou"], split=split)
        super().__init__(tasks, max_score=2.0, **kwargs)
        self.bonus = bonus

    def observe(self, agent):
        return "Write " + self.task.data["text"]

    def judge(self, responses):
        Vowels.judged += 1
        if Vowels.judged == Vowels.interrupt_after:
            os.kill(os.getpid(), signal.SIGINT)
        letter = self.task.data["text"]
        return Outcome({a: self.bonus * min(1.0, text.count(letter) / 5) for a, text in responses.items()})

pettingzoo.register("parallel", "user/Vowels-v0", entry_point="NAME:Vowels")

def shout(text):
    return text.upper()

def last(messages: list):
    return messages[-1]["content"] * 5

def only_a(text):
    return {"Write a": "a"}[text]
'''


@pytest.fixture(scope="package")
def user_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "vowels_of_a_user.py"
    path.write_text(USER_FILE.replace("NAME", path.stem), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TEXTMARL_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="package")
def small_training(user_file: Path) -> Callable[..., list[str]]:
    """The command line of a training run of a few seconds, by its run directory and further options."""

    def words(run: Path, *more: str) -> list[str]:
        return [
            "train", "--import", str(user_file), "--env", "user/Vowels-v0", "--team.model", "tiny",
            "--team.lora_rank", "2", "--algo.group_size", "2", "--sampling.max_new_tokens", "6",
            "--trainer.tasks_per_step", "1", "--trainer.eval_tasks", "2", "--trainer.eval_samples", "2",
            "--run", str(run), *more,
        ]  # fmt: skip

    return words


@pytest.fixture(scope="package")
def trained_run(
    small_training: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder of a run of 2 steps, and what the command printed."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(small_training(run, "--trainer.steps", "2", "--transcripts", "1"))
    assert code == 0
    return run, printed.getvalue()
