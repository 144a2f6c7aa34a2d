"""The algorithms of examples/ do what they say, are short, and are trained from the command line and from YAML."""

from __future__ import annotations

import ast
import itertools
import json
import math
import shlex
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from textmarl.agents import Team
from textmarl.algos import MAGRPO, PMIC, Trainer, resolve
from textmarl.cli.settings import read_settings
from textmarl.envs.protocols import Pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
COMA, DIFFERENCE, BETTER = (
    str(EXAMPLES / f"{name}.py") for name in ("counterfactual_baseline", "difference_reward", "own_algorithm")
)


def team_reward(syllables: Any, task: int, texts: dict[str, str]) -> float:
    twin = syllables(len(texts))
    twin.reset(seed=0, options={"task": task})
    return float(twin.step(texts)[1]["player_0"])


@pytest.mark.parametrize("count_own", [True, False])
def test_the_counterfactual_baseline_is_what_other_words_beside_the_same_partners_earn(
    exact: Any, syllables: Any, count_own: bool
) -> None:
    env = syllables(3)
    algorithm = resolve(COMA)(group_size=3, count_own=count_own)  # type: ignore[call-arg]
    roots = exact.collect(algorithm, env, exact.team(env.possible_agents).policies)
    groups = iter(algorithm.credit(roots, env.possible_agents))
    for task, (root, agent) in enumerate(itertools.product(roots, env.possible_agents)):
        group = next(groups)
        for g, sample in enumerate(group.samples):
            said = {a: root.responses[a][g].text for a in env.possible_agents}
            others = [k for k in range(3) if count_own or k != g]
            instead = [
                team_reward(syllables, task // 3, {**said, agent: root.responses[agent][k].text})
                for k in others
            ]
            expected = team_reward(syllables, task // 3, said) - sum(instead) / len(instead)
            assert sample.advantage == pytest.approx(expected, abs=1e-12)
            assert sample.weight == pytest.approx(1 / 3 / 2)
    assert next(groups, None) is None


def test_the_counterfactual_baseline_hears_all_that_a_partner_says(exact: Any, syllables: Any) -> None:
    """A partner's responses have no tokens of ours, and are G all the same."""
    env = syllables(2)
    algorithm = resolve(COMA)(group_size=3)  # type: ignore[call-arg]
    roots = exact.collect(algorithm, env, exact.team(env.possible_agents).policies)
    before = [sample.advantage for sample in next(iter(algorithm.credit(roots, env.possible_agents))).samples]
    for root in roots:
        for response in root.responses["player_1"]:
            response.token_ids = []
    groups = list(algorithm.credit(roots, env.possible_agents))
    assert [group.samples[0].agent for group in groups] == ["player_0"] * len(roots)
    assert [sample.advantage for sample in groups[0].samples] == before


def test_averaged_over_partners_the_counterfactual_baseline_is_that_of_cross_magrpo(
    exact: Any, syllables: Any
) -> None:
    """mean over a_-i of [R(a_i, a_-i) - mean_k R(a_i^k, a_-i)] = mean R(a_i, .) - mean R."""
    env = syllables(2)
    own, base = resolve(COMA)(group_size=3), MAGRPO(group_size=3, joint_mode="cross", normalize="none")  # type: ignore[call-arg]
    (root, _) = exact.collect(base, env, exact.team(env.possible_agents).policies)
    table = root.rewards[:, 0].reshape(3, 3)  # (response of player_0, of player_1)
    everywhere = [
        own.counterfactual(root, 0, [True, True])[g, k]
        for g in range(3)
        for k in range(3)  # type: ignore[attr-defined]
    ]
    assert np.reshape(everywhere, (3, 3)).T.tolist() == table.tolist()
    averaged = (table - table.mean(axis=0)).mean(axis=1)
    group = next(iter(base.credit([root], env.possible_agents)))
    assert [s.advantage for s in group.samples] == pytest.approx(averaged.tolist(), abs=1e-12)


def test_a_difference_reward_is_what_the_team_would_have_missed(exact: Any, syllables: Any) -> None:
    env = syllables(2)
    algorithm = resolve(DIFFERENCE)(group_size=3, normalize="none", default_text="e")  # type: ignore[call-arg]
    rollout = exact.rollout(env, exact.team(env.possible_agents).policies)
    roots = algorithm.collect(rollout, [(7, 0), (8, 1)])
    assert rollout.cost.reward_evaluations == 2 * 3 * (1 + 2)
    groups = iter(algorithm.credit(roots, env.possible_agents))
    for task, root in enumerate(roots):
        for agent in env.possible_agents:
            worth = []
            for g in range(3):
                said = {a: root.responses[a][g].text for a in env.possible_agents}
                without = team_reward(syllables, task, {**said, agent: "e"})
                worth.append(team_reward(syllables, task, said) - without)
            group = next(groups)
            assert group.credits == pytest.approx(worth, abs=1e-12)
            assert [s.advantage for s in group.samples] == pytest.approx(np.array(worth) - np.mean(worth))


@pytest.mark.parametrize("path", [COMA, DIFFERENCE])
def test_they_play_under_a_protocol_and_over_several_turns(
    exact: Any, syllables: Any, counter: Any, path: str
) -> None:
    for env in (Pipeline(syllables(2)), syllables(2, max_turns=2)):
        algorithm = resolve(path)(group_size=2)  # type: ignore[call-arg]
        rollout = exact.rollout(env, {agent: counter() for agent in env.possible_agents})
        groups = list(algorithm.credit(algorithm.collect(rollout, [(0, 0)]), env.possible_agents))
        assert {group.samples[0].agent for group in groups} == set(env.possible_agents)


@pytest.mark.parametrize("path", [COMA, DIFFERENCE, BETTER])
def test_they_credit_inside_another_algorithm_as_alone(
    exact: Any, syllables: Any, counter: Any, path: str
) -> None:
    env = syllables(2, max_turns=2)
    inside = PMIC(base=path, base_kwargs={"group_size": 2}, alpha=0.0, beta=0.0)
    inside.setup(SimpleNamespace(names=env.possible_agents), seed=0)  # type: ignore[arg-type]
    roots = exact.collect(inside, env, {agent: counter() for agent in env.possible_agents})
    shaped, alone = (list(own.credit(roots, env.possible_agents)) for own in (inside, inside.wrapped))
    assert alone and [group.samples for group in shaped] == [group.samples for group in alone]


@pytest.mark.parametrize("path", [COMA, DIFFERENCE, BETTER])
def test_the_command_at_the_head_of_the_file_is_one(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    head = str(ast.get_docstring(ast.parse(Path(path).read_text(encoding="utf-8"))))
    (command,) = (part for part in head.split("\n\n") if part.startswith("textmarl train "))
    words = shlex.split(command.replace("\\\n", " "))[2:]
    run = words.index("--run") + 1
    words[run] = str(tmp_path / "run")
    assert type(read_settings(words).algorithm).__name__ in Path(path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "own"),
    [(COMA, {"count_own": False}), (DIFFERENCE, {"default_text": "x"}), (BETTER, {"keep": 0.7})],
)
def test_they_are_short_and_their_own_fields_are_flags_and_yaml(
    path: str, own: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(Path(path).read_text(encoding="utf-8").splitlines()) <= 80
    new = {field.name for field in fields(resolve(path))} - {field.name for field in fields(MAGRPO)}
    assert new == set(own)
    monkeypatch.chdir(tmp_path)
    common = {
        "env": {"id": "textmarl/Chorus-v0", "kwargs": {"n_agents": 2}},
        "team": {"model": "tiny", "lora_rank": 2, "device": "cpu"},
        "sampling": {"max_new_tokens": 4, "temperature": 1.0},
        "trainer": {"steps": 1, "tasks_per_step": 1, "warmup_steps": 0, "eval_tasks": 1, "eval_samples": 1},
    }
    content = {**common, "algo": {"name": path, "group_size": 3, **own}}
    Path("run.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    settings = read_settings(["--config", "run.yaml", "--run", "run"])
    Path("run.yaml").write_text(yaml.safe_dump(common), encoding="utf-8")
    flags = [f"--algo.{name}={value}" for name, value in own.items()]
    flagged = read_settings(["--config", "run.yaml", "--algo", path, "--algo.group_size", "3", *flags])
    assert flagged.resolved["algo"] == settings.resolved["algo"] == settings.resolved["algo"] | own
    team = Team.create(settings.env.possible_agents, settings.team)
    trainer = Trainer(
        settings.env, team, settings.algorithm, settings.trainer, settings.sampling, run=settings.run
    )
    assert trainer.train()
    metrics = json.loads(Path("run", "metrics.jsonl").read_text(encoding="utf-8"))
    norms = [metrics[f"grad_norm/player_{i}"] for i in (0, 1)]
    assert all(map(math.isfinite, norms)) and max(norms) > 0


def test_aligned_joint_actions_hold_no_counterfactuals() -> None:
    with pytest.raises(ValueError, match=r"needs algo\.joint_mode cross and algo\.group_size 2 or more"):
        resolve(COMA)(joint_mode="aligned").validate(["a", "b"])  # type: ignore[call-arg]
