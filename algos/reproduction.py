"""The settings of a run that was begun from Python, in the layout of config.yaml, as far as they can be told."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from pettingzoo import ParallelEnv

from textmarl.algos.algorithm import Algorithm, resolve
from textmarl.envs.registration import recipe_of


def describe_environments(env: ParallelEnv, eval_env: ParallelEnv | None) -> dict[str, Any]:
    """Return the sections ``import`` (where a file registers the id) and ``env``.

    ``env`` has ``id``, ``kwargs`` and ``eval_kwargs``, by which ``textmarl train --config`` makes both environments
    again; where that cannot be told it has their ``name`` only.
    """
    unknown = {"env": {"name": str(env.metadata.get("name", type(env).__name__))}}
    recipe = recipe_of(env)
    held_out = recipe if eval_env is None else recipe_of(eval_env)
    if recipe is None or held_out is None or (held_out.id, held_out.file) != (recipe.id, recipe.file):
        return unknown
    differing = {
        name: value
        for name, value in held_out.kwargs.items()
        if name not in recipe.kwargs or value != recipe.kwargs[name]
    }
    for name in recipe.kwargs.keys() - held_out.kwargs.keys():
        settings = getattr(eval_env, "settings", {})
        if name not in settings:  # `eval_kwargs` can change an argument, and not take one back
            return unknown
        differing[name] = settings[name]
    files = {"import": [recipe.file]} if recipe.file is not None else {}
    return {**files, "env": {"id": recipe.id, "kwargs": recipe.kwargs, "eval_kwargs": differing}}


def describe_algorithm(algorithm: Algorithm) -> dict[str, Any]:
    """Return the section ``algo``: what ``textmarl train --algo`` takes as the ``name``, and every field.

    A class of a script that is running cannot be named for another process; its name is ``__main__:Class``.
    """
    kind = type(algorithm)
    module = sys.modules[kind.__module__]
    file = getattr(module, "__file__", None)
    name = kind.__module__.removeprefix("textmarl.algos.")
    if not kind.__module__.startswith("textmarl.algos.") or resolve(name) is not kind:
        written = (
            file if file is not None and file.endswith(".py") and module.__name__ != "__main__" else None
        )
        name = f"{written or '__main__'}:{kind.__name__}"
    return {"name": name, **asdict(algorithm)}  # type: ignore[call-overload]
