"""RMS norms that keep little: the same numbers and gradients as the library's layers."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from textmarl.agents.norms import RMSNorm, slim_norms


def norms(model: PreTrainedModel) -> list[nn.Module]:
    return [layer for layer in model.modules() if type(layer).__name__.endswith("RMSNorm")]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_a_slim_norm_is_the_librarys(make_model: Callable[..., PreTrainedModel], family: str) -> None:
    model = make_model(family).double()
    for layer in norms(model):
        nn.init.normal_(layer.weight)
    plain = copy.deepcopy(model)
    slim_norms(model)
    assert norms(model)
    for ours, theirs in zip(norms(model), norms(plain), strict=True):
        assert "forward" in vars(ours)
        x = torch.randn(3, 5, len(ours.weight), dtype=torch.float64)
        results = []
        for layer in (ours, theirs):
            y = layer(leaf := x.clone().requires_grad_(True))
            (y * torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view_as(y)).sum().backward()
            results.append((y, leaf.grad, layer.weight.grad))
        with torch.no_grad():
            results.append((ours(x), *results[0][1:]))
        # The library's layers compute in float32 whatever the input's precision.
        for result in results[:1] + results[2:]:
            for one, other in zip(result, results[1], strict=True):
                assert torch.allclose(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


def test_a_norm_that_computes_something_else_stays_the_librarys(
    make_model: Callable[..., PreTrainedModel],
) -> None:
    model = make_model("gemma")  # it multiplies by 1 + w
    slim_norms(model)
    assert norms(model) and not any("forward" in vars(layer) for layer in norms(model))


def test_gradients_equal_finite_differences() -> None:
    torch.manual_seed(0)
    x, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 5), (5,)))
    assert torch.autograd.gradcheck(lambda x, w: RMSNorm.apply(x, w, 1e-5), (x, weight))


def test_a_frozen_weight_gets_no_gradient() -> None:
    x, weight = torch.randn(2, 5, requires_grad=True), torch.ones(5)
    RMSNorm.apply(x, weight, 1e-5).sum().backward()
    assert x.grad is not None and weight.grad is None
