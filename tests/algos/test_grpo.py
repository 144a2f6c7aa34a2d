"""GRPO on one agent that writes all roles: the formula, the delimiter, the budget, and MAGRPO with one agent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from textmarl.agents import Response
from textmarl.algos import GRPO, MAGRPO, Node
from textmarl.envs.protocols import Single


def grpo_advantages(rewards: list[float]) -> list[float]:
    mean = sum(rewards) / len(rewards)
    std = (sum((r - mean) ** 2 for r in rewards) / len(rewards)) ** 0.5
    return [(r - mean) / max(std, 1e-6) for r in rewards]


@pytest.mark.parametrize("weighting", ["token_mean", "constant", "sum"])
def test_gradient_of_one_turn_is_the_formula_of_the_paper(exact: Any, syllables: Any, weighting: Any) -> None:
    env = Single(syllables(2), delimiter="a")
    algorithm = GRPO(group_size=6, length_weighting=weighting)
    team = exact.team(["agent"])
    roots = exact.collect(algorithm, env, team.policies, seed=3)
    rows = []
    for root in roots:
        advantages = grpo_advantages(root.rewards[:, 0].tolist())
        for response, advantage in zip(root.responses["agent"], advantages, strict=True):
            length = len(response.token_ids)
            c = {"token_mean": length, "constant": exact.sampling.max_new_tokens, "sum": 1}[weighting]
            rows.append((response, advantage, 1 / (6 * len(roots) * c)))
    (actual,) = exact.gradients(team, algorithm, roots, "agent")
    exact.assert_equal(actual, exact.explicit_gradient(team.policies["agent"], rows), 1e-10)


def test_gradient_of_several_turns_weighs_what_follows_by_its_share(exact: Any, syllables: Any) -> None:
    env = Single(syllables(2, max_turns=2), delimiter="a")
    algorithm = GRPO(group_size=3, discount=0.8)
    team = exact.team(["agent"])
    roots = exact.collect(algorithm, env, team.policies, seed=1)
    rows: list[tuple[Response, float, float]] = []
    for root in roots:
        values = []
        for j, after in enumerate(root.continuations):
            paid = root.rewards[j, 0]
            if after is not None:
                following = after[0].rewards[:, 0].tolist()
                paid += 0.8 * sum(following) / 3
                rows += zip(after[0].responses["agent"], grpo_advantages(following), [1 / 9] * 3, strict=True)
            values.append(paid)
        rows += zip(root.responses["agent"], grpo_advantages(values), [1 / 3] * 3, strict=True)
    c = exact.sampling.max_new_tokens * len(roots)
    (actual,) = exact.gradients(team, algorithm, roots, "agent")
    expected = exact.explicit_gradient(team.policies["agent"], [(r, a, w / c) for r, a, w in rows])
    exact.assert_equal(actual, expected, 1e-10)


def test_gradient_holds_to_rounding_in_single_precision(exact: Any, syllables: Any) -> None:
    algorithm = GRPO(group_size=6)
    team = exact.team(["agent"], "tiny", "float32")
    roots = exact.collect(algorithm, Single(syllables(2), delimiter="a"), team.policies)
    rows = [
        (response, advantage, 1 / (6 * len(roots) * exact.sampling.max_new_tokens))
        for root in roots
        for response, advantage in zip(
            root.responses["agent"], grpo_advantages(root.rewards[:, 0].tolist()), strict=True
        )
    ]
    (actual,) = exact.gradients(team, algorithm, roots, "agent")
    exact.assert_equal(actual, exact.explicit_gradient(team.policies["agent"], rows), 1e-5)


@pytest.mark.parametrize(("turns", "branching"), [(1, "tree"), (2, "tree"), (3, "chain")])
def test_it_is_magrpo_with_one_agent(exact: Any, syllables: Any, turns: int, branching: Any) -> None:
    env = Single(syllables(2, max_turns=turns), delimiter="a")
    team = exact.team(["agent"])
    ours, theirs = (
        list(algorithm.credit(exact.collect(algorithm, env, team.policies), ["agent"]))
        for algorithm in (GRPO(group_size=4, branching=branching), MAGRPO(group_size=4, branching=branching))
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.samples == other.samples and one.credits.tolist() == other.credits.tolist()


def test_a_response_without_the_delimiter_is_never_split_and_earns_nothing(
    exact: Any, syllables: Any
) -> None:
    env = Single(syllables(2), delimiter="b")
    roots: list[Node] = exact.collect(GRPO(group_size=12), env, exact.team(["agent"]).policies)
    lacking = [0, 0]
    for root in roots:
        for response, reward in zip(root.responses["agent"], root.rewards[:, 0], strict=True):
            twin = syllables(2)
            twin.reset(seed=0)
            parts = [*(part.strip() for part in response.text.split("b")), ""][:2]
            whole = twin.step(dict(zip(twin.possible_agents, parts, strict=True)))[1]["player_0"]
            malformed = "b" not in response.text
            assert reward == (min(whole, 0.0) if malformed else whole)
            lacking[malformed] += 1
            lacking[malformed] += 100 * (malformed and whole > 0)
    assert lacking[0] > 0 and lacking[1] > 100, (
        "some must be well formed, and some of the others worth something"
    )


def test_the_budget_of_tokens_is_that_of_a_team_at_n_times_the_limit(
    exact: Any, syllables: Any, counter: Any
) -> None:
    class Full(counter):  # type: ignore[misc, valid-type]
        """Writes as many tokens as it may."""

        def generate(self, conversations: Any, sampling: Any, generator: Any, n: int = 1, *rest: Any) -> Any:
            rest[-1](len(conversations) * n * sampling.max_new_tokens)
            return super().generate(conversations, sampling, generator, n)

    costs = []
    for env, algorithm, factor in (
        (syllables(3), MAGRPO(group_size=4), 1),
        (Single(syllables(3)), GRPO(group_size=4), 3),
    ):
        rollout = exact.rollout(env, {agent: Full() for agent in env.possible_agents})
        rollout.sampling = type(exact.sampling)(max_new_tokens=5 * factor)
        algorithm.collect(rollout, [(0, 0)])
        costs.append((rollout.cost.generated_tokens, rollout.cost.reward_evaluations))
    assert costs == [(3 * 4 * 5, 4)] * 2


def test_the_papers_settings_have_the_papers_numbers() -> None:
    """Section 4.2: 64 outputs a question, KL coefficient 0.04; the loss averages over a response's tokens (eq. 3)."""
    paper = GRPO.preset("paper")
    assert isinstance(paper, GRPO)
    assert (paper.group_size, paper.kl_coef, paper.length_weighting) == (64, 0.04, "token_mean")
    assert paper.advantages(np.array([1.0, 3.0])).tolist() == [-1.0, 1.0]


def test_a_team_is_refused_with_the_way_to_one_policy() -> None:
    with pytest.raises(
        ValueError, match=r"env\.kwargs\.protocol single, with sampling\.max_new_tokens 3 times"
    ):
        GRPO().validate(["a", "b", "c"])
    with pytest.raises(ValueError, match="group_size 1 leaves nothing to compare"):
        GRPO(group_size=1).validate(["agent"])
