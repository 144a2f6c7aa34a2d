"""PMIC: progressive mutual information collaboration (arXiv 2203.08553), carried to text.

A team can cooperate well or badly in a strongly correlated way. PMIC strengthens the dependence of the joint action on the
state where things went well and weakens it where they did not. With s the embedded joint history and u the embedded
responses of all agents (:mod:`~textmarl.algos.text_embedding`),

    I_low = E_p[log 2 - sp(-T)] - E_pp[sp(T) - log 2],  T = <f(s), g(u)>       learned on what went well
    I_up  = E_p[log q(u|s)] - E_pp[log q(u|s)]                                 learned on the rest
    r'    = r + alpha z(I_low) - beta z(I_up)

(:mod:`~textmarl.algos.mutual_information`, :mod:`~textmarl.algos.collaboration_buffer`), where every joint action of the
experience is a pair (s, u) with a value of each bound, and z standardises over all of them, clipped to [-3, 3]. The rewards
r' then go to another algorithm of the package, which is left as it is: it collects, credits and gives the loss. What is
logged as score and return is what the environment paid.

The estimators learn after the policies, from the buffers, and are held while experience is collected and credited; the
bonus draws nothing at random, and training draws from a stream of its own. With alpha = beta = 0 a run is that of the base,
bit for bit. Cost: that of the base; no generation and no reward evaluation is added. Page: docs/algorithms/pmic.md.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from jsonargparse import ArgumentParser
from pettingzoo import ParallelEnv
from torch import Tensor
from torch.nn import Parameter

from textmarl.agents.team import Team
from textmarl.algos.algorithm import Algorithm, Batch, Group, resolve
from textmarl.algos.collaboration_buffer import CollaborationBuffer, Episode, stacked
from textmarl.algos.credit_diagnostics import played
from textmarl.algos.joint_actions import JointActions, all_episodes, embedded
from textmarl.algos.mutual_information import Estimator, LowerBound, UpperBound, descend, estimate
from textmarl.algos.rollout import Node, Rollout

Mode = Literal["both", "max", "min"]


@dataclass
class PMIC(Algorithm):
    """PMIC around another algorithm, whose rewards it shapes."""

    epochs: int = 0
    """Updates on the same experience; 0: as many as the base makes."""
    minibatches: int = 0
    """Parts that an epoch's groups are divided into; 0: as many as the base's."""
    base: str = "magrpo"
    """The algorithm that learns from the shaped rewards: what --algo takes, but for pmic itself."""
    base_kwargs: dict[str, Any] = field(default_factory=dict)
    """Its settings where they are not its defaults, singly (--algo.base_kwargs.group_size 4) or as JSON."""
    mode: Mode = "both"
    """both; controls: max, only I_low enters the reward (alpha); min, only I_up (beta)."""
    alpha: float = 0.01
    """Weight of I_low in the reward, in rewards per standard deviation (the paper's code, predator-prey with 3 agents: 0.01
    of I_low itself)."""
    beta: float = 0.1
    """Weight of I_up in the reward, in rewards per standard deviation (the paper's code, there: 0.1 of I_up itself)."""
    positive_size: int = 128
    """Episodes of the positive buffer (the paper's code: 1000 transitions, in runs of millions)."""
    negative_size: int = 512
    """Episodes of the negative buffer, the oldest leave first (the paper's code: 1000 transitions)."""
    mean_window: int = 1000
    """Episodes whose mean normalised return a positive must exceed (the paper's code: 1000, returns as they are)."""
    embedding_size: int = 256
    """Numbers in the embedding of one text; s and u have one for each agent (ours)."""
    estimator_updates: int = 10
    """Optimizer steps of each estimator after every training step (ours; the paper's code: one in 100 steps of the
    environment, over millions)."""
    estimator_batch_size: int = 128
    """Pairs in such a step, each compared with all others of it (the paper's code: 1024)."""
    estimator_learning_rate: float = 1e-3
    """Of Adam (the paper's code: 1e-4, over far more steps)."""

    def __post_init__(self) -> None:
        chosen = {n: v for n, v in (("epochs", self.epochs), ("minibatches", self.minibatches)) if v}
        for name, value in chosen.items():
            if self.base_kwargs.get(name, value) != value:
                raise ValueError(
                    f"algo.{name} {value} and algo.base_kwargs.{name} {self.base_kwargs[name]} contradict each other; "
                    "give one of them"
                )
        kind = resolve(self.base)
        if issubclass(kind, PMIC):
            raise ValueError("algo.base pmic would shape its own rewards; name another algorithm")
        try:
            parser = ArgumentParser(exit_on_error=False)
            parser.add_class_arguments(kind)
            settings = parser.parse_object({**self.base_kwargs, **chosen}).as_dict()
        except argparse.ArgumentError as error:
            raise ValueError(
                f"algo.base_kwargs of the base {self.base}: {' '.join(str(error).split())}"
            ) from error
        self.wrapped: Algorithm = kind(**settings)
        self.epochs, self.minibatches = self.wrapped.epochs, self.wrapped.minibatches
        self.discount = self.wrapped.discount
        self.buffer = CollaborationBuffer(self.positive_size, self.negative_size, self.mean_window)
        self.estimators: dict[str, Estimator] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._played: list[Episode] = []
        self._bonus = np.zeros(0)

    # ------------------------------------------------------------------------------------------- what is the base's

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work, the base's too; see :meth:`Algorithm.validate`."""
        if self.mode not in get_args(Mode):
            raise ValueError(f"algo.mode must be one of {get_args(Mode)}, got {self.mode!r}")
        for name in ("alpha", "beta"):
            weight = vars(self)[name]
            if not (weight >= 0 and math.isfinite(weight)):
                raise ValueError(
                    f"algo.{name} must be a number of 0 or more, got {weight}; signs are PMIC's own"
                )
        for name, least in (
            ("positive_size", 2),
            ("negative_size", 2),
            ("mean_window", 1),
            ("embedding_size", 2),
            ("estimator_updates", 1),
            ("estimator_batch_size", 2),
        ):
            if vars(self)[name] < least:
                raise ValueError(f"algo.{name} must be at least {least}, got {vars(self)[name]}")
        if not (self.estimator_learning_rate > 0 and math.isfinite(self.estimator_learning_rate)):
            raise ValueError(
                f"algo.estimator_learning_rate must be a positive number, got {self.estimator_learning_rate}"
            )
        with self._told_of_base():
            self.wrapped.validate(agents)

    @contextmanager
    def _told_of_base(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise ValueError(f"{error} (algo.base {self.base}: its settings are algo.base_kwargs)") from error

    def validate_environment(self, env: ParallelEnv) -> None:
        """Refuse what the base refuses."""
        with self._told_of_base():
            self.wrapped.validate_environment(env)

    def validate_learners(self, learners: Sequence[str]) -> None:
        """Refuse what the base refuses."""
        with self._told_of_base():
            self.wrapped.validate_learners(learners)

    @property
    def copies_episodes(self) -> bool:
        """As the base."""
        return self.wrapped.copies_episodes

    @property
    def needs_reference(self) -> bool:
        """As the base."""
        return self.wrapped.needs_reference

    @property
    def needs_states(self) -> bool:
        """As the base."""
        return self.wrapped.needs_states

    @property
    def plays_initial_policies(self) -> bool:
        """As the base."""
        return self.wrapped.plays_initial_policies

    def parameters(self, agent: str) -> list[Parameter]:
        """Those of the base: no policy's loss trains an estimator."""
        return self.wrapped.parameters(agent)

    def collect(self, rollout: Rollout, tasks: Sequence[tuple[int, int | str | None]]) -> list[Node]:
        """Let the base collect."""
        return self.wrapped.collect(rollout, tasks)

    def deal(self, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        """As the base."""
        return self.wrapped.deal(count, rng)

    def loss(self, batch: Batch) -> Tensor:
        """Return the base's loss."""
        return self.wrapped.loss(batch)

    def goes_on(self, approx_kl: float) -> bool:
        """As the base."""
        return self.wrapped.goes_on(approx_kl)

    # ---------------------------------------------------------------------------------------------- the shaped reward

    def setup(self, team: Team, seed: int) -> None:
        """Create the estimators, and what the base has to create."""
        self.wrapped.setup(team, seed)
        size = len(team.names) * self.embedding_size
        with torch.random.fork_rng(devices=[]):  # the base and the policies find their streams as they were
            torch.manual_seed(seed)
            self.estimators = {"lower": LowerBound(size, size), "upper": UpperBound(size, size)}
        self.optimizers = {
            name: torch.optim.Adam(estimator.parameters(), lr=self.estimator_learning_rate)
            for name, estimator in self.estimators.items()
        }
        self.buffer = CollaborationBuffer(self.positive_size, self.negative_size, self.mean_window)
        self._played = []

    def credit(self, roots: list[Node], agents: Sequence[str]) -> Iterable[Group]:
        """Let the base credit copies of the nodes with shaped rewards; the nodes stay as they are."""
        if not self.estimators:
            raise RuntimeError("PMIC credits by estimators that setup(team, seed) makes; call it first")
        found = embedded(roots, agents, self.embedding_size)
        self._bonus = self.bonus(found.states, found.actions)
        self._played = [found.episode(path) for root in roots for path in all_episodes(root, agents)]
        return list(self.wrapped.credit(shaped(roots, found, self._bonus), agents))

    def bonus(self, states: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return alpha z(I_low) - beta z(I_up) of each of K pairs, shape (K,).

        Args:
            states: (K, S)
            actions: (K, U)
        """
        s, u = torch.from_numpy(states).double(), torch.from_numpy(actions).double()
        alpha = self.alpha if self.mode != "min" else 0.0
        beta = self.beta if self.mode != "max" else 0.0
        low = standardised(estimate(self.estimators["lower"], s, u))
        up = standardised(estimate(self.estimators["upper"], s, u))
        return alpha * low - beta * up

    # ------------------------------------------------------------------------------------- what is learned beside it

    def improve(self, rng: np.random.Generator) -> dict[str, float]:
        """Let the base improve; take the step's episodes into the buffers, and train the estimators on those.

        Returns:
            The base's metrics, and ``pmic/...``: the bounds in nats on the pairs that each estimator learns from (before
            each update, averaged), the episodes of each buffer, and the standard deviation of the bonus.
        """
        metrics = dict(self.wrapped.improve(rng))
        self.buffer.add(self._played)
        self._played = []
        for name, stored in (("lower", self.buffer.positive), ("upper", [*self.buffer.negative])):
            bounds = []
            states, actions = stacked(stored) if stored else (torch.zeros(0), torch.zeros(0))
            size = min(self.estimator_batch_size, len(states))
            for _ in range(self.estimator_updates if size > 1 else 0):
                drawn = torch.from_numpy(rng.choice(len(states), size, replace=False))
                bounds.append(
                    descend(self.estimators[name], self.optimizers[name], states[drawn], actions[drawn])
                )
            metrics[f"pmic/{name}_bound"] = float(np.mean(bounds or [0.0]))
        return metrics | {
            "pmic/positive_episodes": len(self.buffer.positive),
            "pmic/negative_episodes": len(self.buffer.negative),
            "pmic/bonus_std": float(self._bonus.std()),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the estimators, their optimizers and the buffers, and the base's state."""
        return {
            "base": self.wrapped.state_dict(),
            "estimators": {name: own.state_dict() for name, own in self.estimators.items()},
            "optimizers": {name: own.state_dict() for name, own in self.optimizers.items()},
            "buffer": self.buffer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what :meth:`state_dict` returned."""
        self.wrapped.load_state_dict(state["base"])
        for name, estimator in self.estimators.items():
            estimator.load_state_dict(state["estimators"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        self.buffer.load_state_dict(state["buffer"])


def shaped(roots: list[Node], found: JointActions, bonus: np.ndarray) -> list[Node]:
    """Return copies of the nodes, linked as they are, whose rewards have the bonus of each joint action added."""
    copies = {id(node): copy.copy(node) for node in played(roots)}
    for node in played(roots):
        own = copies[id(node)]
        own.rewards = node.rewards + bonus[found.index[id(node)]][:, None]
        own.continuations = [c and (copies[id(c[0])], c[1]) for c in node.continuations]
        own.decisions = [copies[id(decision)] for decision in node.decisions]
    return [copies[id(root)] for root in roots]


def standardised(values: np.ndarray) -> np.ndarray:
    """Return z = (x - mean) / population standard deviation, clipped to [-3, 3]; 0 where all are equal but for rounding."""
    deviation = values.std()
    if deviation <= 1e-9 * np.abs(values).max():
        return np.zeros_like(values)
    return np.clip((values - values.mean()) / deviation, -3, 3)
