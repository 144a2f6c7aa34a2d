"""What a subclass of TextEnv declares is held against what it does: agents, tasks, terms, rewards, metrics, metadata."""

from __future__ import annotations

from typing import Any

import pytest

from textmarl.envs import Outcome, TaskSet, TextEnv

AGENTS = ["left", "right"]


class Silent(TextEnv):
    """Says nothing and pays 1."""

    possible_agents = AGENTS
    tasks = TaskSet.of(["only"])

    def observe(self, agent: str) -> str:
        return ""

    def judge(self, responses: dict[str, str]) -> Outcome:
        return Outcome({"score": 1.0})


def test_an_incomplete_environment_says_what_it_lacks() -> None:
    class NoTasks(Silent):
        tasks = None  # type: ignore[assignment]

    class NoAgents(Silent):
        possible_agents: list[str] = []

    class Twins(Silent):
        possible_agents = ["a", "a"]

    for broken, complaint in ((NoTasks, "`tasks`"), (NoAgents, "`possible_agents`"), (Twins, "twice")):
        with pytest.raises((TypeError, ValueError), match=complaint):
            broken()
    with pytest.raises(TypeError, match=r"observe"):
        TextEnv(TaskSet.of(["x"]))  # type: ignore[abstract]


@pytest.mark.parametrize(
    "outcome, complaint",
    [
        (Outcome({"other": 1.0}), r"terms \['other'\].*term_names = \('score',\)"),
        (Outcome({"score": float("inf")}), "'score' must be a finite number"),
    ],
)
def test_an_outcome_that_breaks_the_declaration_is_refused(outcome: Outcome, complaint: str) -> None:
    class Wrong(Silent):
        def judge(self, responses: dict[str, str]) -> Outcome:
            return outcome

    env = Wrong()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=complaint):
        env.step(dict.fromkeys(AGENTS, "x"))
    assert env.agents == AGENTS


def test_an_observation_that_is_no_text_is_refused() -> None:
    class Wrong(Silent):
        def observe(self, agent: str) -> Any:
            return None

    with pytest.raises(TypeError, match=r"observe\('left'\) must return a str, not NoneType"):
        Wrong().reset(seed=0)


def test_a_missing_individual_reward_is_refused() -> None:
    class Wrong(Silent):
        individual_rewards = True

    env = Wrong()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"declares individual_rewards"):
        env.step(dict.fromkeys(AGENTS, "x"))


def test_metadata_default_to_the_class_name() -> None:
    assert Silent.metadata == {"name": "Silent", "render_modes": ["ansi"], "is_parallelizable": True}
    assert TextEnv.metadata["name"] == "TextEnv"
    assert str(Silent()) == "Silent"


def test_agents_and_terms_may_depend_on_the_arguments() -> None:
    class Many(TextEnv):
        tasks = TaskSet.of(["x"])

        def __init__(self, players: int, **options: Any) -> None:
            self.possible_agents = [f"player_{i}" for i in range(players)]
            self.term_names = tuple(self.possible_agents)
            super().__init__(**options)

        def observe(self, agent: str) -> str:
            return agent

        def judge(self, responses: dict[str, str]) -> Outcome:
            return Outcome({agent: float(len(text)) for agent, text in responses.items()})

    three, five = Many(3), Many(5)
    three.reset(seed=0)
    assert (three.num_agents, five.max_num_agents) == (3, 5)
    _, rewards, _, _, infos = three.step({"player_0": "a", "player_1": "bb", "player_2": ""})
    assert rewards == dict.fromkeys(three.possible_agents, 3.0)
    assert infos["player_2"]["reward_terms"] == {"player_0": 1.0, "player_1": 2.0, "player_2": 0.0}


def test_metrics_beside_the_score_are_reported_but_not_paid() -> None:
    class Measured(Silent):
        metric_names = ("characters",)

        def judge(self, responses: dict[str, str]) -> Outcome:
            return Outcome({"score": 1.0}, metrics={"characters": len(responses["left"])})

    env = Measured()
    _, infos = env.reset(seed=0)
    assert infos["left"]["metrics"] == {"characters": 0.0}
    _, rewards, _, _, infos = env.step(dict.fromkeys(AGENTS, "four"))
    assert infos["left"]["metrics"] == {"characters": 4.0}
    assert rewards["left"] == infos["left"]["score"] == 1.0

    class Undeclared(Measured):
        metric_names = ()

    env = Undeclared()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="metric_names"):
        env.step(dict.fromkeys(AGENTS, "four"))
    assert env.turn == 0, "a step that fails leaves the episode as it was"

    class Misnamed(Measured):
        success_metric = "solved"

    with pytest.raises(ValueError, match="success_metric 'solved' is not one of \\('characters',\\)"):
        Misnamed()


class Shared(Silent):
    """Has a reward for each agent."""

    individual_rewards = True


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"max_turns": 0}, "max_turns must be an integer of at least 1, not 0"),
        ({"max_turns": True}, "max_turns must be an integer"),
        ({"max_turns": 2.0}, "max_turns must be an integer"),
        ({"max_turns": 2, "max_cycles": 3}, "mean the same"),
        ({"reward": "shared"}, "'shared'"),
        ({"reward": "individual", "reward_fn": len}, 'use it with reward="team"'),
        ({"reward_shift": float("nan")}, "reward_shift must be a finite number"),
        ({"max_score": 0}, "max_score must be positive"),
        ({"render_mode": "human"}, 'render_mode must be "ansi" or None'),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Shared(**options)


def test_unknown_options_of_the_constructor_are_refused() -> None:
    with pytest.raises(TypeError, match=r"colour"):
        Silent(colour="red")


def test_individual_rewards_are_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match=r"Silent defines no individual rewards"):
        Silent(reward="individual")
