"""Environments whose agents take turns: who waits, and what counts."""

from __future__ import annotations

import pytest

from textmarl.envs import Outcome, TaskSet, TextEnv, check_env

AGENTS = ["left", "right"]


class Alternating(TextEnv):
    """Both write the word of the task; the right one waits in even turns, the left one in odd ones."""

    possible_agents = AGENTS
    tasks = TaskSet.of(["red", "green", "blue", "grey", "pink"], name="colours")

    @property
    def acting(self) -> list[str]:
        return [agent for agent in self.agents if agent == AGENTS[self.turn % 2]]

    def observe(self, agent: str) -> str:
        return f"{agent}: write {self.task.data['text']}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        return Outcome({"score": sum(self.task.data["text"] in text for text in responses.values()) / 2})


class Simultaneous(Alternating):
    """The same, and nobody waits."""

    acting = TextEnv.acting


def test_an_environment_whose_agents_take_turns_keeps_the_contract() -> None:
    check_env(lambda: Alternating(max_turns=3))


def test_who_waits_reads_nothing_and_has_written_nothing() -> None:
    env = Alternating(max_turns=2)
    observations, _ = env.reset(options={"task": "task/0"})
    assert observations == {"left": "left: write red", "right": ""}
    observations, rewards, *_ = env.step({"left": "red", "right": "red"})
    assert rewards == {"left": 0.5, "right": 0.5}, "only one of the two texts counts"
    assert env.history[0].responses == {"left": "red", "right": ""}
    assert observations == {"left": "", "right": "right: write red"}
    with pytest.raises(ValueError, match=r"one text from each of \['right'\]: missing \['right'\]"):
        env.step({"left": "red"})
    *_, infos = env.step({"right": "red"})
    assert infos["left"]["score"] == 0.5 and env.acting == []


def test_all_agents_act_where_nothing_else_is_said() -> None:
    env = Simultaneous()
    assert env.acting == []
    env.reset(seed=0)
    assert env.acting == env.agents == AGENTS
