"""Who sits where: the agents that `--agent` options, and the partners of a training run, name."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from textmarl.agents import (
    Agent,
    EndpointAgent,
    MessagesAgent,
    RandomAgent,
    ScriptedAgent,
    TextAgent,
    as_agent,
)
from textmarl.agents.evaluation import shared_tasks
from textmarl.cli import environments
from textmarl.cli.errors import CommandError, close_matches, told_in_one_line
from textmarl.cli.user_code import load_object

if TYPE_CHECKING:
    from textmarl.agents.policy import Policy
    from textmarl.agents.sampling import Sampling

KINDS = "run:DIR, hf:MODEL, openai:URL#MODEL, python:module:function, python:path/file.py:function, scripted:FILE or random"
NAMED_KINDS = ("run", "hf", "openai", "python", "scripted")


def assign(options: Sequence[str], seats: Sequence[str]) -> dict[str, str]:
    """Which agent specification each seat gets.

    Args:
        options: `SPEC` for every seat not named otherwise, or `SEAT=SPEC`.
        seats: the seats to fill, in order.

    Raises:
        CommandError: an unknown seat or kind, a seat twice or left empty.
    """
    for_all: list[str] = []
    chosen: dict[str, str] = {}
    for option in options:
        seat, spec = _split(option)
        if seat is None:
            for_all.append(option)
            continue
        if seat not in seats:
            raise CommandError(
                f"--agent {option}: no seat {seat!r}{close_matches(seat, seats)} The seats are {', '.join(seats)}"
            )
        if seat in chosen:
            raise CommandError(f"--agent {option}: the seat {seat!r} is already taken by {chosen[seat]}")
        chosen[seat] = spec
    if len(for_all) > 1:
        raise CommandError(
            f"--agent is given {len(for_all)} times without a seat; write SEAT=... ({', '.join(seats)})"
        )
    for seat in seats:
        if seat not in chosen:
            if not for_all:
                raise CommandError(
                    f"{seat!r} has no agent: give --agent SPEC or --agent {seat}=SPEC ({KINDS})"
                )
            chosen[seat] = for_all[0]
    for spec in chosen.values():
        check(spec)
    return {seat: chosen[seat] for seat in seats}


def check(spec: str, option: str = "--agent") -> None:
    """Refuses what is no agent specification.

    Raises:
        CommandError: says which `option` it came from, and what is expected.
    """
    kind, _, name = spec.partition(":")
    if spec != "random" and (kind not in NAMED_KINDS or not name):
        raise CommandError(f"{option} {spec}: expected {KINDS}")
    if kind == "openai" and not all(name.partition("#")):
        raise CommandError(
            f"{option} {spec}: which model? Expected openai:URL#MODEL, such as openai:http://localhost:8000/v1#name"
        )


def _split(option: str) -> tuple[str | None, str]:
    """The seat (None: all others) and the specification of an `--agent` option."""
    match = re.fullmatch(r"([^:=]+)=(.*)", option, flags=re.DOTALL)
    return (match.group(1), match.group(2)) if match is not None else (None, option)


@dataclass(frozen=True)
class ModelOptions:
    """How models are loaded and sampled from; what is not given is a run's own, or the default."""

    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `Sampling`."""
    team: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TeamConfig`."""
    endpoint: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `EndpointAgent`."""

    @classmethod
    def of(cls, args: Namespace) -> ModelOptions:
        """Those that `parsing.add_models` read."""
        sections = (args[section].as_dict() for section in ("sampling", "team", "endpoint"))
        return cls(*(given(own) for own in sections))

    @classmethod
    def of_training(cls, config: Mapping[str, Any]) -> ModelOptions:
        """Those by which the partners of a training run play: the run's own, where they are of that kind.

        Args:
            config: the run's config.yaml.
        """
        team = config.get("team") or {}
        local = any(spec.startswith("hf:") for spec in (team.get("partners") or {}).values())
        fields = ("device", "dtype", "thinking", "chat_template_kwargs") if local else ("device",)
        return cls(
            config.get("sampling") or {},
            given({name: team[name] for name in fields if name in team}),
            given(config.get("endpoint") or {}),
        )

    def over(self, other: ModelOptions) -> ModelOptions:
        """These, and from `other` what is not among them."""
        return ModelOptions(
            {**other.sampling, **self.sampling},
            {**other.team, **self.team},
            {**other.endpoint, **self.endpoint},
        )


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that are not left out."""
    return {name: value for name, value in values.items() if value is not None and value != {}}


def make_agents(
    assigned: Mapping[str, str], seed: int, options: ModelOptions | None = None, episodes_played: int = 0
) -> dict[str, Agent]:
    """The agents themselves; a model or a run that several seats name is loaded once.

    Args:
        assigned: seat -> specification, from `assign`.
        seed: seeds random agents and the sampling of models; every seat has a random stream of its own.
        options: of the models.
        episodes_played: before, in an evaluation that is continued; local models then sample from streams of their
            own, as those from the beginning would give new samples of a task the words of its earlier ones.

    Raises:
        CommandError: a run, model, file or function that is not there, or a run without that seat.
    """
    options = options or ModelOptions()
    agents = _partners_of_runs(assigned, seed, options, episodes_played)
    seats_in_all = list(assigned)
    assigned = {seat: spec for seat, spec in assigned.items() if seat not in agents}
    models: dict[str, tuple[Policy, Sampling]] = {}
    for spec in dict.fromkeys(assigned.values()):
        seats = [seat for seat, own in assigned.items() if own == spec]
        kind, _, name = spec.partition(":")
        if spec == "random":
            agents |= {seat: RandomAgent(seed=seed * 1000 + seats_in_all.index(seat)) for seat in seats}
        elif kind == "openai":
            url, _, model = name.partition("#")
            with told_in_one_line(f"--agent {spec}"):
                agents |= dict.fromkeys(seats, EndpointAgent(url, model, **_of_endpoint(options)))
        elif kind == "scripted":
            with told_in_one_line(f"--agent {spec}"):
                agents |= dict.fromkeys(seats, ScriptedAgent(_script(Path(name))))
        elif kind == "python":
            agent = load_object(name)
            with told_in_one_line(f"--agent {spec}"):
                agents |= dict.fromkeys(seats, as_agent(agent))
        elif kind == "run":
            with told_in_one_line(f"--agent {spec}"):
                models |= _of_run(name, seats, options)
    base_models = {
        seat: spec.removeprefix("hf:") for seat, spec in assigned.items() if spec.startswith("hf:")
    }
    if base_models:
        with told_in_one_line(
            "--agent " + ", ".join(f"hf:{name}" for name in dict.fromkeys(base_models.values()))
        ):
            models |= _of_base_models(base_models, options)
    elif models and (fixed := [name for name in options.team if name != "device"]):
        raise CommandError(
            f"--team.{fixed[0]} is for hf: agents; a run's models are played as they were trained "
            "(on any --team.device, with any --sampling)"
        )
    if models:
        from textmarl.agents.team import PolicyAgent, random_stream

        for seat, (policy, sampling) in models.items():
            path = (seats_in_all.index(seat), *([episodes_played] if episodes_played else []))
            stream = random_stream(seed, *path)
            agents[seat] = PolicyAgent(policy, sampling, stream)
    return {seat: agents[seat] for seat in seats_in_all}


def _partners_of_runs(
    assigned: Mapping[str, str], seed: int, options: ModelOptions, episodes_played: int
) -> dict[str, Agent]:
    """Who plays the seats that a run is named for and that a partner played in it: the same partner."""
    agents: dict[str, Agent] = {}
    for spec in dict.fromkeys(assigned.values()):
        if not spec.startswith("run:"):
            continue
        config = saved_config(spec.removeprefix("run:"))
        known = (config.get("team") or {}).get("partners") or {}
        partners = {seat: known[seat] for seat, own in assigned.items() if own == spec and seat in known}
        for seat, partner in partners.items():
            check(partner, f"--agent {spec} played with the partner {seat!r},")
        own = options.over(ModelOptions.of_training(config))
        agents |= make_agents(partners, seed, own, episodes_played) if partners else {}
    return agents


def _of_endpoint(options: ModelOptions) -> dict[str, Any]:
    """The options of `--sampling` and `--endpoint` as those of an `EndpointAgent`."""
    own = dict(options.endpoint)
    own |= {name: options.sampling[name] for name in ("temperature", "top_p") if name in options.sampling}
    if "max_new_tokens" in options.sampling:
        own["max_tokens"] = options.sampling["max_new_tokens"]
    if options.sampling.get("top_k"):  # not OpenAI's own, but vLLM's, SGLang's, llama.cpp's ...
        own["extra_body"] = {"top_k": options.sampling["top_k"], **own.get("extra_body", {})}
    return own


def _script(file: Path) -> str | list[str]:
    """The replies of a scripted agent: a JSON list with one a turn, or a text for all turns."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".json":
        return text
    replies = json.loads(text)
    if not isinstance(replies, list) or not replies or not all(isinstance(reply, str) for reply in replies):
        raise ValueError(f"{file} must hold a list of texts, one a turn")
    return replies


def settings_of(assigned: Mapping[str, str], agents: Mapping[str, Agent]) -> dict[str, dict[str, Any]]:
    """What `evaluate` cannot tell by itself: by which name the command found an object of the user's, by seat.

    All else it reads off the agents, so that an evaluation begun from Python can be continued by the command.
    """
    return {
        seat: {"spec": spec}
        for seat, spec in assigned.items()
        if spec.startswith("python:") and not isinstance(agents[seat], (TextAgent, MessagesAgent))
    }


@dataclass(frozen=True)
class RunEnvironment:
    """The environment that runs were evaluated in on held-out tasks while they were trained."""

    id: str
    kwargs: Mapping[str, Any]
    imports: Sequence[str]


def environment_of_runs(options: Sequence[str]) -> RunEnvironment | None:
    """The environment that the runs among `--agent` options have in common; None without a run.

    Raises:
        CommandError: a run does not tell, or two runs differ.
    """
    found: dict[str, RunEnvironment] = {}
    for spec in (_split(option)[1] for option in options):
        if not spec.startswith("run:") or spec == "run:":
            continue
        config = saved_config(spec.removeprefix("run:"))
        own = config.get("env") or {}
        if not own.get("id"):
            raise CommandError(f"--agent {spec} does not tell its environment; give --env ID")
        kwargs = {**(own.get("kwargs") or {}), **(own.get("eval_kwargs") or {})}
        found[spec] = RunEnvironment(own["id"], kwargs, config.get("import") or [])
    for spec, own in found.items():
        first = next(iter(found))
        if (own.id, own.kwargs) != (found[first].id, found[first].kwargs):
            raise CommandError(
                f"{first} is of {found[first].id} ({dict(found[first].kwargs)}), {spec} of {own.id} "
                f"({dict(own.kwargs)}); choose by --env ID (and --env.kwargs)"
            )
    return next(iter(found.values()), None)


def _of_base_models(names: Mapping[str, str], options: ModelOptions) -> dict[str, tuple[Policy, Sampling]]:
    """One team for all seats: equal models share a base."""
    from textmarl.agents import Sampling, Team, TeamConfig

    sampling = Sampling(**options.sampling)
    team = Team.create(list(names), TeamConfig(model=list(names.values()), **options.team))
    return {seat: (team.policies[seat], sampling) for seat in names}


def _of_run(folder: str, seats: list[str], options: ModelOptions) -> dict[str, tuple[Policy, Sampling]]:
    from textmarl.agents import Sampling, Team

    sampling = Sampling(**{**(saved_config(folder).get("sampling") or {}), **options.sampling})
    team = Team.load(folder, device=options.team.get("device"))
    missing = [seat for seat in seats if seat not in team.policies]
    if missing:
        raise CommandError(
            f"--agent run:{folder}: that run trained {', '.join(team.policies)}, and nobody for {', '.join(missing)}; "
            "give that seat another agent with --agent SEAT=..."
        )
    return {seat: (team.policies[seat], sampling) for seat in seats}


def saved_config(folder: str) -> dict[str, Any]:
    """The config.yaml of a run; empty for a team that was saved without one.

    Raises:
        CommandError: there is no such folder.
    """
    import yaml

    if not Path(folder).is_dir():
        raise CommandError(f"--agent run:{folder}: there is no folder {folder!r}")
    path = Path(folder) / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def training_overlap(
    assigned: Mapping[str, str], env_id: str, env: Any, played: Collection[str]
) -> list[str]:
    """What to say about runs that are played on tasks they were trained on.

    Args:
        assigned: seat -> specification.
        env_id: the environment that is played.
        env: it.
        played: ids of the tasks that are played.

    Returns:
        A sentence for each run with such tasks, or whose training tasks cannot be told.
    """
    notes = []
    for spec in dict.fromkeys(assigned.values()):
        if not spec.startswith("run:"):
            continue
        own = saved_config(spec.removeprefix("run:")).get("env") or {}
        try:
            if environments.find(own.get("id")).id != environments.find(env_id).id:
                continue
            trained_on = environments.make(own["id"], own.get("kwargs") or {})
        except CommandError:
            notes.append(f"which tasks {spec} was trained on cannot be told; they may be among those played")
            continue
        shared = shared_tasks(env, trained_on) & set(played)
        if shared:
            notes.append(f"{len(shared)} of the {len(played)} tasks are also training tasks of {spec}")
    return notes
