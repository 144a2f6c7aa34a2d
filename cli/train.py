"""`textmarl train`: train a team in an environment."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from textmarl.cli import environments, seats
from textmarl.cli.errors import CommandError, told_in_one_line

if TYPE_CHECKING:
    from textmarl.cli.settings import Settings


def run(words: Sequence[str]) -> int:
    """Runs `textmarl train` with the words after it; returns the exit code (130: interrupted, can be resumed)."""
    with told_in_one_line():  # without torch: which extra to install
        from textmarl.cli.settings import as_yaml, read_settings
    settings = read_settings(words)
    console = Console()
    console.print(as_yaml(settings.resolved, console.width), markup=False, highlight=False, soft_wrap=True)
    console.print()
    if not settings.held_out:
        _say(console, f"note: evaluation tasks are also training tasks{_remedy(settings)}")
    return _train(settings, console)


def _remedy(settings: Settings) -> str:
    """What would give held-out tasks, as the end of a sentence."""
    if len(getattr(settings.env, "tasks", ())) == 1:
        known = environments.keywords(environments.find(settings.resolved["env"]["id"])) or {}
        varied = "; --env.kwargs.words varied has others in each split" if "words" in known else ""
        return f": this environment has one task, for training and for evaluation{varied}"
    return "; set env.eval_kwargs to evaluate on held-out ones"


def _train(settings: Settings, console: Console) -> int:
    from textmarl.agents import Team
    from textmarl.agents.connection import ServerError
    from textmarl.agents.partner import PartnerFailed
    from textmarl.algos import Trainer
    from textmarl.cli.display import TrainingDisplay

    options = seats.ModelOptions.of_training(settings.resolved)
    partners = seats.make_agents(settings.team.partners, settings.trainer.seed, options)
    with told_in_one_line(f"team.model {settings.team.model}"), console.status("loading the models"):
        team = Team.create(list(settings.env.possible_agents), settings.team, partners)
    with told_in_one_line(f"--run {settings.run}"):
        settings.run.mkdir(parents=True, exist_ok=True)
    display = TrainingDisplay(console, settings.run / "log.txt", settings.transcripts, _evaluated(settings))
    with told_in_one_line():
        trainer = Trainer(
            settings.instances,
            team,
            settings.algorithm,
            settings.trainer,
            sampling=settings.sampling,
            eval_env=settings.eval_instances,
            run=settings.run,
            observer=display,
            resolved=settings.resolved,
        )
    display.expect(settings.trainer.steps)
    try:
        with display:
            complete = trainer.train(resume=settings.resume)
    except ServerError as error:
        command = f"textmarl train --resume {shlex.quote(str(settings.run))}"
        raise CommandError(
            f"{error}. The run is saved after step {trainer.step}; continue it with\n  {command}"
        ) from error
    except PartnerFailed as error:
        go_on = f"textmarl train --resume {shlex.quote(str(settings.run))}"
        raise CommandError(f"{error}: {go_on}") from error
    except ValueError as error:
        if display.begun:  # not a mistake in the call: the traceback is wanted
            raise
        raise CommandError(str(error)) from error
    if not complete:
        command = f"textmarl train --resume {shlex.quote(str(settings.run))}"
        _say(
            console,
            f"Interrupted after step {trainer.step} of {settings.trainer.steps}. Continue with\n  {command}",
        )
    try:
        _conclude(settings, complete, console)
    except CommandError as error:
        if complete:
            raise
        _say(console, str(error))  # what counts is that the run was interrupted
    return 0 if complete else 130


def _evaluated(settings: Settings) -> str:
    """What an evaluation is made on: `32 held-out tasks`."""
    kind = "held-out" if settings.held_out else "training"
    tasks = getattr(settings.eval_env, "tasks", None)
    if tasks is None:  # an environment without tasks plays as many episodes
        return f"{kind} episodes"
    count = min(settings.trainer.eval_tasks, len(tasks))
    return f"{count} {kind} task{'s' if count != 1 else ''}"


def _conclude(settings: Settings, complete: bool, console: Console) -> None:
    """Writes the report; of a complete run shows untrained against trained. Says where everything lies.

    Raises:
        CommandError: a part of it failed, which takes nothing from the run.
    """
    from textmarl.benchmarks.report import write_report

    failures: list[BaseException] = []
    report: Path | None = None
    try:
        with console.status("writing the report"):
            report = write_report(settings.run)
    except (Exception, KeyboardInterrupt) as error:  # whatever it is, hours of training are not to end in it
        failures.append(error)
    if complete:
        try:
            _show_change(settings, console)
        except (Exception, KeyboardInterrupt) as error:
            failures.append(error)
    if report is not None:
        _say(console, f"report:   {report}")
    _say(console, f"run:      {settings.run}")
    if failures:
        state = "the run is complete" if complete else "the run is saved"
        command = f"textmarl report {shlex.quote(str(settings.run))}"
        reason = " ".join(str(failures[0]).split()) or "no message"
        raise CommandError(
            f"{state}; `{command}` writes the report (what failed: {type(failures[0]).__name__}: {reason})"
        ) from failures[0]


def _show_change(settings: Settings, console: Console) -> None:
    """Untrained against trained."""
    from textmarl.benchmarks.runs import load_run
    from textmarl.cli.tables import change_table

    evaluations = [scored.evaluation for scored in load_run(settings.run).evaluations]
    if len(evaluations) > 1:
        console.print()
        console.print(change_table(evaluations[0], evaluations[-1], settings.held_out))


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
