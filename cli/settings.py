"""The settings of a training run, from flags, YAML files, presets and defaults.

What is nearer to the person wins: flags, then `--config` files (a later one over an earlier one), then the preset,
then the defaults of the dataclasses. Everything is checked here, before a model is loaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from pettingzoo.env_registry.spec import EnvSpec

from textmarl.agents import PRESETS, Sampling, TeamConfig
from textmarl.agents.evaluation import shared_tasks
from textmarl.agents.user_code import CodeNotFound
from textmarl.algos import Algorithm, TrainerConfig, resolve, validate_run
from textmarl.algos.config import FREE_SETTINGS, refuse_unserved
from textmarl.cli import environments, seats
from textmarl.cli.errors import CommandError, close_matches, told_in_one_line
from textmarl.cli.parsing import (
    add_endpoint,
    add_environment,
    add_fields,
    command_parser,
    expand_short_forms,
    known_options,
    one_line,
    parse,
)
from textmarl.cli.user_code import import_user_code
from textmarl.envs.instances import Instances

SECTIONS = {"team": TeamConfig, "sampling": Sampling, "trainer": TrainerConfig}
OF_THE_COMMAND = ("transcripts", "run", "resume", "import")
"""What a resumed run may be given anew because the run itself does not know of it."""


@dataclass
class Settings:
    """A training run, checked and ready to start."""

    run: Path
    resume: bool
    transcripts: int
    """Steps between transcripts on the screen; 0: none."""
    instances: Instances
    """Of the environment with the training tasks."""
    eval_instances: Instances
    held_out: bool
    """Whether no evaluation task is a training task."""
    algorithm: Algorithm
    team: TeamConfig
    sampling: Sampling
    trainer: TrainerConfig
    resolved: dict[str, Any]
    """All of it as plain values, in the layout of config.yaml."""

    @property
    def env(self) -> Any:
        """An instance with the training tasks."""
        return self.instances.env

    @property
    def eval_env(self) -> Any:
        """An instance with the tasks of evaluation."""
        return self.eval_instances.env


def read_settings(words: Sequence[str]) -> Settings:
    """Reads and checks the words after `textmarl train`.

    Raises:
        CommandError: anything unknown, badly typed, or not going together.
    """
    first = _first_look(words)
    run, resume = _which_run(first)
    given = _saved_config(run) if resume and run is not None else _read_files(first.config or [])
    imports = [*_listed(given.pop("import", None)), *(first.imports or [])]
    for name in imports:
        import_user_code(name)
    algorithm_name = str(first.algo or _entry(given, "algo", "name") or "magrpo")
    try:
        algorithm = resolve(algorithm_name)
    except CodeNotFound as error:
        raise CommandError(f"--algo: {error}") from error
    env_id = first.env or _entry(given, "env", "id")
    asks_for_help = "-h" in words or "--help" in words
    spec = None if asks_for_help and not env_id else environments.find(env_id)

    parser = _parser(algorithm, spec)
    defaults = {"algo.name": algorithm_name} | ({"env.id": spec.id} if spec else {})
    preset = first.preset or given.pop("preset", None)
    given.pop("preset", None)
    if preset is not None:
        if preset not in algorithm.PRESETS:
            known = ", ".join(algorithm.PRESETS) or "none"
            raise CommandError(f"--preset {preset}: {algorithm_name} has the presets {known}")
        defaults |= {f"algo.{name}": value for name, value in algorithm.PRESETS[preset].items()}
    from_files = _flat(parser, given, "the saved configuration" if resume else "--config")
    seed = first.seed if first.seed is not None else from_files.pop("seed", None)
    if seed is not None:
        for name in ("trainer.seed", "team.seed"):
            if first.seed is not None or name not in from_files:
                from_files[name] = seed
    parser.set_defaults(defaults | _typed(parser, from_files))
    if resume:
        _refuse_changes(words, _entry(given, "trainer", "schedule"))
    args = parse(parser, words).as_dict()
    if spec is None:
        raise CommandError("no environment: give --env ID (see `textmarl envs`)")
    run = run or Path(args["run"] or _free_folder(spec, algorithm))
    if not resume and run.is_dir() and any(run.iterdir()):
        raise CommandError(
            f"the run directory {str(run)!r} is not empty, and a run is never overwritten; continue it with "
            f"`textmarl train --resume {run}`, or choose another --run"
        )

    resolved: dict[str, Any] = {"run": str(run)}
    if imports:
        resolved["import"] = [_absolute_code(name) for name in imports]
    resolved |= {section: args[section] for section in ("env", "algo", "team", "sampling", "trainer")}
    endpoint = seats.given(args["endpoint"])
    if endpoint and not args["team"]["partners"]:
        raise CommandError(
            f"--endpoint.{next(iter(endpoint))} is for partners behind a server, and --team.partners names none"
        )
    if endpoint:
        resolved["endpoint"] = endpoint
    own = {field: value for field, value in args["algo"].items() if field != "name"}
    resolved["algo"] = {"name": _absolute_code(algorithm_name), **own}
    _make_absolute(resolved)
    return _checked(run, resume, args["transcripts"], algorithm, resolved)


def _checked(
    run: Path, resume: bool, transcripts: int, algorithm: type[Algorithm], resolved: dict[str, Any]
) -> Settings:
    """Builds the configs and environments from the resolved values; each refuses what makes no sense."""
    if transcripts < 0:
        raise CommandError(f"--transcripts: expected 0 (none) or more, got {transcripts}")
    own = {name: value for name, value in resolved["algo"].items() if name != "name"}
    with told_in_one_line():
        configured = algorithm(**own)
        team = TeamConfig(**resolved["team"])
        sampling = Sampling(**resolved["sampling"])
        trainer = TrainerConfig(**resolved["trainer"])
        refuse_unserved(team, trainer)
    env_id, kwargs = resolved["env"]["id"], resolved["env"]["kwargs"]
    for spec in team.partners.values():
        seats.check(spec, "--team.partners")
    own_kwargs = {**kwargs, **resolved["env"]["eval_kwargs"]}
    instances = Instances(partial(environments.make, env_id, kwargs))
    eval_instances = Instances(partial(environments.make, env_id, own_kwargs, "env.eval_kwargs"))
    with told_in_one_line():
        validate_run(configured, list(instances.env.possible_agents), team, sampling, instances)
    held_out = not shared_tasks(instances.env, eval_instances.env)
    return Settings(
        run,
        resume,
        transcripts,
        instances,
        eval_instances,
        held_out,
        configured,
        team,
        sampling,
        trainer,
        resolved,
    )


def _parser(algorithm: type[Algorithm], spec: EnvSpec | None) -> ArgumentParser:
    parser = command_parser(
        "train",
        "--env ID [--config FILE] [--run DIR] [options]",
        "Train a team of language models in an environment: `textmarl train --env textmarl/TLDR-v1`. Every option can stand in a YAML file (--config) under "
        "its dotted name; flags win. Ctrl-C ends after the current step and says how to go on.",
    )
    parser.add_argument("--config", metavar="FILE", type=str, action="append", help="a YAML file; repeatable")
    parser.add_argument(
        "--preset",
        metavar="NAME",
        type=str | None,
        default=None,
        help="the algorithm's, e.g. paper; default: none",
    )
    parser.add_argument(
        "--run",
        metavar="DIR",
        type=str | None,
        default=None,
        help="run directory; default: a new one in runs/",
    )
    parser.add_argument(
        "--resume", metavar="DIR", nargs="?", const="", type=str | None, default=None,
        help="continue the run in DIR (or --run) from its last checkpoint; what bounds its length or "
        "its memory may be changed, such as --trainer.steps",
    )  # fmt: skip
    parser.add_argument(
        "--seed",
        type=int | None,
        default=None,
        help="sets trainer.seed and team.seed at once; default: each its own",
    )
    parser.add_argument(
        "--transcripts",
        metavar="N",
        type=int,
        default=10,
        help="show a transcript every N steps; 0: never; default: %(default)s",
    )
    group = add_environment(
        parser,
        environments.describe_keywords(spec) if spec else "`textmarl train --env ID --help` lists them.",
    )
    group.add_argument(
        "--env.eval_kwargs", metavar="JSON", type=dict[str, Any],
        default=environments.held_out(spec),
        help="what differs in the environment of the held-out tasks (default: %(default)s)",
    )  # fmt: skip
    group = add_fields(parser, "algo", algorithm)
    group.add_argument(
        "--algo.name", metavar="NAME", type=str, default="magrpo",
        help="short: --algo NAME; a module of textmarl.algos, or path/to/file.py:Class (default: %(default)s)",
    )  # fmt: skip
    for section, config in SECTIONS.items():
        add_fields(parser, section, config)
    add_endpoint(parser, "of team.partners; they are sent the run's --sampling")
    return parser


def _first_look(words: Sequence[str]) -> argparse.Namespace:
    """What must be known before the full parser can be built."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config", action="append")
    parser.add_argument("--import", action="append", dest="imports")
    parser.add_argument("--env.id", dest="env")
    parser.add_argument("--algo.name", dest="algo")
    parser.add_argument("--preset")
    parser.add_argument("--run")
    parser.add_argument("--resume", nargs="?", const="")
    parser.add_argument("--seed", type=int)
    try:
        return parser.parse_known_args(expand_short_forms(words))[0]
    except argparse.ArgumentError as error:
        raise CommandError(str(error)) from error


def _which_run(first: argparse.Namespace) -> tuple[Path | None, bool]:
    if first.resume is None:
        return (Path(first.run) if first.run else None), False
    if first.resume and first.run and Path(first.resume) != Path(first.run):
        raise CommandError(
            f"--resume {first.resume} and --run {first.run} name different folders; give one of them"
        )
    if not (first.resume or first.run):
        raise CommandError("--resume: which run? Give --resume RUN_DIR")
    return Path(first.resume or first.run), True


def _saved_config(run: Path) -> dict[str, Any]:
    path = run / "config.yaml"
    if not path.is_file():
        raise CommandError(
            f"--resume {run}: there is no {path}, so this is not a run directory; start a run with --run"
        )
    return _read_files([str(path)])


def _read_files(paths: Sequence[str]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for path in paths:
        with told_in_one_line(f"--config {path}"):
            text = Path(path).read_text(encoding="utf-8")
        try:
            content = yaml.safe_load(text) or {}
        except yaml.YAMLError as error:
            raise CommandError(f"--config {path}: not valid YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise CommandError(f"--config {path}: expected keys such as env, algo, trainer; got {content!r}")
        for section, short in (("env", "id"), ("algo", "name")):
            if isinstance(content.get(section), str):  # `env: ID` for `env: {id: ID}`
                content[section] = {short: content[section]}
        merged = _merged(merged, content)
    return merged


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def _flat(parser: ArgumentParser, given: Mapping[str, Any], source: str, prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted names; refuses those that are no option."""
    options = known_options(parser)
    flat: dict[str, Any] = {}
    for key, value in given.items():
        name = f"{prefix}{key}"
        if name in options and name not in ("config", "resume"):
            flat[name] = value
        elif isinstance(value, Mapping) and any(option.startswith(f"{name}.") for option in options):
            flat |= _flat(parser, value, source, f"{name}.")
        else:
            sections = {option.partition(".")[0] for option in options}
            raise CommandError(f"{source}: unknown key {name!r}{close_matches(name, [*sections, *options])}")
    return flat


def _typed(parser: ArgumentParser, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the fields' types; `set_defaults` would take them unchecked."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[key] = value
    try:
        namespace = parser.parse_object(nested)
    except argparse.ArgumentError as error:
        raise CommandError(one_line(str(error)).removeprefix("--")) from error
    return {name: namespace[name] for name in values}


def _refuse_changes(words: Sequence[str], schedule: str | None) -> None:
    """Refuses options that would make another run of a run that is continued.

    Args:
        words: the command line.
        schedule: the run's, where its config.yaml tells it; only a constant one does not depend on the last step.
    """
    fields = (*FREE_SETTINGS, "steps") if schedule in (None, "constant") else FREE_SETTINGS
    free = ["team.device", *(f"trainer.{name}" for name in fields)]
    for word in expand_short_forms(words):
        name = word.partition("=")[0]
        if name.startswith("--") and name[2:] not in (*free, *OF_THE_COMMAND):
            because = f": its {schedule} schedule ends at the last step" if name == "--trainer.steps" else ""
            raise CommandError(
                f"{name}: a resumed run keeps the settings it was started with{because}; only --"
                f"{', --'.join(sorted(free))} may be changed. For other settings start a new run"
            )


def _make_absolute(resolved: dict[str, Any]) -> None:
    """Makes paths absolute, so that the run can be resumed and played from any folder."""
    if resolved["trainer"]["adapter_folder"] is not None:
        resolved["trainer"]["adapter_folder"] = str(
            Path(resolved["trainer"]["adapter_folder"]).expanduser().resolve()
        )
    for section in ("kwargs", "eval_kwargs"):
        for name, value in resolved["env"][section].items():
            if isinstance(value, str) and value.startswith("python:"):
                resolved["env"][section][name] = f"python:{_absolute_code(value.removeprefix('python:'))}"
            elif name == "source":
                resolved["env"][section][name] = _absolute_path(value, ("bundled", "hub"))
    for seat, spec in resolved["team"]["partners"].items():
        kind, _, name = spec.partition(":")
        if kind == "python":
            name = _absolute_code(name)
        elif kind in ("run", "hf", "scripted"):
            name = _absolute_path(name, PRESETS)
        resolved["team"]["partners"][seat] = f"{kind}:{name}" if name else spec
    for name, value in resolved["algo"].items():  # an algorithm around one from a file
        resolved["algo"][name] = _absolute_code(value) if isinstance(value, str) else value
    model = resolved["team"]["model"]
    several = isinstance(model, list)
    found = [_absolute_path(name, PRESETS) for name in (model if several else [model])]
    resolved["team"]["model"] = found if several else found[0]


def _absolute_path(value: Any, words: Sequence[str]) -> Any:
    """The absolute path of a file or folder that is there; anything else, and words with a meaning, as they are."""
    if not isinstance(value, str) or value in words or not Path(value).expanduser().exists():
        return value
    return str(Path(value).expanduser().resolve())


def _absolute_code(name: str) -> str:
    """`file.py` or `file.py:name` with the file's absolute path; a module's name as it is."""
    path, colon, rest = name.rpartition(":") if ".py:" in name else (name, "", "")
    return f"{Path(path).expanduser().resolve()}{colon}{rest}" if path.endswith(".py") else name


def _free_folder(spec: EnvSpec, algorithm: type[Algorithm]) -> str:
    stem = f"runs/{spec.name.lower()}-{algorithm.__name__.lower()}"
    number = 1
    while Path(f"{stem}-{number}").exists():
        number += 1
    return f"{stem}-{number}"


def _entry(given: Mapping[str, Any], section: str, key: str) -> Any:
    values = given.get(section)
    return values.get(key) if isinstance(values, Mapping) else None


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def as_yaml(resolved: Mapping[str, Any], width: int = 80) -> str:
    """The resolved settings as compact YAML: a section's values side by side, in lines of about `width`."""
    lines = []
    for section, values in resolved.items():
        if isinstance(values, str):
            lines.append(yaml.safe_dump({section: values}, width=10_000).strip())
            continue
        # The dumper breaks a line after the first value beyond the width, and two columns of indentation are added.
        body = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=width - 30).strip()
        lines += [f"{section}:", *(f"  {line.strip()}" for line in body.splitlines())]
    return "\n".join(lines)
