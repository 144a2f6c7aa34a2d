"""Pictures of how our step grows: against group size, new tokens and agents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from textmarl.benchmarks.figures import PALETTE, PICTURE_COLOURS, style
from textmarl.benchmarks.speed.summary import Row, select

#: What a step grows with: the entry of its work, the axis, the rest of the title.
AXES = (
    ("group", "Group size (responses per agent)", "group size"),
    ("new_tokens", "New tokens per response", "new tokens"),
    ("agents", "Agents (one adapter each)", "agents"),
)


def series(rows: Sequence[Row], name: str) -> list[Row]:
    """Return the steps that differ in one entry of their work alone, in its order.

    They are those that agree with the most others in everything else.
    """
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in select(rows, part="scaling"):
        rest = tuple(value for key, value in row["work"].items() if key != name)
        groups.setdefault(rest, []).append(row)
    best = max(groups.values(), key=len, default=[])
    return sorted(best, key=lambda row: int(row["work"][name]))


def draw(rows: Sequence[Row], name: str, label: str, title: str) -> Figure:
    """Draw the seconds of a step, generation and update stacked; above them the sum and the peak memory."""
    points = series(rows, name)
    positions = range(len(points))
    work = points[0]["work"]
    fixed = {
        "tasks": f"{work['tasks']} task",
        "agents": f"{work['agents']} agents",
        "group": f"group {work['group']}",
        "new_tokens": f"{work['new_tokens']} new tokens",
    }
    rest = ", ".join(text for key, text in fixed.items() if key != name)
    ink, muted, grid = PICTURE_COLOURS
    with style(ink, muted, grid):
        figure = Figure(figsize=(6, 3.6), dpi=150, layout="constrained", facecolor="white")
        axes = figure.add_subplot()
        below = [0.0] * len(points)
        for phase, colour in (("generation", PALETTE[0]), ("update", PALETTE[1])):
            heights = [point["median"]["seconds"][phase] for point in points]
            axes.bar(positions, heights, 0.6, bottom=below, color=colour, label=phase)
            below = [low + height for low, height in zip(below, heights, strict=True)]
        for position, (top, point) in enumerate(zip(below, points, strict=True)):
            text = f"{top:.1f} s\n{point['median']['peak_gib']:.2f} GiB"
            axes.annotate(text, (position, top), (0, 3), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xticks(list(positions), [str(point["work"][name]) for point in points])
        axes.set_xlabel(label)
        axes.set_ylabel("Seconds per step")
        axes.set_ylim(0, 1.25 * max(below))
        axes.set_title(f"Step time against {title} ({rest})")
        axes.legend(loc="upper left", frameon=False)
    return figure


def save_plots(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write ``speed-<what>.png`` for everything that was measured at two points or more; return the files."""
    written = []
    for name, label, title in AXES:
        if len(series(rows, name)) < 2:
            continue
        path = folder / f"speed-{name.replace('_', '-')}.png"
        figure = draw(rows, name, label, title)
        figure.savefig(path, metadata={"Software": None})
        written.append(path)
    return written
