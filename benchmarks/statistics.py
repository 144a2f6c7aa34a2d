"""How sure a score is: means, differences, inter-quartile means and probabilities of improvement, with intervals.

**Of one run** the unit is the held-out *task*: `mean_over_tasks`, `paired_change` and `pass_at_k_over_tasks` average the
samples of a task first. They tell how a result carries to other tasks of the kind, not to other training seeds. Tables
of `textmarl eval` and reports of runs come from these three functions. With a single task, as in a game without
variants, the unit is its sample, and the interval's `note` says so.

- Means and paired differences: Student's t interval. It is 1.13 times as wide as a percentile bootstrap of 15 tasks and
  1.9 times as wide as one of 4, which holds the mean of normal data in 80 % of cases, not in 95 %.
- Shares of 0s and 1s, as pass@1 with one sample of each task: the exact interval of Clopper and Pearson (1934, "The use
  of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26), which covers at least 95 %.

How often nominal 95 % intervals hold the truth, measured by `tests/benchmarks/test_coverage.py` (unknown bounds, which
few tasks that are all equal give, count as holding it):

| % of experiments                 | 4 tasks | 8 tasks | 15 tasks | 32 tasks |
|----------------------------------|---------|---------|----------|----------|
| scores, normal                   |      95 |      95 |       95 |       94 |
| scores, uniform                  |      93 |      95 |       94 |       95 |
| scores, exponential              |      88 |      90 |       91 |       94 |
| scores, 60 % are 0, else uniform |      92 |      90 |       92 |       94 |
| changes, normal                  |      95 |      94 |       96 |       95 |
| changes, exponential             |      94 |      93 |       93 |       95 |
| changes of 0 and 1               |     100 |      96 |       95 |       95 |
| pass@1, 1 sample, 90 %           |     100 |     100 |       99 |       99 |
| pass@1, 1 sample, 50 %           |     100 |      99 |       96 |       98 |
| pass@1, 1 sample, 5 %            |      99 |      99 |       99 |       98 |
| pass@1, 4 samples, 50 %          |      96 |      94 |       94 |       95 |
| pass@1, 4 samples, 90 %          |     100 |     100 |       90 |       91 |

Skewed scores of few tasks, and pass rates near 0 or 1 from several samples, are where it is too narrow; differences of
two scores are less skewed than the scores. Where all values are equal there is no spread to judge by: 15 tasks without
a failure are a share from 0.78 to 1, but of a mean without known limits nothing can be said, and its bounds are NaN.

**Of a benchmark** the unit is the *training run*: `iqm` and `probability_of_improvement` resample runs within each task
(percentile bootstrap, Agarwal et al. 2021, arXiv 2108.13264). Fewer than 5 seeds are indicative at best, and the bounds
are then too near; from a single run they are NaN. Of nominal 95 % intervals of `iqm` this share held the truth, by the same test:

| % of experiments                     | 5 runs | 10 runs | 20 runs |
|--------------------------------------|--------|---------|---------|
| iqm, normal                          |     90 |      94 |      94 |
| iqm, uniform                         |     89 |      93 |      95 |
| iqm, two of three runs are 1, else 0 |     83 |      96 |      92 |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Resamples are drawn in blocks of about this many numbers, so that memory does not grow with their count.
BLOCK = 2_000_000


class Interval(NamedTuple):
    """An estimate between the bounds of its confidence interval, in the unit of the data; unknown bounds are NaN.

    `note` says, for a reader, why bounds are unknown, or what they are about if that is not tasks.

    >>> Interval(1.5, 1.0, 2.0).scaled(100)
    Interval(estimate=150.0, low=100.0, high=200.0, note='')
    >>> Interval(1.5, 1.0, 2.0).excludes(0.0)
    True
    """

    estimate: float
    low: float
    high: float
    note: str = ""

    def scaled(self, factor: float) -> Interval:
        """The interval of `factor` times the figure."""
        low, high = sorted((factor * self.low, factor * self.high))
        return Interval(factor * self.estimate, low, high, self.note)

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside of the bounds; never for bounds that are unknown."""
        return value < self.low or value > self.high


ONE_UNIT = "needs 2 tasks"
ALL_EQUAL = "all equal"
OVER_SAMPLES = "over samples of one task"

Samples = Mapping[str, float | Sequence[float]]
"""Task -> the values of its samples, or their mean."""


def mean_interval(values: ArrayLike, *, shares: bool = False, confidence: float = 0.95) -> Interval:
    """The mean of independent values with Student's t interval, or Clopper and Pearson's where they are 0s and 1s.

    Args:
        values: (units,)
        shares: whether all values are from 0 to 1 by their nature, as a pass rate is. The bounds then are, too, and
            there are bounds if all values are 0, or all are 1.
        confidence: how often the interval should hold the truth

    Raises:
        ValueError: if there are no values, one is not finite, or one is no share where that is said

    >>> interval = mean_interval([0.0, 1.0, 2.0, 3.0])  # 1.5 -+ 3.182 * sqrt(5 / 3) / 2
    >>> round(interval.low, 3), round(interval.high, 3)
    (-0.554, 3.554)
    >>> mean_interval([2.0, 2.0, 2.0])
    Interval(estimate=2.0, low=nan, high=nan, note='all equal')
    """
    sample = _finite(values, "values", dimensions=(1,))
    _check_confidence(confidence)
    if shares and (sample.min() < 0 or sample.max() > 1):
        raise ValueError(f"shares are from 0 to 1, got values from {sample.min():g} to {sample.max():g}")
    ones = int((sample == 1).sum())
    binary = ones + int((sample == 0).sum()) == len(sample)
    if binary and (shares or 0 < ones < len(sample)):
        return proportion_interval(ones, len(sample), confidence=confidence)
    estimate = float(sample.mean())
    if len(sample) < 2:
        return Interval(estimate, math.nan, math.nan, ONE_UNIT)
    if _constant(sample):
        return Interval(estimate, math.nan, math.nan, ALL_EQUAL)
    interval = _t_of(sample, confidence)
    return Interval(estimate, max(0.0, interval.low), min(1.0, interval.high)) if shares else interval


def mean_over_tasks(samples: Samples, *, shares: bool = False, confidence: float = 0.95) -> Interval:
    """The mean over tasks of each task's mean over its samples; arguments and errors as `mean_interval`.

    With a single task the interval is over its samples, and its note says so.

    >>> mean_over_tasks({"a": [1.0, 3.0], "b": [4.0, 4.0]}).estimate
    3.0
    >>> mean_over_tasks({"a": [1.0, 3.0, 5.0]}).note
    'over samples of one task'
    """
    if len(samples) == 1:
        (values,) = samples.values()
        interval = mean_interval(np.atleast_1d(values), shares=shares, confidence=confidence)
        return interval if math.isnan(interval.low) else interval._replace(note=OVER_SAMPLES)
    means = [
        float(_finite(np.atleast_1d(own), "samples", dimensions=(1,)).mean()) for own in samples.values()
    ]
    return mean_interval(means, shares=shares, confidence=confidence)


def paired_change(before: Samples, after: Samples, *, confidence: float = 0.95) -> Interval:
    """The mean change `after - before` over the same tasks, with the t interval of the differences per task.

    Pairing takes the difficulty of the tasks out of the comparison: a task that is easy before and after says nothing.
    With a single task the interval is that of Welch (1947, Biometrika 34) for two independent lots of samples.

    Args:
        before: the samples' scores of each task, by its id
        after: the same tasks' scores later, or of another team
        confidence: how often the interval should hold the truth

    Raises:
        ValueError: if the two hold different tasks or none, or a score is not finite

    >>> change = paired_change({"a": 1.0, "b": 2.0, "c": 6.0}, {"a": 1.5, "b": 2.0, "c": 7.0})
    >>> change.estimate, round(change.low, 2), round(change.high, 2)  # 0.5 -+ 4.303 * 0.5 / sqrt(3)
    (0.5, -0.74, 1.74)
    """
    only_before, only_after = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    if only_before or only_after:
        raise ValueError(
            "a paired comparison needs the same tasks before and after, but "
            f"{len(only_before)} are only before (such as {only_before[:3]}) and "
            f"{len(only_after)} only after (such as {only_after[:3]}); evaluate both on the same tasks"
        )
    _check_confidence(confidence)
    pairs = [
        (
            _finite(np.atleast_1d(before[task]), "before", dimensions=(1,)),
            _finite(np.atleast_1d(after[task]), "after", dimensions=(1,)),
        )
        for task in sorted(before)
    ]
    if len(pairs) == 1:
        return _welch(*pairs[0], confidence)
    differences = np.array([later.mean() - earlier.mean() for earlier, later in pairs])
    # Not as shares: differences of 0 and 1 could as well have been -1.
    if len(differences) and set(differences) == {0.0, 1.0}:
        return _t_of(differences, confidence)
    return mean_interval(differences, confidence=confidence)


def proportion_interval(successes: int, trials: int, *, confidence: float = 0.95) -> Interval:
    """The share of successes with Clopper and Pearson's exact interval (Biometrika 26, 1934).

    Raises ValueError if `successes` is not between 0 and `trials`, or there is no trial.

    >>> interval = proportion_interval(15, 15)  # 0.025 ** (1 / 15)
    >>> interval.estimate, round(interval.low, 3), interval.high
    (1.0, 0.782, 1.0)
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: expected from 0 to at least 1 trial")
    _check_confidence(confidence)
    tail = (1 - confidence) / 2
    counts = range(trials + 1)
    log_ways = [
        math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1) for count in counts
    ]

    def at_least(count: int, share: float) -> float:
        """The probability of `count` or more successes."""
        yes, no = math.log(share), math.log1p(-share)
        return math.fsum(math.exp(log_ways[c] + c * yes + (trials - c) * no) for c in counts[count:])

    # By symmetry the upper bound is that of the failures from below.
    low = _root(lambda share: at_least(successes, share) - tail) if successes else 0.0
    failures = trials - successes
    high = 1.0 - _root(lambda share: at_least(failures, share) - tail) if failures else 1.0
    return Interval(successes / trials, low, high)


def pass_at_k_over_tasks(
    counts: Mapping[str, tuple[int, int]], k: int, *, confidence: float = 0.95
) -> Interval:
    """pass@k, the mean over tasks of `pass_at_k`, with its interval.

    Args:
        counts: task -> how many samples it has, and how many of them solve it
        k: at most the smallest number of samples
        confidence: how often the interval should hold the truth

    Raises:
        ValueError: as `pass_at_k`, or there is no task

    >>> pass_at_k_over_tasks({"a": (4, 1), "b": (4, 4), "c": (4, 0)}, k=2).estimate
    0.5
    """
    estimates = [pass_at_k(samples, solved, k) for samples, solved in counts.values()]
    if len(counts) == 1:  # 1 - (1 - p)^k grows with p, so bounds of p are bounds of it
        ((samples, solved),) = counts.values()
        share = proportion_interval(solved, samples, confidence=confidence)
        low, high = (1 - (1 - bound) ** k for bound in (share.low, share.high))
        return Interval(estimates[0], low, high, OVER_SAMPLES)
    return mean_interval(estimates, shares=True, confidence=confidence)


def t_quantile(degrees: int, confidence: float = 0.95) -> float:
    """How far from 0 the middle `confidence` of Student's t distribution reaches, for whole degrees of freedom.

    From the finite series of its distribution function (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    >>> round(t_quantile(1), 3), round(t_quantile(14), 3)  # tables: 12.706, 2.145
    (12.706, 2.145)
    """
    if degrees < 1:
        raise ValueError(f"Student's t distribution has at least 1 degree of freedom, got {degrees}")
    _check_confidence(confidence)

    def within(angle: float) -> float:
        """The probability of |t| < tan(angle) * sqrt(degrees)."""
        cosine, odd = math.cos(angle), degrees % 2
        if degrees == 1:
            return 2 * angle / math.pi
        term = total = cosine if odd else 1.0
        for power in range(2 + odd, degrees, 2):
            term *= cosine * cosine * (power - 1) / power
            total += term
        total *= math.sin(angle)
        return 2 / math.pi * (angle + total) if odd else total

    return math.tan(_root(lambda share: within(share * math.pi / 2) - confidence) * math.pi / 2) * math.sqrt(
        degrees
    )


def pass_at_k(samples: int, solved: int, k: int) -> float:
    """How likely at least one of `k` samples of a task solves it: the unbiased estimate of Chen et al. 2021.

    Equation 1 of "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374): 1 - C(n-c, k) / C(n, k), the
    share of the subsets of k of the n samples with at least one of the c that solve the task. The plug-in estimate
    1 - (1 - c/n)^k is too low on average.

    Args:
        samples: n, how many samples of the task were scored
        solved: c, how many of them solve it
        k: at most n

    Raises:
        ValueError: if k is not between 1 and n, or c not between 0 and n

    >>> pass_at_k(samples=4, solved=1, k=1), pass_at_k(samples=4, solved=1, k=2)
    (0.25, 0.5)
    """
    if not 1 <= k <= samples or not 0 <= solved <= samples:
        raise ValueError(
            f"pass@{k} of {solved} solutions in {samples} samples: k must be between 1 and the number of samples, "
            "and the number of solutions not larger than it"
        )
    return 1.0 - math.comb(samples - solved, k) / math.comb(samples, k)


def iqm(scores: ArrayLike, *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95) -> Interval:
    """The inter-quartile mean of all scores, resampling runs within each task (stratified).

    The mean of what is left when the lowest and the highest quarter (rounded down) are put aside: less moved by one
    failed run than the mean, and by more of the data than the median.

    Args:
        scores: (runs, tasks), or (runs,) for a single task
        seed: of the resampling
        resamples: how many times the runs are drawn
        confidence: the share of the resamples that lies between the bounds

    Raises:
        ValueError: if there is no score, or one is not finite

    >>> iqm([-100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 900.0]).estimate
    3.5
    """
    table = _runs_by_task(scores, "scores")

    def middle_mean(drawn: Floats) -> Floats:
        pooled = np.sort(drawn.reshape(len(drawn), -1), axis=1)
        cut = pooled.shape[1] // 4
        return pooled[:, cut : pooled.shape[1] - cut].mean(axis=1)

    return _interval(table, middle_mean, seed, resamples, confidence)


def probability_of_improvement(
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = 2_000,
    confidence: float = 0.95,
) -> Interval:
    """How likely a run of ours scores higher than one of theirs on the same task; a tie counts one half.

    The share of won pairs per task (the Mann-Whitney statistic), averaged over tasks. 0.5 is no difference; it says how
    often, not by how much.

    Args:
        ours: (runs, tasks), or (runs,) for a single task
        theirs: (runs of theirs, tasks): as many tasks, not necessarily as many runs
        seed: of the resampling
        resamples: how many times the runs are drawn
        confidence: the share of the resamples that lies between the bounds

    Raises:
        ValueError: if there is no score, one is not finite, or the numbers of tasks differ

    >>> probability_of_improvement([3.0, 4.0], [1.0, 3.0]).estimate
    0.875
    """
    left, right = _runs_by_task(ours, "ours"), _runs_by_task(theirs, "theirs")
    if left.shape[1] != right.shape[1]:
        raise ValueError(
            f"both need the same tasks in the same order, but ours has {left.shape[1]} and theirs {right.shape[1]}"
        )
    runs = len(left)

    def share_won(drawn: Floats) -> Floats:
        a, b = (
            drawn[:, :runs, None, :],
            drawn[:, None, runs:, :],
        )  # (resamples, runs, 1, tasks), (.., 1, runs, ..)
        return ((a > b) + 0.5 * (a == b)).mean(axis=(1, 2, 3))

    return _interval(
        np.vstack([left, right]), share_won, seed, resamples, confidence, groups=(runs, len(right))
    )


def _t_of(sample: Floats, confidence: float) -> Interval:
    estimate = float(sample.mean())
    half = t_quantile(len(sample) - 1, confidence) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Interval(estimate, estimate - half, estimate + half)


def _welch(before: Floats, after: Floats, confidence: float) -> Interval:
    estimate = float(after.mean() - before.mean())
    if min(len(before), len(after)) < 2:
        return Interval(estimate, math.nan, math.nan, ONE_UNIT)
    if _constant(before) and _constant(after):
        return Interval(estimate, math.nan, math.nan, ALL_EQUAL)
    parts = [float(own.var(ddof=1)) / len(own) for own in (before, after)]
    degrees = sum(parts) ** 2 / math.fsum(
        part**2 / (len(own) - 1) for part, own in zip(parts, (before, after), strict=True)
    )
    half = t_quantile(math.floor(degrees), confidence) * math.sqrt(sum(parts))  # rounded down: wider
    return Interval(estimate, estimate - half, estimate + half, OVER_SAMPLES)


def _constant(sample: Floats) -> bool:
    """Whether the values differ by no more than rounding."""
    return float(np.ptp(sample)) <= 1e-9 * float(np.abs(sample).max())


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function on (0, 1) is 0, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a share between 0 and 1, got {confidence}; for 95 % give 0.95")


def _interval(
    table: Floats,
    figure: Callable[[Floats], Floats],
    seed: int,
    resamples: int,
    confidence: float,
    groups: tuple[int, ...] | None = None,
) -> Interval:
    """The figure of `table` (units, strata) with the quantiles of its resamples.

    Units are drawn with replacement within each stratum and within each of the `groups` of successive units. `figure`
    maps (resamples, units, strata) to (resamples,).
    """
    _check_confidence(confidence)
    if resamples < 1:
        raise ValueError(f"resamples is how many times the data are drawn, at least 1, got {resamples}")
    groups = groups or (len(table),)
    estimate = float(figure(table[None])[0])
    if min(groups) < 2:
        return Interval(estimate, math.nan, math.nan)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK // (table.size * (max(groups) if len(groups) > 1 else 1)))
    figures = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        first, picked = 0, []
        for count in groups:
            picked.append(first + generator.integers(count, size=(size, count, table.shape[1])))
            first += count
        drawn = np.take_along_axis(table[None], np.concatenate(picked, axis=1), axis=1)
        figures.append(figure(drawn))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(figures), [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def _runs_by_task(scores: ArrayLike, name: str) -> Floats:
    table = _finite(scores, name, dimensions=(1, 2))
    return table[:, None] if table.ndim == 1 else table


def _finite(values: ArrayLike, name: str, dimensions: tuple[int, ...]) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in dimensions or array.size == 0:
        shapes = " or ".join({1: "(units,)", 2: "(runs, tasks)"}[count] for count in dimensions)
        raise ValueError(f"{name} must be numbers of shape {shapes}, at least one; got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(
            f"{name} holds {int((~np.isfinite(array)).sum())} values that are not finite; score them first"
        )
    return array
