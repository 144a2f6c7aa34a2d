"""Whether what a text environment declares, and what it is made with, makes sense."""

from __future__ import annotations

import math
import operator
from typing import Any

from textmarl.envs.tasks import TaskSet


def check_declaration(env: Any) -> None:
    """Refuses an environment whose class attributes are missing or contradict each other.

    Raises:
        TypeError, ValueError: saying what the class lacks.
    """
    name = type(env).__name__
    try:
        has_tasks = isinstance(env.tasks, TaskSet)
    except AttributeError:
        has_tasks = False
    if not has_tasks:
        raise TypeError(
            f"{name} has no task set: set the class attribute `tasks` or hand one to the constructor, "
            'for instance TaskSet.of(["first task", "second task"]).'
        )
    agents: Any = env.possible_agents
    if not agents or not isinstance(agents, (list, tuple)):
        raise TypeError(f"{name} needs the class attribute `possible_agents`, a list of its agents' names.")
    if len(set(agents)) != len(agents):
        raise ValueError(f"{name} names an agent twice: {agents}.")
    if env.success_metric is not None and env.success_metric not in env.metric_names:
        raise ValueError(f"{name}: success_metric {env.success_metric!r} is not one of {env.metric_names}.")


def check_arguments(
    env: Any, reward: Any, reward_fn: Any, max_turns: Any, max_cycles: Any, render_mode: Any
) -> None:
    """Refuses arguments of an environment's constructor that make no sense, alone or together.

    Raises:
        TypeError, ValueError: saying what was given and what is expected.
    """
    name = type(env).__name__
    if render_mode not in (None, "ansi"):
        raise ValueError(
            f'{name} renders as text only: render_mode must be "ansi" or None, not {render_mode!r}.'
        )
    if reward not in ("team", "individual"):
        raise ValueError(f'reward must be "team" or "individual", not {reward!r}.')
    if reward == "individual" and not env.individual_rewards:
        raise ValueError(f'{name} defines no individual rewards: use reward="team".')
    if reward == "individual" and reward_fn is not None:
        raise ValueError('reward_fn replaces the team reward: use it with reward="team".')
    if reward_fn is not None and not callable(reward_fn):
        raise TypeError(
            f"reward_fn must be callable as reward_fn(responses, task), not {type(reward_fn).__name__}."
        )
    if None not in (max_turns, max_cycles) and max_turns != max_cycles:
        raise ValueError(
            f"max_turns={max_turns} and max_cycles={max_cycles} mean the same: give one of them."
        )


def positive_int(name: str, value: Any) -> int:
    """An integer of at least 1 (NumPy's, too), else a ValueError that calls it `name`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if isinstance(value, bool) or number < 1:
        raise ValueError(f"{name} must be an integer of at least 1, not {value!r}.")
    return number


def finite(name: str, value: Any) -> float:
    """A finite number as a float, else a ValueError that calls it `name`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, not {value!r}.")
    return number
