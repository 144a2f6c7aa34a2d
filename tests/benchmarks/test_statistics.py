"""Figures with numbers worked out by hand or by brute force, and intervals that hold what they promise."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmarl.benchmarks.statistics import (
    Interval,
    iqm,
    mean_interval,
    mean_over_tasks,
    paired_change,
    pass_at_k,
    pass_at_k_over_tasks,
    probability_of_improvement,
    proportion_interval,
    t_quantile,
)

SCORES = st.floats(-1e3, 1e3, allow_nan=False)


def test_quantiles_of_students_t_are_those_of_the_tables() -> None:
    # Two-sided 95 %, then 99 %: Abramowitz and Stegun 1964, table 26.10.
    tables = {
        1: (12.706, 63.657),
        2: (4.303, 9.925),
        3: (3.182, 5.841),
        10: (2.228, 3.169),
        120: (1.980, 2.617),
    }
    for degrees, (at_95, at_99) in tables.items():
        assert t_quantile(degrees) == pytest.approx(at_95, abs=6e-4)
        assert t_quantile(degrees, 0.99) == pytest.approx(at_99, abs=6e-4)


def test_mean_has_students_interval() -> None:
    # Mean 2.5, variance 5 / 3, t of 3 degrees of freedom 3.182: 2.5 -+ 3.182 * sqrt(5 / 12).
    got = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.18245 * math.sqrt(5 / 12)
    assert got == pytest.approx((2.5, 2.5 - half, 2.5 + half, ""), abs=1e-4)


def test_mean_has_the_width_of_the_normal_approximation_for_many_values() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, size=400)
    got = mean_interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert got.low == pytest.approx(values.mean() - half, abs=0.01)
    assert got.high == pytest.approx(values.mean() + half, abs=0.01)


def test_one_unit_says_nothing_about_the_spread() -> None:
    got = mean_interval([3.0])
    assert (got.estimate, got.note) == (3.0, "needs 2 tasks")
    assert math.isnan(got.low) and math.isnan(got.high)
    assert not got.excludes(0.0)


@pytest.mark.parametrize("values", [[1.0] * 15, [0.0, 0.0], [10.1 - 10.0, 20.1 - 20.0, 0.1]])
def test_equal_values_have_no_interval_without_width(values: list[float]) -> None:
    got = mean_interval(values)
    assert math.isnan(got.low) and math.isnan(got.high) and got.note == "all equal"


def test_shares_have_bounds_even_if_all_are_equal() -> None:
    # All 15 of 15: the lower bound p has p^15 = 0.025.
    assert mean_interval([1.0] * 15, shares=True) == pytest.approx((1.0, 0.025 ** (1 / 15), 1.0, ""))
    assert mean_interval([0.0] * 15, shares=True) == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 15), ""))


def test_zeros_and_ones_have_clopper_and_pearsons_bounds() -> None:
    # At the bounds of 2 of 10, 2 or more, and 2 or fewer, have probability 0.025.
    def probability(counts: range, share: float) -> float:
        return sum(math.comb(10, c) * share**c * (1 - share) ** (10 - c) for c in counts)

    got = mean_interval([1.0, 1.0] + [0.0] * 8)
    assert got == proportion_interval(2, 10)
    assert probability(range(2, 11), got.low) == pytest.approx(0.025)
    assert probability(range(3), got.high) == pytest.approx(0.025)


def test_bounds_of_shares_are_shares() -> None:
    got = mean_interval([0.9, 1.0, 0.95, 0.2], shares=True)
    assert 0.0 <= got.low < got.estimate < got.high <= 1.0


def test_a_task_counts_once_however_many_samples_it_has() -> None:
    samples = {"a": [0.0] * 7 + [7.0], "b": [2.0, 4.0], "c": [5.5]}
    assert mean_over_tasks(samples) == mean_interval([0.875, 3.0, 5.5])
    assert mean_over_tasks({"a": 0.875, "b": 3.0, "c": 5.5}) == mean_over_tasks(samples)


def test_a_single_task_gets_an_interval_over_its_samples_that_says_so() -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    assert mean_over_tasks({"game": values}) == mean_interval(values)._replace(
        note="over samples of one task"
    )
    assert mean_over_tasks({"game": [1.0]}).note == "needs 2 tasks"


def test_paired_change_is_the_interval_of_the_differences() -> None:
    generator = np.random.default_rng(5)
    before = {str(index): float(score) for index, score in enumerate(generator.normal(size=30))}
    after = {task: score + float(generator.normal(0.4, 0.3)) for task, score in before.items()}
    differences = [after[task] - before[task] for task in sorted(before)]
    assert paired_change(before, after) == mean_interval(differences)


def test_paired_change_of_equal_gains_is_no_certainty() -> None:
    before = {f"task-{index}": float(10 * index) for index in range(10)}
    change = paired_change(before, {task: score + 0.25 for task, score in before.items()})
    assert change.estimate == 0.25 and math.isnan(change.low) and change.note == "all equal"


def test_paired_change_of_zeros_and_ones_is_no_share() -> None:
    # Differences 0, 0, 1, 1: t of 3 degrees of freedom, so that the lower bound may be negative.
    change = paired_change(dict.fromkeys("abcd", 0.0), {"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0})
    assert change.low == pytest.approx(0.5 - 3.18245 * math.sqrt(1 / 12), abs=1e-4)


def test_paired_change_matches_tasks_by_id_not_by_order() -> None:
    before = {"a": 1.0, "b": 2.0, "c": 3.0}
    assert paired_change(before, {"c": 3.0, "b": 2.0, "a": 1.0}).estimate == 0.0


def test_change_on_a_single_task_is_welchs() -> None:
    # Variances 1 and 4 of three samples each: standard error sqrt(5 / 3); degrees of freedom
    # (5 / 3)^2 / ((1 / 3)^2 / 2 + (4 / 3)^2 / 2) = 2.94, rounded down to 2: t = 4.303.
    change = paired_change({"game": [1.0, 2.0, 3.0]}, {"game": [3.0, 5.0, 7.0]})
    half = 4.30265 * math.sqrt(5 / 3)
    assert change == pytest.approx((3.0, 3.0 - half, 3.0 + half, "over samples of one task"), abs=1e-4)
    assert paired_change({"game": 1.0}, {"game": 2.0}).note == "needs 2 tasks"
    assert paired_change({"game": [1.0, 1.0]}, {"game": [2.0, 2.0]}).note == "all equal"


def test_paired_change_of_different_tasks_is_refused_with_their_names() -> None:
    with pytest.raises(ValueError, match=r"same tasks.*'lost'.*'new'"):
        paired_change({"a": 1.0, "lost": 1.0}, {"a": 1.0, "new": 1.0})


def test_pass_at_k_of_many_tasks_has_the_interval_of_shares() -> None:
    one_each = {str(index): (1, int(index < 12)) for index in range(15)}
    assert pass_at_k_over_tasks(one_each, k=1) == proportion_interval(12, 15)
    several = {"a": (4, 1), "b": (4, 4), "c": (4, 0)}
    assert pass_at_k_over_tasks(several, k=2) == mean_interval([0.5, 1.0, 0.0], shares=True)


def test_pass_at_k_of_one_task_has_an_interval_over_its_samples() -> None:
    share = proportion_interval(3, 10)
    got = pass_at_k_over_tasks({"game": (10, 3)}, k=2)
    assert got.estimate == pytest.approx(pass_at_k(10, 3, 2))
    assert (got.low, got.high) == pytest.approx((1 - (1 - share.low) ** 2, 1 - (1 - share.high) ** 2))
    assert got.note == "over samples of one task"


def test_same_seed_same_interval_and_other_seed_another() -> None:
    values = np.random.default_rng(0).normal(size=25)
    assert iqm(values, seed=1) == iqm(values, seed=1)
    assert iqm(values, seed=1) != iqm(values, seed=2)


@pytest.mark.parametrize(("samples", "solved"), [(1, 0), (1, 1), (5, 0), (5, 2), (6, 1), (6, 5)])
def test_pass_at_k_is_the_share_of_subsets_with_a_solution(samples: int, solved: int) -> None:
    outcomes = [True] * solved + [False] * (samples - solved)
    for k in range(1, samples + 1):
        subsets = list(itertools.combinations(outcomes, k))
        assert pass_at_k(samples, solved, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_right_on_average() -> None:
    # Ten samples that solve the task with probability 0.3 each: k of them do so with 1 - 0.7^k.
    for k in (1, 3, 10):
        likelihoods = [math.comb(10, c) * 0.3**c * 0.7 ** (10 - c) for c in range(11)]
        expected = sum(p * pass_at_k(10, c, k) for c, p in enumerate(likelihoods))
        assert expected == pytest.approx(1 - 0.7**k)


@pytest.mark.parametrize(("samples", "solved", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1), (3, -1, 1), (0, 0, 1)])
def test_pass_at_k_of_too_few_samples_is_refused(samples: int, solved: int, k: int) -> None:
    with pytest.raises(ValueError, match="k must be between 1 and the number of samples"):
        pass_at_k(samples, solved, k)


def test_inter_quartile_mean_ignores_the_outer_quarters() -> None:
    # 12 scores: 3 leave at either end; what stays is 4..9, whose mean is 6.5.
    table = np.arange(1.0, 13.0).reshape(4, 3)
    table[0, 0], table[3, 2] = -1e6, 1e6
    assert iqm(table).estimate == pytest.approx(6.5)


def test_inter_quartile_mean_rounds_the_quarters_down() -> None:
    # A quarter of 7 is 1 when rounded down: (2 + 3 + 4 + 5 + 6) / 5.
    assert iqm([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]).estimate == pytest.approx(4.0)


def test_inter_quartile_mean_resamples_runs_within_tasks() -> None:
    # Every task scores its own constant: runs do not differ, so a stratified resample cannot move.
    table = np.tile([0.0, 10.0, 20.0, 30.0], (5, 1))
    assert iqm(table) == Interval(15.0, 15.0, 15.0)


def test_probability_of_improvement_counts_pairs_and_halves_ties() -> None:
    # (2,1) won, (2,2) tied, (2,3) lost, (3,1) won, (3,2) won, (3,3) tied: 4 of 6.
    assert probability_of_improvement([2.0, 3.0], [1.0, 2.0, 3.0]).estimate == pytest.approx(4 / 6)


def test_probability_of_improvement_averages_over_tasks() -> None:
    ours, theirs = [[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]
    assert probability_of_improvement(ours, theirs) == Interval(0.5, 0.5, 0.5)


def test_clear_improvement_is_certain() -> None:
    assert probability_of_improvement([5.0, 6.0, 7.0], [1.0, 2.0, 3.0]) == Interval(1.0, 1.0, 1.0)


@settings(max_examples=25, deadline=None)
@given(st.lists(SCORES, min_size=2, max_size=6), st.lists(SCORES, min_size=2, max_size=6))
def test_probabilities_of_improvement_of_both_sides_add_up_to_one(
    ours: list[float], theirs: list[float]
) -> None:
    forward = probability_of_improvement(ours, theirs, resamples=50)
    backward = probability_of_improvement(theirs, ours, resamples=50)
    assert forward.estimate + backward.estimate == pytest.approx(1.0)
    assert 0.0 <= forward.low <= forward.high <= 1.0


@settings(max_examples=25, deadline=None)
@given(st.lists(SCORES, min_size=2, max_size=12))
def test_bounds_of_a_resampled_mean_lie_within_the_data(values: list[float]) -> None:
    interval = iqm(values, resamples=200)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_interval([]), "at least one"),
        (lambda: mean_interval([1.0, math.nan]), "not finite"),
        (lambda: mean_interval([[1.0], [2.0]]), "shape"),
        (lambda: mean_interval([1.0, 2.0], confidence=95), "0.95"),
        (lambda: mean_interval([0.5, 1.5], shares=True), "shares are from 0 to 1"),
        (lambda: mean_over_tasks({}), "at least one"),
        (lambda: mean_over_tasks({"a": [], "b": [1.0]}), "at least one"),
        (lambda: proportion_interval(3, 2), "3 successes in 2 trials"),
        (lambda: t_quantile(0), "at least 1 degree"),
        (lambda: iqm([1.0, 2.0], resamples=0), "resamples"),
        (lambda: paired_change({}, {}), "at least one"),
        (lambda: paired_change({"a": math.inf}, {"a": 1.0}), "not finite"),
        (lambda: probability_of_improvement([[1.0, 2.0]], [[1.0]]), "same tasks"),
    ],
)
def test_senseless_input_is_refused_with_what_was_expected(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_scaling_by_a_negative_factor_keeps_the_bounds_in_order() -> None:
    assert Interval(1.0, 0.5, 2.0).scaled(-1) == Interval(-1.0, -2.0, -0.5)
