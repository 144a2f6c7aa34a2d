"""COMA's counterfactual baseline (Foerster et al. 2018, arXiv 1705.08926), answered by the environment, not by a critic.

textmarl train --env textmarl/Chorus-v0 --algo examples/counterfactual_baseline.py --algo.group_size 4 --run runs/coma

A team plays a^(g) = (a_1^g, ..., a_N^g). What would it have earned had agent i said something else and everybody else
the same? The cross product of the sampled responses holds all those joint actions, so

    A_i^(g) = R(a^(g)) - mean over k of R(a_i^k, a_-i^g)            (its equation 4, the mean over pi by samples)

MAGRPO with cross joint actions averages the same table over the partners' responses first; this keeps the partners who
were there. A turn costs G^N reward evaluations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from textmarl.algos import MAGRPO, Group, Node


@dataclass
class CounterfactualBaseline(MAGRPO):
    """Each response is compared with the agent's other ones beside the same partners."""

    joint_mode: Literal["aligned", "cross"] = "cross"
    """The counterfactual joint actions are in the cross product; only with it."""
    baseline: Literal["mean", "none", "leave_one_out", "max"] = "none"
    """On top of the counterfactual one."""
    normalize: Literal["std", "none"] = "none"
    """std: shift and scale the advantages of a group to mean 0 and standard deviation 1."""
    count_own: bool = True
    """Whether the response itself is among those averaged over (COMA: yes)."""

    def validate(self, agents: Sequence[str]) -> None:
        super().validate(agents)
        if self.joint_mode != "cross" or self.group_size < 2:
            raise ValueError(
                "CounterfactualBaseline compares with other joint actions: it needs algo.joint_mode cross and "
                f"algo.group_size 2 or more, got {self.joint_mode} and {self.group_size}"
            )

    def credit(self, roots: list[Node], agents: Sequence[str]) -> Iterable[Group]:
        for root in roots:
            for node in root.subtree():
                several = [
                    len(set(own)) > 1 for own in zip(*node.joint_actions, strict=True)
                ]  # but who waits
                for i, agent in enumerate(agents):
                    if any(
                        response.token_ids for response in node.responses[agent]
                    ):  # sampled here: no partner's
                        table = self.counterfactual(node, i, several)
                        others = table.sum(axis=1) - (0 if self.count_own else table.diagonal())
                        credits = table.diagonal() - others / (len(table) - (not self.count_own))
                        weight = node.weight / (self.group_size * len(roots))
                        group = self.compare(agent, node.responses[agent], credits, weight)
                        yield from [group] if group else []

    def counterfactual(self, node: Node, i: int, several: Sequence[bool]) -> np.ndarray:
        """R(a_i^k, a_-i^g) for all g and k, (G, G); its diagonal is what the team played."""
        returns = dict(zip(node.joint_actions, self.joint_returns(node)[:, i], strict=True))
        table = np.zeros((self.group_size, self.group_size))
        for g, k in np.ndindex(table.shape):
            table[g, k] = returns[
                tuple((k if a == i else g) if several[a] else 0 for a in range(len(several)))
            ]
        return table
