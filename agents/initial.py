"""The policy that an agent began with, to play beside the one that it has become."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from textmarl.agents.conversation import Response
from textmarl.agents.policy import Policy


class InitialPolicy:
    """Samples from the reference policy: the base with the adapter off, or the frozen copy of a model of full weights.

    Args:
        policy: The agent's policy as it is now.

    Raises:
        ValueError: It trains its full weights and no copy was kept.
    """

    def __init__(self, policy: Policy):
        if not policy.has_adapter and policy.reference is None:
            raise ValueError(
                f"agent {policy.name!r} trains its full weights and its initial ones were not kept; create the team "
                'with reference="copy" to play with them'
            )
        self.policy = policy
        self.frozen = copy.copy(policy)
        # Without peft's wrapper there is no adapter to merge: the base is sampled from as it is.
        self.frozen.model = policy.model if policy.has_adapter else policy.reference
        self.frozen.network = self.frozen.model

    def generate(self, *args: Any, **kwargs: Any) -> list[list[Response]]:
        """Sample responses; arguments are those of :meth:`Policy.generate`."""
        off = self.policy.network.disable_adapter() if self.policy.has_adapter else contextlib.nullcontext()
        with off:
            return self.frozen.generate(*args, **kwargs)
