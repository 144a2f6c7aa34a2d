"""Episodes stepped at once: results in order, the same as one by one, and one failure does not spoil the others."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pettingzoo
import pytest

import textmarl.envs  # noqa: F401  (registers the environments)
from textmarl.envs import Outcome, Task, TaskSet, TextEnv
from textmarl.envs.protocols import Pipeline
from textmarl.envs.vector import Transition, VectorEnv, acting, step_all

AGENTS = ["left", "right"]


class Meeting(TextEnv):
    """Episodes meet at a barrier: a step ends only if all of them are judged at the same time."""

    possible_agents = AGENTS
    tasks = TaskSet.of(["0", "1", "2", "3"])
    concurrency = 4
    barrier = threading.Barrier(4, timeout=20)

    def observe(self, agent: str) -> str:
        return f"{self.task.data['text']} {self.np_random.integers(1000)}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        if "alone" not in responses.values():
            self.barrier.wait()
        if "fail" in responses.values():
            raise OSError("the judge is away")
        return Outcome({"score": float(len(responses["left"])) / 10})


def both(text: str) -> dict[str, str]:
    return dict.fromkeys(AGENTS, text)


def test_rewards_are_computed_at_the_same_time_and_come_in_order() -> None:
    episodes = VectorEnv(Meeting())
    episodes.reset(tasks=[3, 1, 2, 0], seeds=0)
    transitions = episodes.step([both("x" * length) for length in (4, 2, 3, 1)])
    assert [t.rewards["left"] for t in transitions if t] == [0.4, 0.2, 0.3, 0.1]
    assert [t.infos["right"]["task_id"] for t in transitions if t] == ["task/3", "task/1", "task/2", "task/0"]


def test_nothing_runs_in_threads_unless_the_environment_says_so() -> None:
    threads: set[int] = set()

    def reward(responses: dict[str, str], task: Task) -> float:
        threads.add(threading.get_ident())
        return 0.0

    # Nobody waits at the barrier: that would hang in a single thread.
    episodes = VectorEnv(Meeting(reward_fn=reward))
    episodes.reset(seeds=[0, 1, 2, 3])
    episodes.step([both("alone")] * 4)
    assert threads == {threading.get_ident()}
    assert Meeting(reward_fn=reward).concurrency == 1


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", ["Decoy", "Relay"])
def test_an_episode_depends_on_its_task_seed_and_texts_alone(name: str, workers: int) -> None:
    env = pettingzoo.make("parallel", f"textmarl/{name}-v0")
    tasks, seeds = [5, 0, 5, 3], [11, 12, 13, 11]

    def texts(episode: int, turn: int) -> dict[str, str]:
        return {agent: str(1 + (episode + turn + i) % 3) for i, agent in enumerate(env.possible_agents)}

    episodes = VectorEnv(env, max_workers=workers)
    together: list[list[Any]] = [[started] for started in episodes.reset(tasks=tasks, seeds=seeds)]
    turn = 0
    while any(episodes.live):
        joint_actions = [texts(i, turn) if alive else None for i, alive in enumerate(episodes.live)]
        for record, transition in zip(together, episodes.step(joint_actions), strict=True):
            record.append(transition)
        turn += 1
    for episode, (task, seed) in enumerate(zip(tasks, seeds, strict=True)):
        alone = copy.deepcopy(env)
        record: list[Any] = [alone.reset(seed=seed, options={"task": task})]
        while alone.agents:
            record.append(alone.step(texts(episode, alone.turn)))
        assert together[episode] == record
    assert not env.agents, "the environment that was handed over is left untouched"


def test_a_seed_stands_for_consecutive_ones_and_none_for_different_ones() -> None:
    episodes = VectorEnv(Meeting())
    episodes.env.reset(seed=1)  # its random state is not that of the episodes
    assert episodes.reset(tasks=[0, 0], seeds=7) == episodes.reset(tasks=[0, 0], seeds=[7, 8])
    assert episodes.reset(tasks=[0, 0], seeds=np.int64(7)) == episodes.reset(tasks=[0, 0], seeds=[7, 8])
    lucky = [observations["left"] for observations, _ in episodes.reset(tasks=[0] * 30)]
    assert len(set(lucky)) > 15


def test_finished_episodes_are_left_alone() -> None:
    episodes = VectorEnv(Meeting(max_turns=2), max_workers=1)
    episodes.reset(seeds=[0, 1])
    first = episodes.step([both("alone"), None])
    assert isinstance(first[0], Transition) and first[1] is None
    episodes.step([both("alone"), both("alone")])
    assert episodes.live == [False, True]
    last = episodes.step([None, both("alone")])
    assert last[0] is None and last[1] is not None and last[1].terminations == both(True)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [1, 4])
def test_one_failure_names_its_episode_and_leaves_the_others_intact(workers: int) -> None:
    episodes = VectorEnv(Meeting(), max_workers=workers)
    texts = [{"left": "alone", "right": word} for word in ("a", "b", "fail", "c")]
    episodes.reset(tasks=[0, 1, 2, 3], seeds=0)
    with pytest.raises(OSError, match="the judge is away") as caught:
        episodes.step(texts)
    assert caught.value.__notes__ == ["in episode 2 of 4 (task 'task/2')"]
    assert episodes.live == [False, False, True, False]

    episodes.reset(tasks=[0, 1, 2, 3], seeds=0)
    results = episodes.step(texts, return_exceptions=True)
    assert isinstance(results[2], OSError)
    assert [r.rewards["left"] for r in results if isinstance(r, Transition)] == [0.5, 0.5, 0.5]
    again = episodes.step([None, None, both("alone"), None])
    assert isinstance(again[2], Transition), "an episode whose step failed can be stepped again"


def test_calls_that_make_no_sense_are_refused() -> None:
    episodes = VectorEnv(Meeting())
    with pytest.raises(RuntimeError, match="call reset"):
        episodes.step([])
    with pytest.raises(ValueError, match="lists of one length"):
        episodes.reset(tasks=[0, 1], seeds=[0])
    with pytest.raises(ValueError, match="say how many episodes"):
        episodes.reset(seeds=3)
    with pytest.raises(ValueError, match="max_workers must be at least 1"):
        VectorEnv(Meeting(), max_workers=0)
    episodes.reset(seeds=[0, 1])
    with pytest.raises(ValueError, match="2 episodes got 1 joint actions"):
        episodes.step([both("alone")])
    with pytest.raises(ValueError, match="given twice"):
        step_all([episodes.envs[0]] * 2, [both("alone")] * 2)
    with pytest.raises(LookupError) as caught:
        episodes.reset(tasks=[0, "none"], seeds=5)
    assert caught.value.__notes__ == ["in episode 1 of 2 (seed 6, options {'task': 'none'})"]
    assert episodes.num_envs == 2 and all(episodes.live), "a refused reset leaves the episodes"
    episodes.close()
    assert episodes.num_envs == 0


def test_all_live_agents_act_unless_the_environment_lets_some_wait() -> None:
    env = Meeting()
    env.reset(seed=0)
    assert acting(env) == AGENTS
    pipeline = Pipeline(Meeting())
    pipeline.reset(seed=0)
    assert acting(pipeline) == ["left"]
