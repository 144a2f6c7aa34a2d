"""The intervals that tables of scores show, and what they say where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from rich.console import Console
from rich.table import Table

from textmarl.agents import Episode, Evaluation
from textmarl.benchmarks.statistics import mean_interval, proportion_interval
from textmarl.benchmarks.summary import summarise
from textmarl.cli.tables import change_table, evaluation_table


def evaluation(scores: dict[str, Sequence[float]], success: bool = False) -> Evaluation:
    episodes = [
        Episode(task, sample, score, {"score": score}, None, [], {"solved": score} if success else {})
        for task, values in scores.items()
        for sample, score in enumerate(values)
    ]
    return Evaluation("Game-v0", 1.0, episodes, success_metric="solved" if success else None)


def shown(table: Table) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_game_of_one_task_has_an_interval_over_its_samples_that_says_so() -> None:
    values = [0.1, 0.4, 0.2, 0.3]
    text = shown(evaluation_table(evaluation({"game": values})))
    interval = mean_interval(values)
    assert f"{interval.low:.3f} to {interval.high:.3f}" in text
    assert "intervals over samples of one task" in text


@pytest.mark.parametrize(("solved", "of"), [(15, 15), (12, 15), (0, 15)])
def test_pass_at_1_of_one_sample_each_has_an_exact_interval(solved: int, of: int) -> None:
    text = shown(evaluation_table(evaluation({str(i): [float(i < solved)] for i in range(of)}, success=True)))
    interval = proportion_interval(solved, of)
    assert interval.low < interval.high
    (line,) = [line for line in text.splitlines() if "pass@1" in line]
    assert f"{interval.low:.3f} to {interval.high:.3f}" in line
    assert "over samples" not in text


def test_what_known_ways_of_playing_score_stands_under_both_tables() -> None:
    one = evaluation({"game": [0.1, 0.2]})
    one.reference_scores = {"optimal": 1.0, "uniform": -0.25}
    for text in (shown(evaluation_table(one)), shown(change_table(one, one))):
        assert "for comparison: optimal 1.00 (100.0 %), uniform -0.25 (-25.0 %)" in " ".join(text.split())
    assert "for comparison" not in shown(evaluation_table(evaluation({"game": [0.1, 0.2]})))
    assert summarise(one)["reference_scores"] == {"optimal": 1.0, "uniform": -0.25}


def test_equal_scores_are_named_instead_of_an_interval_without_width() -> None:
    text = shown(evaluation_table(evaluation({"a": [0.5], "b": [0.5]})))
    assert "all equal" in text and "0.500 to 0.500" not in text
    assert "needs 2 tasks" in shown(evaluation_table(evaluation({"a": [0.5]})))


def test_a_change_on_one_task_has_an_interval_over_its_samples_that_says_so() -> None:
    before, after = evaluation({"game": [0.1, 0.2, 0.3]}), evaluation({"game": [0.5, 0.7, 0.9]})
    text = shown(change_table(before, after))
    assert "intervals over samples of one task" in text and "over the differences" not in text
    several = evaluation({"a": [0.1], "b": [0.3]}), evaluation({"a": [0.5], "b": [0.4]})
    assert "intervals of the change: t, over the differences of tasks" in shown(change_table(*several))
