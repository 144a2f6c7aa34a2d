"""The hardened writing reward: its parts by hand-counted examples, its sum, and the environments that pay it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import time
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import pettingzoo
import pytest

import textmarl.envs
from textmarl.benchmarks import writing_rewards
from textmarl.envs.writing import arxiv, copying, hardened, prose, tldr
from textmarl.envs.writing.hardened import FACTORS, FORM, TERMS, fall, judge, rise

CORPORA = Path(__file__).parent / "writing_corpora"
TLDR, ARXIV = writing_rewards.tldr(CORPORA), writing_rewards.arxiv(CORPORA)
POST = TLDR.posts[1]
SPELLS = ["", "\x00", "\ud800 \udfff", "🙂 " * 300, "a" * 10**6, "word " * 10**5, "\n" * 500, "١٢٣ " * 20]

# ------------------------------------------------------------------------------------------- reading a text


def test_words_keep_apostrophes_and_lose_case_and_marks() -> None:
    assert prose.read("Don’t PARK here, café_x (now)!").words == ("don't", "park", "here", "café", "x", "now")


def test_sentences_end_at_marks_and_line_breaks() -> None:
    assert prose.read("One two. Three!\nFour five six").sentences == ((0, 2), (2, 3), (3, 6))
    assert prose.read("Version 3.5 costs $6.20 here.").sentences == ((0, 7),)


@pytest.mark.parametrize(
    "forms",
    [
        ("park", "parks", "parked", "parking"),
        ("label", "labels", "labelled", "labelling"),
        ("neighbour", "neighbours", "neighbour's"),
        ("city", "cities"),
        ("run", "running"),
        ("make", "making", "makes"),
    ],
)
def test_forms_of_a_word_have_one_stem(forms: tuple[str, ...]) -> None:
    assert len({prose.stem(form) for form in forms}) == 1


def test_content_words_are_no_function_words() -> None:
    assert prose.read("The dog and the cats were in it").content == {"dog", "cat"}


def test_english_order_carries_information_and_the_same_words_shuffled_do_not() -> None:
    text = "The landlady lets herself in twice a week, because she wants to water a plant in the hall."
    shuffled = "in a twice the because hall wants week plant lets water she to landlady a herself the in"
    assert prose.word_order(prose.read(text)) > 0.3
    assert prose.word_order(prose.read(shuffled)) < 0.0
    assert prose.word_order(prose.read("")) == 0.0


# ----------------------------------------------------------------------------------- what is taken from a source

SOURCE = prose.read(
    "A red fox quickly jumped over two lazy dogs while seven small birds watched from tall trees."
)


@pytest.mark.parametrize(
    "text, share",
    [
        ("Red fox quickly jumped over two lazy dogs.", 1.0),
        ("Red quickly over lazy while small watched tall.", 1.0),  # every second word
        ("Red fox really jumped over maybe lazy dogs.", 1.0),  # every third replaced
        ("Red fox quickly jumped over.", 0.0),  # five words are no passage
        ("Trees tall watched birds small seven dogs lazy.", 0.0),  # backwards
        ("Nothing here. Red fox quickly jumped over two.", 6 / 8),
        ("", 1.0),
    ],
)
def test_copied_passages_are_found_thinned_and_edited(text: str, share: float) -> None:
    assert prose.copied_passages(prose.read(text), SOURCE) == pytest.approx(share)


def test_copied_triples_are_counted_within_sentences() -> None:
    # Triples: "red fox quickly" (copied), "fox quickly slept" (not); "lazy dogs" has none.
    assert prose.copied_triples(prose.read("Red fox quickly slept. Lazy dogs."), SOURCE) == 1 / 2
    assert prose.copied_triples(prose.read("Lazy dogs."), SOURCE) == 1.0


@pytest.mark.parametrize(
    "text, share",
    [
        # With words of its own between, at most two at a time: they stand in the train, as in a passage.
        (
            "Red fox, you know, quickly jumped over, I guess, two lazy dogs while seven small birds watched.",
            1.0,
        ),
        ("Red fox, you know, quickly jumped over two lazy dogs. My sister Anna married.", 8 / 11),
        ("Red fox. Trees. Lazy dogs. Birds watched.", 0.0),  # no five in the source's order and near enough
        ("Tall trees watched small birds; lazy dogs jumped.", 0.0),  # against the order
        ("", 1.0),
    ],
)
def test_trains_of_content_words_are_found_whatever_stands_between(text: str, share: float) -> None:
    assert copying.copied_trains(prose.read(text), SOURCE) == pytest.approx(share)


def test_gatherings_are_found_in_any_order() -> None:
    # The first eight words of the source with its runs of two exchanged; then words from all over it.
    assert copying.copied_gatherings(prose.read("Fox quickly a red over two jumped lazy."), SOURCE) == 1.0
    assert copying.copied_gatherings(prose.read("A trees red tall fox from lazy watched."), SOURCE) == 0.0
    assert copying.copied_gatherings(prose.read(""), SOURCE) == 1.0


def test_pairs_are_lifted_when_they_lose_what_joined_them() -> None:
    # Before red stands "a", before lazy "two", before small nothing but a content word.
    kept = prose.read("A red fox jumped over two lazy dogs.")
    framed = prose.read("The red fox was with his lazy dogs and the small birds.")
    assert copying.lifted_words(kept, SOURCE) == 0.0
    assert copying.lifted_words(framed, SOURCE) == 1.0
    assert copying.lifted_words(prose.read(""), SOURCE) == 1.0


def test_closeness_falls_with_the_distance_in_the_source() -> None:
    n = len(SOURCE.words)
    assert n == 17
    near, pairs = prose.closeness(prose.read("The fox jumped near the trees."), SOURCE)
    # fox and jumped are 2 apart in the source, jumped and trees 12; "near" is a content word it has not.
    assert pairs == 2
    assert near == pytest.approx(math.exp(-16 * 2 / n) + math.exp(-16 * 12 / n))


def test_repetition_is_counted_in_triples_and_words() -> None:
    text = prose.read("my dog ate my dog ate my dog ate")  # 7 triples, 3 of them distinct
    assert prose.repeated_triples(text) == pytest.approx(1 - 3 / 7)
    assert prose.repeated_words(text) == pytest.approx(3 / 6)


# ------------------------------------------------------------------------------------------------ transitions


@pytest.mark.parametrize(
    "text, categories",
    [
        ("He left the house. However, she stayed at home.", {"contrast"}),
        ("However, she stayed at home.", set()),  # nothing comes before
        ("She stayed at home because it was raining hard.", {"explanation"}),
        ("She stayed at home. However, therefore, moreover, indeed.", set()),  # a list
        ("The sofa was absolutely and wholly butterfly soft.", set()),  # "so" and "but" inside words
        ("She left. For example, she took the bus. So he took the car.", {"examples", "cause-effect"}),
    ],
)
def test_transitions_are_whole_words_that_connect(text: str, categories: set[str]) -> None:
    assert prose.read(text).transitions.categories == categories


def test_no_phrase_stands_in_two_categories() -> None:
    phrases = [phrase for found in prose.transition_phrases().values() for phrase in found]
    assert len(phrases) == len(set(phrases)) and len(prose.transition_phrases()) == 12


# ------------------------------------------------------------------------------------------------- the reward


def terms_of(first: str, second: str, source: str = POST.source) -> dict[str, float]:
    found = dict(judge(first, second, source, hardened.TLDR).terms)
    assert tuple(found) == TERMS
    return found


def test_ramps() -> None:
    assert [rise(x, (1.0, 3.0)) for x in (0, 1, 2, 3, 4)] == [0, 0, 0.5, 1, 1]
    assert [fall(x, (1.0, 3.0)) for x in (0, 1, 2, 3, 4)] == [1, 1, 0.5, 0, 0]


def test_a_good_pair_loses_nothing_to_the_factors() -> None:
    terms = terms_of(*POST.honest)
    assert sum(terms[name] for name in FACTORS) == 0.0
    assert terms["structure"] == 0.5 and terms["length"] == 1.0 and terms["vocabulary"] == 0.5
    assert terms["overlap"] == pytest.approx(0.6)


def test_each_defect_is_charged_to_its_own_term() -> None:
    first, second = POST.honest
    other = TLDR.posts[5].honest
    assert terms_of(*other)["faithfulness"] == pytest.approx(-sum(terms_of(*other)[n] for n in FORM))
    copied = terms_of(first, " ".join(POST.tokens[20:80]))
    assert copied["originality"] < -1.0 and copied["faithfulness"] > -0.5
    assert terms_of(first, " ".join(sorted(second.split())))["fluency"] < 0.0 or (
        terms_of(first, " ".join(sorted(second.split())))["faithfulness"] < -1.0
    )
    twice = second.split(". ")
    assert terms_of(first, ". ".join([*twice[:3], *twice[:3]]) + ".")["repetition"] < -0.5
    assert terms_of(first, f"{first} {first.replace('I want', 'we want')}")["distinctness"] <= 0.0


def test_a_gate_ends_the_form_as_in_version_0() -> None:
    second = POST.honest[1]
    assert terms_of("too short", second) == dict.fromkeys(TERMS, 0.0)
    same = terms_of(second, second)
    assert [same[name] for name in FORM] == [0.5, 0.0, 0.0, 0.0, 0.0]
    assert math.fsum(same.values()) == 0.0, "identical twins keep nothing"


def test_white_space_and_punctuation_buy_no_length() -> None:
    first, second = POST.honest
    plain = terms_of(first, second)
    assert terms_of(first, second.replace(" ", "  \t "))["length"] == plain["length"]
    assert terms_of(first, second + "." * 400)["length"] == plain["length"]


def test_scores_lie_between_0_and_3_and_junk_scores_exactly_0() -> None:
    for first in (*SPELLS, POST.honest[0], POST.source):
        for second in (*SPELLS, POST.honest[1], POST.source):
            judgement = judge(first, second, POST.source, hardened.TLDR)
            assert 0.0 <= math.fsum(judgement.terms.values()) <= hardened.MAX_SCORE
            assert all(0.0 <= value <= hardened.MAX_INDIVIDUAL for value in judgement.individual)
    assert math.fsum(terms_of(*TLDR.posts[5].honest).values()) == 0.0


@pytest.mark.parametrize("source", ["", "\x00", "One two three.", "🙂 " * 50])
def test_a_source_without_words_gives_a_score_too(source: str) -> None:
    assert math.fsum(terms_of(*POST.honest, source).values()) == 0.0


def test_individual_reward_reads_the_own_text_and_the_source_alone() -> None:
    first, second = POST.honest
    both = judge(first, second, POST.source, hardened.TLDR).individual
    assert judge(first, "", POST.source, hardened.TLDR).individual == (both[0], 0.0)
    assert judge("", second, POST.source, hardened.TLDR).individual == (0.0, both[1])
    assert both[0] > 0.5 and both[1] == pytest.approx(hardened.MAX_INDIVIDUAL)
    junk = judge(" ".join(POST.tokens[:30]), ", ".join(POST.keywords), POST.source, hardened.TLDR)
    assert max(junk.individual) < 0.1


def test_the_reward_is_the_same_in_every_process() -> None:
    code = (
        "import json, sys; from textmarl.envs.writing import hardened;"
        "a, b, s = json.load(sys.stdin); j = hardened.judge(a, b, s, hardened.TLDR);"
        "print(json.dumps([dict(j.terms), j.individual]))"
    )
    given = json.dumps([" ".join(POST.tokens[:25]), POST.honest[1], POST.source])
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=given,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1")
    }
    assert len(found) == 1


@pytest.mark.parametrize("task", [TLDR, ARXIV], ids=["TLDR", "ArXiv"])
def test_a_pair_is_judged_in_under_2_milliseconds(task: Any) -> None:
    def seconds(first: str, second: str, source: str) -> float:
        prose.read_source.cache_clear()
        start = time.process_time()
        task.v1(first, second, source)
        return time.process_time() - start

    pairs = [(*post.honest, post.source) for post in task.posts[:6]]
    task.v1(*pairs[0])
    # The best of several: what else runs on the machine is not the reward's. A busy neighbour on the same core makes
    # even processor time longer, for seconds on end.
    slowest = []
    for pause in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0):
        time.sleep(pause)
        slowest.append(max(min(seconds(*pair) for _ in range(25)) for pair in pairs))
        if slowest[-1] < 0.002:
            return
    raise AssertionError(f"seconds of the slowest pair: {slowest}; expected less than 0.002 once")


def test_the_data_of_version_1_are_fixed() -> None:
    folder = resources.files("textmarl.envs.writing").joinpath("data", "v1")
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        for file in folder.iterdir()
        if file.name != "frame_words.txt"
    }
    assert found == FIXED, "a change of these files changes every score: make it a version 2"


FIXED = {
    "common_words_arxiv.txt": "58912edecec5",
    "common_words_tldr.txt": "17156240e1c7",
    "transitions.json": "b861cf953a33",
    "word_order.json": "32fdd1f2f7b4",
}


# ---------------------------------------------------------------------------------------------- environments


@pytest.mark.parametrize("name", ["TLDR", "ArXiv"])
def test_version_1_is_registered_and_passes_the_conformance_check(name: str) -> None:
    for api in ("parallel", "aec"):
        assert pettingzoo.make(api, f"textmarl/{name}-v1").metadata["name"] == f"{name}-v1"
    make = partial(pettingzoo.make, "parallel", f"textmarl/{name}-v1")
    textmarl.envs.check_env(make, other_process=False)


def test_the_environment_pays_the_hardened_score_and_reports_that_of_version_0() -> None:
    old = pettingzoo.make("parallel", "textmarl/TLDR-v0", split="test")
    new = pettingzoo.make("parallel", "textmarl/TLDR-v1", split="test")
    actions = dict(zip(new.possible_agents, POST.honest, strict=True))
    scores = []
    for env in (old, new):
        observations, infos = env.reset(options={"task": "test/1"})
        scores.append((observations, infos, env.step(actions)))
    assert scores[0][0] == scores[1][0], "the same instructions"
    assert scores[1][1]["concise"]["metrics"] == {"v0_score": 0.0}
    _, rewards, _, _, infos = scores[1][2]
    published = scores[0][2][4]["concise"]["score"]
    assert infos["detailed"]["metrics"] == {"v0_score": pytest.approx(published)}
    assert rewards["concise"] == rewards["detailed"] == infos["concise"]["score"]
    assert rewards["concise"] == pytest.approx(3 * TLDR.v1(*POST.honest, POST.source))
    assert math.fsum(infos["concise"]["reward_terms"].values()) == infos["concise"]["score"]


def test_labels_of_the_data_are_no_part_of_the_post() -> None:
    env = pettingzoo.make("parallel", "textmarl/TLDR-v1", split="test")
    env.reset(options={"task": "test/1"})
    assert env.source().startswith("SUBREDDIT: r/legaladvice\n\nTITLE: neighbors")
    assert env.judged_source().startswith("legaladvice\n\nneighbors contractor")
    assert "POST:" not in env.judged_source()


def test_individual_mode_pays_each_its_own() -> None:
    env = pettingzoo.make("parallel", "textmarl/TLDR-v1", split="test", reward="individual")
    env.reset(options={"task": "test/1"})
    _, rewards, _, _, infos = env.step({"concise": POST.honest[0], "detailed": "No."})
    assert rewards["detailed"] == 0.0 < rewards["concise"] == infos["concise"]["individual_reward"]


def test_version_0_is_untouched_by_version_1() -> None:
    assert tldr.TLDR.metric_names == () == arxiv.ArXiv.metric_names
    assert tldr.TLDR.term_names == FORM
