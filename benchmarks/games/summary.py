"""From runs to what is claimed: inter-quartile means over seeds, intervals, and who beats what.

A method *learns* a game if the whole 95 % interval of its trained teams' score is above that of uniform play, which
is known in closed form, and above the whole interval of its own untrained teams. With fewer than five seeds nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from textmarl.benchmarks.games.plan import GAMES, METHODS, SEEDS, Game
from textmarl.benchmarks.pages import table_line
from textmarl.benchmarks.statistics import Interval, iqm

Record = Mapping[str, Any]
Row = dict[str, Any]


def summarise(records: Iterable[Record]) -> dict[str, list[Row]]:
    """Return ``cells``, a row for each method and game that has runs, and ``methods``, a row for each over all games.

    A row of ``cells`` has the ``trained`` and ``untrained`` scores (inter-quartile mean over seeds, and bounds), the
    ``uniform`` and ``optimal`` score, ``learns`` (None with fewer than five seeds), and means over runs of
    ``reward_evaluations``, ``generated_tokens`` and ``seconds``. A row of ``methods`` has ``normalised``: the same over games
    and seeds of the score in which uniform play is 0 and optimal play 1, runs resampled within each game.
    """
    records = list(records)
    rows, overall = [], []
    for method in METHODS:
        scores = []
        for game in GAMES:
            own = [r for r in records if (r["method"], r["game"]) == (method.name, game.name)]
            done = [r for r in own if "error" not in r]
            if own:
                rows.append(cell_row(method.name, game, done, failed=len(own) - len(done)))
            if done:
                uniform, optimal = references(game)
                scores.append([normalised(r["trained"], uniform, optimal) for r in done])
        if scores and len({len(own) for own in scores}) == 1:  # the same number of runs of each game
            table = np.array(scores).T
            overall.append(
                {
                    "method": method.name,
                    "games": len(scores),
                    "seeds": len(table),
                    "normalised": bounds(iqm(table)),
                }
            )
    return {"cells": rows, "methods": overall}


def cell_row(method: str, game: Game, done: Sequence[Record], failed: int) -> Row:
    """Return the row of one method on one game; without figures where no run was finished."""
    uniform, optimal = references(game)
    row: Row = {
        "method": method,
        "game": game.name,
        "runs": len(done),
        "failed": failed,
        "uniform": uniform,
        "optimal": optimal,
    }
    if not done:
        return row
    trained, untrained = (iqm([r[key] for r in done]) for key in ("trained", "untrained"))
    return {
        **row,
        "trained": bounds(trained),
        "untrained": bounds(untrained),
        "learns": learns(trained, untrained, uniform) if len(done) >= len(SEEDS) else None,
        **{
            name: float(np.mean([r[name] for r in done]))
            for name in ("reward_evaluations", "generated_tokens", "seconds")
        },
    }


def learns(trained: Interval, untrained: Interval, uniform: float) -> bool:
    """Say whether trained teams beat uniform play and untrained ones, intervals apart."""
    return trained.low > uniform and trained.low > untrained.high


def references(game: Game) -> tuple[float, float]:
    """Return the expected scores of uniform and of optimal play on the tasks that are evaluated."""
    known = game.make("test").unwrapped.reference_scores
    return float(known["uniform"]), float(known["optimal"])


def normalised(value: float, uniform: float, optimal: float) -> float:
    """Return a score on the scale on which uniform play is 0 and optimal play 1."""
    return (value - uniform) / (optimal - uniform)


def bounds(interval: Interval) -> dict[str, float | None]:
    """Return an interval as JSON has it: bounds that are unknown are null."""
    low, high = (None if np.isnan(bound) else bound for bound in (interval.low, interval.high))
    return {"estimate": interval.estimate, "low": low, "high": high}


def markdown(summary: Mapping[str, Sequence[Row]]) -> str:
    """Return the table of methods and games, bold where a method learns the game, and what the runs cost."""
    rows = summary["cells"]
    games = [game for game in GAMES if any(row["game"] == game.name for row in rows)]
    methods = [method.name for method in METHODS if any(row["method"] == method.name for row in rows)]
    overall = {row["method"]: row["normalised"] for row in summary["methods"] if row["games"] == len(games)}
    found = {(row["method"], row["game"]): row for row in rows}
    known = [references(game) for game in games]
    lines = [
        table_line(["", *(game.name for game in games), "all, normalised"]),
        table_line(["---"] * (len(games) + 2)),
        table_line(["optimal play", *(number(optimal) for _, optimal in known), "1"]),
        table_line(["uniform play", *(number(uniform) for uniform, _ in known), "0"]),
    ]
    for method in methods:
        texts = [shown(found.get((method, game.name))) for game in games]
        whole = ranged(overall[method]) if method in overall else "runs are missing"
        lines.append(table_line([method, *texts, whole]))
    counts = sorted({row["runs"] for row in rows})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    seconds = sum(row["seconds"] * row["runs"] for row in rows if row["runs"])
    lines += [
        "",
        f"Untrained → trained mean score, inter-quartile mean over {seeds} seed(s) [95 % interval]. **Bold**: above uniform "
        f"play and the method's own untrained teams, intervals apart. All runs together: {seconds / 60:.0f} minutes of one core.",
    ]
    return "\n".join(lines)


def shown(row: Row | None) -> str:
    """Return a cell of the table."""
    if row is None:
        return ""
    failures = f"{row['failed']} failed" if row["failed"] else ""
    if not row["runs"]:
        return failures
    trained = ranged(row["trained"])
    text = f"{number(row['untrained']['estimate'])} → {f'**{trained}**' if row['learns'] else trained}"
    return f"{text}, {failures}" if failures else text


def ranged(interval: Mapping[str, float | None]) -> str:
    """Return an estimate with its bounds, where they are known."""
    estimate, low, high = (interval[key] for key in ("estimate", "low", "high"))
    assert estimate is not None
    if low is None or high is None:
        return number(estimate)
    return f"{number(estimate)} [{number(low)}, {number(high)}]"


def number(value: float) -> str:
    """Return a score to two places."""
    return f"{value + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")
