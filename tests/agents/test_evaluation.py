from __future__ import annotations

import copy
import json
import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from pettingzoo import ParallelEnv

from textmarl.agents import Conversation, Evaluation, Response, ScriptedAgent, evaluate
from textmarl.envs.core import Outcome, TextEnv
from textmarl.envs.protocols import Pipeline
from textmarl.envs.spaces import UnicodeText
from textmarl.envs.tasks import TaskSet

TASKS = TaskSet.of([{"id": letter, "text": letter} for letter in "abcde"])


class Count(TextEnv):
    """Each agent scores for every letter of the task in its text; ends early when somebody says "stop"."""

    possible_agents = ["left", "right"]
    term_names = ("left", "right")
    individual_rewards = True

    def __init__(self, max_turns: int = 1) -> None:
        super().__init__(TASKS, max_turns=max_turns, max_score=4.0, reward_shift=-1.0)

    def observe(self, agent: str) -> str:
        return f"{agent} {self.task.data['text']} {self.turn}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        terms = {agent: float(text.count(self.task.data["text"])) for agent, text in responses.items()}
        return Outcome(terms, individual=terms, finished="stop" in responses.values())


class Recorder:
    """Repeats the task's letter and keeps what it was asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.seen: list[Conversation] = []

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        self.batches.append(len(conversations))
        self.seen += copy.deepcopy(list(conversations))
        return [
            Response(c[-1]["content"].split()[1], token_ids=[1, 2], finish="length") for c in conversations
        ]


def test_numbers_may_be_numpys() -> None:
    agents = {"left": lambda text: "a", "right": lambda text: "b"}
    plain = evaluate(Count(), agents, tasks=2, samples=2, seed=3)
    assert evaluate(Count(), agents, tasks=np.int64(2), samples=np.int64(2), seed=np.int64(3)) == plain
    assert evaluate(Count(), agents, tasks=np.array([0, 1]), samples=2, seed=3) == plain
    with pytest.raises(ValueError, match="tasks=0: expected at least 1"):
        evaluate(Count(), agents, tasks=np.int64(0))
    with pytest.raises(TypeError, match=r"samples=2\.0: expected an integer"):
        evaluate(Count(), agents, samples=2.0)  # type: ignore[arg-type]


def test_score_terms_and_percent_are_those_of_the_environment() -> None:
    # left says "aa", right says "a": on task a the terms are 2 and 1, on the others 0.
    result = evaluate(Count(), {"left": lambda text: "aa", "right": lambda text: "a"}, tasks=["a", "b"])
    assert [episode.score for episode in result.episodes] == [3.0, 0.0]  # unshifted
    assert result.score == 1.5 and result.percent == 100 * 1.5 / 4
    assert result.terms == {"left": 1.0, "right": 0.5}
    assert result.per_task() == {"a": 3.0, "b": 0.0}
    assert result.per_task("left") == {"a": 2.0, "b": 0.0}
    assert result.episodes[0].individual_reward == {"left": 2.0, "right": 1.0}
    assert result.env_name == "Count" and result.max_score == 4.0


def test_the_score_of_an_episode_is_that_of_its_last_turn() -> None:
    agents = {"left": ScriptedAgent(["aa", "a"]), "right": ScriptedAgent("")}
    result = evaluate(Count(max_turns=2), agents, tasks=["a"])
    assert result.score == 1.0 and len(result.episodes[0].turns) == 2


def test_conversations_grow_by_observation_and_response() -> None:
    recorder = Recorder()
    result = evaluate(Count(max_turns=2), {"left": recorder, "right": ScriptedAgent("x")}, tasks=["b"])
    assert recorder.seen[1] == [
        {"role": "user", "content": "left b 0"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "left b 1"},
    ]
    assert result.episodes[0].turns[1] == {
        "left": {"observation": "left b 1", "response": "b", "tokens": 2, "finish": "length"},
        "right": {"observation": "right b 1", "response": "x", "tokens": 0, "finish": "stop"},
    }


def test_batches_hold_at_most_batch_size_and_the_last_one_is_partial() -> None:
    recorder = Recorder()
    evaluate(Count(), {"left": recorder, "right": ScriptedAgent("x")}, samples=2, batch_size=4)
    assert recorder.batches == [4, 4, 2]


def test_finished_episodes_leave_the_batch() -> None:
    recorder = Recorder()

    def stops_on_a(text: str) -> str:
        return "stop" if " a " in text else "go"

    result = evaluate(Count(max_turns=3), {"left": recorder, "right": stops_on_a}, tasks=["a", "b", "c"])
    assert recorder.batches == [3, 2, 2]
    assert [len(episode.turns) for episode in result.episodes] == [1, 3, 3]


def test_episodes_come_by_task_and_sample_whatever_the_batch_size() -> None:
    agents = {"left": Recorder(), "right": ScriptedAgent("x")}
    results = [evaluate(Count(2), agents, tasks=[1, "d"], samples=2, batch_size=size) for size in (1, 3, 64)]
    assert [(e.task_id, e.sample) for e in results[0].episodes] == [("b", 0), ("b", 1), ("d", 0), ("d", 1)]
    assert results[0] == results[1] == results[2]


def test_a_number_of_tasks_means_the_first_ones() -> None:
    agents = {"left": ScriptedAgent("x"), "right": ScriptedAgent("x")}
    assert list(evaluate(Count(), agents, tasks=2).per_task()) == ["a", "b"]
    assert list(evaluate(Count(), agents, tasks=99).per_task()) == list("abcde")
    assert list(evaluate(Count(), agents).per_task()) == list("abcde")


def test_progress_counts_finished_episodes() -> None:
    calls: list[tuple[int, int]] = []
    agents = {"left": ScriptedAgent("x"), "right": ScriptedAgent("x")}
    evaluate(Count(2), agents, batch_size=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_the_environment_handed_over_is_left_as_it_was() -> None:
    env = Count(2)
    env.reset(seed=1, options={"task": "e"})
    env.step({"left": "e", "right": "e"})
    before = env.state()
    evaluate(env, {"left": ScriptedAgent("x"), "right": ScriptedAgent("x")})
    assert env.state() == before


class Coin(ParallelEnv):
    """A plain PettingZoo environment without tasks: guess a seeded coin; `late` leaves after the first turn."""

    metadata = {"name": "coin"}

    def __init__(self) -> None:
        self.possible_agents = ["early", "late"]
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gymnasium.Space:
        return UnicodeText()

    def action_space(self, agent: str) -> gymnasium.Space:
        return UnicodeText()

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        self.coin = str(np.random.default_rng(seed).integers(2))
        self.agents = list(self.possible_agents)
        return dict.fromkeys(self.agents, self.coin), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, str]) -> Any:
        acting = self.agents
        assert list(actions) == acting
        rewards = {agent: float(actions[agent] == self.coin) for agent in acting}
        self.agents = ["early"] if len(acting) == 2 else []
        ended = {agent: agent not in self.agents for agent in acting}
        return (
            dict.fromkeys(acting, self.coin),
            rewards,
            ended,
            dict.fromkeys(acting, False),
            {agent: {} for agent in acting},
        )


def test_any_parallel_environment_of_texts_can_be_played() -> None:
    agents = {"early": lambda text: text[-1], "late": lambda text: "no"}
    result = evaluate(Coin(), agents, tasks=6, seed=3)
    # turn 1: mean of 1 and 0; turn 2: only `early`, right again
    assert [episode.score for episode in result.episodes] == [1.5] * 6
    assert [set(turn) for turn in result.episodes[0].turns] == [{"early", "late"}, {"early"}]
    assert result.max_score is None and math.isnan(result.percent) and result.terms == {}
    assert [episode.task_id for episode in result.episodes][:2] == ["episode-0", "episode-1"]


def coins(**kwargs: Any) -> list[str]:
    agents = {"early": ScriptedAgent("x"), "late": ScriptedAgent("x")}
    return [
        episode.turns[0]["early"]["observation"] for episode in evaluate(Coin(), agents, **kwargs).episodes
    ]


def test_episode_seeds_are_derived_from_the_seed_and_the_sample() -> None:
    drawn = coins(samples=24, seed=1)
    assert set(drawn) == {"0", "1"}
    assert drawn == coins(samples=24, seed=1, batch_size=5)
    assert drawn != coins(samples=24, seed=2)
    assert drawn[:5] == coins(samples=5, seed=1)


def test_observations_that_are_no_text_are_refused() -> None:
    class Numbers(Coin):
        def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
            observations, infos = super().reset(seed)
            return dict.fromkeys(observations, 3), infos

    with pytest.raises(TypeError, match="observation of agent 'early' is int, expected a str"):
        evaluate(Numbers(), {"early": ScriptedAgent("x"), "late": ScriptedAgent("x")})


def test_any_text_survives_json_and_jsonl(tmp_path: Path) -> None:
    odd = "lone \ud800 surrogate, NUL \0, \u2028, escape \x1b[31m, emoji \U0001f600, \r\n"
    result = evaluate(Count(), {"left": ScriptedAgent(odd), "right": ScriptedAgent("")}, tasks=2)
    restored = Evaluation.from_json(json.loads(json.dumps({"step": 3, **result.to_json()})))
    assert restored == result
    assert restored.episodes[0].turns[0]["left"]["response"] == odd

    result.write_jsonl(tmp_path / "episodes.jsonl")
    lines = (tmp_path / "episodes.jsonl").read_text(encoding="ascii").splitlines()
    assert [json.loads(line) for line in lines] == result.to_json()["episodes"]


def test_the_mean_of_no_episodes_is_not_a_number() -> None:
    assert math.isnan(Evaluation("empty", 1.0).score)


SEATED = {"left": ScriptedAgent("x"), "right": ScriptedAgent("x")}


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ({"left": ScriptedAgent("x")}, r"no agent for \['right'\]"),
        ({**SEATED, "rigth": ScriptedAgent("x")}, "no seat is called 'rigth' \\(did you mean 'right'"),
        ({**SEATED, "zzz": ScriptedAgent("x")}, r"no seat is called 'zzz'; this environment's agents are"),
    ],
)
def test_agents_must_fit_the_seats(agents: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(Count(), agents)


def test_agents_must_be_given_by_seat() -> None:
    with pytest.raises(TypeError, match="expected a dict with one agent for each"):
        evaluate(Count(), [ScriptedAgent("x")] * 2)  # type: ignore[arg-type]


class Fixed:
    def __init__(self, responses: Any) -> None:
        self.responses = responses

    def act(self, conversations: Sequence[Conversation]) -> Any:
        return self.responses


@pytest.mark.parametrize(
    ("responses", "error", "message"),
    [
        ([Response("x")], ValueError, "agent 'right' returned 1 responses to 2 conversations"),
        ([Response("x")] * 3, ValueError, "returned 3 responses to 2"),
        (["x", "y"], TypeError, "returned str, expected Response"),
        ([Response("x"), Response(None)], TypeError, "returned a text of type NoneType"),  # type: ignore[arg-type]
        ("xy", TypeError, "returned str, expected a list of 2"),
        (None, TypeError, "returned NoneType, expected a list of 2"),
    ],
)
def test_wrong_responses_are_refused_by_name(responses: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(Count(), {"left": ScriptedAgent("x"), "right": Fixed(responses)}, tasks=2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"samples": 0}, ValueError, "samples=0: expected at least 1"),
        ({"batch_size": 0}, ValueError, "batch_size=0"),
        ({"tasks": 0}, ValueError, "tasks=0"),
        ({"tasks": []}, ValueError, "no tasks"),
        ({"tasks": ["a", 0]}, ValueError, "'a' twice"),
        ({"tasks": ["z"]}, LookupError, "'z'"),
        ({"tasks": [7]}, LookupError, "7"),
        ({"tasks": "a"}, TypeError, "expected a list"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(Count(), SEATED, **arguments)


def test_an_environment_without_tasks_has_no_task_ids() -> None:
    with pytest.raises(ValueError, match="no task set"):
        evaluate(Coin(), {"early": ScriptedAgent("x"), "late": ScriptedAgent("x")}, tasks=["a"])


def test_agents_that_wait_are_not_asked() -> None:
    left, right = Recorder(), Recorder()
    result = evaluate(Pipeline(Count(max_turns=2)), {"left": left, "right": right}, tasks=["a", "b"])
    assert [[m["content"] for m in c] for c in left.seen] == [
        ["left a 0"],
        ["left b 0"],
        ["left a 0", "a", "left a 1"],
        ["left b 0", "b", "left b 1"],
    ]
    assert right.seen[1][-1]["content"] == "right b 0\n\nleft wrote:\nb"
    assert left.batches == right.batches == [2, 2]
    assert [list(turn) for turn in result.episodes[0].turns] == [["left"], ["right"]] * 2
    assert result.env_name == "Count (pipeline)"
    assert [episode.score for episode in result.episodes] == [2.0, 2.0], "the score is the last turn's"


def test_rewards_are_computed_at_once_where_the_environment_waits_for_something_else() -> None:
    class Meeting(Count):
        concurrency = len(TASKS)
        barrier = threading.Barrier(len(TASKS), timeout=20)

        def judge(self, responses: dict[str, str]) -> Outcome:
            self.barrier.wait()  # hangs unless all episodes are judged at the same time
            return super().judge(responses)

    result = evaluate(Meeting(), {"left": lambda text: text, "right": ScriptedAgent("none")})
    plain = evaluate(Count(), {"left": lambda text: text, "right": ScriptedAgent("none")})
    assert [episode.score for episode in result.episodes] == [episode.score for episode in plain.episodes]


def test_an_environment_that_raises_costs_no_other_episode_its_record(tmp_path: Path) -> None:
    class Broken(Count):
        def judge(self, responses: dict[str, str]) -> Outcome:
            if self.task.id == "b":
                raise OSError("the judge is away")
            return super().judge(responses)

    agents = {"left": ScriptedAgent("x"), "right": ScriptedAgent("y")}
    with pytest.raises(OSError, match="the judge is away") as caught:
        evaluate(Broken(), agents, output=tmp_path / "out")
    assert caught.value.__notes__ == ["in episode 1 of 5 (task 'b')"]
    recorded = (tmp_path / "out" / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["task_id"] for line in recorded] == ["a", "c", "d", "e"]


class RaisesOn:
    """Answers by the batch, and raises if a conversation of the batch is about `letter`."""

    def __init__(self, letter: str) -> None:
        self.letter = letter

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        letters = [conversation[-1]["content"].split()[1] for conversation in conversations]
        if self.letter in letters:
            raise RecursionError(f"no idea about {self.letter}")
        return [Response(letter) for letter in letters]


class SubmitRaisesOn(RaisesOn):
    """Answers each on its own, and raises when it is asked about `letter`, or when the answer is awaited."""

    def __init__(self, letter: str, at_once: bool) -> None:
        super().__init__(letter)
        self.at_once = at_once

    def submit(self, conversation: Conversation, seed: int) -> Future[Response]:
        answer: Future[Response] = Future()
        try:
            answer.set_result(self.act([conversation])[0])
        except RecursionError as error:
            if self.at_once:
                raise
            answer.set_exception(error)
        return answer


def raises_on_b(text: str) -> str:
    return RaisesOn("b").act([[{"role": "user", "content": text}]])[0].text


@pytest.mark.parametrize(
    "agent",
    [RaisesOn("b"), SubmitRaisesOn("b", at_once=True), SubmitRaisesOn("b", at_once=False), raises_on_b],
    ids=["batch", "submit", "future", "function"],
)
def test_an_agent_that_raises_costs_what_it_was_asked_for_if_wanted(agent: Any) -> None:
    agents = {"left": agent, "right": lambda text: "x"}
    with pytest.raises(RecursionError, match="no idea about b"):
        evaluate(Count(), agents)
    result = evaluate(Count(), agents, on_error="fail", batch_size=3)
    assert [episode.task_id for episode in result.episodes] == list("acde")
    (failure,) = result.failures
    assert (failure.task_id, failure.agent) == ("b", "left")
    assert failure.error == "RecursionError: no idea about b"


def test_a_function_is_asked_once_even_where_it_raises() -> None:
    asked: list[str] = []

    def moody(text: str) -> str:
        asked.append(text.split()[1])
        return raises_on_b(text)

    evaluate(Count(), {"left": moody, "right": lambda text: "x"}, on_error="fail")
    assert asked == list("abcde")


def test_what_is_no_response_can_cost_its_episode_alone() -> None:
    agents = {"left": lambda text: None if " c " in text else "x", "right": lambda text: "x"}
    result = evaluate(Count(), agents, on_error="fail")  # type: ignore[arg-type]
    assert [failure.task_id for failure in result.failures] == ["c"]
    assert "returned NoneType, expected a str" in result.failures[0].error


def test_on_error_has_two_values() -> None:
    with pytest.raises(ValueError, match='on_error=\'skip\': expected "raise" or "fail"'):
        evaluate(Count(), {"left": raises_on_b, "right": raises_on_b}, on_error="skip")  # type: ignore[arg-type]


def test_queued_answers_are_asked_for_episode_by_episode() -> None:
    asked: list[str] = []

    class Queued:
        def act(self, conversations: Any) -> list[Response]:
            raise AssertionError("asked one by one")

        def submit(self, conversation: Conversation, seed: int) -> Future[Response]:
            asked.append(conversation[-1]["content"])
            answer: Future[Response] = Future()
            answer.set_result(Response("text"))
            return answer

    evaluate(Count(), {"left": Queued(), "right": Queued()}, tasks=2)
    assert asked == ["left a 0", "right a 0", "left b 0", "right b 0"]
