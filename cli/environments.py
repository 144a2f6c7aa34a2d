"""Registered environments: finding them, their keyword arguments, making them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pettingzoo
from pettingzoo.env_registry.exceptions import PettingZooRegistryError
from pettingzoo.env_registry.registration import parallel_registry
from pettingzoo.env_registry.spec import EnvSpec

import textmarl.envs  # noqa: F401  (registers the environments)
from textmarl.cli.errors import CommandError, close_matches, told_in_one_line
from textmarl.cli.user_code import load_object
from textmarl.envs.protocols import Discussion, Pipeline, Single, wrap


def text_environments() -> dict[str, EnvSpec]:
    """The registered parallel environments that do not come with PettingZoo itself, by id."""
    return {
        name: spec
        for name, spec in sorted(parallel_registry.items())
        if not str(spec.entry_point).startswith("pettingzoo.")
    }


def find(env_id: str | None) -> EnvSpec:
    """The specification registered under an id.

    An id without a version means the newest, as for `pettingzoo.make`; a name without a namespace (`TLDR`) is taken in
    the only namespace that has it.

    Raises:
        CommandError: no id, or none like it.
    """
    known = text_environments()
    if not env_id:
        raise CommandError(f"no environment: give --env ID, one of {', '.join(known)} (see `textmarl envs`)")
    full = env_id
    if "/" not in env_id:
        namespaces = {
            name.rpartition("/")[0]
            for name in known
            if env_id in (leaf := name.rpartition("/")[2], leaf.rpartition("-v")[0])
        }
        full = "/".join([*namespaces, env_id]) if len(namespaces) == 1 else env_id
    try:
        return pettingzoo.env_registry.registration.spec("parallel", full.lstrip("/"))
    except PettingZooRegistryError as error:
        same_name = [
            name for name in known if name.rpartition("/")[2].lower() == env_id.rpartition("/")[2].lower()
        ]
        hint = f"; did you mean {same_name[0]!r}?" if same_name else close_matches(env_id, known)
        raise CommandError(
            f"no environment is registered as {env_id!r}{hint} There are {', '.join(known)}; "
            "one of your own needs --import FILE, where FILE registers it"
        ) from error


def creator(spec: EnvSpec) -> Callable[..., Any]:
    """The class or function that makes the environment.

    Raises:
        CommandError: it cannot be imported.
    """
    if callable(spec.entry_point):
        return spec.entry_point
    module, _, name = str(spec.entry_point).partition(":")
    with told_in_one_line(f"the environment {spec.id!r} cannot be imported"):
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def keywords(spec: EnvSpec) -> dict[str, Any] | None:
    """The keyword arguments that the environment takes, with their defaults (`inspect.Parameter.empty`: none).

    None where they cannot be told, because a function takes any (`**kwargs`).
    """
    make = creator(spec)
    constructors = [c for c in make.__mro__ if "__init__" in vars(c)] if isinstance(make, type) else [make]
    found: dict[str, Any] = {}
    for constructor in constructors:  # a class that takes **kwargs hands them to its parent
        parameters = inspect.signature(constructor).parameters.values()
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        found |= {p.name: p.default for p in named if p.name not in found}
        if "split" in found:  # such a class draws its tasks itself and hands them to its parent
            found.pop("tasks", None)
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            return found
    return None


def held_out(spec: EnvSpec | None) -> dict[str, Any]:
    """The keyword arguments that choose held-out tasks: `split="test"` where the environment has splits."""
    known = keywords(spec) if spec is not None else None
    return {"split": "test"} if known is not None and isinstance(known.get("split"), str) else {}


def describe_keywords(spec: EnvSpec) -> str:
    """The keyword arguments for a help text."""
    arguments = keywords(spec)
    if not arguments:
        return ""
    shown = [
        name if value is inspect.Parameter.empty else f"{name}={value!r}" for name, value in arguments.items()
    ]
    return f"{spec.id} takes {', '.join(shown)}."


def describe_command_line(spec: EnvSpec) -> str:
    """What an environment's page says about the commands: its arguments, protocols, and a call of each command."""
    arguments = keywords(spec)
    lines = ["### From the command line", "", f"    textmarl play --env {spec.id} --agent random"]
    lines += [f"    textmarl {command} --env {spec.id}{more}" for command, more in _CALLS]
    if arguments:
        first = next(iter(arguments))
        lines += ["", f"Arguments: `--env.kwargs.{first} ...`. {describe_keywords(spec)}"]
    if arguments is None or "protocol" not in arguments:
        lines += ["", PROTOCOLS]
    return "\n".join(lines)


_CALLS = (("eval", " --agent openai:URL#MODEL"), ("train", ""))
PROTOCOLS = (
    "Agents that read each other's texts before they answer, or one that writes all roles: `--env.kwargs.protocol pipeline`, "
    '`discussion` or `single`; with arguments `--env.kwargs.protocol \'{"name": "discussion", "rounds": 2}\'`. This is '
    'no argument of the environment: from Python it is `textmarl.envs.protocols.wrap(env, "pipeline")`.'
)


def make(env_id: str | None, kwargs: Mapping[str, Any], section: str = "env.kwargs") -> Any:
    """Makes an environment; a text value `python:file.py:name` is replaced by that object.

    Args:
        env_id: a registered id.
        kwargs: its keyword arguments, and `protocol` for one of `textmarl.envs.protocols` around it (unless the
            environment has an argument of that name itself).
        section: what messages call them.

    Raises:
        CommandError: unknown id or keyword, or the environment refuses a value.
    """
    spec = find(env_id)
    known = keywords(spec)
    arguments = dict(kwargs)
    protocol = None if known is not None and "protocol" in known else arguments.pop("protocol", None)
    for name in arguments:
        if known is not None and name not in known and name != "max_cycles":
            raise CommandError(
                f"{section}.{name}: {spec.id} has no such argument{_meant(name, known, section)} "
                f"It takes {', '.join(known)}; and the commands take protocol"
            )
    values = {
        name: load_object(value.removeprefix("python:"))
        if isinstance(value, str) and value.startswith("python:")
        else value
        for name, value in arguments.items()
    }
    given = f" ({section}: {dict(kwargs)})" if kwargs else ""
    with told_in_one_line(f"{spec.id} cannot be made{given}"):
        env = pettingzoo.make("parallel", spec.id, **values)
        return env if protocol is None else wrap(env, protocol)


def _meant(name: str, known: Mapping[str, Any], section: str) -> str:
    """The argument that was probably meant, as the end of a sentence."""
    for kind in (Pipeline, Discussion, Single):
        if name in list(inspect.signature(kind).parameters)[1:]:  # without the environment
            return (
                f"; {name} is of the protocol {kind.protocol}: --{section}.protocol "
                f'\'{{"name": "{kind.protocol}", "{name}": ...}}\'.'
            )
    return close_matches(name, known)
