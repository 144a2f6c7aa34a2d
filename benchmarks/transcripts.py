"""Episodes as HTML: what each agent was given and what it answered, before and after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from textmarl.agents.evaluation import Episode
from textmarl.benchmarks.comparison import Comparison, showcase, typical_episode
from textmarl.benchmarks.runs import RunRecord, ScoredStep, is_number
from textmarl.benchmarks.wording import number, one_line, printable

# A longer text is cut on the page, not in the files: a response may have megabytes.
SHOWN = 12_000

Turns = Sequence[Mapping[str, Mapping[str, Any]]]


def side_by_side(comparison: Comparison, colours: Mapping[str, str]) -> str:
    """The tasks with the largest, the median and the smallest gain, before and after."""
    gains = comparison.gains
    cards = []
    for word, task in showcase(gains, ("Largest gain", "Median gain", "Smallest gain")):
        first = typical_episode(comparison.before.evaluation, task)
        last = typical_episode(comparison.after.evaluation, task)
        sides = _side(first, comparison.before.step, colours) + _side(last, comparison.after.step, colours)
        title = f"{word}: {escape(one_line(task, 80))}, {number(gains[task], sign=True)} on average"
        means = (comparison.before.evaluation.per_task()[task], comparison.after.evaluation.per_task()[task])
        title += f" ({number(means[0])} to {number(means[1])}); these samples are the nearest to the means"
        cards.append(
            f'<div class="card"><h3>{title}</h3>{_given(first.turns)}<div class="pair">{sides}</div></div>'
        )
    return "\n".join(cards)


def single(scored: ScoredStep, colours: Mapping[str, str]) -> str:
    """The tasks with the highest, the median and the lowest score of one evaluation."""
    cards = []
    for word, task in showcase(
        scored.evaluation.per_task(), ("Highest score", "Median score", "Lowest score")
    ):
        episode = typical_episode(scored.evaluation, task)
        cards.append(
            f'<div class="card"><h3>{word}: {escape(one_line(task, 80))}</h3>{_given(episode.turns)}'
            f'<div class="pair single">{_side(episode, scored.step, colours)}</div></div>'
        )
    return "\n".join(cards)


def training_samples(run: RunRecord, colours: Mapping[str, str], count: int = 2) -> str:
    """The newest transcripts of training episodes; empty where there are none."""
    cards = []
    for sample in reversed(run.samples[-count:]):
        turns, score = sample.get("turns"), sample.get("score")
        if not isinstance(turns, list):
            continue
        title = f"Step {escape(one_line(str(sample.get('step')), 20))}: {escape(one_line(str(sample.get('task_id')), 80))}"
        shown = f", score {number(score)}" if is_number(score) else ""
        cards.append(
            f'<div class="card"><h3>{title}{shown}</h3>{_given(turns)}{_replies(turns, colours)}</div>'
        )
    return "\n".join(cards)


def _readable(turns: Sequence[object]) -> Turns:
    """The turns, without what is no `{agent: {...}}` in them: a file may hold anything."""
    mappings = [turn if isinstance(turn, Mapping) else {} for turn in turns]  # turns keep their numbers
    return [{agent: said for agent, said in turn.items() if isinstance(said, Mapping)} for turn in mappings]


def _side(episode: Episode, step: int, colours: Mapping[str, str]) -> str:
    when = "before training" if step == 0 else f"after {step} steps"
    terms = ", ".join(
        f"{escape(one_line(name, 40))} {number(value)}" for name, value in episode.reward_terms.items()
    )
    return (
        f'<div class="side"><div class="when"><b>{number(episode.score)}</b> {when}<br>{terms}</div>'
        f"{_replies(episode.turns, colours)}</div>"
    )


def _given(turns: Turns) -> str:
    """What every agent saw first, folded away; where agents take turns, some see it in a later one."""
    first: dict[str, object] = {}
    for turn in _readable(turns):
        for agent, said in turn.items():
            first.setdefault(agent, said.get("observation", ""))
    parts = [f"<div><b>{escape(one_line(agent, 40))}</b></div>{_text(text)}" for agent, text in first.items()]
    return (
        f"<details><summary>What the agents were given</summary>{''.join(parts)}</details>" if parts else ""
    )


def _replies(turns: Turns, colours: Mapping[str, str]) -> str:
    parts = []
    for index, turn in enumerate(_readable(turns)):
        for agent, said in turn.items():
            facts = [f"turn {index + 1}"] if len(turns) > 1 else []
            if is_number(said.get("tokens")) and said["tokens"]:
                facts.append(f"{said['tokens']} tokens")
            if said.get("finish") == "length":
                facts.append("cut at the limit")
            colour = colours.get(agent, "var(--grid)")
            parts.append(
                f'<div class="reply" style="--role:{colour}"><div class="who"><b>{escape(one_line(agent, 40))}</b> '
                f"{', '.join(facts)}</div>{_text(said.get('response', ''))}</div>"
            )
    return "".join(parts)


def _text(text: object) -> str:
    shown = printable(str(text)[:SHOWN])
    if not shown:
        return '<div class="text empty">(empty)</div>'
    rest = len(str(text)) - SHOWN
    more = f'<div class="note">… {rest:,} more characters in the run\'s files</div>' if rest > 0 else ""
    return f'<div class="text" dir="auto">{escape(shown)}</div>{more}'
