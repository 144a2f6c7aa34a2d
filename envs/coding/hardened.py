"""The hardened reward of the coding tasks (version 1): who did the work, as experiments show it.

Version 0 pays 1.5 of its 4 points before a test has run, and 1.0 for `aux()` on a line of its own. Version 1 pays for
tests passed beyond what guessing passes, and for cooperation that is seen to matter.

| Term          | Rule                                                                               | Value      |
|---------------|------------------------------------------------------------------------------------|------------|
| `main`        | the entry point is Python, returns a value and is an attempt                       | 0.1        |
| `syntax`      | and the program made of all parts parses and loads                                 | 0.05       |
| `helper`      | where skill is 0: the mean over the helpers of whether they are of use, else as    | 0 to 0.05  |
|               | `cooperation`, times 0.05                                                          |            |
| `tests`       | 2 times passed / all tests                                                         | 0 to 2     |
| `guessing`    | takes from `tests` what a guess passes as well: 2 skill - `tests`                  | -2 to 0    |
| `cooperation` | 1.8 times skill times the mean over the helpers of how far both did their part     | 0 to 1.8   |

The maximum is 4 with helpers, 2.15 without. *Skill* (`textmarl.envs.coding.chance`) is the pass rate corrected for
chance, so `tests` + `guessing` = 2 skill: nothing for a constant, an argument handed back, a list of the prompt's
examples. Tests are judged in a process that the program cannot reach, and answers must be plain data.

**An attempt** lets an argument of the entry point reach its result (syntax), and does more than these: return one
argument or choose between constants by comparing arguments with constants (syntax), give no answer of plain data in any
test, end, be killed or run out of time in all of them; these hold only where skill is 0. Nor is it an attempt to give one
and the same answer in all tests, as far as the failed ones show. What is no attempt scores 0, as an empty text does. What
is an attempt and solves nothing scores at most 0.2, 5 % of the maximum: enough for a small model to learn the form, and
less than any solved problem brings.

**A helper is of use** if it is defined and returns a value and

1. by its syntax, it is neither constant nor always returns one of its arguments;
2. by the syntax of the entry point, its value can reach the result (`textmarl.envs.coding.dataflow`);
3. in the recorded calls of the tests, it is called, does not return its first argument every time, nor its second, ...,
   and returns at least two different values; boxes of these, such as `[x, 0]`, count like these;
4. where skill is above 0: the pass rate falls when it is replaced by a stub that replays its own recorded values
   permuted over its calls, for each of two seeded shuffles; calls with equal arguments keep equal values, and what lies at
   one place of a value and is an argument in all calls stays with its call (`textmarl.envs.coding.handing`).

The fall in 4 is counted over the tests that a *control* passes: the same stub with the values in their own order. So what
breaks for another reason does not count: a program that notices the stub and refuses, one that lives on what the helper
writes into a global variable, one whose record was cut off (1,000 calls or 1 MiB).

**Both did their part** is 0 to 1 for each helper: 0 if it is not of use, or if the entry point is only a wrapper of it:
`return aux(...)` whatever the arguments, also through a name, in a `try`, behind a guard that returns a constant, and with
conversions, neutral elements and indices around it (`[*aux(x)]`, `aux(x) + 0`, `aux(x)[0]`). Else the helper is tested
in the place of the entry point, and with fall(x; a) = 1 up to a, going linearly to 0 at 1, it is the smaller of

    fall(the helper's skill alone / the program's skill; 0.9)
    fall(passed tests that the helper passes alone, too, and that call it with one set of arguments / passed tests; 0.75)
    fall(passed tests in which it got all arguments, once, and its value, or one place of it, is the answer / passed; 0.75)

So a helper that solves the problem alone earns no more cooperation than an entry point that does, whatever the disguise,
and little more if the entry point sees to a few special cases. (Alone a helper may pass many tests by coincidence: one
that changes a word often does the same to a sentence. There the entry point calls it for every word.)

One agent that solves the problem alone, whichever it is, earns the team 2.15 of 4 (54 %): the tests in full and no
cooperation, which is what an entry point earns whose helper does not answer.

**Why these numbers.** The form is worth 5 %, because in an advantage normalised over a group its size does not matter
while all fail, and it should not be worth farming when some pass. Cooperation is almost as much as the tests, and scaled
by skill, so that neither is worth giving up for the other: half the tests together (2.1) is less than all of them alone
(2.15). The replays are shuffles, not rotations, since a shift by one leaves a symmetric use intact; two, since a fall by
chance in both is unlikely, and "falls" has no threshold, since a shuffle may break only 2 of 16 tests of an honest
program. A replay gets 0.25 s of CPU time a test (ten times the slowest of the first run, if that is more) and one time-out,
because loops that end on honest values may not end on shuffled ones.

**Cost.** One run where nothing is passed or the helper is of no use by syntax or record, two where the first shuffle
breaks nothing, and six for a program that cooperates; with N - 1 helpers each has its own.

**Individual rewards** are those of version 0: each helper 0.4 (defined) + 0.5 (parses), the entry point 0.6 + 0.5 + pass
rate without helpers. With several turns version 1 pays the difference score_t - score_(t-1), with score_0 = 0.

What still gets through is in `docs/rewards_coding.md`, with measurements.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from textmarl.envs.coding import cooperation, disguise, handing
from textmarl.envs.coding.assembly import Part, Program
from textmarl.envs.coding.chance import Chance, chance_of
from textmarl.envs.coding.dataflow import reaches_result
from textmarl.envs.coding.problem import Problem
from textmarl.envs.coding.rewards import is_written, may_run, pass_rate
from textmarl.envs.coding.scopes import references
from textmarl.envs.sandbox import Call, Record, Replay, Report, Sandbox, Suite

TERMS = ("helper", "main", "syntax", "tests", "guessing", "cooperation")

_HELPER, _MAIN, _SYNTAX, _TESTS, _COOPERATION = 0.05, 0.1, 0.05, 2.0, 1.8

MAX_SCORE = _HELPER + _MAIN + _SYNTAX + _TESTS + _COOPERATION
SINGLE_MAX_SCORE = _MAIN + _SYNTAX + _TESTS
"""The maximum without helpers; also what one agent alone can earn for the team."""
FORM = _HELPER + _MAIN + _SYNTAX
"""The most that an attempt which solves nothing can earn."""

SHUFFLES = 2
_DRAWS = 8  # shuffles drawn, of which those are taken that move the most values
_SECONDS, _TIMES = (
    0.25,
    10.0,
)  # CPU time of a test in a replay: at least so long, and so many times the slowest before
_ALONE, _HANDED_ON = 0.9, 0.75  # shares up to which a helper did not do all of the work

_NO_ANSWER = frozenset(["timeout", "died", "protocol", "skipped"])
_ENDINGS = ("SystemExit", "KeyboardInterrupt", "GeneratorExit")
_OPAQUE = "<opaque value of type"

Refusal = Literal["unwritten", "constant", "unloaded", "one_answer", "echo", "table", "unanswered"]
"""Why an entry point is no attempt.

- `unwritten`: it is not defined, returns no value or is no Python.
- `constant`: by its syntax, no argument of it reaches its result.
- `unloaded`: the program does not load.
- `one_answer`: it gives one and the same answer in all tests, as far as the failed ones show.
- `echo`, `table`, `unanswered`, where skill is 0: it returns one argument, the program only looks its answers up, or no
  test gets an answer of plain data.
"""

Contribution = Literal[
    "unwritten", "constant", "echo", "unmentioned", "unused", "unrun", "uncalled", "raised", "one_value", "echoed",
    "untold", "unneeded", "entangled", "handed_on", "needed",
]  # fmt: skip
"""What a helper contributes: the first of these that holds.

- `unwritten`: it is not defined, returns no value or is no Python.
- `constant`, `echo`: by its syntax, it answers every call alike, or always returns one of its arguments.
- `unmentioned`, `unused`: by the syntax of the entry point, this does not name it, or its value cannot reach the result.
- `unrun`: the program does not run or does not load, so there is no more to know.
- `uncalled`, `raised`, `one_value`, `echoed`: in the tests it is not called, returns nothing, never returns a second
  value, or hands back what it was given, as it is or in a box.
- `untold`: skill is 0, so no test can tell whether it is needed.
- `unneeded`: some shuffle of its values breaks no test.
- `entangled`: a shuffle breaks none but what its own values break as well when a stub returns them.
- `handed_on`: the entry point is a wrapper of it.
- `needed`: none of these; how far it shared the work is for `both_did_their_part` to say.
"""


@dataclass(frozen=True)
class Experiment:
    """What was found out about one helper by running the program.

    Attributes:
        calls: the recorded calls.
        permuted: the program with the recorded values permuted over the calls, for each shuffle that was run.
        control: the program with the recorded values in their own order; None where a shuffle broke nothing.
        alone: the helper in the place of the entry point; None where it was not run.
        answers: the recorded calls of the entry point.
    """

    calls: tuple[Call, ...] = ()
    permuted: tuple[Report, ...] = ()
    control: Report | None = None
    alone: Report | None = None
    answers: tuple[Call, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """All that the reward of one program depends on.

    Attributes:
        helpers, main: what the agents contribute, in their order.
        program: the program made of it.
        chance: what a guess passes.
        report: of the program; None where it may not run.
        experiments: name of a helper -> what was found out; those that syntax rules out are missing.
    """

    helpers: tuple[Part, ...]
    main: Part
    program: Program
    chance: Chance
    report: Report | None = None
    experiments: Mapping[str, Experiment] = dataclasses.field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------- the reward


def score_terms(evidence: Evidence) -> dict[str, float]:
    """The six terms of the team reward, named as in `TERMS`; their sum is the score."""
    terms = dict.fromkeys(TERMS, 0.0)
    report, solved = evidence.report, skill(evidence)
    if not is_attempt(evidence):
        return terms
    terms["main"] = _MAIN
    if report is None:
        return terms
    terms["syntax"] = _SYNTAX
    terms["tests"] = _TESTS * pass_rate(report)
    terms["guessing"] = _TESTS * solved - terms["tests"]
    if evidence.helpers:
        judge = both_did_their_part if solved else is_useful
        share = math.fsum(judge(evidence, helper) for helper in evidence.helpers) / len(evidence.helpers)
        terms["helper"] = _HELPER * share
        terms["cooperation"] = _COOPERATION * solved * share
    return terms


def skill(evidence: Evidence, report: Report | None = None) -> float:
    """How much more than a guess the program passes, 0 to 1; or another program of which there is a report."""
    report = report or evidence.report
    return 0.0 if report is None else evidence.chance.skill([verdict.passed for verdict in report.verdicts])


def is_attempt(evidence: Evidence) -> bool:
    """Whether the entry point tries to solve the problem, as far as can be seen."""
    return refusal(evidence) is None


def refusal(evidence: Evidence) -> Refusal | None:
    """Why the entry point is no attempt; None where it is one."""
    main, report = evidence.main, evidence.report
    if not is_written(main) or main.error:
        return "unwritten"
    if cooperation.constant(main):
        return "constant"
    if report is not None and report.error:
        return "unloaded"
    if report is not None and _is_one_answer(report, evidence.chance.expected):
        return "one_answer"
    if skill(evidence):
        return None
    if cooperation.echoes_argument(main):
        return "echo"
    if disguise.is_table((main, *evidence.helpers)):
        return "table"
    return None if report is None or _answers(report) else "unanswered"


def is_useful(evidence: Evidence, helper: Part) -> bool:
    """Whether a helper is of use: the four conditions of the module's description."""
    return contribution(evidence, helper) in ("untold", "handed_on", "needed")


def contribution(evidence: Evidence, helper: Part) -> Contribution:
    """What a helper contributes to the program, as far as syntax and experiments tell."""
    experiment = evidence.experiments.get(helper.role_name)
    if experiment is None:
        return _ruled_out(helper, evidence.main) or "unrun"
    if evidence.report is None or evidence.report.error:
        return "unrun"
    dull = _dullness(experiment.calls)
    if dull is not None:
        return dull
    if not skill(evidence):
        return "untold"
    if experiment.control is None or len(experiment.permuted) < SHUFFLES:
        return "unneeded"
    if not all(_broken(experiment.control, permuted) for permuted in experiment.permuted):
        return "entangled"
    return "handed_on" if disguise.is_wrapper(evidence.main, helper.role_name) else "needed"


def both_did_their_part(evidence: Evidence, helper: Part) -> float:
    """How far the work was shared between the entry point and one helper, 0 to 1; 0 where skill is 0."""
    if contribution(evidence, helper) != "needed":
        return 0.0
    solved = skill(evidence)
    experiment = evidence.experiments[helper.role_name]
    alone, report = experiment.alone, evidence.report
    assert alone is not None and report is not None, "a helper that matters was run alone, too"
    arguments: dict[int, set[tuple[Any, ...]]] = {}
    for call in experiment.calls:
        arguments.setdefault(call.test, set()).add(handing.arguments(call))
    pairs = zip(report.verdicts, alone.verdicts, strict=True)
    handed_on = [
        index
        for index, (together, by_itself) in enumerate(pairs)
        if together.passed and by_itself.passed and len(arguments.get(index, ())) == 1
    ]
    passed = [index for index, verdict in enumerate(report.verdicts) if verdict.passed]
    answered = handing.handed_on(experiment.answers, experiment.calls, passed)
    return min(
        _fall(skill(evidence, alone) / solved, _ALONE),
        _fall(max(len(handed_on), answered) / report.passed, _HANDED_ON),
    )


def _fall(x: float, start: float) -> float:
    """1 up to `start`, 0 from 1 on, linear between."""
    return min(1.0, max(0.0, (1.0 - x) / (1.0 - start)))


def _answers(report: Report) -> bool:
    """Whether a program that solves nothing answers a test."""
    given = [
        verdict
        for verdict in report.verdicts
        if verdict.outcome not in _NO_ANSWER
        and not verdict.exception.startswith(_ENDINGS)
        and _OPAQUE not in verdict.call
    ]
    return bool(given)


def _is_one_answer(report: Report, expected: Sequence[str]) -> bool:
    """Whether a program shows one and the same answer in all tests, whatever it was given."""
    passed = {key for key, verdict in zip(expected, report.verdicts, strict=True) if verdict.passed}
    failed = [verdict for verdict in report.verdicts if not verdict.passed]
    values = [verdict.call.rpartition(" -> ")[2] for verdict in failed if " -> " in verdict.call]
    return len(values) == len(failed) >= 2 and len(set(values)) == 1 and len(passed) <= 1


def _dullness(calls: Sequence[Call]) -> Literal["uncalled", "raised", "one_value", "echoed"] | None:
    """Whether the recorded calls show a helper that is not called, is constant or returns what it was given."""
    if not calls:
        return "uncalled"
    returned = [call for call in calls if call.error is None]
    if not returned:
        return "raised"
    if len({call.value for call in returned}) < 2:
        return "one_value"
    return "echoed" if handing.kept(calls) is True else None


def _broken(before: Report, after: Report) -> bool:
    pairs = zip(before.verdicts, after.verdicts, strict=True)
    return any(one.passed and not other.passed for one, other in pairs)


# -------------------------------------------------------------------------------------------------- the experiments


def examine(
    helpers: Sequence[Part], main: Part, program: Program, problem: Problem, sandbox: Callable[[], Sandbox]
) -> Evidence:
    """Runs a program, and the experiments that its reward asks for.

    Args:
        helpers, main: what the agents contribute.
        program: the program made of it.
        problem: whose tests these are.
        sandbox: gives the sandbox; called only if the program may run.
    """
    evidence = Evidence(tuple(helpers), main, program, chance_of(problem))
    if not may_run(main, program):
        return evidence
    box, suite = sandbox(), problem.suite
    names = [helper.role_name for helper in helpers if _ruled_out(helper, main) is None]
    first = Record(names[0]) if names else None
    report = box.run(program.source, suite, first)
    evidence = dataclasses.replace(evidence, report=report)
    solved = skill(evidence) > 0.0
    experiments = {}
    for name in names:
        # The first one's calls were recorded beside the tests; those of the others take a run each.
        record = (
            report if name == names[0] else box.run(program.source, suite, Record(name), **_hurry(report))
        )
        if solved and _dullness(record.calls) is None:
            experiments[name] = _experiment(box, program, suite, name, report, record.calls)
        else:
            experiments[name] = Experiment(record.calls)
    return dataclasses.replace(evidence, experiments=experiments)


def shuffles(calls: Sequence[Call], count: int = SHUFFLES) -> list[tuple[Call, ...]]:
    """The calls with their values exchanged, the same ways every time.

    Values are exchanged between sets of arguments, so that calls with equal arguments still return equal values: a main
    function that only takes `aux(x)` from `aux(x)` is not moved by it. What the helper merely hands back of its arguments
    stays where it is. Of eight random exchanges those are taken that
    move the most values.
    """
    groups: dict[tuple[Any, ...], list[Call]] = {}
    places = []  # of each call: its group, and how many of the group came before
    for call in calls:
        group = groups.setdefault(handing.arguments(call), [])
        places.append((handing.arguments(call), len(group)))
        group.append(call)
    what = handing.kept(calls)
    drawn = []
    for seed in range(_DRAWS):
        sources = dict(
            zip(groups, random.Random(seed).sample(list(groups.values()), len(groups)), strict=True)
        )
        others = [sources[key][number % len(sources[key])] for key, number in places]
        drawn.append(
            tuple(handing.exchanged(own, other, what) for own, other in zip(calls, others, strict=True))
        )
    return sorted(drawn, key=lambda order: -_moved(calls, order))[:count]


def _moved(calls: Sequence[Call], order: Sequence[Call]) -> int:
    pairs = zip(calls, order, strict=True)
    return sum((a.value, a.error) != (b.value, b.error) for a, b in pairs)


def _ruled_out(
    helper: Part, main: Part
) -> Literal["unwritten", "constant", "echo", "unmentioned", "unused"] | None:
    """Why a helper can be of no use, by syntax alone."""
    if not is_written(helper) or helper.error:
        return "unwritten"
    if cooperation.constant(helper):
        return "constant"
    if cooperation.echoes_argument(helper):
        return "echo"
    if reaches_result(main, helper.role_name):
        return None
    mentioned = any(name.id == helper.role_name for name in references(main.module.body))
    return "unused" if mentioned else "unmentioned"


def _experiment(
    sandbox: Sandbox, program: Program, suite: Suite, name: str, base: Report, calls: tuple[Call, ...]
) -> Experiment:
    limits = _hurry(base)
    permuted = []
    for order in shuffles(calls):
        report = sandbox.run(program.source, suite, Replay(name, order), **limits)
        permuted.append(report)
        if not _broken(base, report):
            return Experiment(calls, tuple(permuted))
    control = sandbox.run(program.source, suite, Replay(name, calls), **limits)
    in_its_place = dataclasses.replace(suite, entry_point=name, names=(*suite.names, suite.entry_point))
    alone = sandbox.run(program.source, in_its_place, **limits)
    answers = sandbox.run(program.source, suite, Record(suite.entry_point), **limits).calls
    return Experiment(calls, tuple(permuted), control, alone, answers)


class _Limits(TypedDict):
    seconds: float
    timeouts: int


def _hurry(base: Report) -> _Limits:
    """The time limits of a further run of the same program."""
    slowest = max((verdict.seconds for verdict in base.verdicts if verdict.passed), default=0.0)
    return {"seconds": max(_SECONDS, _TIMES * slowest), "timeouts": 1}
