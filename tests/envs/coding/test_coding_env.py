"""Episodes of the coding environments: instructions, turns and feedback, early ending, shifts, copies, the sandbox."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import statistics
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from textmarl.envs import Task, TaskSet, check_env
from textmarl.envs.coding import core
from textmarl.envs.coding.core import CodingEnv
from textmarl.envs.coding.feedback import MODES, Review
from textmarl.envs.coding.problem import Problem
from textmarl.envs.protocols import Pipeline, Single
from textmarl.envs.sandbox import Limits, Sandbox, Suite, Test
from textmarl.envs.vector import VectorEnv

Make = Callable[..., CodingEnv]

AUX = "def aux(a, b):\n    return a * b\n"
MAIN = "def area(w, h):\n    return halve(aux(w, h))\n"
GOOD = {"helper": AUX, "main": MAIN}
WRONG = {"helper": AUX, "main": "def area(w, h):\n    return aux(w, h)\n"}
NOTHING = {"helper": "", "main": ""}


def play(env: CodingEnv, *texts: dict[str, str]) -> list[tuple[Any, ...]]:
    return [env.step(joint) for joint in texts]


def missing_tests(count: int) -> dict[str, str]:
    """A pair that earns everything but so many of the five tests."""
    wrong = [2, 4, 1117, 0][:count]
    return {
        "helper": AUX,
        "main": f"def area(w, h):\n    return -1 if w in {wrong} and h < 9 else halve(aux(w, h))\n",
    }


# --------------------------------------------------------------------------------------------------- instructions


def test_each_agent_reads_the_prompt_and_which_function_is_its_own(make: Make) -> None:
    env = make(task=None)
    observations, infos = env.reset(options={"task": "area"})
    for text in observations.values():
        assert f"```python\n{env.problem.prompt.strip()}\n```" in text
        assert text.endswith("Answer with Python code only.")
    assert "Write only `aux`." in observations["helper"] and "`aux(...)`" in observations["helper"]
    assert "Write only `area`." in observations["main"] and "`aux(...)`" in observations["main"]
    assert infos["main"]["metrics"] == {"pass_rate": 0.0, "all_passed": 0.0, "timeouts": 0.0}


def test_alone_the_main_agent_hears_of_no_helper(make: Make) -> None:
    env = make(task=None, main_only=True)
    observations, _ = env.reset(options={"task": "area"})
    assert list(observations) == ["main"]
    assert "aux" not in observations["main"] and "Write the whole function `area`." in observations["main"]


def test_one_agent_for_both_functions_is_told_from_one_that_writes_the_main_function(make: Make) -> None:
    with pytest.warns(
        UserWarning, match=r"all 2 functions, for up to 4 points.*main_only=True.*up to 2\.1\."
    ):
        Single(make(task=None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Single(make(task=None, main_only=True))
        Pipeline(make(task=None))


def test_instructions_are_short_and_a_prompt_may_hold_anything(make: Make) -> None:
    for instruction in (core.HELPER_INSTRUCTION, core.MAIN_INSTRUCTION, core.MAIN_ONLY_INSTRUCTION):
        assert len(instruction.split()) <= 60
    prompt = 'def name(main):\n    """{name} {prompt} {helpers} \\\\ ```"""\n'
    tasks = TaskSet.of([{"problem": Problem(prompt, Suite("name", (Test("assert candidate(1) == 1"),)))}])
    observations, _ = CodingEnv(tasks).reset(seed=0)
    assert prompt.strip() in observations["helper"] and "Write only `name`." in observations["main"]


# ------------------------------------------------------------------------------------------- feedback, hidden tests


def feedback(env: CodingEnv, texts: dict[str, str]) -> dict[str, str]:
    env.reset(options={"task": "area"})
    return env.step(texts)[0]


def test_level_feedback_tells_what_was_found_and_how_the_shown_test_failed(make: Make) -> None:
    observations = feedback(make(max_turns=2), WRONG)
    assert observations["main"] == (
        "`aux`: found.\n"
        "`area`: found.\n"
        "Tests passed: 1 of 5.\n"
        "Failed: assert area(2, 3) == 3\n"
        "  area(2, 3) -> 6\n"
        "`area` does nothing but return the value of `aux`.\n\n"
        "Write an improved version of the whole function `area`. Answer with Python code only."
    )
    assert observations["helper"] == observations["main"].replace(
        "whole function `area`", "whole function `aux`"
    )


@pytest.mark.parametrize(
    "helper, main, lines",
    [
        ("", MAIN, ["`aux`: not found.", "  area(2, 3) raised NameError: name 'aux' is not defined"]),
        ("def aux(a):\n    print(a)", MAIN, ["`aux`: found, but it returns no value."]),
        (AUX, "", ["`area`: not found.", "Tests passed: 0 of 5."]),
        ("def aux(a):\n    return a", MAIN, ["  area(2, 3) raised TypeError: aux() takes 1 positional argument but 2 were given"]),
        (AUX, "def area(w, h):\n    return w * h / 2 + 1", ["`area` does not call `aux`."]),
        (AUX, "def area(w, h):\n    aux(w, h)\n    return 1", ["`area` calls `aux` but does not use its value."]),
        (AUX, "def area(w, h):\n    return aux(w, h) + 1", ["`area` calls `aux` and uses its value."]),
        (AUX, f"import numpy\n{MAIN}", ["The program does not load: ModuleNotFoundError: No module named 'numpy'"]),
        (AUX, "def area(w, h):\n    while True: pass\n    return 1", ["Failed: assert area(2, 3) == 3", "  It took too long."]),
        (AUX, "import os\ndef area(w, h):\n    os._exit(0)\n    return 1", ["  the program's process ended before it answered"]),
    ],
)  # fmt: skip
def test_level_feedback_names_each_failure(make: Make, helper: str, main: str, lines: list[str]) -> None:
    for text in feedback(make(max_turns=2), {"helper": helper, "main": main}).values():
        for line in lines:
            assert line in text.split("\n")


def test_a_syntax_error_is_told_with_its_line_to_its_author_only(make: Make) -> None:
    observations = feedback(
        make(max_turns=2), {"helper": AUX, "main": "def area(w, h):\n    return aux(w h)"}
    )
    assert "`area`: syntax error, line 2: " in observations["main"] and "aux(w h)" in observations["main"]
    assert "`area`: syntax error.\n" in observations["helper"] and "aux(w h)" not in observations["helper"]


def test_passed_feedback_has_counts_only(make: Make) -> None:
    texts = feedback(make(max_turns=2, feedback="passed"), WRONG)
    assert texts["main"].split("\n")[0] == "Tests passed: 1 of 5." and "area(2" not in texts["main"]
    assert feedback(make(max_turns=2, feedback="passed"), NOTHING)["helper"].startswith(
        "Tests passed: 0 of 5."
    )


def test_plain_feedback_is_the_agents_own_code(make: Make) -> None:
    texts = feedback(
        make(max_turns=2, feedback="plain"), {"helper": f"Well:\n```\n{AUX}```", "main": "No idea"}
    )
    assert texts["helper"].startswith(f"Your last code:\n\n```python\n{AUX.strip()}\n```\n")
    assert texts["main"].startswith("Your last answer had no code.")
    long = feedback(
        make(max_turns=2, feedback="plain"),
        {"helper": AUX, "main": "X = 1\n" * 9999 + WRONG["main"] + "\n    return X"},
    )
    assert len(long["main"]) < 5000


SPIES = [
    WRONG["main"],
    "def area(w, h):\n    raise ValueError(repr((w, h)))\n    return 1",
    "seen = []\ndef area(w, h):\n    seen.append((w, h))\n    raise ValueError(repr(seen))\n    return 1",
    "seen = []\ndef area(w, h):\n    seen.append((w, h))\n    print(seen)\n    return seen",
    "def area(w, h):\n    while w == 4: pass\n    return (w, h)",
    "def area(w, h):\n    import os\n    os._exit(w % 100)\n    return 1",
    "def area(w, h):\n    return Missing",
]


@pytest.mark.parametrize("mode", MODES)
def test_no_hidden_test_is_ever_shown(make: Make, mode: Any) -> None:
    reviews: list[str] = []

    def expert(review: Review) -> Mapping[str, str]:
        reviews.append(repr(review))
        return {"main": review.findings}

    env = make(max_turns=len(SPIES) + 1, feedback=mode, expert=expert if mode == "expert" else None)
    texts = []
    for main in SPIES:
        texts += env.step({"helper": AUX, "main": main})[0].values()
    assert env.agents, "the episode should last through all of them"
    for text in [*texts, *reviews, env.render(), env.state()]:
        for hidden in ("1117", "8888", "(4, 5)", "4, 5", "(0, 7)", "== 10", "0, 7"):
            assert hidden not in text.replace(json.dumps(env.problem.prompt)[1:-1], "")
    if mode == "level":
        assert sum("area(2, 3)" in text for text in texts) == 2 * len(SPIES), (
            "the shown one is, where it failed"
        )


@pytest.mark.parametrize(
    "shown, named", [(0, []), (1, ["area(2, 3) == 3"]), (2, ["area(2, 3) == 3", "area(4, 5) == 10"])]
)
def test_as_many_tests_are_shown_as_was_asked_for(make: Make, shown: int, named: list[str]) -> None:
    text = feedback(make(max_turns=2, shown_tests=shown), WRONG)["main"]
    assert [
        line.removeprefix("Failed: assert ") for line in text.split("\n") if line.startswith("Failed")
    ] == named


def test_an_expert_proposes_edits_from_what_agents_may_know(make: Make) -> None:
    reviews = []

    def expert(review: Review) -> Mapping[str, str]:
        reviews.append(review)
        return {"main": "Halve the value of `aux`."}

    env = make(max_turns=3, feedback="expert", expert=expert)
    observations = env.step(WRONG)[0]
    assert observations["main"].startswith(
        "A reviewer proposes:\n\nHalve the value of `aux`.\n\nWrite an improved"
    )
    assert observations["helper"].startswith(
        "A reviewer proposes no change to your code.\n\nWrite an improved"
    )
    (review,) = reviews
    assert review.prompt == env.problem.prompt and review.responses == WRONG
    assert review.functions == {"helper": "aux", "main": "area"}
    assert "Tests passed: 1 of 5." in review.findings and "area(2, 3) -> 6" in review.findings
    play(env, WRONG, WRONG)
    assert len(reviews) == 2, "after the last turn nobody reads a proposal"
    env.reset(options={"task": "area"})
    env.step(GOOD)
    assert len(reviews) == 2, "nor after the episode has ended early"


@pytest.mark.parametrize("proposals", [None, "text", {"nobody": "text"}, {"main": 3}])
def test_an_expert_that_answers_with_something_else_leaves_the_episode_as_it_was(
    make: Make, proposals: Any
) -> None:
    env = make(max_turns=2, feedback="expert", expert=lambda review: proposals)
    state = env.state()
    with pytest.raises(TypeError, match=r"expert must return a text for each of \['helper', 'main'\]"):
        env.step(WRONG)
    assert env.state() == state


# ------------------------------------------------------------------------------------------------- turns and rewards


def test_an_episode_ends_early_at_095_of_the_maximum(make: Make) -> None:
    env = make(max_turns=4)
    almost, enough = missing_tests(2), missing_tests(1)
    (_, rewards, terminations, _, infos), (_, last, ended, truncations, last_infos) = play(
        env, almost, enough
    )
    assert infos["main"]["score"] == pytest.approx(3.0 + 0.6) and not any(terminations.values())
    assert last_infos["main"]["score"] == pytest.approx(0.95 * 4) and all(ended.values())
    assert not any(truncations.values()) and env.agents == [] and env.turn == 2
    assert rewards["main"] == pytest.approx(3.6 - 4) and last["helper"] == pytest.approx(3.8 - 4)


def test_alone_the_maximum_is_that_of_the_main_agent(make: Make) -> None:
    env = make(max_turns=2, main_only=True)
    _, rewards, terminations, *_ = env.step({"main": "def area(w, h):\n    return w * h / 2"})
    assert rewards["main"] == pytest.approx(0.0) and terminations == {"main": True}


@pytest.mark.parametrize(
    "options, shifts",
    [
        ({}, (0.0, 0.0)),
        ({"reward": "individual"}, (0.0, 0.0)),
        ({"max_turns": 2}, (-4.0, -4.0)),
        ({"max_turns": 2, "reward": "individual"}, (-0.9, -2.1)),
        ({"max_turns": 2, "reward_shift": 0.0}, (0.0, 0.0)),
        ({"max_turns": 2, "reward_shift": {"helper": -1.0, "main": -2.0}}, (-1.0, -2.0)),
        ({"max_turns": 2, "reward_fn": len}, (-1.0, -1.0)),
        ({"max_turns": 2, "max_score": 5.0}, (-5.0, -5.0)),
    ],
)
def test_several_turns_are_shifted_by_the_maximum(
    make: Make, options: dict[str, Any], shifts: tuple[float, ...]
) -> None:
    assert tuple(make(**options).reward_shift.values()) == pytest.approx(shifts)


def test_idling_is_never_worth_more_than_ending_early(make: Make) -> None:
    early, late = make(max_turns=3), make(max_turns=3)
    done = sum(step[1]["main"] for step in play(early, GOOD))
    idle = sum(step[1]["main"] for step in play(late, missing_tests(2), missing_tests(2), GOOD))
    assert done == 0.0 > idle


class Improving(CodingEnv):
    progress_rewards = True


@pytest.mark.parametrize("reward", ["team", "individual"])
def test_progress_rewards_are_not_shifted_and_add_up_to_the_last_score(
    sandbox: Sandbox, tasks: TaskSet, reward: Any
) -> None:
    env = Improving(tasks, max_turns=3, sandbox=sandbox, reward=reward)
    env.reset(options={"task": "area"})
    steps = play(env, {"helper": AUX, "main": "def area(w, h):\n    return 10"}, NOTHING, missing_tests(2))
    name = "score" if reward == "team" else "individual_reward"
    for agent in env.possible_agents:
        assert sum(step[1][agent] for step in steps) == pytest.approx(steps[-1][4][agent][name])
        assert steps[1][1][agent] == pytest.approx(-steps[0][4][agent][name]), "what was lost is taken back"


def test_a_reward_function_may_look_at_the_problem(make: Make) -> None:
    def called(responses: dict[str, str], task: Task) -> float:
        return float(task.data["problem"].entry_point in responses["main"])

    env = make(reward_fn=called)
    _, rewards, _, _, infos = env.step(GOOD)
    assert rewards == {"helper": 1.0, "main": 1.0} and infos["main"]["reward_terms"] == {"reward_fn": 1.0}
    assert infos["main"]["metrics"]["all_passed"] == 1.0, "what the tests say is reported all the same"


@pytest.mark.parametrize(
    "options, error, complaint",
    [
        ({"feedback": "none"}, ValueError, "feedback must be one of"),
        ({"feedback": "expert"}, ValueError, "go together"),
        ({"expert": print}, ValueError, "go together"),
        ({"feedback": "expert", "expert": 3}, ValueError, "a callable"),
        ({"shown_tests": -1}, ValueError, "shown_tests must be a number of tests"),
        ({"shown_tests": True}, ValueError, "shown_tests must be a number of tests"),
        ({"sandbox": "jail"}, ValueError, "'strict', 'confined', 'process' or None"),
        ({"reward_shift": {"main": 1.0}}, ValueError, "one for each of"),
        ({"tasks": TaskSet.of(["text"])}, TypeError, "needs a column 'problem'"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(
    tasks: TaskSet, options: dict[str, Any], error: Any, complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        CodingEnv(**{"tasks": tasks, **options})


def test_a_problem_shows_no_more_tests_than_it_has() -> None:
    with pytest.raises(ValueError, match=r"number of tests \(1\), not 2"):
        Problem("def f(x):\n    pass", Suite("f", (Test("assert candidate(1)"),)), shown=2)


# ------------------------------------------------------------------------------------------------ copies, processes


@pytest.mark.parametrize("mode", ["level", "plain"])
def test_the_contract_of_text_environments_is_kept(make: Make, mode: str) -> None:
    check_env(partial(make, None, max_turns=3, feedback=mode), other_process=False)
    check_env(partial(make, None, max_turns=3, reward="individual", main_only=True), other_process=False)


@pytest.mark.parametrize("copier", [copy.deepcopy, copy.copy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_made_between_two_turns_goes_on_like_the_original(
    make: Make, copier: Callable[[Any], Any]
) -> None:
    env = make(max_turns=3)
    env.step(
        {"helper": AUX, "main": f"def area(w, h):\n    return aux(w, h) + {'0 + ' * 80}1"}
    )  # a deep tree
    twin = copier(env)
    state = env.state()
    played = play(twin, WRONG, GOOD)
    assert env.state() == state and len(env.history) == 1
    assert play(env, WRONG, GOOD) == played


def test_copies_share_one_sandbox_which_ends_with_the_last_of_them(
    tasks: TaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Sandbox]] = []

    class Counted(Sandbox):
        def __init__(self, level: Any) -> None:
            super().__init__(level, workers=1, limits=Limits(seconds=2))
            made.append(weakref.ref(self))

    monkeypatch.setattr(core, "Sandbox", Counted)
    env = CodingEnv(tasks)
    env.reset(options={"task": "area"})
    assert not made, "nothing was started yet"
    twin, other = copy.deepcopy(env), copy.deepcopy(env)
    twin.step(NOTHING)
    assert not made, "nor for texts without a program"
    for one in (env, other):
        one.step(GOOD)
    assert len(made) == 1
    other.close()
    del other
    env.reset(options={"task": "area"})
    assert env.step(GOOD)[1]["main"] == 4.0, "closing a copy leaves the others their sandbox"
    env.close()
    del twin
    gc.collect()
    assert made[0]() is None
    env.reset(options={"task": "area"})
    assert env.step(GOOD)[1]["main"] == 4.0 and len(made) == 2, "a closed environment can be used again"
    env.close()


def test_many_episodes_side_by_side_are_scored_like_one_after_another(make: Make) -> None:
    joint = [GOOD, WRONG, NOTHING, missing_tests(2)] * 4
    episodes = VectorEnv(make(task=None, max_turns=2), max_workers=4)
    episodes.reset(tasks=["area"] * len(joint), seeds=0)
    found = [transition.infos["main"]["score"] for transition in episodes.step(joint) if transition]
    single = make(max_turns=2)
    expected = []
    for texts in joint:
        single.reset(options={"task": "area"})
        expected.append(single.step(texts)[4]["main"]["score"])
    assert found == expected


def test_an_expert_is_never_asked_by_two_episodes_at_once(make: Make) -> None:
    assert make().concurrency >= 1
    assert make(feedback="expert", expert=lambda review: {}).concurrency == 1


def test_without_code_to_run_a_step_takes_less_than_two_milliseconds(make: Make) -> None:
    env = make(max_turns=100)
    text = "```python\ndef aux(a, b):\n    return a *\n```\n" + "It multiplies the two sides. " * 40
    durations = []
    for _ in range(30):
        begin = time.perf_counter()
        env.step({"helper": text, "main": text})
        durations.append(time.perf_counter() - begin)
    assert statistics.median(durations) < 0.002
