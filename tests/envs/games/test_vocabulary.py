"""How a text is read as an action."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textmarl.envs.games.vocabulary import ALIASES, read_action, shuffled, task_set, word_lists

NAMES = ["maple", "cedar", "birch"]


@pytest.mark.parametrize(
    "text, action",
    [
        ("maple", 0),
        ("CEDAR", 1),
        (" \n**Birch**.", 2),
        ("2", 1),
        ("option 3: of course", 2),
        ("option3", 2),
        ("_2_", 1),
        ("I take cedar, not maple", 1),
        ("maple cedar birch", 0),
        ("1 2 3", 0),
        ("I am sure, but a player who isn't: cedar", 1),
        ("{'action': 'birch'}", 2),
        ("", None),
        ("oak", None),
        ("maples", None),
        ("ma ple", None),
        ("12", None),
        ("4", None),
        ("0", None),
        ("b", None),
        ("\u0662 \uff12 \u00b2", None),  # other scripts' digits are no aliases
        ("\x00\ud800maple\udfff", 0),
        ("1. birch", 2),  # a name counts before any alias
        ("e.g. birch", 2),
        ("2 of us: CEDAR", 1),
        ("player_1: birch", 2),
        ("player_1: 3", 2),  # who is speaking is no alias
        ("Player 1 plays 3", 2),
        ("I, player2, say 1", 0),
        ("players 2", 1),
        ("player: 2", 1),
        ("player_1", None),
    ],
)
def test_the_first_name_of_an_action_counts_and_else_the_first_alias(text: str, action: int | None) -> None:
    assert read_action(text, NAMES) == action


def test_every_action_of_the_longest_list_has_an_alias_that_prose_does_not_contain() -> None:
    names = word_lists("train", len(ALIASES), 1, seed=0)[0]
    assert [read_action(alias.upper(), names) for alias in ALIASES] == list(range(len(ALIASES)))
    prose = "I'd say it's a good idea; don't you think, I'm told that O. is one?"
    assert read_action(prose, names) is None


@given(st.text(alphabet=st.characters()))
def test_no_text_raises_and_what_follows_an_action_does_not_matter(text: str) -> None:
    first = read_action(text, NAMES)
    assert first is None or first in range(3)
    if first is not None:
        assert read_action(f"{text} 3", NAMES) == first
    named = read_action(f"{text} maple cedar", NAMES)
    assert named == 0 or named == first
    assert read_action(f"cedar {text}", NAMES) == 1


def test_a_letter_is_an_alias_only_where_no_name_occurs() -> None:
    names = word_lists("train", 12, 1, seed=0)[0]
    letter = ALIASES[11]
    assert read_action(f"{letter}.g. {names[3]}", names) == 3
    assert read_action(f"{letter}.g. none", names) == 11


def test_an_order_depends_on_its_key_and_on_every_part_of_it() -> None:
    items = list(range(20))
    assert shuffled(items, 0, "train") == shuffled(items, 0, "train")
    assert sorted(shuffled(items, 1)) == items
    assert len({tuple(shuffled(items, seed, name)) for seed in range(5) for name in ("train", "test")}) == 10


def test_lists_and_tasks_are_distinct() -> None:
    assert len(set(word_lists("train", 2, 128, seed=3))) == 128
    tasks = task_set("Game", "test[2:4]", lambda name: [{"words": name, "n": n} for n in range(9)])
    assert [task.id for task in tasks] == ["test/2", "test/3"]
