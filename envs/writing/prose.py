"""Reading a text without a model: its words, sentences, word order, and what it took from another text.

What the hardened reward measures is built from the functions here. They are deterministic, use nothing beyond
the standard library and this package's data files, and take any `str`.

*Words* are runs of letters and digits, lower-cased, with apostrophes inside ("don't"). A *sentence* ends at
`.`, `!`, `?` or a line break. A *stem* is a word without the commonest English endings. *Content words* are
the stems of words that are no function words (version 0's `stop_words.txt`). Those of them that are no common
words of their kind of text either (`v1/common_words_*.txt`) tell one source from another.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from textmarl.envs.writing.rewards import stop_words

BREAK, PAUSE = ".", ","  # the two classes of punctuation

_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[.!?]+(?=[\s\"'”’)\]]|$)|[\n\r]|[,;:()–—]")
_ENDINGS = (
    ("sses", "ss"),
    ("edly", ""),
    ("ings", ""),
    ("ies", "y"),
    ("ied", "y"),
    ("ely", "e"),
    ("ing", ""),
    ("ers", ""),
    ("ed", ""),
    ("ly", ""),
    ("er", ""),
    ("es", ""),
    ("s", ""),
)
_CLASS_ENDINGS = ("tion", "ness", "ment", "ing", "ed", "ly", "s")
_PSEUDOCOUNT = 1.0  # keeps the logarithm of a pair never seen finite
_SKIP_WEIGHT = 0.5  # pairs with one token between them say less than neighbours
_GAP = 3  # words of the source that one step of a copied passage may advance: two may be left out
_PASSAGE = 6  # words from which on a passage counts as copied
ONE = 1 << 32  # one word of a passage's length, where a number holds it and the index at which it began


@dataclass(frozen=True)
class Transitions:
    """The transition phrases of a text.

    Attributes:
        categories: the categories whose phrases connect something: three other words of the sentence
            follow, and something precedes (an earlier sentence, or three other words of this one).
        share: share of the words that belong to transition phrases.
    """

    categories: frozenset[str]
    share: float


@dataclass(frozen=True)
class Prose:
    """One text, read once.

    Attributes:
        words: every word, in order.
        stems: the stem of every word.
        is_content: for every word, whether it is a content word.
        sentences: (first, last + 1) word index of every sentence that has words.
        classes: word classes and punctuation, from one sentence break to the last (see `word_order`).
        content: the distinct content words.
        positions: stem -> its word indices.
    """

    words: tuple[str, ...]
    stems: tuple[str, ...]
    is_content: tuple[bool, ...]
    sentences: tuple[tuple[int, int], ...]
    classes: tuple[str, ...]
    content: frozenset[str]
    positions: Mapping[str, Sequence[int]]

    @functools.cached_property
    def triples(self) -> frozenset[tuple[str, ...]]:
        """Every three stems in a row, across sentence breaks."""
        return frozenset(zip(self.stems, self.stems[1:], self.stems[2:], strict=False))

    @functools.cached_property
    def content_stems(self) -> tuple[str, ...]:
        """Its content words, in order, with repetitions."""
        return tuple(itertools.compress(self.stems, self.is_content))

    @functools.cached_property
    def content_positions(self) -> Mapping[str, Sequence[int]]:
        """Content word -> its indices in `content_stems`."""
        positions: dict[str, list[int]] = {}
        for index, s in enumerate(self.content_stems):
            positions.setdefault(s, []).append(index)
        return positions

    @functools.cached_property
    def neighbours(self) -> frozenset[tuple[str, str]]:
        """Every two different content words of which one is the next after the other."""
        stems = self.content_stems
        return frozenset((one, other) for one, other in itertools.pairwise(stems) if one != other)

    @functools.cached_property
    def joints(self) -> frozenset[tuple[str, str]]:
        """(word before it, stem) for every content word but the first word."""
        rows = zip(self.words, self.stems[1:], self.is_content[1:], strict=False)
        return frozenset((before, s) for before, s, counts in rows if counts)

    @functools.cached_property
    def content_pairs(self) -> int:
        """Pairs of successive content words within a sentence, whether the source has them or not."""
        return sum(max(0, self.is_content[start:end].count(True) - 1) for start, end in self.sentences)

    @functools.cached_property
    def transitions(self) -> Transitions:
        """Its transition phrases."""
        return _transitions(self)

    def sentence_triples(self) -> Iterator[tuple[str, ...]]:
        """Three stems in a row within a sentence, with repetitions."""
        for start, end in self.sentences:
            stems = self.stems[start:end]
            yield from zip(stems, stems[1:], stems[2:], strict=False)


def read(text: str) -> Prose:
    """Splits a text into what the measures need. Linear in its length."""
    words: list[str] = []
    stems: list[str] = []
    is_content: list[bool] = []
    sentences: list[tuple[int, int]] = []
    classes = [BREAK]
    start = 0
    tokens = _TOKEN.findall(text.lower().replace("’", "'"))
    for token, (own_class, own_stem, counts) in zip(tokens, map(_word, tokens), strict=True):
        if own_stem:
            words.append(token)
            stems.append(own_stem)
            is_content.append(counts)
            classes.append(own_class)
        elif own_class == PAUSE:
            if classes[-1] not in (BREAK, PAUSE):
                classes.append(PAUSE)
        elif len(words) > start:
            sentences.append((start, len(words)))
            start = len(words)
            classes.append(BREAK)
    positions: dict[str, list[int]] = {}
    for index, own_stem in enumerate(stems):
        positions.setdefault(own_stem, []).append(index)
    if len(words) > start:
        sentences.append((start, len(words)))
        classes.append(BREAK)
    return Prose(
        words=tuple(words),
        stems=tuple(stems),
        is_content=tuple(is_content),
        sentences=tuple(sentences),
        classes=tuple(classes),
        content=frozenset(itertools.compress(stems, is_content)),
        positions=positions,
    )


@functools.lru_cache(maxsize=65536)
def _word(token: str) -> tuple[str, str, bool]:
    """Class and stem of a token, and whether it is a content word; of punctuation the class alone."""
    if not token[0].isalnum():
        return PAUSE if token in ",;:()–—" else BREAK, "", False
    return word_class(token), stem(token), token.split("'", 1)[0] not in stop_words()


@functools.lru_cache(maxsize=1024)
def read_source(text: str) -> Prose:
    """`read`, remembered: a source is read by many answers."""
    return read(text)


@functools.lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The lower-case word without a common English ending; short words and numbers as they are.

    Crude on purpose: it need only map most forms of a word to one key ("parking", "parked" -> "park").
    """
    word = word.removesuffix("'s").replace("'", "")
    if len(word) <= 3 or not word.isalpha():
        return word
    for ending, replacement in _ENDINGS:
        kept = len(word) - len(ending) + len(replacement)
        if kept >= 3 and word.endswith(ending) and not (ending == "s" and word.endswith("ss")):
            word = word[: len(word) - len(ending)] + replacement
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]
    if len(word) > 3 and word[-1] == "e":
        word = word[:-1]
    return word[:-1] + "i" if word[-1] == "y" else word


# --------------------------------------------------------------------------------------------- word order


@functools.lru_cache(maxsize=65536)
def word_class(word: str) -> str:
    """A function word is a class of its own; other words are classed by ending or apostrophe."""
    if word in stop_words():
        return word
    before, apostrophe, _ = word.partition("'")
    if apostrophe:
        if word.endswith("n't"):
            return "n't"
        return "pronoun'" if before in stop_words() else "noun's"
    if word[0].isdigit():
        return "#"
    for ending in _CLASS_ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 2 and not word.endswith("ss"):
            return "-" + ending
    return "-"


@dataclass(frozen=True)
class WordOrderTable:
    """Counts of neighbouring word classes, as fixed for version 1 (`v1/word_order.json`).

    Attributes:
        pairs: (a, b) -> log of observed over expected count, b right after a, for pairs that were seen.
        skip_pairs: the same with one token between a and b.
        classes: class -> its relative frequency times the square root of all tokens counted, so that the
            product of two is the count expected of the pair if order meant nothing.
    """

    pairs: Mapping[tuple[str, str], float]
    skip_pairs: Mapping[tuple[str, str], float]
    classes: Mapping[str, float]


@functools.cache
def word_order_table() -> WordOrderTable:
    """The table behind `word_order`."""
    data = json.loads(_data("word_order.json"))
    total = sum(data["classes"].values())
    classes = {name: count / math.sqrt(total) for name, count in data["classes"].items()}

    def information(rows: Mapping[str, Mapping[str, int]]) -> dict[tuple[str, str], float]:
        return {
            (a, b): math.log((count + _PSEUDOCOUNT) / (classes[a] * classes[b] + _PSEUDOCOUNT))
            for a, row in rows.items()
            for b, count in row.items()
        }

    return WordOrderTable(information(data["pairs"]), information(data["skip_pairs"]), classes)


def word_order(prose: Prose) -> float:
    """Mean information, in nats, that each token's class holds about the next one and the one after.

    Church & Hanks (1990): pointwise mutual information of a pair is log(observed / expected). Here over
    classes of words, neighbours in full and pairs with one token between them by half, averaged over the
    text. What each class is worth by its mere frequency cancels, so words in random order come out at or
    below 0 whatever the words are; English prose at 0.2 to 0.8. 0 for a text without words.
    """
    table, classes = word_order_table(), prose.classes
    if len(classes) < 2:
        return 0.0
    expected = table.classes
    total = 0.0
    for seen, step, weight in ((table.pairs, 1, 1.0), (table.skip_pairs, 2, _SKIP_WEIGHT)):
        part = 0.0
        for pair in zip(classes, classes[step:], strict=False):
            value = seen.get(pair)
            if value is None:
                a, b = pair
                value = -math.log1p(expected.get(a, 0.0) * expected.get(b, 0.0) / _PSEUDOCOUNT)
            part += value
        total += weight * part
    return total / (len(classes) - 1)


# ------------------------------------------------------------------------------------- taken from another text


def copied_passages(prose: Prose, source: Prose) -> float:
    """Share of the words that stand in a passage copied from the source, also when it was thinned or edited.

    A passage is six words or more that follow each other in the source in the same order, where each step
    may leave out up to two words of the source and have one word of its own in between. It begins at a
    content word. So dropping every second word or replacing every third leaves a copy a copy.

    Returns:
        A share in [0, 1]; 1 for a text without words.
    """
    count = len(prose.stems)
    if not count:
        return 1.0
    copied = bytearray(count)
    # Source position that a passage may go on to -> its length in units of ONE plus where it began, after the
    # last word and after the one before. The greater number is the longer passage, then the later one.
    before: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, (word, begins) in enumerate(zip(prose.stems, prose.is_content, strict=True)):
        # A word of its own has no place in the source and ends what it does not stand within.
        places = source.positions.get(word, ())
        if not begins:
            places = [position for position in places if position in last or position in before]
        following: dict[int, int] = {}
        for position in places:
            passage = last.get(position, 0)
            if position in before and before[position] > passage:
                passage = before[position]
            passage = (passage or index) + ONE
            if passage >= _PASSAGE * ONE:
                began = passage % ONE
                copied[began : index + 1] = b"\x01" * (index + 1 - began)
            for step in range(position + 1, position + 1 + _GAP):
                if step not in following or passage > following[step]:
                    following[step] = passage
        before, last = last, following
    return sum(copied) / count


def copied_triples(prose: Prose, source: Prose) -> float:
    """Share of the three-word runs within sentences that occur in the source; 1 where there are none."""
    triples = list(prose.sentence_triples())
    return sum(map(source.triples.__contains__, triples)) / len(triples) if triples else 1.0


def closeness(prose: Prose, source: Prose) -> tuple[float, int]:
    """How near each other successive content words of the text are in the source.

    Words that belong together in an account of the source stood close in it; words drawn from it at random
    did not. A pair of words that are d words apart in a source of n words counts exp(-16 d / n): 1 for
    neighbours, 0.37 a sixteenth of the source apart, about 0.1 on average for words drawn at random.

    Returns:
        (sum over the pairs, number of pairs): successive content words of a sentence, both in the source and
        different.
    """
    decay = -16.0 / max(1, len(source.words))
    near, total = 0.0, 0
    for start, end in prose.sentences:
        previous = None
        for index in range(start, end):
            word = prose.stems[index]
            if not prose.is_content[index] or word not in source.positions:
                continue
            if previous is not None and previous != word:
                total += 1
                here = source.positions[word]
                near += math.exp(decay * min(abs(a - b) for a in source.positions[previous] for b in here))
            previous = word
    return near, total


def repeated_triples(prose: Prose) -> float:
    """Share of the three-word runs that occurred before in the same text; 0 for very short texts."""
    total = len(prose.stems) - 2
    return 1.0 - len(prose.triples) / total if total > 0 else 0.0


def repeated_words(prose: Prose) -> float:
    """Share of the content words that the most frequent one of them makes up; 0 for a text without any."""
    counts = Counter(prose.content_stems)
    return max(counts.values()) / len(prose.content_stems) if counts else 0.0


# ----------------------------------------------------------------------------------------------- transitions


def _transitions(prose: Prose) -> Transitions:
    """Finds the transition phrases, as whole words; the longest phrase wins and phrases do not overlap."""
    phrases = _phrases_by_first_word()
    connecting: set[str] = set()
    words = prose.words
    in_phrases = 0
    for number, (start, end) in enumerate(prose.sentences):
        hits: list[tuple[int, int, str]] = []
        free = start
        for index in [i for i in range(start, end) if words[i] in phrases]:
            if index < free:
                continue
            for phrase, category in phrases[words[index]]:
                if words[index : index + len(phrase)] == phrase and index + len(phrase) <= end:
                    free = index + len(phrase)
                    hits.append((index, free, category))
                    break
        in_phrases += sum(last - first for first, last, _ in hits)
        starts = [first for first, _, _ in hits]
        previous = start
        for (first, last, category), following in zip(hits, [*starts[1:], end], strict=False):
            has_before = first - previous >= 3 or (first == start and number > 0)
            if following - last >= 3 and has_before:
                connecting.add(category)
            previous = last
    return Transitions(frozenset(connecting), in_phrases / len(words) if words else 0.0)


@functools.cache
def _phrases_by_first_word() -> Mapping[str, tuple[tuple[tuple[str, ...], str], ...]]:
    table: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for category, phrases in transition_phrases().items():
        for phrase in phrases:
            split = tuple(word for word in re.findall(r"[^\W_]+", phrase))
            table.setdefault(split[0], []).append((split, category))
    return {first: tuple(sorted(found, key=lambda f: -len(f[0]))) for first, found in table.items()}


@functools.cache
def transition_phrases() -> Mapping[str, tuple[str, ...]]:
    """The 12 transition categories and their phrases, as fixed for version 1."""
    return {name: tuple(phrases) for name, phrases in json.loads(_data("transitions.json")).items()}


@functools.cache
def common_words(kind: str) -> frozenset[str]:
    """Stems that occur in many sources of a kind and so say little about one, as fixed for version 1.

    Args:
        kind: "tldr" or "arxiv".
    """
    return frozenset(_data(f"common_words_{kind}.txt").split())


def _data(name: str) -> str:
    return resources.files("textmarl.envs.writing").joinpath("data", "v1", name).read_text(encoding="utf-8")
