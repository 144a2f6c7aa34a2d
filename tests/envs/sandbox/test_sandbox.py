"""What the sandbox promises about verdicts and about replaced helpers, and which settings it refuses."""

from __future__ import annotations

import os
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from textmarl.envs.sandbox import (
    Call,
    Limits,
    Record,
    Replay,
    Report,
    Sandbox,
    Suite,
    Test,
    wire,
)


def suite(*tests: str, entry_point: str = "f", **settings: object) -> Suite:
    return Suite(entry_point, tuple(Test(test) for test in tests), **settings)  # type: ignore[arg-type]


def outcomes(report: Report) -> list[str]:
    return [verdict.outcome for verdict in report.verdicts]


# Verdicts


def test_each_test_has_a_verdict_of_its_own(sandbox: Sandbox) -> None:
    report = sandbox.run(
        "def f(x):\n    return 1 / x",
        suite(
            "assert candidate(1) == 1",
            "assert candidate(2) == 2",
            "assert candidate(0)",
            "assert f(4) == 0.25",
        ),
    )
    assert outcomes(report) == ["passed", "failed", "error", "passed"]
    assert (report.passed, report.total, report.error) == (2, 4, "")
    assert report.verdicts[1].call == "f(2) -> 0.5"
    assert report.verdicts[2].exception == "ZeroDivisionError: division by zero (line 2)"
    assert report.verdicts[2].call == "f(0) raised ZeroDivisionError: division by zero (line 2)"


def test_an_endless_test_costs_only_itself(sandbox: Sandbox) -> None:
    report = sandbox.run(
        "def f(x):\n    while x == 1: pass\n    return x",
        suite("assert candidate(0) == 0", "assert candidate(1) == 1", "assert candidate(2) == 2"),
    )
    assert outcomes(report) == ["passed", "timeout", "passed"]
    assert 0.4 <= report.verdicts[1].seconds < 2  # seconds of CPU time, however busy the machine is


def test_a_program_that_waits_is_stopped_by_the_clock() -> None:
    with Sandbox(limits=Limits(wall_seconds=0.5), workers=1) as impatient:
        started = time.monotonic()
        report = impatient.run("import time\ndef f(x):\n    time.sleep(60)", suite("candidate(0)"))
    assert outcomes(report) == ["timeout"]
    assert 0.5 <= time.monotonic() - started < 30


def test_calls_that_a_function_makes_to_itself_are_not_recorded_so_that_a_replay_answers_alike(
    sandbox: Sandbox,
) -> None:
    program = (
        "def aux(n):\n    return 1 if n < 2 else n * aux(n - 1)\n"
        "def f(n):\n    return [aux(i) for i in range(n)]"
    )
    tests = suite("assert candidate(5) == [1, 1, 2, 6, 24]", "assert candidate(2) == [1, 1]")
    calls = sandbox.run(program, tests, Record("aux")).calls
    assert [wire.decode(call.value) for call in calls] == [1, 1, 2, 6, 24, 1, 1]
    assert sandbox.run(program, tests, Replay("aux", calls)).passed == 2


def test_a_run_may_be_given_tighter_limits_than_the_sandbox_has(sandbox: Sandbox) -> None:
    program, tests = "def f(x):\n    while x: pass\n    return 0", ["assert candidate(0) == 0"] * 2
    endless = suite("assert candidate(1)", *tests)
    report = sandbox.run(program, endless, seconds=0.1, timeouts=1)
    assert outcomes(report) == ["timeout", "skipped", "skipped"] and "0.1 s" in report.verdicts[0].exception
    loose = sandbox.run(program, endless, seconds=60.0, timeouts=9)
    assert outcomes(loose) == ["timeout", "passed", "passed"] and "0.4 s" in loose.verdicts[0].exception
    for limits in ({"seconds": 0}, {"timeouts": 0}):
        with pytest.raises(ValueError, match="Limits"):
            sandbox.run(program, endless, **limits)


def test_after_three_timeouts_the_rest_is_skipped(sandbox: Sandbox) -> None:
    program = "def f(x):\n    while x: pass"
    report = sandbox.run(program, suite("candidate(0)", *["candidate(1)"] * 4, "candidate(0)"))
    assert outcomes(report) == ["passed", "timeout", "timeout", "timeout", "skipped", "skipped"]


@pytest.mark.parametrize(
    "death", ["os._exit(0)", "os.abort()", "ctypes.string_at(0)"], ids=["exit", "abort", "null pointer"]
)
def test_a_test_that_swallows_the_death_of_the_candidate_fails(sandbox: Sandbox, death: str) -> None:
    swallowing = "try:\n    candidate(1)\nexcept BaseException:\n    pass\nassert True or candidate"
    program = f"import ctypes, os\ndef f(x):\n    if x:\n        {death}\n    return x"
    report = sandbox.run(program, suite("assert candidate(0) == 0", swallowing, "assert candidate(0) == 0"))
    assert outcomes(report) == ["passed", "died", "passed"]


def test_a_test_that_expects_an_exception_gets_it(sandbox: Sandbox) -> None:
    program = """
        class Odd(ValueError): pass
        class Own(BaseException): pass
        def f(x):
            if x == 3: raise Odd("three")
            if x == 4: raise KeyError(x)
            if x == 5: raise SystemExit
            if x == 6: raise Own
            return next(iter(()))
    """
    expecting = "try:\n    candidate({})\nexcept {}:\n    pass\nelse:\n    assert False"
    report = sandbox.run(
        textwrap.dedent(program),
        suite(
            "import textwrap",
            expecting.format(3, "ValueError"),
            expecting.format(4, "KeyError"),
            *(f"try:\n    candidate({x})\nexcept Exception as e:\n    assert type(e).__name__ == 'CandidateError'"
              for x in (5, 6, 7)),
        ),
    )  # fmt: skip
    assert outcomes(report) == ["passed"] * 6


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("def f(x:\n  return x", "SyntaxError"),
        ("x = 1", "no function 'f'"),
        ("f = 3", "no function 'f'"),
        ("", "no function 'f'"),
        ("1 / 0\ndef f(x): return x", "ZeroDivisionError: division by zero (line 1)"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import numpy\ndef f(x): return x", "No module named 'numpy'"),
        ("def f(x): return '\0'", "null bytes"),
        ("def f(x): return '\ud800'", "surrogates"),
        ("while True: pass", "time-out"),
        ("import os\nos._exit(0)", "ended"),
        ("x" * (2**20 + 1), "more than 1,048,576 bytes"),
        ("é" * (2**19 + 1), "more than 1,048,576 bytes"),
        ("(" * 100_000, ""),
    ],
)
def test_a_program_that_does_not_load_fails_every_test_and_says_why(
    sandbox: Sandbox, program: str, error: str
) -> None:
    report = sandbox.run(program, suite("assert candidate(1) == 1", "assert True"))
    assert outcomes(report) == ["skipped", "skipped"]
    assert error in report.error and report.error


def test_tests_share_a_namespace_and_what_stands_before_them_runs(sandbox: Sandbox) -> None:
    tests = (
        Test("assert candidate(n) == 3", before="n = base + 1"),
        Test("assert candidate(n) == 5", before="n += 2"),
    )
    report = sandbox.run("def f(x):\n    return x", Suite("f", tests, setup="base = 2"))
    assert outcomes(report) == ["passed", "passed"]


def test_what_stands_before_a_test_runs_again_for_those_after_a_death(sandbox: Sandbox) -> None:
    tests = (
        Test("candidate(0)", before="n = 1"),
        Test("candidate(9)", before="n += 1"),
        Test("assert n == 3", "n += 1"),
    )
    report = sandbox.run("import os\ndef f(x):\n    if x: os._exit(3)", Suite("f", tests))
    assert outcomes(report) == ["passed", "died", "passed"]


def test_the_program_never_sees_a_test(sandbox: Sandbox) -> None:
    program = """
        import gc, sys
        def f(x):
            seen = [repr(o) for o in gc.get_objects() if type(o) in (str, dict, list, tuple)]
            frames = []
            frame = sys._getframe()
            while frame:
                frames.append(repr(frame.f_locals) + repr(frame.f_globals))
                frame = frame.f_back
            needle = "".join(reversed("74eldeen"))  # not a constant of the program itself
            return any(needle in text for text in seen + frames)
    """
    report = sandbox.run(textwrap.dedent(program), suite("assert candidate(1) is False", "assert 'needle47'"))
    assert outcomes(report) == ["passed", "passed"]


def test_arguments_go_by_value_unless_the_task_is_about_changing_them(sandbox: Sandbox) -> None:
    program = "def f(a, d):\n    a.append(4)\n    d['k'] = 1\n    a[0].append(5)"
    test = "a, d = [[1]], {}\ncandidate(a, d)\nassert (a, d) == "
    by_value = sandbox.run(program, suite(test + "([[1]], {})", test + "([[1, 5], 4], {'k': 1})"))
    in_place = sandbox.run(
        program, suite(test + "([[1]], {})", test + "([[1, 5], 4], {'k': 1})", mutates=True)
    )
    assert (outcomes(by_value), outcomes(in_place)) == (["passed", "failed"], ["failed", "passed"])


def test_an_argument_that_is_no_plain_data_is_the_tests_error(sandbox: Sandbox) -> None:
    report = sandbox.run(
        "def f(x): return 1", suite("assert candidate(object()) == 1", "assert candidate(2) == 1")
    )
    assert outcomes(report) == ["error", "passed"]
    assert "cannot be sent" in report.verdicts[0].exception


def test_random_is_the_same_in_every_run_and_the_tests_draws_are_not_the_programs(sandbox: Sandbox) -> None:
    program = "import random\ndef f():\n    return random.random()"
    test = "import random\nassert candidate() == random.random()"
    drawn = [
        sandbox.run(program, suite("assert (candidate(), __import__('random').random()) == 0", seed=7))
        for _ in "ab"
    ]
    assert drawn[0].verdicts[0].call == drawn[1].verdicts[0].call
    assert outcomes(sandbox.run(program, suite(test, seed=7))) == ["failed"]
    hashes = "def f():\n    return hash('text')"
    assert (
        len({sandbox.run(hashes, suite("assert candidate() == 0")).verdicts[0].call for _ in range(3)}) == 1
    )


def test_what_the_program_writes_is_kept_up_to_the_limit() -> None:
    program = "import sys\nprint('loaded')\ndef f(x):\n    print('é' * x)\n    print('bad', file=sys.stderr)\n    return x"
    with Sandbox(limits=Limits(output=1_000), workers=1) as small:
        report = small.run(program, suite("candidate(2)", "candidate(100_000)", "assert candidate(3) == 3"))
    assert outcomes(report) == ["passed"] * 3
    assert report.stdout.startswith("loaded\néé\n") and len(report.stdout.encode()) <= 1_001
    assert report.stderr == "bad\n" * 3


def test_output_of_a_program_that_dies_is_not_lost(sandbox: Sandbox) -> None:
    report = sandbox.run(
        "import os\ndef f(x):\n    print('last words')\n    os._exit(1)", suite("candidate(1)")
    )
    assert (outcomes(report), report.stdout) == (["died"], "last words\n")


def test_an_answer_that_cannot_even_be_compared_fails_the_test_that_swallows_it(sandbox: Sandbox) -> None:
    program = """
        import gc, os
        from textmarl.envs.sandbox import frames, wire
        def f(kind):
            channel = next(o for o in gc.get_objects() if isinstance(o, frames.Channel))
            odd = wire.Opaque("odd", True)
            channel.send(wire.encode({
                "tag": (odd, 2, 1, None, []),
                "number": ("return", odd, 1, None, []),
                "message": ("raise", 2, "ValueError", odd, 0, []),
                "calls": ("return", 2, 1, None, [(odd, {}, b"", None)]),
                "whole": odd,
            }[kind]))
            os.read(0, 1)
            while True: pass
    """
    swallowing = "try:\n    candidate({!r})\nexcept BaseException:\n    pass"
    for kind in ("tag", "number", "message", "calls", "whole"):
        report = sandbox.run(textwrap.dedent(program), suite(swallowing.format(kind)))
        assert outcomes(report) == ["protocol"], kind


def test_texts_of_a_report_hold_no_control_characters(sandbox: Sandbox) -> None:
    program = r"""def f(x):
    raise ValueError("\x1b[2J\x07\r\x9b\ud800 two\nlines")"""
    report = sandbox.run(program, suite("candidate(1)"))
    escaped = r"ValueError: \x1b[2J\x07\x0d\x9b\ud800 two"
    assert report.verdicts[0].exception == escaped + "\nlines (line 2)"


def test_a_failing_setup_is_an_error_of_every_test(sandbox: Sandbox) -> None:
    report = sandbox.run(
        "def f(x): return x", suite("assert candidate(1) == 1", setup="import no_such_module")
    )
    assert outcomes(report) == ["error"] and "no_such_module" in report.verdicts[0].exception


def test_the_judge_cannot_be_exhausted_beyond_its_limits(sandbox: Sandbox) -> None:
    colliding = "def f():\n    m = 2**61 - 1\n    return {i * m for i in range(100_000)}"
    report = sandbox.run(colliding, suite("assert candidate()", "assert 1 == 1"))
    assert outcomes(report) == ["timeout", "passed"]


# A replaced helper


PAIR = "def aux(x):\n    if x < 0: raise ValueError('negative')\n    return x * x\n\ndef f(x, y):\n    return aux(x) + 2 * aux(y)"


def test_calls_of_the_helper_are_recorded_by_test(sandbox: Sandbox) -> None:
    report = sandbox.run(PAIR, suite("assert candidate(1, 2) == 9", "candidate(3, -1)"), Record("aux"))
    assert outcomes(report) == ["passed", "error"]
    assert [(c.test, wire.decode(c.args[0]), wire.decode(c.value), c.error) for c in report.calls] == [
        (0, 1, 1, None),
        (0, 2, 4, None),
        (1, 3, 9, None),
        (1, -1, None, ("ValueError", "negative")),
    ]


def test_a_replayed_helper_returns_what_it_is_told(sandbox: Sandbox) -> None:
    tests = suite("assert candidate(1, 2) == 9", "assert candidate(2, 0) == 4")
    calls = sandbox.run(PAIR, tests, Record("aux")).calls
    assert sandbox.run(PAIR, tests, Replay("aux", calls)).passed == 2
    assert sandbox.run(PAIR, tests, Replay("aux", calls[::-1])).passed == 0
    # It starts again at the first: 1 + 2 * 1 and once more.
    assert outcomes(sandbox.run(PAIR, tests, Replay("aux", calls[:1]))) == ["failed", "failed"]
    ignoring = PAIR.replace("aux(x) + 2 * aux(y)", "x * x + 2 * y * y + 0 * len([aux(x), aux(y)])")
    assert sandbox.run(ignoring, tests, Replay("aux", calls[::-1])).passed == 2


def test_a_replayed_exception_is_raised(sandbox: Sandbox) -> None:
    failing = Call(0, (), {}, wire.encode(None), ("KeyError", "k"))
    report = sandbox.run(PAIR, suite("candidate(1, 2)"), Replay("aux", (failing,)))
    assert report.verdicts[0].exception.startswith("KeyError")


def test_a_helper_used_while_the_program_loads_is_replaced_too(sandbox: Sandbox) -> None:
    program = "def aux(x):\n    return x\nTABLE = [aux(i) for i in range(3)]\ndef f():\n    return TABLE"
    calls = sandbox.run(program, suite("assert candidate() == [0, 1, 2]"), Record("aux")).calls
    assert [call.test for call in calls] == [-1, -1, -1]
    report = sandbox.run(program, suite("assert candidate() == [2, 1, 0]"), Replay("aux", calls[::-1]))
    assert report.passed == 1


def test_recording_changes_nothing_for_the_program(sandbox: Sandbox) -> None:
    program = """
        def aux(n):
            '''Counts.'''
            yield from range(n)
        twice = lambda x: 2 * x
        def f(n):
            return aux.__name__, aux.__doc__, list(aux(n)), twice(n)
    """
    test = "assert candidate(3) == ('aux', 'Counts.', [0, 1, 2], 6)"
    for name in ("aux", "twice", "no_such_function"):
        assert sandbox.run(textwrap.dedent(program), suite(test), Record(name)).passed == 1


# Many programs


def test_reports_come_in_the_order_of_the_programs(sandbox: Sandbox) -> None:
    programs = [(f"def f():\n    return {n}", suite(f"assert candidate() == {n}")) for n in range(40)]
    programs[7] = ("import os\nos.kill(os.getpid(), 9)\nos._exit(1)", programs[7][1])
    reports = sandbox.run_many(programs)
    assert [n for n, report in enumerate(reports) if not report.passed] == [7]
    assert sandbox.run_many([]) == []


def test_threads_share_a_sandbox(sandbox: Sandbox) -> None:
    passed: dict[int, int] = {}

    def work(n: int) -> None:
        for k in range(10):
            program = f"def f():\n    return {n * 100 + k}"
            passed[n] = (
                passed.get(n, 0) + sandbox.run(program, suite(f"assert candidate() == {n * 100 + k}")).passed
            )

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert passed == dict.fromkeys(range(6), 10)


# What a reader of the rules might try


def test_a_program_cannot_draw_the_tests_random_inputs_itself(sandbox: Sandbox) -> None:
    program = "import random\ndef f(x):\n    return [random.random() for _ in range(5)]"
    test = "wanted = [random.random() for _ in range(5)]\nassert candidate(sorted(wanted)) == wanted"
    for seed in range(3):
        assert sandbox.run(program, suite(test, setup="import random", seed=seed)).passed == 0


def test_calls_that_nobody_asked_for_are_a_protocol_error(sandbox: Sandbox) -> None:
    program = """
        import gc, os
        from textmarl.envs.sandbox import frames, wire
        def f(x):
            channel = next(o for o in gc.get_objects() if isinstance(o, frames.Channel))
            channel.send(wire.encode(("return", 2, 1, None, [((b"i",), (), b"i", None)])))
            while True: pass
    """
    report = sandbox.run(textwrap.dedent(program), suite("assert candidate(1) == 1"))
    assert (outcomes(report), report.calls) == (["protocol"], ())


def test_calls_made_before_a_test_are_those_of_that_test_alone(sandbox: Sandbox) -> None:
    program = "import os\ndef aux(x):\n    return x\ndef f(x):\n    aux(x)\n    if x == 1: os._exit(1)"
    tests = tuple(Test(f"candidate({n})", before=f"candidate({n + 10})") for n in range(3))
    report = sandbox.run(program, Suite("f", tests), Record("aux"))
    assert outcomes(report) == ["passed", "died", "passed"]
    assert [(call.test, wire.decode(call.args[0])) for call in report.calls] == [
        (0, 10),
        (0, 0),
        (1, 11),
        (2, 12),
        (2, 2),
    ]


def test_the_whole_run_has_a_limit_too() -> None:
    waiting = "import time\ndef f(x):\n    time.sleep(0.2)"
    with Sandbox(limits=Limits(whole_seconds=0.7), workers=1) as mine:
        report = mine.run(waiting, suite(*["candidate(1)"] * 20))
    assert 1 <= report.passed <= 4
    assert outcomes(report)[report.passed :] == ["timeout"] + ["skipped"] * (19 - report.passed)
    assert "whole run" in report.verdicts[report.passed].exception


@pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the system does not tell the time in line"
)
def test_waiting_for_a_core_is_not_held_against_a_program() -> None:
    cores = len(os.sched_getaffinity(0))
    busy = "import time\ndef f(x):\n    end = time.process_time() + 0.3\n    while time.process_time() < end: pass"
    with Sandbox(limits=Limits(seconds=2, wall_seconds=0.7), workers=6 * cores) as crowded:
        reports = crowded.run_many([(busy, suite("candidate(1)"))] * (6 * cores))
    assert [report.passed for report in reports] == [1] * (6 * cores)


# Settings


GOOD = Test("assert candidate(1) == 1")


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Test(""), ValueError),
        (lambda: Test(" \n"), ValueError),
        (lambda: Test(None), TypeError),
        (lambda: Suite("class", (GOOD,)), ValueError),
        (lambda: Suite("ﬁ", (GOOD,)), ValueError),
        (lambda: Suite("f g", (GOOD,)), ValueError),
        (lambda: Suite(3, (GOOD,)), TypeError),
        (lambda: Suite("f", [GOOD]), TypeError),
        (lambda: Suite("f", ("assert 1",)), TypeError),
        (lambda: Suite("f", (GOOD,) * 10_001), ValueError),
        (lambda: Suite("f", (GOOD,), setup=None), TypeError),
        (lambda: Suite("f", (GOOD,), names="abc"), TypeError),
        (lambda: Suite("f", (GOOD,), names=("a b",)), ValueError),
        (lambda: Suite("f", (GOOD,), mutates=1), TypeError),
        (lambda: Suite("f", (GOOD,), seed=1.5), TypeError),
        (lambda: Record(None), TypeError),
        (lambda: Replay("aux", ()), ValueError),
        (lambda: Replay("aux", (1,)), TypeError),
        (lambda: Limits(seconds=0), ValueError),
        (lambda: Limits(seconds=10**400), ValueError),
        (lambda: Limits(wall_seconds="a"), ValueError),
        (lambda: Limits(memory=10**30), ValueError),
        (lambda: Limits(memory=1024), ValueError),
        (lambda: Limits(scratch=2**70), ValueError),
        (lambda: Limits(output=2**21), ValueError),
        (lambda: Limits(timeouts=True), ValueError),
        (lambda: Sandbox("strcit"), ValueError),
        (lambda: Sandbox(workers=0), ValueError),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        make()
