"""What the actor-critic methods have in common: turns, advantages from values, and how a critic is trained.

IPPO, MAPPO and CoLLM play parallel episodes and ask a critic what each history is worth. They differ in what the critic
reads, where a value stands and what the actor's loss is; from there on they compute what stands here.

A value stands at *positions*: before every token of a response, or once a turn, at the last token of the prompt. The reward
of a turn comes at its last position.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from textmarl.agents.conversation import Conversation, Response, render_conversation
from textmarl.agents.team import Team, random_stream
from textmarl.agents.values import Critic
from textmarl.algos.algorithm import Algorithm, Group, Sample
from textmarl.algos.diagnostics import episodes
from textmarl.algos.policy_gradient import LengthWeighting
from textmarl.algos.rollout import Node, Rollout
from textmarl.algos.update import micro_batches


@dataclass
class Turn:
    """A decision in an episode, and what came of it."""

    node: Node
    member: int
    """Which of the node's joint actions the episode took."""
    position: Sample
    """What the critic reads; once it was asked, with its values, their targets, and an advantage for each."""
    reward: float
    """Of this turn, and of those after it in which the decider waits, discounted to this one."""
    discount: float
    """Of the value at the decider's next turn; 0 at the last: the horizon ends an episode like any other end."""


@dataclass
class ActorCritic(Algorithm):
    """Base of the algorithms with a critic; a subclass says what the critic reads and what the actor's loss is."""

    group_size: int = 8
    """Parallel episodes of each task; 1 will do, since nothing is compared within the group (ours: MAGRPO's 8, so that
    reward evaluations are equal)."""
    discount: float = 1.0
    """gamma, applied between turns and never inside one. Ours: 1, as for MAGRPO (TRL's PPO: 1; CoLLM's authors: 0.9 or 1;
    MAPPO's code: 0.99)."""
    length_weighting: LengthWeighting = "constant"
    """A response's token losses are summed (CoLLM's log pi), divided by max_new_tokens (Dr. GRPO, arXiv 2503.20783), or
    by the response's own length."""
    critic_learning_rate: float = 5e-4
    """Of the critic's AdamW where its trunk is its own (MAPPO's code: 5e-4). For an adapter and a head; CoLLM's authors
    train all weights of a critic, at 5e-6."""
    critic_max_grad_norm: float = 1.0
    """A critic's gradient is clipped to this norm; 0 does not clip (ours: as trainer.max_grad_norm; CleanRL: 0.5, MAPPO's
    code: 10)."""

    def __post_init__(self) -> None:
        self.critics: dict[str, Critic] = {}
        self.experience: dict[str, list[Sample]] = {}  # by critic, what it read since it was last trained
        self.optimizers: dict[str, torch.optim.AdamW] = {}
        self._micro_batch_tokens = 1024
        self._encoded: dict[tuple[str, str], list[int]] = {}  # joint histories, by critic and text

    @property
    def has_own_trunks(self) -> bool:
        """Whether critics read with trunks of their own, and not with the policies'."""
        return True

    @property
    def copies_episodes(self) -> bool:
        """No: parallel episodes go on, each by itself."""
        return False

    @abstractmethod
    def seats(self, agents: Sequence[str]) -> dict[str, str]:
        """Return the critics by name, and whose model each reads with."""

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work; see :meth:`Algorithm.validate`."""
        super().validate(agents)
        self.check_choices(type(self))
        if self.group_size < 1:
            raise ValueError(f"algo.group_size must be at least 1, got {self.group_size}")
        if not (self.critic_learning_rate > 0 and math.isfinite(self.critic_learning_rate)):
            raise ValueError(
                f"algo.critic_learning_rate must be a positive number, got {self.critic_learning_rate}"
            )
        if not self.critic_max_grad_norm >= 0:
            raise ValueError(
                f"algo.critic_max_grad_norm must not be negative (0: no clipping), got {self.critic_max_grad_norm}"
            )
        taken = sorted({f"critic_{agent}" for agent in agents} & set(agents))
        if self.has_own_trunks and taken:
            raise ValueError(f"the agent {taken[0]!r} has the name of a critic's adapter; rename the agent")

    # ------------------------------------------------------------------------------------- what is learned

    def setup(self, team: Team, seed: int) -> None:
        """Create the critics and their optimizers."""
        self.critics, self.optimizers, self.experience, self._encoded = {}, {}, {}, {}
        for index, (name, agent) in enumerate(self.seats(list(team.policies)).items()):
            own = int(random_stream(seed, index).initial_seed())
            if not self.has_own_trunks:
                self.critics[name] = team.share_trunk(agent, own)
                continue
            critic = self.critics[name] = team.add_critic(f"critic_{name}", agent, own)
            self.optimizers[name] = torch.optim.AdamW(
                critic.parameters(), lr=self.critic_learning_rate, weight_decay=0.0
            )

    def parameters(self, agent: str) -> list[Parameter]:
        """Return the value head on the agent's own policy, where it stands there."""
        return [] if self.has_own_trunks else self.critics[agent].parameters()

    def state_dict(self) -> dict[str, Any]:
        """Return the critics and their optimizers."""
        return {
            "critics": {name: critic.state_dict() for name, critic in self.critics.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up :meth:`state_dict`."""
        for name, critic in self.critics.items():
            critic.load_state_dict(state["critics"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    def critic_called(self, name: str) -> Critic:
        """Return a critic.

        Raises:
            RuntimeError: :meth:`setup` has made none of that name.
        """
        if name not in self.critics:
            raise RuntimeError(
                f"{type(self).__name__} has no critic {name!r} yet: call setup(team, seed) before credit (the Trainer does)"
            )
        return self.critics[name]

    # ----------------------------------------------------------------------------------------- experience

    def collect(self, rollout: Rollout, tasks: Sequence[tuple[int, int | str | None]]) -> list[Node]:
        """Play ``group_size`` episodes of each task."""
        self._micro_batch_tokens, self._encoded = rollout.micro_batch_tokens, {}
        return rollout.collect(tasks, self.group_size, "aligned", "chain")

    def joint_prompt(self, name: str, node: Node, member: int) -> list[int]:
        """Return the joint history of one of a node's joint actions as a critic reads it: token ids.

        The members of a group have the same one; each is encoded once a training step, so the list is not to be changed.
        """
        history = joint_history(conversations_at(node, member))
        key = (name, repr(history))
        if key not in self._encoded:
            self._encoded[key] = self.critic_called(name).trunk.encode(history)
        return self._encoded[key]

    def value(self, name: str, played: list[list[Turn]], gae_lambda: float) -> None:
        """Ask a critic for values and fill in values, targets and advantages at every position.

        Args:
            name: Which critic.
            played: Episodes.
            gae_lambda: Per position.
        """
        positions = [turn.position for turns in played for turn in turns]
        if not positions:  # an agent that waited, or a partner, who has no critic
            return
        estimate(self.critic_called(name), positions, self._micro_batch_tokens)
        for turns in played:
            spread(turns, gae_lambda)
        self.experience[name] = positions

    def improve(self, rng: np.random.Generator) -> dict[str, float]:
        """Train every critic that owns its trunk on what it was asked; see :meth:`fit`.

        Returns:
            For each critic ``value_loss`` (mean squared error of the values before the update) and
            ``explained_variance`` of the targets by them (1: foretold exactly; 0: no better than their mean), and
            ``critic_grad_norm`` before clipping.
        """
        metrics: dict[str, float] = {}
        for name, samples in self.experience.items():
            metrics |= {f"{key}/{name}": value for key, value in describe_values(samples).items()}
            if name in self.optimizers:
                metrics[f"critic_grad_norm/{name}"] = self.fit(name, samples, rng)
        self.experience = {}
        return metrics

    def value_error(self, values: Tensor, targets: Tensor, old_values: Tensor) -> Tensor:
        """Return (V - R)^2, targets frozen, of any shape."""
        return (values - targets).square()

    def fit(self, name: str, samples: list[Sample], rng: np.random.Generator) -> float:
        """Descend the mean of :meth:`value_error` over a critic's positions; return the mean gradient norm.

        Raises:
            FloatingPointError: The gradient is not finite.
        """
        critic, optimizer, norms = self.critics[name], self.optimizers[name], []
        for _ in range(self.epochs):
            for part in self.deal(len(samples), rng):
                own = [samples[i] for i in part]
                positions = sum(len(sample.token_ids) for sample in own)
                optimizer.zero_grad(set_to_none=True)
                with critic.trunk.adapted():
                    for batch in micro_batches(own, self._micro_batch_tokens, critic.trunk.shares_prompts):
                        values, mask = critic.values(batch.prompts, batch.token_ids())
                        targets = values.new_tensor([v for s in batch.flat() for v in s.value_targets or ()])
                        old = values.new_tensor([v for s in batch.flat() for v in s.old_values or ()])
                        (self.value_error(values[mask], targets, old).sum() / positions).backward()
                parameters = [p for p in critic.parameters() if p.grad is not None]
                norm = torch.nn.utils.clip_grad_norm_(parameters, self.critic_max_grad_norm or math.inf)
                if not math.isfinite(norm):
                    raise FloatingPointError(
                        f"critic {name!r}: the gradient's norm {norm} is not finite. The last checkpoint is intact; start "
                        "a new run with a lower algo.critic_learning_rate or team.dtype float32"
                    )
                optimizer.step()
                norms.append(float(norm))
        optimizer.zero_grad(set_to_none=True)
        return float(np.mean(norms))


def turns_of(
    root: Node, agent: int, discount: float, read: Callable[[Node, int], Sample | None]
) -> list[list[Turn]]:
    """Return the turns of every episode below ``root`` at which somebody decides.

    Rewards that come while the decider waits belong to its last decision before; those that come before its first are
    nobody's doing.

    Args:
        root: Of aligned episodes.
        agent: Whose rewards, by index.
        discount: gamma, per turn of the environment.
        read: Of a node and one of its joint actions: what the critic reads there, or None where nobody decides.
    """
    played = []
    for path in episodes(root):
        turns: list[Turn] = []
        for node, member in path:
            own, reward = read(node, member), float(node.rewards[member][agent])
            if own is not None:
                turns.append(Turn(node, member, own, reward, discount))
            elif turns:
                turns[-1].reward += turns[-1].discount * reward
                turns[-1].discount *= discount
        if turns:
            turns[-1].discount = 0.0
            played.append(turns)
    return played


def response_at(node: Node, member: int, agent: str) -> Response:
    """Return what an agent answered in one of a node's aligned joint actions; without tokens where it waited."""
    return node.responses[agent][node.joint_actions[member][0]]


def conversations_at(node: Node, member: int) -> dict[str, Conversation]:
    """Return each agent's own conversation before one of a node's joint actions."""
    return node.conversations[member if len(node.conversations) > 1 else 0]


def grouped(credited: Iterable[tuple[Turn, Sample]]) -> list[Group]:
    """Put samples of one agent at one node together; what describes their spread are the values' targets there."""
    found: dict[tuple[int, str], list[tuple[Turn, Sample]]] = {}
    for turn, sample in credited:
        found.setdefault((id(turn.node), sample.agent), []).append((turn, sample))
    return [
        Group([s for _, s in own], np.array([(turn.position.value_targets or [0.0])[0] for turn, _ in own]))
        for own in found.values()
    ]


def joint_history(conversations: Mapping[str, Conversation]) -> Conversation:
    """Return all agents' conversations as one text, each under its agent's name; one agent's is its own, untagged."""
    if len(conversations) == 1:
        return next(iter(conversations.values()))
    parts = [f"[{agent}]\n{render_conversation(own)}" for agent, own in conversations.items()]
    return [{"role": "user", "content": "\n\n".join(parts)}]


@torch.no_grad()
def estimate(critic: Critic, positions: list[Sample], max_tokens: int) -> None:
    """Fill in the values at every position, at most ``max_tokens`` tokens in one pass."""
    critic.check_room([p.prompt_ids for p in positions], max(len(p.token_ids) for p in positions))
    with critic.trunk.adapted():
        for batch in micro_batches(positions, max_tokens, critic.trunk.shares_prompts):
            values, mask = critic.values(batch.prompts, batch.token_ids())
            for own, row, real in zip(batch.flat(), values, mask, strict=True):
                own.old_values = row[real].tolist()


def spread(turns: Sequence[Turn], gae_lambda: float) -> None:
    """Fill in advantages and value targets of one episode, A + V: the reward of a turn comes at its last position."""
    read = [turn.position for turn in turns]
    values = [np.array(own.old_values) for own in read]
    rewards = [np.zeros(len(own)) for own in values]
    discounts = [np.ones(len(own)) for own in values]
    for turn, reward, discount in zip(turns, rewards, discounts, strict=True):
        reward[-1], discount[-1] = turn.reward, turn.discount
    advantages = gae(np.concatenate(rewards), np.concatenate(values), np.concatenate(discounts), gae_lambda)
    ends = np.cumsum([len(own) for own in values])[:-1]
    for own, before, after in zip(read, values, np.split(advantages, ends), strict=True):
        own.advantage = after.tolist()
        own.value_targets = (after + before).tolist()


def gae(rewards: np.ndarray, values: np.ndarray, discounts: np.ndarray, gae_lambda: float) -> np.ndarray:
    """Return generalised advantage estimates, shape (T,) as all arguments (arXiv 1506.02438).

    delta_t = r_t + gamma_t V_{t+1} - V_t,    A_t = delta_t + gamma_t lambda A_{t+1}

    gamma_t is ``discounts[t]``; 0 ends an episode, and the last must be.
    """
    advantages = np.zeros(len(values))
    next_value = next_advantage = 0.0
    for t in reversed(range(len(values))):
        delta = rewards[t] + discounts[t] * next_value - values[t]
        next_advantage = advantages[t] = delta + discounts[t] * gae_lambda * next_advantage
        next_value = values[t]
    return advantages


def describe_values(samples: list[Sample]) -> dict[str, float]:
    """Compare values with their targets, over all positions: ``value_loss`` and ``explained_variance``."""
    targets = np.concatenate([s.value_targets or [] for s in samples])
    error = targets - np.concatenate([s.old_values or [] for s in samples])
    variance = targets.var()
    return {
        "value_loss": float((error**2).mean()),
        "explained_variance": float(1 - error.var() / variance) if variance > 0 else 0.0,
    }
