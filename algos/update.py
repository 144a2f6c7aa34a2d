"""From credited samples to gradients and an optimizer step, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from textmarl.agents.policy import Policy
from textmarl.agents.sampling import Sampling
from textmarl.agents.scoring import Scores
from textmarl.algos.algorithm import Algorithm, Batch, Group, Sample


@dataclass
class MicroBatch:
    """Samples that are scored in one pass: prompts, and the samples of each prompt."""

    prompts: list[list[int]] = field(default_factory=list)
    samples: list[list[Sample]] = field(default_factory=list)
    shares_prompts: bool = True

    def flat(self) -> list[Sample]:
        """Return the samples in the order of their scores."""
        return [sample for group in self.samples for sample in group]

    def tokens(self) -> int:
        """Return the tokens of a pass, at most.

        Shared prompts: those of each prompt once and of its responses, packed; what prompts begin with in common may be
        computed once. Otherwise each response follows a prompt of its own, padded to the longest.
        """
        if self.shares_prompts:
            return sum(map(len, self.prompts)) + sum(len(sample.token_ids) for sample in self.flat())
        return len(self.flat()) * max(
            len(sample.prompt_ids) + len(sample.token_ids) for sample in self.flat()
        )

    def token_ids(self) -> list[list[list[int]]]:
        """Return each prompt's responses."""
        return [[sample.token_ids for sample in group] for group in self.samples]


def micro_batches(
    samples: list[Sample], max_tokens: int, shares_prompts: bool = True
) -> Iterator[MicroBatch]:
    """Pack one agent's samples into batches of at most ``max_tokens`` tokens.

    Samples of one prompt stay together where they fit, and the prompt counts once if the policy shares prompts. A
    prompt whose responses do not fit is cut into several batches, each with at least one response: a batch exceeds
    the bound only where a single response with its prompt does.
    """
    by_prompt: dict[tuple[int, ...], list[Sample]] = {}
    for sample in samples:
        by_prompt.setdefault(tuple(sample.prompt_ids), []).append(sample)
    pieces: list[tuple[list[int], list[Sample]]] = []
    for prompt, group in by_prompt.items():
        piece: list[Sample] = []
        for sample in group:
            if piece and MicroBatch([list(prompt)], [[*piece, sample]], shares_prompts).tokens() > max_tokens:
                pieces.append((list(prompt), piece))
                piece = []
            piece = [*piece, sample]
        pieces.append((list(prompt), piece))
    batch = MicroBatch(shares_prompts=shares_prompts)
    if not shares_prompts:  # like lengths beside each other, little is padded
        pieces.sort(key=lambda piece: (len(piece[1]), len(piece[0])))
    for prompt_ids, piece in pieces:
        larger = MicroBatch([*batch.prompts, prompt_ids], [*batch.samples, piece], shares_prompts)
        if batch.prompts and larger.tokens() > max_tokens:
            yield batch
            larger = MicroBatch([prompt_ids], [piece], shares_prompts)
        batch = larger
    if batch.prompts:
        yield batch


class Updater:
    """Updates one agent's policy, or that of several agents who share their parameters.

    Args:
        policy: What is trained (the first agent's); its trainable parameters are those of ``policy.parameters()``.
        algorithm: Gives the loss.
        sampling: The distribution that the responses were drawn from.
        optimizer: Over the policy's parameters, and those of the algorithm that this agent's loss trains.
        max_grad_norm: Clip the agent's gradient to this norm; 0 does not clip.
        micro_batch_tokens: Tokens in one forward and backward pass.
    """

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        sampling: Sampling,
        optimizer: torch.optim.Optimizer,
        max_grad_norm: float,
        micro_batch_tokens: int,
    ):
        self.policy = policy
        self.algorithm = algorithm
        self.sampling = sampling
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.micro_batch_tokens = micro_batch_tokens

    def update(
        self,
        groups: list[Group],
        rng: np.random.Generator,
        on_samples: Callable[[int], None] = lambda n: None,
    ) -> dict[str, float]:
        """Run the algorithm's epochs on the groups of those who act by the policy, as far as the algorithm goes on.

        The loss is the sum of theirs.

        Args:
            groups: One step's experience of these agents.
            rng: Deals groups into mini-batches.
            on_samples: Called with the number of samples that each pass has dealt with.

        Returns:
            ``loss`` (of the first epoch), ``grad_norm`` (before clipping, mean over optimizer steps), ``entropy``
            (nats, mean over tokens), ``sampling_kl`` (k3, nats per token: how far scoring is from what sampled), and
            ``approx_kl`` where experience is reused (k3, nats per token, of the policy from the one that sampled).

        Raises:
            FloatingPointError: The loss or the gradient is not finite.
        """
        algorithm = self.algorithm
        reused = algorithm.epochs > 1 or algorithm.minibatches > 1
        old: dict[int, Tensor] = {}
        if reused:
            for batch in self._micro_batches([s for g in groups for s in g.samples]):
                with torch.no_grad():
                    scores = self.policy.score(batch.prompts, batch.token_ids(), self.sampling)
                for sample, row in zip(batch.flat(), scores.logprobs, strict=True):
                    old[id(sample)] = row[: len(sample.token_ids)]
        totals = _Totals()
        for epoch, parts, samples in self._passes(groups, rng):
            self.optimizer.zero_grad(set_to_none=True)
            with self.policy.adapted():
                loss, approx_kl = self._backward(samples, parts, old, totals, epoch == 0, on_samples)
            if not algorithm.goes_on(approx_kl):
                break
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            parameters = [p for p in trained if p.grad is not None]
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm or math.inf))
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise FloatingPointError(
                    f"agent {self.policy.name!r}: loss {loss} and gradient norm {norm} are not finite. The last "
                    "checkpoint is intact; start a new run with a lower trainer.learning_rate or team.dtype float32"
                )
            self.optimizer.step()
            totals.grad_norms.append(norm)
        self.optimizer.zero_grad(set_to_none=True)
        return totals.summary(reused)

    def _passes(
        self, groups: list[Group], rng: np.random.Generator
    ) -> Iterator[tuple[int, int, list[Sample]]]:
        """Yield the epoch of each optimizer step, its number of mini-batches, and one mini-batch's samples."""
        for epoch in range(self.algorithm.epochs):
            parts = self.algorithm.deal(len(groups), rng)
            for part in parts:
                yield epoch, len(parts), [s for g in part for s in groups[g].samples]

    def _micro_batches(self, samples: list[Sample]) -> Iterator[MicroBatch]:
        # Agents that share the policy's parameters have batches of their own.
        for agent in dict.fromkeys(sample.agent for sample in samples):
            own = [sample for sample in samples if sample.agent == agent]
            yield from micro_batches(own, self.micro_batch_tokens, self.policy.shares_prompts)

    def _backward(
        self,
        samples: list[Sample],
        parts: int,
        old: dict[int, Tensor],
        totals: _Totals,
        first: bool,
        on_samples: Callable[[int], None],
    ) -> tuple[float, float]:
        """Add up the gradient of the samples' loss; return the loss, and the approximate KL in nats per token."""
        loss_value, before = 0.0, (totals.approx_kl, totals.reused_tokens)
        for batch in self._micro_batches(samples):
            flat, token_ids = batch.flat(), batch.token_ids()
            reference = None
            if self.algorithm.needs_reference:
                reference = self.policy.score_reference(batch.prompts, token_ids, self.sampling).logprobs
            scores = self.policy.score(batch.prompts, token_ids, self.sampling, self.algorithm.needs_states)
            like = scores.logprobs
            tensors = Batch(
                logprobs=scores.logprobs,
                entropies=scores.entropies,
                mask=scores.mask,
                advantages=per_token([s.advantage for s in flat], scores),
                # A mini-batch stands for the whole: its share of the sum is scaled up.
                weights=torch.tensor([s.weight * parts for s in flat], dtype=like.dtype, device=like.device),
                old_logprobs=per_token([old[id(s)].tolist() for s in flat], scores) if old else None,
                reference_logprobs=reference,
                max_new_tokens=self.sampling.max_new_tokens,
                agent=flat[0].agent,
                value_targets=per_token_where_given([s.value_targets for s in flat], scores),
                old_values=per_token_where_given([s.old_values for s in flat], scores),
                states=scores.states,
            )
            loss = self.algorithm.loss(tensors)
            loss.backward()
            loss_value += float(loss.detach())
            totals.add(scores, tensors, flat, first)
            on_samples(len(flat))
        if first:
            totals.loss += loss_value / parts
        kl, tokens = totals.approx_kl - before[0], totals.reused_tokens - before[1]
        return loss_value, kl / max(tokens, 1)


@dataclass
class _Totals:
    """Sums over an update's passes."""

    loss: float = 0.0
    tokens: int = 0
    entropy: float = 0.0
    sampling_kl: float = 0.0
    reused_tokens: int = 0
    approx_kl: float = 0.0
    grad_norms: list[float] = field(default_factory=list)

    @torch.no_grad()
    def add(self, scores: Scores, batch: Batch, samples: list[Sample], first: bool) -> None:
        if first:
            self.tokens += int(scores.mask.sum())
            self.entropy += float(scores.entropies.sum())
            # Of the policy that sampled: a mini-batch after the first is scored by one that has moved on.
            scored = scores.logprobs if batch.old_logprobs is None else batch.old_logprobs
            q = (scored - per_token([s.sampled_logprobs for s in samples], scores)) * scores.mask
            self.sampling_kl += float((q.exp() - q - 1).sum())
        if batch.old_logprobs is not None:
            log_ratio = (batch.logprobs - batch.old_logprobs) * batch.mask
            self.reused_tokens += int(scores.mask.sum())
            self.approx_kl += float((log_ratio.exp() - log_ratio - 1).sum())

    def summary(self, reused: bool) -> dict[str, float]:
        tokens = max(self.tokens, 1)
        result = {
            "loss": self.loss,
            "grad_norm": float(np.mean(self.grad_norms or [0.0])),
            "entropy": self.entropy / tokens,
            "sampling_kl": self.sampling_kl / tokens,
        }
        if reused:
            result["approx_kl"] = self.approx_kl / max(self.reused_tokens, 1)
        return result


def per_token(values: list[float | list[float]] | list[list[float]] | list[float], scores: Scores) -> Tensor:
    """Lay out one number for each response, or one for each of its tokens, as (n, L), 0 on padding."""
    like = scores.logprobs
    rows = torch.zeros(like.shape, dtype=like.dtype, device=like.device)
    for row, value in enumerate(values):
        numbers = torch.as_tensor(value, dtype=like.dtype, device=like.device)
        length = int(scores.mask[row].sum())
        if numbers.dim() == 1 and len(numbers) != length:
            raise ValueError(f"expected one number for each of {length} tokens, got {len(numbers)}")
        rows[row, :length] = numbers
    return rows


def per_token_where_given(values: list[list[float] | None], scores: Scores) -> Tensor | None:
    """Lay out one number for each token as :func:`per_token` does, or return None where no sample has any."""
    given = [value for value in values if value is not None]
    return per_token(given, scores) if len(given) == len(values) else None


@torch.no_grad()
def kl_to_reference(policy: Policy, groups: list[Group], sampling: Sampling, max_tokens: int) -> float:
    """Estimate KL(policy || reference) in nats per token (k3) on the first group's responses.

    Args:
        policy: Must have a reference policy.
        groups: The policy's groups of a step.
        sampling: The distribution that sampled them.
        max_tokens: Tokens scored in one pass.
    """
    total, tokens = 0.0, 0
    for batch in micro_batches(groups[0].samples, max_tokens, policy.shares_prompts):
        current = policy.score(batch.prompts, batch.token_ids(), sampling)
        reference = policy.score_reference(batch.prompts, batch.token_ids(), sampling)
        q = (reference.logprobs - current.logprobs) * current.mask
        total += float((q.exp() - q - 1).sum())
        tokens += int(current.mask.sum())
    return total / tokens
