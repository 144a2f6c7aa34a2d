"""RMS normalisation that keeps little between its forward and its backward pass.

The library's layers compute in float32 and, for gradients, keep three float32 copies of their input: most of what a
decoder holds in memory in an update. Here the input, in its own precision, and one number a token are kept:

    y = w * n,  n = x / r,  r = sqrt(mean(x^2) + eps),    dx = (w g - n mean(w g n)) / r,    dw = sum over tokens of g n.
"""

from __future__ import annotations

import types

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel


class RMSNorm(torch.autograd.Function):
    """y = w * x / sqrt(mean(x^2) + eps) over the last dimension, gradients for x and w."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, eps: float
    ) -> Tensor:
        """Args: x (..., width), weight (width,). Returns (..., width)."""
        exact = torch.promote_types(x.dtype, torch.float32)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact)
        ctx.save_for_backward(x, weight, torch.rsqrt(length.square() / x.shape[-1] + eps))
        return functional.rms_norm(x, weight.shape, weight, eps)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor, Tensor | None, None]:
        """Return the gradients by x and w."""
        x, weight, inverse = ctx.saved_tensors  # type: ignore[attr-defined]
        normed = x * inverse  # in float32
        of_weight = None
        if ctx.needs_input_grad[1]:  # type: ignore[attr-defined]
            of_weight = (gradient * normed).flatten(0, -2).sum(dim=0).to(weight.dtype)
        of_normed = gradient * weight.to(inverse.dtype)
        shrunk = (of_normed * normed).mean(dim=-1, keepdim=True)
        of_x = of_normed.addcmul_(normed, shrunk, value=-1).mul_(inverse)
        return of_x.to(x.dtype), of_weight, None


def slim_norms(model: PreTrainedModel) -> None:
    """Let those layers of ``model`` that compute an RMS norm, by the proof of an example, compute it as above."""
    for layer in model.modules():
        if not type(layer).__name__.endswith("RMSNorm") or not {"weight", "variance_epsilon"} <= (
            vars(layer).keys() | dict(layer.named_parameters(recurse=False)).keys()
        ):
            continue
        weight = layer.weight
        example = torch.linspace(-2, 3, weight.numel(), device=weight.device).to(weight.dtype)[None]
        with torch.no_grad():
            same = functional.rms_norm(example, weight.shape, weight, layer.variance_epsilon)
            if torch.allclose(layer(example), same, rtol=1e-2, atol=1e-4):
                layer.forward = types.MethodType(_forward, layer)  # type: ignore[method-assign]


def _forward(layer: torch.nn.Module, x: Tensor) -> Tensor:
    if torch.is_grad_enabled():
        return RMSNorm.apply(x, layer.weight, layer.variance_epsilon)
    return functional.rms_norm(x, layer.weight.shape, layer.weight, layer.variance_epsilon)  # type: ignore[arg-type]
