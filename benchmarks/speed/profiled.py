"""Where the time of our decoding step goes, by torch's own profiler."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from torch.profiler import ProfilerActivity, profile

from textmarl.benchmarks.speed.work import LORA_RANK, seconds_of

#: What a step is made of; the last is all that no operation counts: Python, and the way to each operation.
GROUPS = (
    "base's products",
    "adapters' products",
    "attention's products",
    "copies",
    "other operations",
    "between operations",
)
#: Decoding steps that are looked at, and how often: the medians of what a step takes count.
STEPS, REPEATS = 8, 7
COPIES = {
    "aten::copy_",
    "aten::cat",
    "aten::index_select",
    "aten::index",
    "aten::index_copy_",
    "aten::gather",
}


def group_of(operation: str, shapes: Sequence[Sequence[int]], rank: int) -> str:
    """Return the group that an operation's own time belongs to.

    Args:
        operation: Its name, such as ``aten::mm``.
        shapes: Those of its arguments; empty where one is no tensor.
        rank: The width of all adapters together.
    """
    if operation in ("aten::bmm", "aten::baddbmm"):
        return "attention's products"
    if operation in ("aten::mm", "aten::addmm"):
        weight = shapes[1 if operation == "aten::mm" else 2]
        return "adapters' products" if min(weight) == rank else "base's products"
    return "copies" if operation in COPIES else "other operations"


def decoding_profile(generate: Callable[[int], object]) -> dict[str, Any]:
    """Return the seconds of each group in one decoding step, averaged over the first ones (many make the profiler slow).

    What lies between operations is what they leave of a step without the profiler, which takes its own time there; where
    it makes operations slower than they are, that comes out too small.

    Args:
        generate: Samples responses of so many tokens.
    """

    def wall(tokens: int) -> float:
        return statistics.median(seconds_of(lambda: generate(tokens)) for _ in range(REPEATS))

    def grouped(tokens: int) -> dict[str, float]:
        with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as watched:
            generate(tokens)
        found = dict.fromkeys(GROUPS, 0.0)
        for event in watched.key_averages(group_by_input_shape=True):
            found[group_of(event.key, event.input_shapes, LORA_RANK)] += event.self_cpu_time_total / 1e6
        return found

    generate(2)
    step = (wall(1 + STEPS) - wall(1)) / STEPS
    pairs = [(grouped(1), grouped(1 + STEPS)) for _ in range(REPEATS)]
    found = {
        name: statistics.median((whole[name] - first[name]) / STEPS for first, whole in pairs)
        for name in GROUPS
    }
    return {**found, GROUPS[-1]: step - sum(found.values())}
