"""What a rollout records: texts, rewards, infos and branches, as playing every episode again gives them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from textmarl.agents import Sampling, Team
from textmarl.algos import MAGRPO, Node, Rollout
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
