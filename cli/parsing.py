"""What the commands' argument parsers have in common."""

from __future__ import annotations

import argparse
import dataclasses
import re
import typing
from collections.abc import Sequence
from typing import Any, Literal

import docstring_parser
from jsonargparse import ArgumentParser, Namespace

from textmarl.cli.errors import CommandError, close_matches

SHORT_FORMS = {
    "--env": "--env.id",
    "--algo": "--algo.name",
    "--temperature": "--sampling.temperature",
    "--max-new-tokens": "--sampling.max_new_tokens",
}
"""Options that have a second, shorter spelling."""

AGENT_HELP = (
    "who acts: run:DIR (a trained run), hf:MODEL (a preset such as smollm2-135m, a Hub id or a folder), "
    "openai:URL#MODEL (a model behind an OpenAI-compatible server, such as openai:http://localhost:8000/v1#name), "
    "python:module:function or python:path/file.py:function, scripted:FILE (always says what the file holds; a .json "
    "file is a list with one reply a turn), or random. SEAT=... names one seat; repeatable"
)


def command_parser(command: str, usage: str, description: str) -> ArgumentParser:
    """A parser for one command that raises instead of exiting."""
    return ArgumentParser(
        prog=f"textmarl {command}",
        usage=f"textmarl {command} {usage}",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        default_env=False,
        formatter_class=argparse.HelpFormatter,
    )


def add_environment(parser: ArgumentParser, keywords: str = "`textmarl envs ID` lists them.") -> Any:
    """Adds `--import`, and a group (returned) with `--env` and `--env.kwargs`.

    Args:
        parser: where to add them.
        keywords: for the help text, the keyword arguments of the chosen environment.
    """
    parser.add_argument(
        "--import",
        metavar="FILE",
        type=str,
        action="append",
        help="first import this module or file, which registers an environment of yours; repeatable",
    )
    group = parser.add_argument_group("environment")
    group.add_argument("--env.id", metavar="ID", type=str, help="short: --env ID; see `textmarl envs`")
    group.add_argument(
        "--env.kwargs",
        metavar="JSON",
        type=dict[str, Any],
        default={},
        help="its keyword arguments, as JSON or singly: --env.kwargs.split train. A value python:file.py:name "
        f"stands for that Python object. {keywords} The command itself adds --env.kwargs.protocol pipeline "
        "(or discussion, single): agents then read each other's texts.",
    )
    return group


def add_models(parser: ArgumentParser) -> None:
    """Adds `--agent`, and what models are played with: the options of `train` that do not change what is trained.

    They are written out here because the dataclasses that `train` takes them from need torch. None is not given.
    """
    parser.add_argument("--agent", metavar="SPEC", type=str, action="append", help=AGENT_HELP)
    group = parser.add_argument_group("models (default: a run's own, or the same as of `textmarl train`)")
    for name, kind, metavar, text in (
        ("sampling.temperature", float | None, "X", "0 takes the likeliest token; short: --temperature X"),
        ("sampling.top_p", float | None, "X", "nucleus sampling; 1 keeps all tokens"),
        ("sampling.top_k", int | None, "N", "keep so many of the likeliest tokens; 0 keeps all"),
        ("sampling.max_new_tokens", int | None, "N", "of a response; short: --max-new-tokens N"),
        ("team.device", str | None, "VALUE", "a torch device; auto: the first GPU, else the CPU"),
        ("team.dtype", str | None, "VALUE", "of hf: models: float32, bfloat16, float16, float64 or auto"),
        (
            "team.thinking",
            Literal["keep", "strip"] | None,
            "VALUE",
            "of hf: models: keep, or strip up to </think>",
        ),
    ):
        group.add_argument(f"--{name}", metavar=metavar, type=kind, default=None, help=text)
    group.add_argument(
        "--team.chat_template_kwargs",
        metavar="JSON",
        type=dict[str, Any],
        default={},
        help="of hf: models: passed to the chat template, as JSON or singly: "
        "--team.chat_template_kwargs.enable_thinking false",
    )
    add_endpoint(parser, "of --sampling what is given is sent, the rest is the server's choice")


def add_endpoint(parser: ArgumentParser, sampling: str) -> None:
    """Adds how models behind a server are asked.

    Args:
        parser: where to add it.
        sampling: for the title, what they are told of `--sampling`.
    """
    group = parser.add_argument_group(f"models behind a server (openai:URL#MODEL; {sampling})")
    for name, kind, metavar, text in (
        (
            "endpoint.api_key_env",
            str | None,
            "NAME",
            "the environment variable with the API key; default: OPENAI_API_KEY, which is only sent over https or "
            "to this machine",
        ),
        ("endpoint.concurrency", int | None, "N", "requests at a time, to each model; default: 8"),
        ("endpoint.timeout", float | None, "SECONDS", "of one attempt; default: 300"),
        ("endpoint.deadline", float | None, "SECONDS", "of one answer with all its attempts; default: 900"),
        ("endpoint.retries", int | None, "N", "attempts after the first; default: 6"),
        (
            "endpoint.thinking",
            Literal["keep", "strip"] | None,
            "VALUE",
            "keep, or strip up to </think>; default: keep",
        ),
        (
            "endpoint.seed",
            int | None,
            "N",
            "send seeds derived from this one; default: none is sent",
        ),
    ):
        group.add_argument(f"--{name}", metavar=metavar, type=kind, default=None, help=text)
    group.add_argument(
        "--endpoint.extra_body",
        metavar="JSON",
        type=dict[str, Any],
        default={},
        help="further fields of the request, as JSON or singly: --endpoint.extra_body.max_completion_tokens 500",
    )


def add_fields(parser: ArgumentParser, section: str, config: type) -> Any:
    """Adds a flag `--section.field` for every field of a dataclass, its docstring as the help text.

    Returns:
        The group of options, for more of them.
    """
    documented: dict[str, str] = {}
    for ancestor in reversed(config.__mro__):  # inherited fields are documented where they are defined
        if dataclasses.is_dataclass(ancestor):
            found = docstring_parser.parse_from_object(ancestor).params
            documented |= {p.arg_name: p.description for p in found if p.description}
    title = (docstring_parser.parse(config.__doc__ or "").short_description or config.__name__).rstrip(".")
    group = parser.add_argument_group(f"{section}: {title.replace('``', '')}")
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if not field.init:
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        text = documented.get(field.name, "").replace("%", "%%")
        options: dict[str, Any] = {"required": True, "help": text}
        if default is not dataclasses.MISSING:
            options = {"default": default, "help": f"{text} (default: %(default)s)".strip()}
        kind = hints[field.name]
        if kind is not bool and typing.get_origin(kind) is not typing.Literal:
            options["metavar"] = {int: "N", float: "X"}.get(kind, "VALUE")
        group.add_argument(f"--{section}.{field.name}", type=kind, **options)
    return group


def known_options(parser: ArgumentParser) -> dict[str, Any]:
    """Every option's dotted name with its default; a dict as the default marks one that takes `--name.key`."""
    return dict(parser.get_defaults(skip_validation=True).items())


def parse(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """Parses the words after the command's name.

    Raises:
        CommandError: an unknown option (with those it resembles), a missing or a bad value.
    """
    words = expand_short_forms(words)
    refuse_unknown_options(parser, words)
    try:
        return parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise CommandError(one_line(str(error))) from error


def expand_short_forms(words: Sequence[str]) -> list[str]:
    """`--env ID` as `--env.id ID`."""
    expanded = []
    for word in words:
        name, equals, value = word.partition("=")
        expanded.append(SHORT_FORMS.get(name, name) + equals + value)
    return expanded


def refuse_unknown_options(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Raises a CommandError for the first option that the parser does not have."""
    options = known_options(parser)
    nested = tuple(f"{name}." for name, default in options.items() if isinstance(default, dict))
    for word in words:
        if not word.startswith("--") or word == "--":
            continue
        option = word[2:].partition("=")[0].removesuffix("+")
        name = option.replace("-", "_")
        if name == "help" or name in options or name.startswith(nested):
            continue
        spelled = ["--" + (known if "." in known else known.replace("_", "-")) for known in options]
        raise CommandError(f"unknown option --{option}{close_matches(f'--{option}', spelled)}")


def one_line(message: str) -> str:
    """A message of jsonargparse as `--option: expected ..., got ...`."""
    key = re.search(r'Parser key "([^"]+)"', message)
    value = re.search(r"(?:Got value|Given value): (.*)", message, flags=re.DOTALL)
    kinds = re.findall(r"Expected an? (?:typing\.)?(.*?)(?:\. Got value|$)", message, flags=re.MULTILINE)
    if key is None or value is None or not kinds:
        return " ".join(message.split())
    names = [re.sub(r"<class '(.*)'>", r"\1", kind) for kind in kinds]
    expected = " or ".join(dict.fromkeys(name for name in names if name != "NoneType"))
    given = value.group(1).strip()
    choices = re.findall(r"'([^']*)'", expected) if expected.startswith("Literal[") else []
    if choices:
        expected = "one of " + ", ".join(choices)
    return f"--{key.group(1)}: expected {expected}, got {given}" + (
        close_matches(given, choices) if choices else ""
    )
