"""Pipeline, discussion and single: who acts when, who reads what, and what is paid."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import pettingzoo
import pytest
from pettingzoo import ParallelEnv
from pettingzoo.test import parallel_api_test
from pettingzoo.utils import BaseParallelWrapper

import textmarl.envs  # noqa: F401  (registers the environments)
from textmarl.envs import Outcome, TaskSet, TextEnv, UnicodeText
from textmarl.envs.protocols import Discussion, Pipeline, Single, wrap

AGENTS = ["a", "b", "c"]


class Words(TextEnv):
    """Scores the words that all three write together, over two turns; each agent's own are its individual reward."""

    possible_agents = AGENTS
    tasks = TaskSet.of(["one", "two"])
    max_score = 100.0
    individual_rewards = True

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"max_turns": 2, **options})
        self.fails = False

    def observe(self, agent: str) -> str:
        return f"{agent}: {self.task.data['text']}, turn {self.turn}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        if self.fails:
            raise OSError("the judge is away")
        words = {agent: float(len(text.split())) for agent, text in responses.items()}
        return Outcome(
            {"score": sum(words.values())}, individual=words, finished="stop" in responses.values()
        )


class Leaving(ParallelEnv):
    """Not of textmarl: two agents, no tasks, no infos; "y" leaves after the first of two steps. Texts are limited."""

    metadata = {"name": "leaving"}
    possible_agents = ["x", "y"]

    def __init__(self) -> None:
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Text(20)

    action_space = observation_space

    def reset(self, seed: Any = None, options: Any = None) -> Any:
        self.agents = ["x", "y"]
        return {"x": "hello x", "y": "hello y"}, {}

    def step(self, actions: dict[str, str]) -> Any:
        agents = self.agents
        self.agents = ["x"] if agents == ["x", "y"] else []
        gone = {agent: agent not in self.agents for agent in agents}
        rewards = {agent: float(len(actions[agent])) for agent in agents}
        return dict.fromkeys(agents, "on"), rewards, gone, dict.fromkeys(agents, False), {}

    def render(self) -> str:
        return "leaving"


def everybody(text: str) -> dict[str, str]:
    return dict.fromkeys(AGENTS, text)


# --------------------------------------------------------------------------------------------------------- refusals


class Secretive(Words):
    """Says which protocols it cannot have, and what to think of under another one."""

    refused_protocols = {"pipeline": "nobody may read."}
    protocol_warnings = {"single": "one agent does it all."}


def test_an_environment_refuses_protocols_and_warns_of_others_with_its_reason() -> None:
    with pytest.raises(
        ValueError, match="Secretive cannot be played under the protocol 'pipeline': nobody may"
    ):
        Pipeline(Secretive())
    with pytest.warns(
        UserWarning, match="Secretive under the protocol 'single': one agent does it all"
    ) as caught:
        Single(Secretive())
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Discussion(Secretive())


@pytest.mark.parametrize("outer", ["pipeline", "discussion", "single"])
@pytest.mark.parametrize("inner", ["pipeline", "discussion", "single"])
def test_an_environment_with_a_protocol_is_refused(inner: Any, outer: Any) -> None:
    wrapped = wrap(Words(), inner)
    for env in (wrapped, BaseParallelWrapper(wrapped)):
        with pytest.raises(ValueError, match=f"has the protocol '{inner}' already.*wrap Words itself"):
            wrap(env, outer)


# --------------------------------------------------------------------------------------------------------- pipeline


def test_in_a_pipeline_each_agent_reads_the_texts_before_it_and_nothing_after() -> None:
    env = Pipeline(Words(), order=["c", "a", "b"])
    observations, _ = env.reset(options={"task": 0})
    assert env.acting == ["c"]
    assert observations == {"a": "", "b": "", "c": "c: one, turn 0"}
    observations, *_ = env.step({"c": "first\x00"})
    assert env.acting == ["a"]
    assert observations == {"a": "a: one, turn 0\n\nc wrote:\nfirst\x00", "b": "", "c": ""}
    observations, *_ = env.step({"a": "second"})
    assert observations["b"] == "b: one, turn 0\n\nc wrote:\nfirst\x00\n\na wrote:\nsecond"
    observations, *_ = env.step({"b": "third"})
    assert observations == {"a": "", "b": "", "c": "c: one, turn 1"}, "the next turn begins from nothing"


def test_a_pipeline_hands_on_what_each_agent_wrote_at_its_own_stage() -> None:
    env = Pipeline(Words())
    env.reset(options={"task": 0})
    for stage in range(3):
        env.step({agent: f"{agent} at {stage}" for agent in AGENTS})  # whoever waits is not heard
    assert env.history[0].responses == {"a": "a at 0", "b": "b at 1", "c": "c at 2"}
    assert env.env.turn == 1


@pytest.mark.parametrize("order", [["a", "b"], ["a", "b", "b"], ["a", "b", "c", "d"], "abc"])
def test_an_order_that_is_not_of_all_agents_is_refused(order: Any) -> None:
    with pytest.raises(ValueError, match="order must name each of"):
        Pipeline(Words(), order=order)


# ------------------------------------------------------------------------------------------------------- discussion


def test_in_a_discussion_all_read_what_the_others_said_before_they_answer() -> None:
    env = Discussion(Words(), rounds=2, talk_request="talk {round}/{rounds}", answer_request="answer")
    observations, _ = env.reset(options={"task": 1})
    assert env.acting == AGENTS
    assert observations["a"] == "a: two, turn 0\n\ntalk 1/2"
    observations, *_ = env.step({agent: f"{agent} says 1" for agent in AGENTS})
    assert observations["b"] == "a wrote:\na says 1\n\nc wrote:\nc says 1\n\ntalk 2/2"
    observations, *_ = env.step({agent: f"{agent} says 2" for agent in AGENTS})
    assert observations["c"] == "a wrote:\na says 2\n\nb wrote:\nb says 2\n\nanswer"
    observations, rewards, *_ = env.step(everybody("final answer"))
    assert env.history[0].responses == everybody("final answer")
    assert rewards == dict.fromkeys(AGENTS, 6.0)
    assert observations["a"] == "a: two, turn 1\n\ntalk 1/2"


@pytest.mark.parametrize("rounds", [0, -1, 1.5, True, "2"])
def test_a_number_of_rounds_that_makes_no_sense_is_refused(rounds: Any) -> None:
    with pytest.raises(ValueError, match="rounds must be an integer of at least 1"):
        Discussion(Words(), rounds=rounds)


# -------------------------------------------------------------------------------------------- rewards, infos, ends


@pytest.mark.parametrize("protocol, stages", [("pipeline", 3), ({"name": "discussion", "rounds": 3}, 4)])
def test_rewards_shift_and_infos_change_only_where_the_environment_is_stepped(
    protocol: Any, stages: int
) -> None:
    inner = Words(reward_shift=-10.0)
    env = wrap(inner, protocol)
    assert env.max_turns == 2 * stages
    _, infos = env.reset(options={"task": 0})
    zero = {
        "task_id": "task/0", "turn": 0, "score": 0.0, "reward_terms": {"score": 0.0}, "individual_reward": 0.0
    }  # fmt: skip
    assert infos["b"] == {**zero, "stage": 0}
    steps = 0
    for turn in (1, 2):
        scored = infos["b"]
        for stage in range(1, stages):
            _, rewards, terminations, truncations, infos = env.step(everybody("two words"))
            steps += 1
            assert rewards == dict.fromkeys(AGENTS, 0.0)
            assert infos["b"] == {**scored, "stage": stage}
            assert not any(terminations.values()) and not any(truncations.values())
        observations, rewards, terminations, _, infos = env.step(everybody("two words"))
        steps += 1
        assert rewards == dict.fromkeys(AGENTS, 6.0 - 10.0)
        assert (infos["b"]["turn"], infos["b"]["score"], infos["b"]["individual_reward"]) == (turn, 6.0, 2.0)
        assert infos["b"]["stage"] == 0
        assert terminations == dict.fromkeys(AGENTS, turn == 2)
    assert steps == env.max_turns
    assert (env.agents, env.acting, observations) == ([], [], everybody(""))
    with pytest.raises(RuntimeError, match="call reset"):
        env.step(everybody("more"))


def test_individual_rewards_reach_their_agents() -> None:
    env = Pipeline(Words(reward="individual"))
    env.reset(options={"task": 0})
    env.step({"a": "1"})
    env.step({"b": "1 2"})
    assert env.step({"c": "1 2 3"})[1] == {"a": 1.0, "b": 2.0, "c": 3.0}


def test_an_early_end_of_the_environment_ends_the_episode() -> None:
    env = Discussion(Words())
    env.reset(options={"task": 0})
    env.step(everybody("stop"))
    assert env.agents == AGENTS, "talk does not end anything"
    assert env.step(everybody("stop"))[2] == dict.fromkeys(AGENTS, True)
    assert env.agents == []


def test_infos_handed_out_at_different_stages_share_nothing() -> None:
    env = Discussion(Words())
    _, infos = env.reset(options={"task": 0})
    infos["a"]["reward_terms"]["score"] = 99.0
    *_, infos = env.step(everybody("x"))
    assert infos["a"]["reward_terms"] == {"score": 0.0}


@pytest.mark.parametrize("protocol", ["pipeline", "discussion"])
def test_agents_that_leave_a_foreign_environment_are_not_waited_for(protocol: Any) -> None:
    env = wrap(Leaving(), protocol)
    env.reset()
    env.step({"x": "hi", "y": "talk"} if protocol == "discussion" else {"x": "hi"})
    observations, rewards, terminations, _, infos = env.step(
        {"x": "hi", "y": "bye"} if protocol == "discussion" else {"y": "bye"}
    )
    assert rewards == {"x": 2.0, "y": 3.0}
    assert terminations == {"x": False, "y": True}
    assert observations["y"] == "on", "the last observation of an agent is the environment's"
    assert infos == {"x": {"stage": 0}, "y": {"stage": 0}}
    assert env.agents == env.acting == ["x"]
    while env.agents:
        _, rewards, *_ = env.step({"x": "alone"})
    assert rewards == {"x": 5.0}
    parallel_api_test(wrap(Leaving(), protocol), num_cycles=10)


# ------------------------------------------------------------------------------------------------ the contract


PROTOCOLS: list[Any] = ["pipeline", {"name": "discussion", "rounds": 2}, "single"]


def texts(env: Any, number: int) -> dict[str, str]:
    return {agent: f"{agent} {'word ' * number}" for agent in env.agents}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_copy_made_at_any_stage_continues_alone(protocol: Any, copier: Callable[[Any], Any]) -> None:
    env = wrap(Words(), protocol)
    env.reset(seed=3)
    step = 0
    while env.agents:
        twin = copier(env)
        state = env.state()
        assert twin.state() == state and twin.render() == env.render()
        ahead = twin.step(texts(twin, step))
        assert env.state() == state, "playing the copy must not touch the original"
        assert env.step(texts(env, step)) == ahead
        step += 1
    assert env.reset() == twin.reset()


def test_copies_share_tasks_with_the_original() -> None:
    env = Pipeline(Words())
    assert copy.deepcopy(env).tasks is env.tasks


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_wrong_actions_are_refused_and_leave_the_episode_as_it_was(protocol: Any) -> None:
    env = wrap(Words(), protocol)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step({})
    env.reset(options={"task": 0})
    first = env.acting[0]
    state = env.state()
    for error, actions in (
        (TypeError, ["text"]),
        (TypeError, {**everybody_of(env), first: b"bytes"}),
        (ValueError, {}),
        (ValueError, {**everybody_of(env), "nobody": "text"}),
    ):
        with pytest.raises(error):
            env.step(actions)
        assert env.state() == state
    with pytest.raises(LookupError):
        env.reset(options={"task": "none"})
    assert env.state() == state


def everybody_of(env: Any) -> dict[str, str]:
    return dict.fromkeys(env.agents, "text")


@pytest.mark.parametrize("protocol, stages", zip(PROTOCOLS, (3, 3, 1), strict=True))
def test_a_judge_that_fails_leaves_what_was_said(protocol: Any, stages: int) -> None:
    env = wrap(Words(), protocol)
    env.reset(options={"task": 0})
    for stage in range(stages - 1):
        env.step(texts(env, stage))
    state, twin = env.state(), copy.deepcopy(env)
    env.env.fails = True
    with pytest.raises(OSError):
        env.step(texts(env, 5))
    assert env.state() == state
    env.env.fails = False
    assert env.step(texts(env, 5)) == twin.step(texts(twin, 5))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["TLDR-v0", "Penalty-v0"])
def test_pettingzoos_test_passes_around_environments_of_the_package(name: str, protocol: Any) -> None:
    env = wrap(pettingzoo.make("parallel", f"textmarl/{name}"), protocol)
    with pytest.warns(UserWarning):  # about spaces that are neither Box nor Discrete
        parallel_api_test(env, num_cycles=30)
    assert env.metadata["name"].startswith(f"{name} (")
    assert env.tasks is env.unwrapped.tasks and env.max_score == env.unwrapped.max_score
    assert env.observation_space(env.possible_agents[0]) == UnicodeText()


def test_the_transcript_holds_the_talk_and_the_running_turn() -> None:
    env = Discussion(Words())
    env.reset(options={"task": 0})
    env.step(everybody("EARLIER TALK"))
    env.step(everybody("ANSWER"))
    env.step(everybody("\x1bTALK NOW"))
    text = env.render()
    assert (
        "turn 1, stage 1 | a writes\nEARLIER TALK" in text
        and "turn 2, stage 1 | b writes\n\\x1bTALK NOW" in text
    )
    assert text.index("ANSWER") < text.index("EARLIER TALK")
    assert json.loads(env.state())["said"] == [everybody("\x1bTALK NOW")]


def test_environments_of_other_things_than_texts_are_refused() -> None:
    class Numbers(Leaving):
        def action_space(self, agent: str) -> gymnasium.Space:
            return gymnasium.spaces.Discrete(3)

    with pytest.raises(TypeError, match=r"wraps environments of texts, but 'x' .* Discrete\(3\)"):
        Pipeline(Numbers())
    with pytest.raises(ValueError, match='must be "pipeline", "discussion" or "single", not \'talk\''):
        wrap(Words(), "talk")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- single


def test_one_agent_reads_all_roles_and_writes_their_texts() -> None:
    env = Single(Words())
    observations, infos = env.reset(options={"task": 0})
    assert env.agents == env.possible_agents == ["agent"]
    assert observations["agent"].startswith("You write the texts of 3 roles: a, b, c.")
    assert "[NEXT]" in observations["agent"]
    assert observations["agent"].endswith(
        "Role a:\na: one, turn 0\n\nRole b:\nb: one, turn 0\n\nRole c:\nc: one, turn 0"
    )
    assert infos["agent"]["metrics"] == {"well_formed": 0.0} and env.metric_names == ("well_formed",)
    observations, rewards, _, _, infos = env.step({"agent": "1 [NEXT]\n1 2\n[NEXT] 1 2 3"})
    assert env.history[0].responses == {"a": "1", "b": "1 2", "c": "1 2 3"}
    assert rewards == {"agent": 6.0}
    assert (infos["agent"]["score"], infos["agent"]["individual_reward"]) == (6.0, 2.0)
    assert infos["agent"]["metrics"] == {"well_formed": 1.0}
    assert observations["agent"].startswith("Role a:\na: one, turn 1"), "the instruction is given once"


@pytest.mark.parametrize(
    "text, parts",
    [
        ("", ["", "", ""]),
        ("no delimiter", ["no delimiter", "", ""]),
        ("x[NEXT]y", ["x", "y", ""]),
        ("[NEXT][NEXT]z", ["", "", "z"]),
        ("x[NEXT]y[NEXT]z[NEXT]dropped", ["x", "y", "z"]),
        ("x [next] y", ["x [next] y", "", ""]),
    ],
)
def test_malformed_texts_are_divided_by_the_documented_rule(text: str, parts: list[str]) -> None:
    env = Single(Words())
    env.reset(options={"task": 0})
    *_, infos = env.step({"agent": text})
    assert list(env.history[0].responses.values()) == parts
    assert infos["agent"]["metrics"]["well_formed"] == float(text.count("[NEXT]") == 2)


class Paying(TextEnv):
    """Pays the numbers written, whichever role writes them; an empty text is worth 0."""

    possible_agents = ["a", "b"]
    tasks = TaskSet.of(["task"])
    individual_rewards = True

    def observe(self, agent: str) -> str:
        return agent

    def judge(self, responses: dict[str, str]) -> Outcome:
        own = {agent: float(text or 0) for agent, text in responses.items()}
        return Outcome({"score": sum(own.values())}, own)


@pytest.mark.parametrize("shift", [0.0, -2.0])
@pytest.mark.parametrize(
    "text, score",
    [("3[NEXT]4", 7.0), ("3", 0.0), ("", 0.0), ("-3", -3.0), ("3[NEXT]4[NEXT]5", 7.0), ("3[NEXT]", 3.0)],
)
def test_a_missing_delimiter_scores_0_or_less(text: str, score: float, shift: float) -> None:
    """A part that is there and empty is what the writer chose; a loss is never escaped by leaving a part out."""
    env = Single(Paying(reward_shift=shift))
    _, infos = env.reset()
    assert infos["agent"]["reward_terms"] == {"score": 0.0, "malformed": 0.0}
    _, rewards, _, _, infos = env.step({"agent": text})
    assert rewards["agent"] == score + shift
    assert infos["agent"]["score"] == score == sum(infos["agent"]["reward_terms"].values())
    assert tuple(infos["agent"]["reward_terms"]) == env.term_names == ("score", "malformed")
    assert infos["agent"]["individual_reward"] == score / 2


def test_where_progress_is_paid_the_rewards_still_add_up_to_the_last_score() -> None:
    class Progress(Paying):
        progress_rewards = True

    turns = ["3[NEXT]4", "9", "5[NEXT]5", "-2"]
    env = Single(Progress(max_turns=4, reward_shift=-1.0))
    env.reset()
    paid, scores = [], []
    for text in turns:
        _, rewards, _, _, infos = env.step({"agent": text})
        paid.append(rewards["agent"] + 1.0)
        scores.append(infos["agent"]["score"])
    assert scores == [7.0, 0.0, 10.0, -2.0]
    assert paid == [7.0, -7.0, 10.0, -12.0]


def test_a_single_role_gets_the_text_unchanged() -> None:
    class Alone(Words):
        possible_agents = ["solo"]

    env = Single(Alone())
    observations, _ = env.reset(options={"task": 0})
    assert observations["agent"] == "solo: one, turn 0"
    env.step({"agent": "  kept [NEXT] whole "})
    assert env.history[0].responses == {"solo": "  kept [NEXT] whole "}


def test_a_single_agent_lives_until_the_last_role_has_left() -> None:
    env = Single(Leaving(), delimiter="|")
    env.reset()
    _, rewards, terminations, *_ = env.step({"agent": "hi|bye"})
    assert (rewards, terminations) == ({"agent": 2.5}, {"agent": False})
    _, rewards, terminations, *_ = env.step({"agent": "alone|nobody"})
    assert (rewards, terminations, env.agents) == ({"agent": 5.0}, {"agent": True}, [])
    with pytest.raises(ValueError, match="delimiter must be a text that is not blank"):
        Single(Leaving(), delimiter=" ")
