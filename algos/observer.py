"""What a trainer tells whoever watches it: a progress display, a notebook, a test."""

from __future__ import annotations

from typing import Any

from textmarl.agents.evaluation import Evaluation


class Observer:
    """Watches a training run; every method does nothing. Subclass it and override what you want to see.

    Attributes:
        keeps_log: True where it writes log.txt into the run directory itself; else the trainer writes there what it logs.
    """

    keeps_log = False

    def phase(self, name: str, done: int, total: int) -> None:
        """Work moved on inside a step.

        Args:
            name: "generation" (tokens), "reward" (nodes), "update" (responses) or "evaluation" (episodes).
            done: Work done.
            total: All of it; of generation an upper bound, since responses end when they end.
        """

    def step(self, step: int, total: int, metrics: dict[str, float]) -> None:
        """Training step ``step`` of ``total`` is done; ``metrics`` is its line of metrics.jsonl."""

    def sample(self, step: int, transcript: dict[str, Any]) -> None:
        """One joint action of this step: task_id, score, reward_terms, turns."""

    def evaluation(self, step: int, evaluation: Evaluation) -> None:
        """The team was evaluated after ``step`` training steps (0: untrained)."""

    def message(self, text: str) -> None:
        """Something a person should read."""
