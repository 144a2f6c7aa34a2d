"""Collecting experience: trees (and chains) of joint actions, generated in batches.

One turn of all nodes is one batch: every agent answers every open history of every task at once, then all joint
actions are stepped, then the next turn begins. Nothing here knows how a response is credited.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from pettingzoo import ParallelEnv

from textmarl.agents.answering import answer
from textmarl.agents.conversation import Conversation, NoRoomError, Response
from textmarl.agents.partner import Partner
from textmarl.agents.policy import Policy
from textmarl.agents.sampling import Sampling
from textmarl.envs.instances import Instances
from textmarl.envs.vector import acting, step_all

JointMode = Literal["aligned", "cross"]
Branching = Literal["tree", "chain"]

Alive = tuple[int, ParallelEnv, dict[str, Conversation]]
"""An episode that goes on: its joint action's place at the node, its environment, and each agent's conversation."""


class Sampler(Protocol):
    """Whoever answers as :meth:`Policy.generate` does: a policy, or what an agent's policy once was."""

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        generator: torch.Generator,
        n: int = ...,
        batch_size: int = ...,
        on_tokens: Callable[[int], None] | None = ...,
    ) -> list[list[Response]]:
        """Sample ``n`` responses to each conversation."""
        ...


@dataclass
class Node:
    """A group: what was sampled at one joint history (a tree's node), or at a turn of parallel episodes (a chain's).

    N agents, G responses each, J joint actions (aligned: G, cross: G^N).
    """

    task_id: str
    turn: int
    """0 at the root."""
    weight: float
    """Of this node in the loss: in a tree the product of 1 / J over its ancestors, in a chain 1."""
    joint_weight: float
    """Share of the task's episodes that each of its joint actions stands for."""
    envs: list[ParallelEnv]
    """The environment at this history; in a chain beyond turn 0, one for each member of the group."""
    conversations: list[dict[str, Conversation]]
    """Each agent's own conversation, beside ``envs``."""
    responses: dict[str, list[Response]] = field(default_factory=dict)
    """Each agent's G responses; empty, without tokens, where the environment lets the agent wait."""
    joint_actions: list[tuple[int, ...]] = field(default_factory=list)
    """J tuples: which response of each agent."""
    rewards: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """(J, N) rewards as the environment gave them."""
    infos: list[dict[str, Any]] = field(default_factory=list)
    """J infos of the first agent (score, reward_terms)."""
    continuations: list[tuple[Node, int | None] | None] = field(default_factory=list)
    """For each joint action the node that follows it and its place there (None: it leads to all of that node's joint
    actions, as in a tree); None where the episode ended."""
    learner: str | None = None
    """The one agent whose responses are compared here, where the others only make up its environment; None: all."""
    decisions: list[Node] = field(default_factory=list)
    """Groups that branch off from this history beside what was played, a learner each (see ``textmarl.algos.c3``)."""
    beginning: tuple[int, int | str | None] | None = None
    """Of a root: the seed and the task that it was reset with."""

    def children(self) -> list[Node]:
        """Return the distinct nodes that follow this one."""
        return list({id(c[0]): c[0] for c in self.continuations if c is not None}.values())

    def subtree(self) -> list[Node]:
        """Return this node and all that follow it, parents first."""
        return [self, *(node for child in self.children() for node in child.subtree())]


@dataclass
class Cost:
    """What an experience cost: counts, and seconds spent."""

    generated_tokens: int = 0
    reward_evaluations: int = 0
    generation_seconds: float = 0.0
    reward_seconds: float = 0.0
    """Beyond generation: rewards that were computed meanwhile took none."""


class Rollout:
    """Samples joint actions of a team's policies in copies of an environment.

    Args:
        env: Any PettingZoo ``ParallelEnv`` with text observations and actions, or a function that makes one. Where it
            cannot be deep-copied, chains are played in as many instances, and nothing else can be.
        policies: Who answers for each agent, in the environment's order. Policies that share a network answer in one
            batch (:func:`textmarl.agents.answering.answer`); whatever else has :meth:`Policy.generate` answers by it.
        sampling: How responses are drawn.
        generators: Each agent's random stream.
        batch_size: Most responses decoded at once.
        on_progress: Called with a phase's name, work done and work in all.
        micro_batch_tokens: For an algorithm that scores what it sampled: tokens in one pass.
    """

    def __init__(
        self,
        env: ParallelEnv | Callable[[], ParallelEnv] | Instances,
        policies: Mapping[str, Policy | Partner],
        sampling: Sampling,
        generators: dict[str, torch.Generator],
        batch_size: int = 64,
        on_progress: Callable[[str, int, int], None] = lambda phase, done, total: None,
        micro_batch_tokens: int = 1024,
    ):
        self.instances = Instances(env) if not isinstance(env, Instances) else env
        self.env = self.instances.env
        self.policies = policies
        # Of policies; ServedEngine.answer (textmarl.agents.served) may stand in its place.
        self.answer: Callable[..., dict[str, list[list[Response]]]] = answer
        self.agents = list(policies)
        self.learners = [agent for agent, player in policies.items() if not isinstance(player, Partner)]
        self._begun: list[ParallelEnv] = []
        self.sampling = sampling
        self.generators = generators
        self.batch_size = batch_size
        self.on_progress = on_progress
        self.micro_batch_tokens = micro_batch_tokens
        self.cost = Cost()

    def start(self, tasks: Sequence[tuple[int, int | str | None]]) -> list[Node]:
        """Begin an episode of each task.

        Args:
            tasks: For each episode its seed and its task (an index or id; None lets the seed pick).

        Returns:
            A root for each task, without responses yet.
        """
        roots = []
        for seed, task in tasks:
            env, conversations, infos = self._begin(seed, task)
            task_id = str(infos.get(self.agents[0], {}).get("task_id", seed))
            roots.append(Node(task_id, 0, 1.0, 1.0, [env], [conversations], beginning=(seed, task)))
        return roots

    def close(self) -> None:
        """Close the environments that were made for this rollout; what was collected can no longer be played on."""
        for env in self._begun:
            self.instances.done(env)
        self._begun = []

    def _begin(
        self, seed: int, task: int | str | None
    ) -> tuple[ParallelEnv, dict[str, Conversation], dict[str, Any]]:
        env = self.instances.new()
        self._begun.append(env)
        observations, infos = env.reset(seed=seed, options=None if task is None else {"task": task})
        return env, {a: read(env, a, observations) for a in self.agents}, infos

    def _at_history(self, node: Node, origins: list[int]) -> list[ParallelEnv]:
        """Return an environment for each joint action, at the history of the node's that it comes from.

        Raises:
            ValueError: The environment cannot be copied, and either there is no other way to come there, or instances
                that are reset with one seed do not begin alike.
        """
        if self.instances.obstacle is None:
            # Every member of a group needs the history as it was; the copies are what makes a tree.
            return [copy.deepcopy(node.envs[own]) for own in origins]
        if len(set(origins)) == len(origins):  # each episode goes on in its own instance
            return [node.envs[own] for own in origins]
        if node.beginning is None:
            raise ValueError(
                f"the environment cannot be copied half way through an episode ({self.instances.obstacle}), and several "
                "joint actions are to be played from one history; use chains (algo.branching chain)"
            )
        envs = [node.envs[0]]
        for _ in origins[1:]:
            env, conversations, _ = self._begin(*node.beginning)
            if conversations != node.conversations[0]:
                raise ValueError(
                    f"task {node.task_id!r}: two instances of the environment were reset with the seed "
                    f"{node.beginning[0]} and show the agents different texts, so responses to one cannot be played in "
                    "the other; reset(seed=...) must decide all that an episode begins with"
                )
            envs.append(env)
        return envs

    def sample(
        self, nodes: list[Node], group_size: int, on_whole: Callable[[Node], None] = lambda node: None
    ) -> None:
        """Let every agent answer every history of every node ``group_size`` times, unless it waits there.

        Args:
            nodes: Where to sample.
            group_size: How often.
            on_whole: Called with each node as soon as it has all its responses; other nodes' may still be written then.

        Raises:
            ValueError: A history leaves an agent's model no room for an answer; names the task and the step.
        """
        started, done = time.perf_counter(), 0
        # By agent: the histories that it answers, each a node and one of the node's places.
        asked: dict[str, list[tuple[Node, int]]] = {
            a: [(node, own) for node in nodes for own, env in enumerate(node.envs) if a in acting(env)]
            for a in self.agents
        }
        conversations = {a: [node.conversations[own][a] for node, own in asked[a]] for a in self.agents}
        total = sum(map(len, asked.values())) * group_size * self.sampling.max_new_tokens
        missing = Counter(id(node) for histories in asked.values() for node, _ in histories)
        for node in nodes:
            node.responses = {a: [Response("")] * (len(node.envs) * group_size) for a in self.agents}

        def on_tokens(count: int) -> None:
            nonlocal done
            done += count
            self.on_progress("generation", done, total)

        def on_answered(agent: str, index: int, responses: list[Response]) -> None:
            node, own = asked[agent][index]
            node.responses[agent][own * group_size : (own + 1) * group_size] = responses
            missing[id(node)] -= 1
            if not missing[id(node)]:
                on_whole(node)

        for node in nodes:
            if not missing[id(node)]:  # nobody is asked there
                on_whole(node)
        models = {agent: policy for agent, policy in self.policies.items() if isinstance(policy, Policy)}
        how = (group_size, self.batch_size, on_tokens)
        try:
            own_conversations = {a: conversations[a] for a in models if asked[a]}
            self.answer(models, own_conversations, self.sampling, self.generators, *how, on_answered)
            for agent in self.agents:
                if asked[agent] and agent not in models:
                    answers = self.policies[agent].generate(
                        conversations[agent], self.sampling, self.generators[agent], *how
                    )
                    for index, responses in enumerate(answers):
                        on_answered(agent, index, responses)
        except NoRoomError as error:
            where = asked[error.agent][error.place][0]
            raise ValueError(f"task {where.task_id!r}, step {where.turn + 1}: {error}") from error
        self.cost.generated_tokens += done
        self.cost.generation_seconds += time.perf_counter() - started

    def sample_each(
        self,
        nodes: Sequence[Node],
        counts: Sequence[Mapping[str, int]],
        policies: Sequence[Mapping[str, Sampler]] | None = None,
    ) -> None:
        """Let agents answer the histories of each node, every agent as often as is said for it there.

        Args:
            nodes: Where to sample. An agent that waits has an empty response, without tokens.
            counts: For each node, agent -> how many responses to each of the node's histories; 0 leaves the agent's
                responses at the node as they are.
            policies: For each node, agent -> who answers; default: the team's own.
        """
        started, done = time.perf_counter(), 0
        players = policies if policies is not None else [self.policies] * len(nodes)
        # By agent and who answers for it: the conversations, and the nodes they belong to.
        asked: dict[tuple[str, int], list[Conversation]] = {}
        at: dict[tuple[str, int], list[Node]] = {}
        samplers: dict[tuple[str, int], Sampler] = {}
        for node, count, player in zip(nodes, counts, players, strict=True):
            for agent in self.agents:
                key = (agent, id(player[agent]))
                samplers[key] = player[agent]
                for env, own in zip(node.envs, node.conversations, strict=True):
                    if agent in acting(env) and count[agent]:
                        asked.setdefault(key, []).extend([own[agent]] * count[agent])
                        at.setdefault(key, []).extend([node] * count[agent])
        total = sum(map(len, asked.values())) * self.sampling.max_new_tokens

        def on_tokens(count: int) -> None:
            nonlocal done
            done += count
            self.on_progress("generation", done, total)

        models = {
            agent: policy
            for agent, policy in self.policies.items()
            if isinstance(policy, Policy) and (agent, id(policy)) in asked
        }
        how = (1, self.batch_size, on_tokens)
        generated: dict[tuple[str, int], list[list[Response]]] = {}
        try:
            own_answers = self.answer(
                models,
                {a: asked[a, id(policy)] for a, policy in models.items()},
                self.sampling,
                self.generators,
                *how,
            )
            generated = {(a, id(models[a])): responses for a, responses in own_answers.items()}
            for key in [key for key in asked if key not in generated]:
                generated[key] = samplers[key].generate(
                    asked[key], self.sampling, self.generators[key[0]], *how
                )
        except NoRoomError as error:
            key = next(key for key in asked if key[0] == error.agent)
            where = at[key][min(error.place, len(at[key]) - 1)]
            raise ValueError(f"task {where.task_id!r}, step {where.turn + 1}: {error}") from error
        answers = {key: iter(responses) for key, responses in generated.items()}
        for node, count, player in zip(nodes, counts, players, strict=True):
            for agent in self.agents:
                if count[agent]:
                    said = answers.get((agent, id(player[agent])), iter(()))
                    node.responses[agent] = [
                        next(said)[0] if agent in acting(env) else Response("")
                        for env in node.envs
                        for _ in range(count[agent])
                    ]
        self.cost.generated_tokens += done
        self.cost.generation_seconds += time.perf_counter() - started

    def step(self, nodes: list[Node], joint_mode: JointMode, branching: Branching) -> list[Node]:
        """Step every joint action of every node in an environment of its own.

        Returns:
            The nodes that follow: those of the next turn.
        """
        return self._follow(nodes, lambda node: self._judge(node, joint_mode, branching), branching)

    def play(
        self, nodes: list[Node], group_size: int, joint_mode: JointMode, branching: Branching
    ) -> list[Node]:
        """Sample and step, as :meth:`sample` and :meth:`step` do one after the other.

        Where rewards wait for something else than Python (the environment's ``concurrency`` is above 1, as in coding), a
        node is stepped as soon as its responses are there, while those to others are still being written.

        Returns:
            The nodes that follow.
        """
        if getattr(self.env.unwrapped, "concurrency", 1) == 1:  # others may be bound to this thread
            self.sample(nodes, group_size)
            return self.step(nodes, joint_mode, branching)
        judging: dict[int, Future[list[Alive]]] = {}
        with ThreadPoolExecutor(1, "rewards") as executor:
            try:
                self.sample(
                    nodes,
                    group_size,
                    lambda node: judging.update(
                        {id(node): executor.submit(self._judge, node, joint_mode, branching)}
                    ),
                )
                return self._follow(nodes, lambda node: judging[id(node)].result(), branching)
            finally:
                executor.shutdown(cancel_futures=True)

    def _follow(
        self, nodes: list[Node], judge: Callable[[Node], list[Alive]], branching: Branching
    ) -> list[Node]:
        started, following = time.perf_counter(), []
        for done, node in enumerate(nodes):
            following += follow(node, judge(node), branching)
            # A step that only passes texts on (`stage` of textmarl.envs.protocols) computes no reward.
            self.cost.reward_evaluations += sum(not info.get("stage") for info in node.infos)
            self.on_progress("reward", done + 1, len(nodes))
        self.cost.reward_seconds += time.perf_counter() - started
        return following

    def _judge(self, node: Node, joint_mode: JointMode, branching: Branching) -> list[Alive]:
        """Step a node's joint actions and note what they gave; return the episodes that go on."""
        size = len(node.responses[self.agents[0]])
        asked = [{a for a in self.agents if a in acting(env)} for env in node.envs]
        node.joint_actions = joint_actions(size, [a in set().union(*asked) for a in self.agents], joint_mode)
        if branching == "tree" or node.turn == 0:
            node.joint_weight = node.weight / len(node.joint_actions)
        node.rewards = np.zeros((len(node.joint_actions), len(self.agents)))
        alive: list[Alive] = []
        origins = [j if len(node.envs) > 1 else 0 for j in range(len(node.joint_actions))]
        envs = self._at_history(node, origins)
        texts = [
            {a: node.responses[a][k].text for a, k in zip(self.agents, joint, strict=True)}
            for joint in node.joint_actions
        ]
        for j, (observations, rewards, _, _, infos) in enumerate(step_all(envs, texts)):
            env, own = envs[j], origins[j]
            node.rewards[j] = [rewards[a] for a in self.agents]
            node.infos.append(infos.get(self.agents[0], {}))  # others may give none
            node.continuations.append(None)
            if env.agents:
                if set(env.agents) != set(self.agents):
                    raise ValueError(
                        f"after a step only {env.agents} of {self.agents} act on; training needs environments "
                        "whose agents end together"
                    )
                conversations = {
                    a: [
                        *node.conversations[own][a],
                        *([{"role": "assistant", "content": texts[j][a]}] if a in asked[own] else []),
                        *read(env, a, observations),
                    ]
                    for a in self.agents
                }
                alive.append((j, env, conversations))
        return alive

    def collect(
        self,
        tasks: Sequence[tuple[int, int | str | None]],
        group_size: int,
        joint_mode: JointMode = "aligned",
        branching: Branching = "tree",
    ) -> list[Node]:
        """Play every task to its end.

        A tree samples ``group_size`` responses per agent at every history. A chain samples them at the first turn
        only and continues as that many parallel episodes.

        Returns:
            The root of each task.
        """
        roots = nodes = self.start(tasks)
        turn = 0
        while nodes:
            members = group_size if branching == "tree" or turn == 0 else 1
            nodes = self.play(nodes, members, joint_mode, branching)
            turn += 1
        return roots


def joint_actions(group_size: int, asked: Sequence[bool], mode: JointMode) -> list[tuple[int, ...]]:
    """Return which responses go together, one place for each agent.

    Aligned: a^(g) = (a_1^g, ..., a_N^g). Cross: the Cartesian product (arXiv 2508.04652); an agent that was not asked
    has nothing to combine.
    """
    if mode == "aligned":
        return [(g,) * len(asked) for g in range(group_size)]
    return list(itertools.product(*(range(group_size if own else 1) for own in asked)))


def read(env: ParallelEnv, agent: str, observations: Mapping[str, str]) -> Conversation:
    """Return what the agent's conversation goes on with: its observation, or nothing while it waits.

    Raises:
        TypeError: The observation is no text.
    """
    if agent not in acting(env):
        return []
    text = observations[agent]
    if not isinstance(text, str):
        raise TypeError(
            f"the observation of agent {agent!r} is {type(text).__name__}, expected a str; training needs environments "
            "whose observations and actions are texts"
        )
    return [{"role": "user", "content": text}]


def follow(node: Node, alive: list[Alive], branching: Branching) -> list[Node]:
    """Link ``node`` to the nodes of the next turn: one for each live joint action, or one for all of a chain."""
    if branching == "tree":
        children = []
        for j, env, conversations in alive:
            weight = node.joint_weight  # finished branches keep their share
            child = Node(node.task_id, node.turn + 1, weight, weight, [env], [conversations])
            child.learner = node.learner
            node.continuations[j] = (child, None)
            children.append(child)
        return children
    if not alive:
        return []
    envs, histories = [env for _, env, _ in alive], [conversations for _, _, conversations in alive]
    child = Node(node.task_id, node.turn + 1, node.weight, node.joint_weight, envs, histories)
    child.learner = node.learner
    for position, (j, _, _) in enumerate(alive):
        node.continuations[j] = (child, position)
    return [child]
