"""PMIC: what is shaped and what is left as it is, the controls, several turns, trees and chains, resuming, refusals."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.algos import (
    C3,
    IGRPO,
    IPPO,
    MAGRPO,
    PMIC,
    Algorithm,
    CoLLM,
    Node,
    Trainer,
    TrainerConfig,
    resolve,
)
from textmarl.algos.credit_diagnostics import played
from textmarl.algos.joint_actions import all_episodes, embedded
from textmarl.algos.pmic import standardised
from textmarl.algos.records import MEASURED
from textmarl.envs.protocols import Pipeline

SMALL = {"embedding_size": 16, "estimator_updates": 2, "estimator_batch_size": 8}
AGENTS = ["player_0", "player_1"]


def pmic(**settings: Any) -> PMIC:
    return PMIC(**{**SMALL, **settings})


def learned(exact: Any, env: Any, algorithm: PMIC, steps: int = 2) -> tuple[Any, list[Node]]:
    """A team, and experience that was not learned from, after the estimators learned from some."""
    team = exact.team(env.possible_agents)
    algorithm.setup(team, 3)
    for seed in range(steps):
        roots = exact.collect(algorithm, env, team.policies, seed)
        list(algorithm.credit(roots, env.possible_agents))
        algorithm.improve(np.random.default_rng(seed))
    return team, exact.collect(algorithm, env, team.policies, steps)


# --------------------------------------------------------------------------------------------------------- the pairs


@pytest.mark.parametrize(
    ("agents", "base", "turns"),
    [
        (2, MAGRPO(group_size=3), 2),
        (3, MAGRPO(group_size=2, joint_mode="cross"), 2),
        (1, MAGRPO(group_size=3, branching="chain"), 3),
        (2, IGRPO(group_size=4, partner="fixed"), 2),
    ],
)
def test_every_joint_action_of_every_node_is_one_pair(
    exact: Any, syllables: Any, counter: Any, agents: int, base: Any, turns: int
) -> None:
    env = syllables(agents, ends=False, max_turns=turns)
    names = env.possible_agents
    roots = exact.collect(base, env, {name: counter() for name in names})
    found = embedded(roots, names, 64)
    nodes = list(played(roots))
    assert len(found.states) == len(found.actions) == sum(len(node.rewards) for node in nodes)
    assert sorted(k for own in found.index.values() for k in own) == list(range(len(found.states)))
    for node in nodes:
        own = found.states[found.index[id(node)]]
        assert (own == own[0]).all() == (len(node.conversations) == 1)  # a chain's members have own histories
        lengths = np.linalg.norm(own.reshape(len(own), agents, 64), axis=2)
        np.testing.assert_allclose(lengths, 8, rtol=1e-5)  # sqrt(64) for each agent
    distinct = {tuple(row) for row in found.actions}
    assert len(distinct) == len(found.actions)  # every answer of a Counter is another number


def test_what_was_played_is_one_pair_beside_its_alternatives(
    exact: Any, syllables: Any, counter: Any
) -> None:
    env = syllables(2, ends=False, max_turns=2)
    rollout = exact.rollout(env, {name: counter() for name in AGENTS})
    roots = C3(fan_out=3).collect(rollout, [(0, 0)])
    assert len(embedded(roots, AGENTS, 16).states) == rollout.cost.reward_evaluations
    found = list(all_episodes(roots[0], AGENTS))
    # The anchor, and at each of 2 turns and 2 agents 2 alternatives, each continued once to the end.
    assert len(found) == 1 + 2 * 2 * 2 and {len(path) for path in found} == {2}
    assert len({tuple(id(node.infos[j]) for node, j in path) for path in found}) == len(found)


def test_an_agent_that_waits_says_nothing(exact: Any, syllables: Any, counter: Any) -> None:
    env = Pipeline(syllables(2, ends=False))
    roots = exact.collect(MAGRPO(group_size=2), env, {name: counter() for name in AGENTS})
    found = embedded(roots, AGENTS, 16)
    parts = found.actions[found.index[id(roots[0])]].reshape(2, 2, 16)
    assert parts[:, 0].any(axis=1).all() and not parts[:, 1].any()


def test_an_episode_is_worth_what_the_environment_paid_over_its_turns(exact: Any, syllables: Any) -> None:
    env = syllables(2, max_turns=2, reward="individual")
    roots = exact.collect(MAGRPO(group_size=2), env, exact.team(AGENTS).policies)
    found = embedded(roots, AGENTS, 16)
    for path in all_episodes(roots[0], AGENTS):
        paid = sum(float(np.mean(node.rewards[j])) for node, j in path)
        assert found.episode(path).score == pytest.approx(paid, abs=1e-12)
        assert found.episode(path).states.shape == (len(path), 32)


def test_whatever_can_be_asked_of_an_algorithm_is_asked_of_the_base() -> None:
    """What PMIC would inherit instead would be the answer of an algorithm that has no settings."""
    asked = {
        name
        for name, own in vars(Algorithm).items()
        if not name.startswith("_") and (callable(own) or isinstance(own, property))
    }
    assert asked - set(vars(PMIC)) == {"check_choices"}, "a helper of validate()"


# -------------------------------------------------------------------------------------------------- the shaped reward


def test_values_are_standardised_over_the_batch_and_clipped() -> None:
    values = np.array([0.0, 1.0, 2.0, 5.0])
    np.testing.assert_allclose(standardised(values), (values - 2) / np.sqrt(3.5), atol=1e-12)
    far = np.array([*np.zeros(99), 1.0])  # (1 - 0.01) / sqrt(0.0099) = 9.9
    assert standardised(far)[-1] == 3 and standardised(-far)[-1] == -3
    for equal in (np.zeros(4), np.full(4, 0.1), 7 + 1e-15 * np.arange(4)):
        assert not standardised(equal).any()


@pytest.mark.parametrize(("mode", "alpha", "beta"), [("both", 0.2, 0.7), ("max", 0.2, 0), ("min", 0, 0.7)])
def test_bonus_is_alpha_z_of_the_lower_less_beta_z_of_the_upper_bound(
    exact: Any, syllables: Any, mode: Any, alpha: float, beta: float
) -> None:
    env = syllables(2, max_turns=2)
    algorithm = pmic(mode=mode, alpha=0.2, beta=0.7, base_kwargs={"group_size": 3})
    _, roots = learned(exact, env, algorithm)
    found = embedded(roots, AGENTS, 16)
    s, u = torch.from_numpy(found.states).double(), torch.from_numpy(found.actions).double()
    with torch.no_grad():
        low, up = (algorithm.estimators[name](s, u).numpy() for name in ("lower", "upper"))
    assert low.std() > 1e-3 and up.std() > 1e-3
    z_low, z_up = (np.clip((x - x.mean()) / x.std(), -3, 3) for x in (low, up))
    np.testing.assert_allclose(
        algorithm.bonus(found.states, found.actions), alpha * z_low - beta * z_up, atol=1e-10
    )


def test_before_anything_was_learned_there_is_no_bonus(exact: Any, syllables: Any) -> None:
    env = syllables(2)
    algorithm = pmic(base_kwargs={"group_size": 3})
    _, roots = learned(exact, env, algorithm, steps=0)
    ours = algorithm.credit(roots, AGENTS)
    theirs = MAGRPO(group_size=3).credit(roots, AGENTS)
    assert [group.samples for group in ours] == [group.samples for group in theirs]


@pytest.mark.parametrize(
    ("name", "settings", "turns"),
    [
        ("magrpo", {"group_size": 3}, 2),
        ("magrpo", {"group_size": 2, "joint_mode": "cross", "normalize": "none"}, 1),
        ("magrpo", {"group_size": 3, "branching": "chain"}, 3),
        ("c3", {"fan_out": 3}, 2),
        ("igrpo", {"group_size": 4, "normalize": "none"}, 2),
    ],
)
def test_credit_and_gradient_are_the_bases_on_shaped_rewards(
    exact: Any, syllables: Any, name: str, settings: dict[str, Any], turns: int
) -> None:
    env = syllables(2, max_turns=turns)
    algorithm = pmic(base=name, base_kwargs=settings, alpha=0.3, beta=0.4)
    team, roots = learned(exact, env, algorithm)
    before = [node.rewards.copy() for node in played(roots)]
    (actual,) = exact.gradients(team, algorithm, roots, "player_1")
    for node, rewards in zip(played(roots), before, strict=True):
        np.testing.assert_array_equal(node.rewards, rewards)  # score and return are read from them

    by_hand = copy.deepcopy(roots)
    found = embedded(by_hand, AGENTS, 16)
    bonus = algorithm.bonus(found.states, found.actions)
    assert bonus.std() > 0.1
    for node in played(by_hand):
        for j, pair in enumerate(found.index[id(node)]):
            node.rewards[j] += bonus[pair]
    base = algorithm.wrapped
    (expected,) = exact.gradients(team, base, by_hand, "player_1")
    exact.assert_equal(actual, expected, 1e-12)
    (unshaped,) = exact.gradients(team, base, roots, "player_1")
    largest = max(float(gradient.abs().max()) for gradient in unshaped.values())
    assert max(float((unshaped[key] - actual[key]).abs().max()) for key in actual) > 0.01 * largest


def test_estimators_are_held_while_experience_is_credited_and_disturb_no_stream(
    exact: Any, syllables: Any
) -> None:
    env = syllables(2)
    algorithm = pmic(base_kwargs={"group_size": 3})
    torch.manual_seed(99)  # not where PMIC's own seed would leave it, whatever ran before
    np.random.seed(99)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    _, roots = learned(exact, env, algorithm)
    weights = copy.deepcopy(algorithm.state_dict()["estimators"])
    once = [group.samples for group in algorithm.credit(roots, AGENTS)]
    again = [group.samples for group in algorithm.credit(roots, AGENTS)]
    assert once == again
    for name, own in algorithm.state_dict()["estimators"].items():
        assert all(torch.equal(own[key], weights[name][key]) for key in own)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_estimators_learn_from_the_buffers_of_their_own(exact: Any, syllables: Any) -> None:
    env = syllables(2)
    algorithm = pmic(base_kwargs={"group_size": 4}, negative_size=5)
    learned(exact, env, algorithm, steps=3)
    assert algorithm.buffer.positive and len(algorithm.buffer.negative) == 5
    assert (
        min(e.score for e in algorithm.buffer.positive) > 0 > max(e.score for e in algorithm.buffer.negative)
    )
    lower, upper = (copy.deepcopy(algorithm.estimators[name].state_dict()) for name in ("lower", "upper"))
    algorithm.buffer.negative.clear()
    metrics = algorithm.improve(np.random.default_rng(0))
    assert metrics["pmic/upper_bound"] == 0 and metrics["pmic/negative_episodes"] == 0
    assert all(torch.equal(v, upper[k]) for k, v in algorithm.estimators["upper"].state_dict().items())
    assert not all(torch.equal(v, lower[k]) for k, v in algorithm.estimators["lower"].state_dict().items())


# ----------------------------------------------------------------------------------------------------- through a run


def run(
    algorithm: Algorithm, env: Any, folder: Path, steps: int = 3, resume: bool = False, **settings: Any
) -> tuple[list[dict[str, Any]], Any]:
    """Train a small team; the metrics that are no measurements, and the last checkpoint."""
    config = TeamConfig(model="tiny", device="cpu", lora_rank=2, lora_targets=["q_proj"])
    team = Team.create(env.possible_agents, config)
    given = {"learning_rate": 0.02, "warmup_steps": 0, "checkpoint_every": 1, **settings}
    trainer = Trainer(
        env, team, algorithm, TrainerConfig(steps=steps, **given), Sampling(1.0, max_new_tokens=5), run=folder
    )
    assert trainer.train(resume=resume)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if not k.startswith(MEASURED)} for line in lines]
    return kept, trainer.run.load_checkpoint()


def without_own(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.startswith("pmic/")} for line in metrics]


def same(one: Any, other: Any) -> bool:
    """Whether two checkpoints, or parts of them, are equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize(
    ("name", "base", "settings"),
    [
        ("magrpo", MAGRPO, {"group_size": 3}),
        ("igrpo", IGRPO, {"group_size": 4, "epochs": 2, "minibatches": 2}),
        ("ippo", IPPO, {"group_size": 2, "epochs": 2, "critic": "central"}),
        ("ippo", IPPO, {"group_size": 2, "epochs": 1, "critic_trunk": "shared"}),
        ("collm", CoLLM, {"group_size": 2}),
    ],
    ids=["magrpo", "igrpo", "mappo", "ippo, shared trunk", "collm"],
)
def test_without_weights_a_run_is_its_bases_bit_for_bit(
    syllables: Any, tmp_path: Path, name: str, base: Any, settings: dict[str, Any]
) -> None:
    env = syllables(2, max_turns=2)
    control = pmic(base=name, base_kwargs=settings, alpha=0.0, beta=0.0)
    ours, our_state = run(control, env, tmp_path / "pmic")
    theirs, their_state = run(base(**settings), env, tmp_path / "base")
    assert without_own(ours) == theirs
    assert len({line["grad_norm/player_0"] for line in ours}) == 3  # it does train
    assert (tmp_path / "pmic" / "samples.jsonl").read_bytes() == (
        tmp_path / "base" / "samples.jsonl"
    ).read_bytes()
    for part in ("team", "optimizers", "generators"):
        assert same(our_state[part], their_state[part])
    assert control.estimators["lower"].trained > 0 and control.estimators["upper"].trained > 0


BASELINE = '''
from dataclasses import dataclass

import torch
from textmarl.algos import MAGRPO


@dataclass
class Learned(MAGRPO):
    """A baseline that is learned by the policies' losses, a number that is drawn, and an early stop."""

    def setup(self, team, seed):
        generator = torch.Generator().manual_seed(seed)
        self.scale = {a: torch.nn.Parameter(torch.rand(1, generator=generator)) for a in team.policies}
        self.drawn, self.passes = 0.0, 0

    def parameters(self, agent):
        return [self.scale[agent]]

    def loss(self, batch):
        return self.scale[batch.agent].squeeze() * super().loss(batch)

    def goes_on(self, approx_kl):
        self.passes += 1
        return self.passes % 3 != 0

    def improve(self, rng):
        self.drawn += float(rng.random())
        return {"drawn": self.drawn, "passes": self.passes}

    def state_dict(self):
        scales = {agent: scale.detach() for agent, scale in self.scale.items()}
        return {"drawn": self.drawn, "passes": self.passes, "scales": scales}

    def load_state_dict(self, state):
        self.drawn, self.passes = state["drawn"], state["passes"]
        for agent, scale in self.scale.items():
            scale.data.copy_(state["scales"][agent])
'''


def test_a_base_that_learns_more_than_policies_learns_it_here_too(syllables: Any, tmp_path: Path) -> None:
    file = tmp_path / "learned_baseline.py"
    file.write_text(BASELINE, encoding="utf-8")
    env, settings = syllables(2), {"group_size": 3, "epochs": 2}
    name = f"{file}:Learned"
    theirs, their_state = run(resolve(name)(**settings), env, tmp_path / "base", steps=4)
    made = [pmic(base=name, base_kwargs=settings, alpha=0.0, beta=0.0) for _ in range(2)]
    run(made[0], env, tmp_path / "pmic", steps=2)
    ours, our_state = run(made[1], env, tmp_path / "pmic", steps=4, resume=True)
    assert without_own(ours) == theirs
    assert len({line["drawn"] for line in ours}) == 4 and ours[-1]["passes"] > 8
    assert same(our_state["algorithm"]["base"], their_state["algorithm"])


def test_score_and_return_are_the_environments_whatever_the_bonus(syllables: Any, tmp_path: Path) -> None:
    """With steps too small to change a response, only what is learned differs."""
    env = syllables(2, max_turns=2)
    tiny = {"learning_rate": 1e-12}
    ours, _ = run(pmic(base_kwargs={"group_size": 3}, beta=50.0), env, tmp_path / "pmic", **tiny)
    theirs, _ = run(MAGRPO(group_size=3), env, tmp_path / "base", **tiny)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("score", "return", "score_percent", "terms/score", "generated_tokens"):
            assert one[name] == other[name]
    assert (
        ours[0]["pmic/bonus_std"] == 0 and ours[0]["credit_std/player_0"] == theirs[0]["credit_std/player_0"]
    )
    assert ours[-1]["pmic/bonus_std"] > 20 and ours[-1]["credit_std/player_0"] > 10


def test_resumed_run_has_the_same_estimators_buffers_and_metrics(syllables: Any, tmp_path: Path) -> None:
    env = syllables(2, max_turns=2)

    def made() -> PMIC:
        return pmic(base_kwargs={"group_size": 3}, positive_size=4, negative_size=6)

    whole, state = run(made(), env, tmp_path / "whole", steps=4)
    run(made(), env, tmp_path / "parts", steps=2)
    resumed, again = run(made(), env, tmp_path / "parts", steps=4, resume=True)
    assert resumed == whole
    assert same(state["algorithm"], again["algorithm"]) and same(state["team"], again["team"])
    assert state["algorithm"]["buffer"]["positive"] and state["algorithm"]["buffer"]["tasks"]


def test_a_new_setup_forgets_what_was_learned(exact: Any, syllables: Any) -> None:
    algorithm = pmic(base_kwargs={"group_size": 3})
    team, _ = learned(exact, syllables(2), algorithm)
    algorithm.setup(team, 3)
    fresh = pmic(base_kwargs={"group_size": 3})
    fresh.setup(team, 3)
    assert same(algorithm.state_dict(), fresh.state_dict())


# ------------------------------------------------------------------------------------------------ the base's settings


def test_everything_an_algorithm_may_say_is_asked_of_the_base() -> None:
    contract = {name for name in vars(Algorithm) if not name.startswith("_")}
    of_the_class = {"preset", "PRESETS", "check_choices"}
    assert contract - vars(PMIC).keys() - vars(pmic()).keys() <= of_the_class
    assert pmic(base_kwargs={"discount": 0.5}).discount == 0.5


def test_epochs_are_the_bases_unless_they_are_given() -> None:
    given = {"base_kwargs": {"epochs": 3}}
    assert pmic(**given).epochs == pmic(epochs=3).epochs == pmic(epochs=3).wrapped.epochs == 3
    assert pmic().epochs == MAGRPO().epochs
    assert PMIC(**asdict(pmic(**given))) == pmic(**given)  # what is recorded gives the same again
    with pytest.raises(ValueError, match=r"algo.epochs 2 and algo.base_kwargs.epochs 3 contradict"):
        pmic(epochs=2, **given)


def test_what_the_base_needs_is_needed() -> None:
    assert pmic(base_kwargs={"kl_coef": 0.1}).needs_reference and not pmic().needs_reference
    assert pmic(base="igrpo", base_kwargs={"partner": "frozen"}).plays_initial_policies


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"base": "magrppo"}, "unknown algorithm 'magrppo'"),
        ({"base": "pmic"}, "would shape its own rewards"),
        ({"base_kwargs": {"group_siz": 3}}, "algo.base_kwargs of the base magrpo: .*group_siz"),
        ({"base_kwargs": {"group_size": "many"}}, "algo.base_kwargs of the base magrpo: .*group_size.*many"),
        ({"base_kwargs": {"group_size": 1}}, r"leaves nothing to compare with.*\(algo.base magrpo"),
        ({"base": "igrpo", "base_kwargs": {"group_size": 5}}, "divides algo.group_size among the agents"),
        ({"base": "grpo"}, "GRPO trains one policy"),
        ({"mode": "maximum"}, "algo.mode must be one of"),
        ({"alpha": -0.1}, "algo.alpha must be a number of 0 or more"),
        ({"beta": float("nan")}, "algo.beta must be a number of 0 or more"),
        ({"positive_size": 1}, "algo.positive_size must be at least 2"),
        ({"negative_size": 0}, "algo.negative_size must be at least 2"),
        ({"mean_window": 0}, "algo.mean_window must be at least 1"),
        ({"embedding_size": 1}, "algo.embedding_size must be at least 2"),
        ({"estimator_updates": 0}, "algo.estimator_updates must be at least 1"),
        ({"estimator_batch_size": 1}, "algo.estimator_batch_size must be at least 2"),
        ({"estimator_learning_rate": 0.0}, "algo.estimator_learning_rate must be a positive number"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        algorithm = PMIC(**settings)
        algorithm.validate(AGENTS)
        algorithm.validate_learners(AGENTS)


def test_an_environment_that_the_base_cannot_learn_in_is_refused(syllables: Any) -> None:
    with pytest.raises(ValueError, match=r"goes with algo\.partner aligned"):
        pmic(base="igrpo").validate_environment(syllables(2, reward="individual"))


def test_credit_without_setup_says_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match=r"setup\(team, seed\)"):
        list(pmic().credit([], AGENTS))
