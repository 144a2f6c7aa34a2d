"""Difference rewards (Wolpert and Tumer 2001): every agent is paid for what the team would have missed without it.

textmarl train --env textmarl/TLDR-v1 --algo examples/difference_reward.py --algo.default_text "No text." --run runs/diff

    D_i = R(a) - r(a_-i, c_i)

c_i is a text that stands for doing nothing. What is subtracted does not depend on what agent i wrote, so the team that
is best for R is best for every D_i; it takes out of agent i's credit what its partners contributed to it. Each joint
action costs N further reward evaluations.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from textmarl.algos import MAGRPO, Node, Rollout
from textmarl.envs.vector import step_all


@dataclass
class DifferenceReward(MAGRPO):
    """MAGRPO on difference rewards; the counterfactual is that of the turn at which the agent acts."""

    default_text: str = ""
    """c_i, what an agent writes that contributes nothing."""

    @property
    def copies_episodes(self) -> bool:
        return True

    def collect(self, rollout: Rollout, tasks: Sequence[tuple[int, int | str | None]]) -> list[Node]:
        roots = super().collect(rollout, tasks)
        # By what was said, which a copy of a node shares: an algorithm around this one credits copies.
        self.without = {
            id(node.responses): self.rewards_without(node, rollout)
            for root in roots
            for node in root.subtree()
        }
        return roots

    def joint_returns(self, node: Node) -> np.ndarray:
        return super().joint_returns(node) - self.without[id(node.responses)]

    def rewards_without(self, node: Node, rollout: Rollout) -> np.ndarray:
        """r(a_-i, c_i) of every joint action and agent, shape (J, N)."""
        envs, texts = [], []
        for j, joint in enumerate(node.joint_actions):
            said = {a: node.responses[a][k].text for a, k in zip(rollout.agents, joint, strict=True)}
            for agent in rollout.agents:
                envs.append(copy.deepcopy(node.envs[j if len(node.envs) > 1 else 0]))
                texts.append({**said, agent: self.default_text})
        steps = step_all(envs, texts)
        # A step that only passes texts on (`stage` of textmarl.envs.protocols) computes no reward.
        infos = [step.infos.get(rollout.agents[0], {}) for step in steps]
        rollout.cost.reward_evaluations += sum(not info.get("stage") for info in infos)
        whose = rollout.agents * len(node.joint_actions)
        paid = [step.rewards[agent] for step, agent in zip(steps, whose, strict=True)]
        return np.array(paid).reshape(len(node.joint_actions), len(rollout.agents))
