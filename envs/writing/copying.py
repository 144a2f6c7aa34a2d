"""What a text took from another where it was put out of the way: behind fillers, in another order, in frames.

`textmarl.envs.writing.prose` finds copies that are words in a row. The measures here look past what a writer who is
paid for breaking up such rows puts between the words or does to their order.
"""

from __future__ import annotations

import itertools

from textmarl.envs.writing.prose import ONE, Prose
from textmarl.envs.writing.rewards import stop_words

_TRAIN = 5  # content words from which on a train of them counts as copied
_STEP = 2  # content words of the source that one step of a train may advance: one may be left out
_BETWEEN = 2  # own content words that may stand between two of a train
_GATHERED = 6  # words in a row of a text that count as copied in any order ...
_SPAN = 9  # ... if so many words in a row of the source hold them all


def copied_trains(prose: Prose, source: Prose) -> float:
    """Share of the content words that stand in a train of them copied from the source, whatever stands between.

    A train is five content words or more that follow each other among the content words of the source in the same
    order, where each step may leave out one of the source and have up to two own ones in between. So a copy with
    a filler phrase after every few words is a copy, and so are the source's keywords set into a frame.

    Returns:
        A share in [0, 1]; 1 for a text without content words.
    """
    stems, known = prose.content_stems, source.content_positions
    if not stems:
        return 1.0
    copied = bytearray(len(stems))
    # Place of the source that a train may go on to -> its length in units of ONE plus where it began, after each of
    # the last words. The greater number is the longer train, then the later one.
    recent: tuple[dict[int, int], ...] = ({},) * (_BETWEEN + 1)
    for index, word in enumerate(stems):
        following: dict[int, int] = {}
        for position in known.get(word, ()):
            train = 0
            for steps in recent:
                if position in steps and steps[position] > train:
                    train = steps[position]
            train = (train or index) + ONE
            if train >= _TRAIN * ONE:
                began = train % ONE
                copied[began : index + 1] = b"\x01" * (index + 1 - began)
            for step in range(position + 1, position + 1 + _STEP):
                if step not in following or train > following[step]:
                    following[step] = train
        recent = (following, *recent[:-1])
    return sum(copied) / len(stems)


def copied_gatherings(prose: Prose, source: Prose) -> float:
    """Share of the words that stand in a copied gathering: six in a row that nine in a row of the source hold.

    The order does not count, so a copy whose neighbouring words or phrases changed places is a copy.

    Returns:
        A share in [0, 1]; 1 for a text without words.
    """
    stems, known = prose.stems, source.positions
    if not stems:
        return 1.0
    copied = bytearray(len(stems))
    known_before = 0
    for end, word in enumerate(stems, 1):
        known_before = known_before + 1 if word in known else 0
        start = end - _GATHERED
        if known_before < _GATHERED:
            continue
        wanted = set(stems[start:end])
        contents = [
            s for s, counts in zip(stems[start:end], prose.is_content[start:end], strict=True) if counts
        ]
        rarest = min(contents, key=lambda s: len(known[s]), default="")
        if any(_gathered(wanted, source, position) for position in known.get(rarest, ())):
            copied[start:end] = b"\x01" * _GATHERED
    return sum(copied) / len(stems)


def _gathered(wanted: set[str], source: Prose, position: int) -> bool:
    """Whether nine words in a row of the source, among them the one at a position, are all that is wanted."""
    first = max(0, position - _SPAN + 1)
    around = source.stems[first : position + _SPAN]
    if not wanted.issubset(around):
        return False
    return any(wanted.issubset(around[start : start + _SPAN]) for start in range(position - first + 1))


def lifted_words(prose: Prose, source: Prose) -> float:
    """Share of the content words that were lifted in pairs out of the source, out of what joined them there.

    It is the share of the content words beside a neighbour that they have in the source, too (all in the source's
    order, or all against it, whichever is more), times the share of the source's words after a function word that
    stand after none that they stand after in the source. Who reads and retells keeps articles and prepositions,
    or the pairs fall apart; who sets keywords into ready-made sentences does neither.

    Returns:
        A share in [0, 1]; 1 for a text without content words.
    """
    stems, pairs = prose.content_stems, source.neighbours
    if not stems:
        return 1.0
    forwards, backwards = set[int](), set[int]()
    for index, (one, other) in enumerate(itertools.pairwise(stems)):
        if (one, other) in pairs:
            forwards.update((index, index + 1))
        if (other, one) in pairs:
            backwards.update((index, index + 1))
    paired = max(len(forwards), len(backwards))
    after = joined = 0
    functional = stop_words()
    for before, s, counts in zip(prose.words, prose.stems[1:], prose.is_content[1:], strict=False):
        if counts and before in functional and s in source.positions:
            after += 1
            joined += (before, s) in source.joints
    return paired / len(stems) * (1.0 - (joined / after if after else 1.0))
