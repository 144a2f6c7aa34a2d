"""C3: contextual counterfactual credit assignment (arXiv 2603.06859).

An *anchor* episode is played. At each decision of it (a turn t and an agent i) everything else is frozen, the joint
history and what the partners wrote at that turn, and n - 1 alternatives to what the agent wrote are sampled. Each is
continued once to the end by the policies as they are; the anchor's own continuation is the one that was played. The n
candidates differ in nothing but the decision and the luck after it, so their returns are compared with each other:

    A_j = R_j - mean of the other candidates' R          (leave one out: n / (n - 1) times the mean baseline)

and L_i = - sum over turns of (1/n) sum_j A_j log pi_i(y_j | h_i,t), averaged over tasks, with the clipped ratio where
the experience is used more than once.

Cost per task with H turns and n candidates a decision: 1 + N H (n - 1) continuations, of which those that branch off
at turn t have H - t turns left: H + N (n - 1) H (H + 1) / 2 reward evaluations, N H responses of the anchor, and
N (n - 1) sum_t (1 + N (H - t - 1)) others. With one turn that is 1 + N (n - 1) evaluations. Page:
docs/algorithms/c3.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from textmarl.algos.algorithm import Group
from textmarl.algos.group_relative import GroupRelative
from textmarl.algos.rollout import Node, Rollout
from textmarl.envs.vector import acting


@dataclass
class C3(GroupRelative):
    """Contextual counterfactual credit: what else could have been said here, by this agent alone?"""

    fan_out: int | list[int] = 4
    """n, candidates at each decision, the anchor's own among them; or a list, n for each turn, of which the last entry
    holds for all later turns, such as [2, 4] (the authors' for two roles, one after the other, and 8 samples a task).
    Default, ours: 7 evaluations for two agents and one turn, about MAGRPO's 8."""
    baseline: Literal["mean", "none", "leave_one_out", "max"] = "leave_one_out"
    """What a return is compared with (paper: leave_one_out, the mean of the other candidates)."""
    normalize: Literal["std", "none"] = "none"
    """std: divide by the population standard deviation of the candidates (then every baseline gives the same)."""

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work; see :meth:`Algorithm.validate`."""
        super().validate(agents)
        sizes = self.fan_out if isinstance(self.fan_out, list) else [self.fan_out]
        if not sizes or min(sizes) < 2:
            raise ValueError(
                "algo.fan_out counts the candidates of a decision, the one that was played among them: 2 or more at "
                f"every turn, got {self.fan_out}. Nothing can be compared with itself"
            )

    def candidates(self, turn: int) -> int:
        """Return n at a turn (0, 1, ...)."""
        if isinstance(self.fan_out, int):
            return self.fan_out
        return self.fan_out[min(turn, len(self.fan_out) - 1)]

    def collect(self, rollout: Rollout, tasks: Sequence[tuple[int, int | str | None]]) -> list[Node]:
        """Play an anchor for each task, and beside it the alternatives to each of its decisions."""
        anchors = rollout.collect(tasks, 1, "aligned", "chain")
        frozen = []  # (the anchor's turn, the decision that branches off there)
        for anchor in (node for root in anchors for node in root.subtree()):
            for agent in (a for a in acting(anchor.envs[0]) if a in rollout.learners):
                n = self.candidates(anchor.turn)
                decision = Node(anchor.task_id, anchor.turn, 1.0, 1 / n, anchor.envs, anchor.conversations)
                decision.learner = agent
                decision.responses = {a: said * (n - 1) for a, said in anchor.responses.items()}
                anchor.decisions.append(decision)
                frozen.append((anchor, decision))
        decisions = [decision for _, decision in frozen]
        rollout.sample_each(
            decisions,
            [
                {a: (a == d.learner) * (self.candidates(d.turn) - 1) for a in rollout.agents}
                for d in decisions
            ],
        )
        nodes = rollout.step(decisions, "aligned", "chain")
        while nodes:
            rollout.sample(nodes, 1)
            nodes = rollout.step(nodes, "aligned", "chain")
        for anchor, decision in frozen:
            add_played(anchor, decision)
        return anchors

    def credit(self, roots: list[Node], agents: Sequence[str]) -> Iterable[Group]:
        """Compare the candidates of each decision."""
        for root in roots:
            for decision in (decision for anchor in root.subtree() for decision in anchor.decisions):
                i = agents.index(str(decision.learner))
                returns = self.joint_returns(decision)[:, i]  # (n,)
                weight = 1 / (len(returns) * len(roots))
                group = self.compare(agents[i], decision.responses[agents[i]], returns, weight)
                if group is not None:
                    yield group


def add_played(anchor: Node, decision: Node) -> None:
    """Put what the anchor played, and how it went on, before the alternatives."""
    decision.responses = {a: [*anchor.responses[a], *said] for a, said in decision.responses.items()}
    decision.rewards = np.concatenate([anchor.rewards, decision.rewards])
    decision.infos = [*anchor.infos, *decision.infos]
    decision.continuations = [*anchor.continuations, *decision.continuations]
    decision.joint_actions = [(j,) * len(anchor.responses) for j in range(len(decision.rewards))]
    decision.joint_weight = 1 / len(decision.rewards)
