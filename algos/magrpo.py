"""MAGRPO: multi-agent group-relative policy optimisation (arXiv 2508.04652, Algorithm 1).

At every joint history each of N agents samples a group of G responses. They are put together into joint actions,
every joint action earns a team reward and leads on to a history of its own, until the horizon. An agent's advantage
is its response's return less the group's baseline,

    A_i^(g) = R^(g) - mean over g' of R^(g'),

and each agent descends L_i = -(1/G) sum_g A_i^(g) log pi_i(y_i^(g) | h_i), weighted by the node's share of the tree
(:class:`~textmarl.algos.group_relative.GroupRelative` computes both). No critic is trained and no text passes between
the agents but through the environment.

Cost per task and turn: G responses per agent, and G (aligned) or G^N (cross) reward evaluations; a tree over H turns
has G^H or G^(N H) leaves, a chain G. Page: docs/algorithms/magrpo.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from textmarl.algos.algorithm import Group
from textmarl.algos.group_relative import GroupRelative
from textmarl.algos.rollout import Branching, JointMode, Node, Rollout


@dataclass
class MAGRPO(GroupRelative):
    """MAGRPO and, by its baselines, REINFORCE (``none``), RLOO (``leave_one_out``) and the maximum of the group."""

    group_size: int = 8
    """G, responses per agent and history (paper: 4)."""
    joint_mode: JointMode = "aligned"
    """How responses become joint actions: aligned, the g-th of everyone together; cross, every combination."""
    branching: Branching = "tree"
    """tree: every joint action gets a group of its own at the next turn; chain: G parallel episodes (linear cost)."""
    max_joint_actions: int = 256
    """Refuse cross joint actions beyond this number at a node."""

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {"group_size": 4, "normalize": "none", "length_weighting": "sum"}
    }

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work; see :meth:`Algorithm.validate`."""
        super().validate(agents)
        self.check_choices(MAGRPO)
        self.check_group_size(self.group_size)
        if self.branching == "chain" and self.joint_mode == "cross":
            raise ValueError(
                "algo.branching chain cannot continue cross joint actions: they are more episodes than responses. "
                "Use algo.joint_mode aligned, or algo.branching tree"
            )
        joint = self.group_size ** len(agents)
        if self.joint_mode == "cross" and joint > self.max_joint_actions:
            raise ValueError(
                f"algo.joint_mode cross with group_size {self.group_size} and {len(agents)} agents makes {joint} joint "
                f"actions at every node, over algo.max_joint_actions {self.max_joint_actions}; use a smaller group, "
                "aligned joint actions, or raise the bound"
            )

    @property
    def copies_episodes(self) -> bool:
        """Whether an episode is played on several times: in all but chains."""
        return self.branching == "tree"

    def collect(self, rollout: Rollout, tasks: Sequence[tuple[int, int | str | None]]) -> list[Node]:
        """Sample a tree or a chain for each task."""
        return rollout.collect(tasks, self.group_size, self.joint_mode, self.branching)

    def credit(self, roots: list[Node], agents: Sequence[str]) -> Iterable[Group]:
        """Compare every response with its group."""
        return compared(self, roots, agents, self.group_size)


def compared(
    algorithm: GroupRelative, roots: list[Node], agents: Sequence[str], group_size: int
) -> Iterator[Group]:
    """Compare every response to every joint history with its group; a node's weight is averaged over the tasks."""
    for root in roots:
        for node in root.subtree():
            joint_returns = algorithm.joint_returns(node)
            for i, agent in enumerate(agents):
                if not any(response.token_ids for response in node.responses[agent]):
                    continue
                credits = response_credits(node, joint_returns[:, i], i)
                # 1/G, not 1/(those alive): in a chain, finished episodes keep their share.
                weight = node.weight / (group_size * len(roots))
                group = algorithm.compare(agent, node.responses[agent], credits, weight)
                if group is not None:
                    yield group


def response_credits(node: Node, joint_returns: np.ndarray, agent: int) -> np.ndarray:
    """Return the mean return of the joint actions that hold each of an agent's responses.

    Args:
        node: J joint actions of G responses.
        joint_returns: (J,) the agent's returns.
        agent: The agent's index.

    Returns:
        (G,); with aligned joint actions the returns themselves.
    """
    chosen = np.array([joint[agent] for joint in node.joint_actions])
    return np.bincount(chosen, weights=joint_returns) / np.bincount(chosen)
