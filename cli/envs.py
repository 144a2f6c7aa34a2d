"""`textmarl envs`: the environments there are."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any

from pettingzoo.env_registry.spec import EnvSpec
from rich.console import Console
from rich.markdown import Markdown
from rich.padding import Padding
from rich.text import Text

from textmarl.cli import environments
from textmarl.cli.errors import CommandError
from textmarl.cli.parsing import command_parser, parse
from textmarl.cli.user_code import import_user_code


def run(words: Sequence[str]) -> int:
    """Runs `textmarl envs` with the words after it; returns the exit code."""
    parser = command_parser(
        "envs", "[ID] [--import FILE]", "List the environments, or show the documentation page of one."
    )
    parser.add_argument("id", nargs="?", type=str, help="show this environment's page")
    parser.add_argument(
        "--import", metavar="FILE", type=str, action="append", help="first import this file or module"
    )
    args = parse(parser, words)
    for name in args["import"] or []:
        import_user_code(name)
    console = Console()
    if args.id is None:
        show_overview(console)
        console.print("\ntextmarl envs ID shows an environment's page.", style="dim")
    else:
        spec = environments.find(args.id)
        text = f"{page(spec)}\n\n{environments.describe_command_line(spec)}"
        console.print(
            Markdown(text) if console.is_terminal else Text(text), soft_wrap=not console.is_terminal
        )
    return 0


def show_overview(console: Console) -> None:
    """Every environment on a line of its own, and under it what it is."""
    rows: list[tuple[str, ...]] = [("environment", "agents", "turns", "maximum", "tasks (train / test)")]
    texts = [""]
    for name, spec in environments.text_environments().items():
        description, facts = "", ("", "", "", "")
        try:
            description = first_sentence(page(spec))
            facts = _facts(spec)
        except CommandError as error:  # data or packages are missing: it is listed all the same
            description = f"{description}\n({error})".strip()
        rows.append((name, *facts))
        texts.append(description)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row, description in zip(rows, texts, strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        console.print(Text(line, style="bold"), soft_wrap=True)
        if description:
            console.print(Padding(Text(description), (0, 0, 0, 4)))


def page(spec: EnvSpec) -> str:
    """The documentation page of an environment: its module's docstring, or its class's."""
    creator = environments.creator(spec)
    module = sys.modules.get(creator.__module__)  # none where a user's script loaded the class by hand
    text = inspect.getdoc(module) if module is not None else None
    return text or inspect.getdoc(creator) or f"{spec.id} has no documentation."


def first_sentence(text: str) -> str:
    """The first sentence of a page, without its title."""
    paragraphs = [p for p in text.split("\n\n") if p.strip() and not p.lstrip().startswith("#")]
    paragraph = " ".join(paragraphs[0].split()) if paragraphs else ""
    sentence, stop, _ = paragraph.partition(". ")
    return sentence.rstrip(":. ") + ("." if stop or sentence.endswith(".") else "")


def _facts(spec: EnvSpec) -> tuple[str, str, str, str]:
    creator: Any = environments.creator(spec)
    if isinstance(creator, type) and (environments.keywords(spec) or {}).get("source") == "hub":
        # A list of what there is must not download anything, nor wait for a network that is not there.
        agents = ", ".join(getattr(creator, "possible_agents", ()))
        return agents, "", _number(creator, "max_score"), "from the Hub"
    env = environments.make(spec.id, {})
    agents = ", ".join(env.possible_agents)
    return agents, _number(env, "max_turns"), _number(env, "max_score"), _task_counts(spec, env)


def _number(env: Any, name: str) -> str:
    value = getattr(env, name, None)  # textmarl environments have it, other PettingZoo environments need not
    return "" if value is None else f"{value:g}"


def _task_counts(spec: EnvSpec, env: Any) -> str:
    tasks = getattr(env, "tasks", None)
    if tasks is None:
        return ""
    arguments = environments.keywords(spec)
    if arguments is None or "split" not in arguments:
        return str(len(tasks))
    counts = []
    for split in ("train", "test"):
        try:
            counts.append(str(len(environments.make(spec.id, {"split": split}).tasks)))
        except CommandError:
            counts.append("none")
    return " / ".join(counts)
