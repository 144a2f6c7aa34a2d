"""Independent GRPO: who plays with whom while a group is sampled, what is compared, and what it equals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from textmarl.agents import Response
from textmarl.algos import IGRPO, MAGRPO, Node


def counted(
    exact: Any, syllables: Any, counter: Any, algorithm: IGRPO, agents: int = 2, turns: int = 1
) -> Any:
    env = syllables(agents, ends=False, max_turns=turns)
    policies = {agent: counter() for agent in env.possible_agents}
    rollout = exact.rollout(env, policies)
    return algorithm.collect(rollout, [(0, 0)]), rollout, policies


def texts(node: Node, agent: str) -> list[str]:
    return [response.text for response in node.responses[agent]]


# ------------------------------------------------------------------------------------------------- who plays


@pytest.mark.parametrize(("agents", "size"), [(2, 4), (2, 8), (3, 6), (4, 8)])
@pytest.mark.parametrize("partner", ["resampled", "fixed"])
def test_the_budget_of_reward_evaluations_is_divided_among_the_agents(
    exact: Any, syllables: Any, counter: Any, partner: Any, agents: int, size: int
) -> None:
    roots, rollout, _ = counted(exact, syllables, counter, IGRPO(group_size=size, partner=partner), agents, 2)
    assert [root.learner for root in roots] == [f"player_{i}" for i in range(agents)]
    assert {len(node.joint_actions) for root in roots for node in root.subtree()} == {size // agents}
    assert rollout.cost.reward_evaluations == 2 * size


def test_a_fixed_partner_says_the_same_beside_every_member_and_is_drawn_anew_for_every_group(
    exact: Any, syllables: Any, counter: Any
) -> None:
    roots, rollout, _ = counted(exact, syllables, counter, IGRPO(group_size=6, partner="fixed"))
    for root, (learner, partner) in zip(
        roots, (("player_0", "player_1"), ("player_1", "player_0")), strict=True
    ):
        assert len(set(texts(root, learner))) == 3
        assert len(set(texts(root, partner))) == 1 and len(root.responses[partner]) == 3
    assert not {*texts(roots[0], "player_1")} & {*texts(roots[1], "player_1")}
    assert rollout.cost.generated_tokens == 2 * (3 + 1)  # a token a response: N (n + N - 1)


def test_a_resampled_partner_answers_every_member_afresh(exact: Any, syllables: Any, counter: Any) -> None:
    roots, rollout, _ = counted(exact, syllables, counter, IGRPO(group_size=6))
    for agent in ("player_0", "player_1"):
        assert len({text for root in roots for text in texts(root, agent)}) == 6
    assert rollout.cost.generated_tokens == 2 * 6  # N G


@pytest.mark.parametrize("partner", ["resampled", "fixed"])
def test_after_the_first_turn_everyone_answers_every_member(
    exact: Any, syllables: Any, counter: Any, partner: Any
) -> None:
    roots, _, _ = counted(exact, syllables, counter, IGRPO(group_size=6, partner=partner), turns=2)
    for root in roots:
        (second,) = root.children()
        assert second.learner == root.learner and len(second.envs) == 3
        for agent in ("player_0", "player_1"):
            assert len(set(texts(second, agent))) == 3
        for own, said in zip(second.conversations, texts(root, str(root.learner)), strict=True):
            assert own[str(root.learner)][1] == {"role": "assistant", "content": said}


def test_frozen_partners_are_the_policies_that_training_began_with(exact: Any, syllables: Any) -> None:
    env = syllables()
    for settings in ({}, {"tuning": "full", "reference": "copy"}):
        team = exact.team(env.possible_agents, **settings)
        roots = exact.collect(IGRPO(group_size=4, partner="frozen"), env, team.policies)
        for root, (agent, policy) in itertools.product(roots, team.policies.items()):
            score = policy.score if agent == root.learner else policy.score_reference
            other = policy.score_reference if agent == root.learner else policy.score
            for response in root.responses[agent]:
                asked = ([response.prompt_ids], [[response.token_ids]], exact.sampling)
                assert score(*asked).logprobs[0].tolist() == pytest.approx(response.logprobs, abs=1e-5)
                assert other(*asked).logprobs[0].tolist() != pytest.approx(response.logprobs, abs=1e-3)


def test_sampling_from_the_initial_policy_leaves_the_present_one_as_it_was(
    exact: Any, syllables: Any
) -> None:
    env = syllables()
    team = exact.team(env.possible_agents)
    before = exact.collect(MAGRPO(group_size=3), env, team.policies)
    exact.collect(IGRPO(group_size=4, partner="frozen"), env, team.policies)
    after = exact.collect(MAGRPO(group_size=3), env, team.policies)
    for one, other in zip(before, after, strict=True):
        assert one.responses == other.responses


# --------------------------------------------------------------------------------------------- what is learned


@pytest.mark.parametrize("partner", ["resampled", "fixed"])
def test_nobody_learns_from_a_partners_response(
    exact: Any, syllables: Any, counter: Any, partner: Any
) -> None:
    algorithm = IGRPO(group_size=6, partner=partner)
    roots, _, _ = counted(exact, syllables, counter, algorithm, turns=2)
    groups = list(algorithm.credit(roots, ["player_0", "player_1"]))
    nodes = [node for root in roots for node in root.subtree()]
    assert [group.samples[0].agent for group in groups] == [node.learner for node in nodes]
    for group, node in zip(groups, nodes, strict=True):
        learned = [sample.token_ids for sample in group.samples]
        assert learned == [response.token_ids for response in node.responses[str(node.learner)]]


def rows(roots: list[Node], agents: list[str], agent: str, algorithm: IGRPO, limit: int) -> list[Any]:
    """What the definition asks for: A = R - mean over the live members; weight 1 / (members * tasks * c)."""
    i, found = agents.index(agent), []
    aligned = algorithm.partner == "aligned"
    n = algorithm.group_size if aligned else algorithm.group_size // len(agents)
    tasks = len(roots) if aligned else len(roots) / len(agents)

    def to_go(node: Node, j: int) -> float:
        after = node.continuations[j]
        return float(node.rewards[j][i]) + (algorithm.discount * to_go(*after) if after else 0.0)  # type: ignore[arg-type]

    for root in roots:
        node: Node | None = root
        while node is not None:
            if aligned or root.learner == agent:
                values = [to_go(node, j) for j in range(len(node.rewards))]
                mean = sum(values) / len(values)
                spread = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
                scale = max(spread, 1e-6) if algorithm.normalize == "std" else 1.0
                for response, value in zip(node.responses[agent], values, strict=True):
                    found.append((response, (value - mean) / scale, 1 / (n * tasks * limit)))
            node = next(iter(node.children()), None)
    return found


@pytest.mark.parametrize(
    ("partner", "normalize", "reward"),
    [
        ("resampled", "none", "team"),
        ("fixed", "std", "team"),
        ("frozen", "std", "team"),
        ("aligned", "none", "team"),
        ("aligned", "std", "individual"),
    ],
)
def test_gradient_of_a_step_is_the_formula(
    exact: Any, syllables: Any, partner: Any, normalize: Any, reward: str
) -> None:
    env = syllables(2, max_turns=3, reward=reward)
    algorithm = IGRPO(group_size=8, partner=partner, normalize=normalize, discount=0.9)
    team = exact.team(env.possible_agents)
    roots = exact.collect(algorithm, env, team.policies, seed=1)
    sizes = {len(node.rewards) for root in roots for node in root.subtree()}
    assert len(sizes) > 1, "some episodes must end before others"
    assert len({len(r.token_ids) for root in roots for r in root.responses["player_0"]}) > 1
    for agent in team.policies:
        (actual,) = exact.gradients(team, algorithm, roots, agent)
        expected = rows(roots, env.possible_agents, agent, algorithm, exact.sampling.max_new_tokens)
        exact.assert_equal(actual, exact.explicit_gradient(team.policies[agent], expected), 1e-10)


def test_gradient_holds_to_rounding_in_single_precision(exact: Any, syllables: Any) -> None:
    env = syllables(3, max_turns=2)
    algorithm = IGRPO(group_size=9)
    team = exact.team(env.possible_agents, "tiny", "float32")
    roots = exact.collect(algorithm, env, team.policies)
    (actual,) = exact.gradients(team, algorithm, roots, "player_2")
    expected = rows(roots, env.possible_agents, "player_2", algorithm, exact.sampling.max_new_tokens)
    exact.assert_equal(actual, exact.explicit_gradient(team.policies["player_2"], expected), 1e-5)


def test_individual_rewards_credit_every_agent_with_its_own_part(exact: Any, syllables: Any) -> None:
    env = syllables(2, reward="individual")
    team = exact.team(env.possible_agents)
    algorithm = IGRPO(group_size=5, partner="aligned")
    rollout = exact.rollout(env, team.policies)
    roots = algorithm.collect(rollout, [(7, 0)])
    assert rollout.cost.reward_evaluations == 5, "groups of G from G joint evaluations"
    groups = list(algorithm.credit(roots, env.possible_agents))
    for i, group in enumerate(groups):
        own = []
        for g in range(5):
            twin = syllables(2)
            twin.reset(seed=7, options={"task": 0})
            said = {agent: roots[0].responses[agent][g].text for agent in env.possible_agents}
            own.append(twin.step(said)[4][f"player_{i}"]["individual_reward"])
        assert group.credits.tolist() == own
    assert groups[0].credits.tolist() != groups[1].credits.tolist()


# ------------------------------------------------------------------------------------------------- equalities


@pytest.mark.parametrize(("turns", "branching"), [(1, "tree"), (1, "chain"), (3, "chain")])
@pytest.mark.parametrize("normalize", ["std", "none"])
def test_aligned_with_a_team_reward_is_magrpo(
    exact: Any, syllables: Any, turns: int, branching: Any, normalize: Any
) -> None:
    """One turn: of either branching. Several: a chain."""
    env = syllables(2, max_turns=turns)
    team = exact.team(env.possible_agents)
    own = IGRPO(group_size=6, partner="aligned", normalize=normalize)
    base = MAGRPO(group_size=6, branching=branching, normalize=normalize)
    ours, theirs = (
        list(a.credit(exact.collect(a, env, team.policies), env.possible_agents)) for a in (own, base)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.samples == other.samples and one.credits.tolist() == other.credits.tolist()
    (one,), (other,) = (
        exact.gradients(team, a, exact.collect(a, env, team.policies), "player_1") for a in (own, base)
    )
    exact.assert_equal(one, other, 0.0)


@pytest.mark.parametrize("partner", ["resampled", "fixed", "aligned"])
def test_in_expectation_the_step_is_the_policy_gradient_times_n_minus_one_over_n(partner: Any) -> None:
    """All groups of two one-word agents, each with its probability; d log pi(a) / d logit_0 = 1[a = 0] - p."""
    p, q, payoff = 0.3, 0.8, np.array([[4.0, -1.0], [0.5, 2.0]])
    n = 2
    algorithm = IGRPO(group_size=n if partner == "aligned" else 2 * n, partner=partner, normalize="none")
    step = 0.0
    for own in itertools.product((0, 1), repeat=n):
        for other in itertools.product((0, 1), repeat=1 if partner == "fixed" else n):
            chance = np.prod([(p, 1 - p)[a] for a in own]) * np.prod([(q, 1 - q)[b] for b in other])
            others = other * n if partner == "fixed" else other
            rewards = np.array([[payoff[a, b]] * 2 for a, b in zip(own, others, strict=True)])
            said = {
                agent: [Response(str(a), [a + 5], [0.0], "stop", [1]) for a in texts]
                for agent, texts in (("first", own), ("second", others))
            }
            joint = [(g, g) for g in range(n)]
            learner = None if partner == "aligned" else "first"
            root = Node("task", 0, 1.0, 1.0, [], [], said, joint, rewards, [], [None] * n, learner)
            idle = Node("task", 0, 1.0, 1.0, [], [], said, joint, 0 * rewards, [], [None] * n, "second")
            roots = [root] if partner == "aligned" else [root, idle]
            for group in algorithm.credit(roots, ["first", "second"]):
                for sample in group.samples:
                    if sample.agent == "first":
                        slope = (sample.token_ids == [5]) - p
                        step += chance * sample.weight * sample.advantage * slope  # type: ignore[operator]
    gradient = p * (1 - p) * (payoff[0] - payoff[1]) @ [q, 1 - q]
    assert step == pytest.approx((n - 1) / n * gradient, rel=1e-12)


# --------------------------------------------------------------------------------------------------- refusals

MISTAKES: list[tuple[str, dict[str, Any], int]] = [
    (r"two members or more each: 7 does not do for 2\. Use 4 or another multiple of 2", {"group_size": 7}, 2),
    (r"8 does not do for 3\. Use 6", {"group_size": 8, "partner": "fixed"}, 3),
    (r"8 does not do for 8\. Use 16", {"group_size": 8, "partner": "frozen"}, 8),
    (r"2 does not do for 2\. Use 4", {"group_size": 2}, 2),
    (r"group_size 1 leaves nothing to compare", {"group_size": 1, "partner": "aligned"}, 2),
    (r"algo\.partner must be one of .*got 'absent'", {"partner": "absent"}, 2),
    (r"algo\.baseline must be one of", {"baseline": "median"}, 2),
    (r"discount must be in", {"discount": 2.0}, 2),
]


@pytest.mark.parametrize(("message", "settings", "agents"), MISTAKES)
def test_a_setting_that_cannot_work_is_refused_with_what_to_do(
    message: str, settings: dict[str, Any], agents: int
) -> None:
    with pytest.raises(ValueError, match=message):
        algorithm, players = IGRPO(**settings), [f"player_{i}" for i in range(agents)]
        algorithm.validate(players)
        algorithm.validate_learners(players)


def test_individual_rewards_go_with_groups_that_are_sampled_together(syllables: Any) -> None:
    individual = syllables(2, reward="individual")
    IGRPO(partner="aligned").validate_environment(individual)
    IGRPO().validate_environment(syllables(2))
    with pytest.raises(ValueError, match=r"goes with algo\.partner aligned .*not resampled"):
        IGRPO().validate_environment(individual)
