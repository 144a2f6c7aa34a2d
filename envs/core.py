"""Cooperative text environments: several agents read, write at the same time and share one reward.

`TextEnv` is a PettingZoo `ParallelEnv` whose observations and actions are texts. Formally it is a Dec-POMDP:
a task is drawn, every agent gets an observation of its own, all (or those whose turn it is: `TextEnv.acting`)
answer at once without seeing each other's answers, the joint answer is scored, and after `max_turns` turns at the latest the episode ends for everybody.

Your own environment says who acts, which tasks there are, what each agent reads and how the answers score:

    >>> class Rhyme(TextEnv):
    ...     possible_agents = ["first", "second"]
    ...     tasks = TaskSet.of(["rain", "light"])
    ...
    ...     def observe(self, agent):
    ...         return "Write one line that rhymes with: " + self.task.data["text"]
    ...
    ...     def judge(self, responses):
    ...         rhyming = [text.endswith(self.task.data["text"][-3:]) for text in responses.values()]
    ...         return Outcome({"score": sum(rhyming) / len(rhyming)})
    >>> env = Rhyme()
    >>> observations, infos = env.reset(options={"task": 0})
    >>> observations["first"]
    'Write one line that rhymes with: rain'
    >>> _, rewards, terminations, _, _ = env.step({"first": "the train", "second": "a bus"})
    >>> rewards, terminations
    ({'first': 0.5, 'second': 0.5}, {'first': True, 'second': True})
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from gymnasium.utils import seeding
from pettingzoo import ParallelEnv

from textmarl.envs.declarations import check_arguments, check_declaration, finite, positive_int
from textmarl.envs.settings import WithSettings
from textmarl.envs.spaces import Observation, UnicodeText
from textmarl.envs.tasks import Task, TaskSet
from textmarl.envs.transcript import printable, rendered_turn
from textmarl.envs.turns import Outcome, Turn, check_actions

__all__ = ["Outcome", "RewardFunction", "TextEnv", "Turn"]

RewardFunction = Callable[[dict[str, str], Task], float]


class TextEnv(ParallelEnv[str, str, str], WithSettings, ABC):
    """A simultaneous-move environment of texts: subclasses write `observe` and `judge`.

    Class attributes (an environment whose agents depend on its arguments sets them on `self` before it calls
    `super().__init__`):
        possible_agents: the agents in their fixed order.
        tasks: the task set, unless it is handed to the constructor.
        term_names: names of the reward terms, the same at every step.
        max_score: the score that counts as 100 % in reports.
        metric_names: names of the metrics beside the score, the same at every step; none by default.
        success_metric: the one of them that is 1.0 if the task is solved (pass@k counts it), or None.
        reference_scores: name -> the expected score of an episode (of its last turn) under a way of playing that readers
            compare with, such as {"optimal": 11.0, "uniform": -3.4}; reports show them beside the score. None by default,
            and none where `reward_fn` is given.
        individual_rewards: True if `judge` also returns a reward for each agent alone.
        progress_rewards: True if a step pays what its turn is worth more than the turn before (the first one: more
            than 0), so that an episode's rewards add up to the score of its last turn, which is what reports give.
            False, the default, pays every turn its full score.
        concurrency: how many copies of it may be judged at once, in threads (`textmarl.envs.vector`): more than 1
            where `judge` waits for other processes. 1 where `reward_fn` is given.
        refused_protocols: protocol -> why it would void the environment, for those that `textmarl.envs.protocols` refuses
            to wrap around it; none by default.
        protocol_warnings: protocol -> what those who wrap it around the environment are warned of.
        metadata: PettingZoo's; a subclass that does not set it gets its own class name as `name`.

    Args:
        tasks: the tasks to draw from; default: the class attribute.
        max_turns: turns in an episode, at least 1.
        max_cycles: PettingZoo's word for `max_turns` (`pettingzoo.make(..., max_cycles=2)`); give one.
        reward: "team": every agent is rewarded with the score; "individual": with its own part of it.
        reward_fn: replaces the score by your own, `reward_fn(responses, task) -> float`. `reward_terms` then
            has the one name "reward_fn", and `max_score` is 1 unless you give it. `finished` and
            `individual_reward` still come from the environment.
        reward_shift: added to the reward of every step, for the learner only; `infos` are unshifted. One number,
            or one for each agent: {agent: number}.
        max_score: replaces the class attribute.
        render_mode: "ansi" or None; `render` returns a text either way.

    Attributes:
        agents: who is in the episode; empty before the first `reset` and after the end.
        acting: who of them is asked for a text at the next step: all, unless a subclass lets some wait.
        task: the current task. Set by `reset`.
        turn: turns scored so far in this episode.
        history: the turns played in this episode.
        reward_shift: agent -> what is added to its rewards.
        settings: the constructor's arguments as JSON values (`textmarl.envs.settings`).
        np_random: the environment's only source of randomness, seeded by `reset(seed=...)`.

    Raises:
        TypeError, ValueError: if an argument or class attribute is missing or makes no sense.
    """

    metadata: dict[str, Any] = {"name": "TextEnv", "render_modes": ["ansi"], "is_parallelizable": True}
    possible_agents: list[str] = []
    tasks: TaskSet
    term_names: tuple[str, ...] = ("score",)
    max_score: float = 1.0
    metric_names: tuple[str, ...] = ()
    success_metric: str | None = None
    reference_scores: Mapping[str, float] = {}
    individual_rewards: bool = False
    progress_rewards: bool = False
    concurrency: int = 1
    refused_protocols: Mapping[str, str] = {}
    protocol_warnings: Mapping[str, str] = {}

    # Never changed during an episode, so copies of an environment share them: a copy costs microseconds
    # however many tasks there are and however large the model behind `reward_fn` is.
    _SHARED = frozenset(
        {
            "tasks",
            "task",
            "history",
            "reward_fn",
            "possible_agents",
            "term_names",
            "reference_scores",
            "_judge_terms",
            "settings",
        }
    )

    # What an episode is made of; never changed in place.
    _EPISODE = frozenset({"agents", "task", "turn", "history", "np_random", "_observations"})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "metadata" not in cls.__dict__:
            cls.metadata = {**cls.metadata, "name": cls.__name__}

    def __init__(
        self,
        tasks: TaskSet | None = None,
        *,
        max_turns: int | None = None,
        max_cycles: int | None = None,
        reward: Literal["team", "individual"] = "team",
        reward_fn: RewardFunction | None = None,
        reward_shift: float | Mapping[str, float] = 0.0,
        max_score: float | None = None,
        render_mode: str | None = None,
    ) -> None:
        if tasks is not None:
            self.tasks = tasks
        check_declaration(self)
        check_arguments(self, reward, reward_fn, max_turns, max_cycles, render_mode)
        self.possible_agents = list(self.possible_agents)
        self.agents: list[str] = []
        self.observation_spaces = {agent: UnicodeText() for agent in self.possible_agents}
        self.action_spaces = {agent: UnicodeText() for agent in self.possible_agents}
        self.state_space = UnicodeText()
        self.render_mode = render_mode
        self.max_turns = positive_int(
            "max_turns", next((m for m in (max_turns, max_cycles) if m is not None), 1)
        )
        self.reward = reward
        self.reward_fn = reward_fn
        self.reward_shift = self._shifts(reward_shift)
        self._judge_terms = tuple(self.term_names)
        if reward_fn is not None:
            self.term_names = ("reward_fn",)
            self.reference_scores = {}
            self.max_score = 1.0
            self.concurrency = 1  # it may be anybody's code, a model on a GPU
        if max_score is not None:
            self.max_score = finite("max_score", max_score)
        if not self.max_score > 0:
            raise ValueError(f"max_score must be positive, not {self.max_score}: reports divide by it.")
        self.np_random: Any = None  # a numpy.random.Generator from the first reset on
        self.turn = 0
        self.history: tuple[Turn, ...] = ()
        self._observations: dict[str, str] = {}

    # ------------------------------------------------------------------------------- what a subclass writes

    @property
    def acting(self) -> list[str]:
        """The agents whose texts count at the next step: all in the episode. Override it where they take turns.

        The others stay in `agents`, as PettingZoo wants it, but read an empty text, need not be in `step`'s
        actions, and have written an empty text whatever they send. Evaluation and training do not ask them.
        """
        return list(self.agents)

    @abstractmethod
    def observe(self, agent: str) -> str:
        """What is new to `agent` now: at turn 0 its whole instruction and the task, later the feedback.

        Called for every agent that acts next, after `reset` and after every step that does not end the episode
        (after the last one the observation is empty). `self.task`, `self.turn` and `self.history` are at hand; nobody
        else's text is shown unless this method shows it. An agent's history is its own conversation: do not
        repeat it.
        """

    @abstractmethod
    def judge(self, responses: dict[str, str]) -> Outcome:
        """Scores one joint answer: agent -> text, in the order of `possible_agents`.

        It must take any text and must not change the environment: a step that fails leaves the episode as it
        was. What a later `observe` needs travels in the outcome and is found in `self.history[-1].outcome`.
        """

    # ------------------------------------------------------------------------------- the PettingZoo interface

    def reset(
        self, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
        """Begins an episode.

        Args:
            seed: seeds `np_random`, which picks the task; None goes on with the present random state.
            options: {"task": index or id} picks the task. Other keys are ignored with a warning.

        Returns:
            observations: agent -> text; infos: agent -> dict with `task_id`, `turn` (0), `score` (0.0),
            `reward_terms` (all 0.0) and, where defined, `individual_reward` and `metrics` (0.0).

        Raises:
            LookupError: unknown task; TypeError: a task that is neither index nor id, a seed that is no int,
            options that are no mapping; ValueError: a seed below 0. In all these cases, and where `observe`
            raises, the episode and the random state stay as they were.
        """
        options = {} if options is None else options
        if not isinstance(options, Mapping):
            raise TypeError(
                f'reset() takes options={{"task": index or id}}, not {options!r} ({type(options).__name__}).'
            )
        unknown = [key for key in options if key != "task"]
        if unknown:
            warnings.warn(
                f"{type(self).__name__} ignores the reset options {unknown}: it knows only 'task'.",
                stacklevel=2,
            )
        task = self.tasks.find(options["task"]) if "task" in options else None
        if seed is not None and operator.index(seed) < 0:
            raise ValueError(f"A seed is an integer of at least 0, not {seed!r}.")
        with self._undone_on_error():
            if seed is not None:
                self.np_random, _ = seeding.np_random(operator.index(seed))
            elif self.np_random is None:
                self.np_random, _ = seeding.np_random()
            # Drawn even where the task is given, so that what follows in the random stream does not depend on it.
            drawn = int(self.np_random.integers(len(self.tasks)))
            self.task = self.tasks[drawn] if task is None else task
            self.turn = 0
            self.history = ()
            self.agents = list(self.possible_agents)
            self._observations = self._observed()
        terms = dict.fromkeys(self.term_names, 0.0)
        individual = dict.fromkeys(self.agents, 0.0) if self.individual_rewards else None
        metrics = dict.fromkeys(self.metric_names, 0.0)
        return self._shown(), self._infos(0.0, terms, individual, metrics)

    def step(
        self, actions: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Scores one text from each agent.

        Args:
            actions: agent -> text, for all agents that act; those that wait may be left out. Any text is scored,
                junk badly.

        Returns:
            observations, rewards, terminations, truncations (always False), infos; each agent -> value.
            The reward is `score + reward_shift` (or the individual reward, shifted likewise); with
            `progress_rewards` what the score has gained since the turn before. `infos` has the score itself.

        Raises:
            RuntimeError: before `reset` or after the end of the episode.
            TypeError: `actions` is no mapping or a text is no `str`; ValueError: a missing or unknown agent.
            In all these cases, and where `judge`, `reward_fn` or `observe` raises, the episode and the random
            state are as they were.
        """
        with self._undone_on_error():
            return self._stepped(self._checked(actions))

    def _stepped(
        self, responses: dict[str, str]
    ) -> tuple[dict[str, str], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        outcome = self.judge(dict(responses))  # its own copy: the history keeps what the agents wrote
        terms = self._terms(outcome, responses)
        score = math.fsum(terms.values())
        individual = self._individual(outcome)
        metrics = self._metrics(outcome)
        paid = self._worth(score, individual)
        if self.progress_rewards and self.history:
            before = self._worth(self.history[-1].score, self._individual(self.history[-1].outcome))
            paid = {agent: value - before[agent] for agent, value in paid.items()}

        self.history += (Turn(self._observations, responses, outcome, terms, score),)
        self.turn += 1
        agents = self.agents
        infos = self._infos(score, terms, individual, metrics)
        ended = outcome.finished or self.turn >= self.max_turns
        if ended:
            self.agents = []
            self._observations = dict.fromkeys(agents, "")
        else:
            self._observations = self._observed()
        return (
            self._shown(),
            {agent: paid[agent] + self.reward_shift[agent] for agent in agents},
            dict.fromkeys(agents, ended),
            dict.fromkeys(agents, False),
            infos,
        )

    def state(self) -> str:  # type: ignore[override]  # PettingZoo annotates an array
        """The global state as JSON: task id, turn, and for each agent what it read and wrote, in order."""
        conversations: dict[str, list[str]] = {agent: [] for agent in self.possible_agents}
        for turn in self.history:
            for agent, texts in conversations.items():
                texts += [turn.observations[agent], turn.responses[agent]]
        for agent in self.agents:
            conversations[agent].append(self._observations[agent])
        task_id = self.task.id if self._has_begun() else None
        return json.dumps({"task": task_id, "turn": self.turn, "agents": conversations}, ensure_ascii=False)

    def render(self) -> str:
        """The episode so far as a transcript; control characters are escaped, very long texts shortened."""
        if not self._has_begun():
            return f"{self}: no episode yet, call reset()"
        lines = [f"{self} | task {printable(self.task.id)} | turn {self.turn} of {self.max_turns}"]
        for number, turn in enumerate(self.history, start=1):
            lines += rendered_turn(number, turn.observations, turn.responses)
            terms = ", ".join(f"{name} {value:.3f}" for name, value in turn.terms.items())
            lines.append(f"--- turn {number} | score {turn.score:.3f} of {self.max_score:g} ({terms})")
        if self.agents:
            lines += rendered_turn(self.turn + 1, self._observations, {})
        return "\n".join(lines)

    def observation_space(self, agent: str) -> UnicodeText:
        """The space of all texts; the same object for an agent at every call."""
        return self.observation_spaces[self._known(agent)]

    def action_space(self, agent: str) -> UnicodeText:
        """The space of all texts; the same object for an agent at every call."""
        return self.action_spaces[self._known(agent)]

    def __deepcopy__(self, memo: dict[int, Any]) -> TextEnv:
        """A copy that continues exactly as this one would; it shares tasks, past turns and `reward_fn`."""
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        for name, value in vars(self).items():
            setattr(twin, name, value if name in self._SHARED else copy.deepcopy(value, memo))
        return twin

    # ------------------------------------------------------------------------------- inside

    @contextlib.contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Puts the episode and the random state back where the body raises."""
        before = {name: value for name, value in vars(self).items() if name in self._EPISODE}
        generator = self.np_random
        state = None if generator is None else generator.bit_generator.state
        try:
            yield
        except BaseException:
            if "task" not in before:
                self.__dict__.pop("task", None)
            self.__dict__.update(before)
            if generator is not None:
                generator.bit_generator.state = state
            raise

    def _observed(self) -> dict[str, str]:
        acting = self.acting
        observations: dict[str, Any] = {a: self.observe(a) if a in acting else "" for a in self.agents}
        for agent, text in observations.items():
            if not isinstance(text, str):
                raise TypeError(
                    f"{type(self).__name__}.observe({agent!r}) must return a str, not {type(text).__name__}."
                )
        return observations

    def _shown(self) -> dict[str, str]:
        return {agent: Observation(text) for agent, text in self._observations.items()}

    def _has_begun(self) -> bool:
        return bool(self.agents or self.history)

    def _known(self, agent: str) -> str:
        if agent not in self.possible_agents:
            raise ValueError(
                f"{type(self).__name__} has no agent {agent!r}; its agents are {self.possible_agents}."
            )
        return agent

    def _checked(self, actions: Mapping[str, str]) -> dict[str, str]:
        if not self.agents:
            why = "the episode has ended" if self.history else "no episode has begun"
            raise RuntimeError(f"{type(self).__name__}.step(): {why}; call reset() first.")
        acting = self.acting
        check_actions(actions, acting, self.agents)
        return {agent: actions[agent] if agent in acting else "" for agent in self.agents}

    def _terms(self, outcome: Outcome, responses: dict[str, str]) -> dict[str, float]:
        if self.reward_fn is not None:
            return {"reward_fn": finite("The value of reward_fn", self.reward_fn(dict(responses), self.task))}
        if set(outcome.terms) != set(self._judge_terms):
            raise ValueError(
                f"{type(self).__name__}.judge() returned the terms {sorted(outcome.terms)}, "
                f"but the class declares term_names = {self._judge_terms}."
            )
        return {name: finite(f"Reward term {name!r}", outcome.terms[name]) for name in self._judge_terms}

    def _individual(self, outcome: Outcome) -> dict[str, float] | None:
        if not self.individual_rewards:
            return None
        if outcome.individual is None or set(outcome.individual) != set(self.agents):
            raise ValueError(
                f"{type(self).__name__} declares individual_rewards, but judge() returned individual="
                f"{outcome.individual!r}; expected one number for each of {self.agents}."
            )
        return {a: finite(f"The individual reward of {a!r}", outcome.individual[a]) for a in self.agents}

    def _metrics(self, outcome: Outcome) -> dict[str, float]:
        if set(outcome.metrics) != set(self.metric_names):
            raise ValueError(
                f"{type(self).__name__}.judge() returned the metrics {sorted(outcome.metrics)}, "
                f"but the class declares metric_names = {self.metric_names}."
            )
        return {name: finite(f"Metric {name!r}", outcome.metrics[name]) for name in self.metric_names}

    def _worth(self, score: float, individual: dict[str, float] | None) -> dict[str, float]:
        """What a turn is worth to each agent, by the reward that was chosen."""
        if self.reward == "individual" and individual is not None:
            return individual
        return dict.fromkeys(self.agents, score)

    def _shifts(self, given: float | Mapping[str, float]) -> dict[str, float]:
        if not isinstance(given, Mapping):
            return dict.fromkeys(self.possible_agents, finite("reward_shift", given))
        if set(given) != set(self.possible_agents):
            raise ValueError(
                f"reward_shift must be one number, or one for each of {self.possible_agents}; "
                f"it has {sorted(given)}."
            )
        return {agent: finite(f"reward_shift of {agent!r}", given[agent]) for agent in self.possible_agents}

    def _infos(
        self,
        score: float,
        terms: dict[str, float],
        individual: dict[str, float] | None,
        metrics: dict[str, float],
    ) -> dict[str, dict[str, Any]]:
        infos: dict[str, dict[str, Any]] = {}
        for agent in self.agents:
            infos[agent] = {
                "task_id": self.task.id,
                "turn": self.turn,
                "score": score,
                "reward_terms": dict(terms),
            }
            if individual is not None:
                infos[agent]["individual_reward"] = individual[agent]
            if metrics:
                infos[agent]["metrics"] = dict(metrics)
        return infos
