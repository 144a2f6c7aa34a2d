"""Plays episodes with any agents and scores them.

`evaluate` needs no torch: the same function measures a random agent, a plain Python function, a person, a model
behind an endpoint, and a team in training.
"""

from __future__ import annotations

import concurrent.futures
import difflib
import itertools
import operator
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

import numpy as np

from textmarl.agents.conversation import (
    Agent,
    AsyncAgent,
    Conversation,
    MessagesAgent,
    NoRoomError,
    Response,
    TextAgent,
    as_agent,
)
from textmarl.agents.episodes import Episode, Evaluation, Failure, mean
from textmarl.agents.recording import EvaluationFolder, described
from textmarl.envs.instances import Instances, name_of
from textmarl.envs.vector import Transition, acting, step_all

__all__ = ["Episode", "Evaluation", "Failure", "evaluate", "shared_tasks"]


def evaluate(
    env: Any,
    agents: Mapping[str, Agent | Callable[..., str]],
    tasks: Sequence[int | str] | int | None = None,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
    output: str | PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    on_error: Literal["raise", "fail"] = "raise",
) -> Evaluation:
    """Plays every (task, sample) episode and scores it.

    Up to `batch_size` episodes are played at a time, on copies of `env`, which itself is left untouched. At each
    turn an agent answers the conversations of all of them in one call of `act`; an `AsyncAgent`, such as a model
    behind an endpoint, answers each on its own, and no episode waits for another. An agent's conversation holds
    what it observed and what it answered, nothing else; an agent that the environment lets wait
    (`textmarl.envs.vector.acting`) is not asked.

    An episode whose agent gives no answer (`Response.error`) has no score: it is found in `failures`, and the
    others go on. An agent that raises ends the evaluation, and without `output` what was played is lost, unless
    `on_error="fail"`.

    Args:
        env: a textmarl environment, or any PettingZoo ParallelEnv whose observations and actions are texts; or a
            function that makes one, which an environment that cannot be deep-copied needs.
        agents: one agent (see `as_agent`) for each of `env.possible_agents`.
        tasks: indices or ids; a number n for the first n tasks (all, where there are fewer); None for all.
            An environment without a task set takes a number of episodes (None: one).
        samples: episodes of each task.
        seed: an episode's seed is derived from it, the task's id and the sample's number, so it does not depend
            on which other tasks are played, nor on the batch size. The same holds for the answers of an
            `AsyncAgent`; other agents' randomness is their own.
        batch_size: the largest number of episodes played at a time, and of conversations in one call of `act`.
        progress: called with (episodes finished, episodes) at the start and as episodes finish.
        output: a folder in which every episode is written down as soon as it is finished (see
            `textmarl.agents.recording`). Episodes that are there already are not played again, but counted in
            the result; failed ones are played again.
        settings: with `output`, what else the episodes depend on, as JSON values: another call of `evaluate` with
            the same folder must have the same. What is known without it: the environment's name,
            arguments (its `settings`), turns, terms and tasks, `seed`, and of each agent its class and `settings`.
        on_error: what an exception in an agent's code does, and a response that is none. "raise": it is raised here
            (an error in a program should be seen). "fail": it costs the episodes whose conversations raise, which
            are found in `failures`; where a batch raises, its conversations are asked again one by one. What an
            environment raises is always raised.

    Raises:
        ValueError: a seat without an agent, an agent without a seat, a task twice, a number out of range, an
            agent that returned the wrong number of responses or cannot read a conversation of that length, or an
            `output` that holds something else.
        LookupError: an unknown task.
        TypeError: not an agent, a number that is no integer, a response that is no `Response` with a text, or an observation that is no text.
    """
    if on_error not in ("raise", "fail"):
        raise ValueError(f'on_error={on_error!r}: expected "raise" or "fail"')
    for name, number in (("samples", samples), ("batch_size", batch_size)):
        if _integer(name, number) < 1:
            raise ValueError(f"{name}={number}: expected at least 1")
    seed = _integer("seed", seed)
    instances = env if isinstance(env, Instances) else Instances(env)
    env = instances.env
    seats = _seat(list(env.possible_agents), agents)
    plan = {
        (task_id, sample): options
        for task_id, options in _choose_tasks(env, tasks)
        for sample in range(samples)
    }
    episodes: dict[tuple[str, int], Episode] = {}
    failures: dict[tuple[str, int], Failure] = {}
    with ExitStack() as stack:
        folder = None
        if output is not None:
            folder = EvaluationFolder.open(output, described(env, seats, seed, settings or {}))
            stack.enter_context(folder)
            episodes = {key: episode for key, episode in folder.episodes.items() if key in plan}
        starts = (
            _Play.start(instances.new(), task_id, options, sample, seed)
            for (task_id, sample), options in plan.items()
            if (task_id, sample) not in episodes
        )
        if progress is not None:
            progress(len(episodes), len(plan))
        for outcome in _played(starts, seats, batch_size, on_error == "fail", instances.done):
            if folder is not None:
                folder.add(outcome)
            key = (outcome.task_id, outcome.sample)
            if isinstance(outcome, Failure):
                failures[key] = outcome
            else:
                episodes[key] = outcome
            if progress is not None:
                progress(len(episodes) + len(failures), len(plan))
    return Evaluation(
        env_name=name_of(env),
        max_score=_optional(env, "max_score"),
        episodes=[episodes[key] for key in plan if key in episodes],
        failures=[failures[key] for key in plan if key in failures],
        success_metric=_optional(env, "success_metric"),
        reference_scores={
            name: float(value) for name, value in (_optional(env, "reference_scores") or {}).items()
        },
    )


def shared_tasks(first: Any, second: Any) -> set[str]:
    """The ids of the tasks that two environments have in common: of the same id and the same data.

    PettingZoo environments of others have no tasks, so nothing in common.
    """
    tasks = {task.id: task for task in _optional(second, "tasks") or ()}
    return {
        task.id
        for task in _optional(first, "tasks") or ()
        if task.id in tasks and _same(task, tasks[task.id])
    }


@dataclass(eq=False)
class _Play:
    """An episode being played: a copy of the environment and each agent's conversation."""

    env: Any
    task_id: str
    sample: int
    seed: np.random.SeedSequence
    conversations: dict[str, Conversation]
    infos: dict[str, dict[str, Any]]
    reward: float = 0.0
    turns: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Response] = field(default_factory=dict)
    awaited: dict[str, Future[Response]] = field(default_factory=dict)

    @classmethod
    def start(cls, env: Any, task_id: str, options: dict[str, Any] | None, sample: int, seed: int) -> _Play:
        sequence = np.random.SeedSequence(
            entropy=seed, spawn_key=(zlib.crc32(task_id.encode("utf-8", "surrogatepass")), sample)
        )
        observations, infos = env.reset(seed=int(sequence.generate_state(1)[0]), options=options)
        play = cls(env, task_id, sample, sequence, {agent: [] for agent in env.possible_agents}, infos)
        play.hear(observations)
        return play

    def hear(self, observations: Mapping[str, Any]) -> None:
        for agent in acting(self.env):
            text = observations[agent]
            if not isinstance(text, str):
                raise TypeError(
                    f"the observation of agent {agent!r} is {type(text).__name__}, expected a str; "
                    "evaluate() plays environments whose observations and actions are texts"
                )
            self.conversations[agent].append({"role": "user", "content": text})

    def answer_seed(self, agent: str) -> int:
        """The seed of the agent's answer at this turn."""
        path = (len(self.turns), list(self.conversations).index(agent))
        own = np.random.SeedSequence(self.seed.entropy, spawn_key=(*self.seed.spawn_key, *path))
        return int(own.generate_state(1)[0])

    def collect(self, forgiving: bool) -> str | None:
        """Takes the answers that have come; returns who gave none, if anybody."""
        for agent, future in list(self.awaited.items()):
            if future.done():
                try:
                    self.answers[agent] = future.result()
                    _check_response(agent, self.answers[agent])
                except Exception as error:
                    if not forgiving:
                        raise
                    self.answers[agent] = _no_answer(error)
                del self.awaited[agent]
        return next((agent for agent, answer in self.answers.items() if answer.error is not None), None)

    def joint_action(self) -> dict[str, str]:
        """Takes the answers of all agents that act into their conversations; returns their texts."""
        responses = {agent: self.answers[agent] for agent in acting(self.env)}
        self.answers = {}
        self.turns.append(
            {
                agent: {"observation": self.conversations[agent][-1]["content"], **_recorded(response)}
                for agent, response in responses.items()
            }
        )
        for agent, response in responses.items():
            self.conversations[agent].append({"role": "assistant", "content": response.text})
        return {agent: response.text for agent, response in responses.items()}

    def follow(self, transition: Transition) -> None:
        """Takes in what a step of the environment gave."""
        self.infos = transition.infos
        self.reward += mean(float(reward) for reward in transition.rewards.values())
        self.hear(transition.observations)

    def failure(self, agent: str) -> Failure:
        error = self.answers[agent].error or ""
        return Failure(self.task_id, self.sample, agent, error, self.turns)

    def episode(self) -> Episode:
        info: Mapping[str, Any] = next(iter(self.infos.values()), {})
        individual = None
        if "individual_reward" in info:
            individual = {agent: float(own["individual_reward"]) for agent, own in self.infos.items()}
        return Episode(
            task_id=self.task_id,
            sample=self.sample,
            score=float(info.get("score", self.reward)),
            reward_terms={name: float(value) for name, value in info.get("reward_terms", {}).items()},
            individual_reward=individual,
            turns=self.turns,
            metrics={name: float(value) for name, value in info.get("metrics", {}).items()},
        )


def _recorded(response: Response) -> dict[str, Any]:
    """A response as an episode holds it."""
    record: dict[str, Any] = {
        "response": response.text,
        "tokens": response.tokens,
        "finish": response.finish,
    }
    if response.usage is not None:
        record["prompt_tokens"] = response.usage.prompt_tokens
        if response.usage.estimated:
            record["tokens_estimated"] = True
    return record


def _played(
    starts: Iterator[_Play],
    seats: Mapping[str, Agent],
    batch_size: int,
    forgiving: bool,
    done: Callable[[Any], None],
) -> Iterator[Episode | Failure]:
    """Plays all episodes, at most `batch_size` at a time, and yields each as it finishes.

    `forgiving` makes what an agent raises a failure of its episodes; `done` gets the environment of each that is over.
    """
    live = list(itertools.islice(starts, batch_size))
    asking = live
    try:
        while live:
            _ask(asking, seats, forgiving)
            asking, waiting, ready = [], [], []
            for play in live:
                silent = play.collect(forgiving)
                if silent is not None:
                    _cancel([play])
                    done(play.env)
                    yield play.failure(silent)
                elif play.awaited:
                    waiting.append(play)
                else:
                    ready.append(play)
            joint_actions = [play.joint_action() for play in ready]
            transitions = step_all([play.env for play in ready], joint_actions, return_exceptions=True)
            errors = [transition for transition in transitions if isinstance(transition, Exception)]
            for play, transition in zip(ready, transitions, strict=True):
                if isinstance(transition, Exception):
                    continue
                play.follow(transition)
                if play.env.agents:
                    asking.append(play)
                else:
                    done(play.env)
                    yield play.episode()
            if errors:
                raise errors[0]
            if len(waiting) == len(live):
                futures = [future for play in waiting for future in play.awaited.values()]
                concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
            asking += itertools.islice(starts, batch_size - len(waiting) - len(asking))
            live = waiting + asking
    finally:  # after an interruption, what has not been sent yet need not be
        _cancel(live)
        for play in live:
            done(play.env)


def _ask(plays: Sequence[_Play], seats: Mapping[str, Agent], forgiving: bool) -> None:
    """Puts the newest observations before the agents. Those who answer by the batch have answered afterwards."""
    for play in plays:  # one after the other: where answers are queued, the first episode is finished first
        for name in acting(play.env):
            agent = seats[name]
            if isinstance(agent, AsyncAgent):
                play.awaited[name] = _submitted(agent, play, name, forgiving)
    for name, agent in seats.items():
        asked = [play for play in plays if name in acting(play.env)]
        if not asked or isinstance(agent, AsyncAgent):
            continue
        try:
            responses = _answers(name, agent, [play.conversations[name] for play in asked], forgiving)
        except NoRoomError as error:
            play = asked[error.place]
            raise ValueError(f"task {play.task_id!r}, step {len(play.turns) + 1}: {error}") from error
        for play, response in zip(asked, responses, strict=True):
            play.answers[name] = response


def _submitted(agent: AsyncAgent, play: _Play, name: str, forgiving: bool) -> Future[Response]:
    try:
        return agent.submit(play.conversations[name], play.answer_seed(name))
    except Exception as error:
        if not forgiving:
            raise
        failed: Future[Response] = Future()
        failed.set_result(_no_answer(error))
        return failed


def _answers(
    name: str, agent: Agent, conversations: Sequence[Conversation], forgiving: bool
) -> Sequence[Response]:
    """One response to each conversation; if `forgiving`, those that raise on their own get one with an error."""
    by_function = isinstance(agent, (TextAgent, MessagesAgent))  # asked one by one anyway, so never twice
    if not (forgiving and by_function and len(conversations) > 1):
        try:
            responses = agent.act(conversations)
            check_responses(name, responses, len(conversations))
            return responses
        except Exception as error:
            if not forgiving:
                raise
            if len(conversations) == 1:
                return [_no_answer(error)]
    return [_answers(name, agent, [conversation], forgiving)[0] for conversation in conversations]


def _no_answer(error: Exception) -> Response:
    return Response("", finish="error", error=f"{type(error).__name__}: {error}")


def _cancel(plays: Iterable[_Play]) -> None:
    for play in plays:
        for future in play.awaited.values():
            future.cancel()


def check_responses(name: str, responses: Any, expected: int) -> None:
    """Refuses what an agent called `name` returned unless it is a list of `expected` responses with texts.

    Raises:
        TypeError, ValueError: it is not; says what it is.
    """
    if not isinstance(responses, Sequence) or isinstance(responses, str):
        raise TypeError(
            f"act() of agent {name!r} returned {type(responses).__name__}, expected a list of {expected} Response"
        )
    if len(responses) != expected:
        raise ValueError(
            f"act() of agent {name!r} returned {len(responses)} responses to {expected} conversations; "
            "return one for each, in their order"
        )
    for response in responses:
        _check_response(name, response)


def _check_response(name: str, response: Any) -> None:
    if not isinstance(response, Response) or not isinstance(response.text, str):
        text = response.text if isinstance(response, Response) else response
        what = "a text of type " if isinstance(response, Response) else ""
        raise TypeError(
            f"act() of agent {name!r} returned {what}{type(text).__name__}, expected Response(text=<str>)"
        )


def _seat(names: Sequence[str], agents: Mapping[str, Agent | Callable[..., str]]) -> dict[str, Agent]:
    """The agents in the environment's order; refuses seats without an agent and agents without a seat."""
    if not isinstance(agents, Mapping):
        raise TypeError(
            f"agents is {type(agents).__name__}, expected a dict with one agent for each of {list(names)}"
        )
    for name in agents:
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ValueError(f"no seat is called {name!r}{hint}; this environment's agents are {list(names)}")
    missing = [name for name in names if name not in agents]
    if missing:
        raise ValueError(f"no agent for {missing}; give one for each of {list(names)}")
    return {name: as_agent(agents[name]) for name in names}


def _choose_tasks(env: Any, tasks: Any) -> list[tuple[str, dict[str, Any] | None]]:
    """The (task id, reset options) to play."""
    if isinstance(tasks, (str, bool)):
        raise TypeError(f"tasks={tasks!r}: expected a list of indices or ids, a number of tasks, or None")
    if isinstance(tasks, np.integer):
        tasks = int(tasks)
    if isinstance(tasks, int) and tasks < 1:
        raise ValueError(f"tasks={tasks}: expected at least 1 task")
    task_set = _optional(env, "tasks")
    if task_set is None:
        if tasks is not None and not isinstance(tasks, int):
            raise ValueError("this environment has no task set; tasks must be a number of episodes or None")
        return [(f"episode-{i}", None) for i in range(tasks or 1)]
    if tasks is None:
        chosen = list(task_set)
    elif isinstance(tasks, int):
        chosen = [task_set[i] for i in range(min(tasks, len(task_set)))]
    else:
        chosen = [task_set.find(task) for task in tasks]
    ids = [task.id for task in chosen]
    if len(set(ids)) != len(ids):
        twice = next(task_id for i, task_id in enumerate(ids) if task_id in ids[:i])
        raise ValueError(f"tasks names {twice!r} twice; use samples= to play a task several times")
    if not ids:
        raise ValueError("there are no tasks to play")
    return [(task_id, {"task": task_id}) for task_id in ids]


def _integer(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}={value!r}: expected an integer") from None


def _optional(env: Any, name: str) -> Any:
    """An attribute that textmarl environments have and other PettingZoo environments need not have."""
    return getattr(env, name, None)


def _same(task: Any, other: Any) -> bool:
    try:
        return bool(task == other)
    except ValueError:  # data of an own environment that has no truth value when compared, as arrays
        return True
