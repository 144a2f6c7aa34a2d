"""Several policies in one batch: what each answers does not depend on the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from textmarl.agents import Sampling, Team, TeamConfig, answering
from textmarl.agents.answering import answer, together
from textmarl.agents.conversation import Conversation, NoRoomError, Response
from textmarl.agents.generation import Sequence, generate_shared

AGENTS = ["first", "second", "third"]
SAMPLING = Sampling(temperature=1.3, max_new_tokens=7)


def say(text: str) -> Conversation:
    return [{"role": "user", "content": text}]


ASKED = {"first": [say("abc"), say("de")], "second": [say("abc")], "third": [say("h"), say("gg a"), say("h")]}


@pytest.fixture
def make_team(save_folder: Callable[..., Path]) -> Callable[..., Team]:
    def make(family: str = "llama", **settings: Any) -> Team:
        config = TeamConfig(
            model=str(save_folder(family)), lora_rank=4, dtype="float64", device="cpu", **settings
        )
        team = Team.create(AGENTS, config)
        torch.manual_seed(0)
        with torch.no_grad():
            for policy in team.policies.values():
                for parameter in policy.parameters().values():
                    parameter += 0.2 * torch.randn(parameter.shape, dtype=parameter.dtype)
        return team

    return make


def generators() -> dict[str, torch.Generator]:
    return {agent: torch.Generator().manual_seed(seed) for seed, agent in enumerate(AGENTS)}


def play(team: Team, asked: dict[str, list[Conversation]], **how: Any) -> dict[str, list[list[Response]]]:
    return answer(team.policies, asked, SAMPLING, generators(), n=3, **how)


def assert_same(found: dict[str, list[list[Response]]], expected: dict[str, list[list[Response]]]) -> None:
    assert found.keys() == expected.keys()
    for agent, groups in expected.items():
        for ours, theirs in zip(found[agent], groups, strict=True):
            assert [r.token_ids for r in ours] == [r.token_ids for r in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
                assert (one.text, one.prompt_ids, one.finish) == (other.text, other.prompt_ids, other.finish)


@pytest.mark.parametrize("batch_size", [64, 7, 3, 1])
@pytest.mark.parametrize(
    "settings",
    [{}, {"family": "gpt2"}, {"family": "mistral"}, {"share_base": False}, {"tuning": "full"}],
    ids=str,
)
def test_an_agent_answers_as_it_does_alone(
    make_team: Callable[..., Team], settings: dict[str, Any], batch_size: int
) -> None:
    team = make_team(**settings)
    alone = {agent: play(team, {agent: own})[agent] for agent, own in ASKED.items()}
    assert len({tuple(r.token_ids) for groups in alone.values() for group in groups for r in group}) > 8
    assert_same(play(team, ASKED, batch_size=batch_size), alone)


def test_agents_of_one_network_are_decoded_in_one_batch(
    make_team: Callable[..., Team], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []

    def counted(model: Any, prompts: list[list[int]], n: int, *rest: Any) -> list[Sequence]:
        rows.append(len(prompts) * n)
        return generate_shared(model, prompts, n, *rest)

    monkeypatch.setattr(answering, "generate_shared", counted)
    play(make_team(), ASKED)
    assert rows == [18]
    rows.clear()
    play(make_team(share_base=False), ASKED)
    assert rows == [6, 3, 9]


@pytest.mark.parametrize("layer", ["embed_tokens", "lm_head"])
def test_adapters_of_the_embedding_and_of_the_head_are_the_agents_own(
    make_team: Callable[..., Team], layer: str
) -> None:
    team = make_team(lora_targets=["q_proj", layer])
    assert together(list(team.policies.values())) == [[agent] for agent in AGENTS]
    streams = generators()
    alone = {
        agent: policy.generate(ASKED[agent], SAMPLING, streams[agent], n=3)
        for agent, policy in team.policies.items()
    }
    found = play(team, ASKED)
    assert_same(found, alone)
    for agent, groups in found.items():
        for group in groups:
            scores = team.policies[agent].score(
                [group[0].prompt_ids], [[r.token_ids for r in group]], SAMPLING
            )
            for response, row in zip(group, scores.logprobs.tolist(), strict=True):
                assert response.logprobs == pytest.approx(row[: len(response.token_ids)], abs=1e-5)


def test_agents_are_together_where_one_network_holds_their_adapters(make_team: Callable[..., Team]) -> None:
    def of(**settings: Any) -> list[list[str]]:
        return together(list(make_team(**settings).policies.values()))

    apart = [[agent] for agent in AGENTS]
    assert of() == [AGENTS]
    assert of(family="mistral") == apart, "no shared prompts"
    assert of(family="gpt2") == apart, "layers that only peft computes"
    assert of(share_base=False) == apart
    assert of(tuning="full") == apart


def test_one_conversation_too_long_and_nothing_is_sampled(make_team: Callable[..., Team]) -> None:
    team = make_team("gpt2")
    streams = generators()
    before = {agent: stream.get_state() for agent, stream in streams.items()}
    asked = {"first": [say("a")], "second": [say("a"), say("b" * 200)]}
    with pytest.raises(NoRoomError, match="agent 'second'") as caught:
        answer(team.policies, asked, SAMPLING, streams)
    assert (caught.value.agent, caught.value.place) == ("second", 1)
    assert all(torch.equal(stream.get_state(), before[agent]) for agent, stream in streams.items())


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_each_conversation_is_told_of_once_its_responses_are_whole(
    make_team: Callable[..., Team], family: str, batch_size: int
) -> None:
    told: dict[tuple[str, int], list[Response]] = {}
    at: dict[tuple[str, int], int] = {}
    tokens = 0

    def count(added: int) -> None:
        nonlocal tokens
        tokens += added

    def tell(agent: str, index: int, responses: list[Response]) -> None:
        assert (agent, index) not in told
        told[agent, index], at[agent, index] = list(responses), tokens

    found = play(make_team(family), ASKED, batch_size=batch_size, on_tokens=count, on_answered=tell)
    assert told == {(agent, index): group for agent, own in found.items() for index, group in enumerate(own)}
    if (family, batch_size) == ("llama", 4):  # many batches: the first ones are long over at the end
        assert min(at.values()) < tokens / 2
