"""
# HumanEval, version 1

A helper and a main agent write one Python function together. Task and observations are those of version 0; the reward
pays for tests passed beyond what guessing passes, and for work that was really shared.

| Creation           | `make("parallel", "textmarl/HumanEval-v1")`                                        |
|--------------------|------------------------------------------------------------------------------------|
| Agents             | `agents = ["helper", "main"]`; with `main_only` `["main"]`                         |
| Actions            | `UnicodeText()`: any `str`                                                         |
| Observations       | `UnicodeText()`: the instruction and the prompt, then feedback                     |
| Turns              | 1, or more by `max_turns`                                                          |
| Score              | 0 to 4, with `main_only` 0 to 2.15                                                 |
| Individual rewards | yes, those of version 0                                                            |
| Metrics            | `pass_rate`, `all_passed`, `timeouts`, `v0_score`                                  |
| Source             | task: MAGRPO (arXiv 2508.04652); data: Chen et al. 2021; reward: this project      |
| Version            | a reward for shared work that passes tests; `-v0`: the published one               |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/HumanEval-v1", split="train", max_turns=2, feedback="level")
```

All arguments are those of `textmarl/HumanEval-v0`.

### Observations

Those of version 0. Feedback of the mode `"level"` says instead of what the code does with `aux` what the reward below
found in all tests together: why it is no attempt, whether it passes more than a guess, whether the main function needs
`aux`, and whether both did a part (`textmarl.envs.coding.feedback_v1`). Of a single hidden test it says nothing.

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

The *skill* is the pass rate corrected for chance: 1 if all tests pass, 0 for what a constant, an argument handed back or
a list of the prompt's examples passes. No *attempt*: constants, tables of the examples, stubs, programs that end or never
do; they score 0 like an empty text. `aux` is *of use* if its value reaches the result and the pass rate falls when it is
replaced by a stub that replays its own recorded values permuted over its calls; an `aux` that is constant or returns an
argument is not. *Both did their part* unless the main function only hands on what `aux` returns, or `aux` passes the tests
in its place. `textmarl.envs.coding.hardened` has the rules and the reasons, `docs/rewards_coding.md` what junk and honest
programs score, and what still gets through.

An agent that solves the problem alone earns 2.15 of 4 for the team: the tests in full and no cooperation. With `main_only`
that is the maximum.

A step pays what the score has gained since the turn before, so that an episode's rewards add up to its last score; there
is no `reward_shift` unless you give one. An episode ends early at 0.95 of the maximum.

With `reward="individual"` each agent gets what version 0 gives it, and `infos` have `individual_reward`. With the team
reward they have not: main's takes a second run of the tests, without the helper, which is made only where it is paid.

`infos[agent]["metrics"]` are those of version 0 and `v0_score`: what version 0 would have paid, 0 to 4. It is logged, never
paid.

What `aux` returns must be plain data (numbers, texts, lists, tuples, dicts, sets, iterators of these): a function or an
object of an own class cannot be replayed, and earns no cooperation.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/HumanEval-v1", split="all")
    >>> observations, infos = env.reset(options={"task": "HumanEval/0"})
    >>> helper = "def aux(numbers):\\n    return sorted(numbers)"
    >>> main = (
    ...     "def has_close_elements(numbers, threshold):\\n"
    ...     "    ordered = aux(numbers)\\n"
    ...     "    return any(b - a < threshold for a, b in zip(ordered, ordered[1:]))"
    ... )
    >>> _, rewards, _, _, infos = env.step({"helper": helper, "main": main})
    >>> rewards["main"]
    4.0

A main function that works alone and drops what `aux` returns; version 0 pays it the maximum where the call is
multiplied by zero, and 3.5 where it is dropped:

    >>> observations, infos = env.reset(options={"task": "HumanEval/0"})
    >>> alone = main.replace("aux(numbers)", "sorted(numbers); aux(numbers)")
    >>> _, rewards, _, _, infos = env.step({"helper": helper, "main": alone})
    >>> round(rewards["main"], 2), infos["main"]["metrics"]["v0_score"]
    (2.15, 3.5)
    >>> env.close()

### Version History

* v1: experiments tell who did the work; guessing, formats and discarded calls pay next to nothing (0.1.0)
* v0: the published reward, formula and constants (0.1.0)
"""

from __future__ import annotations

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.coding import humaneval
from textmarl.envs.coding.core_v1 import HardenedCodingEnv


class HumanEval(HardenedCodingEnv, humaneval.HumanEval):
    """The HumanEval environment with the hardened reward; the module's description is its page.

    Arguments and errors are those of version 0.
    """

    metadata = {"name": "HumanEval-v1", "render_modes": ["ansi"], "is_parallelizable": True}


parallel_env = HumanEval
raw_env = env = aec_wrapper_fn(HumanEval)
