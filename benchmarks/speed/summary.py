"""Medians and ratios of what was measured, and the tables that show them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from textmarl.benchmarks.speed.plan import FULL, LORA
from textmarl.benchmarks.speed.profiled import GROUPS
from textmarl.benchmarks.speed.work import PHASES

#: A measurement with its medians, as it stands in the results.
Row = dict[str, Any]


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every number of the runs, by name; of whole steps the run in the middle's phases.

    The phases of one run add up to its step; the medians of each phase would not.
    """
    if not runs:
        return {}
    found: dict[str, Any] = {
        name: statistics.median(run[name] for run in runs)
        for name, value in runs[0].items()
        if isinstance(value, (int, float))
    }
    if isinstance(runs[0].get("seconds"), dict):
        ordered = sorted(runs, key=lambda run: run["seconds"]["step"])
        found["seconds"] = ordered[(len(ordered) - 1) // 2]["seconds"]
        found["step_seconds"] = statistics.median(run["seconds"]["step"] for run in runs)
        found["slowest_step_seconds"] = ordered[-1]["seconds"]["step"]
        found["fastest_step_seconds"] = ordered[0]["seconds"]["step"]
    return found


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows whose entry, or whose work's entry, is as wanted; failed ones are left out."""
    return [
        row
        for row in rows
        if row["median"] and all(row.get(k, row["work"].get(k)) == value for k, value in wanted.items())
    ]


def size_of(row: Row) -> str:
    """Return a whole step's size as the tables show it."""
    work = row["work"]
    return f"{work['tasks']}x{work['group']}, {work['new_tokens']} tokens"


def ratios(rows: Sequence[Row], peers: Sequence[str] = ("comlrl", "trl")) -> list[dict[str, Any]]:
    """Say how many times longer each peer's step is than ours at every size.

    Like with like: the same weights trained in the same precision. Best with best: everyone's fastest way.
    """
    steps = select(rows, part="step")
    found = []
    for size in dict.fromkeys(map(size_of, steps)):
        here = [row for row in steps if size_of(row) == size]
        for peer in peers:
            entry: dict[str, Any] = {"size": size, "peer": peer}
            for tuning, dtype in (FULL, LORA):
                pair = [
                    fastest(select(here, row=who, tuning=tuning, dtype=dtype)) for who in (peer, "textmarl")
                ]
                entry[f"{tuning} {dtype}"] = quotient(pair, "step_seconds")
                entry[f"memory, {tuning} {dtype}"] = quotient(pair[::-1], "peak_gib")
            best = [fastest(select(here, row=who)) for who in (peer, "textmarl")]
            entry["best with best"] = quotient(best, "step_seconds")
            entry["memory, best with best"] = quotient(best[::-1], "peak_gib")
            found.append(entry)
    return found


def fastest(rows: Sequence[Row]) -> Row | None:
    """Return the row of the shortest median step."""
    return min(rows, key=lambda row: row["median"]["step_seconds"], default=None)


def quotient(pair: Sequence[Row | None], name: str) -> float | None:
    """Return the first's median over the second's; None where one is missing."""
    over, under = pair
    return None if over is None or under is None else over["median"][name] / under["median"][name]


def against_floor(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Say how many floors a decoding step takes, and what `generate` does with the same weights, for every row."""
    found = []
    for row in select(rows, kind="generation"):
        work = row["work"]
        batch = work["agents"] * work["tasks"] * work["group"]
        floor = select(rows, kind="floor", dtype=work["dtype"], batch=batch)
        plain = [
            other
            for other in select(
                rows, row="transformers", tuning=work["tuning"], dtype=work["dtype"], batch=batch
            )
            if row["row"] == "textmarl"
        ]
        found.append(
            {
                "who": row["row"],
                "tuning": work["tuning"],
                "dtype": work["dtype"],
                "batch": batch,
                "variant": row["variant"],
                "tokens_per_second": row["median"]["tokens_per_second"],
                "decode_step_seconds": row["median"]["decode_step_seconds"],
                "floor_seconds": floor[0]["median"]["seconds"] if floor else None,
                "over_floor": quotient_of(row, "decode_step_seconds", floor, "seconds"),
                "over_generate": quotient_of(row, "tokens_per_second", plain, "tokens_per_second"),
            }
        )
    return sorted(found, key=lambda each: (each["batch"], each["dtype"], each["who"], each["variant"]))


def quotient_of(row: Row, name: str, others: Sequence[Row], other_name: str) -> float | None:
    """Return a row's number over that of the only other row, None where there is none."""
    return row["median"][name] / others[0]["median"][other_name] if others else None


def update_ratios(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Say how many times longer comlrl's update takes than ours."""
    found = []
    for own in select(rows, part="update", row="textmarl"):
        ways = {name: own["work"][name] for name in ("tuning", "dtype")}
        peer = select(rows, part="update", row="comlrl", **ways)
        found.append(
            {
                **ways,
                "textmarl": own["median"]["seconds"],
                "comlrl": peer[0]["median"]["seconds"] if peer else None,
                "ratio": peer[0]["median"]["seconds"] / own["median"]["seconds"] if peer else None,
            }
        )
    return found


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Return every ratio, for the results file."""
    return {"step": ratios(rows), "decoding": against_floor(rows), "update": update_ratios(rows)}


# --- tables ---------------------------------------------------------------------------------------------------------


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the tables of what was measured; parts that were not are left out."""
    for table in tables(rows):
        console.print(table)
    for row in rows:
        for error in row["errors"]:
            console.print(f"{row['key']}: {error}", style="yellow", highlight=False, markup=False)


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the tables of what was measured."""
    makers = (
        step_table, ratio_table, products_table, floor_table, decoding_table, profile_table, update_table, scaling_table,
    )  # fmt: skip
    return [table for table in (make(rows) for make in makers) if table.row_count]


def number(value: float | None, form: str = ".2f", unit: str = "") -> str:
    """Return a number for a table, a dash where there is none."""
    return "-" if value is None else f"{value:{form}}{unit}"


def milliseconds(seconds: float | None) -> str:
    """Return seconds as milliseconds for a table."""
    return number(None if seconds is None else 1000 * seconds, ".1f")


def _table(title: str, columns: Sequence[str], texts: int) -> Table:
    table = Table(title=title)
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < texts else "right")
    return table


def step_table(rows: Sequence[Row]) -> Table:
    """The whole step by phase."""
    columns = ("size", "who", "weights", *PHASES, "step (s)", "range", "tokens/s", "peak (GiB)")
    table = _table("One MAGRPO step, two agents (seconds, medians)", columns, 3)
    for row in select(rows, part="step"):
        median, work = row["median"], row["work"]
        low, high = median["fastest_step_seconds"], median["slowest_step_seconds"]
        tokens = work["agents"] * work["tasks"] * work["group"] * work["new_tokens"]
        table.add_row(
            size_of(row),
            row["row"],
            f"{work['tuning']} {work['dtype']}",
            *(number(median["seconds"][phase]) for phase in PHASES),
            number(median["step_seconds"]),
            f"{low:.1f}-{high:.1f}" if len(row["runs"]) > 1 else "",
            number(tokens / median["seconds"]["generation"], ".0f"),
            number(median["peak_gib"]),
        )
    return table


def ratio_table(rows: Sequence[Row]) -> Table:
    """How many times faster ours is."""
    ways = [f"{tuning} {dtype}" for tuning, dtype in (FULL, LORA)]
    columns = ("size", "peer", *ways, "best with best", *(f"memory, {way}" for way in ways), "memory, best")
    table = _table("Peer's step over ours; our memory over the peer's", columns, 2)
    for each in ratios(rows):
        table.add_row(
            each["size"],
            each["peer"],
            *(number(each[way], ".1f", "x") for way in (*ways, "best with best")),
            *(number(each[f"memory, {way}"]) for way in (*ways, "best with best")),
        )
    return table


def products_table(rows: Sequence[Row]) -> Table:
    """What the machine allows a whole step."""
    columns = (
        "size",
        "weights",
        "prompts",
        "decoding",
        "update",
        "products (s)",
        "our step (s)",
        "over products",
    )
    table = _table("A whole step's bare matrix products, and our step", columns, 2)
    for row in select(rows, kind="products"):
        median, work = row["median"], row["work"]
        own = [
            step["median"]["step_seconds"]
            for step in select(rows, part="step", row="textmarl", tuning=work["tuning"], dtype=work["dtype"])
            if size_of(step) == size_of(row)
        ]
        table.add_row(
            size_of(row),
            f"{work['tuning']} {work['dtype']}",
            *(number(median[f"{phase}_seconds"]) for phase in ("prefill", "decode", "update")),
            number(median["seconds"]),
            number(own[0] if own else None),
            number(own[0] / median["seconds"] if own else None, ".2f", "x"),
        )
    return table


def profile_table(rows: Sequence[Row]) -> Table:
    """Where our decoding step goes."""
    table = _table("What our decoding step is made of (ms)", ("batch", "weights", *GROUPS, "step"), 2)
    for row in select(rows, kind="profile"):
        parts = [row["median"][name] for name in GROUPS]
        table.add_row(
            str(row["batch"]),
            f"{row['work']['tuning']} {row['work']['dtype']}",
            *map(milliseconds, parts),
            milliseconds(sum(parts)),
        )
    return table


def floor_table(rows: Sequence[Row]) -> Table:
    """What the machine allows."""
    columns = ("batch", "dtype", "products (ms)", "cache (MiB)", "GB/s", "cache (ms)", "floor (ms)")
    table = _table("The machine's floor of one decoding step", columns, 2)
    for row in select(rows, kind="floor"):
        median = row["median"]
        table.add_row(
            str(row["batch"]),
            row["work"]["dtype"],
            milliseconds(median["product_seconds"]),
            number(median["cache_bytes"] / 2**20, ".1f"),
            number(median["bytes_per_second"] / 1e9, ".1f"),
            milliseconds(median["cache_seconds"]),
            milliseconds(median["seconds"]),
        )
    return table


def decoding_table(rows: Sequence[Row]) -> Table:
    """Generation alone."""
    columns = ("batch", "who", "weights", "variant", "tokens/s", "of generate", "step (ms)", "over floor")
    table = _table("Generation alone, 64 new tokens", columns, 4)
    for each in against_floor(rows):
        table.add_row(
            str(each["batch"]),
            each["who"],
            f"{each['tuning']} {each['dtype']}",
            each["variant"],
            number(each["tokens_per_second"], ".0f"),
            number(each["over_generate"], ".1f", "x"),
            milliseconds(each["decode_step_seconds"]),
            number(each["over_floor"], ".2f", "x"),
        )
    return table


def update_table(rows: Sequence[Row]) -> Table:
    """The update alone."""
    table = _table(
        "Update of one agent, prompt 512, 8 x 64 tokens", ("weights", "ours (s)", "comlrl (s)", "ratio"), 1
    )
    for each in update_ratios(rows):
        table.add_row(
            f"{each['tuning']} {each['dtype']}",
            number(each["textmarl"]),
            number(each["comlrl"]),
            number(each["ratio"], ".1f", "x"),
        )
    return table


def scaling_table(rows: Sequence[Row]) -> Table:
    """Our step and memory against group size, new tokens and agents."""
    columns = ("agents", "group", "new tokens", "generation", "update", "step (s)", "peak (GiB)")
    table = _table("Our step as it grows, LoRA bfloat16, one task", columns, 0)
    order: Callable[[Row], tuple[int, ...]] = lambda row: tuple(  # noqa: E731
        row["work"][name] for name in ("agents", "group", "new_tokens")
    )
    for row in sorted(select(rows, part="scaling"), key=order):
        median = row["median"]
        table.add_row(
            *map(str, order(row)),
            number(median["seconds"]["generation"]),
            number(median["seconds"]["update"]),
            number(median["step_seconds"]),
            number(median["peak_gib"]),
        )
    return table
