"""The games, the methods with all their settings, and which runs the sweep is made of.

Every method has one set of settings for all games and all seeds. They were chosen on the seeds 100 and 101; the seeds that
are reported, 0 to 4, were not looked at before.

What is equal for all methods is the number of *reward evaluations* on a game (`Game.budget`): a method makes as many training
steps as fit into it. Generated tokens differ and are counted as well: GRPO's one policy also writes delimiters, and C3, whose
alternatives are judged beside what the partners have written already, generates about half.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pettingzoo
from pettingzoo import ParallelEnv

import textmarl.envs  # noqa: F401  (registers the games)
from textmarl.envs.protocols import wrap
from textmarl.envs.vector import acting

SEEDS = (0, 1, 2, 3, 4)

#: Of one role. All that a game asks for is an action, and every action has an alias of one character.
ROLE_TOKENS = 1

#: Between two roles' texts where one policy writes all: one character, as a model that knows no words must find it.
DELIMITER = "/"


@dataclass(frozen=True)
class Game:
    """A column of the table."""

    name: str
    env: str
    budget: int
    """Reward evaluations of a run."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def make(self, split: str, single: bool = False) -> ParallelEnv:
        """Return the environment; ``single``: one agent writes the texts of all roles."""
        env = pettingzoo.make("parallel", f"textmarl/{self.env}", split=split, **self.kwargs)
        return wrap(env, {"name": "single", "delimiter": DELIMITER}) if single else env


@dataclass(frozen=True)
class Method:
    """A row of the table: an algorithm with its settings."""

    name: str
    page: str
    """Which page of docs/algorithms it belongs to."""
    algo: str
    """What ``textmarl train --algo`` takes."""
    settings: Mapping[str, Any]
    """Of the algorithm."""
    learning_rate: float = 3e-3
    tasks_per_step: int = 4
    single: bool = False
    """Whether one policy writes the texts of all roles."""
    reference: Literal["adapter-off", "copy"] = "adapter-off"
    """What the team keeps of its initial policies; full weights keep nothing but with ``copy``."""

    def evaluations(self, env: ParallelEnv) -> int:
        """Return the reward evaluations of a training step, if no episode ends early."""
        env.reset(seed=0, options={"task": 0})
        turns, deciders = env.unwrapped.max_turns, len(acting(env))
        if "fan_out" in self.settings:  # the anchor, and from each of its decisions n - 1 ways to the end
            alternatives = self.settings["fan_out"] - 1
            return self.tasks_per_step * (turns + alternatives * deciders * turns * (turns + 1) // 2)
        group = self.settings.get("group_size") or self.settings["base_kwargs"]["group_size"]
        return self.tasks_per_step * int(group) * turns

    def steps(self, game: Game, scale: float = 1.0) -> int:
        """Return the training steps that come closest to the game's budget times ``scale``."""
        return max(1, round(scale * game.budget / self.evaluations(game.make("train", self.single))))

    def max_new_tokens(self, env: ParallelEnv) -> int:
        """Return the token limit of a response: that of a role, or of all roles with the delimiters between them."""
        roles = len(env.unwrapped.possible_agents)
        return ROLE_TOKENS * roles + len(DELIMITER) * (roles - 1) if self.single else ROLE_TOKENS


GAMES = (
    Game("Climbing", "Climbing-v0", 5000),
    Game("Chorus, 2 agents", "Chorus-v0", 4000, {"n_agents": 2}),
    Game("Chorus, 4 agents", "Chorus-v0", 4000, {"n_agents": 4}),
    Game("Chorus, 8 agents", "Chorus-v0", 4000, {"n_agents": 8}),
    Game("Decoy", "Decoy-v0", 6000),
    Game("Relay, 2 agents", "Relay-v0", 5000, {"n_agents": 2, "dense": True}),
)

_GROUP: dict[str, Any] = {"group_size": 16}
# Divided among the agents: four members each where there are eight.
_SHARED: dict[str, Any] = {"group_size": 32}
# In games of one turn a chain is what a tree is, too.
_CHAIN = {**_GROUP, "branching": "chain"}
# Divided by the deviation, rewards less any baseline are MAGRPO's: these two are left as they are.
_PLAIN = {**_CHAIN, "normalize": "none"}

METHODS = (
    Method("MAGRPO", "magrpo", "magrpo", _CHAIN),
    Method("REINFORCE", "magrpo", "magrpo", {**_PLAIN, "baseline": "none"}),
    Method("RLOO", "magrpo", "magrpo", {**_PLAIN, "baseline": "leave_one_out"}),
    Method("GRPO, one policy", "grpo", "grpo", _CHAIN, 5e-3, single=True),
    Method("IGRPO, resampled", "igrpo", "igrpo", {**_SHARED, "partner": "resampled"}, 6e-3, tasks_per_step=2),
    Method(
        "IGRPO, frozen",
        "igrpo",
        "igrpo",
        {**_SHARED, "partner": "frozen"},
        6e-3,
        tasks_per_step=2,
        reference="copy",
    ),
    Method("IPPO", "ippo", "ippo", {**_GROUP, "epochs": 2, "critic_learning_rate": 3e-3}),
    # Its critics read what all agents read, once a step: with more episodes in a step they read less in all.
    Method(
        "MAPPO",
        "ippo",
        "ippo",
        {**_GROUP, "epochs": 2, "critic_learning_rate": 3e-3, "critic": "central"},
        tasks_per_step=8,
    ),
    Method("CoLLM-CC", "collm", "collm", {**_GROUP, "critic_learning_rate": 3e-2, "critic": "central"}),
    Method("CoLLM-DC", "collm", "collm", {**_GROUP, "critic_learning_rate": 3e-2, "critic": "decentralized"}),
    Method("C3", "c3", "c3", {"fan_out": 4, "normalize": "std"}),
    Method("PMIC", "pmic", "pmic", {"base": "magrpo", "base_kwargs": _CHAIN}),
    Method("shuffled rewards", "magrpo", f"{Path(__file__).with_name('shuffled.py')}:Shuffled", _CHAIN),
)


class Cell(NamedTuple):
    """One training run."""

    method: str
    game: str
    seed: int


def cells(
    methods: Iterable[Method] = METHODS, games: Sequence[Game] = GAMES, seeds: Sequence[int] = SEEDS
) -> list[Cell]:
    """Return the runs, seed by seed: what is interrupted holds whole seeds of everything."""
    methods = list(methods)
    return [Cell(method.name, game.name, seed) for seed in seeds for game in games for method in methods]


def described(methods: Iterable[Method] = METHODS, games: Iterable[Game] = GAMES) -> dict[str, Any]:
    """Return all settings, as the results hold them: without paths of this machine."""
    return {
        "methods": {m.name: {**asdict(m), "algo": m.algo.rpartition("/")[2]} for m in methods},
        "games": {game.name: asdict(game) for game in games},
        "role_tokens": ROLE_TOKENS,
        "delimiter": DELIMITER,
    }
