"""The hardened reward of the writing tasks (version 1): two texts and their source in, ten named terms out.

Version 0 never reads the source: unrelated words and a list of connectives earn 2.9 of its 3 points. Version 1
keeps the levels and weights of version 0, which reward two texts that fit each other, and multiplies what they
earn by five factors in [0, 1] that ask whether there is anything in the texts to reward:

    score = form * faithfulness * originality * fluency * repetition * distinctness        (0 to 3)

*Form* is the sum of five terms, with version 0's weights and gates. A level outside its ramp ends the form.

| Term          | Quantity                                                  | Value                         |
|---------------|-----------------------------------------------------------|-------------------------------|
| `structure`   | words of c1 and of c2 in the range                        | 0.5, else the score is 0      |
| `length`      | letters and digits of c2 / those of c1                    | up to 1 on a ramp             |
| `vocabulary`  | distinct words of c2 / those of c1                        | up to 0.5 on a ramp           |
| `transitions` | k categories of transitions that connect (see below)      | 0.4 min(1, k / K)             |
| `overlap`     | Jaccard index of the two sets of content words            | up to 0.6, lower *and* upper bound |

*The factors* appear among the terms as what they cost, 0 or negative and in this order, so that all ten terms
add up to the score: with form F, `faithfulness` is -F (1 - f), `originality` is -F f (1 - o), and so on.

In the formulas, rise(x; a, b) goes linearly from 0 at a to 1 at b, and fall = 1 - rise. A factor of two texts
with the values p and q is 0.15 (p + q) + 0.7 sqrt(p q): close to the geometric mean, so that one honest text
cannot carry another, yet not flat for the agent whose partner still fails.

| Factor         | Of each text                                                                               |
|----------------|--------------------------------------------------------------------------------------------|
| `faithfulness` | rise(share of the specific words that the source has) min(1, their number / wanted)        |
|                | and of the pair: rise(closeness; 0.24, 0.37) rise(density; 0.12, 0.2) rise(mass; 8, 10.7) (ArXiv: 22, 32) |
| `originality`  | the smallest of fall(copied passages; 0.25, 1), fall(copied triples; 0.2, 0.65),           |
|                | fall(copied trains; 0.6, 0.93), fall(copied gatherings; 0.3, 0.95), fall(lifted words; 0.42, 0.6) |
| `fluency`      | rise(word order; 0.1, 0.26) rise(words in sentences of 4 to 60 words; 0.4, 0.8)           |
|                | rise(function words; 0.24, 0.37) fall(punctuation; 0.18, 0.24) fall(words in transitions; 0.15, 0.25) |
| `repetition`   | fall(repeated triples; 0.1, 0.4) fall(share of the most frequent content word; 0.3, 0.6)   |
| `distinctness` | of the pair: fall(what c1 takes from c2; 0.4, 0.8), in passages or triples                 |

`textmarl.envs.writing.prose` and `textmarl.envs.writing.copying` define each quantity. *Mass* is the sum of exp(-16 d / n) over successive content
words that the source of n words has too, d words apart; *closeness* is mass per such pair, *density* mass per
pair of content words of any kind. So it is not enough to use words of the source, nor to use many: words used
together must have stood together.

The lower bounds of support, density and mass are a moat. A search that sees nothing but the score climbs any
slope that it finds, and with a slope down to 0 it found its way to the maximum with word salad. Now nothing
pays that sentences about something else reach by chance: of 17,000 pairs of such texts on 17 posts none has a
mass above 3.6, content words of the source in random places have at most 6, and the good pairs at least 10.7.

**What a small model finds.** It begins on the other side of the moat: of an untrained 135M model's answers to
the 32 bundled test posts (64 new tokens) 57 % score above 0, and of eight to the same post at least one does
97 times in a hundred.

**How much copying is acceptable.** Everything up to 25 % of the words in passages of six words or more and 20
% of the three-word runs, nothing at 100 %. People's summaries keep a part of the source's wording: the
summaries bundled with TLDR have 6 % of their three-word runs from the post in the median and 17 % at the 95th
percentile, the good pairs of the tests at most 20 %, with 24 % of the words in passages. The free share is
set there, at the upper end of what people do when they write in own words; summaries of news, which follow
their article more closely, copy about a quarter (Narayan et al. 2018 count the novel n-grams of CNN,
DailyMail and XSum) and lose a little. Above the free share the factor falls slowly, and a last slope reaches
down to the full copy: a small model begins by copying and must be able to find its way out.

**What is a copy.** Passages and triples are copied words in a row, also thinned out. A learner that pays for these
breaks the rows up: with a filler after every few words ("you know"), by exchanging neighbours, or by setting the
source's words into sentences of its own that fit any words. So three more measures look past what was put between
(*trains* of content words), past the order (*gatherings*) and at words taken in pairs but not with what joined
them (*lifted words*). Their bounds are set beyond the good pairs, which have at most 60 %, 27 % and 32 %.

**Transitions** are whole words. A phrase counts if it connects: three words of its sentence follow before the
next phrase or the end, and an earlier sentence or three words of its own stand before it. Only the number of
categories counts, so a list of connectives earns nothing, and a text stuffed with them loses its fluency.

**Lengths** are in letters, digits and words, so white space and punctuation are worth nothing.

**The individual reward** of an agent is (0.5 + 0.4 min(1, k / K)) times the first four factors of its own text
times rise(closeness; 0.05, 0.3), with k and the closeness of this text alone; at most 0.9. Since a short text
holds few pairs, two of closeness 0.5 are added to its own; density and mass, which say little about one short
text, are left out.

With several turns, version 1 pays the difference score_t - score_(t-1), with score_0 = 0, so that what an
episode pays is its last score. The writing tasks have one turn, and the difference is the score.

What still gets through is on the environments' pages and in `docs/rewards_writing.md`, with measurements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from textmarl.envs.writing import copying, prose
from textmarl.envs.writing.prose import Prose
from textmarl.envs.writing.rewards import Ramp, jaccard

FORM = ("structure", "length", "vocabulary", "transitions", "overlap")
FACTORS = ("faithfulness", "originality", "fluency", "repetition", "distinctness")
TERMS = FORM + FACTORS
MAX_SCORE = 3.0
MAX_INDIVIDUAL = 0.9

_STRUCTURE, _LENGTH, _VOCABULARY, _TRANSITIONS, _OVERLAP = 0.5, 1.0, 0.5, 0.4, 0.6  # as in version 0
_LONGEST = 16_384  # characters; 256 words of prose take about 1,500
_FEW = 8  # a source with fewer specific words than that is judged by all its content words
_BENEFIT = 2, 0.5  # pairs, and their closeness, that a text judged alone is given

Bounds = tuple[float, float]

_CLOSENESS_ALONE: Bounds = (0.05, 0.3)  # wider than for both texts, which hold more pairs


@dataclass(frozen=True)
class Wanted:
    """What one of the two texts should hold.

    Attributes:
        support: bounds for the share of its specific words that the source has.
        details: distinct specific words of the source that suffice, where the source has enough.
    """

    support: Bounds
    details: int


@dataclass(frozen=True)
class Criteria:
    """The constants of one writing task.

    Attributes:
        kind: whose common words are not specific, "tldr" or "arxiv".
        min_words, max_words: range of the words of c1 and c2, both ends included.
        length: ramp over the letters and digits of c2 / those of c1.
        vocabulary: ramp over the distinct words of c2 / those of c1.
        overlap: ramp over the Jaccard index; outside it the term is 0.
        transitions: K, the categories of connecting transitions that earn the full term.
        transitions_in_both: the categories of both texts count; otherwise those of c2.
        first, second: what each text should hold.
        mass: bounds for the mass of both texts together.
        closeness ... shared: bounds of the factors, as in the table above.
    """

    kind: str
    min_words: int
    max_words: int
    length: Ramp
    vocabulary: Ramp
    overlap: Ramp
    transitions: int
    transitions_in_both: bool
    first: Wanted
    second: Wanted
    mass: Bounds
    closeness: Bounds = (0.24, 0.37)
    density: Bounds = (0.12, 0.2)
    passages: Bounds = (0.25, 1.0)
    triples: Bounds = (0.2, 0.65)
    trains: Bounds = (0.6, 0.93)
    gatherings: Bounds = (0.3, 0.95)
    lifted: Bounds = (0.42, 0.6)
    word_order: Bounds = (0.1, 0.26)
    sentences: Bounds = (0.4, 0.8)
    function_words: Bounds = (0.24, 0.37)
    punctuation: Bounds = (0.18, 0.24)
    in_transitions: Bounds = (0.15, 0.25)
    repeated_triples: Bounds = (0.1, 0.4)
    repeated_words: Bounds = (0.3, 0.6)
    shared: Bounds = (0.4, 0.8)


@dataclass(frozen=True)
class Judgement:
    """What a pair is worth.

    Attributes:
        terms: every name of `TERMS`; their sum is the score.
        individual: the first and the second agent's own reward, each 0 to `MAX_INDIVIDUAL`.
    """

    terms: Mapping[str, float]
    individual: tuple[float, float]


def judge(first: str, second: str, source: str, criteria: Criteria) -> Judgement:
    """The reward of a pair of texts about a source, and of each text alone. Takes any `str`; deterministic.

    Args:
        first: the first agent's text, c1.
        second: the second agent's text, c2.
        source: the text that both are about.
        criteria: the task's constants.
    """
    origin = prose.read_source(source)
    texts = [_read(text, criteria) for text in (first, second)]
    wanted = criteria.first, criteria.second
    none = dict.fromkeys(FACTORS[:4], 0.0)
    factors = [_factors(t, origin, w, criteria) if t else none for t, w in zip(texts, wanted, strict=True)]
    masses = [prose.closeness(text, origin) if text else (0.0, 0) for text in texts]
    individual = [
        _individual(text, own, mass, criteria) if text else 0.0
        for text, own, mass in zip(texts, factors, masses, strict=True)
    ]
    terms = dict.fromkeys(TERMS, 0.0)
    c1, c2 = texts
    if c1 and c2:
        terms.update({name: _exact(value) for name, value in _form(c1, c2, criteria).items()})
        both = {name: _together(factors[0][name], factors[1][name]) for name in FACTORS[:4]}
        both["faithfulness"] *= _grounding(masses, c1.content_pairs + c2.content_pairs, criteria)
        # Where nothing is left, nothing can be taken off; two degenerate texts take long to compare.
        if all(both.values()):
            taken = max(prose.copied_passages(c1, c2), prose.copied_triples(c1, c2))
            both["distinctness"] = fall(taken, criteria.shared)
        left = math.fsum(terms[name] for name in FORM)
        for name in FACTORS:
            kept = _exact(left * both.get(name, 0.0))
            terms[name] = kept - left
            left = kept
    return Judgement(terms, (individual[0], individual[1]))


def rise(x: float, bounds: Bounds) -> float:
    """0 up to the lower bound, 1 from the upper one on, linear between."""
    low, high = bounds
    return min(1.0, max(0.0, (x - low) / (high - low)))


def fall(x: float, bounds: Bounds) -> float:
    """1 up to the lower bound, 0 from the upper one on, linear between."""
    return 1.0 - rise(x, bounds)


def _read(text: str, criteria: Criteria) -> Prose | None:
    """The text read; None where it is outside the range of words."""
    if len(text) > _LONGEST:
        return None
    read = prose.read(text)
    return read if criteria.min_words <= len(read.words) <= criteria.max_words else None


def _form(c1: Prose, c2: Prose, criteria: Criteria) -> dict[str, float]:
    """The terms of the form up to the first gate that stops."""
    form = {"structure": _STRUCTURE}
    length = criteria.length(sum(map(len, c2.words)) / sum(map(len, c1.words)))
    if length is None:
        return form
    form["length"] = _LENGTH * length
    vocabulary = criteria.vocabulary(len(set(c2.words)) / len(set(c1.words)))
    if vocabulary is None:
        return form
    form["vocabulary"] = _VOCABULARY * vocabulary
    categories = c2.transitions.categories
    if criteria.transitions_in_both:
        categories |= c1.transitions.categories
    form["transitions"] = _TRANSITIONS * min(1.0, len(categories) / criteria.transitions)
    form["overlap"] = _OVERLAP * (criteria.overlap(jaccard(set(c1.content), set(c2.content))) or 0.0)
    return form


def _factors(text: Prose, source: Prose, wanted: Wanted, criteria: Criteria) -> dict[str, float]:
    """The factors that a text and the source alone decide."""
    common = prose.common_words(criteria.kind)
    own, known = text.content - common, source.content - common
    if len(known) < _FEW:
        own, known = text.content, source.content
    found = len(own & source.content)
    details = max(1, min(wanted.details, round(0.3 * len(known))))
    count = len(text.words)
    whole = sum(end - start for start, end in text.sentences if 4 <= end - start <= 60)
    marks = text.classes.count(prose.BREAK) + text.classes.count(prose.PAUSE)
    return {
        "faithfulness": rise(found / max(1, len(own)), wanted.support) * min(1.0, found / details),
        "originality": min(
            fall(prose.copied_passages(text, source), criteria.passages),
            _fall_slowly(prose.copied_triples(text, source), criteria.triples),
            _fall_slowly(copying.copied_trains(text, source), criteria.trains),
            fall(copying.copied_gatherings(text, source), criteria.gatherings),
            _fall_slowly(copying.lifted_words(text, source), criteria.lifted),
        ),
        "fluency": rise(prose.word_order(text), criteria.word_order)
        * rise(whole / count, criteria.sentences)
        * rise(1.0 - len(text.content_stems) / count, criteria.function_words)
        * fall(marks / len(text.classes), criteria.punctuation)
        * fall(text.transitions.share, criteria.in_transitions),
        "repetition": fall(prose.repeated_triples(text), criteria.repeated_triples)
        * fall(prose.repeated_words(text), criteria.repeated_words),
    }


def _grounding(masses: list[tuple[float, int]], content_pairs: int, criteria: Criteria) -> float:
    """Whether words that the texts use together stood together in the source, and enough of them."""
    mass, pairs = sum(m for m, _ in masses), sum(p for _, p in masses)
    return (
        rise(mass / max(1, pairs), criteria.closeness)
        * rise(mass / max(1, content_pairs), criteria.density)
        * rise(mass, criteria.mass)
    )


def _individual(
    text: Prose, factors: Mapping[str, float], own: tuple[float, int], criteria: Criteria
) -> float:
    """An agent's own reward: 0.5 and its transitions, times its own factors."""
    mass, pairs = own
    extra, closeness = _BENEFIT
    connected = min(1.0, len(text.transitions.categories) / criteria.transitions)
    return (
        (_STRUCTURE + _TRANSITIONS * connected)
        * math.prod(factors.values())
        * rise((mass + extra * closeness) / (pairs + extra), _CLOSENESS_ALONE)
    )


def _exact(x: float) -> float:
    """`x` as a multiple of 2^-40: sums and differences of such terms are exact, so junk scores 0, not 1e-17."""
    return round(x * 2.0**40) / 2.0**40


def _together(p: float, q: float) -> float:
    """One factor of two texts."""
    return 0.15 * (p + q) + 0.7 * math.sqrt(p * q)


def _fall_slowly(x: float, bounds: Bounds) -> float:
    """`fall` with a slope left beyond the upper bound that ends in 0 at 1."""
    return max(fall(x, bounds), 0.15 * (1.0 - x) / (1.0 - bounds[1]))


TLDR = Criteria(
    kind="tldr",
    min_words=8,
    max_words=256,
    length=Ramp(start=1.1, low=1.6, high=3.2, end=5.0),
    vocabulary=Ramp(start=1.3, low=2.0),
    overlap=Ramp(start=0.0, low=0.03, high=0.5, end=0.8),
    transitions=4,
    transitions_in_both=False,
    first=Wanted(support=(0.15, 0.38), details=4),
    second=Wanted(support=(0.15, 0.38), details=10),
    mass=(8.0, 10.7),
)
# The background brings in words that the abstract does not have, which is its task.
ARXIV = Criteria(
    kind="arxiv",
    min_words=128,
    max_words=256,
    length=Ramp(start=0.8, low=1.3, high=1.6, end=2.0),
    vocabulary=Ramp(start=0.5, low=0.7, high=1.3, end=1.7),
    overlap=Ramp(start=0.0, low=0.05, high=0.5, end=0.8),
    transitions=5,
    transitions_in_both=True,
    first=Wanted(support=(0.05, 0.18), details=6),
    second=Wanted(support=(0.15, 0.4), details=12),
    mass=(22.0, 32.0),
)
