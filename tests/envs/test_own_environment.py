"""The example of an own environment is as short as promised and keeps the contract."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pettingzoo

from textmarl.envs import check_env

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_environment.py"


def test_an_own_environment_registered_and_trained_takes_forty_lines() -> None:
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120


def test_the_example_keeps_the_contract_and_pays_for_dividing_the_letters() -> None:
    # Under its real name, so that the copies that check_env pickles find their class.

    spec = importlib.util.spec_from_file_location("own_environment", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = sys.modules["own_environment"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        check_env(module.Letters, other_process=False)
        env = pettingzoo.make("parallel", "examples/Letters-v0")
        env.reset(options={"task": 0})
        letters = env.task.data["text"]
        _, divided, *_ = env.step({"first": letters[:8], "second": letters[8:]})
        env.reset(options={"task": 0})
        _, doubled, *_ = env.step({"first": letters[:8], "second": letters[:8]})
        assert (divided["first"], doubled["first"]) == (1.0, 0.5)
    finally:
        del sys.modules["own_environment"]
