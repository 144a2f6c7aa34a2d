"""Measures the writing rewards on junk, on mediocre and on good pairs, version 0 beside version 1.

    python -m textmarl.benchmarks.writing_rewards > docs/rewards_writing.md

run in the repository's root, takes about ten minutes on one core (`--evaluations` shortens the hill climbs). The
texts are those of `tests/envs/writing_corpora`, the bundled tasks and the kinds of `writing_junk` and
`disguised_copies`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textmarl.benchmarks.disguised_copies import DISGUISED, MISSED
from textmarl.benchmarks.writing_climb import Material, climb
from textmarl.benchmarks.writing_junk import KINDS, NEEDS_HONEST, Kind
from textmarl.benchmarks.writing_posts import Pair, Post
from textmarl.envs.writing import arxiv_v1, hardened, prose, rewards, tldr_v1

CORPORA = Path("tests/envs/writing_corpora")
QUALITIES = ("rough", "fair", "decent")

Score = Callable[[str, str, str], float]


@dataclass(frozen=True)
class Task:
    """One writing task and what is known to be good or bad about it.

    Attributes:
        name: as registered, without the version.
        v0, v1: (first text, second text, source) -> share of the maximum.
        posts: sources with an honest pair.
        more: bundled sources without one.
    """

    name: str
    v0: Score
    v1: Score
    posts: Sequence[Post]
    more: Sequence[Post]


def read_corpus(name: str, folder: Path = CORPORA) -> list[dict[str, Any]]:
    """The rows of one corpus file."""
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


def tldr(folder: Path = CORPORA) -> Task:
    """TLDR with the good pairs of the tests."""
    env = tldr_v1.TLDR(split="test")
    rows = read_corpus("good_tldr", folder)
    pairs = [(row["concise"], row["detailed"]) for row in rows]
    texts = {}
    for task in (*env.tasks, *tldr_v1.TLDR(split="train").tasks):
        env.task = task
        texts[task.id] = env.judged_source()
    prompts = _prompts(env.instructions)
    posts = [
        Post(texts[row["task"]], pair, pairs[(i + 5) % len(pairs)], prompts)
        for i, (row, pair) in enumerate(zip(rows, pairs, strict=True))
    ]
    known = {row["task"] for row in rows}
    more = [Post(text, ("", ""), pairs[0], prompts) for name, text in texts.items() if name not in known]
    return Task("TLDR", *_scores(env.bands, hardened.TLDR), posts, more)


def arxiv(folder: Path = CORPORA) -> Task:
    """ArXiv with the good pairs of the tests."""
    env = arxiv_v1.ArXiv(split="test")
    rows = read_corpus("good_arxiv", folder)
    pairs = [(row["background"], row["method"]) for row in rows]
    prompts = _prompts(env.instructions)

    def post(text: str, pair: Pair, other: Pair) -> Post:
        return Post(text, pair, other, prompts, short=142, long=190)

    posts = [
        post(row["abstract_text"], pair, pairs[(i + 3) % len(pairs)])
        for i, (row, pair) in enumerate(zip(rows, pairs, strict=True))
    ]
    more = [post(task.data["abstract_text"], ("", ""), pairs[0]) for task in env.tasks]
    return Task("ArXiv", *_scores(env.bands, hardened.ARXIV), posts, more)


def _prompts(instructions: Any) -> Pair:
    first, second = (text.replace("{source}", "").strip() for text in instructions.values())
    return first, second


def _scores(bands: rewards.Bands, criteria: hardened.Criteria) -> tuple[Score, Score]:
    def v0(first: str, second: str, source: str) -> float:
        del source
        return math.fsum(rewards.score_terms(first, second, bands).values()) / rewards.MAX_SCORE

    def v1(first: str, second: str, source: str) -> float:
        terms = hardened.judge(first, second, source, criteria).terms
        return math.fsum(terms.values()) / hardened.MAX_SCORE

    return v0, v1


def junk_pairs(kind: Kind, posts: Iterable[Post], repeats: int) -> Iterable[tuple[Pair, str]]:
    """The pairs of one kind, each with its source; the same ones at every call."""
    for number, post in enumerate(posts):
        for repeat in range(repeats):
            yield kind(post, random.Random(f"{kind.__name__} {number} {repeat}")), post.source


def material(task: Task) -> Material:
    """What a climber may know: the words and sentences of all sources but those with an honest pair."""
    texts = [post.source for post in task.more]
    words = sorted({word for text in texts for word in re.findall(r"[^\W\d_]+", text.lower())})
    sentences = [
        part for text in texts for part in re.split(r"(?<=[.!?])\s+", text) if 5 <= len(part.split()) <= 25
    ]
    phrases = [phrase for found in prose.transition_phrases().values() for phrase in found]
    return Material(words, sentences, phrases, (task.posts[0].short, task.posts[0].long))


def blind_climb(task: Task, sources: Sequence[str], evaluations: int, seed: int) -> float:
    """The best mean over sources that a climb finds."""

    def objective(first: str, second: str) -> float:
        return sum(task.v1(first, second, source) for source in sources) / len(sources)

    return climb(objective, material(task), evaluations, seed).score


def hidden_climb(task: Task, source: str, evaluations: int, seed: int) -> float:
    """The best score for one hidden source that a climb finds."""
    return climb(lambda a, b: task.v1(a, b, source), material(task), evaluations, seed).score


# ------------------------------------------------------------------------------------------------ the document


def document(evaluations: int, folder: Path = CORPORA) -> str:
    """The documentation page `docs/rewards_writing.md`."""
    tasks = [tldr(folder), arxiv(folder)]
    parts = [_HEAD]
    for task in tasks:
        parts += [f"## {task.name}\n", "### Honest pairs\n", *_honest_table(task, folder)]
        parts += ["### Junk\n", *_junk_table(task, (*KINDS, *DISGUISED))]
        parts += ["### Copies that get through on some sources\n", *_junk_table(task, MISSED)]
    parts += ["## Hill climbs\n", _CLIMBS, *_climb_table(tasks, evaluations), _LIMITS]
    return "\n".join(parts)


def _percent(values: Sequence[float]) -> str:
    return f"{100 * sum(values) / len(values):.0f} | {100 * min(values):.0f} | {100 * max(values):.0f}"


def _honest_table(task: Task, folder: Path) -> list[str]:
    lines = [
        "| Pairs | Number | v0 mean | min | max | v1 mean | min | max |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[str, list[tuple[Pair, str]]] = {}
    if task.name == "TLDR":
        env = tldr_v1.TLDR(split="test")
        for row in read_corpus("mediocre_tldr", folder):
            env.task = env.tasks.find(row["task"])
            groups.setdefault(f"mediocre: {row['quality']}", []).append(
                ((row["concise"], row["detailed"]), env.judged_source())
            )
    groups["good"] = [(post.honest, post.source) for post in task.posts]
    for name, pairs in groups.items():
        v0, v1 = ([score(*pair, source) for pair, source in pairs] for score in (task.v0, task.v1))
        lines.append(f"| {name} | {len(pairs)} | {_percent(v0)} | {_percent(v1)} |")
    return [*lines, ""]


def _junk_table(task: Task, kinds: Sequence[Kind]) -> list[str]:
    lines = [
        "| Kind | Pairs | v0 mean | min | max | v1 mean | min | max |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in kinds:
        posts = [*task.posts, *([] if kind in NEEDS_HONEST else task.more)]
        pairs = list(junk_pairs(kind, posts, 2))
        v0, v1 = ([score(*pair, source) for pair, source in pairs] for score in (task.v0, task.v1))
        what = (kind.__doc__ or "").split("\n")[0].rstrip(".")
        lines.append(f"| {what} | {len(pairs)} | {_percent(v0)} | {_percent(v1)} |")
    return [*lines, ""]


def _climb_table(tasks: Sequence[Task], evaluations: int) -> list[str]:
    lines = [
        f"| Task | Objective ({evaluations:,} evaluations each) | Climbs | v1 mean | min | max |",
        "|---|---|---|---|---|---|",
    ]
    for task in tasks:
        sources = [post.source for post in task.posts]
        blind = [blind_climb(task, sources[i : i + 4], evaluations, seed=i) for i in (0, 4)]
        hidden = [hidden_climb(task, source, evaluations, seed=i) for i, source in enumerate(sources)]
        lines += [
            f"| {task.name} | blind: the mean over four sources | {len(blind)} | {_percent(blind)} |",
            f"| {task.name} | one hidden source | {len(hidden)} | {_percent(hidden)} |",
        ]
    return [*lines, ""]


_HEAD = """# What the writing rewards pay

> Version 0, the published reward, never reads the source: it pays 99 % of its maximum for unrelated words with
> connectives, and about 85 % for most copies. Version 1 pays under 25 % for all of these kinds of junk and over 85 % to good
> pairs in own words; copies with gaps get through on some sources, and a search against one known source beats it.

Scores in percent of 3, for version 0 (the published reward) and version 1 (`textmarl.envs.writing.hardened`, where
the formulas are). This page is the output of `python -m textmarl.benchmarks.writing_rewards`; the tests hold the
bounds: every junk pair under 25 %, every good pair over 85 %, mediocre ones between and in the order of their
quality, hill climbs under 35 %.

*Good* pairs were written with care for the tests. The constants were set with all of these texts in view, and a few
pairs were reworded on the way (the good ones to fit the ratios and share words, the mediocre ones to lie between), so this
is a calibration, not a held-out test. *Mediocre* pairs imitate a small model on five posts: *rough* copies about half
of its words and repeats itself, *fair* copies less and is dull, *decent* is in own words but plain and hardly
connected. *Junk* is cut to the lengths and ratios that both
versions ask for, so that only its content can give it away.
"""
_CLIMBS = """Texts are changed by words, phrases and whole sentences; a change stays if the score did not fall. The climber
knows the words and sentences of the bundled sources but the ones it is scored on, and the transition phrases. It
never sees a source. *Blind* is what a policy that does not read can reach: one answer for several sources. *One
hidden source* is more generous, since each score tells something about that source. The bound holds for both.
"""
_LIMITS = """## What still gets through

* **Wrong facts in the post's words.** "The neighbour sued the city" scores like "The city fined the neighbour".
  Nothing here understands a sentence.
* **The wrong passage.** Any 10 specific words will do, whether they are the point of the post or its edge.
* **Light editing up to the free share.** A quarter of the words may stand in copied passages; the rest has to be
  reordered or reworded, which is cheaper than summarising.
* **Copies with gaps.** A copy that leaves out words now and then, with a filler after every few, or in pairs set into
  ready-made sentences, is over the bound on some posts (the tables above). Copies without gaps are not.
* **A search that knows the source, or sees every factor.** The climbs above see the score only, and no source. One that
  built from the words and sentences of one post reached 100 % with word salad in 6,000 evaluations on each of six
  posts; one that was given all factors of an earlier version of this reward, smoothed, for a hidden post, in
  20,000. Local word order and nearness in the source are statistics, and statistics can be met. A policy that is trained
  on many posts gets no such signal, but whoever optimises texts against a single post should not trust this reward.
* **Languages other than English** have other function words and another order: they score near 0.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the document to the standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--evaluations", type=int, default=10_000, help="of every hill climb")
    parser.add_argument("--corpora", type=Path, default=CORPORA, help="folder of the honest pairs")
    options = parser.parse_args(arguments)
    sys.stdout.write(document(options.evaluations, options.corpora))


if __name__ == "__main__":
    main()
