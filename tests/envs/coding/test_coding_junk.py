"""What the hardened coding reward pays for junk, for shows of cooperation and for honest programs.

The bounds: an answer that is none, or attacks the judge, scores no more than an empty one; where one agent does all the
work, the pair scores no more than that agent with a partner who does not answer; good pairs score over 85 % of the
maximum. `docs/rewards_coding.md` has the full measurement.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from textmarl.benchmarks import coding_rewards
from textmarl.benchmarks.coding_boxes import BOXED
from textmarl.benchmarks.coding_junk import (
    ANSWERLESS,
    MISSED,
    UNCOOPERATIVE,
    WRONG,
    Kind,
    endless,
    silent_helper,
)
from textmarl.benchmarks.coding_rewards import Score, case_of, junk_scores, score, score_team
from textmarl.envs.coding import hardened
from textmarl.envs.sandbox import Sandbox

CORPORA = Path(__file__).parent.parent / "coding_corpora"
TASKS = coding_rewards.compose_tasks()
# One problem of each level and another one of the first; the full page measures twenty.
CASES = [case_of(TASKS[f"Compose/{number}"]) for number in (5, 1, 2, 3, 14, 16)]
FULL = hardened.MAX_SCORE


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=coding_rewards.LIMITS) as made:
        yield made


@pytest.fixture(scope="module")
def alone(sandbox: Sandbox) -> list[Score]:
    """What a main agent that solves the problem earns with a partner who does not answer."""
    return junk_scores(sandbox, silent_helper, CASES[:4])


def name_of(kind: Kind) -> str:
    return kind.__name__


def test_there_are_enough_kinds_and_pairs() -> None:
    kinds = [*ANSWERLESS, *UNCOOPERATIVE, *BOXED, *WRONG, *MISSED]
    assert len(kinds) == len(set(map(name_of, kinds)))
    assert len(ANSWERLESS) >= 20 and len(UNCOOPERATIVE) >= 20
    assert len(coding_rewards.read_corpus("good", CORPORA)) >= 20


@pytest.mark.parametrize("kind", ANSWERLESS, ids=name_of)
def test_what_is_no_answer_scores_no_more_than_an_empty_one(sandbox: Sandbox, kind: Kind) -> None:
    cases = CASES[:2] if kind is endless else CASES
    empty = score(sandbox, cases[0].problem, "", "").v1
    for junk in junk_scores(sandbox, kind, cases):
        assert junk.v1 <= empty == 0.0, hardened.score_terms(junk.evidence)


@pytest.mark.parametrize("kind", [*UNCOOPERATIVE, *BOXED], ids=name_of)
def test_who_works_alone_earns_no_more_than_with_a_partner_who_does_not_answer(
    sandbox: Sandbox, alone: list[Score], kind: Kind
) -> None:
    for show, silent in zip(junk_scores(sandbox, kind, CASES[:4]), alone, strict=True):
        assert show.evidence.report is not None and show.evidence.report.passed == show.evidence.report.total
        assert show.v1 <= silent.v1 == pytest.approx(0.15 + 2.0), hardened.score_terms(show.evidence)


@pytest.mark.parametrize("kind", WRONG, ids=name_of)
def test_wrong_code_earns_at_most_the_form(sandbox: Sandbox, kind: Kind) -> None:
    for junk in junk_scores(sandbox, kind, CASES[:4]):
        assert 0.0 < junk.v1 <= 0.05 * FULL + 1e-9, hardened.score_terms(junk.evidence)


@pytest.mark.parametrize("kind", MISSED, ids=name_of)
def test_what_is_documented_to_get_through_does(sandbox: Sandbox, kind: Kind) -> None:
    """Where this fails the reward has become better than its page says: move the kind to another family."""
    assert junk_scores(sandbox, kind, CASES[:1])[0].v1 > 0.85 * FULL


def test_version_0_pays_most_shows_of_cooperation_like_the_real_thing(sandbox: Sandbox) -> None:
    """Or the tests above would say nothing about what version 1 mends."""
    paid = [junk_scores(sandbox, kind, CASES[:1])[0].v0 for kind in UNCOOPERATIVE]
    assert sum(points >= 0.85 * FULL for points in paid) >= 15


def test_good_pairs_score_over_85_percent(sandbox: Sandbox) -> None:
    for row in coding_rewards.read_corpus("good", CORPORA):
        good = score(sandbox, TASKS[row["task"]].data["problem"], row["helper"], row["main"])
        assert good.v1 > 0.85 * FULL, (row, hardened.score_terms(good.evidence))


def test_references_earn_the_maximum(sandbox: Sandbox) -> None:
    """Of a sample, the same one every time; the page has all of them."""
    tasks = random.Random(0).sample(sorted(TASKS.values(), key=lambda task: task.id), 16)
    for task in tasks:
        for reference in task.data["references"]:
            helpers = {part["name"]: part["source"] for part in reference["helpers"]}
            pair = score_team(sandbox, task.data["problem"], helpers, reference["main"])
            assert pair.v1 == pytest.approx(FULL), (task.id, hardened.score_terms(pair.evidence))


def test_mediocre_pairs_score_in_the_order_of_their_quality(sandbox: Sandbox) -> None:
    scores: dict[str, dict[str, float]] = {}
    for row in coding_rewards.read_corpus("mediocre", CORPORA):
        pair = score(sandbox, TASKS[row["task"]].data["problem"], row["helper"], row["main"])
        scores.setdefault(row["task"], {})[row["quality"]] = pair.v1
        assert 0.05 * FULL < pair.v1 < 0.9 * FULL, (row, hardened.score_terms(pair.evidence))
    ordered = [values for values in scores.values() if len(values) == 3]
    assert len(ordered) >= 3
    for values in ordered:
        assert values["partly right, alone"] < values["partly right"], values
        assert values["partly right, alone"] < values["right, alone"], values
