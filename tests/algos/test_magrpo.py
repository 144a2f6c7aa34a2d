"""What MAGRPO credits, weighs and refuses, without a model: responses come from a die."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from textmarl.agents import Conversation, Response, Sampling, TeamConfig
from textmarl.algos import MAGRPO, Batch, Group, Node, Rollout, validate_run
from textmarl.envs import Outcome, TaskSet, TextEnv

SIX = "123456"


class Dice(TextEnv):
    """Pays a number that depends on every die thrown this turn; a throw of the same by all ends the episode."""

    tasks = TaskSet.of(["first", "second"])

    def __init__(self, agents: int = 2, **settings: Any):
        self.possible_agents = [f"player_{i}" for i in range(agents)]
        super().__init__(**settings)

    def observe(self, agent: str) -> str:
        return "again" if self.history else f"{self.task.data['text']}: throw"

    def judge(self, responses: dict[str, str]) -> Outcome:
        thrown = [int(text) for text in responses.values()]
        score = (
            sum((0.37 + i) * number**1.5 for i, number in enumerate(thrown)) - 0.11 * thrown[0] * thrown[-1]
        )
        return Outcome({"score": score}, finished=thrown[0] <= 2)


class Die:
    """Stands in for a policy: throws instead of writing."""

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        generator: torch.Generator,
        n: int = 1,
        batch_size: int = 64,
        on_tokens: Any = None,
    ) -> list[list[Response]]:
        throws = torch.randint(6, (len(conversations), n), generator=generator).tolist()
        return [[Response(SIX[k], [k], [-1.0], "stop", [0]) for k in row] for row in throws]


class SameFace(Die):
    """Throws a five, always."""

    def generate(
        self, conversations: Sequence[Conversation], *args: Any, **kwargs: Any
    ) -> list[list[Response]]:
        rows = super().generate(conversations, *args, **kwargs)
        return [[Response("5", [4], [-1.0], "stop", [0]) for _ in row] for row in rows]


def play(
    algorithm: MAGRPO, turns: int = 1, agents: int = 2, die: type[Die] = Die, seed: int = 0
) -> list[Node]:
    env = Dice(agents, max_turns=turns)
    generators = {a: torch.Generator().manual_seed(10 * seed + i) for i, a in enumerate(env.possible_agents)}
    policies: Any = {agent: die() for agent in env.possible_agents}
    return algorithm.collect(Rollout(env, policies, Sampling(), generators), [(1, 0), (2, 1)])


def credit(algorithm: MAGRPO, roots: list[Node]) -> list[Group]:
    return list(algorithm.credit(roots, list(roots[0].responses)))


def all_advantages(algorithm: MAGRPO, roots: list[Node]) -> np.ndarray:
    return np.array([sample.advantage for group in credit(algorithm, roots) for sample in group.samples])


def batch(lengths: Sequence[int], advantages: Sequence[float], weight: float, limit: int = 9) -> Batch:
    """Random log-probabilities of responses of the given lengths."""
    torch.manual_seed(0)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    logprobs = (-torch.rand(mask.shape, dtype=torch.float64) * mask).requires_grad_()
    spread = torch.tensor(advantages, dtype=torch.float64)[:, None] * mask
    weights = torch.full((len(lengths),), weight, dtype=torch.float64)
    return Batch(logprobs, torch.zeros_like(logprobs), mask, spread, weights, None, None, limit)


# ------------------------------------------------------------------------------------------------ joint actions


def test_aligned_joint_actions_are_the_g_th_of_everyone() -> None:
    for root in play(MAGRPO(group_size=4), agents=3):
        assert root.joint_actions == [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)]


def test_cross_joint_actions_are_every_combination_once() -> None:
    for root in play(MAGRPO(group_size=3, joint_mode="cross"), agents=2):
        assert sorted(root.joint_actions) == [(a, b) for a in range(3) for b in range(3)]


def test_a_joint_action_is_paid_for_the_texts_in_it() -> None:
    for root in play(MAGRPO(group_size=3, joint_mode="cross")):
        for j, (a, b) in enumerate(root.joint_actions):
            env = Dice()
            env.reset(seed=0)
            texts = {
                "player_0": root.responses["player_0"][a].text,
                "player_1": root.responses["player_1"][b].text,
            }
            assert root.rewards[j].tolist() == list(env.step(texts)[1].values())


# ------------------------------------------------------------------------------------------------------- credit


def test_cross_credit_is_the_mean_over_the_joint_actions_with_the_response() -> None:
    algorithm = MAGRPO(group_size=3, joint_mode="cross")
    roots = play(algorithm)
    groups = credit(algorithm, roots)
    assert len(groups) == 4
    for (root, agent), group in zip(itertools.product(roots, (0, 1)), groups, strict=True):
        paid = {joint: root.rewards[j][0] for j, joint in enumerate(root.joint_actions)}
        expected = [sum(paid[(k, m) if agent == 0 else (m, k)] for m in range(3)) / 3 for k in range(3)]
        assert group.credits == pytest.approx(expected, rel=1e-12)


def test_returns_discount_the_mean_of_what_follows() -> None:
    algorithm = MAGRPO(group_size=3, discount=0.5)
    roots = play(algorithm, turns=2, seed=3)
    by_node = iter(credit(algorithm, roots)[::2])
    ends = set()
    for root in roots:
        group = next(by_node)
        for j, continuation in enumerate(root.continuations):
            ends.add(continuation is None)
            after = 0.0 if continuation is None else sum(continuation[0].rewards[:, 0]) / 3
            assert group.credits[j] == pytest.approx(root.rewards[j][0] + 0.5 * after, rel=1e-12)
        for child in root.children():
            assert next(by_node).credits == pytest.approx(child.rewards[:, 0], rel=1e-12)
    assert ends == {True, False}


def test_a_chain_returns_its_own_episode() -> None:
    algorithm = MAGRPO(group_size=6, branching="chain", discount=0.5)
    roots = play(algorithm, turns=3, seed=1)
    groups = [g for g in credit(algorithm, roots) if g.samples[0].agent == "player_0"]
    visited = iter(groups)
    for root in roots:
        episodes = []  # per member of the group: its rewards to the end
        for j in range(6):
            rewards, node, place = [], root, j
            while True:
                rewards.append(node.rewards[place][0])
                continuation = node.continuations[place]
                if continuation is None:
                    break
                node, place = continuation
            episodes.append(rewards)
        for turn in range(max(len(e) for e in episodes)):
            alive = [e[turn:] for e in episodes if len(e) > turn]
            expected = [sum(0.5**k * reward for k, reward in enumerate(rest)) for rest in alive]
            assert next(visited).credits == pytest.approx(expected, rel=1e-12)
    assert next(visited, None) is None


@pytest.mark.parametrize("joint_mode", ["aligned", "cross"])
def test_with_std_the_four_baselines_coincide(joint_mode: Any) -> None:
    roots = play(MAGRPO(group_size=4, joint_mode=joint_mode), turns=2)
    found = [
        all_advantages(MAGRPO(group_size=4, joint_mode=joint_mode, baseline=baseline), roots)  # type: ignore[arg-type]
        for baseline in ("mean", "none", "leave_one_out", "max")
    ]
    for other in found[1:]:
        assert other == pytest.approx(found[0], abs=1e-9)
    assert found[0].std() > 0.5


def test_without_std_the_four_baselines_differ_as_their_names_say() -> None:
    credits = np.array([1.0, 2.0, 6.0])
    expected = {
        "none": [1, 2, 6],
        "mean": [-2, -1, 3],
        "max": [-5, -4, 0],
        "leave_one_out": [1 - 4, 2 - 3.5, 6 - 1.5],
    }
    for baseline, values in expected.items():
        algorithm = MAGRPO(baseline=baseline, normalize="none")  # type: ignore[arg-type]
        assert algorithm.advantages(credits) == pytest.approx(values)


def test_std_is_that_of_the_population() -> None:
    credits = np.array([1.0, 2.0, 6.0])
    assert MAGRPO().advantages(credits) == pytest.approx((credits - 3) / np.sqrt((4 + 1 + 9) / 3))


def test_a_spread_below_a_millionth_is_not_blown_up() -> None:
    credits = np.array([0.0, 2e-9])
    assert MAGRPO().advantages(credits) == pytest.approx([-1e-3, 1e-3])


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e6 + 0.1])
@pytest.mark.parametrize("normalize", ["std", "none"])
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "max"])
def test_a_group_of_equal_credits_teaches_exactly_nothing(
    baseline: Any, normalize: Any, value: float
) -> None:
    for n in (2, 3, 7):
        assert (
            MAGRPO(baseline=baseline, normalize=normalize).advantages(np.full(n, value)).tolist() == [0.0] * n
        )


@pytest.mark.parametrize("joint_mode", ["aligned", "cross"])
def test_equal_responses_teach_exactly_nothing(joint_mode: Any) -> None:
    algorithm = MAGRPO(group_size=3, joint_mode=joint_mode)
    assert not all_advantages(algorithm, play(algorithm, turns=2, die=SameFace)).any()


# ------------------------------------------------------------------------------------------------------ weights


@pytest.mark.parametrize(("joint_mode", "branches"), [("aligned", 3), ("cross", 9)])
def test_a_node_weighs_the_product_of_one_over_the_branches_above(joint_mode: Any, branches: int) -> None:
    algorithm = MAGRPO(group_size=3, joint_mode=joint_mode)
    roots = play(algorithm, turns=3 if joint_mode == "aligned" else 2)
    for group, node in zip(
        credit(algorithm, roots)[::2], [n for root in roots for n in root.subtree()], strict=True
    ):
        for sample in group.samples:
            assert sample.weight == pytest.approx(branches**-node.turn / 3 / len(roots))


@pytest.mark.parametrize("joint_mode", ["aligned", "cross"])
def test_weights_of_a_turn_sum_to_the_share_of_episodes_that_reached_it(joint_mode: Any) -> None:
    algorithm = MAGRPO(group_size=3, joint_mode=joint_mode)
    roots = play(algorithm, turns=2, seed=3)
    for agent in ("player_0", "player_1"):
        weights = [
            sum(s.weight for s in g.samples) for g in credit(algorithm, roots) if g.samples[0].agent == agent
        ]
        by_turn = {0: 0.0, 1: 0.0}
        for node, weight in zip([n for root in roots for n in root.subtree()], weights, strict=True):
            by_turn[node.turn] += weight
        reached = np.mean([np.mean([c is not None for c in root.continuations]) for root in roots])
        assert 0 < reached < 1
        assert by_turn == {0: pytest.approx(1.0), 1: pytest.approx(reached)}


def test_a_chain_divides_by_the_group_size_not_by_the_number_alive() -> None:
    algorithm = MAGRPO(group_size=6, branching="chain")
    roots = play(algorithm, turns=4)
    groups = credit(algorithm, roots)
    assert {len(group.samples) for group in groups} > {6}
    assert {s.weight for group in groups for s in group.samples} == {1 / 6 / len(roots)}


def test_the_last_one_alive_of_a_chain_has_advantage_zero() -> None:
    for seed in range(20):
        roots = play(MAGRPO(group_size=3, branching="chain"), turns=4, seed=seed)
        if any(len(node.rewards) == 1 for root in roots for node in root.subtree()):
            break
    else:
        raise AssertionError("no episode outlived the others")
    for baseline, normalize in itertools.product(("mean", "leave_one_out", "max"), ("std", "none")):
        algorithm = MAGRPO(group_size=3, branching="chain", baseline=baseline, normalize=normalize)  # type: ignore[arg-type]
        alone = [g for g in credit(algorithm, roots) if len(g.samples) == 1]
        assert alone and all(g.samples[0].advantage == 0 for g in alone)


def test_a_chain_costs_a_group_of_episodes_and_a_tree_a_power_of_it() -> None:
    def evaluations(branching: Any) -> int:
        env = Dice(2, max_turns=3)
        env.judge = lambda responses: Outcome({"score": 1.0})  # type: ignore[method-assign]
        generators = {a: torch.Generator().manual_seed(0) for a in env.possible_agents}
        rollout = Rollout(env, {a: Die() for a in env.possible_agents}, Sampling(), generators)  # type: ignore[misc]
        rollout.collect([(0, 0)], 4, "aligned", branching)
        return rollout.cost.reward_evaluations

    assert evaluations("chain") == 4 + 4 + 4
    assert evaluations("tree") == 4 + 4**2 + 4**3


def test_joint_actions_are_judged_at_once_where_the_environment_waits_for_something_else() -> None:
    class Meeting(Dice):
        concurrency = 4
        barrier = threading.Barrier(4, timeout=20)

        def judge(self, responses: dict[str, str]) -> Outcome:
            self.barrier.wait()  # hangs unless all joint actions of a node are judged at the same time
            return super().judge(responses)

    def rewards(env: Dice) -> list[list[float]]:
        generators = {a: torch.Generator().manual_seed(0) for a in env.possible_agents}
        rollout = Rollout(env, {a: Die() for a in env.possible_agents}, Sampling(), generators)  # type: ignore[misc]
        (root,) = rollout.collect([(0, 0)], 4)
        return [node.rewards.tolist() for node in root.subtree()]

    assert rewards(Meeting(2, max_turns=2)) == rewards(Dice(2, max_turns=2))


# --------------------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("length_weighting", ["sum", "constant", "token_mean"])
def test_one_agent_and_one_turn_is_the_formula_of_grpo(length_weighting: Any) -> None:
    algorithm = MAGRPO(group_size=5, length_weighting=length_weighting)
    roots = play(algorithm, agents=1)
    lengths = [1, 4, 2, 7, 3]
    for root, group in zip(roots, credit(algorithm, roots), strict=True):
        rewards = root.rewards[:, 0]
        grpo = (rewards - rewards.mean()) / rewards.std()
        assert [s.advantage for s in group.samples] == pytest.approx(grpo.tolist(), abs=1e-9)
        data = batch(lengths, [float(s.advantage) for s in group.samples], group.samples[0].weight)  # type: ignore[arg-type]
        expected = 0.0
        for g, length in enumerate(lengths):
            c = {"sum": 1, "constant": data.max_new_tokens, "token_mean": length}[length_weighting]
            expected -= grpo[g] / 5 / len(roots) / c * float(data.logprobs[g, :length].detach().sum())
        assert algorithm.loss(data).item() == pytest.approx(expected, rel=1e-9)


def test_padding_has_no_gradient() -> None:
    data = batch([2, 5], [1.0, -1.0], 0.5)
    data.old_logprobs = data.logprobs.detach() - 0.05
    data.reference_logprobs = data.logprobs.detach() - 0.3
    for algorithm in (
        MAGRPO(),
        MAGRPO(epochs=2),
        MAGRPO(epochs=2, ratio_level="sequence"),
        MAGRPO(kl_coef=0.1, length_weighting="token_mean"),
    ):
        (gradient,) = torch.autograd.grad(algorithm.loss(data), data.logprobs)
        assert not gradient[0, 2:].any() and gradient[0, :2].all() and gradient[1].all()


@pytest.mark.parametrize("ratio_level", ["token", "sequence"])
def test_at_ratio_one_the_clipped_loss_has_the_gradient_of_the_plain_one(ratio_level: Any) -> None:
    algorithm = MAGRPO(ratio_level=ratio_level)
    data = batch([2, 5, 3], [1.0, -1.0, 0.3], 0.5)
    (plain,) = torch.autograd.grad(algorithm.loss(data), data.logprobs)
    data.old_logprobs = data.logprobs.detach()
    (clipped,) = torch.autograd.grad(algorithm.loss(data), data.logprobs)
    assert torch.allclose(plain, clipped, rtol=1e-12)


def test_a_ratio_is_clipped_only_where_that_lowers_the_objective() -> None:
    algorithm = MAGRPO(clip=0.2, length_weighting="sum")
    for ratio, advantage, kept in [(1.5, 1, False), (0.5, 1, True), (1.5, -1, True), (0.5, -1, False)]:
        data = batch([1], [advantage], 1.0)
        data.old_logprobs = data.logprobs.detach() - np.log(ratio)
        loss = algorithm.loss(data)
        assert loss.item() == pytest.approx(-advantage * (ratio if kept else min(max(ratio, 0.8), 1.2)))
        (gradient,) = torch.autograd.grad(loss, data.logprobs)
        assert gradient.item() == pytest.approx(-ratio * advantage if kept else 0.0)


def test_sequence_ratio_is_the_mean_over_the_tokens_of_the_log_ratio() -> None:
    data = batch([2, 4], [1.0, 1.0], 1.0)
    shift = torch.tensor([[0.1, -0.3, 0, 0], [0.02, 0.04, 0.06, 0.08]], dtype=torch.float64)
    data.old_logprobs = data.logprobs.detach() - shift
    loss = MAGRPO(ratio_level="sequence", length_weighting="token_mean").loss(data)
    assert loss.item() == pytest.approx(-(np.exp(-0.1) + np.exp(0.05)))


def test_kl_is_never_negative_and_zero_at_the_reference() -> None:
    algorithm = MAGRPO(kl_coef=1.0)
    data = batch([2, 5], [0.0, 0.0], 0.5)
    data.reference_logprobs = data.logprobs.detach()
    assert algorithm.loss(data).item() == 0
    data.reference_logprobs = (data.logprobs.detach() + torch.randn(data.logprobs.shape)) * data.mask
    assert algorithm.loss(data).item() > 0


# ----------------------------------------------------------------------------------------- presets and mistakes


def test_the_published_settings_are_a_preset() -> None:
    paper = MAGRPO.preset("paper")
    assert isinstance(paper, MAGRPO)
    assert (paper.group_size, paper.normalize, paper.length_weighting) == (4, "none", "sum")
    assert (paper.joint_mode, paper.branching, paper.baseline, paper.discount) == (
        "aligned",
        "tree",
        "mean",
        1.0,
    )


def test_the_defaults_are_the_documented_ones() -> None:
    made = MAGRPO()
    assert (made.group_size, made.joint_mode, made.branching, made.discount) == (8, "aligned", "tree", 1.0)
    assert (made.baseline, made.normalize, made.length_weighting) == ("mean", "std", "constant")
    assert (made.clip, made.epochs, made.minibatches, made.kl_coef) == (0.2, 1, 1, 0.0)
    assert made.max_joint_actions == 256


def test_a_preset_can_be_changed_in_parts() -> None:
    assert MAGRPO.preset("paper", group_size=6) == MAGRPO(
        group_size=6, normalize="none", length_weighting="sum"
    )


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no preset 'papers'; there are: paper"):
        MAGRPO.preset("papers")


MISTAKES = {
    "group_size 1 leaves nothing to compare": MAGRPO(group_size=1),
    "group_size 1 leaves nothing": MAGRPO(group_size=1, baseline="none"),
    "group_size must be at least 1, got 0": MAGRPO(group_size=0),
    "chain cannot continue cross": MAGRPO(group_size=2, joint_mode="cross", branching="chain"),
    "makes 289 joint actions": MAGRPO(group_size=17, joint_mode="cross"),
    "over algo.max_joint_actions 8": MAGRPO(group_size=3, joint_mode="cross", max_joint_actions=8),
    "discount must be": MAGRPO(discount=1.5),
    "clip must be positive": MAGRPO(clip=0.0),
    "kl_coef not negative": MAGRPO(kl_coef=-1.0),
    "epochs and minibatches": MAGRPO(epochs=0),
    "algo.baseline must be one of .*, got 'median'": MAGRPO(baseline="median"),  # type: ignore[arg-type]
    "algo.normalize must be one of .*, got 'yes'": MAGRPO(normalize="yes"),  # type: ignore[arg-type]
    "algo.joint_mode must be one of .*, got 'crossed'": MAGRPO(joint_mode="crossed"),  # type: ignore[arg-type]
    "algo.branching must be one of .*, got 'forest'": MAGRPO(branching="forest"),  # type: ignore[arg-type]
    "algo.length_weighting must be one of .*, got 'mean'": MAGRPO(length_weighting="mean"),  # type: ignore[arg-type]
    "algo.ratio_level must be one of .*, got 'turn'": MAGRPO(ratio_level="turn"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("message", MISTAKES)
def test_a_setting_that_cannot_work_is_refused_by_name(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MISTAKES[message].validate(["one", "two"])


@pytest.mark.parametrize(
    "algorithm",
    [
        MAGRPO(),
        MAGRPO.preset("paper"),
        MAGRPO(group_size=16, joint_mode="cross"),
        MAGRPO(group_size=1, baseline="none", normalize="none"),
        MAGRPO(group_size=1, baseline="none", normalize="none", branching="chain"),
    ],
)
def test_settings_that_work_are_accepted(algorithm: MAGRPO) -> None:
    algorithm.validate(["one", "two"])


def check(algorithm: MAGRPO | None = None, team: TeamConfig | None = None, **sampling: Any) -> None:
    # No such model exists: a mistake must be seen before anything is loaded.
    validate_run(
        algorithm or MAGRPO(), ["one", "two"], team or TeamConfig(model="no/such"), Sampling(**sampling)
    )


def test_greedy_sampling_cannot_train() -> None:
    check(temperature=0.1)
    with pytest.raises(ValueError, match=r"temperature 0 is greedy.*Use 0\.7"):
        check(temperature=0.0)


def test_kl_needs_a_reference_policy() -> None:
    kl = MAGRPO(kl_coef=0.1)
    check(kl)
    check(kl, TeamConfig(model="no/such", tuning="full", reference="copy"))
    check(MAGRPO(), TeamConfig(model="no/such", tuning="full"))
    with pytest.raises(ValueError, match=r"team\.reference to copy"):
        check(kl, TeamConfig(model="no/such", tuning="full"))
    with pytest.raises(ValueError, match="the team keeps none"):
        check(kl, TeamConfig(model="no/such", reference="none"))


def test_one_model_for_each_agent_or_one_for_all() -> None:
    check(team=TeamConfig(model=["no/such", "nor/such"]))
    with pytest.raises(ValueError, match="lists 3 models for 2 agents"):
        check(team=TeamConfig(model=["a", "b", "c"]))
