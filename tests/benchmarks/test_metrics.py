"""The metric modules load by path without a network, and say what the library says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pettingzoo
import pytest

import textmarl.envs  # noqa: F401  (registers the environments)
from textmarl.benchmarks.metrics import NAMES, path_of

evaluate = pytest.importorskip("evaluate")

Load = Callable[[str], Any]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    """Return a function: name -> the metric. `evaluate` writes its cache elsewhere than in the user's folder."""
    cache = str(tmp_path_factory.mktemp("cache"))
    loaded: dict[str, Any] = {}

    def metric(name: str) -> Any:
        if name not in loaded:
            loaded[name] = evaluate.load(path_of(name), cache_dir=cache)
        return loaded[name]

    return metric


def test_every_folder_is_a_metric_that_is_listed(load: Load) -> None:
    folders = {path.name for path in Path(path_of("rouge")).parent.iterdir() if path.is_dir()}
    assert folders - {"__pycache__"} == set(NAMES)
    for name in NAMES:
        assert (
            load(name).name == name and load(name).description and "Returns:" in load(name).inputs_description
        )
    with pytest.raises(LookupError, match="no metric 'bleu'; there are cooperation, rouge"):
        path_of("bleu")


def test_rouge_of_an_example_worked_out_by_hand(load: Load) -> None:
    # 6 and 5 words; shared: the, cat, the, mat = 4 -> F1 8/11. Pairs "the cat", "the mat": 2 of 5 and 4 -> 4/9.
    # Longest common subsequence "the cat the mat": 4 -> 8/11.
    scores = load("rouge").compute(
        predictions=["The cat sat on the mat."], references=["the cat: by the mat"]
    )
    assert scores == pytest.approx({"rouge1": 8 / 11, "rouge2": 4 / 9, "rougeL": 8 / 11})
    # The order of words counts for all but ROUGE-1, and a word counts as often as it is in both texts.
    scores = load("rouge").compute(predictions=["b a a"], references=["a b"])
    assert scores == pytest.approx({"rouge1": 4 / 5, "rouge2": 0, "rougeL": 2 / 5})


def test_rouge_averages_over_texts_and_takes_the_best_reference(load: Load) -> None:
    scores = load("rouge").compute(predictions=["a b", "", "été"], references=[["x", "a b"], ["a"], ["été"]])
    # "été" has the one token "t" (the letters from a to z alone count), so it has no pair of tokens.
    assert scores == pytest.approx({"rouge1": 2 / 3, "rouge2": 1 / 3, "rougeL": 2 / 3})
    with pytest.raises(ValueError, match="empty list of references"):
        load("rouge").compute(predictions=["a"], references=[[]])


@pytest.mark.parametrize("env_id", ["TLDR-v0", "TLDR-v1", "ArXiv-v0", "ArXiv-v1"])
def test_writing_rewards_are_those_that_the_environment_pays(env_id: str, load: Load) -> None:
    corpus = Path(__file__).parents[1] / "envs" / "writing_corpora" / f"good_{env_id[:-3].lower()}.jsonl"
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()[:3]]
    tldr = env_id.startswith("TLDR")  # its corpus names bundled tasks, that of ArXiv holds its own
    options = {"split": "test"} if tldr else {"source": str(corpus), "split": "all"}
    env = pettingzoo.make("parallel", f"textmarl/{env_id}", **options)
    pairs, sources, infos = [], [], []
    for number, row in enumerate(rows):
        env.reset(options={"task": row["task"] if tldr else number})
        _, _, _, _, info = env.step({agent: row[agent] for agent in env.possible_agents})
        infos.append(info[env.possible_agents[0]])
        pairs.append(
            dict(zip(("first", "second"), (row[agent] for agent in env.possible_agents), strict=True))
        )
        sources.append(env.task.data["prompt" if tldr else "abstract_text"])
    got = load("writing_rewards").compute(
        predictions=pairs, references=sources, environment=f"textmarl/{env_id}"
    )
    assert got["score"] == pytest.approx(sum(info["score"] for info in infos) / 3) and got["score"] > 0
    assert got["percent"] == pytest.approx(100 * got["score"] / env.max_score)
    for term in env.term_names:
        assert got[term] == pytest.approx(sum(info["reward_terms"][term] for info in infos) / 3)
    assert ("v0_score" in got) == env_id.endswith("v1")


def test_writing_rewards_of_another_environment_are_refused(load: Load) -> None:
    pair = {"first": "a", "second": "b"}
    for environment in ("textmarl/Chorus-v0", "textmarl/TLDR-v7", "textmarl/TLDR", "TLDR-v1"):
        with pytest.raises(
            ValueError, match=r"no writing environment; there are textmarl/ArXiv-v0, .*, textmarl/TLDR-v1$"
        ):
            load("writing_rewards").compute(predictions=[pair], references=["a"], environment=environment)


SQUARE = {
    "entry_point": "square",
    "prompt": "",
    "test": "assert square(3) == 9\nassert candidate(-2) == 4\n",
}
RIGHT, HALF, BROKEN = (
    "def square(x):\n    return x * x",
    "def square(x):\n    return 3 * x",
    "def square(x) return",
)


def test_pass_rate_and_pass_at_k_of_programs(load: Load) -> None:
    got = load("test_pass_rate").compute(
        predictions=[[RIGHT, HALF, BROKEN, BROKEN], [RIGHT] * 4], references=[SQUARE] * 2, k=[1, 2, 5]
    )
    # Task 1: shares 1, 1/2, 0, 0; 1 of 4 solves it, so a pair has it in 3 of 6 cases. Task 2: all right.
    assert got == pytest.approx(
        {"test_pass_rate": (0.375 + 1) / 2, "pass@1": (0.25 + 1) / 2, "pass@2": (0.5 + 1) / 2}
    )


def test_k_may_be_one_number_and_must_be_at_least_one(load: Load) -> None:
    got = load("test_pass_rate").compute(predictions=[[RIGHT, BROKEN]], references=[SQUARE], k=1)
    assert got == {"test_pass_rate": 0.5, "pass@1": 0.5}
    for k in (0, [0, 1], [1.5], "1", True, [None]):
        with pytest.raises(ValueError, match="k must be one integer of at least 1, or several"):
            load("test_pass_rate").compute(predictions=[[RIGHT]], references=[SQUARE], k=k)


def test_a_fenced_program_passes_nothing_and_a_warning_says_why(load: Load) -> None:
    fenced = f"Here it is:\n```python\n{RIGHT}\n```"
    quoting = 'def square(x):\n    "As ```x * x``` says."\n    return x * x'
    with pytest.warns(UserWarning, match="1 of the predictions hold a Markdown fence"):
        got = load("test_pass_rate").compute(predictions=[[fenced, quoting]], references=[SQUARE], k=[1])
    assert got["test_pass_rate"] == 0.5


def test_rows_of_humaneval_are_references(load: Load) -> None:
    row = {
        "prompt": 'def square(x):\n    """The square."""\n',
        "test": "def check(candidate):\n    assert candidate(3) == 9\n    assert candidate(-2) == 4\n",
        "entry_point": "square",
    }
    got = load("test_pass_rate").compute(predictions=[[HALF]], references=[row])
    assert got == {"test_pass_rate": 0.5, "pass@1": 0.0}


def test_tasks_without_programs_or_tests_are_refused(load: Load) -> None:
    with pytest.raises(ValueError, match="empty list of programs"):
        load("test_pass_rate").compute(predictions=[[]], references=[SQUARE])
    for test, message in (
        ("", "define one function `check"),
        ("x = 1", "nothing is tested"),
        ("assert (", "not Python"),
    ):
        with pytest.raises(ValueError, match=f"task 0.*{message}"):
            load("test_pass_rate").compute(predictions=[[RIGHT]], references=[{**SQUARE, "test": test}])


def test_cooperation_is_what_the_coding_environment_pays(load: Load) -> None:
    row = {
        "prompt": 'def fourth(x):\n    """The fourth power."""\n',
        "test": "def check(candidate):\n    assert candidate(2) == 16\n    assert candidate(-1) == 1\n",
        "entry_point": "fourth",
    }
    helper = "def aux(x):\n    return x * x"
    uses = "def fourth(x):\n    square = aux(x)\n    return square * square"
    alone = "def fourth(x):\n    return x ** 4"
    got = load("cooperation").compute(
        predictions=[{"helper": helper, "main": uses}, {"helper": helper, "main": alone}],
        references=[row] * 2,
    )
    # Both: 0.4 + 0.6 + 0.5 + 1. The first calls the helper (0.5) and does more than that (1.0). Of a maximum of 4.
    assert got["score"] == pytest.approx((4.0 + 2.5) / 2) and got["percent"] == pytest.approx(81.25)
    assert (
        got["cooperation"] == pytest.approx(0.5) and got["all_passed"] == 1.0 and got["calls_helper"] == 0.25
    )
