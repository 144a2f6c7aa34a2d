"""Partners: agents that play with those that are trained, and are not trained themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo import ParallelEnv

from textmarl.agents import HumanAgent, RandomAgent, Response, Sampling, Team, TeamConfig, evaluate
from textmarl.agents.partner import PartnerFailed
from textmarl.algos import (
    C3,
    GRPO,
    IGRPO,
    IPPO,
    MAGRPO,
    PMIC,
    Algorithm,
    CoLLM,
    Rollout,
    Trainer,
    TrainerConfig,
    validate_run,
)

PLAYERS = ["player_0", "player_1"]
SCRIPT = "abba"
TINY: dict[str, Any] = {"model": "tiny", "lora_rank": 2, "lora_targets": ["q_proj"], "device": "cpu"}


class Inside(ParallelEnv):
    """The same world for one agent: the partner's script is a part of the environment."""

    metadata = {"name": "inside"}
    possible_agents = PLAYERS[:1]

    def __init__(self, env: Any):
        self.env = env

    @property
    def agents(self) -> list[str]:
        return self.env.agents[:1]

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        return self.env.reset(seed=seed, options=options)

    def step(self, actions: dict[str, str]) -> Any:
        return self.env.step({**actions, "player_1": SCRIPT})


def script(text: str) -> str:
    return SCRIPT


def credited(
    exact: Any, algorithm: Algorithm, env: Any, players: Any
) -> list[tuple[list[int], list[int], float]]:
    """Prompt, response, and advantage times weight of everything that is learned from, in order."""
    roots = exact.collect(algorithm, env, players)
    samples = [s for g in algorithm.credit(roots, list(env.possible_agents)) for s in g.samples]
    assert {sample.agent for sample in samples} == {"player_0"}
    return [(s.prompt_ids, s.token_ids, float(np.mean(s.advantage)) * s.weight) for s in samples]


@pytest.mark.parametrize(
    ("algorithm", "turns"),
    [
        (MAGRPO(group_size=3), 2),
        (MAGRPO(group_size=3, branching="chain"), 3),
        (MAGRPO(group_size=3, joint_mode="cross"), 1),
        (IGRPO(group_size=3), 2),
        (IGRPO(group_size=3, partner="fixed"), 2),
        (IGRPO(group_size=3, partner="frozen"), 2),
        (IGRPO(group_size=3, partner="aligned"), 2),
        (C3(fan_out=3), 2),
        (IPPO(group_size=3), 2),
        (IPPO(group_size=3, critic_trunk="shared"), 2),
        (CoLLM(group_size=3, critic="decentralized"), 2),
        (PMIC(base="ippo", base_kwargs={"group_size": 3}, alpha=0.0, beta=0.0), 2),
    ],
    ids=[
        "tree",
        "chain",
        "cross",
        "resampled",
        "fixed",
        "frozen",
        "individual",
        "c3",
        "ippo",
        "ippo, shared",
        "collm",
        "pmic",
    ],
)
def test_beside_a_scripted_partner_an_agent_learns_as_if_the_script_were_part_of_the_world(
    exact: Any, syllables: Any, algorithm: Algorithm, turns: int
) -> None:
    config = {"dtype": "float64", "device": "cpu", "lora_rank": 4, "model": exact.model}
    team = Team.create(PLAYERS, TeamConfig(**config), partners={"player_1": script})
    alone = Team(team.policies, team.config)
    env = syllables(2, max_turns=turns)
    validate_run(algorithm, PLAYERS, team.config, exact.sampling, env)
    algorithm.setup(team, 0)
    beside = credited(exact, algorithm, env, team.players)
    algorithm.setup(alone, 0)
    inside = credited(exact, algorithm, Inside(env), alone.players)
    assert [row[:2] for row in beside] == [row[:2] for row in inside]
    assert [row[2] for row in beside] == pytest.approx([row[2] for row in inside], abs=1e-12)
    assert any(row[2] for row in inside)


def test_grpo_stays_with_one_agent_whoever_the_others_are() -> None:
    team = TeamConfig(partners={"player_1": "random"})
    with pytest.raises(ValueError, match="protocol single"):
        validate_run(GRPO(), PLAYERS, team, Sampling())


def test_groups_of_independent_agents_are_divided_among_those_who_learn() -> None:
    agents = [*PLAYERS, "player_2", "player_3"]
    two = TeamConfig(partners={"player_1": "random", "player_3": "random"})
    validate_run(IGRPO(group_size=4), agents, two, Sampling())
    with pytest.raises(ValueError, match="4 does not do for 4"):
        validate_run(IGRPO(group_size=4), agents, TeamConfig(), Sampling())


@pytest.mark.parametrize(
    ("partners", "complaint"),
    [
        ({"player_7": script}, "names 'player_7'; the agents are player_0, player_1"),
        (dict.fromkeys(PLAYERS, script), "nobody is left to train"),
    ],
)
def test_partners_that_make_no_team_are_refused(partners: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Team.create(PLAYERS, TeamConfig(model="no/such"), partners)


def test_a_partner_that_is_only_named_is_asked_for() -> None:
    config = TeamConfig(model="no/such", partners={"player_1": "openai:http://localhost:1/v1#m"})
    with pytest.raises(ValueError, match=r"partners=\{'player_1': agent\}"):
        Team.create(PLAYERS, config)


# ----------------------------------------------------------------------------------------- whole runs


def trainer(run: Path, env: Any, partner: Any, **config: Any) -> Trainer:
    settings = {
        "steps": 3,
        "warmup_steps": 0,
        "tasks_per_step": 1,
        "eval_tasks": 2,
        "eval_samples": 1,
        **config,
    }
    team = Team.create(PLAYERS, TeamConfig(**TINY), partners={"player_1": partner})
    sampling = Sampling(temperature=1.0, max_new_tokens=6)
    return Trainer(env(2), team, MAGRPO(group_size=3), TrainerConfig(**settings), sampling, env(2), run)


def left(run: Path) -> dict[str, Any]:
    """What two equal runs have in common."""
    found: dict[str, Any] = {}
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        file = run / name
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        measured = ("seconds", "rate/", "memory/")
        found[name] = [{k: v for k, v in line.items() if not k.startswith(measured)} for line in lines]
    return found | {"weights": (run / "adapters/player_0/adapter_model.safetensors").read_bytes()}


class Unreliable(RandomAgent):
    """Gives no answer to one of its conversations, as a server that goes down for a while."""

    def __init__(self, fails_at: int):
        super().__init__(min_words=1, max_words=2)
        self.fails_at, self.asked = fails_at, 0

    def submit(self, conversation: Any, seed: int) -> Any:
        self.asked += 1
        answer = super().submit(conversation, seed)
        if self.asked == self.fails_at:
            answer.result().error = "connection refused"
        return answer


# Asked 2 times by each evaluation and 3 times by each step: 1 to 2, 3 to 11, 12 to 13.
@pytest.mark.parametrize(
    ("fails_at", "where"),
    [(1, "after step 0"), (7, "after step 1"), (13, "after step 3")],
    ids=["in the first evaluation", "in a step", "in the last evaluation"],
)
def test_nothing_is_lost_when_a_partner_gives_no_answer(
    tmp_path: Path, syllables: Any, fails_at: int, where: str
) -> None:
    assert trainer(tmp_path / "whole", syllables, Unreliable(0)).train()
    with pytest.raises(PartnerFailed, match=f"{where}: .*'player_1' gave no answer.*connection refused"):
        trainer(tmp_path / "broken", syllables, Unreliable(fails_at)).train()
    assert trainer(tmp_path / "broken", syllables, Unreliable(0)).train(resume=True)
    assert left(tmp_path / "broken") == left(tmp_path / "whole")


def test_what_a_partners_code_raises_is_the_cause_and_the_run_goes_on(tmp_path: Path, syllables: Any) -> None:
    def broken(text: str) -> str:
        raise KeyError("no such key")

    with pytest.raises(PartnerFailed, match=r"'player_1' failed with KeyError") as error:
        trainer(tmp_path, syllables, broken, eval_tasks=0).train()
    causes = [error.value, error.value.__cause__, error.value.__cause__.__cause__]  # type: ignore[union-attr]
    assert isinstance(causes[-1], KeyError)


def test_a_run_is_not_continued_with_another_partner(tmp_path: Path, syllables: Any) -> None:
    assert trainer(tmp_path, syllables, RandomAgent(2), steps=1).train()
    with pytest.raises(ValueError, match=r"was started with partner\.player_1 .*'seed': 2.*'seed': 3"):
        trainer(tmp_path, syllables, RandomAgent(3), steps=2).train(resume=True)


def test_a_policy_can_be_a_partner_and_stays_as_it_is(
    tmp_path: Path, make_team: Callable[..., Team], llama: str, syllables: Any
) -> None:
    other = make_team([llama, llama], dtype="float32")
    agent = other.agents(Sampling(temperature=0.5, max_new_tokens=4))["right"]
    before = {name: p.detach().clone() for name, p in other.policies["right"].parameters().items()}
    made = trainer(tmp_path, syllables, agent)
    first = next(iter(made.team.policies["player_0"].parameters().values())).detach().clone()
    assert made.train()
    assert all(torch.equal(before[n], p) for n, p in other.policies["right"].parameters().items())
    assert not torch.equal(first, next(iter(made.team.policies["player_0"].parameters().values())))
    assert [path.name for path in (tmp_path / "adapters").iterdir() if path.is_dir()] == ["player_0"]
    (metrics, *_) = left(tmp_path)["metrics.jsonl"]
    assert "loss/player_0" in metrics and not any(key.endswith("/player_1") for key in metrics)
    # The team is saved without its partner, and takes one when it is loaded.
    assert list(Team.load(tmp_path).agents(Sampling())) == ["player_0"]
    loaded = Team.load(tmp_path, partners={"player_1": agent})
    assert loaded.names == PLAYERS
    result = evaluate(syllables(2), loaded.agents(Sampling(max_new_tokens=4)), tasks=1)
    assert set(result.episodes[0].turns[0]) == set(PLAYERS)


def test_a_person_can_be_a_partner(tmp_path: Path, syllables: Any) -> None:
    shown: list[str] = []
    lines = iter(["my", "answer", ""] * 3)
    person = HumanAgent(shown.append, lambda: next(lines))
    assert trainer(tmp_path, syllables, person, steps=1, eval_tasks=0).train()
    assert len(shown) == 3  # one for each member of the group
    (sample,) = left(tmp_path)["samples.jsonl"]
    assert sample["turns"][0]["player_1"]["response"] == "my\nanswer"


def test_tokens_of_a_partner_are_counted_and_not_learned_from(exact: Any, syllables: Any) -> None:
    class Counting:
        def act(self, conversations: Any) -> list[Response]:
            return [Response("a", token_ids=[1, 2, 3], logprobs=[-1.0] * 3) for _ in conversations]

    team = Team.create(PLAYERS, TeamConfig(**TINY), partners={"player_1": Counting()})
    rollout: Rollout = exact.rollout(syllables(2), team.players)
    (root,) = MAGRPO(group_size=2).collect(rollout, [(7, 0)])
    assert [response.token_ids for response in root.responses["player_1"]] == [[], []]
    own = sum(len(response.token_ids) for response in root.responses["player_0"])
    assert rollout.cost.generated_tokens == own + 2 * 3
