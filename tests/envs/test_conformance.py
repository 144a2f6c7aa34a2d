"""`check_env` passes what keeps the contract and names what breaks it; PettingZoo's own tests pass, too."""

from __future__ import annotations

import importlib
import random
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test
from pettingzoo.utils.conversions import parallel_to_aec

from textmarl.envs import Outcome, TaskSet, TextEnv, check_env
from textmarl.envs.writing.arxiv import ArXiv
from textmarl.envs.writing.tldr import TLDR


class Copycat(TextEnv):
    """Over three turns, both are to write what the other one wrote the turn before. `fault` breaks the contract."""

    possible_agents = ["one", "two"]
    tasks = TaskSet.of([f"start {n}" for n in range(30)])
    term_names = ("first", "second")
    max_score = 2.0

    def __init__(self, fault: str = "", max_turns: int = 3) -> None:
        super().__init__(max_turns=max_turns)
        self.fault = fault
        self.seen: list[str] = []
        self.luck = random.random()
        self.judged = 0
        self.shared: dict[str, int] = {}

    def observe(self, agent: str) -> str:
        if self.fault == "unseeded":
            return f"{self.luck}"
        lucky = self.np_random.integers(100)
        return (
            f"{self.task.data['text']} {lucky}"
            if not self.history
            else f"{sorted(self.history[-1].responses.values())}"
        )

    def judge(self, responses: dict[str, str]) -> Outcome:
        if self.fault == "raises" and "\x00" in responses["one"]:
            raise UnicodeError("a NUL")
        if self.fault == "state":
            self.seen += responses.values()  # kept, so that a copy that shares it is changed with it
        if self.fault == "counts":
            self.judged += 1
            return Outcome({"first": 0.0, "second": self.judged / 1e6})
        if self.fault == "shared":
            self.shared["judged"] = self.shared.get("judged", 0) + 1
            return Outcome({"first": 0.0, "second": self.shared["judged"] / 1e6})
        if self.fault == "hashes":
            return Outcome({"first": 0.0, "second": hash(responses["one"]) % 1000 / 1000})
        if self.fault == "high":
            return Outcome({"first": 2.0, "second": 1.0})
        same = float(responses["one"] == responses["two"])
        return Outcome({"first": same, "second": len(self.seen) / 1e9})

    def step(self, actions: Any) -> Any:
        if self.fault == "lenient":
            actions = {agent: str(dict(actions).get(agent, "")) for agent in self.possible_agents}
        observations, rewards, terminations, truncations, infos = super().step(actions)
        if self.fault == "rewrites":
            self.history[-1].responses["one"] = "something else"  # type: ignore[index]
        if self.fault == "sum":
            infos["one"]["reward_terms"]["first"] += 0.5
        if self.fault == "alone":
            terminations["one"] = True
        if self.fault == "names":
            infos["two"]["reward_terms"]["third"] = infos["two"]["reward_terms"].pop("second")
        return observations, rewards, terminations, truncations, infos

    def __deepcopy__(self, memo: dict[int, Any]) -> TextEnv:
        twin = super().__deepcopy__(memo)
        if self.fault == "state":
            twin.seen = self.seen  # type: ignore[attr-defined]
        twin.shared = self.shared  # type: ignore[attr-defined]
        return twin


def test_an_environment_that_keeps_the_contract_passes() -> None:
    check_env(Copycat, other_process=False)
    check_env(partial(Copycat, max_turns=1), other_process=False)


@pytest.mark.parametrize(
    "fault, complaint",
    [
        ("unseeded", "reset of episode 0 should be the same"),
        ("raises", "raised UnicodeError .* every str must be scored"),
        ("state", "in a copy by copy.deepcopy should be the same"),
        ("lenient", "expected TypeError|expected RuntimeError"),
        ("sum", "add up to 1.5, but the score is 1.0"),
        ("alone", "end together"),
        ("names", r"expected \('first', 'second'\)"),
        ("high", "exceeds max_score"),
        ("counts", "a second episode with the same seed and the same texts should be the same"),
        ("shared", "in a copy by copy.deepcopy should be the same"),
        ("rewrites", "what the history holds and what the agents wrote should be the same"),
    ],
)
def test_a_broken_contract_is_named(fault: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_env(partial(Copycat, fault), other_process=False)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> type[TextEnv]:
    """`Copycat` in a module that another interpreter finds."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module(Path(__file__).stem).Copycat  # type: ignore[no-any-return]


def test_what_depends_on_the_process_is_found_in_another_one(importable: type[TextEnv]) -> None:
    check_env(partial(importable, max_turns=1))
    with pytest.raises(AssertionError, match=r"what another process plays .* should be the same"):
        check_env(partial(importable, "hashes"))


def test_an_environment_that_another_process_cannot_rebuild_is_passed_with_a_warning(
    importable: type[TextEnv], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(Path(__file__).parent)])
    with pytest.warns(UserWarning, match="cannot be rebuilt in another process .*No module named") as caught:
        check_env(importable)
    assert caught[-1].filename == __file__


@pytest.mark.parametrize("make", [TLDR, ArXiv])
def test_the_writing_environments_keep_the_contract(make: Callable[..., TextEnv]) -> None:
    check_env(partial(make, split="test", reward="individual", reward_shift=-1.0), other_process=False)
    check_env(partial(make, reward_fn=constant, max_score=2.0), other_process=False)


def constant(responses: dict[str, str], task: Any) -> float:
    return 1.0


@pytest.fixture(autouse=True)
def accepted_warnings() -> Any:
    """PettingZoo warns about every space but Box and Discrete, names without numbers and non-array observations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def test_pettingzoos_tests_pass_on_an_environment_that_keeps_the_contract() -> None:
    parallel_api_test(Copycat(), num_cycles=20)
    parallel_seed_test(Copycat, num_cycles=20)
    api_test(parallel_to_aec(Copycat()), num_cycles=20)
    seed_test(lambda: parallel_to_aec(Copycat()), num_cycles=20)


def test_an_id_is_checked_like_its_class_and_an_instance_is_refused() -> None:
    check_env("textmarl/Penalty-v0")
    with pytest.raises(
        TypeError, match=r"such as check_env\(TLDR\).* or a registered id, not an instance of TLDR"
    ):
        check_env(TLDR())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not an instance of int"):
        check_env(3)  # type: ignore[arg-type]


def test_a_comparison_that_fails_shows_the_first_difference_alone() -> None:
    from textmarl.envs.conformance import _equal

    left = ({"one": "x" * 1000 + "left"}, {"one": {"turn": 1, "score": 0.5}})
    with pytest.raises(
        AssertionError,
        match=r"^step 1 should be the same, but is not at \[1\]\['one'\]\['score'\]:\n  0.5\n  0.25$",
    ):
        _equal(left, (left[0], {"one": {"turn": 1, "score": 0.25}}), "step 1")
    with pytest.raises(AssertionError, match=r"at \[0\]\['one'\] character 1000:\n  'left'\n  'right'$"):
        _equal(left, ({"one": "x" * 1000 + "right"}, left[1]), "step 1")
    with pytest.raises(AssertionError, match=r"is not:\n  1\n  2$"):
        _equal(1, 2, "a number")
