"""`textmarl play`: a person takes an agent's seat."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console
from rich.rule import Rule

from textmarl.agents import HumanAgent, evaluate
from textmarl.agents.evaluation import Episode
from textmarl.cli import environments, seats
from textmarl.cli.errors import CommandError, told_in_one_line
from textmarl.cli.parsing import add_environment, add_models, command_parser, parse
from textmarl.cli.transcript import show_terms, show_text
from textmarl.cli.user_code import import_user_code
from textmarl.envs.instances import Instances


def run(words: Sequence[str]) -> int:
    """Runs `textmarl play` with the words after it; returns the exit code."""
    parser = command_parser(
        "play",
        "--env ID [--seat AGENT] [--agent SPEC] [options]",
        "Take an agent's seat in the terminal, beside a model or any other agent.",
    )
    add_environment(parser)
    parser.add_argument(
        "--seat", metavar="AGENT", type=str | None, default=None, help="your seat; default: the first"
    )
    add_models(parser)
    parser.add_argument(
        "--task",
        metavar="ID",
        type=str | None,
        default=None,
        help="index or id of the first task; default: drawn",
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the tasks and seeds the agents")
    args = parse(parser, words)

    for name in args["import"] or []:
        import_user_code(name)
    instances = Instances(partial(environments.make, args.env.id, args.env.kwargs))
    env = instances.env
    if args.seed < 0:
        raise CommandError(f"--seed {args.seed}: expected 0 or more")
    seat = args.seat or env.possible_agents[0]
    if seat not in env.possible_agents:
        raise CommandError(f"--seat {seat}: the seats of {args.env.id} are {', '.join(env.possible_agents)}")
    partners = [name for name in env.possible_agents if name != seat]
    assigned = seats.assign(args.agent or ["random"], partners)
    order = _task_order(env, args.task, args.seed)

    console = Console()
    partner_agents = seats.make_agents(assigned, args.seed, seats.ModelOptions.of(args))
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives `input` line editing, and lines longer than the terminal's 4 KiB)
    me = HumanAgent(show=lambda message: _show_observation(console, seat, message))
    console.print(f"You are {seat}. Partners: {_described(assigned)}.", highlight=False, markup=False)

    played = 0
    for number, task in enumerate(order):
        try:
            with told_in_one_line(only_ours=True):
                result = evaluate(
                    instances,
                    {**partner_agents, seat: me},
                    tasks=None if task is None else [task],
                    seed=args.seed + number,
                )
        except EOFError:
            break
        for failure in result.failures:
            raise CommandError(f"{failure.agent} does not answer: {failure.error}")
        played += 1
        _show_result(console, result.episodes[0], seat, result.max_score)
        if not _another():
            break
    console.print(f"\n{played} task{'s' if played != 1 else ''} played.", highlight=False)
    return 0


def _task_order(env: Any, first: str | None, seed: int) -> list[str | None]:
    """The tasks' ids in the order to play them, each once; a thousand unnamed episodes without a task set."""
    tasks = getattr(env, "tasks", None)
    if tasks is None:
        return [None] * 1000
    order: list[str | None] = [tasks[int(i)].id for i in np.random.default_rng(seed).permutation(len(tasks))]
    if first is None:
        return order
    with told_in_one_line(f"--task {first}"):
        wanted = tasks.find(int(first) if first.isdigit() and first not in order else first).id
    return [wanted, *(task for task in order if task != wanted)]


def _described(assigned: dict[str, str]) -> str:
    return ", ".join(f"{name} ({spec})" for name, spec in assigned.items()) or "none"


def _show_observation(console: Console, seat: str, message: str) -> None:
    console.print(Rule(style="dim"))
    show_text(console, f"{seat} reads", message)
    console.print("\nYour answer; an empty line sends it, Ctrl-D on an empty line leaves:", style="bold")
    sys.stdout.flush()


def _show_result(console: Console, episode: Episode, seat: str, max_score: float | None) -> None:
    console.print(Rule(style="dim"))
    for number, turn in enumerate(episode.turns, start=1):
        suffix = f", turn {number}" if len(episode.turns) > 1 else ""
        for agent, entry in turn.items():
            own = " (you)" if agent == seat else ""
            show_text(console, f"{agent}{own} wrote{suffix}", entry["response"])
    show_terms(console, episode.score, max_score, episode.reward_terms)
    if episode.individual_reward:
        parts = ", ".join(f"{agent} {value:.3f}" for agent, value in episode.individual_reward.items())
        console.print(f"alone: {parts}", highlight=False)


def _another() -> bool:
    try:
        return input("\nAnother task? [Y/n] ").strip().lower() not in ("n", "no", "q", "quit")
    except EOFError:
        return False
