"""How often nominal 95 % intervals hold the truth: the table in `textmarl.benchmarks.statistics`, measured.

python -m pytest tests/benchmarks/test_coverage.py        shows what was measured where a table differs
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from textmarl.benchmarks import statistics
from textmarl.benchmarks.statistics import Interval, iqm, mean_interval, paired_change, pass_at_k_over_tasks

Floats = NDArray[np.float64]
Generator = np.random.Generator
EXPERIMENTS = 500
TASKS = (4, 8, 15, 32)


def scores(draw: Callable[[Generator, int], Floats]) -> Callable[[Generator, int], Interval]:
    return lambda generator, tasks: mean_interval(draw(generator, tasks))


def changes(draw: Callable[[Generator, int], tuple[Floats, Floats]]) -> Callable[[Generator, int], Interval]:
    def change(generator: Generator, tasks: int) -> Interval:
        before, after = draw(generator, tasks)
        return paired_change(dict(enumerate(before)), dict(enumerate(after)))  # type: ignore[arg-type]

    return change


def passed(share: float, samples: int = 1) -> Callable[[Generator, int], Interval]:
    """pass@1 of tasks that are solved with probabilities around `share` (beta-distributed; one sample: equal)."""

    def rate(generator: Generator, tasks: int) -> Interval:
        easy = generator.beta(2 * share, 2 * (1 - share), size=tasks)
        solved = generator.binomial(samples, easy)
        return pass_at_k_over_tasks({str(i): (samples, int(c)) for i, c in enumerate(solved)}, k=1)

    return rate


def solved_before_and_after(generator: Generator, tasks: int) -> tuple[Floats, Floats]:
    """Of ten tasks one is lost and three are won, on average."""
    kind = generator.choice([-1.0, 1.0, 0.0], p=[0.1, 0.3, 0.6], size=tasks)
    return (kind < 0) * 1.0, (kind > 0) * 1.0


def skewed_before_and_after(generator: Generator, tasks: int) -> tuple[Floats, Floats]:
    """Exponential scores on tasks of exponential difficulty, twice as high afterwards."""
    ease = generator.exponential(size=tasks)
    return ease + generator.exponential(size=tasks), ease + 2 * generator.exponential(size=tasks)


CASES: dict[str, tuple[Callable[[Generator, int], Interval], float]] = {
    "scores, normal": (scores(lambda g, n: g.normal(size=n)), 0.0),
    "scores, uniform": (scores(lambda g, n: g.random(n)), 0.5),
    "scores, exponential": (scores(lambda g, n: g.exponential(size=n)), 1.0),
    "scores, 60 % are 0, else uniform": (scores(lambda g, n: (g.random(n) > 0.6) * g.random(n)), 0.2),
    "changes, normal": (changes(lambda g, n: (g.normal(size=n), g.normal(1.0, 2.0, size=n))), 1.0),
    "changes, exponential": (changes(skewed_before_and_after), 1.0),
    "changes of 0 and 1": (changes(solved_before_and_after), 0.2),
    "pass@1, 1 sample, 90 %": (passed(0.9), 0.9),
    "pass@1, 1 sample, 50 %": (passed(0.5), 0.5),
    "pass@1, 1 sample, 5 %": (passed(0.05), 0.05),
    "pass@1, 4 samples, 50 %": (passed(0.5, samples=4), 0.5),
    "pass@1, 4 samples, 90 %": (passed(0.9, samples=4), 0.9),
}


RUNS = (5, 10, 20)
OF_RUNS: dict[str, tuple[Callable[[Generator, int], Floats], float]] = {
    "iqm, normal": (lambda generator, runs: generator.normal(size=runs), 0.0),
    "iqm, uniform": (lambda generator, runs: generator.random(runs), 0.5),
    # Of the half in the middle, from the quantile 0.25 to 0.75, a sixth is 0 and the rest is 1.
    "iqm, two of three runs are 1, else 0": (
        lambda generator, runs: (generator.random(runs) > 1 / 3) * 1.0,
        5 / 6,
    ),
}


def documented() -> dict[str, list[float]]:
    """The table of the module's docstring, in shares."""
    rows = re.findall(r"^\| ([^|]+?) +\|((?: +\d+ \|)+)$", statistics.__doc__ or "", flags=re.MULTILINE)
    return {name: [int(cell) / 100 for cell in re.findall(r"\d+", cells)] for name, cells in rows}


@pytest.mark.parametrize("case", CASES)
def test_intervals_cover_as_often_as_the_documentation_says(case: str) -> None:
    interval_of, truth = CASES[case]
    generator = np.random.default_rng(zlib.crc32(case.encode()))
    measured = [
        sum(not interval_of(generator, tasks).excludes(truth) for _ in range(EXPERIMENTS)) / EXPERIMENTS
        for tasks in TASKS
    ]
    # 500 experiments at 90 %: a standard deviation of 0.0134; and half a percent for rounding.
    assert measured == pytest.approx(documented()[case], abs=0.005 + 3 * 0.0134)


@pytest.mark.parametrize("case", OF_RUNS)
def test_intervals_over_runs_cover_as_often_as_the_documentation_says(case: str) -> None:
    draw, truth = OF_RUNS[case]
    generator = np.random.default_rng(zlib.crc32(case.encode()))
    measured = [
        sum(not iqm(draw(generator, runs), resamples=1_000).excludes(truth) for _ in range(EXPERIMENTS))
        / EXPERIMENTS
        for runs in RUNS
    ]
    assert measured == pytest.approx(documented()[case], abs=0.005 + 3 * 0.018)  # as above, at 80 %


def test_the_documented_tables_have_no_other_rows() -> None:
    assert list(documented()) == [*CASES, *OF_RUNS]


def test_intervals_of_the_default_evaluation_splits_do_not_fall_below_nine_in_ten() -> None:
    assert min(min(documented()[case][TASKS.index(15) :]) for case in CASES) >= 0.9


@pytest.mark.parametrize("trials", [1, 4, 15, 32])
def test_shares_are_covered_at_least_as_often_as_promised_whatever_the_truth(trials: int) -> None:
    """Exactly, by summing the binomial distribution over the outcomes whose interval holds the truth."""
    intervals = [statistics.proportion_interval(count, trials) for count in range(trials + 1)]
    for truth in np.linspace(0.001, 0.999, 199):
        ways = np.array(
            [float(np.prod([(trials - i) / (i + 1) for i in range(c)])) for c in range(trials + 1)]
        )
        likelihood = ways * truth ** np.arange(trials + 1) * (1 - truth) ** np.arange(trials, -1, -1)
        covered = [not interval.excludes(truth) for interval in intervals]
        assert likelihood[covered].sum() >= 0.95 - 1e-12
