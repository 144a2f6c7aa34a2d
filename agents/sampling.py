"""The distribution that responses are drawn from and scored under: one definition for both.

Log-probabilities are those of the distribution that sampled: at its temperature and, with ``top_k`` or ``top_p``,
truncated and renormalised.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn, in rollouts and in evaluation."""

    temperature: float = 0.7
    """Divides the logits; 0 takes the likeliest token (for evaluation only: it has no gradient)."""
    top_p: float = 1.0
    """Keep the likeliest tokens whose probabilities reach this sum (nucleus sampling); 1 keeps all."""
    top_k: int = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    max_new_tokens: int = 96
    """Longest response in tokens, end-of-sequence token included; longer ones are cut there."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"sampling.temperature must be 0 or a positive number, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p must be in (0, 1], got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"sampling.top_k must be 0 (keep all) or positive, got {self.top_k}")
        if self.max_new_tokens < 1:
            raise ValueError(f"sampling.max_new_tokens must be at least 1, got {self.max_new_tokens}")

    @property
    def truncated(self) -> bool:
        """Whether some tokens are cut off before sampling."""
        return self.top_p < 1 or self.top_k > 0


def kept_tokens(scaled_logits: Tensor, sampling: Sampling) -> Tensor:
    """Return which tokens ``top_k`` and then ``top_p`` keep; logits and result have shape (n, vocabulary)."""
    order = scaled_logits.argsort(dim=-1, descending=True)
    ranked = scaled_logits.gather(-1, order)
    if sampling.top_k:
        ranked[:, sampling.top_k :] = -math.inf
    keep_ranked = ranked > -math.inf
    if sampling.top_p < 1:  # rounded sums reach 1 before the last token
        probabilities = ranked.softmax(dim=-1)
        keep_ranked &= probabilities.cumsum(dim=-1) - probabilities < sampling.top_p
    return torch.zeros_like(keep_ranked).scatter(-1, order, keep_ranked)


#: Tokens whose probabilities are added up together when a token is drawn.
DRAW_BLOCK = 256


def draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draw one token a row by inverting the cumulative distribution, in two levels.

    The vocabulary is read once for its probabilities and once for their sums over blocks of tokens; only the block
    that holds the drawn token is looked at more closely.

    Args:
        logits: (n, vocabulary), any floating dtype.
        uniform: (n,) numbers in [0, 1), which alone decide the draw: no other randomness is used.

    Returns:
        Tokens (n,) int64 and their log-probabilities (n,) float32 (0 at temperature 0).
    """
    if sampling.temperature == 0:
        tokens = logits.argmax(dim=-1)
        return tokens, torch.zeros(tokens.shape, dtype=torch.float32, device=logits.device)
    scaled = logits.float() / sampling.temperature
    if sampling.truncated:
        scaled = scaled.masked_fill(~kept_tokens(scaled, sampling), -math.inf)
    probabilities = scaled.softmax(dim=-1)
    n, vocabulary = probabilities.shape
    missing = -vocabulary % DRAW_BLOCK
    padded = functional.pad(probabilities, (0, missing)) if missing else probabilities  # padding by 0 copies
    blocks = padded.view(n, -1, DRAW_BLOCK)
    up_to_block = blocks.sum(dim=-1).double().cumsum(dim=-1)
    mass = uniform.double() * up_to_block[:, -1]
    block = torch.searchsorted(up_to_block, mass[:, None], right=True)
    block = block.clamp_(max=blocks.shape[1] - 1)
    before = up_to_block.gather(-1, (block - 1).clamp(min=0)).where(block > 0, 0.0)
    inside = blocks[torch.arange(n, device=block.device), block[:, 0]].double().cumsum(dim=-1)
    place = torch.searchsorted(inside, mass[:, None] - before, right=True)
    tokens = (block * DRAW_BLOCK + place)[:, 0]
    # The two levels round differently: a mass at the very end of a block may lie past its last token, or on a token
    # of probability 0. There the likeliest token is taken.
    inside_block = (place[:, 0] < DRAW_BLOCK) & (tokens < vocabulary)
    tokens = tokens.where(inside_block, 0)
    drawn = probabilities.gather(-1, tokens[:, None])[:, 0]
    missed = ~inside_block | (drawn == 0)
    if missed.any():
        tokens = tokens.where(~missed, probabilities.argmax(dim=-1))
        drawn = probabilities.gather(-1, tokens[:, None])[:, 0]
    return tokens, drawn.log()


def scaled_logits(logits: Tensor, targets: Tensor, sampling: Sampling) -> Tensor:
    """Return the logits of the sampling distribution, -inf for the tokens that are cut off.

    With truncated sampling the target itself always counts as kept: what was sampled had a positive probability,
    whatever rounding or a later policy makes of it.

    Args:
        logits: (n, vocabulary); may be overwritten.
        targets: (n,) int64.

    Returns:
        (n, vocabulary), float32 (float64 for float64 logits).
    """
    scaled = (logits if logits.dtype == torch.float64 else logits.float()).div_(sampling.temperature)
    if sampling.truncated:
        keep = kept_tokens(scaled, sampling).scatter(-1, targets[:, None], True)
        scaled.masked_fill_(~keep, -math.inf)
    return scaled


class TokenScores(torch.autograd.Function):
    """Log-probability and entropy of tokens, from the hidden states that predict them.

    The logits over the vocabulary live only inside ``forward`` and, computed once more, inside ``backward``, which
    knows the derivatives: of log p_y by logit j, ([j = y] - p_j) / T; of the entropy H, -p_j (log p_j + H) / T.
    Gradients of the head's own parameters are added to their ``.grad`` directly.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        targets: Tensor,
        head: torch.nn.Module,
        sampling: Sampling,
    ) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies, shape (n,) each, of ``targets`` (n,) from ``hidden`` (n, width)."""
        logprobs = scaled_logits(_logits(head, hidden), targets, sampling).log_softmax(dim=-1)
        of_targets = logprobs.gather(-1, targets[:, None])[:, 0]
        if sampling.truncated:  # 0 * log 0 is 0
            entropies = -logprobs.exp().mul_(logprobs.nan_to_num_(neginf=0.0)).sum(dim=-1)
        else:
            entropies = -torch.linalg.vecdot(logprobs.exp(), logprobs)
        ctx.save_for_backward(hidden, targets, entropies)
        ctx.head, ctx.sampling = head, sampling  # type: ignore[attr-defined]
        return of_targets, entropies

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, of_logprobs: Tensor, of_entropies: Tensor
    ) -> tuple[Tensor | None, None, None, None]:
        """Return the gradient by ``hidden``."""
        hidden, targets, entropies = ctx.saved_tensors  # type: ignore[attr-defined]
        with torch.enable_grad():
            leaf = hidden.detach().requires_grad_(True)
            logits = ctx.head(leaf)  # type: ignore[attr-defined]
        sampling = ctx.sampling  # type: ignore[attr-defined]
        scaled = scaled_logits(logits.detach().clone(), targets, sampling)
        by_target = (of_logprobs / sampling.temperature)[:, None].to(scaled.dtype)
        if of_entropies.any():
            logprobs = scaled.log_softmax(dim=-1)
            gradient = logprobs.exp()
            surprise = logprobs.add_(entropies[:, None]).nan_to_num_(neginf=0.0)
            gradient.mul_(surprise.mul_(-(of_entropies / sampling.temperature)[:, None]).sub_(by_target))
        else:
            gradient = scaled.softmax(dim=-1).mul_(-by_target)
        gradient.scatter_add_(-1, targets[:, None], by_target)
        torch.autograd.backward(logits, gradient.to(logits.dtype))
        return leaf.grad, None, None, None


def _logits(head: torch.nn.Module, hidden: Tensor) -> Tensor:
    """Return logits that may be overwritten."""
    logits = head(hidden)
    return logits.clone() if logits is hidden else logits
