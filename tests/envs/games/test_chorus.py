"""Chorus: agreement pays, nothing but agreement, and positions are no convention."""

from __future__ import annotations

import pytest

from textmarl.envs.games.chorus import Chorus


def step(env: Chorus, *texts: str) -> dict[str, float]:
    env.reset(seed=0)
    return env.step(dict(zip(env.agents, texts, strict=True)))[4]["player_0"]["reward_terms"]


def test_the_share_of_agreeing_pairs_pays() -> None:
    env = Chorus()  # 4 players: 6 pairs
    for words, pairs in {
        "maple maple maple maple": 6,
        "maple maple maple cedar": 3,
        "maple maple cedar cedar": 2,
        "maple maple cedar birch": 1,
        "maple cedar birch tiger": 0,
    }.items():
        assert step(env, *words.split()) == {"agreement": pytest.approx(pairs / 6), "illegal": 0}


def test_all_or_nothing_pays_for_all() -> None:
    env = Chorus(n_agents=3, agreement="all")
    assert step(env, "cedar", "cedar", "cedar")["agreement"] == 1
    assert step(env, "cedar", "cedar", "maple")["agreement"] == 0


def test_equal_junk_is_no_agreement() -> None:
    assert step(Chorus(n_agents=3), "same", "same", "same") == {"agreement": 0, "illegal": -1}
    assert step(Chorus(n_agents=3), "maple", "maple", "same") == {
        "agreement": pytest.approx(1 / 3),
        "illegal": pytest.approx(-1 / 3),
    }


def test_sixteen_players_can_agree() -> None:
    env = Chorus(n_agents=16, n_actions=7)
    assert step(env, *["zebra"] * 16)["agreement"] == 1
    aliases = [env.names(agent).index("zebra") + 1 for agent in env.possible_agents]
    assert step(env, *map(str, aliases))["agreement"] == 1


def test_players_who_begin_with_their_own_name_say_the_word_and_not_their_number() -> None:
    env = Chorus()
    env.reset(seed=0)
    assert step(env, *(f"{agent}: maple" for agent in env.possible_agents))["agreement"] == 1


def test_the_same_number_for_all_is_never_the_same_word_where_there_are_words_enough() -> None:
    for number in "1234":
        assert step(Chorus(), *[number] * 4)["agreement"] == 0


def test_positions_are_worth_no_more_than_chance_over_varied_tasks() -> None:
    """32 + 128 tasks of one independent pair each: five standard deviations are allowed."""
    agreements = [
        env.payoffs([env.order(agent)[0] for agent in env.possible_agents])["agreement"]
        for split in ("train", "test")
        for env in [Chorus(split, n_agents=2, words="varied")]
        for task in env.tasks
        if env.reset(options={"task": task.id})
    ]
    deviation = (0.25 * 0.75 / len(agreements)) ** 0.5
    assert abs(sum(agreements) / len(agreements) - 0.25) < 5 * deviation


def test_players_hear_what_all_said_in_the_turn_before() -> None:
    env = Chorus(n_agents=2, max_turns=2)
    env.reset(seed=0)
    observations, *_ = env.step({"player_0": "1", "player_1": "1"})
    assert observations["player_0"].startswith("Turn 1: player_0 maple, player_1 cedar. Points: 0.")


def test_an_unknown_agreement_is_refused() -> None:
    with pytest.raises(ValueError, match='"pairs" or "all", not \'most\''):
        Chorus(agreement="most")  # type: ignore[arg-type]
