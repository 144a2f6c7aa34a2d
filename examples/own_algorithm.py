r"""An algorithm of your own: MAGRPO that learns from the better part of each group only.

textmarl train --config benchmarks/configs/tldr_magrpo.yaml --algo examples/own_algorithm.py:BetterPart --algo.keep 0.25 \
    --run runs/better-part
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from textmarl.algos import MAGRPO


@dataclass
class BetterPart(MAGRPO):
    """The responses with the highest returns of each group are reinforced; from the others nothing is learned."""

    keep: float = 0.5
    """Share of each group that is learned from."""

    def advantages(self, credits: np.ndarray) -> np.ndarray:
        return np.where(credits >= np.quantile(credits, 1 - self.keep), super().advantages(credits), 0.0)
