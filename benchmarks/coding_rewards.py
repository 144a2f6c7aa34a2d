"""What the coding rewards pay for junk, for shows of cooperation and for honest programs: version 0 beside version 1.

    python -m textmarl.benchmarks.coding_rewards > docs/rewards_coding.md

The junk is made from problems of Compose, as many of each level; the honest pairs are those of the project's tests
(`--corpora`) and the reference solutions. It takes a few minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from textmarl.benchmarks.coding_boxes import BOXED
from textmarl.benchmarks.coding_cases import Case
from textmarl.benchmarks.coding_junk import ANSWERLESS, MISSED, UNCOOPERATIVE, WRONG, Kind
from textmarl.envs.coding import compose, hardened, rewards
from textmarl.envs.coding.assembly import assemble, extract
from textmarl.envs.coding.hardened import Evidence
from textmarl.envs.coding.problem import Problem
from textmarl.envs.sandbox import Limits, Sandbox
from textmarl.envs.tasks import Task

CORPORA = Path(__file__).parent.parent / "tests" / "envs" / "coding_corpora"
LIMITS = Limits(seconds=0.3, wall_seconds=60.0, timeouts=1)
"""For junk, much of which never ends; what it scores does not depend on them."""


@dataclass(frozen=True)
class Score:
    """What both versions pay for one pair of texts, in points; the maximum of either is 4."""

    v0: float
    v1: float
    evidence: Evidence


def score(sandbox: Sandbox, problem: Problem, helper: str, main: str) -> Score:
    """What both versions pay for the texts of a helper's and a main agent."""
    return score_team(sandbox, problem, {"aux": helper}, main)


def score_team(sandbox: Sandbox, problem: Problem, helpers: dict[str, str], main: str) -> Score:
    """The same for any number of helpers, by name; version 0 sees the first."""
    entry_point = problem.entry_point
    parts = [extract(text, name, drop={entry_point, *helpers} - {name}) for name, text in helpers.items()]
    own = extract(main, entry_point, drop=set(helpers))
    program = assemble(problem.prelude, [*parts, own])
    evidence = hardened.examine(parts, own, program, problem, lambda: sandbox)
    v0 = math.fsum(rewards.score_terms(parts[0], own, program, evidence.report).values())
    return Score(v0, math.fsum(hardened.score_terms(evidence).values()), evidence)


def compose_tasks() -> dict[str, Task]:
    """All problems of Compose by their ids."""
    return {task.id: task for task in compose.load_problems("bundled", "all")}


def case_of(task: Task) -> Case:
    """A problem of Compose with its reference solution for one helper."""
    reference = task.data["references"][0]
    return Case(task.data["problem"], reference["helpers"][0]["source"], reference["main"])


def read_corpus(name: str, folder: Path = CORPORA) -> list[dict[str, Any]]:
    """The rows of one of the files of honest pairs, "good" or "mediocre"."""
    text = folder.joinpath(f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def junk_scores(sandbox: Sandbox, kind: Kind, cases: Iterable[Case]) -> list[Score]:
    """What one kind earns on each problem."""
    return [score(sandbox, case.problem, *kind(case)) for case in cases]


# ------------------------------------------------------------------------------------------------ the document


def document(folder: Path, problems: int) -> str:
    """The documentation page `docs/rewards_coding.md`."""
    tasks = compose_tasks()
    cases = [case_of(task) for task in list(tasks.values())[:problems]]
    parts = [_HEAD.replace("{problems}", str(problems))]
    with Sandbox(limits=Limits(seconds=5.0)) as sandbox:
        parts += ["## Honest pairs\n", *_honest_table(sandbox, tasks, folder)]
        parts += ["## Cost\n", *_cost_table(sandbox, tasks)]
    with Sandbox(limits=LIMITS) as sandbox:
        for title, text, kinds in _FAMILIES:
            parts += [f"## {title}\n", text, *_junk_table(sandbox, kinds, cases)]
    return "\n".join([*parts, _LIMITS])


def _row(name: str, scores: Sequence[Score]) -> str:
    columns = [f"| {name} | {len(scores)}"]
    for values in ([s.v0 for s in scores], [s.v1 for s in scores]):
        numbers = [fmean(values), min(values), max(values)]
        columns.append(" | ".join(f"{number / hardened.MAX_SCORE:.0%}" for number in numbers))
    return " | ".join(columns) + " |"


def _table(rows: Iterable[str], what: str) -> list[str]:
    head = f"| {what} | Programs | v0 mean | min | max | v1 mean | min | max |"
    return [head, "|---|---|---|---|---|---|---|---|", *rows, ""]


def _honest_table(sandbox: Sandbox, tasks: dict[str, Task], folder: Path) -> list[str]:
    groups: dict[str, list[Score]] = {}
    for task in tasks.values():
        for reference in task.data["references"]:
            helpers = {part["name"]: part["source"] for part in reference["helpers"]}
            name = f"references, {len(helpers)} helper{'s' if len(helpers) > 1 else ''}"
            groups.setdefault(name, []).append(
                score_team(sandbox, task.data["problem"], helpers, reference["main"])
            )
    for corpus in ("good", "mediocre"):
        for row in read_corpus(corpus, folder):
            name = row.get("quality", "other good solutions")
            problem = tasks[row["task"]].data["problem"]
            groups.setdefault(name, []).append(score(sandbox, problem, row["helper"], row["main"]))
    return _table((_row(name, scores) for name, scores in groups.items()), "Pairs")


def _cost_table(sandbox: Sandbox, tasks: dict[str, Task]) -> list[str]:
    lines = ["| Programs | Number | Tests alone, ms | With experiments, ms |", "|---|---|---|---|"]
    for name, helpers in (("one helper", 1), ("three helpers", 3)):
        plain, full = [], []
        for task in tasks.values():
            parts = compose.division_of(task, helpers)
            if parts is None:
                continue
            reference = next(r for r in task.data["references"] if len(r["helpers"]) == helpers)
            problem: Problem = task.data["problem"]
            sources = {part["name"]: part["source"] for part in parts}
            program = "\n".join([*sources.values(), reference["main"]])
            began = time.perf_counter()
            sandbox.run(program, problem.suite)
            plain.append(time.perf_counter() - began)
            began = time.perf_counter()
            score_team(sandbox, problem, sources, reference["main"])
            full.append(time.perf_counter() - began)
        middle = [1000 * sorted(times)[len(times) // 2] for times in (plain, full)]
        lines.append(f"| references, {name} | {len(plain)} | {middle[0]:.0f} | {middle[1]:.0f} |")
    return [*lines, "", _COST]


def _junk_table(sandbox: Sandbox, kinds: Sequence[Kind], cases: Sequence[Case]) -> list[str]:
    rows = []
    for kind in kinds:
        what = (kind.__doc__ or "").split("\n")[0].rstrip(".").replace("|", "\\|")
        rows.append(_row(what, junk_scores(sandbox, kind, cases)))
    return _table(rows, "Kind")


_HEAD = """# What the coding rewards pay

> Version 0, the published reward, pays up to 100 % of its maximum where one agent writes the whole program and the other's
> function is called for show, and 38 % for well-formed code that computes something else. Version 1 pays 54 % and at most
> 5 % for the same programs, and 100 % to right pairs that share the work.

Scores in percent of 4, for version 0 (the published reward) and version 1 (`textmarl.envs.coding.hardened`, where the
formulas are). This page is the output of `python -m textmarl.benchmarks.coding_rewards`: junk is made from {problems} problems
of Compose, as many of each level, and from their references. The tests hold the bounds:

| Programs | Version 1 |
|---|---|
| no answer, no attempt, attacks on the judge | 0, what an empty answer scores |
| one agent does all the work, the other one's part is for show | at most what that agent earns with a partner who does not answer: 54 % |
| wrong, but well-formed attempts | at most 5 % |
| partly right pairs | over 5 %, less than right ones that share the work alike |
| good pairs | over 85 % |
"""
_FAMILIES = (
    (
        "No answer, or none to the problem",
        "The bound is what two empty texts score: 0. Where nothing is said about the helper, it is the reference.\n",
        ANSWERLESS,
    ),
    (
        "One agent does all the work",
        "The tests are passed, so these are paid for the tests. The bound is the score of the first line.\n",
        (*UNCOOPERATIVE, *BOXED),
    ),
    (
        "Wrong code",
        "Well-formed and of no use. A small model begins here; a form that it learns is worth up to 5 %.\n",
        WRONG,
    ),
    ("What gets through", "Shows of cooperation that version 1 takes for the real thing.\n", MISSED),
)
_COST = """The median over the problems, on a busy machine with two cores. A program that passes nothing, or whose helper is of no
use by syntax or by its recorded calls, costs one run: the recorded calls come with the tests. A program that cooperates
costs six runs for each helper.
"""
_LIMITS = """These need both agents to settle on a convention that is of no use for anything else, while a helper that does some of the
work is worth as much. In general no experiment on the pair can tell a value that the main function needs from one that it
only checks: in both cases another value breaks the program.

* **A checked value.** The main function computes what `aux` returns by itself, and refuses to answer if it differs.
* **A coded answer.** `aux` does all the work and hides it in a code that only the main function undoes. Conversions,
  boxes, indices and neutral elements are seen through, whatever `aux` takes beside the arguments; a real code is not,
  nor is a text (`json.dumps`, `repr`). The same holds for arguments that `aux` hands back in a code.
* **Small parts.** The helper of an easy problem may be `return 2 * x`. Nothing here measures how much work a part is, only
  that the program breaks without it.
* **One test.** The pass rate falls as soon as one test breaks in both shuffles. A main function that solves all cases but
  one by itself is paid like one that shares them all.
* **A record that the program tampers with.** The calls are recorded in the process of the program. One that finds the
  recorder there can write what it likes into it; a checked value is easier.
* **Memorised tests.** Constants, arguments handed back and the prompt's examples are worth nothing, but a policy that is
  trained for long on the same problems can learn the hidden tests' values one by one. Use the held-out problems.

And what is honest and goes unpaid:

* **A helper whose value cannot be replayed**: a function, an object of a class of its own, a `namedtuple` whose fields are
  used, a `Counter` or `defaultdict` used as such. What `aux` returns must be plain data. So it is with a helper that works
  by changing its arguments.
* **A helper that picks one of its arguments** (`a if a > b else b`) counts as one that returns its argument, and one that
  puts arguments in order as one that hands them back, if the tests give them in that order.
* **A helper that is called more than 1,000 times in the first test** cannot be replayed in step, since the record ends
  there. The tests before the end of the record decide.
* **A helper that is called with one set of arguments, or returns one value, in all tests.** There is nothing to exchange.
* **Passing what a guess passes.** A program that is right on the one hidden test whose answer is also the most frequent
  one has shown nothing yet.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the document to the standard output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpora", type=Path, default=CORPORA, help="folder of the honest pairs")
    parser.add_argument("--problems", type=int, default=10, help="problems that junk is made from")
    options = parser.parse_args(arguments)
    sys.stdout.write(document(options.corpora, options.problems))


if __name__ == "__main__":
    main()
