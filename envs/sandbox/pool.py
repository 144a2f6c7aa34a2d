"""The supervisor of a sandbox, from the trainer's side: starts it, sends it programs, collects reports, ends it.

In the trainer's process there is one socket and one child process, and nothing else: no thread, no signal handler, no
model-written code, no object that a program made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from textmarl.envs.sandbox import frames, wire
from textmarl.envs.sandbox.program import Call, Limits, Record, Replay, Report, Suite, Verdict

MAX_SUITE = 6 * 2**20
"""Bytes that a suite may take, with the calls of a replay; a program's source has to fit into the same frame."""
AHEAD = 8
"""Programs for each worker that the supervisor is given at once: enough that it never waits, and no more."""
STOP_SECONDS = 3.0
"""How long the supervisor may take to end itself before it is killed."""

# `-P -s -S` keep the current folder and site-packages off the path, and with them everything but the standard library;
# so the modules of the sandbox are given bare parents, whose own code (which needs site-packages) does not run.
# The hooks that `random` and `threading` run in every forked process are left out: they cost more than the fork itself,
# there are no threads, and `random` is seeded for each program.
_BOOTSTRAP = """
import os, sys, types
for name in ("textmarl", "textmarl.envs", "textmarl.envs.sandbox"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[1]] if name.endswith("sandbox") else []
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, sys.modules[name])
register, os.register_at_fork = os.register_at_fork, lambda **hooks: None
from textmarl.envs.sandbox import startup
os.register_at_fork = register
startup.main(int(sys.argv[2]))
"""


class SandboxError(RuntimeError):
    """The sandbox cannot do its work. Never the fault of a program that runs in it."""


class SandboxUnavailable(SandboxError):
    """The machine does not hold what the required level needs; the message names what is missing.

    Attributes:
        layers: for every layer of the containment whether it holds here, and what it does or why it is missing.
    """

    def __init__(self, message: str, layers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.layers = dict(layers)


class Gone(Exception):
    """The supervisor has ended, and the jobs that it had are lost."""


class Pool:
    """One supervisor and the processes under it.

    Threads that wait for reports share the one socket: whoever finds nobody reading reads for all.

    Attributes:
        owner: the process that started it, and the only one that may use it.
        workers: programs that run at once.
        level, layers: what holds, and of what each layer consists.
        gone: why it cannot be used any more; empty while it can.
        stop: ends it. A second call does nothing. It is called at the latest when the trainer ends.

    Raises:
        SandboxUnavailable: the level does not hold on this machine.
        SandboxError: the processes do not start.
    """

    def __init__(self, level: str | None, workers: int | None, limits: Limits) -> None:
        self.owner = os.getpid()
        self.workers = workers or _cores()
        self.gone = ""
        self._condition = threading.Condition()
        self._sending = threading.Lock()
        self._reading = False
        self._last_number = 0
        self._arrived: dict[int, Report] = {}
        try:
            with tempfile.TemporaryFile() as log:  # what a supervisor that does not start says
                self._channel, self.stop = self._start(log)
                try:
                    self._send("start", level, self.workers, dataclasses.asdict(limits), self._folder)
                    self.level, self.layers = self._greeted(level)
                except BaseException as error:
                    self.stop()
                    if not isinstance(error, Gone):
                        raise
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip()
                    raise SandboxError(f"the sandbox does not start: {error}\n{said}".strip()) from None
        except OSError as error:  # no temporary folder, no Python, no process
            raise SandboxError(f"the sandbox does not start: {error}") from error

    def _start(self, log: IO[bytes]) -> tuple[frames.Channel, Callable[[], Any]]:
        if not sys.executable:
            raise SandboxError("the sandbox does not start: sys.executable does not say where Python is")
        with contextlib.ExitStack() as undone:
            self._folder = tempfile.mkdtemp(prefix="textmarl-sandbox-")
            undone.callback(shutil.rmtree, self._folder, ignore_errors=True)
            ours, theirs = map(undone.enter_context, socket.socketpair())
            command = [sys.executable, "-P", "-s", "-S", "-B", "-c", _BOOTSTRAP]
            owner = str(os.getpid())  # for whoever looks at the machine's processes and asks whose they are
            process = subprocess.Popen(
                [*command, str(Path(__file__).parent), str(theirs.fileno()), owner],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
            stop = weakref.finalize(self, _stop, process, ours, self._folder, self.owner)
            undone.pop_all()
            theirs.close()
        return frames.Channel(ours), stop

    def run(
        self,
        programs: Mapping[int, tuple[str, Suite, Record | Replay | None]],
        reports: dict[int, Report],
        limits: Limits,
    ) -> None:
        """Runs programs and puts the report of each under its key into `reports`, as they come.

        Of `limits` those on time hold for these programs; the others are the pool's own.

        Raises:
            Gone: the supervisor has ended; the reports so far are there.
        """
        jobs = list(programs.items())[::-1]
        of_time = {
            "seconds": limits.seconds,
            "wall_seconds": limits.wall,
            "whole_seconds": limits.whole,
            "timeouts": limits.timeouts,
        }
        keys: dict[int, int] = {}
        try:
            while jobs or keys:
                while jobs and len(keys) < AHEAD * self.workers:
                    key, program = jobs.pop()
                    number = self._next_number()
                    keys[number] = key
                    self._send("run", number, _job(*program), of_time)
                self._collect(keys, reports)
        except BaseException as error:
            # Ctrl-C too: the socket may hold half a message, so nothing goes on from here.
            self.gone = self.gone or str(error) or "interrupted"
            self.stop()
            with self._condition:
                self._condition.notify_all()
            raise

    def _next_number(self) -> int:
        with self._condition:
            self._last_number += 1
            return self._last_number

    def _collect(self, keys: dict[int, int], reports: dict[int, Report]) -> None:
        """Waits until at least one report of those expected is there, and takes all that are."""
        while True:
            with self._condition:
                arrived = keys.keys() & self._arrived.keys()
                for number in arrived:
                    reports[keys.pop(number)] = self._arrived.pop(number)
                if arrived:
                    return
                if self.gone:
                    raise Gone(self.gone)
                if self._reading:
                    self._condition.wait()
                    continue
                self._reading = True
            try:
                number, report = self._received_report()
                self._arrived[number] = report
            finally:
                with self._condition:
                    self._reading = False
                    self._condition.notify_all()

    def _received_report(self) -> tuple[int, Report]:
        match self._receive():
            case ("done", int() as number, dict() as told):
                return number, _report(told)
            case ("fault", str() as text):
                raise Gone(text)
            case message:
                raise Gone(f"the supervisor sent {message!r:.100}")

    def _greeted(self, level: str | None) -> tuple[str, dict[str, str]]:
        match self._receive():
            case ("ready", str() as holds, dict() as facts):
                return holds, _worded(facts)
            case ("refused", list() as missing, dict() as facts):
                raise SandboxUnavailable(
                    f"the sandbox level {level or 'confined'!r} does not hold on this machine. Missing: "
                    + "; ".join(missing)
                    + ". docs/sandbox.md says what each level needs"
                    + (", and a weaker one can be asked for by its name." if level != "process" else "."),
                    _worded(facts),
                )
            case ("fault", str() as text):
                raise Gone(text)
            case message:
                raise Gone(f"the supervisor sent {message!r:.100}")

    def _send(self, *message: Any) -> None:
        with self._sending:
            try:
                self._channel.send(wire.encode(message))
            except frames.ChannelClosed as error:
                raise Gone("the supervisor has ended") from error

    def _receive(self) -> Any:
        try:
            return wire.decode(self._channel.receive())
        except frames.ChannelClosed as error:
            self.gone = self.gone or "the supervisor has ended"
            raise Gone(self.gone) from error


def _stop(process: subprocess.Popen[bytes], channel: socket.socket, folder: str, owner: int) -> None:
    if os.getpid() != owner:  # a process that was forked off the owner has no say
        return
    with contextlib.suppress(OSError):  # it may have hung up already
        # Unlike `close`, it is seen at the other end even where a forked process holds a copy of the socket.
        channel.shutdown(socket.SHUT_RDWR)
    channel.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def check(suite: Suite, helper: Record | Replay | None) -> None:
    """Raises an error that names what is wrong with a suite, or with what is asked about the helper."""
    if not isinstance(suite, Suite):
        raise TypeError(f"a program goes with a Suite, not with {type(suite).__name__}")
    try:
        size = len(wire.encode(tuple(_job("", suite, helper).values()), opaque=False))
    except wire.WireError:
        size = wire.MAX_FRAME
    if size > MAX_SUITE:
        raise ValueError(
            f"the suite of {suite.entry_point!r} takes {size:,} bytes or more, and {MAX_SUITE:,} at most"
        )


def _job(source: str, suite: Suite, helper: Record | Replay | None) -> dict[str, Any]:
    match helper:
        case Record(name):
            watched: Any = ("record", name)
        case Replay(name, calls):
            watched = ("replay", name, tuple((call.value, call.error) for call in calls))
        case None:
            watched = None
        case _:
            raise TypeError(f"helper must be a Record, a Replay or None, not {type(helper).__name__}")
    return {
        "source": source,
        "entry_point": suite.entry_point,
        "tests": tuple((test.source, test.before) for test in suite.tests),
        "setup": suite.setup,
        "names": suite.names,
        "mutates": suite.mutates,
        "seed": suite.seed,
        "helper": watched,
    }


def _report(told: dict[str, Any]) -> Report:
    verdicts = tuple(Verdict(*verdict) for verdict in told["verdicts"])
    calls = tuple(
        Call(test, args, dict(kwargs), value, error) for test, args, kwargs, value, error in told["calls"]
    )
    stdout, stderr = (told[name].decode("utf-8", "replace") for name in ("stdout", "stderr"))
    return Report(verdicts, told["error"], stdout, stderr, calls)


def _worded(facts: dict[str, tuple[bool, str]]) -> dict[str, str]:
    return {name: f"{'held' if held else 'missing'}: {detail}" for name, (held, detail) in facts.items()}


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _environment() -> dict[str, str]:
    # The last two say where Python finds its own shared library, if not by itself. The supervisor clears all of it.
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
    return {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "TMPDIR": tempfile.gettempdir(), **kept}
