r"""
# Relay

A secret word must reach the last player. Only player 0 knows it; the players take turns, and each reads what the
one before it wrote, cut to a few characters. In the last turn the last player names the word.

| Creation           | `make("parallel", "textmarl/Relay-v0")`                                  |
|--------------------|--------------------------------------------------------------------------|
| Agents             | `player_0` ... `player_{n_agents - 1}`; default 3                        |
| Actions            | `UnicodeText()`: any `str`; a message, in the last turn one of the words |
| Observations       | `UnicodeText()`: the words, and the secret or the message; empty for all who wait |
| Turns              | `n_agents`, one for each player                                          |
| Score              | -1 to 1                                                                  |
| Individual rewards | no: `reward="individual"` is refused                                     |

### Arguments

```python
import pettingzoo
import textmarl.envs

pettingzoo.make("parallel", "textmarl/Relay-v0", n_agents=3, n_actions=4, capacity=8, dense=False)
```

`split`: `"train"` (32 lists of words, each with each of its words as the secret: 128 tasks by default), `"test"`
(8 lists likewise) or a slice such as `"train[:64]"`. No word occurs in both splits.

`n_agents`: at least 2. `n_actions`: how many words, 2 to 28.

`capacity`: how many characters (Unicode code points) of a message the next player reads, from its first one on;
at least 1. Default 8. One is enough for the alias, five are for the word.

`dense`: False: only the last turn pays. True: every turn pays (see Rewards).

`task_seed`: draws the tasks. Default 0.

The protocols `pipeline` and `discussion` (`textmarl.envs.protocols`) are refused: they show whole messages, and to
everybody, so nothing would be left of `capacity` and the chain. Under `single` one agent reads the secret and names
it, which tells nothing but whether it can copy a word.

`max_turns`: `n_agents`, the only number there is (`max_cycles` of `make` means the same).

`reward_fn`, `reward_shift`, `max_score`, `render_mode`: as for every text environment; `task.data` has the
columns `words` and `secret` (the index of a word).

### Who Knows What, and Who Acts

| Turn (from 1)   | Acts         | Reads                                      | Its text is                             |
|-----------------|--------------|--------------------------------------------|-----------------------------------------|
| 1               | `player_0`   | words, secret                              | cut to `capacity`, read by `player_1`   |
| t               | `player_t-1` | words, the message of the player before it | cut to `capacity`, read by `player_t`   |
| N = `n_agents`  | the last one | words, the message of the player before it | the answer: read as one of the words    |

One player acts in each turn: `acting` is its name alone. The others stay in `agents`, but read an empty text, may be
left out of `step`, and whatever they send counts as an empty text. Evaluation and training do not ask them. A player
therefore reads its whole instruction (its name, the numbered words, its place in the chain) in the turn in which it
acts, and no player acts twice: a conversation has one question and one answer, and nobody answers from memory.

**For a learner.** An episode costs N texts, one of each player; players that wait add no tokens, so they are never
trained on silence. All rewards go to all players, and what a player wrote is paid by the turns from its own on: with
`dense=False` player 0 learns from nothing but what the last player makes of its message. A tree of group size G
(MAGRPO's default) samples G texts at each of the G^(t-1) histories of turn t, so G^N episodes of a task; `chain` has G.

Without reading messages the last player cannot do better than guess: what else it reads is the same for all
secrets of a list, and each of them is as frequent. `silent_return` is the best expected return of teams
whose players do not read messages; on a slice that does not hold whole lists it says how far the lists alone
give the secrets away.

### Actions

A message is any text; with `dense=False` a team may use any code. The answer, and with `dense=True` every
message, cut to its capacity, is read thus: the first word that is one of the words counts; only where there is
none, the first one-character alias (`1`, `2`, ... for the first, second, ... word of the list; after `9` come
letters). Case and what surrounds it do not matter, the number in a player's name (`player_1`) is no alias, and
naming several words is naming the first of them.

### Rewards

| Term      | `dense=False`                                 | `dense=True`                                           |
|-----------|-----------------------------------------------|--------------------------------------------------------|
| `passed`  | 0                                             | turns before the last: 1 if the message, cut, names it |
| `answer`  | last turn: 1 if the answer names the secret   | the same                                               |
| `illegal` | last turn: -1 if the answer names no word     | every turn: -1 if the acting player's names no word    |

The score of the last turn, which evaluations report, means the same either way: whether the secret arrived.

### Expected Returns

For N agents and K words.

| Play             | `dense=False` | `dense=True`    | Default |
|------------------|---------------|-----------------|---------|
| optimal          | 1             | N               | 1       |
| silent           | 1/K           | 1 + (N - 1) / K | 0.25    |
| uniform          | 1/K           | N / K           | 0.25    |
| junk by all      | -1            | -N              | -1      |

Uniform play names a uniformly drawn word at every turn.

Measured with the defaults: the untrained `tiny` model (temperature 1, 8 tokens, three seeds, standard error)
scores -0.60 ± 0.02: 32 % of its answers name a word.

### Example

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> env = pettingzoo.make("parallel", "textmarl/Relay-v0", n_agents=2, capacity=5)
    >>> observations, infos = env.reset(options={"task": "train/2"})
    >>> print(observations["player_0"])
    You are player_0, one of 2 players.
    Words: 1 lemon, 2 steel, 3 tower, 4 jewel.
    Only player_0 knows the secret word. It is passed on from player to player; player_1 must name it.
    The secret word is 3 tower.
    Write a message to player_1, who reads only its first 5 characters.
    >>> env.acting, observations["player_1"]
    (['player_0'], '')
    >>> observations, rewards, _, _, _ = env.step({"player_0": "3! Pass it on."})
    >>> print(observations["player_1"])
    You are player_1, one of 2 players.
    Words: 1 lemon, 2 steel, 3 tower, 4 jewel.
    Only player_0 knows the secret word. It is passed on from player to player; player_1 must name it.
    The message of player_0: 3! Pa
    Name the secret word or its number; anything else costs points.
    >>> rewards["player_0"], env.acting, env.step({"player_1": "tower"})[1]["player_0"]
    (0.0, ['player_1'], 1.0)
    >>> env.optimal_return, env.silent_return, env.uniform_return
    (1.0, 0.25, 0.25)

### Version History

* v0: first version (0.1.0)
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from pettingzoo.utils.conversions import aec_wrapper_fn

from textmarl.envs.games.game import Played, WordGame, check_sizes
from textmarl.envs.games.vocabulary import ALIASES, task_set, word_lists

N_LISTS = {"train": 32, "test": 8}


class Relay(WordGame):
    """The Relay environment; the module's description is its page.

    Args:
        split: "train", "test" or a slice of one of them.
        n_agents: at least 2.
        n_actions: how many words, 2 to 28.
        capacity: how many characters of a message the next player reads.
        dense: whether every turn pays, or the last one only.
        task_seed: draws the tasks.
        **options: `reward_fn`, `reward_shift`, `max_score` and `render_mode` of `TextEnv`.

    Raises:
        ValueError: an argument makes no sense. LookupError: there is no such split.
    """

    metadata = {"name": "Relay-v0", "render_modes": ["ansi"], "is_parallelizable": True}
    term_names = ("passed", "answer", "illegal")
    refused_protocols = dict.fromkeys(
        ("pipeline", "discussion"),
        "messages would reach all players, uncut by `capacity`, and the secret with them. The environment itself passes "
        "them on from player to player; leave the protocol out.",
    )

    def __init__(
        self,
        split: str = "train",
        *,
        n_agents: int = 3,
        n_actions: int = 4,
        capacity: int = 8,
        dense: bool = False,
        task_seed: int = 0,
        **options: Any,
    ) -> None:
        check_sizes("Relay", n_agents, n_actions, fewest_actions=2)
        if isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
            raise ValueError(f"Relay: capacity must be an integer of at least 1, not {capacity!r}.")
        self.capacity = capacity
        self.dense = bool(dense)

        def rows(name: str) -> list[dict[str, Any]]:
            lists = word_lists(name, n_actions, N_LISTS[name], task_seed)
            return [{"words": row, "secret": secret} for row in lists for secret in range(n_actions)]

        if options.get("max_turns") is None and options.get("max_cycles") is None:
            options["max_turns"] = n_agents
        super().__init__(task_set("Relay", split, rows), n_agents=n_agents, n_actions=n_actions, **options)
        if self.max_turns != n_agents:
            raise ValueError(
                f"Relay has one turn for each of its {n_agents} players: leave max_turns out instead of "
                f"{self.max_turns}, or change n_agents."
            )

    @property
    def optimal_return(self) -> float:
        """The highest return there is: the secret arrives (and is named at every turn, where that pays)."""
        return float(self.n_agents if self.dense else 1)

    @property
    def uniform_return(self) -> float:
        """The expected return if the acting player names a uniformly drawn word at every turn."""
        return self.optimal_return * self.uniform_score

    @property
    def uniform_score(self) -> float:
        """The expected score of the last turn if the last player names a uniformly drawn word."""
        return 1 / self.n_actions

    def other_scores(self) -> dict[str, float]:
        """The best expected score of the last turn, on the tasks at hand, of a team that does not read messages."""
        lists: dict[tuple[str, ...], Counter[int]] = {}
        for task in self.tasks:
            lists.setdefault(task.data["words"], Counter())[task.data["secret"]] += 1
        return {"silent": sum(max(secrets.values()) for secrets in lists.values()) / len(self.tasks)}

    @property
    def silent_return(self) -> float:
        """The best expected return, on the tasks at hand, of a team whose players do not read messages."""
        guess = self.other_scores()["silent"]
        return 1 + (self.n_agents - 1) * guess if self.dense else guess

    @property
    def acting(self) -> list[str]:
        """The one player whose turn it is; none before the first `reset` and after the end."""
        return self.agents[self.turn : self.turn + 1]

    def observe(self, agent: str) -> str:
        """The instruction of the player whose turn it is, with the secret or the message that it has to pass on."""
        if self.turn == 0:
            secret = self.task.data["secret"]
            told = (
                f"The secret word is {ALIASES[secret]} {self.task.data['words'][secret]}.\n{self._request()}"
            )
        else:
            before = self.possible_agents[self.turn - 1]
            message = self.history[-1].responses[before][: self.capacity]
            told = f"The message of {before}: {message}\n{self._request()}"
        return (
            f"{self.introduction(agent)}Only player_0 knows the secret word. It is passed on from player to "
            f"player; {self.possible_agents[-1]} must name it.\n{told}"
        )

    def judge(self, responses: dict[str, str]) -> Played:
        """The terms of the text of the player whose turn it is."""
        (acting,) = self.acting
        last = self.turn == self.n_agents - 1
        if not last and not self.dense:
            return Played(dict.fromkeys(self.term_names, 0.0))
        text = responses[acting] if last else responses[acting][: self.capacity]
        named = self.action(acting, text)
        right = float(named == self.task.data["secret"])
        terms = {"passed": 0.0 if last else right, "answer": right if last else 0.0}
        return Played({**terms, "illegal": -1.0 if named is None else 0.0}, actions={acting: named})

    def _request(self) -> str:
        if self.turn == self.n_agents - 1:
            return "Name the secret word or its number; anything else costs points."
        after = self.possible_agents[self.turn + 1]
        return f"Write a message to {after}, who reads only its first {self.capacity} characters."


parallel_env = Relay
raw_env = env = aec_wrapper_fn(Relay)
