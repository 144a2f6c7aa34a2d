"""Loss and gradient of every algorithm are what they were: a refactoring that changes one cannot pass unseen."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from textmarl.algos import resolve
from textmarl.algos.algorithm import defines_algorithm


def load() -> ModuleType:
    path = Path(__file__).with_name("pinned.py")
    spec = importlib.util.spec_from_file_location("pinned_trajectories", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PINNED = load()
RECORD = json.loads(PINNED.FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PINNED.ALGORITHMS)
def test_five_steps_give_the_recorded_losses_and_gradients(name: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = PINNED.trajectory(name)
    finally:
        torch.set_num_threads(before)
    assert len(found) == len(RECORD[name]) == 5
    for step, (now, then) in enumerate(zip(found, RECORD[name], strict=True), start=1):
        for agent, numbers in then.items():
            again = f"step {step}, {agent}; if this was meant: python tests/invariant/pinned.py"
            # The model's norms round to single precision: 1e-5 is far above that, and below any change of a formula.
            assert now[agent] == pytest.approx(numbers, rel=1e-5, abs=1e-7), again
    losses = [step[agent]["loss"] for step in found for agent in step]
    assert len({round(loss, 6) for loss in losses}) >= 5, "a trajectory that stands still would prove nothing"
    assert all(step[agent]["grad_norm"] > 1e-4 for step in found for agent in step)


def test_every_algorithm_of_the_package_is_pinned() -> None:
    pinned = {type(make()) for make in PINNED.ALGORITHMS.values()}
    folder = Path(__file__).parents[2] / "algos"
    assert pinned == {resolve(path.stem) for path in folder.glob("*.py") if defines_algorithm(path.stem)}
    assert list(RECORD) == list(PINNED.ALGORITHMS)
