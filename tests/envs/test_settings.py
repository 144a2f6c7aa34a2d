"""What an environment was made with, as values that can be written down and compared."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pettingzoo
import pytest

import textmarl.envs  # noqa: F401  (registers the environments)
from textmarl.envs import Outcome, TaskSet, TextEnv
from textmarl.envs.coding.core import CodingEnv
from textmarl.envs.protocols import Discussion, Pipeline, Single
from textmarl.envs.settings import LONGEST, digest, plain


def bonus(responses: dict[str, str], task: Any, per_word: float = 1.0) -> float:
    return per_word


@dataclass
class Judge:
    model: str
    weight: float = 1.0
    calls: int = field(default=0, compare=False)

    def __call__(self, responses: dict[str, str], task: Any) -> float:
        return self.weight


class Echo(TextEnv):
    possible_agents = ["one"]
    tasks = TaskSet.of(["a"])

    def observe(self, agent: str) -> str:
        return "say"

    def judge(self, responses: dict[str, str]) -> Outcome:
        return Outcome({"score": 0.0})


class Louder(Echo):
    def __init__(self, volume: int = 3, *, words: Any = (), **options: Any) -> None:
        super().__init__(max_turns=volume, **options)


def test_settings_are_what_the_constructor_was_given_with_its_own_defaults() -> None:
    assert Louder().settings == Louder(3, words=[]).settings == {"volume": 3, "words": []}
    assert Louder(np.int64(4), reward_shift=-1.0).settings == {"volume": 4, "words": [], "reward_shift": -1.0}
    relay = pettingzoo.make("parallel", "textmarl/Relay-v0", capacity=2, dense=True)
    assert relay.settings | {"capacity": 2, "dense": True, "n_agents": 3} == relay.settings


def test_functions_are_known_by_name_and_objects_by_their_fields() -> None:
    def of(reward_fn: Any) -> Any:
        return json.loads(json.dumps(Echo(reward_fn=reward_fn).settings["reward_fn"]))

    name = f"{__name__}:bonus"
    assert of(bonus) == name
    partial = {"function": name, "arguments": [], "keywords": {"per_word": 2.0}}
    assert of(functools.partial(bonus, per_word=2.0)) == partial
    assert of(Judge("small", calls=7)) == {"type": f"{__name__}:Judge", "model": "small", "weight": 1.0}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Path("a") / "b", str(Path("a") / "b")),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        ({1: ("x", None)}, {"1": ["x", None]}),
        ({"b", "a"}, ["a", "b"]),
        (b"\xff", "ff"),
        (object(), "builtins:object"),
        (int, "builtins:int"),
        ("\ud800", "\ud800"),
    ],
)
def test_any_argument_becomes_json(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert json.loads(json.dumps(Louder(words=value).settings))["words"] == expected


def test_a_long_argument_is_given_as_a_digest_and_one_that_holds_itself_by_its_type() -> None:
    long = ["word"] * LONGEST
    assert Louder(words=long).settings["words"] == f"sha256:{digest(long)}"
    assert digest(long) != digest([*long, "word"])
    endless: list[Any] = []
    endless.append(endless)
    assert Louder(words=endless).settings["words"] == "builtins:list"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_keep_the_settings(copied: Any) -> None:
    for env in (Louder(2), Pipeline(Louder(2))):
        assert copied(env).settings == env.settings


def test_protocols_add_their_own_arguments() -> None:
    requests = {"talk_request": "Talk!", "answer_request": "Answer!"}
    expected = {"volume": 3, "words": [], "protocol": {"name": "discussion", "rounds": 2, **requests}}
    assert Discussion(Louder(), rounds=2, **requests).settings == expected
    assert Single(Louder(), delimiter="#").settings["protocol"] == {"name": "single", "delimiter": "#"}


def test_recording_arguments_changes_neither_signature_nor_errors() -> None:
    assert list(inspect.signature(Louder).parameters) == ["volume", "words", "options"]
    assert "max_turns" in inspect.signature(Echo).parameters
    assert "feedback" in inspect.signature(CodingEnv).parameters
    assert (
        list(inspect.signature(Discussion).parameters)
        == list(inspect.signature(Discussion.__init__).parameters)[1:]
    )
    with pytest.raises(TypeError, match="unexpected keyword argument 'loudness'"):
        Echo(loudness=3)  # type: ignore[call-arg]
