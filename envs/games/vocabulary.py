"""What the games are played with: action words, their one-character aliases, how a text is read, task splits.

**How a text is read.** A text is cut into words: runs of letters or runs of digits; everything else, the
underscore too, separates. Case does not matter. The first word that is an action's name is the action; the rest
of the text is ignored. Only where no action's name occurs does an alias count, the first one, and the number of a
player (`player_1`, "player 1") is none: to begin with one's own name, or with "1.", plays nothing by itself. A text
without such a word plays no action.

    >>> names = ["maple", "cedar", "birch"]
    >>> [read_action(text, names) for text in ("cedar", "2", "I choose **Cedar**, not maple.", "option2!")]
    [1, 1, 1, 1]
    >>> [read_action(text, names) for text in ("player_1: cedar", "1. cedar", "player_1: 2")]
    [1, 1, 1]
    >>> [read_action(text, names) for text in ("", "cedars", "12", "oak", "player_1")]
    [None, None, None, None, None]
    >>> read_action("maple cedar birch", names)  # all at once is the first one, no more
    0
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from textmarl.envs.tasks import Task, TaskSet, parse_split

ALIASES = "123456789bcefghjklnpqruvwxyz"
"""The alias of the first, second, ... action on an agent's list.

Letters that stand alone in English sentences (a, i, o, and d, m, s, t after an apostrophe) are left out: prose
would play them.
"""

MAX_ACTIONS = len(ALIASES)

# All of five letters, so that what an agent reads in one game always has the same length: a small model can
# learn where in it to look.
_TRAIN = (
    "maple cedar birch tiger zebra horse sheep goose eagle robin raven otter camel panda koala whale "
    "river ocean beach cliff field grove cabin tower chair table clock radio piano flute viola brush "
    "paper chalk spoon knife plate glass towel shirt scarf glove crown jewel pearl amber ivory coral "
    "stone brick steel cloud storm comet spark flame ember smoke lemon mango peach grape melon olive"
)
_TEST = (
    "aspen hazel bread toast sugar honey cream flour salad pasta apple onion shark trout snail moose "
    "llama gecko canoe ferry wagon truck plane hotel attic bench couch quilt apron denim linen satin "
    "opera canal medal torch"
)
WORDS: Mapping[str, tuple[str, ...]] = {"train": tuple(_TRAIN.split()), "test": tuple(_TEST.split())}
"""The action words of each split; no word is in both."""

_WORD = re.compile(r"[^\W\d_]+|\d+")
_PLAYER = re.compile(r"(?<![^\W\d_])player[ _-]?\d+", re.IGNORECASE)


def read_action(text: str, names: Sequence[str]) -> int | None:
    """The position in `names` of the action that a text plays, or None (see the module's description).

    Args:
        text: any text; none raises.
        names: lower-case action names in the order in which the agent reads them; the alias of the i-th is
            `ALIASES[i]`.
    """
    aliases = ALIASES[: len(names)]
    for actions, read in ((names, text), (aliases, _PLAYER.sub(" ", text))):
        positions = {action: position for position, action in enumerate(actions)}
        for word in _WORD.finditer(read):
            position = positions.get(word.group().casefold())
            if position is not None:
                return position
    return None


def listed(names: Sequence[str]) -> str:
    """The list that agents read: "1 maple, 2 cedar, 3 birch"."""
    return ", ".join(f"{alias} {name}" for alias, name in zip(ALIASES, names, strict=False))


def shuffled(items: Sequence[Any], *key: object) -> list[Any]:
    """`items` in an order that is a function of `key` alone, the same in every process and with every library."""
    prefix = "/".join(map(str, key))
    order = sorted(range(len(items)), key=lambda index: hashlib.sha256(f"{prefix}/{index}".encode()).digest())
    return [items[index] for index in order]


def word_lists(split: str, length: int, count: int, seed: int) -> list[tuple[str, ...]]:
    """`count` different lists of `length` different words of a split, in an order of their own."""
    found: dict[tuple[str, ...], None] = {}
    draw = 0
    while len(found) < count:
        found[tuple(shuffled(WORDS[split], seed, split, draw)[:length])] = None
        draw += 1
    return list(found)


def task_set(game: str, split: str, rows: Callable[[str], Sequence[Mapping[str, Any]]]) -> TaskSet:
    """The tasks of one split, numbered "train/0", "train/1", ... or named by their column `id`.

    Args:
        game: what messages call the set.
        split: "train", "test", or a slice of one of them, such as "train[:16]".
        rows: the columns of all tasks of "train" or of "test".

    Raises:
        LookupError: there is no such split. ValueError: it is written wrongly, or nothing is left of it.
    """
    name, part = parse_split(split)
    if name not in WORDS:
        raise LookupError(f"{game} has no split {name!r}; it has {sorted(WORDS)}: choose one by split=.")
    tasks = [Task(str(row.get("id", f"{name}/{index}")), row) for index, row in enumerate(rows(name))]
    return TaskSet(tasks[part], name=game, split=split)
