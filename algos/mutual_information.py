"""Two trained estimates of the mutual information I(s; u) of pairs: a lower bound and an upper bound.

Both compare pairs (s_k, u_k) that belong together with the mismatched pairs (s_k, u_j), j != k, of the same batch: the
first are drawn from p(s, u), the second from p(s) p(u). Each gives a number for every pair, whose mean is the bound.
Computed in double precision on the CPU: the batches are small.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus


class Estimator(nn.Module, ABC):
    """A bound of the mutual information that is trained by gradient descent on :meth:`loss`."""

    trained: Tensor
    """Optimizer steps so far."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("trained", torch.zeros((), dtype=torch.int64))

    @abstractmethod
    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return each pair's part in the bound, in nats, shape (K,).

        Args:
            states: (K, S) float64.
            actions: (K, U) float64, ``actions[k]`` belongs to ``states[k]``; K is 2 or more.
        """

    @abstractmethod
    def loss(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return what training descends, a scalar; arguments as of :meth:`forward`."""


class LowerBound(Estimator):
    """The Jensen-Shannon bound (arXiv 1606.00709; as in Deep InfoMax, arXiv 1808.06670) that PMIC maximises.

    Its maximum over T is twice the Jensen-Shannon divergence of p(s, u) from p(s) p(u). That is never above
    I(s; u) = KL(p(s, u) || p(s) p(u)), since -(t + 1) log((t + 1) / 2) is concave in the ratio t of the two and so lies
    below its tangent 1 - t; and it is never above 2 log 2, however much one tells of the other.
    """

    def __init__(self, state_size: int, action_size: int, hidden: int = 64, features: int = 32):
        super().__init__()
        self.of_state = perceptron(state_size, hidden, features)
        self.of_action = perceptron(action_size, hidden, features)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """I_low = E_p[log 2 - sp(-T)] - E_pp[sp(T) - log 2], T = <f(s), g(u)>."""
        scores = self.of_state(states) @ self.of_action(actions).T  # (K, K): T of the k-th s and the j-th u
        return math.log(2) - softplus(-scores.diagonal()) - mismatched(softplus(scores) - math.log(2))

    def loss(self, states: Tensor, actions: Tensor) -> Tensor:
        """The bound is maximised itself."""
        return -self(states, actions).mean()


class UpperBound(Estimator):
    """CLUB (arXiv 2006.12013): an upper bound where q(u|s) is p(u|s), or nearer to it than to p(u).

    q is Gaussian with a mean and a variance for each component of u; variances stay between 1/e and e, as in PMIC's
    published code, so that a state seen once cannot make q a spike.
    """

    def __init__(self, state_size: int, action_size: int, hidden: int = 64):
        super().__init__()
        self.mean = perceptron(state_size, hidden, action_size)
        self.log_variance = nn.Sequential(perceptron(state_size, hidden, action_size), nn.Tanh())

    def log_density(self, states: Tensor, actions: Tensor) -> Tensor:
        """Return log q of every action given every state, shape (K, K): that of u_j given s_k at [k, j]."""
        mean, log_variance = self.mean(states), self.log_variance(states)
        precision = (-log_variance).exp()
        # sum over components of (u - mean)^2 / variance, multiplied out: no (K, K, U) is made
        square = (
            precision @ (actions**2).T
            - 2 * (mean * precision) @ actions.T
            + (mean**2 * precision).sum(dim=1, keepdim=True)
        )
        constant = log_variance.sum(dim=1, keepdim=True) + actions.shape[1] * math.log(2 * math.pi)
        return -0.5 * (square + constant)

    def forward(self, states: Tensor, actions: Tensor) -> Tensor:
        """I_up = E_p[log q(u|s)] - E_pp[log q(u|s)]."""
        log_density = self.log_density(states, actions)
        return log_density.diagonal() - mismatched(log_density)

    def loss(self, states: Tensor, actions: Tensor) -> Tensor:
        """Maximum likelihood of q: the bound itself is not what is descended."""
        return -self.log_density(states, actions).diagonal().mean()


@torch.no_grad()
def estimate(estimator: Estimator, states: Tensor, actions: Tensor, most: int = 1024) -> np.ndarray:
    """Return each pair's part in the bound, shape (K,); zeros by an estimator that was never trained.

    Args:
        estimator: Of the bound.
        states: (K, S)
        actions: (K, U)
        most: Beyond this number, pairs are compared in several parts (memory grows with the square); neighbours, which
            are often answers to one history, are dealt to different parts.
    """
    parts = np.zeros(len(states))
    if estimator.trained and len(states) > 1:
        count = math.ceil(len(states) / most)
        for first in range(count):
            parts[first::count] = estimator(states[first::count], actions[first::count]).numpy()
    return parts


def mismatched(values: Tensor) -> Tensor:
    """Return the mean of each row of a (K, K) matrix without its diagonal, shape (K,)."""
    return (values.sum(dim=1) - values.diagonal()) / (len(values) - 1)


def perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Make a network with one hidden layer, in double precision."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs)).double()


def descend(estimator: Estimator, optimizer: torch.optim.Optimizer, states: Tensor, actions: Tensor) -> float:
    """Take one optimizer step; return the bound on these pairs before it, in nats."""
    with torch.no_grad():
        bound = float(estimator(states, actions).mean())
    optimizer.zero_grad(set_to_none=True)
    estimator.loss(states, actions).backward()
    optimizer.step()
    estimator.trained += 1
    return bound
