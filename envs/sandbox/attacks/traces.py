"""What a program may have done to the process that had it judged, and to the machine around it."""

from __future__ import annotations

import os
import resource
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

RSS_GROWTH = 48 * 2**20
"""Bytes by which the caller's own memory may grow over one run: several of the largest reports."""


@dataclass(frozen=True)
class Caller:
    """The state of the calling process that a run must leave as it was. Where there is no /proc, a part of it."""

    descriptors: dict[int, str]
    memory: int
    """Resident bytes."""
    settings: dict[str, Any]
    """Signal handlers, limits, folder, environment, timers: all that a run has no reason to change."""
    threads: frozenset[threading.Thread]
    """The threads that were there. One of them may end meanwhile (the caller's own); none may be added."""
    family: frozenset[int]
    """The processes under this one."""
    everybody: frozenset[int]
    """All processes that can be seen."""

    @classmethod
    def now(cls) -> Caller:
        """The state at this moment."""
        processes = _processes()
        return cls(
            descriptors=_descriptors(),
            memory=_resident(),
            settings=_settings(),
            threads=frozenset(threading.enumerate()),
            family=frozenset(_below(os.getpid(), processes)),
            everybody=frozenset(processes),
        )

    def changes(self) -> list[str]:
        """What is different now, processes apart."""
        found = []
        descriptors = _descriptors()
        for number in sorted(descriptors.keys() | self.descriptors.keys()):
            was, now = self.descriptors.get(number), descriptors.get(number)
            if was != now:
                found.append(
                    f"descriptor {number} of the caller is {now or 'closed'}, it was {was or 'closed'}"
                )
        grown = _resident() - self.memory
        if grown > RSS_GROWTH:
            found.append(
                f"the caller's memory has grown by {grown / 2**20:.0f} MiB, expected at most {RSS_GROWTH >> 20}"
            )
        settings = _settings()
        found += [
            f"the caller's {name} is {settings[name]!r:.200}, it was {value!r:.200}"
            for name, value in self.settings.items()
            if settings[name] != value
        ]
        threads = [thread.name for thread in threading.enumerate() if thread not in self.threads]
        if threads:
            found.append(f"the caller has new threads: {', '.join(threads):.200}")
        return found

    def family_now(self) -> tuple[frozenset[int], list[str]]:
        """The processes under this one, and a sentence for each new process that was one of them and is adrift.

        Adrift is one whose parent has gone. It belongs here when its command line is that of a process under this one;
        a sandbox of another caller has another.
        """
        processes = _processes()
        family = frozenset(_below(os.getpid(), processes))
        adrift = [
            process for process, parent in processes.items() if parent == 1 and process not in self.everybody
        ]
        lines = {_command(process) for process in self.family | family} - {""} if adrift else set()
        orphans = [
            f"process {process} has outlived the run: {_command(process):.100}"
            for process in adrift
            if _command(process) in lines
        ]
        return family, orphans


def _descriptors() -> dict[int, str]:
    found = {}
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _resident() -> int:
    with suppress(OSError), open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()
    return 0


def _settings() -> dict[str, Any]:
    limits = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return {
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in limits},
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "timers": [signal.getitimer(timer)[1] for timer in timers],
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
    }


def _processes() -> dict[int, int]:
    """Every visible process that has not ended, and its parent."""
    found = {}
    with suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with suppress(OSError), open(f"/proc/{name}/stat") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
                    if state not in "ZX":
                        found[int(name)] = int(parent)
    return found


def _below(root: int, processes: dict[int, int]) -> list[int]:
    """The processes under one, children before their own children."""
    children: dict[int, list[int]] = {}
    for process, parent in processes.items():
        children.setdefault(parent, []).append(process)
    found = list(children.get(root, ()))
    for process in found:  # grows while it is read
        found += children.get(process, ())
    return found


def _command(process: int) -> str:
    with suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
        return file.read(10_000).replace(b"\0", b" ").decode(errors="replace").strip()
    return ""
