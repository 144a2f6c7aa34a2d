"""Generation: both paths sample the same tokens, and nothing about the batch changes what is sampled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from textmarl.agents import generation
from textmarl.agents.answering import runs_of_equal
from textmarl.agents.generation import Sequence, generate_plain, generate_shared
from textmarl.agents.policy import Policy
from textmarl.agents.prefix import obstacle, shares_prompts, why_plain
from textmarl.agents.sampling import Sampling, draw

STOP = frozenset({1})
PROMPTS = [[5, 3, 7, 2, 6, 9, 4, 4], [8], [2, 0, 1, 0, 11, 3]]  # padding and end-of-sequence ids inside
SHARING = ["llama", "qwen2", "qwen3", "gemma", "gpt2"]
FAMILIES = [*SHARING, "gemma2", "mistral"]


def numbers(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


def expected_sequences(
    model: PreTrainedModel, prompts: list[list[int]], n: int, sampling: Sampling, uniform: Tensor
) -> list[Sequence]:
    """Sample one response at a time by a full forward pass for every token: no cache, no padding, no batch."""
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    sequences = []
    for row, prompt in enumerate(p for p in prompts for _ in range(n)):
        tokens: list[int] = []
        logprobs: list[float] = []
        while len(tokens) < sampling.max_new_tokens and (not tokens or tokens[-1] not in STOP):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([prompt + tokens]), use_cache=False).logits[0, -1:]
            token, logprob = draw(logits, uniform[row, len(tokens)][None], sampling)
            tokens.append(int(token))
            logprobs.append(float(logprob))
        sequences.append(Sequence(tokens, logprobs, "stop" if tokens[-1] in STOP else "length"))
    return sequences


def assert_same(actual: list[Sequence], expected: list[Sequence], tolerance: float = 2e-5) -> None:
    assert [s.token_ids for s in actual] == [s.token_ids for s in expected]
    assert [s.finish for s in actual] == [s.finish for s in expected]
    for one, other in zip(actual, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=tolerance)


@pytest.mark.parametrize("truncation", [{}, {"top_k": 5, "top_p": 0.9}], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_both_paths_sample_what_one_token_at_a_time_samples(
    make_model: Callable[..., PreTrainedModel], family: str, truncation: dict[str, Any]
) -> None:
    sampling = Sampling(temperature=1.2, max_new_tokens=16, **truncation)
    uniform = numbers(9, 16)
    model = make_model(family)
    expected = expected_sequences(model, PROMPTS, 3, sampling, uniform)
    assert {s.finish for s in expected} == {"stop", "length"}
    assert_same(generate_plain(model, PROMPTS, 3, STOP, sampling, uniform), expected)
    if family in SHARING:
        assert shares_prompts(model)
        assert_same(generate_shared(model, PROMPTS, 3, STOP, sampling, uniform), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_shares_prompts_only_if_that_is_right(
    make_model: Callable[..., PreTrainedModel], family: str
) -> None:
    model = make_model(family)
    ids = torch.tensor([[5, 3, 7, 2, 6, 9, 4]])
    before = model(input_ids=ids).logits
    reason = why_plain(model)
    assert (reason == "") == (family in SHARING), reason
    assert torch.allclose(model(input_ids=ids).logits, before, atol=1e-5)  # ordinary use goes on


def test_capped_logits_are_not_skipped_however_little_the_cap_does_at_first(
    make_model: Callable[..., PreTrainedModel],
) -> None:
    model = make_model("llama")
    assert not obstacle(model)
    model.config.final_logit_softcapping = 30.0
    assert "caps" in obstacle(model)


def test_repacking_the_batch_changes_nothing(
    make_model: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("llama")
    assert shares_prompts(model)
    sampling, uniform = Sampling(temperature=1.5, max_new_tokens=16), numbers(24, 16, seed=2)
    found, sizes = [], []
    extend = generation.SharedPrefix.extend

    def counted(self: Any, model: Any, ids: Tensor) -> Tensor:
        sizes.append(len(ids))
        return extend(self, model, ids)

    monkeypatch.setattr(generation.SharedPrefix, "extend", counted)
    for share in (0.0, 0.75, 1.0):  # never, as shipped, whenever possible
        monkeypatch.setattr(generation, "REPACK_AT", share)
        sizes.clear()
        found.append(generate_shared(model, PROMPTS, 8, STOP, sampling, uniform))
        assert (min(sizes) < 24) == (share > 0)
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])
    lengths = [len(s.token_ids) for s in found[0]]
    assert min(lengths) == 1 and max(lengths) == 16 and len(set(lengths)) > 5


def test_a_stop_token_is_part_of_the_response_and_nothing_follows_it(
    make_model: Callable[..., PreTrainedModel],
) -> None:
    model = make_model("qwen2")
    assert shares_prompts(model)
    stop = frozenset({1, 4})
    for sample in (generate_shared, generate_plain):
        sequences = sample(model, PROMPTS, 8, stop, Sampling(max_new_tokens=12), numbers(24, 12))
        ends = set()
        for sequence in sequences:
            assert len(sequence.logprobs) == len(sequence.token_ids)
            assert not stop & set(sequence.token_ids[:-1])
            if sequence.finish == "stop":
                assert sequence.token_ids[-1] in stop
                ends.add(sequence.token_ids[-1])
            else:
                assert len(sequence.token_ids) == 12
        assert ends == stop


def test_a_response_that_stops_at_the_very_limit_was_not_cut(
    make_model: Callable[..., PreTrainedModel],
) -> None:
    model = make_model("llama")
    everything = frozenset(range(12))
    (sequence,) = generate_plain(model, [[3]], 1, everything, Sampling(max_new_tokens=1), numbers(1, 1))
    assert (len(sequence.token_ids), sequence.finish) == (1, "stop")


def test_the_models_own_generation_settings_do_not_bend_the_distribution(
    make_model: Callable[..., PreTrainedModel],
) -> None:
    model = make_model("mistral")
    sampling, uniform = Sampling(temperature=1.2, max_new_tokens=9), numbers(9, 9)
    expected = generate_plain(model, PROMPTS, 3, STOP, sampling, uniform)
    for name, value in {
        "temperature": 0.1,
        "top_k": 1,
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "min_new_tokens": 9,
        "suppress_tokens": [3, 4, 5],
        "max_length": 3,
    }.items():
        setattr(model.generation_config, name, value)
    before = model.generation_config.to_dict()
    assert_same(generate_plain(model, PROMPTS, 3, STOP, sampling, uniform), expected)
    assert model.generation_config.to_dict() == before


def test_greedy_decoding_is_that_of_the_library(make_model: Callable[..., PreTrainedModel]) -> None:
    model = make_model("llama")
    (mine,) = generate_plain(
        model, [PROMPTS[0]], 1, STOP, Sampling(temperature=0, max_new_tokens=9), numbers(1, 9)
    )
    theirs = model.generate(torch.tensor([PROMPTS[0]]), do_sample=False, max_new_tokens=9)[
        0, len(PROMPTS[0]) :
    ]
    assert mine.token_ids == theirs.tolist()


# --------------------------------------------------------------------------------------------------- a policy


def say(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture
def policy(make_model: Callable[..., PreTrainedModel], make_tokenizer: Callable[..., Any]) -> Policy:
    return Policy("one", make_model("llama"), make_tokenizer())


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3, 5, 1000])
def test_batch_size_changes_nothing(policy: Policy, batch_size: int, shares: bool) -> None:
    policy.shares_prompts = shares
    asked = [say("abc"), say("abc"), say("d"), say("abcdefgh"), say("abc"), say("hg")]
    sampling = Sampling(temperature=1.2, max_new_tokens=7)

    def answers(batch_size: int) -> list[Any]:
        generator = torch.Generator().manual_seed(5)
        rows = policy.generate(asked, sampling, generator, 4, batch_size)
        assert [len(row) for row in rows] == [4] * 6
        return [response for row in rows for response in row]

    for one, other in zip(answers(batch_size), answers(24), strict=True):
        assert (one.token_ids, one.text, one.finish, one.prompt_ids) == (
            other.token_ids, other.text, other.finish, other.prompt_ids,
        )  # fmt: skip
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


@pytest.mark.parametrize("n", [1, 4, 9])
def test_no_more_responses_than_the_batch_size_are_decoded_at_once(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    sizes: list[int] = []

    def counted(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        sizes.append(len(logits))
        return draw(logits, *rest)

    monkeypatch.setattr(generation, "draw", counted)
    policy.generate([say("abc"), say("abc"), say("de")], Sampling(max_new_tokens=2), torch.Generator(), n, 4)
    assert max(sizes) <= 4 and sum(sizes) >= 3 * n


def test_waiting_prompts_enter_where_others_have_finished(
    make_model: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("llama")
    assert shares_prompts(model)
    prompts = [[2 + i % 9, 3, 2 + i // 9] for i in range(24)]
    sampling, uniform = Sampling(temperature=1.5, max_new_tokens=30), numbers(24, 30)
    steps: list[int] = []

    def counted(logits: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        steps.append(len(logits))
        return draw(logits, *rest)

    expected = expected_sequences(model, prompts, 1, sampling, uniform)
    monkeypatch.setattr(generation, "draw", counted)
    found = generate_shared(model, prompts, 1, STOP, sampling, uniform, batch_size=4)
    assert_same(found, expected)
    lengths = [len(sequence.token_ids) for sequence in expected]
    assert max(lengths) == 30 and min(lengths) < 5, (
        "rows leave at different steps, some places are used again"
    )
    one_wave_after_the_other = sum(max(lengths[i : i + 4]) for i in range(0, 24, 4))
    assert max(steps) == 4 and len(steps) < 0.8 * one_wave_after_the_other


def test_equal_prompts_beside_each_other_make_one_batch() -> None:
    a, b, c = [1], [2], [3]
    assert list(runs_of_equal([a, a, b, b, c], 10)) == [(0, [a, b], 2), (4, [c], 1)]
    assert list(runs_of_equal([a, b, a], 10)) == [(0, [a, b, a], 1)]
    assert list(runs_of_equal([a] * 5, 2)) == [(0, [a, a], 2), (4, [a], 1)]
    assert list(runs_of_equal([a, a, b, b, c, c], 4)) == [(0, [a, b, c], 2)]


def test_an_agents_random_stream_advances_by_what_was_asked_not_by_what_was_answered(policy: Policy) -> None:
    generator = torch.Generator().manual_seed(0)
    policy.generate([say("a"), say("b")], Sampling(max_new_tokens=5), generator, n=3)
    expected = torch.Generator().manual_seed(0)
    torch.rand(2 * 3, 5, generator=expected)
    assert torch.rand(1, generator=generator) == torch.rand(1, generator=expected)


def test_the_global_random_state_is_neither_read_nor_moved(policy: Policy) -> None:
    def answer(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        rows = policy.generate(
            [say("abc")], Sampling(max_new_tokens=6), torch.Generator().manual_seed(4), n=3
        )
        assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(seed))
        return [response.token_ids for response in rows[0]]

    assert answer(1) == answer(2)


@pytest.mark.parametrize("shares", [True, False])
def test_progress_counts_every_token_once(policy: Policy, shares: bool) -> None:
    policy.shares_prompts = shares
    counts: list[int] = []
    rows = policy.generate(
        [say("abc"), say("d")],
        Sampling(max_new_tokens=6),
        torch.Generator().manual_seed(1),
        4,
        3,
        counts.append,
    )
    assert sum(counts) == sum(len(response.token_ids) for row in rows for response in row)


def test_a_sampled_padding_token_is_a_token_like_any_other(policy: Policy) -> None:
    rows = policy.generate(
        [say("abc")] * 8, Sampling(temperature=3, max_new_tokens=6), torch.Generator().manual_seed(1), 4
    )
    responses = [response for row in rows for response in row]
    assert any(0 in response.token_ids for response in responses)
    for response in responses:
        assert response.token_ids[-1] == 1 or len(response.token_ids) == 6
        assert "<" not in response.text  # special tokens are no part of the text
        ordinary = [token for token in response.token_ids if token > 1]
        assert len(response.text) == len(ordinary)
