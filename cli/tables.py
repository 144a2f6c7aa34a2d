"""Scores as tables, with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from rich.table import Table

from textmarl.agents import Evaluation
from textmarl.benchmarks.comparison import in_all
from textmarl.benchmarks.statistics import (
    Interval,
    paired_change,
)
from textmarl.benchmarks.summary import intervals_of
from textmarl.benchmarks.wording import references


def evaluation_table(evaluation: Evaluation, split: str | None = None) -> Table:
    """The means of one evaluation's score, terms and metrics, and its pass@k, with 95 % intervals.

    Args:
        evaluation: of any agents, with at least one episode.
        split: the tasks' split, for the title; None where the environment has none.
    """
    of_split = f", split {split}" if split is not None else ""
    table = _table(
        f"{evaluation.env_name}{of_split}: {_count(evaluation)}", "", "mean", "95 % interval", "% of maximum"
    )
    named = intervals_of(evaluation)
    score = named["score"]["score"]
    percent = f"{evaluation.percent:.1f}" if evaluation.max_score else ""
    table.add_row("score", _value(score.estimate), _bounds(score), percent)
    for name, interval in (named["terms"] if len(named["terms"]) > 1 else {}).items():
        table.add_row(f"  {name}", _value(interval.estimate), _bounds(interval), "")
    beside = {**named["metrics"], **named["pass@k"]}
    _begin_beside(table, bool(beside))
    for name, interval in beside.items():
        table.add_row(f"  {name}", _value(interval.estimate), _bounds(interval), "")
    intervals = [score, *named["terms"].values(), *beside.values()]
    lines = (_about(intervals), _references(evaluation), _answers(evaluation))
    table.caption = "\n".join(line for line in lines if line)
    return table


def _answers(evaluation: Evaluation) -> str | None:
    """How long the answers are and how they ended, without the agents that have no tokens; None where none has any."""
    turns = [turn for episode in evaluation.episodes for turn in episode.turns]
    with_tokens = {agent for turn in turns for agent, answer in turn.items() if answer["tokens"]}
    answers = [answer for turn in turns for agent, answer in turn.items() if agent in with_tokens]
    if not answers:
        return None
    tokens = [answer["tokens"] for answer in answers]
    cut = sum(answer["finish"] == "length" for answer in answers) / len(answers)
    others = {agent for turn in turns for agent in turn} - with_tokens
    whose = f" of {', '.join(sorted(with_tokens))}" if others else ""
    lines = [
        f"mean response{whose} {sum(tokens) / len(tokens):.1f} tokens, {100 * cut:.0f} % cut at the limit"
    ]
    if any("prompt_tokens" in answer for answer in answers):
        prompts = sum(answer.get("prompt_tokens", 0) for answer in answers)
        estimated = sum("tokens_estimated" in answer for answer in answers)
        note = f"; {estimated} of {len(answers)} answers counted in words" if estimated else ""
        lines.append(f"in all {prompts:,} tokens read and {sum(tokens):,} written{note}")
    odd = Counter(answer["finish"] for answer in answers if answer["finish"] not in ("stop", "length"))
    if odd:
        lines.append("ended by " + ", ".join(f"{reason}: {count}" for reason, count in odd.items()))
    return "\n".join(lines)


def change_table(before: Evaluation, after: Evaluation, held_out: bool = True) -> Table:
    """Untrained against trained on the same tasks, with 95 % intervals of the paired change.

    The score and its terms come first; what the environment measures beside the score, apart from them.

    Args:
        before: of the untrained team.
        after: of the trained team.
        held_out: whether the tasks are none of those trained on; the title says so.
    """
    kind = "held-out" if held_out else "training"
    table = _table(
        f"{after.env_name}: {_count(after, kind)}",
        "",
        "untrained",
        "trained",
        "change",
        "95 % interval",
    )
    if after.max_score:
        change = paired_change(before.samples(), after.samples()).scaled(100 / after.max_score)
        table.add_row(
            "score, % of maximum",
            f"{before.percent:.1f}",
            f"{after.percent:.1f}",
            _value(change.estimate, 1, sign=True),
            _bounds(change, digits=1, sign=True),
        )
    intervals: list[Interval] = []
    metrics = in_all([episode.metrics for episode in before.episodes + after.episodes])
    for term in [None, *(after.terms if len(after.terms) > 1 else ()), *metrics]:
        if metrics and term == metrics[0]:
            _begin_beside(table)
        first, last = before.per_task(term), after.per_task(term)
        intervals.append(change := paired_change(before.samples(term), after.samples(term)))
        table.add_row(
            _label(term),
            _value(fmean(first.values())),
            _value(fmean(last.values())),
            _value(change.estimate, sign=True),
            _bounds(change, sign=True),
        )
    about = _about(intervals) or "intervals of the change: t, over the differences of tasks"
    table.caption = "\n".join(line for line in (about, _references(after)) if line)
    return table


def _about(intervals: Sequence[Interval]) -> str:
    """What intervals are about that are not over tasks."""
    notes = dict.fromkeys(own.note for own in intervals if own.note and math.isfinite(own.low))
    return "\n".join(f"intervals {note}" for note in notes)


def _references(evaluation: Evaluation) -> str:
    return references(evaluation).replace("−", "-")  # as the numbers of the table


def _begin_beside(table: Table, any_follow: bool = True) -> None:
    """A line and a heading, where there are numbers that are no part of the score."""
    if any_follow:
        table.add_section()
        table.add_row("beside the score")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _label(term: str | None) -> str:
    return "score" if term is None else f"  {term}"


def _count(evaluation: Evaluation, kind: str = "") -> str:
    tasks = len(evaluation.per_task())
    samples = len(evaluation.episodes) // tasks if tasks else 0
    of_each = f", {samples} samples of each" if samples > 1 else ""
    if evaluation.failures:
        of_each = f", {len(evaluation.episodes)} episodes, {len(evaluation.failures)} FAILED"
    return " ".join(f"{tasks} {kind} task{'s' if tasks != 1 else ''}{of_each}".split())


def _bounds(interval: Interval, digits: int = 3, sign: bool = False) -> str:
    if math.isnan(interval.low):
        return interval.note
    return f"{_value(interval.low, digits, sign)} to {_value(interval.high, digits, sign)}"


def _value(number: float, digits: int = 3, sign: bool = False) -> str:
    text = f"{number:{'+' if sign else ''}.{digits}f}"
    return text if float(text) else text.lstrip("+-")  # no -0.000
