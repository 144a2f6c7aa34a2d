"""`textmarl envs`: the environments there are."""

from __future__ import annotations

import inspect
import re
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
from textmarl.envs import TextEnv


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
        notes = "tasks: of the splits train / test. textmarl envs ID shows an environment's page."
        console.print(f"\n{notes}", style="dim", highlight=False)
    else:
        spec = environments.find(args.id)
        text = f"{page(spec)}\n\n{environments.describe_command_line(spec)}"
        console.print(
            Markdown(text) if console.is_terminal else Text(text), soft_wrap=not console.is_terminal
        )
    return 0


def show_overview(console: Console) -> None:
    """Every environment on a line of its own (on a narrow console on two), and under it what it is."""
    rows: list[tuple[str, ...]] = []
    texts = []
    for name, spec in environments.text_environments().items():
        facts, missing = ("", "", "", ""), ""
        try:
            facts = _declared_facts(spec)
            facts = _facts(spec)
        except CommandError as error:  # data or packages are missing: it is listed all the same
            missing = f"Not available here: {error.__cause__ or error}"
        rows.append((name, *facts))
        texts.append(" ".join(part for part in (_description(spec), missing) if part))
    names = ("environment", "agents", "turns", "maximum", "tasks")
    widths = [max(len(cell) for cell in column) for column in zip(names, *rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= console.width:
        console.print(Text(_line(names, widths), style="bold"), soft_wrap=True)
        heads = [_line(row, widths) for row in rows]
        below = [""] * len(rows)
    else:
        heads = [row[0] for row in rows]
        below = [
            "; ".join(f"{name} {cell}" for name, cell in named if cell)
            for named in ([*zip(names[2:], row[2:], strict=True), ("agents:", row[1])] for row in rows)
        ]
    for head, more, description in zip(heads, below, texts, strict=True):
        console.print(Text(head, style="bold"), soft_wrap=True)
        for text in (more, description):
            if text:
                console.print(Padding(Text(text), (0, 0, 0, 4)))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


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


def _description(spec: EnvSpec) -> str:
    """The first sentence of the page and, where there are several versions, what the page says of this one."""
    try:
        text = page(spec)
    except CommandError:  # its module cannot be imported
        return ""
    version = re.search(r"^\| Version +\| (.*?) *\|$", text, flags=re.MULTILINE)
    number = spec.id.rpartition("-")[2]
    of_version = [f"{number}: {version[1].rstrip('.')}."] if version else []
    return " ".join([first_sentence(text), *of_version]).replace("`", "")


def _declared_facts(spec: EnvSpec) -> tuple[str, str, str, str]:
    """Agents, turns and maximum as the class declares them, for where none can be made."""
    creator: Any = environments.creator(spec)
    if not isinstance(creator, type) or not issubclass(creator, TextEnv):
        return "", "", "", ""
    turns = (environments.keywords(spec) or {}).get("max_turns")
    agents = getattr(creator, "possible_agents", [])
    return _listed(agents), f"{turns or 1}", f"{creator.max_score:g}", ""


def _facts(spec: EnvSpec) -> tuple[str, str, str, str]:
    if (environments.keywords(spec) or {}).get("source") == "hub":
        # A list of what there is must not download anything, nor wait for a network that is not there.
        return (*_declared_facts(spec)[:3], "from the Hub")
    env = environments.make(spec.id, {})
    return (
        _listed(env.possible_agents),
        _number(env, "max_turns"),
        _number(env, "max_score"),
        _task_counts(spec, env),
    )


def _listed(agents: Sequence[str]) -> str:
    """The agents' names; of more than two that are numbered, the first and the last."""
    numbered = {name.rstrip("0123456789") for name in agents}
    if len(agents) > 2 and len(numbered) == 1:
        return f"{agents[0]} ... {agents[-1]}"
    return ", ".join(agents)


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
