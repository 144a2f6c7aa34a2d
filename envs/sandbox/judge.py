"""The process that holds the tests. It is contained as the candidate is, and only verdicts leave it.

The tests run as they are written. What they call `candidate` is a proxy: it sends the arguments to the candidate's
process and receives the result, both as plain data (`wire`). A test passes when its code runs to its end *and* the
candidate answered every call with one well-formed answer: a time-out, a death or a protocol error fails the test
whatever its code does next.
"""

from __future__ import annotations

import random
import reprlib
from collections.abc import Callable
from types import CodeType
from typing import Any

from textmarl.envs.sandbox import candidate, frames, wire
from textmarl.envs.sandbox.recording import MAX_CALLS, MAX_RECORD, is_call, size_of
from textmarl.envs.sandbox.standins import without_addresses

MAX_EXCEPTION = 2_000
"""Characters of an exception's text that a verdict holds."""


def serve(control: frames.Channel, channel: frames.Channel) -> None:
    """Judges one program: sends `ready`, receives the job, sends `loaded` and a `verdict` for each test.

    It is ready once the candidate has said that it is. Where that has ended since, it ends too, without a word: then
    another pair is given the job.

    Args:
        control: to the supervisor.
        channel: to the candidate.
    """
    if channel.receive() != candidate.READY:
        raise wire.WireError("the candidate did not come up")
    control.send(wire.encode(("ready",)))
    job = wire.decode(control.receive())
    match job:
        case ("job", dict() as settings) if not channel.closed:
            helper = settings["helper"]
            recording = helper is not None and helper[0] == "record"
            Judge(control, Link(channel, settings["entry_point"], recording), settings).run()


class Judge:
    """The tests of one suite, from test number `first` on: an earlier pair of processes may have come that far."""

    def __init__(self, control: frames.Channel, link: Link, job: dict[str, Any]) -> None:
        self.control = control
        self.link = link
        self.job = job
        self.namespace: dict[str, Any] = {"__name__": "tests", "candidate": link.proxy}
        for name in (job["entry_point"], *job["names"]):
            self.namespace[name] = link.proxy

    def run(self) -> None:
        """Loads the program and runs the tests."""
        job, link = self.job, self.link
        error = link.load(job["source"], job["mutates"], job["seed"], job["helper"])
        self._tell("loaded", error, link.take_calls())
        if error:
            return
        # Not as the candidate is seeded: it must not be able to draw the tests' random inputs itself.
        seed = repr((job["seed"], job["setup"], job["tests"])).encode("utf-8", "backslashreplace")
        random.seed(seed)
        failed_setup = self._run(job["setup"], "<setup>")
        random.seed(seed)
        for index, (source, before) in enumerate(job["tests"]):
            failed = failed_setup or self._run(before, f"<before test {index}>")
            if index < job["first"]:
                link.take_calls()  # they were reported by an earlier pair
                continue
            outcome, text = failed or self._run(source, f"<test {index}>") or ("passed", "")
            if link.broken is not None:
                outcome, text = link.broken
            call = "" if outcome == "passed" else link.last_call()
            self._tell("verdict", index, outcome, text, call, link.take_calls())
            if link.broken is not None:
                return  # the supervisor goes on with a fresh pair

    def _run(self, source: str, name: str) -> tuple[str, str] | None:
        """Runs code of the suite; None, or an outcome and what the exception said."""
        if not source:
            return None
        self.link.begin()
        try:
            exec(_compiled(source, name), self.namespace)
        except BaseException as error:  # SystemExit of a test is a failed test
            wrong_answer = isinstance(error, AssertionError) and error is not self.link.raised
            return "failed" if wrong_answer else "error", self._text(error)
        return None

    def _text(self, error: BaseException) -> str:
        try:
            name = type(error).__name__
            if error is self.link.raised:
                return self.link.raised_text
            message = without_addresses(str(error))
        except BaseException:
            return "an exception without text"
        return (f"{name}: {message}" if message else name)[:MAX_EXCEPTION]

    def _tell(self, *message: Any) -> None:
        self.control.send(wire.encode(message, opaque=False))


class Link:
    """The way to the candidate.

    Attributes:
        proxy: the function that tests call.
        broken: outcome and text once the candidate cannot be talked to any more, else None.
        raised: the last exception that the candidate raised, as the test saw it.
    """

    def __init__(self, channel: frames.Channel, name: str, recording: bool) -> None:
        self._channel = channel
        self._name = name
        self._calls_left, self._bytes_left = (MAX_CALLS, MAX_RECORD) if recording else (0, 0)
        self._request = 0
        self._mutates = False
        self._calls: list[tuple[Any, ...]] = []
        self._last: tuple[tuple[Any, ...], dict[str, Any], str, Any] | None = None
        self.broken: tuple[str, str] | None = None
        self.raised: BaseException | None = None
        self.raised_text = ""
        self.proxy = self._make_proxy()

    def load(self, source: str, mutates: bool, seed: int, helper: Any) -> str:
        """Lets the candidate load the program; empty, or why it did not load."""
        self._mutates = mutates
        try:
            self._ask("load", source, self._name, mutates, seed, helper)
        except Exception:
            return self.broken[1] if self.broken is not None else self.raised_text
        return ""

    def begin(self) -> None:
        """Forgets the last call: a new piece of code begins."""
        self._last = self.raised = None

    def take_calls(self) -> list[tuple[Any, ...]]:
        """The recorded calls of the helper since the last time."""
        calls, self._calls = self._calls, []
        return calls

    def last_call(self) -> str:
        """The last call of the function under test and what came of it: `f(3) -> 8`."""
        if self._last is None:
            return ""
        args, kwargs, sign, value = self._last
        shown = [_shown(arg) for arg in args] + [f"{name}={_shown(arg)}" for name, arg in kwargs.items()]
        return f"{self._name}({', '.join(shown)}){sign}{value if sign != ' -> ' else _shown(value)}"[:500]

    def _make_proxy(self) -> Callable[..., Any]:
        def candidate(*args: Any, **kwargs: Any) -> Any:
            self._last = args, kwargs, " gave no answer", ""
            try:
                value, changed = self._ask("call", args, kwargs)
            except Exception as error:
                if error is self.raised:
                    self._last = args, kwargs, " raised ", self.raised_text
                raise
            self._last = args, kwargs, " -> ", value
            if changed is not None:
                if len(changed) != len(args):
                    raise self._break_off(
                        "protocol", "the program's answer holds other arguments than it was given"
                    )
                for argument, new in zip(args, changed, strict=True):
                    _bring_up_to_date(argument, new)
            return value

        candidate.__name__ = candidate.__qualname__ = self._name
        return candidate

    def _ask(self, *request: Any) -> tuple[Any, Any]:
        """Sends a request and waits for its answer; a value and the changed arguments, or the exception is raised."""
        if self.broken is not None:
            raise wire.CandidateError(self.broken[1])
        self._request += 1
        self.raised = None
        kind, *content = request
        try:
            payload = wire.encode((kind, self._request, *content), opaque=False)
        except wire.WireError as error:
            raise TypeError(f"the arguments cannot be sent to the candidate: {error}") from None
        if self._channel.pending:
            raise self._break_off("protocol", "the program sent data that nobody had asked for")
        try:
            self._channel.send(payload)
            answer = wire.decode(self._channel.receive())
        except frames.ChannelClosed:
            raise self._break_off("died", "the program's process ended before it answered") from None
        except wire.WireError as error:
            raise self._break_off("protocol", f"the program's answer is not well-formed: {error}") from None
        except (MemoryError, RecursionError):
            raise self._break_off("protocol", "the program's answer is too large to receive") from None
        try:
            return self._understood(answer)
        except (
            TypeError
        ):  # an opaque value stands where a tag or a number belongs: it cannot even be compared
            if self.raised is not None:
                raise
            raise self._break_off(
                "protocol", "the program's answer does not belong to the question"
            ) from None

    def _understood(self, answer: Any) -> tuple[Any, Any]:
        match answer:
            case ("return", self._request, value, None, list() as calls) if not self._mutates:
                self._keep(calls)
                return value, None
            case ("return", self._request, value, (tuple() | None) as changed, list() as calls) if (
                self._mutates
            ):
                self._keep(calls)
                return value, changed
            case (
                "raise",
                self._request,
                str() as name,
                str() as message,
                int() as line,
                list() as calls,
            ) if 0 <= line < 2**31:
                self._keep(calls)
                self.raised = wire.rebuild_exception(name, message)
                self.raised_text = f"{name}: {message}" if message else name
                if line:
                    self.raised_text = f"{self.raised_text[:MAX_EXCEPTION]} (line {line})"
                raise self.raised
        raise self._break_off("protocol", "the program's answer does not belong to the question")

    def _keep(self, calls: list[Any]) -> None:
        if calls:
            well_formed = len(calls) <= self._calls_left and all(map(is_call, calls))
            if not well_formed or (size := sum(map(size_of, calls))) > self._bytes_left:
                raise self._break_off("protocol", "the program's answer holds calls that nobody asked for")
            self._calls_left -= len(calls)
            self._bytes_left -= size
            self._calls += calls

    def _break_off(self, outcome: str, text: str) -> wire.CandidateError:
        """From now on the candidate cannot be talked to; the exception that says so to the test's code."""
        self.broken = outcome, text
        return wire.CandidateError(text)


def _compiled(source: str, name: str) -> CodeType:
    return compile(source, name, "exec", dont_inherit=True)


def _bring_up_to_date(argument: Any, new: Any) -> None:
    if type(argument) is not type(new):
        return
    if isinstance(argument, list | bytearray):
        argument[:] = new
    elif isinstance(argument, dict | set):
        argument.clear()
        argument.update(new)


class _Repr(reprlib.Repr):
    """Shortens values; an address in a text is replaced before the text is cut."""

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(without_addresses(x), level)


_REPR = _Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100
_REPR.maxlist = _REPR.maxtuple = _REPR.maxset = _REPR.maxfrozenset = _REPR.maxdict = 10


def _shown(value: Any) -> str:
    try:
        return _REPR.repr(value)
    except Exception:  # an integer of more digits than Python writes out
        return f"<{type(value).__name__}>"
