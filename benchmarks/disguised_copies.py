"""Copies of the source that were broken up, so that no row of its words is left: more kinds of `writing_junk`.

- `DISGUISED`: copies that version 1 sees through.
- `MISSED`: copies that get through on some sources, to say how much is missed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from textmarl.benchmarks.writing_junk import Kind, Pair, Post
from textmarl.envs.writing.rewards import stop_words

FILLERS = (
    "I think",
    "you know",
    "of course",
    "in a way",
    "as it was",
    "to be sure",
    "it is that",
    "so they say",
    "as I said",
    "for the most part",
)
FRAMES = (
    "There was a {} with the {} and the {}.",
    "However, they had the {} in the {} because of the {}.",
    "So it was about the {} and a {} that was {}.",
    "For example, the {} of the {} was the {}.",
    "After that, he was with the {} and her {} by the {}.",
    "I think that the {} is a {} for them.",
    "In the end, she said the {} and the {} were {}.",
)


def _runs(words: Sequence[str], size: int) -> list[list[str]]:
    return [list(words[start : start + size]) for start in range(0, len(words), size)]


def _cut(post: Post, words: Sequence[str]) -> Pair:
    """Both texts from one list of words, the second from where the first ends; from the start where it is too short."""
    need = post.short + post.long
    ring = list(words) * (need // max(1, len(words)) + 1)
    return " ".join(ring[: post.short]), " ".join(ring[post.short : need])


def _filled(runs: Sequence[Sequence[str]], rng: random.Random) -> list[str]:
    return [word for run in runs for word in (*run, *rng.choice(FILLERS).split())]


def _framed(post: Post, pieces: Sequence[str], rng: random.Random) -> Pair:
    """Frames filled with the pieces in their order; the second text goes on where the first ends."""
    following: Iterator[str] = iter(list(pieces) * 30)

    def fill(count: int) -> str:
        out: list[str] = []
        start = rng.randrange(len(FRAMES))
        while sum(len(sentence.split()) for sentence in out) < count:
            frame = FRAMES[(start + len(out)) % len(FRAMES)]
            out.append(frame.format(*(next(following) for _ in range(frame.count("{}")))))
        return " ".join(out)

    return fill(post.short - 4), fill(post.long - 4)


def _content(post: Post) -> list[str]:
    """The content words of the source, in its order, with repetitions."""
    words = re.findall(r"[^\W_]+", " ".join(post.tokens))
    return [word for word in words if word.lower() not in stop_words()] or ["nothing"]


def filler_phrases(post: Post, rng: random.Random) -> Pair:
    """The source with a filler after every four words ("you know", "of course")."""
    return _cut(post, _filled(_runs(post.tokens, 4), rng))


def exchanged_runs(post: Post, rng: random.Random) -> Pair:
    """The source with every three words and the three after them exchanged."""
    del rng
    runs = _runs(post.tokens, 3)
    return _cut(post, [word for i in range(0, len(runs) - 1, 2) for word in (*runs[i + 1], *runs[i])])


def interleaved_halves(post: Post, rng: random.Random) -> Pair:
    """Three words of the source's first half and three of its second in turn."""
    del rng
    half = len(post.tokens) // 2
    both = zip(_runs(post.tokens[:half], 3), _runs(post.tokens[half:], 3), strict=False)
    return _cut(post, [word for one, other in both for word in (*one, *other)])


def keywords_in_frames_in_order(post: Post, rng: random.Random) -> Pair:
    """Grammatical sentences filled with the source's content words in their order."""
    return _framed(post, _content(post), rng)


def word_pairs_in_frames(post: Post, rng: random.Random) -> Pair:
    """The same with two content words at a time: the first version of this reward paid up to its maximum for it."""
    return _framed(post, [" ".join(run) for run in _runs(_content(post), 2)], rng)


def filler_phrases_and_gaps(post: Post, rng: random.Random) -> Pair:
    """Eight words of the source, a filler after every four, the next four left out, and so on."""
    runs = _runs(post.tokens, 4)
    return _cut(post, _filled([run for i, run in enumerate(runs) if i % 3 < 2], rng))


def word_pairs_in_frames_with_gaps(post: Post, rng: random.Random) -> Pair:
    """Two pairs of content words in frames, the next three words left out, and so on."""
    words = _content(post)
    kept = [word for i, word in enumerate(words) if i % 7 < 4]
    return _framed(post, [" ".join(run) for run in _runs(kept, 2)], rng)


DISGUISED: tuple[Kind, ...] = (
    filler_phrases,
    exchanged_runs,
    interleaved_halves,
    keywords_in_frames_in_order,
    word_pairs_in_frames,
)
MISSED: tuple[Kind, ...] = (filler_phrases_and_gaps, word_pairs_in_frames_with_gaps)
