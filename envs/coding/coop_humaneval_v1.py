"""
# CoopHumanEval, version 1

A helper and a main agent write one Python function together, on problems made for two. Task and observations are those
of version 0; the reward pays for tests passed beyond what guessing passes, and for work that was really shared.

| Creation           | `make("parallel", "textmarl/CoopHumanEval-v1")`                                    |
|--------------------|------------------------------------------------------------------------------------|
| Agents             | `agents = ["helper", "main"]`; with `main_only` `["main"]`                         |
| Actions            | `UnicodeText()`: any `str`                                                         |
| Observations       | `UnicodeText()`: the instruction and the prompt, then feedback                     |
| Turns              | 1, or more by `max_turns`                                                          |
| Score              | 0 to 4, with `main_only` 0 to 2.15                                                 |
| Individual rewards | yes, those of version 0                                                            |
| Metrics            | `pass_rate`, `all_passed`, `timeouts`, `v0_score`                                  |
| Source             | task and data: MAGRPO (arXiv 2508.04652); reward: this project                     |
| Version            | a reward for shared work that passes tests; `-v0`: the published one               |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/CoopHumanEval-v1", split="train", source="hub")
```

All arguments are those of `textmarl/CoopHumanEval-v0`.

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
    ...     "task_id": "CoopHumanEval/0",
    ...     "prompt": 'def sum_of_primes(n):\\n    \\"\\"\\"The sum of all primes up to n.\\"\\"\\"\\n',
    ...     "test": "def check(f):\\n    assert f(1) == 0\\n    assert f(10) == 17\\n    assert f(3) == 5\\n",
    ...     "entry_point": "sum_of_primes",
    ... }
    >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    ...     print(json.dumps(row), file=file, flush=True)
    ...     env = pettingzoo.make("parallel", "textmarl/CoopHumanEval-v1", source=file.name, split="all")
    >>> observations, infos = env.reset(seed=0)
    >>> helper = "def aux(k):\\n    return k > 1 and all(k % d for d in range(2, k))"
    >>> main = "def sum_of_primes(n):\\n    return sum(k for k in range(n + 1) if aux(k))"
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

from textmarl.envs.coding import coop_humaneval
from textmarl.envs.coding.core_v1 import HardenedCodingEnv


class CoopHumanEval(HardenedCodingEnv, coop_humaneval.CoopHumanEval):
    """The CoopHumanEval environment with the hardened reward; the module's description is its page.

    Arguments and errors are those of version 0.
    """

    metadata = {"name": "CoopHumanEval-v1", "render_modes": ["ansi"], "is_parallelizable": True}


parallel_env = CoopHumanEval
raw_env = env = aec_wrapper_fn(CoopHumanEval)
