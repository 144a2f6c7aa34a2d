"""Scoring: log-probabilities and entropies of given responses, and their gradients, against a full forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from textmarl.agents import scoring
from textmarl.agents.generation import generate_plain, generate_shared
from textmarl.agents.policy import Policy
from textmarl.agents.prefix import shares_prompts
from textmarl.agents.sampling import Sampling
from textmarl.agents.scoring import Scores, score_plain, score_shared
from textmarl.agents.tiny import tiny_model

PROMPTS = [[5, 3, 7, 2, 6, 9, 4, 4], [8], [2, 0, 1, 0, 11, 3]]  # padding and end-of-sequence ids inside
RESPONSES = [[[4, 1], [3, 3, 0, 9, 2]], [[1]], [[0, 0, 1], [7, 1], [2, 10, 11, 1]]]
FLAT = [(p, r) for p, group in zip(PROMPTS, RESPONSES, strict=True) for r in group]
SHARING = ["llama", "qwen2", "qwen3", "gemma", "gpt2"]
FAMILIES = [*SHARING, "gemma2", "mistral"]
TRUNCATIONS: list[dict[str, Any]] = [{}, {"top_k": 6}, {"top_k": 7, "top_p": 0.9}]

Score = Callable[[PreTrainedModel, list[list[int]], list[list[list[int]]], Sampling], Scores]


def paths(family: str) -> list[Score]:
    return [score_shared, score_plain] if family in SHARING else [score_plain]


def ready(model: PreTrainedModel, family: str) -> PreTrainedModel:
    assert shares_prompts(model) == (family in SHARING)
    return model


def explicit(
    model: PreTrainedModel, prompt: list[int], response: list[int], sampling: Sampling
) -> tuple[Tensor, Tensor]:
    """Log-probability and entropy of each token of one response; the target of a truncated draw counts as kept."""
    logits = model(input_ids=torch.tensor([prompt + response]), use_cache=False).logits[0]
    logprobs, entropies = [], []
    for t, token in enumerate(response):
        scaled = logits[len(prompt) - 1 + t] / sampling.temperature
        ranked = scaled.detach().argsort(descending=True)
        if sampling.top_k:
            ranked = ranked[: sampling.top_k]
        shares = scaled.detach()[ranked].softmax(-1)
        kept = set(ranked[(shares.cumsum(-1) - shares) < sampling.top_p].tolist()) | {token}
        log_p = torch.log_softmax(scaled[sorted(kept)], -1)
        logprobs.append(log_p[sorted(kept).index(token)])
        entropies.append(-(log_p.exp() * log_p).sum())
    return torch.stack(logprobs), torch.stack(entropies)


def ordinary(model: PreTrainedModel) -> PreTrainedModel:
    model = copy.deepcopy(model)
    model.set_attn_implementation("eager")
    return model


# Histories of one task: they begin alike, one is the beginning of another, and one has two responses.
ALIKE = [[5, 3, 7, 2, 6, 9, 4, 4] * 3 + rest for rest in ([2, 8], [3], [], [8, 8, 1, 5])]
RESPONSES_ALIKE = [[[4, 1]], [[3, 3, 0, 9, 2], [7]], [[1]], [[2, 6]]]


@pytest.mark.parametrize("family", SHARING)
def test_histories_that_begin_alike_are_scored_as_each_by_itself(
    make_model: Callable[..., PreTrainedModel], family: str
) -> None:
    sampling = Sampling(temperature=0.7)
    model = ready(make_model(family), family)
    reference = ordinary(model)
    scores = score_shared(model, ALIKE, RESPONSES_ALIKE, sampling)
    flat = [(p, r) for p, group in zip(ALIKE, RESPONSES_ALIKE, strict=True) for r in group]
    expected = []
    for row, (prompt, response) in enumerate(flat):
        logprobs, entropies = explicit(reference, prompt, response, sampling)
        expected.append(logprobs)
        assert torch.allclose(scores.logprobs[row, : len(response)], logprobs, atol=2e-5)
        assert torch.allclose(scores.entropies[row, : len(response)], entropies, atol=2e-5)
    weights = torch.linspace(-1.0, 1.0, int(scores.mask.sum()))
    (weights * scores.logprobs[scores.mask]).sum().backward()
    (weights * torch.cat(expected)).sum().backward()
    for own, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        if theirs.grad is not None:
            assert own.grad is not None
            assert torch.allclose(own.grad, theirs.grad, atol=1e-5 * float(theirs.grad.abs().max()) + 1e-6)


def test_the_common_beginning_of_histories_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out = []
    packed = scoring.Packed.of
    monkeypatch.setattr(
        scoring.Packed, "of", lambda *args, **more: laid_out.append(packed(*args, **more)) or laid_out[-1]
    )
    score_shared(tiny_model(), ALIKE, RESPONSES_ALIKE, Sampling())
    # 24 tokens once; what follows each (2, 1, 0, 4) with its responses but their last tokens (1; 4 and 0; 0; 1).
    assert laid_out[0].ids.shape[1] == 24 + (2 + 1) + (1 + 4) + (1 + 0) + 0 + (4 + 1)


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_a_full_forward_pass(
    make_model: Callable[..., PreTrainedModel], family: str, truncation: dict[str, Any]
) -> None:
    sampling = Sampling(temperature=0.7, **truncation)
    model = ready(make_model(family), family)
    reference = ordinary(model)
    for score in paths(family):
        scores = score(model, PROMPTS, RESPONSES, sampling)
        for row, (prompt, response) in enumerate(FLAT):
            logprobs, entropies = explicit(reference, prompt, response, sampling)
            length = len(response)
            assert scores.mask[row].tolist() == [True] * length + [False] * (scores.mask.shape[1] - length)
            assert torch.allclose(scores.logprobs[row, :length], logprobs, atol=2e-5)
            assert torch.allclose(scores.entropies[row, :length], entropies, atol=2e-5)
            assert not scores.logprobs[row, length:].any() and not scores.entropies[row, length:].any()


@pytest.mark.parametrize("truncation", TRUNCATIONS, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_log_probabilities_and_entropies_are_those_of_a_full_forward_pass(
    make_model: Callable[..., PreTrainedModel], family: str, truncation: dict[str, Any]
) -> None:
    sampling = Sampling(temperature=0.7, **truncation)
    model = ready(make_model(family), family)
    reference = ordinary(model)
    torch.manual_seed(0)
    weights = torch.randn(2, len(FLAT), max(len(r) for _, r in FLAT))
    for row, (prompt, response) in enumerate(FLAT):
        logprobs, entropies = explicit(reference, prompt, response, sampling)
        length = len(response)
        (
            (weights[0, row, :length] * logprobs).sum() + (weights[1, row, :length] * entropies).sum()
        ).backward()
    expected = {name: p.grad for name, p in reference.named_parameters()}
    largest = max(float(g.abs().max()) for g in expected.values() if g is not None)
    for score in paths(family):
        model.zero_grad()
        scores = score(model, PROMPTS, RESPONSES, sampling)
        ((weights[0] * scores.logprobs).sum() + (weights[1] * scores.entropies).sum()).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None and expected[name] is not None
            assert torch.allclose(parameter.grad, expected[name], atol=2e-5 * largest), name


@pytest.mark.parametrize("family", FAMILIES)
def test_scoring_sees_the_log_probabilities_of_sampling(
    make_model: Callable[..., PreTrainedModel], family: str
) -> None:
    for truncation in TRUNCATIONS:
        sampling = Sampling(temperature=0.9, max_new_tokens=7, **truncation)
        model = ready(make_model(family), family)
        uniform = torch.rand(12, 7, generator=torch.Generator().manual_seed(0))
        generate = generate_shared if family in SHARING else generate_plain
        sequences = generate(model, PROMPTS, 4, frozenset({1}), sampling, uniform)
        groups = [[s.token_ids for s in sequences[u * 4 : u * 4 + 4]] for u in range(3)]
        for score in paths(family):
            scores = score(model, PROMPTS, groups, sampling)
            for row, sequence in enumerate(sequences):
                found = scores.logprobs[row, : len(sequence.token_ids)].tolist()
                assert found == pytest.approx(sequence.logprobs, abs=5e-5)


def test_the_end_of_sequence_token_is_trained(make_model: Callable[..., PreTrainedModel]) -> None:
    for family in ("llama", "mistral"):
        model = ready(make_model(family), family)
        for score in paths(family):
            before = score(model, [[5, 3]], [[[4, 1]]], Sampling()).logprobs[0, 1]
            model.zero_grad()
            before.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.05 * parameter.grad  # type: ignore[operator]
            after = score(model, [[5, 3]], [[[4, 1]]], Sampling()).logprobs[0, 1]
            assert after > before


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_response_scores_the_same_whatever_is_beside_it(
    make_model: Callable[..., PreTrainedModel], family: str
) -> None:
    model = ready(make_model(family), family)
    for score in paths(family):
        together = score(model, PROMPTS, RESPONSES, Sampling())
        for row, (prompt, response) in enumerate(FLAT):
            alone = score(model, [prompt], [[response]], Sampling())
            assert torch.allclose(together.logprobs[row, : len(response)], alone.logprobs[0], atol=2e-5)


@pytest.mark.parametrize("chunk", [1, 4, 10**6])
def test_logits_in_chunks_give_the_same_scores(
    make_model: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    model = ready(make_model("llama"), "llama")
    expected = score_shared(model, PROMPTS, RESPONSES, Sampling())
    monkeypatch.setattr(scoring, "HEAD_CHUNK", chunk)
    scores = score_shared(model, PROMPTS, RESPONSES, Sampling())
    assert torch.allclose(scores.logprobs, expected.logprobs, atol=1e-6)
    assert torch.allclose(scores.entropies, expected.entropies, atol=1e-6)


def test_a_token_that_truncation_would_cut_off_still_has_a_finite_score(
    make_model: Callable[..., PreTrainedModel],
) -> None:
    model = ready(make_model("llama"), "llama")
    scores = score_shared(model, [[5, 3]], [[[t, 1] for t in range(12)]], Sampling(top_k=1))
    assert torch.isfinite(scores.logprobs).all() and torch.isfinite(scores.entropies).all()


def test_scores_of_a_half_precision_model_are_in_single_precision(
    make_model: Callable[..., PreTrainedModel],
) -> None:
    exact = score_plain(make_model("llama"), PROMPTS, RESPONSES, Sampling(temperature=1))
    model = ready(make_model("llama").to(torch.bfloat16), "llama")
    for score in (score_shared, score_plain):
        scores = score(model, PROMPTS, RESPONSES, Sampling(temperature=1))
        assert scores.logprobs.dtype == torch.float32
        assert torch.allclose(scores.logprobs, exact.logprobs, atol=0.1)


def test_scoring_without_gradients_keeps_none(
    make_model: Callable[..., PreTrainedModel], make_tokenizer: Callable[..., Any]
) -> None:
    policy = Policy("one", make_model("llama"), make_tokenizer(), reference=make_model("llama"))
    scores = policy.score_reference(PROMPTS, RESPONSES, Sampling())
    assert not scores.logprobs.requires_grad
    assert torch.allclose(scores.logprobs, policy.score(PROMPTS, RESPONSES, Sampling()).logprobs, atol=1e-6)
