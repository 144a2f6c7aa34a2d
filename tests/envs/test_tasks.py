"""Where tasks come from: bundled, a file or folder, the Hub. What is wrong with a source is said precisely."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from textmarl.envs import Task, TaskSet, TextEnv, load_tasks
from textmarl.envs.coding.coop_humaneval import CoopHumanEval
from textmarl.envs.coding.mbpp import MBPP
from textmarl.envs.writing.tldr import TLDR

COLUMNS = {"prompt": str}


def load(source: Any, split: str = "train", **options: Any) -> TaskSet:
    return load_tasks(source, split, columns=COLUMNS, **options)


def rows(count: int, **columns: Any) -> list[dict[str, Any]]:
    return [{"prompt": f"post {i}", **columns} for i in range(count)]


def write_lines(path: Path, items: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    return path


def write_array(path: Path, items: Iterable[Any]) -> Path:
    path.write_text(json.dumps(list(items), indent=2), encoding="utf-8")
    return path


def prompts(tasks: TaskSet) -> list[str]:
    return [task.data["prompt"] for task in tasks]


# ---------------------------------------------------------------------------------------------------- task sets


def test_tasks_are_found_by_index_and_by_id() -> None:
    tasks = TaskSet.of(["a", {"id": 7, "text": "b"}, {"text": "c", "answer": 3}], name="mine")
    assert [task.id for task in tasks] == ["task/0", "7", "task/2"]
    assert tasks.find(0) is tasks.find("task/0") is tasks[0]
    assert tasks.find("7").data == {"id": 7, "text": "b"}
    assert tasks.find(2).data["answer"] == 3
    assert (len(tasks), tasks.name, tasks.split) == (3, "mine", "all")


@pytest.mark.parametrize("key", ["no-such", 2, -1])
def test_an_unknown_task_is_refused_with_what_there_is(key: int | str) -> None:
    with pytest.raises(LookupError, match=rf"mine.*{key}.*(0 to 1|'task/0' to 'task/1')"):
        TaskSet.of(["a", "b"], name="mine").find(key)


@pytest.mark.parametrize("key", [None, True, 1.0, ("a",)])
def test_a_task_is_named_by_index_or_id_only(key: Any) -> None:
    with pytest.raises(TypeError, match=r"index .*or id"):
        TaskSet.of(["a", "b"]).find(key)


def test_a_task_set_needs_a_task_and_distinct_ids() -> None:
    with pytest.raises(ValueError, match=r"no task"):
        TaskSet.of([])
    with pytest.raises(ValueError, match=r"id 'x'.*distinct"):
        TaskSet.of([{"id": "x"}, {"id": "y"}, {"id": "x"}])
    with pytest.raises(TypeError, match=r"Task 1.*int"):
        TaskSet.of(["a", 3])  # type: ignore[list-item]


def test_a_task_set_is_immutable_and_its_copy_is_itself() -> None:
    tasks = TaskSet.of(["a", "b"])
    assert copy.deepcopy(tasks) is tasks
    assert copy.deepcopy([tasks[0]])[0] is tasks[0]
    with pytest.raises(TypeError):
        tasks[0] = tasks[1]  # type: ignore[index]
    with pytest.raises(TypeError):
        tasks[0].data["text"] = "c"  # type: ignore[index]
    with pytest.raises(AttributeError):
        tasks[0].id = "c"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        tasks.name = "other"  # type: ignore[misc]


def test_a_task_set_pickles() -> None:
    tasks = TaskSet.of([{"id": "x", "nested": {"tests": ["assert True"]}}], name="n", split="s")
    twin = pickle.loads(pickle.dumps(tasks))
    assert twin == tasks and hash(twin) == hash(tasks)
    assert (twin.name, twin.split, twin.find("x").data) == ("n", "s", tasks[0].data)


def test_a_slice_of_a_task_set_is_a_task_set() -> None:
    part = TaskSet.of(["a", "b", "c"])[1:]
    assert isinstance(part, TaskSet)
    assert [task.id for task in part] == ["task/1", "task/2"]
    assert isinstance(part[0], Task)


# ---------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize(
    "slicing, expected",
    [
        ("", range(10)),
        ("[:4]", range(4)),
        ("[7:]", range(7, 10)),
        ("[2:5]", range(2, 5)),
        ("[-3:]", range(7, 10)),
        ("[:1000]", range(10)),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "bundled", "column"])
def test_slices_keep_rows_and_ids(tmp_path: Path, kind: str, slicing: str, expected: range) -> None:
    write_lines(tmp_path / "test.jsonl", rows(10))
    source: Any = tmp_path
    options: dict[str, Any] = {}
    if kind == "bundled":
        source, options = "bundled", {"bundled": tmp_path}
    elif kind == "column":
        source = write_lines(tmp_path / "one.jsonl", rows(10, split="test"))
    tasks = load(source, "test" + slicing, **options)
    assert prompts(tasks) == [f"post {i}" for i in expected]
    prefix = "row" if kind == "column" else "test"
    assert [task.id for task in tasks] == [f"{prefix}/{i}" for i in expected]
    assert tasks.split == "test" + slicing


@pytest.mark.parametrize("split", ["train[1]", "train[a:b]", "train[:1", "", "train[:10%]", "[:3]", None])
def test_a_malformed_split_is_refused_with_examples(tmp_path: Path, split: Any) -> None:
    with pytest.raises(ValueError, match=r"train\[:1000\]"):
        load(write_lines(tmp_path / "a.jsonl", rows(5)), split)


def test_an_empty_slice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"test\[40:\].*larger"):
        load(write_lines(tmp_path / "a.jsonl", rows(5)), "test[40:]")


@pytest.mark.parametrize("write", [write_lines, write_array])
def test_every_fifth_row_of_a_single_file_is_test(tmp_path: Path, write: Callable[..., Path]) -> None:
    path = write(tmp_path / "posts.json", rows(12))
    train, test, everything = (load(path, split) for split in ("train", "test", "all"))
    assert prompts(test) == ["post 4", "post 9"]
    assert prompts(train) == [f"post {i}" for i in range(12) if i not in (4, 9)]
    assert prompts(everything) == [f"post {i}" for i in range(12)]
    assert not {task.id for task in train} & {task.id for task in test}


def test_a_split_column_rules(tmp_path: Path) -> None:
    items = [*rows(2, split="train"), *rows(1, split="dev"), *rows(2, split="train")]
    path = write_lines(tmp_path / "posts.jsonl", items)
    assert [task.id for task in load(path, "train")] == ["row/0", "row/1", "row/3", "row/4"]
    assert [task.id for task in load(path, "dev")] == ["row/2"]
    assert len(load(path, "all")) == 5
    with pytest.raises(LookupError, match=r"'test'.*\['all', 'dev', 'train'\]"):
        load(path, "test")


def test_a_split_column_must_be_in_every_row(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "posts.jsonl", [*rows(1, split="train"), *rows(1)])
    with pytest.raises(ValueError, match=r"posts\.jsonl, line 2.*'split'"):
        load(path)


def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", rows(2))
    write_lines(tmp_path / "test.jsonl", rows(2))
    with pytest.raises(LookupError, match=r"'validation'.*\['test', 'train'\]"):
        load(tmp_path, "validation")
    with pytest.raises(LookupError, match=r"'test'.*\['all', 'train'\]"):
        load(tmp_path / "train.jsonl", "test")  # two rows: none of them the fifth
    with pytest.raises(LookupError, match=r"'dev'.*\['test', 'train'\]"):
        TLDR(split="dev")


# ---------------------------------------------------------------------------------------------------- files


def test_an_id_column_names_the_tasks(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"prompt": "p", "key": 11}, {"prompt": "q", "key": "x"}])
    assert [task.id for task in load(path, "all", id_column="key")] == ["11", "x"]


def test_further_columns_are_kept_and_texts_arrive_unchanged(tmp_path: Path) -> None:
    text = " caf\u00e9\u2028\x85\x0b\n\ud83d\ude00 \x00 "
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": text, "n": 1}, ensure_ascii=True) + "\n\n", encoding="utf-8")
    assert load(path, "all")[0].data == {
        "prompt": text.encode("utf-16", "surrogatepass").decode("utf-16"),
        "n": 1,
    }
    path.write_text(
        "\ufeff" + json.dumps({"prompt": "caf\u00e9\u2028"}, ensure_ascii=False), encoding="utf-8"
    )
    assert load(path, "all")[0].data["prompt"] == "caf\u00e9\u2028"


def test_a_missing_file_says_what_a_source_may_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'nowhere\.jsonl.*"bundled".*JSONL'):
        TLDR(source=tmp_path / "nowhere.jsonl")
    with pytest.raises(FileNotFoundError, match=r"No <split>.jsonl"):
        load(tmp_path)
    with pytest.raises(ValueError, match='no source "hub"'):
        load("hub")


@pytest.mark.parametrize("content", ["", "\n \n", "[]", " [ ]\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"empty\.jsonl is empty; expected"):
        load(path)


@pytest.mark.parametrize(
    "bad, complaint",
    [
        ({"text": "p"}, r"column 'prompt' is missing \(found \['text'\]\); expected .*'prompt' \(str\)"),
        ({"prompt": 3}, r"column 'prompt' is a int; expected .*'prompt' \(str\)"),
        ({"prompt": None}, r"column 'prompt' is a NoneType; expected"),
        (["prompt"], r"found a list; expected a JSON object"),
        ({"prompt": "p", "id": 1.5}, r"column 'id' must be a text or an integer, not 1\.5"),
    ],
)
def test_a_malformed_row_is_named_with_file_and_line(tmp_path: Path, bad: Any, complaint: str) -> None:
    path = write_lines(tmp_path / "posts.jsonl", [*rows(2), bad, *rows(1)])
    with pytest.raises(ValueError, match=r"posts\.jsonl, line 3: " + complaint):
        load(path)
    path = tmp_path / "posts.json"
    path.write_text(
        '[\n {"prompt": "a\\nb"},\n\n {"prompt": "b"}\n ,\n' + json.dumps(bad) + "\n]\n", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"posts\.json, line 6: " + complaint):
        load(path)


def test_invalid_json_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b",}\n', encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"posts\.jsonl, line 2: not valid JSON .*expected one JSON object a line"
    ):
        load(path)
    path.write_text('[{"prompt": "a"},\n{"prompt": "b"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"posts\.jsonl, line \d: not valid JSON"):
        load(path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_bytes('{"prompt": "caf\u00e9"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"posts\.jsonl: byte 15 is not UTF-8; save"):
        load(path)


def test_duplicated_ids_are_refused_even_across_splits(tmp_path: Path) -> None:
    items = [{"prompt": str(i), "id": i} for i in range(5)]
    items[4]["id"] = 1  # row 4 is in "test", row 1 in "train"
    with pytest.raises(ValueError, match=r"posts\.jsonl, line 5: the id '1' .*line 2; ids must be distinct"):
        load(write_lines(tmp_path / "posts.jsonl", items), "train")


# ---------------------------------------------------------------------------------------------------- the Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set in the Hub's format, in a local folder; nothing is written outside the test's folder."""
    datasets = pytest.importorskip("datasets", reason="the extra `data` is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "tldr"
    folder.mkdir()
    write_lines(folder / "train.jsonl", rows(6, completion=" c"))
    write_lines(folder / "test.jsonl", rows(3, completion=" c"))
    return str(folder)


def test_the_hub_gives_the_same_tasks_as_a_local_copy_of_it(hub: str) -> None:
    for split in ("train", "train[2:4]", "test[:2]"):
        assert [(t.id, t.data) for t in load("hub", split, hub=hub)] == [
            (t.id, t.data) for t in load(hub, split)
        ]
    with pytest.raises(LookupError, match=r"no split 'validation'.*train"):
        load("hub", "validation", hub=hub)


def test_a_split_may_have_another_name_on_the_hub(hub: str) -> None:
    folder = Path(hub)
    (folder / "test.jsonl").rename(folder / "val.jsonl")
    # Without this card `datasets` calls the split of a file "val" "validation".
    card = "configs: [{config_name: default, data_files: [{split: val, path: val.jsonl}]}]"
    (folder / "README.md").write_text(f"---\n{card}\n---\n", encoding="utf-8")
    for source in ("hub", hub):
        tasks = load(source, "test[1:]", hub=hub, hub_splits={"test": "val"})
        assert ([task.id for task in tasks], tasks.split) == (["val/1", "val/2"], "test[1:]")
    with pytest.raises(LookupError, match=r"'test'.*\['train', 'val'\]"):
        load(hub, "test", hub=hub)


def test_a_local_split_of_the_name_asked_for_comes_before_the_hubs_name_of_it(tmp_path: Path) -> None:
    both = write_lines(tmp_path / "all.jsonl", [*rows(1, split="val"), *rows(1, split="test")])
    val = write_lines(tmp_path / "val.jsonl", rows(3, split="val"))
    assert [task.id for task in load(both, "test", hub_splits={"test": "val"})] == ["row/1"]
    assert len(load(val, "test", hub_splits={"test": "val"})) == 3
    write_lines(tmp_path / "test.jsonl", rows(2))
    assert [task.id for task in load(tmp_path, "test", hub_splits={"test": "val"})] == ["test/0", "test/1"]


def test_a_column_may_be_of_one_of_two_types(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a"}, {"text": ["a", "b"]}, {"text": 3}])
    with pytest.raises(
        ValueError, match=r"line 3: column 'text' is a int; expected .*'text' \(str \| list\)"
    ):
        load_tasks(path, "all", columns={"text": str | list})


def test_without_a_network_the_hub_says_what_to_do(hub: str) -> None:
    with pytest.raises(ConnectionError, match=r'trl-lib/tldr.*source="bundled", or.*\'prompt\' \(str\)'):
        TLDR(source="hub")


@pytest.mark.parametrize(
    "make, name, column",
    [
        (CoopHumanEval, "OpenMLRL/CoopHumanEval", r"'entry_point' \(str\)"),
        (MBPP, "google-research-datasets/mbpp", r"'test_list' \(list\)"),
    ],
)
def test_without_a_network_no_source_is_proposed_that_an_environment_lacks(
    hub: str, make: Callable[[], TextEnv], name: str, column: str
) -> None:
    with pytest.raises(
        ConnectionError, match=f"{name}.*source= the path of a JSONL file.*{column}"
    ) as caught:
        make()
    assert "bundled" not in str(caught.value)


def test_a_hub_that_does_not_answer_is_asked_once_and_then_the_cache(
    hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` would ask again and again, for half a minute."""
    import datasets
    import huggingface_hub

    class Session:
        asked: list[str] = []

        def head(self, url: str, timeout: float) -> None:
            self.asked.append(url)
            raise OSError("no route to host")

    seen = []

    def load_dataset(*args: Any, **options: Any) -> None:
        seen.append(datasets.config.HF_HUB_OFFLINE)
        raise FileNotFoundError("not in the cache")

    monkeypatch.setattr(huggingface_hub.utils, "get_session", Session)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(ConnectionError, match="not in the cache"):
        TLDR(source="hub")
    assert (seen, datasets.config.HF_HUB_OFFLINE, len(Session.asked)) == ([True], False, 1)


def test_without_the_extra_the_hub_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install datasets"):
        TLDR(source="hub")
