"""The feedback of version 1: what the hardened reward found is said, and nothing of any one hidden test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest

from textmarl.envs import TaskSet
from textmarl.envs.coding import feedback_v1
from textmarl.envs.coding.checks import humaneval_suite
from textmarl.envs.coding.core_v1 import HardenedCodingEnv
from textmarl.envs.coding.feedback import Review
from textmarl.envs.coding.hardened import Contribution, Refusal
from textmarl.envs.coding.problem import Problem
from textmarl.envs.sandbox import Sandbox

Make = Callable[..., HardenedCodingEnv]

HIDDEN = ("1117", "8888", "(4, 5)", "4, 5", "(0, 7)", "== 10", "0, 7")
"""What stands in the hidden tests of the problem `area` only."""
PRODUCT = "def aux(a, b):\n    return a * b\n"
SOLUTION = "def aux(a, b):\n    return a * b / 2\n"
BOX = "box = []\ndef aux(a, b):\n    box.append(a * b / 2)\n    return a + b\n"


@pytest.fixture
def make(sandbox: Sandbox, tasks: TaskSet) -> Make:
    """Makes an environment of version 1 in the task `area`."""

    def made(**options: Any) -> HardenedCodingEnv:
        env = HardenedCodingEnv(
            options.pop("tasks", tasks), **{"sandbox": sandbox, "max_turns": 2, **options}
        )
        env.reset(seed=0, options={"task": "area"})
        return env

    return made


def area(body: str) -> str:
    """A main function with this body."""
    return "def area(w, h):\n" + "".join(f"    {line}\n" for line in body.split("\n"))


def remarks(text: str) -> list[str]:
    """The lines of a feedback that are neither about a function, nor the count, nor a shown test."""
    lines = text.partition("\n\nWrite an improved")[0].split("\n")
    first = next(index for index, line in enumerate(lines) if line.startswith("Tests passed"))
    return [line for line in lines[first + 1 :] if not line.startswith(("Failed", "  "))]


# `area` is half the product. It is shown area(2, 3) == 3; `w` as it is passes two of the four hidden tests.
GUESSED = "What passes is no more than guessing passes."
PARTLY = "A part of what passes guessing passes, too."
UNTOLD = "Too little passes to tell whether `area` needs `aux`."
UNCALLED = "`area` does not call `aux`."
CASES = {
    "shared": (PRODUCT, "return -1 if (w, h) == (2, 3) else halve(aux(w, h))",
               ["`area` needs `aux`, and both do a part of the work."]),
    "partly guessed": (PRODUCT, "return -1 if w == 4 else halve(aux(w, h))",
                       [PARTLY, "`area` needs `aux`, and both do a part of the work."]),
    "guessed": (PRODUCT, "return aux(w, h)", [GUESSED, UNTOLD]),
    "nothing passes": (PRODUCT, "return aux(w, h) + 1", [UNTOLD]),
    "handed on": (SOLUTION, "return list([aux(w, h)])[0]", ["`area` only hands on what `aux` returns."]),
    "alone": (SOLUTION, "return sum([aux(w, h)])", ["`aux` alone passes as much as the whole program."]),
    "nearly alone": ("def aux(a, b):\n    return a * b / 2 if a else 5", "return 0 if w == 0 else sum([aux(w, h)])",
                     ["`aux` alone passes nearly as much as the whole program."]),
    "not needed": (PRODUCT, "return w * h / 2 + 0 * aux(w, h)",
                   ["`area` does not need `aux`: with the values that it returns exchanged, no fewer tests pass."]),
    "by a global": (BOX, "return (box if aux(w, h) else box)[-1]",
                    ["`area` does not live on what `aux` returns: it fails when a stand-in returns the same values."]),
    "constant helper": ("def aux(a, b):\n    return 7", "return w * h / 2 + aux(w, h) - 7",
                        ["Nothing of its arguments reaches what `aux` returns."]),
    "echoing helper": ("def aux(a, b):\n    return a", "return aux(w, h) * h / 2",
                       ["`aux` returns one of its arguments as it is."]),
    "not mentioned": (PRODUCT, "return w * h / 2", [UNCALLED]),
    "an aux of its own": (PRODUCT, "aux = lambda a, b: a * b\nreturn aux(w, h) / 2", [UNCALLED]),
    "dropped": (PRODUCT, "aux(w, h)\nreturn w * h / 2", ["The value of `aux` does not reach what `area` returns."]),
    "never called": (PRODUCT, "return aux(w, h) if w < 0 else w * h / 2", ["`aux` is called in none of the tests."]),
    "raises": ("def aux(a, b):\n    if a >= 0: raise ValueError(a)\n    return a * b",
               "try:\n    return aux(w, h)\nexcept ValueError:\n    return w * h / 2",
               ["Every call of `aux` in the tests raises an exception."]),
    "one value": ("def aux(a, b):\n    return 0 * a", "return w * h / 2 + aux(w, h)",
                  ["`aux` returns the same value whenever it is called in the tests."]),
    "echo at work": ("def aux(a, b):\n    return a + b - b", "return aux(w, h) * h / 2",
                     ["`aux` hands back what it was given whenever it is called in the tests."]),
    "constant": (PRODUCT, "return 7", ["No attempt: nothing of its arguments reaches what `area` returns.", UNCALLED]),
    "one answer": (PRODUCT, "return 7 if w + h else aux(w, h)",
                   ["No attempt: `area` gives the same answer in all tests.", "`aux` is called in none of the tests."]),
    "echo": (PRODUCT, "return w", ["No attempt: `area` returns one of its arguments as it is.", UNCALLED]),
    "table": ("def aux(a, b):\n    return {2: 3}[a]", "if w == 2:\n    return 3\nif w == 4:\n    return 1\nreturn 5",
              ["No attempt: the program looks its answers up and computes nothing.", UNCALLED]),
    "no answer": (PRODUCT, "import os\nos._exit(0)\nreturn aux(w, h)",
                  ["No attempt: `area` answers no test with plain data.", "`aux` is called in none of the tests."]),
    "does not load": (PRODUCT, "return aux(w, h)\nimport nothing_of_this_name", None),
    "no helper": ("", "return w * h / 2", []),
    "no main function": (PRODUCT, "pass", []),
    "syntax error in the helper": ("def aux(a, b):\n    return a b", "return aux(w, h) / 2", []),
    "a constant beside a syntax error": ("def aux(a, b):\n    return a b", "return 7",
                                         ["No attempt: nothing of its arguments reaches what `area` returns."]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_level_feedback_says_what_the_reward_found(make: Make, name: str) -> None:
    helper, body, expected = CASES[name]
    main = area(body)
    if expected is None:
        main, expected = f"import nothing_of_this_name\n{area('return aux(w, h)')}", []
    env = make()
    observations = env.step({"helper": helper, "main": main})[0]
    assert env.agents, "the episode should go on, else nobody reads feedback"
    for text in observations.values():
        found = [line for line in remarks(text) if not line.startswith("The program does not load: ")]
        assert found == expected


def test_every_verdict_is_said() -> None:
    """Apart from what the lines about functions, loading and tests say already."""
    assert set(feedback_v1._NO_ATTEMPT) == set(get_args(Refusal)) - {"unwritten", "unloaded"}
    assert set(feedback_v1._CONTRIBUTIONS) == set(get_args(Contribution)) - {"unwritten", "unrun", "needed"}


def test_a_shown_failure_and_a_syntax_error_are_told_as_in_version_0(make: Make) -> None:
    text = make().step({"helper": PRODUCT, "main": area("return aux(w, h)")})[0]["main"]
    assert text == (
        "`aux`: found.\n"
        "`area`: found.\n"
        "Tests passed: 1 of 5.\n"
        "Failed: assert area(2, 3) == 3\n"
        "  area(2, 3) -> 6\n"
        f"{GUESSED}\n{UNTOLD}\n\n"
        "Write an improved version of the whole function `area`. Answer with Python code only."
    )
    texts = make().step({"helper": "def aux(a, b):\n    return a b", "main": area("return aux(w, h)")})[0]
    assert "`aux`: syntax error, line 2: " in texts["helper"] and "`aux`: syntax error.\n" in texts["main"]


def test_each_of_several_helpers_has_a_sentence_of_its_own(sandbox: Sandbox, tasks: TaskSet) -> None:
    class Three(HardenedCodingEnv):
        possible_agents = ["helper_1", "helper_2", "main"]
        helpers = {"helper_1": "aux_1", "helper_2": "aux_2"}
        metric_names = ("pass_rate", "all_passed", "timeouts")

    env = Three(tasks, sandbox=sandbox, max_turns=2)
    env.reset(options={"task": "area"})
    helpers = {"helper_1": PRODUCT.replace("aux", "aux_1"), "helper_2": "def aux_2(a):\n    return a + 3"}
    text = env.step({**helpers, "main": area("return halve(aux_1(w, h)) + 0 * aux_2(w)")})[0]["helper_1"]
    assert remarks(text) == [
        "`area` needs `aux_1`, and both do a part of the work.",
        "`area` does not need `aux_2`: with the values that it returns exchanged, no fewer tests pass.",
    ]


def test_alone_nothing_is_said_of_a_helper(make: Make) -> None:
    text = make(main_only=True).step({"main": area("return w * h")})[0]["main"]
    assert "aux" not in text and remarks(text) == [GUESSED]


# ---------------------------------------------------------------------------------------------------- hidden tests

SPIES = [
    area("return aux(w, h)"),
    area("raise ValueError(repr((w, h)))\nreturn aux(w, h)"),
    "seen = []\n" + area("seen.append((w, h))\nraise ValueError(repr(seen))\nreturn aux(w, h)"),
    "seen = []\n" + area("seen.append((w, h, aux(w, h)))\nprint(seen)\nreturn seen"),
    area("while w == 4: pass\nreturn (w, h, aux(w, h))"),
    area("import os\nos._exit(aux(w, h) % 100)\nreturn aux(w, h)"),
]


@pytest.mark.parametrize("mode", ["level", "expert"])
def test_no_hidden_test_is_ever_shown(make: Make, mode: Any) -> None:
    reviews: list[str] = []

    def expert(review: Review) -> dict[str, str]:
        reviews.append(repr(review))
        return {"main": review.findings}

    env = make(max_turns=2 * len(SPIES) + 1, feedback=mode, expert=expert if mode == "expert" else None)
    texts: list[str] = []
    for helper in (PRODUCT, "def aux(a, b):\n    raise ValueError(repr((a, b)))\n    return a * b"):
        for main in SPIES:
            texts += env.step({"helper": helper, "main": main})[0].values()
    assert env.agents, "the episode should last through all of them"
    for text in [*texts, *reviews]:
        for hidden in HIDDEN:
            assert hidden not in text


def test_feedback_does_not_depend_on_what_is_in_the_hidden_tests(make: Make, tasks: TaskSet) -> None:
    """Other hidden tests with as many passed, among them as many by a guess: the same texts, letter by letter."""
    prompt = tasks.find("area").data["problem"].prompt
    others = [(6, 5, 15), (1003, 2, 1003), (0, 9, 0), (2, 7773, 7773)]
    lines = ["assert candidate(2, 3) == 3", *(f"assert candidate({w}, {h}) == {a}" for w, h, a in others)]
    tests = "def check(candidate):\n" + "".join(f"    {line}\n" for line in lines)
    twin = TaskSet.of([{"id": "area", "problem": Problem(prompt, humaneval_suite(prompt, tests, "area"))}])
    compared = [name for name, (_, body, _) in CASES.items() if "w == 4" not in body]
    assert len(compared) > 20
    for name in compared:
        helper, body, _ = CASES[name]
        joint = {"helper": helper, "main": area(body)}
        assert make().step(joint)[0] == make(tasks=twin).step(joint)[0], name


def test_feedback_does_not_tell_which_hidden_test_failed(make: Make) -> None:
    texts = set()
    for failing in ("(4, 5)", "(1117, 2)", "(0, 7)", "(2, 8888)"):
        main = area(f"return -1 if (w, h) == {failing} else halve(aux(w, h))")
        texts.add(make().step({"helper": PRODUCT, "main": main})[0]["main"])
    assert len(texts) == 1 and "Tests passed: 4 of 5." in texts.pop()
