"""Decoding steps that are recorded once and repeated: on a GPU, one launch instead of a thousand.

A decoding step of a small batch is short; on a GPU, most of its time goes by in Python and in launching kernels one by
one. A CUDA graph repeats what was recorded, with the same shapes, on the same memory
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). So a step has to be the same work every time: which
token is written where is a number on the device, masks are computed from it, and attention goes over a block of places
of which the later ones are masked. When rows leave or enter the batch, or a block is full, the step is recorded anew.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from textmarl.agents.prefix import SharedPrefix

logger = logging.getLogger(__name__)

#: Places for the responses' tokens that are attended to grow by this many at a time.
BLOCK = 128


def record(step: Callable[[], None]) -> Callable[[], None]:
    """Record the work that ``step`` gives to the GPU, without doing it; return what does it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # rewards are computed in other threads
        step()
    return graph.replay


class CapturedPrefix(SharedPrefix):
    """A :class:`SharedPrefix` whose decoding steps are recorded and repeated.

    The first step of a batch is done as it comes, which lets libraries set themselves up; the second one is recorded.
    Where a model's code cannot be recorded (it waits for a number from the device), the log says so and every step
    is done as it comes.
    """

    def __init__(self, lengths: list[int], rows_per_prompt: int, capacity: int):
        super().__init__(lengths, rows_per_prompt, capacity)
        self._records = True
        self.seen = 0  # places that are attended to
        self._step = self._tokens = self._hidden = torch.empty(0)
        self._again: Callable[[], None] | None = None

    def enter(self, other: SharedPrefix) -> None:
        """Let other prompts begin their responses at the next step, which is not the recorded one."""
        super().enter(other)
        self.seen = 0

    def select(self, prompts: Tensor, rows: Tensor, rows_per_prompt: int) -> None:
        """Keep some prompts and some rows: the next step is not the recorded one."""
        super().select(prompts, rows, rows_per_prompt)
        self.seen = 0

    def extend(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        """Run the next token of every response, shape (U * K,), through ``model``.

        Returns:
            The last hidden states, shape (U * K, hidden), until the next step writes others in their place.
        """
        seen = min(self.capacity, BLOCK * math.ceil((self.position + 1) / BLOCK))
        if seen != self.seen:
            self.seen, self._again = seen, None
            self._tokens, self._step = tokens.clone(), torch.tensor([self.position], device=tokens.device)
            self._do(model)
        else:
            self._tokens.copy_(tokens)
            if self._again is None:
                self._again = self._recorded(model)
            self._again()
        self.position += 1
        return self._hidden

    def _recorded(self, model: PreTrainedModel) -> Callable[[], None]:
        def step() -> None:
            self._do(model)

        if self._records:
            try:
                return record(step)
            except RuntimeError as error:
                self._records = False
                logger.warning(
                    "the decoding steps of %s are not recorded (team.capture_decoding: false leaves that out): %s",
                    type(model).__name__,
                    error,
                )
        return step

    def _do(self, model: PreTrainedModel) -> None:
        places = torch.arange(self.seen, device=self._step.device)
        # Place j holds the last step that is j modulo capacity; where none was yet, a negative one.
        steps = self._step - (self._step - places) % self.capacity
        bias = torch.zeros((len(self.lengths), self.seen), dtype=model.dtype, device=steps.device)
        bias.masked_fill_(steps[None] < self.entered[:, None], -math.inf)
        self.suffix_bias = bias[:, None, None, None]
        self._hidden = self._decode(model, self._tokens, self.lengths + self._step - self.entered)
        self._step += 1

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the keys and values of one token, shape (U K, V, 1, d); return those of all places attended to."""
        stored_keys, stored_values = self._reserved(keys, values, layer_idx)
        place = self._step % self.capacity
        stored_keys.index_copy_(3, place, keys.transpose(2, 3))
        stored_values.index_copy_(2, place, values)
        return stored_keys[..., : self.seen], stored_values[:, :, : self.seen]
