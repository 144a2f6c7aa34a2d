"""
# MBPP

A helper and a main agent write one Python function together, from one sentence that says what it does: the helper
writes a function `aux`, the main agent the function asked for, which may call `aux` without having seen it.

| Creation           | `make("parallel", "textmarl/MBPP-v0")`                                                   |
|--------------------|------------------------------------------------------------------------------------------|
| Agents             | `agents = ["helper", "main"]`; with `main_only` `["main"]`                               |
| Actions            | `UnicodeText()`: any `str`                                                               |
| Observations       | `UnicodeText()`: the instruction, signature and sentence, then feedback                  |
| Turns              | 1, or more by `max_turns`                                                                |
| Score              | 0 to 4, with `main_only` 0 to 2.1                                                        |
| Individual rewards | yes                                                                                      |
| Metrics            | `pass_rate`, `all_passed`, `timeouts`                                                    |
| Source             | MAGRPO (arXiv 2508.04652), data: Austin et al. 2021 (arXiv 2108.07732), sanitized, 427   |
| Version            | the published reward, to compare with papers; else take `-v1`                            |

The data comes from the Hub (`google-research-datasets/mbpp`, `pip install datasets` and a network) or from a local
copy: the authors' file `sanitized-mbpp.json` serves as it is (`source="sanitized-mbpp.json"`, downloaded from
https://github.com/google-research/google-research/tree/master/mbpp). Programs run in `textmarl.envs.sandbox`.

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/MBPP-v0", split="train", source="hub", max_turns=2, feedback="level")
```

`split`: which problems: `"train"` (the paper's `test[15:65]`), `"test"` (the paper's `test[:15]`), the data set's own
splits whole, `"full-prompt"`, `"full-test"` (both of the paper's slices are in it), `"full-validation"` and
`"full-train"` (task ids 1-10, 11-510, 511-600 and 601-974), `"all"` (427), or a slice of one.

`source`: `"hub"` or the path of a JSONL file or JSON array whose rows have the columns `task_id`, `prompt` (the
sentence), `code` (a reference solution), `test_imports` and `test_list`. A column `split` in it decides which rows
`"train"` and `"test"` are.

`max_turns`, `feedback`, `expert`, `shown_tests`, `main_only`, `reward`, `reward_fn`, `reward_shift`, `max_score`,
`sandbox`, `render_mode`: as for HumanEval.

### Observations

| Agent    | First turn                                                                                      |
|----------|-------------------------------------------------------------------------------------------------|
| `helper` | signature and sentence, as a function without body, and the request for `aux`, code only        |
| `main`   | signature and sentence, and the request for the whole function; it may call `aux(...)`          |

The function is the one that the tests call, its signature that of the reference solution. No test is in the prompt
(other work on MBPP shows all of them). Later turns bring feedback as in HumanEval, in which the shown tests, by default
the first, are named; no agent sees another's text.

### Actions

One text per agent; any `str` is scored. Which part of it counts: `textmarl.envs.coding.assembly`.

### Rewards

| Term             | Rule                                                                                | Value  |
|------------------|-------------------------------------------------------------------------------------|--------|
| `helper`         | `aux` is defined and returns a value                                                | 0.4    |
| `main`           | the main function is defined and returns a value; else stop                         | 0.6    |
| `syntax`         | `aux` and the main function parse; else stop                                        | 0.5    |
| `tests`          | passed tests / all tests                                                            | 0 to 1 |
| `calls_helper`   | a test passed, `aux` earned its 0.4, and the main function calls it                 | 0.5    |
| `not_wrapper`    | and is more than `return aux(...)`, or `v = aux(...)` and `return v`                | 1.0    |
| `helper_ignored` | and uses the value of no call                                                       | -0.5   |

A test is one entry of `test_list`; 397 of the 427 problems have three. Limits, early ending, individual rewards and
metrics: as for HumanEval.

### Example

    >>> import json, tempfile
    >>> import pettingzoo
    >>> import textmarl.envs
    >>> row = {
    ...     "task_id": 2000,
    ...     "prompt": "Write a function to find the larger one of the digit sums of two numbers.",
    ...     "code": "def larger_sum(a, b):\\n    return max(sum(map(int, str(n))) for n in (a, b))",
    ...     "test_imports": [],
    ...     "test_list": ["assert larger_sum(19, 55) == 10", "assert larger_sum(8, 100) == 8"],
    ... }
    >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    ...     print(json.dumps([row]), file=file, flush=True)
    ...     env = pettingzoo.make("parallel", "textmarl/MBPP-v0", source=file.name, split="all")
    >>> observations, infos = env.reset(options={"task": "MBPP/2000"})
    >>> print(env.problem.prompt)
    def larger_sum(a, b):
        \"\"\"Write a function to find the larger one of the digit sums of two numbers.\"\"\"
    >>> helper = "def aux(n):\\n    return sum(int(digit) for digit in str(n))"
    >>> main = "def larger_sum(a, b):\\n    return max(aux(a), aux(b))"
    >>> _, rewards, _, _, infos = env.step({"helper": helper, "main": main})
    >>> rewards
    {'helper': 4.0, 'main': 4.0}
    >>> env.close()

### Version History

* v0: the published reward, formula and constants (0.1.0)
"""

from __future__ import annotations

import ast
import copy
import itertools
import os
import warnings
from typing import Any

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.coding.checks import mbpp_suite
from textmarl.envs.coding.core import CodingEnv
from textmarl.envs.coding.problem import Problem
from textmarl.envs.coding.splits import load_file, load_split, part_of, with_problems
from textmarl.envs.tasks import Task, TaskSet, load_tasks, parse_split

CUTS = {"train": "full-test[15:65]", "test": "full-test[:15]"}
"""The paper's slices of the data set's split "test"."""
IDS = {
    "full-prompt": range(1, 11),
    "full-test": range(11, 511),
    "full-validation": range(511, 601),
    "full-train": range(601, 975),
}
"""The task ids of the data set's own splits, as its authors give them."""
COLUMNS = {"task_id": int, "prompt": str, "code": str, "test_imports": list, "test_list": list}


class MBPP(CodingEnv):
    """The MBPP environment; the module's description is its page.

    Args:
        split: which problems, such as "train", "test", "full-test[:100]" or "all".
        source: "hub" or a path.
        **options: those of `textmarl.envs.coding.core.CodingEnv`.

    Raises:
        ValueError, LookupError, FileNotFoundError: data or options make no sense.
        ImportError, ConnectionError: the Hub cannot be reached.
    """

    metadata = {"name": "MBPP-v0", "render_modes": ["ansi"], "is_parallelizable": True}

    def __init__(self, split: str = "train", source: str | os.PathLike[str] = "hub", **options: Any) -> None:
        super().__init__(load_problems(source, split), **options)


def load_problems(source: str | os.PathLike[str], split: str) -> TaskSet:
    """MBPP's tasks, named "MBPP/<task_id>", each with its `problem`.

    Args:
        source: "hub" or the path of a file or folder in the data set's schema.
        split: "train", "test", "all", a split of `IDS`, or a slice of one.

    Raises:
        As `MBPP` says.
    """
    if source == "hub":
        rows = load_split(split, CUTS, _from_hub)
    else:
        rows = load_file(source, split, CUTS, COLUMNS, IDS)
    named = [Task(f"MBPP/{row.data['task_id']}", row.data) for row in rows]
    return with_problems(TaskSet(named, name=rows.name, split=rows.split), problem_of)


def problem_of(row: Task) -> Problem:
    """The problem of a row: its sentence as the docstring of a function with the reference solution's signature."""
    suite = mbpp_suite(row.data)
    with warnings.catch_warnings():  # an invalid escape in the reference
        warnings.simplefilter("ignore")
        reference = ast.parse(row.data["code"])
    functions = [
        node
        for node in reference.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == suite.entry_point
    ]
    if not functions:
        raise ValueError(f"{row.id}: the tests call {suite.entry_point!r}, which is no function in `code`.")
    signature = copy.copy(functions[-1])
    signature.decorator_list = []
    signature.body = [ast.Expr(ast.Constant(row.data["prompt"].strip()))]
    return Problem(ast.unparse(signature), suite)


def _from_hub(split: str) -> TaskSet:
    name, _ = parse_split(split)
    if name != "all" and name not in IDS:
        raise LookupError(f"MBPP has no split {name!r}; it has {[*CUTS, *IDS, 'all']}: choose one by split=.")
    parts = [
        load_tasks(
            "hub",
            part.removeprefix("full-"),
            columns=COLUMNS,
            hub="google-research-datasets/mbpp",
            hub_config="sanitized",
            id_column="task_id",
        )
        for part in (IDS if name == "all" else [name])
    ]
    return part_of(itertools.chain(*parts), "google-research-datasets/mbpp", split)


parallel_env = MBPP
raw_env = env = aec_wrapper_fn(MBPP)
