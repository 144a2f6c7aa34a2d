"""Every algorithm on every game, with a small model: which of them learn, and from how many rewards?

    python -m textmarl.benchmarks.games --output benchmarks/results/games.json --plots docs/algorithms --docs docs/games.md

Everything, as above, takes about 80 minutes on two cores. A part of it:

    python -m textmarl.benchmarks.games --methods MAGRPO C3 --games Climbing --seeds 0 1

Every run trains the model `tiny` (full weights, on one thread) through the trainer, and is evaluated on held-out tasks where
the game has any. All methods have the same number of reward evaluations on a game. Settings, one set per method for all
games, stand in plan.py; they were chosen on other seeds (100 and 101) than those that are reported (0 to 4).

The results are one JSON object: `machine`, `config` (every setting), `runs` (each with its learning curve and its cost, or
the `error` it ended with) and `summary` (inter-quartile means over seeds with 95 % intervals, and whether a method beats
uniform play and its own untrained teams). It is written after each run; with --resume, runs that it holds are not made again,
failed ones are.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from textmarl.algos.reproduction import describe_machine
from textmarl.benchmarks.games.plan import GAMES, METHODS, SEEDS, Cell, cells, described
from textmarl.benchmarks.games.plots import save_plots
from textmarl.benchmarks.games.summary import markdown, summarise
from textmarl.benchmarks.games.training import Measuring, train_all
from textmarl.benchmarks.pages import write_into


def finished(results: dict[str, Any]) -> set[Cell]:
    """Return the cells whose runs are in the results, and did not fail."""
    return {Cell(run["method"], run["game"], run["seed"]) for run in results["runs"] if "error" not in run}


def add(results: dict[str, Any], record: dict[str, Any]) -> None:
    """Put a record into the results, in the place of an earlier one of the same cell."""
    same = ("method", "game", "seed")
    results["runs"] = [r for r in results["runs"] if any(r[key] != record[key] for key in same)] + [record]


def versions(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a machine's description decides how runs go, whichever computer goes on with them."""
    return {key: value for key, value in machine.items() if key not in ("platform", "processor")}


def save(results: dict[str, Any], path: Path) -> None:
    """Write the results with their summary, wholly or not at all."""
    whole = {**results, "summary": summarise(results["runs"])}
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, show the table, and write what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m textmarl.benchmarks.games",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    methods, games = [m.name for m in METHODS], [g.name for g in GAMES]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    option(
        "--methods",
        nargs="+",
        choices=methods,
        default=methods,
        metavar="M",
        help=f"default: all of {methods}",
    )
    option("--games", nargs="+", choices=games, default=games, metavar="G", help=f"default: all of {games}")
    option("--seeds", nargs="+", type=int, default=list(SEEDS), metavar="S", help="default: 0 1 2 3 4")
    option("--workers", type=int, default=cores, help="processes of one thread each; default: the cores")
    option("--episodes", type=int, default=512, help="of each evaluation")
    option("--scale", type=float, default=1.0, help="times the budgets of reward evaluations")
    option("--output", type=Path, help="where to write the results as JSON; rewritten after each run")
    option("--resume", action="store_true", help="keep what --output holds already and make the other runs")
    option("--plots", type=Path, help="the folder for the learning curves, such as docs/algorithms")
    option("--docs", type=Path, help="a page to write the table into, such as docs/games.md")
    option("--show", type=Path, metavar="JSON", help="train nothing: show (and plot) these results")
    chosen = parser.parse_args(arguments)
    if chosen.workers < 1 or chosen.episodes < 1 or chosen.scale <= 0 or min(chosen.seeds) < 0:
        parser.error("--workers and --episodes must be at least 1, --scale above 0, --seeds not negative")
    if chosen.resume and not chosen.output:
        parser.error("--resume goes on with the results in --output; say where they are")
    if chosen.output and chosen.output.exists() and not (chosen.resume or chosen.show):
        parser.error(f"{chosen.output} holds results already: --resume keeps them and makes the other runs")
    console = Console()
    measuring = Measuring(episodes=chosen.episodes, scale=chosen.scale)
    config = {
        **described(),
        "episodes": measuring.episodes,
        "points": measuring.points,
        "scale": measuring.scale,
    }
    machine = {**describe_machine("cpu"), "threads": 1}  # of every run
    results: dict[str, Any] = {"machine": machine, "config": config, "runs": []}
    if chosen.show or (chosen.resume and chosen.output.exists()):
        results = json.loads((chosen.show or chosen.output).read_text(encoding="utf-8"))
        if chosen.resume and results["config"] != json.loads(json.dumps(config)):
            parser.error(
                f"{chosen.output} was made with other settings; write to another file, or leave out --resume"
            )
        if chosen.resume and versions(results["machine"]) != versions(machine):
            parser.error(
                f"{chosen.output} was made with other versions ({versions(results['machine'])}) than there are "
                f"({versions(machine)}); runs of both would stand in one table. Write to another file"
            )
    if not chosen.show:
        picked = (
            [m for m in METHODS if m.name in chosen.methods],
            [g for g in GAMES if g.name in chosen.games],
        )
        there = finished(results)
        missing = [cell for cell in cells(*picked, chosen.seeds) if cell not in there]
        began = time.perf_counter()
        for done, record in enumerate(train_all(missing, measuring, chosen.workers), start=1):
            add(results, record)
            minutes = (time.perf_counter() - began) / 60
            console.print(
                f"{done}/{len(missing)}  {told(record)}  ({minutes:.0f} min, about {minutes / done * len(missing):.0f} in all)",
                style="dim",
                markup=False,
                highlight=False,
            )
            if chosen.output:
                save(results, chosen.output)
    table = markdown(summarise(results["runs"]))
    console.print(table, markup=False, highlight=False, soft_wrap=True)
    if chosen.docs:
        write_into(chosen.docs, table)
    if chosen.plots:
        for path in save_plots(results["runs"], chosen.plots):
            console.print(str(path), style="dim")


def told(record: dict[str, Any]) -> str:
    """Return a run in one line."""
    name = f"{record['method']} on {record['game']}, seed {record['seed']}"
    if "error" in record:
        return f"{name} failed: {record['error']}"
    return f"{name}: {record['untrained']:.2f} -> {record['trained']:.2f} in {record['seconds']:.0f} s"


if __name__ == "__main__":
    main()
