"""Prompts and responses in one row of tokens: the attention is that of each conversation by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from textmarl.agents import packed
from textmarl.agents.packed import Packed

HEADS, KV_HEADS, D = 6, 2, 4
PROMPTS = [[1, 2, 3], [4], [5, 6]]
RESPONSES = [[[7, 8], [9, 9]], [[1, 2, 3], [4], []], []]  # equal, ragged and empty, none


def laid_out() -> Packed:
    return Packed.of(PROMPTS, RESPONSES, torch.device("cpu"))


def random_row(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = laid_out().ids.shape[1]

    def draw(heads: int) -> Tensor:
        return torch.randn(heads, tokens, D, generator=generator, dtype=torch.float64, requires_grad=True)

    return draw(HEADS), draw(KV_HEADS), draw(KV_HEADS)


def conversations(layout: Packed) -> list[list[int]]:
    """The places of every conversation's tokens: each prompt, and each prompt with one of its responses."""
    found = []
    for prompt, responses in zip(layout.prompts, layout.responses, strict=True):
        own = list(range(prompt.start, prompt.stop))
        found += [own, *(own + list(range(r.start, r.stop)) for r in responses)]
    return found


def attend_alone(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """Causal attention of one conversation, (tokens, H, d), one token and one head at a time."""
    rows = []
    for t in range(query.shape[1]):
        heads = []
        for h in range(HEADS):
            k, v = key[h * KV_HEADS // HEADS, : t + 1], value[h * KV_HEADS // HEADS, : t + 1]
            heads.append(torch.softmax(scale * (k @ query[h, t]), dim=0) @ v)
        rows.append(torch.stack(heads))
    return torch.stack(rows)


def test_tokens_and_positions_are_those_of_the_conversations() -> None:
    layout = laid_out()
    assert layout.ids.tolist() == [[1, 2, 3, 7, 8, 9, 9, 4, 1, 2, 3, 4, 5, 6]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 4, 3, 4, 0, 1, 2, 3, 1, 0, 1]]
    for places in conversations(layout):
        assert layout.positions[0, places].tolist() == list(range(len(places)))


@pytest.mark.parametrize("max_scores", [packed.MAX_SCORES, 1], ids=["all heads at once", "a head at a time"])
def test_attention_is_that_of_each_conversation_by_itself(
    monkeypatch: pytest.MonkeyPatch, max_scores: int
) -> None:
    monkeypatch.setattr(packed, "MAX_SCORES", max_scores)
    layout, (query, key, value) = laid_out(), random_row()
    found = layout.attend(query[None], key[None], value[None], 0.5)[0]
    seen = set()
    for places in conversations(layout):
        expected = attend_alone(query[:, places], key[:, places], value[:, places], 0.5)
        assert torch.allclose(found[places], expected, atol=1e-12)
        seen.update(places)
    assert seen == set(range(layout.ids.shape[1]))


@pytest.mark.parametrize("max_scores", [packed.MAX_SCORES, 1], ids=["all heads at once", "a head at a time"])
def test_gradients_are_those_of_the_conversations(monkeypatch: pytest.MonkeyPatch, max_scores: int) -> None:
    monkeypatch.setattr(packed, "MAX_SCORES", max_scores)
    layout, inputs = laid_out(), random_row()
    weights = torch.randn(layout.ids.shape[1], HEADS, D, dtype=torch.float64)
    (weights * layout.attend(*(x[None] for x in inputs), 0.5)[0]).sum().backward()
    found = [x.grad.clone() for x in inputs if x.grad is not None]
    for x in inputs:
        x.grad = None
    counted: set[int] = set()
    for places in conversations(layout):
        attended = attend_alone(*(x[:, places] for x in inputs), 0.5)
        new = [i for i, place in enumerate(places) if place not in counted]  # a prompt's tokens count once
        (weights[places][new] * attended[new]).sum().backward()
        counted.update(places)
    for x, gradient in zip(inputs, found, strict=True):
        assert x.grad is not None and torch.allclose(gradient, x.grad, atol=1e-12)


def test_keys_and_values_are_kept_only_where_asked_for() -> None:
    kept = Packed.of(PROMPTS, RESPONSES, torch.device("cpu"), keep=True)
    keys, values = torch.randn(1, KV_HEADS, 14, D), torch.randn(1, KV_HEADS, 14, D)
    for layout in (kept, laid_out()):
        assert layout.update(keys, values, 0) == (keys, values) and layout.get_seq_length() == 0
    assert kept.kept is not None and len(kept.kept) == 1 and torch.equal(kept.kept[0][0], keys[0])
    assert laid_out().kept is None


def test_a_prompt_in_stretches_attends_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token sees all before it in its conversation, whatever the stretches that its prompt is computed in."""
    query, key, value = random_row()
    whole = laid_out().attend(query[None], key[None], value[None], 0.5)
    whole_gradients = torch.autograd.grad(whole.square().sum(), (query, key, value))
    monkeypatch.setattr(packed, "STRETCH", 2)
    layout = laid_out()
    assert [block.lengths for block in layout.blocks[:2]] == [[2], [1]]
    cut = layout.attend(query[None], key[None], value[None], 0.5)
    torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(cut.square().sum(), (query, key, value))
    for own, expected in zip(gradients, whole_gradients, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-12, atol=1e-12)


@given(st.lists(st.integers(0, 40), max_size=12))
def test_a_long_response_among_short_ones_does_not_make_all_of_them_long(lengths: list[int]) -> None:
    responses = [[7] * length for length in lengths]
    laid = Packed.of([[1, 2]], [responses], torch.device("cpu"))
    blocks = [block for block in laid.blocks if block.prompt is not None]
    assert [length for block in blocks for length in block.lengths] == [
        length for length in lengths if length
    ]
    for block in blocks:
        assert len(block.lengths) * max(block.lengths) <= 2 * sum(block.lengths)
