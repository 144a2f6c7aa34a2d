"""The joint actions of an experience as pairs of vectors: what had been said, and what everyone then said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from textmarl.algos.collaboration_buffer import Episode
from textmarl.algos.credit_diagnostics import played
from textmarl.algos.diagnostics import episodes
from textmarl.algos.rollout import Node
from textmarl.algos.text_embedding import Embedder


@dataclass
class JointActions:
    """All joint actions of a training step: K pairs of a state s and an action u.

    Both hold a part for each of N agents: of s its own conversation, of u its response.
    """

    states: np.ndarray
    """(K, N * size) float32."""
    actions: np.ndarray
    """(K, N * size) float32."""
    index: dict[int, list[int]]
    """By a node's id, the pair of each of its joint actions."""

    def episode(self, path: list[tuple[Node, int]]) -> Episode:
        """Return an episode with its return as the environment paid it, undiscounted, mean over agents."""
        own = [self.index[id(node)][j] for node, j in path]
        paid = math.fsum(node.rewards[j].mean() for node, j in path)
        return Episode(path[0][0].task_id, paid, self.states[own], self.actions[own])


def embedded(roots: Sequence[Node], agents: Sequence[str], size: int) -> JointActions:
    """Embed every joint action of an experience, with the joint history it answers.

    Args:
        roots: With all that follows them, and the groups that branch off.
        agents: In the order of the joint actions.
        size: Numbers for each text. A text's part has length sqrt(size), its components a mean square of 1.
    """
    embedder = Embedder(size)
    index: dict[int, list[int]] = {}
    known: dict[tuple[int, ...], int] = {}
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    for node in played(roots):
        index[id(node)] = []
        for j, joint in enumerate(node.joint_actions):
            own = node.conversations[j if len(node.conversations) > 1 else 0]
            said = [node.responses[a][k] for a, k in zip(agents, joint, strict=True)]
            # A group that branches off holds what was played beside its alternatives: one pair, not two.
            key = (id(own), *map(id, said))
            if key not in known:
                known[key] = len(states)
                states.append(np.concatenate([embedder.conversation(own[a]) for a in agents]))
                actions.append(np.concatenate([embedder.text(response.text) for response in said]))
            index[id(node)].append(known[key])
    scale = np.float32(math.sqrt(size))
    return JointActions(scale * np.stack(states), scale * np.stack(actions), index)


def all_episodes(root: Node, agents: Sequence[str]) -> Iterator[list[tuple[Node, int]]]:
    """Yield every episode below a root as its nodes and joint actions, those too that branch off at a decision."""
    for path in episodes(root):
        yield path
        for turn, (node, j) in enumerate(path):
            for decision in node.decisions:
                learner = str(decision.learner)
                spoken = node.responses[learner][node.joint_actions[j][agents.index(learner)]]
                for branch in episodes(decision):
                    # What was played is among the candidates, and was yielded already.
                    if decision.responses[learner][branch[0][1]] is not spoken:
                        yield [*path[:turn], *branch]
