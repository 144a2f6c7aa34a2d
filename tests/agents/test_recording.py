"""Evaluations that lose nothing: failed, interrupted, continued."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from textmarl.agents import (
    Conversation,
    EndpointAgent,
    Evaluation,
    RandomAgent,
    Response,
    ScriptedAgent,
    evaluate,
)
from textmarl.envs import Outcome, TaskSet, TextEnv
from textmarl.envs.protocols import Discussion, Pipeline


class Letters(TextEnv):
    """Scores the share of the task's letter in the left answer; solved if there is nothing else."""

    possible_agents = ["left", "right"]
    tasks = TaskSet.of([{"id": letter, "text": letter} for letter in "abcd"])
    metric_names = ("solved", "length")
    success_metric = "solved"

    def observe(self, agent: str) -> str:
        return f"{agent} turn {self.turn}: {self.task.data['text']} abcd"

    def judge(self, responses: dict[str, str]) -> Outcome:
        text = responses["left"]
        score = text.count(self.task.data["text"]) / max(1, len(text))
        return Outcome({"score": score}, metrics={"solved": float(score == 1), "length": float(len(text))})


def all_right(responses: dict[str, str], task: Any) -> float:
    return 1.0


@dataclass(frozen=True)
class Puzzle:
    """Data of a task that JSON does not know."""

    answer: str


class Talkative:
    """An agent of one's own that says what its answers depend on."""

    def __init__(self, temperature: float) -> None:
        self.settings = {"temperature": temperature}

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        return [Response("a") for _ in conversations]


def repeated(word: str, text: str) -> str:
    return word


RIGHT = ScriptedAgent("x")


class Failing:
    """Answers with the task's letter, and gives no answer about the letters `silent_on`."""

    def __init__(self, silent_on: str = "") -> None:
        self.silent_on = silent_on
        self.asked: list[str] = []

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        responses = []
        for conversation in conversations:
            letter = conversation[-1]["content"].split()[-2]
            self.asked.append(letter)
            silent = letter in self.silent_on
            responses.append(Response("", error="no line") if silent else Response(letter))
        return responses


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def test_an_episode_without_an_answer_has_no_score_and_the_others_go_on(tmp_path: Path) -> None:
    agents = {"left": Failing("bd"), "right": RIGHT}
    result = evaluate(Letters(max_turns=2), agents, output=tmp_path)
    assert [episode.task_id for episode in result.episodes] == ["a", "c"] and result.score == 1.0
    assert [(f.task_id, f.sample, f.agent, f.error) for f in result.failures] == [
        ("b", 0, "left", "no line"),
        ("d", 0, "left", "no line"),
    ]
    assert Evaluation.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert [line["task_id"] for line in lines(tmp_path / "episodes.jsonl")] == ["a", "c"]
    assert [line["error"] for line in lines(tmp_path / "failures.jsonl")] == ["no line"] * 2


def test_a_second_call_plays_what_failed_or_is_missing(tmp_path: Path) -> None:
    evaluate(Letters(), {"left": Failing("b"), "right": RIGHT}, tasks=3, output=tmp_path)
    again = Failing()
    calls: list[tuple[int, int]] = []
    result = evaluate(
        Letters(),
        {"left": again, "right": RIGHT},
        samples=2,
        output=tmp_path,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert again.asked == ["a", "b", "b", "c", "d", "d"]  # a and c were there once
    assert calls[0] == (2, 8) and calls[-1] == (8, 8)
    assert [(e.task_id, e.sample) for e in result.episodes] == [(t, s) for t in "abcd" for s in (0, 1)]
    assert result.failures == []
    fewer = evaluate(Letters(), {"left": Failing("abcd"), "right": RIGHT}, tasks=["d"], output=tmp_path)
    assert [episode.task_id for episode in fewer.episodes] == ["d"]  # nobody was asked


def test_a_resumed_evaluation_is_the_uninterrupted_one(tmp_path: Path) -> None:
    """Also after a kill in the middle of a line."""
    agents = {"left": RandomAgent(seed=1), "right": RandomAgent(seed=1)}
    whole = evaluate(Letters(max_turns=2), agents, samples=3)
    evaluate(Letters(max_turns=2), agents, samples=2, tasks=["c", "a"], output=tmp_path)
    file = tmp_path / "episodes.jsonl"
    file.write_bytes(file.read_bytes()[:-40])
    agents = {"left": RandomAgent(seed=1), "right": RandomAgent(seed=1)}
    resumed = evaluate(Letters(max_turns=2), agents, samples=3, output=tmp_path, batch_size=2)
    assert resumed == whole
    assert len(lines(file)) == 12
    first = whole.episodes[0].turns[0]
    assert first["left"]["response"] != first["right"]["response"]


def test_episodes_are_on_disk_when_the_next_ones_are_played(tmp_path: Path) -> None:
    written: list[int] = []

    def counting(text: str) -> str:
        written.append(len(lines(tmp_path / "episodes.jsonl")))
        return "a"

    evaluate(Letters(), {"left": counting, "right": RIGHT}, output=tmp_path, batch_size=1)
    assert written == [0, 1, 2, 3]


def test_half_a_line_is_cut_off_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    agents = {"left": Failing(), "right": RIGHT}
    evaluate(Letters(), agents, output=tmp_path)
    file = tmp_path / "episodes.jsonl"
    file.write_bytes(file.read_bytes() + b'{"task_id": "a", "sam')
    with caplog.at_level(logging.WARNING):
        evaluate(Letters(), agents, output=tmp_path)
    assert "half a line" in caplog.text and len(lines(file)) == 4


def test_half_a_line_of_a_failure_is_cut_off_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluate(Letters(), {"left": Failing("b"), "right": RIGHT}, output=tmp_path)
    file = tmp_path / "failures.jsonl"
    file.write_bytes(file.read_bytes() + b'{"task_id": "a", "sam')
    with caplog.at_level(logging.WARNING):
        evaluate(Letters(), {"left": Failing("b"), "right": RIGHT}, output=tmp_path)
    assert "failures.jsonl ends in half a line" in caplog.text
    assert [line["task_id"] for line in lines(file)] == ["b", "b"]


def test_every_line_is_on_the_disk_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        written = os.fstat(descriptor)
        synced.extend(file.name for file in tmp_path.iterdir() if os.path.samestat(file.stat(), written))

    monkeypatch.setattr(os, "fsync", fsync)
    evaluate(Letters(), {"left": Failing("b"), "right": RIGHT}, output=tmp_path, batch_size=1)
    assert synced == ["episodes.jsonl", "failures.jsonl", "episodes.jsonl", "episodes.jsonl"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"env": lambda: Letters(max_turns=2)}, "max_turns was 1 and is 2"),
        ({"env": lambda: Letters(TaskSet.of(["a"]))}, "tasks was"),
        ({"env": lambda: Letters(max_score=2.0)}, "max_score was 1.0 and is 2.0"),
        ({"env": lambda: Pipeline(Letters())}, "arguments.protocol.name was 'not set' and is 'pipeline'"),
        ({"settings": {"kwargs": {"bonus": 2}}}, "kwargs.bonus was 'not set' and is 2"),
        ({"right": ScriptedAgent("y")}, "agents.right.replies was"),
        ({"right": RandomAgent()}, "agents.right.kind was 'ScriptedAgent' and is 'RandomAgent'"),
        ({"right": len}, "agents.right.kind was 'ScriptedAgent' and is 'TextAgent'"),
        ({"right": EndpointAgent("http://h/v1", "m")}, "agents.right.kind"),
    ],
)
def test_other_settings_are_refused_by_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    def play(
        env: Callable[[], Any] = Letters, right: Any = RIGHT, left: Any = None, **more: Any
    ) -> Evaluation:
        return evaluate(env(), {"left": left or Failing(), "right": right}, output=tmp_path, **more)

    play()
    before = (tmp_path / "episodes.jsonl").read_bytes()
    with pytest.raises(ValueError, match="other settings: ") as caught:
        play(**change)
    assert message in str(caught.value) and "Choose another folder" in str(caught.value)
    assert (tmp_path / "episodes.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (Letters(reward_fn=lambda r, t: 0.0), Letters(reward_fn=all_right), "arguments.reward_fn"),
        (
            Discussion(Letters()),
            Discussion(Letters(), talk_request="Talk."),
            "arguments.protocol.talk_request",
        ),
        (
            Letters(TaskSet.of([{"id": "a", "text": "a", "puzzle": Puzzle("one")}])),
            Letters(TaskSet.of([{"id": "a", "text": "a", "puzzle": Puzzle("two")}])),
            "tasks",
        ),
    ],
)
def test_what_an_environment_was_made_with_is_a_setting(
    first: Any, second: Any, name: str, tmp_path: Path
) -> None:
    agents = {"left": RIGHT, "right": RIGHT}
    evaluate(first, agents, tasks=1, output=tmp_path)
    evaluate(first, agents, tasks=1, output=tmp_path)
    with pytest.raises(ValueError, match=rf"other settings: {name} was "):
        evaluate(second, agents, tasks=1, output=tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (Talkative(0.5), Talkative(0.7), "agents.left.temperature"),
        (partial(repeated, "a"), partial(repeated, "b"), "agents.left.function.arguments"),
    ],
)
def test_what_an_agent_says_about_itself_is_a_setting(
    first: Any, second: Any, name: str, tmp_path: Path
) -> None:
    evaluate(Letters(), {"left": first, "right": RIGHT}, tasks=1, output=tmp_path)
    with pytest.raises(ValueError, match=rf"other settings: {name} was "):
        evaluate(Letters(), {"left": second, "right": RIGHT}, tasks=1, output=tmp_path)


def test_models_and_sampling_are_settings_and_patience_is_none(mock_server: Any, tmp_path: Path) -> None:
    def play(**options: Any) -> Evaluation:
        model = EndpointAgent(mock_server.url, **{"model": "one", **options})
        return evaluate(Letters(), {"left": model, "right": RIGHT}, tasks=1, output=tmp_path)

    play(temperature=0.5)
    assert len(play(temperature=0.5, concurrency=2, timeout=9.0, retries=1).episodes) == 1
    for options, message in (
        ({"temperature": 0.7}, "agents.left.temperature was 0.5 and is 0.7"),
        ({"temperature": 0.5, "model": "two"}, "agents.left.model was 'one' and is 'two'"),
        ({"temperature": 0.5, "extra_body": {"top_k": 1}}, "agents.left.extra_body.top_k was 'not set'"),
    ):
        with pytest.raises(ValueError, match=message):
            play(**options)
    assert len(mock_server.requests) == 1


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "episodes.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"results are\s+not overwritten"):
        evaluate(Letters(), {"left": RIGHT, "right": RIGHT}, output=tmp_path)
    (tmp_path / "evaluation.json").write_text("[]")
    with pytest.raises(ValueError, match="cannot be read"):
        evaluate(Letters(), {"left": RIGHT, "right": RIGHT}, output=tmp_path)


def test_a_line_that_is_no_episode_is_named(tmp_path: Path) -> None:
    agents = {"left": Failing(), "right": RIGHT}
    evaluate(Letters(), agents, output=tmp_path)
    file = tmp_path / "episodes.jsonl"
    file.write_text(file.read_text().replace('"sample"', '"sampel"', 1))
    with pytest.raises(ValueError, match="line 1 is no episode"):
        evaluate(Letters(), agents, output=tmp_path)


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    agents = {"left": Failing(), "right": RIGHT}
    evaluate(Letters(), agents, output=tmp_path)
    code = (
        "import fcntl, sys\n"
        f"file = open({str(tmp_path / 'episodes.jsonl')!r}, 'ab')\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(ValueError, match="being written to by another process"):
            evaluate(Letters(), agents, output=tmp_path)
        other.communicate("")


BEHAVIOURS = [
    "500", "503 after 0", "429 after 0", "malformed", "no_choices", "html", "truncated", "dropped", "null",
    "tool_calls", "no_text", "error_in_200", "without_usage",
]  # fmt: skip


def test_a_server_that_misbehaves_in_every_way_loses_no_episode(mock_server: Any, tmp_path: Path) -> None:
    mock_server.script = ["silent", *(behaviour for behaviour in BEHAVIOURS for _ in range(3))]
    mock_server.answer = lambda body: body["messages"][-1]["content"].split()[-2] + " \ud800é"
    model = EndpointAgent(mock_server.url, "m", timeout=1.0, retries=50, backoff=0.001, concurrency=4)
    result = evaluate(
        Letters(max_turns=2), {"left": model, "right": model}, samples=4, batch_size=5, output=tmp_path
    )
    assert result.failures == []
    assert {(e.task_id, e.sample) for e in result.episodes} == {(t, s) for t in "abcd" for s in range(4)}
    assert all(len(episode.turns) == 2 for episode in result.episodes)
    assert len(lines(tmp_path / "episodes.jsonl")) == 16
    answers = [agent for e in result.episodes for turn in e.turns for agent in turn.values()]
    assert len(answers) == 64
    assert {a["finish"] for a in answers} == {"stop", "content_filter", "tool_calls"}
    assert sum("tokens_estimated" in a for a in answers) == 3  # those without usage
    assert {a["tokens"] for a in answers if "tokens_estimated" not in a} == {7}  # the mock's number


def test_a_task_that_the_server_refuses_fails_alone_and_is_asked_again(
    mock_server: Any, tmp_path: Path
) -> None:
    refuses = ": b abcd"
    mock_server.default = lambda body: "400" if refuses in body["messages"][0]["content"] else "ok"
    agents = {"left": EndpointAgent(mock_server.url, "m"), "right": RIGHT}
    first = evaluate(Letters(), agents, output=tmp_path)
    assert [(failure.task_id, failure.agent) for failure in first.failures] == [("b", "left")]
    assert "HTTP 400" in first.failures[0].error
    mock_server.default = "ok"
    second = evaluate(Letters(), agents, output=tmp_path)
    assert len(second.episodes) == 4 and len(mock_server.requests) == 5


def test_no_episode_waits_for_anothers_slow_answer(mock_server: Any, tmp_path: Path) -> None:
    """Task a's server stays silent until all other episodes have been written down."""
    others_written: list[int] = []

    def wait_for_the_others(body: dict[str, Any]) -> str:
        if ": a abcd" in body["messages"][0]["content"]:
            for _ in range(500):
                if len(lines(tmp_path / "episodes.jsonl")) == 3 or mock_server.closing.wait(0.01):
                    break
            others_written.append(len(lines(tmp_path / "episodes.jsonl")))
        return "ok"

    mock_server.default = wait_for_the_others
    agents = {"left": EndpointAgent(mock_server.url, "m", concurrency=2), "right": RIGHT}
    evaluate(Letters(max_turns=2), agents, output=tmp_path)
    assert others_written[0] == 3


def test_metrics_are_those_of_the_last_turn_and_count_successes() -> None:
    agents = {"left": ScriptedAgent(["zz", "a"]), "right": RIGHT}
    result = evaluate(Letters(max_turns=2), agents, samples=2)
    assert result.episodes[0].metrics == {"solved": 1.0, "length": 1.0}
    assert result.metrics == {"solved": 0.25, "length": 1.0}
    assert result.per_task("solved") == {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
    assert result.successes() == {"a": (2, 2), "b": (2, 0), "c": (2, 0), "d": (2, 0)}
