"""How samples are packed into passes of bounded size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from textmarl.algos import Sample
from textmarl.algos.update import MicroBatch, micro_batches

PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=30)
SIZES = st.lists(st.tuples(PROMPTS, st.integers(1, 40)), min_size=1, max_size=40)


def samples(sizes) -> list[Sample]:
    return [Sample("a", prompt, [7] * length, [0.0] * length, "stop", 0.0, 1.0) for prompt, length in sizes]


def packed_tokens(batch: MicroBatch) -> int:
    """Every prompt once and every response, without padding."""
    responses = sum(len(sample.token_ids) for group in batch.samples for sample in group)
    return sum(len(prompt) for prompt in batch.prompts) + responses


@given(SIZES, st.integers(1, 300))
def test_every_sample_is_in_exactly_one_batch_beside_its_own_prompt(sizes, bound):
    given_samples = samples(sizes)
    batches = list(micro_batches(given_samples, bound))
    assert sorted(id(s) for batch in batches for s in batch.flat()) == sorted(id(s) for s in given_samples)
    for batch in batches:
        assert len(batch.prompts) == len(batch.samples)
        for prompt, group, ids in zip(batch.prompts, batch.samples, batch.token_ids(), strict=True):
            assert group and all(s.prompt_ids == prompt for s in group)
            assert ids == [s.token_ids for s in group]


@given(SIZES, st.integers(1, 300))
def test_bound_is_kept_except_by_a_single_response_that_is_too_long(sizes, bound):
    for batch in micro_batches(samples(sizes), bound):
        assert packed_tokens(batch) <= bound or len(batch.flat()) == 1


@given(SIZES)
def test_without_need_nothing_is_divided_and_every_prompt_is_encoded_once(sizes):
    (batch,) = micro_batches(samples(sizes), 10**9)
    assert len(batch.prompts) == len({tuple(prompt) for prompt, _ in sizes})


@given(PROMPTS, st.integers(1, 20), st.integers(1, 20), st.integers(1, 300))
def test_responses_to_one_prompt_are_cut_into_as_few_batches_as_fit(prompt, length, count, bound):
    batches = list(micro_batches(samples([(prompt, length)] * count), bound))
    fit = max(1, (bound - len(prompt)) // length)
    assert len(batches) == -(-count // fit)
