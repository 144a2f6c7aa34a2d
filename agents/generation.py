"""Batched generation: many prompts, several responses to each.

The fast path stores every prompt once (:mod:`textmarl.agents.prefix`), computes the adapters of several policies in
one batch (:mod:`textmarl.agents.adapters`), lets finished responses leave it and waiting prompts enter.
A model that cannot share prompts goes through ``transformers``' own ``generate``, which draws with the same function
from the same numbers: both paths sample the same distribution, and with exact arithmetic the same tokens.
"""

from __future__ import annotations

from collections import deque
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

#: Waiting prompts enter when this part of the batch is free, so that several are encoded in one pass.
ENTER_AT = 4


@dataclass
class Sequence:
    """One sampled response: its tokens (end-of-sequence included, padding excluded) and their log-probabilities."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: Literal["stop", "length"] = "length"

    def is_done(self, max_new_tokens: int) -> bool:
        """Whether it has ended or reached its limit."""
        return self.finish == "stop" or len(self.token_ids) >= max_new_tokens

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
    batch_size: int = 1 << 30,
    on_finished: Callable[[int, Sequence], None] = lambda row, sequence: None,
    kind: type[SharedPrefix] = SharedPrefix,
) -> list[Sequence]:
    """Sample ``n`` responses to each of ``U`` prompts, each prompt encoded and stored once.

    Args:
        model: A model that :func:`textmarl.agents.prefix.why_plain` has found to share prompts.
        prompts: U lists of token ids.
        n: Responses per prompt.
        stop_ids: Tokens that end a response.
        sampling: Temperature, truncation, longest response.
        uniform: (U * n, max_new_tokens) numbers in [0, 1); row u * n + k, column t decide token t of response k to
            prompt u, whatever else is in the batch.
        on_tokens: Called after every decoding step with the number of tokens it added.
        adapters: The adapters that ``model`` computes with now, where there are several.
        owners: Which of ``adapters`` answers each prompt.
        batch_size: Most responses decoded at once (n at least); where prompts have finished, waiting ones enter.
        on_finished: Called with each sequence and its place among all of them, as soon as it has ended.
        kind: How decoding steps are done.

    Returns:
        U * n sequences, those of one prompt beside each other.
    """
    sequences = [Sequence() for _ in range(len(prompts) * n)]
    waiting = deque(range(len(prompts)))
    at_once = max(1, batch_size // n)  # prompts
    head = model.get_output_embeddings()
    batch = _Rows(n, adapters, owners)
    prefix: SharedPrefix | None = None
    hidden = torch.empty(0)
    while waiting or batch.rows:
        free = at_once - len(batch.rows) // n
        if waiting and free >= max(1, at_once // ENTER_AT):
            entering = [waiting.popleft() for _ in range(min(free, len(waiting)))]
            entered, states = kind.encode(
                model,
                [prompts[u] for u in entering],
                n,
                sampling.max_new_tokens,
                adapters,
                None if owners is None else [owners[u] for u in entering],
            )
            states = states.repeat_interleave(n, dim=0)
            if prefix is None:
                prefix, hidden = entered, states
            else:
                prefix.enter(entered)
                hidden = torch.cat([hidden, states])
            batch.enter(entering)
        assert prefix is not None
        column = torch.tensor([len(sequences[row].token_ids) for row in batch.rows])
        drawn_by = uniform[torch.tensor(batch.rows), column.clamp(max=sampling.max_new_tokens - 1)]
        tokens, logprobs = draw(head(hidden), drawn_by.to(model.device), sampling)
        added = 0
        running = []
        for row, token, logprob in zip(batch.rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if not sequences[row].is_done(sampling.max_new_tokens):
                sequences[row].append(token, logprob, stop_ids)
                added += 1
                if sequences[row].is_done(sampling.max_new_tokens):
                    on_finished(row, sequences[row])
            running.append(not sequences[row].is_done(sampling.max_new_tokens))
        if on_tokens is not None:
            on_tokens(added)
        if not any(running):
            prefix, batch.rows = None, []
            continue
        kept = smaller_batch(torch.tensor(running), prefix.rows_per_prompt, whole_prompts=bool(waiting))
        if kept is not None:
            kept_prompts, kept_rows, rows_per_prompt = kept
            kept_prompts, kept_rows = kept_prompts.to(model.device), kept_rows.to(model.device)
            prefix.select(kept_prompts, kept_rows, rows_per_prompt)
            tokens = tokens[kept_rows]
            batch.keep(kept_rows.tolist())
        batch.assign(model.device)
        hidden = prefix.extend(model, tokens)
    return sequences


class _Rows:
    """Which sequence each row of a batch writes, and with which adapter."""

    def __init__(self, n: int, adapters: AdapterBank | None, owners: list[int] | None):
        self.n, self.adapters, self.owners = n, adapters, owners
        self.rows: list[int] = []
        self._assigned: list[int] = []

    def enter(self, prompts: list[int]) -> None:
        """Let the rows of some prompts enter, behind the others."""
        self.rows = self.rows + [u * self.n + k for u in prompts for k in range(self.n)]
        self._assigned = []  # encoding has assigned the adapters to tokens of prompts

    def keep(self, places: list[int]) -> None:
        """Keep the rows at some places."""
        self.rows = [self.rows[place] for place in places]

    def assign(self, device: torch.device) -> None:
        """Give the adapters to the rows as they are now."""
        if self.adapters is not None and self.owners is not None and self._assigned != self.rows:
            owners = [self.owners[row // self.n] for row in self.rows]
            self.adapters.assign(torch.tensor(owners, device=device)[:, None])
            self._assigned = self.rows


def smaller_batch(
    running: Tensor, rows_per_prompt: int, whole_prompts: bool = False
) -> tuple[Tensor, Tensor, int] | None:
    """Find the smallest rectangle of prompts and rows that holds every running row.

    A prompt with fewer running rows than the widest keeps some finished ones to fill its share.

    Args:
        running: (U * K,) bool.
        rows_per_prompt: K.
        whole_prompts: Keep K rows of each prompt that has a running one.

    Returns:
        Kept prompts, kept rows (K' for each kept prompt) and K'; None where repacking would not pay.
    """
    grid = running.view(-1, rows_per_prompt)
    per_prompt = grid.sum(dim=1)
    widest = rows_per_prompt if whole_prompts else int(per_prompt.max())
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
    batch_size: int = 1 << 30,
    on_finished: Callable[[int, Sequence], None] = lambda row, sequence: None,
) -> list[Sequence]:
    """Sample as :func:`generate_shared` does, through ``model.generate``: for every model that it can run.

    ``on_finished`` is called when a whole batch has ended.
    """
    repeated = [prompt for prompt in prompts for _ in range(n)]
    if len(repeated) > batch_size:
        found: list[Sequence] = []
        for start in range(0, len(repeated), batch_size):
            part = slice(start, start + batch_size)

            def finished(row: int, sequence: Sequence, first: int = start) -> None:
                on_finished(first + row, sequence)

            found += generate_plain(
                model, repeated[part], 1, stop_ids, sampling, uniform[part], on_tokens, batch_size, finished
            )
        return found
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
    for row, sequence in enumerate(sequences):
        on_finished(row, sequence)
    return sequences
