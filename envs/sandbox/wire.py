"""Plain data as bytes: what passes between the processes of the sandbox.

A value is one tag byte and what belongs to the tag. Lengths and counts are unsigned LEB128 varints in their shortest
form, and are compared with the bytes that are left before anything is allocated.

| Tag | Value | After the tag |
|---|---|---|
| `0` `F` `T` `.` | None, False, True, Ellipsis | |
| `i` | int | length, two's complement, big-endian, as few bytes as hold it |
| `f` `c` | float, complex | 8 or 16 bytes, big-endian: NaN and -0.0 keep their bits |
| `s` | str | length, UTF-8 in which surrogates are let through |
| `b` `a` | bytes, bytearray | length, bytes |
| `d` | Decimal | length, its text in lower case |
| `l` `t` | list, tuple | count, values |
| `q` `r` `x` | Fraction, range, slice | count, values: 2 integers; 3 integers; any 3 values |
| `S` `Z` | set, frozenset | count, values |
| `D` `I` | dict, the view of its items | count, all keys, then all their values |
| `K` `V` | views of a dict's keys and of its values | count, values |
| `n` | iterator | count, values, and how it ended: None, Ellipsis (cut off), or an exception's name and message |
| `o` | a value that is not plain data | truth (0, 1, or 2: bool() raised), length, name of the type |

Nothing is ever unpickled, evaluated or imported. A value has one form only: `encode(decode(data)) == data`, sets (their
order) and iterators (their end) apart. Messages are values too: tuples.

Standard library only: the contained processes import this module without the rest of the package.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, KeysView, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from textmarl.envs.sandbox.flattening import (
    COMPLEX,
    CONTAINERS,
    FLOAT,
    LEAVES,
    UNCHANGED,
    NotPlainError,
    encoded_str,
    too_large,
    varint,
)
from textmarl.envs.sandbox.frames import MAX_FRAME, WireError
from textmarl.envs.sandbox.standins import (
    MAX_MESSAGE,
    MAX_NAME,
    CandidateError,
    Opaque,
    describe_exception,
    mro_of,
    name_of,
    open_opaque,
    rebuild_exception,
)

MAX_DEPTH = 200
"""Containers that may lie in each other; a Fraction, a range, a slice and an iterator count as such."""
MAX_CONTAINERS = 500_000
"""Containers of one value: an object that holds itself many times over is refused soon, and the receiver's memory is
bounded: an empty set takes 2 bytes here and 216 there."""
MAX_LINEAR = 20_000
"""Containers that a value may have where it is decoded by somebody who must not lose time."""
MAX_ITEMS = 100_000
"""Items that are drained from one iterator."""


# --- encoding -----------------------------------------------------------------------------------------------------


def encode(value: object, *, opaque: bool = True) -> bytes:
    """A value as bytes, at most `MAX_FRAME`, whatever its type does: only methods of the builtin types are used on it.

    Subclasses of builtin types lose their class; a deque becomes a list, a memoryview bytes. Iterators are drained,
    here and now, up to `MAX_ITEMS` items or half of the bytes that are left; what their `__next__` raises ends them.
    Everything else becomes an `Opaque` at the other end, and so does a set or dict with an element or key that is not
    hashable plain data.

    Raises WireError, whatever the value's own methods raise, when it is too large, has more than `MAX_CONTAINERS` or
    is nested deeper than `MAX_DEPTH`, as a cycle is; with `opaque=False` also where an opaque value would have to go.
    """
    encoder = _Encoder(opaque)
    try:
        encoder.write(value, 0, False)
    except WireError:
        raise
    except Exception as error:
        raise WireError(
            f"the value cannot be sent: {describe_exception(error)[0]} while it was encoded"
        ) from None
    return bytes(encoder.out)


class _Encoder:
    """Writes values to `out`."""

    def __init__(self, opaque: bool) -> None:
        self.out = bytearray()
        self.opaque = opaque
        self.containers = 0
        self.flattened = False
        """Whether a value lost its class since the outermost set, or the outermost keys, began."""

    def write(self, value: Any, depth: int, key: bool) -> None:
        """Appends a value that lies in `depth` containers. As a `key` it must be plain, else NotPlainError."""
        out = self.out
        start = len(out)
        base = id(type(value))
        if base not in UNCHANGED:
            kinds = map(id, mro_of(type(value)))
            base = next((kind for kind in kinds if kind in LEAVES or kind in CONTAINERS), 0)
            self.flattened = True
        try:
            if leaf := LEAVES.get(base):
                out += leaf(value)
            elif split := CONTAINERS.get(base):
                self.containers += 1
                _check_limits(depth + 1, self.containers)
                tag, keys, items = split(value)
                count = len(keys) + len(items)
                if count > MAX_FRAME:
                    raise too_large()
                if key and tag not in b"tZqr":
                    raise NotPlainError
                out += tag + varint(count)
                if keys:
                    self._write_keys(keys, depth + 1, key)
                for item in items:
                    self.write(item, depth + 1, key)
            elif key:
                raise NotPlainError
            elif _is_iterator(value):
                self._write_iterator(value, depth)
            else:
                raise NotPlainError
        except NotPlainError:
            if key:
                raise
            del out[start:]
            self._write_opaque(value)
        if len(out) > MAX_FRAME:
            raise too_large()

    def _write_keys(self, keys: Sequence[Any], depth: int, inside: bool) -> None:
        """Appends elements or keys. Those `inside` another element or key are checked with it."""
        start = len(self.out)
        if not inside:
            self.flattened = False
        for item in keys:
            self.write(item, depth, True)
        if self.flattened and not inside:
            # Without their classes they may be unhashable, or equal to each other: nobody could receive that.
            try:
                decode(b"S" + varint(len(keys)) + self.out[start:])
            except WireError:
                raise NotPlainError from None

    def _write_iterator(self, iterator: Iterator[Any], depth: int) -> None:
        """Drains it. What its `__next__` raises, SystemExit included, is where it ends."""
        self.containers += 1
        _check_limits(depth + 1, self.containers)
        out = self.out
        start = len(out)
        limit = (start + MAX_FRAME) // 2
        count = 0
        end = [b"."]
        while count < MAX_ITEMS and len(out) <= limit:
            try:
                item = next(iterator)
            except StopIteration:
                end = [b"0"]
                break
            except BaseException as error:
                end = [encoded_str(text) for text in describe_exception(error)]
                break
            self.write(item, depth + 1, False)
            count += 1
        out += b"".join(end)
        out[start:start] = b"n" + varint(count + len(end))

    def _write_opaque(self, value: Any) -> None:
        if type(value) is Opaque:
            name, truth = open_opaque(value)
        else:
            name = str.__getitem__(name_of(type(value)), slice(MAX_NAME))
            try:
                truth = bool(value)
            except BaseException:  # whatever the value's own __bool__ raises
                truth = None
        if not self.opaque:
            raise WireError(f"a value of type {name!r} cannot be sent, only plain data")
        self.out += b"o" + bytes([2 if truth is None else truth]) + encoded_str(name)[1:]


def _check_limits(depth: int, containers: int) -> None:
    if depth > MAX_DEPTH:
        raise WireError(f"containers lie in each other more than {MAX_DEPTH} deep (or one in itself)")
    if containers > MAX_CONTAINERS:
        raise WireError(f"more than {MAX_CONTAINERS:,} containers in one value")


def _is_iterator(value: Any) -> bool:
    try:
        return iter(value) is value
    except BaseException:  # whatever the value's own __iter__ raises
        return False


# --- decoding -----------------------------------------------------------------------------------------------------


def decode(data: bytes, *, linear: bool = False) -> object:
    """The value that the bytes are; its types are exactly those of the module's table.

    With `linear` only lists and tuples, `MAX_LINEAR` of them, may hold other values, so that the time is short whatever the
    bytes: the keys of a stranger's dict may all have the same hash, and his Fraction is reduced by long division.

    Whatever the bytes, it raises WireError and nothing else, MemoryError apart: `MAX_FRAME` bytes can make objects of
    some hundred MiB. An iterator arrives as a generator, and its end raises what the iterator raised, as
    `rebuild_exception` has it, or CandidateError where it was cut off.
    """
    if len(data) > MAX_FRAME:
        raise WireError(f"{len(data):,} bytes are no value: the limit is {MAX_FRAME:,}")
    try:
        value, end = _Decoder(bytes(data), linear).read(0, 0)
    except (WireError, MemoryError):
        raise
    except (IndexError, struct.error):
        raise WireError("the bytes end in the middle of a value") from None
    except Exception as error:  # UnicodeDecodeError, ZeroDivisionError, InvalidOperation, RecursionError ...
        raise WireError(f"the bytes are no value: {type(error).__name__}: {error}") from None
    if end != len(data):
        raise WireError(f"{len(data) - end:,} bytes follow the value")
    return value


def split(data: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    """The bytes of a list, tuple or dict taken apart without making an object: its head, and the bytes of each value in it.

    Joined they are the bytes again. A dict has its keys first, then their values in the same order. Of every other
    value, and of bytes that are no value, the head is all and nothing is in it. The time is linear in the bytes.
    """
    if data[:1] not in (b"l", b"t", b"D"):
        return data, ()
    try:
        count, end = _read_length(data, 1)
        head, items = data[:end], []
        for _ in range(count):
            start, end = end, _end(data, end)
            items.append(data[start:end])
    except (IndexError, WireError):
        return data, ()
    return (head, tuple(items)) if end == len(data) else (data, ())


def _end(data: bytes, pos: int) -> int:
    """Where the value ends that begins at a byte."""
    left = 1
    while left:
        tag = data[pos : pos + 1]
        pos += 1
        left -= 1
        if tag in (b"f", b"c"):
            pos += 8 if tag == b"f" else 16
        elif tag and tag in b"isbad":
            length, pos = _read_length(data, pos)
            pos += length
        elif tag == b"o":
            length, pos = _read_length(data, pos + 1)
            pos += length
        elif tag and tag in b"ltqrxSZDIKVn":
            count, pos = _read_length(data, pos)
            left += count
        elif not tag or tag not in b"0FT.":
            raise WireError(f"no value begins at byte {pos - 1:,}")
    if pos > len(data):
        raise WireError("the bytes end within a value")
    return pos


class _Decoder:
    """Reads values of `data`."""

    def __init__(self, data: bytes, linear: bool) -> None:
        self.data = data
        self.builders = _LINEAR if linear else _BUILDERS
        self.containers = MAX_CONTAINERS - MAX_LINEAR if linear else 0

    def read(self, pos: int, depth: int) -> tuple[Any, int]:
        """The value at `pos`, which lies in `depth` containers, and where it ends."""
        data = self.data
        tag = data[pos]
        if leaf := _READERS.get(tag):
            return leaf(data, pos + 1)
        build = self.builders.get(tag)
        if build is None:
            raise WireError(f"unknown tag {tag:#04x} at byte {pos:,}")
        self.containers += 1
        _check_limits(depth + 1, self.containers)
        count, pos = _read_length(data, pos + 1)
        items = []
        for _ in range(count):
            if leaf := _READERS.get(data[pos]):
                item, pos = leaf(data, pos + 1)
            else:
                item, pos = self.read(pos, depth + 1)
            items.append(item)
        return build(items), pos


def _read_length(data: bytes, pos: int) -> tuple[int, int]:
    """A varint that is no larger than the number of bytes after it, and where it ends."""
    length = data[pos]
    pos += 1
    if length > 127:
        length &= 127
        # Four bytes hold more than MAX_FRAME.
        for shift in (7, 14, 21):
            byte = data[pos]
            pos += 1
            length |= (byte & 127) << shift
            if byte < 128:
                break
        else:
            raise WireError(f"a length at byte {pos:,} takes more than 4 bytes")
        if byte == 0:
            raise WireError(f"a length at byte {pos:,} is not in its shortest form")
    if length > len(data) - pos:
        raise WireError(f"a length of {length:,} at byte {pos:,}, where {len(data) - pos:,} bytes are left")
    return length, pos


def _read_bytes(data: bytes, pos: int) -> tuple[bytes, int]:
    length, pos = _read_length(data, pos)
    return data[pos : pos + length], pos + length


def _read_int(data: bytes, pos: int) -> tuple[int, int]:
    length, pos = _read_length(data, pos)
    value = int.from_bytes(data[pos : pos + length], "big", signed=True)
    if (value if value >= 0 else ~value).bit_length() // 8 + 1 != length:
        raise WireError(f"an integer at byte {pos:,} is not in its shortest form")
    return value, pos + length


def _read_str(data: bytes, pos: int) -> tuple[str, int]:
    content, pos = _read_bytes(data, pos)
    return content.decode("utf-8", "surrogatepass"), pos


def _read_bytearray(data: bytes, pos: int) -> tuple[bytearray, int]:
    content, pos = _read_bytes(data, pos)
    return bytearray(content), pos


def _read_decimal(data: bytes, pos: int) -> tuple[Decimal, int]:
    content, pos = _read_bytes(data, pos)
    text = content.decode("ascii")
    value = Decimal(text)
    if str(value).lower() != text:
        raise WireError(f"a Decimal that ends at byte {pos:,} is not in its own form")
    return value, pos


def _read_opaque(data: bytes, pos: int) -> tuple[Opaque, int]:
    truth = data[pos]
    name, pos = _read_str(data, pos + 1)
    if truth > 2 or len(name) > MAX_NAME:
        raise WireError(f"an opaque value that ends at byte {pos:,} is malformed")
    return Opaque(name, None if truth == 2 else bool(truth)), pos


_READERS: dict[int, Callable[[bytes, int], tuple[Any, int]]] = {
    ord("i"): _read_int,
    ord("s"): _read_str,
    ord("0"): lambda data, pos: (None, pos),
    ord("F"): lambda data, pos: (False, pos),
    ord("T"): lambda data, pos: (True, pos),
    ord("."): lambda data, pos: (..., pos),
    ord("f"): lambda data, pos: (FLOAT.unpack_from(data, pos)[0], pos + 8),
    ord("c"): lambda data, pos: (complex(*COMPLEX.unpack_from(data, pos)), pos + 16),
    ord("b"): _read_bytes,
    ord("a"): _read_bytearray,
    ord("d"): _read_decimal,
    ord("o"): _read_opaque,
}

# A generator or a dict view is hashable too, by identity: hashing alone does not tell plain data.
_KEYS = frozenset(
    {type(None), bool, type(...), int, float, complex, str, bytes, Decimal, Fraction, range, frozenset}
)


def _check_key(value: object) -> None:
    if type(value) is tuple:
        for item in value:
            _check_key(item)
    elif type(value) not in _KEYS:
        raise WireError(f"a value of type {type(value).__name__} is no element of a set and no key")


def _build_dict(items: list[Any]) -> dict[Any, Any]:
    half, odd = divmod(len(items), 2)
    if odd:
        raise WireError("a dict has as many values as keys")
    keys = items[:half]
    for key in keys:
        _check_key(key)
    value = dict(zip(keys, items[half:], strict=True))
    if len(value) != half:
        raise WireError("two keys of a dict, or two elements of a set, are equal")
    return value


def _build_keys(items: list[Any]) -> KeysView[Any]:
    return _build_dict(items + items).keys()


def _ints(items: list[Any], count: int) -> list[int]:
    if len(items) != count or not all(type(item) is int for item in items):
        raise WireError(f"{len(items)} parts, where {count} integers belong")
    return items


def _build_fraction(items: list[Any]) -> Fraction:
    value = Fraction(*_ints(items, 2))
    if value.denominator != items[1]:
        raise WireError("a Fraction is not in lowest terms")
    return value


def _build_slice(items: list[Any]) -> slice:
    if len(items) != 3:
        raise WireError(f"a slice of {len(items)} parts, not 3")
    return slice(*items)


def _build_iterator(items: list[Any]) -> Iterator[Any]:
    end = items.pop() if items else ""
    if end is None:
        return _replay(items, None)
    if end is ...:
        return _replay(items, CandidateError(f"the iterator was cut off after {len(items):,} items"))
    name = items.pop() if items else None
    if type(end) is not str or type(name) is not str or len(name) > MAX_NAME or len(end) > MAX_MESSAGE:
        raise WireError("the end of an iterator is malformed")
    return _replay(items, rebuild_exception(name, end))


def _replay(items: list[Any], error: Exception | None) -> Iterator[Any]:
    yield from items
    if error is not None:
        raise error


_BUILDERS: dict[int, Callable[[list[Any]], Any]] = {
    ord("l"): lambda items: items,
    ord("t"): tuple,
    ord("q"): _build_fraction,
    ord("r"): lambda items: range(*_ints(items, 3)),
    ord("x"): _build_slice,
    ord("S"): lambda items: set(_build_keys(items)),
    ord("Z"): lambda items: frozenset(_build_keys(items)),
    ord("D"): _build_dict,
    ord("K"): _build_keys,
    ord("I"): lambda items: _build_dict(items).items(),
    ord("V"): lambda items: dict(enumerate(items)).values(),
    ord("n"): _build_iterator,
}
_LINEAR = {tag: _BUILDERS[tag] for tag in (ord("l"), ord("t"))}
