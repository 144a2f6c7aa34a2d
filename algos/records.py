"""A run's files: metrics, evaluations and samples as JSON lines, TensorBoard, and checkpoints that survive a kill.

A checkpoint holds everything that the rest of the run depends on, and how long each file of lines was at that moment:
resuming cuts the files back to it, so a resumed run leaves the same lines as one that was never interrupted.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

#: Metrics under these names are measurements of time and memory: they differ between identical runs.
MEASURED = ("seconds/", "rate/", "memory/")


class RunDirectory:
    """The folder that a run leaves; see the README for its contents.

    Args:
        folder: Created if it does not exist.
        keep_checkpoints: Older checkpoints are deleted.
    """

    LINES = ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl")

    def __init__(self, folder: str | Path, keep_checkpoints: int = 2):
        self.folder = Path(folder)
        self.keep_checkpoints = keep_checkpoints
        self.folder.mkdir(parents=True, exist_ok=True)
        self._tensorboard: SummaryWriter | None = None

    @property
    def in_use(self) -> bool:
        """Whether a run has left something here already."""
        return any((self.folder / name).exists() for name in (*self.LINES, "checkpoints"))

    def write(self, name: str, text: str) -> None:
        """Write a whole file; a kill leaves the old one or the new one, never a part."""
        staging = self.folder / f".writing-{name}"
        staging.write_text(text, encoding="utf-8")
        os.replace(staging, self.folder / name)

    def append(self, name: str, record: dict[str, Any]) -> None:
        """Append one JSON object to a file of lines; plain ASCII, so that any text survives."""
        with (self.folder / name).open("a", encoding="ascii") as file:
            file.write(json.dumps(record) + "\n")

    def log(self, text: str) -> None:
        """Append a line with the time to log.txt."""
        with (self.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def read(self, name: str) -> list[dict[str, Any]]:
        """Read a file of lines; a missing file has none."""
        path = self.folder / name
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]

    def log_metrics(self, metrics: dict[str, float]) -> None:
        """Write one step's metrics to metrics.jsonl and TensorBoard."""
        self.append("metrics.jsonl", metrics)
        self._write_tensorboard(metrics)

    def _write_tensorboard(self, metrics: dict[str, float]) -> None:
        if self._tensorboard is None:
            self._tensorboard = SummaryWriter(str(self.folder / "tensorboard"))
        for name, value in metrics.items():
            if name != "step":
                self._tensorboard.add_scalar(name, value, int(metrics["step"]))

    def close(self) -> None:
        """Flush and close TensorBoard's file."""
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def save_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint; it appears under its name only when it is whole and on disk."""
        sizes = {name: self._size(name) for name in self.LINES}
        for name in self.LINES:
            path = self.folder / name
            if path.exists():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        checkpoints = self.folder / "checkpoints"
        final = checkpoints / f"step-{step:06d}"
        staging = checkpoints / f".writing-{step:06d}"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        with (staging / "state.pt").open("wb") as file:
            torch.save({**state, "step": step, "file_sizes": sizes}, file)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)
        os.replace(staging, final)
        for old in self.checkpoints()[: -self.keep_checkpoints]:
            shutil.rmtree(old, ignore_errors=True)

    def checkpoints(self) -> list[Path]:
        """Return the checkpoints, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*"))

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Load the newest checkpoint that can be read; nothing on disk is changed.

        Returns:
            Its state, or None where the run was interrupted before its first checkpoint.

        Raises:
            ValueError: There are checkpoints, but none can be read; or there are metrics without any checkpoint, or
                fewer lines than at the checkpoint.
        """
        state, broken = None, []
        for path in reversed(self.checkpoints()):
            try:
                state = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
                break
            except Exception as error:  # torch raises many kinds for a damaged file
                logger.warning(
                    "checkpoint %s cannot be read (%s); trying the one before it", path.name, error
                )
                broken.append(path)
        otherwise = "restore the folder from a copy, or start a new run in another directory"
        if state is None and (broken or self._size("metrics.jsonl")):
            found = "can be read" if broken else "is left, but metrics of trained steps are"
            raise ValueError(
                f"none of the checkpoints in {str(self.folder / 'checkpoints')!r} {found}; {otherwise}"
            )
        for name, size in (state["file_sizes"] if state else {}).items():
            if self._size(name) < size:
                raise ValueError(
                    f"{str(self.folder / name)!r} has {self._size(name)} bytes and had {size} when {path.name} was "
                    f"written: lines were lost since; {otherwise}"
                )
        return state

    def cut_back(self, state: dict[str, Any] | None) -> None:
        """Cut the files of lines back to the checkpoint with this state (None: to nothing) and drop what came later."""
        sizes = state["file_sizes"] if state else {}
        for name in self.LINES:
            if (self.folder / name).exists():
                os.truncate(self.folder / name, sizes.get(name, 0))
        for path in self.checkpoints():
            if state is not None and path.name > f"step-{state['step']:06d}":
                shutil.rmtree(path)  # damaged, or it would have been loaded
        shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        for metrics in self.read("metrics.jsonl"):
            self._write_tensorboard(metrics)

    def _size(self, name: str) -> int:
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0
