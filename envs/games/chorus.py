r"""
# Chorus

All players must say the same word, and no word is better than another: a team has to break the symmetry. The
players read the same words, but each in an order of its own, so "the first one" is no way out.

| Creation           | `make("parallel", "textmarl/Chorus-v0")`                                |
|--------------------|-------------------------------------------------------------------------|
| Agents             | `player_0` ... `player_{n_agents - 1}`; default 4, tested up to 16      |
| Actions            | `UnicodeText()`: any `str`; it is read as one of `n_actions` words      |
| Observations       | `UnicodeText()`: the words in the player's own order                    |
| Turns              | 1 by default; with more, players hear what all said and say a word again |
| Score              | -1 to 1                                                                 |
| Individual rewards | no: `reward="individual"` is refused                                    |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/Chorus-v0", n_agents=4, n_actions=4, agreement="pairs", max_turns=1)
```

`split`: `"train"`, `"test"` or a slice such as `"train[:16]"`. The splits differ under `words="varied"` only.

`n_agents`: at least 2. `n_actions`: how many words, 2 to 28.

`agreement`: `"pairs"` pays the share of the pairs of players that say the same word; `"all"` pays 1 if all do,
else 0. With two players they are the same.

`words`: `"fixed"`: one task; the list of player i begins with word i (modulo `n_actions`) and goes on in
order. A team can settle on any word, by trial and error. `"varied"`: 128 train and 32 test tasks, each with
words of its own, in orders that are drawn independently for every player; no word occurs in both splits. There
the team needs a convention that works for words it has never seen, such as the first one in the alphabet; a
convention about positions is worth no more than chance.

`task_seed`: draws the tasks of `words="varied"`. Default 0.

`max_turns`: how many times the players speak (`max_cycles` of `make` means the same). Default 1.

`reward_fn`, `reward_shift`, `max_score`, `render_mode`: as for every text environment.

### Observations

Every player reads its number, the words in its own order and the rule. From turn 2 on: what every player said
(the word, never its text) and the points.

### Actions

The first word of the text that is an action's name counts; only where there is none, the first one-character
alias (`1`, `2`, ... for the first, second, ... word of *this player's* list; after `9` come letters). Case and what
surrounds it do not matter, the number in a player's name (`player_1`) is no alias, and naming several words is
saying the first of them. Any `str` is accepted.

### Rewards

| Term        | Value                                                                                        |
|-------------|----------------------------------------------------------------------------------------------|
| `agreement` | `"pairs"`: pairs that say the same word / all pairs; `"all"`: 1 if all say the same, else 0  |
| `illegal`   | minus the share of the players whose text says none of the words                             |

A text without a word agrees with nobody, not even with an equal one.

### Expected Returns

Per turn, for N agents and K words; `optimal_return` and `uniform_return` multiply them by `max_turns`.

| Play                  | `"pairs"` | `"all"`   | Default |
|-----------------------|-----------|-----------|---------|
| optimal               | 1         | 1         | 1       |
| uniform               | 1/K       | K^(1-N)   | 0.25    |
| junk by all           | -1        | -1        | -1      |

All the same word is optimal for each of the K words, and uniform play is an equilibrium of the symmetric game
in which nobody can do better alone: the gradient there is zero but for noise.

Measured with the defaults: the untrained `tiny` model (temperature 1, 8 tokens, three seeds, standard error)
scores -0.68 ± 0.01: 29 % of its texts say a word.

Trained with MAGRPO, full weights, 150 steps (`textmarl train --config benchmarks/configs/games_tiny.yaml --env
textmarl/Chorus-v0 --seed S`, one thread), the seeds 0, 1 and 2 reach 1 (1, 1, 1) of 1: the players agree on a word.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/Chorus-v0", n_agents=3)
    >>> observations, infos = env.reset(seed=0)
    >>> print(observations["player_2"])
    You are player_2, one of 3 players.
    Words: 1 birch, 2 tiger, 3 maple, 4 cedar.
    All players choose one word at the same time, unseen by the others, and all get the same points.
    All players have these words, each in another order. Points: the share of the pairs of players with the same word.
    Answer with one word or its number; anything else costs points.
    >>> _, rewards, _, _, _ = env.step({"player_0": "maple", "player_1": "4", "player_2": "3"})
    >>> rewards
    {'player_0': 1.0, 'player_1': 1.0, 'player_2': 1.0}
    >>> env.optimal_return, env.uniform_return
    (1.0, 0.25)
    >>> pettingzoo.make("parallel", "textmarl/Chorus-v0", n_agents=16, agreement="all").uniform_return == 4.0**-15
    True

### Version History

* v0: first version (0.1.0)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.games.game import N_TASKS, SimultaneousGame, check_sizes, check_words
from textmarl.envs.games.vocabulary import WORDS, shuffled, task_set, word_lists


class Chorus(SimultaneousGame):
    """The Chorus environment; the module's description is its page.

    Args:
        split: "train", "test" or a slice of one of them.
        n_agents: at least 2.
        n_actions: how many words, 2 to 28.
        agreement: "pairs" or "all".
        words: "fixed" or "varied".
        task_seed: draws the tasks of `words="varied"`.
        **options: `reward_fn`, `reward_shift`, `max_score`, `max_turns`, `max_cycles` and `render_mode` of
            `TextEnv`.

    Raises:
        ValueError: an argument makes no sense. LookupError: there is no such split.
    """

    metadata = {"name": "Chorus-v0", "render_modes": ["ansi"], "is_parallelizable": True}
    term_names = ("agreement", "illegal")

    def __init__(
        self,
        split: str = "train",
        *,
        n_agents: int = 4,
        n_actions: int = 4,
        agreement: Literal["pairs", "all"] = "pairs",
        words: Literal["fixed", "varied"] = "fixed",
        task_seed: int = 0,
        **options: Any,
    ) -> None:
        check_sizes("Chorus", n_agents, n_actions, fewest_actions=2)
        check_words(words)
        if agreement not in ("pairs", "all"):
            raise ValueError(f'agreement must be "pairs" or "all", not {agreement!r}.')
        self.agreement = agreement

        def rows(name: str) -> list[dict[str, Any]]:
            actions, players = range(n_actions), range(n_agents)
            if words == "fixed":
                orders = [[(action + player) % n_actions for action in actions] for player in players]
                return [{"id": "fixed", "words": WORDS["train"][:n_actions], "orders": orders}]
            lists = word_lists(name, n_actions, N_TASKS[name], task_seed)
            return [
                {
                    "words": row,
                    "orders": [shuffled(actions, task_seed, name, number, player) for player in players],
                }
                for number, row in enumerate(lists)
            ]

        super().__init__(task_set("Chorus", split, rows), n_agents=n_agents, n_actions=n_actions, **options)

    def order(self, agent: str) -> Sequence[int]:
        """The words in the order in which this agent reads them."""
        order: list[int] = self.task.data["orders"][self.possible_agents.index(agent)]
        return order

    def payoffs(self, actions: Sequence[int | None]) -> dict[str, float]:
        """How far the players agree; None agrees with nobody."""
        voices = Counter(action for action in actions if action is not None).values()
        if self.agreement == "all":
            return {"agreement": float(self.n_agents in voices)}
        return {"agreement": sum(math.comb(n, 2) for n in voices) / math.comb(self.n_agents, 2)}

    @property
    def uniform_score(self) -> float:
        """The expected score of one turn of uniform play: any two players agree with probability 1/K."""
        return float(self.n_actions) ** (-1 if self.agreement == "pairs" else 1 - self.n_agents)

    def rules(self) -> str:
        """The payoffs in words."""
        worth = {
            "pairs": "the share of the pairs of players with the same word",
            "all": "1 if all choose the same word, else 0",
        }[self.agreement]
        return f"All players have these words, each in another order. Points: {worth}.\n"


parallel_env = Chorus
raw_env = env = aec_wrapper_fn(Chorus)
