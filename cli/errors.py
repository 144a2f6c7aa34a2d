"""Mistakes in a call, told in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

DEBUGGING: ContextVar[bool] = ContextVar("DEBUGGING", default=False)
"""Whether the command was called with --debug: errors are then raised where they happen."""

_VERSION = re.compile(r"-v\d+$")


class CommandError(Exception):
    """A mistake of the caller's: the message is all that is shown (with --debug the traceback, too)."""


@contextmanager
def told_in_one_line(context: str = "", only_ours: bool = False) -> Iterator[None]:
    """Turns the errors that wrong input raises into a CommandError; anything else is a defect and passes.

    Args:
        context: what was being done, put before the message.
        only_ours: leave alone what the user's own code raised (an agent, an environment): its author wants the
            traceback.
    """
    try:
        yield
    except (ValueError, TypeError, LookupError, OSError, ImportError) as error:
        if only_ours and not _raised_by_textmarl(error):
            raise
        text = str(error)
        if isinstance(error, KeyError) and error.args:
            text = str(error.args[0])  # str(KeyError) would quote it
        elif isinstance(error, OSError) and error.strerror and error.filename:
            text = f"{error.filename}: {error.strerror}"
        raise CommandError(f"{context}: {text}" if context else text or type(error).__name__) from error


def _raised_by_textmarl(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("textmarl.")


def close_matches(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'a' or 'b'?"`, or a full stop where nothing known resembles `name`.

    Names are dotted (`algo.group_size`): one that ends alike is the closest. Of ids (`textmarl/TLDR-v0`) the name
    alone is compared, without regard to case: what all of them share says nothing, and a version is no other name.
    """
    names = list(known)
    leaf = name.rsplit(".", 1)[-1].lstrip("-")
    alike = [candidate for candidate in names if candidate.rsplit(".", 1)[-1].lstrip("-") == leaf]
    by_name: dict[str, list[str]] = {}
    for candidate in names:
        by_name.setdefault(_without_version(candidate), []).append(candidate)
    version = _VERSION.search(name)
    for resembling in difflib.get_close_matches(_without_version(name), by_name, n=3):
        # Of several versions, the one that was asked for comes first.
        alike += sorted(
            by_name[resembling], key=lambda found: not found.endswith(version[0] if version else "")
        )
    close = list(dict.fromkeys(alike))[:3]
    return "; did you mean " + " or ".join(map(repr, close)) + "?" if close else "."


def _without_version(name: str) -> str:
    return _VERSION.sub("", name.rpartition("/")[2].lower())
