"""The contract of every text environment, shown on two small ones: a single turn, and several with feedback."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from textmarl.envs import Outcome, Task, TaskSet, TextEnv, UnicodeText

AGENTS = ["left", "right"]


class OneTurn(TextEnv):
    """Both write the word of the task."""

    possible_agents = AGENTS
    tasks = TaskSet.of(["red", "green", "blue", "grey", "pink"], name="colours")

    def observe(self, agent: str) -> str:
        return f"{agent}: write {self.task.data['text']}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        return Outcome({"score": sum(self.task.data["text"] in text for text in responses.values()) / 2})


@dataclass(frozen=True)
class Guess(Outcome):
    hint: str = ""


class Guessing(TextEnv):
    """A hidden number is guessed by the summed lengths of two texts; a hint follows each turn."""

    possible_agents = AGENTS
    term_names = ("near", "exact")
    max_score = 2.0
    individual_rewards = True

    def __init__(self, **options: Any) -> None:
        super().__init__(TaskSet.of([{"id": str(n), "number": n} for n in range(6, 60)]), **options)

    def observe(self, agent: str) -> str:
        if not self.history:
            return f"Guess a number: write that many characters together. Your lucky number: {self.np_random.integers(9)}"
        outcome = self.history[-1].outcome
        assert isinstance(outcome, Guess)
        return outcome.hint

    def judge(self, responses: dict[str, str]) -> Outcome:
        number, guess = self.task.data["number"], sum(map(len, responses.values()))
        return Guess(
            {"near": 1 / (1 + abs(number - guess)), "exact": float(number == guess)},
            individual={agent: len(text) / 100 for agent, text in responses.items()},
            finished=number == guess,
            hint="more" if guess < number else "less",
        )


def both(text: str) -> dict[str, str]:
    return dict.fromkeys(AGENTS, text)


@pytest.fixture
def env() -> Guessing:
    return Guessing(max_turns=3)


def test_reset_shows_every_agent_its_own_observation(env: Guessing) -> None:
    observations, infos = OneTurn().reset(options={"task": "task/1"})
    assert observations == {"left": "left: write green", "right": "right: write green"}
    assert infos["left"] == {"task_id": "task/1", "turn": 0, "score": 0.0, "reward_terms": {"score": 0.0}}
    _, infos = env.reset(options={"task": 4})
    assert infos["right"] == {
        "task_id": "10",
        "turn": 0,
        "score": 0.0,
        "reward_terms": {"near": 0.0, "exact": 0.0},
        "individual_reward": 0.0,
    }


def test_the_whole_team_gets_the_score(env: Guessing) -> None:
    env.reset(options={"task": "10"})
    observations, rewards, terminations, truncations, infos = env.step({"left": "abc", "right": "abcd"})
    near = 1 / (1 + (10 - 7))
    assert rewards == {"left": near, "right": near}
    assert terminations == truncations == both(False)  # type: ignore[arg-type]
    assert observations == both("more")
    assert infos["left"]["reward_terms"] == {"near": near, "exact": 0.0}
    assert infos["left"]["score"] == near
    assert (infos["left"]["individual_reward"], infos["right"]["individual_reward"]) == (0.03, 0.04)
    assert env.turn == infos["left"]["turn"] == 1


def test_max_turns_may_be_a_numpy_integer() -> None:
    env = Guessing(max_turns=np.int64(2))
    assert env.max_turns == 2 and type(env.max_turns) is int


def test_all_agents_end_together_at_max_turns_by_termination(env: Guessing) -> None:
    env.reset(options={"task": "50"})
    for turn in (1, 2, 3):
        assert env.agents == AGENTS
        observations, _, terminations, truncations, infos = env.step(both("x"))
        assert terminations == both(turn == 3)  # type: ignore[arg-type]
        assert truncations == both(False)  # type: ignore[arg-type]
        assert {info["turn"] for info in infos.values()} == {turn}
    assert env.agents == []
    assert observations == both("")


def test_a_finished_outcome_ends_the_episode_early(env: Guessing) -> None:
    env.reset(options={"task": "10"})
    _, rewards, terminations, truncations, _ = env.step(both("12345"))
    assert rewards == {"left": 2.0, "right": 2.0}
    assert terminations == both(True) and truncations == both(False)  # type: ignore[arg-type]
    assert env.agents == []


def test_answers_reach_the_judge_unchanged_and_in_the_order_of_the_agents() -> None:
    seen: list[dict[str, str]] = []

    class Recorder(OneTurn):
        def judge(self, responses: dict[str, str]) -> Outcome:
            seen.append(responses)
            return Outcome({"score": 0})

    recorder = Recorder()
    recorder.reset(seed=0)
    texts = {"right": " \ud800\x00\n", "left": "\u2028 kept "}
    recorder.step(texts)
    assert list(seen[0]) == AGENTS and seen[0] == texts


def test_spaces_are_the_same_object_at_every_call(env: Guessing) -> None:
    for agent in AGENTS:
        assert env.observation_space(agent) is env.observation_space(agent) == UnicodeText()
        assert env.action_space(agent) is env.action_space(agent) == UnicodeText()
    with pytest.raises(ValueError, match=r"no agent 'middle'.*\['left', 'right'\]"):
        env.action_space("middle")


def run_of(env: TextEnv, seed: int, episodes: int = 4) -> list[Any]:
    played: list[Any] = []
    for episode in range(episodes):
        played.append(env.reset(seed=seed if episode == 0 else None))
        while env.agents:
            played.append(env.step(both("x" * 7 * (env.turn + 1))))
    return played


def test_same_seed_same_everything_other_seed_other_tasks() -> None:
    assert run_of(Guessing(max_turns=3), 5) == run_of(Guessing(max_turns=3), 5)
    tasks = {OneTurn().reset(seed=seed)[1]["left"]["task_id"] for seed in range(40)}
    assert tasks == {f"task/{i}" for i in range(5)}


def test_without_a_seed_episodes_go_through_different_tasks() -> None:
    env = OneTurn()
    assert len({env.reset()[1]["left"]["task_id"] for _ in range(60)}) == 5


def test_naming_the_task_does_not_disturb_what_the_seed_decides(env: Guessing) -> None:
    free, _ = env.reset(seed=3)
    fixed, infos = env.reset(seed=3, options={"task": "20"})
    assert free == fixed  # the lucky number comes from the seed
    assert infos["left"]["task_id"] == "20"


def test_unknown_options_are_ignored_with_a_warning(env: Guessing) -> None:
    with pytest.warns(UserWarning, match=r"ignores the reset options \['colour'\]"):
        _, infos = env.reset(seed=1, options={"colour": 1, "task": "9"})
    assert infos["left"]["task_id"] == "9"


@pytest.mark.parametrize(
    "actions, error, complaint",
    [
        (["x", "y"], TypeError, r"dict of one text per agent, not list"),
        ({"left": "x"}, ValueError, r"missing \['right'\]"),
        ({}, ValueError, r"missing \['left', 'right'\]"),
        ({"left": "x", "right": "y", "top": "z"}, ValueError, r"unknown \['top'\]"),
        ({"left": "x", "right": b"y"}, TypeError, r"'right' must be a str, not bytes"),
        ({"left": None, "right": "y"}, TypeError, r"'left' must be a str, not NoneType"),
    ],
)
def test_wrong_actions_are_refused_and_leave_the_episode_as_it_was(
    env: Guessing, actions: Any, error: type[Exception], complaint: str
) -> None:
    env.reset(seed=1, options={"task": "30"})
    env.step(both("x"))
    untouched = copy.deepcopy(env)
    with pytest.raises(error, match=complaint):
        env.step(actions)
    assert (env.state(), env.turn, env.agents) == (untouched.state(), 1, AGENTS)
    assert env.step(both("y")) == untouched.step(both("y"))


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"options": {"task": "none"}}, LookupError),
        ({"options": {"task": 99}}, LookupError),
        ({"options": {"task": None}}, TypeError),
        ({"seed": "one"}, TypeError),
        ({"seed": -1}, ValueError),
        ({"options": ["task"]}, TypeError),
        ({"options": "task"}, TypeError),
    ],
)
def test_a_refused_reset_leaves_the_episode_as_it_was(
    env: Guessing, arguments: Any, error: type[Exception]
) -> None:
    env.reset(seed=1)
    for agent in AGENTS:
        env.action_space(agent).seed(0)
    env.step(both("x"))
    untouched = copy.deepcopy(env)
    with pytest.raises(error):
        env.reset(**arguments)
    assert env.state() == untouched.state()
    assert run_on(env) == run_on(untouched)


@pytest.mark.parametrize(
    "call", [lambda env: env.step(both("x")), lambda env: env.reset(), lambda env: env.reset(seed=5)]
)
def test_an_observation_that_raises_leaves_the_episode_and_the_random_state_as_they_were(
    call: Callable[[TextEnv], Any],
) -> None:
    broken: list[Any] = []

    class Broken(Guessing):
        def observe(self, agent: str) -> str:
            luck = self.np_random.integers(1000)
            if broken and agent == "right":
                raise OSError("the clue is away")
            return f"{super().observe(agent)} {luck} {self.turn}"

    env = Broken(max_turns=3)
    broken.append(1)
    with pytest.raises(OSError, match="away"):
        env.reset(seed=1)
    with pytest.raises(RuntimeError, match="no episode has begun"):
        env.step(both("x"))
    assert env.agents == [] and "no episode yet" in env.render() and not hasattr(env, "task")
    broken.clear()
    for agent in AGENTS:
        env.action_space(agent).seed(0)
    env.reset(seed=1, options={"task": "30"})
    env.step(both("x"))
    untouched = copy.deepcopy(env)
    broken.append(1)
    with pytest.raises(OSError, match="away"):
        call(env)
    broken.clear()
    assert (env.state(), env.render(), env.turn) == (untouched.state(), untouched.render(), 1)
    assert env.agents == AGENTS
    assert run_on(env) == run_on(untouched)


def test_a_judge_that_rewrites_the_texts_it_gets_does_not_change_the_history() -> None:
    class Shouting(OneTurn):
        def judge(self, responses: dict[str, str]) -> Outcome:
            responses["left"] = responses["left"].upper()
            return super().judge(responses)

    env = Shouting()
    env.reset(seed=0)
    env.step({"left": "quiet", "right": "calm"})
    assert env.history[0].responses == {"left": "quiet", "right": "calm"} and "quiet" in env.state()


def test_a_reward_that_raises_leaves_the_episode_as_it_was() -> None:
    broken = True

    def reward(responses: dict[str, str], task: Task) -> float:
        if broken:
            raise OSError("the reward model is away")
        return 0.5

    env = OneTurn(reward_fn=reward)
    env.reset(seed=0)
    state = env.state()
    with pytest.raises(OSError):
        env.step(both("x"))
    assert env.state() == state
    broken = False
    assert env.step(both("x"))[1] == {"left": 0.5, "right": 0.5}


def test_a_step_outside_an_episode_says_to_reset(env: Guessing) -> None:
    with pytest.raises(RuntimeError, match=r"no episode has begun; call reset\(\) first"):
        env.step(both("x"))
    env.reset(options={"task": "10"})
    env.step(both("12345"))
    with pytest.raises(RuntimeError, match=r"the episode has ended; call reset\(\) first"):
        env.step(both("x"))


def test_a_shift_reaches_the_learner_but_not_the_report(env: Guessing) -> None:
    shifted = Guessing(max_turns=3, reward_shift=-2.0)
    for one in (env, shifted):
        one.reset(seed=0, options={"task": "10"})
    _, rewards, _, _, infos = env.step(both("x"))
    _, shifted_rewards, _, _, shifted_infos = shifted.step(both("x"))
    assert shifted_infos == infos
    assert shifted_rewards == {agent: reward - 2.0 for agent, reward in rewards.items()}


def test_each_agent_may_have_a_shift_of_its_own() -> None:
    env = Guessing(reward="individual", reward_shift={"left": -1.0, "right": -2.0})
    env.reset(options={"task": "10"})
    _, rewards, *_ = env.step({"left": "1", "right": "123"})
    assert rewards == {"left": pytest.approx(0.01 - 1), "right": pytest.approx(0.03 - 2)}
    with pytest.raises(ValueError, match=r"one for each of \['left', 'right'\]; it has \['left'\]"):
        Guessing(reward_shift={"left": -1.0})


class Improving(Guessing):
    progress_rewards = True


@pytest.mark.parametrize("reward", ["team", "individual"])
def test_progress_rewards_pay_the_gain_since_the_turn_before_and_add_up_to_the_last_turns_worth(
    reward: Any,
) -> None:
    env = Improving(max_turns=3, reward=reward)
    env.reset(options={"task": "50"})
    texts = [
        "x" * 5,
        "x" * 20,
        "x" * 10,
    ]  # the second guess is nearer than the first, the third is farther again
    paid, infos = [], []
    for text in texts:
        _, rewards, _, _, info = env.step(both(text))
        paid.append(rewards["left"])
        infos.append(info["left"])
    worth = [1 / (1 + 50 - 2 * len(text)) for text in texts]
    assert [info["score"] for info in infos] == worth, "infos have the score itself"
    if reward == "individual":
        worth = [len(text) / 100 for text in texts]
        assert [info["individual_reward"] for info in infos] == worth
    assert paid == pytest.approx([worth[0], worth[1] - worth[0], worth[2] - worth[1]])
    env.reset(options={"task": "50"})
    assert env.step(both("xxxxx"))[1]["left"] == pytest.approx(worth[0]), "a new episode starts from nothing"


def test_progress_is_that_of_the_reward_function_where_one_is_given() -> None:
    env = Improving(max_turns=2, reward_fn=lambda responses, task: len(responses["left"]))
    env.reset(options={"task": "50"})
    assert env.step(both("xx"))[1] == {"left": 2.0, "right": 2.0}
    assert env.step(both("xxxxx"))[1] == {"left": 3.0, "right": 3.0}


def test_individual_reward_pays_each_agent_its_part_and_reports_the_team_score() -> None:
    env = Guessing(reward="individual", reward_shift=-1.0)
    env.reset(options={"task": "10"})
    _, rewards, _, _, infos = env.step({"left": "1", "right": "123"})
    assert rewards == {"left": pytest.approx(0.01 - 1), "right": pytest.approx(0.03 - 1)}
    assert infos["left"]["score"] == infos["right"]["score"] == 1 / (1 + 6)
    assert infos["right"]["individual_reward"] == 0.03


def test_a_reward_function_replaces_the_reward() -> None:
    calls: list[tuple[dict[str, str], Task]] = []

    def reward(responses: dict[str, str], task: Task) -> float:
        calls.append((responses, task))
        return 3

    env = Guessing(reward_fn=reward, reward_shift=0.5, max_turns=2)
    _, infos = env.reset(options={"task": "12"})
    assert infos["left"]["reward_terms"] == {"reward_fn": 0.0}
    _, rewards, terminations, _, infos = env.step(both("123456"))
    assert calls == [(both("123456"), env.tasks.find("12"))]
    assert rewards == {"left": 3.5, "right": 3.5}
    assert (infos["left"]["score"], infos["left"]["reward_terms"]) == (3.0, {"reward_fn": 3.0})
    assert terminations["left"], "the environment itself still says when it is finished"
    assert infos["left"]["individual_reward"] == 0.06
    assert env.max_score == 1.0
    assert Guessing(reward_fn=reward, max_score=3).max_score == 3.0


@pytest.mark.parametrize("value", [None, "high", float("nan")])
def test_a_reward_function_must_return_a_finite_number(value: Any) -> None:
    env = OneTurn(reward_fn=lambda responses, task: value)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"reward_fn must be a finite number"):
        env.step(both("x"))


def run_on(env: TextEnv) -> list[Any]:
    """The rest of the episode and the next one, with sampled texts."""
    played: list[Any] = []
    for _ in range(2):
        while env.agents:
            played.append(env.step({agent: env.action_space(agent).sample() for agent in env.agents}))
        played += [env.reset(), env.state(), env.render()]
    return played


@pytest.mark.parametrize(
    "copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_copy_in_the_middle_of_an_episode_continues_identically(
    env: Guessing, copier: Callable[[TextEnv], TextEnv]
) -> None:
    env.reset(seed=8)
    for number, agent in enumerate(AGENTS):
        env.action_space(agent).seed(number)
    env.step(both("xyz"))
    state = env.state()
    twin = copier(env)
    played = run_on(twin)
    assert env.state() == state and env.turn == 1, "playing the copy must not touch the original"
    assert run_on(env) == played


def test_copies_share_what_never_changes() -> None:
    class Model:
        def __call__(self, responses: dict[str, str], task: Task) -> float:
            return 0.0

        def __deepcopy__(self, memo: dict[int, Any]) -> Model:
            raise AssertionError("a reward model may be large: it must not be copied")

    env = OneTurn(reward_fn=Model())
    env.reset(seed=0)
    twin = copy.deepcopy(env)
    assert twin.tasks is env.tasks and twin.task is env.task and twin.reward_fn is env.reward_fn


def test_the_state_holds_every_agents_conversation(env: Guessing) -> None:
    assert json.loads(env.state()) == {"task": None, "turn": 0, "agents": {"left": [], "right": []}}
    observations, _ = env.reset(seed=0, options={"task": "40"})
    env.step({"left": "\ud800", "right": "caf\u00e9"})
    state = json.loads(env.state())
    assert (state["task"], state["turn"]) == ("40", 1)
    assert state["agents"]["right"] == [observations["right"], "caf\u00e9", "more"]


def test_the_transcript_reads_from_task_to_score(env: Guessing) -> None:
    assert "call reset()" in env.render()
    env.reset(seed=0, options={"task": "10"})
    assert "left reads" in env.render()
    env.step({"left": "LEFT TEXT", "right": "R"})
    text = env.render()
    order = [
        text.index(part)
        for part in ("Guessing | task 10 | turn 1 of 3", "left writes", "LEFT TEXT", "score 2.000 of 2")
    ]
    assert order == sorted(order)
    assert "near 1.000, exact 1.000" in text


def test_the_transcript_is_safe_to_print(env: Guessing) -> None:
    env.reset(seed=0)
    env.step({"left": "\x1b[31m\x00\ud800 caf\u00e9 \U0001f600\ttab\nline", "right": "y" * 2_000_000})
    text = env.render()
    text.encode("utf-8")
    assert "\\x1b[31m\\x00\\ud800 caf\u00e9 \U0001f600\ttab\nline" in text
    assert len(text) < 20_000 and "1,996,000 characters" in text


def test_max_cycles_means_max_turns() -> None:
    assert Guessing(max_cycles=4).max_turns == Guessing(max_turns=4).max_turns == 4
    assert Guessing(max_cycles=4, max_turns=4).max_turns == 4
    assert Guessing().max_turns == 1
