"""Programs that try to pass tests they should fail, or to harm, and what each must not achieve.

    with lay_bait() as bait, Sandbox() as sandbox:
        for attack in ATTACKS:
            violations = run_attack(sandbox, attack, bait)

An attack is a program with a suite of tests that it cannot pass by honest means, because what the tests expect is new
each time. `run_attack` looks for passed tests, for what the attack's own check knows to look for, and for traces on
everything that was laid out and on the calling process.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textmarl.envs.sandbox.attacks import (
    channel,
    exits,
    files,
    hostile,
    imports,
    introspection,
    native,
    network,
    processes,
    resources,
    tampering,
    timeouts,
    values,
)
from textmarl.envs.sandbox.attacks.attack import Attack, settled
from textmarl.envs.sandbox.attacks.bait import Bait, lay_bait
from textmarl.envs.sandbox.attacks.traces import Caller
from textmarl.envs.sandbox.program import Suite, Test

if TYPE_CHECKING:
    from textmarl.envs.sandbox.sandbox import Sandbox

__all__ = ["ATTACKS", "Attack", "Bait", "lay_bait", "run_attack"]

ATTACKS: tuple[Attack, ...] = (
    *values.ATTACKS,
    *hostile.ATTACKS,
    *exits.ATTACKS,
    *timeouts.ATTACKS,
    *introspection.ATTACKS,
    *tampering.ATTACKS,
    *channel.ATTACKS,
    *files.ATTACKS,
    *network.ATTACKS,
    *processes.ATTACKS,
    *resources.ATTACKS,
    *imports.ATTACKS,
    *native.ATTACKS,
)
"""The corpus. Names are unique; some attacks run until a time limit ends them (`waits`)."""

_HONEST = """
import builtins, os, sys
def f(x):
    left = [name for name in ("left_behind",) if hasattr(builtins, name) or name in sys.modules or os.path.exists(name)]
    return [x * x, left, os.environ.get("LEFT_BEHIND")]
"""
_HONEST_SUITE = Suite(entry_point="f", tests=(Test("assert candidate(7) == [49, [], None]"),))

_RECYCLED = 24
"""Programs after which none of the processes that a sandbox of a few workers keeps ready is what it was."""


def run_attack(sandbox: Sandbox, attack: Attack, bait: Bait) -> list[str]:
    """Run one attack and say what went wrong, a sentence each; an empty list where the sandbox held.

    Args:
        sandbox: any; attacks that wait for a time limit (`attack.waits`) are quick in one with short limits.
        attack: one of the corpus.
        bait: what it is let loose on; laid before the sandbox was made. Where there are violations it may be damaged:
            lay another one for the next attack.

    Raises:
        ValueError: the attack is `unsafe_outside` and the sandbox is of level `process`, which would not hold it.
    """
    if attack.unsafe_outside and sandbox.level == "process":
        raise ValueError(f"attack {attack.name} is unsafe at level process: run it at strict or confined")
    before = Caller.now()
    source, suite = attack.filled(bait)
    report = sandbox.run(source, suite)
    found = [f"test {n} passed" for n, verdict in enumerate(report.verdicts) if verdict.passed]
    if report.total != len(suite.tests):
        found.append(f"the report has {report.total} verdicts for {len(suite.tests)} tests")
    if attack.outcomes:
        found += [
            f"test {n} ended as {verdict.outcome} ({verdict.exception:.200}), expected {' or '.join(attack.outcomes)}"
            for n, verdict in enumerate(report.verdicts)
            if verdict.outcome not in (*attack.outcomes, "skipped")
        ]
    found += attack.check(bait, report) + bait.damage() + bait.leaks(report)
    if bait.nonce in report.stdout + report.stderr:
        found.append("the program wrote the value that its test expects")
    found += _runs_on(sandbox)
    found += settled(before.changes)
    thorough = attack.category == "processes"
    survivors = _survivors(sandbox, before, thorough)
    if survivors:
        # A sandbox that had only just started was still filling up; what is left behind is left behind every time.
        before = Caller.now()
        sandbox.run(source, suite)
        survivors = _survivors(sandbox, before, thorough)
    return list(dict.fromkeys(found + survivors))


def _runs_on(sandbox: Sandbox) -> list[str]:
    """The next program is judged as if nothing had been."""
    for _ in range(20):
        report = sandbox.run(_HONEST, _HONEST_SUITE)
        if report.verdicts[0].outcome != "timeout" and "time-out" not in report.error:
            break
        time.sleep(0.1)  # on a busy machine it may be late under a short limit, but not every time
    if report.passed == report.total:
        return []
    verdict = report.verdicts[0]
    return [
        f"an honest program fails afterwards: {report.error or verdict.outcome} {verdict.exception} {verdict.call}"
    ]


def _survivors(sandbox: Sandbox, before: Caller, thorough: bool) -> list[str]:
    """Processes that the attack has left behind, looked for where there are more than before, or when `thorough`.

    A sandbox keeps processes ready, each for one program, so new ones are no trace by themselves. Only those are that
    are still there when every process that was kept ready has long had its program.
    """
    family, orphans = before.family_now()
    if orphans:
        orphans = settled(lambda: before.family_now()[1], 0.5)
    if len(family) <= len(before.family) and not thorough:
        return orphans
    newcomers = family - before.family
    for _ in range(_RECYCLED):
        if not newcomers & before.family_now()[0]:
            return orphans
        _runs_on(sandbox)
    left = settled(
        lambda: [f"process {n} has outlived the run" for n in newcomers & before.family_now()[0]], 0.5
    )
    return orphans + left
