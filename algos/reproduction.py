"""What a run is made of: its settings in the layout of config.yaml, as far as they can be told, its tasks, the machine."""

from __future__ import annotations

import platform
import sys
import zlib
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from pettingzoo import ParallelEnv

from textmarl.algos.algorithm import Algorithm, resolve
from textmarl.envs.instances import name_of
from textmarl.envs.registration import recipe_of


def describe_environments(env: ParallelEnv, eval_env: ParallelEnv | None) -> dict[str, Any]:
    """Return the sections ``import`` (where a file registers the id) and ``env``.

    ``env`` has ``id``, ``kwargs`` and ``eval_kwargs``, by which ``textmarl train --config`` makes both environments
    again; where that cannot be told it has their ``name`` only.
    """
    unknown = {"env": {"name": name_of(env)}}
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


def describe_tasks(env: ParallelEnv | None) -> dict[str, Any]:
    """Return what tells an environment's tasks from those of another: its name and a checksum over ids and data."""
    if env is None:
        return {"name": None}
    tasks = getattr(env.unwrapped, "tasks", ())  # environments of others have none
    texts = "".join(f"{task.id}{sorted(task.data.items())}" for task in tasks)
    checksum = zlib.crc32(texts.encode("utf-8", "surrogatepass"))
    return {
        "name": name_of(env),
        "tasks": f"{len(tasks)} tasks, {checksum:08x}",
    }


def describe_machine(device: str) -> dict[str, Any]:
    """Return the versions and the hardware that a run has, as environment.json holds them."""
    packages = ("textmarl", "torch", "transformers", "peft", "pettingzoo", "gymnasium", "numpy")
    return {
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
        "platform": platform.platform(),
        "processor": processor_name(),
        "device": device,
        "threads": torch.get_num_threads(),
    }


def processor_name() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
