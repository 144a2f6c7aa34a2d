from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from textmarl.agents import Evaluation
from textmarl.algos.config import FREE_SETTINGS
from textmarl.cli import main
from textmarl.cli.errors import CommandError
from textmarl.cli.parsing import add_models, command_parser, known_options
from textmarl.cli.seats import ModelOptions, make_agents
from textmarl.cli.settings import as_yaml, read_settings
from textmarl.cli.user_code import import_user_code

Training = Callable[..., list[str]]
TLDR = ["--env", "textmarl/TLDR-v0"]


def resolved(*words: str) -> dict[str, Any]:
    return read_settings(words).resolved


def write_yaml(path: Path, content: Any) -> str:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


# ------------------------------------------------------------------------------------------------ settings


def test_every_field_of_every_config_is_an_option_and_resolved() -> None:
    import dataclasses

    from textmarl.agents import Sampling, TeamConfig
    from textmarl.algos import MAGRPO, TrainerConfig

    config = resolved(*TLDR)
    assert config["env"] == {"id": "textmarl/TLDR-v0", "kwargs": {}, "eval_kwargs": {"split": "test"}}
    assert config["algo"] == {"name": "magrpo", **dataclasses.asdict(MAGRPO())}
    assert config["team"] == dataclasses.asdict(TeamConfig())
    assert config["sampling"] == dataclasses.asdict(Sampling())
    assert config["trainer"] == dataclasses.asdict(TrainerConfig())


def test_flags_win_over_files_and_files_over_presets_and_presets_over_defaults(tmp_path: Path) -> None:
    from textmarl.algos import MAGRPO

    paper = MAGRPO.PRESETS["paper"]
    below = write_yaml(
        tmp_path / "below.yaml",
        {
            "env": {"id": "textmarl/TLDR-v0", "kwargs": {"source": "bundled", "split": "train[:8]"}},
            "algo": {"name": "magrpo", "length_weighting": "token_mean"},
            "trainer": {"steps": 7, "learning_rate": 1e-5},
        },
    )
    above = write_yaml(
        tmp_path / "above.yaml", {"trainer": {"steps": 8}, "env": {"kwargs": {"split": "train[:9]"}}}
    )
    words = ["--config", below, "--config", above, "--preset", "paper"]
    config = resolved(*words, "--algo.group_size", "6", "--env.kwargs.reward_shift=-2.1")
    assert config["algo"]["normalize"] == paper["normalize"] == "none"  # the preset
    assert config["algo"]["length_weighting"] == "token_mean"  # a file over the preset
    assert config["algo"]["group_size"] == 6 != paper["group_size"]  # a flag over the preset
    assert config["trainer"]["steps"] == 8 and config["trainer"]["learning_rate"] == 1e-5
    assert config["env"]["kwargs"] == {"source": "bundled", "split": "train[:9]", "reward_shift": -2.1}


def test_flags_win_wherever_the_file_stands(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "run.yaml", {"env": "textmarl/TLDR-v0", "trainer": {"steps": 7}})
    assert resolved("--trainer.steps", "3", "--config", path)["trainer"]["steps"] == 3


def test_yaml_writes_small_numbers_as_people_do(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "env: textmarl/TLDR-v0\ntrainer: {learning_rate: 3e-5}\n", encoding="utf-8"
    )
    assert resolved("--config", "run.yaml")["trainer"]["learning_rate"] == 3e-5


def test_one_seed_sets_all_and_a_nearer_one_wins(tmp_path: Path) -> None:
    config = resolved(*TLDR, "--seed", "5", "--team.seed", "6")
    assert (config["trainer"]["seed"], config["team"]["seed"]) == (5, 6)
    path = write_yaml(tmp_path / "run.yaml", {"env": "textmarl/TLDR-v0", "seed": 7, "trainer": {"seed": 8}})
    config = resolved("--config", path)
    assert (config["trainer"]["seed"], config["team"]["seed"]) == (8, 7)
    config = resolved("--config", path, "--seed", "9")
    assert (config["trainer"]["seed"], config["team"]["seed"]) == (9, 9)


def test_the_printed_settings_are_yaml_that_gives_the_same_settings(tmp_path: Path) -> None:
    config = resolved(*TLDR, "--algo.group_size", "6", "--team.model", "[tiny,tiny]", "--run", "runs/x")
    printed = as_yaml(config)
    assert yaml.safe_load(printed) == config
    (tmp_path / "again.yaml").write_text(printed, encoding="utf-8")
    assert resolved("--config", "again.yaml") == config


def test_the_held_out_environment_is_the_other_split() -> None:
    settings = read_settings([*TLDR, "--env.kwargs.split", "train[:4]"])
    assert settings.env.tasks.split == "train[:4]" and settings.eval_env.tasks.split == "test"
    assert settings.held_out
    assert not read_settings([*TLDR, "--env.eval_kwargs.split", "train"]).held_out


def write_posts(path: Path, *posts: str) -> None:
    lines = [json.dumps({"prompt": post, "completion": "short"}) for post in posts]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_tasks_of_two_files_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    write_posts(tmp_path / "a.jsonl", "POST: one", "POST: two")
    write_posts(tmp_path / "b.jsonl", "POST: three", "POST: four")
    words = [
        *TLDR,
        "--env.kwargs.source",
        "a.jsonl",
        "--env.kwargs.split",
        "all",
        "--env.eval_kwargs.split",
        "all",
    ]
    settings = read_settings([*words, "--env.eval_kwargs.source", "b.jsonl"])
    assert [task.id for task in settings.env.tasks] == [task.id for task in settings.eval_env.tasks]
    assert settings.held_out
    assert not read_settings([*words, "--env.eval_kwargs.source", "a.jsonl"]).held_out


def test_paths_are_kept_absolute_and_names_as_they_are(tmp_path: Path) -> None:
    write_posts(tmp_path / "posts.jsonl", *("POST: " + letter for letter in "abcdefghij"))
    (tmp_path / "reward.py").write_text("def always(responses, task): return 0.5\n", encoding="utf-8")
    for folder in ("my_model", "tiny"):
        (tmp_path / folder).mkdir()
    words = ["--env.kwargs.source", "posts.jsonl", "--env.kwargs.reward_fn", "python:reward.py:always"]
    config = resolved(*TLDR, *words, "--team.model", "[my_model,tiny]")
    assert config["env"]["kwargs"] == {
        "source": str(tmp_path / "posts.jsonl"),
        "reward_fn": f"python:{tmp_path / 'reward.py'}:always",
    }
    assert config["team"]["model"] == [str(tmp_path / "my_model"), "tiny"]
    assert resolved(*TLDR, "--team.model", "org/model")["team"]["model"] == "org/model"


def test_a_run_without_a_name_gets_the_first_free_one(tmp_path: Path) -> None:
    assert read_settings(TLDR).run == Path("runs/tldr-magrpo-1")
    (tmp_path / "runs" / "tldr-magrpo-1").mkdir(parents=True)
    assert read_settings(TLDR).run == Path("runs/tldr-magrpo-2")


def test_an_algorithm_from_a_file_brings_its_own_flags(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from textmarl.algos import MAGRPO\n"
        "@dataclass\n"
        "class Positive(MAGRPO):\n"
        "    '''Learns from the better half only.'''\n"
        "    floor: float = 0.0\n"
        "    '''The least advantage.'''\n"
        "    def advantages(self, credits):\n"
        "        return super().advantages(credits).clip(min=self.floor)\n",
        encoding="utf-8",
    )
    settings = read_settings([*TLDR, "--algo", "mine.py:Positive", "--algo.floor", "0.5"])
    assert type(settings.algorithm).__name__ == "Positive"
    assert vars(settings.algorithm)["floor"] == 0.5
    assert settings.resolved["algo"]["name"] == f"{tmp_path.resolve() / 'mine.py'}:Positive"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--group_size", "3"], "unknown option --group_size; did you mean '--algo.group_size'"),
        (["--algo.grop_size", "3"], "unknown option --algo.grop_size; did you mean '--algo.group_size'"),
        (["--algo.group_size", "many"], "--algo.group_size: expected int, got many"),
        (
            ["--algo.normalize", "sdt"],
            "--algo.normalize: expected one of std, none, got sdt; did you mean 'std'",
        ),
        (["--algo", "magrop"], "unknown algorithm 'magrop'"),
        (["--algo", "nowhere.py:Mine"], "'nowhere.py' does not exist"),
        (["--preset", "papre"], "--preset papre: magrpo has the presets paper"),
        (["--team.model", "[tiny]"], "team.model lists 1 models for 2 agents"),
        (["--sampling.top_p", "0"], "sampling.top_p must be in"),
        (["--sampling.temperature", "0"], "sampling.temperature 0 is greedy"),
        (["--trainer.steps", "-1"], "trainer.steps must not be negative"),
        (["--transcripts", "-1"], "--transcripts: expected 0"),
        (
            ["--env.kwargs.spilt", "test"],
            "env.kwargs.spilt: textmarl/TLDR-v0 has no such argument; did you mean 'split'",
        ),
        (["--env.eval_kwargs.split", "tset"], "env.eval_kwargs"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: nowhere.yaml: No such file"),
        (["--resume"], "--resume: which run?"),
        (["--resume", "a", "--run", "b"], "name different folders"),
        (["--resume", "nowhere"], "this is not a run directory"),
        (["--seed", "x"], "--seed"),
    ],
)
def test_wrong_settings_are_refused_by_name(words: list[str], message: str) -> None:
    with pytest.raises(CommandError) as error:
        read_settings([*TLDR, *words])
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"algo": {"grop_size": 3}},
            "--config: unknown key 'algo.grop_size'; did you mean 'algo.group_size'",
        ),
        ({"algos": {"group_size": 3}}, "--config: unknown key 'algos'; did you mean 'algo'"),
        ({"resume": "x"}, "--config: unknown key 'resume'"),
        ({"algo": {"group_size": "many"}}, "algo.group_size: expected int, got many"),
        ({"trainer": 3}, "--config: unknown key 'trainer'"),
        (["env"], "expected keys such as env"),
    ],
)
def test_wrong_files_are_refused_by_key(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError) as error:
        read_settings([*TLDR, "--config", write_yaml(tmp_path / "run.yaml", content)])
    assert message in str(error.value)


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("algo: {", encoding="utf-8")
    with pytest.raises(CommandError, match="not valid YAML"):
        read_settings([*TLDR, "--config", "run.yaml"])


def test_the_help_shows_the_chosen_settings(user_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--import", str(user_file), "--env", "user/Vowels-v0", "--preset", "paper", "--help"]
    with pytest.raises(SystemExit):
        main(words)
    text = " ".join(capsys.readouterr().out.split())
    assert "user/Vowels-v0 takes split='train', bonus=1.0" in text
    assert "--algo.group_size N G, responses per agent and history (paper: 4). (default: 4)" in text
    assert "--algo.epochs N Updates on the same experience" in text  # inherited and documented


# ------------------------------------------------------------------------------------------------ whole runs


def test_training_ends_with_a_table_and_a_report(trained_run: tuple[Path, str]) -> None:
    run, printed = trained_run
    assert "step 2/2" in printed and "evaluation before training" in printed
    assert "evaluating the untrained team on 2 held-out tasks, 4 episodes ..." in printed
    assert "evaluating the team after step 2 on 2 held-out tasks" in printed
    assert "5 held-out" not in printed and "2 held-out tasks, 2 samples of each" in printed
    assert all(column in printed for column in ("untrained", "trained", "change", "95 % interval"))
    assert f"report:   {run / 'report.html'}" in printed
    assert (run / "report.html").is_file()
    assert "\x1b" not in printed and "\r" not in printed


def test_training_shows_transcripts(trained_run: tuple[Path, str]) -> None:
    _, printed = trained_run
    assert "step 1: task train/" in printed and "step 2: task train/" in printed
    assert printed.count("second writes") == 2


def test_a_run_keeps_its_settings_metrics_and_log(trained_run: tuple[Path, str], user_file: Path) -> None:
    run, _ = trained_run
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert list(config) == ["run", "import", "env", "algo", "team", "sampling", "trainer"]
    assert config["import"] == [str(user_file)] and config["trainer"]["steps"] == 2
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert "step 1/2" in (run / "log.txt").read_text(encoding="utf-8")


def test_a_used_run_directory_is_refused_with_advice(
    trained_run: tuple[Path, str], small_training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained_run
    assert main(small_training(run)) == 2
    assert f"textmarl train --resume {run}" in capsys.readouterr().err


def test_a_trained_run_is_an_agent(
    trained_run: tuple[Path, str], user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained_run
    common = [
        "eval",
        "--import",
        str(user_file),
        "--env",
        "user/Vowels-v0",
        "--tasks",
        "2",
        "--output",
        "out",
    ]
    assert (
        main([*common, "--agent", f"first=run:{run}", "--agent", "second=hf:tiny", "--max-new-tokens", "3"])
        == 0
    )
    capsys.readouterr()
    turns = [json.loads(line)["turns"][0] for line in Path("out/episodes.jsonl").read_text().splitlines()]
    assert all(1 <= turn[agent]["tokens"] <= 3 for turn in turns for agent in ("first", "second"))
    assert main(["eval", *TLDR, "--agent", f"run:{run}"]) == 2
    assert "that run trained first, second, and nobody for concise, detailed" in capsys.readouterr().err


def test_a_run_played_on_its_training_tasks_is_told(
    trained_run: tuple[Path, str], user_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = trained_run
    words = [
        "eval",
        "--import",
        str(user_file),
        "--env",
        "user/Vowels-v0",
        "--tasks",
        "2",
        "--agent",
        f"run:{run}",
    ]
    assert main([*words, "--team.device", "cpu", "--sampling.top_k", "3", "--max-new-tokens", "2"]) == 0
    assert "note:" not in capsys.readouterr().out
    assert main([*words, "--env.kwargs.split", "train", "--max-new-tokens", "2"]) == 0
    assert f"note: 2 of the 2 tasks are also training tasks of run:{run}" in capsys.readouterr().out
    assert main([*words, "--team.thinking", "strip"]) == 2
    assert "--team.thinking is for hf: agents" in capsys.readouterr().err


def test_seats_of_models_draw_from_streams_of_their_own_and_share_what_is_equal(
    trained_run: tuple[Path, str], tmp_path: Path
) -> None:
    from textmarl.agents import load_model

    model, tokenizer = load_model("tiny")
    model.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    assigned = {
        "one": "hf:tiny",
        "two": f"hf:{tmp_path / 'other'}",
        "three": "hf:tiny",
        "first": f"run:{trained_run[0]}",
    }
    options = ModelOptions(
        {"top_k": 5}, {"dtype": "float64", "chat_template_kwargs": {"enable_thinking": False}}
    )
    agents: dict[str, Any] = dict(make_agents(assigned, 3, options))
    assert len({agent.generator.initial_seed() for agent in agents.values()}) == 4
    assert agents["one"].policy.model is agents["three"].policy.model is not agents["two"].policy.model
    assert {agent.sampling.top_k for agent in agents.values()} == {5}
    assert agents["first"].sampling.max_new_tokens == 6  # the run's own
    assert str(agents["two"].policy.model.dtype) == "torch.float64"
    assert agents["two"].policy.chat_template_kwargs == {"enable_thinking": False}
    again: dict[str, Any] = dict(make_agents({"two": assigned["two"]}, 3, options))
    assert (
        again["two"].generator.initial_seed() == agents["one"].generator.initial_seed()
    )  # by the seat's place


def test_every_way_of_sampling_is_an_option_of_eval_and_play() -> None:
    import dataclasses

    from textmarl.agents import Sampling, TeamConfig

    parser = command_parser("eval", "", "")
    add_models(parser)
    names = {name for name in known_options(parser) if "." in name}
    assert {name for name in names if name.startswith("sampling.")} == {
        f"sampling.{field.name}" for field in dataclasses.fields(Sampling)
    }
    assert {name.removeprefix("team.") for name in names if name.startswith("team.")} <= {
        field.name for field in dataclasses.fields(TeamConfig)
    }


def test_the_report_can_be_rebuilt(trained_run: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = trained_run
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").is_file()


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(
    user_file: Path, small_training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = import_user_code(str(user_file))
    run = tmp_path / "interrupted run"
    user.Vowels.judged, user.Vowels.interrupt_after = (
        0,
        4 + 2 + 1,
    )  # evaluation of 4, step 1 of 2, then in step 2
    try:
        code = main(small_training(run, "--trainer.steps", "4"))
    finally:
        user.Vowels.interrupt_after = None
    text = capsys.readouterr().out
    assert code == 130
    assert f"Interrupted after step 2 of 4. Continue with\n  textmarl train --resume '{run}'" in text

    assert main(["train", "--resume", str(run), "--algo.group_size", "3"]) == 2
    assert "--algo.group_size: a resumed run keeps the settings" in capsys.readouterr().err
    assert f"report:   {run / 'report.html'}" in text and (run / "report.html").is_file()

    more = ["--trainer.steps", "3", "--transcripts", "0", "--trainer.micro_batch_tokens", "512"]
    assert main(["train", "--resume", str(run), *more]) == 0
    text = capsys.readouterr().out
    assert "resumed after step 2 of 3" in text and "step 3/3" in text and "writes" not in text
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
    ]
    evaluations = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert [record["step"] for record in evaluations] == [0, 3]
    assert len(Evaluation.from_json(evaluations[-1]).episodes) == 4


def test_what_changes_no_result_may_be_changed_in_a_resumed_run(tmp_path: Path) -> None:
    def resume(*words: str) -> Any:
        return read_settings(["--resume", str(tmp_path), *words])

    def refused(*words: str) -> str:
        with pytest.raises(CommandError) as error:
            resume(*words)
        return str(error.value)

    write_yaml(tmp_path / "config.yaml", resolved(*TLDR, "--run", "new", "--trainer.schedule", "linear"))
    anew = dict.fromkeys(FREE_SETTINGS, 7) | {
        "generation_server": "http://h/v1",
        "adapter_folder": "/adapters",
    }
    trainer = resume(*(f"--trainer.{name}={value}" for name, value in anew.items())).trainer
    assert {name: vars(trainer)[name] for name in FREE_SETTINGS} == anew
    assert "--trainer.micro_batch_tokens" in refused("--trainer.learning_rate", "1e-5")
    assert "its linear schedule ends at the last step" in refused("--trainer.steps", "50")
    write_yaml(tmp_path / "config.yaml", resolved(*TLDR, "--run", "new"))
    assert resume("--trainer.steps", "50").trainer.steps == 50


def test_a_report_that_fails_takes_nothing_from_the_run(
    trained_run: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(run: Path) -> Path:
        raise RuntimeError("no fonts\nhere")

    run = shutil.copytree(trained_run[0], tmp_path / "run")
    monkeypatch.setattr("textmarl.benchmarks.report.write_report", fail)
    assert main(["train", "--resume", str(run)]) == 2
    printed = capsys.readouterr()
    assert "untrained" in printed.out and f"run:      {run}" in printed.out and "report:" not in printed.out
    assert printed.err == (
        f"textmarl train: the run is complete; `textmarl report {run}` writes the report "
        "(what failed: RuntimeError: no fonts here)\n"
    )

    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("textmarl.cli.tables.change_table", fail)
    assert main(["train", "--resume", str(run)]) == 2
    assert f"report:   {run / 'report.html'}" in capsys.readouterr().out


def test_run_and_a_bare_resume_name_the_run_too(trained_run: tuple[Path, str]) -> None:
    run, _ = trained_run
    settings = read_settings(["--run", str(run), "--resume"])
    assert settings.resume and settings.run == run and settings.trainer.steps == 2


def test_a_model_that_is_not_there_is_refused_in_one_line(
    small_training: Training, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no_model").mkdir()
    assert main(small_training(tmp_path / "run", "--team.model", "no_model")) == 2
    assert capsys.readouterr().err.startswith(f"textmarl train: team.model {tmp_path / 'no_model'}: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        "--algo.normalise",
        "--algo.group_size=1",
        "--algo=igrpo --algo.group_size=3",
        "--algo=igrpo --algo.group_size=2",
        "--algo.joint_mode=cross --algo.branching=chain",
        "--algo.kl_coef=0.1 --team.tuning=full",
        "--env=textmarl/Relay-v0 --env.kwargs.reward=individual",
        "--env.kwargs.split=tset",
        "--team.parameter_sharing=true --team.model=[tiny,smollm2-135m]",
        "--team.partners.concise=random --team.partners.detailed=random",
        "--team.partners.concice=random",
        "--team.partners.concise=nobody",
        "--endpoint.timeout=3",
    ],
)
def test_no_model_is_loaded_for_a_wrong_call(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_model(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("textmarl.agents.team.load_model", load_model)
    assert main(["train", *TLDR, "--team.model", "tiny", *wrong.split()]) == 2
    with pytest.raises(AssertionError, match="a model was loaded"):
        main(["train", *TLDR, "--team.model", "tiny"])
