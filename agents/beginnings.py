"""Conversations that begin alike: a history is encoded once for all that follows it.

In a tree, every joint action of a node leads on to conversations that share that node's. In sampling, what the prompts of
different tasks have in common (a template, an instruction) is left to each: it is little. The update, which knows no tasks,
looks at the prompts alone, and computes a beginning once where that saves more than it repeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: A common beginning of fewer tokens is not worth the trouble.
MIN_SHARED = 16


@dataclass(frozen=True)
class Family:
    """Prompts beside each other that begin with the same tokens."""

    members: range
    """Which."""
    shared: int
    """Tokens that all of them begin with; of a prompt by itself, all of its tokens."""

    def tokens(self, prompts: Sequence[list[int]]) -> int:
        """Return the tokens to encode."""
        return self.shared + sum(len(prompts[i]) - self.shared for i in self.members)


def families(
    prompts: Sequence[list[int]], owners: Sequence[int] | None = None, most: int | None = None
) -> list[Family]:
    """Divide prompts into families of one owner each, that share at least half of their longest member.

    Args:
        prompts: Token ids, none empty.
        owners: Whose each prompt is; by default all are of one.
        most: Tokens of a family, where it can be cut so.
    """
    whose = owners if owners is not None else [0] * len(prompts)
    return [piece for family in _runs(prompts, whose) for piece in _cut(prompts, family, most)]


def _runs(prompts: Sequence[list[int]], owners: Sequence[int]) -> Iterator[Family]:
    start, shared, longest = 0, len(prompts[0]), len(prompts[0])
    for i in range(1, len(prompts) + 1):
        if i < len(prompts) and owners[i] == owners[start]:
            common = _common(prompts[start], prompts[i], shared)
            if common >= max(MIN_SHARED, max(longest, len(prompts[i])) // 2):
                shared, longest = common, max(longest, len(prompts[i]))
                continue
        yield Family(range(start, i), shared)
        if i < len(prompts):
            start, shared, longest = i, len(prompts[i]), len(prompts[i])


def _cut(prompts: Sequence[list[int]], family: Family, most: int | None) -> Iterator[Family]:
    """Cut a family into families of at most ``most`` tokens, or of one prompt."""
    if most is None or family.tokens(prompts) <= most:
        yield family
        return
    start, tokens = family.members.start, family.shared
    for i in family.members:
        rest = len(prompts[i]) - family.shared
        if i > start and tokens + rest > most:
            yield _family(prompts, range(start, i), family.shared)
            start, tokens = i, family.shared
        tokens += rest
    yield _family(prompts, range(start, family.members.stop), family.shared)


def _family(prompts: Sequence[list[int]], members: range, shared: int) -> Family:
    return Family(members, shared if len(members) > 1 else len(prompts[members.start]))


def _common(one: list[int], other: list[int], most: int) -> int:
    """Return how many tokens two prompts begin with in common, ``most`` at the most."""
    for i, (a, b) in enumerate(zip(one[:most], other, strict=False)):
        if a != b:
            return i
    return min(most, len(one), len(other))
