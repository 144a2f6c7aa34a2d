"""One run of the sweep: trained by the trainer like any other run, in a folder that is gone afterwards."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.algos import Trainer, TrainerConfig
from textmarl.algos.algorithm import resolve
from textmarl.benchmarks.games.plan import GAMES, METHODS, Cell
from textmarl.benchmarks.runs import RunRecord, load_run

Record = dict[str, Any]


@dataclass(frozen=True)
class Measuring:
    """How much is trained and measured."""

    episodes: int = 512
    """Of each evaluation, at temperature 1, on the tasks of the split "test"."""
    points: int = 4
    """Evaluations of a learning curve after the untrained one, evenly spaced; the last one is the trained team's."""
    scale: float = 1.0
    """Times the games' budgets of reward evaluations."""


def train(cell: Cell, measuring: Measuring) -> Record:
    """Train and evaluate one team.

    Returns:
        ``method``, ``game``, ``seed``; ``curve``: a dict for each evaluation, with ``step``, the ``reward_evaluations`` and
        ``generated_tokens`` of training until then, and the mean ``score`` of the episodes; ``untrained`` and ``trained``, the
        scores of the first and the last; ``reward_evaluations``, ``generated_tokens``, ``seconds`` of all.

    Raises:
        KeyboardInterrupt: The run was asked to stop.
        Exception: What the trainer raises.
    """
    method = next(m for m in METHODS if m.name == cell.method)
    game = next(g for g in GAMES if g.name == cell.game)
    started = time.perf_counter()
    env, held_out = game.make("train", method.single), game.make("test", method.single)
    tasks = len(held_out.unwrapped.tasks)
    steps = method.steps(game, measuring.scale)
    config = TrainerConfig(
        steps=steps,
        tasks_per_step=method.tasks_per_step,
        learning_rate=method.learning_rate,
        micro_batch_tokens=8192,
        rollout_batch_size=512,
        eval_every=-(-steps // measuring.points),
        eval_tasks=tasks,
        eval_samples=max(1, measuring.episodes // tasks),
        eval_batch_size=512,
        checkpoint_every=steps,
        keep_checkpoints=1,
        kl_every=0,
        samples_every=0,
        seed=cell.seed,
        threads=1,
    )
    settings = TeamConfig(
        model="tiny", tuning="full", device="cpu", seed=cell.seed, reference=method.reference
    )
    sampling = Sampling(temperature=1.0, max_new_tokens=method.max_new_tokens(env))
    team = Team.create(list(env.possible_agents), settings)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            env,
            team,
            resolve(method.algo)(**method.settings),
            config,
            sampling,
            held_out,
            Path(folder) / "run",
        )
        if not trainer.train():
            raise KeyboardInterrupt
        run = load_run(Path(folder) / "run")
    curve = learning_curve(run)
    return {
        **cell._asdict(),
        "curve": curve,
        "untrained": curve[0]["score"],
        "trained": curve[-1]["score"],
        "reward_evaluations": curve[-1]["reward_evaluations"],
        "generated_tokens": curve[-1]["generated_tokens"],
        "seconds": time.perf_counter() - started,
    }


def learning_curve(run: RunRecord) -> list[dict[str, float]]:
    """Return what training had cost at each evaluation, and the mean score of its episodes."""
    spent = {row["step"]: row for row in run.metrics}
    return [
        {
            "step": scored.step,
            **{
                name: int(spent[scored.step][f"total/{name}"]) if scored.step else 0
                for name in ("reward_evaluations", "generated_tokens")
            },
            "score": scored.evaluation.score,
        }
        for scored in run.evaluations
    ]


def attempt(cell: Cell, measuring: Measuring) -> Record:
    """Return what :func:`train` does, or of a run that failed its ``error``."""
    try:
        return train(cell, measuring)
    except Exception as error:  # whatever it is, the other runs go on
        return {
            **cell._asdict(),
            "error": f"{type(error).__name__}: {error}".replace(tempfile.gettempdir(), ""),
        }


def train_all(cells: Sequence[Cell], measuring: Measuring, workers: int) -> Iterator[Record]:
    """Yield the records as runs finish; each runs on one thread, in one of so many processes (1: in this one)."""
    if workers == 1:
        yield from (attempt(cell, measuring) for cell in cells)
        return
    # Not forked: a copy of a process that has used torch's threads may stand still.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = [pool.submit(attempt, cell, measuring) for cell in cells]
        try:
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
