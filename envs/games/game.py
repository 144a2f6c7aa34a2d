"""What the games have in common.

**Actions.** An action is a word from the list that the agent reads, or the word's one-character alias;
`textmarl.envs.games.vocabulary` says how a text is read. Whatever is written around the action is ignored, so
naming all actions is worth what the first one is worth.

**A text without an action** is never worth more than an action. The term `illegal` is minus the share of the
players whose text plays nothing, and such a text never helps the other terms. So in every game and whatever
the others do, replacing a text without an action by any action raises the score; there is nothing to gain from
junk, not even in games whose payoffs are negative.

**Returns.** A return is the sum of an episode's team rewards, undiscounted, without `reward_shift` and of the
game's own reward (not of a `reward_fn`). Every game knows two: `optimal_return`, the highest there is, and
`uniform_return`, the expected return if every player draws each of its actions uniformly and independently.
Evaluations report the score of the last turn. What it is under optimal, uniform and other play that a page defines is in
`reference_scores`; tables and reports show it beside the score.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from textmarl.envs.core import Outcome, TextEnv
from textmarl.envs.games.vocabulary import (
    MAX_ACTIONS,
    WORDS,
    listed,
    read_action,
    shuffled,
    task_set,
    word_lists,
)
from textmarl.envs.tasks import TaskSet

N_TASKS: Mapping[str, int] = {"train": 128, "test": 32}
"""How many tasks a split has where tasks differ."""


@dataclass(frozen=True)
class Played(Outcome):
    """The outcome of a joint action in words.

    Attributes:
        actions: agent -> index of the action its text plays, or None.
    """

    actions: Mapping[str, int | None] = field(default_factory=dict)


class WordGame(TextEnv):
    """A text environment whose agents choose from lists of words. A task's column `words` holds them.

    Args:
        tasks: every task has the column `words`, as many as there are actions; action k is word k.
        n_agents: the agents are `player_0` to `player_{n_agents - 1}`.
        n_actions: how many words an agent chooses from.
        **options: those of `TextEnv`.
    """

    def __init__(self, tasks: TaskSet, *, n_agents: int, n_actions: int, **options: Any) -> None:
        self.n_agents = n_agents
        self.n_actions = n_actions
        self.max_score = self.best_score
        self.possible_agents = [f"player_{number}" for number in range(n_agents)]
        super().__init__(tasks, **options)
        if self.reward_fn is None:
            self.reference_scores = {
                "optimal": self.best_score,
                **self.other_scores(),
                "uniform": self.uniform_score,
            }

    @property
    def best_score(self) -> float:
        """The highest score of a turn; reports count it as 100 %."""
        return 1.0

    @property
    @abstractmethod
    def uniform_score(self) -> float:
        """The expected score of one turn (the last, where they differ) of uniform, independent legal play, in closed form."""

    def other_scores(self) -> dict[str, float]:
        """Name -> the expected score of one turn (the last, where they differ) under other play that the game's page defines."""
        return {}

    @property
    @abstractmethod
    def optimal_return(self) -> float:
        """The highest return there is."""

    @property
    @abstractmethod
    def uniform_return(self) -> float:
        """The expected return of uniform, independent legal play."""

    def order(self, agent: str) -> Sequence[int]:
        """The actions in the order in which `agent` reads them; the i-th has the alias `ALIASES[i]`."""
        return range(self.n_actions)

    def names(self, agent: str) -> list[str]:
        """The words in the order in which `agent` reads them."""
        words = self.task.data["words"]
        return [words[action] for action in self.order(agent)]

    def action(self, agent: str, text: str) -> int | None:
        """The action that a text of `agent` plays in the current task, or None."""
        position = read_action(text, self.names(agent))
        return None if position is None else self.order(agent)[position]

    def introduction(self, agent: str) -> str:
        """Who the agent is and what it can choose from."""
        return f"You are {agent}, one of {self.n_agents} players.\nWords: {listed(self.names(agent))}.\n"


class SimultaneousGame(WordGame):
    """All players choose at once, and the joint action is scored; with several turns this is repeated.

    A subclass writes `payoffs` and `rules`. From the second turn on, every player is told what all players
    chose in the turn before and what it was worth.
    """

    term_names: tuple[str, ...] = ("payoff", "illegal")
    show_payoffs: bool = True

    @property
    def optimal_return(self) -> float:
        """The highest return there is: the best joint action in every turn."""
        return self.max_turns * self.best_score

    @property
    def uniform_return(self) -> float:
        """The expected return of uniform, independent legal play."""
        return self.max_turns * self.uniform_score

    @abstractmethod
    def payoffs(self, actions: Sequence[int | None]) -> dict[str, float]:
        """All reward terms but `illegal` of a joint action in the current task.

        Args:
            actions: (n_agents,) an action, or None for a text without one. Replacing a None by an action must
                not make the sum smaller.
        """

    @abstractmethod
    def rules(self) -> str:
        """The payoffs of the current task in words."""

    def clues(self) -> str:
        """What all players read about the current task besides the words, shown after the rules."""
        return ""

    def observe(self, agent: str) -> str:
        """The instruction; from turn 2 on, what all players chose and what it was worth."""
        if self.history:
            last = self.history[-1]
            assert isinstance(last.outcome, Played)
            words = self.task.data["words"]
            chosen = ", ".join(
                f"{player} {'nothing' if action is None else words[action]}"
                for player, action in last.outcome.actions.items()
            )
            return f"Turn {self.turn}: {chosen}. Points: {last.score:g}.\nChoose again."
        return (
            f"{self.introduction(agent)}All players choose one word at the same time, unseen by the others, and "
            f"all get the same points.\n{self.rules() if self.show_payoffs else ''}{self.clues()}"
            "Answer with one word or its number; anything else costs points."
        )

    def judge(self, responses: dict[str, str]) -> Played:
        """The payoffs of what the texts play."""
        actions = {agent: self.action(agent, text) for agent, text in responses.items()}
        illegal = sum(action is None for action in actions.values())
        terms = {**self.payoffs(tuple(actions.values())), "illegal": -illegal / self.n_agents}
        return Played(terms, actions=actions)


class MatrixGame(SimultaneousGame):
    """A game whose payoff depends on nothing but the joint action: `payoff` is its matrix.

    Args:
        split: "train", "test" or a slice of one; the two differ under `words="varied"` only.
        n_agents: at least 2.
        n_actions: 3 to `MAX_ACTIONS`.
        words: "fixed": one task, in which action k is the k-th word of the list. "varied": every task has
            words of its own, listed in an order that does not tell which action is which.
        show_payoffs: whether the agents are told the payoffs.
        task_seed: draws the tasks under `words="varied"`.
        **options: `reward_fn`, `reward_shift`, `max_score`, `max_turns`, `max_cycles` and `render_mode` of
            `TextEnv`.

    Raises:
        ValueError: an argument makes no sense. LookupError: there is no such split.
    """

    def __init__(
        self,
        split: str = "train",
        *,
        n_agents: int = 2,
        n_actions: int = 3,
        words: Literal["fixed", "varied"] = "fixed",
        show_payoffs: bool = True,
        task_seed: int = 0,
        **options: Any,
    ) -> None:
        game = type(self).__name__
        check_sizes(game, n_agents, n_actions, fewest_actions=3)
        check_words(words)
        if words == "varied" and not show_payoffs:
            raise ValueError(
                f'{game} with words="varied" and show_payoffs=False cannot be played: nothing would tell which '
                'word is which action. Use words="fixed" to let the agents learn payoffs that they are not told.'
            )
        self.show_payoffs = bool(show_payoffs)

        def rows(name: str) -> list[dict[str, Any]]:
            if words == "fixed":
                fixed = WORDS["train"][:n_actions]
                return [{"id": "fixed", "words": fixed, "order": tuple(range(n_actions))}]
            lists = word_lists(name, n_actions, N_TASKS[name], task_seed)
            return [
                {"words": row, "order": tuple(shuffled(range(n_actions), task_seed, name, number, "order"))}
                for number, row in enumerate(lists)
            ]

        super().__init__(task_set(game, split, rows), n_agents=n_agents, n_actions=n_actions, **options)

    @property
    @abstractmethod
    def lowest(self) -> float:
        """The lowest payoff, which the team also gets if any text plays no action."""

    @abstractmethod
    def payoff(self, actions: Sequence[int]) -> float:
        """The team's payoff of a legal joint action, one action for each agent."""

    def order(self, agent: str) -> Sequence[int]:
        """The actions in the order in which all agents read them."""
        order: tuple[int, ...] = self.task.data["order"]
        return order

    def payoffs(self, actions: Sequence[int | None]) -> dict[str, float]:
        """The payoff of a joint action; the lowest if somebody plays no action."""
        legal = [action for action in actions if action is not None]
        return {"payoff": self.payoff(legal) if len(legal) == len(actions) else self.lowest}


def check_sizes(game: str, n_agents: int, n_actions: int, fewest_actions: int) -> None:
    """Refuses numbers of agents and actions that a game does not have.

    Raises:
        ValueError: naming what the game has.
    """
    for name, value, low, high in (
        ("n_agents", n_agents, 2, None),
        ("n_actions", n_actions, fewest_actions, MAX_ACTIONS),
    ):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < low or (high is not None and value > high):
            reach = f"of at least {low}" if high is None else f"from {low} to {high}"
            why = "" if high is None else "; there are no more one-character aliases"
            raise ValueError(f"{game}: {name} must be an integer {reach}, not {value!r}{why}.")


def check_words(words: str) -> None:
    """Refuses a value of `words` that is neither "fixed" nor "varied" with a ValueError."""
    if words not in ("fixed", "varied"):
        raise ValueError(f'words must be "fixed" or "varied", not {words!r}.')
