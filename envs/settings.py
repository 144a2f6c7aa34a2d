"""What an object was made with, as plain values: two evaluations are comparable if these agree.

    >>> import functools
    >>> from textmarl.envs.settings import WithSettings
    >>> class Coin(WithSettings):
    ...     def __init__(self, bias=0.5, reward_fn=None):
    ...         self.bias = bias
    >>> Coin(0.7).settings
    {'bias': 0.7, 'reward_fn': None}
    >>> Coin(reward_fn=functools.partial(pow, exp=2)).settings["reward_fn"]
    {'function': 'builtins:pow', 'arguments': [], 'keywords': {'exp': 2}}

A function is known by its name: that its code has changed is not seen, nor are two lambdas of one function told apart.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

LONGEST = 2_000
"""An argument that is longer than this, as JSON, is given as a digest."""


class InitSignature:
    """The signature of a class is that of its `__init__`, though a `__new__` takes any arguments.

    Early releases of Python 3.11 show an inherited `__new__` where a class has an `__init__` that is nearer.
    """

    def __get__(self, instance: object, kind: type) -> inspect.Signature:
        """The signature of `kind`, without self."""
        whole = inspect.signature(kind.__init__)  # type: ignore[misc]  # whichever __init__ it is
        return whole.replace(parameters=list(whole.parameters.values())[1:])


class WithSettings:
    """Keeps the arguments of the constructor in the attribute `settings`, as JSON values.

    Attributes:
        settings: argument -> value, with the defaults that the class itself names. Do not hand over secrets as arguments:
            the settings are written down beside results.
    """

    settings: Mapping[str, Any]
    __signature__ = InitSignature()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Makes the object and keeps the arguments, as they are before a subclass changes them and hands them on."""
        made = super().__new__(cls)
        made.settings = constructor_settings(cls, args, kwargs)
        return made


def constructor_settings(kind: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `kind(*args, **kwargs)` with the defaults of its `__init__`, as JSON values.

    Arguments that the constructor does not take are left to it to refuse, and the result is empty.
    """
    signature = inspect.signature(kind.__init__)  # type: ignore[misc]  # whichever __init__ it is
    try:
        bound = signature.bind_partial(None, *args, **kwargs)
    except TypeError:
        return {}
    bound.apply_defaults()
    given: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:  # without self
        of_options = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        given |= value if of_options else {name: value}
    return {name: _short(value) for name, value in given.items()}


def plain(value: Any) -> Any:
    """A value as JSON knows it.

    Functions and classes become "module:name", objects of other classes too (by the class); dataclasses and partial
    functions a dict with their fields, NumPy's numbers and arrays numbers and lists, bytes their hexadecimal digits.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist()) if value.dtype != object else _name(type(value))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, os.PathLike):
        return plain(os.fspath(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(item) for item in value), key=json.dumps)
    if isinstance(value, functools.partial):
        return {
            "function": plain(value.func),
            "arguments": plain(value.args),
            "keywords": plain(value.keywords),
        }
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.compare]
        return {"type": _name(type(value))} | {name: plain(vars(value)[name]) for name in fields}
    if callable(value) and hasattr(value, "__qualname__"):
        return _name(value)
    return _name(type(value))


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that tell a value from another one, by what `plain` sees of it."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode("ascii")).hexdigest()[:16]


def _short(value: Any) -> Any:
    try:
        text = json.dumps(plain(value))
    except RecursionError:  # it holds itself
        return _name(type(value))
    return json.loads(text) if len(text) <= LONGEST else f"sha256:{digest(value)}"


def _name(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}"
