"""The attack corpus: no program in it passes a test or leaves a trace, and each of them is a real attack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from textmarl.envs.sandbox import Limits, Report, Sandbox, SandboxUnavailable, Suite, Test, Verdict
from textmarl.envs.sandbox.attacks import ATTACKS, Attack, Bait, lay_bait, run_attack
from textmarl.envs.sandbox.attacks.attack import brief, settled, within
from textmarl.envs.sandbox.attacks.naive import measure_naive, run_naive
from textmarl.envs.sandbox.attacks.traces import Caller

LEVELS = ("strict", "confined")
MEMORY = 256 * 2**20
LIMITS = Limits(seconds=1.0, wall_seconds=20.0, memory=MEMORY)
SHORT = Limits(seconds=0.1, wall_seconds=0.2, memory=MEMORY)
"""For what runs into the limit anyway."""

BY_NAME = {attack.name: attack for attack in ATTACKS}
MACHINE_DEPENDENT = {
    "memory_by_address",
    "calls_of_another_architecture",
    "calls_that_go_round_a_filter",
    "kernel_sockets",
    "special_files",
}

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the attacks are written for Linux")


class Ground:
    """A bait that is laid anew once something has damaged it, and sandboxes that started after the first one."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._baits = stack.enter_context(ExitStack())
        self._bait = self._baits.enter_context(lay_bait())
        self._sandboxes: dict[tuple[str, Limits], Sandbox] = {}

    @property
    def bait(self) -> Bait:
        if self._bait.damage():
            self._baits.close()
            self._bait = self._baits.enter_context(lay_bait())
        return self._bait

    def sandbox(self, level: str, limits: Limits = LIMITS) -> Sandbox:
        if (level, limits) not in self._sandboxes:
            try:
                sandbox = Sandbox(level, workers=1, limits=limits)
            except SandboxUnavailable as error:
                pytest.skip(f"level {level} does not hold on this machine: {error}")
            self._sandboxes[level, limits] = self._stack.enter_context(sandbox)
        return self._sandboxes[level, limits]


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with ExitStack() as stack:
        yield Ground(stack)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_passes_no_test_and_leaves_no_trace(attack: Attack, level: str, ground: Ground) -> None:
    sandbox = ground.sandbox(level, SHORT if attack.waits else LIMITS)
    assert run_attack(sandbox, attack, ground.bait) == []


# One in four of those that are quick and do not hang on the kernel or the build of Python.
@on_linux
@pytest.mark.parametrize(
    "attack",
    [
        attack
        for attack in ATTACKS
        if not (attack.waits or attack.unsafe_outside or attack.name in MACHINE_DEPENDENT)
    ][::4],
    ids=lambda attack: attack.name,
)
def test_an_attack_is_as_good_as_recorded_where_program_and_tests_share_a_process(
    attack: Attack, ground: Ground
) -> None:
    assert measure_naive(attack, ground.bait, seconds=5.0)[0] == attack.naive


def test_most_attacks_succeed_without_a_sandbox() -> None:
    recorded = Counter(attack.naive for attack in ATTACKS)
    tried = len(ATTACKS) - recorded["untried"]
    assert (recorded["passes"] + recorded["harms"]) / tried > 0.6, recorded


def test_the_corpus_is_large_and_its_names_are_unique() -> None:
    assert len(BY_NAME) == len(ATTACKS) >= 75
    assert all(name.isidentifier() for name in BY_NAME), "test ids are the names"
    per_category = Counter(attack.category for attack in ATTACKS)
    assert min(per_category.values()) >= 5, per_category


# The checks themselves: at level `process` nothing but time and memory is guarded, so these attacks succeed there.
@on_linux
@pytest.mark.parametrize(
    ("name", "trace"),
    [
        ("overwrite_a_file", "canary has changed"),
        ("change_modes_and_times", "canary has changed"),
        ("remove_files", "canary is gone"),
        ("link_files", "symbolic is new"),
        ("plant_files", "-planted was left behind"),
        ("read_the_temporary_folder", "secret of the temporary folder"),
        ("read_the_home_folder", "secret of the home folder"),
        ("connect_by_tcp", "connected to the tcp listener"),
        ("connect_by_abstract_name", "connected to the abstract listener"),
        ("send_by_udp", "udp listener received"),
        ("kill_a_process", "the sentinel process does not answer"),
        ("stop_and_signal_a_process", "the sentinel process does not answer"),
        ("signals_by_system_call", "got signal"),
        ("signals_by_descriptor", "got signal"),
        ("limits_of_a_process", "the sentinel's limits"),
        ("write_a_process", "the sentinel's memory"),
        ("read_a_process", "secret of the sentinel's memory"),
        ("proc_of_a_process", "secret of the sentinel's environment"),
        ("threads", "started"),
        ("list_the_processes", "SEEN"),
    ],
)
def test_a_trace_is_found_where_nothing_holds_the_program_back(name: str, trace: str, ground: Ground) -> None:
    found = run_attack(ground.sandbox("process"), BY_NAME[name], ground.bait)
    assert any(trace in sentence for sentence in found), found


def test_a_passed_test_is_a_violation(ground: Ground) -> None:
    honest = Attack(
        name="honest",
        category="none",
        what="No attack.",
        source="def f(x): return x",
        suite=Suite("f", (Test("assert candidate(3) == 3"),)),
        check=lambda bait, report: [],
        naive="passes",
    )
    assert run_attack(ground.sandbox("process"), honest, ground.bait) == ["test 0 passed"]


ORPHAN = """
import os, time
def f(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 64)
            time.sleep(4)
        os._exit(0)
    os.wait()
"""


def test_a_process_that_outlives_its_program_is_a_violation(ground: Ground) -> None:
    orphan = Attack(
        name="orphan",
        category="processes",
        what="A grandchild that sleeps for a while.",
        source=ORPHAN,
        suite=Suite("f", (Test("assert candidate(3) == 3"),)),
        check=lambda bait, report: [],
        naive="harms",
    )
    found = run_attack(ground.sandbox("process"), orphan, ground.bait)
    assert any("has outlived the run" in sentence for sentence in found), found


ORPHAN_ELSEWHERE = """
import time
from textmarl.envs.sandbox import Sandbox, Suite, Test
with Sandbox("process", workers=1) as sandbox:
    sandbox.run(SOURCE, Suite("f", (Test("assert candidate(3) == 3"),)))
    print("adrift", flush=True)
    time.sleep(2)
"""


@on_linux
def test_what_outlives_a_program_of_another_caller_is_no_trace(ground: Ground) -> None:
    ground.sandbox("process").run("def f(x): return x", Suite("f", (Test("assert candidate(3) == 3"),)))
    before = Caller.now()
    # Nothing else need tell the command lines of two callers apart: their descriptors often have the same numbers.
    lines = [Path(f"/proc/{process}/cmdline").read_text(errors="replace") for process in before.family]
    assert any(line.rstrip("\0").split("\0")[-1] == str(os.getpid()) for line in lines)
    script = ORPHAN_ELSEWHERE.replace("SOURCE", repr(ORPHAN))
    # The shell ends at once, so the other caller is no process under this one.
    words = ["sh", "-c", '"$0" -c "$1" &', sys.executable, script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None and shell.stdout.readline() == "adrift\n"
        assert before.family_now()[1] == []
        shell.stdout.read()  # until it has ended


def test_what_a_run_changes_in_the_calling_process_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Caller.now()
    assert before.changes() == []
    opened = (tmp_path / "left open").open("w")
    number = opened.fileno()
    handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LEFT_BEHIND", "1")
        found = before.changes()
    finally:
        signal.signal(signal.SIGUSR1, handler)
        opened.close()
    for part in (f"descriptor {number} of the caller", "signal handlers", "folder", "environment"):
        assert any(part in sentence for sentence in found), (part, found)


def test_a_thread_of_the_caller_that_ends_meanwhile_is_no_trace_and_a_new_one_is() -> None:
    end, stay = threading.Event(), threading.Event()
    own = threading.Thread(target=end.wait)
    added = threading.Thread(target=stay.wait, name="added by the run")
    own.start()
    before = Caller.now()
    end.set()
    own.join()
    assert before.changes() == []
    added.start()  # as many threads as before, and yet one more
    found = before.changes()
    stay.set()
    added.join()
    assert found == ["the caller has new threads: added by the run"]


def test_unsafe_attacks_are_refused_without_containment(ground: Ground) -> None:
    bomb = BY_NAME["fork_bomb"]
    with pytest.raises(ValueError, match="unsafe"):
        run_attack(ground.sandbox("process"), bomb, ground.bait)
    with pytest.raises(ValueError, match="unsafe"):
        run_naive(bomb, ground.bait)


def test_expected_values_are_new_for_every_bait_and_in_no_program(ground: Ground) -> None:
    bait = ground.bait
    with lay_bait() as other:
        assert other.nonce != bait.nonce and other.number != bait.number
    for attack in ATTACKS:
        source, _ = attack.filled(bait)
        assert not any(str(value) in source for value in (bait.nonce, bait.number, bait.real))
        assert not any(secret in source for secret in bait.secrets.values())


def test_the_bait_is_taken_away_even_after_an_error() -> None:
    with pytest.raises(KeyError), lay_bait() as bait:
        bait.canary.chmod(0)
        (bait.folder / "inner").chmod(0)
        raise KeyError
    assert not bait.folder.exists() and not bait.home.exists()
    assert bait.sentinel.returncode is not None


@pytest.mark.parametrize(
    ("check", "report"),
    [
        (brief(10), Report((Verdict("failed", exception="x" * 11),))),
        (brief(), Report((Verdict("failed"),), stdout="\ud800")),
        (within(1.0), Report((Verdict("timeout", seconds=1.5),))),
    ],
)
def test_a_report_that_is_too_large_or_too_late_is_a_violation(
    check: Callable[[Bait, Report], list[str]], report: Report, ground: Ground
) -> None:
    assert check(ground.bait, report)
    assert not check(ground.bait, Report((Verdict("failed"),)))


def test_what_ends_by_itself_gets_the_time_to() -> None:
    states = iter((["still there"], ["still there"], []))
    assert settled(lambda: next(states)) == []
    assert settled(lambda: ["stays"], seconds=0.05) == ["stays"]
