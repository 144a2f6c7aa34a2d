"""What stands in the judge for what stays with the candidate: its exceptions, and its values that are not plain data.

Standard library only: the contained processes import this module without the rest of the package.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from typing import Any

MAX_NAME = 200
"""Characters kept of the name of a type."""
MAX_MESSAGE = 2_000
"""Characters kept of the message of an exception."""

_ADDRESS = re.compile(r"(?<=\bat )0x[0-9a-fA-F]{6,16}\b")


def without_addresses(text: str) -> str:
    """The text with "0x..." for every memory address, as Python writes it ("<function f at 0x7f3c2b1a4d60>").

    Addresses differ from process to process; what agents read must not.
    """
    return _ADDRESS.sub("0x...", text)


mro_of: Callable[[type], tuple[type, ...]] = vars(type)["__mro__"].__get__
"""`kind.__mro__`, read from the type itself: a metaclass can override what the expression answers."""
name_of: Callable[[type], str] = vars(type)["__name__"].__get__
"""`kind.__name__`, read likewise."""
_args_of: Callable[[BaseException], tuple[Any, ...]] = vars(BaseException)["args"].__get__


class Opaque:
    """A value of the candidate that is not plain data: bool() gives its truth, every other operation a TypeError.

    It equals nothing and tells nothing, so no test can be passed by an object that answers whatever it is asked.
    `repr()` works, for feedback, and names the type. `isinstance(value, Other)` raises too: ask `type(value)`.

    `truth` is None where bool() itself raised in the candidate; bool() raises TypeError then.
    """

    __slots__ = ("_name", "_truth")

    def __init__(self, name: str, truth: bool | None) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_truth", truth)

    def __bool__(self) -> bool:
        truth = object.__getattribute__(self, "_truth")
        if truth is None:
            raise TypeError(f"bool() of {self!r} raised in the candidate")
        return truth

    def __repr__(self) -> str:
        return f"<opaque value of type {object.__getattribute__(self, '_name')!r}>"

    def _refuse(self, *_: object) -> Any:
        raise TypeError(f"{self!r} is not plain data: only bool() works on it")

    # What `object`, or the other operand, would answer in its place; all the rest raises TypeError as it is.
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = _refuse
    __getattribute__ = __setattr__ = __delattr__ = __dir__ = _refuse
    __str__ = __format__ = __sizeof__ = __reduce__ = __reduce_ex__ = _refuse


def open_opaque(value: Opaque) -> tuple[str, bool | None]:
    """The name and the truth that an `Opaque` was made with."""
    return object.__getattribute__(value, "_name"), object.__getattribute__(value, "_truth")


class CandidateError(Exception):
    """An exception of the candidate that is no builtin `Exception`, or one that the judge must not see as what it is."""


# Taken at import, before the code of a test can replace a builtin.
_BUILTIN = {
    name: kind
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
}
# StopIteration would end the judge's own loops; a group cannot be built from a message.
_REBUILT = {
    name: kind
    for name, kind in _BUILTIN.items()
    if not issubclass(kind, StopIteration | StopAsyncIteration | ExceptionGroup)
}
# By identity: a metaclass can override the hash and the equality of a class.
_ANCESTORS = {id(kind) for kind in _BUILTIN.values() if kind is not Exception}


def describe_exception(error: BaseException) -> tuple[str, str]:
    """The name and the message under which an exception of untrusted code is sent; never raises.

    The name is that of the nearest ancestor among the builtin exceptions other than `Exception`, else that of the
    class itself; at most `MAX_NAME` characters. The message is `str(error)`, without memory addresses and of at most
    `MAX_MESSAGE` characters; of a KeyError it is the key where that is a text, because `str()` quotes it, and would do so again once it is rebuilt.
    """
    kinds = mro_of(type(error))
    name = name_of(next((kind for kind in kinds if id(kind) in _ANCESTORS), kinds[0]))
    try:
        message = str(error)
        args = _args_of(error)
        if name == "KeyError" and len(args) == 1 and type(args[0]) is str and message == repr(args[0]):
            message = args[0]
        # More than is kept, since an address may be cut at the end.
        message = without_addresses(str.__getitem__(message, slice(8 * MAX_MESSAGE)))
    except BaseException:  # __str__ is the candidate's code: it may raise SystemExit as well
        message = "(the message cannot be read: __str__ raised)"
    # str.__getitem__, because both may be of a subclass of str.
    return str.__getitem__(name, slice(MAX_NAME)), str.__getitem__(message, slice(MAX_MESSAGE))


def rebuild_exception(name: str, message: str) -> Exception:
    """The builtin Exception of that name, with that message, else a `CandidateError` whose text begins with the name.

    SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration and groups become a
    `CandidateError`. `UnicodeDecodeError` and its kin get empty data and end in the message.
    """
    kind = _REBUILT.get(name)
    if kind is None:
        return CandidateError(f"{name}: {message}" if message else name)
    if issubclass(kind, UnicodeDecodeError):
        return kind("unknown", b"", 0, 0, message)
    if issubclass(kind, UnicodeEncodeError):
        return kind("unknown", "", 0, 0, message)
    if issubclass(kind, UnicodeTranslateError):
        return kind("", 0, 0, message)
    return kind(message) if message else kind()
