"""Who reads whom before a team answers: pipeline, discussion, and one agent that writes for all.

In the environments themselves all agents answer at once and nobody sees a partner's text. These wrappers change that
for any environment of texts, textmarl's own or another PettingZoo parallel environment:

| Protocol     | A turn of the environment becomes                                                                |
|--------------|--------------------------------------------------------------------------------------------------|
| `Pipeline`   | one step for each agent, in an order; each reads the texts of those before it                    |
| `Discussion` | R rounds in which all talk freely and read what the others said, then one step of final answers  |
| `Single`     | one step of one agent, whose text is divided among the roles by a delimiter                      |

    >>> import pettingzoo
    >>> import textmarl.envs
    >>> from textmarl.envs.protocols import Pipeline
    >>> env = Pipeline(pettingzoo.make("parallel", "textmarl/Chorus-v0"))
    >>> observations, infos = env.reset(seed=0)
    >>> env.acting, observations["player_1"]
    (['player_0'], '')
    >>> observations, rewards, _, _, infos = env.step({"player_0": "maple, all of you"})
    >>> env.acting, rewards["player_0"], infos["player_0"]["stage"], infos["player_0"]["turn"]
    (['player_1'], 0.0, 1, 0)
    >>> print(observations["player_1"].partition("player_0 wrote:")[2])
    <BLANKLINE>
    maple, all of you

From the command line, for every environment: `--env.kwargs.protocol pipeline`, or with arguments
`--env.kwargs '{"protocol": {"name": "discussion", "rounds": 2}}'`; from Python also `wrap(env, "pipeline")`.

### What holds for all of them

A *stage* is a step of the wrapper; the last stage of a turn steps the environment inside with the texts that count.

* **Rewards** are paid where the environment inside is stepped, and are 0.0 at all other stages. `reward_shift` is
  therefore added once a scored turn, and the return of an episode (undiscounted) is what the environment inside would
  have paid for the same texts. How many stages a turn has is fixed, so no team gains by talking more or less. An
  algorithm's discount applies between stages; leave it at 1 to compare with the environment inside.
* **infos** are those of the last scored turn (zeros after `reset`): `turn`, `score`, `reward_terms` and the rest change
  only where the environment is stepped. `stage` is added: how many stages of the present turn are done, 0 where a turn
  begins. `max_turns` counts stages, so it bounds the steps of an episode.
* **Waiting.** `acting` lists the agents whose text counts at the next step. The others stay in `agents`, as PettingZoo
  wants it, but read an empty text; they may be left out of `step`, and what they write is ignored. Evaluation and
  training do not ask them: no tokens are spent, nothing is learned from silence. Agents that the environment inside
  lets wait (`Relay`) wait in the protocol as well: nothing goes round its turns.
* **Ends.** Terminations, truncations and agents that leave are those of the environment inside.
* **Refusals.** An environment may say why a protocol would void it (`TextEnv.refused_protocols`: the game Relay refuses
  `pipeline` and `discussion`, in which messages pass uncut), or what to think of first (`protocol_warnings`). An
  environment that has a protocol already is refused: the inner one's stages would go unanswered.
* Everything else (`tasks`, `max_score`, `term_names`, ...) is the environment's. Copies and pickles made between two
  stages continue like the original; a step that raises leaves the episode as it was.

`check_env` is for environments, not for wrappers: it expects every step to be scored.

Observations hold the other agents' texts unchanged, after a line that names the writer. An agent can write such a line
itself: agents trained together can mislead each other only at their own cost, agents of different owners should not
trust it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pettingzoo import ParallelEnv

from textmarl.envs import vector
from textmarl.envs.spaces import Observation
from textmarl.envs.stages import Said, Staged, TextWrapper

DELIMITER = "[NEXT]"
"""What separates the roles' texts of `Single`, unless another one is given."""


class Pipeline(Staged):
    """Agents write one after another, each reading the texts of those before it in the same turn.

    At its stage an agent reads its own observation, followed by those texts. Nobody rereads: the first agent meets the
    others' texts only in the feedback of the environment, where that shows them.

    Args:
        env: an environment of texts.
        order: all of its agents, first to last; default: `env.possible_agents`.

    Raises:
        TypeError: an environment that is not of texts. ValueError: `order` lacks an agent or names a wrong one, or the
            environment refuses the protocol or has one already.
    """

    protocol = "pipeline"

    def __init__(self, env: ParallelEnv, order: Sequence[str] | None = None) -> None:
        super().__init__(env)
        if isinstance(order, str) or (order is not None and sorted(order) != sorted(self.possible_agents)):
            raise ValueError(f"order must name each of {self.possible_agents} once, not {order!r}.")
        self.order = list(order or self.possible_agents)

    @property
    def acting(self) -> list[str]:
        """The one agent whose turn it is."""
        among = set(vector.acting(self.env))
        return [agent for agent in self.order if agent in among][len(self._said) :][:1]

    def _stages(self, agents: int) -> int:
        return agents

    def _shown(self, agent: str) -> str:
        before = [_quoted(writer, text) for texts in self._said for writer, text in texts.items()]
        return "\n\n".join([self._read[agent], *before])

    def _divided(self, said: Said) -> tuple[Mapping[str, str], Said]:
        return {agent: text for texts in said for agent, text in texts.items()}, ()


class Discussion(Staged):
    """All agents talk for some rounds, each reading what the others said in the round before; then they answer.

    In the first round an agent reads its observation and `talk_request`; in the later ones what the others said, and
    the request again; at the last stage what the others said, and `answer_request`. Only these last texts are scored.

    Args:
        env: an environment of texts.
        rounds: of free talk in every turn, at least 1.
        talk_request: what asks for a message, in which "{round}" and "{rounds}" stand for their numbers.
        answer_request: what asks for the final answer.

    Raises:
        TypeError: an environment that is not of texts. ValueError: `rounds` is no positive integer, or the environment
            refuses the protocol or has one already.
    """

    protocol = "discussion"

    def __init__(
        self,
        env: ParallelEnv,
        rounds: int = 1,
        talk_request: str = (
            "Do not answer yet. This is round {round} of {rounds} of a discussion: write a message to the others."
        ),
        answer_request: str = "The discussion is over. Now write your answer to the task above, and nothing else.",
    ) -> None:
        if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
            raise ValueError(f"rounds must be an integer of at least 1, not {rounds!r}.")
        super().__init__(env)
        self.rounds = rounds
        self.talk_request = talk_request
        self.answer_request = answer_request

    def _stages(self, agents: int) -> int:
        return self.rounds + 1

    def _shown(self, agent: str) -> str:
        request = self.answer_request
        if len(self._said) < self.rounds:
            request = self.talk_request.replace("{round}", str(len(self._said) + 1))
            request = request.replace("{rounds}", str(self.rounds))
        if not self._said:
            return f"{self._read[agent]}\n\n{request}"
        others = [_quoted(writer, text) for writer, text in self._said[-1].items() if writer != agent]
        return "\n\n".join([*others, request])

    def _divided(self, said: Said) -> tuple[Mapping[str, str], Said]:
        return said[-1], said[:-1]


class Single(TextWrapper):
    """One agent, called "agent", writes the texts of all roles, divided by a delimiter.

    It reads the observations of all roles under their names, and at the first turn how to divide its text. Reward and
    `individual_reward` are the mean over the roles (of a team reward: the team reward); the other infos are those of
    the first role, and `metrics` has `well_formed`: 1.0 if the text had as many parts as there are roles.

    **Rule.** The text is cut at every occurrence of the delimiter, wherever it stands. Part i, without the white space
    around it, is the text of role i; parts beyond the last role are dropped. With a single role the text is handed on
    unchanged. A role that the environment inside lets wait (`Relay`) keeps its place, reads nothing, and its part is
    ignored.

    **A missing delimiter scores 0.** A text with fewer parts than roles is never split by guessing: the roles without
    a part have an empty text, and the score of the turn is 0 however good the other parts are, or what the environment
    gives such texts where that is less than 0: saying nothing must not be a way out of a loss. What this takes away is
    the reward term `malformed` (0.0 or less), so the terms still add up to the score. Of an environment without
    `reward_terms` the reward alone is bounded so.

    On a coding environment this is one agent that writes helper and main function (up to 4 points), and says so in a
    warning. One that writes the main function alone is `main_only=True` of the environment, without a protocol (up to
    2.1, version 1: 2.15).

    Args:
        env: an environment of texts.
        delimiter: what stands between two parts; not empty.

    Raises:
        TypeError: an environment that is not of texts. ValueError: an empty delimiter, or the environment refuses the
            protocol or has one already.
    """

    protocol = "single"

    def __init__(self, env: ParallelEnv, delimiter: str = DELIMITER) -> None:
        if not isinstance(delimiter, str) or not delimiter.strip():
            raise ValueError(f"delimiter must be a text that is not blank, not {delimiter!r}.")
        super().__init__(env, ["agent"])
        self.roles = list(env.possible_agents)
        self.delimiter = delimiter
        # Environments of others have neither; copies of an environment never change them.
        shifts = getattr(env.unwrapped, "reward_shift", {})
        self._shift = _mean({role: shifts.get(role, 0.0) for role in self.roles})
        self._pays_progress = bool(getattr(env.unwrapped, "progress_rewards", False))
        self._worth = 0.0  # of the last turn, before and after what `malformed` took
        self._bounded = 0.0

    @property
    def agents(self) -> list[str]:  # type: ignore[override]  # PettingZoo declares an attribute
        """The one agent, while the episode lasts."""
        return ["agent"] if self.env.agents else []

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Those of the environment inside and `well_formed`."""
        return (*getattr(self.env, "metric_names", ()), "well_formed")

    @property
    def term_names(self) -> tuple[str, ...]:
        """Those of the environment inside and `malformed`."""
        return (*getattr(self.env, "term_names", ()), "malformed")

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """Begins an episode of the environment inside; arguments and errors are its own."""
        observations, infos = self.env.reset(seed=seed, options=options)
        instruction = (
            f"You write the texts of {len(self.roles)} roles: {', '.join(self.roles)}. Write them in this order, with "
            f"{self.delimiter} between two texts.\n\n"
        )
        text = self._joined(observations)
        text = text if len(self.roles) == 1 else instruction + text
        self._worth = self._bounded = 0.0
        return {"agent": Observation(text)}, {"agent": self._info(infos, len(self.roles), 0.0)}

    def step(
        self, actions: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Scores the parts of one text as the texts of the roles; errors as in the environment inside."""
        parts = self.parts(self._checked(actions)["agent"])
        texts = dict(zip(self.roles, [*parts, *[""] * len(self.roles)], strict=False))
        observations, rewards, terminations, _, infos = self.env.step(
            {role: texts[role] for role in self.env.agents}
        )
        ended = not self.env.agents
        terminated = ended and all(terminations.values())
        return (
            {"agent": Observation("" if ended else self._joined(observations))},
            {"agent": self._paid(_mean(rewards), len(parts))},
            {"agent": terminated},
            {"agent": ended and not terminated},
            {"agent": self._info(infos, len(parts), float(len(parts) == len(self.roles)))},
        )

    def parts(self, text: str) -> list[str]:
        """The parts of a text, as many as there are."""
        return [text] if len(self.roles) == 1 else [part.strip() for part in text.split(self.delimiter)]

    def _joined(self, observations: Mapping[str, str]) -> str:
        if len(self.roles) == 1:
            return next(iter(observations.values()))
        return "\n\n".join(
            f"Role {role}:\n{observations[role]}" for role in self.roles if role in observations
        )

    def _allowed(self, worth: float, parts: int) -> float:
        """What a turn is worth whose text has so many parts."""
        return worth if parts >= len(self.roles) else min(worth, 0.0)

    def _paid(self, reward: float, parts: int) -> float:
        """The reward of a step, of the one that the environment inside pays."""
        before, bounded_before = self._worth, self._bounded
        gained = reward - self._shift
        self._worth = before + gained if self._pays_progress else gained
        self._bounded = self._allowed(self._worth, parts)
        if self._bounded == self._worth and (not self._pays_progress or before == bounded_before):
            return reward  # to the last digit
        return self._bounded - (bounded_before if self._pays_progress else 0.0) + self._shift

    def _info(self, infos: Mapping[str, Mapping[str, Any]], parts: int, well_formed: float) -> dict[str, Any]:
        info = dict(next(iter(infos.values()), {}))
        if "individual_reward" in info:
            own = _mean({role: own["individual_reward"] for role, own in infos.items()})
            info["individual_reward"] = self._allowed(own, parts)
        if "score" in info and "reward_terms" in info:
            allowed = self._allowed(info["score"], parts)
            info["reward_terms"] = {**info["reward_terms"], "malformed": allowed - info["score"]}
            info["score"] = allowed
        info["metrics"] = {**info.get("metrics", {}), "well_formed": well_formed}
        return info


def wrap(
    env: ParallelEnv, protocol: Literal["pipeline", "discussion", "single"] | Mapping[str, Any]
) -> Pipeline | Discussion | Single:
    """An environment under a protocol that is named by a text.

    Args:
        env: an environment of texts.
        protocol: its name, or a mapping with its `name` and its other arguments.

    Raises:
        ValueError: no such protocol, arguments that make no sense, or an environment that refuses the protocol or has
            one already. TypeError: arguments that it does not have.

    Example:
        >>> import pettingzoo
        >>> import textmarl.envs
        >>> env = pettingzoo.make("parallel", "textmarl/TLDR-v0")
        >>> str(wrap(env, {"name": "discussion", "rounds": 2}))
        'TLDR-v0 (discussion)'
    """
    options = dict(protocol) if isinstance(protocol, Mapping) else {"name": protocol}
    name = options.pop("name", None)
    for kind in (Pipeline, Discussion, Single):
        if kind.protocol == name:
            return kind(env, **options)
    raise ValueError(f'protocol must be "pipeline", "discussion" or "single", not {name!r}.')


def _quoted(writer: str, text: str) -> str:
    return f"{writer} wrote:\n{text}"


def _mean(values: Mapping[str, float]) -> float:
    return math.fsum(values.values()) / len(values) if values else 0.0
