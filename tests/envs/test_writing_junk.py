"""What the hardened writing reward pays for junk, for honest pairs and for search without reading.

The bounds are those of version 1: every junk pair under 25 % of the maximum, good pairs over 85 %, mediocre ones
between and in the order of their quality, hill climbs under 35 %. `docs/rewards_writing.md` has the full measurement.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from textmarl.benchmarks import writing_rewards
from textmarl.benchmarks.disguised_copies import DISGUISED, MISSED
from textmarl.benchmarks.writing_junk import KINDS, NEEDS_HONEST, Kind
from textmarl.benchmarks.writing_rewards import QUALITIES, Task
from textmarl.envs.writing import tldr_v1

CORPORA = Path(__file__).parent / "writing_corpora"
TASKS = {"TLDR": writing_rewards.tldr(CORPORA), "ArXiv": writing_rewards.arxiv(CORPORA)}
TLDR = TASKS["TLDR"]


def name_of(kind: Kind) -> str:
    return kind.__name__


def test_there_are_enough_kinds_and_pairs() -> None:
    assert len(KINDS) == len(set(map(name_of, KINDS))) >= 20
    assert len(TLDR.posts) >= 16 and len(TASKS["ArXiv"].posts) >= 8
    assert len(writing_rewards.read_corpus("mediocre_tldr", CORPORA)) >= 12


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
@pytest.mark.parametrize("kind", [*KINDS, *DISGUISED], ids=name_of)
def test_junk_scores_under_a_quarter_of_the_maximum_on_every_source(task: Task, kind: Kind) -> None:
    sources = [*task.posts, *([] if kind in NEEDS_HONEST else task.more[:24])]
    for (first, second), source in writing_rewards.junk_pairs(kind, sources, repeats=1):
        assert 0.0 <= task.v1(first, second, source) < 0.25, (first, second)


@pytest.mark.parametrize("kind", MISSED, ids=name_of)
def test_what_is_documented_to_get_through_does_on_some_source(kind: Kind) -> None:
    """Where this fails the reward has become better than its page says: move the kind to `DISGUISED`."""
    pairs = list(writing_rewards.junk_pairs(kind, [*TLDR.posts, *TLDR.more], repeats=2))
    assert max(TLDR.v1(*pair, source) for pair, source in pairs) >= 0.25


def test_version_0_pays_most_junk_like_an_answer() -> None:
    """Or the test above would say nothing about what version 1 mends."""
    paid = []
    for kind in KINDS:
        scores = [
            TLDR.v0(*pair, source) for pair, source in writing_rewards.junk_pairs(kind, TLDR.posts[:6], 1)
        ]
        paid.append(sum(scores) / len(scores))
    assert sum(score > 0.7 for score in paid) >= 25


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_good_pairs_score_over_85_percent(task: Task) -> None:
    for post in task.posts:
        assert task.v1(*post.honest, post.source) > 0.85, post.honest


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_good_pairs_score_under_a_quarter_on_every_other_source(task: Task) -> None:
    for post in task.posts:
        for other in task.posts:
            if other is not post:
                assert task.v1(*post.honest, other.source) < 0.25, post.honest


def test_mediocre_pairs_score_between_and_in_the_order_of_their_quality() -> None:
    good = {post.source: TLDR.v1(*post.honest, post.source) for post in TLDR.posts}
    env = tldr_v1.TLDR(split="test")
    scores: dict[str, dict[str, float]] = {}
    for row in writing_rewards.read_corpus("mediocre_tldr", CORPORA):
        env.task = env.tasks.find(row["task"])
        score = TLDR.v1(row["concise"], row["detailed"], env.judged_source())
        assert 0.25 < score < 0.85, row
        scores.setdefault(env.judged_source(), {})[row["quality"]] = score
    assert len(scores) >= 4
    for source, by_quality in scores.items():
        ordered = [*(by_quality[quality] for quality in QUALITIES), good[source]]
        assert ordered == sorted(ordered) and len(set(ordered)) == len(ordered), by_quality


def test_copying_less_scores_more() -> None:
    """A policy that begins by copying must be able to find its way out: every step away pays."""
    post = TLDR.posts[1]
    honest, copy = post.honest[1].split(), post.tokens
    scores = []
    for kept in (0, 15, 30, 45, 60):
        mixed = " ".join(copy[:kept] + honest[kept:])
        scores.append(TLDR.v1(post.honest[0], mixed, post.source))
    assert scores == sorted(scores, reverse=True)
    assert len({round(score, 3) for score in scores}) >= 4, scores


def test_a_blind_climb_stays_under_35_percent() -> None:
    """The full count of evaluations is in `python -m textmarl.benchmarks.writing_rewards`."""
    sources = [post.source for post in TLDR.posts[:3]]
    assert writing_rewards.blind_climb(TLDR, sources, evaluations=700, seed=0) < 0.35


@pytest.mark.parametrize("number", [2, 7])
def test_a_climb_on_one_hidden_post_stays_under_35_percent(number: int) -> None:
    assert writing_rewards.hidden_climb(TLDR, TLDR.posts[number].source, evaluations=1500, seed=1) < 0.35


def test_the_climber_finds_what_there_is_to_find() -> None:
    """Against version 0, which rewards junk, the same climber gets nearly everything: it is no straw man."""
    from textmarl.benchmarks.writing_climb import climb

    found = climb(lambda a, b: TLDR.v0(a, b, ""), writing_rewards.material(TLDR), evaluations=1500, seed=0)
    assert found.score > 0.95
    assert math.isclose(TLDR.v0(*found.pair, ""), found.score)
