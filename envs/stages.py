"""What the protocols have in common: wrappers of text environments, and turns that take several steps.

`textmarl.envs.protocols` has the protocols themselves and says what holds for all of them.
"""

from __future__ import annotations

import copy
import json
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

from gymnasium.spaces import Text
from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper

from textmarl.envs import vector
from textmarl.envs.settings import InitSignature, constructor_settings
from textmarl.envs.spaces import Observation, UnicodeText
from textmarl.envs.transcript import printable
from textmarl.envs.turns import check_actions

Said = tuple[Mapping[str, str], ...]
"""The texts of the stages of a turn that are done: agent -> text, for those who acted."""


class TextWrapper(BaseParallelWrapper):
    """A wrapper of a text environment, with text spaces and a name of its own."""

    protocol: str
    _arguments: dict[str, Any]
    __signature__ = InitSignature()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keeps the arguments for `settings`."""
        made = super().__new__(cls)
        made._arguments = constructor_settings(cls, args, kwargs)
        return made

    def __init__(self, env: ParallelEnv, agents: Sequence[str]) -> None:
        super().__init__(env)
        self._accept(env)
        for agent in env.possible_agents:
            for space in (env.observation_space(agent), env.action_space(agent)):
                if not isinstance(space, (UnicodeText, Text)):
                    raise TypeError(
                        f"{type(self).__name__} wraps environments of texts, but {agent!r} of {env} has the space {space}."
                    )
        self.metadata = {**env.metadata, "name": f"{env.metadata.get('name', env)} ({self.protocol})"}
        self.possible_agents = list(agents)
        self.observation_spaces = {agent: UnicodeText() for agent in agents}
        self.action_spaces = {agent: UnicodeText() for agent in agents}
        self.state_space = UnicodeText()

    def _accept(self, env: ParallelEnv) -> None:
        inner = env
        while isinstance(inner, BaseParallelWrapper):
            if isinstance(inner, TextWrapper):
                raise ValueError(
                    f"{type(self).__name__} takes an environment without a protocol, but {env} has the protocol "
                    f"{inner.protocol!r} already, whose stages would go unanswered: wrap {inner.env} itself."
                )
            inner = inner.env
        # Environments of others have neither attribute.
        if reason := getattr(env, "refused_protocols", {}).get(self.protocol):
            raise ValueError(f"{env} cannot be played under the protocol {self.protocol!r}: {reason}")
        if hint := getattr(env, "protocol_warnings", {}).get(self.protocol):
            warnings.warn(f"{env} under the protocol {self.protocol!r}: {hint}", stacklevel=4)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the environment inside, and `protocol`: its name and arguments (`textmarl.envs.settings`)."""
        own = {name: value for name, value in self._arguments.items() if name != "env"}
        inside = getattr(self.env, "settings", {})  # environments of others have none
        return {**inside, "protocol": {"name": self.protocol, **own}}

    @property
    def acting(self) -> list[str]:
        """The agents whose text counts at the next step."""
        return list(self.agents)

    def observation_space(self, agent: str) -> UnicodeText:
        """The space of all texts; the same object for an agent at every call."""
        return self.observation_spaces[self._known(agent)]

    def action_space(self, agent: str) -> UnicodeText:
        """The space of all texts; the same object for an agent at every call."""
        return self.action_spaces[self._known(agent)]

    def _known(self, agent: str) -> str:
        if agent not in self.possible_agents:
            raise ValueError(f"{self} has no agent {agent!r}; its agents are {self.possible_agents}.")
        return agent

    def _checked(self, actions: Mapping[str, str]) -> dict[str, str]:
        """The texts of the acting agents."""
        acting = self.acting
        if not acting:
            raise RuntimeError(f"{self}.step(): no episode is running; call reset() first.")
        check_actions(actions, acting, self.agents)
        return {agent: actions[agent] for agent in acting}


class Staged(TextWrapper):
    """A turn of the environment inside takes several stages; the last one steps it."""

    def __init__(self, env: ParallelEnv) -> None:
        super().__init__(env, env.possible_agents)
        self._said: Said = ()
        self._talks: tuple[Said, ...] = ()  # of the turns before: what did not reach the environment inside
        self._read: dict[str, str] = {}
        self._infos: dict[str, dict[str, Any]] = {}

    # ------------------------------------------------------------------------------- what a protocol says

    @abstractmethod
    def _stages(self, agents: int) -> int:
        """How many stages a turn has in which so many agents act."""

    @abstractmethod
    def _shown(self, agent: str) -> str:
        """What an acting agent reads now."""

    @abstractmethod
    def _divided(self, said: Said) -> tuple[Mapping[str, str], Said]:
        """Of a whole turn: the texts that step the environment inside, and the stages that do not reach it."""

    # ------------------------------------------------------------------------------- the PettingZoo interface

    @property
    def agents(self) -> list[str]:  # type: ignore[override]  # PettingZoo declares an attribute
        """Who is alive in the environment inside."""
        return list(self.env.agents)

    @property
    def acting(self) -> list[str]:
        """The agents whose text counts at the next step: all that the environment inside does not let wait."""
        return vector.acting(self.env)

    @property
    def passes_on(self) -> bool:
        """Whether the next step only passes texts on: it does not step the environment inside, nor pay anything."""
        among = len(vector.acting(self.env))
        return len(self._said) + 1 < self._stages(among) if among else False

    @property
    def max_turns(self) -> int:
        """The most steps that an episode can have."""
        return int(self.env.max_turns) * self._stages(len(self.possible_agents))

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """Begins an episode of the environment inside; arguments and errors are its own."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self._said, self._talks = (), ()
        self._read, self._infos = dict(observations), infos
        return self._observed(self.agents), self._told(self.agents)

    def step(
        self, actions: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Takes the texts of the acting agents; the last stage of a turn steps the environment inside.

        Args:
            actions: agent -> text, for all agents that act; those that wait may be left out.

        Raises:
            RuntimeError: before `reset` or after the end. TypeError: no mapping, or a text that is no `str`.
            ValueError: an acting agent is missing, or one is unknown. And what the environment inside raises.
            The episode stays as it was.
        """
        agents = self.agents
        said = (*self._said, self._checked(actions))
        if len(said) < self._stages(len(vector.acting(self.env))):
            self._said = said
            still = dict.fromkeys(agents, False)
            return self._observed(agents), dict.fromkeys(agents, 0.0), still, dict(still), self._told(agents)
        answers, talk = self._divided(said)
        observations, rewards, terminations, truncations, infos = self.env.step(
            {agent: answers.get(agent, "") for agent in agents}
        )
        self._talks = (*self._talks, talk)
        self._said, self._read, self._infos = (), dict(observations), infos
        return (
            self._observed(list(observations)),
            rewards,
            terminations,
            truncations,
            self._told(list(observations)),
        )

    def state(self) -> str:  # type: ignore[override]  # PettingZoo annotates an array
        """The global state as JSON: that of the environment inside, and what was said in this turn, stage by stage."""
        return json.dumps({"env": self.env.state(), "said": self._said}, ensure_ascii=False, default=str)

    def render(self) -> str:
        """The transcript of the environment inside, followed by what only the agents read."""
        lines = [str(self.env.render())]
        for turn, said in enumerate((*self._talks, self._said), start=1):
            for stage, texts in enumerate(said, start=1):
                for agent, text in texts.items():
                    lines += [f"--- turn {turn}, stage {stage} | {agent} writes", printable(text)]
        return "\n".join(lines)

    def _observed(self, agents: Sequence[str]) -> dict[str, str]:
        acting = self.acting
        ended = [agent for agent in agents if agent not in self.agents]  # their last observation
        shown = {agent: self._shown(agent) for agent in acting} | {
            agent: self._read[agent] for agent in ended
        }
        return {agent: Observation(shown.get(agent, "")) for agent in agents}

    def _told(self, agents: Sequence[str]) -> dict[str, dict[str, Any]]:
        stage = {"stage": len(self._said)}
        return {agent: {**copy.deepcopy(self._infos.get(agent, {})), **stage} for agent in agents}
