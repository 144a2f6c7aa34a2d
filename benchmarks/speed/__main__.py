"""The same work side by side: our step, CoMLRL's and TRL's, and what the machine allows.

    python -m textmarl.benchmarks.speed --output benchmarks/results/speed.json --plots docs --docs docs/speed.md

Everything, as above, takes some hours of an otherwise idle machine, most of them the peers'. A part, a size or a row:

    python -m textmarl.benchmarks.speed --parts step --sizes 1x4 --repeats 1
    python -m textmarl.benchmarks.speed --parts floor generation --rows textmarl floor --batches 32

Every measurement runs in a process of its own, which warms up before it counts and tells its own peak memory; the rows
take turns, so that what else the machine does hits all of them. The peers (comlrl 1.4.3, trl 1.16.0) are installed at
their first row into environments of their own, on our versions of torch, transformers and peft. What each is given,
and why, stands at the top of peer_comlrl.py and peer_trl.py.

Everyone: SmolLM2-135M, the same prompts of exactly the same lengths, temperature 1 without truncation, the same reward
function, AdamW, no KL, and responses of exactly the same length (no end of sequence). Full weights are in float32;
LoRA has rank 16 on every linear layer but the head, on a base in bfloat16. All on the CPU.

The results are one JSON object: `machine`, `peers` (their versions), `measurements` (each with its `work`, every run as
measured, and their `median`) and `summary` (the ratios). Seconds are wall-clock, memory is the largest resident size of
the process. A step's phases are those of the run in the middle, and what belongs to no other phase is the update's.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from textmarl.agents.models import cache_folder
from textmarl.benchmarks.pages import markdown_of, write_into
from textmarl.benchmarks.speed.environments import PEERS, version_of
from textmarl.benchmarks.speed.plan import PARTS, ROWS, Measurement, in_turns, plan
from textmarl.benchmarks.speed.plots import save_plots
from textmarl.benchmarks.speed.processes import MeasurementFailed, Runner
from textmarl.benchmarks.speed.summary import medians, show, summarise, tables
from textmarl.benchmarks.speed.work import describe

LIBRARIES = ("torch", "transformers", "peft", "numpy")


def measure(
    measurements: Sequence[Measurement],
    run: Callable[[Measurement], dict[str, Any]],
    results: dict[str, Any],
    tell: Callable[[str], None],
    save: Callable[[], None],
) -> None:
    """Add every run to ``results`` and save after each; runs that the results hold already are not made again."""
    turns = list(in_turns(measurements))
    for done, (repeat, measurement) in enumerate(turns):
        row = results["measurements"].setdefault(measurement.key, row_of(measurement))
        if len(row["runs"]) > repeat:
            continue
        tell(f"{done + 1}/{len(turns)}  {measurement.key}" + (f", run {repeat + 1}" if repeat else ""))
        began = time.perf_counter()
        try:
            row["runs"].append(run(measurement))
        except (MeasurementFailed, RuntimeError, OSError) as error:
            row["errors"].append(str(error))
            tell(f"    failed: {error}")
        row["median"] = medians(row["runs"])
        tell(f"    {time.perf_counter() - began:.0f} s in all")
        save()


def row_of(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement as it stands in the results, before its first run."""
    return {
        "key": measurement.key,
        "part": measurement.part,
        "row": measurement.row,
        "kind": measurement.kind,
        "variant": measurement.variant,
        "batch": measurement.work.responses,
        "work": describe(measurement.work),
        "runs": [],
        "errors": [],
        "median": {},
    }


def machine(threads: int) -> dict[str, Any]:
    """Describe where and with what it was measured."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields = dict(line.replace("\t", "").split(":", 1) for line in lines if ":" in line)
    memory = 0.0
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": fields.get("model name", platform.processor()).strip(),
        "bfloat16": "avx512_bf16" in fields.get("flags", ""),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def size(text: str) -> tuple[int, int, int]:
    """Read ``tasks x group [x new tokens]``, as 4x8 or 4x4x128; 64 new tokens where it does not say."""
    try:
        tasks, group, new_tokens = (*map(int, text.split("x")), 64)[:3]
        if min(tasks, new_tokens) < 1 or group < 2:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected tasks x group, as 4x8 or 4x4x128, got {text!r}") from None
    return tasks, group, new_tokens


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, shows, and writes the JSON and the pictures where they are asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m textmarl.benchmarks.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; default: all")
    add("--rows", nargs="+", choices=ROWS, default=ROWS, help="who takes part; default: all")
    add("--sizes", nargs="+", type=size, default=[(1, 4, 64), (4, 4, 64), (4, 8, 64), (4, 4, 128)],
        metavar="TxG[xN]", help="whole steps: tasks x group [x new tokens]; default: 1x4 4x4 4x8 4x4x128")  # fmt: skip
    add("--batches", nargs="+", type=int, default=[8, 16, 32, 64], metavar="B", help="floor and generation")
    add("--repeats", type=int, default=5, help="processes for each whole step at 1x4 and 4x4; 1 elsewhere")
    add("--model", default="smollm2-135m", help="a preset or a local folder")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1, help="of every process; default: every core")  # fmt: skip
    add("--environments", type=Path, default=cache_folder() / "peers", help="where the peers are installed")
    add("--output", type=Path, help="where to write the results as JSON; rewritten after each measurement")
    add("--resume", action="store_true", help="keep what --output holds already and measure the rest")
    add("--plots", type=Path, help="the folder for the pictures, such as docs")
    add("--docs", type=Path, help="a page to write the tables into, such as docs/speed.md")
    add("--show", type=Path, metavar="JSON", help="measure nothing: show (and plot) these results")
    chosen = parser.parse_args(arguments)
    if chosen.repeats < 1 or chosen.threads < 1 or min(chosen.batches) < 2:
        parser.error("--repeats and --threads must be at least 1, --batches at least 2")
    if chosen.resume and not chosen.output:
        parser.error("--resume goes on with the results in --output; say where they are")
    console = Console() if sys.stdout.isatty() else Console(width=160)
    results: dict[str, Any] = {"machine": machine(chosen.threads), "peers": {}, "measurements": {}}
    if chosen.show or (chosen.resume and chosen.output.exists()):
        loaded = json.loads((chosen.show or chosen.output).read_text(encoding="utf-8"))
        results = {**loaded, "measurements": {row["key"]: row for row in loaded["measurements"]}}
        if chosen.resume and loaded["machine"] != machine(chosen.threads):
            parser.error(
                f"{chosen.output} was measured on another machine, or with other versions or threads"
            )

    def save() -> None:
        rows = list(results["measurements"].values())
        for peer in PEERS:
            if (chosen.environments / peer / "installed.txt").is_file():
                results["peers"][peer] = version_of(peer, chosen.environments)
        whole = {**results, "measurements": rows, "summary": summarise(rows)}
        if chosen.output:
            chosen.output.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")

    if not chosen.show:
        measurements = plan(
            chosen.parts, chosen.rows, chosen.model, chosen.sizes, chosen.batches, chosen.repeats
        )
        tell: Callable[[str], None] = lambda text: console.print(text, style="dim", markup=False)  # noqa: E731
        runner = Runner(chosen.threads, chosen.environments, tell)
        measure(measurements, runner.run, results, tell, save)
    rows = list(results["measurements"].values())
    show(console, rows)
    if chosen.docs:
        write_into(chosen.docs, "\n\n".join(map(markdown_of, tables(rows))))
    if chosen.plots:
        for path in save_plots(rows, chosen.plots):
            console.print(f"{path}", style="dim")


if __name__ == "__main__":
    main()
