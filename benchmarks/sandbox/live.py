"""A sandbox in which the fuzzer's hostile cases run, and what must not change about it while they do."""

from __future__ import annotations

import concurrent.futures
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from textmarl.benchmarks.sandbox.findings import Findings
from textmarl.benchmarks.sandbox.hostile_programs import CASES, HONEST, HONEST_SUITE, Case
from textmarl.envs.sandbox import Limits, Report, Sandbox, SandboxError

LIMITS = Limits(seconds=0.5, wall_seconds=1.5)
SLACK_SECONDS = 30.0
"""Seconds beyond the sum of its tests' limits that a program may take before it counts as hanging."""
WARM_UP = 20
"""Cases after which the lasting processes have filled what fills."""
MEMORY_GROWTH = 16.0
"""MiB by which the sandbox's lasting processes may grow over a run."""


class Live:
    """A sandbox that cases run in, and what it was like before.

    Args:
        level: the sandbox's; None: the strongest here.
    """

    def __init__(self, level: Any = None) -> None:
        self._level = level
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self._others = set(_children(os.getpid()))
        self.sandbox = Sandbox(level, workers=1, limits=LIMITS)
        self._lasting = self._processes()
        self._memory: float | None = None
        self._attempts = 0

    def attempt(self, kind: str, seed: object, number: int) -> Findings:
        """One case, and the honest program after it."""
        case = CASES[kind](seed, number)
        begun = time.perf_counter()
        wrong, report = self._run(case)
        outcomes = [verdict.outcome for verdict in report.verdicts] if report else ["no report"]
        if not wrong and report:
            wrong = "; ".join(complaints(case, report))
        wrong = wrong or self._after()
        self._attempts += 1
        if self._attempts == WARM_UP:
            self._memory = self.memory()
        detail = {
            "source": case.source,
            "setup": case.suite.setup,
            "tests": [test.source for test in case.suite.tests],
            "mutates": case.suite.mutates,
            "report": repr(report)[:4000],
            "seconds": round(time.perf_counter() - begun, 2),
        }
        found = Findings(cases=1)
        found.counts.update((f"{kind}: {case.kind}", outcome) for outcome in outcomes)
        if wrong:
            found.failures.append({"case": f"{kind}:{number}", "seed": seed, "wrong": wrong, **detail})
        return found

    def memory(self) -> float:
        """MiB that the lasting processes have for themselves."""
        return sum(map(_private_memory, self._processes()))

    def close(self) -> Findings:
        """Ends the sandbox; what was wrong with its processes."""
        wrong = []
        if self._memory is not None and (grown := self.memory() - self._memory) > MEMORY_GROWTH:
            wrong.append(f"the lasting processes have grown by {grown:.1f} MiB, to {self.memory():.1f}")
        lasting = self._processes()
        self.sandbox.close()
        self._thread.shutdown(wait=False)
        if left := [process for process in lasting if Path(f"/proc/{process}").exists()]:
            wrong.append(f"processes {left} have outlived the sandbox")
        return Findings(failures=[{"case": "sandbox", "wrong": text} for text in wrong])

    def _run(self, case: Case) -> tuple[str, Report | None]:
        running = self._thread.submit(self.sandbox.run, case.source, case.suite)
        try:
            return "", running.result((len(case.suite.tests) + 1) * LIMITS.wall + SLACK_SECONDS)
        except concurrent.futures.TimeoutError:
            self._renew()
            return "no report came: the sandbox hangs", None
        except SandboxError as error:
            self._renew()
            return f"SandboxError: {error}", None
        except Exception as error:
            self._renew()
            return f"the caller got {type(error).__name__}: {error}", None

    def _after(self) -> str:
        for _ in range(3):
            wrong, report = self._run(Case("honest", HONEST, HONEST_SUITE, ()))
            if report is None:
                return f"an honest program afterwards: {wrong}"
            outcomes = [verdict.outcome for verdict in report.verdicts]
            if "timeout" not in outcomes and "time-out" not in report.error:  # else the machine was busy
                break
        if outcomes != ["passed", "failed"]:
            return f"an honest program was misjudged afterwards: {report!r:.500}"
        if (lasting := self._processes()) != self._lasting:
            self._lasting = lasting
            self._start_anew()
            return "the supervisor or the fork server has ended, and another had to be started"
        return ""

    def _renew(self) -> None:
        self.sandbox.close()
        self._thread.shutdown(wait=False)
        self._thread = concurrent.futures.ThreadPoolExecutor(1)
        self.sandbox = Sandbox(self._level, workers=1, limits=LIMITS)
        self._lasting = self._processes()
        self._start_anew()

    def _start_anew(self) -> None:
        self._memory = None
        self._attempts = 0

    def _processes(self) -> list[int]:
        """The supervisor and the fork server."""
        supervisors = sorted(set(_children(os.getpid())) - self._others)
        return supervisors + [child for process in supervisors for child in _children(process)]


def complaints(case: Case, report: Report) -> list[str]:
    """What is wrong with the report of a case."""
    found = []
    if report.total != len(case.expected):
        found.append(f"{report.total} verdicts for {len(case.expected)} tests")
    busy = any(verdict.outcome == "timeout" for verdict in report.verdicts) or "time-out" in report.error
    for number, (verdict, expected) in enumerate(zip(report.verdicts, case.expected, strict=False)):
        if expected == "" and verdict.passed:
            found.append(f"test {number} passed")
        elif (
            expected
            and verdict.outcome != expected
            and not (busy and verdict.outcome in ("timeout", "skipped"))
        ):
            found.append(
                f"test {number} ended as {verdict.outcome} ({verdict.exception:.100}), not {expected}"
            )
        elif verdict.outcome not in ("passed", "failed", "error", "timeout", "died", "protocol", "skipped"):
            found.append(f"test {number} has the outcome {verdict.outcome!r:.100}")
        elif verdict.outcome == "skipped" and not report.error and not busy:
            found.append(f"test {number} was skipped for no reason")
    texts = [report.error, report.stdout, report.stderr]
    for verdict in report.verdicts:
        texts += [verdict.exception, verdict.call]
    for text in texts:
        if len(text) > LIMITS.output:
            found.append(f"the report holds a text of {len(text):,} characters")
        if case.secret and case.secret in text:
            found.append("the report holds what the tests expect")
        with suppress(UnicodeEncodeError):
            text.encode()
            continue
        found.append(f"the report holds a text that is no UTF-8: {text!r:.100}")
    return found


def _children(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return sorted(found)


def _private_memory(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024
