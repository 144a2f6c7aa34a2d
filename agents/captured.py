"""Decoding steps that are recorded once and repeated: on a GPU, one launch for all the kernels of a step.

A decoding step of a small batch is short; on a GPU, much of its time goes by in Python and in launching kernels one by
one. A CUDA graph repeats what was recorded, with the same shapes, on the same memory
(https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs). So a step has to be the same work every time: which
token is written where is a number on the device, masks are computed from it, and attention goes over a block of places
of which the later ones are masked. When rows leave or enter the batch, or a block is full, steps are recorded anew.

A recording that fails leaves the allocator in disorder, and one on another device than the current one would be empty. So
a model is asked for proof when it is loaded (:func:`why_unrecorded`), and where a step waits for the device, which no
recording survives, none is tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from textmarl.agents.prefix import SharedPrefix, tolerance

#: Places for the responses' tokens that are attended to grow by this many at a time.
BLOCK = 128

#: Steps of an unchanged batch that are done as they come; the next one is recorded.
RECORD_AFTER = 3


class Recorder:
    """Records work on one device, on a stream and in memory of its own.

    Args:
        device: A GPU.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.memory = torch.cuda.graph_pool_handle()

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """Record the work that ``step`` gives to the device, without doing it; return what does it."""
        graph = torch.cuda.CUDAGraph()
        # The outer stream is given back even where ending a failed recording raises. Rewards are computed in other threads.
        with (
            torch.cuda.device(self.device),
            torch.cuda.stream(self.stream),
            torch.cuda.graph(graph, self.memory, self.stream, capture_error_mode="thread_local"),
        ):
            step()

        def repeat() -> None:
            with torch.cuda.device(self.device):
                graph.replay()

        return repeat


class CapturedPrefix(SharedPrefix):
    """A :class:`SharedPrefix` whose decoding steps are recorded and repeated.

    The first steps of a batch are done as they come: libraries set themselves up, and a batch that changes at once is not
    worth a recording.
    """

    def __init__(self, lengths: list[int], rows_per_prompt: int, capacity: int):
        super().__init__(lengths, rows_per_prompt, capacity)
        self.seen = 0  # places that are attended to
        self._step = self._place = self._tokens = self._hidden = torch.empty(0)
        self._unchanged = 0  # steps since the batch last changed
        self._recorder: Recorder | None = None
        self._repeat: Callable[[], None] | None = None

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
            self.seen, self._unchanged, self._repeat = seen, 0, None
            self._tokens, self._step = tokens.clone(), torch.tensor([self.position], device=tokens.device)
        else:
            self._tokens.copy_(tokens)
        if self._repeat is None and self._unchanged >= RECORD_AFTER:
            self._recorder = self._recorder or Recorder(tokens.device)
            self._repeat = self._recorder.record(lambda: self._do(model))
        if self._repeat is None:
            self._do(model)
        else:
            self._repeat()
        self._unchanged += 1
        self.position += 1
        return self._hidden

    def _do(self, model: PreTrainedModel) -> None:
        places = torch.arange(self.seen, device=self._step.device)
        # Place j holds the last step that is j modulo capacity; where none was yet, a negative one.
        steps = self._step - (self._step - places) % self.capacity
        like = self.prefix[0][0]
        bias = torch.zeros((len(self.lengths), self.seen), dtype=like.dtype, device=like.device)
        bias.masked_fill_(steps[None] < self.entered[:, None], -math.inf)
        self.suffix_bias = bias[:, None, None, None]
        self._place = self._step % self.capacity
        self._hidden = self._decode(model, self._tokens, self.lengths + self._step - self.entered)
        self._step += 1

    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the keys and values of one token, shape (U K, V, 1, d); return those of all places attended to."""
        stored_keys, stored_values = self._reserved(keys, values, layer_idx)
        stored_keys.index_copy_(3, self._place, keys.transpose(2, 3))
        stored_values.index_copy_(2, self._place, values)
        return stored_keys[..., : self.seen], stored_values[:, :, : self.seen]


@torch.no_grad()
def why_unrecorded(model: PreTrainedModel) -> str:
    """Try to record decoding steps of ``model``; say why they cannot be, or nothing where they can.

    They can where a step does not wait for the device, and repeated steps give the same states as others.

    Args:
        model: On a GPU, sharing prompts (:func:`textmarl.agents.prefix.why_plain`).
    """
    vocabulary = model.config.get_text_config().vocab_size
    probe = [vocabulary * i // 11 for i in (7, 3, 5, 2, 9, 4, 8, 6)]
    before = torch.cuda.get_sync_debug_mode()
    try:
        states = []
        for kind in (SharedPrefix, CapturedPrefix):
            prefix, _ = kind.encode(model, [probe[:3]], rows_per_prompt=2, capacity=len(probe))
            found = []
            for step, token in enumerate(probe[2:]):
                tokens = torch.tensor([token, probe[step]], device=model.device)
                # A step that is done as it comes shows whether it waits, without harm.
                waits_shown = kind is CapturedPrefix and 0 < step < RECORD_AFTER
                torch.cuda.set_sync_debug_mode("error" if waits_shown else before)
                found.append(prefix.extend(model, tokens).clone())
                torch.cuda.set_sync_debug_mode(before)
            states.append(torch.cat(found).float())
        gap, size = float((states[0] - states[1]).abs().max()), float(states[0].abs().max())
        if not gap <= tolerance(model.dtype) * size:
            return f"repeated steps would differ by up to {gap:.2g}"
    except Exception as error:  # whatever a model's code does, its steps are then done as they come
        return f"its code cannot be recorded ({type(error).__name__}: {error})"
    finally:
        torch.cuda.set_sync_debug_mode(before)
    return ""
