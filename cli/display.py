"""What a training run shows: a live bar on a terminal, a plain line now and then anywhere else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from textmarl.agents import Evaluation
from textmarl.algos import Observer
from textmarl.benchmarks.comparison import in_all
from textmarl.cli.transcript import show_transcript

PLAIN_LINES = 20  # about as many step lines a run prints where there is no terminal
BAR = 84  # columns of the bar without what is measured beside the score
PLAIN_SECONDS = 60.0  # but a sign of life at least this often


class TrainingDisplay(Observer):
    """Shows a run on a console and keeps its lines in log.txt.

    Args:
        console: where to show it; without a terminal there are no control codes and few lines.
        log: the file that gets every line, also those too frequent for a plain console.
        transcripts: steps between sample transcripts; 0 shows none.
        evaluated: what an evaluation is made on ("32 held-out tasks").
    """

    keeps_log = True

    def __init__(
        self, console: Console, log: Path, transcripts: int = 0, evaluated: str = "held-out tasks"
    ) -> None:
        self.console = console
        self.evaluated = evaluated
        self.log = log
        self.transcripts = transcripts
        self.begun = False
        self.steps_done = 0
        self._recent_seconds: deque[float] = deque(maxlen=10)
        self._last_line = time.monotonic()
        self._progress = Progress(
            TextColumn("step {task.completed}/{task.fields[steps]}"),
            BarColumn(bar_width=16),
            *(TextColumn(f"{{task.fields[{name}]}}") for name in ("score", "speed", "phase", "left")),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task(
            "", total=None, steps="?", score="", speed="", phase="starting", left=""
        )

    def __enter__(self) -> TrainingDisplay:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def expect(self, steps: int) -> None:
        """Says how many steps the run has, for the bar before its first step."""
        self._progress.update(self._bar, total=steps, steps=str(steps))

    def phase(self, name: str, done: int, total: int) -> None:
        """Shows what is being done inside a step; without a bar, says when an evaluation begins."""
        self.begun = True
        self._progress.update(self._bar, phase=f"{name} {done}/{total}")
        if name == "evaluation" and done == 0:  # it takes minutes on a CPU
            team = f"the team after step {self.steps_done}" if self.steps_done else "the untrained team"
            line = f"evaluating {team} on {self.evaluated}, {total} episodes ..."
            self._line(line, show=not self.console.is_terminal)

    def step(self, step: int, total: int, metrics: dict[str, float]) -> None:
        """Moves the bar, or prints a line if it is time for one."""
        self.begun = True
        self.steps_done = step
        self._recent_seconds.append(metrics["seconds/step"])
        left = duration((total - step) * sum(self._recent_seconds) / len(self._recent_seconds))
        if "score_percent" in metrics:
            score = f"{metrics['score_percent']:.1f} %"
        else:
            score = f"score {metrics['score']:.3f}"
        beside = _named(
            {
                name.removeprefix("metrics/"): value
                for name, value in metrics.items()
                if name.startswith("metrics/")
            }
        )
        speed = f"{metrics['rate/tokens_per_second']:.0f} tokens/s"
        self._progress.update(
            self._bar,
            completed=step,
            total=total,
            steps=str(total),
            score=f"{score}  {beside}".rstrip() if self.console.width >= BAR + len(beside) else score,
            speed=speed,
            left=f"{left} left",
        )
        line = f"step {step}/{total}  {score}  {beside}{'  ' if beside else ''}{speed}  {metrics['seconds/step']:.1f} s  {left} left"
        due = step % max(1, total // PLAIN_LINES) == 0 or step in (1, total)
        late = time.monotonic() - self._last_line > PLAIN_SECONDS
        self._line(line, show=not self.console.is_terminal and (due or late))

    def sample(self, step: int, transcript: dict[str, Any]) -> None:
        """Shows a transcript every `transcripts` steps, and that of the first step."""
        if self.transcripts and (step == 1 or step % self.transcripts == 0):
            show_transcript(self.console, f"step {step}", transcript)

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Prints the score of an evaluation, and what was measured beside it."""
        self.begun = True
        of_maximum = f"{evaluation.percent:.1f} % of the maximum, " if evaluation.max_score else ""
        when = f"after step {step}" if step else "before training"
        episodes = len(evaluation.episodes)
        means = {
            name: fmean(evaluation.per_task(name).values())
            for name in in_all([episode.metrics for episode in evaluation.episodes])
        }
        beside = f"; beside it {_named(means)}" if means else ""
        self._line(
            f"evaluation {when}: {of_maximum}score {evaluation.score:.3f} ({episodes} episodes){beside}"
        )

    def message(self, text: str) -> None:
        """Prints a message of the trainer."""
        self._line(text)

    def _line(self, text: str, show: bool = True) -> None:
        if show:
            self._last_line = time.monotonic()
            self.console.print(text, markup=False, highlight=False, soft_wrap=not self.console.is_terminal)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")


def _named(metrics: Mapping[str, float]) -> str:
    """The metrics beside the score: `v0_score 1.204  pass_rate 0.500`."""
    return "  ".join(f"{name} {value:.3f}" for name, value in metrics.items())


def duration(seconds: float) -> str:
    """`m:ss`, or `h:mm:ss` from an hour on."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
