"""IPPO: independent proximal policy optimisation (arXiv 2011.09533), token by token as in RLHF; and MAPPO.

Every agent runs PPO (arXiv 1707.06347) on its own conversation and its partners are part of its environment. A step is a
token: the state is the history h and the tokens so far, the reward of a turn comes at its last token, and a critic says
what the state is worth. Over the tokens of all turns of the agent's own episode

    delta_l = r_l + gamma_l V_{l+1} - V_l,    A_l = delta_l + gamma_l lambda A_{l+1},    R_l = A_l + V_l

with gamma_l = 1 inside a turn and gamma at its end; the horizon ends the episode, nothing is bootstrapped. The loss is

    L_i = - sum_l w_l [ min(rho_l A_l, clip(rho_l, 1 - eps, 1 + eps) A_l) + c_H H_l ]

where w_l averages over episodes and weights a response's tokens. The critic descends the clipped squared error to R_l.
``level="turn"`` has one value a turn, at the last token of the prompt. ``critic="central"`` is MAPPO (arXiv 2103.01955): an
agent's critic reads the conversations of all. Page: docs/algorithms/ippo.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from textmarl.algos.actor_critic import (
    ActorCritic,
    Turn,
    grouped,
    response_at,
    turns_of,
)
from textmarl.algos.algorithm import Batch, Group, Sample
from textmarl.algos.policy_gradient import clipped_objective, token_weights
from textmarl.algos.rollout import Node


@dataclass
class IPPO(ActorCritic):
    """Independent PPO; with ``critic="central"`` MAPPO."""

    epochs: int = 4
    """Passes over the same experience, of the policy and of the critic (CleanRL, TRL: 4; MAPPO's code: 15)."""
    level: Literal["token", "turn"] = "token"
    """A value and an advantage for each token, or one of each for a turn."""
    gae_lambda: float = 1.0
    """lambda, per token or turn. Ours: the 0.95 of CleanRL, TRL and MAPPO's code, per token, would leave 0.6 % of a reward
    after 100 tokens."""
    clip: float = 0.2
    """Clipping range of the importance ratio (CleanRL, TRL, MAPPO's code: 0.2)."""
    value_clip: float = 0.2
    """How far a value may move from its old one before its loss stops falling, in units of the reward; 0 does not clip (TRL:
    0.2; MAPPO's code: 0.2, of values that it normalises)."""
    value_coef: float = 0.5
    """Weight of the squared error where the trunk is shared. Ours (of half of it, CleanRL: 0.5, TRL: 0.1)."""
    entropy_coef: float = 0.0
    """c_H, weight of the entropy bonus (TRL's PPO has none; MAPPO's code, CleanRL: 0.01)."""
    target_kl: float = 0.0
    """An agent's update ends before a step whose mini-batch is further than this from the policy that sampled, in nats
    per token; 0 never ends it (CleanRL: off, and looked at once an epoch)."""
    normalize_advantages: bool = True
    """Subtract the mean and divide by the standard deviation over all of an agent's advantages of a training step (as
    MAPPO's code; CleanRL: over a mini-batch)."""
    critic: Literal["independent", "central"] = "independent"
    """What an agent's critic reads: its own conversation (IPPO), or everybody's, under their names (MAPPO)."""
    critic_trunk: Literal["own", "shared"] = "own"
    """A critic reads with an adapter (or a copy) of its own (MAPPO's code: networks of their own), or is a head on the
    policy that the policy's loss trains."""

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work; see :meth:`Algorithm.validate`."""
        super().validate(agents)
        if not self.clip > 0:
            raise ValueError(f"algo.clip must be positive, got {self.clip}")
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"algo.gae_lambda must be in [0, 1], got {self.gae_lambda}")
        for name in ("value_clip", "value_coef", "entropy_coef", "target_kl"):
            if not vars(self)[name] >= 0:
                raise ValueError(f"algo.{name} must not be negative, got {vars(self)[name]}")
        if self.critic == "central" and self.critic_trunk == "shared":
            raise ValueError(
                "algo.critic central reads what the policy does not and needs a trunk of its own: set algo.critic_trunk "
                "to own, or algo.critic to independent"
            )

    @property
    def has_own_trunks(self) -> bool:
        """Whether critics read with trunks of their own."""
        return self.critic_trunk == "own"

    @property
    def needs_states(self) -> bool:
        """Whether a value head stands on the policy."""
        return not self.has_own_trunks

    def seats(self, agents: Sequence[str]) -> dict[str, str]:
        """Return a critic for each agent, on its own model: it reads the agent's tokens."""
        return {agent: agent for agent in agents}

    # ------------------------------------------------------------------------------------------------- credit

    def credit(self, roots: list[Node], agents: Sequence[str]) -> Iterable[Group]:
        """Estimate the advantage of every token, or turn, of each agent in its own episodes."""
        for i, agent in enumerate(agents):

            def read(node: Node, member: int, agent: str = agent) -> Sample | None:
                return self._position(node, member, agent, 1 / (self.group_size * len(roots)))

            played = [turns for root in roots for turns in turns_of(root, i, self.discount, read)]
            self.value(agent, played, self.gae_lambda)
            turns = [turn for own in played for turn in own]
            if self.normalize_advantages and turns:
                normalize([turn.position for turn in turns])
            yield from grouped((turn, self._sample(turn, agent)) for turn in turns)

    def _position(self, node: Node, member: int, agent: str, weight: float) -> Sample | None:
        """Return what an agent's critic reads at one of its turns; None where it waits."""
        said = response_at(node, member, agent)
        if not said.token_ids:
            return None
        prompt_ids = said.prompt_ids
        if self.critic == "central":
            prompt_ids = self.joint_prompt(agent, node, member)
        # One token stands for a turn: the value before it is that of the prompt, and the token itself is not read.
        token_ids = said.token_ids if self.level == "token" else said.token_ids[:1]
        return Sample(agent, prompt_ids, token_ids, [], said.finish, 0.0, weight)

    def _sample(self, turn: Turn, agent: str) -> Sample:
        """Return the row of the policy's update: advantages at each token, a turn's on all of its tokens."""
        said, own = response_at(turn.node, turn.member, agent), turn.position
        repeats = 1 if self.level == "token" else len(said.token_ids)
        return Sample(
            agent=agent,
            prompt_ids=said.prompt_ids,
            token_ids=said.token_ids,
            sampled_logprobs=said.logprobs,
            finish=said.finish,
            advantage=np.tile(own.advantage, repeats).tolist(),
            weight=own.weight,
            value_targets=(own.value_targets or []) * repeats,
            old_values=(own.old_values or []) * repeats,
        )

    # --------------------------------------------------------------------------------------------------- loss

    def loss(self, batch: Batch) -> Tensor:
        """L_i as above, and c_V times the value loss where the value head stands on the policy."""
        weights = token_weights(batch, self.length_weighting)
        objective = clipped_objective(batch, self.clip) + self.entropy_coef * batch.entropies
        loss = -(weights * objective).sum()
        if self.needs_states:
            assert (
                batch.states is not None and batch.value_targets is not None and batch.old_values is not None
            )
            values = self.critics[batch.agent].head(batch.states)
            error = self.value_error(values, batch.value_targets, batch.old_values)
            if self.level == "turn":  # the one value of a turn stands before its first token
                error, weights = error[:, :1], batch.weights[:, None]
            loss = loss + self.value_coef * (weights * error).sum()
        return loss

    def value_error(self, values: Tensor, targets: Tensor, old_values: Tensor) -> Tensor:
        """max((V - R)^2, (V_clip - R)^2), V_clip = V_old + clip(V - V_old, -eps_V, eps_V) (CleanRL, MAPPO's code)."""
        error = super().value_error(values, targets, old_values)
        if self.value_clip == 0:
            return error
        clipped = old_values + (values - old_values).clamp(-self.value_clip, self.value_clip)
        return torch.maximum(error, (clipped - targets).square())

    def goes_on(self, approx_kl: float) -> bool:
        """Stop an agent's update once its policy is further than ``target_kl`` from the one that sampled."""
        return self.target_kl == 0 or approx_kl <= self.target_kl


def normalize(positions: list[Sample]) -> None:
    """Give the advantages of all positions mean 0 and standard deviation 1; equal ones become 0."""
    every = np.concatenate([np.atleast_1d(own.advantage) for own in positions])
    mean, std = every.mean(), max(every.std(), 1e-8)
    for own in positions:
        own.advantage = ((np.atleast_1d(own.advantage) - mean) / std).tolist()
