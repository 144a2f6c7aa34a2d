"""The `textmarl` command. Each command is a module of this package, imported only when it is called."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from textmarl.cli.errors import DEBUGGING, CommandError, close_matches

COMMANDS = {
    "train": "train a team of language models in an environment",
    "eval": "play and score agents: trained runs, models, servers, Python functions, random",
    "play": "take an agent's seat in the terminal",
    "envs": "list the environments, or show one's documentation page",
    "check": "check that an environment of yours keeps the contract",
    "report": "rebuild the report of a run",
    "diagnose": "compare the credit that a run's algorithm gives with independent replays",
    "sandbox": "check what holds model-written code back on this machine",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 episodes of an evaluation failed, 2 a mistake in the call (or no report of a trained run), 130 interrupted.

    Args:
        arguments: the command line without the program's name; None takes it from `sys.argv`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get("TEXTMARL_DEBUG", "0") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"textmarl {importlib.metadata.version('textmarl')}")
        return 0
    name = words[0]
    before = DEBUGGING.set(debug)
    try:
        if name not in COMMANDS:
            raise CommandError(
                f"no command {name!r}{close_matches(name, COMMANDS)} The commands are {', '.join(COMMANDS)}."
            )
        return int(importlib.import_module(f"textmarl.cli.{name}").run(words[1:]))
    except CommandError as error:
        if debug:
            raise
        print(f"textmarl {name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interruption:
        if debug:
            raise
        print(f"\ntextmarl {name}: interrupted", *interruption.args, sep="\n", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has left: nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        DEBUGGING.reset(before)


def usage() -> str:
    """The text of `textmarl --help`."""
    lines = [f"  {name:8} {purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(
        [
            "usage: textmarl COMMAND [options]",
            "",
            "Cooperative text environments, and language models trained together in them.",
            "",
            *lines,
            "",
            "textmarl COMMAND --help    shows a command's options",
            "textmarl --version         shows the version",
            "--debug                    shows the traceback of an error (or set TEXTMARL_DEBUG=1)",
        ]
    )
