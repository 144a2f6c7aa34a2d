"""What the sandbox promises the process that uses it: it survives forks and kills, changes nothing and leaves nothing."""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from textmarl.envs.sandbox import Sandbox, SandboxError, Suite, Test

ONE = "def f(): return 1", Suite("f", (Test("assert candidate() == 1"),))


def parents() -> dict[int, int]:
    """The parent of every process that is no zombie."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it may have ended meanwhile
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def children() -> list[int]:
    """The child processes of this process."""
    return sorted(process for process, parent in parents().items() if parent == os.getpid())


def descendants(root: int) -> set[int]:
    """Every process under `root`."""
    above, found = parents(), {root}
    while new := {process for process, parent in above.items() if parent in found} - found:
        found |= new
    return found - {root}


def left_of(processes: set[int]) -> set[int]:
    """Those of the processes that are still there after three seconds at the most."""
    for _ in range(60):
        left = processes & parents().keys()
        if not left:
            break
        time.sleep(0.05)
    return left


def workers_of(supervisor: int) -> list[int]:
    """The judges and candidates below a supervisor's fork server."""
    above = parents()
    servers = {process for process, parent in above.items() if parent == supervisor}
    return sorted(process for process, parent in above.items() if parent in servers)


# Copies, forks, kills


def test_copies_are_the_same_sandbox_and_pickles_start_their_own(sandbox: Sandbox) -> None:
    assert copy.deepcopy({"s": sandbox})["s"] is sandbox and copy.copy(sandbox) is sandbox
    before = children()
    other = pickle.loads(pickle.dumps(sandbox))
    assert (other.limits, repr(other)) == (sandbox.limits, repr(sandbox))
    assert children() == before  # nothing starts until it is used
    with other:
        assert other.run(*ONE).passed == 1
        assert len(children()) == len(before) + 1
    assert children() == before


def test_a_forked_process_uses_processes_of_its_own(sandbox: Sandbox) -> None:
    process = os.fork()
    if process == 0:
        code = 1
        try:
            code = 0 if sandbox.run(*ONE).passed == 1 else 2
            sandbox.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert sandbox.run(*ONE).passed == 1


def test_a_killed_supervisor_loses_no_verdict() -> None:
    others = set(children())
    with Sandbox(workers=1) as mine:
        (victim,) = set(children()) - others
        threading.Timer(0.3, os.kill, (victim, signal.SIGKILL)).start()
        slow = "import time\ndef f(x):\n    time.sleep(0.05)\n    return x"
        reports = mine.run_many(
            [(slow, Suite("f", (Test(f"assert candidate({n}) == {n}"),))) for n in range(20)]
        )
        assert [report.passed for report in reports] == [1] * 20
        assert mine.run(*ONE).passed == 1


def test_a_worker_that_was_killed_while_it_waited_costs_no_program_its_verdict() -> None:
    for chosen in (
        lambda pids: pids[0::2],
        lambda pids: pids[1::2],
        lambda pids: pids,
    ):  # judges, candidates, both
        others = set(children())
        with Sandbox(level="confined", workers=2) as mine:
            mine.run(*ONE)
            (supervisor,) = set(children()) - others
            time.sleep(0.3)
            workers = workers_of(supervisor)
            assert len(workers) >= 4 and len(workers) % 2 == 0  # pairs of judge and candidate
            for process in chosen(workers):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            reports = mine.run_many([ONE] * 8)
            assert [report.passed for report in reports] == [1] * 8


def test_a_fork_while_another_thread_starts_the_sandbox_does_not_hang() -> None:
    mine = pickle.loads(pickle.dumps(Sandbox()))
    starting = threading.Thread(target=lambda: mine.level)
    starting.start()
    time.sleep(0.05)
    process = os.fork()
    if process == 0:
        code = 1
        try:
            signal.alarm(20)
            code = 0 if mine.run(*ONE).passed == 1 else 2
            mine.close()
        finally:
            os._exit(code)
    starting.join()
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    mine.close()


def test_signals_that_the_trainer_ignores_or_blocks_are_its_own_business() -> None:
    script = """
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
from textmarl.envs.sandbox import Sandbox, Suite, Test
alarmed = '''
import signal
def f():
    rung = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not rung: pass
    return 1
'''
with Sandbox() as sandbox:
    print(sandbox.run(alarmed, Suite("f", (Test("assert candidate() == 1"),))).passed)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n", done.stderr


# What stays behind


def test_nothing_of_the_process_changes_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def state() -> tuple[object, ...]:
        handlers = [signal.getsignal(number) for number in sorted(signal.valid_signals())]
        return (
            children(),
            len(os.listdir("/proc/self/fd")),
            handlers,
            threading.active_count(),
            dict(os.environ),
            os.getcwd(),
        )

    before = state()
    with Sandbox(level="confined") as mine:
        assert [path.name.startswith("textmarl-sandbox-") for path in tmp_path.iterdir()] == [True]
        mine.run(*ONE)
        assert state()[2:] == before[2:]
    assert state() == before
    assert list(tmp_path.iterdir()) == []


def test_a_closed_sandbox_says_so() -> None:
    mine = Sandbox()
    mine.close()
    mine.close()
    with pytest.raises(SandboxError, match="closed"):
        mine.run(*ONE)


SCRIPT = """
from textmarl.envs.sandbox import Limits, Sandbox, Suite, Test
sandbox = Sandbox({level!r}, limits=Limits(seconds=30))
print("ready", flush=True)
sandbox.run("while True: pass", Suite("f", (Test("candidate()"),)))
"""


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a process that runs an endless program in a sandbox, in a session of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(level: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT.format(level=level)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("level", ["strict", "confined", "process"])
@pytest.mark.parametrize(
    "end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["kill", "term", "ctrl-c"]
)
def test_when_the_trainer_ends_in_whatever_way_nothing_stays(
    busy: Callable[[str], subprocess.Popen[str]], tmp_path: Path, level: str, end: signal.Signals
) -> None:
    process = busy(level)
    below = descendants(process.pid)
    assert len(below) >= 4  # supervisor, fork server, judge, candidate
    os.killpg(process.pid, end)
    process.wait(10)
    assert left_of(below) == set()
    if process.stderr is not None and end is signal.SIGINT:
        assert "KeyboardInterrupt" in process.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_a_supervisor_that_is_killed_takes_everything_with_it(
    busy: Callable[[str], subprocess.Popen[str]],
) -> None:
    process = busy("strict")
    below = descendants(process.pid)
    (supervisor,) = (child for child, parent in parents().items() if parent == process.pid)
    os.kill(supervisor, signal.SIGKILL)
    assert left_of(below) == set()


def test_more_workers_than_descriptors_are_refused_in_words() -> None:
    with pytest.raises(SandboxError, match="100000 workers need 300047 descriptors"):
        Sandbox(workers=100_000)


def test_a_sandbox_that_cannot_start_says_so_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for executable in ("", "/no/such/python", "/bin/false"):
        monkeypatch.setattr(sys, "executable", executable)
        with pytest.raises(SandboxError, match="the sandbox does not start"):
            Sandbox()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("program", "given", "helper", "error"),
    [
        (b"def f(): pass", ONE[1], None, TypeError),
        (ONE[0], "assert candidate()", None, TypeError),
        (ONE[0], ONE[1], "aux", TypeError),
        (ONE[0], Suite("f", (Test("x = '" + "x" * 7 * 2**20 + "'\ncandidate()"),)), None, ValueError),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(
    sandbox: Sandbox, program: object, given: object, helper: object, error: type[Exception]
) -> None:
    sandbox.run(*ONE)
    before = children()
    with pytest.raises(error):
        sandbox.run(program, given, helper)  # type: ignore[arg-type]
    assert sandbox.run(*ONE).passed == 1
    assert children() == before  # the same supervisor
