"""A run that was begun from Python tells how it is repeated and evaluated, or does not pretend to."""

from __future__ import annotations

from pathlib import Path

import pettingzoo
import pytest
import yaml

import textmarl.envs  # noqa: F401  (registers the environments)
from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.algos import MAGRPO, Trainer, TrainerConfig
from textmarl.algos.reproduction import describe_environments
from textmarl.benchmarks.report import render_page
from textmarl.cli import main
from textmarl.envs.protocols import wrap

OWN = """
import numpy as np
import pettingzoo
from textmarl.algos import MAGRPO
from textmarl.envs import Outcome, TaskSet, TextEnv

class Own(TextEnv):
    possible_agents = ["one", "two"]
    tasks = TaskSet.of(["a", "b"])

    def observe(self, agent):
        return self.task.data["text"]

    def judge(self, responses):
        return Outcome({"score": float(len(set(responses.values())) == 1)})

class Signs(MAGRPO):
    def advantages(self, credits):
        return np.sign(credits - credits.mean())

pettingzoo.register("parallel", "own/Own-v0", entry_point=Own)
"""


def made(name: str, **kwargs):
    return pettingzoo.make("parallel", f"textmarl/{name}", **kwargs)


def train(env, eval_env, algorithm, run: Path) -> dict:
    team = Team.create(env.possible_agents, TeamConfig(model="tiny", device="cpu", lora_rank=2))
    config = TrainerConfig(steps=1, tasks_per_step=1, eval_tasks=1, eval_samples=1)
    Trainer(env, team, algorithm, config, Sampling(1.0, max_new_tokens=3), eval_env, run).train()
    return yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))


def test_the_registered_id_and_the_arguments_are_recorded() -> None:
    train_env, held_out = made("TLDR-v0", split="train[:4]"), made("TLDR-v0", split="test")
    assert describe_environments(train_env, held_out)["env"] == {
        "id": "textmarl/TLDR-v0",
        "kwargs": {"split": "train[:4]"},
        "eval_kwargs": {"split": "test"},
    }
    assert describe_environments(train_env, train_env)["env"]["eval_kwargs"] == {}
    assert describe_environments(train_env, made("TLDR-v0"))["env"]["eval_kwargs"] == {"split": "train"}
    talking = wrap(made("Chorus-v0", n_agents=3), {"name": "discussion", "rounds": 2})
    kwargs = describe_environments(talking, None)["env"]["kwargs"]
    assert kwargs["n_agents"] == 3
    assert (kwargs["protocol"]["name"], kwargs["protocol"]["rounds"]) == ("discussion", 2)


@pytest.mark.parametrize(
    "pair",
    [
        lambda: (made("TLDR-v0", reward_fn=lambda responses, task: 1.0), None),
        lambda: (made("TLDR-v0"), made("TLDR-v1")),
        lambda: (made("Chorus-v0", max_turns=3), made("Chorus-v0")),  # nothing takes max_turns back
    ],
)
def test_what_the_command_cannot_make_again_has_a_name_and_no_id(pair) -> None:
    env, eval_env = pair()
    assert describe_environments(env, eval_env) == {"env": {"name": env.metadata["name"]}}


def test_a_run_from_python_is_repeated_and_evaluated_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from textmarl.agents.user_code import import_code

    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_of_a_user.py").write_text(OWN, encoding="utf-8")
    own = import_code("own_of_a_user.py")
    env = pettingzoo.make("parallel", "own/Own-v0")
    config = train(env, env, own.Signs(group_size=2), tmp_path / "run")
    assert config["import"] == [str(tmp_path / "own_of_a_user.py")]
    assert config["algo"]["name"] == f"{tmp_path / 'own_of_a_user.py'}:Signs"
    page = render_page(tmp_path / "run")
    assert "textmarl train --config config.yaml" in page and "<h1>own/Own-v0 with Signs" in page
    assert main(["train", "--config", "run/config.yaml", "--run", "again"]) == 0
    again = yaml.safe_load((tmp_path / "again" / "config.yaml").read_text(encoding="utf-8"))
    assert {**again, "run": ""} == {**config, "run": ""}
    for name in ("evaluations.jsonl", "samples.jsonl"):
        texts = [(tmp_path / run / name).read_text().count('"response"') for run in ("run", "again")]
        assert texts[0] == texts[1] > 0
    capsys.readouterr()
    assert main(["eval", "--agent", "run:run"]) == 0
    assert "Own: 2 tasks" in capsys.readouterr().out


def test_the_report_of_what_cannot_be_repeated_shows_settings_and_no_command(tmp_path: Path) -> None:
    env = made("Chorus-v0", reward_fn=lambda responses, task: 1.0)
    train(env, env, MAGRPO(group_size=2), tmp_path / "run")
    page = render_page(tmp_path / "run")
    assert "textmarl train --config" not in page and "<summary>config.yaml</summary>" in page
    assert "<h1>Chorus-v0 with MAGRPO" in page
