"""ArXiv as its page describes it: creation, prompts, rewards, bands, sources; any text at all."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from pathlib import Path
from typing import Any

import pettingzoo
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textmarl.envs import Outcome
from textmarl.envs.writing import arxiv, rewards
from textmarl.envs.writing.arxiv import BANDS, ArXiv

BACKGROUND = (
    "Modern farm machinery is a network on wheels. Dozens of controllers exchange messages, and a diagnostic "
    "port gives access to all of them. Because a stalled harvester can cost a family its crop, farmers have "
    "long asked for the right to repair what they own without waiting for a dealer. Manufacturers reply that "
    "a port which is open to the owner is also open to the thief, and theft of machines is indeed a growing "
    "business. Legislators have been left to weigh one claim against the other, although neither side has "
    "published data. Which messages does a repair need? Which of them would help a thief? As long as these "
    "questions are unanswered, the conflict between repair and security remains an assumption. However, if "
    "the two sets of messages hardly overlap, then the quarrel is about a design, not about a principle."
)
METHOD = (
    "In this work we first record the traffic on the control networks of six models of tractors and then "
    "assign to each of 212 common repairs the messages that it requires. The comparison with the messages of "
    "the immobiliser shows that all but nine repairs leave it untouched. Therefore we built a gateway which "
    "sits behind the diagnostic port. It filters by the type of a message and by its context, for instance "
    "whether the engine is running; the nine exceptions need a physical key to be turned, and whatever "
    "passes is written to a log that insurers can read. To test the design we hired two professional teams, "
    "gave them forty hours, and watched both of them fail to steal the machine through the port. The "
    "consequences reach beyond tractors. Cars, medical devices and wheelchairs carry gateways of the same "
    "kind, so regulators may ask makers for a filter of this sort instead of choosing between owners and "
    "insurers. In short, the right to repair costs security nothing once access is granted message by "
    "message. A limitation is that new models will have to be measured again, since the list of messages "
    "changes with every generation of controllers."
)
PAIR = {"background": BACKGROUND, "method": METHOD}


@pytest.fixture(scope="module")
def env() -> ArXiv:
    return ArXiv()


def abstract(tokens: int) -> str:
    return " ".join(f"w{number}" for number in range(tokens))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def hub_rows(count: int, tokens: int = 120) -> list[dict[str, Any]]:
    return [
        {"article_id": f"x/{i}", "abstract_text": f"number{i} {abstract(tokens - 1)}", "token_count": tokens}
        for i in range(count)
    ]


# ---------------------------------------------------------------------------------------------------- creation


def test_pettingzoo_makes_it() -> None:
    env = pettingzoo.make("parallel", "textmarl/ArXiv-v0", split="test[:8]")
    assert isinstance(env, ArXiv)
    assert env.possible_agents == ["background", "method"]
    assert env.metadata == {"name": "ArXiv-v0", "render_modes": ["ansi"], "is_parallelizable": True}
    assert (env.max_turns, env.max_score, len(env.tasks)) == (1, 3.0, 8)
    assert env.term_names == ("structure", "length", "vocabulary", "transitions", "overlap")
    assert pettingzoo.make("parallel", "textmarl/ArXiv-v0", max_cycles=1).max_turns == 1


def test_it_has_one_turn() -> None:
    for option in ("max_cycles", "max_turns"):
        with pytest.raises(ValueError, match=r"ArXiv has one turn: leave max_turns at 1"):
            pettingzoo.make("parallel", "textmarl/ArXiv-v0", **{option: 2})


@pytest.mark.parametrize("bands", ["2026", "", None, BANDS["current"]])
def test_unknown_bands_are_refused_with_those_there_are(bands: Any) -> None:
    with pytest.raises(ValueError, match=r"\['2025-08', 'current'\]"):
        ArXiv(bands=bands)


def test_the_module_offers_pettingzoos_three_names() -> None:
    assert isinstance(arxiv.parallel_env(split="test"), pettingzoo.ParallelEnv)
    for make in (arxiv.env, arxiv.raw_env):
        assert isinstance(make(split="test", bands="2025-08"), pettingzoo.AECEnv)


# ---------------------------------------------------------------------------------------------------- what agents read


def test_each_agent_reads_the_abstract_and_its_own_instruction_and_nothing_else(env: ArXiv) -> None:
    observations, infos = env.reset(seed=0)
    assert infos["method"]["task_id"] == env.task.id
    asked = {agent: text.split("\n\n")[-1] for agent, text in observations.items()}
    for text in observations.values():
        assert text.count(env.task.data["abstract_text"]) == 1
        assert env.task.data["article_id"] not in text
    assert "gives the background and the motivation" in asked["background"]
    assert "presents the method and the implications" in asked["method"]
    for text in asked.values():
        assert text.endswith("leave these to them.")


def test_instructions_are_short_and_do_not_tell_the_bands() -> None:
    for instruction in arxiv.INSTRUCTIONS.values():
        assert len(instruction.split()) <= 50
        assert not any(character.isdigit() for character in instruction)
        assert not any(word in instruction for word in ("token", "character", "transition", "long", "length"))


def test_an_abstract_with_braces_is_shown_as_it_is(tmp_path: Path) -> None:
    text = r"We write $\{source\}$ and {source} and {0} " + abstract(110)
    env = ArXiv("all", write_rows(tmp_path / "a.jsonl", [{"abstract_text": text}]))
    observations, _ = env.reset()
    assert text in observations["background"] and text in observations["method"]


# ---------------------------------------------------------------------------------------------------- rewards


@pytest.mark.parametrize("bands", sorted(BANDS))
def test_the_reward_is_the_published_one_for_both_agents(bands: str) -> None:
    env = ArXiv(bands=bands)
    env.reset(seed=0)
    observations, paid, terminations, truncations, infos = env.step(PAIR)
    expected = rewards.score_terms(BACKGROUND, METHOD, BANDS[bands])
    assert infos["background"]["reward_terms"] == infos["method"]["reward_terms"] == expected
    assert expected["overlap"] > 0, "the pair should pass every gate, or this test shows little"
    assert (
        paid
        == dict.fromkeys(PAIR, infos["method"]["score"])
        == dict.fromkeys(PAIR, math.fsum(expected.values()))
    )
    for agent, text in PAIR.items():
        assert infos[agent]["individual_reward"] == rewards.individual_reward(text, BANDS[bands]) > 0.5
    assert terminations == dict.fromkeys(PAIR, True) and truncations == dict.fromkeys(PAIR, False)
    assert observations == dict.fromkeys(PAIR, "")


def test_the_bands_of_the_papers_first_version_pay_shorter_methods() -> None:
    ratio = len(METHOD) / len(BACKGROUND)
    assert 1.3 <= ratio <= 1.5
    paid = {}
    for bands in BANDS:
        env = ArXiv(bands=bands)
        env.reset(seed=0)
        paid[bands] = env.step(PAIR)[4]["method"]["reward_terms"]["length"]
    assert paid["current"] == 1.0
    assert paid["2025-08"] == pytest.approx(1 - (ratio - 1.3) / 0.2)


def test_a_good_pair_scores_well_though_its_words_overlap_less_than_the_formula_wants(env: ArXiv) -> None:
    env.reset(seed=0)
    *_, infos = env.step(PAIR)
    terms = infos["method"]["reward_terms"]
    assert 0.8 * env.max_score < infos["method"]["score"] < 0.9 * env.max_score
    assert (terms["structure"], terms["length"]) == (0.5, 1.0) and terms["vocabulary"] > 0.4
    assert 0.0 < terms["overlap"] < 0.5 * 0.6


def test_the_roles_are_not_interchangeable(env: ArXiv) -> None:
    env.reset(seed=0)
    *_, infos = env.step({"background": METHOD, "method": BACKGROUND})
    assert infos["method"]["reward_terms"] == dict.fromkeys(env.term_names, 0.0) | {"structure": 0.5}


def test_individual_rewards_pay_each_text_alone() -> None:
    env = ArXiv(reward="individual")
    env.reset(seed=0)
    _, paid, *_ = env.step({"background": "too short", "method": METHOD})
    assert paid == {"background": 0.0, "method": rewards.individual_reward(METHOD, BANDS["current"])}
    assert paid["method"] > 0.5


def test_an_own_reward_may_read_the_abstract() -> None:
    env = ArXiv(reward_fn=lambda responses, task: float(responses["method"] in task.data["abstract_text"]))
    env.reset(seed=0)
    opening = env.task.data["abstract_text"][:40]
    _, paid, *_ = env.step({"background": "", "method": opening})
    assert paid == dict.fromkeys(PAIR, 1.0)


@pytest.mark.parametrize("bands", sorted(BANDS))
def test_copies_keep_their_bands(bands: str) -> None:
    env = ArXiv(bands=bands)
    env.reset(seed=0)
    twins = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    score = env.step(PAIR)[1]
    for twin in twins:
        assert twin.bands == BANDS[bands] and twin.step(PAIR)[1] == score


def test_a_subclass_may_judge_otherwise() -> None:
    class OnlyLength(ArXiv):
        term_names = ("characters",)
        max_score = 100.0

        def judge(self, responses: dict[str, str]) -> Outcome:
            alone = {agent: float(len(text)) for agent, text in responses.items()}
            return Outcome({"characters": min(100.0, sum(alone.values()))}, individual=alone)

    env = OnlyLength(split="test")
    env.reset(seed=0)
    _, paid, *_ = env.step({"background": "ab", "method": "abc"})
    assert paid == dict.fromkeys(PAIR, 5.0)


ANY_TEXT = st.one_of(
    st.text(alphabet=st.characters(), max_size=400),  # every code point, lone surrogates too
    st.lists(st.sampled_from([*METHOD.split(), "\x00", "\ud800", "\u2028", "1"]), max_size=300).map(" ".join),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(background=ANY_TEXT, method=ANY_TEXT)
def test_no_text_raises_and_every_score_is_in_range(env: ArXiv, background: str, method: str) -> None:
    env.reset(options={"task": 0})
    _, paid, _, _, infos = env.step({"background": background, "method": method})
    info = infos["method"]
    assert 0.0 <= info["score"] <= 2.98 + 1e-9
    assert paid["background"] == paid["method"] == info["score"]
    assert all(value >= 0.0 for value in info["reward_terms"].values())
    for own in infos.values():
        assert 0.0 <= own["individual_reward"] <= 0.5 + 0.4 * 0.95 + 1e-9


def test_a_step_takes_less_than_two_milliseconds(env: ArXiv) -> None:
    env.reset(seed=0)
    env.step(PAIR)  # the phrase lists are read once
    durations = []
    for _ in range(30):
        begin = time.perf_counter()
        env.reset(seed=1)
        env.step(PAIR)
        durations.append(time.perf_counter() - begin)
    assert sorted(durations)[len(durations) // 2] < 0.002


# ---------------------------------------------------------------------------------------------------- sources


def test_a_local_file_in_the_hubs_schema_serves(tmp_path: Path) -> None:
    env = ArXiv(split="test", source=write_rows(tmp_path / "abstracts.jsonl", hub_rows(10)))
    observations, infos = env.reset(options={"task": "row/9"})
    assert "number9 " in observations["background"]
    assert infos["background"]["task_id"] == "row/9"
    assert env.task.data["article_id"] == "x/9"
    assert len(env.tasks) == 2


def test_a_folder_in_the_hubs_format_serves_and_its_val_is_test(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", hub_rows(6))
    write_rows(tmp_path / "val.jsonl", hub_rows(4))
    assert [task.id for task in ArXiv("train[:2]", tmp_path).tasks] == ["train/0", "train/1"]
    for split in ("test[1:3]", "val[1:3]"):
        tasks = ArXiv(split, tmp_path).tasks
        assert [task.id for task in tasks] == ["val/1", "val/2"] and tasks.split == split
    write_rows(tmp_path / "test.jsonl", hub_rows(1))
    assert [task.id for task in ArXiv("test", tmp_path).tasks] == ["test/0"]


def test_the_hub_gives_the_same_tasks_as_a_local_copy_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
    rows = {"train": hub_rows(5), "val": [*hub_rows(3), *hub_rows(1, tokens=99)]}

    def load_dataset(name: str, config: str | None, split: str) -> Any:
        assert (name, config) == ("OpenMLRL/arXiv_abstract", None)
        return datasets.Dataset.from_list(rows[split])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for split, listed in rows.items():
        write_rows(tmp_path / f"{split}.jsonl", listed)
    for split in ("train", "train[2:4]", "test[:2]", "test[:1000]"):
        hub, local = (ArXiv(split, source).tasks for source in ("hub", tmp_path))
        assert [(task.id, task.data) for task in hub] == [(task.id, task.data) for task in local]
    assert [task.id for task in ArXiv("test[:1000]", "hub").tasks] == ["val/0", "val/1", "val/2"]


def test_without_a_network_the_hub_says_what_to_do() -> None:
    pytest.importorskip("datasets", reason="the extra `data` is not installed")
    with pytest.raises(ConnectionError, match=r'OpenMLRL/arXiv_abstract.*source="bundled".*JSONL file'):
        ArXiv(source="hub")


def test_abstracts_may_come_as_lists_of_marked_sentences(tmp_path: Path) -> None:
    sentences = ["<S> we study a thing . </S>", f"<S> {abstract(120)} . </S>"]
    env = ArXiv("all", write_rows(tmp_path / "a.jsonl", [{"abstract_text": sentences}]))
    env.reset()
    assert env.task.data["abstract_text"] == f"we study a thing . {abstract(120)} ."


@pytest.mark.parametrize("tokens, kept", [(99, False), (100, True), (300, True), (301, False)])
@pytest.mark.parametrize("counted", ["by the data", "here"])
def test_abstracts_of_100_to_300_tokens_are_kept(
    tmp_path: Path, tokens: int, kept: bool, counted: str
) -> None:
    row: dict[str, Any] = {"abstract_text": abstract(tokens)}
    if counted == "by the data":
        row = {"abstract_text": abstract(150), "token_count": tokens}
    path = write_rows(tmp_path / "a.jsonl", [*hub_rows(1), row])
    assert [task.id for task in ArXiv("all", path).tasks] == ["row/0", "row/1"][: 1 + kept]


def test_rows_left_out_do_not_change_a_slice(tmp_path: Path) -> None:
    rows = hub_rows(6)
    rows[1]["token_count"] = 99
    path = write_rows(tmp_path / "a.jsonl", rows)
    assert [task.id for task in ArXiv("all[:3]", path).tasks] == ["row/0", "row/2"]


def test_a_source_without_a_usable_abstract_says_so(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", [{"abstract_text": "far too short"}, {"abstract_text": " "}])
    with pytest.raises(ValueError, match=r"a\.jsonl: none of the 2 abstracts .* 100 to 300 tokens.*ask for"):
        ArXiv("all", path)
    path = write_rows(tmp_path / "b.jsonl", [{"abstract_text": "", "token_count": 150}])
    with pytest.raises(ValueError, match=r"none of the 1 abstracts"):
        ArXiv("all", path)


@pytest.mark.parametrize(
    "row, complaint",
    [
        ({"abstract": "a"}, r"line 2: column 'abstract_text' is missing \(found \['abstract'\]\); expected"),
        ({"abstract_text": 3}, r"line 2: column 'abstract_text' is a int; expected .*\(str \| list\)"),
        (
            {"abstract_text": ["a", 3]},
            r"row/1: column 'abstract_text' is a list .*expected one text, or a list",
        ),
        (
            {"abstract_text": "a", "token_count": "120"},
            r"row/1: column 'token_count' must be an integer, not '120'",
        ),
        (
            {"abstract_text": "a", "token_count": True},
            r"row/1: column 'token_count' must be an integer, not True",
        ),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    path = write_rows(tmp_path / "a.jsonl", [*hub_rows(1), row])
    with pytest.raises(ValueError, match=r"a\.jsonl, " + complaint):
        ArXiv("all", path)


def test_an_empty_file_slice_or_unknown_split_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is empty; expected one JSON object a line"):
        ArXiv("all", write_rows(tmp_path / "empty.jsonl", []))
    with pytest.raises(ValueError, match=r"nothing is left of the split 'train\[900:\]'; ask for a larger"):
        ArXiv("train[900:]")
    with pytest.raises(LookupError, match=r"no split 'dev'; it has \['test', 'train'\]: choose one"):
        ArXiv("dev")
    with pytest.raises(FileNotFoundError, match=r'nowhere.*"bundled", "hub", or the path'):
        ArXiv("train", tmp_path / "nowhere")
