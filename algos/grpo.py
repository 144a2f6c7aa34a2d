"""GRPO on one agent: group-relative policy optimisation (arXiv 2402.03300), the centralised baseline.

One policy writes the texts of all roles in one response, with a delimiter between them: the environment is wrapped in
the protocol ``single`` (:class:`textmarl.envs.protocols.Single`), where a missing delimiter scores 0. It reads what
all roles read, so nothing has to be coordinated; what a team of N policies reaches is compared with it at the same
budget of generated tokens, that is with N times the token limit of one agent.

    A^(g) = (R^(g) - mean R) / max(population std of R, 1e-6)                             (its equation in section 4.1.2)
    L     = -(1/G) sum_g (1/c) sum_t [min(ratio A, clip(ratio, 1 - eps, 1 + eps) A) - beta KL(pi || pi_ref)]   (eq. 3)

This is MAGRPO with one agent: several turns are a tree of groups, or a chain. TRL's GRPO differs: sample standard
deviation, + 1e-4, and another length weighting.

Cost per task and turn: G responses, G reward evaluations (a tree over H turns: G + ... + G^H of both).
Page: docs/algorithms/grpo.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textmarl.algos.algorithm import Group
from textmarl.algos.group_relative import GroupRelative
from textmarl.algos.magrpo import compared
from textmarl.algos.rollout import Branching, Node, Rollout


@dataclass
class GRPO(GroupRelative):
    """GRPO: one policy, groups of responses to the same prompt."""

    group_size: int = 8
    """G, responses to each history (paper: 64). Default: as many reward evaluations as MAGRPO's."""
    branching: Branching = "tree"
    """tree: every response gets a group of its own at the next turn; chain: G parallel episodes (linear cost)."""

    PRESETS: ClassVar[dict[str, dict[str, object]]] = {
        "paper": {"group_size": 64, "length_weighting": "token_mean", "kl_coef": 0.04}
    }

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work; see :meth:`Algorithm.validate`."""
        if len(agents) != 1:
            raise ValueError(
                f"GRPO trains one policy that writes the texts of all roles, and there are the agents {list(agents)}. "
                "Wrap the environment in the protocol single (env.kwargs.protocol single, with sampling.max_new_tokens "
                f"{len(agents)} times that of one agent for equal generated tokens), or train them with algo igrpo"
            )
        super().validate(agents)
        self.check_choices(GRPO)
        self.check_group_size(self.group_size)

    @property
    def copies_episodes(self) -> bool:
        """Whether an episode is played on several times: in all but chains."""
        return self.branching == "tree"

    def collect(self, rollout: Rollout, tasks: Sequence[tuple[int, int | str | None]]) -> list[Node]:
        """Sample a tree or a chain for each task."""
        return rollout.collect(tasks, self.group_size, "aligned", self.branching)

    def credit(self, roots: list[Node], agents: Sequence[str]) -> Iterable[Group]:
        """Compare every response with its group, as MAGRPO does."""
        return compared(self, roots, agents, self.group_size)
