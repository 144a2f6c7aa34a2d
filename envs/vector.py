"""Many episodes stepped at once, their rewards computed at the same time.

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> from textmarl.envs.vector import VectorEnv
    >>> episodes = VectorEnv(pettingzoo.make("parallel", "textmarl/Penalty-v0"))
    >>> started = episodes.reset(tasks=[0, 0, 0], seeds=7)
    >>> [observations["player_0"].splitlines()[1] for observations, infos in started]
    ['Words: 1 maple, 2 cedar, 3 birch.', 'Words: 1 maple, 2 cedar, 3 birch.', 'Words: 1 maple, 2 cedar, 3 birch.']
    >>> texts = [{"player_0": "maple", "player_1": word} for word in ("maple", "cedar", "birch")]
    >>> [transition.rewards["player_0"] for transition in episodes.step(texts)]
    [10.0, 0.0, -100.0]

Every episode is a copy of one environment with a random state of its own, so what an episode gives depends on its
task, its seed and its texts alone: not on the other episodes, and not on how many are stepped at the same time.

**Threads.** A reward that waits for something else, as one that runs code in a sandbox, is waited for in threads; such
an environment says in its attribute `concurrency` how many of its episodes may be judged at once. Everywhere else it
is 1, since threads do not make Python code faster, and a `reward_fn` of yours is never called twice at once unless you
set `max_workers`. Results come in the order of the episodes, whichever was ready first.

`step_all` is the same for environments that somebody else holds: evaluation and training step with it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple, overload

import numpy as np


class Transition(NamedTuple):
    """What `step` of one environment returned; agent -> value in each field."""

    observations: dict[str, Any]
    rewards: dict[str, float]
    terminations: dict[str, bool]
    truncations: dict[str, bool]
    infos: dict[str, dict[str, Any]]


JointAction = Mapping[str, str]


class VectorEnv:
    """Episodes of one environment, side by side.

    Args:
        env: any PettingZoo parallel environment that can be deep-copied; it is left untouched.
        max_workers: how many episodes are stepped at the same time; None: as many as `env.concurrency` says, and one
            where an environment does not say.

    Attributes:
        envs: the environment of each episode since the last `reset`; empty before it.
    """

    def __init__(self, env: Any, max_workers: int | None = None) -> None:
        _check_workers(max_workers)
        self.env = env
        self.max_workers = max_workers
        self.envs: list[Any] = []

    @property
    def num_envs(self) -> int:
        """How many episodes there are."""
        return len(self.envs)

    @property
    def live(self) -> list[bool]:
        """For each episode, whether it goes on."""
        return [bool(env.agents) for env in self.envs]

    def reset(
        self,
        tasks: Sequence[int | str] | None = None,
        seeds: Sequence[int] | int | None = None,
        options: Sequence[Mapping[str, Any] | None] | None = None,
    ) -> list[tuple[dict[str, Any], dict[str, dict[str, Any]]]]:
        """Begins new episodes, as many as the sequences among the arguments are long.

        Args:
            tasks: for each episode the index or id of its task; None: its seed picks one.
            seeds: one for each episode; an int s stands for s, s + 1, s + 2, ... as in Gymnasium; None: from the
                system's entropy.
            options: for each episode its other reset options.

        Returns:
            for each episode its observations and its infos.

        Raises:
            ValueError: the sequences differ in length, or there is none.
            What `reset` of an environment raises, with a note that names the episode; the former episodes stay.
        """
        lengths = {
            name: len(values)
            for name, values in (("tasks", tasks), ("seeds", seeds), ("options", options))
            if isinstance(values, Sequence)
        }
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"tasks, seeds and options say how many episodes there are: expected lists of one length, got {lengths}"
            )
        (number,) = set(lengths.values())
        if seeds is None:
            seeds = [int(word) for word in np.random.SeedSequence().generate_state(number, np.uint64) >> 1]
        elif isinstance(seeds, (int, np.integer)):
            seeds = [int(seeds) + episode for episode in range(number)]
        envs, started = [], []
        for episode in range(number):
            chosen = dict(options[episode] or {}) if options is not None else {}
            if tasks is not None:
                chosen["task"] = tasks[episode]
            env = copy.deepcopy(self.env)
            try:
                started.append(env.reset(seed=seeds[episode], options=chosen or None))
            except Exception as error:
                error.add_note(f"in episode {episode} of {number} (seed {seeds[episode]}, options {chosen})")
                raise
            envs.append(env)
        self.envs = envs
        return started

    @overload
    def step(
        self, joint_actions: Sequence[JointAction | None], return_exceptions: Literal[False] = False
    ) -> list[Transition | None]: ...
    @overload
    def step(
        self, joint_actions: Sequence[JointAction | None], return_exceptions: Literal[True]
    ) -> list[Transition | Exception | None]: ...
    def step(self, joint_actions: Any, return_exceptions: Any = False) -> Any:
        """Steps every episode but those whose joint action is None (finished, or left waiting).

        Args:
            joint_actions: for each episode agent -> text, or None.
            return_exceptions: as in `step_all`.

        Returns:
            for each episode its transition, or None.

        Raises:
            RuntimeError: before `reset`. Otherwise as `step_all`.
        """
        if not self.envs:
            raise RuntimeError("VectorEnv.step(): there are no episodes; call reset() first.")
        return step_all(self.envs, joint_actions, self.max_workers, return_exceptions)

    def close(self) -> None:
        """Closes the environments of all episodes."""
        for env in self.envs:
            env.close()
        self.envs = []


@overload
def step_all(
    envs: Sequence[Any],
    joint_actions: Sequence[JointAction],
    max_workers: int | None = None,
    return_exceptions: Literal[False] = False,
) -> list[Transition]: ...
@overload
def step_all(
    envs: Sequence[Any],
    joint_actions: Sequence[JointAction | None],
    max_workers: int | None = None,
    return_exceptions: bool = False,
) -> list[Any]: ...
def step_all(
    envs: Sequence[Any],
    joint_actions: Sequence[JointAction | None],
    max_workers: int | None = None,
    return_exceptions: bool = False,
) -> list[Any]:
    """Steps environments, several at the same time where that helps; results come in the environments' order.

    Args:
        envs: distinct environments.
        joint_actions: for each of them agent -> text, or None to leave it alone.
        max_workers: threads; None: as many as the first environment's `concurrency` says, else 1.
        return_exceptions: True puts the exception that a step raised in its place, as `asyncio.gather` does. False
            raises the first one once all others have been stepped. It has a note that names the episode.

    Returns:
        for each environment its `Transition`, or None where there was no joint action.

    Raises:
        ValueError: not one joint action for each environment, or an environment that is given twice.
        What a step raises. A textmarl environment whose step raised is as it was, and can be stepped again.
    """
    _check_workers(max_workers)
    if len(joint_actions) != len(envs):
        raise ValueError(
            f"{len(envs)} episodes got {len(joint_actions)} joint actions: give one for each, None to leave it alone"
        )
    if len({id(env) for env in envs}) != len(envs):
        raise ValueError("an environment is given twice; step a copy of it (copy.deepcopy)")

    def step(episode: int) -> Transition | Exception | None:
        joint_action = joint_actions[episode]
        if joint_action is None:
            return None
        try:
            return Transition(*envs[episode].step(joint_action))
        except Exception as error:
            error.add_note(f"in episode {episode} of {len(envs)}{_task_of(envs[episode])}")
            return error

    workers = _concurrency(envs) if max_workers is None else max_workers
    results = _mapped(step, range(len(envs)), min(workers, len(envs)))
    if not return_exceptions:
        for result in results:
            if isinstance(result, Exception):
                raise result
    return results


def acting(env: Any) -> list[str]:
    """The agents whose texts count at an environment's next step: those alive, unless it lets some of them wait.

    An environment in which agents take turns (`Relay`, `textmarl.envs.protocols.Pipeline`) has the attribute `acting`. The
    others read an empty text, need not be asked, and whatever they write is ignored.
    """
    return list(getattr(env, "acting", env.agents))


def _concurrency(envs: Sequence[Any]) -> int:
    return int(getattr(envs[0], "concurrency", 1)) if envs else 1  # environments of others have none


def _mapped(function: Callable[[int], Any], numbers: Iterable[int], workers: int) -> list[Any]:
    if workers <= 1:
        return list(map(function, numbers))
    pool = ThreadPoolExecutor(workers, thread_name_prefix="textmarl-step")
    try:
        return list(pool.map(function, numbers))
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C nothing new is begun


def _task_of(env: Any) -> str:
    task = getattr(env, "task", None)  # environments of others have none
    return "" if task is None else f" (task {task.id!r})"


def _check_workers(max_workers: int | None) -> None:
    if max_workers is not None and max_workers < 1:
        raise ValueError(f"max_workers must be at least 1, or None, not {max_workers}")
