r"""
# Decoy

A convention that nearly always works hides the one that always does. All players see two clues: a *sign* and a
*map*, each pointing to a word. If all follow the map the team gets everything, always. Following the sign pays a
part, and it pays that part for every player who does, whatever the others do. As sign and map mostly point to
the same word in training, a team of sign followers scores almost the optimum, and a single player who turns to
the map loses. On the test split sign and map never agree: the score there tells which convention was learned.

| Creation           | `make("parallel", "textmarl/Decoy-v0")`                                 |
|--------------------|-------------------------------------------------------------------------|
| Agents             | `player_0` ... `player_{n_agents - 1}`; default 2                       |
| Actions            | `UnicodeText()`: any `str`; it is read as one of `n_actions` words      |
| Observations       | `UnicodeText()`: the words, the rule, the two clues                     |
| Turns              | 1 by default; more repeat the task                                      |
| Score              | -1 to 1                                                                 |
| Individual rewards | no: `reward="individual"` is refused                                    |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/Decoy-v0", n_agents=2, n_actions=3, correlation=0.9, decoy_payoff=0.5)
```

`split`: `"train"` (128 tasks), `"test"` (32 tasks) or a slice such as `"train[:64]"`. No word occurs in both
splits.

`n_agents`: at least 2. `n_actions`: how many words, 2 to 28.

`correlation`: the share of the train tasks in which sign and map agree, 0 to 1. Default 0.9, rounded to whole
tasks: 115 of 128. In the test tasks they never agree.

`decoy_payoff`: d, what the team gets if all follow the sign and it is wrong; between 0 and 1, both excluded.
Default 0.5.

`show_payoffs`: False keeps the rule from the agents: nothing but the reward then distinguishes sign and map.
Default True.

`task_seed`: draws the tasks. Default 0.

`max_turns`: how often a task is played in an episode (`max_cycles` of `make` means the same). Default 1.

`reward_fn`, `reward_shift`, `max_score`, `render_mode`: as for every text environment; `task.data` has the
columns `words`, `sign` and `map` (both indices of words).

### Observations

All agents read the same but for their name: the numbered words, the rule and the two clues. From turn 2 on:
what every player chose (the word, never its text) and the points.

### Actions

The first word of the text that is an action's name counts; only where there is none, the first one-character
alias (`1`, `2`, ... for the first, second, ... word of the list; after `9` come letters). Case and what
surrounds it do not matter, the number in a player's name (`player_1`) is no alias, and naming several words is
choosing the first of them. Any `str` is accepted.

### Rewards

| Term      | Value                                                                                      |
|-----------|--------------------------------------------------------------------------------------------|
| `map`     | 1 if all players choose the map's word, else 0                                             |
| `sign`    | d times the share of the players who choose the sign's word; 0 where `map` is 1            |
| `illegal` | minus the share of the players whose text chooses no word                                  |

### Expected Returns

Per turn, for N agents, K words and q, the share of the tasks at hand in which sign and map agree (115/128 in
"train", 0 in "test"); `optimal_return`, `decoy_return` and `uniform_return` multiply them by `max_turns`.

| Play                   | Score                          | Train | Test  |
|------------------------|--------------------------------|-------|-------|
| optimal: all the map   | 1                              | 1     | 1     |
| decoy: all the sign    | q + (1 - q) d                  | 0.949 | 0.5   |
| uniform                | K^-N + d/K - q d K^-N          | 0.228 | 0.278 |
| junk by all            | -1                             | -1    | -1    |

In every task the map and, where they differ, the sign is an equilibrium: who turns from the sign to the map
alone takes d/N from the team.

Measured with the defaults: the untrained `tiny` model (temperature 1, 8 tokens, three seeds, standard error)
scores -0.72 ± 0.01 on train: 24 % of its texts choose a word.

Trained with MAGRPO, full weights, 150 steps (`textmarl train --config benchmarks/configs/games_tiny.yaml --env
textmarl/Decoy-v0 --seed S`, one thread, half a minute), the seeds 0, 1 and 2 reach 0.40 (0.405, 0.400, 0.403) of 1
on test: both players say the third word whatever sign and map say (always the third: 0.406). They have learnt to play
actions and to agree, and not to read.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/Decoy-v0", split="test")
    >>> observations, infos = env.reset(options={"task": 0})
    >>> print(observations["player_0"])
    You are player_0, one of 2 players.
    Words: 1 satin, 2 honey, 3 sugar.
    All players choose one word at the same time, unseen by the others, and all get the same points.
    All the word of the map: 1 point. Otherwise 0.5 times the share of the players with the word of the sign.
    The sign says 1 satin. The map says 2 honey.
    Answer with one word or its number; anything else costs points.
    >>> _, rewards, _, _, infos = env.step({"player_0": "1", "player_1": "Honey!"})
    >>> infos["player_0"]["reward_terms"]
    {'map': 0.0, 'sign': 0.25, 'illegal': 0.0}
    >>> env.optimal_return, env.decoy_return, round(env.uniform_return, 4)
    (1.0, 0.5, 0.2778)
    >>> sorted(env.reference_scores)
    ['decoy', 'optimal', 'uniform']

### Version History

* v0: first version (0.1.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.games.game import N_TASKS, SimultaneousGame, check_sizes
from textmarl.envs.games.vocabulary import ALIASES, shuffled, task_set, word_lists


class Decoy(SimultaneousGame):
    """The Decoy environment; the module's description is its page.

    Args:
        split: "train", "test" or a slice of one of them.
        n_agents: at least 2.
        n_actions: how many words, 2 to 28.
        correlation: the share of the train tasks in which sign and map agree.
        decoy_payoff: what all following a wrong sign is worth, between 0 and 1.
        show_payoffs: whether the agents are told the rule.
        task_seed: draws the tasks.
        **options: `reward_fn`, `reward_shift`, `max_score`, `max_turns`, `max_cycles` and `render_mode` of
            `TextEnv`.

    Attributes:
        agreement: the share of the tasks at hand in which sign and map agree.

    Raises:
        ValueError: an argument makes no sense. LookupError: there is no such split.
    """

    metadata = {"name": "Decoy-v0", "render_modes": ["ansi"], "is_parallelizable": True}
    term_names = ("map", "sign", "illegal")

    def __init__(
        self,
        split: str = "train",
        *,
        n_agents: int = 2,
        n_actions: int = 3,
        correlation: float = 0.9,
        decoy_payoff: float = 0.5,
        show_payoffs: bool = True,
        task_seed: int = 0,
        **options: Any,
    ) -> None:
        check_sizes("Decoy", n_agents, n_actions, fewest_actions=2)
        if not _is_number(correlation) or not 0 <= correlation <= 1:
            raise ValueError(f"Decoy: correlation must be a number from 0 to 1, not {correlation!r}.")
        if not _is_number(decoy_payoff) or not 0 < decoy_payoff < 1:
            raise ValueError(f"Decoy: decoy_payoff must be a number between 0 and 1, not {decoy_payoff!r}.")
        self.decoy_payoff = float(decoy_payoff)
        self.show_payoffs = bool(show_payoffs)

        def rows(name: str) -> list[dict[str, Any]]:
            lists = word_lists(name, n_actions, N_TASKS[name], task_seed)
            agreeing = round(correlation * len(lists)) if name == "train" else 0
            truthful = shuffled([number < agreeing for number in range(len(lists))], task_seed, name, "sign")
            # Every position is right equally often: a player who never reads gains nothing.
            maps = shuffled([number % n_actions for number in range(len(lists))], task_seed, name, "map")
            tasks = []
            for number, row in enumerate(lists):
                others = [action for action in range(n_actions) if action != maps[number]]
                astray = shuffled(others, task_seed, name, number, "astray")[0]
                sign = maps[number] if truthful[number] else astray
                tasks.append({"words": row, "sign": sign, "map": maps[number]})
            return tasks

        tasks = task_set("Decoy", split, rows)
        self.agreement = sum(task.data["sign"] == task.data["map"] for task in tasks) / len(tasks)
        super().__init__(tasks, n_agents=n_agents, n_actions=n_actions, **options)

    @property
    def decoy_return(self) -> float:
        """The expected return of a team that always follows the sign, on the tasks at hand."""
        return self.max_turns * self.other_scores()["decoy"]

    def other_scores(self) -> dict[str, float]:
        """That of a team that always follows the sign, on the tasks at hand."""
        return {"decoy": self.agreement + (1 - self.agreement) * self.decoy_payoff}

    def payoffs(self, actions: Sequence[int | None]) -> dict[str, float]:
        """The terms `map` and `sign`; None follows neither."""
        sign, target = self.task.data["sign"], self.task.data["map"]
        if all(action == target for action in actions):
            return {"map": 1.0, "sign": 0.0}
        followers = sum(action == sign for action in actions)
        return {"map": 0.0, "sign": self.decoy_payoff * followers / self.n_agents}

    @property
    def uniform_score(self) -> float:
        """The expected score of one turn of uniform play on the tasks at hand: the module's formula."""
        n, k = self.n_agents, self.n_actions
        all_on_map = float(k) ** -n
        return all_on_map + self.decoy_payoff / k - self.agreement * self.decoy_payoff * all_on_map

    def rules(self) -> str:
        """The payoffs in words."""
        return (
            f"All the word of the map: 1 point. Otherwise {self.decoy_payoff:g} times the share of the players "
            "with the word of the sign.\n"
        )

    def clues(self) -> str:
        """What sign and map say."""
        words = self.task.data["words"]
        sign, target = self.task.data["sign"], self.task.data["map"]
        return (
            f"The sign says {ALIASES[sign]} {words[sign]}. The map says {ALIASES[target]} {words[target]}.\n"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


parallel_env = Decoy
raw_env = env = aec_wrapper_fn(Decoy)
