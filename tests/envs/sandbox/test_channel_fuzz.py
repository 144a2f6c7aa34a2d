"""Seconds of the fuzzer of `benchmarks/sandbox/fuzz.py`, and what it has found before."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from textmarl.benchmarks.sandbox import fuzz, hostile_programs
from textmarl.benchmarks.sandbox.hostile_programs import CASES, HONEST, RIGHT, WRONG, Case
from textmarl.benchmarks.sandbox.live import Live, complaints
from textmarl.envs.sandbox import Record, Report, Sandbox, SandboxUnavailable, Suite, Test, Verdict

SEED = "tests"


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    try:
        made = Live()
    except SandboxUnavailable as error:
        pytest.skip(f"needs the sandbox at confined: {error}")
    yield made
    assert made.close().failures == []


@pytest.fixture
def sandbox(live: Live) -> Sandbox:
    return live.sandbox


def test_whatever_the_bytes_decoding_gives_a_value_or_a_wire_error() -> None:
    found = fuzz.run_cases(lambda number: fuzz.try_wire(SEED, number), 2.5)
    assert found.failures == []
    assert {outcome for _, outcome in found.counts} == {"value", "WireError"}


def test_whatever_the_stream_a_channel_gives_its_payloads_a_wire_error_or_its_end() -> None:
    found = fuzz.run_cases(lambda number: fuzz.try_frames(SEED, number), 1.5)
    assert found.failures == []
    assert {outcome for _, outcome in found.counts} == {"ChannelClosed", "WireError"}


def test_programs_that_write_on_their_channel_pass_no_test_and_stop_no_other_program(live: Live) -> None:
    found = fuzz.run_cases(lambda number: live.attempt("candidate", SEED, number), 3.5)
    assert found.failures == []
    assert ("candidate: answer", "protocol") in found.counts


def test_tests_that_misbehave_in_the_judge_cost_no_other_test_its_verdict(live: Live) -> None:
    found = fuzz.run_cases(lambda number: live.attempt("judge", SEED, number), 2.5)
    assert found.failures == []
    assert {outcome for _, outcome in found.counts} >= {"passed", "failed", "died"}


# --- found before ---------------------------------------------------------------------------------------------------

_CALLS = {
    "keywords that are no dict": "[((b'',), 5, b'', None)]",
    "calls that are no tuples": "[1]",
    "bytes that are opaque": "[((wire.Opaque('x', True),), {}, b'', None)]",
    "an error too deep to be passed on": "[((b'',), {}, b'', deep)]",
}


@pytest.mark.parametrize("calls", _CALLS.values(), ids=list(_CALLS))
def test_a_malformed_record_of_calls_costs_the_judge_its_test_and_nobody_else(
    calls: str, sandbox: Sandbox
) -> None:
    forger = (
        "deep = []\nfor _ in range(196):\n    deep = [deep]\n"
        f"message = ('verdict', 0, 'failed', '', '', {calls})\n"
        "write(min(sockets()), frames.framed(wire.encode(message)))\nos._exit(0)"
    )
    setup = hostile_programs.TOOLS + "rng = random.Random(1)"
    report = sandbox.run(HONEST, Suite("f", (Test(forger), Test(RIGHT)), setup=setup))
    assert [verdict.outcome for verdict in report.verdicts][1:] == ["passed"]


def test_a_verdict_that_came_before_nonsense_counts(sandbox: Sandbox) -> None:
    nonsense = "for number in sockets():\n    os.write(number, bytes([255]) * 9)\nos._exit(0)"
    suite = Suite("f", (Test(RIGHT), Test(WRONG), Test(nonsense), Test(RIGHT)), setup=hostile_programs.TOOLS)
    for _ in range(10):
        report = sandbox.run(HONEST, suite)
        assert [verdict.outcome for verdict in report.verdicts] == ["passed", "failed", "died", "passed"]


def test_a_message_of_the_judge_with_colliding_hashes_holds_up_nobody(sandbox: Sandbox) -> None:
    forger = (
        "keys = [wire.encode(COLLIDING * number)[1:] for number in range(1, 40_001)]\n"
        "payload = b'S' + _varint(40_000) + b''.join(b'i' + key for key in keys)\n"
        "write(min(sockets()), frames.framed(payload))\nos._exit(0)"
    )
    setup = hostile_programs.TOOLS + "rng = random.Random(1)"
    begun = time.monotonic()
    report = sandbox.run(HONEST, Suite("f", (Test(forger), Test(RIGHT)), setup=setup))
    assert [verdict.outcome for verdict in report.verdicts] == ["died", "passed"]
    assert time.monotonic() - begun < 8  # 20 where the supervisor makes the set


def test_the_longest_texts_of_thousands_of_tests_fit_into_a_report(sandbox: Sandbox) -> None:
    program = (
        "import os\nfor stream in (1, 2):\n    os.write(stream, bytes([255]) * 2**16)\n"
        "def helper(x): return bytes(1000)\n"
        "def f(x):\n    helper(x)\n    raise ValueError(chr(0xD800) * 2000)"
    )
    suite = Suite("f", (Test("assert candidate(3) == 9"),) * 2500)
    report = sandbox.run(program, suite, Record("helper"))
    assert {verdict.outcome for verdict in report.verdicts} == {"error"}
    assert report.total == 2500


# --- the fuzzer itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CASES)
def test_a_case_is_a_function_of_seed_and_number(kind: str) -> None:
    assert CASES[kind](1, 7) == CASES[kind](1, 7)
    assert len({CASES[kind](1, number).suite for number in range(20)}) > 10


SECRET = Case("any", HONEST, Suite("f", (Test("assert candidate(1) == 'n0nce'"),)), ("",), "n0nce")
JUDGED = Case("any", HONEST, Suite("f", (Test(RIGHT),)), ("passed",))


@pytest.mark.parametrize(
    ("case", "report", "complaint"),
    [
        (SECRET, Report((Verdict("passed"),)), "test 0 passed"),
        (SECRET, Report(()), "0 verdicts for 1 tests"),
        (SECRET, Report((Verdict("failed"),), stdout="a n0nce"), "the report holds what the tests expect"),
        (SECRET, Report((Verdict("skipped"),)), "test 0 was skipped for no reason"),
        (
            SECRET,
            Report((Verdict("failed", "\ud800"),)),
            "the report holds a text that is no UTF-8: '\\ud800'",
        ),
        (JUDGED, Report((Verdict("died", "gone"),)), "test 0 ended as died (gone), not passed"),
    ],
)
def test_the_fuzzer_sees_what_is_wrong_with_a_report(case: Case, report: Report, complaint: str) -> None:
    assert complaints(case, report) == [complaint]


@pytest.mark.parametrize(
    ("case", "report"),
    [
        (SECRET, Report((Verdict("protocol"),))),
        (SECRET, Report((Verdict("skipped"),), error="SyntaxError")),
        (JUDGED, Report((Verdict("passed"),))),
    ],
)
def test_the_fuzzer_has_nothing_against_a_good_report(case: Case, report: Report) -> None:
    assert complaints(case, report) == []
