"""
# MBPP, version 1

A helper and a main agent write one Python function together, from one sentence. Task and observations are those of
version 0; the reward pays for tests passed beyond what guessing passes, and for work that was really shared.

| Creation           | `make("parallel", "textmarl/MBPP-v1")`                                             |
|--------------------|------------------------------------------------------------------------------------|
| Agents             | `agents = ["helper", "main"]`; with `main_only` `["main"]`                         |
| Actions            | `UnicodeText()`: any `str`                                                         |
| Observations       | `UnicodeText()`: the instruction and the prompt, then feedback                     |
| Turns              | 1, or more by `max_turns`                                                          |
| Score              | 0 to 4, with `main_only` 0 to 2.15                                                 |
| Individual rewards | yes, those of version 0                                                            |
| Metrics            | `pass_rate`, `all_passed`, `timeouts`, `v0_score`                                  |
| Source             | task: MAGRPO (arXiv 2508.04652); data: Austin et al. 2021; reward: this project    |
| Version            | a reward for shared work that passes tests; `-v0`: the published one               |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/MBPP-v1", split="train", source="hub")
```

All arguments are those of `textmarl/MBPP-v0`.

### Observations

Those of version 0, with feedback as in `textmarl/HumanEval-v1`.

### Actions

One text per agent. Any `str` is scored, as in version 0; what counts of it: `textmarl.envs.coding.assembly`.

### Rewards

| Term          | Rule                                                                                 | Value      |
|---------------|--------------------------------------------------------------------------------------|------------|
| `main`        | the main function is Python, returns a value and is an attempt                       | 0.1        |
| `syntax`      | and the program of all parts parses and loads                                        | 0.05       |
| `helper`      | and `aux` is of use; where a test tells, as `cooperation`, times 0.05                | 0 to 0.05  |
| `tests`       | 2 times passed tests / all tests                                                     | 0 to 2     |
| `guessing`    | takes from `tests` what guessing passes as well, so that both are 2 times the *skill*| -2 to 0    |
| `cooperation` | 1.8 times the skill, if both did their part                                          | 0 to 1.8   |

What the words mean (*skill*, an *attempt*, *of use*, *both did their part*), what is paid with several turns, individual
rewards and metrics: as for `textmarl/HumanEval-v1`. One agent that solves the problem alone earns the team 2.15 of 4.

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
    ...     env = pettingzoo.make("parallel", "textmarl/MBPP-v1", source=file.name, split="all")
    >>> observations, infos = env.reset(seed=0)
    >>> helper = "def aux(n):\\n    return sum(int(digit) for digit in str(n))"
    >>> main = "def larger_sum(a, b):\\n    return max(aux(a), aux(b))"
    >>> _, rewards, _, _, infos = env.step({"helper": helper, "main": main})
    >>> rewards
    {'helper': 4.0, 'main': 4.0}
    >>> env.close()

### Version History

* v1: experiments tell who did the work; guessing, formats and discarded calls pay next to nothing (0.1.0)
* v0: the published reward, formula and constants (0.1.0)
"""

from __future__ import annotations

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.coding import mbpp
from textmarl.envs.coding.core_v1 import HardenedCodingEnv


class MBPP(HardenedCodingEnv, mbpp.MBPP):
    """The MBPP environment with the hardened reward; the module's description is its page.

    Arguments and errors are those of version 0.
    """

    metadata = {"name": "MBPP-v1", "render_modes": ["ansi"], "is_parallelizable": True}


parallel_env = MBPP
raw_env = env = aec_wrapper_fn(MBPP)
