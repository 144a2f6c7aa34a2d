"""The LoRA adapters of several policies on one base, computed together, a row of the batch each with its own.

A LoRA layer computes W x + s B (A x). With N policies in one batch, their factors lie side by side, A = [A_1; ...; A_N]
and B = [s_1 B_1, ..., s_N B_N], and a row's entries of A x that belong to other policies are set to 0: one product
with W for all rows, and two thin ones. Sampling and scoring use the same three products in the same precision; in
sampling, layers that read the same input (query, key and value; gate and up) are computed as one.

With gradients there is one policy at a time. Of the input x, A x and the incoming gradient g only

    dA = s (B^T g) x^T,    dB = s g (A x)^T,    dx = W^T g + s A^T (B^T g)

are needed, and no derivative by the frozen W is ever formed.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel


class AdaptedLinear(torch.autograd.Function):
    """y = W x + b + s B (A x), gradients for x, A and B."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        lora_a: Tensor,
        lora_b: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scaling: float,
    ) -> Tensor:
        """Args: x (..., in), lora_a (r, in), lora_b (out, r), weight (out, in), bias (out,). Returns (..., out)."""
        flat = x.flatten(0, -2)
        down = flat @ lora_a.to(x.dtype).T
        y = functional.linear(flat, weight, bias)
        y.addmm_(down, (lora_b * scaling).to(x.dtype).T)
        ctx.save_for_backward(x, down, lora_a, lora_b, weight)
        ctx.scaling = scaling  # type: ignore[attr-defined]
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor, None, None, None]:
        """Return the gradients by x, A and B; those of the adapter, computed in the precision of x, add up in its own."""
        x, down, lora_a, lora_b, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        scaling = ctx.scaling  # type: ignore[attr-defined]
        flat = gradient.flatten(0, -2)
        through_b = flat @ (lora_b * scaling).to(flat.dtype)  # (tokens, r)
        of_a = (through_b.T @ x.flatten(0, -2)).to(lora_a.dtype)
        of_b = (flat.T @ down).to(lora_b.dtype) * scaling
        of_x = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            of_x = flat @ weight
            of_x.addmm_(through_b, lora_a.to(flat.dtype))
            of_x = of_x.unflatten(0, x.shape[:-1])
        return of_x, of_a, of_b, None, None, None


class AdapterBank:
    """Within its context a base model computes with the adapters of ``names``; outside it, as peft has it.

    The factors are read when the context's first pass reaches a layer: a step of the optimizer is seen by the next
    context. Without any layer that has one of the adapters, the context changes nothing.

    Args:
        model: The base model, with peft's layers in it.
        names: The adapters, N of them. Gradients need N = 1.
    """

    def __init__(self, model: PreTrainedModel, names: Sequence[str]):
        self.names = list(names)
        self.mask: Tensor | None = None
        having = [
            layer
            for layer in model.modules()
            if isinstance(layer, LoraLayer)
            and any(name in layer.r for name in names)  # r: of embeddings, too
        ]
        # The head reads single tokens, not rows of them: to which policy one belongs is not known there.
        head = model.get_output_embeddings() if len(names) > 1 else None
        self.layers = [layer for layer in having if layer is not head and is_plain(layer, names)]
        self.ranks = [self.layers[0].r[name] for name in names] if self.layers else []
        self.layers = [layer for layer in self.layers if [layer.r[name] for name in names] == self.ranks]
        #: False if only peft can compute some of the layers, which it does for one adapter at a time.
        self.complete = len(self.layers) == len(having)
        # Layers that read the same input share the product by A: in all the library's decoders these are siblings.
        chosen = {id(layer) for layer in self.layers}
        self._groups: list[list[LoraLinear]] = []
        for module in model.modules():
            siblings = {name: child for name, child in module.named_children() if id(child) in chosen}
            for names_of_one_input in SAME_INPUT:
                group = [siblings.pop(name) for name in names_of_one_input if name in siblings]
                self._groups += [group] if group else []
            self._groups += [[layer] for layer in siblings.values()]

    def assign(self, owners: Tensor) -> None:
        """Give each row of the next passes its adapter.

        Args:
            owners: Indices into ``names``; its shape (...) broadcasts with the leading dimensions of the layers' input.
        """
        if len(self.names) > 1 and self.layers:
            of_column = torch.arange(len(self.names), device=owners.device).repeat_interleave(
                torch.tensor(self.ranks, device=owners.device)
            )
            self.mask = owners[..., None] == of_column

    def __enter__(self) -> AdapterBank:
        try:
            for group in self._groups:
                shared = _SharedInput(self, group)
                for place, layer in enumerate(group):
                    layer.forward = types.MethodType(_forward(shared, place), layer)  # type: ignore[method-assign]
        except BaseException:  # no memory for all of them, or an interrupt: leave none switched
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        for layer in self.layers:
            layer.__dict__.pop("forward", None)
        self.mask = None


#: Names of sibling layers that read the same input.
SAME_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class _SharedInput:
    """Layers that read the same input, M of them, computed as one without gradients: weights and factors side by side.

    With x (tokens, in), W = [W_1; ...; W_M], A = [A_1; ...; A_M] and B block by block,
    [y_1, ..., y_M] = x W^T + ((x A^T) * mask) B.
    """

    def __init__(self, bank: AdapterBank, layers: list[LoraLinear]):
        self.bank, self.layers = bank, layers
        self.sizes = [layer.base_layer.out_features for layer in layers]
        self.weight: Tensor | None = None  # (sum of out, in)
        self.bias: Tensor | None = None
        self.down: Tensor = torch.empty(0)  # (M * sum of ranks, in)
        self.up: Tensor = torch.empty(0)  # (M * sum of ranks, sum of out)
        self.seen: Tensor | None = None
        self.outputs: tuple[Tensor, ...] = ()

    def _read(self, like: Tensor) -> Tensor:
        """Lay out weights and factors, in the precision of ``like``; return the weights."""
        bases, names = [layer.base_layer for layer in self.layers], self.bank.names
        alone = len(bases) == 1
        self.weight = bases[0].weight if alone else torch.cat([base.weight for base in bases])
        if any(base.bias is not None for base in bases):
            empty = [like.new_zeros(size) for size in self.sizes]
            self.bias = torch.cat(
                [none if base.bias is None else base.bias for base, none in zip(bases, empty, strict=True)]
            )
        self.down = torch.cat([layer.lora_A[n].weight for layer in self.layers for n in names]).to(like.dtype)
        self.up = torch.block_diag(
            *(
                torch.cat([layer.lora_B[n].weight * layer.scaling[n] for n in names], dim=1).T
                for layer in self.layers
            )
        ).to(like.dtype)
        return self.weight

    def output(self, x: Tensor, place: int) -> Tensor:
        """Return what the layer at ``place`` gives for the input x (..., in)."""
        if self.seen is not x:
            weight = self._read(x) if self.weight is None else self.weight
            y = functional.linear(x, weight, self.bias)
            product = functional.linear(x, self.down)
            if self.bank.mask is not None:
                product.unflatten(-1, (len(self.layers), -1)).mul_(self.bank.mask.unsqueeze(-2))
            y.view(-1, y.shape[-1]).addmm_(product.flatten(0, -2), self.up)
            self.seen, self.outputs = x, y.split(self.sizes, dim=-1)
        own = self.outputs[place]
        if place == len(self.layers) - 1:
            self.seen, self.outputs = None, ()
        return own


def _forward(shared: _SharedInput, place: int) -> Any:
    name = shared.bank.names[0]

    def forward(layer: LoraLinear, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        base = layer.base_layer
        if layer.disable_adapters:  # the reference policy
            return base(x)
        if not torch.is_grad_enabled():
            return shared.output(x, place)
        if len(shared.bank.names) > 1:
            raise RuntimeError("adapters of several policies at once have no gradients; use a bank of one")
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        return AdaptedLinear.apply(x, a, b, base.weight, base.bias, layer.scaling[name])

    return forward


def is_plain(layer: LoraLayer, names: Sequence[str]) -> bool:
    """Say whether ``layer`` is a linear layer with ordinary LoRA factors of all ``names``."""
    return (
        isinstance(layer, LoraLinear)
        and type(layer.get_base_layer()) is torch.nn.Linear
        and all(name in layer.lora_A and not layer.use_dora[name] for name in names)
    )
