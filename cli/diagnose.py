"""`textmarl diagnose`: how good the credit of a finished run's algorithm is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from textmarl.cli import environments
from textmarl.cli.errors import CommandError, told_in_one_line
from textmarl.cli.parsing import command_parser, parse
from textmarl.cli.seats import ModelOptions, check, make_agents, saved_config
from textmarl.cli.user_code import import_user_code
from textmarl.envs.instances import Instances

FILE = "diagnostics.json"


def run(words: Sequence[str]) -> int:
    """Runs `textmarl diagnose` with the words after it; returns the exit code."""
    parser = command_parser(
        "diagnose",
        "RUN_DIR [options]",
        "Let the algorithm of a run credit new experience of its trained team, replay what it credited, and compare "
        f"(fidelity, variance, influence). Shows a table and writes RUN_DIR/{FILE}.",
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", type=str, help="the folder of the run")
    parser.add_argument("--tasks", metavar="N", type=int, default=8, help="training tasks; default: 8")
    parser.add_argument(
        "--contexts",
        metavar="N",
        type=int,
        default=16,
        help="groups of each agent that are replayed; default: 16",
    )
    parser.add_argument(
        "--replays", metavar="N", type=int, default=8, help="episodes for each response; default: 8"
    )
    parser.add_argument("--seed", type=int, default=0, help="of tasks, sampling and the choice of contexts")
    parser.add_argument("--batch-size", metavar="N", type=int, default=64, help="responses decoded at once")
    parser.add_argument(
        "--team.device", metavar="VALUE", type=str | None, default=None, help="a torch device"
    )
    args = parse(parser, words)
    folder = Path(args.run_dir)
    if not (folder / "config.yaml").is_file():
        raise CommandError(
            f"{str(folder)!r} has no config.yaml; expected the run directory of a training run"
        )
    if args.tasks < 1 or args.seed < 0 or args.batch_size < 1:
        raise CommandError("--tasks and --batch-size must be at least 1, and --seed not negative")
    with told_in_one_line():  # without torch: which extra to install
        record = _diagnosed(folder, args.as_dict())
    (folder / FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    console = Console()
    console.print(_table(record))
    console.print(f"written: {folder / FILE}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _diagnosed(folder: Path, args: dict[str, Any]) -> dict[str, Any]:
    """Plays and compares; the record of diagnostics.json."""
    from textmarl.agents import Sampling, Team
    from textmarl.agents.team import random_stream
    from textmarl.algos import Rollout, RunDirectory, resolve
    from textmarl.algos.credit_diagnostics import diagnose

    config = saved_config(str(folder))
    for name in config.get("import") or []:
        import_user_code(name)
    settings = dict(config["algo"])
    name = settings.pop("name")
    algorithm = resolve(name)(**settings)
    instances = Instances(partial(environments.make, config["env"]["id"], config["env"].get("kwargs") or {}))
    seed, device = args["seed"], (args.get("team") or {}).get("device")
    options = ModelOptions.of_training(config)
    assigned = (config.get("team") or {}).get("partners") or {}
    for seat, spec in assigned.items():
        check(spec, f"the run's partner {seat!r}")
    team = Team.load(folder, device, make_agents(assigned, seed, options))
    algorithm.setup(team, seed)
    if algorithm.state_dict():  # it learned more than policies: its credit is that of what it learned
        state = RunDirectory(folder).load_checkpoint()
        if state is None:
            raise CommandError(
                f"{str(folder)!r} has no checkpoint, where {name} keeps what its credit depends on; restore the folder "
                "checkpoints"
            )
        algorithm.load_state_dict(state["algorithm"])
    generators = {agent: random_stream(seed, i) for i, agent in enumerate(team.names)}
    rollout = Rollout(instances, team.players, Sampling(**config["sampling"]), generators, args["batch_size"])
    known = getattr(instances.env, "tasks", None)  # environments of others have none
    tasks = [(seed + k, None if known is None else k % len(known)) for k in range(args["tasks"])]
    with Console().status("playing and replaying"):
        found = diagnose(algorithm, rollout, tasks, args["contexts"], args["replays"], seed)
    return {
        "run": str(folder),
        "env": config["env"]["id"],
        "algo": {"name": name, **settings},
        **{key: args[key] for key in ("tasks", "contexts", "replays", "seed")},
        "cost": {
            "reward_evaluations": rollout.cost.reward_evaluations,
            "generated_tokens": rollout.cost.generated_tokens,
        },
        "credit": {agent: asdict(diagnosis) for agent, diagnosis in found.items()},
    }


def _table(record: dict[str, Any]) -> Table:
    title = f"credit of {Path(record['algo']['name']).name} in {record['env']}: {record['replays']} replays a response"
    table = Table(title=title, title_justify="left", title_style="bold", caption_justify="left")
    table.add_column("")
    for column in ("groups", "fidelity [95 %]", "within", "reliability", "variance", "influence"):
        table.add_column(column, justify="right", no_wrap=True)
    for agent, row in record["credit"].items():
        interval = row["interval"]
        table.add_row(
            agent,
            str(row["contexts"]),
            _number(row["fidelity"]) + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""),
            *(_number(row[name]) for name in ("within", "reliability", "variance", "influence")),
        )
    cost = record["cost"]
    table.caption = (
        "fidelity: Spearman correlation of advantages with replays; within: inside a group\n"
        "reliability: the same of half of the replays with the other half\n"
        "influence: nats, of a text on the next teammate's answer\n"
        f"{cost['reward_evaluations']:,} reward evaluations and {cost['generated_tokens']:,} tokens"
    )
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
