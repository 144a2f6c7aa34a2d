"""What the group-relative methods have in common: how a group's returns become advantages, and the loss.

MAGRPO, independent GRPO, GRPO and C3 compare a response with others that answered the same history. They differ in
how the group comes about and in what its members are worth; from there on all of them compute what stands here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor

from textmarl.agents.conversation import Response
from textmarl.algos.algorithm import Algorithm, Batch, Group, Sample, returns
from textmarl.algos.policy_gradient import LengthWeighting, RatioLevel, clipped_objective, token_weights
from textmarl.algos.rollout import Node


@dataclass
class GroupRelative(Algorithm):
    """Base of the algorithms without a critic; a subclass says how experience is collected and what is compared."""

    discount: float = 1.0
    """gamma, applied between turns. Ours: rewards of all turns count alike (the configurations of MAGRPO's authors for two
    turns: 0.9 at first, 1 later)."""
    baseline: Literal["mean", "none", "leave_one_out", "max"] = "mean"
    """What a return is compared with in its group (MAGRPO's and GRPO's papers: mean; C3's: leave_one_out)."""
    normalize: Literal["std", "none"] = "std"
    """std: divide by the group's population standard deviation (GRPO; MAGRPO's later configurations; Dr. GRPO argues
    against it). With std all four baselines give the same advantages, since each differs from the mean by a constant or
    a factor."""
    length_weighting: LengthWeighting = "constant"
    """A response's token log-probabilities are summed (MAGRPO's paper), divided by max_new_tokens (Dr. GRPO, arXiv
    2503.20783, with TRL's constant), or by the response's own length (GRPO's paper)."""
    clip: float = 0.2
    """Clipping range of the importance ratio, which enters where experience is used more than once (0.2 in C3's recipe and
    in TRL's GRPO and PPO; GRPO's paper gives none). Ratios of whole responses want less: GSPO 3e-4 below, 4e-4 above."""
    ratio_level: RatioLevel = "token"
    """A ratio for each token, or exp(mean over tokens of the log-ratio) for the response (GSPO, arXiv 2507.18071)."""
    kl_coef: float = 0.0
    """Weight of the KL to the reference policy (k3 estimator); 0 needs no reference, and is what MAGRPO's authors and TRL's
    GRPO use (GRPO's paper: 0.04; C3's recipe: 0.01, adapted)."""

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work; see :meth:`Algorithm.validate`."""
        super().validate(agents)
        self.check_choices(GroupRelative)
        if not (self.clip > 0 and self.kl_coef >= 0):
            raise ValueError(
                f"algo.clip must be positive and algo.kl_coef not negative, got {self.clip}, {self.kl_coef}"
            )

    def check_group_size(self, group_size: int) -> None:
        """Refuse groups that are empty, or in which nothing can be compared."""
        if group_size < 1:
            raise ValueError(f"algo.group_size must be at least 1, got {group_size}")
        if group_size == 1 and (self.baseline != "none" or self.normalize != "none"):
            raise ValueError(
                "algo.group_size 1 leaves nothing to compare with: every advantage would be 0. Use a larger group, or "
                "algo.baseline none with algo.normalize none (REINFORCE)"
            )

    @property
    def needs_reference(self) -> bool:
        """Whether KL to the reference policy is part of the loss."""
        return self.kl_coef > 0

    def joint_returns(self, node: Node) -> np.ndarray:
        """Return what each joint action of a node is worth to each agent, shape (J, N)."""
        return returns(node, self.discount)

    def compare(
        self, agent: str, responses: Sequence[Response], credits: np.ndarray, weight: float
    ) -> Group | None:
        """Make a group of one agent's responses to a history.

        A response without tokens was not sampled, because the environment lets the agent wait: nothing is learned
        from it.

        Args:
            agent: Whose responses they are.
            responses: n of them.
            credits: (n,) what each is worth.
            weight: Share of each in the loss.

        Returns:
            The group, or None where the agent was not asked.
        """
        sampled = [bool(response.token_ids) for response in responses]
        if not any(sampled):
            return None
        credits = credits[sampled]
        samples = [
            Sample(
                agent=agent,
                prompt_ids=response.prompt_ids,
                token_ids=response.token_ids,
                sampled_logprobs=response.logprobs,
                finish=response.finish,
                advantage=float(advantage),
                weight=weight,
            )
            for response, advantage in zip(
                itertools.compress(responses, sampled), self.advantages(credits), strict=True
            )
        ]
        return Group(samples, credits)

    def advantages(self, credits: np.ndarray) -> np.ndarray:
        """Turn a group's credits into advantages, shape (n,) both.

        A^(g) = R^(g) - b; with ``normalize="std"``, (A - mean A) / max(std A, 1e-6), population std. A group of one
        has advantage 0, but for ``baseline="none"`` without normalisation, where it is its return.
        """
        n = len(credits)
        equal = bool(np.all(credits == credits[0]))
        if equal and (self.baseline != "none" or self.normalize == "std"):
            return np.zeros(n)  # exactly: a mean of equal numbers may differ from them by rounding
        if self.baseline == "mean":
            advantages = credits - credits.mean()
        elif self.baseline == "leave_one_out":  # R - mean of the others = n / (n - 1) * (R - mean)
            advantages = (credits - credits.mean()) * n / (n - 1)
        elif self.baseline == "max":
            advantages = credits - credits.max()
        else:
            advantages = credits.astype(float)
        if self.normalize == "std":
            advantages = (advantages - advantages.mean()) / max(advantages.std(), 1e-6)
        return advantages

    def loss(self, batch: Batch) -> Tensor:
        """L_i = - sum over responses of weight * A * (1/c) * sum over tokens of log pi_i(y_t | h, y_<t).

        Where experience is reused, log pi is replaced by the clipped ratio to the policy that sampled, whose gradient
        is the same at ratio 1: min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A), ratio = pi / pi_old (PPO, arXiv
        1707.06347). KL is added per token: k3 = exp(q) - q - 1, q = log pi_ref - log pi.
        """
        weights = token_weights(batch, self.length_weighting)
        loss = -(weights * clipped_objective(batch, self.clip, self.ratio_level)).sum()

        if self.kl_coef > 0:
            assert batch.reference_logprobs is not None
            q = (batch.reference_logprobs - batch.logprobs) * batch.mask
            loss = loss + self.kl_coef * (weights * (q.exp() - q - 1)).sum()
        return loss
