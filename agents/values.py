"""Values of histories: what an agent, or all of them, may expect from here on.

A critic is a *trunk*, a causal language model that reads a history, and a *head* that turns its last hidden states into
numbers. The trunk is a policy's own network (:meth:`textmarl.agents.team.Team.share_trunk`), or one that learns for the
critic alone (:meth:`textmarl.agents.team.Team.add_critic`). A value stands *before* a token: it has read what the token is
predicted from, and not the token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from textmarl.agents.policy import Policy
from textmarl.agents.sampling import Sampling
from textmarl.agents.scoring import by_row, plain_states, shared_states


class ValueHead(nn.Module):
    """V(s) = w . tanh(W s + b) + c, linear-tanh-linear as in CoLLM (arXiv 2601.21972); V = 0 to begin with.

    Args:
        hidden: Width of the states.
        generator: Draws W, each entry with standard deviation 1 / sqrt(hidden).
        dtype: Of its weights, and of the values.
        device: Where it is.
    """

    def __init__(self, hidden: int, generator: torch.Generator, dtype: torch.dtype, device: torch.device):
        super().__init__()
        self.inner = nn.Linear(hidden, hidden, dtype=dtype, device="meta").to_empty(device=device)
        self.outer = nn.Linear(hidden, 1, dtype=dtype, device="meta").to_empty(device=device)
        drawn = torch.randn(hidden, hidden, generator=generator) / math.sqrt(hidden)
        with torch.no_grad():
            self.inner.weight.copy_(drawn)
            for zero in (self.inner.bias, self.outer.weight, self.outer.bias):
                zero.zero_()

    def forward(self, states: Tensor) -> Tensor:
        """Return the values (...) of states (..., hidden)."""
        return self.outer(torch.tanh(self.inner(states.to(self.inner.weight.dtype)))).squeeze(-1)


class Critic:
    """A trunk with a value head.

    Args:
        trunk: Reads histories. Its name is that of its adapter.
        head: Turns states into values.
        owns_trunk: Whether the trunk is the critic's own and is trained with it, or a policy's.
    """

    def __init__(self, trunk: Policy, head: ValueHead, owns_trunk: bool):
        self.trunk, self.head, self.owns_trunk = trunk, head, owns_trunk

    @classmethod
    def on(cls, trunk: Policy, seed: int, owns_trunk: bool) -> Critic:
        """Put a new head on a trunk.

        Args:
            trunk: Reads histories.
            seed: Draws the head's weights. They are float32, or float64 where the trunk is.
            owns_trunk: Whether the trunk is the critic's own.
        """
        dtype = torch.promote_types(trunk.model.dtype, torch.float32)
        hidden = trunk.model.config.get_text_config().hidden_size
        head = ValueHead(hidden, torch.Generator().manual_seed(seed), dtype, trunk.device)
        return cls(trunk, head, owns_trunk)

    def parameters(self) -> list[Parameter]:
        """Return what is the critic's own: the head, and the trunk it owns."""
        trunk = list(self.trunk.parameters().values()) if self.owns_trunk else []
        return [*trunk, *self.head.parameters()]

    def values(self, prompts: list[list[int]], responses: list[list[list[int]]]) -> tuple[Tensor, Tensor]:
        """Return V(prompt, tokens so far) before every token of every response, with gradients.

        The value before the first token is that of the prompt, read at its last token; the last token is never read.

        Args:
            prompts: U prompts as token ids.
            responses: For each prompt its responses' token ids, n in all, each with at least one token.

        Returns:
            (n, L) values, 0 on padding, and the mask.
        """
        states = shared_states if self.trunk.shares_prompts else plain_states
        with self.trunk.adapted():
            found, _, mask = states(self.trunk.model, prompts, responses)
        return by_row(self.head(found), mask), mask

    def check_room(self, prompts: list[list[int]], new_tokens: int) -> None:
        """Refuse prompts that the trunk cannot read with ``new_tokens`` tokens behind them.

        Raises:
            NoRoomError: Says how long the longest prompt is, and what to do.
        """
        self.trunk.check_room(prompts, Sampling(max_new_tokens=new_tokens))

    def state_dict(self) -> dict[str, Any]:
        """Return its own parameters on the CPU: ``head``, and ``trunk`` where it owns one."""
        own = self.trunk.parameters() if self.owns_trunk else {}
        return {
            "head": {name: weight.detach().cpu() for name, weight in self.head.state_dict().items()},
            "trunk": {name: weight.detach().cpu() for name, weight in own.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copy parameters from :meth:`state_dict`.

        Raises:
            ValueError: The state is of another critic.
        """
        own = self.trunk.parameters() if self.owns_trunk else {}
        shapes = {name: tuple(weight.shape) for name, weight in own.items()}
        if {name: tuple(weight.shape) for name, weight in state["trunk"].items()} != shapes:
            raise ValueError(
                f"the saved state does not fit the critic {self.trunk.name!r}: it is of another model or adapter; create "
                "the team and the critic as they were"
            )
        self.head.load_state_dict(state["head"])
        for name, weight in own.items():
            weight.copy_(state["trunk"][name])
