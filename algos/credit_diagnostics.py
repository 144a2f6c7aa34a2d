"""How good an algorithm's credit is: its advantages against independent replays (arXiv 2603.06859, diagnostics).

For responses that an algorithm has credited,

* **fidelity** is the Spearman correlation of its advantages with E[R | h, a_i] - E[R | h], both estimated by playing on
  from a copy of the environment at the history h with the present policies: the first with the response a_i and
  partners' responses drawn anew, the second with everything drawn anew. These episodes share nothing with those that
  the advantages came from. The estimates are noisy themselves: **reliability** is the correlation of one half of the
  replays with the other (which share none, neither of the response nor of E[R | h]), and no credit can be expected to
  correlate much better than that;
* **variance** is that of the advantages in a group, averaged over groups (1 by construction under std normalisation);
* **influence** is the mutual information, in nats, between what an agent writes and what the next teammate answers,
  where that one acts after it and reads on: m candidates drawn at h, partners' responses held, answers y drawn after each,

      I = mean over j and y ~ p(. | c_j) of  log p(y | c_j) - log (1/m) sum_k p(y | c_k),

  with p by the teammate's own log-probabilities. It is between 0 and log m; texts that are not read give exactly 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from textmarl.agents.conversation import Response
from textmarl.agents.partner import Partner
from textmarl.agents.policy import Policy
from textmarl.algos.algorithm import Algorithm, Group, returns
from textmarl.algos.rollout import Node, Rollout
from textmarl.envs.vector import acting


@dataclass
class Credited:
    """A response with its advantage, and the history it answers."""

    response: Response
    advantage: float
    """Of a response whose tokens have advantages of their own: their mean."""
    node: Node
    place: int
    """Which of the node's histories."""


@dataclass
class Context:
    """A group of one agent's responses, and what replays say of each."""

    agent: str
    members: list[Credited]
    worth: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """(n, replays) R of each replay of a member, less the estimate of E[R | h]: each half of the replays, less its own."""
    influence: float | None = None
    """Nats; None where no teammate acts after this agent, or one whose probabilities are not known (a partner)."""


@dataclass
class Diagnosis:
    """The credit of one agent, or of all."""

    contexts: int
    responses: int
    fidelity: float | None
    """Over all responses; None where all advantages, or all estimates, are equal."""
    interval: tuple[float, float] | None
    """95 %, bootstrap over contexts."""
    within: float | None
    """The correlation inside a context, averaged over those in which both sides vary."""
    reliability: float | None
    variance: float
    influence: float | None


def diagnose(
    algorithm: Algorithm,
    rollout: Rollout,
    tasks: Sequence[tuple[int, int | str | None]],
    contexts: int = 16,
    replays: int = 8,
    seed: int = 0,
) -> dict[str, Diagnosis]:
    """Let an algorithm collect and credit experience, and replay what it credited.

    Args:
        algorithm: Whose credit is meant; returns of replays have its discount.
        rollout: Of the team and environment; its cost grows by all that is played.
        tasks: A seed and a task for each root.
        contexts: Groups of each agent that are replayed, drawn among all (fewer where there are fewer).
        replays: Episodes for each response, 2 or more; also the candidates and answers that influence is measured on.
        seed: Draws the contexts.

    Returns:
        Agent -> its diagnosis, and "all" -> that of all contexts together. Agents that nothing was credited to are
        left out.

    Raises:
        ValueError: Fewer than 2 replays or no context asked for; a credited response that was not sampled here; an
            environment that cannot be copied.
    """
    if contexts < 1 or replays < 2:
        raise ValueError(
            f"expected 1 or more contexts and 2 or more replays (their halves are compared), got {contexts}, {replays}"
        )
    if rollout.instances.obstacle is not None:
        raise ValueError(
            "replays play on from copies of the environment, and it cannot be copied half way through an episode "
            f"({rollout.instances.obstacle})"
        )
    roots = algorithm.collect(rollout, tasks)
    groups = list(algorithm.credit(roots, rollout.agents))
    rng = np.random.default_rng(seed)
    chosen = []
    for agent in rollout.agents:
        own = [group for group in groups if group.samples[0].agent == agent]
        chosen += [own[k] for k in sorted(rng.permutation(len(own))[:contexts])]
    found = locate(chosen, roots)
    replay(found, rollout, replays, algorithm.discount)
    for context in found:
        context.influence = influence(context, rollout, replays)
    named = {agent: [c for c in found if c.agent == agent] for agent in rollout.agents}
    return {name: summarise(own, rng) for name, own in {**named, "all": found}.items() if own}


def locate(groups: Sequence[Group], roots: Sequence[Node]) -> list[Context]:
    """Find the history that each credited response answers.

    A sample is told by the list of its tokens, which is the response's own; of an algorithm that copies it, by what
    the agent read and wrote.
    """
    by_list: dict[int, tuple[Node, int, Response]] = {}
    by_text: dict[tuple[str, tuple[int, ...], tuple[int, ...]], tuple[Node, int, Response]] = {}
    for node in played(roots):
        for agent, responses in node.responses.items():
            for g, response in enumerate(responses):
                entry = (node, g if len(node.envs) > 1 else 0, response)
                by_list.setdefault(id(response.token_ids), entry)
                by_text.setdefault((agent, tuple(response.prompt_ids), tuple(response.token_ids)), entry)
    contexts = []
    for group in groups:
        members = []
        for sample in group.samples:
            key = (sample.agent, tuple(sample.prompt_ids), tuple(sample.token_ids))
            place_of = by_list.get(id(sample.token_ids)) or by_text.get(key)
            if place_of is None:
                raise ValueError(
                    f"a credited response of {sample.agent!r} was not sampled in this experience; only responses of "
                    "the rollout can be replayed"
                )
            node, place, response = place_of
            members.append(Credited(response, float(np.mean(sample.advantage)), node, place))
        contexts.append(Context(group.samples[0].agent, members))
    return contexts


def played(roots: Sequence[Node]) -> Iterator[Node]:
    """Yield every node below the roots once, with the groups that branch off from it."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting += [*node.children(), *node.decisions]


def replay(contexts: Sequence[Context], rollout: Rollout, replays: int, discount: float) -> None:
    """Fill in ``Context.worth``."""
    nodes: list[Node] = []
    counts: list[dict[str, int]] = []

    def add(member: Credited, times: int, agent: str | None) -> Node:
        """Episodes from a member's history; ``agent`` says the same as it did, the others (None: all) speak anew."""
        node = at_history(member)
        counts.append({a: 0 if a == agent else times for a in rollout.agents})
        if agent is not None:
            node.responses[agent] = [member.response] * times
        nodes.append(node)
        return node

    fixed = [[add(member, replays, context.agent) for member in context.members] for context in contexts]
    # E[R | h] is shared by all members that answer one history, and as precise as all of them together.
    at: dict[tuple[int, int], list[Credited]] = {}
    for context in contexts:
        for member in context.members:
            at.setdefault((id(member.node), member.place), []).append(member)
    free = {key: add(members[0], replays * len(members), None) for key, members in at.items()}

    rollout.sample_each(nodes, counts)
    following = rollout.step(nodes, "aligned", "chain")
    while following:
        rollout.sample(following, 1)
        following = rollout.step(following, "aligned", "chain")
    for context, own in zip(contexts, fixed, strict=True):
        i = rollout.agents.index(context.agent)
        context.worth = np.array(
            [
                above_average(
                    returns(node, discount)[:, i],
                    returns(free[id(member.node), member.place], discount)[:, i],
                )
                for member, node in zip(context.members, own, strict=True)
            ]
        )


def above_average(own: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return the returns less an estimate of E[R | h], each half of them less one of its own.

    Args:
        own: (replays,) of the episodes in which a response was said; the first ``replays // 2`` are the first half.
        free: (n * replays,) of those from the same history in which nothing was held, as many for each of n responses.
    """
    half = len(own) // 2
    cut = half * (len(free) // len(own))
    return np.concatenate([own[:half] - free[:cut].mean(), own[half:] - free[cut:].mean()])


def at_history(member: Credited) -> Node:
    """Return a node without responses at the history that a response answers."""
    env, conversations = member.node.envs[member.place], member.node.conversations[member.place]
    return Node(member.node.task_id, 0, 1.0, 1.0, [env], [conversations])


@torch.no_grad()
def influence(context: Context, rollout: Rollout, draws: int) -> float | None:
    """Return the mutual information, in nats, of what the context's agent writes and the next teammate's answer."""
    node = at_history(context.members[0])
    partners = [agent for agent in rollout.agents if agent != context.agent]
    rollout.sample_each([node], [{agent: draws if agent == context.agent else 1 for agent in rollout.agents}])
    for agent in partners:
        node.responses[agent] *= draws
    after = next(iter(rollout.step([node], "aligned", "chain")), None)
    start = rollout.agents.index(context.agent) + 1
    in_order = [*rollout.agents[start:], *rollout.agents[: start - 1]]
    if after is None or len(after.envs) < 2:
        return None
    next_one = next((a for a in in_order if all(a in acting(env) for env in after.envs)), None)
    if next_one is None:
        return None
    conversations = [own[next_one] for own in after.conversations]
    if all(conversation == conversations[0] for conversation in conversations):
        return 0.0  # nobody reads it
    rollout.sample_each([after], [{a: int(a == next_one) for a in rollout.agents}])
    policy = rollout.policies[next_one]
    if isinstance(policy, Partner):
        return None  # a partner does not tell how likely its answers were
    answers = [response.token_ids for response in after.responses[next_one]]
    # (m, m): log p of the answer drawn after candidate j, had it come after candidate k
    likelihood = np.array([log_likelihoods(policy, c, answers, rollout) for c in conversations]).T
    highest = likelihood.max(axis=1, keepdims=True)
    mixture = np.log(np.exp(likelihood - highest).mean(axis=1)) + highest[:, 0]
    return float((likelihood.diagonal() - mixture).mean())


def log_likelihoods(
    policy: Policy, conversation: list[dict[str, str]], answers: list[list[int]], rollout: Rollout
) -> list[float]:
    """Return log p(answer | conversation) of each answer, in nats."""
    scores = policy.score([policy.encode(conversation)], [answers], rollout.sampling)
    return [float(total) for total in (scores.logprobs * scores.mask).sum(dim=1)]


def summarise(contexts: Sequence[Context], rng: np.random.Generator) -> Diagnosis:
    """Put the contexts' numbers together."""
    claimed = [np.array([member.advantage for member in context.members]) for context in contexts]
    estimated = [context.worth.mean(axis=1) for context in contexts]
    half = contexts[0].worth.shape[1] // 2
    halves = [(c.worth[:, :half].mean(axis=1), c.worth[:, half:].mean(axis=1)) for c in contexts]
    inside = [spearman(a, b) for a, b in zip(claimed, estimated, strict=True)]
    resampled = []
    for _ in range(500):
        draw = rng.integers(len(contexts), size=len(contexts))
        value = spearman(*(np.concatenate([rows[k] for k in draw]) for rows in (claimed, estimated)))
        if value is not None:
            resampled.append(value)
    reached = [context.influence for context in contexts if context.influence is not None]
    return Diagnosis(
        contexts=len(contexts),
        responses=sum(map(len, claimed)),
        fidelity=spearman(np.concatenate(claimed), np.concatenate(estimated)),
        interval=(float(np.quantile(resampled, 0.025)), float(np.quantile(resampled, 0.975)))
        if resampled and len(contexts) > 1
        else None,
        within=mean([value for value in inside if value is not None]),
        reliability=spearman(*(np.concatenate(side) for side in zip(*halves, strict=True))),
        variance=float(np.mean([values.var() for values in claimed])),
        influence=mean(reached),
    )


def mean(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return math.fsum(values) / len(values) if values else None


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Return Spearman's rank correlation, equal values sharing their mean rank; None where one side is constant."""
    a, b = ranks(first), ranks(second)
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size > 0 else None


def ranks(values: np.ndarray) -> np.ndarray:
    """Return 0, 1, ... in order of size; equal values have the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[which]
