"""What playing an episode leaves: texts, score and terms; and the averages over many of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any


@dataclass
class Episode:
    """One played episode."""

    task_id: str
    """The task's id; `episode-0`, `episode-1`, ... in an environment without tasks."""
    sample: int
    """Which of the samples of this task, from 0."""
    score: float
    """The unshifted score of the last turn; in an environment that reports no `score`, the sum over the turns of
    the mean reward of its agents."""
    reward_terms: dict[str, float]
    """The named parts that add up to the score; empty where the environment names none."""
    individual_reward: dict[str, float] | None
    """Each agent's own part of the reward, where the environment defines one."""
    turns: list[dict[str, dict[str, Any]]]
    """Per turn and agent that was asked: `observation`, `response` (texts), `tokens` (sampled tokens; 0 for an agent
    without tokens) and `finish` (`"stop"`, or `"length"` if cut at the token limit). Of agents that report a usage also
    `prompt_tokens`, and `tokens_estimated` (True) where both numbers are counts of words."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The numbers beside the score that the environment reported at the last turn."""


@dataclass
class Failure:
    """An episode that could not be played to its end, because an agent gave no answer. It has no score."""

    task_id: str
    """The task's id."""
    sample: int
    """Which of the samples of this task, from 0."""
    agent: str
    """Who gave no answer."""
    error: str
    """Why."""
    turns: list[dict[str, dict[str, Any]]]
    """The turns before that, as in `Episode`."""


@dataclass
class Evaluation:
    """The episodes of one call of `evaluate`, and their averages."""

    env_name: str
    max_score: float | None
    """The highest score an episode can have; None where the environment does not say."""
    episodes: list[Episode] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """Episodes without a score. They count in no average, so averages are of the other episodes alone."""
    success_metric: str | None = None
    """The metric that is 1.0 in an episode that solved its task; None where the environment names none."""
    reference_scores: dict[str, float] = field(default_factory=dict)
    """The environment's `reference_scores`: what known ways of playing score; empty where it names none."""

    @property
    def score(self) -> float:
        """Mean score of the episodes (nan without episodes)."""
        return mean(episode.score for episode in self.episodes)

    @property
    def percent(self) -> float:
        """Mean score in percent of `max_score` (nan where there is none)."""
        return 100 * self.score / self.max_score if self.max_score else math.nan

    @property
    def terms(self) -> dict[str, float]:
        """Mean of each reward term over the episodes."""
        names = dict.fromkeys(name for episode in self.episodes for name in episode.reward_terms)
        return {name: mean(episode.reward_terms[name] for episode in self.episodes) for name in names}

    @property
    def metrics(self) -> dict[str, float]:
        """Mean of each metric beside the score over the episodes."""
        names = dict.fromkeys(name for episode in self.episodes for name in episode.metrics)
        return {name: mean(episode.metrics[name] for episode in self.episodes) for name in names}

    def successes(self) -> dict[str, tuple[int, int]]:
        """Of each task, how many samples were played and how many of them solved it.

        What `textmarl.benchmarks.statistics.pass_at_k_over_tasks` takes. Empty where there is no `success_metric`.
        """
        counts: dict[str, tuple[int, int]] = {}
        if self.success_metric is not None:
            for episode in self.episodes:
                samples, solved = counts.get(episode.task_id, (0, 0))
                solves = episode.metrics[self.success_metric] == 1.0
                counts[episode.task_id] = (samples + 1, solved + solves)
        return counts

    def per_task(self, term: str | None = None) -> dict[str, float]:
        """Mean score (or one reward term or metric) of each task over its samples.

        Tasks are what varies independently, so intervals are computed on these means.
        """
        return {task_id: mean(values) for task_id, values in self.samples(term).items()}

    def samples(self, term: str | None = None) -> dict[str, list[float]]:
        """Score (or one reward term or metric) of every episode, by task, in the order of the episodes.

        What the functions of `textmarl.benchmarks.statistics` take.
        """
        values: dict[str, list[float]] = {}
        for episode in self.episodes:
            value = episode.score if term is None else {**episode.metrics, **episode.reward_terms}[term]
            values.setdefault(episode.task_id, []).append(value)
        return values

    def to_json(self) -> dict[str, Any]:
        """A dict of plain JSON values; `from_json` restores an equal Evaluation."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluation:
        """Restores what `to_json` gave; other keys (a step, a time) are left aside."""
        return cls(
            env_name=data["env_name"],
            max_score=data["max_score"],
            episodes=[Episode(**episode) for episode in data["episodes"]],
            failures=[Failure(**failure) for failure in data.get("failures", ())],
            success_metric=data.get("success_metric"),
            reference_scores={
                name: float(score) for name, score in (data.get("reference_scores") or {}).items()
            },
        )

    def write_jsonl(self, path: str | PathLike[str]) -> None:
        """Writes one episode a line, as ASCII JSON: lone surrogates and NULs in a response survive it."""
        with Path(path).open("w", encoding="ascii") as file:
            file.writelines(json_line(episode) for episode in self.episodes)


def json_line(record: Episode | Failure) -> str:
    """A record as one line of ASCII JSON."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=True) + "\n"


def mean(values: Iterable[float]) -> float:
    """The arithmetic mean; nan of no values."""
    numbers = list(values)
    return math.fsum(numbers) / len(numbers) if numbers else math.nan
