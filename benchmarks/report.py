"""The report of a run: one page and one picture that show what training changed, and what it cost.

    from textmarl.benchmarks.report import write_report
    write_report("runs/tldr-magrpo-1")        # -> runs/tldr-magrpo-1/report.html, and report.png beside it

The page needs nothing but itself: styles and figures are inside, no script, no network. It can be written at any time, also
while the run goes on. Changes are between the first and the last held-out evaluation; their 95 % t intervals are over
the differences of the held-out tasks (`textmarl.benchmarks.statistics.paired_change`). Needs matplotlib: `pip install matplotlib`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from textmarl.benchmarks import figures, transcripts
from textmarl.benchmarks.comparison import Change, Comparison, compare, mean_score
from textmarl.benchmarks.runs import CONFIG, RunRecord, is_number, load_run
from textmarl.benchmarks.statistics import Interval
from textmarl.benchmarks.wording import bounds, duration, number, one_line, printable, references

PAGE, PICTURE = "report.html", "report.png"
BESIDE = 3  # metrics beside the score in a headline; all are in their table


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` and `report.png` into the run's folder; return the page's path.

    Raises:
        FileNotFoundError: if there is no such folder
        ValueError: if it holds no run, or its configuration cannot be read
    """
    run = load_run(run_dir)
    comparison = compare(run)
    page, picture = run.folder / PAGE, run.folder / PICTURE
    # Written aside and moved, so that a reader never meets half a file.
    aside = run.folder / f".{PICTURE}"
    lines = [_headline(run, comparison)]
    if comparison is not None and comparison.metrics:
        lines.append(_beside(comparison.metrics))
    if run.evaluations and (known := references(run.evaluations[-1].evaluation)):
        lines.append(known)
    figures.write_picture(run, comparison, _title(run), lines, aside)
    os.replace(aside, picture)
    aside = run.folder / f".{PAGE}"
    aside.write_text(_page(run, comparison), encoding="utf-8")
    os.replace(aside, page)
    return page


def render_page(run_dir: str | Path) -> str:
    """The HTML of the report, without writing anything; raises as `write_report` does."""
    run = load_run(run_dir)
    return _page(run, compare(run))


def _page(run: RunRecord, comparison: Comparison | None) -> str:
    style = resources.files("textmarl.benchmarks").joinpath("report.css").read_text(encoding="utf-8")
    sections = [
        _header(run),
        _summary(run, comparison),
        _learning_curve(run),
        _terms(run, comparison),
        _metrics(run, comparison),
        _tasks(run, comparison),
        _transcripts(run, comparison),
        _diagnostics(run),
        _cost(run),
        _settings(run),
        f"<footer>textmarl {escape(one_line(str(run.environment.get('textmarl', '')), 40))}</footer>",
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(_title(run))}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body>\n</html>\n"
    )


def _title(run: RunRecord) -> str:
    """`textmarl/TLDR-v0 with MAGRPO`, from what is known."""
    evaluated = run.evaluations[0].evaluation.env_name if run.evaluations else "a run"
    environment = one_line(str(run.setting("env", "id") or run.setting("env", "name") or evaluated), 60)
    algorithm = run.setting("algo", "name")
    if not algorithm:
        return environment
    name = one_line(re.split(r"[/:\\]", str(algorithm))[-1], 60)  # of path/to/file.py:Class, the class
    return f"{environment} with {name.upper() if name.isalnum() and name.islower() else name}"


def _headline(run: RunRecord, comparison: Comparison | None) -> str:
    """One sentence: from where to where, and how sure."""
    if comparison is not None:
        unit, factor = _unit(run)
        score = comparison.score
        change = score.change.scaled(factor)
        return (
            f"{comparison.before.kind} score {number(factor * score.before, 1)} to {number(factor * score.after, 1)}{unit}  ·  "
            f"change {number(change.estimate, 1, sign=True)}{_sure(change)}  ·  {_counts(comparison)}"
        )
    if run.evaluations:
        unit, factor = _unit(run)
        scored = run.evaluations[-1]
        interval = mean_score(scored.evaluation).scaled(factor)
        return (
            f"{scored.kind} score {number(interval.estimate, 1)}{unit} {_when(scored.step)}{_sure(interval)}"
        )
    return "no evaluation yet"


def _header(run: RunRecord) -> str:
    done, planned = run.steps_done, run.steps_planned
    if planned is None:
        badge = f"{done} steps"
    else:
        badge = f"finished, {done} steps" if done >= planned else f"step {done} of {planned}"
    model = run.setting("team", "model")
    facts = {
        "model": ", ".join(map(str, model)) if isinstance(model, list) else model,
        "tuning": run.setting("team", "tuning"),
        "agents": ", ".join(run.agents),
        "seed": run.setting("trainer", "seed"),
        "run": run.folder.resolve().name,
    }
    shown = "".join(
        f"<span>{name} <b>{escape(one_line(str(value), 80))}</b></span>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    return f'<h1>{escape(_title(run))}<span class="badge">{badge}</span></h1><p class="facts">{shown}</p>'


def _summary(run: RunRecord, comparison: Comparison | None) -> str:
    unit, factor = _unit(run)
    small = "<small> %</small>" if unit else ""
    notes = [
        f"{count} line{'s' * (count > 1)} of {escape(name)} could not be read and {'are' if count > 1 else 'is'} left out."
        for name, count in run.unreadable.items()
    ]
    if comparison is None:
        if not run.evaluations:
            sub = "No evaluation yet." + (" The curve below is the training score." if run.metrics else "")
            return f'<div class="card headline"><div class="change">In training</div>{_sub(sub, notes)}</div>'
        scored = run.evaluations[-1]
        interval = mean_score(scored.evaluation).scaled(factor)
        tasks = len(scored.evaluation.per_task())
        sub = f"{scored.kind.capitalize()} score {_when(scored.step)}{_of_maximum(unit)}, {tasks} task{'s' * (tasks > 1)}."
        if len(run.evaluations) > 1:
            notes.append(
                "The first and the last evaluation have no task in common, so there is no comparison."
            )
        else:
            sub += " There is no second evaluation yet to compare with."
        if known := references(scored.evaluation):
            sub += f"<br>{escape(known)}"
        big = f'<div class="scores">{number(interval.estimate, 1)}{small}</div>'
        return f'<div class="card headline">{big}<div><div class="change">{bounds(interval, 1)}</div>{_sub(sub, notes)}</div></div>'
    score = comparison.score
    change = score.change.scaled(factor)
    scores = (
        f'<span class="from">{number(factor * score.before, 1)}</span><span class="arrow">→</span>'
        f"{number(factor * score.after, 1)}{small}"
    )
    interval_text = bounds(change, 1, sign=True)
    verdict = f"{number(change.estimate, 1, sign=True)} {'points ' if unit else ''}{interval_text}"
    kind = comparison.before.kind.capitalize()
    sub = f"{kind} score {_when(comparison.before.step)} and {_when(comparison.after.step)}{_of_maximum(unit)}, {_counts(comparison)}."
    if interval_text:
        over = f" {change.note}" if change.note else ""
        sub += f" In brackets the 95 % interval of the paired change{over}"
        sub += (
            ": how it carries over to other tasks, not to other seeds."
            if comparison.before.held_out and not over
            else "."
        )
        if not change.excludes(0.0):
            notes.insert(0, "The interval contains 0: this run does not show a change.")
    else:
        sub += f" No interval: {change.note}."
    if comparison.metrics:
        sub += f"<br>{escape(_beside(comparison.metrics))}"
    if known := references(comparison.after.evaluation):
        sub += f"<br>{escape(known)}"
    all_tasks = set(comparison.before.evaluation.per_task()) | set(comparison.after.evaluation.per_task())
    if len(all_tasks) > len(comparison.tasks):
        notes.append(f"Only the {len(comparison.tasks)} tasks that both evaluations played are compared.")
    return (
        f'<div class="card headline"><div class="scores">{scores}</div>'
        f'<div><div class="change">{verdict}</div>{_sub(sub, notes)}</div></div>'
    )


def _learning_curve(run: RunRecord) -> str:
    if not run.metrics and not run.evaluations:
        return ""
    svg = figures.to_svg(
        lambda figure: figures.draw_learning_curve(figure.subplots(), run), 9.6, 3.9, "Learning curve"
    )
    caption = (
        "Each dot is the mean score of the joint actions of one training step, on that step's tasks; the line is their "
        "trailing mean. Diamonds are evaluations, with 95 % intervals."
    )
    if run.evaluations and run.evaluations[-1].evaluation.reference_scores:
        caption += " Dashed lines are what known ways of playing score on the evaluated tasks."
    return f"<h2>Learning curve</h2>{_figure(svg, caption)}"


def _terms(run: RunRecord, comparison: Comparison | None) -> str:
    parts = []
    if comparison is not None and comparison.terms:
        top = max(abs(value) for item in comparison.terms for value in (item.before, item.after)) or 1.0
        rows = "".join(_term_row(item, top) for item in comparison.terms)
        parts.append(_table("term", rows + _term_row(comparison.score, None, total=True), comparison))
    if run.names("terms"):
        svg = figures.to_svg(
            lambda figure: figures.draw_terms(figure.subplots(), run), 9.6, 3.2, "Reward terms"
        )
        parts.append(_figure(svg, "Trailing means over training steps. The terms add up to the score."))
    return f"<h2>What the score is made of</h2>{''.join(parts)}" if parts else ""


def _metrics(run: RunRecord, comparison: Comparison | None) -> str:
    """The numbers beside the score, apart from its terms: each has a scale of its own, and no sum."""
    parts = []
    if comparison is not None and comparison.metrics:
        rows = "".join(_term_row(item, None) for item in comparison.metrics)
        parts.append(_table("metric", rows, comparison))
    if run.names("metrics"):
        svg = figures.to_svg(
            lambda figure: figures.draw_metrics(figure.subplots(), run), 9.6, 2.8, "Metrics beside the score"
        )
        parts.append(_figure(svg, "Trailing means over training steps."))
    intro = (
        '<p class="note">Measured on the same texts and no part of the score: the team was not trained on '
        "these numbers, and each is in its own unit.</p>"
    )
    return f"<h2>Beside the score</h2>{intro}{''.join(parts)}" if parts else ""


def _beside(metrics: Sequence[Change]) -> str:
    """The metrics beside the score in a line: each from where to where; how sure, if there are few of them."""
    parts = []
    for item in metrics[:BESIDE]:
        interval = bounds(item.change, sign=True) if len(metrics) < BESIDE else ""
        gain = f"{number(item.change.estimate, sign=True)} {interval}".rstrip()
        parts.append(f"{one_line(item.name, 16)} {number(item.before)} to {number(item.after)} ({gain})")
    if len(metrics) > BESIDE:
        parts.append(f"{len(metrics) - BESIDE} more")
    return f"beside the score: {'  ·  '.join(parts)}"


def _table(what: str, rows: str, comparison: Comparison) -> str:
    """A table of changes between the two evaluations."""
    bar = '<th class="bar">before, <b>after</b></th>' if what == "term" else '<th class="bar"></th>'
    return (
        f'<div class="card scroll"><table><tr><th>{what}</th><th>{_when(comparison.before.step)}</th>'
        f"<th>{_when(comparison.after.step)}</th><th>change</th><th>95 % interval</th>{bar}</tr>{rows}</table></div>"
    )


def _term_row(item: Change, top: float | None, total: bool = False) -> str:
    unsure = "" if item.change.excludes(0.0) else ' class="unsure"'
    row, bar = '<tr class="total">' if total else "<tr>", ""
    if top is not None:
        before, after = (100 * min(1.0, max(0.0, value / top)) for value in (item.before, item.after))
        bar = (
            f'<div class="track"><i class="b" style="width:{before:.1f}%"></i>'
            f'<i class="a" style="width:{after:.1f}%"></i></div>'
        )
    return (
        f"{row}<td>{escape(one_line(item.name, 60))}</td>"
        f"<td>{number(item.before)}</td><td>{number(item.after)}</td>"
        f"<td><span{unsure}>{number(item.change.estimate, sign=True)}</span></td>"
        f'<td><span{unsure}>{bounds(item.change, sign=True) or "unknown"}</span></td><td class="bar">{bar}</td></tr>'
    )


def _tasks(run: RunRecord, comparison: Comparison | None) -> str:
    if comparison is None or len(comparison.tasks) < 2:
        return ""
    svg = figures.to_svg(
        lambda figure: figures.draw_task_gains(figure.subplots(), run, comparison),
        9.6,
        2.8,
        "Change of each task",
    )
    return f"<h2>Every {comparison.before.kind} task</h2>{_figure(svg, 'The change in the mean score of each task, over its samples.')}"


def _transcripts(run: RunRecord, comparison: Comparison | None) -> str:
    colours = {agent: figures.PALETTE[index % len(figures.PALETTE)] for index, agent in enumerate(run.agents)}
    if comparison is not None:
        intro = (
            f'<p class="note">{comparison.before.kind.capitalize()} tasks, chosen by their change and not by how they read. Of the samples of a task, the '
            "one whose score is nearest to the task's mean is shown.</p>"
        )
        return f"<h2>Before and after</h2>{intro}{transcripts.side_by_side(comparison, colours)}"
    parts = []
    if run.evaluations:
        parts.append(
            f"<h2>{run.evaluations[-1].kind.capitalize()} transcripts</h2>{transcripts.single(run.evaluations[-1], colours)}"
        )
    newest = transcripts.training_samples(run, colours)
    if newest:
        parts.append(f"<h2>Newest training samples</h2>{newest}")
    return "".join(parts)


def _diagnostics(run: RunRecord) -> str:
    panels = figures.present_diagnostics(run)
    if not panels:
        return ""
    height = 2.3 * -(-len(panels) // 3)
    svg = figures.to_svg(lambda figure: figures.draw_diagnostics(figure, run), 9.6, height, "Diagnostics")
    caption = (
        "Entropy that falls to nothing, lengths that run into the limit, many groups without signal (all credits equal) or "
        "a KL that runs away are the usual signs of a failing run."
    )
    return f"<h2>Diagnostics</h2>{_figure(svg, caption)}"


def _cost(run: RunRecord) -> str:
    tiles: dict[str, str] = {}
    for key, name in (
        ("total/reward_evaluations", "reward evaluations"),
        ("total/generated_tokens", "generated tokens"),
    ):
        values = run.series(key)[1]
        if len(values):
            tiles[f"{name} in training"] = number(values[-1], 0)
    for key, name in (
        ("step", "training"),
        ("generation", "of it in generation"),
        ("update", "of it in updates"),
    ):
        values = run.series(f"seconds/{key}")[1]
        if len(values):
            tiles[name] = duration(values.sum())
    evaluation = [
        scored.seconds
        for scored in run.evaluations
        if scored.seconds is not None and is_number(scored.seconds)
    ]
    if evaluation:
        tiles[f"{len(evaluation)} evaluation{'s' * (len(evaluation) > 1)}"] = duration(sum(evaluation))
    rates = run.series("rate/tokens_per_second")[1]
    if len(rates):
        tiles["tokens a second, median step"] = number(float(np.median(rates)), 0)
    memory = run.series("memory/peak_gib")[1]
    if len(memory):
        tiles["GiB of memory at most"] = number(memory.max(), 1)
    shown = "".join(
        f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles.items()
    )
    return f'<h2>What it cost</h2><div class="tiles">{shown}</div>' if tiles else ""


def _settings(run: RunRecord) -> str:
    parts = []
    if (run.folder / CONFIG).is_file():
        # A run from Python may be of an environment or an algorithm that no other process can name.
        again = run.setting("env", "id") and not str(run.setting("algo", "name")).startswith("__main__:")
        if again:
            command = f"textmarl train --config {CONFIG} --run runs/again"
            parts.append(
                "<h2>How to reproduce it</h2>"
                f"<p>From this folder, with the versions below and as many threads:</p><pre>{command}</pre>"
            )
        parts.append(
            f"{'' if again else '<h2>Settings</h2>'}<details open><summary>{CONFIG}</summary>"
            f"<pre>{escape(_yaml(run.config))}</pre></details>"
        )
    if run.environment:
        rows = "".join(
            f"<tr><td>{escape(one_line(name, 80))}</td><td>{escape(one_line(value, 300))}</td></tr>"
            for name, value in _flat(run.environment)
        )
        parts.append(
            f'<h2>Versions and machine</h2><div class="card"><table class="plain">{rows}</table></div>'
        )
    return "".join(parts)


def _figure(svg: str, caption: str) -> str:
    return f'<figure class="card"><div class="scroll">{svg}</div><figcaption>{caption}</figcaption></figure>'


def _sub(text: str, notes: Iterable[str]) -> str:
    shown = "".join(f'<div class="sub warning">{note}</div>' for note in notes)
    return f'<div class="sub">{text}</div>{shown}'


def _unit(run: RunRecord) -> tuple[str, float]:
    """The unit that scores are shown in and what they are multiplied with: percent where the maximum is known."""
    return (" %", 100 / run.max_score) if run.max_score else ("", 1.0)


def _of_maximum(unit: str) -> str:
    return " in percent of the maximum" if unit else ""


def _sure(interval: Interval) -> str:
    text = bounds(interval, 1)
    note = f" {interval.note}" if interval.note else ""
    return f" (95 % interval{note} {text})" if text else ""


def _when(step: int) -> str:
    return "before training" if step == 0 else f"after {step} steps"


def _counts(comparison: Comparison) -> str:
    tasks = len(comparison.tasks)
    samples = {
        len(scored.evaluation.episodes) / len(scored.evaluation.per_task())
        for scored in (comparison.before, comparison.after)
    }
    text = f"{tasks} {comparison.before.kind} task{'s' * (tasks > 1)}"
    (each, *others) = samples
    return f"{text}, {number(each, 0)} samples each" if not others and each > 1 else text


def _yaml(config: dict[str, Any]) -> str:
    return printable(yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100))


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        rows.extend(_flat(value, f"{name}.") if isinstance(value, dict) else [(name, str(value))])
    return rows
