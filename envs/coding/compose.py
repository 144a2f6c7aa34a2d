"""
# Compose, version 1

A team writes one Python function together, on problems whose natural solution is a helper and a main function: each
helper agent writes one helper, the main agent the function asked for, which calls the helpers. Nobody sees another's
code. All agents are told which part each helper is.

| Creation           | `make("parallel", "textmarl/Compose-v1")`                                               |
|--------------------|-----------------------------------------------------------------------------------------|
| Agents             | `["helper", "main"]`; with `n_agents=4` `["helper_1", "helper_2", "helper_3", "main"]`  |
| Actions            | `UnicodeText()`: any `str`                                                              |
| Observations       | `UnicodeText()`: the instruction and the prompt, then feedback                          |
| Turns              | 1, or more by `max_turns`                                                               |
| Score              | 0 to 4, with `main_only` 0 to 2.15                                                      |
| Individual rewards | yes                                                                                     |
| Metrics            | `pass_rate`, `all_passed`, `timeouts`                                                   |
| Source             | this project: 105 problems, 70 to train on and 35 held out                              |

The problems come with the package; no network is needed. Programs run in `textmarl.envs.sandbox`.

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/Compose-v1", split="train", n_agents=2, difficulty=[1, 2], division=None)
```

`split`: `"train"` (70 problems), `"test"` (35), `"all"`, or a slice of one (`"train[:10]"`), counted after the filters.

`source`: `"bundled"`, or the path of a JSONL file, a JSON array or a folder of `<split>.jsonl` with the columns of the
bundled files: `task_id`, `difficulty`, `topic`, `entry_point`, `prompt`, `shown_tests`, `hidden_tests`, `references`.

`n_agents`: the main agent and n - 1 helpers, at least 2. Two are `helper` and `main`, and the helper's function is `aux`.
More are `helper_1`, `helper_2`, ... and `main`; their functions are `aux_1`, `aux_2`, ...

`difficulty`: one level or several, from 1 (a line for each agent; a model of 135M parameters solves some) to 5 (like the
harder half of HumanEval). `None`: all. Every level has about as many problems as the others, in either split.

`division`: whether the agents are told how the work is divided: signature and purpose of each helper. All problems have a
division for one helper, 31 of the levels 3 to 5 one for three. `None`: where the problem has one for n - 1 helpers;
`True`: only such problems; `False`: never, so that the agents have to guess each other's plans as in HumanEval.

`max_turns`, `feedback`, `expert`, `shown_tests`, `main_only`, `reward`, `reward_fn`, `reward_shift`, `max_score`,
`sandbox`, `render_mode`: as for HumanEval. Without `shown_tests` a problem says itself which tests feedback may name: one
or two; six or more stay hidden.

### Observations

| Agent         | First turn                                                                                   |
|---------------|----------------------------------------------------------------------------------------------|
| each helper   | the prompt (signature, docstring, examples), then its helper's signature and purpose         |
| `main`        | the prompt, then signature and purpose of every helper, which it may call                    |

The division is part of the problem, written before anybody answers, like the plan that a team agrees on before it splits
up: it is no text of an agent. Both sides of a call are told, because else success depends on whether two independent
guesses of a signature agree, and the reward would measure that. `division=False` makes exactly this the task. Without a
division a helper is asked for "a part of the work". Later turns bring feedback as in `textmarl/HumanEval-v1`: with
`"level"` what the reward found, a sentence for every helper, and nothing of a single hidden test.

### Actions

One text per agent. Any `str` is scored, as in HumanEval; what counts of it: `textmarl.envs.coding.assembly`. A function
that another agent owns is dropped from a text, so helpers may not define each other, nor the main function any of them.

### Rewards

| Term          | Rule                                                                                 | Value      |
|---------------|--------------------------------------------------------------------------------------|------------|
| `main`        | the main function is Python, returns a value and is an attempt                       | 0.1        |
| `syntax`      | and the program of all parts parses and loads                                        | 0.05       |
| `helper`      | and the helpers are of use; where a test tells, as `cooperation`, times 0.05         | 0 to 0.05  |
| `tests`       | 2 times passed tests / all tests                                                     | 0 to 2     |
| `guessing`    | takes from `tests` what guessing passes as well, so that both are 2 times the *skill*| -2 to 0    |
| `cooperation` | 1.8 times the skill times the mean over the helpers of whether both did their part   | 0 to 1.8   |

The *skill* is the pass rate corrected for chance: 1 if all tests pass, 0 for what a constant, an argument handed back or
a list of the prompt's examples passes. No *attempt*: constants, tables of the examples, stubs, programs that end or never
do; they score 0 like an empty text. A helper is *of use* if its value reaches the result and the pass rate falls when it is
replaced by a stub that replays its own recorded values permuted over its calls; a helper that is constant or returns an
argument is not. *Both did their part* unless the main function only hands on what the helper returns, or the helper passes the
tests in its place. `textmarl.envs.coding.hardened` has the rules and the reasons, `docs/rewards_coding.md` what junk and honest
programs score, and what still gets through.

An agent that solves the problem alone earns 2.15 of 4 for the team: the tests in full and no cooperation. With `main_only`
that is the maximum.

A step pays what the score has gained since the turn before, so that an episode's rewards add up to its last score; there
is no `reward_shift` unless you give one. An episode ends early at 0.95 of the maximum.

With `reward="individual"` a helper gets 0.4 if it is defined and returns a value and 0.5 if it then parses, the main agent
0.6, 0.5 and the pass rate of its function without any helper. Only then do `infos` have `individual_reward`: the main
agent's takes a second run of the tests, which is made only where it is paid.

`infos[agent]["metrics"]`: `pass_rate`, `all_passed` (1.0 if all tests passed), `timeouts`.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/Compose-v1")
    >>> observations, infos = env.reset(options={"task": "Compose/0"})
    >>> print(observations["helper"][observations["helper"].index("It calls") :])
    It calls this helper function, which is your part:
    <BLANKLINE>
    ```python
    def aux(number: int) -> int:
        \"\"\"Returns twice the given number.\"\"\"
    ```
    <BLANKLINE>
    Write the whole function `aux` and only that. Answer with Python code only.
    >>> helper, main = "def aux(number):\\n    return 2 * number", "def doubled_plus(a, b):\\n    return aux(a) + b"
    >>> _, rewards, _, _, infos = env.step({"helper": helper, "main": main})
    >>> rewards
    {'helper': 4.0, 'main': 4.0}
    >>> env.close()

### Version History

* v1: 105 problems, scored by the hardened reward; there is no version 0 (0.1.0)
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Mapping
from importlib import resources
from typing import Any

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.coding.core_v1 import HardenedCodingEnv
from textmarl.envs.coding.problem import Problem
from textmarl.envs.coding.splits import part_of, with_problems
from textmarl.envs.sandbox import Suite, Test
from textmarl.envs.tasks import Task, TaskSet, load_tasks, parse_split

COLUMNS = {
    "task_id": str,
    "difficulty": int,
    "topic": str,
    "entry_point": str,
    "prompt": str,
    "shown_tests": list,
    "hidden_tests": list,
    "references": list,
}

_TOGETHER = "{number} programmers write this Python function together.\n\n```python\n{prompt}\n```\n\n"
HELPER_INSTRUCTION = _TOGETHER + (
    "It calls this helper function, which is your part:\n\n```python\n{own}\n```\n\n"
    "Write the whole function `{name}` and only that. Answer with Python code only."
)
MAIN_INSTRUCTION = _TOGETHER + (
    "{who} write{verb} {these}, which you may call:\n\n```python\n{division}\n```\n\n"
    "Write the whole function `{name}` and only that. Answer with Python code only."
)
_NUMBERS = ("Two", "Three", "Four", "Five", "Six", "Seven", "Eight")


class Compose(HardenedCodingEnv):
    """The Compose environment; the module's description is its page.

    Args:
        split: which problems, such as "train", "test[:10]" or "all".
        source: "bundled" or a path.
        n_agents: the main agent and n - 1 helpers.
        difficulty: one level or several; None: all.
        division: whether the agents are told how the work is divided; None: where the problem says how.
        **options: those of `textmarl.envs.coding.core.CodingEnv`.

    Raises:
        ValueError, LookupError, FileNotFoundError: data or options make no sense, or no problem is left.
    """

    metadata = {"name": "Compose-v1", "render_modes": ["ansi"], "is_parallelizable": True}
    metric_names = ("pass_rate", "all_passed", "timeouts")

    def __init__(
        self,
        split: str = "train",
        source: str | os.PathLike[str] = "bundled",
        *,
        n_agents: int = 2,
        difficulty: int | Collection[int] | None = None,
        division: bool | None = None,
        **options: Any,
    ) -> None:
        if type(n_agents) is not int or n_agents < 2:
            raise ValueError(
                f"n_agents must be a whole number of at least 2 (helpers and a main agent), not {n_agents!r}; "
                "main_only=True leaves the helper out."
            )
        if division not in (None, True, False):
            raise ValueError(f"division must be True, False or None, not {division!r}.")
        self.helpers = {"helper": "aux"}
        if n_agents > 2:
            self.helpers = {f"helper_{i}": f"aux_{i}" for i in range(1, n_agents)}
        self.possible_agents = [*self.helpers, "main"]
        self.division = division
        super().__init__(
            load_problems(source, split, difficulty, helpers=n_agents - 1 if division else None), **options
        )

    def observe(self, agent: str) -> str:
        """The agent's instruction with the prompt and the division of the work; from the second turn on the feedback."""
        parts = None if self.division is False else division_of(self.task, len(self.helpers))
        if self.history or not self.helpers or parts is None:
            return super().observe(agent)
        stubs = {part["name"]: f'{part["signature"]}\n    """{part["task"]}"""' for part in parts}
        several, name = len(stubs) > 1, self.function_of(agent)
        texts = {
            "number": _NUMBERS[len(stubs) - 1] if len(stubs) <= len(_NUMBERS) else str(len(stubs) + 1),
            "name": name,
            "own": stubs.get(name, ""),
            "who": "The others" if several else "The other one",
            "verb": "" if several else "s",
            "these": "these helper functions" if several else "this helper function",
            "division": "\n\n".join(stubs.values()),
            "prompt": self.problem.prompt.strip("\n").rstrip(),
        }
        instruction = HELPER_INSTRUCTION if agent in self.helpers else MAIN_INSTRUCTION
        for word, text in texts.items():
            instruction = instruction.replace(f"{{{word}}}", text)
        return instruction


def load_problems(
    source: str | os.PathLike[str],
    split: str,
    difficulty: int | Collection[int] | None = None,
    helpers: int | None = None,
) -> TaskSet:
    """Compose's tasks, each with its `problem`.

    Args:
        source: "bundled" or the path of a file or folder with the same columns.
        split: "train", "test", "all" or a slice of them.
        difficulty: one level or several; None: all.
        helpers: only problems with a division of the work among so many; None: all.

    Raises:
        As `Compose` says.
    """
    name, _ = parse_split(split)
    bundled = resources.files("textmarl.envs.coding").joinpath("data", "compose")
    parts = ("train", "test") if (source, name) == ("bundled", "all") else (name,)
    loaded = [
        load_tasks(source, part, columns=COLUMNS, bundled=bundled, id_column="task_id") for part in parts
    ]
    levels = _levels(difficulty)
    chosen = [
        task
        for task in itertools.chain(*loaded)
        if (levels is None or task.data["difficulty"] in levels)
        and (helpers is None or division_of(task, helpers) is not None)
    ]
    if not chosen:
        raise LookupError(
            f"{loaded[0].name}: no problem of the split {name!r} has difficulty={difficulty!r}"
            + (f" and a division of the work among {helpers} helpers: " if helpers is not None else ": ")
            + "ask for other levels (1 to 5 in the bundled problems), or another division."
        )
    return with_problems(part_of(chosen, loaded[0].name, split), problem_of)


def problem_of(row: Task) -> Problem:
    """The problem of a row: its prompt and its tests, those that may be shown first."""
    shown, hidden = row.data["shown_tests"], row.data["hidden_tests"]
    suite = Suite(row.data["entry_point"], tuple(Test(text) for text in (*shown, *hidden)))
    return Problem(row.data["prompt"], suite, shown=len(shown))


def division_of(row: Task, helpers: int) -> list[Mapping[str, str]] | None:
    """How a problem's work is divided among so many helpers: the `name`, `signature` and `task` of each; or None."""
    for reference in row.data["references"]:
        if len(reference["helpers"]) == helpers:
            return list(reference["helpers"])
    return None


def _levels(difficulty: int | Collection[int] | None) -> frozenset[int] | None:
    if difficulty is None:
        return None
    levels: Iterable[Any] = (difficulty,) if isinstance(difficulty, int) else difficulty
    if isinstance(levels, str) or not all(type(level) is int for level in levels):
        raise ValueError(f"difficulty must be a level, several levels or None, not {difficulty!r}.")
    return frozenset(levels)


parallel_env = Compose
raw_env = env = aec_wrapper_fn(Compose)
