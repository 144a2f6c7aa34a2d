"""Log-probabilities of given responses, differentiable: what every update is made of.

Only response tokens are scored: the end-of-sequence token is, padding never is, and a padding id that equals a real
token changes nothing, since lengths are known and no id is compared. Where prompts are shared, the vocabulary's logits
exist for a chunk of tokens at a time, forward and backward; the plain path holds those of a whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from textmarl.agents.packed import Packed
from textmarl.agents.prefix import pad_right
from textmarl.agents.sampling import Sampling, TokenScores

#: Tokens whose logits over the vocabulary are held in memory at once.
HEAD_CHUNK = 256


@dataclass
class Scores:
    """Scores of ``n`` responses, padded on the right to the longest of ``L`` tokens."""

    logprobs: Tensor
    """(n, L) log-probability (nats) of each token under the sampling distribution, 0 on padding."""
    entropies: Tensor
    """(n, L) entropy (nats) of the distribution that each token was drawn from, 0 on padding."""
    mask: Tensor
    """(n, L) bool, True on the response's tokens."""


def score_shared(
    model: PreTrainedModel, prompts: list[list[int]], responses: list[list[list[int]]], sampling: Sampling
) -> Scores:
    """Score each prompt's responses in one packed row of tokens, the prompt computed once for all of them.

    Gradients flow back through the prompt. Nothing is padded but the result.

    Args:
        model: As for :func:`textmarl.agents.generation.generate_shared`.
        prompts: U lists of token ids.
        responses: For each prompt its responses' token ids, each with at least one token; the numbers may differ.
        sampling: The distribution to score under.

    Returns:
        Scores in the order of ``responses``, flattened.
    """
    # The last token predicts nothing that is scored.
    packed = Packed.of(prompts, [[response[:-1] for response in group] for group in responses], model.device)
    hidden = packed.forward(model)
    predicted_at = [
        [prompt.stop - 1, *range(place.start, place.stop)]
        for prompt, places in zip(packed.prompts, packed.responses, strict=True)
        for place in places
    ]
    targets, lengths = pad_right([response for group in responses for response in group], model.device)
    mask = torch.arange(targets.shape[1], device=targets.device)[None] < lengths[:, None]
    states = hidden[torch.tensor([place for row in predicted_at for place in row], device=hidden.device)]
    return _score_states(model.get_output_embeddings(), states, targets[mask], mask, sampling)


def score_plain(
    model: PreTrainedModel, prompts: list[list[int]], responses: list[list[list[int]]], sampling: Sampling
) -> Scores:
    """Score as :func:`score_shared` does, by one ordinary forward pass over prompt and response of each row."""
    pairs = [
        (prompt, response) for prompt, group in zip(prompts, responses, strict=True) for response in group
    ]
    ids, lengths = pad_right([prompt + response for prompt, response in pairs], model.device)
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    logits = model(
        input_ids=ids, attention_mask=(positions < lengths[:, None]).long(), use_cache=False
    ).logits
    targets, response_lengths = pad_right([response for _, response in pairs], model.device)
    # Token t of a response is predicted at the position before it; past its end any position will do.
    starts = torch.tensor([len(prompt) - 1 for prompt, _ in pairs], device=ids.device)
    at = (starts[:, None] + torch.arange(targets.shape[1], device=ids.device)).clamp(max=ids.shape[1] - 1)
    predicted = logits.gather(1, at[..., None].expand(-1, -1, logits.shape[-1]))
    mask = torch.arange(targets.shape[1], device=ids.device)[None] < response_lengths[:, None]
    return _score_states(torch.nn.Identity(), predicted[mask], targets[mask], mask, sampling)


def _score_states(
    head: torch.nn.Module, states: Tensor, targets: Tensor, mask: Tensor, sampling: Sampling
) -> Scores:
    """Score ``targets`` (tokens,) from the states (tokens, width) that predict them, a chunk of tokens at a time."""
    chunks = [
        TokenScores.apply(some, wanted, head, sampling)
        for some, wanted in zip(states.split(HEAD_CHUNK), targets.split(HEAD_CHUNK), strict=True)
    ]
    logprobs, entropies = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    empty = torch.zeros(mask.shape, dtype=logprobs.dtype, device=mask.device)
    return Scores(empty.masked_scatter(mask, logprobs), empty.masked_scatter(mask, entropies), mask)
