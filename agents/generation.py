"""Batched generation: many prompts, several responses to each.

The fast path stores every prompt once (:mod:`textmarl.agents.prefix`), computes the adapters of several policies in
one batch (:mod:`textmarl.agents.adapters`) and lets finished responses leave it.
A model that cannot share prompts goes through ``transformers``' own ``generate``, which draws with the same function
from the same numbers: both paths sample the same distribution, and with exact arithmetic the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from textmarl.agents.adapters import AdapterBank
from textmarl.agents.prefix import SharedPrefix
from textmarl.agents.sampling import Sampling, draw

#: Finished rows leave the batch when it can shrink to this share of its size; a smaller share repacks less often.
REPACK_AT = 0.75


@dataclass
class Sequence:
    """One sampled response: its tokens (end-of-sequence included, padding excluded) and their log-probabilities."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Literal["stop", "length"] = "length"

    def append(self, token: int, logprob: float, stop_ids: frozenset[int]) -> None:
        """Add a token unless the response has ended; a stop token ends it."""
        if self.finish != "stop":
            self.token_ids.append(token)
            self.logprobs.append(logprob)
            if token in stop_ids:
                self.finish = "stop"


@torch.no_grad()
def generate_shared(
    model: PreTrainedModel,
    prompts: list[list[int]],
    n: int,
    stop_ids: frozenset[int],
    sampling: Sampling,
    uniform: Tensor,
    on_tokens: Callable[[int], None] | None = None,
    adapters: AdapterBank | None = None,
    owners: list[int] | None = None,
) -> list[Sequence]:
    """Sample ``n`` responses to each of ``U`` prompts, each prompt encoded and stored once.

    Args:
        model: A model for which :func:`textmarl.agents.prefix.supported` holds, with its attention set to it.
        prompts: U lists of token ids.
        n: Responses per prompt.
        stop_ids: Tokens that end a response.
        sampling: Temperature, truncation, longest response.
        uniform: (U * n, max_new_tokens) numbers in [0, 1); row u * n + k, column t decide token t of response k to
            prompt u, whatever else is in the batch.
        on_tokens: Called after every decoding step with the number of tokens it added.
        adapters: The adapters that ``model`` computes with now, where there are several.
        owners: Which of ``adapters`` answers each prompt.

    Returns:
        U * n sequences, those of one prompt beside each other.
    """
    sequences = [Sequence() for _ in range(len(prompts) * n)]
    rows = torch.arange(len(sequences), device=model.device)  # which sequence each row of the batch writes
    head = model.get_output_embeddings()
    prefix, hidden = SharedPrefix.encode(model, prompts, n, sampling.max_new_tokens, adapters, owners)
    owner_of_row = (
        torch.tensor(owners, device=model.device).repeat_interleave(n) if owners is not None else None
    )
    if adapters is not None and owner_of_row is not None:
        adapters.assign(owner_of_row[:, None])
    hidden = hidden.repeat_interleave(n, dim=0)
    for step in range(sampling.max_new_tokens):
        tokens, logprobs = draw(head(hidden), uniform[rows.cpu(), step].to(model.device), sampling)
        added = 0
        for row, token, logprob in zip(rows.tolist(), tokens.tolist(), logprobs.tolist(), strict=True):
            if sequences[row].finish != "stop":
                sequences[row].append(token, logprob, stop_ids)
                added += 1
        if on_tokens is not None:
            on_tokens(added)
        running = torch.tensor([sequences[row].finish != "stop" for row in rows.tolist()])
        if step == sampling.max_new_tokens - 1 or not running.any():
            break
        kept = smaller_batch(running.to(model.device), prefix.rows_per_prompt)
        if kept is not None:
            kept_prompts, kept_rows, rows_per_prompt = kept
            prefix.select(kept_prompts, kept_rows, rows_per_prompt)
            rows, tokens = rows[kept_rows], tokens[kept_rows]
            if adapters is not None and owner_of_row is not None:
                adapters.assign(owner_of_row[rows][:, None])
        hidden = prefix.extend(model, tokens)
    return sequences


def smaller_batch(running: Tensor, rows_per_prompt: int) -> tuple[Tensor, Tensor, int] | None:
    """Find the smallest rectangle of prompts and rows that holds every running row.

    A prompt with fewer running rows than the widest keeps some finished ones to fill its share.

    Args:
        running: (U * K,) bool.
        rows_per_prompt: K.

    Returns:
        Kept prompts, kept rows (K' for each kept prompt) and K'; None where repacking would not pay.
    """
    grid = running.view(-1, rows_per_prompt)
    per_prompt = grid.sum(dim=1)
    widest = int(per_prompt.max())
    prompts = per_prompt.nonzero()[:, 0]
    if len(prompts) * widest > REPACK_AT * running.numel():
        return None
    running_first = grid[prompts].int().argsort(dim=1, descending=True, stable=True)[:, :widest]
    return prompts, (prompts[:, None] * rows_per_prompt + running_first).flatten(), widest


class _Draw(LogitsProcessor):
    """Draws with :func:`textmarl.agents.sampling.draw` inside ``generate`` and leaves it that token alone."""

    def __init__(
        self,
        sequences: list[Sequence],
        stop_ids: frozenset[int],
        sampling: Sampling,
        uniform: Tensor,
        on_tokens: Callable[[int], None] | None,
    ):
        self.sequences, self.stop_ids, self.sampling, self.uniform = sequences, stop_ids, sampling, uniform
        self.on_tokens, self.step = on_tokens, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens, logprobs = draw(scores, self.uniform[:, self.step].to(scores.device), self.sampling)
        added = sum(sequence.finish != "stop" for sequence in self.sequences)
        for sequence, token, logprob in zip(self.sequences, tokens.tolist(), logprobs.tolist(), strict=True):
            sequence.append(token, logprob, self.stop_ids)
        if self.on_tokens is not None:
            self.on_tokens(added)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens[:, None], 0.0)


@torch.no_grad()
def generate_plain(
    model: PreTrainedModel,
    prompts: list[list[int]],
    n: int,
    stop_ids: frozenset[int],
    sampling: Sampling,
    uniform: Tensor,
    on_tokens: Callable[[int], None] | None = None,
) -> list[Sequence]:
    """Sample as :func:`generate_shared` does, through ``model.generate``: for every model that it can run."""
    repeated = [prompt for prompt in prompts for _ in range(n)]
    longest = max(len(prompt) for prompt in repeated)
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in repeated], device=model.device)
    mask = torch.tensor(
        [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in repeated], device=model.device
    )
    sequences = [Sequence() for _ in repeated]
    # The model's own settings (penalties, suppressed tokens, a least length) would bend the distribution.
    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=sampling.max_new_tokens,
            pad_token_id=0,
            eos_token_id=sorted(stop_ids) or None,
            logits_processor=LogitsProcessorList([_Draw(sequences, stop_ids, sampling, uniform, on_tokens)]),
        )
    finally:
        model.generation_config = own
    return sequences
