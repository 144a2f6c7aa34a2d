"""`textmarl check`: whether an environment keeps the contract."""

from __future__ import annotations

from collections.abc import Sequence

from textmarl.cli import environments
from textmarl.cli.errors import CommandError
from textmarl.cli.parsing import add_environment, command_parser, parse
from textmarl.cli.user_code import import_user_code
from textmarl.envs import TextEnv, check_env


def run(words: Sequence[str]) -> int:
    """Runs `textmarl check` with the words after it; returns the exit code (1: the contract is broken)."""
    parser = command_parser(
        "check",
        "--env ID [--import FILE] [--env.kwargs...]",
        "Play short episodes of random and junk texts in an environment and check what training and evaluation rest on: "
        "seeding, copies, infos, refusals (textmarl.envs.check_env).",
    )
    add_environment(parser)
    args = parse(parser, words)
    for name in args["import"] or []:
        import_user_code(name)
    spec = environments.find(args.env.id)
    if not isinstance(environments.make(spec.id, args.env.kwargs), TextEnv):
        raise CommandError(
            f"{spec.id} is no textmarl.envs.TextEnv; for another PettingZoo environment there is "
            "pettingzoo.test.parallel_api_test, and a protocol is not checked"
        )
    try:
        check_env(lambda: environments.make(spec.id, args.env.kwargs))
    except AssertionError as error:
        print(f"{spec.id} breaks the contract. {error}")
        return 1
    print(f"{spec.id} keeps the contract.")
    return 0
