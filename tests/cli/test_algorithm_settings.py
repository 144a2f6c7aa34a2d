"""Algorithms on the command line: a setting that cannot work is refused, with what to do, before a model is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from textmarl.agents import models, team
from textmarl.algos import C3, IGRPO, MAGRPO, PMIC
from textmarl.cli import main
from textmarl.cli.settings import read_settings

CLIMBING = ["--env", "textmarl/Climbing-v0"]
THREE = [*CLIMBING, "--env.kwargs.n_agents", "3"]
FULL = ["--team.tuning", "full"]
ONE_WRITER = ["--env.kwargs.protocol", "single"]
INDIVIDUAL = ["--env.kwargs.reward", "individual"]
EXAMPLES = Path(__file__).parents[2] / "examples"
COMA, DIFFERENCE = (str(EXAMPLES / f"{name}.py") for name in ("counterfactual_baseline", "difference_reward"))
AROUND = "pmic around "
ALONE = ["magrpo", "grpo", "igrpo", "c3", "ippo", "collm", COMA, DIFFERENCE]
ALGORITHMS = [*ALONE, *(AROUND + name for name in ("magrpo", "igrpo", "c3", "collm"))]


def run_of(algorithm: str, *more: str, **fields: str) -> list[str]:
    """The words of a run in Climbing; an algorithm inside another takes its fields by `base_kwargs`."""
    inner = algorithm.removeprefix(AROUND)
    outer, prefix = (["pmic", "--algo.base", inner], "base_kwargs.") if inner != algorithm else ([inner], "")
    flags = [word for name, value in fields.items() for word in (f"--algo.{prefix}{name}", value)]
    return [*CLIMBING, *(ONE_WRITER if inner == "grpo" else []), "--algo", *outer, *flags, *more]


def mistakes_of(algorithm: str) -> Iterator[tuple[str, list[str], str]]:
    """Each mistake that can be made with an algorithm: what it is, the words, what the message says to do."""
    inner = algorithm.removeprefix(AROUND)
    message = "unknown option --algo.no_such" if inner == algorithm else "Option 'no_such' is not accepted"
    yield "a field that is not there", run_of(algorithm, no_such="1"), message
    yield "individual rewards", run_of(algorithm, *INDIVIDUAL), 'no individual rewards: use reward="team"'
    if inner in ("ippo", "collm"):
        return
    keeps_none = "set team.reference to copy, with LoRA to adapter-off, or leave the KL out (kl_coef 0)"
    yield "KL on full weights", run_of(algorithm, *FULL, kl_coef="0.1"), keeps_none
    yield "KL, no reference", run_of(algorithm, "--team.reference", "none", kl_coef="0.1"), keeps_none
    if inner == "c3":
        yield "one candidate", run_of(algorithm, fan_out="1"), "2 or more at every turn, got 1"
        return
    alone = "algo.group_size 2 or more" if inner == COMA else "Use a larger group, or algo.baseline none"
    yield "a group of one", run_of(algorithm, group_size="1"), alone
    if inner == "igrpo":
        yield (
            "G/N below 2",
            run_of(algorithm, group_size="2"),
            "two members or more each: 2 does not do for 2. Use 4",
        )
        yield (
            "G/N no number",
            run_of(algorithm, group_size="5"),
            "5 does not do for 2. Use 4 or another multiple of 2",
        )
    elif inner != "grpo":
        chain = run_of(algorithm, branching="chain", joint_mode="cross")
        yield "a chain of cross joint actions", chain, "or algo.branching tree"


MISTAKES: dict[str, tuple[list[str], str]] = {
    f"{Path(algorithm).stem}: {what}": (words, message)
    for algorithm in ALGORITHMS
    for what, words, message in mistakes_of(algorithm)
} | {
    "a field that is not there": (
        [*CLIMBING, "--algo", "igrpo", "--algo.partners", "fixed"],
        "unknown option --algo.partners; did you mean '--team.partners' or '--algo.partner'",
    ),
    "a field of another algorithm": (
        [*CLIMBING, "--algo", "c3", "--algo.group_size", "8"],
        "unknown option --algo.group_size",
    ),
    "a value that is no choice": (
        [*CLIMBING, "--algo", "igrpo", "--algo.partner", "resample"],
        "--algo.partner: expected one of resampled, fixed, frozen, aligned, got resample; did you mean 'resampled'",
    ),
    "an algorithm around none": (
        [*CLIMBING, "--algo", "pmic", "--algo.base", "magrop"],
        "unknown algorithm 'magrop'",
    ),
    "a field that the algorithm inside does not have": (
        [*CLIMBING, "--algo", "pmic", "--algo.base", "c3", "--algo.base_kwargs.group_size", "4"],
        "algo.base_kwargs of the base c3: Option 'group_size' is not accepted",
    ),
    "a setting that cannot work of the algorithm inside": (
        [*THREE, "--algo", "pmic", "--algo.base", "igrpo"],
        "Use 6 or another multiple of 3 (algo.base igrpo: its settings are algo.base_kwargs)",
    ),
    "a clipping range that is no number": ([*CLIMBING, "--algo.clip", "nan"], "--algo.clip: expected float"),
    "a list with one candidate": (
        [*CLIMBING, "--algo", "c3", "--algo.fan_out", "[4,1]"],
        "2 or more at every turn, got [4, 1]",
    ),
    "a critic of all on a trunk that reads one": (
        [*CLIMBING, "--algo", "ippo", "--algo.critic", "central", "--algo.critic_trunk", "shared"],
        "set algo.critic_trunk to own, or algo.critic to independent",
    ),
    "a second step without an importance ratio": (
        [*CLIMBING, "--algo", "collm", "--algo.epochs", "2"],
        "algo.epochs and algo.minibatches must be 1, got 2 and 1",
    ),
    "one value for rewards that differ": (
        ["--env", "textmarl/TLDR-v1", *INDIVIDUAL, "--algo", "collm"],
        "cannot foretell the environment's reward individual",
    ),
    "one value for rewards that differ, inside": (
        ["--env", "textmarl/TLDR-v1", *INDIVIDUAL, "--algo", "pmic", "--algo.base", "collm"],
        "set algo.critic to decentralized, or the environment's reward to team (algo.base collm: its settings are "
        "algo.base_kwargs)",
    ),
    "a group that cannot be divided": (
        [*THREE, "--algo", "igrpo"],
        "8 does not do for 3. Use 6 or another multiple of 3",
    ),
    "one member for each agent": (
        [*THREE, "--algo", "igrpo", "--algo.group_size", "3"],
        "two members or more each: 3 does not do for 3. Use 6",
    ),
    "initial partners of full weights": (
        [*CLIMBING, *FULL, "--algo", "igrpo", "--algo.partner", "frozen"],
        "plays with the initial policies and the team keeps none: with full weights set team.reference to copy",
    ),
    "a team for the algorithm of one policy": (
        [*CLIMBING, "--algo", "grpo"],
        "Wrap the environment in the protocol single (env.kwargs.protocol single",
    ),
    "individual rewards of groups that are not sampled together": (
        ["--env", "textmarl/TLDR-v1", *INDIVIDUAL, "--algo", "igrpo"],
        "goes with algo.partner aligned",
    ),
}


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a model fails."""

    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model was asked for")

    for module in (models, team):
        monkeypatch.setattr(module, "load_model", load)


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_before_a_model_is_loaded(
    mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, message = MISTAKES[mistake]
    assert main(["train", *words, "--run", "run"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("run").exists()


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=[Path(name).stem for name in ALGORITHMS])
def test_without_a_mistake_a_model_is_loaded(algorithm: str) -> None:
    with pytest.raises(AssertionError, match="a model was asked for"):
        main(["train", *run_of(algorithm), "--run", "run"])


def test_a_field_in_a_file_that_the_algorithm_does_not_have_is_refused_by_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"env": "textmarl/Climbing-v0", "algo": {"name": "igrpo", "parter": "fixed"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["train", "--config", "run.yaml"]) == 2
    assert "unknown key 'algo.parter'; did you mean 'algo.partner'" in capsys.readouterr().err


def test_fields_are_reached_by_flags_and_files(tmp_path: Path) -> None:
    content = {"env": "textmarl/Climbing-v0", "algo": {"name": "c3", "fan_out": [2, 4], "normalize": "std"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    settings = read_settings(["--config", "run.yaml"])
    assert settings.resolved["algo"]["fan_out"] == [2, 4]
    assert settings.resolved["algo"]["baseline"] == "leave_one_out"
    assert read_settings(["--config", "run.yaml", "--algo.fan_out", "3"]).resolved["algo"]["fan_out"] == 3
    words = [*CLIMBING, "--algo", "igrpo", "--algo.partner", "fixed", "--algo.group_size", "6"]
    algorithm = read_settings(words).algorithm
    assert isinstance(algorithm, IGRPO) and (algorithm.partner, algorithm.group_size) == ("fixed", 6)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (
            "ippo",
            {"gae_lambda": 0.9, "level": "turn", "critic": "central", "target_kl": 0.02, "group_size": 2},
        ),
        ("collm", {"critic": "decentralized", "discount": 0.9, "critic_learning_rate": 0.001}),
    ],
)
def test_an_actor_critic_is_set_and_listed_like_any_other(
    name: str, fields: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {"env": "textmarl/Climbing-v0", "algo": {"name": name, **fields}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    flags = [word for field, value in fields.items() for word in (f"--algo.{field}", str(value))]
    for words in (["--config", "run.yaml"], [*CLIMBING, "--algo", name, *flags]):
        resolved = read_settings(words).resolved["algo"]
        assert {field: resolved[field] for field in fields} == fields
    with pytest.raises(SystemExit):
        main(["train", *CLIMBING, "--algo", name, "--help"])
    shown = capsys.readouterr().out
    assert all(f"--algo.{field}" in shown for field in resolved if field != "name")


def test_an_algorithm_around_another_takes_the_others_settings_by_flags_and_files(tmp_path: Path) -> None:
    inside = {"fan_out": [2, 3], "discount": "9e-1"}
    content = {"env": "textmarl/Climbing-v0", "algo": {"name": "pmic", "base": "c3", "base_kwargs": inside}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    of_file = read_settings(["--config", "run.yaml", "--algo.mode", "min"]).algorithm
    assert isinstance(of_file, PMIC) and of_file.mode == "min"
    assert of_file.wrapped == C3(fan_out=[2, 3], discount=0.9)
    words = [*CLIMBING, "--algo", "pmic", "--algo.base_kwargs.group_size", "6", "--algo.epochs", "2"]
    of_flags = read_settings([*words, "--algo.base_kwargs.clip", "0.3"])
    assert isinstance(of_flags.algorithm, PMIC)
    assert of_flags.algorithm.wrapped == MAGRPO(group_size=6, clip=0.3, epochs=2)
    assert of_flags.resolved["algo"]["base_kwargs"] == {"group_size": 6, "clip": 0.3}


def test_an_algorithm_around_one_from_a_file_finds_it_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "inner.py").write_text(
        "from textmarl.algos import MAGRPO\nclass Inner(MAGRPO): pass\n", "utf-8"
    )
    settings = read_settings([*CLIMBING, "--algo", "pmic", "--algo.base", "inner.py:Inner"])
    assert settings.resolved["algo"]["base"] == f"{tmp_path.resolve() / 'inner.py'}:Inner"
