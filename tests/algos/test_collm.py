"""CoLLM: temporal differences, losses and gradients against the formulas, what each critic reads, and what it costs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pettingzoo
import pytest
import torch

from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.algos import CoLLM, Node, Trainer, TrainerConfig
from textmarl.envs.protocols import Pipeline


def prompts(algorithm: CoLLM, name: str, node: Node, member: int) -> list[int]:
    """What a critic reads, written out: an agent's own conversation, or everybody's under their names."""
    own = node.conversations[member if len(node.conversations) > 1 else 0]
    trunk = algorithm.critics[name].trunk
    if name != "central":
        return trunk.encode(own[name])
    speakers = {"user": "User", "assistant": "Assistant"}
    parts = []
    for agent, talk in own.items():
        said = [f"{speakers[m['role']]}: {m['content']}" for m in talk]
        parts.append(f"[{agent}]\n" + (talk[0]["content"] if len(talk) == 1 else "\n\n".join(said)))
    return trunk.encode([{"role": "user", "content": "\n\n".join(parts)}])


def differences(exact: Any, algorithm: CoLLM, roots: list[Node], name: str, i: int) -> dict[Any, Any]:
    """By node and member: delta_t, the target, and what the critic reads."""
    found = {}
    value = exact.explicit_values(algorithm.critics[name])
    for path in exact.played(roots):
        read = [prompts(algorithm, name, node, member) for node, member in path]
        values = [value(p, p[-1:])[0] for p in read]
        for t, (node, member) in enumerate(path):
            following = algorithm.discount * values[t + 1] if t + 1 < len(path) else 0.0
            target = node.rewards[member][i] + following
            found[id(node), member] = (target - values[t], target, read[t])
    return found


@pytest.mark.parametrize("critic", ["central", "decentralized"])
@pytest.mark.parametrize("weighting", ["sum", "token_mean"])
def test_gradients_of_actors_and_critics_are_the_formula(
    exact: Any, syllables: Any, critic: Any, weighting: Any
) -> None:
    env = syllables(2, max_turns=3)
    team = exact.team(env.possible_agents)
    algorithm = CoLLM(
        group_size=3, critic=critic, discount=0.9, length_weighting=weighting, critic_max_grad_norm=0
    )
    keepers = exact.critics(algorithm, team)
    roots = exact.collect(algorithm, env, team.policies)
    assert len({len(path) for path in exact.played(roots)}) > 1, "episodes must end at different turns"
    for i, agent in enumerate(env.possible_agents):
        deltas = differences(exact, algorithm, roots, "central" if critic == "central" else agent, i)
        rows = []
        for node, member in (place for path in exact.played(roots) for place in path):
            said = node.responses[agent][member]
            c = 1 if weighting == "sum" else len(said.token_ids)
            rows.append((said, deltas[id(node), member][0], 1 / (3 * len(roots) * c)))
        (actual,) = exact.gradients(team, algorithm, roots, agent)
        exact.assert_equal(actual, exact.explicit_gradient(team.policies[agent], rows), 1e-10)
    list(algorithm.credit(roots, env.possible_agents))
    algorithm.improve(np.random.default_rng(0))
    for name, keeper in keepers.items():
        i = 0 if name == "central" else env.possible_agents.index(name)
        own = algorithm.critics[name]
        model, trained = exact.ordinary(own.trunk)
        head = copy.deepcopy(own.head)
        errors = []
        for _, target, read in differences(exact, algorithm, roots, name, i).values():
            state = model(input_ids=torch.tensor([read]), output_hidden_states=True).hidden_states[-1][0, -1]
            inner = torch.tanh(head.inner.weight @ state + head.inner.bias)
            errors.append((inner @ head.outer.weight[0] + head.outer.bias[0] - target) ** 2)
        torch.stack(errors).mean().backward()
        (actual,) = keeper.kept  # one step for the whole batch
        expected = [*(p.grad for p in trained.values()), *(p.grad for p in head.parameters())]
        exact.assert_equal(dict(enumerate(actual)), dict(enumerate(expected)), 1e-10)


def test_gradient_holds_to_rounding_in_single_precision(exact: Any, syllables: Any) -> None:
    env = syllables(2, max_turns=2)
    team = exact.team(env.possible_agents, "tiny", "float32")
    algorithm = CoLLM(group_size=3)
    exact.critics(algorithm, team, 0.1)
    roots = exact.collect(algorithm, env, team.policies)
    deltas = differences(exact, algorithm, roots, "central", 0)
    rows = [
        (node.responses["player_0"][member], deltas[id(node), member][0], 1 / (3 * len(roots)))
        for path in exact.played(roots)
        for node, member in path
    ]
    (actual,) = exact.gradients(team, algorithm, roots, "player_0")
    exact.assert_equal(actual, exact.explicit_gradient(team.policies["player_0"], rows), 1e-5)


def test_for_one_agent_central_is_decentralized(exact: Any, syllables: Any) -> None:
    env = syllables(1, max_turns=3)
    found = []
    for critic in ("central", "decentralized"):
        team = exact.team(env.possible_agents)
        algorithm = CoLLM(group_size=4, critic=critic, discount=0.9)
        (keeper,) = exact.critics(algorithm, team).values()
        roots = exact.collect(algorithm, env, team.policies)
        (gradient,) = exact.gradients(team, algorithm, roots, "player_0")
        algorithm.improve(np.random.default_rng(0))
        found.append((gradient, dict(enumerate(keeper.kept[0]))))
    for one, other in zip(*found, strict=True):
        exact.assert_equal(one, other, 1e-12)


@pytest.mark.parametrize(("critic", "sees"), [("decentralized", False), ("central", True)])
def test_only_a_central_critic_sees_what_a_partner_says(
    exact: Any, syllables: Any, critic: Any, sees: bool
) -> None:
    env = syllables(2, ends=False, max_turns=2)
    team = exact.team(env.possible_agents)
    algorithm = CoLLM(group_size=2, critic=critic)
    exact.critics(algorithm, team)
    roots = exact.collect(algorithm, env, team.policies)

    def credits() -> list[Any]:
        groups = list(algorithm.credit(roots, env.possible_agents))
        return [s.advantage for g in groups for s in g.samples if s.agent == "player_0"]

    before = credits()
    for node in (node for root in roots for node in root.subtree()):
        for own in node.conversations:
            own["player_1"] = [{"role": "user", "content": "something else"}]
    assert (credits() != before) == sees


def test_all_agents_share_the_central_critics_difference(exact: Any, syllables: Any) -> None:
    env = syllables(3, ends=False, max_turns=2)
    team = exact.team(env.possible_agents)
    algorithm = CoLLM(group_size=2)
    exact.critics(algorithm, team)
    groups = list(algorithm.credit(exact.collect(algorithm, env, team.policies), env.possible_agents))
    by_agent = [[s.advantage for g in groups for s in g.samples if s.agent == a] for a in env.possible_agents]
    assert by_agent[0] == by_agent[1] == by_agent[2] and len(set(by_agent[0])) > 1


@pytest.mark.parametrize("critic", ["central", "decentralized"])
@pytest.mark.parametrize(("agents", "turns"), [(2, 1), (3, 2)])
def test_an_episode_costs_n_h_generations(
    exact: Any, syllables: Any, critic: Any, agents: int, turns: int
) -> None:
    env = syllables(agents, ends=False, max_turns=turns)
    team = exact.team(env.possible_agents)
    algorithm = CoLLM(group_size=2, critic=critic)
    algorithm.setup(team, 0)
    rollout = exact.rollout(env, team.policies)
    roots = algorithm.collect(rollout, [(7, 0), (8, 1)])
    list(algorithm.credit(roots, env.possible_agents))
    metrics = algorithm.improve(np.random.default_rng(0))
    assert metrics["generations_per_episode"] == agents * turns
    assert metrics["generations"] == 4 * agents * turns
    assert rollout.cost.reward_evaluations == 4 * turns


def test_who_waits_is_not_credited_and_the_central_critic_reads_every_stage(
    exact: Any, syllables: Any
) -> None:
    env = Pipeline(syllables(3, ends=False))
    team = exact.team(env.possible_agents)
    for critic, positions in (
        ("central", {"central": 6}),
        ("decentralized", dict.fromkeys(env.possible_agents, 2)),
    ):
        algorithm = CoLLM(group_size=1, critic=critic)
        exact.critics(algorithm, team)
        roots = exact.collect(algorithm, env, team.policies)
        groups = list(algorithm.credit(roots, env.possible_agents))
        assert sorted(g.samples[0].agent for g in groups) == sorted(2 * env.possible_agents)
        assert {name: len(read) for name, read in algorithm.experience.items()} == positions


@pytest.mark.parametrize("env_id", ["Climbing", "Relay", "Chorus"])
@pytest.mark.parametrize("critic", ["central", "decentralized"])
def test_it_trains_in_games(env_id: str, critic: Any, tmp_path: Any) -> None:
    env = pettingzoo.make("parallel", f"textmarl/{env_id}-v0", n_agents=2)
    team = Team.create(env.possible_agents, TeamConfig("tiny", lora_rank=2, device="cpu"))
    before = {agent: policy.digest() for agent, policy in team.policies.items()}
    config = TrainerConfig(steps=2, tasks_per_step=1, kl_every=0, learning_rate=0.01)
    algorithm = CoLLM(group_size=2, critic=critic)
    trainer = Trainer(env, team, algorithm, config, Sampling(max_new_tokens=3), run=tmp_path)
    assert trainer.train()
    steps = trainer.run.read("metrics.jsonl")
    assert all(step["generations"] == 2 * step["generations_per_episode"] for step in steps)
    for agent, policy in team.policies.items():
        if any(step[f"advantage_std/{agent}"] for step in steps):
            assert policy.digest() != before[agent]


@pytest.mark.parametrize("settings", [{"epochs": 2}, {"minibatches": 2}])
def test_more_than_one_step_on_an_experience_is_refused(settings: Any) -> None:
    with pytest.raises(ValueError, match="CoLLM takes one step on each experience"):
        CoLLM(**settings).validate(["one", "two"])


def test_individual_rewards_are_refused_for_the_central_critic_alone(syllables: Any) -> None:
    env = syllables(2, reward="individual")
    with pytest.raises(ValueError, match="cannot foretell the environment's reward individual"):
        CoLLM().validate_environment(env)
    CoLLM(critic="decentralized").validate_environment(env)
    CoLLM().validate_environment(syllables(2))
