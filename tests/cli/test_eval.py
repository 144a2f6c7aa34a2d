"""`textmarl eval` with models behind servers, trained runs and scripts: what is played, printed, kept and continued."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from textmarl.cli import main

SOLVED = '''
import pettingzoo
from textmarl.envs import Outcome, TaskSet, TextEnv

class Solved(TextEnv):
    """Solved where the answer is the task's letter."""

    possible_agents = ["solver"]
    metric_names = ("solved", "length")
    success_metric = "solved"

    def __init__(self, split="train", **kwargs):
        super().__init__(TaskSet.of(["a", "b"]), **kwargs)

    def observe(self, agent):
        return "Write a letter."

    def judge(self, responses):
        text = responses["solver"]
        right = float(text == self.task.data["text"])
        return Outcome({"score": right}, metrics={"solved": right, "length": float(len(text))})

pettingzoo.register("parallel", "user/Solved-v0", entry_point="solved_env:Solved")

def alternate(text, answers=iter("aababb" * 2)):
    return next(answers)
'''


def episodes(folder: str) -> list[dict[str, Any]]:
    lines = (Path(folder) / "episodes.jsonl").read_text(encoding="ascii").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def vowels(user_file: Path) -> list[str]:
    return ["eval", "--import", str(user_file), "--env", "user/Vowels-v0"]


def test_seats_may_have_models_of_their_own(
    vowels: list[str], mock_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mock_server.answer = lambda body: "aaaaa" if body["model"] == "org/a:1" else "aa"
    words = ["--agent", f"first=openai:{mock_server.url}#org/a:1", "--agent", f"openai:{mock_server.url}#b"]
    words += ["--tasks", "1", "--temperature", "0.5", "--max-new-tokens", "9", "--sampling.top_k", "4"]
    assert main([*vowels, *words, "--endpoint.extra_body.min_p", "0.1", "--output", "out"]) == 0
    text = capsys.readouterr().out
    assert "1.400" in text and "70.0" in text  # 5/5 and 2/5 of a maximum of 2
    assert "mean response 7.0 tokens, 0 % cut at the limit" in text
    assert "in all 22 tokens read and 14 written" in text  # the mock counts 11 and 7 an answer
    assert f"second: openai:{mock_server.url}#b" in text
    sent = {request["model"]: request for request in mock_server.requests}
    assert set(sent) == {"org/a:1", "b"}
    assert sent["b"]["temperature"] == 0.5 and sent["b"]["max_tokens"] == 9
    assert (sent["b"]["top_k"], sent["b"]["min_p"]) == (4, 0.1)
    assert episodes("out")[0]["turns"][0]["first"]["prompt_tokens"] == 11


def test_failed_episodes_are_told_and_played_again(
    vowels: list[str], mock_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mock_server.default = lambda body: (
        "400" if body["messages"][0]["content"] in ("Write e", "Write o") else "ok"
    )
    words = [*vowels, "--agent", f"openai:{mock_server.url}#m", "--output", "my out"]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "3 tasks, 3 episodes, 2 FAILED" in captured.out
    assert "2 of 5 episodes FAILED, and no score counts them; go on with: textmarl eval" in captured.err
    assert "--output 'my out'" in captured.err
    assert (
        "\n  2 x " in captured.err and "HTTP 400 Bad Request: the mock was told to answer 400" in captured.err
    )
    before = len(mock_server.requests)
    mock_server.default = "ok"
    assert main(words) == 0
    assert len(mock_server.requests) == before + 4  # two episodes of two agents
    assert "FAILED" not in "".join(capsys.readouterr())
    assert {episode["task_id"] for episode in episodes("my out")} == {f"test/{vowel}" for vowel in "aeiou"}


def test_a_server_that_fails_always_leaves_no_score(
    vowels: list[str], mock_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    mock_server.default = "404"
    assert main([*vowels, "--agent", f"openai:{mock_server.url}#m"]) == 1
    captured = capsys.readouterr()
    assert "mean" not in captured.out
    assert "5 of 5 episodes FAILED" in captured.err and "with --output DIR" in captured.err


def test_a_partner_that_does_not_answer_ends_play_with_the_reason(
    vowels: list[str],
    mock_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mock_server.default = "404"
    monkeypatch.setattr("sys.stdin", io.StringIO("aaa\n\n"))
    assert main(["play", *vowels[1:], "--agent", f"openai:{mock_server.url}#m"]) == 2
    assert "second does not answer: http" in capsys.readouterr().err


def test_the_key_reaches_the_server_and_nothing_else(
    vowels: list[str],
    mock_server: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LAB_KEY", "sk-very-secret")
    mock_server.script = ["echoes_the_key"]
    words = ["--agent", f"openai:{mock_server.url}#m", "--endpoint.api_key_env", "LAB_KEY", "--output", "out"]
    assert main([*vowels, *words]) == 1
    assert {headers["Authorization"] for headers in mock_server.headers} == {"Bearer sk-very-secret"}
    kept = [path.read_text() for path in Path("out").iterdir()]
    assert len(kept) == 4 and "sk-very-secret" not in "".join([*kept, *capsys.readouterr()])


def test_endpoints_functions_and_random_agents_never_import_torch(mock_server: Any, user_file: Path) -> None:
    code = f"""
import sys
from textmarl.cli import main
common = ["eval", "--import", {str(user_file)!r}, "--env", "user/Vowels-v0", "--agent"]
assert main([*common, "second=openai:{mock_server.url}#m", "--agent", "random", "--output", "a"]) == 0
assert main([*common, "python:{user_file}:shout", "--output", "b"]) == 0
print(sorted({{"torch", "transformers", "datasets", "peft", "evaluate"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
    assert len(episodes("a")) == len(episodes("b")) == 5


def test_scripts_are_a_text_or_one_reply_a_turn(
    vowels: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("always.txt").write_text("aaa", encoding="utf-8")
    Path("turns.json").write_text('["x", "aaaaa"]', encoding="utf-8")
    words = [
        *vowels,
        "--agent",
        "first=scripted:always.txt",
        "--agent",
        "scripted:turns.json",
        "--tasks",
        "1",
    ]
    assert main([*words, "--env.kwargs.max_turns", "2"]) == 0
    assert "1.600" in capsys.readouterr().out  # 3/5 + 5/5 at the last turn
    Path("turns.json").write_text('{"first": "x"}', encoding="utf-8")
    assert main(words) == 2
    assert "turns.json must hold a list of texts, one a turn" in capsys.readouterr().err


def test_pass_at_k_and_metrics_of_an_environment_that_declares_success(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("solved_env.py").write_text(SOLVED, encoding="utf-8")
    words = ["--import", "solved_env.py", "--env", "user/Solved-v0", "--samples", "6"]
    assert main(["eval", *words, "--agent", "python:solved_env.py:alternate"]) == 0
    rows = {
        cells[0].strip(): cells[1].strip()
        for line in capsys.readouterr().out.splitlines()
        if len(cells := line.strip("│┃").split("│")) > 1
    }
    # "aababb" for task a: 3 of 6 samples solve it; for task b likewise. Of 5 of 6 samples, at least one does.
    assert rows["score"] == rows["pass@1"] == "0.500"
    assert rows["pass@5"] == "1.000" and "pass@10" not in rows
    assert rows["length"] == "1.000" and "solved" not in rows


def test_the_figures_of_an_evaluation_can_be_read_by_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    file = Path("solved_and_summarised.py")
    file.write_text(
        SOLVED.replace("solved_env", file.stem).replace('iter("aababb" * 2)', 'iter("abba")'),
        encoding="utf-8",
    )
    words = [
        "--import",
        str(file),
        "--env",
        "user/Solved-v0",
        "--samples",
        "2",
        "--json",
        "--output",
        "out",
    ]
    assert main(["eval", *words, "--agent", f"python:{file}:alternate"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(Path("out/summary.json").read_text())
    # Task a is answered by "a", "b": 1/2 solved; task b by "b", "a": 1/2.
    assert (printed["tasks"], printed["episodes"], printed["failed"], printed["percent"]) == (2, 4, 0, 50.0)
    assert printed["score"]["mean"] == printed["terms"]["score"]["mean"] == 0.5
    assert printed["pass@k"]["pass@1"]["mean"] == 0.5 and list(printed["pass@k"]) == ["pass@1"]
    assert printed["metrics"]["length"] == {"mean": 1.0, "low": None, "high": None, "note": "all equal"}


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_an_interrupted_evaluation_says_how_to_go_on(mock_server: Any, vowels: list[str]) -> None:
    mock_server.default = lambda body: "silent" if body["messages"][0]["content"] == "Write u" else "ok"
    words = [*vowels, "--agent", f"openai:{mock_server.url}#m", "--output", "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "textmarl.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    file = Path("out/episodes.jsonl")
    while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") == 4):
        mock_server.closing.wait(0.02)
    os.kill(process.pid, signal.SIGINT)
    printed, complained = process.communicate(timeout=4)  # though a request is on its way
    assert process.returncode == 130
    assert "4 episodes are in out; go on with: textmarl eval --import" in complained
    assert complained.index("interrupted") < complained.index("4 episodes") and not printed


def test_the_environment_of_a_run_is_the_default(
    trained_run: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained_run
    common = ["--tasks", "2", "--max-new-tokens", "2"]
    assert main(["eval", "--agent", f"run:{run}", *common]) == 0
    text = capsys.readouterr().out
    assert "Vowels, split test: 2 tasks" in text and "note:" not in text
    assert main(["eval", "--agent", f"run:{run}", *common, "--env.kwargs.split", "train"]) == 0
    text = capsys.readouterr().out
    assert "Vowels, split train" in text and "are also training tasks" in text


def test_agents_of_different_runs_play_together_and_a_changed_run_is_not_continued(
    trained_run: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained_run
    other = shutil.copytree(run, tmp_path / "other")
    pair = ["eval", "--agent", f"first=run:{run}", "--agent", f"second=run:{other}"]
    words = [*pair, "--tasks", "1", "--max-new-tokens", "2", "--output", "out"]
    assert main(words) == 0
    assert main([*words, "--samples", "3"]) == 0
    assert len(episodes("out")) == 3
    capsys.readouterr()
    assert main([*words, "--temperature", "0.1"]) == 2
    assert "agents.first.sampling.temperature was 0.7 and is 0.1" in capsys.readouterr().err
    weights = next((other / "adapters" / "second").glob("*.safetensors"))
    shutil.copy(next((other / "adapters" / "first").glob("*.safetensors")), weights)
    assert main(words) == 2
    assert "agents.second.weights was" in capsys.readouterr().err

    config = other / "config.yaml"
    config.write_text(config.read_text().replace("kwargs: {}", "kwargs: {bonus: 2.0}", 1))
    assert main(pair) == 2
    assert "choose by --env ID" in capsys.readouterr().err
