"""What the agents read from their second turn on: the texts of the four feedback modes.

| mode       | each agent reads                                                                                          |
|------------|-----------------------------------------------------------------------------------------------------------|
| `"level"`  | the findings of each level: which functions are there, syntax errors with their line, how many tests passed, which of the shown tests failed and how, what the reward of this version sees in the cooperation |
| `"passed"` | how many tests passed                                                                                     |
| `"plain"`  | its own code of the turn before                                                                           |
| `"expert"` | what an expert that you plug in proposes to it                                                            |

Then comes the request to write its function again. Counts are of all tests. Of a single test only those at the front
that the problem marks as shown are ever named; a hidden test's text, arguments and outcome are in no text here.

What is said of the cooperation is what is paid: in version 0 what the main function's code does with the helper
(`use_line`), in version 1 what the experiments found (`textmarl.envs.coding.feedback_v1`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from textmarl.envs.coding.problem import Problem
from textmarl.envs.coding.rewards import Use
from textmarl.envs.sandbox.program import Report, Test, Verdict

Mode = Literal["level", "passed", "plain", "expert"]
MODES: tuple[Mode, ...] = ("level", "passed", "plain", "expert")

_LONGEST_CODE = 4000  # characters of an agent's own code; longer ones lose their middle
_LINE = re.compile(r" \(line \d+\)$")
_LONGEST_LINE = 300  # characters of a test, a call or an exception


@dataclass(frozen=True)
class Function:
    """What was found in one agent's text.

    Attributes:
        name: the function that the agent owes.
        code: the code that counts.
        defined, returns: whether the function is there, and whether it returns a value.
        error: why it is no Python, with the line; else empty.
    """

    name: str
    code: str
    defined: bool
    returns: bool
    error: str


@dataclass(frozen=True)
class Findings:
    """What was found in a turn, in plain data.

    Attributes:
        functions: agent -> what was found in its text, the main agent's last.
        error: why the program made of all functions does not parse; else empty.
        report: what the tests said; None where they did not run.
        remarks: what the reward saw in the functions' work together, a sentence each, fit for every agent to read.
    """

    functions: Mapping[str, Function]
    error: str = ""
    report: Report | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Review:
    """What an expert is shown of a turn: what the agents could be shown themselves, and no hidden test.

    Attributes:
        prompt: the code that the problem starts from.
        functions: agent -> the name of the function that it writes, the main agent's last.
        responses: agent -> what it wrote.
        findings: the text of the mode "level", for all agents alike.
    """

    prompt: str
    functions: Mapping[str, str]
    responses: Mapping[str, str]
    findings: str


Expert = Callable[[Review], Mapping[str, str]]
"""Proposes edits: `expert(review)` returns agent -> text. An agent that is left out reads that there is no proposal."""


def level(findings: Findings, problem: Problem, shown: int, reader: str | None = None) -> str:
    """The findings of each level, one a line.

    Args:
        findings: of the turn before.
        problem: whose tests these were.
        shown: how many tests, from the first, may be named.
        reader: the agent that reads it, which is told nothing of the others' code; None: one who may see everything.
    """
    lines = [
        _function_line(function, full=reader in (None, agent))
        for agent, function in findings.functions.items()
    ]
    if findings.error and not any(function.error for function in findings.functions.values()):
        lines.append("The program made of them is no Python.")
    lines.append(passed(findings, problem))
    report = findings.report
    if report is not None and report.error:
        lines.append(f"The program does not load: {_shortened(_without_line(report.error))}")
    elif report is not None:
        for test, verdict in zip(problem.suite.tests[:shown], report.verdicts, strict=False):
            if not verdict.passed:
                lines += _failure(test, verdict, problem)
    return "\n".join([*lines, *findings.remarks])


def passed(findings: Findings, problem: Problem) -> str:
    """How many of all tests passed."""
    report, total = findings.report, len(problem.suite.tests)
    return f"Tests passed: {report.passed if report is not None else 0} of {total}."


def use_line(use: Use, helper: str, main: str) -> str:
    """What the main function does with a helper, in the words of version 0's rules; both by their functions' names."""
    if not use.calls:
        return f"`{main}` does not call `{helper}`."
    if use.wraps:
        return f"`{main}` does nothing but return the value of `{helper}`."
    if use.ignores:
        return f"`{main}` calls `{helper}` but does not use its value."
    return f"`{main}` calls `{helper}` and uses its value."


def plain(function: Function) -> str:
    """An agent's own code of the turn before."""
    if not function.code.strip():
        return "Your last answer had no code."
    return f"Your last code:\n\n```python\n{_middle_left_out(function.code)}\n```"


def advice(proposals: Mapping[str, str], agent: str) -> str:
    """What the expert proposes to an agent."""
    text = proposals.get(agent, "").strip()
    return f"A reviewer proposes:\n\n{text}" if text else "A reviewer proposes no change to your code."


def request(name: str) -> str:
    """What ends every feedback."""
    return f"Write an improved version of the whole function `{name}`. Answer with Python code only."


def _function_line(function: Function, full: bool) -> str:
    if function.error:
        state = f"syntax error, {_shortened(function.error)}" if full else "syntax error."
    elif not function.defined:
        state = "not found."
    elif not function.returns:
        state = "found, but it returns no value."
    else:
        state = "found."
    return f"`{function.name}`: {state}"


def _failure(test: Test, verdict: Verdict, problem: Problem) -> list[str]:
    names = "|".join(map(re.escape, ("candidate", *problem.suite.names)))
    source = re.sub(rf"\b(?:{names})\b", problem.entry_point, test.source)
    lines = [f"Failed: {_shortened(source)}"]
    if verdict.call:
        lines.append(f"  {_shortened(_without_line(verdict.call))}")
    if verdict.outcome == "timeout":
        lines.append("  It took too long.")
    elif verdict.outcome != "failed" and verdict.exception not in verdict.call:
        lines.append(f"  {_shortened(_without_line(verdict.exception))}")
    return lines


def _without_line(text: str) -> str:
    """A message of the sandbox without the line number, which counts lines of the program that no agent has seen."""
    return _LINE.sub("", text)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_LINE else f"{text[: _LONGEST_LINE - 4]} ..."


def _middle_left_out(code: str) -> str:
    if len(code) <= _LONGEST_CODE:
        return code
    half = _LONGEST_CODE // 2
    return f"{code[:half]}\n# ... {len(code) - 2 * half:,} characters ...\n{code[-half:]}"
