"""What is measured, the same for everyone, and how: the reward, the clock, the memory.

The peers' own Python runs this file too, so it needs the standard library alone.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PHASES = ("generation", "reward", "scoring", "update")

#: Everyone draws from the whole vocabulary at temperature 1, the cheapest there is for a peer: no sorting.
TEMPERATURE = 1.0
LEARNING_RATE = 1e-6
LORA_RANK, LORA_ALPHA = 16, 32


@dataclass(frozen=True)
class Work:
    """One piece of work. Every response has exactly ``new_tokens`` tokens: no end of sequence."""

    model: str
    """A preset of ours or a local folder; the peers get a folder."""
    tasks: int = 1
    """Different prompts per agent in a step."""
    group: int = 4
    """Responses per agent and prompt."""
    new_tokens: int = 64
    """Tokens of each response."""
    agents: int = 2
    """Agents, a model or an adapter each."""
    prompt_tokens: int = 210
    """Tokens of each prompt, chat template included."""
    tuning: str = "full"
    """``"full"`` weights or ``"lora"`` (rank 16 on every linear layer but the head)."""
    dtype: str = "float32"
    """Of the weights."""

    @property
    def responses(self) -> int:
        """Responses of all agents in a step."""
        return self.agents * self.tasks * self.group

    @property
    def tokens(self) -> int:
        """Tokens that a step generates, and trains on."""
        return self.responses * self.new_tokens


def reward(texts: Sequence[str]) -> float:
    """What a joint action of all agents' texts is worth: cheap, and different for nearly every joint action.

    The share of different words among all words, and a little for length.
    """
    words = " ".join(texts).split()
    return len(set(words)) / max(len(words), 1) + sum(map(len, texts)) / 10_000


class Clock:
    """Adds up the seconds that phases take. What runs inside another phase counts there alone."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._open: str | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs in this context as ``name``."""
        if self._open is not None:
            yield
            return
        self._open, began = name, time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began
            self._open = None

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function``, its calls counted as ``name``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return call

    def split(self, step: float) -> dict[str, float]:
        """Return the seconds of a step by phase. What belongs to no other phase is the update's."""
        seconds = dict(self.seconds)
        seconds["update"] += step - sum(seconds.values())
        return {**seconds, "step": step}


def seconds_of(function: Callable[[], Any]) -> float:
    """Return the wall-clock seconds of one call."""
    gc.collect()
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def peak_memory_gib() -> float:
    """Return the largest resident memory of this process so far in GiB, weights mapped from files included.

    Read from the memory map's own high-water mark where the system has it: ``ru_maxrss`` of a process that was
    started by a larger one may be the larger one's.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**20
    except (OSError, IndexError, ValueError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def read_request() -> tuple[Work, dict[str, Any]]:
    """Return the work that the parent asks for on the standard input, and what else the request says."""
    request = json.load(sys.stdin)
    return Work(**request.pop("work")), request


def write_answer(request: dict[str, Any], answer: dict[str, Any]) -> None:
    """Write what was measured where the parent looks for it."""
    answer = {**answer, "peak_gib": peak_memory_gib()} if "peak_gib" not in answer else answer
    Path(request["answer"]).write_text(json.dumps(answer), encoding="utf-8")


def describe(work: Work) -> dict[str, Any]:
    """Return the work as JSON; the model by its last name, whatever folder it is in."""
    return {**asdict(work), "model": Path(work.model).name}
