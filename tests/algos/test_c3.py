"""C3: what is frozen at a decision, what it costs, what is compared, and what it equals."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from textmarl.agents import Response
from textmarl.algos import C3, IGRPO, Node
from textmarl.envs.protocols import Pipeline


def counted(exact: Any, env: Any, counter: Any, algorithm: C3) -> tuple[list[Node], Any]:
    rollout = exact.rollout(env, {agent: counter() for agent in env.possible_agents})
    return algorithm.collect(rollout, [(0, 0)]), rollout


def decisions(roots: list[Node]) -> list[tuple[Node, Node]]:
    return [(anchor, d) for root in roots for anchor in root.subtree() for d in anchor.decisions]


def texts(node: Node, agent: str) -> list[str]:
    return [response.text for response in node.responses[agent]]


# ------------------------------------------------------------------------------------------------- what is played


@pytest.mark.parametrize(
    ("agents", "turns", "fan_out", "sizes"),
    [(2, 1, 4, [4]), (2, 2, [2, 4], [2, 4]), (3, 2, 3, [3, 3]), (2, 3, [5, 2], [5, 2, 2])],
)
def test_every_decision_is_continued_once_for_each_alternative(
    exact: Any, syllables: Any, counter: Any, agents: int, turns: int, fan_out: Any, sizes: list[int]
) -> None:
    env = syllables(agents, ends=False, max_turns=turns)
    roots, rollout = counted(exact, env, counter, C3(fan_out=fan_out))
    found = decisions(roots)
    assert [(d.turn, d.learner) for _, d in found] == [
        (t, agent) for t in range(turns) for agent in env.possible_agents
    ]
    assert [len(d.rewards) for _, d in found] == [n for n in sizes for _ in range(agents)]
    # 1 + N sum_t (n_t - 1) continuations; what branches off at turn t has H - t turns left.
    branches = [(t, n - 1) for t, n in enumerate(sizes)]
    assert rollout.cost.reward_evaluations == turns + agents * sum(m * (turns - t) for t, m in branches)
    assert rollout.cost.generated_tokens == agents * turns + agents * sum(
        m * (1 + agents * (turns - t - 1)) for t, m in branches
    )


def test_everything_but_the_decision_is_frozen(exact: Any, syllables: Any, counter: Any) -> None:
    env = syllables(3, ends=False, max_turns=2)
    roots, _ = counted(exact, env, counter, C3(fan_out=4))
    for anchor, decision in decisions(roots):
        assert decision.envs == anchor.envs and decision.conversations == anchor.conversations
        for agent in env.possible_agents:
            played = anchor.responses[agent][0].text
            said = texts(decision, agent)
            assert said[0] == played, "the anchor's own candidate is the first"
            assert len(set(said)) == (4 if agent == decision.learner else 1)
        assert decision.rewards[0].tolist() == anchor.rewards[0].tolist()
        assert decision.continuations[0] == anchor.continuations[0]


def test_alternatives_are_paid_and_continued_from_the_frozen_history(exact: Any, syllables: Any) -> None:
    env = syllables(2, max_turns=3)
    team = exact.team(env.possible_agents)
    ended = set()
    for anchor, decision in decisions(exact.collect(C3(fan_out=3), env, team.policies, seed=2)):
        for j, continuation in enumerate(decision.continuations):
            twin = copy.deepcopy(anchor.envs[0])
            said = {agent: texts(decision, agent)[j] for agent in env.possible_agents}
            observations, rewards, _, _, _ = twin.step(said)
            assert decision.rewards[j].tolist() == list(rewards.values())
            assert (continuation is None) == (not twin.agents)
            ended.add(continuation is None)
            if continuation is not None:
                child, place = continuation
                for agent, conversation in child.conversations[place].items():  # type: ignore[index]
                    assert [m["content"] for m in conversation[-2:]] == [said[agent], observations[agent]]
    assert ended == {True, False}


def test_who_waits_decides_nothing(exact: Any, syllables: Any, counter: Any) -> None:
    roots, _ = counted(exact, Pipeline(syllables(3, ends=False)), counter, C3(fan_out=3))
    assert [(d.turn, d.learner) for _, d in decisions(roots)] == [(t, f"player_{t}") for t in range(3)]
    groups = list(C3(fan_out=3).credit(roots, [f"player_{i}" for i in range(3)]))
    assert [len(group.samples) for group in groups] == [3, 3, 3]


# --------------------------------------------------------------------------------------------- what is learned


def test_a_candidate_is_compared_with_the_mean_of_the_others(exact: Any, syllables: Any) -> None:
    env = syllables(2)
    algorithm = C3(fan_out=4)
    roots = exact.collect(algorithm, env, exact.team(env.possible_agents).policies)
    for group, (_, decision) in zip(
        algorithm.credit(roots, env.possible_agents), decisions(roots), strict=True
    ):
        paid = decision.rewards[:, 0]
        for j, sample in enumerate(group.samples):
            assert sample.advantage == pytest.approx(paid[j] - np.delete(paid, j).mean(), abs=1e-12)


def rows(roots: list[Node], i: int, algorithm: C3, limit: int) -> list[tuple[Response, float, float]]:
    def to_go(node: Node, j: int) -> float:
        after = node.continuations[j]
        return float(node.rewards[j][i]) + (algorithm.discount * to_go(*after) if after else 0.0)  # type: ignore[arg-type]

    found = []
    for _, decision in decisions(roots):
        if decision.learner == f"player_{i}":
            values = [to_go(decision, j) for j in range(len(decision.rewards))]
            for j, value in enumerate(values):
                others = [*values[:j], *values[j + 1 :]]
                advantage = value - sum(others) / len(others)
                said = decision.responses[f"player_{i}"][j]
                found.append((said, advantage, 1 / (len(values) * len(roots) * limit)))
    return found


@pytest.mark.parametrize(("turns", "fan_out"), [(1, 5), (2, [2, 4])])
def test_gradient_of_a_step_is_the_formula(exact: Any, syllables: Any, turns: int, fan_out: Any) -> None:
    env = syllables(2, max_turns=turns)
    algorithm = C3(fan_out=fan_out, discount=0.9)
    team = exact.team(env.possible_agents)
    roots = exact.collect(algorithm, env, team.policies)
    for i, agent in enumerate(env.possible_agents):
        (actual,) = exact.gradients(team, algorithm, roots, agent)
        expected = rows(roots, i, algorithm, exact.sampling.max_new_tokens)
        exact.assert_equal(actual, exact.explicit_gradient(team.policies[agent], expected), 1e-10)


def test_gradient_holds_to_rounding_in_single_precision(exact: Any, syllables: Any) -> None:
    env = syllables(2, max_turns=2)
    algorithm = C3(fan_out=3)
    team = exact.team(env.possible_agents, "tiny", "float32")
    roots = exact.collect(algorithm, env, team.policies)
    (actual,) = exact.gradients(team, algorithm, roots, "player_1")
    expected = rows(roots, 1, algorithm, exact.sampling.max_new_tokens)
    exact.assert_equal(actual, exact.explicit_gradient(team.policies["player_1"], expected), 1e-5)


def test_a_second_epoch_follows_the_clipped_ratio(exact: Any, syllables: Any) -> None:
    env = syllables(2)
    algorithm = C3(fan_out=5, epochs=2, clip=0.1)
    team = exact.team(env.possible_agents)
    roots = exact.collect(algorithm, env, team.policies)
    expected = exact.explicit_clipped_gradients(
        team.policies["player_0"], rows(roots, 0, algorithm, exact.sampling.max_new_tokens), 2, 0.4, 0.1
    )
    actual = exact.gradients(team, algorithm, roots, "player_0", lr=0.4)
    for one, other in zip(actual, expected, strict=True):
        exact.assert_equal(one, other, 1e-10)


# ------------------------------------------------------------------------------------------------- equalities


@pytest.mark.parametrize("normalize", ["none", "std"])
def test_one_turn_with_the_mean_baseline_is_fixed_partner_independent_grpo(
    exact: Any, syllables: Any, normalize: Any
) -> None:
    """At equal n, with the anchor among the n, at the first pass: the ratio is 1."""
    env = syllables(2)
    own = C3(fan_out=4, baseline="mean", normalize=normalize)
    other = IGRPO(group_size=8, partner="fixed", normalize=normalize)
    team = exact.team(env.possible_agents)
    roots = exact.collect(own, env, team.policies)
    as_igrpo = [decision for _, decision in decisions(roots)]
    ours, theirs = own.credit(roots, env.possible_agents), other.credit(as_igrpo, env.possible_agents)
    for one, two in zip(ours, theirs, strict=True):
        assert one.samples == two.samples and one.credits.tolist() == two.credits.tolist()
    own.epochs = 2  # the first of two passes has a ratio, and it is 1
    first, _ = exact.gradients(team, own, roots, "player_1")
    (plain,) = exact.gradients(team, other, as_igrpo, "player_1")
    exact.assert_equal(first, plain, 1e-12)


def test_under_std_leaving_one_out_changes_nothing() -> None:
    credits = np.array([3.0, -1.0, 0.5, 7.0])
    ours = C3(normalize="std").advantages(credits)
    assert ours == pytest.approx(C3(normalize="std", baseline="mean").advantages(credits), abs=1e-12)
    scale = C3().advantages(credits) / C3(baseline="mean").advantages(credits)
    assert scale == pytest.approx(np.full(4, 4 / 3))  # n / (n - 1)


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("fan_out", [1, 0, [], [4, 1]])
def test_a_decision_without_alternatives_is_refused(fan_out: Any) -> None:
    with pytest.raises(ValueError, match=r"2 or more at every turn, got"):
        C3(fan_out=fan_out).validate(["one", "two"])
