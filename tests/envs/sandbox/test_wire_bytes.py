"""Whatever bytes arrive, decoding gives a plain value or a WireError, soon and within bounds."""

from __future__ import annotations

import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from textmarl.envs.sandbox import wire
from textmarl.envs.sandbox.flattening import varint

SAMPLE = wire.encode(
    (
        "call",
        -7,
        [1.5, 2j, None, True, False, ..., "é", b"b", bytearray(b"a"), range(1, 9, 2), slice(None, 2)],
        {(1, frozenset({2, "x"})): {"k": {1, 2}}, 3: ({1: 2}.keys(), {1: 2}.items(), {1: 2}.values())},
        __import__("decimal").Decimal("1.5e7"),
        __import__("fractions").Fraction(3, 4),
        iter([1, [2]]),
        (1 // n for n in (1, 0)),
        len,
    )
)
TAGS = b"0FT.ifcsbadltqrxSZDIKVno"


def opened(value: Any) -> None:
    """Walks through everything that has arrived."""
    assert (
        value is None
        or type(value) is wire.Opaque
        or type(value).__module__ in ("builtins", "decimal", "fractions")
    )
    if isinstance_of(value, dict):
        opened(list(value.items()))
    elif isinstance_of(
        value, list, tuple, set, frozenset, type({}.keys()), type({}.items()), type({}.values())
    ):
        for item in value:
            opened(item)
    elif isinstance_of(value, type(n for n in ())):
        try:
            opened(list(value))
        except Exception as error:  # what the iterator was said to end with
            assert type(error) is wire.CandidateError or type(error).__module__ == "builtins"


def isinstance_of(value: Any, *kinds: type) -> bool:
    return type(value) in kinds


MALFORMED = {
    "nothing": b"",
    "an unknown tag": b"?",
    "an unknown tag in a list": b"l\x01\xff",
    "bytes after the value": b"00",
    "a list that is too short": b"l\x02T",
    "a length beyond the end": b"b\x05abc",
    "a count beyond the end": b"l\x7f",
    "a length in two bytes that fits in one": b"b\x83\x00abc",
    "a length of zero in two bytes": b"b\x80\x00",
    "a length without its end": b"b\x80",
    "an integer of no bytes": b"i\x00",
    "an integer with a byte too many": b"i\x02\x00\x05",
    "a negative integer with a byte too many": b"i\x02\xff\xff",
    "half a float": b"f\x00\x00",
    "half a complex": b"c" + bytes(15),
    "bad UTF-8": b"s\x01\xff",
    "overlong UTF-8": b"s\x02\xc0\x80",
    "a Decimal that is none": b"d\x03abc",
    "a Decimal with spaces": b"d\x03 1 ",
    "a Decimal with an underscore": b"d\x031_0",
    "a Decimal in capitals": b"d\x041E+3",
    "a Decimal outside ASCII": b"d\x02\xd9\xa1",
    "a Decimal of no digits": b"d\x00",
    "a Fraction of one part": b"q\x01i\x01\x01",
    "a Fraction over zero": b"q\x02i\x01\x01i\x01\x00",
    "a Fraction over a negative": b"q\x02i\x01\x01i\x01\xff",
    "a Fraction not in lowest terms": b"q\x02i\x01\x02i\x01\x04",
    "a Fraction of texts": b"q\x02s\x011s\x012",
    "a range with step zero": b"r\x03i\x01\x00i\x01\x00i\x01\x00",
    "a range of truths": b"r\x03TTT",
    "a range of two parts": b"r\x02i\x01\x00i\x01\x00",
    "a slice of two parts": b"x\x0200",
    "a set with a list": b"S\x01l\x00",
    "a set with an iterator": b"S\x01n\x010",
    "a set with an iterator in a tuple": b"S\x01t\x01n\x010",
    "a set with a view": b"S\x01V\x00",
    "a set with an opaque value": b"S\x01o\x00\x00",
    "a set with a bytearray": b"S\x01a\x00",
    "a set with a slice": b"S\x01x\x03000",
    "a set with a signalling NaN": b"S\x01d\x04snan",
    "a set with an element twice": b"S\x0200",
    "a set with 1 and True": b"S\x02i\x01\x01T",
    "a frozenset with an element twice": b"Z\x0200",
    "a dict with a key twice": b"D\x04TTTF",
    "a dict with a list as a key": b"D\x02l\x000",
    "a dict without its last value": b"D\x03TF0",
    "a view of keys with a key twice": b"K\x02TT",
    "a view of items without its last value": b"I\x01T",
    "an iterator without an end": b"n\x00",
    "an iterator that ends in a number": b"n\x01i\x01\x01",
    "an iterator that ends in half an exception": b"n\x01s\x01x",
    "an iterator that ends in an exception without a name": b"n\x020s\x00",
    "an iterator with a name too long": b"n\x02s" + varint(201) + b"x" * 201 + b"s\x00",
    "an iterator with a message too long": b"n\x02s\x01xs" + varint(2001) + b"x" * 2001,
    "an opaque value without a name": b"o\x01",
    "an opaque value of truth 3": b"o\x03\x00",
    "an opaque value with a name too long": b"o\x01" + varint(201) + b"x" * 201,
    "lists 201 deep": b"l\x01" * 201 + b"0",
    "lists without an end": b"l\x01" * 1_000_000,
    "iterators 201 deep": b"n\x02" * 201 + b"0" * 202,
    "too many containers": b"l" + varint(500_000) + b"t\x00" * 500_000,
    "more than a frame": b"b" + varint(wire.MAX_FRAME) + b"x" * wire.MAX_FRAME,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_bytes_are_a_wire_error(data: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(data)


def test_the_neighbours_of_the_malformed_bytes_are_values() -> None:
    assert wire.decode(b"D\x04TFTF") == {True: True, False: False}
    assert wire.decode(b"S\x02i\x01\x02T") == {1, 2}
    assert list(wire.decode(b"n\x03TF0")) == [True, False]  # type: ignore[call-overload]
    assert wire.decode(b"b\x80\x01" + b"x" * 128) == b"x" * 128


def test_every_truncation_is_a_wire_error() -> None:
    for end in range(len(SAMPLE)):
        with pytest.raises(wire.WireError):
            wire.decode(SAMPLE[:end])
    opened(wire.decode(SAMPLE))


@pytest.mark.parametrize("length", [2**60, 2**63, 2**200, 2**28, 2**27, wire.MAX_FRAME, 2**16])
def test_a_declared_length_allocates_nothing(length: int) -> None:
    tracemalloc.start()
    try:
        for tag in b"isbadltqrxSZDIKVn":
            with pytest.raises(wire.WireError):
                wire.decode(bytes([tag]) + varint(length) + b"0" * 50)
        with pytest.raises(wire.WireError):
            wire.decode(b"o\x01" + varint(length) + b"0" * 50)
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()


def test_colliding_keys_arrive_and_cost_no_more_than_their_dict() -> None:
    modulus = sys.hash_info.modulus
    value = {n * modulus: n for n in range(1, 1_500)}
    assert wire.decode(wire.encode(value)) == value


def mutated(rng: random.Random) -> bytes:
    data = bytearray(SAMPLE)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at] = rng.choice(TAGS)
            case 3:
                del data[at : at + rng.randrange(1, 6)]
            case _:
                data[at:at] = rng.randbytes(rng.randrange(1, 4))
        if not data:
            break
    return bytes(data)


def grown(rng: random.Random) -> bytes:
    """Tags and small numbers only, so that most of it is well-formed for a while."""
    return bytes(
        rng.choice(TAGS) if rng.random() < 0.5 else rng.randrange(4) for _ in range(rng.randrange(1, 60))
    )


SOURCES: dict[str, Callable[[random.Random], bytes]] = {
    "random bytes": lambda rng: rng.randbytes(rng.randrange(100)),
    "a tag and random bytes": lambda rng: bytes([rng.choice(TAGS)]) + rng.randbytes(rng.randrange(40)),
    "a mutated value": mutated,
    "grown from tags": grown,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_any_bytes_are_a_value_of_one_form_or_a_wire_error(source: Callable[[random.Random], bytes]) -> None:
    rng = random.Random(0)
    deadline = time.monotonic() + 0.6
    accepted = 0
    while time.monotonic() < deadline:
        data = source(rng)
        try:
            value = wire.decode(data)
        except wire.WireError:
            continue
        accepted += 1
        if not set(data) & set(b"SZn"):
            assert wire.encode(value) == data
        opened(value)
    assert accepted > 0 or source is SOURCES["random bytes"]


def test_any_bytes_can_be_taken_apart_and_are_whole_again() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        data = bytearray(b"t\x02" + SAMPLE + SAMPLE)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.choice([*TAGS, rng.randrange(256)])
        cut = bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        head, items = wire.split(cut)
        assert head + b"".join(items) == cut
