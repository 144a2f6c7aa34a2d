r"""
# Climbing

The climbing game of Claus and Boutilier, in words, for any number of agents and actions. All players choose a
word at once and earn the same payoff. The best joint action, the *summit*, is next to the worst one; a ladder
of safer joint actions leads upwards step by step, and ends below the summit. Teams that judge an action by how
it does on average climb the ladder and stay there.

| Creation           | `make("parallel", "textmarl/Climbing-v0")`                              |
|--------------------|-------------------------------------------------------------------------|
| Agents             | `player_0` ... `player_{n_agents - 1}`; default 2                       |
| Actions            | `UnicodeText()`: any `str`; it is read as one of `n_actions` words      |
| Observations       | `UnicodeText()`: the words and the payoffs                              |
| Turns              | 1 by default; more repeat the game                                      |
| Score              | -31 to `2 n_actions + 5` (11 by default), reported as percentage of it  |
| Individual rewards | no: `reward="individual"` is refused                                    |
| Source             | Claus and Boutilier, AAAI 1998: 2 agents, 3 actions                     |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/Climbing-v0", n_agents=2, n_actions=3, words="fixed", max_turns=1)
```

`split`: `"train"`, `"test"` or a slice such as `"train[:16]"`. The splits differ under `words="varied"` only.

`n_agents`: at least 2. `n_actions`: 3 to 28.

`words`: `"fixed"`: one task; action 0 is always the first word of the list. `"varied"`: 128 train and 32 test
tasks, each with words of its own in an order that does not tell which one is the summit; no word occurs in
both splits. Such a team must read the payoffs.

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
| `payoff`  | the matrix below; -30, its lowest entry, if any text plays no action                    |
| `illegal` | minus the share of the players whose text plays no action                               |

Two agents and three actions: the published matrix, with player 0 as agent A.

|               | player 0: 0 | player 0: 1 | player 0: 2 |
|---------------|-------------|-------------|-------------|
| player 1: 0   | 11          | -30         | 0           |
| player 1: 1   | -30         | 7           | 6           |
| player 1: 2   | 0           | 0           | 5           |

In general, for N agents and K actions: action 0 is the summit, actions K-1 (lowest) to 1 (highest) are the
rungs of a ladder. A joint action pays

* all on the summit: 2K + 5;
* all on rung j: 5 + 2 (K - 1 - j), so 5 on the lowest and 2 more on each next one;
* somebody on the summit and somebody on the highest rung: -30;
* otherwise, h players on a rung j and all others on the next lower one j + 1: the lower rung's payoff plus
  2 h / N if these h are the players with the highest numbers;
* anything else: 0.

So a team on the lowest rung can climb to the highest by changing one player's action at a time, the last player
first, and every change pays; in the published game the path is (2, 2), (2, 1), (1, 1). All on the highest rung
is an equilibrium, and leaving it for the summit costs the team 37 and more unless all go at once.

### Expected Returns

Per turn; `optimal_return` and `uniform_return` multiply them by `max_turns`.

| Play        | Score                                                                          | Default |
|-------------|--------------------------------------------------------------------------------|---------|
| optimal     | 2K + 5                                                                         | 11      |
| top rung    | 2K + 1                                                                         | 7       |
| uniform     | [K^2 + 4K + 2 + (N-1)(K-2)(K+3)] / K^N - 30 [1 - 2 ((K-1)/K)^N + ((K-2)/K)^N]  | -31/9   |
| junk by all | -31                                                                            | -31     |

Measured with the defaults: the untrained `tiny` model (temperature 1, 8 tokens, three seeds, standard error)
scores -29.6 ± 0.2: 24 % of its texts play an action.

Trained with MAGRPO, full weights, 150 steps (`textmarl train --config benchmarks/configs/games_tiny.yaml --env
textmarl/Climbing-v0 --seed S`, one thread), the seeds 0, 1 and 2 reach median 6 (5, 6, 7) of 11: it ends on the
ladder, below the summit. Uniform play scores -31/9.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/Climbing-v0")
    >>> observations, infos = env.reset(seed=0)
    >>> print(observations["player_1"])
    You are player_1, one of 2 players.
    Words: 1 maple, 2 cedar, 3 birch.
    All players choose one word at the same time, unseen by the others, and all get the same points.
    All maple: 11 points. All cedar: 7. All birch: 5.
    Some maple and some cedar: -30.
    All birch but cedar by the last player: 6.
    Anything else: 0.
    Answer with one word or its number; anything else costs points.
    >>> _, rewards, _, _, _ = env.step({"player_0": "Birch.", "player_1": "I take 2, not 1."})
    >>> rewards
    {'player_0': 6.0, 'player_1': 6.0}
    >>> env.optimal_return, round(env.uniform_return, 4)
    (11.0, -3.4444)
    >>> [[env.payoff((first, second)) for first in range(3)] for second in range(3)]
    [[11.0, -30.0, 0.0], [-30.0, 7.0, 6.0], [0.0, 0.0, 5.0]]

### Version History

* v0: first version (0.1.0)
"""

from __future__ import annotations

from collections.abc import Sequence

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.games.game import MatrixGame

FALL = -30.0
_LOWEST_RUNG = 5.0
_STEP = 2.0  # from one rung to the next
_SUMMIT_ABOVE_LADDER = 4.0


class Climbing(MatrixGame):
    """The Climbing environment; the module's description is its page. Arguments: those of `MatrixGame`."""

    metadata = {"name": "Climbing-v0", "render_modes": ["ansi"], "is_parallelizable": True}

    @property
    def best_score(self) -> float:
        """The payoff of the summit."""
        return self.rung(1) + _SUMMIT_ABOVE_LADDER

    @property
    def lowest(self) -> float:
        """The payoff of summit and highest rung together."""
        return FALL

    def rung(self, action: int) -> float:
        """The payoff of all on one rung: action 1 is the highest, `n_actions - 1` the lowest."""
        return _LOWEST_RUNG + _STEP * (self.n_actions - 1 - action)

    def payoff(self, actions: Sequence[int]) -> float:
        """The team's payoff of a legal joint action, one action for each agent."""
        chosen = set(actions)
        if chosen == {0}:
            return self.best_score
        if len(chosen) == 1:
            return self.rung(actions[0])
        if chosen >= {0, 1}:
            return FALL
        high, low = min(chosen), max(chosen)
        climbers = sum(action == high for action in actions)
        in_order = all(action == high for action in actions[self.n_agents - climbers :])
        if high > 0 and low == high + 1 and in_order:
            return self.rung(low) + _STEP * climbers / self.n_agents
        return 0.0

    def other_scores(self) -> dict[str, float]:
        """That of all on the highest rung of the ladder, where teams that average over the others end."""
        return {"top rung": 2.0 * self.n_actions + 1}

    @property
    def uniform_score(self) -> float:
        """The expected score of one turn of uniform play: the module's formula."""
        n, k = self.n_agents, self.n_actions
        unanimous = k**2 + 4 * k + 2
        climbing = (n - 1) * (k - 2) * (k + 3)
        falling = 1 - 2 * ((k - 1) / k) ** n + ((k - 2) / k) ** n
        return (unanimous + climbing) / k**n + FALL * falling

    def rules(self) -> str:
        """The payoffs in words."""
        words = self.task.data["words"]
        rungs = range(1, self.n_actions)
        unanimous = [f"All {words[0]}: {self.best_score:g} points."]
        unanimous += [f"All {words[action]}: {self.rung(action):g}." for action in rungs]
        lines = [" ".join(unanimous), f"Some {words[0]} and some {words[1]}: {FALL:g}."]
        step = _STEP / self.n_agents
        for low in reversed(rungs[1:]):
            pair = f"All {words[low]} but {words[low - 1]} by the last"
            if self.n_agents == 2:
                lines.append(f"{pair} player: {self.rung(low) + step:g}.")
            else:
                lines.append(f"{pair} h players: {self.rung(low):g} + {step:g} h.")
        return "\n".join([*lines, "Anything else: 0.\n"])


parallel_env = Climbing
raw_env = env = aec_wrapper_fn(Climbing)
