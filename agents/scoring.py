"""Log-probabilities of given responses, differentiable: what every update is made of.

Only response tokens are scored: the end-of-sequence token is, padding never is, and a padding id that equals a real
token changes nothing, since lengths are known and no id is compared. Where prompts are shared, the vocabulary's logits
exist for a chunk of tokens at a time, forward and backward; the plain path holds those of a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from textmarl.agents.beginnings import Family, families
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
    states: Tensor | None = None
    """(n, L, hidden) last hidden state that each token is predicted from, 0 on padding; None unless asked for."""


def score_shared(
    model: PreTrainedModel,
    prompts: list[list[int]],
    responses: list[list[list[int]]],
    sampling: Sampling,
    states: bool = False,
) -> Scores:
    """Score each prompt's responses in one packed row of tokens, the prompt computed once for all of them.

    Of prompts beside each other that begin alike, as the histories of one task do, the beginning is computed once, too.
    Gradients flow back through the prompt. Nothing is padded but the result.

    Args:
        model: As for :func:`textmarl.agents.generation.generate_shared`.
        prompts: U lists of token ids.
        responses: For each prompt its responses' token ids, each with at least one token; the numbers may differ.
        sampling: The distribution to score under.
        states: Return the hidden states as well.

    Returns:
        Scores in the order of ``responses``, flattened.
    """
    predicting, targets, mask = shared_states(model, prompts, responses)
    scores = _score_states(model.get_output_embeddings(), predicting, targets[mask], mask, sampling)
    scores.states = by_row(predicting, mask) if states else None
    return scores


def shared_states(
    model: PreTrainedModel, prompts: list[list[int]], responses: list[list[list[int]]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last hidden state that each response token is predicted from, without any logits.

    Args:
        model: As for :func:`score_shared`.
        prompts: U lists of token ids.
        responses: For each prompt its responses' token ids; their last tokens are not read.

    Returns:
        (tokens, hidden) states of all n responses, one after the other; (n, L) token ids; (n, L) mask.
    """
    # The last token predicts nothing that is scored.
    rows = [[response[:-1] for response in group] for group in responses]
    beginnings, tails = [], []
    for family in _families(prompts, responses):
        shared = family.shared
        beginnings.append(prompts[family.members.start][:shared])
        tails.append([(prompts[i][shared:], row) for i in family.members for row in rows[i]])
    packed = Packed.of(beginnings, [[rest + row for rest, row in group] for group in tails], model.device)
    hidden = packed.forward(model)
    predicted_at = [
        [
            place.start + len(rest) - 1 if rest else prompt.stop - 1,
            *range(place.start + len(rest), place.stop),
        ]
        for prompt, places, group in zip(packed.prompts, packed.responses, tails, strict=True)
        for place, (rest, _) in zip(places, group, strict=True)
    ]
    targets, lengths = pad_right([response for group in responses for response in group], model.device)
    mask = torch.arange(targets.shape[1], device=targets.device)[None] < lengths[:, None]
    states = hidden[torch.tensor([place for row in predicted_at for place in row], device=hidden.device)]
    return states, targets, mask


def _families(prompts: list[list[int]], responses: list[list[list[int]]]) -> Iterator[Family]:
    """Divide prompts into families whose common beginning is computed once, where that saves more than it repeats.

    What follows the beginning is computed for each response: several responses to one prompt rather share all of it.
    """
    for family in families(prompts):
        separately = sum(len(prompts[i]) for i in family.members)
        together = family.shared + sum(
            (len(prompts[i]) - family.shared) * len(responses[i]) for i in family.members
        )
        if together <= separately:
            yield family
        else:
            yield from (Family(range(i, i + 1), len(prompts[i])) for i in family.members)


def score_plain(
    model: PreTrainedModel,
    prompts: list[list[int]],
    responses: list[list[list[int]]],
    sampling: Sampling,
    states: bool = False,
) -> Scores:
    """Score as :func:`score_shared` does, by one ordinary forward pass over prompt and response of each row."""
    ids, padding, at, targets, mask = _rows(prompts, responses, model.device)
    output = model(input_ids=ids, attention_mask=padding, use_cache=False, output_hidden_states=states)
    predicted = _gather(output.logits, at)
    scores = _score_states(torch.nn.Identity(), predicted[mask], targets[mask], mask, sampling)
    if states:
        scores.states = _gather(output.hidden_states[-1], at) * mask[..., None]
    return scores


def plain_states(
    model: PreTrainedModel, prompts: list[list[int]], responses: list[list[list[int]]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what :func:`shared_states` does, by an ordinary forward pass of the decoder."""
    ids, padding, at, targets, mask = _rows(prompts, responses, model.device)
    hidden = model.get_decoder()(input_ids=ids, attention_mask=padding, use_cache=False).last_hidden_state
    return _gather(hidden, at)[mask], targets, mask


def by_row(values: Tensor, mask: Tensor) -> Tensor:
    """Lay out what belongs to each response token, (tokens, ...), as (n, L, ...), 0 on padding."""
    rows = values.new_zeros(*mask.shape, *values.shape[1:])
    return rows.masked_scatter(mask.view(*mask.shape, *[1] * (values.dim() - 1)), values)


def _rows(
    prompts: list[list[int]], responses: list[list[list[int]]], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Lay out every response after its prompt.

    Returns:
        (n, T) ids and attention mask; (n, L) where each response token is predicted, its id, and the mask.
    """
    pairs = [
        (prompt, response) for prompt, group in zip(prompts, responses, strict=True) for response in group
    ]
    ids, lengths = pad_right([prompt + response for prompt, response in pairs], device)
    positions = torch.arange(ids.shape[1], device=device)[None]
    targets, response_lengths = pad_right([response for _, response in pairs], device)
    # Token t of a response is predicted at the position before it; past its end any position will do.
    starts = torch.tensor([len(prompt) - 1 for prompt, _ in pairs], device=ids.device)
    at = (starts[:, None] + torch.arange(targets.shape[1], device=ids.device)).clamp(max=ids.shape[1] - 1)
    mask = torch.arange(targets.shape[1], device=ids.device)[None] < response_lengths[:, None]
    return ids, (positions < lengths[:, None]).long(), at, targets, mask


def _gather(values: Tensor, at: Tensor) -> Tensor:
    """Pick (n, L, width) from (n, T, width)."""
    return values.gather(1, at[..., None].expand(-1, -1, values.shape[-1]))


def _score_states(
    head: torch.nn.Module, states: Tensor, targets: Tensor, mask: Tensor, sampling: Sampling
) -> Scores:
    """Score ``targets`` (tokens,) from the states (tokens, width) that predict them, a chunk of tokens at a time."""
    chunks = [
        TokenScores.apply(some, wanted, head, sampling)
        for some, wanted in zip(states.split(HEAD_CHUNK), targets.split(HEAD_CHUNK), strict=True)
    ]
    logprobs, entropies = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return Scores(by_row(logprobs, mask), by_row(entropies, mask), mask)
