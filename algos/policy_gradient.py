"""The terms of a policy's loss: how a response's tokens are weighted, and the clipped ratio where experience is reused."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from textmarl.algos.algorithm import Batch

LengthWeighting = Literal["constant", "sum", "token_mean"]
RatioLevel = Literal["token", "sequence"]


def token_weights(batch: Batch, length_weighting: LengthWeighting) -> Tensor:
    """Return each token's share of the loss, (n, L): its response's weight times 1/c, 0 on padding.

    c is 1 (``sum``), the token limit (``constant``; Dr. GRPO, arXiv 2503.20783) or the response's own length
    (``token_mean``; GRPO, arXiv 2402.03300).
    """
    if length_weighting == "sum":
        per_token = torch.ones_like(batch.weights)
    elif length_weighting == "constant":
        per_token = torch.full_like(batch.weights, 1 / batch.max_new_tokens)
    else:
        per_token = 1 / batch.mask.sum(dim=1).to(batch.weights.dtype)
    return (batch.weights * per_token)[:, None] * batch.mask


def clipped_objective(batch: Batch, clip: float, ratio_level: RatioLevel = "token") -> Tensor:
    """Return what is ascended at each token, (n, L): A * log pi, or PPO's clipped surrogate where experience is reused.

    min(ratio * A, clip(ratio, 1 - eps, 1 + eps) * A), ratio = pi / pi_old (PPO, arXiv 1707.06347, eq. 7), whose gradient
    at ratio 1 is that of A * log pi.

    Args:
        batch: With ``old_logprobs`` where the experience is reused.
        clip: eps.
        ratio_level: A ratio for each token, or exp(mean over tokens of the log-ratio) for the response.
    """
    if batch.old_logprobs is None:
        return batch.advantages * batch.logprobs
    log_ratio = (batch.logprobs - batch.old_logprobs) * batch.mask
    if ratio_level == "sequence":  # one ratio for the response, standing on each of its tokens
        log_ratio = (log_ratio.sum(dim=1) / batch.mask.sum(dim=1))[:, None].expand_as(batch.logprobs)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return torch.minimum(ratio * batch.advantages, clipped * batch.advantages)
