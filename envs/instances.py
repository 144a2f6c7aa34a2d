"""Further instances of an environment: copies, or made anew where it cannot be copied.

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> from textmarl.envs.instances import Instances
    >>> instances = Instances(pettingzoo.make("parallel", "textmarl/Climbing-v0"))
    >>> instances.obstacle is None, instances.new() is instances.env
    (True, False)

Trees of joint actions and counterfactual replays copy an episode half way. An environment that holds a lock, a socket or a
generator cannot be copied; several episodes of it can still be played side by side, each in an instance of its own, if a
function says how one is made. Nothing here asks more of an environment than PettingZoo does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import Any


class Instances:
    """Where episodes of one environment come from.

    Args:
        source: A PettingZoo parallel environment, a function (or class) that makes one, or instances themselves.

    Attributes:
        env: one instance, to look at; it is never reset.
        make: the function, where there is one.
    """

    env: Any
    make: Callable[[], Any] | None

    def __init__(self, source: Any) -> None:
        if isinstance(source, Instances):
            self.env, self.make = source.env, source.make
        elif isinstance(source, type) or (callable(source) and not hasattr(source, "reset")):
            self.env, self.make = source(), source
        else:
            self.env, self.make = source, None

    def check(self) -> None:
        """Refuses an environment of which no further instance can be had.

        Raises:
            ValueError: it cannot be copied, and nothing says how one is made.
        """
        if self._hindrance is not None and self.make is None:
            raise ValueError(
                f"the environment {name_of(self.env)} cannot be copied ({self._hindrance}), so no further episodes of it "
                "can be begun; give a function that makes one in its place (its class, or "
                'lambda: pettingzoo.make("parallel", ...)), or give it a __deepcopy__'
            )

    @cached_property
    def _hindrance(self) -> str | None:
        """Why the first instance cannot be copied; None where it can, and new ones are copies."""
        return _why_not_copied(self.env)

    @cached_property
    def obstacle(self) -> str | None:
        """Why an episode cannot be copied half way; None where it can.

        It is tried, with an episode of seed 0 that has just begun.

        Raises:
            ValueError: as `check`.
        """
        env = self.new()
        env.reset(seed=0)
        found = _why_not_copied(env)
        self.done(env)
        return found

    def new(self) -> Any:
        """Another instance, to be reset.

        Raises:
            ValueError: as `check`.
        """
        self.check()
        if self._hindrance is None or self.make is None:
            return copy.deepcopy(self.env)
        return self.make()

    def done(self, env: Any) -> None:
        """Closes an instance that was made; a copy may share what it would close with the others."""
        if self._hindrance is not None:
            env.close()


def name_of(env: Any) -> str:
    """An environment's name: that of its metadata, else its class's."""
    return str((getattr(env, "metadata", None) or {}).get("name", type(env).__name__))


def _why_not_copied(env: Any) -> str | None:
    try:
        copy.deepcopy(env)
    except Exception as error:  # whatever an environment raises that does not want to be copied
        return f"{type(error).__name__}: {error}"
    return None
