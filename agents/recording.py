"""A folder in which an evaluation writes every episode down as it finishes, so that it can be continued.

| file              | holds                                                                                   |
|-------------------|-----------------------------------------------------------------------------------------|
| `evaluation.json` | the settings: environment, agents, seed; what an episode depends on beside task, sample |
| `episodes.jsonl`  | one scored episode a line (`textmarl.agents.Episode`), in the order they finished       |
| `failures.jsonl`  | one line for each time an episode failed, and why (`textmarl.agents.Failure`)           |

An episode is known by its task and sample; all episodes of a folder have the same settings. Another evaluation of
the same settings plays only what `episodes.jsonl` lacks: after an interruption, after failures, or because it asks
for more tasks or samples. Other settings are refused by name.

A line is written at once and reaches the disk before the next one is begun. The half line that a killed process or a
full disk leaves at the end is cut off when the folder is opened again.

Settings are the arguments of the environment and of the agents as plain values (`textmarl.envs.settings`), a digest of
the tasks, and one of a local model's weights. Functions are known by their names: what cannot be seen is a change of the
*code* of an agent, a reward function or an environment. Use a fresh folder after one.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from textmarl.agents.conversation import Agent, MessagesAgent, TextAgent
from textmarl.agents.episodes import Episode, Failure, json_line
from textmarl.agents.scripted import RandomAgent, ScriptedAgent
from textmarl.envs.instances import name_of
from textmarl.envs.settings import digest, plain

if sys.platform != "win32":
    import fcntl

_LOG = logging.getLogger(__name__)
SETTINGS, EPISODES, FAILURES = "evaluation.json", "episodes.jsonl", "failures.jsonl"


class EvaluationFolder:
    """The folder while an evaluation writes to it; `open` it, and leave it as a context manager.

    Attributes:
        path: the folder.
        episodes: (task id, sample) -> the episode, for all that are written down.
    """

    def __init__(self, path: Path, episodes: dict[tuple[str, int], Episode], file: BinaryIO) -> None:
        self.path = path
        self.episodes = episodes
        self._file = file

    @classmethod
    def open(cls, path: str | os.PathLike[str], settings: Mapping[str, Any]) -> EvaluationFolder:
        """Opens a folder to go on with, or a new one.

        Args:
            path: the folder; it is made where there is none.
            settings: JSON values.

        Raises:
            ValueError: the folder holds an evaluation with other settings, something else, or is in use.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        there = (folder / EPISODES).exists() and (folder / EPISODES).stat().st_size > 0
        if there and not (folder / SETTINGS).exists():
            raise ValueError(
                f"{folder / EPISODES} exists, and no {SETTINGS} tells how its episodes were played; results are "
                "not overwritten: choose another folder"
            )
        file = (folder / EPISODES).open("ab+")
        try:
            _lock(file, folder)
            _agree(folder, json.loads(json.dumps(settings)))
            if (folder / FAILURES).exists():
                with (folder / FAILURES).open("rb+") as failures:
                    _whole_lines(failures, folder / FAILURES, "its failure is forgotten")
            episodes = {
                (episode.task_id, episode.sample): episode for episode in _episodes(file, folder / EPISODES)
            }
        except BaseException:
            file.close()
            raise
        return cls(folder, episodes, file)

    def add(self, outcome: Episode | Failure) -> None:
        """Writes an episode down."""
        line = json_line(outcome).encode("ascii")
        if isinstance(outcome, Failure):
            with (self.path / FAILURES).open("ab") as failures:
                _write_through(failures, line)
            return
        _write_through(self._file, line)
        self.episodes[outcome.task_id, outcome.sample] = outcome

    def __enter__(self) -> EvaluationFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def count_episodes(folder: str | os.PathLike[str]) -> int:
    """How many episodes a folder holds; 0 where there is none."""
    file = Path(folder) / EPISODES
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def described(env: Any, seats: Mapping[str, Agent], seed: int, further: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an evaluation, as far as they can be told.

    Args:
        env: the environment; `max_turns`, `max_score`, `term_names`, `tasks` and `settings` where it has them.
        seats: who acts, with their `settings` where they have them (JSON values, what the answers depend on).
        seed: of the episodes.
        further: what the caller adds, or knows better.
    """
    settings: dict[str, Any] = {"env": name_of(env)}
    for name in ("max_turns", "max_score", "term_names"):
        if hasattr(env, name):
            settings[name] = getattr(env, name)
    if hasattr(env, "settings"):
        settings["arguments"] = plain(env.settings)
    if hasattr(env, "tasks"):
        settings["tasks"] = digest([(task.id, task.data) for task in env.tasks])
    agents = {name: describe_agent(agent) for name, agent in seats.items()}
    for name, more in further.get("agents", {}).items():
        agents[name] = {**agents[name], **more}
    return {**settings, "seed": seed, **further, "agents": agents}


def describe_agent(agent: Agent) -> dict[str, Any]:
    """What an agent's answers depend on, as far as it tells: JSON values."""
    kind = {"kind": type(agent).__qualname__}
    if isinstance(agent, RandomAgent):
        return {**kind, "seed": agent.seed, "min_words": agent.min_words, "max_words": agent.max_words}
    if isinstance(agent, ScriptedAgent):
        return {**kind, "replies": digest(agent.replies)}
    if isinstance(agent, (TextAgent, MessagesAgent)):
        return {**kind, "function": plain(agent.function)}
    if hasattr(agent, "settings"):
        return {**kind, **plain(agent.settings)}
    return {"kind": f"{type(agent).__module__}:{type(agent).__qualname__}"}


def _lock(file: BinaryIO, folder: Path) -> None:
    if sys.platform == "win32":  # two processes that write into one folder are not noticed there
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{folder} is being written to by another process; choose another folder") from None
    except OSError:  # a file system without locks
        _LOG.warning("%s cannot be locked; do not let two evaluations write there at a time", folder)


def _agree(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings down, or compares them with those that are there."""
    file = folder / SETTINGS
    if not file.exists():
        content = {"settings": settings, "textmarl": importlib.metadata.version("textmarl")}
        new = file.with_suffix(".tmp")
        new.write_text(json.dumps(content, indent=2) + "\n", encoding="ascii")
        os.replace(new, file)
        return
    try:
        saved = json.loads(file.read_text(encoding="ascii"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read ({error}); choose another folder") from error
    before, now = dict(_flat(saved)), dict(_flat(settings))
    missing = "not set"
    differences = {
        name: f"{name} was {before.get(name, missing)!r} and is {now.get(name, missing)!r}"
        for name in dict.fromkeys([*before, *now])
        if before.get(name, missing) != now.get(name, missing)
    }
    if differences:
        told, others = list(differences.values())[:3], list(differences)[3:]
        more = f"; and so are {', '.join(others)}" if others else ""
        raise ValueError(
            f"{folder} holds an evaluation with other settings: {'; '.join(told)}{more}. Choose another "
            "folder, or give the settings it was begun with"
        )


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, own in value.items():
            yield from _flat(own, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _episodes(file: BinaryIO, path: Path) -> Iterator[Episode]:
    content = _whole_lines(file, path, "its episode is played again")
    for number, line in enumerate(content.splitlines(), start=1):
        with contextlib.suppress(ValueError, TypeError):
            yield Episode(**json.loads(line))
            continue
        raise ValueError(f"{path}, line {number} is no episode; mend or remove the line")


def _whole_lines(file: BinaryIO, path: Path, consequence: str) -> bytes:
    """What the file holds, without half a line at its end, which is cut off with a warning."""
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        _LOG.warning("%s ends in half a line, which is cut off: %s", path, consequence)
        file.truncate(whole)
    return content[:whole]


def _write_through(file: BinaryIO, line: bytes) -> None:
    """Appends a line that is on the disk afterwards."""
    file.write(line)
    file.flush()
    os.fsync(file.fileno())
