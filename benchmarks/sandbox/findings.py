"""What came of the fuzzer's cases: counts of outcomes, and the cases that went wrong."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Findings:
    """What came of the cases.

    Attributes:
        counts: how often each kind of input had each outcome: `counts["wire: bytes", "WireError"]`.
        cases: how many cases were run.
        failures: the cases that went wrong, with what is needed to see it again.
    """

    counts: collections.Counter[tuple[str, str]] = field(default_factory=collections.Counter)
    cases: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Adds what came of other cases."""
        self.counts += other.counts
        self.cases += other.cases
        self.failures += other.failures


def finding(
    part: str, kind: str, outcome: str, seed: object, number: int, wrong: str, **detail: Any
) -> Findings:
    """What came of one case, with what is needed to see it again if something was wrong with it."""
    found = Findings(collections.Counter({(f"{part}: {kind}", outcome): 1}), 1)
    if wrong:
        found.failures.append({"case": f"{part}:{number}", "seed": seed, "wrong": wrong, **detail})
    return found
