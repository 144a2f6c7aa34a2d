"""What a helper hands back of what it was given, and what an entry point hands on of what it got: by the recorded calls.

Values are the bytes of `textmarl.envs.sandbox.wire`, which tell more than syntax does: whatever the code looks like, a
helper that returns its arguments in a box has done no work, and neither has an entry point that gives the helper all of its
own arguments and answers with what lies at one place of the value.

*A place* is where something lies in a value: the value itself, or an item of a list or tuple by its number from the front
or from the back, or of a dict, and so on inwards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from textmarl.envs.sandbox import Call, wire

Kept = bool | tuple["Kept", ...]
"""Whether a value is the same in all calls or handed back; else which of its items are."""

_DEPTH = 2  # boxes in boxes that are looked into
_ITEMS = 32  # items of a box that are looked at; what has more is no box

Place = tuple[int, ...]


def kept(calls: Sequence[Call]) -> Kept:
    """What of the values of recorded calls is constant or an argument, the same one in all calls."""
    returned = [call for call in calls if call.error is None]
    if not returned:
        return True
    names: list[int | str] = [*range(len(returned[0].args)), *returned[0].kwargs]
    given = [[_given(call, name) for call in returned] for name in names]
    return _kept([call.value for call in returned], given, _DEPTH)


def exchanged(own: Call, other: Call, what: Kept) -> Call:
    """The call with another one's value, but for what of its own is kept."""
    if own.error is not None or other.error is not None:
        return other
    value = _merged(own.value, other.value, what)
    return Call(other.test, other.args, other.kwargs, value)


def handed_on(given: Sequence[Call], asked: Sequence[Call], passed: Sequence[int]) -> int:
    """In how many of some tests an entry point gave the helper all it had, once, and answered with what it got.

    The answer has to lie at one place of the helper's value: the value itself, or a place inside where it lies in all
    of these tests.

    Args:
        given: the recorded calls of the entry point.
        asked: those of the helper.
        passed: the indices of the tests to look at.
    """
    where: Counter[Place] = Counter()
    for test in passed:
        tasks = {(arguments(call), call.value) for call in given if call.test == test and call.error is None}
        calls = [call for call in asked if call.test == test]
        if len(tasks) != 1 or len({arguments(call) for call in calls}) != 1 or calls[0].error is not None:
            continue
        (((args, *named), answer),) = tasks
        received = [*calls[0].args, *calls[0].kwargs.values()]
        everything = {data for value in received for _, data in _places(value)}
        if everything.issuperset([*args, *(value for _, value in named)]):
            where.update({place for place, data in _places(calls[0].value) if data == answer})
    return max((n for place, n in where.items() if not place or n == len(passed)), default=0)


def arguments(call: Call) -> tuple[Any, ...]:
    """What a call was given, as a key."""
    return call.args, *sorted(call.kwargs.items())


def _given(call: Call, name: int | str) -> bytes | None:
    """What was given for a parameter: by its position, or by its name."""
    if isinstance(name, str):
        return call.kwargs.get(name)
    return call.args[name] if name < len(call.args) else None


def _kept(values: Sequence[bytes], given: Sequence[Sequence[bytes | None]], depth: int) -> Kept:
    if len(set(values)) == 1 or any(list(values) == column for column in given):
        return True
    boxes = [wire.split(value) for value in values] if depth else []
    if len({head for head, _ in boxes}) != 1 or not 0 < len(boxes[0][1]) <= _ITEMS:
        return False
    inside = tuple(
        _kept(column, given, depth - 1) for column in zip(*(items for _, items in boxes), strict=True)
    )
    if all(part is True for part in inside):
        return True
    return inside if any(inside) else False


def _merged(own: bytes, other: bytes, what: Kept) -> bytes:
    if isinstance(what, bool):
        return own if what else other
    (head, ours), (_, others) = wire.split(own), wire.split(other)
    return head + b"".join(map(_merged, ours, others, what))


def _places(value: bytes, depth: int = _DEPTH, here: Place = ()) -> Iterator[tuple[Place, bytes]]:
    yield here, value
    _, items = wire.split(value) if depth else (b"", ())
    if len(items) > _ITEMS:
        items = (*items[:_ITEMS], *items[-_ITEMS:])
    for index, item in enumerate(items):
        for step in (index, index - len(items)):
            yield from _places(item, depth - 1, (*here, step))
