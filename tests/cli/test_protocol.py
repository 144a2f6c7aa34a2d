"""A protocol is asked for as a keyword of the environment, in every command that makes one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from textmarl.cli import environments, main
from textmarl.cli.user_code import import_user_code
from textmarl.envs.protocols import Discussion

CHORUS = ["eval", "--env", "textmarl/Chorus-v0", "--agent", "random"]


def test_a_protocol_is_named_or_given_with_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CHORUS, "--env.kwargs.protocol", "pipeline"]) == 0
    assert "Chorus-v0 (pipeline), split test" in capsys.readouterr().out
    kwargs = json.dumps({"n_agents": 2, "protocol": {"name": "discussion", "rounds": 3}})
    assert main([*CHORUS, "--env.kwargs", kwargs, "--output", "out"]) == 0
    (episode,) = map(json.loads, Path("out/episodes.jsonl").read_text().splitlines())
    assert len(episode["turns"]) == 3 + 1
    assert main([*CHORUS, "--env.kwargs.protocol", "single"]) == 0
    assert "agent: random" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value, complaint",
    [
        ('"talk"', 'protocol must be "pipeline", "discussion" or "single", not \'talk\''),
        ('{"name": "discussion", "rounds": 0}', "rounds must be an integer of at least 1, not 0"),
        ('{"name": "pipeline", "order": ["player_0"]}', "order must name each of"),
        ('{"name": "single", "order": []}', "order"),
    ],
)
def test_a_protocol_that_there_is_not_is_told_in_one_line(
    value: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*CHORUS, "--env.kwargs", f'{{"protocol": {value}}}']) == 2
    message = capsys.readouterr().err
    assert complaint in message and message.count("\n") == 1


def test_an_argument_of_a_protocol_is_told_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CHORUS, "--env.kwargs.rounds", "2"]) == 2
    message = capsys.readouterr().err
    given = """--env.kwargs.protocol '{"name": "discussion", "rounds": ...}'"""
    assert f"no such argument; rounds is of the protocol discussion: {given}." in message
    words = shlex.split(given.replace("...", "2"))
    assert main([*CHORUS, *words, "--output", "out"]) == 0
    (episode,) = map(json.loads, Path("out/episodes.jsonl").read_text().splitlines())
    assert len(episode["turns"]) == 2 + 1


def test_an_environments_page_names_what_the_commands_take(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "textmarl/Chorus-v0"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "takes split='train', n_agents=" in page and "tasks=None" not in page
    assert "--env.kwargs.protocol pipeline" in page and "wrap(env, " in page


def test_an_environment_keeps_an_argument_of_that_name_to_itself(tmp_path: Path) -> None:
    file = tmp_path / "talkative_env.py"
    file.write_text(
        "import pettingzoo\n"
        "from textmarl.envs.games.penalty import Penalty\n"
        "class Own(Penalty):\n"
        "    def __init__(self, protocol='none', **options):\n"
        "        super().__init__(**options)\n"
        "        self.protocol = protocol\n"
        "pettingzoo.register('parallel', 'talkative/Own-v0', entry_point=Own)\n",
        encoding="utf-8",
    )
    import_user_code(str(file))
    assert environments.make("talkative/Own-v0", {"protocol": "mine"}).protocol == "mine"
    made = environments.make("textmarl/Penalty-v0", {"protocol": "discussion"})
    assert isinstance(made, Discussion)


def test_a_run_under_a_protocol_is_continued_and_evaluated_under_it(
    small_training: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    run = Path("run")
    words = small_training(run, "--env.kwargs.protocol", "pipeline")
    assert main([*words, "--trainer.steps", "1"]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["env"]["kwargs"] == {"protocol": "pipeline"}
    assert main(["train", "--resume", str(run), "--trainer.steps", "2"]) == 0
    evaluations = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert {e["env_name"] for e in evaluations} == {"Vowels (pipeline)"}
    turns = evaluations[-1]["episodes"][0]["turns"]
    assert [list(turn) for turn in turns] == [["first"], ["second"]]
    assert "first wrote:" in turns[1]["second"]["observation"]
    assert (run / "report.html").exists()
    capsys.readouterr()
    assert main(["eval", "--agent", f"run:{run}", "--tasks", "1"]) == 0
    assert "Vowels (pipeline)" in capsys.readouterr().out
