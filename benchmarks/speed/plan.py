"""Which measurements there are: who does what work, how often."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from textmarl.benchmarks.speed.work import Work

PARTS = ("step", "floor", "generation", "update", "scaling", "profile")
ROWS = ("textmarl", "comlrl", "trl", "transformers", "floor")

#: Full weights are trained in float32 and adapters on a bfloat16 base: the two ways that everyone has.
FULL, LORA = ("full", "float32"), ("lora", "bfloat16")
#: Generation alone also without adapters in bfloat16.
GENERATING = (FULL, ("full", "bfloat16"), LORA)
REPEATED_SIZES = ((1, 4, 64), (4, 4, 64))
GROUP_SIZES, NEW_TOKENS, TEAM_SIZES = (4, 8, 16, 32), (32, 64, 128, 256), (2, 4, 8)


@dataclass(frozen=True)
class Measurement:
    """One row at one size: a process of its own each time."""

    part: str
    """One of PARTS."""
    row: str
    """Who does it, one of ROWS."""
    kind: str
    """What of it: "step", "generation", "update", "floor", "products" (of a whole step) or "profile"."""
    work: Work
    variant: str = ""
    """What is special: "unequal prompts", "two agents"."""
    repeats: int = 1
    """Processes."""
    inner_repeats: int = 3
    """Times that it is done in each process, after one time that is not counted; their median counts. A step is
    measured once, after one that is not counted."""

    @property
    def key(self) -> str:
        """A name that tells it from every other measurement."""
        work = self.work
        size = (
            f"{work.tasks}x{work.group}x{work.new_tokens}, {work.agents} agents, prompt {work.prompt_tokens}"
        )
        return ", ".join(
            filter(None, (self.part, self.row, f"{work.tuning} {work.dtype}", size, self.variant))
        )

    @property
    def prompt_lengths(self) -> list[int]:
        """The tokens of each task's prompts: all the same, or from half of that upwards, evenly spread."""
        longest, count = self.work.prompt_tokens, self.work.tasks
        if "unequal prompts" not in self.variant or count == 1:
            return [longest] * count
        return [longest - round(longest / 2 * index / (count - 1)) for index in range(count)]


def plan(
    parts: Sequence[str],
    rows: Sequence[str],
    model: str,
    sizes: Sequence[tuple[int, int, int]],
    batches: Sequence[int],
    repeats: int,
) -> list[Measurement]:
    """List the measurements of the chosen parts and rows, each once though several parts may need it.

    Args:
        parts: Of PARTS.
        rows: Of ROWS.
        model: What ``Work.model`` says.
        sizes: (tasks, group, new tokens) of the whole steps, and of the part "profile".
        batches: Responses decoded at once in the parts "floor", "generation" and "profile".
        repeats: Processes for each whole step of REPEATED_SIZES; one for each other measurement.
    """
    makers = {
        "step": lambda: whole_steps(model, sizes, repeats),
        "floor": lambda: floors(model, batches),
        "generation": lambda: generations(model, batches),
        "update": lambda: updates(model),
        "scaling": lambda: scaling(model),
        "profile": lambda: profiles(model, sizes, batches),
    }
    found: dict[str, Measurement] = {}
    for part in parts:
        for measurement in makers[part]():
            if measurement.row in rows:
                found.setdefault(measurement.key, measurement)
    return list(found.values())


def in_turns(measurements: Sequence[Measurement]) -> Iterator[tuple[int, Measurement]]:
    """Yield (repeat, measurement): every row once, then every row again, so that a slow hour hits all of them."""
    for repeat in range(max((m.repeats for m in measurements), default=0)):
        yield from ((repeat, m) for m in measurements if repeat < m.repeats)


def whole_steps(model: str, sizes: Sequence[tuple[int, int, int]], repeats: int) -> Iterator[Measurement]:
    """The whole MAGRPO step, by everyone."""
    for size in sizes:
        tasks, group, new_tokens = size
        times = repeats if size in REPEATED_SIZES else 1
        for tuning, dtype in (FULL, LORA):
            work = Work(model, tasks, group, new_tokens, tuning=tuning, dtype=dtype)
            for row in ("textmarl", "comlrl", "trl"):
                yield Measurement("step", row, "step", work, repeats=times)


def decoding_work(model: str, batch: int, new_tokens: int = 64) -> Work:
    """A batch of responses to groups of 8; of 4 where there would be one group only."""
    group = 8 if batch >= 32 else max(1, min(4, batch // 2))
    return Work(model, batch // group, group, new_tokens, agents=1, prompt_tokens=211)


def floors(model: str, batches: Iterable[int]) -> Iterator[Measurement]:
    """What the machine allows a decoding step."""
    for batch in batches:
        for _, dtype in (FULL, LORA):
            yield Measurement("floor", "floor", "floor", replace(decoding_work(model, batch), dtype=dtype))


def generations(model: str, batches: Iterable[int]) -> Iterator[Measurement]:
    """Generation alone: ours, and the library's with the same weights."""
    for batch in batches:
        work = decoding_work(model, batch)
        for tuning, dtype in GENERATING:
            own = replace(work, tuning=tuning, dtype=dtype)
            yield Measurement("generation", "textmarl", "generation", own)
            yield Measurement("generation", "transformers", "generation", own)
            if (tuning, dtype) in (FULL, LORA):
                yield Measurement("generation", "textmarl", "generation", own, "unequal prompts")
                if work.tasks > 1:  # the same batch, divided among two agents
                    team = replace(own, agents=2, tasks=work.tasks // 2)
                    yield Measurement(
                        "generation", "textmarl", "generation", team, "two agents, unequal prompts"
                    )


def updates(model: str) -> Iterator[Measurement]:
    """The update alone: a long prompt, a group of 8."""
    for tuning, dtype in (FULL, LORA):
        work = Work(model, 1, 8, 64, agents=1, prompt_tokens=512, tuning=tuning, dtype=dtype)
        for row in ("textmarl", "comlrl"):
            yield Measurement("update", row, "update", work)


def scaling(model: str) -> Iterator[Measurement]:
    """Our step against group size, new tokens and agents, from one point in the middle."""
    tuning, dtype = LORA
    middle = Work(model, 1, 8, 64, agents=2, tuning=tuning, dtype=dtype)
    points = [
        *(replace(middle, group=size) for size in GROUP_SIZES),
        *(replace(middle, new_tokens=length) for length in NEW_TOKENS),
        *(replace(middle, agents=count) for count in TEAM_SIZES),
    ]
    for work in points:
        yield Measurement("scaling", "textmarl", "step", work)


def profiles(
    model: str, sizes: Iterable[tuple[int, int, int]], batches: Iterable[int]
) -> Iterator[Measurement]:
    """Why it takes as long as it does: the bare products of whole steps, and what our decoding steps are made of."""
    for tasks, group, new_tokens in sizes:
        for tuning, dtype in (FULL, LORA):
            work = Work(model, tasks, group, new_tokens, tuning=tuning, dtype=dtype)
            yield Measurement("profile", "floor", "products", work)
    for batch in batches:
        for tuning, dtype in (FULL, LORA):
            work = replace(decoding_work(model, batch), tuning=tuning, dtype=dtype)
            yield Measurement("profile", "textmarl", "profile", work)
