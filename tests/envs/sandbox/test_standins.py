"""An exception of untrusted code is described whatever its class does, and becomes one that a test may see."""

from __future__ import annotations

import builtins
import decimal
import json
from typing import Any

import pytest

from textmarl.envs.sandbox.standins import (
    MAX_MESSAGE,
    MAX_NAME,
    CandidateError,
    describe_exception,
    rebuild_exception,
)

EXCEPTIONS = [
    kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, Exception)
]
FORBIDDEN = (StopIteration, StopAsyncIteration)


class Own(Exception):
    pass


class OwnIndexError(IndexError):
    pass


class Text(str):
    def __getitem__(self, _: Any) -> Any:
        raise SystemExit


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (ValueError("no"), ("ValueError", "no")),
        (OwnIndexError("i"), ("IndexError", "i")),
        (Own("o"), ("Own", "o")),
        (Exception("e"), ("Exception", "e")),
        (AssertionError(), ("AssertionError", "")),
        (KeyError("k"), ("KeyError", "k")),
        (KeyError(3), ("KeyError", "3")),
        (KeyError("a", "b"), ("KeyError", "('a', 'b')")),
        (FileNotFoundError(2, "gone"), ("FileNotFoundError", "[Errno 2] gone")),
        (decimal.DivisionByZero("d"), ("ZeroDivisionError", "d")),
        (json.JSONDecodeError("j", "", 0), ("ValueError", "j: line 1 column 1 (char 0)")),
        (SystemExit(3), ("SystemExit", "3")),
        (KeyboardInterrupt(), ("KeyboardInterrupt", "")),
        (type("Leaves", (SystemExit,), {})(1), ("Leaves", "1")),
        (type("", (Exception,), {})("nameless"), ("", "nameless")),
        (type("a\nb", (Exception,), {})(), ("a\nb", "")),
        (Own("\ud800"), ("Own", "\ud800")),
        (Own("<object at 0x7f3c2b1a4d60>, <f at 0x55AA12>."), ("Own", "<object at 0x...>, <f at 0x...>.")),
        (Own("0x7f3c2b1a4d60 is 0xff, at 0xff"), ("Own", "0x7f3c2b1a4d60 is 0xff, at 0xff")),
        (KeyError("at 0x7f3c2b1a4d60"), ("KeyError", "at 0x...")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_has_the_name_of_its_nearest_builtin_ancestor(
    error: BaseException, described: tuple[str, str]
) -> None:
    assert describe_exception(error) == described


@pytest.mark.parametrize("inner", [ValueError(), SystemExit(), KeyboardInterrupt(), RecursionError(), Own()])
def test_an_exception_whose_text_raises_is_described(inner: BaseException) -> None:
    def raises(*_: Any) -> Any:
        raise inner

    error = type("Mute", (ValueError,), {"__str__": raises, "__repr__": raises, "__getattribute__": raises})()
    name, message = describe_exception(error)
    assert name == "ValueError" and "cannot be read" in message
    assert describe_exception(Own(type("Mute", (), {"__str__": raises, "__repr__": raises})()))[0] == "Own"


def test_long_texts_and_names_are_cut() -> None:
    loud = type("N" * 10_000, (Exception,), {"__str__": lambda _: "x" * 5_000_000})
    assert describe_exception(loud()) == ("N" * MAX_NAME, "x" * MAX_MESSAGE)
    objects = ValueError("<o at 0x7f3c2b1a4d60> " * 10_000)
    assert describe_exception(objects) == ("ValueError", ("<o at 0x...> " * 10_000)[:MAX_MESSAGE])


def test_texts_and_names_of_a_subclass_of_str_arrive_as_str() -> None:
    strange = type("Strange", (Exception,), {"__str__": lambda _: Text("message")})
    strange.__name__ = Text("name")
    name, message = describe_exception(strange())
    assert (name, message) == ("name", "message")
    assert type(name) is type(message) is str


def test_a_metaclass_cannot_change_what_an_exception_is() -> None:
    class Meta(type):
        __name__ = property(lambda _: "KeyError")  # type: ignore[assignment]
        __mro__ = property(lambda _: (KeyError,))  # type: ignore[assignment]

        def __eq__(cls, other: object) -> bool:
            raise SystemExit

        def __hash__(cls) -> int:
            raise SystemExit

        def __getattribute__(cls, name: str) -> Any:
            raise SystemExit

    class Trick(IndexError, metaclass=Meta):
        pass

    class Other(Exception, metaclass=Meta):
        pass

    assert describe_exception(Trick("t")) == ("IndexError", "t")
    assert describe_exception(Other("o")) == ("Other", "o")


@pytest.mark.parametrize(
    "kind", [kind for kind in EXCEPTIONS if not issubclass(kind, (*FORBIDDEN, ExceptionGroup))]
)
@pytest.mark.parametrize("message", ["", "what went wrong"])
def test_every_builtin_exception_is_rebuilt_as_itself(kind: type[Exception], message: str) -> None:
    error = rebuild_exception(kind.__name__, message)
    assert type(error) is kind
    assert message in str(error)


@pytest.mark.parametrize(
    "name",
    [
        "SystemExit",
        "KeyboardInterrupt",
        "GeneratorExit",
        "BaseException",
        "BaseExceptionGroup",
        "ExceptionGroup",
        "StopIteration",
        "StopAsyncIteration",
        "Own",
        "len",
        "int",
        "__import__",
        "os.error",
    ],
)
def test_every_other_name_becomes_a_candidate_error(name: str) -> None:
    error = rebuild_exception(name, "m")
    assert type(error) is CandidateError and str(error) == f"{name}: m"
    assert str(rebuild_exception(name, "")) == name


def test_a_key_error_keeps_its_text_on_the_way() -> None:
    assert str(rebuild_exception(*describe_exception(KeyError("k")))) == str(KeyError("k"))
