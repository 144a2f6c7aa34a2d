"""Checks that an environment keeps the contract of text environments: run them on an environment of your own.

    >>> from textmarl.envs import check_env
    >>> from textmarl.envs.writing.tldr import TLDR
    >>> check_env(TLDR)

PettingZoo's own `parallel_api_test` looks at one instance and never asks whether an observation is in its
space; `check_env` adds what training on copies of an environment rests on: that an episode depends on its task, its seed
and its texts alone, whichever instance, copy or process plays it, and however often.
"""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pettingzoo
from pettingzoo import ParallelEnv

from textmarl.envs.core import TextEnv

JUNK = (
    "",
    " \t\n\u2028",
    "\x00\x01\x7f",
    "\ud800 lone \udfff surrogates",
    "caf\u00e9 \u202edesrever \U0001f469\u200d\U0001f469\u200d\U0001f467 \u0301",
    "word " * 100_000,
    "x" * 1_000_000,
    "```python\ndef f(:\n```",
    '{"role": "assistant"} <|im_end|> </s>',
)
"""Texts that an environment must score without raising."""

_COPIED_TURNS = 4  # an episode is copied after each of its first turns (its last one has nothing to continue)


def check_env(
    make_env: Callable[[], TextEnv] | str, *, seed: int = 0, episodes: int = 3, other_process: bool = True
) -> None:
    """Plays short episodes of random and junk texts and checks the contract. Takes a few seconds at most.

    Args:
        make_env: a class, function or registered id that creates a fresh environment; called several times. It must allow more than one task or seed.
        seed: of the tasks and the random texts.
        episodes: how many random episodes are compared.
        other_process: whether these are also played in a fresh interpreter, in which texts have other hashes. Where
            that interpreter cannot rebuild the environment (its class is in a script, not in a module that can be
            imported), a warning says so.

    Raises:
        AssertionError: naming what was wrong, what was expected and where to look.
    """
    make_env = _creator(make_env)
    check_junk(make_env(), seed)
    check_spaces_and_infos(make_env(), seed)
    check_seeding(make_env(), make_env(), seed, episodes)
    check_copies(make_env, seed)
    check_repetition(make_env(), seed)
    check_refusals(make_env(), seed)
    if other_process:
        check_other_process(make_env(), seed, episodes)


def check_spaces_and_infos(env: TextEnv, seed: int) -> None:
    """Observations are in their space, infos complete; terms keep their names and add up to the score."""
    assert env.possible_agents, "possible_agents is empty: list the agents in their fixed order."
    for key in ("name", "render_modes", "is_parallelizable"):
        assert key in env.metadata, (
            f"metadata has no {key!r}; it needs name, render_modes and is_parallelizable."
        )
    observations, infos = env.reset(seed=seed)
    before = dict.fromkeys(env.possible_agents, 0.0)
    assert env.agents == env.possible_agents, (
        f"After reset agents are {env.agents}, expected {env.possible_agents}."
    )
    _check_observations(env, observations)
    _check_infos(env, infos, turn=0)
    for agent, info in infos.items():
        values = [info["score"], *info["reward_terms"].values()]
        assert not any(values), f"After reset the score and terms of {agent!r} are {values}, expected zeros."
    _seed_actions(env, seed)
    for turn in range(1, env.max_turns + 1):
        names = {agent: info["reward_terms"].keys() for agent, info in infos.items()}
        texts = _sample(env)
        written = {agent: text if agent in env.acting else "" for agent, text in texts.items()}
        observations, rewards, terminations, truncations, infos = env.step(texts)
        _check_observations(env, observations)
        _check_infos(env, infos, turn)
        _equal(dict(env.history[-1].responses), written, "what the history holds and what the agents wrote")
        for agent in env.possible_agents:
            assert infos[agent]["reward_terms"].keys() == names[agent], "Reward terms changed their names."
            own = infos[agent]["individual_reward"] if env.reward == "individual" else infos[agent]["score"]
            expected, shift = own - before[agent], env.reward_shift[agent]
            assert math.isclose(rewards[agent], expected + shift, abs_tol=1e-9), (
                f"The reward of {agent!r} is {rewards[agent]}, expected {expected} + reward_shift {shift}."
            )
            before[agent] = own if env.progress_rewards else 0.0
        assert not any(truncations.values()), "An episode ends by termination, never by truncation."
        assert len(set(terminations.values())) == 1, f"All agents end together; terminations: {terminations}."
        ended = all(terminations.values())
        assert env.agents == ([] if ended else env.possible_agents), (
            f"agents is {env.agents} with terminations {terminations}."
        )
        assert isinstance(env.render(), str), "render() must return the transcript as a str."
        assert env.state_space.contains(env.state()), "state() must return a str."
        if ended:
            return
    raise AssertionError(f"The episode goes on after max_turns = {env.max_turns} turns.")


def check_seeding(first: TextEnv, second: TextEnv, seed: int, episodes: int) -> None:
    """Two instances with the same seed and the same texts give the same everything, over whole episodes."""
    for env in (first, second):
        _seed_actions(env, seed)
    for episode in range(episodes):
        # Only the first episode is seeded: the later ones follow from it.
        once = seed if episode == 0 else None
        _equal(first.reset(seed=once), second.reset(seed=once), f"reset of episode {episode}")
        while first.agents:
            actions, same = _sample(first), _sample(second)
            _equal(actions, same, "the sampled texts")
            _equal(first.step(actions), second.step(same), f"step {first.turn} of episode {episode}")
            _equal(first.state(), second.state(), "state()")
            _equal(first.render(), second.render(), "render()")


def check_repetition(env: TextEnv, seed: int) -> None:
    """An episode that one instance plays again gives the same again."""
    played: list[list[Any]] = []
    for _ in range(2):
        _seed_actions(env, seed)
        played.append([env.reset(seed=seed)])
        while env.agents:
            played[-1].append(env.step(_sample(env)))
    first, again = played
    _equal(first, again, "a second episode with the same seed and the same texts")


def check_other_process(env: TextEnv, seed: int, episodes: int) -> None:
    """A fresh interpreter, with other hashes of texts, plays the same episodes; one that cannot be is warned of."""
    packed = pickle.dumps(env)
    here = os.environ.get("PYTHONHASHSEED")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ELSEWHERE],
        input=pickle.dumps(sys.path) + pickle.dumps((packed, seed, episodes)),
        env={**os.environ, "PYTHONHASHSEED": "2" if here == "1" else "1"},
        capture_output=True,
    )
    said = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode == _NOT_REBUILT:
        warnings.warn(
            f"{env} cannot be rebuilt in another process ({said}), so it is not known to be the same there: put its "
            "class into a module that can be imported.",
            stacklevel=3,
        )
        return
    assert done.returncode == 0, f"An episode in another process failed: {said[-1000:]}"
    # As JSON both, because that makes lists of tuples.
    played = json.loads(json.dumps(_play_packed(packed, seed, episodes)))
    for number, (ours, theirs) in enumerate(zip(played, json.loads(done.stdout), strict=True)):
        _equal(ours, theirs, f"what another process plays (item {number} of {len(played)})")


_NOT_REBUILT = 3
_ELSEWHERE = f"""
import json, pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
packed, seed, episodes = pickle.load(sys.stdin.buffer)
try:
    pickle.loads(packed)
except (ImportError, AttributeError) as error:
    sys.stderr.write(str(error))
    sys.exit({_NOT_REBUILT})
from textmarl.envs import conformance
print(json.dumps(conformance._play_packed(packed, seed, episodes)))
"""


def _play_packed(packed: bytes, seed: int, episodes: int) -> list[Any]:
    """What a pickled environment gives: the results of every call, whose first one alone is seeded."""
    env: TextEnv = pickle.loads(packed)
    _seed_actions(env, seed)
    played: list[Any] = []
    for episode in range(episodes):
        played.append(env.reset(seed=seed if episode == 0 else None))
        while env.agents:
            played.append(env.step(_sample(env)))
        played += [env.state(), env.render()]
    env.close()
    return played


def check_copies(make_env: Callable[[], TextEnv], seed: int) -> None:
    """A deep copy and a pickled copy continue like the original, and leave it alone."""
    copiers: dict[str, Callable[[TextEnv], Any]] = {
        "copy.deepcopy": copy.deepcopy,
        "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    }
    for name, copier in copiers.items():
        for turn in range(_COPIED_TURNS):
            env = make_env()
            _seed_actions(env, seed)
            env.reset(seed=seed)
            for _ in range(turn):
                env.step(_sample(env))
            if not env.agents:
                break
            state = env.state()
            twin = copier(env)
            _equal(state, twin.state(), f"state() of a copy by {name} at turn {turn}")
            played = _play_on(twin)
            _equal(state, env.state(), f"state() of the original after its copy by {name} was played")
            _equal(_play_on(env), played, f"what follows turn {turn} in a copy by {name}")


def check_refusals(env: TextEnv, seed: int) -> None:
    """Wrong types, missing and unknown agents are refused, and the episode stays as it was."""
    _expect(RuntimeError, lambda: env.step(dict.fromkeys(env.possible_agents, "")), "step before reset")
    env.reset(seed=seed)
    good = dict.fromkeys(env.agents, "text")
    first = env.acting[0]  # who waits may be missing
    state = env.state()
    wrong: dict[str, tuple[type[Exception], Any]] = {
        "actions that are no mapping": (TypeError, list(good.values())),
        "an action that is no str": (TypeError, {**good, first: b"bytes"}),
        "None as an action": (TypeError, {**good, first: None}),
        "a missing agent": (ValueError, {agent: text for agent, text in good.items() if agent != first}),
        "an unknown agent": (ValueError, {**good, "nobody": "text"}),
    }
    for what, (error, actions) in wrong.items():
        _expect(error, partial(env.step, actions), what)
        _equal(state, env.state(), f"state() after {what} was refused")
    for what, task, error in (
        ("an unknown task id", "no such task", LookupError),
        ("an unknown task index", len(env.tasks), LookupError),
        ("a task that is neither index nor id", None, TypeError),
    ):
        _expect(error, partial(env.reset, options={"task": task}), what)
        _equal(state, env.state(), f"state() after {what} was refused")
    while env.agents:
        env.step(dict.fromkeys(env.agents, "text"))
    _expect(RuntimeError, lambda: env.step(good), "step after the end")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        env.reset(seed=seed, options={"no such option": 1})
    assert caught, "An unknown reset option must be ignored with a warning; none was given."


def check_junk(env: TextEnv, seed: int) -> None:
    """Empty, huge, broken and hostile texts are scored like any other."""
    for text in JUNK:
        env.reset(seed=seed)
        while env.agents:
            turn = env.turn
            try:
                *_, infos = env.step(dict.fromkeys(env.agents, text))
            except Exception as error:
                raise AssertionError(
                    f"step() raised {type(error).__name__} ({error}) on a text of {len(text)} characters, "
                    f"{text[:30]!r}...; every str must be scored."
                ) from error
            _check_infos(env, infos, turn + 1)
            env.render(), env.state()


def _check_observations(env: TextEnv, observations: dict[str, str]) -> None:
    assert list(observations) == env.possible_agents, f"Observations are for {list(observations)}."
    for agent, text in observations.items():
        assert env.observation_space(agent).contains(text), (
            f"The observation of {agent!r} is a {type(text).__name__}, not in {env.observation_space(agent)}."
        )


def _check_infos(env: TextEnv, infos: dict[str, dict[str, Any]], turn: int) -> None:
    assert list(infos) == env.possible_agents, f"infos are for {list(infos)}, expected {env.possible_agents}."
    for agent, info in infos.items():
        needed = {"task_id", "turn", "score", "reward_terms"}
        if env.individual_rewards:
            needed.add("individual_reward")
        assert needed <= info.keys(), f"infos[{agent!r}] lacks {sorted(needed - info.keys())}."
        assert info["turn"] == turn, f"infos[{agent!r}]['turn'] is {info['turn']}, expected {turn}."
        assert info["task_id"] == env.task.id, f"infos[{agent!r}]['task_id'] is not that of the task."
        terms = info["reward_terms"]
        assert tuple(terms) == tuple(env.term_names), (
            f"Reward terms {tuple(terms)}, expected {env.term_names}."
        )
        assert math.isclose(math.fsum(terms.values()), info["score"], abs_tol=1e-9), (
            f"The reward terms add up to {math.fsum(terms.values())}, but the score is {info['score']}."
        )
        assert info["score"] <= env.max_score + 1e-9, (
            f"Score {info['score']} exceeds max_score {env.max_score}."
        )


def _seed_actions(env: TextEnv, seed: int) -> None:
    for number, agent in enumerate(env.possible_agents):
        env.action_space(agent).seed(seed + number)


def _sample(env: TextEnv) -> dict[str, str]:
    return {agent: env.action_space(agent).sample() for agent in env.agents}


def _play_on(env: TextEnv) -> list[Any]:
    """The rest of this episode and one more, whose task follows from the random state."""
    played: list[Any] = []
    while env.agents:
        played.append(env.step(_sample(env)))
    return [*played, env.reset(), env.state()]


def _equal(left: Any, right: Any, what: str) -> None:
    if left != right:
        place, one, other = _first_difference(left, right)
        raise AssertionError(
            f"{what} should be the same, but is not{f' at {place}' if place else ''}:\n  {one!r:.500}\n  {other!r:.500}"
        )


def _first_difference(left: Any, right: Any, place: str = "") -> tuple[str, Any, Any]:
    """Where two values differ first, and the two parts there; they do differ."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        key = next(key for key in left if left[key] != right[key])
        return _first_difference(left[key], right[key], f"{place}[{key!r}]")
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)) and len(left) == len(right):
        index = next(i for i, (one, other) in enumerate(zip(left, right, strict=True)) if one != other)
        return _first_difference(left[index], right[index], f"{place}[{index}]")
    if isinstance(left, str) and isinstance(right, str):
        pairs = enumerate(zip(left, right, strict=False))
        index = next((i for i, (one, other) in pairs if one != other), min(len(left), len(right)))
        return f"{place} character {index}".lstrip(), left[index:], right[index:]
    return place, left, right


def _creator(make_env: Any) -> Callable[[], TextEnv]:
    """What creates a fresh environment, of that or of a registered id."""
    if isinstance(make_env, str):
        return partial(pettingzoo.make, "parallel", make_env)
    if isinstance(make_env, ParallelEnv) or not callable(make_env):
        kind = type(make_env).__name__
        raise TypeError(
            f"check_env needs several fresh environments: give it a class or a function that creates one (such as "
            f"check_env({kind if isinstance(make_env, ParallelEnv) else 'MyEnv'})) or a registered id, not an instance of {kind}."
        )
    return make_env  # type: ignore[no-any-return]


def _expect(error: type[Exception], call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except error:
        return
    except Exception as other:
        raise AssertionError(
            f"{what}: raised {type(other).__name__} ({other}), expected {error.__name__}."
        ) from other
    raise AssertionError(f"{what}: was accepted, expected {error.__name__}.")
