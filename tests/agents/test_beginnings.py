"""What prompts begin with in common is encoded once, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from textmarl.agents import beginnings, prefix
from textmarl.agents.beginnings import Family, families
from textmarl.agents.packed import Packed
from textmarl.agents.prefix import SharedPrefix, shares_prompts

A, B = list(range(20)), list(range(20, 60))  # an instruction of 20 tokens, a history of 40


def test_a_history_is_shared_by_what_follows_it_and_an_instruction_is_not() -> None:
    prompts = [[*A, *B, 1], [*A, *B, 2], [*A, *B, 3], [*A, *reversed(B), 1], [*A, *reversed(B), 2]]
    assert families(prompts) == [Family(range(3), 60), Family(range(3, 5), 60)]


def test_owners_share_nothing_and_neither_do_short_beginnings() -> None:
    assert families([A, A, A], [0, 0, 1]) == [Family(range(2), 20), Family(range(2, 3), 20)]
    assert families([[1, 2, 3], [1, 2, 4]]) == [Family(range(1), 3), Family(range(1, 2), 3)]


def test_a_family_is_cut_where_it_is_too_long() -> None:
    prompts = [[*A, 90], [*A, 91], [*A, 92]]
    assert families(prompts, most=22) == [Family(range(2), 20), Family(range(2, 3), 21)]
    assert families(prompts, most=1) == [Family(range(i, i + 1), 21) for i in range(3)]


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=6), min_size=1, max_size=8), st.data())
def test_every_prompt_is_in_one_family_that_begins_as_it_does(
    prompts: list[list[int]], data: st.DataObject
) -> None:
    owners = data.draw(st.lists(st.integers(0, 1), min_size=len(prompts), max_size=len(prompts)))
    most = data.draw(st.one_of(st.none(), st.integers(1, 12)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beginnings, "MIN_SHARED", 1)
        found = families(prompts, owners, most)
    assert [i for family in found for i in family.members] == list(range(len(prompts)))
    for family in found:
        first = prompts[family.members.start]
        assert all(prompts[i][: family.shared] == first[: family.shared] for i in family.members)
        assert len({owners[i] for i in family.members}) == 1
        assert most is None or len(family.members) == 1 or family.tokens(prompts) <= most


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("at_once", [4096, 30])
def test_a_shared_beginning_changes_no_number(
    make_model: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch, family: str, at_once: int
) -> None:
    model = make_model(family).double()
    assert shares_prompts(model)
    start = [i % 11 for i in range(18)]
    prompts = [[*start, 3], [*start, 4, 5, 6], start, [7, 8], [*start, 4, 5, 6]]
    monkeypatch.setattr(prefix, "ENCODE_TOKENS", at_once)
    encoded: list[int] = []
    forward = Packed.forward

    def counted(self: Packed, model: PreTrainedModel) -> torch.Tensor:
        encoded.append(self.ids.numel())
        return forward(self, model)

    monkeypatch.setattr(Packed, "forward", counted)
    with torch.no_grad():
        shared, last = SharedPrefix.encode(model, prompts, 1, 4)
        assert sum(encoded) < sum(map(len, prompts)) - 30
        next_states = shared.extend(model, torch.tensor([1, 2, 3, 4, 5]))
        for i, prompt in enumerate(prompts):
            alone, expected = SharedPrefix.encode(model, [prompt], 1, 4)
            assert torch.allclose(last[i], expected[0], atol=1e-12)
            assert torch.allclose(next_states[i], alone.extend(model, torch.tensor([i + 1]))[0], atol=1e-12)
