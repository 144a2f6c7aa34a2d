"""By which registered id, and with which arguments, an environment is made again.

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> from textmarl.envs.registration import recipe_of
    >>> recipe_of(pettingzoo.make("parallel", "textmarl/Chorus-v0", n_agents=3))
    Recipe(id='textmarl/Chorus-v0', kwargs={'n_agents': 3}, file=None)

PettingZoo's `make` leaves nothing in an environment that tells its id, so it is looked up by the class, and the arguments
are the environment's `settings`.
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from typing import Any

import pettingzoo
from pettingzoo.env_registry.registration import parallel_registry
from pettingzoo.env_registry.spec import EnvSpec

from textmarl.envs.protocols import wrap
from textmarl.envs.settings import plain


@dataclass(frozen=True)
class Recipe:
    """What makes an environment again: `pettingzoo.make("parallel", id, **kwargs)`, in another process, too.

    Attributes:
        id: the registered id.
        kwargs: its arguments as JSON values, those that differ from the defaults; and `protocol`, which is none of them:
            what `textmarl.envs.protocols.wrap` puts around the environment.
        file: the file that registers the id, where that is not textmarl itself.
    """

    id: str
    kwargs: dict[str, Any]
    file: str | None


def recipe_of(env: Any) -> Recipe | None:
    """The recipe of an environment.

    It is tried: an environment is made by it, and has the same settings and tasks.

    Returns:
        None where there is no recipe: the class is not registered, or in no file that another process could import (a
        script that is running); or the environment was made with objects (a function, a task set).
    """
    settings = dict(getattr(env, "settings", {}))
    inside = env.unwrapped
    around = settings.pop("protocol", None) if env is not inside else None
    for spec in parallel_registry.values():
        if _class_of(spec) is not type(inside):
            continue
        module = sys.modules.get(type(inside).__module__)
        if module is None:  # a script that was run by another one
            continue
        ours = module.__name__.startswith("textmarl.")
        file = None if ours else getattr(module, "__file__", None)
        if not ours and (file is None or module.__name__ == "__main__"):
            continue
        kwargs = {name: value for name, value in settings.items() if not _is_default(inside, name, value)}
        if around is not None:
            around = {name: value for name, value in around.items() if value is not None}
            kwargs["protocol"] = around["name"] if len(around) == 1 else around
        if _makes(spec, kwargs, env):
            return Recipe(spec.id, kwargs, file)
    return None


def _class_of(spec: EnvSpec) -> Any:
    """What an id makes environments with, unless its module has never been imported: then it has made none."""
    if not isinstance(spec.entry_point, str):
        return spec.entry_point
    module, _, name = spec.entry_point.partition(":")
    return getattr(sys.modules.get(module), name, None)


def _is_default(env: Any, name: str, value: Any) -> bool:
    parameter = inspect.signature(type(env).__init__).parameters.get(name)
    return (
        parameter is not None
        and parameter.default is not parameter.empty
        and plain(parameter.default) == value
    )


def _makes(spec: EnvSpec, kwargs: dict[str, Any], env: Any) -> bool:
    arguments = dict(kwargs)
    protocol = arguments.pop("protocol", None) if env is not env.unwrapped else None
    try:
        made = pettingzoo.make("parallel", spec.id, **arguments)
        made = made if protocol is None else wrap(made, protocol)
    except Exception:  # whatever an environment makes of an argument that only looks like the one it had
        return False
    tasks = [getattr(one.unwrapped, "tasks", None) for one in (made, env)]
    same = getattr(made, "settings", None) == getattr(env, "settings", None) and tasks[0] == tasks[1]
    return type(made) is type(env) and bool(same)
