"""What a rollout records: texts, rewards, infos and branches, as playing every episode again gives them."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import pytest
import torch

from textmarl.agents import Sampling, Team
from textmarl.algos import MAGRPO, Node, Rollout
from textmarl.algos.rollout import Branching
from textmarl.envs import Outcome, TaskSet, TextEnv

AGENTS = ["left", "right"]


class Whispers(TextEnv):
    """Each reads what the other one wrote; about one joint answer in three ends the episode."""

    possible_agents = AGENTS
    tasks = TaskSet.of(["abc", "a rather longer task than the other"])

    def observe(self, agent: str) -> str:
        if not self.history:
            return f"{agent}: {self.task.data['text']}"
        return self.history[-1].responses["right" if agent == "left" else "left"]

    def judge(self, responses: dict[str, str]) -> Outcome:
        left, right = responses.values()
        score = len(left) - 0.3 * len(right)
        return Outcome({"score": score}, finished=sum(map(ord, left + right)) % 3 == 0)


@pytest.mark.parametrize(
    ("algorithm", "turns"),
    [
        (MAGRPO(group_size=3), 2),
        (MAGRPO(group_size=2, joint_mode="cross"), 2),
        (MAGRPO(group_size=4, branching="chain"), 3),
    ],
    ids=["aligned, two turns", "cross, two turns", "chain, three turns"],
)
def test_records_are_what_a_replay_of_every_episode_gives(
    make_team: Callable[..., Team], llama: str, qwen: str, algorithm: MAGRPO, turns: int
) -> None:
    team = make_team([llama, qwen])
    played, ended = 0, set()

    def prompt(agent: str, history: list[str]) -> list[int]:
        tokenizer = team.policies[agent].tokenizer
        text = "".join(f"{'ua'[k % 2]}{said}<end>" for k, said in enumerate(history)) + "a"
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    def replay(env: Whispers, history: dict[str, list[str]], node: Node, j: int) -> None:
        nonlocal played
        played += 1
        ended.add((env.turn + 1 < turns, node.continuations[j] is None))
        texts = {}
        for agent, k in zip(AGENTS, node.joint_actions[j], strict=True):
            response = node.responses[agent][k]
            assert response.prompt_ids == prompt(agent, history[agent])
            texts[agent] = response.text
        env = copy.deepcopy(env)
        observations, rewards, terminations, _, infos = env.step(texts)
        assert node.rewards[j].tolist() == [rewards[agent] for agent in AGENTS]
        assert node.infos[j]["score"] == infos["left"]["score"]
        continuation = node.continuations[j]
        assert (continuation is None) == terminations["left"]
        if continuation is not None:
            child, place = continuation
            after = {agent: [*history[agent], texts[agent], observations[agent]] for agent in AGENTS}
            for k in range(len(child.joint_actions)) if place is None else [place]:
                replay(env, after, child, k)

    sampling = Sampling(temperature=0.7, max_new_tokens=6)
    generators = {agent: torch.Generator().manual_seed(i) for i, agent in enumerate(AGENTS)}
    rollout = Rollout(Whispers(max_turns=turns), team.policies, sampling, generators)
    roots = algorithm.collect(rollout, [(7, 0), (8, 1)])
    for (seed, task), root in zip([(7, 0), (8, 1)], roots, strict=True):
        env = Whispers(max_turns=turns)
        observations, _ = env.reset(seed=seed, options={"task": task})
        for j in range(len(root.joint_actions)):
            replay(env, {agent: [observations[agent]] for agent in AGENTS}, root, j)
    assert played == sum(len(node.joint_actions) for root in roots for node in root.subtree())
    assert {(True, True), (True, False)} <= ended, "some episodes should end early and some go on"


class Slow(Whispers):
    """Its scores may be computed at once; says in which thread each was."""

    metric_names = ("thread",)

    concurrency = 2

    def judge(self, responses: dict[str, str]) -> Outcome:
        outcome = super().judge(responses)
        return Outcome(outcome.terms, finished=outcome.finished, metrics={"thread": threading.get_ident()})


@pytest.mark.parametrize("branching", ["tree", "chain"])
def test_rewards_that_are_computed_while_others_write_are_the_same(
    make_team: Callable[..., Team], llama: str, branching: Branching
) -> None:
    team = make_team(llama)
    tasks = [(5, 0), (6, 1), (7, 0)]
    found = []
    for env in (Whispers(max_turns=2), Slow(max_turns=2)):
        generators = {agent: torch.Generator().manual_seed(k) for k, agent in enumerate(AGENTS)}
        rollout = Rollout(env, team.policies, Sampling(max_new_tokens=6), generators, batch_size=4)
        roots = rollout.collect(tasks, 2, "aligned", branching)
        nodes = [node for root in roots for node in root.subtree()]
        threads = {info["metrics"]["thread"] for node in nodes for info in node.infos if "metrics" in info}
        assert threading.get_ident() not in threads  # beside the thread that writes
        found.append([(node.rewards.tolist(), [r.text for r in node.responses["left"]]) for node in nodes])
    assert threads
    assert found[0] == found[1]


def test_what_a_reward_raises_while_others_write_is_raised(
    make_team: Callable[..., Team], llama: str
) -> None:
    class Broken(Slow):
        def judge(self, responses: dict[str, str]) -> Outcome:
            raise RuntimeError("no judge today")

    generators = {agent: torch.Generator().manual_seed(k) for k, agent in enumerate(AGENTS)}
    rollout = Rollout(Broken(), make_team(llama).policies, Sampling(max_new_tokens=6), generators)
    with pytest.raises(RuntimeError, match="no judge today"):
        rollout.collect([(5, 0), (6, 1)], 2)
