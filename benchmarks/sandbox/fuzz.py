"""Hostile bytes for the codec, the channel and the processes of the sandbox: nothing may hang, pass, or break.

    python -m textmarl.benchmarks.sandbox.fuzz [--seconds 300] [--seed 0] [--level strict] [--output results.json]
    python -m textmarl.benchmarks.sandbox.fuzz --seed 0 --case candidate:17

Four kinds of cases, each a function of the seed and its number:

- `wire`: random bytes, almost-values and mutated values to `wire.decode`: a value, which has the bytes as its one form,
  or WireError.
- `frames`: streams in pieces of any size to `FrameBuffer` and `Channel`: the payloads, or WireError, and ChannelClosed
  where the stream ends.
- `candidate`: programs in a real sandbox that find their channel to the judge and write on it, beside their answers or
  instead: no test passes whose expected value the program cannot know, and the value gets nowhere.
- `judge`: tests that misbehave in the judge (leave, crash, flood, raise the unspeakable, forge messages): the other
  tests of the suite get the verdicts they deserve, but for forged ones, which are the judge's own to give.

After every program of the last two kinds an honest one is judged right. At the end the sandbox's lasting processes are
the same as at the start, and no larger. Cases that went wrong are written to a file, one a line, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from textmarl.benchmarks.sandbox.findings import Findings, finding
from textmarl.benchmarks.sandbox.hostile_bytes import (
    huge_payload,
    mutated,
    some_bytes,
    some_payload,
    some_stream,
    some_value,
    tag_soup,
)
from textmarl.benchmarks.sandbox.live import Live
from textmarl.envs.sandbox import frames, wire

DECODE_SECONDS = 5.0
"""Seconds that the largest payload may take to decode, on a slow machine that does other things too."""
SHARES = {"wire": 0.15, "frames": 0.05, "candidate": 0.5, "judge": 0.3}
"""Of the time."""
_MESSAGES: tuple[tuple[Any, ...], ...] = (
    ("return", 1, [1, "two"], None, []),
    ("raise", 1, "ValueError", "text", 3, []),
    ("ready",),
    ("end",),
)


# --- in this process ------------------------------------------------------------------------------------------------


def wire_case(seed: object, number: int) -> tuple[str, bytes]:
    """A payload for the codec, and of what kind it is."""
    rng = random.Random(f"{seed} wire {number}")
    kind = rng.choices(("bytes", "tags", "value", "mutated", "message", "huge"), (20, 20, 15, 40, 20, 0.02))[
        0
    ]
    match kind:
        case "bytes":
            return kind, some_bytes(rng)
        case "tags":
            return kind, tag_soup(rng)
        case "message":
            return kind, some_payload(rng, _MESSAGES, huge=0)
        case "huge":
            return kind, huge_payload(rng)
    try:
        payload = wire.encode(some_value(rng))
    except wire.WireError:  # nested too deep
        payload = b"l" * 300
    return kind, payload if kind == "value" else mutated(rng, payload)


def try_wire(seed: object, number: int) -> Findings:
    """One payload, decoded, and encoded again where it was a value."""
    kind, payload = wire_case(seed, number)
    begun = time.process_time()
    wrong = ""
    outcome = "value"
    try:
        value = wire.decode(payload)
    except wire.WireError:
        outcome = "WireError"
    except Exception as error:
        outcome = type(error).__name__
        wrong = f"decode raised {error!r:.200}"
    else:
        wrong = _other_form(payload, value)
    seconds = time.process_time() - begun  # others at work on the machine do not count
    if seconds > DECODE_SECONDS:
        wrong = wrong or f"decoding {len(payload):,} bytes took {seconds:.1f} s of CPU time"
    return finding("wire", kind, outcome, seed, number, wrong, payload=payload.hex())


def _other_form(payload: bytes, value: Any) -> str:
    """How the value's bytes differ from those that it was decoded from; empty where they do not."""
    if _holds(value, lambda part: isinstance(part, Iterator)):
        return ""  # its end may be said in other words
    try:
        again = wire.encode(value)
    except wire.WireError as error:
        return f"what was decoded cannot be encoded: {error}"
    if again != payload and not (
        sorted(again) == sorted(payload) and _holds(value, lambda part: isinstance(part, set | frozenset))
    ):
        return f"the value has another form: {again.hex():.200}"
    return ""


def _holds(value: Any, found: Callable[[Any], bool]) -> bool:
    """Whether the value, or one in it, is such a one."""
    todo = [value]
    while todo:
        part = todo.pop()
        kind = type(part)
        if kind is wire.Opaque:
            continue
        if found(part):
            return True
        if kind is dict:
            todo += [*part, *part.values()]
        elif kind is slice:
            todo += [part.start, part.stop, part.step]
        elif kind in (list, tuple, set, frozenset) or kind.__name__ in (
            "dict_keys",
            "dict_items",
            "dict_values",
        ):
            todo += part
    return False


def try_frames(seed: object, number: int) -> Findings:
    """One stream, in pieces, through a FrameBuffer and through a Channel, which have to agree on it."""
    rng = random.Random(f"{seed} frames {number}")
    whole = rng.random() < 0.3
    if whole:
        sent = [some_bytes(rng) for _ in range(rng.randrange(9))]
        stream = b"".join(map(frames.framed, sent))
    else:
        stream = some_stream(rng, _MESSAGES, huge=0.001)
    payloads, outcome = _through_buffer(rng, stream)
    received, ended = _through_channel(stream)
    wrong = ""
    if whole and (payloads != sent or outcome != "end"):
        wrong = f"{len(sent)} payloads were sent, {len(payloads)} arrived, and then {outcome}"
    if received != payloads or (outcome == "WireError") != (ended == "WireError"):
        wrong = f"a Channel received {len(received)} payloads and then {ended}, a FrameBuffer {len(payloads)}, {outcome}"
    if outcome not in ("end", "WireError") or ended not in ("ChannelClosed", "WireError"):
        wrong = f"a FrameBuffer ended with {outcome}, a Channel with {ended}"
    kind = "whole frames" if whole else "stream"
    return finding("frames", kind, ended, seed, number, wrong, stream=stream[: 2**20].hex())


def _through_buffer(rng: random.Random, stream: bytes) -> tuple[list[bytes], str]:
    buffer = frames.FrameBuffer()
    payloads: list[bytes] = []
    try:
        while stream:
            size = rng.choice((1, 3, 4, 100, 2**16))
            buffer.add(stream[:size])
            stream = stream[size:]
            while (payload := buffer.take()) is not None:
                payloads.append(payload)
    except Exception as error:
        return payloads, type(error).__name__
    return payloads, "end"


def _through_channel(stream: bytes) -> tuple[list[bytes], str]:
    ours, theirs = socket.socketpair()
    payloads: list[bytes] = []

    def send() -> None:
        with theirs, suppress(OSError):  # the reader leaves at the first error
            theirs.sendall(stream)

    sender = threading.Thread(target=send)
    sender.start()
    with ours:
        channel = frames.Channel(ours)
        try:
            while True:
                payloads.append(channel.receive())
        except Exception as error:
            ended = type(error).__name__
    sender.join()
    return payloads, ended


# --- runs -----------------------------------------------------------------------------------------------------------


def run_cases(attempt: Callable[[int], Findings], seconds: float) -> Findings:
    """Runs the cases number 0, 1, 2 ... until the time is up."""
    found = Findings()
    deadline = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() > deadline:
            break
        found.add(attempt(number))
    return found


def fuzz_in_process(seed: object, seconds: float) -> Findings:
    """Cases for the codec and the channel, in this process."""
    share = SHARES["wire"] / (SHARES["wire"] + SHARES["frames"])
    found = run_cases(lambda number: try_wire(seed, number), seconds * share)
    found.add(run_cases(lambda number: try_frames(seed, number), seconds * (1 - share)))
    return found


def fuzz_live(seed: object, seconds: float, level: Any = None) -> Findings:
    """Cases for the processes of a sandbox. SandboxUnavailable where the level does not hold here."""
    live = Live(level)
    try:
        share = SHARES["candidate"] / (SHARES["candidate"] + SHARES["judge"])
        found = run_cases(lambda number: live.attempt("candidate", seed, number), seconds * share)
        found.add(run_cases(lambda number: live.attempt("judge", seed, number), seconds * (1 - share)))
    finally:
        closed = live.close()
    found.add(closed)
    return found


def run_one(seed: object, name: str, level: Any = None) -> Findings:
    """One case by its name, such as `candidate:17`."""
    kind, _, number = name.partition(":")
    if kind == "wire":
        return try_wire(seed, int(number))
    if kind == "frames":
        return try_frames(seed, int(number))
    live = Live(level)
    try:
        return live.attempt(kind, seed, int(number))
    finally:
        live.close()


def by_kind(found: Findings) -> dict[str, dict[str, int]]:
    """How often each kind of input had which outcome."""
    counts: dict[str, dict[str, int]] = {}
    for (kind, outcome), count in sorted(found.counts.items()):
        counts.setdefault(kind, {})[outcome] = count
    return counts


def show(console: Console, found: Findings) -> None:
    """The counts as a table, and what went wrong."""
    table = Table("", "outcomes, one for each test where there are tests", title=f"{found.cases:,} cases")
    for kind, counts in by_kind(found).items():
        table.add_row(kind, ", ".join(f"{outcome} {count:,}" for outcome, count in counts.items()))
    console.print(table)
    for failure in found.failures[:20]:
        console.print(
            f"{failure['case']}: {failure['wrong']}", style="bold red", markup=False, highlight=False
        )
    console.print(
        f"{len(found.failures)} cases went wrong", style="bold red" if found.failures else "bold green"
    )


def main() -> None:
    """Runs the cases, shows what came of them, and writes the failures and the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", default="0")
    parser.add_argument(
        "--level", choices=("strict", "confined"), help="default: the strongest that holds here"
    )
    parser.add_argument("--case", metavar="KIND:NUMBER", help="only this case of the seed")
    parser.add_argument(
        "--failures", type=Path, default=Path("fuzz-failures.jsonl"), help="where cases go that went wrong"
    )
    parser.add_argument("--output", type=Path, help="where to write the counts as JSON")
    arguments = parser.parse_args()
    console = Console()
    if arguments.case:
        found = run_one(arguments.seed, arguments.case, arguments.level)
    else:
        share = SHARES["wire"] + SHARES["frames"]
        found = fuzz_in_process(arguments.seed, arguments.seconds * share)
        found.add(fuzz_live(arguments.seed, arguments.seconds * (1 - share), arguments.level))
    show(console, found)
    if arguments.output:
        result = {
            "seed": arguments.seed,
            "seconds": arguments.seconds,
            "cases": found.cases,
            "counts": by_kind(found),
            "failures": [{"case": each["case"], "wrong": each["wrong"]} for each in found.failures],
        }
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if found.failures:
        lines = (json.dumps(failure) + "\n" for failure in found.failures)
        arguments.failures.write_text("".join(lines), encoding="utf-8")
        console.print(f"{arguments.failures} has them", style="dim")
        raise SystemExit(1)


if __name__ == "__main__":
    main()
