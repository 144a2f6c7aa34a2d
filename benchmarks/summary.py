"""The figures of an evaluation as plain values, to be read by a program: what the table of `textmarl eval` shows.

`summarise(evaluate(env, agents, samples=4))["score"]` is `{"mean": ..., "low": ..., "high": ..., "note": ...}`.
"""

from __future__ import annotations

import math
from typing import Any

from textmarl.agents.episodes import Evaluation
from textmarl.benchmarks.comparison import in_all
from textmarl.benchmarks.statistics import Interval, mean_over_tasks, pass_at_k_over_tasks

PASS_AT = (1, 5, 10, 100)
"""The k of pass@k, where there are as many samples of every task."""


def intervals_of(evaluation: Evaluation) -> dict[str, dict[str, Interval]]:
    """Means with their 95 % intervals, by kind and name, in reward units.

    Args:
        evaluation: with at least one episode.

    Returns:
        `score`: one, named "score"; `terms` that it is made of; `metrics` beside it but the one that tells success;
        `pass@k`, where the environment says what solves a task.
    """
    counts = evaluation.successes()
    fewest = min((samples for samples, _ in counts.values()), default=0)
    beside = in_all([episode.metrics for episode in evaluation.episodes])
    return {
        "score": {"score": mean_over_tasks(evaluation.samples(None))},
        "terms": {name: mean_over_tasks(evaluation.samples(name)) for name in evaluation.terms},
        "metrics": {
            name: mean_over_tasks(evaluation.samples(name))
            for name in beside
            if name != evaluation.success_metric  # that is pass@1
        },
        "pass@k": {f"pass@{k}": pass_at_k_over_tasks(counts, k) for k in PASS_AT if k <= fewest},
    }


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """A dict of JSON values: counts, and means with 95 % intervals (None where there is none, `note` says why).

    The keys: `environment`, `tasks`, `episodes`, `failed`, `max_score`, `percent` (of it), `reference_scores` (what known
    ways of playing score, where the environment says), `score`, `terms`, `metrics` and `pass@k`. Each mean is `{"mean", "low", "high", "note"}`.
    """
    means: dict[str, Any] = {}
    if evaluation.episodes:
        means = {
            kind: {name: _plain(interval) for name, interval in named.items()}
            for kind, named in intervals_of(evaluation).items()
        }
        means["score"] = means["score"]["score"]
    return {
        "environment": evaluation.env_name,
        "tasks": len(evaluation.per_task()),
        "episodes": len(evaluation.episodes),
        "failed": len(evaluation.failures),
        "max_score": evaluation.max_score,
        "percent": _number(evaluation.percent),
        "reference_scores": evaluation.reference_scores,
        **means,
    }


def _plain(interval: Interval) -> dict[str, Any]:
    return {
        "mean": _number(interval.estimate),
        "low": _number(interval.low),
        "high": _number(interval.high),
        "note": interval.note,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
