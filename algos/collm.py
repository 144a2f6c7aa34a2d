"""CoLLM: actor-critic for cooperating language models, with a central or with decentralised critics (arXiv 2601.21972).

A turn is one action. An episode is played once, nothing is compared with other samples of the same history; what an action
is worth, a critic says, by the temporal difference

    delta_t = r_t + gamma V(h_{t+1}) - V(h_t),    at the last turn r_t - V(h_t),

every agent descends - delta_t * log pi_i(a_i,t | h_i,t), and the critic delta_t^2 with the target r_t + gamma V(h_{t+1})
frozen. In CoLLM-DC every agent has a critic that reads its own conversation; in CoLLM-CC one critic reads those of all
agents, each under its name, and gives all of them the same delta_t. Critics are used in training only. A value is read at
the last token of the prompt.

Cost of an episode of H turns: N H generations and H reward evaluations, where a tree of groups of G takes
N (G + ... + G^H) generations. Page: docs/algorithms/collm.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pettingzoo import ParallelEnv
from torch import Tensor

from textmarl.algos.actor_critic import (
    ActorCritic,
    grouped,
    response_at,
    turns_of,
)
from textmarl.algos.algorithm import Batch, Group, Sample
from textmarl.algos.policy_gradient import LengthWeighting, token_weights
from textmarl.algos.rollout import Node

CENTRAL = "central"


@dataclass
class CoLLM(ActorCritic):
    """CoLLM-CC (``critic="central"``) and CoLLM-DC (``critic="decentralized"``)."""

    critic: Literal["central", "decentralized"] = "central"
    """One critic that reads all conversations (CC; the paper's better one on long horizons and sparse rewards), or one for
    each agent's own (DC)."""
    length_weighting: LengthWeighting = "sum"
    """log pi of a response is the sum over its tokens (paper, and the authors' code); ``constant`` and ``token_mean`` divide
    it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._counts = {"generations": 0, "episodes": 0}

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work; see :meth:`Algorithm.validate`."""
        super().validate(agents)
        if (self.epochs, self.minibatches) != (1, 1):
            raise ValueError(
                "CoLLM takes one step on each experience, its loss has no importance ratio: algo.epochs and "
                f"algo.minibatches must be 1, got {self.epochs} and {self.minibatches}. Use ippo to take more"
            )

    def validate_environment(self, env: ParallelEnv) -> None:
        """Refuse individual rewards for the central critic, which has one value for all; see :class:`Algorithm`."""
        reward = getattr(env.unwrapped, "reward", "team")  # environments of others have none
        if reward == "individual" and self.critic == "central":
            raise ValueError(
                "algo.critic central has one value for all agents and cannot foretell the environment's reward "
                "individual; set algo.critic to decentralized, or the environment's reward to team"
            )

    def seats(self, agents: Sequence[str]) -> dict[str, str]:
        """Return one critic, on the first agent's model, or one for each agent."""
        return {CENTRAL: agents[0]} if self.critic == "central" else {agent: agent for agent in agents}

    def credit(self, roots: list[Node], agents: Sequence[str]) -> Iterable[Group]:
        """Give every response its temporal difference: GAE with lambda 0.

        Raises:
            ValueError: The critic is central, and an environment that had not said so paid its agents differently.
        """
        if self.critic == "central":
            for node in (node for root in roots for node in root.subtree()):
                if node.rewards.size and np.ptp(node.rewards, axis=1).any():
                    unequal = node.rewards[np.ptp(node.rewards, axis=1) > 0][0].tolist()
                    raise ValueError(
                        f"task {node.task_id}: the environment paid {dict(zip(agents, unequal, strict=True))}, and "
                        "algo.critic central has one value for all agents; set algo.critic to decentralized"
                    )
        weight = 1 / (self.group_size * len(roots))
        critics = (
            {CENTRAL: list(agents)} if self.critic == "central" else {agent: [agent] for agent in agents}
        )
        self._counts = {"generations": 0, "episodes": self.group_size * len(roots)}
        for name, actors in critics.items():

            def read(node: Node, member: int, name: str = name) -> Sample | None:
                return self._position(node, member, name, weight)

            i = agents.index(actors[0])
            played = [turns for root in roots for turns in turns_of(root, i, self.discount, read)]
            self.value(name, played, gae_lambda=0.0)
            credited = []
            for turn in (turn for turns in played for turn in turns):
                for agent in actors:
                    said = response_at(turn.node, turn.member, agent)
                    if said.token_ids:
                        delta = float(np.atleast_1d(turn.position.advantage)[0])
                        row = (said.prompt_ids, said.token_ids, said.logprobs, said.finish)
                        credited.append((turn, Sample(agent, *row, delta, weight)))
            self._counts["generations"] += len(credited)
            yield from grouped(credited)

    def _position(self, node: Node, member: int, name: str, weight: float) -> Sample | None:
        """Return what a critic reads: the joint history, at every turn; or an agent's prompt, where it is asked."""
        if name == CENTRAL and self.critic == "central":
            prompt_ids = self.joint_prompt(name, node, member)
        else:
            said = response_at(node, member, name)
            if not said.token_ids:
                return None
            prompt_ids = said.prompt_ids
        # The value before one token, whichever, is that of the prompt; the token itself is not read.
        return Sample(name, prompt_ids, prompt_ids[-1:], [], "stop", 0.0, weight)

    def loss(self, batch: Batch) -> Tensor:
        """L_i = - sum over responses of weight * delta * (1/c) sum over tokens of log pi_i(y_l | h, y_<l)."""
        weights = token_weights(batch, self.length_weighting)
        return -(weights * batch.advantages * batch.logprobs).sum()

    def improve(self, rng: np.random.Generator) -> dict[str, float]:
        """Train the critics; one step each.

        Returns:
            Beside those of :meth:`ActorCritic.improve`, ``generations`` (responses sampled in this step) and
            ``generations_per_episode``: N H where nobody waits and no episode ends early.
        """
        count, played = self._counts["generations"], self._counts["episodes"]
        metrics = super().improve(rng)
        return {**metrics, "generations": count, "generations_per_episode": count / max(played, 1)}
