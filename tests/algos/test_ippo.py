"""IPPO and MAPPO: advantages, losses and gradients against the formulas, who sees whom, and what it equals."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pettingzoo
import pytest
import torch
from torch import Tensor

from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.algos import IPPO, MAGRPO, Node, Trainer, TrainerConfig
from textmarl.algos.actor_critic import gae, joint_history
from textmarl.algos.update import Updater
from textmarl.envs.protocols import Pipeline

PLAIN: dict[str, Any] = {"group_size": 4, "epochs": 1, "normalize_advantages": False}


def own_turns(exact: Any, roots: list[Node], agent: str, i: int, discount: float) -> list[list[Any]]:
    """Every episode of an agent: [response, reward until its next turn, discount of what follows], written out."""
    found = []
    for path in exact.played(roots):
        turns: list[Any] = []
        for node, member in path:
            said = node.responses[agent][member]
            if said.token_ids:
                turns.append([said, node.rewards[member][i], discount, node, member])
            elif turns:
                turns[-1][1] += turns[-1][2] * node.rewards[member][i]
                turns[-1][2] *= discount
        if turns:
            turns[-1][2] = 0.0
        found.append(turns)
    return found


def naive_gae(rewards: list[float], values: list[float], discounts: list[float], lam: float) -> list[float]:
    """A_t = sum over k >= t of (product over t <= m < k of gamma_m lambda) delta_k."""
    after = [*values[1:], 0.0]
    deltas = [r + g * w - v for r, g, w, v in zip(rewards, discounts, after, values, strict=True)]
    return [
        sum(delta * np.prod([g * lam for g in discounts[t : t + k]]) for k, delta in enumerate(deltas[t:]))
        for t in range(len(values))
    ]


def credited(exact: Any, algorithm: IPPO, roots: list[Node], agent: str, i: int) -> list[Any]:
    """(response, advantage, target, old value of each token) of all turns, by the formulas."""
    rows = []
    critic = algorithm.critics[agent]
    value = exact.explicit_values(critic)
    for turns in own_turns(exact, roots, agent, i, algorithm.discount):
        values, rewards, discounts, owner = [], [], [], []
        for k, (said, reward, discount, node, member) in enumerate(turns):
            prompt = said.prompt_ids
            if algorithm.critic == "central":
                own = node.conversations[member if len(node.conversations) > 1 else 0]
                prompt = critic.trunk.encode(joint_history(own))
            before = value(prompt, said.token_ids)
            before = before if algorithm.level == "token" else before[:1]
            values += before
            rewards += [0.0] * (len(before) - 1) + [reward]
            discounts += [1.0] * (len(before) - 1) + [discount]
            owner += [k] * len(before)
        found = naive_gae(rewards, values, discounts, algorithm.gae_lambda)
        for k, (said, *_) in enumerate(turns):
            at = [place for place, whose in enumerate(owner) if whose == k]
            advantage, old = np.array(found)[at], np.array(values)[at]
            if algorithm.level == "turn":
                advantage, old = (np.repeat(x, len(said.token_ids)) for x in (advantage, old))
            rows.append((said, advantage, advantage + old, old))
    if algorithm.normalize_advantages:
        every = np.concatenate([a if algorithm.level == "token" else a[:1] for _, a, _, _ in rows])
        rows = [(said, (a - every.mean()) / every.std(), target, old) for said, a, target, old in rows]
    return rows


def logs(exact: Any, model: Any, said: Any) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of each token."""
    logits = model(input_ids=torch.tensor([said.prompt_ids + said.token_ids])).logits[0]
    first = len(said.prompt_ids) - 1
    every = (logits[first : first + len(said.token_ids)] / exact.sampling.temperature).log_softmax(-1)
    chosen = every[torch.arange(len(said.token_ids)), torch.tensor(said.token_ids)]
    return chosen, -(every.exp() * every).sum(-1)


def updated(exact: Any, team: Team, algorithm: IPPO, roots: list[Node], agent: str) -> tuple[Any, Any]:
    """Let the package update one agent without moving it: its metrics, and the gradient of its only step."""
    policy, kept = team.policies[agent], {}

    class Kept(torch.optim.SGD):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            own = [*policy.parameters().items(), *enumerate(algorithm.parameters(agent))]
            kept.update({name: p.grad.clone() for name, p in own})

    optimizer = Kept([*policy.parameters().values(), *algorithm.parameters(agent)], lr=0.0)
    groups = [
        g for g in algorithm.credit(roots, list(team.policies)) if g.samples and g.samples[0].agent == agent
    ]
    metrics = Updater(policy, algorithm, exact.sampling, optimizer, 0.0, 120).update(
        groups, np.random.default_rng(0)
    )
    return metrics, kept


# ------------------------------------------------------------------------------------------ advantages and losses


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_generalised_advantages_equal_a_naive_sum(lam: float) -> None:
    rng = np.random.default_rng(3)
    rewards, values = rng.normal(size=(2, 11))
    discounts = np.array([1, 1, 0.9, 1, 1, 1, 0.81, 1, 1, 1, 0])
    expected = naive_gae(list(rewards), list(values), list(discounts), lam)
    assert gae(rewards, values, discounts, lam) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gae_lambda": 0.8, "discount": 0.9, "entropy_coef": 0.03, "length_weighting": "token_mean"},
        {"gae_lambda": 0.8, "discount": 0.9, "level": "turn", "length_weighting": "sum"},
        {"critic": "central", "gae_lambda": 0.5, "normalize_advantages": True},
        {"critic": "central", "level": "turn", "normalize_advantages": True},
        {"critic_trunk": "shared", "gae_lambda": 0.8, "discount": 0.9, "value_clip": 0.0},
        {"critic_trunk": "shared", "level": "turn", "value_coef": 0.2, "entropy_coef": 0.1},
    ],
)
def test_loss_and_gradient_of_a_step_are_the_formula(exact: Any, syllables: Any, settings: Any) -> None:
    env = syllables(2, max_turns=3)
    team = exact.team(env.possible_agents)
    algorithm = IPPO(**{**PLAIN, **settings})
    exact.critics(algorithm, team)
    roots = exact.collect(algorithm, env, team.policies)
    lengths = {len(path) for path in exact.played(roots)}
    assert len(lengths) > 1, "episodes must end at different turns"
    for i, agent in enumerate(env.possible_agents):
        rows = credited(exact, algorithm, roots, agent, i)
        metrics, actual = updated(exact, team, algorithm, roots, agent)
        model, trained = exact.ordinary(team.policies[agent])
        head = copy.deepcopy(algorithm.critics[agent].head)
        loss = torch.zeros((), dtype=torch.float64)
        for said, advantage, target, _ in rows:
            length = len(said.token_ids)
            c = {"constant": exact.sampling.max_new_tokens, "sum": 1, "token_mean": length}
            weight = 1 / (algorithm.group_size * len(roots))
            chosen, entropy = logs(exact, model, said)
            ascended = torch.tensor(advantage) * chosen + algorithm.entropy_coef * entropy
            loss = loss - weight / c[algorithm.length_weighting] * ascended.sum()
            if algorithm.critic_trunk == "shared":
                ids = torch.tensor([said.prompt_ids + said.token_ids])
                states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
                at = states[len(said.prompt_ids) - 1 :][:length]
                values = torch.tanh(at @ head.inner.weight.T + head.inner.bias) @ head.outer.weight[0]
                error = (values + head.outer.bias[0] - torch.tensor(target)) ** 2
                # The old values are these: nothing is clipped at the first pass.
                share = error[0] if algorithm.level == "turn" else error.sum() / c[algorithm.length_weighting]
                loss = loss + algorithm.value_coef * weight * share
        loss.backward()
        expected: dict[Any, Tensor] = {name: p.grad for name, p in trained.items()}
        if algorithm.critic_trunk == "shared":
            expected |= dict(enumerate(p.grad for p in head.parameters()))
        assert metrics["loss"] == pytest.approx(float(loss.detach()), rel=1e-10)
        exact.assert_equal(actual, expected, 1e-10)


def test_gradient_holds_to_rounding_in_single_precision(exact: Any, syllables: Any) -> None:
    env = syllables(2, max_turns=2)
    team = exact.team(env.possible_agents, "tiny", "float32")
    algorithm = IPPO(**PLAIN, gae_lambda=0.9)
    exact.critics(algorithm, team, 0.1)
    roots = exact.collect(algorithm, env, team.policies)
    _, actual = updated(exact, team, algorithm, roots, "player_1")
    model, trained = exact.ordinary(team.policies["player_1"])
    for said, advantage, _, _ in credited(exact, algorithm, roots, "player_1", 1):
        share = algorithm.group_size * len(roots) * exact.sampling.max_new_tokens
        (-(torch.tensor(advantage) * logs(exact, model, said)[0]).sum() / share).backward()
    exact.assert_equal(actual, {name: p.grad for name, p in trained.items()}, 1e-5)


def test_a_later_epoch_follows_the_clipped_ratio(exact: Any, syllables: Any) -> None:
    env = syllables(2)
    team = exact.team(env.possible_agents)
    algorithm = IPPO(group_size=6, epochs=3, clip=0.05, level="turn", normalize_advantages=False)
    exact.critics(algorithm, team)
    roots = exact.collect(algorithm, env, team.policies)
    share = algorithm.group_size * len(roots) * exact.sampling.max_new_tokens
    rows = [(s, float(a[0]), 1 / share) for s, a, _, _ in credited(exact, algorithm, roots, "player_0", 0)]
    expected = exact.explicit_clipped_gradients(team.policies["player_0"], rows, 3, 0.3, 0.05)
    actual = exact.gradients(team, algorithm, roots, "player_0", lr=0.3)
    for one, other in zip(actual, expected, strict=True):
        exact.assert_equal(one, other, 1e-10)


@pytest.mark.parametrize("settings", [{"level": "token"}, {"level": "turn", "critic": "central"}])
def test_the_critics_gradient_is_the_clipped_squared_error_to_lambda_returns(
    exact: Any, syllables: Any, settings: Any
) -> None:
    env = syllables(2, max_turns=2)
    team = exact.team(env.possible_agents)
    algorithm = IPPO(**{**PLAIN, "gae_lambda": 0.8, **settings}, critic_max_grad_norm=0)
    keepers = exact.critics(algorithm, team)
    roots = exact.collect(algorithm, env, team.policies)
    list(algorithm.credit(roots, env.possible_agents))
    critic = algorithm.critics["player_1"]
    rows = credited(exact, algorithm, roots, "player_1", 1)
    exact.move(critic.head.parameters(), 0.1, seed=8)
    model, trained = exact.ordinary(critic.trunk)
    head = copy.deepcopy(critic.head)
    found = []
    turns = [t for own in own_turns(exact, roots, "player_1", 1, algorithm.discount) for t in own]
    for (said, _, target, old), (*_, node, member) in zip(rows, turns, strict=True):
        prompt, tokens = said.prompt_ids, said.token_ids
        if algorithm.critic == "central":
            own = node.conversations[member if len(node.conversations) > 1 else 0]
            prompt = critic.trunk.encode(joint_history(own))
        count = len(tokens) if algorithm.level == "token" else 1
        states = model(input_ids=torch.tensor([prompt + tokens]), output_hidden_states=True).hidden_states[-1]
        at = states[0, len(prompt) - 1 : len(prompt) - 1 + count]
        inner = torch.tanh(at @ head.inner.weight.T + head.inner.bias)
        found += zip(inner @ head.outer.weight[0] + head.outer.bias[0], target, old, strict=False)
    # Half of the values have left their old ones by more than this.
    clip = algorithm.value_clip = float(np.median([abs(float(v.detach()) - o) for v, _, o in found]))
    losses = [torch.maximum((v - r) ** 2, (o + (v - o).clamp(-clip, clip) - r) ** 2) for v, r, o in found]
    torch.stack(losses).mean().backward()
    algorithm.improve(np.random.default_rng(0))
    (actual,) = keepers["player_1"].kept
    expected = [*(p.grad for p in trained.values()), *(p.grad for p in head.parameters())]
    exact.assert_equal(dict(enumerate(actual)), dict(enumerate(expected)), 1e-10)


@pytest.mark.parametrize("settings", [{"level": "token"}, {"level": "turn", "critic": "central"}])
def test_size_of_micro_batches_does_not_change_what_a_critic_learns(
    exact: Any, syllables: Any, settings: Any
) -> None:
    env = syllables(2, max_turns=2)
    team = exact.team(env.possible_agents)
    algorithm = IPPO(**{**PLAIN, **settings})
    keepers = exact.critics(algorithm, team)
    found = []
    for tokens in (30, 100000):
        rollout = exact.rollout(env, team.policies)
        rollout.micro_batch_tokens = tokens
        roots = algorithm.collect(rollout, [(7, 0), (8, 1)])
        groups = list(algorithm.credit(roots, env.possible_agents))
        algorithm.improve(np.random.default_rng(0))
        found.append((np.concatenate([np.ravel(s.advantage) for g in groups for s in g.samples]),))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-10)
    for keeper in keepers.values():
        one, two = keeper.kept
        exact.assert_equal(dict(enumerate(one)), dict(enumerate(two)), 1e-9)


def test_the_update_ends_before_a_step_that_starts_too_far_away(exact: Any, syllables: Any) -> None:
    env = syllables(2)
    team = exact.team(env.possible_agents)
    taken = []
    for target_kl in (0.0, 1e-9):
        own = copy.deepcopy(team)
        algorithm = IPPO(group_size=4, epochs=4, target_kl=target_kl)
        exact.critics(algorithm, own)
        roots = exact.collect(algorithm, env, own.policies)
        taken.append(len(exact.gradients(own, algorithm, roots, "player_0", lr=0.1)))
    assert taken == [4, 1]


# ------------------------------------------------------------------------------------------------- equalities


@pytest.mark.parametrize("weighting", ["constant", "sum", "token_mean"])
def test_with_a_critic_of_zero_it_is_reinforce_with_rewards_to_go(
    exact: Any, syllables: Any, weighting: Any
) -> None:
    env = syllables(2, max_turns=3)
    team = exact.team(env.possible_agents)
    own = IPPO(**PLAIN, discount=0.9, length_weighting=weighting)
    own.setup(team, 0)  # V = 0 until it is trained
    reinforce = MAGRPO(
        group_size=4,
        branching="chain",
        baseline="none",
        normalize="none",
        discount=0.9,
        length_weighting=weighting,
    )
    roots = exact.collect(own, env, team.policies)
    for agent in env.possible_agents:
        (one,) = exact.gradients(team, own, roots, agent)
        (other,) = exact.gradients(team, reinforce, roots, agent)
        exact.assert_equal(one, other, 1e-12)


# --------------------------------------------------------------------------------------------- who sees whom


@pytest.mark.parametrize(("critic", "sees"), [("independent", False), ("central", True)])
def test_only_a_central_critic_sees_what_a_partner_says(
    exact: Any, syllables: Any, critic: Any, sees: bool
) -> None:
    env = syllables(2, ends=False, max_turns=2)
    team = exact.team(env.possible_agents)
    algorithm = IPPO(**PLAIN, critic=critic)
    exact.critics(algorithm, team)
    roots = exact.collect(algorithm, env, team.policies)

    def values() -> list[float]:
        list(algorithm.credit(roots, env.possible_agents))
        return [v for s in algorithm.experience["player_0"] for v in s.old_values or []]

    before = values()
    for node in (node for root in roots for node in root.subtree()):
        for own in node.conversations:
            own["player_1"] = [{"role": "user", "content": "something else"}]
    assert (values() != before) == sees


def test_a_joint_history_names_whose_words_are_whose() -> None:
    talk = {
        "first": [{"role": "user", "content": "one?"}],
        "second": [
            {"role": "user", "content": "two?"},
            {"role": "assistant", "content": "no"},
            {"role": "user", "content": "and?"},
        ],
        "third": [],
    }
    (message,) = joint_history(talk)
    assert message == {
        "role": "user",
        "content": "[first]\none?\n\n[second]\nUser: two?\n\nAssistant: no\n\nUser: and?\n\n[third]\n",
    }
    assert joint_history({"first": talk["first"]}) == talk["first"]


@pytest.mark.parametrize("level", ["token", "turn"])
def test_rewards_of_turns_that_an_agent_waits_belong_to_what_it_did_last(
    exact: Any, syllables: Any, level: Any
) -> None:
    env = Pipeline(syllables(3, ends=False, max_turns=2))
    team = exact.team(env.possible_agents)
    algorithm = IPPO(**{**PLAIN, "group_size": 2}, discount=0.9, level=level)
    algorithm.setup(team, 0)
    roots = exact.collect(algorithm, env, team.policies)
    groups = list(algorithm.credit(roots, env.possible_agents))
    first = [g for g in groups if g.samples[0].agent == "player_0"]
    assert len(first) == 2 * len(roots), "one group for each of the two turns at which it is asked"
    for root, own in zip(roots, first[::2], strict=True):
        for member, sample in enumerate(own.samples):
            path = next(p for p in exact.played([root]) if p[0][1] == member)
            assert len(path) == 6
            expected = sum(0.9**t * node.rewards[j][0] for t, (node, j) in enumerate(path))
            assert np.ravel(sample.advantage) == pytest.approx(expected, abs=1e-12)  # V = 0, lambda 1


# --------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize("settings", [{}, {"critic": "central", "level": "turn"}])
def test_a_critic_learns_what_a_history_returns(exact: Any, syllables: Any, settings: Any) -> None:
    env = syllables(2, ends=False)
    team = exact.team(env.possible_agents)
    algorithm = IPPO(group_size=4, epochs=5, value_clip=0.0, critic_learning_rate=0.01, **settings)
    algorithm.setup(team, 0)
    losses = []
    for _ in range(12):
        roots = exact.collect(algorithm, env, team.policies)
        for root, reward in zip(roots, (1.0, -2.0), strict=True):
            root.rewards[:] = reward  # the task alone decides
        list(algorithm.credit(roots, env.possible_agents))
        metrics = algorithm.improve(np.random.default_rng(0))
        losses.append(metrics["value_loss/player_0"])
    assert losses[0] == pytest.approx((1 + 4) / 2, rel=0.5), (
        "it begins at 0: tokens of both tasks weigh alike"
    )
    assert losses[-1] < 0.05 * losses[0]
    assert metrics["explained_variance/player_0"] > 0.9


@pytest.mark.parametrize(
    ("env_id", "tuning", "settings"),
    [
        ("Climbing", "full", {"minibatches": 2}),
        ("Relay", "lora", {"level": "turn", "critic": "central"}),
        ("Relay", "full", {"critic_trunk": "shared"}),
        ("Chorus", "lora", {"target_kl": 0.1}),
    ],
)
def test_it_trains_in_games(env_id: str, tuning: Any, settings: Any, tmp_path: Any) -> None:
    env = pettingzoo.make("parallel", f"textmarl/{env_id}-v0", n_agents=2)
    team = Team.create(env.possible_agents, TeamConfig("tiny", tuning, lora_rank=2, device="cpu"))
    before = {agent: policy.digest() for agent, policy in team.policies.items()}
    algorithm = IPPO(group_size=2, epochs=2, **settings)
    config = TrainerConfig(steps=2, tasks_per_step=1, kl_every=0, learning_rate=0.01)
    trainer = Trainer(env, team, algorithm, config, Sampling(max_new_tokens=3), run=tmp_path)
    assert trainer.train()
    steps = trainer.run.read("metrics.jsonl")
    for agent, policy in team.policies.items():
        assert all(step[f"value_loss/{agent}"] >= 0 for step in steps)
        if any(
            step[f"advantage_std/{agent}"] for step in steps
        ):  # nobody learns from play that was paid alike
            assert policy.digest() != before[agent]


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"critic": "central", "critic_trunk": "shared"}, "needs a trunk of its own"),
        ({"critic": "centre"}, "algo.critic must be one of"),
        ({"length_weighting": "mean"}, "algo.length_weighting must be one of"),
        ({"gae_lambda": 1.1}, r"algo.gae_lambda must be in \[0, 1\]"),
        ({"discount": -0.1}, r"algo.discount must be in \[0, 1\]"),
        ({"clip": 0.0}, "algo.clip must be positive"),
        ({"value_clip": -1.0}, "algo.value_clip must not be negative"),
        ({"target_kl": -1.0}, "algo.target_kl must not be negative"),
        ({"critic_learning_rate": 0.0}, "algo.critic_learning_rate must be a positive number"),
        ({"critic_max_grad_norm": -1.0}, "algo.critic_max_grad_norm must not be negative"),
        ({"group_size": 0}, "algo.group_size must be at least 1"),
        ({"epochs": 0}, "epochs and minibatches must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        IPPO(**settings).validate(["one", "two"])


def test_an_agent_called_like_a_critic_is_refused() -> None:
    with pytest.raises(ValueError, match="has the name of a critic's adapter"):
        IPPO().validate(["one", "critic_one"])
    IPPO(critic_trunk="shared").validate(["one", "critic_one"])


def test_credit_without_critics_says_what_to_do(exact: Any, syllables: Any) -> None:
    env = syllables(2)
    roots = exact.collect(IPPO(**PLAIN), env, exact.team(env.possible_agents).policies)
    with pytest.raises(RuntimeError, match=r"call setup\(team, seed\)"):
        list(IPPO(**PLAIN).credit(roots, env.possible_agents))
