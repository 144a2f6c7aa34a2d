"""The figures of a run: for the report page as SVG that follows the page's colours, and one picture of the main panels.

Needs matplotlib (`pip install matplotlib`). Figures are drawn without pyplot, so nothing global is left behind.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from textmarl.benchmarks.comparison import Comparison, mean_score
from textmarl.benchmarks.runs import RunRecord
from textmarl.benchmarks.wording import one_line

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator
except ModuleNotFoundError as error:
    raise ImportError(
        "the report needs matplotlib: pip install matplotlib (or -e '.[train]' in a checkout of textmarl)"
    ) from error

# Told apart on white and on black, and by most colour-blind readers.
PALETTE = ("#2f7fc1", "#e0762f", "#2f9e77", "#b06ac4", "#c29a1f", "#d2546b", "#5a9bb0", "#8c8c8c")
GAIN, LOSS = "#2f9e77", "#d2546b"

# What a diagnostic shows, per agent: key in the metrics, title, unit factor, lower bound of the axis.
DIAGNOSTICS: tuple[tuple[str, str, float, float | None], ...] = (
    ("entropy", "Entropy (nats per token)", 1.0, 0.0),
    ("length", "Response length (tokens)", 1.0, 0.0),
    ("cut", "Cut at the limit (%)", 100.0, 0.0),
    ("no_signal", "Groups without signal (%)", 100.0, 0.0),
    ("credit_std", "Spread of returns within groups", 1.0, 0.0),
    ("grad_norm", "Gradient norm", 1.0, 0.0),
    ("kl", "KL to the reference policy", 1.0, None),
    ("sampling_kl", "KL, sampled against scored", 1.0, None),
    ("approx_kl", "KL to the policy that sampled", 1.0, 0.0),
)

# Where these are 0, all returns of every group were equal and nothing was learned.
SIGNALS = frozenset({"credit_std", "grad_norm"})

# Stand-ins that the SVG's text, axes and grid are drawn in; `to_svg` puts the page's own colours in their place.
INK, MUTED, GRID = "#010203", "#040506", "#070809"
PAGE_COLOURS = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}
PICTURE_COLOURS = ("#1f2430", "#5b6472", "#e3e6eb")


@contextmanager
def style(ink: str, muted: str, grid: str) -> Iterator[None]:
    """Matplotlib's settings for our figures, within the block only."""
    settings = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": ink,
        "text.parse_math": False,  # names of terms and agents are no formulas
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlecolor": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": grid,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "xtick.color": grid,
        "ytick.color": grid,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "lines.linewidth": 1.8,
        "svg.fonttype": "none",
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # it is drawn as a box
        yield


def to_svg(draw: Callable[[Figure], None], width: float, height: float, label: str) -> str:
    """The SVG element of the figure that `draw` draws, `width` by `height` inches, in the colours of the page."""
    # The salt names clip paths and markers: without one of its own, figures on one page would take each other's.
    with style(INK, MUTED, GRID), matplotlib.rc_context({"svg.hashsalt": label}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = (
        re.sub(r' (?:width|height)="[\d.]+pt"| xmlns(?::xlink)?="[^"]*"', "", svg[: svg.index(">")])
        + svg[svg.index(">") :]
    )
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    svg = svg.replace("'DejaVu Sans'", "inherit").replace('"DejaVu Sans"', "inherit")
    for stand_in, colour in PAGE_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg


def write_picture(
    run: RunRecord, comparison: Comparison | None, title: str, lines: Sequence[str], path: Path
) -> None:
    """Write the PNG with the main panels under a title and one or two lines of text."""
    with style(*PICTURE_COLOURS):
        picture(run, comparison, title, lines).savefig(path, format="png", dpi=130)


def picture(run: RunRecord, comparison: Comparison | None, title: str, lines: Sequence[str]) -> Figure:
    """The figure of the main panels, laid out; to be drawn in the style that it was made in."""
    ink, muted = matplotlib.rcParams["text.color"], matplotlib.rcParams["axes.labelcolor"]
    heading = 0.5 + 0.32 * len(lines)  # inches
    figure = Figure(figsize=(12.5, heading + 7.5), layout="constrained", facecolor="white")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[heading, 4.5, 3.0])
    for part in (top, middle, bottom):
        part.set_facecolor("none")
    top.text(0.012, 1 - 0.36 / heading, title, fontsize=16, fontweight="bold", color=ink)
    for index, line in enumerate(lines):
        top.text(0.012, 1 - (0.72 + 0.29 * index) / heading, line, fontsize=11, color=muted)
    left, right = middle.subplots(1, 2, width_ratios=[1.35, 1])
    draw_learning_curve(left, run, "Learning curve")
    panels: list[Callable[[Axes], None]] = []
    widths: list[float] = []
    if comparison is not None and len(comparison.tasks) > 1:
        draw_task_gains(right, run, comparison)
        if run.names("terms"):
            panels.append(partial(draw_terms, run=run))
            widths.append(1.5)  # its legend stands beside it
    else:
        draw_terms(right, run)
    for key, name, factor, low in present_diagnostics(run)[: 4 - len(panels)]:
        panels.append(partial(draw_diagnostic, run=run, key=key, title=name, factor=factor, low=low))
        widths.append(1.0)
    if panels:
        for axes, draw in zip(
            bottom.subplots(1, len(panels), width_ratios=widths, squeeze=False)[0], panels, strict=True
        ):
            draw(axes)
    else:
        say(bottom.subplots(), "no training step yet")
    # Ticks are chosen for the size that axes have before the layout, and their labels may grow with it.
    figure.draw_without_rendering()
    return figure


def draw_learning_curve(axes: Axes, run: RunRecord, title: str = "") -> None:
    """Training score per step with its trailing mean, and the evaluations with their intervals."""
    maximum = run.max_score
    percent = maximum is not None or (not run.evaluations and len(run.series("score_percent")[0]) > 0)
    steps, scores = run.series("score_percent" if percent else "score")
    axes.set_title(title)
    axes.set_xlabel("training step")
    axes.set_ylabel("score, % of the maximum" if percent else "score")
    if len(steps):
        window = smoothing_window(len(steps))
        axes.plot(steps, scores, "o", ms=3, alpha=0.5, color=PALETTE[0], mew=0, label="training, each step")
        if window > 1:
            axes.plot(
                steps,
                trailing_mean(scores, window),
                color=PALETTE[0],
                label=f"training, mean of the last {window} steps",
            )
    for index, scored in enumerate(run.evaluations):
        interval = mean_score(scored.evaluation).scaled(100 / maximum if maximum else 1.0)
        low, high = (
            interval.estimate if np.isnan(bound) else bound for bound in (interval.low, interval.high)
        )
        axes.errorbar(
            [scored.step],
            [interval.estimate],
            yerr=[[max(0.0, interval.estimate - low)], [max(0.0, high - interval.estimate)]],
            fmt="D", ms=6, color=PALETTE[1], capsize=4, lw=1.5, zorder=5,
            label=f"{scored.kind} tasks, 95 % interval" if index == 0 else None,
        )  # fmt: skip
    if not len(steps) and not run.evaluations:
        say(axes, "no score yet")
        return
    known = run.evaluations[-1].evaluation.reference_scores if run.evaluations else {}
    for index, (name, score) in enumerate(known.items()):
        axes.axhline(
            score * (100 / maximum if maximum else 1.0),
            color=PALETTE[(index + 2) % len(PALETTE)],
            ls="--",
            lw=1.2,
            zorder=1,
            label=one_line(name, 24),
        )
    low, high = axes.get_ylim()
    if percent and high - low < 2:  # hardly a change must not look like one
        axes.set_ylim(low - 1, high + 1)
    whole_steps(axes.xaxis)
    add_evaluations_axis(axes, run)
    axes.legend(loc="lower right")


def add_evaluations_axis(axes: Axes, run: RunRecord) -> None:
    """A second x axis on top: how many rewards had been computed by then."""
    steps, evaluations = run.series("total/reward_evaluations")
    if not len(steps):
        return
    if steps[0] > 0:
        steps, evaluations = np.concatenate([[0.0], steps]), np.concatenate([[0.0], evaluations])
    second = axes.secondary_xaxis("top")
    second.set_xlabel("reward evaluations")
    whole_steps(second.xaxis)
    second.xaxis.set_major_formatter(
        FuncFormatter(
            lambda step, _: (
                f"{np.interp(step, steps, evaluations):,.0f}" if steps[0] <= step <= steps[-1] else ""
            )
        )
    )


def draw_terms(axes: Axes, run: RunRecord) -> None:
    """The trailing mean of each reward term."""
    axes.set_title("Reward terms in training")
    axes.set_xlabel("training step")
    if not run.names("terms"):
        say(axes, "no reward terms yet")
        return
    axes.set_ylabel("reward")
    _draw_means(axes, run, "terms")


def draw_metrics(axes: Axes, run: RunRecord) -> None:
    """The trailing mean of each metric beside the score."""
    axes.set_title("Beside the score, in training")
    axes.set_xlabel("training step")
    axes.set_ylabel("metric, in its own unit")
    _draw_means(axes, run, "metrics")


def _draw_means(axes: Axes, run: RunRecord, prefix: str) -> None:
    if not any(run.series(f"{prefix}/{name}")[1].any() for name in run.names(prefix)):
        _note(axes, "0 in every step")
    for index, name in enumerate(run.names(prefix)):
        steps, values = run.series(f"{prefix}/{name}")
        axes.plot(
            steps,
            trailing_mean(values, smoothing_window(len(steps))),
            color=PALETTE[index % len(PALETTE)],
            ls=("-", "--", ":")[index // len(PALETTE) % 3],
            marker="o" if len(steps) == 1 else None,
            label=one_line(name, 24),
        )
    whole_steps(axes.xaxis)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.5)


def draw_task_gains(axes: Axes, run: RunRecord, comparison: Comparison) -> None:
    """How much each evaluated task changed, the largest gain first."""
    maximum = run.max_score
    gains = np.array(list(comparison.gains.values())) * (100 / maximum if maximum else 1.0)
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    axes.set_title(
        f"{comparison.before.kind.capitalize()} tasks: {better} better, {worse} worse, {len(gains) - better - worse} equal"
    )
    axes.bar(
        np.arange(1, len(gains) + 1), gains, width=0.8, color=[GAIN if gain > 0 else LOSS for gain in gains]
    )
    axes.axhline(0, color=matplotlib.rcParams["axes.labelcolor"], lw=0.8)
    if not gains.any():
        _note(axes, "no task changed")
    axes.set_xlabel("tasks, the largest gain first")
    axes.set_ylabel("change, points" if maximum else "change of the score")
    axes.set_xlim(0.2, len(gains) + 0.8)
    axes.grid(axis="x", visible=False)
    whole_steps(axes.xaxis)


def present_diagnostics(run: RunRecord) -> list[tuple[str, str, float, float | None]]:
    """The diagnostics that the run has measured for at least one agent."""
    return [
        item
        for item in DIAGNOSTICS
        if any(len(run.series(f"{item[0]}/{name}")[0]) for name in run.names(item[0]))
    ]


def draw_diagnostic(
    axes: Axes, run: RunRecord, key: str, title: str, factor: float, low: float | None, legend: bool = True
) -> None:
    """One diagnostic, a line per agent."""
    axes.set_title(title)
    axes.set_xlabel("training step")
    order = run.agents
    names = sorted(run.names(key), key=lambda name: order.index(name) if name in order else len(order))
    highest = 0.0
    for index, name in enumerate(names):
        steps, values = run.series(f"{key}/{name}")
        sparse = len(steps) < 15
        axes.plot(
            steps,
            factor * values,
            color=PALETTE[index % len(PALETTE)],
            lw=1.5,
            marker="o" if sparse else None,
            ms=3.5,
            label=one_line(name, 24),
        )
        highest = max(highest, float(factor * values.max(initial=0.0)))
    if names and not any(run.series(f"{key}/{name}")[1].any() for name in names):
        _note(axes, "no signal: 0 in every step" if key in SIGNALS else "0 in every step")
    if low is not None:
        axes.set_ylim(low, low + 1.08 * (highest - low) if highest > low else low + 1)
    whole_steps(axes.xaxis)
    if legend:
        axes.legend(loc="best")


def draw_diagnostics(figure: Figure, run: RunRecord) -> None:
    """All present diagnostics as small panels, three in a row."""
    panels = present_diagnostics(run)
    grid = figure.subplots(-(-len(panels) // 3), 3, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        draw_diagnostic(axes, run, *panel, legend=False)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper right", ncols=8)
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)


def trailing_mean(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """The mean of each value and those before it, `window` in all, fewer at the start."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def smoothing_window(points: int) -> int:
    """How many steps a curve of so many points is averaged over."""
    return int(min(20, max(1, points // 8)))


def whole_steps(axis: Axis) -> None:
    """Ticks at whole numbers only."""
    axis.set_major_locator(MaxNLocator(nbins=8, integer=True, steps=[1, 2, 5, 10]))


def _note(axes: Axes, text: str) -> None:
    """Says what lines that lie on the axis do not show."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def say(axes: Axes, text: str) -> None:
    """A line of text in place of a drawing."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
