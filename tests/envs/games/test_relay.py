"""Relay: who knows what, who acts, what the channel holds, what pays; and that nothing goes round the channel."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from textmarl.agents import evaluate
from textmarl.envs.games.relay import Relay
from textmarl.envs.games.vocabulary import ALIASES
from textmarl.envs.protocols import wrap


def relayed(env: Relay, task: int | str) -> list[float]:
    """The rewards of a team that passes the alias on; the others send misleading texts."""
    observations, _ = env.reset(options={"task": task})
    paid = []
    while env.agents:
        acting = env.possible_agents[env.turn]
        clue = "The secret word is " if env.turn == 0 else f"The message of player_{env.turn - 1}: "
        said = observations[acting].split(clue)[1][0]
        texts = {agent: said if agent == acting else env.names(agent)[0] for agent in env.agents}
        observations, rewards, *_ = env.step(texts)
        paid.append(rewards["player_0"])
    return paid


def test_a_team_that_passes_the_alias_on_reaches_the_optimum_in_every_task(relay: Relay) -> None:
    for task in relay.tasks:
        paid = relayed(relay, task.id)
        assert sum(paid) == relay.optimal_return
        assert paid == [
            1.0 if relay.dense or turn == relay.n_agents - 1 else 0.0 for turn in range(relay.n_agents)
        ]


def test_uniform_return_equals_the_mean_over_all_sequences_of_named_words(relay: Relay) -> None:
    returns = []
    for secret in range(relay.n_actions):
        relay.reset(options={"task": secret})  # the tasks begin with one list and each of its words
        assert relay.task.data["secret"] == secret
        for named in itertools.product(range(relay.n_actions), repeat=relay.n_agents):
            relay.reset(options={"task": secret})
            returns.append(
                sum(relay.step(dict.fromkeys(relay.agents, ALIASES[word]))[1]["player_0"] for word in named)
            )
    assert sum(returns) / len(returns) == pytest.approx(relay.uniform_return)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("dense", [False, True])
def test_without_messages_every_player_but_the_first_reads_the_same_whatever_the_secret(
    split: str, dense: bool
) -> None:
    """So its best is the most frequent secret of a list, and all secrets are as frequent: that is `silent_return`."""
    env = Relay(split, n_agents=3, n_actions=4, dense=dense)
    secrets = defaultdict(list)
    for task in env.tasks:
        observations, _ = env.reset(options={"task": task.id})
        read = {agent: [text] for agent, text in observations.items() if agent != "player_0"}
        while env.agents:
            observations, *_ = env.step(dict.fromkeys(env.agents, ""))
            for agent, texts in read.items():
                texts.append(observations[agent])
        secrets[str(read)].append(task.data["secret"])
    assert len(secrets) == len(env.tasks) / 4
    assert all(sorted(each) == [0, 1, 2, 3] for each in secrets.values())
    assert env.silent_return == (1 + 2 / 4 if dense else 1 / 4)


def test_a_slice_with_less_than_whole_lists_says_that_lists_give_secrets_away() -> None:
    assert Relay("train[:2]").silent_return == 0.5
    assert Relay("train[:1]").silent_return == 1


def test_only_the_player_in_turn_is_read_and_only_by_the_next_one() -> None:
    env = Relay(n_agents=4, capacity=6)
    env.reset(seed=0)
    texts = {agent: f"{agent}'s words" for agent in env.agents}
    for turn in range(1, 4):
        observations, rewards, *_ = env.step(texts)
        assert rewards == dict.fromkeys(texts, 0.0)
        for number, agent in enumerate(env.possible_agents):
            if number == turn:
                assert f"\nThe message of player_{turn - 1}: player\n" in observations[agent]
            else:
                assert observations[agent] == ""


def test_only_the_player_in_turn_is_asked_and_reads_its_whole_instruction_then(relay: Relay) -> None:
    observations, _ = relay.reset(seed=1)
    for turn, player in enumerate(relay.possible_agents):
        assert relay.agents == relay.possible_agents and relay.acting == [player]
        assert [agent for agent, text in observations.items() if text] == [player]
        assert observations[player].startswith(
            f"You are {player}, one of {relay.n_agents} players.\nWords: 1 "
        )
        observations, *_ = relay.step({player: "1"})
        assert relay.history[turn].responses == {**dict.fromkeys(relay.possible_agents, ""), player: "1"}
    assert relay.acting == relay.agents == [] and set(observations.values()) == {""}


def test_who_waits_changes_nothing_whatever_it_sends_and_the_player_in_turn_must_send() -> None:
    alone, talkative = Relay(), Relay()
    for env in (alone, talkative):
        env.reset(seed=3)
        with pytest.raises(ValueError, match=r"one text from each of \['player_0'\]: missing \['player_0'\]"):
            env.step({"player_1": "1", "player_2": "1"})
        with pytest.raises(TypeError, match="'player_2' must be a str, not int"):
            env.step({"player_0": "1", "player_2": 1})  # type: ignore[dict-item]
    while alone.agents:
        (player,) = alone.acting
        noise = {agent: "2 and more" for agent in talkative.agents if agent != player}
        assert alone.step({player: "2"}) == talkative.step({player: "2", **noise})
        assert alone.state() == talkative.state()


def test_agents_are_asked_once_each_in_an_evaluation() -> None:
    asked: list[str] = []

    def player(name: str) -> Callable[[str], str]:
        def answer(prompt: str) -> str:
            asked.append(name)
            return re.findall(r"(?:secret word is|message of player_\d:) (\S+)", prompt)[-1]

        return answer

    env = Relay()
    result = evaluate(env, {name: player(name) for name in env.possible_agents}, tasks=3, batch_size=1)
    assert asked == env.possible_agents * 3
    assert result.score == env.optimal_return
    assert [list(turn) for turn in result.episodes[0].turns] == [[name] for name in env.possible_agents]


@pytest.mark.parametrize("protocol", ["pipeline", "discussion"])
def test_a_protocol_lets_wait_who_waits_inside(protocol: Any) -> None:
    env = wrap(Relay(), protocol)
    env.reset(options={"task": "train/1"})
    asked, paid = [], 0.0
    while env.agents:
        asked += env.acting
        _, rewards, *_ = env.step(dict.fromkeys(env.acting, "2"))
        paid += rewards["player_0"]
    stages = 2 if protocol == "discussion" else 1
    assert asked == [player for player in env.possible_agents for _ in range(stages)]
    assert paid == 1.0


def test_only_the_first_player_reads_the_secret() -> None:
    env = Relay()
    observations, _ = env.reset(options={"task": 5})
    secret = env.task.data["secret"]
    told = f"The secret word is {secret + 1} {env.task.data['words'][secret]}."
    assert [told in text for text in observations.values()] == [True, False, False]


@pytest.mark.parametrize("capacity", [1, 3, 100])
def test_the_channel_holds_so_many_characters_of_any_kind(capacity: int) -> None:
    env = Relay(capacity=capacity, n_agents=2)
    message = "\x00\U0001f469é\ud800" + "x" * 200
    env.reset(seed=0)
    observations, *_ = env.step({"player_0": message, "player_1": ""})
    assert (
        observations["player_1"].split("The message of player_0: ")[1].startswith(message[:capacity] + "\n")
    )


def test_a_private_code_is_free_in_the_sparse_game_and_costs_in_the_dense_one() -> None:
    for dense, first in ((False, 0.0), (True, -1.0)):
        env = Relay(n_agents=2, dense=dense)
        env.reset(options={"task": "train/1"})
        assert env.step({"player_0": "@", "player_1": "1"})[1]["player_0"] == first
        *_, infos = env.step({"player_0": "1", "player_1": "it is 2"})
        assert infos["player_0"]["reward_terms"] == {"passed": 0, "answer": 1, "illegal": 0}


def test_dense_messages_are_cut_before_they_are_read_and_answers_are_not() -> None:
    env = Relay(n_agents=2, dense=True, capacity=5)
    env.reset(options={"task": "train/1"})
    *_, infos = env.step({"player_0": "word 2", "player_1": ""})
    assert infos["player_0"]["reward_terms"] == {"passed": 0, "answer": 0, "illegal": -1}
    assert env.step({"player_0": "", "player_1": "the word is 2"})[1]["player_1"] == 1.0


def test_junk_costs_the_player_in_turn_more_than_a_wrong_word(relay: Relay) -> None:
    for text, worth in (("junk", -1.0), ("wrong", 0.0)):
        relay.reset(options={"task": 0})
        wrong = relay.task.data["words"][1]
        total = 0.0
        while relay.agents:
            said = text if text == "junk" else wrong[: relay.capacity] if relay.capacity > 1 else "2"
            total += relay.step(dict.fromkeys(relay.agents, said))[1]["player_0"]
        assert total == worth * (relay.n_agents if relay.dense else 1)


@pytest.mark.parametrize(
    "arguments", [{"capacity": 0}, {"capacity": "8"}, {"capacity": True}, {"capacity": 1.5}]
)
def test_a_channel_without_capacity_is_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="capacity must be an integer of at least 1"):
        Relay(**arguments)


@pytest.mark.parametrize("arguments", [{"max_turns": 2}, {"max_cycles": 4}])
def test_another_number_of_turns_than_players_is_refused(arguments: dict) -> None:
    with pytest.raises(ValueError, match="one turn for each of its 3 players"):
        Relay(**arguments)
    assert Relay(max_turns=3).max_turns == Relay(max_cycles=3).max_turns == 3
