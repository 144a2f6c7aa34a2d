"""Prompts and the responses to them in one row of tokens, without padding.

A prompt is followed by all its responses, each of which sees the prompt and itself alone; then comes the next prompt.
Every layer but attention treats tokens one by one and runs over the whole row at once: a token is computed once,
whatever the lengths, and a prompt once for its group. :func:`tree_attention` is the attention of that layout, with
gradients. Between its forward and its backward pass only queries, keys and values are kept; the weights are computed
again.

With H heads, V heads of keys and values, and R = H / V.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: Scores of one attention product held at once; more are computed a few heads at a time.
MAX_SCORES = 1 << 25

#: Tokens of a prompt whose attention is computed at once, together with all of the prompt before them.
STRETCH = 256


@dataclass
class Block:
    """K rows of tokens that see themselves and, where there is one, a prompt: a stretch of a prompt, or its responses."""

    start: int
    """Where its first token is."""
    lengths: list[int]
    """The tokens of each of the K rows, which lie one after the other."""
    prompt: slice | None
    """The tokens of the prompt that all rows see as well: for a stretch of it, those before."""
    gather: Tensor | None = None
    """(K * L,) token of each place of a rectangle, of length L; None where all rows have that length."""
    scatter: Tensor | None = None
    """(tokens,) place in the rectangle of each token."""

    @property
    def tokens(self) -> slice:
        """Where its tokens are."""
        return slice(self.start, self.start + sum(self.lengths))

    def rectangle(self, x: Tensor) -> Tensor:
        """Return its part of ``x``, shape (heads, tokens of the row, d), as (heads, K, L, d), rows padded with anything."""
        own = x[:, self.tokens]
        if self.gather is not None:
            own = own[:, self.gather]
        return own.unflatten(1, (len(self.lengths), -1))

    def row(self, x: Tensor) -> Tensor:
        """Undo :meth:`rectangle`: (heads, K, L, d) becomes (heads, its tokens, d)."""
        flat = x.flatten(1, 2)
        return flat if self.scatter is None else flat[:, self.scatter]


@dataclass
class Packed:
    """Prompts and their responses as one row of T tokens.

    It is also what the model takes for its cache: with ``kept``, keys and values of all tokens stay in it.
    """

    ids: Tensor
    """(1, T)"""
    positions: Tensor
    """(1, T) place of each token in its conversation."""
    blocks: list[Block]
    prompts: list[slice]
    """Where the tokens of each prompt are."""
    responses: list[list[slice]]
    """Where the tokens of each response are, by prompt."""
    kept: list[tuple[Tensor, Tensor]] | None = field(default=None)
    """Keys and values (V, T, d) of each layer."""

    @classmethod
    def of(
        cls,
        prompts: Sequence[list[int]],
        responses: Sequence[Sequence[list[int]]],
        device: torch.device,
        keep: bool = False,
    ) -> Packed:
        """Lay out U prompts and the responses to each; a response may be empty.

        Args:
            prompts: U lists of token ids, none empty.
            responses: For each prompt the token ids of its responses.
            device: Where to.
            keep: Keep keys and values.
        """
        ids: list[int] = []
        positions: list[int] = []
        blocks: list[Block] = []
        places_of_prompts, places_of_responses = [], []
        for prompt, group in zip(prompts, responses, strict=True):
            own = slice(len(ids), len(ids) + len(prompt))
            places_of_prompts.append(own)
            blocks += _stretches(own)
            ids += prompt
            positions += range(len(prompt))
            first = len(ids)
            places = []
            for response in group:
                places.append(slice(len(ids), len(ids) + len(response)))
                ids += response
                positions += range(len(prompt), len(prompt) + len(response))
            places_of_responses.append(places)
            lengths = [len(response) for response in group if response]
            blocks += [_ragged(block, device) for block in _rectangles(first, lengths, own)]
        return cls(
            torch.tensor([ids], device=device),
            torch.tensor([positions], device=device),
            blocks,
            places_of_prompts,
            places_of_responses,
            [] if keep else None,
        )

    def conversations(self) -> list[list[int]]:
        """Return where the tokens of each prompt with each of its responses are."""
        return [
            [*range(prompt.start, prompt.stop), *range(response.start, response.stop)]
            for prompt, responses in zip(self.prompts, self.responses, strict=True)
            for response in responses
        ]

    def forward(self, model: Any) -> Tensor:
        """Run the decoder of ``model``, whose attention is :mod:`textmarl.agents.prefix`'s.

        Returns:
            The last hidden states, (T, hidden).
        """
        unused_mask = torch.empty(
            1, 1, 1, 1, device=self.ids.device
        )  # a 4-dimensional mask is passed on as it is
        decoder = model.get_decoder()
        return decoder(
            input_ids=self.ids,
            position_ids=self.positions,
            attention_mask=unused_mask,
            past_key_values=self,
            use_cache=True,
            layout=self,
        ).last_hidden_state[0]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Return what the T tokens attend to, (1, T, H, d), from (1, H, T, d) and (1, V, T, d)."""
        return TreeAttention.apply(query[0], key[0], value[0], self.blocks, scale)[None]

    # What the model's attention layers call on a cache.
    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep keys and values (1, V, T, d) if asked to, and return them."""
        if self.kept is not None:
            self.kept.append((keys[0], values[0]))
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: nothing comes before this row of tokens."""
        return 0


def _stretches(prompt: slice) -> Iterator[Block]:
    """Cut a prompt into stretches that see themselves and what comes before: what comes after is not computed at all."""
    for start in range(prompt.start, prompt.stop, STRETCH):
        before = slice(prompt.start, start) if start > prompt.start else None
        yield Block(start, [min(STRETCH, prompt.stop - start)], before)


def _rectangles(start: int, lengths: list[int], prompt: slice) -> Iterator[Block]:
    """Put responses beside each other into blocks whose rectangles are at most twice as large as what they hold."""
    rows: list[int] = []
    for length in lengths:
        if rows and (len(rows) + 1) * max(*rows, length) > 2 * (sum(rows) + length):
            yield Block(start, rows, prompt)
            start, rows = start + sum(rows), []
        rows.append(length)
    if rows:
        yield Block(start, rows, prompt)


def _ragged(block: Block, device: torch.device) -> Block:
    """Fill in where the tokens of rows of different lengths lie in a rectangle."""
    longest = max(block.lengths)
    if min(block.lengths) < longest:
        starts = itertools.accumulate(block.lengths, initial=0)
        gather = [
            s + min(t, n - 1) for s, n in zip(starts, block.lengths, strict=False) for t in range(longest)
        ]
        scatter = [k * longest + t for k, n in enumerate(block.lengths) for t in range(n)]
        block.gather = torch.tensor(gather, device=device)
        block.scatter = torch.tensor(scatter, device=device)
    return block


class TreeAttention(torch.autograd.Function):
    """Attention where every row sees itself causally, and its prompt."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        blocks: list[Block],
        scale: float,
    ) -> Tensor:
        """Args: query (H, T, d), key and value (V, T, d). Returns (T, H, d)."""
        ctx.save_for_backward(query, key, value)
        ctx.blocks, ctx.scale = blocks, scale  # type: ignore[attr-defined]
        attended = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        for block, heads, own in _pieces(query, key, blocks):
            piece = _Piece(query[heads], key[own], value[own], block, scale)
            attended[block.tokens, heads] = piece.attended().transpose(0, 1)
        return attended

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Return the gradients by query, key and value."""
        query, key, value = ctx.saved_tensors  # type: ignore[attr-defined]
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for block, heads, own in _pieces(query, key, ctx.blocks):  # type: ignore[attr-defined]
            piece = _Piece(query[heads], key[own], value[own], block, ctx.scale)  # type: ignore[attr-defined]
            by_query, by_key, by_value, by_prompt = piece.gradients(gradient[:, heads].transpose(0, 1))
            of_query[heads, block.tokens] = by_query
            of_key[own, block.tokens] += by_key
            of_value[own, block.tokens] += by_value
            if by_prompt is not None:
                of_key[own, block.prompt] += by_prompt[0]
                of_value[own, block.prompt] += by_prompt[1]
        return of_query, of_key, of_value, None, None


def _pieces(query: Tensor, key: Tensor, blocks: list[Block]) -> Iterator[tuple[Block, slice, slice]]:
    """Cut every block into so many heads of keys that the scores of one product are bounded."""
    heads, repeats = len(key), len(query) // len(key)
    for block in blocks:
        seen = max(block.lengths) + (0 if block.prompt is None else block.prompt.stop - block.prompt.start)
        at_once = max(1, MAX_SCORES // (len(block.lengths) * max(block.lengths) * repeats * seen))
        for first in range(0, heads, at_once):
            last = min(first + at_once, heads)
            yield block, slice(first * repeats, last * repeats), slice(first, last)


class _Piece:
    """The attention of one block in some heads: K rows of L tokens, after a prompt of P tokens or none.

    ``query`` is (R * V, T, d), ``key`` and ``value`` are (V, T, d).
    """

    def __init__(self, query: Tensor, key: Tensor, value: Tensor, block: Block, scale: float):
        self.block, self.scale = block, scale
        self.heads, self.rows = len(key), len(block.lengths)
        self.query = self._grouped(block.rectangle(query))
        self.key, self.value = (block.rectangle(x).flatten(0, 1) for x in (key, value))  # (V K, L, d)
        self.prompt = (
            None if block.prompt is None else (key[:, block.prompt], value[:, block.prompt])
        )  # (V, P, d)
        length = self.key.shape[1]
        future = torch.full((length, length), -math.inf, dtype=query.dtype, device=query.device).triu(1)
        future = future.repeat(self.query.shape[1] // length, 1)
        own = torch.baddbmm(future, self.query, self.key.transpose(1, 2), alpha=scale)
        if self.prompt is None:
            self.weights = own.softmax(dim=-1)
        else:
            flat = self.query.view(self.heads, -1, self.query.shape[-1])
            to_prompt = torch.bmm(flat, self.prompt[0].transpose(1, 2)).mul_(scale)
            self.weights = torch.cat([to_prompt.view(*own.shape[:2], -1), own], dim=-1).softmax(dim=-1)

    def _grouped(self, x: Tensor) -> Tensor:
        """Lay heads that share keys side by side: (R V, K, L, d) becomes (V K, R L, d)."""
        return x.unflatten(0, (self.heads, -1)).transpose(1, 2).flatten(0, 1).flatten(1, 2)

    def _heads(self, x: Tensor) -> Tensor:
        """Undo :meth:`_grouped` and the rectangle: (V K, R L, d) becomes (R V, tokens, d)."""
        length = self.key.shape[1]
        x = x.unflatten(0, (self.heads, self.rows)).unflatten(2, (-1, length))
        return self.block.row(x.transpose(1, 2).flatten(0, 1))

    def _split(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """Part what belongs to the prompt, (V, K R L, P), from what belongs to the own row, (V K, R L, L)."""
        if self.prompt is None:
            return None, x
        length = self.key.shape[1]
        to_prompt, own = x.split([x.shape[-1] - length, length], dim=-1)
        return to_prompt.reshape(self.heads, -1, to_prompt.shape[-1]), own

    def attended(self) -> Tensor:
        """Return (R V, tokens, d)."""
        to_prompt, own = self._split(self.weights)
        result = torch.bmm(own, self.value)
        if self.prompt is not None and to_prompt is not None:
            result += torch.bmm(to_prompt, self.prompt[1]).view(result.shape)
        return self._heads(result)

    def gradients(self, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor] | None]:
        """Return the gradients by its queries, keys and values, and by the prompt's keys and values.

        With weights w = softmax(s), s = scale * q k^T, and G the gradient by what is attended: dv = w^T G,
        dw = G v^T, ds = w * (dw - sum(w * dw)), dq = scale * ds k, dk = scale * ds^T q.

        Args:
            gradient: (R V, tokens of the row, d).
        """
        rectangle = self.block.rectangle(gradient)
        if self.block.scatter is not None:  # places that are no token get no gradient
            real = torch.zeros(rectangle.shape[1:3], device=gradient.device, dtype=torch.bool)
            real.view(-1)[self.block.scatter] = True
            rectangle = rectangle * real[None, :, :, None]
        by_result = self._grouped(rectangle)
        by_weights = torch.bmm(by_result, self.value.transpose(1, 2))
        flat = by_result.view(self.heads, -1, by_result.shape[-1])
        if self.prompt is not None:
            of_prompt = torch.bmm(flat, self.prompt[1].transpose(1, 2))
            by_weights = torch.cat([of_prompt.view(*by_weights.shape[:2], -1), by_weights], dim=-1)
        by_scores = torch._softmax_backward_data(by_weights, self.weights, -1, self.weights.dtype)
        by_prompt_scores, by_own_scores = self._split(by_scores)
        prompt_weights, own_weights = self._split(self.weights)
        by_query = torch.bmm(by_own_scores, self.key)
        by_key = torch.bmm(by_own_scores.transpose(1, 2), self.query).mul_(self.scale)
        by_value = torch.bmm(own_weights.transpose(1, 2), by_result)
        by_prompt = None
        if self.prompt is not None and by_prompt_scores is not None and prompt_weights is not None:
            queries = self.query.view(self.heads, -1, self.query.shape[-1])
            by_query += torch.bmm(by_prompt_scores, self.prompt[0]).view(by_query.shape)
            by_prompt = (
                torch.bmm(by_prompt_scores.transpose(1, 2), queries).mul_(self.scale),
                torch.bmm(prompt_weights.transpose(1, 2), flat),
            )
        shape = (self.heads, self.rows)
        return (
            self._heads(by_query.mul_(self.scale)),
            self.block.row(by_key.unflatten(0, shape)),
            self.block.row(by_value.unflatten(0, shape)),
            by_prompt,
        )
