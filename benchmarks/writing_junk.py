"""Texts that say nothing, or nothing of their own, and that a writing reward must not pay: one kind each.

A kind takes a `Post` (a source and, where someone wrote one, an honest pair of texts about it) and a random
generator, and returns the texts of the two agents. Every kind is cut to the lengths and ratios that the reward
asks for, as a learner that exploits it would: what is left to tell junk from an answer is its content.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from textmarl.benchmarks.writing_posts import Pair, Post
from textmarl.envs.writing.rewards import stop_words, transition_phrases

UNRELATED = [
    "amber",
    "basket",
    "cellar",
    "dolphin",
    "engine",
    "falcon",
    "gravel",
    "harbor",
    "island",
    "jacket",
    "kettle",
    "lantern",
    "magnet",
    "needle",
    "orchid",
    "pebble",
    "quartz",
    "ribbon",
    "saddle",
    "tunnel",
    "umbrella",
    "velvet",
    "walnut",
    "yogurt",
    "zipper",
    "anchor",
    "bamboo",
    "candle",
    "desert",
    "emerald",
    "feather",
    "glacier",
    "hammer",
    "ivory",
    "jungle",
    "kernel",
    "lizard",
    "marble",
    "nectar",
    "olive",
    "parrot",
    "quiver",
    "rocket",
    "sponge",
    "thistle",
    "urchin",
    "violin",
    "whistle",
    "cactus",
    "meadow",
    "pirate",
    "sailor",
    "temple",
    "violet",
    "wizard",
    "blanket",
    "canyon",
    "dragon",
    "eclipse",
    "fossil",
]
FILLER = [
    "the",
    "of",
    "a",
    "and",
    "to",
    "in",
    "is",
    "with",
    "was",
    "that",
    "for",
    "on",
    "it",
    "as",
    "by",
    "from",
    "at",
    "this",
    "but",
    "not",
]
FRAMES = (
    "The {} was in the {} and the {} had a {}.",
    "However, the {} of the {} is a {}.",
    "Because the {} was near the {}, they wanted the {}.",
    "After that, a {} came to the {} with the {}.",
    "For example, the {} and the {} were the {}.",
    "Therefore the {} did not see the {}, although the {} was there.",
)
TEMPLATE = (
    "The author describes a situation that happened to them and explains how they feel about it. They are not "
    "sure what to do next, so they ask other people for advice.",
    "In this text the author talks about something that happened recently and explains the background in some "
    "detail. First, they describe the people who were involved and what each of them said. However, things did "
    "not go as planned, and the author was surprised by the result. Because of this, they are now thinking about "
    "different options. In the end, they would like to know what others would do in the same situation.",
)


Kind = Callable[[Post, random.Random], Pair]


def _cut(post: Post, words: Sequence[str], rng: random.Random | None = None) -> Pair:
    """Both texts from one list of words, repeated where it is too short; the long one starts elsewhere."""
    need = post.short + post.long
    ring = list(words) * (need // max(1, len(words)) + 1)
    first, second = ring[: post.short], ring[post.short : need]
    if rng:
        rng.shuffle(first)
        rng.shuffle(second)
    return " ".join(first), " ".join(second)


def _connectives() -> list[str]:
    return [phrases[0] for phrases in transition_phrases().values()]


def _sentences(words: Sequence[str], size: int) -> str:
    parts = [" ".join(words[i : i + size]) for i in range(0, len(words), size)]
    return " ".join(part[:1].upper() + part[1:] + "." for part in parts)


def _framed(post: Post, words: Sequence[str], rng: random.Random) -> Pair:
    def fill(count: int) -> str:
        out: list[str] = []
        while sum(len(sentence.split()) for sentence in out) < count:
            frame = FRAMES[len(out) % len(FRAMES)]
            out.append(frame.format(*(rng.choice(words) for _ in range(frame.count("{}")))))
        return " ".join(out)

    return fill(post.short - 8), fill(post.long - 8)


def unrelated_words_and_connectives(post: Post, rng: random.Random) -> Pair:
    """Unrelated words and one connective of every category: 2.9 of 3 in version 0."""
    words = rng.sample(UNRELATED, len(UNRELATED))
    first, second = _cut(post, words)
    return first, f"{words[0]} {second} {' '.join(_connectives())}"


def v0_optimum(post: Post, rng: random.Random) -> Pair:
    """The same with some words of the source and connectives between the words: what version 0 pays most."""
    words = rng.sample(UNRELATED, 40) + rng.sample(post.keywords, min(4, len(post.keywords)))
    rng.shuffle(words)
    first, second = _cut(post, words)
    links = _connectives()
    mixed = [part for i, word in enumerate(second.split()) for part in (word, *links[i : i + 1])]
    return f"{first} {words[-1]}", " ".join(mixed)


def source_whole(post: Post, rng: random.Random) -> Pair:
    """The whole source from both agents."""
    del rng
    return " ".join(post.tokens), " ".join(post.tokens)


def source_passages(post: Post, rng: random.Random) -> Pair:
    """Two passages of the source of the right lengths."""
    del rng
    return _cut(post, post.tokens)


def source_half(post: Post, rng: random.Random) -> Pair:
    """A quarter of the source and half of it."""
    del rng
    count = len(post.tokens)
    return " ".join(post.tokens[: count // 4]), " ".join(post.tokens[count // 2 :])


def lead_copy(post: Post, rng: random.Random) -> Pair:
    """The first sentences of the source, fewer and more of them."""
    del rng

    def lead(count: int) -> str:
        out: list[str] = []
        for sentence in post.sentences:
            out.append(sentence)
            if sum(len(s.split()) for s in out) >= count:
                break
        return " ".join(out)

    return lead(post.short - 6), lead(post.long - 6)


def shuffled_sentences(post: Post, rng: random.Random) -> Pair:
    """The source's sentences in another order."""
    sentences = rng.sample(post.sentences, len(post.sentences))
    return _cut(post, " ".join(sentences).split())


def every_second_word(post: Post, rng: random.Random) -> Pair:
    """Every second word of the source."""
    del rng
    return _cut(post, post.tokens[::2])


def dropped_words(post: Post, rng: random.Random) -> Pair:
    """The source with a quarter of its words left out."""
    return _cut(post, [word for word in post.tokens if rng.random() > 0.25])


def replaced_words(post: Post, rng: random.Random) -> Pair:
    """The source with every fifth word replaced by an unrelated one."""
    return _cut(post, [rng.choice(UNRELATED) if i % 5 == 4 else word for i, word in enumerate(post.tokens)])


def spliced_fragments(post: Post, rng: random.Random) -> Pair:
    """Runs of five words from everywhere in the source."""
    tokens = post.tokens
    starts = [rng.randrange(max(1, len(tokens) - 5)) for _ in range((post.short + post.long) // 5 + 1)]
    return _cut(post, [word for start in starts for word in tokens[start : start + 5]])


def sentence_fragments(post: Post, rng: random.Random) -> Pair:
    """Fragments of three source words, each with a full stop."""
    starts = rng.sample(range(len(post.tokens) - 3), min(40, len(post.tokens) - 3))
    words = [re.sub(r"\W+$", "", w) or w for s in starts for w in post.tokens[s : s + 3]]
    return _sentences(words[: post.short], 3), _sentences(words[post.short : post.short + post.long], 3)


def one_word_lines(post: Post, rng: random.Random) -> Pair:
    """Words of the source, one a line."""
    first, second = _cut(post, rng.sample(post.tokens, len(post.tokens)))
    return first.replace(" ", "\n"), second.replace(" ", "\n")


def source_and_connectives(post: Post, rng: random.Random) -> Pair:
    """Passages of the source with a list of connectives after them."""
    del rng
    first, second = _cut(post, post.tokens)
    return first, f"{second} {', '.join(_connectives())}."


def keyword_list(post: Post, rng: random.Random) -> Pair:
    """The source's content words as a list with commas."""
    first, second = _cut(post, rng.sample(post.keywords, len(post.keywords)))
    return first.replace(" ", ", "), second.replace(" ", ", ")


def keyword_sentences(post: Post, rng: random.Random) -> Pair:
    """The source's content words in its order, with full stops."""
    del rng
    first, second = _cut(post, post.keywords)
    return _sentences(first.split(), 7), _sentences(second.split(), 7)


def word_salad(post: Post, rng: random.Random) -> Pair:
    """All words of the source in random order, with full stops."""
    words = [re.sub(r"[.!?,]+$", "", word) or "so" for word in post.tokens]
    first, second = _cut(post, rng.sample(words, len(words)))
    return _sentences(first.split(), 9), _sentences(second.split(), 9)


def salad_with_function_words(post: Post, rng: random.Random) -> Pair:
    """Content words of the source, each after a function word."""
    words = [
        part for word in rng.sample(post.keywords, len(post.keywords)) for part in (rng.choice(FILLER), word)
    ]
    first, second = _cut(post, words)
    return _sentences(first.split(), 10), _sentences(second.split(), 10)


def keywords_in_frames(post: Post, rng: random.Random) -> Pair:
    """Grammatical sentences whose nouns are content words of the source, drawn at random."""
    return _framed(post, post.keywords, rng)


def unrelated_in_frames(post: Post, rng: random.Random) -> Pair:
    """The same with unrelated words and two words of the source."""
    return _framed(post, [*rng.sample(UNRELATED, 20), *post.keywords[:2]], rng)


def identical_twins(post: Post, rng: random.Random) -> Pair:
    """A good text, handed in by both."""
    del rng
    return post.honest[1], post.honest[1]


def near_twins(post: Post, rng: random.Random) -> Pair:
    """A good text, and the same text with a few words changed and its halves exchanged, then continued."""
    words = post.honest[0].split() if post.short < 100 else post.honest[1].split()
    changed = [rng.choice(FILLER) if rng.random() < 0.1 else word for word in words]
    half = len(changed) // 2
    long = changed[half:] + changed[:half] + rng.sample(UNRELATED, len(words) if post.short < 100 else 40)
    return " ".join(words), " ".join(long)


def another_source(post: Post, rng: random.Random) -> Pair:
    """A good pair about another source."""
    del rng
    return post.other


def another_source_with_keywords(post: Post, rng: random.Random) -> Pair:
    """A good pair about another source, with two content words of this one in each text."""
    first, second, third, fourth = rng.sample(post.keywords, 4)
    return f"{post.other[0]} {first} {second}.", f"{post.other[1]} {third} {fourth}."


def template(post: Post, rng: random.Random) -> Pair:
    """Sentences that fit any source."""
    del rng
    first, second = TEMPLATE
    if post.short > 100:
        return " ".join([first, second]), " ".join([second, first, second])
    return first, second


def prompt_echo(post: Post, rng: random.Random) -> Pair:
    """The instruction, with the beginning of the source."""
    del rng
    rest = " ".join(post.tokens[: post.long])
    return post.prompts[0], f"{post.prompts[1]} {rest}"


def repeated_sentence(post: Post, rng: random.Random) -> Pair:
    """One honest sentence again and again, in the second text in two forms."""
    del rng
    sentences = re.split(r"(?<=[.!?])\s+", post.honest[1])
    first = f"{sentences[0]} " * (post.short // len(sentences[0].split()) + 1)
    second = f"{sentences[-1]} " * (post.long // len(sentences[-1].split()) + 1)
    return first.strip(), second.strip()


def repeated_ngrams(post: Post, rng: random.Random) -> Pair:
    """Three words of the source again and again."""
    start = rng.randrange(len(post.tokens) - 6)
    first, _ = _cut(post, post.tokens[start : start + 3])
    _, second = _cut(post, post.tokens[start + 3 : start + 6])
    return first, second


def stuffed_transitions(post: Post, rng: random.Random) -> Pair:
    """A passage of the source with a connective after every other word."""
    links = [phrase for phrases in transition_phrases().values() for phrase in phrases]
    words = [part for i, w in enumerate(post.tokens) for part in ((w, rng.choice(links)) if i % 2 else (w,))]
    return _cut(post, words)


def stuffed_honest_text(post: Post, rng: random.Random) -> Pair:
    """An honest pair with a connective after every third word."""
    links = [phrase for phrases in transition_phrases().values() for phrase in phrases]

    def stuff(text: str) -> str:
        return " ".join(f"{w} {rng.choice(links)}," if i % 3 == 2 else w for i, w in enumerate(text.split()))

    return stuff(post.honest[0]), stuff(post.honest[1])


def scrambled_honest_text(post: Post, rng: random.Random) -> Pair:
    """An honest pair with its words in random order."""
    first, second = (" ".join(rng.sample(text.split(), len(text.split()))) for text in post.honest)
    return first, second


def word_for_word_translation(post: Post, rng: random.Random) -> Pair:
    """An honest pair with foreign word order: neighbouring words exchanged, the verb wherever it falls."""
    del rng

    def exchange(text: str) -> str:
        words = text.split()
        for i in range(0, len(words) - 1, 2):
            words[i], words[i + 1] = words[i + 1], words[i]
        return " ".join(words)

    return exchange(post.honest[0]), exchange(post.honest[1])


def reversed_text(post: Post, rng: random.Random) -> Pair:
    """Passages of the source, read backwards."""
    del rng
    return _cut(post, post.tokens[::-1])


def function_words(post: Post, rng: random.Random) -> Pair:
    """Function words only."""
    return _cut(post, rng.sample(sorted(stop_words()), min(len(stop_words()), post.short + post.long)))


def gibberish(post: Post, rng: random.Random) -> Pair:
    """Letters of many scripts, controls and lone surrogates."""
    letters = "абвгдежзийαβγδεζηθ漢字仮名交文アイウエオאבגדה🙂🎉\ud800\x00\u200b\u0301ÞæøßĐ"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(post.short + post.long)]
    return _cut(post, words)


def numbers(post: Post, rng: random.Random) -> Pair:
    """Numbers, among them those of the source."""
    own = re.findall(r"\d+", post.source)
    return _cut(post, own + [str(rng.randint(0, 99999)) for _ in range(post.short + post.long)])


def half_honest(post: Post, rng: random.Random) -> Pair:
    """An honest first text beside a copied second one."""
    del rng
    return post.honest[0], " ".join(post.tokens[: post.long])


def other_half_honest(post: Post, rng: random.Random) -> Pair:
    """An honest second text beside a list of keywords."""
    return ", ".join(rng.sample(post.keywords, min(post.short, len(post.keywords)))), post.honest[1]


KINDS: tuple[Kind, ...] = (
    unrelated_words_and_connectives,
    v0_optimum,
    source_whole,
    source_passages,
    source_half,
    lead_copy,
    shuffled_sentences,
    every_second_word,
    dropped_words,
    replaced_words,
    spliced_fragments,
    sentence_fragments,
    one_word_lines,
    source_and_connectives,
    keyword_list,
    keyword_sentences,
    word_salad,
    salad_with_function_words,
    keywords_in_frames,
    unrelated_in_frames,
    identical_twins,
    near_twins,
    another_source,
    another_source_with_keywords,
    template,
    prompt_echo,
    repeated_sentence,
    repeated_ngrams,
    stuffed_transitions,
    stuffed_honest_text,
    scrambled_honest_text,
    word_for_word_translation,
    reversed_text,
    function_words,
    gibberish,
    numbers,
    half_honest,
    other_half_honest,
)

# What cannot be made without an honest pair.
NEEDS_HONEST: frozenset[Kind] = frozenset(
    {
        identical_twins,
        near_twins,
        repeated_sentence,
        stuffed_honest_text,
        scrambled_honest_text,
        word_for_word_translation,
        half_honest,
        other_half_honest,
    }
)
