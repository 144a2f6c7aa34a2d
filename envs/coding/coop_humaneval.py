"""
# CoopHumanEval

Like HumanEval, on problems chosen for cooperation: functions that fall naturally into a helper and a main function, which
two agents write at the same time without seeing each other's code.

| Creation           | `make("parallel", "textmarl/CoopHumanEval-v0")`                      |
|--------------------|----------------------------------------------------------------------|
| Agents             | `agents = ["helper", "main"]`; with `main_only` `["main"]`           |
| Actions            | `UnicodeText()`: any `str`                                           |
| Observations       | `UnicodeText()`: the instruction and the prompt, then feedback       |
| Turns              | 1, or more by `max_turns`                                            |
| Score              | 0 to 4, with `main_only` 0 to 2.1                                    |
| Individual rewards | yes                                                                  |
| Metrics            | `pass_rate`, `all_passed`, `timeouts`                                |
| Source             | MAGRPO (arXiv 2508.04652), data `OpenMLRL/CoopHumanEval`             |
| Version            | the published reward, to compare with papers; else take `-v1`        |

The data comes from the Hub (`pip install datasets` and a network) or from a local copy of it. Programs run in
`textmarl.envs.sandbox`.

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/CoopHumanEval-v0", split="train", source="hub", max_turns=2, feedback="level")
```

`split`: which problems: `"train"` (the paper's `[16:]`), `"test"` (the paper's `[:16]`), `"all"` (82), or a slice of one,
such as `"train[:8]"`.

`source`: `"hub"` or the path of a JSONL file or JSON array whose rows have the columns `prompt`, `test` and `entry_point`
(`task_id`, if any, names the task). A column `split` in it decides which rows `"train"` and `"test"` are.

`max_turns`, `feedback`, `expert`, `shown_tests`, `main_only`, `reward`, `reward_fn`, `reward_shift`, `max_score`,
`sandbox`, `render_mode`: as for HumanEval.

### Observations

| Agent    | First turn                                                                                    |
|----------|-----------------------------------------------------------------------------------------------|
| `helper` | the prompt (imports, signature, docstring) and the request for a function `aux`, code only    |
| `main`   | the prompt and the request for the whole function, code only; it may call `aux(...)`          |

Later turns bring feedback as in HumanEval; no test but the shown ones is ever named, and no agent sees another's text.

### Actions

One text per agent; any `str` is scored. Which part of it counts: `textmarl.envs.coding.assembly`.

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

What a test is, limits, early ending, individual rewards and metrics: as for HumanEval.

### Example

    >>> import json, tempfile
    >>> import pettingzoo
    >>> import textmarl.envs
    >>> row = {
    ...     "task_id": "CoopHumanEval/0",
    ...     "prompt": 'def sum_of_primes(n):\\n    \\"\\"\\"The sum of all primes up to n.\\"\\"\\"\\n',
    ...     "test": "def check(candidate):\\n    assert candidate(1) == 0\\n    assert candidate(10) == 17\\n",
    ...     "entry_point": "sum_of_primes",
    ... }
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     print(json.dumps(row), file=file, flush=True)
    ...     env = pettingzoo.make("parallel", "textmarl/CoopHumanEval-v0", source=file.name, split="all")
    >>> observations, infos = env.reset(seed=0)
    >>> helper = "def aux(k):\\n    return k > 1 and all(k % d for d in range(2, k))"
    >>> main = "def sum_of_primes(n):\\n    return sum(k for k in range(n + 1) if aux(k))"
    >>> _, rewards, _, _, infos = env.step({"helper": helper, "main": main})
    >>> rewards
    {'helper': 4.0, 'main': 4.0}
    >>> env.close()

### Version History

* v0: the published reward, formula and constants (0.1.0)
"""

from __future__ import annotations

import os
from typing import Any

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.coding.core import CodingEnv
from textmarl.envs.coding.humaneval import COLUMNS, problem_of
from textmarl.envs.coding.splits import load_file, load_split, with_problems
from textmarl.envs.tasks import TaskSet, load_tasks

CUTS = {"train": "all[16:]", "test": "all[:16]"}
"""The paper's slices of the data set's only split."""


class CoopHumanEval(CodingEnv):
    """The CoopHumanEval environment; the module's description is its page.

    Args:
        split: which problems, such as "train", "test" or "all[:16]".
        source: "hub" or a path.
        **options: those of `textmarl.envs.coding.core.CodingEnv`.

    Raises:
        ValueError, LookupError, FileNotFoundError: data or options make no sense.
        ImportError, ConnectionError: the Hub cannot be reached.
    """

    metadata = {"name": "CoopHumanEval-v0", "render_modes": ["ansi"], "is_parallelizable": True}

    def __init__(self, split: str = "train", source: str | os.PathLike[str] = "hub", **options: Any) -> None:
        super().__init__(load_problems(source, split), **options)


def load_problems(source: str | os.PathLike[str], split: str) -> TaskSet:
    """CoopHumanEval's tasks, each with its `problem`.

    Args:
        source: "hub" or the path of a file or folder in the data set's schema.
        split: "train", "test", "all" or a slice of them.

    Raises:
        As `CoopHumanEval` says.
    """

    def from_hub(name: str) -> TaskSet:
        return load_tasks(
            source,
            name,
            columns=COLUMNS,
            hub="OpenMLRL/CoopHumanEval",
            hub_splits={"all": "test"},
            id_column="task_id",
        )

    if source == "hub":
        rows = load_split(split, CUTS, from_hub)
    else:
        rows = load_file(source, split, CUTS, COLUMNS)
    return with_problems(rows, problem_of)


parallel_env = CoopHumanEval
raw_env = env = aec_wrapper_fn(CoopHumanEval)
