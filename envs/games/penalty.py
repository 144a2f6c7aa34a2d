r"""
# Penalty

The penalty game of Claus and Boutilier, in words, for any number of agents and actions. All players choose a
word at once and earn the same payoff. Several *peaks* are equally good if all choose the same one, and mixing
them up is punished; one *safe* word is never punished and pays a little. Teams that are not sure of each other
retreat to the safe word.

| Creation           | `make("parallel", "textmarl/Penalty-v0")`                               |
|--------------------|-------------------------------------------------------------------------|
| Agents             | `player_0` ... `player_{n_agents - 1}`; default 2                       |
| Actions            | `UnicodeText()`: any `str`; it is read as one of `n_actions` words      |
| Observations       | `UnicodeText()`: the words and the payoffs                              |
| Turns              | 1 by default; more repeat the game                                      |
| Score              | `penalty - 1` (-101 by default) to 10, reported as percentage of 10     |
| Individual rewards | no: `reward="individual"` is refused                                    |
| Source             | Claus and Boutilier, AAAI 1998: 2 agents, 3 actions, `penalty` is its k |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/Penalty-v0", penalty=-100.0, n_agents=2, n_actions=3, words="fixed")
```

`split`: `"train"`, `"test"` or a slice such as `"train[:16]"`. The splits differ under `words="varied"` only.

`penalty`: k, what mixing up the peaks costs; 0 or negative. Default -100.

`n_agents`: at least 2. `n_actions`: 3 to 28, one of which is the safe one.

`words`: `"fixed"`: one task; the safe action is the middle word of the list. `"varied"`: 128 train and 32 test
tasks, each with words of its own in an order that does not tell which one is safe; no word occurs in both
splits. Such a team must read the payoffs.

`show_payoffs`: False keeps the payoffs from the agents, as in the paper, where they are learned. Only with
`words="fixed"`. Default True.

`task_seed`: draws the tasks of `words="varied"`. Default 0.

`max_turns`: how often the game is played in an episode (`max_cycles` of `make` means the same). Default 1.

`reward_fn`, `reward_shift`, `max_score`, `render_mode`: as for every text environment.

### Observations

All agents read the same but for their name: the numbered words, the payoffs and the request to answer with one
word or its number. From turn 2 on: what every player chose (the word, never its text) and the points.

### Actions

The first word of the text that is an action's name counts; only where there is none, the first one-character
alias (`1`, `2`, ... for the first, second, ... word of the list; after `9` come letters). Case and what
surrounds it do not matter, the number in a player's name (`player_1`) is no alias, and naming several actions is
playing the first of them. Any `str` is accepted.

### Rewards

| Term      | Value                                                                                   |
|-----------|-----------------------------------------------------------------------------------------|
| `payoff`  | the matrix below; k, its lowest entry, if any text plays no action                      |
| `illegal` | minus the share of the players whose text plays no action                               |

Two agents and three actions: the published matrix.

|               | player 0: 0 | player 0: 1 | player 0: 2 |
|---------------|-------------|-------------|-------------|
| player 1: 0   | 10          | 0           | k           |
| player 1: 1   | 0           | 2           | 0           |
| player 1: 2   | k           | 0           | 10          |

In general, for N agents and K actions: action K // 2 is safe, the others are peaks. A joint action pays

* all on the same peak: 10;
* all safe: 2;
* nobody safe and not all on the same peak: k;
* anything else, that is some safe and some not: 0.

The safe action guarantees every single player at least 0 whatever the others do, for any N as in the published
game. All on one peak is an equilibrium, and so is all safe: whoever leaves it alone takes the team to 0.

### Expected Returns

Per turn; `optimal_return` and `uniform_return` multiply them by `max_turns`.

| Play        | Score                                            | Default |
|-------------|--------------------------------------------------|---------|
| optimal     | 10                                               | 10      |
| all safe    | 2                                                | 2       |
| uniform     | [10 (K-1) + 2 + k ((K-1)^N - (K-1))] / K^N       | -178/9  |
| junk by all | k - 1                                            | -101    |

Measured with the defaults: the untrained `tiny` model (temperature 1, 8 tokens, three seeds, standard error)
scores -96.9 ± 0.7: 24 % of its texts play an action.

Trained with MAGRPO, full weights, 150 steps (`textmarl train --config benchmarks/configs/games_tiny.yaml --env
textmarl/Penalty-v0 --seed S`, one thread), the seeds 0, 1 and 2 reach median 10 (2, 10, 10) of 10: with the
seed 2 it ends on the safe action.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/Penalty-v0")
    >>> observations, infos = env.reset(seed=0)
    >>> print(observations["player_0"])
    You are player_0, one of 2 players.
    Words: 1 maple, 2 cedar, 3 birch.
    All players choose one word at the same time, unseen by the others, and all get the same points.
    All the same word: 10 points, but all cedar: 2.
    Nobody cedar and not all the same word: -100.
    Anything else: 0.
    Answer with one word or its number; anything else costs points.
    >>> _, rewards, _, _, infos = env.step({"player_0": "maple", "player_1": "the best one"})
    >>> infos["player_0"]["reward_terms"]
    {'payoff': -100.0, 'illegal': -0.5}
    >>> env.optimal_return, round(env.uniform_return, 4)
    (10.0, -19.7778)
    >>> [[env.payoff((first, second)) for first in range(3)] for second in range(3)]
    [[10.0, 0.0, -100.0], [0.0, 2.0, 0.0], [-100.0, 0.0, 10.0]]

### Version History

* v0: first version (0.1.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.games.game import MatrixGame

PEAK = 10.0
SAFE = 2.0


class Penalty(MatrixGame):
    """The Penalty environment; the module's description is its page.

    Args:
        split: "train", "test" or a slice of one of them.
        penalty: what mixing up the peaks costs, 0 or negative.
        **options: the other arguments of `MatrixGame`.

    Raises:
        ValueError: an argument makes no sense. LookupError: there is no such split.
    """

    metadata = {"name": "Penalty-v0", "render_modes": ["ansi"], "is_parallelizable": True}

    def __init__(self, split: str = "train", *, penalty: float = -100.0, **options: Any) -> None:
        number = not isinstance(penalty, bool) and isinstance(penalty, (int, float))
        if not number or not math.isfinite(penalty) or penalty > 0:
            raise ValueError(f"Penalty: penalty must be 0 or a negative number, not {penalty!r}.")
        self.penalty = float(penalty)
        super().__init__(split, **options)

    @property
    def best_score(self) -> float:
        """The payoff of all on the same peak."""
        return PEAK

    @property
    def lowest(self) -> float:
        """The payoff of different peaks."""
        return self.penalty

    @property
    def safe(self) -> int:
        """The safe action: the middle one."""
        return self.n_actions // 2

    def payoff(self, actions: Sequence[int]) -> float:
        """The team's payoff of a legal joint action, one action for each agent."""
        chosen = set(actions)
        if len(chosen) == 1:
            return SAFE if self.safe in chosen else PEAK
        return 0.0 if self.safe in chosen else self.penalty

    def other_scores(self) -> dict[str, float]:
        """That of all on the safe word, where teams that are not sure of each other end."""
        return {"all safe": 2.0}

    @property
    def uniform_score(self) -> float:
        """The expected score of one turn of uniform play: the module's formula."""
        n, k = self.n_agents, self.n_actions
        mixed = (k - 1) ** n - (k - 1)
        return (PEAK * (k - 1) + SAFE + self.penalty * mixed) / k**n

    def rules(self) -> str:
        """The payoffs in words."""
        safe = self.task.data["words"][self.safe]
        return (
            f"All the same word: {PEAK:g} points, but all {safe}: {SAFE:g}.\n"
            f"Nobody {safe} and not all the same word: {self.penalty:g}.\nAnything else: 0.\n"
        )


parallel_env = Penalty
raw_env = env = aec_wrapper_fn(Penalty)
