"""Independent GRPO: every agent runs GRPO (arXiv 2402.03300) on its own and takes its partners for environment.

An agent has groups of its own and a baseline of its own. What tells its variants apart is who the partners are while
the group of agent i is sampled (``partner``):

* ``resampled``: every member of the group has partners' responses of its own, drawn afresh, which nobody learns from;
* ``fixed``: the partners' responses of the first turn are drawn once and held for the whole group;
* ``frozen``: as resampled, but the partners are the policies that training began with; agents are trained alone and
  joined afterwards;
* ``aligned``: the g-th responses of all agents are played together and everyone learns from all of them. With a team
  reward that is MAGRPO by another name (chains; with one turn, exactly), and serves as a check. With
  ``reward="individual"`` of the environment it is the variant *individual*: G joint evaluations give every agent a
  group of G, each credited with its own part of the reward.

With n members in a group, A^(g) = R^(g) - mean over the n, and L_i = -(1/n) sum_g A^(g) log pi_i(y_i^(g) | h_i). In
expectation fixed and resampled partners give the policy gradient times (n - 1) / n, as MAGRPO does with n = G: only
variance and cost differ. From the second turn on every member is an episode of its own, in which each agent answers
once; the group at turn t is the live ones.

Cost per task and turn: as many reward evaluations as MAGRPO's chain, G: all but ``aligned`` give each of N agents
that learn n = G/N members. N G responses, of which G (aligned: all) are learned from; ``fixed`` samples N (n + N - 1) at the
first turn. Page: docs/algorithms/igrpo.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pettingzoo import ParallelEnv

from textmarl.agents.initial import InitialPolicy
from textmarl.agents.policy import Policy
from textmarl.algos.algorithm import Group
from textmarl.algos.group_relative import GroupRelative
from textmarl.algos.rollout import Node, Rollout, Sampler


@dataclass
class IGRPO(GroupRelative):
    """Independent GRPO with its declared variants."""

    group_size: int = 8
    """G, reward evaluations per task and turn; each agent's group has G/N members (aligned: G). Default: as MAGRPO's."""
    partner: Literal["resampled", "fixed", "frozen", "aligned"] = "resampled"
    """Whom an agent plays with while its group is sampled; the module's description tells them apart."""

    def validate(self, agents: Sequence[str]) -> None:
        """Refuse settings that cannot work; see :meth:`Algorithm.validate`."""
        super().validate(agents)
        self.check_choices(IGRPO)
        self.check_group_size(self.group_size)

    def validate_learners(self, learners: Sequence[str]) -> None:
        """Refuse a group size that cannot be divided among those who learn; see :class:`Algorithm`."""
        number = len(learners)
        if self.partner != "aligned" and (self.group_size % number or self.group_size // number < 2):
            raise ValueError(
                f"algo.partner {self.partner} divides algo.group_size among the agents, who need two members or more "
                f"each: {self.group_size} does not do for {number}. Use {2 * number} or another multiple of {number}"
            )

    def validate_environment(self, env: ParallelEnv) -> None:
        """Refuse individual rewards for groups that are not sampled together; see :class:`Algorithm`."""
        reward = getattr(env.unwrapped, "reward", "team")  # environments of others have none
        if reward == "individual" and self.partner != "aligned":
            raise ValueError(
                f"the environment's reward individual goes with algo.partner aligned (groups of G from G joint "
                f"evaluations), not {self.partner}; set that, or the environment's reward to team"
            )

    @property
    def plays_initial_policies(self) -> bool:
        """Whether partners are the policies that training began with."""
        return self.partner == "frozen"

    @property
    def copies_episodes(self) -> bool:
        """No: every member of a group is an episode of its own."""
        return False

    def collect(self, rollout: Rollout, tasks: Sequence[tuple[int, int | str | None]]) -> list[Node]:
        """Play the episodes of each group; a task has a root for each agent that learns (aligned: one for all)."""
        if self.partner == "aligned":
            return rollout.collect(tasks, self.group_size, "aligned", "chain")
        agents, n = rollout.agents, self.group_size // len(rollout.learners)
        roots = [root for learner in rollout.learners for root in learning(learner, rollout.start(tasks))]
        policies = self._players(rollout)
        nodes, first = roots, True
        while nodes:
            held = first and self.partner == "fixed"
            counts = [
                {agent: 1 if not first or (held and agent != node.learner) else n for agent in agents}
                for node in nodes
            ]
            rollout.sample_each(nodes, counts, [policies[str(node.learner)] for node in nodes])
            if held:  # the one response of a partner stands beside each of the learner's
                for node in nodes:
                    for agent in agents:
                        if agent != node.learner:
                            node.responses[agent] *= n
            nodes, first = rollout.step(nodes, "aligned", "chain"), False
        return roots

    def _players(self, rollout: Rollout) -> dict[str, Mapping[str, Sampler]]:
        """Return who plays while each agent learns: learner -> agent -> its policy."""
        partners: dict[str, Sampler] = dict(rollout.policies)
        if self.partner == "frozen":
            for agent, policy in rollout.policies.items():
                if isinstance(policy, Policy):  # whoever is not trained stays as it is anyway
                    partners[agent] = InitialPolicy(policy)
        return {learner: {**partners, learner: rollout.policies[learner]} for learner in rollout.learners}

    def credit(self, roots: list[Node], agents: Sequence[str]) -> Iterable[Group]:
        """Compare the responses of each group's learner; partners' responses teach nobody."""
        tasks = len(roots) // len({root.learner for root in roots})
        for root in roots:
            members = len(root.joint_actions)
            for node in root.subtree():
                joint_returns = self.joint_returns(node)  # (members alive, N)
                for i, agent in enumerate(agents):
                    if node.learner in (None, agent):
                        # 1/n, not 1/(those alive): finished episodes keep their share.
                        weight = node.weight / (members * tasks)
                        group = self.compare(agent, node.responses[agent], joint_returns[:, i], weight)
                        if group is not None:
                            yield group


def learning(learner: str, roots: list[Node]) -> list[Node]:
    """Make one agent the learner of these roots."""
    for root in roots:
        root.learner = learner
    return roots
