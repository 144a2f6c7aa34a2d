"""`textmarl eval`: play and score agents."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from textmarl.agents import Evaluation, Failure, evaluate
from textmarl.agents.recording import EPISODES, count_episodes
from textmarl.benchmarks.summary import summarise
from textmarl.cli import environments, seats, tables
from textmarl.cli.errors import DEBUGGING, CommandError, told_in_one_line
from textmarl.cli.parsing import add_environment, add_models, command_parser, parse
from textmarl.cli.user_code import import_user_code
from textmarl.envs.instances import Instances
from textmarl.envs.transcript import printable

SUMMARY = "summary.json"
SHOWN_REASONS = 3


def run(words: Sequence[str]) -> int:
    """Runs `textmarl eval` with the words after it; returns the exit code (1: some episodes failed)."""
    parser = command_parser(
        "eval",
        "[--env ID] --agent SPEC [options]",
        "Play and score agents in an environment, on its held-out tasks (split=test) where it has splits; no torch is "
        "needed without a local model. With run:DIR the environment is the run's, unless --env names one.",
    )
    add_environment(parser)
    add_models(parser)
    parser.add_argument(
        "--tasks", metavar="N", type=int | None, default=None, help="the first N tasks; default: all"
    )
    parser.add_argument(
        "--samples", metavar="N", type=int, default=1, help="episodes of each task; default: 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="seeds the episodes and the agents; default: 0")
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=64,
        help="episodes played at a time; default: 64. With --output, an interruption loses these at most",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=str | None, default=None,
        help="write every episode to DIR/episodes.jsonl as it finishes. The same command again, perhaps with more "
        "--tasks or --samples, plays only what is missing there",
    )  # fmt: skip
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the means, intervals and pass@k as one JSON object instead of tables; with --output it is in "
        f"DIR/{SUMMARY} in any case",
    )
    args = parse(parser, words)

    env_id, kwargs = _environment(args)
    instances = Instances(partial(environments.make, env_id, kwargs))
    env = instances.env
    assigned = seats.assign(args.agent or [], env.possible_agents)
    if args.seed < 0:
        raise CommandError(f"--seed {args.seed}: expected 0 or more")
    options = seats.ModelOptions.of(args)
    played_before = 0
    if args.output is not None:
        with told_in_one_line(f"--output {args.output}"):
            Path(args.output).mkdir(parents=True, exist_ok=True)
            played_before = count_episodes(args.output)
    console = Console(stderr=args.json)
    played = {task.id for task in list(getattr(env, "tasks", ()))[: args.tasks]}
    for note in seats.training_overlap(assigned, env_id, env, played):
        _say(console, f"note: {note}")
    agents = seats.make_agents(assigned, args.seed, options, played_before)
    settings: dict[str, Any] = {"agents": seats.settings_of(assigned, agents)}
    if not hasattr(env, "settings"):  # another PettingZoo environment does not keep what it was made with
        settings |= {"env": environments.find(env_id).id, "arguments": kwargs}
    try:
        with _progress() as progress, told_in_one_line(only_ours=True):
            evaluation = evaluate(
                instances,
                agents,
                tasks=args.tasks,
                samples=args.samples,
                seed=args.seed,
                batch_size=args.batch_size,
                progress=progress,
                output=args.output,
                settings=settings,
                on_error="raise" if DEBUGGING.get() else "fail",
            )
    except KeyboardInterrupt:
        if args.output is not None:
            kept = f"{count_episodes(args.output)} episodes are in {args.output}; {_go_on(words)}"
            raise KeyboardInterrupt(kept) from None
        raise
    for seat, spec in assigned.items():
        _say(console, f"{seat}: {spec}")
    summary = json.dumps(summarise(evaluation), indent=2) + "\n"
    if args.output is not None:
        (Path(args.output) / SUMMARY).write_text(summary, encoding="ascii")
    if args.json:
        print(summary, end="")
    elif evaluation.episodes:
        console.print(tables.evaluation_table(evaluation, kwargs.get("split")))
    if args.output is not None:
        _say(console, f"episodes: {Path(args.output) / EPISODES}")
    if evaluation.failures:
        _tell_failures(evaluation, _go_on(words) if args.output else _NOT_KEPT)
    return 1 if evaluation.failures else 0


_NOT_KEPT = "with --output DIR, a second call would play only these again"


def _environment(args: Namespace) -> tuple[str, dict[str, Any]]:
    """The environment's id and keyword arguments: those given, over the runs' or the ones of held-out tasks."""
    for name in args["import"] or []:
        import_user_code(name)
    if args.env.id is not None:
        return args.env.id, environments.held_out(environments.find(args.env.id)) | args.env.kwargs
    of_runs = seats.environment_of_runs(args.agent or [])
    if of_runs is None:
        raise CommandError(
            "no environment: give --env ID (see `textmarl envs`), or --agent run:DIR, which has one"
        )
    for name in of_runs.imports:
        import_user_code(name)
    return of_runs.id, {**of_runs.kwargs, **args.env.kwargs}


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, if that is a terminal."""
    log = Console(file=sys.stderr)
    columns = (
        TextColumn("playing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes,"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=log, transient=True, disable=not log.is_terminal) as progress:
        bar = progress.add_task("playing", total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)


def _go_on(words: Sequence[str]) -> str:
    return f"go on with: textmarl eval {shlex.join(words)}"


def _tell_failures(evaluation: Evaluation, remedy: str) -> None:
    """Says on standard error what failed and why, equal errors once."""
    log = Console(file=sys.stderr)
    failed, total = len(evaluation.failures), len(evaluation.failures) + len(evaluation.episodes)
    _say(log, f"{failed} of {total} episodes FAILED, and no score counts them; {remedy}")
    reasons: dict[str, list[Failure]] = {}
    for failure in evaluation.failures:
        reasons.setdefault(failure.error, []).append(failure)
    by_number = sorted(reasons.items(), key=lambda item: -len(item[1]))
    for reason, failures in by_number[:SHOWN_REASONS]:
        agents = ", ".join(sorted({failure.agent for failure in failures}))
        first = f"task {failures[0].task_id}, sample {failures[0].sample}"
        _say(log, f"  {len(failures)} x {agents}: {printable(reason)} (first in {first})")
    if len(reasons) > SHOWN_REASONS:
        _say(log, f"  and {len(reasons) - SHOWN_REASONS} other reasons")
    _say(log, "what an agent's own code raises: --debug stops there and shows the traceback")


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
