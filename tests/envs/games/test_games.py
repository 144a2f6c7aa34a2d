"""What holds for every game: the contract, its known returns, and that junk is never worth more than an action."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import pickle
import random
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pettingzoo
import pytest

import textmarl.envs  # noqa: F401  (registers the games)
from textmarl.agents import ScriptedAgent, evaluate
from textmarl.envs import check_env
from textmarl.envs.games.game import SimultaneousGame, WordGame
from textmarl.envs.games.vocabulary import ALIASES, WORDS

IDS = ("Climbing", "Penalty", "Chorus", "Decoy", "Relay")
JUNK = ("", "no such word", "12345 0", "\x00\ud800\u2028", "maples", "🍁" * 50)


@pytest.fixture(autouse=True)
def accepted_warnings() -> Iterator[None]:
    """PettingZoo warns about every space but Box and Discrete and about observations that are no arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def alias(env: WordGame, agent: str, action: int) -> str:
    return ALIASES[list(env.order(agent)).index(action)]


def play(env: WordGame, actions: tuple[int | None, ...]) -> float:
    """The team reward of a joint action; None writes junk."""
    texts = {
        agent: "nothing" if action is None else alias(env, agent, action)
        for agent, action in zip(env.agents, actions, strict=True)
    }
    return env.step(texts)[1]["player_0"]


def uniform_texts(env: WordGame, dice: random.Random) -> dict[str, str]:
    return {agent: dice.choice(env.names(agent)) for agent in env.agents}


# ---------------------------------------------------------------------------------------------------- the contract


def test_a_game_keeps_the_contract(make_game: Callable[[], WordGame]) -> None:
    check_env(make_game, other_process=False)


@pytest.mark.parametrize("name", IDS)
def test_both_interfaces_are_registered_and_sized_by_arguments(name: str) -> None:
    parallel = pettingzoo.make("parallel", f"textmarl/{name}-v0", n_agents=16, n_actions=28)
    assert parallel.possible_agents == [f"player_{number}" for number in range(16)]
    assert parallel.metadata["name"] == f"{name}-v0"
    assert pettingzoo.make("aec", f"textmarl/{name}-v0", n_agents=3).possible_agents[-1] == "player_2"
    observations, _ = parallel.reset(seed=0)
    assert max(map(len, observations.values())) < 3000, "the tiny model reads 4,096 characters"


@pytest.mark.parametrize("name", IDS)
def test_individual_rewards_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no individual rewards"):
        pettingzoo.make("parallel", f"textmarl/{name}-v0", reward="individual")


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ({"n_agents": 1}, "n_agents must be an integer of at least 2, not 1"),
        ({"n_agents": 2.0}, "n_agents must be an integer"),
        ({"n_agents": True}, "n_agents must be an integer"),
        ({"n_actions": 1}, "n_actions must be an integer from"),
        ({"n_actions": 29}, "to 28, not 29; there are no more one-character aliases"),
        ({"split": "val"}, r"has no split 'val'; it has \['test', 'train'\]"),
        ({"split": "train[1000:]"}, "needs at least one"),
        ({"split": "train 1"}, "has no split"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(name: str, arguments: dict, complaint: str) -> None:
    with pytest.raises((ValueError, LookupError), match=complaint):
        pettingzoo.make("parallel", f"textmarl/{name}-v0", **arguments)


@pytest.mark.parametrize("name", ["Climbing", "Penalty"])
def test_hidden_payoffs_with_varied_words_are_refused_as_unplayable(name: str) -> None:
    with pytest.raises(ValueError, match="nothing would tell which word is which action"):
        pettingzoo.make("parallel", f"textmarl/{name}-v0", words="varied", show_payoffs=False)
    with pytest.raises(ValueError, match='"fixed" or "varied", not \'other\''):
        pettingzoo.make("parallel", f"textmarl/{name}-v0", words="other")


# ---------------------------------------------------------------------------------------------------- known returns


def test_closed_forms_equal_the_mean_and_maximum_over_all_joint_actions(
    simultaneous: SimultaneousGame,
) -> None:
    env = simultaneous
    joint_actions = list(itertools.product(range(env.n_actions), repeat=env.n_agents))
    means, best = [], []
    for task in env.tasks:
        env.reset(options={"task": task.id})
        scores = [math.fsum(env.payoffs(actions).values()) for actions in joint_actions]
        means.append(math.fsum(scores) / len(scores))
        best.append(max(scores))
    assert env.uniform_score == pytest.approx(statistics.fmean(means), abs=1e-12)
    assert set(best) == {env.best_score} == {env.max_score}
    assert env.uniform_return == pytest.approx(env.max_turns * env.uniform_score)
    assert env.optimal_return == env.max_turns * env.best_score
    assert env.reference_scores["optimal"] == env.best_score
    assert env.reference_scores["uniform"] == env.uniform_score


@pytest.mark.parametrize(
    ("name", "kwargs", "expected"),
    [
        ("Climbing", {"max_turns": 3}, {"optimal": 11, "top rung": 7, "uniform": -31 / 9}),
        ("Penalty", {}, {"optimal": 10, "all safe": 2, "uniform": -178 / 9}),
        ("Chorus", {}, {"optimal": 1, "uniform": 1 / 4}),
        # Sign and map never agree in "test", and following the sign pays half.
        ("Decoy", {"split": "test"}, {"optimal": 1, "decoy": 0.5, "uniform": 1 / 9 + 0.5 / 3}),
        ("Relay", {"dense": True}, {"optimal": 1, "silent": 1 / 4, "uniform": 1 / 4}),
    ],
)
def test_reference_scores_are_what_evaluations_report_under_the_play_that_the_page_defines(
    name: str, kwargs: dict[str, Any], expected: dict[str, float]
) -> None:
    env = pettingzoo.make("parallel", f"textmarl/{name}-v0", **kwargs)
    assert env.reference_scores == pytest.approx(expected)
    assert pettingzoo.make("parallel", f"textmarl/{name}-v0", reward_fn=lambda *_: 0.0).reference_scores == {}
    if name == "Climbing":
        by_name = dict(zip(("optimal", "top rung"), env.tasks[0].data["words"], strict=False))
        for play, word in by_name.items():
            result = evaluate(env, dict.fromkeys(env.possible_agents, ScriptedAgent(word)))
            assert result.score == result.reference_scores[play]


def test_a_scripted_team_reaches_the_optimum_in_every_task(simultaneous: SimultaneousGame) -> None:
    env = simultaneous
    joint_actions = list(itertools.product(range(env.n_actions), repeat=env.n_agents))
    for task in env.tasks:
        env.reset(options={"task": task.id})
        best = max(joint_actions, key=lambda actions: math.fsum(env.payoffs(actions).values()))
        earned = 0.0
        while env.agents:
            earned += play(env, best)
        assert earned == env.optimal_return


def test_uniform_play_earns_the_closed_form_within_its_confidence_bound(
    make_game: Callable[[], WordGame],
) -> None:
    """Hoeffding, per episode: with range R and n episodes the mean is off by more than R sqrt(ln(2/p) / 2n) with
    probability at most p = 1e-6."""
    env = make_game()
    dice = random.Random(5)
    env.reset(seed=5)
    returns = []
    for _ in range(3000):
        env.reset()
        earned = 0.0
        while env.agents:
            earned += env.step(uniform_texts(env, dice))[1]["player_0"]
        returns.append(earned)
    lowest = env.max_turns * getattr(env, "lowest", 0.0)
    bound = (env.optimal_return - lowest) * math.sqrt(math.log(2 / 1e-6) / (2 * len(returns)))
    assert abs(statistics.fmean(returns) - env.uniform_return) < bound


# ---------------------------------------------------------------------------------------------------- junk


def test_an_action_is_always_worth_more_than_a_text_without_one(simultaneous: SimultaneousGame) -> None:
    """Whatever the others do, junk included: so junk is strictly dominated for every player."""
    env = simultaneous
    choices = (None, *range(env.n_actions))
    env.reset(seed=1)
    penalty = 1 / env.n_agents

    def score(actions: tuple[int | None, ...]) -> float:
        return math.fsum(env.payoffs(actions).values()) - penalty * actions.count(None)

    others_choices = list(itertools.product(choices, repeat=env.n_agents - 1))
    for others in random.Random(0).sample(others_choices, min(300, len(others_choices))):
        for place in range(env.n_agents):
            played = [score((*others[:place], action, *others[place:])) for action in range(env.n_actions)]
            assert min(played) > score((*others[:place], None, *others[place:]))


def test_the_terms_of_junk_are_what_the_page_says(simultaneous: SimultaneousGame) -> None:
    env = simultaneous
    for junk in JUNK:
        env.reset(seed=0)
        assert set(env.payoffs((None,) * env.n_agents).values()) == {getattr(env, "lowest", 0.0)}
        *_, infos = env.step(dict.fromkeys(env.agents, junk))
        terms = infos["player_0"]["reward_terms"]
        assert terms["illegal"] == -1.0
        assert infos["player_0"]["score"] == getattr(env, "lowest", 0.0) - 1.0


def test_naming_all_actions_is_playing_the_first_one(make_game: Callable[[], WordGame]) -> None:
    everything, first = make_game(), make_game()
    for env, count in ((everything, None), (first, 1)):
        env.reset(seed=3)
        scores = []
        while env.agents:
            texts = {agent: " ".join(env.names(agent)[:count]) for agent in env.agents}
            scores.append(env.step(texts)[1])
        env.scores = scores  # type: ignore[attr-defined]
    assert everything.scores == first.scores  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------- any text


def random_text(env: WordGame, agent: str, dice: random.Random) -> str:
    """Random texts, half of them salted with actions."""
    pieces = [
        "".join(chr(dice.randrange(128)) for _ in range(dice.randrange(20))),
        "".join(chr(dice.randrange(0x110000)) for _ in range(dice.randrange(12))),
        dice.choice(["", " ", "\x00", "\ud800", "```", "I choose ", "-", "_", "<|im_end|>"]),
    ]
    if dice.random() < 0.5:
        pieces.append(dice.choice([*env.names(agent), *ALIASES]))
    dice.shuffle(pieces)
    return "".join(pieces)


def test_a_thousand_episodes_of_random_texts_are_scored(make_game: Callable[[], WordGame]) -> None:
    env = make_game()
    dice = random.Random(2)
    env.reset(seed=2)
    lowest = getattr(env, "lowest", 0.0) - 1
    scores = set()
    for _ in range(1000):
        env.reset()
        while env.agents:
            texts = {agent: random_text(env, agent, dice) for agent in env.agents}
            observations, rewards, _, _, infos = env.step(texts)
            info = infos["player_0"]
            assert lowest <= info["score"] <= env.max_score
            assert info["score"] == pytest.approx(math.fsum(info["reward_terms"].values()))
            assert set(rewards.values()) == {info["score"]}
            assert all(env.observation_space(agent).contains(text) for agent, text in observations.items())
            scores.add(round(info["score"], 9))
    assert len(scores) > 2, "the texts should play something now and then, or this test shows little"


# ---------------------------------------------------------------------------------------------------- copies, speed


def test_a_copy_made_in_the_middle_continues_alone(make_game: Callable[[], WordGame]) -> None:
    for copier in (copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))):
        env = make_game()
        env.reset(seed=4)
        dice = random.Random(4)
        if env.max_turns > 1:
            env.step(uniform_texts(env, dice))
        twin = copier(env)
        texts = uniform_texts(env, dice)
        state = env.state()
        ahead = twin.step(texts)
        assert env.state() == state
        assert env.step(texts) == ahead
        assert (env.reset(), env.task.id) == (twin.reset(), twin.task.id)


def test_a_turn_takes_less_than_two_milliseconds(make_game: Callable[[], WordGame]) -> None:
    env = make_game()
    text = "Let me think about what the others will do. " * 20 + "2"  # about 256 tokens
    durations = []
    for _ in range(30):
        begin = time.perf_counter()
        env.reset(seed=1)
        env.step(dict.fromkeys(env.agents, text))
        durations.append(time.perf_counter() - begin)
    assert statistics.median(durations) < 0.002


# ---------------------------------------------------------------------------------------------------- tasks


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("n_actions", [3, 28])
def test_no_word_of_the_train_split_occurs_in_the_test_split(name: str, n_actions: int) -> None:
    varied = {} if name in ("Decoy", "Relay") else {"words": "varied"}
    words = []
    for split in ("train", "test"):
        env = pettingzoo.make("parallel", f"textmarl/{name}-v0", split=split, n_actions=n_actions, **varied)
        rows = [task.data["words"] for task in env.tasks]
        assert all(len(set(row)) == n_actions for row in rows)
        assert len({json.dumps(dict(task.data)) for task in env.tasks}) == len(env.tasks)
        words.append(set().union(*rows))
    assert not words[0] & words[1]


@pytest.mark.parametrize("name", IDS)
def test_the_task_seed_and_nothing_else_draws_the_tasks(name: str) -> None:
    varied = {} if name in ("Decoy", "Relay") else {"words": "varied"}

    def tasks(**options: object) -> object:
        return pettingzoo.make("parallel", f"textmarl/{name}-v0", **varied, **options).tasks

    assert tasks() == tasks(task_seed=0, reward_shift=1.0)
    assert tasks() != tasks(task_seed=1)
    assert list(tasks(split="train[:4]")) == list(tasks())[:4]


def test_all_words_have_five_letters_and_stand_for_one_action() -> None:
    words = [word for split in WORDS.values() for word in split]
    assert len(set(words)) == len(words)
    assert {len(word) for word in words} == {5}
    assert all(word.isascii() and word.islower() for word in words)
    assert len(set(ALIASES)) == len(ALIASES) == 28 <= min(map(len, WORDS.values()))


EPISODES = """
import json, pettingzoo, textmarl.envs
played = []
for name in ("Climbing", "Penalty", "Chorus", "Decoy", "Relay"):
    varied = {} if name in ("Decoy", "Relay") else {"words": "varied"}
    env = pettingzoo.make("parallel", f"textmarl/{name}-v0", n_agents=3, **varied)
    for episode in range(5):
        played.append(env.reset(seed=7 if episode == 0 else None))
        while env.agents:
            played.append(env.step({agent: str(i + episode % 3) for i, agent in enumerate(env.agents)}))
        played.append(env.state())
print(json.dumps(played))
"""


def test_same_seed_and_texts_give_the_same_in_every_process(capsys: pytest.CaptureFixture[str]) -> None:
    exec(EPISODES, {})
    here = capsys.readouterr().out
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    there = subprocess.run(
        [sys.executable, "-c", EPISODES], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout == here
    assert len(json.loads(here)) > 50
