"""Task sets: the problems an environment draws from.

A task set comes from one of these sources (`load_tasks`):

| source      | meaning                                                                                 |
|-------------|-----------------------------------------------------------------------------------------|
| `"bundled"` | the tasks that ship with textmarl; offline, at once                                     |
| `"hub"`     | the published data set, through `datasets` (`pip install datasets` and a network) |
| a path      | JSONL, one JSON array, or a folder of `<split>.jsonl`; rows in the Hub's schema         |

Every source takes `split="train"` and slices such as `"train[:1000]"`, `"test[16:]"` or `"test[33:163]"`.
A single file without a `split` column is divided by row: every fifth row is "test", the others "train". With
a `split` column that column decides. `"all"` is the whole file. Tasks keep their ids however they are sliced.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_SPLIT = re.compile(r"([^\[\]]+)(?:\[(-?\d*):(-?\d*)\])?")
_TEST_EVERY = 5
_HUB_SECONDS = 5  # to wait for the Hub's first answer


@dataclass(frozen=True)
class Task:
    """One problem.

    Attributes:
        id: names it in reports and in `reset(options={"task": id})`; unique in its task set.
        data: its columns, read-only.
    """

    id: str
    data: Mapping[str, Any] = field(hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", MappingProxyType(dict(self.data)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Task, (self.id, dict(self.data))  # a mapping proxy cannot be pickled


class TaskSet(Sequence[Task]):
    """An immutable sequence of tasks with distinct ids; a copy of it is itself, so environments share it.

    Args:
        tasks: at least one.
        name: where they come from, for messages and reports.
        split: which part of it.

    Raises:
        ValueError: no task, or two with the same id.
    """

    def __init__(self, tasks: Iterable[Task], name: str = "tasks", split: str = "all") -> None:
        self._tasks = tuple(tasks)
        self._name = name
        self._split = split
        self._index = {task.id: index for index, task in enumerate(self._tasks)}
        if not self._tasks:
            raise ValueError(f"{name}: split {split!r} holds no task; an environment needs at least one.")
        if len(self._index) != len(self._tasks):
            twice = next(task.id for index, task in enumerate(self._tasks) if self._index[task.id] != index)
            raise ValueError(f"{name}: two tasks have the id {twice!r}; ids must be distinct.")

    @classmethod
    def of(cls, items: Iterable[str | Mapping[str, Any]], name: str = "tasks", split: str = "all") -> TaskSet:
        """Tasks for an environment of your own.

        Args:
            items: texts, each becoming a task with the column `text`; or dicts of columns, whose `id` (if
                any) becomes the task's id. Tasks without an id are numbered: "task/0", "task/1", ...
            name: what messages and reports call the set.
            split: what they call this part of it.

        Example:
            >>> tasks = TaskSet.of(["abc", {"id": "mine", "text": "xyz"}])
            >>> [task.id for task in tasks], tasks.find("mine").data["text"]
            (['task/0', 'mine'], 'xyz')
        """
        tasks = []
        for index, item in enumerate(items):
            if not isinstance(item, (str, Mapping)):
                raise TypeError(
                    f"Task {index} must be a text or a dict of columns, not {type(item).__name__}."
                )
            columns = {"text": item} if isinstance(item, str) else dict(item)
            tasks.append(Task(str(columns.get("id", f"task/{index}")), columns))
        return cls(tasks, name=name, split=split)

    @property
    def name(self) -> str:
        """Where the tasks come from."""
        return self._name

    @property
    def split(self) -> str:
        """Which part of the source this is, as it was asked for ("train[:1000]")."""
        return self._split

    def find(self, key: int | str) -> Task:
        """The task with this index (0 to len - 1) or id.

        Raises:
            LookupError: there is none; TypeError: `key` is neither an int nor a str.
        """
        if isinstance(key, str):
            if key not in self._index:
                raise LookupError(
                    f"{self._name} ({self._split}) has no task with the id {key!r}; its {len(self)} ids run "
                    f"from {self._tasks[0].id!r} to {self._tasks[-1].id!r}."
                )
            return self._tasks[self._index[key]]
        try:
            if isinstance(key, bool):
                raise TypeError
            index = operator.index(key)
        except TypeError:
            raise TypeError(
                f"A task is named by its index (int) or id (str), not by {key!r} ({type(key).__name__})."
            ) from None
        if not 0 <= index < len(self):
            raise LookupError(
                f"{self._name} ({self._split}) has no task with the index {index}; it has {len(self)}: 0 to "
                f"{len(self) - 1}."
            )
        return self._tasks[index]

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> TaskSet: ...
    def __getitem__(self, index: int | slice) -> Task | TaskSet:
        if isinstance(index, slice):
            return TaskSet(self._tasks[index], self._name, self._split)
        return self._tasks[index]

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TaskSet) and (self.name, self.split, self._tasks) == (
            other.name,
            other.split,
            other._tasks,
        )

    def __hash__(self) -> int:
        return hash((self._name, self._split, self._tasks))

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskSet:
        return self

    def __repr__(self) -> str:
        return f"TaskSet({self._name!r}, split={self._split!r}, {len(self)} tasks)"


def load_tasks(
    source: str | os.PathLike[str],
    split: str,
    *,
    columns: Mapping[str, type | UnionType],
    bundled: Traversable | None = None,
    hub: str | None = None,
    hub_config: str | None = None,
    hub_splits: Mapping[str, str] = MappingProxyType({}),
    id_column: str = "id",
) -> TaskSet:
    """Loads the tasks of one split.

    Args:
        source: "bundled", "hub" or the path of a file or folder (see the module's description).
        split: name of a split, with or without a slice: "train", "train[:1000]", "test[16:]".
        columns: the columns every row must have and the type of each; further columns are kept.
        bundled: folder of `<split>.jsonl` that "bundled" reads.
        hub: the data set that "hub" reads, as `datasets.load_dataset` takes it.
        hub_config: its configuration, where it has several.
        hub_splits: the Hub's names of splits that are called otherwise here ({"test": "val"}). A file or folder
            in the Hub's format may use either name; where it has both, the one asked for is meant.
        id_column: where rows have this column it gives the tasks' ids; others are named by their row, counted
            from 0: "train/0" in a named split, "row/0" in a single file.

    Returns:
        The tasks in the order of their rows.

    Raises:
        FileNotFoundError: no such file or folder.
        LookupError: unknown split (the message lists those there are).
        ValueError: unreadable or malformed data, or a source this environment does not have.
        ImportError: "hub" without the extra `data`. ConnectionError: "hub" without a network.
    """
    name, part = parse_split(split)
    if source == "hub" and hub is not None:
        label = hub
        otherwise = (
            ('source="bundled", or ' if bundled is not None else "")
            + f"source= the path of a JSONL file, a JSON array or a folder of <split>.jsonl; each row is {_schema(columns)}"
        )
        rows = _hub_rows(hub, hub_config, hub_splits.get(name, name), part, otherwise)
        tasks = _checked(rows, columns, id_column)
    elif source == "bundled" and bundled is not None:
        label = "bundled"
        tasks = _checked(_folder_rows(bundled, name), columns, id_column)[part]
    elif source in ("hub", "bundled"):
        raise ValueError(f'This environment has no source "{source}"; give the path of a file or folder.')
    else:
        path = Path(source).expanduser()
        label = str(path)
        if path.is_dir():
            tasks = _checked(_folder_rows(path, name, hub_splits.get(name)), columns, id_column)[part]
        elif path.is_file():
            rows = _read(path, "row")
            every_task = _checked(rows, columns, id_column)
            indices = _rows_of_split(path, rows, name, hub_splits.get(name))
            tasks = [every_task[index] for index in indices][part]
        else:
            offered = [f'"{word}", ' for word, has in (("bundled", bundled), ("hub", hub)) if has is not None]
            raise FileNotFoundError(
                f"No task file or folder at {label!r}. A source is {''.join(offered)}or the path of a JSONL "
                "file, a JSON array or a folder with <split>.jsonl files."
            )
    if not tasks:
        raise ValueError(f"{label}: nothing is left of the split {split!r}; ask for a larger slice.")
    return TaskSet(tasks, name=label, split=split)


@dataclass(frozen=True)
class _Row:
    where: str  # for messages: file and line
    default_id: str
    value: Any

    def task(self, columns: Mapping[str, type | UnionType], id_column: str) -> Task:
        expected = _schema(columns)
        if not isinstance(self.value, dict):
            raise ValueError(f"{self.where}: found a {type(self.value).__name__}; expected {expected}.")
        for name, kind in columns.items():
            if name not in self.value:
                raise ValueError(
                    f"{self.where}: column {name!r} is missing (found {sorted(self.value)}); "
                    f"expected {expected}."
                )
            if not isinstance(self.value[name], kind):
                found = type(self.value[name]).__name__
                raise ValueError(f"{self.where}: column {name!r} is a {found}; expected {expected}.")
        task_id = self.value.get(id_column, self.default_id)
        if isinstance(task_id, bool) or not isinstance(task_id, (str, int)):
            raise ValueError(
                f"{self.where}: column {id_column!r} must be a text or an integer, not {task_id!r}."
            )
        return Task(str(task_id), self.value)


def _schema(columns: Mapping[str, type | UnionType]) -> str:
    return "a JSON object with " + ", ".join(
        f"{name!r} ({kind.__name__ if isinstance(kind, type) else kind})" for name, kind in columns.items()
    )


def _checked(rows: Sequence[_Row], columns: Mapping[str, type | UnionType], id_column: str) -> list[Task]:
    tasks = [row.task(columns, id_column) for row in rows]
    seen: dict[str, str] = {}
    for row, task in zip(rows, tasks, strict=True):
        if task.id in seen:
            raise ValueError(
                f"{row.where}: the id {task.id!r} is also that of {seen[task.id]}; ids must be distinct."
            )
        seen[task.id] = row.where
    return tasks


def parse_split(split: str) -> tuple[str, slice]:
    """The name and the rows of a split: "train[:1000]" is ("train", slice(None, 1000)).

    Raises:
        ValueError: it is not written like that.
    """
    match = _SPLIT.fullmatch(split) if isinstance(split, str) else None
    if match is None:
        raise ValueError(f'A split is written "train", "train[:1000]" or "test[16:32]", not {split!r}.')
    start, stop = (int(text) if text else None for text in match.group(2, 3))
    return match.group(1).strip(), slice(start, stop)


def _folder_rows(folder: Path | Traversable, split: str, hub_split: str | None = None) -> list[_Row]:
    files = {
        entry.name.removesuffix(".jsonl"): entry
        for entry in folder.iterdir()
        if entry.name.endswith(".jsonl")
    }
    if not files:
        raise FileNotFoundError(f"No <split>.jsonl file in the folder {str(folder)!r}.")
    if split not in files and hub_split is not None and hub_split in files:
        split = hub_split
    if split not in files:
        raise LookupError(f"{folder} has no split {split!r}; it has {sorted(files)}: choose one by split=.")
    return _read(files[split], split)


def _rows_of_split(path: Path, rows: Sequence[_Row], split: str, hub_split: str | None = None) -> list[int]:
    named = ["split" in row.value for row in rows]
    if any(named):
        for row, has_split in zip(rows, named, strict=True):
            if not has_split or not isinstance(row.value["split"], str):
                raise ValueError(
                    f"{row.where}: other rows have a column 'split' (str); expected one here, too."
                )
        splits = [row.value["split"] for row in rows]
    else:
        splits = ["test" if index % _TEST_EVERY == _TEST_EVERY - 1 else "train" for index in range(len(rows))]
    if split == "all":
        return list(range(len(rows)))
    if split not in splits and hub_split is not None and hub_split in splits:
        split = hub_split
    if split not in splits:
        raise LookupError(
            f"{path} has no split {split!r}; it has {sorted({*splits, 'all'})}: choose one by split=."
        )
    return [index for index, own in enumerate(splits) if own == split]


def _read(file: Path | Traversable, prefix: str) -> list[_Row]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8.") from error
    array = text.lstrip().startswith("[")
    values = list(_json_array(file, text) if array else _json_lines(file, text))
    if not values:
        raise ValueError(f"{file} is empty; expected one JSON object a line, or a JSON array of objects.")
    return [
        _Row(f"{file}, line {line}", f"{prefix}/{index}", value) for index, (line, value) in enumerate(values)
    ]


def _json_lines(file: Path | Traversable, text: str) -> Iterator[tuple[int, Any]]:
    # Not `splitlines`: JSON texts may hold U+2028 and other characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{file}, line {number}: not valid JSON ({error.msg} at character {error.colno}); "
                    "expected one JSON object a line, or one JSON array of objects."
                ) from error


def _json_array(file: Path | Traversable, text: str) -> Iterator[tuple[int, Any]]:
    """Element by element, so that a message can name the line where an element begins."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}, line {error.lineno}: not valid JSON ({error.msg}); expected an array."
        ) from error
    decoder, blank = json.JSONDecoder(), re.compile(r"[\s,]*")
    position, line = text.index("[") + 1, 1
    counted = 0
    while text[position := blank.match(text, position).end()] != "]":  # type: ignore[union-attr]
        line += text.count("\n", counted, position)
        counted = position
        value, position = decoder.raw_decode(text, position)
        yield line, value


def _hub_rows(hub: str, config: str | None, split: str, part: slice, otherwise: str) -> list[_Row]:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            'source="hub" needs the package `datasets`: pip install datasets (or -e ".[data]" in a checkout of textmarl).'
        ) from error
    try:
        with _offline_where_the_hub_is_away():
            table = datasets.load_dataset(hub, config, split=split)
    except Exception as error:  # `datasets` lets through whatever its file systems and HTTP clients raise
        if isinstance(error, ValueError) and "Unknown split" in str(error):
            raise LookupError(f"{hub} has no split {split!r}. {error}") from error
        raise ConnectionError(
            f"The data set {hub!r} could not be loaded ({type(error).__name__}: {error}). Without a network use {otherwise}."
        ) from error
    indices = range(len(table))[part]
    rows = table.select(indices)
    return [_Row(f"{hub}, row {i}", f"{split}/{i}", row) for i, row in zip(indices, rows, strict=True)]


@contextlib.contextmanager
def _offline_where_the_hub_is_away() -> Iterator[None]:
    """Lets `datasets` look at its cache alone where the Hub does not answer: it would retry for half a minute first."""
    import datasets

    if datasets.config.HF_HUB_OFFLINE:
        yield
        return
    from huggingface_hub.utils import get_session

    try:
        get_session().head(datasets.config.HF_ENDPOINT, timeout=_HUB_SECONDS)
    except Exception:  # of whichever HTTP client it has
        datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = False
