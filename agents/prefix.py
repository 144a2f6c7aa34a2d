"""Attention over prompts that are stored once and shared by every response to them.

A group of responses has one prompt. Its keys and values are computed once and every response of the group attends to
that one copy: in the update, where prompts and responses are one packed row of tokens
(:mod:`textmarl.agents.packed`), and in decoding (:class:`SharedPrefix`). The id of the padding token is never read and
may equal any token that occurs in a text.

The model code is the library's own. This module plugs in at two places that `transformers` offers for it: an attention
function registered with ``AttentionInterface``, and a cache object. A model that does not use this interface, or that
attends through a sliding window, does not share prompts (:func:`obstacle`) and takes the plain path of
:mod:`textmarl.agents.generation` and :mod:`textmarl.agents.scoring`.

In decoding, rows are laid out in a rectangle: prompt ``u`` of ``U`` owns the rows ``u * K ... u * K + K - 1``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from textmarl.agents.adapters import AdapterBank
from textmarl.agents.beginnings import Family, families
from textmarl.agents.norms import slim_norms
from textmarl.agents.packed import Packed

ATTENTION = "textmarl_shared_prefix"

#: Tokens of prompts that are encoded in one pass.
ENCODE_TOKENS = 4096


class SharedPrefix:
    """The keys and values of ``U`` prompts, and of the ``U * K`` responses that follow them, for decoding.

    A drop-in for `transformers`' cache as far as a decoder's attention layers use it. Keys are stored transposed, as
    the products of one new token with them want them.

    Args:
        lengths: The number of tokens of each prompt.
        rows_per_prompt: K.
        capacity: Tokens to reserve for each response. Rows that enter later use the places again that others left.
    """

    is_compileable = False

    def __init__(self, lengths: list[int], rows_per_prompt: int, capacity: int):
        self.lengths = torch.tensor(lengths)
        self.rows_per_prompt = rows_per_prompt
        self.capacity = capacity
        self.position = 0  # decoding steps so far
        self.entered = torch.zeros(
            len(lengths), dtype=torch.long
        )  # (U,) at which step each prompt's rows began
        self.suffix_bias: Tensor | None = None  # (U, 1, 1, 1, t): -inf on steps before, if there are any
        self.prefix: list[tuple[Tensor, Tensor]] = []  # per layer: (U, V, d, P) keys and (U, V, P, d) values
        self.suffix: list[
            tuple[Tensor, Tensor]
        ] = []  # per layer: (U K, V, d, capacity), (U K, V, capacity, d)
        self.prefix_bias: Tensor | None = (
            None  # (U, 1, 1, P): 0 on the prompt, -inf on padding, if there is any
        )

    @classmethod
    def encode(
        cls,
        model: PreTrainedModel,
        prompts: list[list[int]],
        rows_per_prompt: int = 1,
        capacity: int = 0,
        adapters: AdapterBank | None = None,
        owners: list[int] | None = None,
    ) -> tuple[Self, Tensor]:
        """Run ``U`` prompts through ``model`` once, without gradients; what they begin with in common, once for all.

        Args:
            model: Whose attention is this module's.
            prompts: U lists of token ids.
            rows_per_prompt: K.
            capacity: Tokens to reserve for each response.
            adapters: The adapters that ``model`` computes with now, where there are several.
            owners: Which of ``adapters`` reads each prompt.

        Returns:
            The prefix, and the last hidden state of each prompt's last token, shape (U, hidden).
        """
        cache = cls([len(prompt) for prompt in prompts], rows_per_prompt, capacity)
        cache.lengths, cache.entered = cache.lengths.to(model.device), cache.entered.to(model.device)
        longest, last = max(map(len, prompts)), []
        for some in _batches(families(prompts, owners, ENCODE_TOKENS), prompts):
            packed = Packed.of(
                [prompts[family.members.start][: family.shared] for family in some],
                [[prompts[i][family.shared :] for i in family.members] for family in some],
                model.device,
                keep=True,
            )
            if adapters is not None and owners is not None:
                whose = torch.tensor([owners[family.members.start] for family in some], device=model.device)
                sizes = torch.tensor([family.tokens(prompts) for family in some], device=model.device)
                adapters.assign(whose.repeat_interleave(sizes)[None])
            hidden = packed.forward(model)
            places = packed.conversations()
            last.append(hidden[[place[-1] for place in places]])
            cache._store(packed, places, some[0].members.start, len(prompts), longest)
        cache._mask_padding()
        return cache, torch.cat(last)

    def _store(
        self, packed: Packed, conversations: list[list[int]], first: int, prompts: int, longest: int
    ) -> None:
        """Lay out the keys and values of some prompts, beginning with prompt ``first``."""
        # Past the end of a prompt any token will do: it is masked.
        padded = [places + places[-1:] * (longest - len(places)) for places in conversations]
        places = torch.tensor(padded, device=packed.ids.device)
        assert packed.kept is not None
        for layer, (keys, values) in enumerate(packed.kept):
            heads, _, d = keys.shape
            if layer == len(self.prefix):
                self.prefix.append(
                    (keys.new_empty(prompts, heads, d, longest), values.new_empty(prompts, heads, longest, d))
                )
            of_keys, of_values = self.prefix[layer]
            own = slice(first, first + len(places))
            of_keys[own] = keys[:, places].permute(1, 0, 3, 2)
            of_values[own] = values[:, places].transpose(0, 1)

    def _mask_padding(self) -> None:
        longest, like = self.prefix[0][0].shape[-1], self.prefix[0][0]
        padding = torch.arange(longest, device=like.device)[None] >= self.lengths[:, None]
        self.prefix_bias = None
        if padding.any():
            bias = torch.zeros(padding.shape, dtype=like.dtype, device=like.device)
            self.prefix_bias = bias.masked_fill_(padding, -math.inf)[:, None, None]

    def enter(self, other: SharedPrefix) -> None:
        """Let other prompts, with as many rows each, begin their responses at the next step, behind these."""
        other.entered += self.position
        self.lengths, self.entered = (
            torch.cat(pair) for pair in ((self.lengths, other.lengths), (self.entered, other.entered))
        )
        longest = max(own.prefix[0][0].shape[-1] for own in (self, other))
        rows = len(other.lengths) * other.rows_per_prompt
        for layer, ((k, v), (other_k, other_v)) in enumerate(zip(self.prefix, other.prefix, strict=True)):
            padded = [
                (
                    functional.pad(a, (0, longest - a.shape[-1])),
                    functional.pad(b, (0, 0, 0, longest - b.shape[2])),
                )
                for a, b in ((k, v), (other_k, other_v))
            ]
            self.prefix[layer] = (torch.cat([a for a, _ in padded]), torch.cat([b for _, b in padded]))
        # Zeros, since what is masked must still be a number.
        self.suffix = [
            (torch.cat([k, k.new_zeros(rows, *k.shape[1:])]), torch.cat([v, v.new_zeros(rows, *v.shape[1:])]))
            for k, v in self.suffix
        ]
        self._mask_padding()

    def extend(self, model: PreTrainedModel, tokens: Tensor) -> Tensor:
        """Run the next token of every response, shape (U * K,), through ``model``.

        Returns:
            The last hidden states, shape (U * K, hidden).
        """
        self.suffix_bias = self._mask_before()
        hidden = self._decode(model, tokens, self.lengths + self.position - self.entered)
        self.position += 1
        return hidden

    def _decode(self, model: PreTrainedModel, tokens: Tensor, positions: Tensor) -> Tensor:
        """Run tokens (U * K,) that stand at positions (U,) through ``model``; return the last hidden states."""
        unused_mask = torch.empty(
            1, 1, 1, 1, device=tokens.device
        )  # a 4-dimensional mask is passed on as it is
        hidden = model.get_decoder()(
            input_ids=tokens[:, None],
            position_ids=positions.repeat_interleave(self.rows_per_prompt)[:, None],
            attention_mask=unused_mask,
            past_key_values=self,
            use_cache=True,
            layout=self,
        ).last_hidden_state
        return hidden[:, 0]

    def _mask_before(self) -> Tensor | None:
        """Mask what was stored before a prompt's rows entered. Place j holds the last step that is j modulo capacity."""
        if not self.entered.any():
            return None
        places = torch.arange(min(self.position + 1, self.capacity), device=self.entered.device)
        steps = self.position - (self.position - places) % self.capacity
        before = steps[None] < self.entered[:, None]
        bias = torch.zeros(before.shape, dtype=self.prefix[0][0].dtype, device=before.device)
        return bias.masked_fill_(before, -math.inf)[:, None, None, None]

    def select(self, prompts: Tensor, rows: Tensor, rows_per_prompt: int) -> None:
        """Keep some prompts and some rows; ``rows`` must list ``rows_per_prompt`` rows for each kept prompt."""
        self.lengths, self.entered = self.lengths[prompts], self.entered[prompts]
        longest = int(self.lengths.max())
        if self.prefix_bias is not None:
            self.prefix_bias = self.prefix_bias[prompts][..., :longest]
        if len(prompts) < len(self.prefix[0][0]):
            self.prefix = [(k[prompts][..., :longest], v[prompts][:, :, :longest]) for k, v in self.prefix]
        self.suffix = [(k[rows], v[rows]) for k, v in self.suffix]
        self.rows_per_prompt = rows_per_prompt

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, layer: int) -> Tensor:
        """Attend from one new token of each response: the prompt's keys are read once for all its rows.

        Args:
            query: (U K, H, 1, d).
            key, value: (U K, V, d, t) and (U K, V, t, d): the responses so far.
            scale: Multiplies the scores.
            layer: Whose prompts.

        Returns:
            (U K, 1, H, d).
        """
        of_keys, of_values = self.prefix[layer]
        prompts, kv_heads, d, longest = of_keys.shape
        rows, heads, t = len(query), query.shape[1], key.shape[-1]
        k, repeats = rows // prompts, heads // kv_heads
        # Queries that share keys are laid side by side, so that each product is one large matrix product.
        query = query.view(prompts, k, kv_heads, repeats, d) * scale
        to_prompt = query.transpose(1, 2).reshape(prompts * kv_heads, k * repeats, d)
        prompt_scores = torch.bmm(to_prompt, of_keys.flatten(0, 1)).view(
            prompts, kv_heads, k, repeats, longest
        )
        if self.prefix_bias is not None:
            prompt_scores += self.prefix_bias[..., None, :]
        own_scores = torch.bmm(query.view(rows * kv_heads, repeats, d), key.flatten(0, 1))
        own_scores = own_scores.view(prompts, k, kv_heads, repeats, t)
        if self.suffix_bias is not None:
            own_scores += self.suffix_bias
        scores = torch.cat([prompt_scores.transpose(1, 2), own_scores], dim=-1)
        exact = scores.dtype if scores.dtype == torch.float64 else torch.float32
        weights = torch.softmax(scores, dim=-1, dtype=exact).to(value.dtype)

        prompt_weights = (
            weights[..., :longest].transpose(1, 2).reshape(prompts * kv_heads, k * repeats, longest)
        )
        own_weights = weights.view(rows * kv_heads, repeats, longest + t)[..., longest:]
        from_prompt = torch.bmm(prompt_weights, of_values.flatten(0, 1)).view(
            prompts, kv_heads, k, repeats, d
        )
        from_own = torch.bmm(own_weights, value.flatten(0, 1)).view(prompts, k, kv_heads, repeats, d)
        return (from_own + from_prompt.transpose(1, 2)).view(rows, 1, heads, d)

    # What the model's attention layers call on a cache.
    def update(
        self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the keys and values of one token, shape (U K, V, 1, d); return those of the responses so far."""
        stored_keys, stored_values = self._reserved(keys, values, layer_idx)
        place, seen = self.position % self.capacity, min(self.position + 1, self.capacity)
        stored_keys[..., place] = keys[:, :, 0]
        stored_values[:, :, place] = values[:, :, 0]
        return stored_keys[..., :seen], stored_values[:, :, :seen]

    def _reserved(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Return the places for a layer's keys and values of the responses; zeros, at its first step."""
        if len(self.suffix) == layer:
            rows, heads, _, d = keys.shape
            self.suffix.append(
                (
                    keys.new_zeros(rows, heads, d, self.capacity),
                    values.new_zeros(rows, heads, self.capacity, d),
                )
            )
        return self.suffix[layer]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the tokens of the responses seen so far (positions are always passed explicitly)."""
        return self.position


def _batches(some: list[Family], prompts: list[list[int]]) -> Iterator[list[Family]]:
    """Put families beside each other into passes of about ``ENCODE_TOKENS`` tokens."""
    batch: list[Family] = []
    tokens = 0
    for family in some:
        own = family.tokens(prompts)
        if batch and tokens + own > ENCODE_TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(family)
        tokens += own
    yield batch


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Packed | SharedPrefix | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend as ``layout`` says; without one this is the library's own attention.

    Args:
        query: (rows, H, n, d): a packed row of tokens, or one token of each response.

    Returns:
        (rows, n, H, d) and None.
    """
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(layout, Packed):
        return layout.attend(query, key, value, scale), None
    return layout.attend(query, key, value, scale, int(module.layer_idx)), None  # type: ignore[arg-type]


AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def obstacle(model: PreTrainedModel) -> str:
    """Say what of ``model`` keeps it from sharing prompts; nothing where it may.

    It may where it uses the attention interface and a token attends to everything before it.
    """
    config = model.config.get_text_config()
    settings = config.to_dict()
    kinds = set(settings.get("layer_types") or ()) - {"full_attention"}
    if not model._supports_attention_backend:
        return "its code does not use the attention interface of transformers"
    if kinds:
        return f"it has layers of {', '.join(sorted(kinds))}"
    if settings.get("sliding_window") is not None and settings.get("use_sliding_window", True):
        return "it attends within a window"
    if any(settings.get(name) is not None for name in ("attn_logit_softcapping", "final_logit_softcapping")):
        return "it caps attention scores or logits"
    return ""


@torch.no_grad()
def why_plain(model: PreTrainedModel) -> str:
    """Switch ``model`` to shared prompts if it can; say why it takes the plain path if it cannot, else nothing.

    A model that has no :func:`obstacle` is asked for proof: on short texts both paths must give the same logits.
    """
    reason = obstacle(model)
    if reason:
        return reason
    vocabulary = model.config.get_text_config().vocab_size
    probe = [vocabulary * i // 7 for i in (5, 3, 6, 2, 4)]  # first ids are special and badly conditioned
    ids = torch.tensor([probe], device=model.device)
    before = model.config._attn_implementation
    try:
        # The plain products round as ours do; in bfloat16 another kernel may be far off on a text like this one.
        model.set_attn_implementation("eager")
        expected = model(input_ids=ids, use_cache=False).logits[0, 2:].float()
        model.set_attn_implementation(ATTENTION)
        slim_norms(model)
        packed = Packed.of([probe[:3]], [[probe[4:], probe[3:]]], model.device)
        states = [packed.forward(model)[[2, 4, 5]]]
        shared, last = SharedPrefix.encode(model, [probe[:3]], rows_per_prompt=1, capacity=2)
        states.append(torch.cat([last, *(shared.extend(model, ids[:, i]) for i in (3, 4))]))
        head = model.get_output_embeddings()
        gap = max(float((head(state).float() - expected).abs().max()) for state in states)
        if not gap <= tolerance(model.dtype) * float(expected.abs().max()):
            reason = f"its logits would differ by up to {gap:.2g}"
    except (
        Exception
    ) as error:  # whatever a model's code makes of a foreign cache, it then takes the plain path
        reason = f"its code does not take a cache of ours ({type(error).__name__}: {error})"
    if reason:
        model.set_attn_implementation(before)
    return reason


def tolerance(dtype: torch.dtype) -> float:
    """Return how far two ways to the same numbers may be apart, as a share of the largest, to pass for the same."""
    return 1e-3 if dtype in (torch.float32, torch.float64) else 0.1


def shares_prompts(model: PreTrainedModel) -> bool:
    """Switch ``model`` to shared prompts if it can, and say whether it can; see :func:`why_plain`."""
    return not why_plain(model)


def pad_right(sequences: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack sequences of token ids, padded on the right with zeros that nothing reads.

    Returns:
        Ids, shape (n, longest), and lengths, shape (n,), both int64.
    """
    lengths = [len(sequence) for sequence in sequences]
    longest = max(lengths)
    ids = [list(sequence) + [0] * (longest - len(sequence)) for sequence in sequences]
    return torch.tensor(ids, device=device), torch.tensor(lengths, device=device)
