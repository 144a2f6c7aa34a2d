"""Reads what a training run leaves in its folder, finished or not.

A run may be read while it is still being written, after it was killed in the middle of a line, and after it was continued
from a checkpoint (steps after the checkpoint are then in the files twice: the later one counts).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import yaml
from numpy.typing import NDArray

from textmarl.agents.evaluation import Evaluation

CONFIG, ENVIRONMENT = "config.yaml", "environment.json"
METRICS, EVALUATIONS, SAMPLES = "metrics.jsonl", "evaluations.jsonl", "samples.jsonl"


@dataclass(frozen=True)
class ScoredStep:
    """An evaluation and when it was made."""

    step: int
    """Training steps done before it; 0 is the untrained team."""
    evaluation: Evaluation
    """Its episodes and averages."""
    seconds: float | None = None
    """What it took."""
    held_out: bool = True
    """Whether training met none of its tasks."""

    @property
    def kind(self) -> str:
        """What its tasks are called: held-out, or training tasks where training met some of them."""
        return "held-out" if self.held_out else "training"


@dataclass(frozen=True)
class RunRecord:
    """Everything that a run has left so far; what is missing is empty."""

    folder: Path
    """The run's folder."""
    config: dict[str, Any] = field(default_factory=dict)
    """The resolved configuration: `run`, `env`, `algo`, `team`, `sampling`, `trainer`."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions and machine."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """One flat dict a training step, by step."""
    evaluations: list[ScoredStep] = field(default_factory=list)
    """Held-out evaluations, by step."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Transcripts of training episodes, in the order they were made."""
    unreadable: dict[str, int] = field(default_factory=dict)
    """How many lines of a file could not be read, or not wholly, by the file's name."""

    def setting(self, *keys: str) -> Any:
        """The configured value at the path `keys`, None where the configuration does not say."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def series(self, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The steps at which the metric `key` is a finite number, and its values: (points,) each."""
        points = [(row["step"], row[key]) for row in self.metrics if is_number(row.get(key))]
        table = np.array(points, dtype=np.float64).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    def names(self, prefix: str) -> list[str]:
        """What follows `prefix/` in the metrics' keys, in their order: terms, or agents."""
        start = f"{prefix}/"
        return list(
            dict.fromkeys(key[len(start) :] for row in self.metrics for key in row if key.startswith(start))
        )

    @property
    def agents(self) -> list[str]:
        """The agents in their order."""
        for scored in self.evaluations:
            for episode in scored.evaluation.episodes:
                turns = [turn for turn in episode.turns if isinstance(turn, dict)]
                if turns:  # under a protocol some agents wait for a later turn
                    return list(dict.fromkeys(agent for turn in turns for agent in turn))
        return self.names("length") or self.names("loss")

    @property
    def max_score(self) -> float | None:
        """The environment's highest score; None where no evaluation tells it, or a percentage of it means nothing."""
        maximum = self.evaluations[0].evaluation.max_score if self.evaluations else None
        return maximum if is_number(maximum) and maximum > 0 else None

    @property
    def steps_done(self) -> int:
        """Training steps done."""
        steps = [int(row["step"]) for row in self.metrics] + [scored.step for scored in self.evaluations]
        return max(steps, default=0)

    @property
    def steps_planned(self) -> int | None:
        """Training steps asked for, None where the configuration does not say."""
        steps = self.setting("trainer", "steps")
        return int(steps) if is_number(steps) else None


def load_run(folder: str | Path) -> RunRecord:
    """Read a run's folder.

    Raises:
        FileNotFoundError: if there is no such folder
        ValueError: if it holds no run, or its configuration cannot be read
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; give the run folder that `textmarl train` wrote, such as runs/name"
        )
    if not any((folder / name).is_file() for name in (CONFIG, METRICS, EVALUATIONS)):
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise ValueError(
            f"{folder} is not a run: it has none of {CONFIG}, {METRICS}, {EVALUATIONS}, but {found}; "
            "give the run folder that `textmarl train` wrote, such as runs/name"
        )
    unreadable: dict[str, int] = {}
    metrics = {row["step"]: row for row in _rows(folder / METRICS, unreadable) if is_number(row.get("step"))}
    evaluations: dict[int, ScoredStep] = {}
    for row in _rows(folder / EVALUATIONS, unreadable):
        try:
            scored = ScoredStep(
                int(row["step"]),
                Evaluation.from_json(row),
                row.get("seconds"),
                row.get("held_out", True) is True,
            )
        except (KeyError, TypeError, ValueError):
            unreadable[EVALUATIONS] = unreadable.get(EVALUATIONS, 0) + 1
            continue
        episodes = scored.evaluation.episodes
        scored.evaluation.episodes = [
            episode for episode in episodes if is_number(episode.score) and isinstance(episode.turns, list)
        ]
        if len(scored.evaluation.episodes) < len(episodes):  # a reward of the user's own may be NaN
            unreadable[EVALUATIONS] = unreadable.get(EVALUATIONS, 0) + 1
        if scored.evaluation.episodes:
            evaluations[scored.step] = scored
    return RunRecord(
        folder=folder,
        config=_mapping(folder / CONFIG),
        environment=_mapping(folder / ENVIRONMENT),
        metrics=[metrics[step] for step in sorted(metrics)],
        evaluations=[evaluations[step] for step in sorted(evaluations)],
        samples=list(_rows(folder / SAMPLES, unreadable)),
        unreadable=unreadable,
    )


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value read from a file is a finite number (a truth value is none)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML or JSON file (JSON is YAML); empty if there is no file, or nothing in it."""
    if not path.is_file():
        return {}
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError(f"{path} holds {type(data).__name__}, expected a mapping of settings")
    return data


def _rows(path: Path, unreadable: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, one a line; other lines are counted in `unreadable`."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                yield row
            else:
                unreadable[path.name] = unreadable.get(path.name, 0) + 1
