"""What the sweep of the games is made of, what it concludes from runs, and that it can be interrupted."""

from __future__ import annotations

import contextlib
import json
import math
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textmarl.algos.algorithm import resolve
from textmarl.benchmarks.games import __main__ as command
from textmarl.benchmarks.games import training
from textmarl.benchmarks.games.plan import GAMES, METHODS, SEEDS, Cell, cells, described
from textmarl.benchmarks.games.plots import save_plots
from textmarl.benchmarks.games.shuffled import Shuffled
from textmarl.benchmarks.games.summary import learns, markdown, references, summarise
from textmarl.benchmarks.games.training import Measuring
from textmarl.benchmarks.statistics import Interval, iqm

CLIMBING, DECOY, RELAY = (
    next(game for game in GAMES if game.env == env) for env in ("Climbing-v0", "Decoy-v0", "Relay-v0")
)


def record(method: str, game: str, seed: int, untrained: float, trained: float) -> dict[str, Any]:
    curve = [
        {"step": step, "reward_evaluations": 100 * step, "generated_tokens": 400 * step, "score": value}
        for step, value in ((0, untrained), (5, trained))
    ]
    return {
        "method": method, "game": game, "seed": seed, "curve": curve, "untrained": untrained, "trained": trained,
        "reward_evaluations": 500, "generated_tokens": 2000, "seconds": 6.0,
    }  # fmt: skip


def runs(method: str, game: str, untrained: list[float], trained: list[float]) -> list[dict[str, Any]]:
    return [
        record(method, game, seed, before, after)
        for seed, (before, after) in enumerate(zip(untrained, trained, strict=True))
    ]


# --- the plan -------------------------------------------------------------------------------------------------------


def test_every_method_meets_every_game_with_five_seeds() -> None:
    plan = cells()
    assert len(set(plan)) == len(plan) == len(METHODS) * len(GAMES) * 5
    assert {cell.seed for cell in plan} == set(SEEDS) == {0, 1, 2, 3, 4}


def test_an_interrupted_sweep_holds_whole_seeds() -> None:
    assert [cell.seed for cell in cells()] == sorted(cell.seed for cell in cells())


def test_every_algorithm_of_the_field_takes_part() -> None:
    assert {method.page for method in METHODS} == {"magrpo", "grpo", "igrpo", "ippo", "collm", "c3", "pmic"}


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_settings_go_together_with_every_game(method: Any, game: Any) -> None:
    env = game.make("train", method.single)
    algorithm = resolve(method.algo)(**method.settings)
    algorithm.validate(env.possible_agents)
    algorithm.validate_learners(env.possible_agents)
    algorithm.validate_environment(env)


@pytest.mark.parametrize("game", GAMES, ids=lambda game: game.name)
def test_methods_spend_the_same_reward_evaluations_on_a_game(game: Any) -> None:
    """No method can come closer to the budget than half a training step of its own."""
    for method in METHODS:
        a_step = method.evaluations(game.make("train", method.single))
        assert abs(method.steps(game) * a_step - game.budget) <= a_step / 2


def test_a_c3_step_costs_its_anchor_and_the_rest_of_every_alternative() -> None:
    c3 = next(method for method in METHODS if method.algo == "c3")
    tasks, n = c3.tasks_per_step, c3.settings["fan_out"]
    # Two deciders in the one turn of Climbing; in Relay one in each of two turns, with two and one turns to play.
    assert c3.evaluations(CLIMBING.make("train")) == tasks * (1 + 2 * (n - 1))
    assert c3.evaluations(RELAY.make("train")) == tasks * (2 + (2 + 1) * (n - 1))


def test_one_policy_has_room_for_every_role_and_what_stands_between_them() -> None:
    grpo = next(method for method in METHODS if method.single)
    team = next(method for method in METHODS if not method.single)
    eight = next(game for game in GAMES if game.kwargs.get("n_agents") == 8).make("train")
    assert grpo.max_new_tokens(eight) == 8 * team.max_new_tokens(eight) + 7


def test_the_described_settings_are_json_without_paths() -> None:
    text = json.dumps(described())
    assert "shuffled.py:Shuffled" in text
    assert str(Path(__file__).resolve().parents[3]) not in text


def test_shuffled_rewards_keep_their_values_and_go_on_as_they_were_after_a_checkpoint() -> None:
    credits = np.arange(16.0)
    control = Shuffled(group_size=16)
    shuffled = control.advantages(credits)
    plain = super(Shuffled, control).advantages(credits)
    assert sorted(shuffled) == pytest.approx(sorted(plain))
    assert shuffled.tolist() != plain.tolist()
    other = Shuffled(group_size=16)
    other.load_state_dict(control.state_dict())
    assert other.advantages(credits).tolist() == control.advantages(credits).tolist()


# --- the summary ----------------------------------------------------------------------------------------------------


def test_a_method_learns_only_with_its_interval_above_uniform_play_and_above_the_untrained_one() -> None:
    untrained = Interval(-3.0, -4.0, -2.0)
    assert learns(Interval(1.0, 0.5, 2.0), untrained, uniform=0.4)
    assert not learns(Interval(1.0, 0.5, 2.0), untrained, uniform=0.5)
    assert not learns(Interval(1.0, 0.5, 2.0), Interval(0.0, -1.0, 0.6), uniform=0.4)
    assert not learns(Interval(1.0, math.nan, math.nan), untrained, uniform=0.0)


def test_a_row_has_the_inter_quartile_mean_of_its_runs_and_what_they_cost() -> None:
    trained = [0.0, 5.0, 6.0, 7.0, 11.0]
    (row,) = summarise(runs("MAGRPO", "Climbing", [-30.0] * 5, trained))["cells"]
    # The lowest and the highest fifth are put aside: (5 + 6 + 7) / 3.
    assert row["trained"]["estimate"] == pytest.approx(6.0)
    assert (row["trained"]["low"], row["trained"]["high"]) == iqm(trained)[1:3]
    assert row["untrained"] == {"estimate": -30.0, "low": -30.0, "high": -30.0}
    assert (row["uniform"], row["optimal"]) == references(CLIMBING)
    assert row["learns"] is True
    assert (row["runs"], row["failed"], row["reward_evaluations"], row["seconds"]) == (5, 0, 500.0, 6.0)


def test_fewer_than_five_seeds_claim_nothing() -> None:
    (row,) = summarise(runs("MAGRPO", "Climbing", [-30.0] * 4, [11.0] * 4))["cells"]
    assert row["learns"] is None
    assert "**" not in markdown({"cells": [row], "methods": []}).partition("Untrained")[0]


def test_over_all_games_uniform_play_is_0_and_optimal_play_1() -> None:
    records = []
    for game in (CLIMBING, DECOY):
        uniform, optimal = references(game)
        records += runs("C3", game.name, [uniform] * 5, [(uniform + optimal) / 2] * 5)
    (row,) = summarise(records)["methods"]
    assert row["normalised"] == pytest.approx({"estimate": 0.5, "low": 0.5, "high": 0.5})
    assert (row["games"], row["seeds"]) == (2, 5)


def test_decoy_is_compared_with_uniform_play_on_the_tasks_that_are_evaluated() -> None:
    """On test, where sign and map never agree: K^-N + d / K with K = 3, N = 2, d = 1/2."""
    assert references(DECOY) == pytest.approx((1 / 9 + 1 / 6, 1.0))


def test_failed_runs_are_shown_and_not_averaged() -> None:
    failed = {"method": "IPPO", "game": "Decoy", "seed": 4, "error": "RuntimeError: no"}
    summary = summarise([*runs("IPPO", "Decoy", [-0.9] * 4, [0.4] * 4), failed])
    assert (summary["cells"][0]["runs"], summary["cells"][0]["failed"]) == (4, 1)
    assert "1 failed" in markdown(summary)
    others = runs("IPPO", "Climbing", [-30.0] * 5, [11.0] * 5)
    (line,) = [
        text
        for text in markdown(
            summarise([*runs("IPPO", "Decoy", [-0.9] * 4, [0.4] * 4), failed, *others])
        ).splitlines()
        if text.startswith("| IPPO")
    ]
    assert line.endswith("| runs are missing |")


def test_every_algorithm_that_has_runs_has_a_picture_for_its_page(tmp_path: Path) -> None:
    records = [
        *runs("IPPO", "Climbing", [-30.0] * 5, [5.0] * 5),
        *runs("MAPPO", "Climbing", [-30.0], [5.0]),
        *runs("C3", "Decoy", [-0.9, -0.8], [0.4, 0.3]),
        {"method": "PMIC", "game": "Decoy", "seed": 0, "error": "RuntimeError: no"},
    ]
    written = save_plots(records, tmp_path)
    assert [path.name for path in written] == ["ippo-games.png", "c3-games.png"]
    assert all(path.stat().st_size > 0 for path in written)


# --- running --------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """Stands in for training: collects what was asked for; MAGRPO on Decoy fails."""
    asked: list[Cell] = []

    def train(cell: Cell, measuring: Measuring) -> dict[str, Any]:
        asked.append(cell)
        if cell.method == "MAGRPO" and cell.game == "Decoy":
            raise RuntimeError("out of luck")
        return record(*cell, -1.0, 1.0)

    monkeypatch.setattr(training, "train", train)
    return asked


def test_a_run_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path, trained: list[Cell]) -> None:
    output = tmp_path / "games.json"
    words = [
        "--methods",
        "MAGRPO",
        "C3",
        "--games",
        "Climbing",
        "Decoy",
        "--seeds",
        "0",
        "1",
        "--workers",
        "1",
        "--output",
    ]
    command.main([*words, str(output)])
    assert len(trained) == 8
    results = json.loads(output.read_text(encoding="utf-8"))
    errors = {(run["method"], run["game"], run["seed"]): run.get("error") for run in results["runs"]}
    assert errors["MAGRPO", "Decoy", 1] == "RuntimeError: out of luck"
    assert sum(error is None for error in errors.values()) == 6
    assert {row["method"] for row in results["summary"]["cells"]} == {"MAGRPO", "C3"}


def test_a_sweep_goes_on_with_the_runs_that_are_missing_or_failed(
    tmp_path: Path, trained: list[Cell]
) -> None:
    output = str(tmp_path / "games.json")
    words = [
        "--methods",
        "MAGRPO",
        "C3",
        "--games",
        "Climbing",
        "Decoy",
        "--workers",
        "1",
        "--output",
        output,
    ]
    command.main([*words, "--seeds", "0"])
    trained.clear()
    command.main([*words, "--seeds", "0", "1", "--resume"])
    assert set(trained) == {
        Cell("MAGRPO", "Decoy", 0),
        *(Cell(method, game, 1) for method in ("MAGRPO", "C3") for game in ("Climbing", "Decoy")),
    }
    runs = json.loads(Path(output).read_text(encoding="utf-8"))["runs"]
    assert len(runs) == len({(run["method"], run["game"], run["seed"]) for run in runs}) == 8


def test_results_of_other_settings_are_not_gone_on_with(
    tmp_path: Path, trained: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--methods",
        "C3",
        "--games",
        "Decoy",
        "--seeds",
        "0",
        "--workers",
        "1",
        "--output",
        str(tmp_path / "r"),
    ]
    command.main(words)
    with pytest.raises(SystemExit):
        command.main([*words, "--resume", "--scale", "0.5"])
    assert "other settings" in capsys.readouterr().err
    results = json.loads((tmp_path / "r").read_text(encoding="utf-8"))
    assert results["machine"]["torch"] == metadata.version("torch")
    for changes, refused in (({"processor": "another"}, False), ({"torch": "1.0"}, True)):
        changed = {**results, "machine": {**results["machine"], **changes}}
        (tmp_path / "r").write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(SystemExit) if refused else contextlib.nullcontext():
            command.main([*words, "--resume"])
    assert "'torch': '1.0'" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(("method", "game"), [("C3", RELAY.name), ("GRPO, one policy", "Chorus, 2 agents")])
def test_a_run_counts_what_it_spent_and_measures_before_and_after(method: str, game: str) -> None:
    measuring = Measuring(episodes=64, points=2, scale=0.05)
    run = training.attempt(Cell(method, game, 7), measuring)
    assert "error" not in run, run
    chosen = next(m for m in METHODS if m.name == method)
    played = next(g for g in GAMES if g.name == game)
    steps = chosen.steps(played, measuring.scale)
    assert run["curve"][0]["step"] == run["curve"][0]["reward_evaluations"] == 0
    assert run["curve"][-1]["step"] == steps
    assert run["reward_evaluations"] == steps * chosen.evaluations(played.make("train", chosen.single))
    assert run["generated_tokens"] > 0
    assert (run["untrained"], run["trained"]) == (run["curve"][0]["score"], run["curve"][-1]["score"])
    uniform, optimal = references(played)
    assert run["untrained"] < uniform < optimal
