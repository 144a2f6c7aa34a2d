"""PMIC's two buffers (arXiv 2203.08553, its dual progressive collaboration buffer): what went well, and the rest.

An episode enters the positive buffer if its normalised return exceeds both the worst of the positives and the running
mean, and the negative buffer (first in, first out) if not. A positive that is pushed out is forgotten. Vacant places of
the positive buffer count as its worst: while there is room, the running mean alone decides.

Returns are normalised per task, (R - mean) / standard deviation (population) over all episodes of that task so far, those
of the present training step among them. A task that is met once is therefore measured by its own episodes of one step: the
positives are then the best answers to each task, and not the answers to easy tasks. A task that is met again is measured by
its past too, and rises as the team gets better. Equal returns, and a single episode, have 0.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Episode:
    """One played episode of H turns: a pair of state and joint action for each."""

    task_id: str
    score: float
    """Its return; normalised, once it is in a buffer."""
    states: np.ndarray
    """(H, S) float32."""
    actions: np.ndarray
    """(H, U) float32."""


class CollaborationBuffer:
    """The positive and the negative buffer, and the statistics that tell them apart.

    Args:
        positive_size: Most episodes of the positive buffer.
        negative_size: Most episodes of the negative buffer.
        window: Episodes that the running mean is taken over.
    """

    def __init__(self, positive_size: int, negative_size: int, window: int):
        self.positive_size = positive_size
        self.positive: list[Episode] = []
        self.negative: deque[Episode] = deque(maxlen=negative_size)
        self.recent: deque[float] = deque(maxlen=window)
        self.tasks: dict[str, tuple[int, float, float]] = {}
        """Of each task: episodes, mean return, sum of squared differences from it."""

    @property
    def threshold(self) -> float:
        """What a normalised return must exceed to be positive."""
        full = len(self.positive) == self.positive_size
        worst = min(episode.score for episode in self.positive) if full else -math.inf
        return max(worst, math.fsum(self.recent) / max(len(self.recent), 1))

    def add(self, played: Sequence[Episode]) -> None:
        """Take up the episodes of a training step, with their returns as the environment paid them."""
        for episode in played:
            self._count(episode.task_id, episode.score)
        normalised = [self.normalise(episode.task_id, episode.score) for episode in played]
        self.recent.extend(normalised)
        for episode, score in zip(played, normalised, strict=True):
            entry = Episode(episode.task_id, score, episode.states, episode.actions)
            if score <= self.threshold:
                self.negative.append(entry)
                continue
            if len(self.positive) == self.positive_size:
                worst = min(range(self.positive_size), key=lambda k: self.positive[k].score)
                del self.positive[worst]
            self.positive.append(entry)

    def normalise(self, task_id: str, score: float) -> float:
        """Return (R - mean) / std over the task's episodes so far; 0 where they are equal."""
        count, mean, squares = self.tasks[task_id]
        deviation = math.sqrt(squares / count)
        return (score - mean) / deviation if deviation > 1e-6 else 0.0

    def _count(self, task_id: str, score: float) -> None:
        count, mean, squares = self.tasks.get(task_id, (0, 0.0, 0.0))
        new_mean = mean + (score - mean) / (count + 1)  # Welford's recursion
        self.tasks[task_id] = (count + 1, new_mean, squares + (score - mean) * (score - new_mean))

    def state_dict(self) -> dict[str, Any]:
        """Return everything in it, as tensors and plain values."""
        return {
            "positive": [packed(episode) for episode in self.positive],
            "negative": [packed(episode) for episode in self.negative],
            "recent": list(self.recent),
            "tasks": {task_id: list(numbers) for task_id, numbers in self.tasks.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self.positive = [unpacked(entry) for entry in state["positive"]]
        self.negative = deque(map(unpacked, state["negative"]), self.negative.maxlen)
        self.recent = deque(state["recent"], self.recent.maxlen)
        self.tasks = {task_id: tuple(numbers) for task_id, numbers in state["tasks"].items()}


def stacked(episodes: Sequence[Episode]) -> tuple[Tensor, Tensor]:
    """Return the states (K, S) and actions (K, U) of all turns of the episodes, in double precision."""
    states = np.concatenate([episode.states for episode in episodes])
    actions = np.concatenate([episode.actions for episode in episodes])
    return torch.from_numpy(states).double(), torch.from_numpy(actions).double()


def packed(episode: Episode) -> dict[str, Any]:
    """Return an episode as a checkpoint holds it."""
    arrays = {"states": torch.from_numpy(episode.states), "actions": torch.from_numpy(episode.actions)}
    return {"task_id": episode.task_id, "score": episode.score, **arrays}


def unpacked(entry: dict[str, Any]) -> Episode:
    """Return the episode that :func:`packed` was given."""
    return Episode(entry["task_id"], entry["score"], entry["states"].numpy(), entry["actions"].numpy())
