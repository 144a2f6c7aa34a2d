"""Teams of different models, and teams that share what they train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from textmarl.agents import Response, Sampling, Team, TeamConfig
from textmarl.algos import C3, IGRPO, IPPO, MAGRPO, Algorithm, Trainer, TrainerConfig
from textmarl.algos.update import Updater

PLAYERS = ["player_0", "player_1"]


def trainer(run: Path, env: Any, algorithm: Algorithm, model: Any, steps: int = 2, **team: Any) -> Trainer:
    config = TeamConfig(**{"model": model, "lora_rank": 2, "device": "cpu", "dtype": "float32", **team})
    return Trainer(
        env,
        Team.create(PLAYERS, config),
        algorithm,
        TrainerConfig(steps=steps, warmup_steps=0, tasks_per_step=1, eval_tasks=1, eval_samples=1, learning_rate=1e-2),
        Sampling(temperature=1.0, max_new_tokens=6),
        env,
        run,
    )  # fmt: skip


def weights(team: Team) -> dict[str, list[torch.Tensor]]:
    return {
        a: [p.detach().clone() for p in policy.parameters().values()] for a, policy in team.policies.items()
    }


@pytest.mark.parametrize(
    "algorithm",
    [MAGRPO(group_size=4), IGRPO(group_size=8), IGRPO(group_size=8, partner="frozen"), C3(fan_out=4)],
    ids=["magrpo", "igrpo", "igrpo, frozen", "c3"],
)
def test_agents_of_different_models_and_tokenizers_all_learn(
    tmp_path: Path, syllables: Any, llama: str, qwen: str, algorithm: Algorithm
) -> None:
    made = trainer(tmp_path, syllables(2, max_turns=2, ends=False), algorithm, [llama, qwen])
    before = weights(made.team)
    assert made.train()
    after, loaded = weights(made.team), weights(Team.load(tmp_path))
    for agent in PLAYERS:
        assert any(not torch.equal(*pair) for pair in zip(before[agent], after[agent], strict=True))
        assert all(torch.equal(*pair) for pair in zip(loaded[agent], after[agent], strict=True))


# ---------------------------------------------------------------------------------- parameter sharing


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_shared_parameters_follow_the_sum_of_their_agents_losses(
    exact: Any, syllables: Any, tuning: str
) -> None:
    team = exact.team(PLAYERS, parameter_sharing=True, tuning=tuning)
    algorithm = MAGRPO(group_size=3)
    groups = list(
        algorithm.credit(exact.collect(algorithm, syllables(2, max_turns=2), team.policies), PLAYERS)
    )
    samples = [sample for group in groups for sample in group.samples]
    assert {sample.agent for sample in samples} == set(PLAYERS)
    policy = team.policies["player_0"]
    seen: dict[str, torch.Tensor] = {}

    class Seeing(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            seen.update({n: p.grad.clone() for n, p in policy.parameters().items()})

    optimizer = Seeing(list(policy.parameters().values()), lr=0.0)
    Updater(policy, algorithm, exact.sampling, optimizer, 0.0, 120).update(groups, np.random.default_rng(0))
    c = exact.sampling.max_new_tokens
    rows = [
        (Response("", s.token_ids, prompt_ids=s.prompt_ids), float(np.mean(s.advantage)), s.weight / c)
        for s in samples
    ]
    exact.assert_equal(seen, exact.explicit_gradient(policy, rows), 1e-10)


def test_agents_that_share_parameters_write_by_the_same_numbers(exact: Any) -> None:
    team = exact.team(PLAYERS, parameter_sharing=True)
    generators = [torch.Generator().manual_seed(3) for _ in PLAYERS]
    asked = [[{"role": "user", "content": "abc"}]]
    first, second = (
        team.policies[agent].generate(asked, exact.sampling, generator, n=4)
        for agent, generator in zip(PLAYERS, generators, strict=True)
    )
    assert [r.token_ids for r in first[0]] == [r.token_ids for r in second[0]]
    assert team.parameter_sets == {"shared": PLAYERS}


@pytest.mark.parametrize("trunk", ["own", "shared"])
def test_agents_that_share_parameters_have_critics_of_their_own(
    tmp_path: Path, syllables: Any, llama: str, trunk: str
) -> None:
    algorithm = IPPO(group_size=4, critic_trunk=trunk)  # type: ignore[arg-type]
    made = trainer(tmp_path, syllables(2, ends=False), algorithm, llama, parameter_sharing=True)
    assert made.train()
    heads = [algorithm.critics[agent].head.outer.weight for agent in PLAYERS]
    assert all(head.abs().max() > 0 for head in heads), "a head is 0 until it is trained"
    assert not torch.equal(*heads)


@pytest.mark.parametrize("settings", [{}, {"tuning": "full", "reference": "copy"}], ids=["lora", "full"])
def test_shared_parameters_are_saved_once_and_a_run_goes_on_with_them(
    tmp_path: Path, syllables: Any, llama: str, settings: dict[str, Any]
) -> None:
    env = syllables(2, ends=False)

    def make(run: str, steps: int) -> Trainer:
        algorithm = MAGRPO(group_size=4)
        return trainer(tmp_path / run, env, algorithm, llama, steps, parameter_sharing=True, **settings)

    whole, parts = make("whole", 2), make("parts", 1)
    untrained = weights(whole.team)["player_0"]
    assert whole.train() and parts.train()
    again = make("parts", 2)
    assert again.train(resume=True)
    trained = weights(whole.team)
    assert any(not torch.equal(*pair) for pair in zip(untrained, trained["player_0"], strict=True))
    for team in (again.team, Team.load(tmp_path / "whole")):
        found = weights(team)
        for agent in PLAYERS:
            assert all(torch.equal(*pair) for pair in zip(trained["player_0"], found[agent], strict=True))
        network = {id(policy.network) for policy in team.policies.values()}
        assert len(network) == 1 and len(team.state_dict()) == 1
    kind = "models" if settings else "adapters"
    assert [path.name for path in (tmp_path / "whole" / kind).iterdir() if path.is_dir()] == ["shared"]
    metrics = json.loads((tmp_path / "whole/metrics.jsonl").read_text().splitlines()[0])
    assert metrics["loss/player_0"] == metrics["loss/player_1"]


def test_different_models_cannot_share_parameters() -> None:
    config = TeamConfig(model=["no/such", "nor/such"], parameter_sharing=True)
    with pytest.raises(ValueError, match=r"needs one model for all trained agents.*no/such, nor/such"):
        Team.create(PLAYERS, config)
