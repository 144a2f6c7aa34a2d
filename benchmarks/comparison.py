"""What changed between two held-out evaluations of a run, and which tasks show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textmarl.agents.evaluation import Episode, Evaluation
from textmarl.benchmarks.runs import RunRecord, ScoredStep, is_number
from textmarl.benchmarks.statistics import Interval, mean_over_tasks, paired_change


@dataclass(frozen=True)
class Change:
    """A figure before and after with the interval of its change, in reward units."""

    name: str
    before: float
    after: float
    change: Interval


@dataclass(frozen=True)
class Comparison:
    """Two evaluations, over the tasks that both played."""

    before: ScoredStep
    after: ScoredStep
    tasks: tuple[str, ...]
    """The tasks in both, in the order of the first."""
    score: Change
    terms: tuple[Change, ...]
    """What the score is made of."""
    metrics: tuple[Change, ...] = ()
    """What the environment reports beside the score; nothing was trained on it."""

    @property
    def gains(self) -> dict[str, float]:
        """The change in the mean score of each task, the largest first."""
        before, after = self.before.evaluation.per_task(), self.after.evaluation.per_task()
        gains = {task: after[task] - before[task] for task in self.tasks}
        return dict(sorted(gains.items(), key=lambda item: -item[1]))


def compare(run: RunRecord) -> Comparison | None:
    """The first and the last evaluation of the run; None before there are two with a task in common."""
    if len(run.evaluations) < 2:
        return None
    before, after = run.evaluations[0], run.evaluations[-1]
    later = after.evaluation.per_task()
    tasks = tuple(task for task in before.evaluation.per_task() if task in later)
    if not tasks:
        return None
    episodes = before.evaluation.episodes + after.evaluation.episodes
    terms = in_all([episode.reward_terms for episode in episodes])
    metrics = in_all([episode.metrics for episode in episodes])
    changes = {
        name: _change(name, name, before.evaluation, after.evaluation, tasks) for name in [*terms, *metrics]
    }
    return Comparison(
        before,
        after,
        tasks,
        score=_change("score", None, before.evaluation, after.evaluation, tasks),
        terms=tuple(changes[name] for name in terms),
        metrics=tuple(changes[name] for name in metrics),
    )


def in_all(values: Sequence[Mapping[str, object]]) -> list[str]:
    """The names that have a finite number in each of the mappings: others have no mean to compare."""
    first = values[0] if values else {}
    return [name for name in first if all(is_number(own.get(name)) for own in values)]


def mean_score(evaluation: Evaluation) -> Interval:
    """The mean over tasks of an evaluation's score, with its interval."""
    return mean_over_tasks(evaluation.samples())


def typical_episode(evaluation: Evaluation, task: str) -> Episode:
    """The sample of a task whose score is nearest to the task's mean (the first of equals)."""
    mean = evaluation.per_task()[task]
    episodes = [episode for episode in evaluation.episodes if episode.task_id == task]
    return min(episodes, key=lambda episode: abs(episode.score - mean))


def showcase(values: dict[str, float], words: tuple[str, str, str]) -> list[tuple[str, str]]:
    """The tasks with the highest, the median and the lowest value, each with its word; fewer for fewer tasks."""
    ordered = sorted(values, key=lambda task: -values[task])
    places = {0: words[0], len(ordered) - 1: words[2], (len(ordered) - 1) // 2: words[1]}
    if len(ordered) < 3:  # the ends say more than the middle
        places = {len(ordered) - 1: words[2], 0: words[0]}
    return [(places[place], ordered[place]) for place in sorted(places)] if ordered else []


def _change(
    name: str, term: str | None, before: Evaluation, after: Evaluation, tasks: tuple[str, ...]
) -> Change:
    samples_before, samples_after = before.samples(term), after.samples(term)
    left = {task: samples_before[task] for task in tasks}
    right = {task: samples_after[task] for task in tasks}
    means_before, means_after = before.per_task(term), after.per_task(term)
    mean_before, mean_after = (
        sum(own[task] for task in tasks) / len(tasks) for own in (means_before, means_after)
    )
    return Change(name, mean_before, mean_after, paired_change(left, right))
