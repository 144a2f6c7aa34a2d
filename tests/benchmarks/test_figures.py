"""The figures of a run: everything is inside the picture, and what there is nothing to draw of says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the report is part of the extra `train`")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from textmarl.benchmarks import figures
from textmarl.benchmarks.comparison import compare
from textmarl.benchmarks.report import write_report
from textmarl.benchmarks.runs import RunRecord, ScoredStep, load_run

MakeRun = Callable[..., Path]


@pytest.mark.parametrize("tasks", [12, 1])
def test_nothing_in_the_picture_is_cut_off(make_run: MakeRun, tasks: int) -> None:
    run = load_run(make_run(tasks=tasks))
    # Many terms of both signs: a tall legend, and labels as wide as "-1.5".
    more = {f"terms/another_{number}": -0.3 * number for number in range(1, 6)}
    more |= {f"metrics/{name}": 1.25 for name in ("pass_rate", "all_passed", "timeouts", "v0_score")}
    run = with_references(replace(run, metrics=[{**row, **more} for row in run.metrics]))
    with figures.style(*figures.PICTURE_COLOURS):
        figure = figures.picture(run, compare(run), "A title", ["one line of text", "and another"])
        figure.draw_without_rendering()
        whole = figure.bbox.padded(1)
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        labels = [text.get_text() for text in texts]
        # Ticks beyond an axis' limits exist, but are not drawn.
        ticks = {label for axes in figure.findobj(Axes) for label in tick_labels(axes)}
        cut = [
            text.get_text()
            for text in texts
            if text not in ticks and not contains(whole, text.get_window_extent())
        ]
    assert "reward" in labels and "another_5" in labels
    assert not cut


def tick_labels(axes: Axes) -> list[Text]:
    return [label for axis in (axes.xaxis, axes.yaxis) for label in axis.get_ticklabels(which="both")]


def contains(whole: Bbox, part: Bbox) -> bool:
    return whole.x0 <= part.x0 and part.x1 <= whole.x1 and whole.y0 <= part.y0 and part.y1 <= whole.y1


def with_references(run: RunRecord) -> RunRecord:
    """The run in an environment whose optimum is the maximum, and in which uniform play scores a quarter less than 0."""
    scored: list[ScoredStep] = []
    for one in run.evaluations:
        maximum = one.evaluation.max_score or 1.0
        known = {"optimal": maximum, "uniform": -maximum / 4}
        scored.append(replace(one, evaluation=replace(one.evaluation, reference_scores=known)))
    return replace(run, evaluations=scored)


def test_the_learning_curve_has_a_line_for_each_known_way_of_playing(make_run: MakeRun) -> None:
    run = with_references(load_run(make_run()))
    axes = Figure().subplots()
    figures.draw_learning_curve(axes, run)
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    for name, percent in (("optimal", 100.0), ("uniform", -25.0)):
        assert list(lines[name].get_ydata()) == [percent, percent]
        low, high = axes.get_ylim()
        assert low <= percent <= high


def test_a_chart_whose_lines_lie_on_the_axis_says_so(make_run: MakeRun) -> None:
    run = load_run(make_run())
    flat = replace(
        run, metrics=[{k: v if k == "step" else 0.0 for k, v in row.items()} for row in run.metrics]
    )
    for key, title, factor, low in figures.present_diagnostics(run):
        notes = []
        for one in (run, flat):
            axes = Figure().subplots()
            figures.draw_diagnostic(axes, one, key, title, factor, low)
            notes.append([text.get_text() for text in axes.texts])
        assert notes[0] == [] and notes[1][0].endswith("0 in every step")
        assert notes[1][0].startswith("no signal") == (key in ("credit_std", "grad_norm"))
    axes = Figure().subplots()
    figures.draw_terms(axes, flat)
    assert [text.get_text() for text in axes.texts] == ["0 in every step"]


def test_picture_is_a_png_of_a_useful_size(make_run: MakeRun) -> None:
    folder = make_run()
    write_report(folder)
    with Image.open(folder / "report.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 800


def test_reused_experience_shows_how_far_the_policy_has_moved_from_it(make_run: MakeRun) -> None:
    run = load_run(make_run())
    title = "KL to the policy that sampled"
    assert title not in [panel[1] for panel in figures.present_diagnostics(run)]
    run = replace(run, metrics=[{**row, "approx_kl/concise": 0.01} for row in run.metrics])
    assert title in [panel[1] for panel in figures.present_diagnostics(run)]
