"""Runs one measurement in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from textmarl.agents.models import load_model, smollm2_folder
from textmarl.benchmarks.speed.environments import peer_python
from textmarl.benchmarks.speed.plan import Measurement
from textmarl.benchmarks.speed.prompts import make_prompts

HERE = Path(__file__).parent
MODULES = {"textmarl": "ours", "transformers": "peer_transformers", "floor": "floor"}
LIMIT_SECONDS = 2 * 60 * 60


class MeasurementFailed(RuntimeError):
    """A measuring process ended without an answer; the message is the end of what it said."""


class Runner:
    """Runs measurements.

    Args:
        threads: Threads of every process.
        environments: Where the peers' environments are, or will be made.
        tell: Told what goes on.
    """

    def __init__(self, threads: int, environments: Path, tell: Callable[[str], None]):
        self.threads = threads
        self.environments = environments
        self.tell = tell
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}

    def run(self, measurement: Measurement) -> dict[str, Any]:
        """Return what one process measured; for TRL the sum over the agents' processes.

        Raises:
            MeasurementFailed: A process failed.
        """
        work = measurement.work
        request: dict[str, Any] = {"kind": measurement.kind, "repeats": measurement.inner_repeats}
        if measurement.row != "floor":
            request["prompts"] = make_prompts(
                self._tokenizer(work.model), work.agents, measurement.prompt_lengths
            )
        if measurement.row in MODULES:
            module = f"textmarl.benchmarks.speed.{MODULES[measurement.row]}"
            return self._ask([sys.executable, "-m", module], {**request, "work": asdict(work)})
        folder = str(smollm2_folder()) if work.model == "smollm2-135m" else work.model
        request["work"] = asdict(replace(work, model=folder))
        python = peer_python(measurement.row, self.environments, self.tell)
        command = [str(python), str(HERE / f"peer_{measurement.row}.py")]
        if measurement.row == "trl":
            return summed([self._ask(command, {**request, "agent": agent}) for agent in range(work.agents)])
        return self._ask(command, request)

    def _tokenizer(self, model: str) -> PreTrainedTokenizerBase:
        if model not in self._tokenizers:
            self._tokenizers[model] = load_model(model)[1]
        return self._tokenizers[model]

    def _ask(self, command: list[str], request: dict[str, Any]) -> dict[str, Any]:
        threads = str(self.threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "disabled",
            "CUDA_VISIBLE_DEVICES": "",
        }
        with tempfile.TemporaryDirectory(prefix="textmarl-speed-") as folder:
            answer = Path(folder, "answer.json")
            try:
                done = subprocess.run(
                    command,
                    input=json.dumps({**request, "answer": str(answer)}),
                    env=environment,
                    cwd=folder,
                    capture_output=True,
                    text=True,
                    timeout=LIMIT_SECONDS,
                )
            except subprocess.TimeoutExpired:
                raise MeasurementFailed(f"no answer within {LIMIT_SECONDS} s") from None
            if not answer.is_file():
                said = (done.stderr.strip() or done.stdout.strip())[-1500:]
                raise MeasurementFailed(f"exit status {done.returncode}: {said}")
            result: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
        return result


def summed(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up runs that are made one after the other: their seconds; of memory the largest."""
    seconds = {name: sum(answer["seconds"][name] for answer in answers) for name in answers[0]["seconds"]}
    return {
        "seconds": seconds,
        "peak_gib": max(answer["peak_gib"] for answer in answers),
        "threads": answers[0]["threads"],
        "runs": answers,
    }
