"""Plain data arrives as it was sent, and values of untrusted types arrive as plain data."""

from __future__ import annotations

import concurrent.futures
import math
import struct
import subprocess
import sys
import textwrap
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textmarl.envs.sandbox import wire

VIEWS = (type({}.keys()), type({}.items()), type({}.values()))


def form(value: Any) -> Any:
    """Type and exact content of a plain value, so that `==` tells 1 from True and one NaN from another."""
    kind = type(value)
    name = kind.__name__
    if kind is float:
        return name, struct.pack(">d", value)
    if kind is complex:
        return name, struct.pack(">dd", value.real, value.imag)
    if kind is int:
        return name, hex(value)
    if kind in (Decimal, Fraction, range):
        return name, str(value)
    if kind is slice:
        return name, form((value.start, value.stop, value.step))
    if kind is dict:
        return name, [(form(key), form(item)) for key, item in value.items()]
    if kind in (set, frozenset):
        return name, sorted(repr(form(item)) for item in value)
    if kind in (list, tuple, *VIEWS):
        return name, [form(item) for item in value]
    assert kind in (type(None), bool, type(...), str, bytes, bytearray), f"no plain type: {kind}"
    return name, value


def sent(value: Any) -> Any:
    return wire.decode(wire.encode(value))


any_bits = st.binary(min_size=8, max_size=8).map(lambda data: struct.unpack(">d", data)[0])
floats = st.one_of(st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324]), any_bits)
texts = st.text(st.characters(), max_size=20) | st.text(st.characters(categories=["Cs"]), max_size=4)
integers = st.one_of(
    st.integers(-300, 300),
    st.integers(),
    st.integers(0, 3000).flatmap(
        lambda bits: st.sampled_from([2**bits, -(2**bits), 2**bits - 1, -(2**bits) - 1])
    ),
)
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.just(...),
    integers,
    floats,
    st.builds(complex, floats, floats),
    texts,
    st.binary(max_size=20),
    st.decimals(),
    st.fractions(),
    st.builds(range, integers, integers, integers.filter(bool)),
)
keys = st.recursive(
    atoms.filter(lambda value: not (isinstance(value, Decimal) and value.is_snan())),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    atoms | st.binary(max_size=20).map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.sets(keys, max_size=4),
        st.frozensets(keys, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4).map(dict.keys),
        st.dictionaries(keys, inner, max_size=4).map(dict.items),
        st.dictionaries(keys, inner, max_size=4).map(dict.values),
        st.builds(slice, inner, inner, inner),
    ),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values)
def test_a_value_is_taken_apart_into_the_bytes_of_what_is_in_it(value: Any) -> None:
    data = wire.encode(value)
    head, items = wire.split(data)
    assert head + b"".join(items) == data
    if type(value) in (list, tuple):
        assert items == tuple(map(wire.encode, value))
    elif type(value) is dict:
        assert items == tuple(map(wire.encode, (*value, *value.values())))
    else:
        assert items == ()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values)
def test_plain_data_arrives_with_its_exact_types_and_values(value: Any) -> None:
    assert form(sent(value)) == form(value)


@pytest.mark.parametrize(
    "value",
    [
        -(2**64),
        10**5000,
        float("nan"),
        -0.0,
        complex(-0.0, -math.inf),
        "\ud800\udc00 \udfff \x00 é 😀",
        Decimal("-0E+7"),
        Decimal("sNaN123"),
        Decimal("1E-999999999999999999"),
        Decimal("0." + "123456789" * 20),
        range(-(10**30), 10**30, 7),
        range(0),
        slice(None, "a", [1]),
        {(1, frozenset({2, ("a", None)})): {b"x": [..., True, 1, 1.0]}},
        {0: "zero", "0": 0},
        [[], (), {}, set(), frozenset(), "", b"", bytearray()],
    ],
    ids=lambda value: repr(type(value)),
)
def test_values_at_the_edges_of_their_types_arrive_unchanged(value: Any) -> None:
    assert form(sent(value)) == form(value)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_every_length_of_a_length_is_read_back(size: int) -> None:
    assert sent(b"x" * size) == b"x" * size


def test_dict_views_are_real_views() -> None:
    keys_view, items, numbers = sent(({"a": 1}.keys(), {"a": 1}.items(), {"a": [1]}.values()))
    assert (type(keys_view), type(items), type(numbers)) == VIEWS
    assert keys_view == {"a"} and items == {("a", 1)} and list(numbers) == [[1]]
    ordered = OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    assert [list(view) for view in sent((ordered.keys(), ordered.items()))] == [
        ["b", "a"],
        [("b", 2), ("a", 1)],
    ]


def test_the_users_decimal_context_changes_nothing() -> None:
    with localcontext(Context(prec=2, capitals=0, traps=[])):
        assert form(sent(Decimal("1.23456E+40"))) == form(Decimal("1.23456E+40"))


# --- limits -------------------------------------------------------------------------------------------------------

NESTINGS: dict[str, Callable[[Any], Any]] = {
    "list": lambda value: [value],
    "tuple": lambda value: (value,),
    "dict": lambda value: {1: value},
    "frozenset": lambda value: frozenset([value]),
    "tuple key": lambda value: {(value,)} if isinstance(value, set) else (value,),
    "slice": lambda value: slice(value),
    "iterator": lambda value: iter([value]),
    "values": lambda value: {1: value}.values(),
}


def nested(wrap: Callable[[Any], Any], depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


def from_below(frames: int, function: Callable[[], Any]) -> Any:
    return function() if frames == 0 else from_below(frames - 1, function)


@pytest.mark.parametrize("wrap", NESTINGS.values(), ids=NESTINGS)
def test_200_levels_are_sent_from_300_frames_deep_and_201_refused(wrap: Callable[[Any], Any]) -> None:
    arrived = from_below(300, lambda: sent(nested(wrap, 200)))
    assert type(arrived) is (
        type(nested(wrap, 1)) if wrap is not NESTINGS["iterator"] else type(i for i in ())
    )
    with pytest.raises(wire.WireError, match="more than 200 deep"):
        wire.encode(nested(wrap, 201))


def test_cycles_are_refused() -> None:
    items: list[Any] = []
    items.append(items)
    table: dict[str, Any] = {}
    table["self"] = [table] * 1000
    mutual = deque([items])
    mutual.append((mutual,))
    for cycle in (items, table, mutual):
        with pytest.raises(wire.WireError):
            wire.encode(cycle)


def doubled(value: Any) -> list[Any]:
    return [value, value]


@pytest.mark.parametrize(
    "wrap",
    [
        doubled,
        lambda value: (value,) * 1000,
        lambda value: {1: value, 2: value},
    ],
    ids=["two", "thousand", "dict"],
)
def test_an_object_that_holds_itself_many_times_over_is_refused_soon(wrap: Callable[[Any], Any]) -> None:
    bomb = nested(wrap, 100)  # 2 ** 100 containers and more

    def refuse() -> float:
        start = time.process_time()
        with pytest.raises(wire.WireError, match=r"more than 500,000 containers|more than 8,388,608 bytes"):
            wire.encode(bomb)
        return time.process_time() - start

    assert at_the_bottom_of_a_stack(refuse) < 5


def at_the_bottom_of_a_stack(measure: Callable[[], float]) -> float:
    """Runs it with few frames below, as in the contained processes.

    CPython keeps frames in pieces of memory, and calls that cross from one piece to the next, as they do by chance under
    the many frames of a test runner, take twenty times as long.
    """
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(measure).result()


def test_a_key_that_holds_itself_many_times_over_is_refused_soon() -> None:
    pair = type("Pair", (tuple,), {"__hash__": lambda _: 1})
    with pytest.raises(wire.WireError):
        wire.encode({nested(lambda value: pair((value, value)), 100)})


@pytest.mark.parametrize(
    "value",
    [
        "x" * wire.MAX_FRAME,
        "é" * (wire.MAX_FRAME // 2),
        b"x" * wire.MAX_FRAME,
        bytearray(wire.MAX_FRAME + 1),
        memoryview(bytearray(wire.MAX_FRAME + 1)),
        1 << (8 * wire.MAX_FRAME),
        [None] * (wire.MAX_FRAME + 1),
        ["x" * 2**20] * 9,
        iter(["x" * wire.MAX_FRAME]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_larger_than_a_frame_are_refused(value: Any) -> None:
    with pytest.raises(wire.WireError, match="more than 8,388,608 bytes"):
        wire.encode(value)


def test_values_as_large_as_a_frame_are_sent() -> None:
    value = b"x" * (wire.MAX_FRAME - 5)
    assert len(wire.encode(value)) == wire.MAX_FRAME
    assert sent(value) == value


def test_a_list_that_grows_while_it_is_encoded_is_sent_as_it_was() -> None:
    items: list[Any] = [1]

    class Grows:
        def __bool__(self) -> bool:
            items.append(Grows())
            return True

    items.append(Grows())
    assert len(sent(items)) == 2


def test_a_lowered_recursion_limit_ends_in_a_wire_error() -> None:
    deep = nested(doubled, 1)
    for _ in range(150):
        deep = [deep]
    data = wire.encode(deep)
    limit = sys.getrecursionlimit()
    depth = 0
    frame = sys._getframe()
    while frame.f_back is not None:
        depth, frame = depth + 1, frame.f_back
    for work in (lambda: wire.encode(deep), lambda: wire.decode(data)):
        sys.setrecursionlimit(depth + 80)
        try:
            with pytest.raises(wire.WireError, match="RecursionError"):
                work()
        finally:
            sys.setrecursionlimit(limit)


def test_100_000_integers_pass_in_a_fraction_of_a_second() -> None:
    value = list(range(100_000))
    start = time.process_time()
    assert sent(value) == value
    assert time.process_time() - start < 1  # measured: 0.08


def test_the_codec_needs_the_standard_library_and_its_own_files_only() -> None:
    folder = Path(wire.__file__).parent
    code = f"""
        import sys, types
        for name in ("textmarl", "textmarl.envs", "textmarl.envs.sandbox"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["textmarl.envs.sandbox"].__path__ = [{str(folder)!r}]
        from textmarl.envs.sandbox import frames, wire
        assert wire.decode(wire.encode((1, "a"))) == (1, "a")
        assert not [name for name in sys.modules if name.startswith(("numpy", "gymnasium", "pettingzoo"))]
    """
    subprocess.run([sys.executable, "-I", "-S", "-c", textwrap.dedent(code)], check=True, timeout=60)
