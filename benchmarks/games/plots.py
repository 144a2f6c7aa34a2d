"""Learning curves of every algorithm, for its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from textmarl.benchmarks.figures import PALETTE, PICTURE_COLOURS, style
from textmarl.benchmarks.games.plan import GAMES, METHODS, Game, Method
from textmarl.benchmarks.games.summary import normalised, references
from textmarl.benchmarks.statistics import iqm

Record = Mapping[str, Any]


def save_plots(records: Sequence[Record], folder: Path) -> list[Path]:
    """Write ``<page>-games.png`` for every algorithm that has finished runs; return the files."""
    done = [r for r in records if "error" not in r]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for page in dict.fromkeys(method.page for method in METHODS):
        methods = [m for m in METHODS if m.page == page and any(r["method"] == m.name for r in done)]
        if methods:
            path = folder / f"{page}-games.png"
            draw(done, methods).savefig(path, metadata={"Software": None})
            written.append(path)
    return written


def draw(records: Sequence[Record], methods: Sequence[Method]) -> Figure:
    """Draw a panel for each game, and in it a curve for each method."""
    games = [game for game in GAMES if any(r["game"] == game.name for r in records)]
    columns = min(3, len(games))
    lines = -(-len(games) // columns)
    ink, muted, grid = PICTURE_COLOURS
    with style(ink, muted, grid):
        figure = Figure(
            figsize=(3.4 * columns, 2.5 * lines + 0.5), dpi=130, layout="constrained", facecolor="white"
        )
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels[len(games) :]:
            axes.set_visible(False)
        for axes, game in zip(panels, games, strict=False):
            axes.set_title(game.name)
            for value, label in ((0.0, "uniform play"), (1.0, "optimal play")):
                axes.axhline(value, color=muted, ls="--" if value else ":", lw=1.0, label=label)
            for method, colour in zip(methods, PALETTE, strict=False):
                own = [r for r in records if (r["method"], r["game"]) == (method.name, game.name)]
                if own:
                    draw_curve(axes, own, game, method.name, colour)
            low, _ = axes.get_ylim()
            axes.set_ylim(min(-1.0, low), 1.1)
        figure.supxlabel("reward evaluations", fontsize=9, color=muted)
        figure.supylabel("score; uniform play 0, optimal play 1", fontsize=9, color=muted)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
    return figure


def draw_curve(axes: Axes, records: Sequence[Record], game: Game, label: str, colour: str) -> None:
    """Draw the inter-quartile mean over seeds at each evaluation, with its 95 % interval."""
    uniform, optimal = references(game)
    points = list(zip(*(r["curve"] for r in records), strict=True))
    at = [np.mean([p["reward_evaluations"] for p in point]) for point in points]
    intervals = [iqm([normalised(p["score"], uniform, optimal) for p in point]) for point in points]
    axes.plot(at, [i.estimate for i in intervals], color=colour, marker="o", ms=3, label=label)
    axes.fill_between(
        at, [i.low for i in intervals], [i.high for i in intervals], color=colour, alpha=0.2, lw=0
    )
