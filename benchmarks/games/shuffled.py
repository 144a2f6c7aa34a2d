"""The control: MAGRPO whose rewards say nothing, because they are dealt out at random within each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from textmarl.agents.team import Team
from textmarl.algos.magrpo import MAGRPO


@dataclass
class Shuffled(MAGRPO):
    """MAGRPO with the credits of every group permuted: what it gains is not learned from rewards."""

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(0)

    def setup(self, team: Team, seed: int) -> None:
        """Begin the stream of the permutations."""
        super().setup(team, seed)
        self._random = np.random.default_rng(seed)

    def advantages(self, credits: np.ndarray) -> np.ndarray:
        """Return the advantages, shape (n,), of the group's credits in random order."""
        return super().advantages(self._random.permutation(credits))

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream of the permutations is."""
        return {**super().state_dict(), "random": self._random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state_dict`."""
        super().load_state_dict(state)
        self._random.bit_generator.state = state["random"]
