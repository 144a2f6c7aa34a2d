"""What an algorithm is: how experience is collected, what credit a response gets, and what the loss is.

Everything else (the loop, optimizers, logging, evaluation, checkpoints) is the trainer's. An algorithm that learns more
than policies (a critic, an estimator) makes it in ``setup``, trains it in ``improve`` or by its loss, and keeps it in
``state_dict``. To add one, subclass :class:`Algorithm`, or an algorithm that is close, and override what differs::

    @dataclass
    class Positive(MAGRPO):
        '''MAGRPO that learns from the better half only.'''

        def advantages(self, credits):
            return super().advantages(credits).clip(min=0)

``textmarl train --algo path/to/file.py:Positive`` trains it, its dataclass fields are flags.
"""

from __future__ import annotations

import importlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import numpy as np
from pettingzoo import ParallelEnv
from torch import Tensor
from torch.nn import Parameter

from textmarl.agents.team import Team
from textmarl.agents.user_code import CodeNotFound, import_code
from textmarl.algos.rollout import Node, Rollout


@dataclass
class Sample:
    """One response with its credit: a row of the update."""

    agent: str
    prompt_ids: list[int]
    token_ids: list[int]
    """End-of-sequence token included, padding excluded."""
    sampled_logprobs: list[float]
    """Log-probabilities at the moment of sampling, in the precision of sampling."""
    finish: str
    """"stop" or "length" (cut at the limit)."""
    advantage: float | list[float]
    """One for the response, or one for each token."""
    weight: float
    """Share of the loss."""
    value_targets: list[float] | None = None
    """What the value before each token is to become, where the loss trains a value head."""
    old_values: list[float] | None = None
    """The value before each token when the experience was collected."""


@dataclass
class Group:
    """The samples of one agent that were compared with each other."""

    samples: list[Sample]
    credits: np.ndarray
    """(n,) what was compared: their spread is the group's signal."""


@dataclass
class Batch:
    """Samples of one agent, scored: what a loss is computed from. ``n`` responses of at most ``L`` tokens.

    The loss of an update is the *sum* over its batches, whatever their sizes: weights carry every average.
    """

    logprobs: Tensor
    """(n, L) log pi(token), with gradients; 0 on padding."""
    entropies: Tensor
    """(n, L) entropy of the distribution each token was drawn from, with gradients; 0 on padding."""
    mask: Tensor
    """(n, L) bool, True on response tokens."""
    advantages: Tensor
    """(n, L): a response's advantage stands on each of its tokens."""
    weights: Tensor
    """(n,)"""
    old_logprobs: Tensor | None
    """(n, L) log-probabilities before the first update on this experience, where it is used more than once."""
    reference_logprobs: Tensor | None
    """(n, L) log-probabilities under the reference policy, where the algorithm asks for them."""
    max_new_tokens: int
    """The token limit of sampling."""
    agent: str = ""
    """Whose responses they are."""
    value_targets: Tensor | None = None
    """(n, L) those of the samples, where they have some; 0 on padding."""
    old_values: Tensor | None = None
    """(n, L) those of the samples, where they have some; 0 on padding."""
    states: Tensor | None = None
    """(n, L, hidden) last hidden states of the policy that each token is predicted from, with gradients, where the
    algorithm asks for them; 0 on padding."""


@dataclass
class Algorithm(ABC):
    """Base of all algorithms; every hyper-parameter is a dataclass field."""

    epochs: int = 1
    """Updates on the same experience; 1 is one on-policy pass."""
    minibatches: int = 1
    """Parts that an epoch's groups are divided into, an optimizer step each."""

    discount = 1.0  # of those without a setting of this name, which is a field in this place
    """Between the turns of the return that :meth:`credit` estimates; whoever judges credit replays with it."""

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {}
    """Named settings: field values by preset."""

    @classmethod
    def preset(cls, name: str, **changes: object) -> Algorithm:
        """Return the algorithm with the settings of a preset, and ``changes`` to them.

        Raises:
            ValueError: No preset of that name.
        """
        if name not in cls.PRESETS:
            raise ValueError(
                f"{cls.__name__} has no preset {name!r}; there are: {', '.join(cls.PRESETS) or 'none'}"
            )
        return cls(**{**cls.PRESETS[name], **changes})  # type: ignore[arg-type]

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work with these agents; called before any model is loaded.

        Raises:
            ValueError: A setting is wrong; the message says which and what to do.
        """
        if self.epochs < 1 or self.minibatches < 1:
            raise ValueError(
                f"epochs and minibatches must be at least 1, got {self.epochs} and {self.minibatches}"
            )
        if not 0 <= self.discount <= 1:
            raise ValueError(f"algo.discount must be in [0, 1], got {self.discount}")

    def validate_learners(self, learners: Sequence[str]) -> None:  # noqa: B027  (most take any number)
        """Refuse settings that cannot work where these agents are trained and the others are partners.

        Called before any model is loaded.

        Raises:
            ValueError: A setting is wrong; the message says which and what to do.
        """

    @property
    def copies_episodes(self) -> bool:
        """Whether :meth:`collect` plays on several times from one history, so that the environment must be copied.

        Where it is False, environments that cannot be copied are played, too: in as many instances as there are episodes.
        """
        return True

    def check_choices(self, declared_in: type) -> None:
        """Refuse a value that is none of its field's choices, of the fields that ``declared_in`` knows."""
        for name, kind in get_type_hints(declared_in).items():
            if get_origin(kind) is Literal and vars(self)[name] not in get_args(kind):
                raise ValueError(f"algo.{name} must be one of {get_args(kind)}, got {vars(self)[name]!r}")

    @property
    def needs_reference(self) -> bool:
        """Whether the loss reads ``Batch.reference_logprobs``."""
        return False

    @property
    def needs_states(self) -> bool:
        """Whether the loss reads ``Batch.states``."""
        return False

    @property
    def plays_initial_policies(self) -> bool:
        """Whether :meth:`collect` samples from the policies that agents began with."""
        return False

    def validate_environment(self, env: ParallelEnv) -> None:  # noqa: B027  (most learn in any)
        """Refuse an environment that this algorithm cannot learn in; called before any model is loaded.

        Raises:
            ValueError: Says what of the environment does not fit, and what to do.
        """

    def deal(self, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Deal the indices of an epoch's ``count`` groups out to its mini-batches: at random, but for a single one."""
        order = rng.permutation(count) if self.minibatches > 1 else np.arange(count)
        return [part for part in np.array_split(order, self.minibatches) if len(part)]

    def setup(self, team: Team, seed: int) -> None:  # noqa: B027  (most learn nothing beside the policies)
        """Create what is learned beside the policies; called once a run, before there are optimizers.

        Called again, for a new run, it forgets what an earlier one learned.

        Args:
            team: The policies that will be trained.
            seed: Draws initial weights; independent of every other random stream of the run.
        """

    def parameters(self, agent: str) -> list[Parameter]:
        """Return what the agent's loss trains beside its policy: in the same optimizer, clipped with the same gradient.

        For instance a value head on the policy's own trunk.
        """
        return []

    @abstractmethod
    def collect(self, rollout: Rollout, tasks: Sequence[tuple[int, int | str | None]]) -> list[Node]:
        """Gather experience on the given tasks (a seed and a task each); return the root of each."""

    @abstractmethod
    def credit(self, roots: list[Node], agents: Sequence[str]) -> Iterable[Group]:
        """Give every response (or token) its advantage and its weight in the loss."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return a batch's contribution to its agent's loss, a scalar to descend."""

    def goes_on(self, approx_kl: float) -> bool:
        """Say whether an agent's update takes its next optimizer step; the first False ends it for this training step.

        Args:
            approx_kl: k3 estimate of KL(policy that sampled || policy), nats per token of the mini-batch at hand; 0 where
                experience is used once.
        """
        return True

    def improve(self, rng: np.random.Generator) -> dict[str, float]:
        """Train what :meth:`setup` created, after all policies of a training step were updated.

        Args:
            rng: A stream of its own for each training step.

        Returns:
            Metrics of the step, by name.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a later step depends on, for the checkpoint: tensors, numbers, texts, lists and dicts of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027  (most have none)
        """Take up what :meth:`state_dict` returned, after :meth:`setup`."""


def returns(node: Node, discount: float) -> np.ndarray:
    """Return R^(j) = r^(j) + discount * mean over what follows, shape (J, N); a leaf's return is its reward."""
    total = node.rewards.copy()
    following = {id(child): returns(child, discount) for child in node.children()}
    for j, continuation in enumerate(node.continuations):
        if continuation is not None:
            child, place = continuation
            after = following[id(child)]
            total[j] += discount * (after.mean(axis=0) if place is None else after[place])
    return total


def resolve(name: str) -> type[Algorithm]:
    """Find an algorithm's class.

    Args:
        name: A module of ``textmarl.algos`` (``"magrpo"``), which defines one Algorithm, or
            ``"path/to/file.py:Class"`` (the class may be left out where the file defines one).

    Raises:
        CodeNotFound: (a ValueError) No such module, file or class. An error inside the file passes as it is.
    """
    path, colon, wanted = name.rpartition(":") if ".py:" in name else (name, "", "")
    if path.endswith(".py"):
        module = import_code(path)
    else:
        known = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if defines_algorithm(p.stem))
        if name not in known:
            raise CodeNotFound(
                f"unknown algorithm {name!r}; there are: {', '.join(known)}, and path/to/file.py:ClassName for your own"
            )
        module = importlib.import_module(f"textmarl.algos.{name}")
    defined = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Algorithm) and value.__module__ == module.__name__
    }
    if colon and wanted in defined:
        return defined[wanted]
    if not colon and len(defined) == 1:
        return next(iter(defined.values()))
    expected = f"{path!r} to define the Algorithm {wanted!r}" if colon else f"one Algorithm in {path!r}"
    raise CodeNotFound(
        f"expected {expected}; it defines: {', '.join(defined) or 'none (a subclass of textmarl.algos.Algorithm)'}"
    )


def defines_algorithm(stem: str) -> bool:
    """Say whether the module ``textmarl.algos.<stem>`` defines an algorithm of its own."""
    if stem.startswith("_") or stem == "algorithm":
        return False
    module = importlib.import_module(f"textmarl.algos.{stem}")
    return any(
        inspect.isclass(v)
        and issubclass(v, Algorithm)
        and not inspect.isabstract(v)  # a base of several
        and v.__module__ == module.__name__
        for v in vars(module).values()
    )
