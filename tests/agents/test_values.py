"""Critics: what a value reads and where it stands, what is trained, and that policies do not notice."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import PeftModel

from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.agents.conversation import NoRoomError
from textmarl.agents.policy import Policy
from textmarl.agents.scoring import score_plain, score_shared
from textmarl.agents.values import Critic

PROMPTS = [[5, 3, 7, 2, 6], [8], [2, 4, 1, 9, 11, 3]]
RESPONSES = [[[4, 1], [3, 3, 2, 9, 2]], [[1]], [[6, 5, 1], [7]]]
ROWS = [(p, r) for p, group in zip(PROMPTS, RESPONSES, strict=True) for r in group]


def team(tuning: Any = "lora", dtype: str = "float64", **settings: Any) -> Team:
    reference = "none" if tuning == "full" else "adapter-off"
    config = TeamConfig("tiny", tuning, 4, dtype=dtype, device="cpu", reference=reference, **settings)
    return Team.create(["left", "right"], config)


def moved(critic: Critic) -> Critic:
    """Away from its initial weights, at which every value is 0 and an adapter does nothing."""
    stream = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in critic.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=stream, dtype=weight.dtype)
    return critic


def explicit(critic: Critic, states: torch.Tensor) -> torch.Tensor:
    inner, outer = critic.head.inner, critic.head.outer
    return torch.tanh(states @ inner.weight.T + inner.bias) @ outer.weight[0] + outer.bias[0]


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "mistral"])
def test_a_value_stands_before_each_token_on_the_last_hidden_state(
    make_model: Any, make_tokenizer: Any, family: str
) -> None:
    trunk = Policy("judge", make_model(family).double(), make_tokenizer())
    assert trunk.shares_prompts == (family != "mistral")
    critic = moved(Critic.on(trunk, 0, owns_trunk=True))
    values, mask = critic.values(PROMPTS, RESPONSES)
    assert mask.sum(dim=1).tolist() == [len(response) for _, response in ROWS]
    assert not values[~mask].any()
    for row, (prompt, response) in zip(values, ROWS, strict=True):
        ids = torch.tensor([prompt + response[:-1]])
        hidden = trunk.model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0]
        expected = explicit(critic, hidden[len(prompt) - 1 :])
        assert torch.allclose(
            row[: len(response)], expected, atol=1e-6 * float(expected.detach().abs().max())
        )
        alone, _ = critic.values([prompt], [[response[:1]]])
        assert torch.allclose(alone[0, 0], row[0], atol=1e-6), "of the prompt, whatever follows"


@pytest.mark.parametrize(
    ("score", "family"),
    [(score_shared, "llama"), (score_shared, "gpt2"), (score_plain, "llama"), (score_plain, "mistral")],
)
def test_scores_give_the_states_that_tokens_are_predicted_from(
    make_model: Any, make_tokenizer: Any, family: str, score: Any
) -> None:
    policy = Policy("judge", make_model(family).double(), make_tokenizer())
    model, sampling = policy.model, Sampling(temperature=0.7)
    scores = score(model, PROMPTS, RESPONSES, sampling, True)
    assert score(model, PROMPTS, RESPONSES, sampling).states is None
    logits = model.get_output_embeddings()(scores.states) / 0.7
    for row, states, logprobs, (_, response) in zip(
        logits, scores.states, scores.logprobs, ROWS, strict=True
    ):
        again = row.log_softmax(-1)[torch.arange(len(response)), torch.tensor(response)]
        assert torch.allclose(again, logprobs[: len(response)], atol=1e-5)
        assert not states[len(response) :].any()
    (gradient,) = torch.autograd.grad(scores.states.square().sum(), next(model.parameters()))
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_new_critic_values_everything_at_zero(tuning: str) -> None:
    values, _ = team(tuning).add_critic("judge", "left", seed=1).values(PROMPTS, RESPONSES)
    assert not values.any() and values.requires_grad


def test_values_are_single_precision_where_the_model_is_less() -> None:
    values, _ = team(dtype="bfloat16").add_critic("judge", "left", 1).values(PROMPTS, RESPONSES)
    assert values.dtype == torch.float32


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_critic_disturbs_no_policy(tuning: str, tmp_path: Any) -> None:
    own, sampling = team(tuning), Sampling(max_new_tokens=5)
    talk = [[{"role": "user", "content": "hello"}]]

    def seen() -> list[Any]:
        return [
            (
                policy.generate(talk, sampling, torch.Generator().manual_seed(3), n=3),
                policy.score(PROMPTS, RESPONSES, sampling).logprobs.tolist(),
                policy.digest(),
                list(policy.parameters()),
            )
            for policy in own.policies.values()
        ]

    before = seen()
    critic = moved(own.add_critic("judge", "left", 1))
    values, _ = critic.values(PROMPTS, RESPONSES)
    values.sum().backward()
    assert seen() == before
    mine = {id(parameter) for parameter in critic.parameters()}
    for policy in own.policies.values():
        assert not mine & {id(parameter) for parameter in policy.parameters().values()}
        assert all(parameter.grad is None for parameter in policy.parameters().values())
    own.save(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if "judge" in path.name]
    assert Team.load(tmp_path).policies["left"].digest() == own.policies["left"].digest()


def test_with_lora_memory_grows_by_an_adapter_and_a_head() -> None:
    own = team()
    base = own.policies["left"].model
    before = sum(parameter.numel() for parameter in base.parameters())
    critic = own.add_critic("judge", "right", 1)
    assert critic.trunk.model is base
    adapter = sum(parameter.numel() for parameter in own.policies["right"].parameters().values())
    assert sum(parameter.numel() for parameter in base.parameters()) == before + adapter
    width = base.config.hidden_size
    assert sum(p.numel() for p in critic.parameters()) == adapter + width * width + width + width + 1


def test_a_shared_trunk_belongs_to_the_policy() -> None:
    own = team()
    critic = own.share_trunk("left", 1)
    assert critic.trunk is own.policies["left"] and critic.parameters() == list(critic.head.parameters())
    assert critic.state_dict()["trunk"] == {}


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_critic_made_again_is_new_and_drawn_from_its_seed(tuning: str) -> None:
    own = team(tuning)

    def numbers(critic: Critic) -> list[Any]:
        return [weight.tolist() for weight in critic.parameters()]

    fresh = numbers(own.add_critic("judge", "left", 1))
    critic = moved(own.add_critic("judge", "left", 1))
    state = copy.deepcopy(critic.state_dict())
    assert numbers(critic) != fresh
    other = numbers(own.add_critic("judge", "left", 2))
    assert other != fresh
    again = own.add_critic("judge", "left", 1)
    assert numbers(again) == fresh
    again.load_state_dict(state)
    assert numbers(again) == [w.tolist() for part in ("trunk", "head") for w in state[part].values()]
    if isinstance(again.trunk.network, PeftModel):
        assert sorted(again.trunk.network.peft_config) == ["judge", "left", "right"]
    values, _ = again.values(PROMPTS, RESPONSES)
    assert values.shape == (5, 5)


def test_another_critics_state_is_refused() -> None:
    own = team()
    state = own.add_critic("judge", "left", 1).state_dict()
    other = Team.create(["left"], TeamConfig("tiny", lora_rank=2, device="cpu"))
    with pytest.raises(ValueError, match="does not fit the critic 'judge'"):
        other.add_critic("judge", "left", 1).load_state_dict(state)


@pytest.mark.parametrize("name", ["left", "a.b", "a/b"])
def test_a_name_that_cannot_be_the_critics_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a critic needs a name that no agent has"):
        team().add_critic(name, "left", 1)


def test_a_history_longer_than_the_trunk_reads_is_refused() -> None:
    critic = team().share_trunk("left", 1)
    with pytest.raises(NoRoomError, match="exceed the 4096 tokens"):
        critic.check_room([[2] * 4090], 7)
    critic.check_room([[2] * 4090], 6)
