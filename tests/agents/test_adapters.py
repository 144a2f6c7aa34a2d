"""Adapters computed by a bank: the same numbers and the same gradients as peft's own layers give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from textmarl.agents import Sampling, Team, TeamConfig
from textmarl.agents.adapters import AdapterBank
from textmarl.agents.policy import Policy
from textmarl.agents.prefix import SharedPrefix
from textmarl.agents.scoring import score_plain

PROMPTS = [[5, 3, 7, 2, 6], [8, 4]]
RESPONSES = [[[4, 9, 1], [3, 3]], [[1]]]
SAMPLING = Sampling(max_new_tokens=4)


@pytest.fixture
def team(save_folder: Callable[..., Path]) -> Callable[[str], Team]:
    def make(family: str) -> Team:
        team = Team.create(
            ["left", "right"],
            TeamConfig(model=str(save_folder(family)), lora_rank=4, dtype="float64", device="cpu"),
        )
        torch.manual_seed(0)
        with torch.no_grad():
            for policy in team.policies.values():
                for parameter in policy.parameters().values():
                    parameter += 0.2 * torch.randn(parameter.shape, dtype=parameter.dtype)
        return team

    return make


def gradients(policy: Policy) -> tuple[Tensor, dict[str, Tensor]]:
    """Score with whatever the network computes now, peft's own layers unless a bank stands in for them."""
    policy.network.set_adapter(policy.name)
    policy.model.zero_grad()
    scores = score_plain(policy.model, PROMPTS, RESPONSES, SAMPLING)
    weights = torch.linspace(-1, 1, scores.logprobs.numel()).view_as(scores.logprobs)
    ((weights * scores.logprobs).sum() + (weights * scores.entropies).sum()).backward()
    found = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad()
    return scores.logprobs.detach(), found


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "mistral"])
def test_scores_and_gradients_are_those_of_pefts_own_layers(team: Callable[[str], Team], family: str) -> None:
    for policy in team(family).policies.values():
        expected, apart = gradients(policy)
        with policy.adapted():
            switched = [module for module in policy.model.modules() if "forward" in vars(module)]
            found, banked = gradients(policy)
        assert bool(switched) == (family != "gpt2")  # its layers are no plain linear ones and keep peft's own
        assert torch.allclose(found, expected, atol=1e-10)
        assert torch.allclose(policy.score(PROMPTS, RESPONSES, SAMPLING).logprobs, expected, atol=1e-10)
        assert banked.keys() == apart.keys() == policy.parameters().keys()
        largest = max(float(gradient.abs().max()) for gradient in apart.values())
        for name, gradient in apart.items():
            assert torch.allclose(banked[name], gradient, rtol=0, atol=1e-10 * largest), name


def test_the_reference_is_the_base_also_within_a_bank(team: Callable[[str], Team]) -> None:
    policy = team("llama").policies["left"]
    expected = policy.score_reference(PROMPTS, RESPONSES, SAMPLING).logprobs
    with policy.adapted():
        found = policy.score_reference(PROMPTS, RESPONSES, SAMPLING).logprobs
        after = policy.score(PROMPTS, RESPONSES, SAMPLING).logprobs
    assert torch.equal(found, expected)
    assert not torch.allclose(after, expected, atol=1e-2)


def test_pefts_own_layers_are_back_afterwards(team: Callable[[str], Team]) -> None:
    left, right = team("llama").policies.values()
    expected = [gradients(policy) for policy in (left, right)]
    with pytest.raises(KeyboardInterrupt), left.adapted():
        raise KeyboardInterrupt
    with left.adapted(), left.adapted():  # the second one changes nothing
        gradients(left)
    left.score(PROMPTS, RESPONSES, SAMPLING)
    for policy, (logprobs, apart) in zip((left, right), expected, strict=True):
        found, again = gradients(policy)
        assert torch.equal(found, logprobs)
        assert all(torch.equal(again[name], gradient) for name, gradient in apart.items())


def test_a_step_of_the_optimizer_is_seen_by_the_next_bank(team: Callable[[str], Team]) -> None:
    policy = team("llama").policies["left"]
    before, _ = gradients(policy)
    with policy.adapted():
        assert torch.allclose(gradients(policy)[0], before, atol=1e-10)
    with torch.no_grad():
        for parameter in policy.parameters().values():
            parameter *= 1.5
    expected, _ = gradients(policy)
    assert not torch.allclose(expected, before, atol=1e-2)
    with policy.adapted():
        assert torch.allclose(gradients(policy)[0], expected, atol=1e-10)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_each_row_of_a_batch_has_the_adapter_of_its_owner(team: Callable[[str], Team], family: str) -> None:
    policies = team(family).policies
    model = policies["left"].model
    prompts, owners = [[5, 3, 7], [8, 4, 1, 2], [5, 3, 7]], [0, 1, 1]
    with torch.no_grad(), AdapterBank(model, list(policies)) as bank:
        assert bank.complete
        _, together = SharedPrefix.encode(model, prompts, adapters=bank, owners=owners)
    for prompt, owner, found in zip(prompts, owners, together, strict=True):
        with torch.no_grad(), list(policies.values())[owner].adapted():
            _, alone = SharedPrefix.encode(model, [prompt])
        assert torch.allclose(found, alone[0], atol=1e-12)
    assert not torch.allclose(together[0], together[2], atol=1e-3), "the same prompt, another adapter"


def test_a_bank_of_several_adapters_refuses_gradients(team: Callable[[str], Team]) -> None:
    policies = team("llama").policies
    with (
        AdapterBank(policies["left"].model, list(policies)),
        pytest.raises(RuntimeError, match="no gradients"),
    ):
        gradients(policies["left"])


def test_layers_that_only_peft_computes_make_a_bank_incomplete(team: Callable[[str], Team]) -> None:
    policies = team("gpt2").policies
    assert not AdapterBank(policies["left"].model, list(policies)).complete
