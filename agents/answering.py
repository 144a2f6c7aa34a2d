"""Several policies answer their conversations at once.

Policies that share one network differ by their adapters alone: all their responses are decoded in one batch, each row
with its own policy's adapter. Other networks take their turn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from textmarl.agents.adapters import AdapterBank
from textmarl.agents.captured import CapturedPrefix
from textmarl.agents.conversation import Conversation, Response
from textmarl.agents.generation import Sequence, generate_plain, generate_shared
from textmarl.agents.prefix import SharedPrefix
from textmarl.agents.sampling import Sampling

if TYPE_CHECKING:
    from textmarl.agents.policy import Policy


T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """A policy and what it is to answer."""

    agent: str
    prompt: tuple[int, ...]


def answer(
    policies: Mapping[str, Policy],
    conversations: Mapping[str, Seq[Conversation]],
    sampling: Sampling,
    generators: Mapping[str, torch.Generator],
    n: int = 1,
    batch_size: int = 64,
    on_tokens: Callable[[int], None] | None = None,
    on_answered: Callable[[str, int, list[Response]], None] = lambda agent, index, responses: None,
) -> dict[str, list[list[Response]]]:
    """Sample ``n`` responses to each conversation of each agent.

    Equal conversations beside each other are encoded once. Each generator (on the CPU) is the agent's own random
    stream: it is read once per call, for exactly ``conversations * n * max_new_tokens`` numbers, and decides that
    agent's responses whatever else is in the batch (up to rounding).

    Args:
        policies: The policy of each agent.
        conversations: For some of the agents, the conversations to answer.
        sampling: Temperature, truncation, longest response.
        generators: Where each agent's randomness comes from.
        n: Responses per conversation.
        batch_size: Most responses decoded at once, of all agents together; bounds memory.
        on_tokens: Called with the number of tokens that each decoding step added.
        on_answered: Called with an agent, one of its conversations' places and the n responses to it, as soon as the
            last of them has ended; others may still be written then.

    Returns:
        For each of these agents its lists of n responses.

    Raises:
        NoRoomError: A conversation leaves no room for an answer; nothing was sampled.
    """
    prompts = encode(policies, conversations, sampling)
    asked = {
        agent: [Asked(agent, tuple(prompt)) for prompt in own for _ in range(n)]
        for agent, own in prompts.items()
    }
    uniform = {
        agent: torch.rand(len(rows), sampling.max_new_tokens, generator=generators[agent])
        for agent, rows in asked.items()
    }
    answers = _Answers(policies, asked, n, on_answered)
    for agents in together([policies[agent] for agent in asked]):
        rows = [(agent, place) for agent in agents for place in range(len(asked[agent]))]
        prompts_of_rows = [asked[agent][place] for agent, place in rows]
        numbers = torch.cat([uniform[agent] for agent in agents])
        first = policies[agents[0]]
        adapter_of = {agent: policies[agent].parameter_set for agent in agents}
        adapters = list(dict.fromkeys(adapter_of.values()))
        bank: AdapterBank | None = None
        with contextlib.ExitStack() as stack:
            if len(adapters) > 1:
                bank = stack.enter_context(AdapterBank(first.model, adapters))
            else:
                stack.enter_context(first.adapted())
            for start, unique, repeats in runs_of_equal(prompts_of_rows, batch_size):
                texts = [list(each.prompt) for each in unique]
                drawn = numbers[start : start + len(unique) * repeats]

                def finished(row: int, sequence: Sequence, run: list[tuple[str, int]] = rows[start:]) -> None:
                    answers.add(*run[row], sequence)

                rest = (repeats, first.stop_ids, sampling, drawn, on_tokens)
                if first.shares_prompts:
                    owners = (
                        None if bank is None else [adapters.index(adapter_of[each.agent]) for each in unique]
                    )
                    kind = CapturedPrefix if first.captures_decoding else SharedPrefix
                    generate_shared(first.model, texts, *rest, bank, owners, batch_size, finished, kind)
                else:
                    generate_plain(first.model, texts, *rest, batch_size, finished)
    return answers.by_conversation


class _Answers:
    """Responses as they come in, by agent and conversation, each conversation's in their order."""

    def __init__(
        self,
        policies: Mapping[str, Policy],
        asked: Mapping[str, Seq[Asked]],
        n: int,
        on_answered: Callable[[str, int, list[Response]], None],
    ):
        self.policies, self.asked, self.n, self.on_answered = policies, asked, n, on_answered
        self.by_conversation: dict[str, list[list[Response]]] = {
            agent: [[Response("")] * n for _ in range(len(rows) // n)] for agent, rows in asked.items()
        }
        self._missing = {agent: [n] * len(own) for agent, own in self.by_conversation.items()}

    def add(self, agent: str, place: int, sequence: Sequence) -> None:
        """Take in the response at one of the agent's places; tell of its conversation once it has them all."""
        prompt = list(self.asked[agent][place].prompt)
        index, member = divmod(place, self.n)
        self.by_conversation[agent][index][member] = Response(
            text=self.policies[agent].text(sequence.token_ids, prompt),
            token_ids=sequence.token_ids,
            logprobs=sequence.logprobs,
            finish=sequence.finish,
            prompt_ids=prompt,
        )
        self._missing[agent][index] -= 1
        if not self._missing[agent][index]:
            self.on_answered(agent, index, self.by_conversation[agent][index])


def encode(
    policies: Mapping[str, Policy], conversations: Mapping[str, Seq[Conversation]], sampling: Sampling
) -> dict[str, list[list[int]]]:
    """Return each agent's conversations as token ids.

    Raises:
        NoRoomError: One leaves no room for an answer.
    """
    prompts = {agent: [policies[agent].encode(each) for each in own] for agent, own in conversations.items()}
    for agent, own_prompts in prompts.items():
        policies[agent].check_room(own_prompts, sampling)
    return prompts


def together(policies: list[Policy]) -> list[list[str]]:
    """Return which agents can be decoded in one batch: those of one network that shares prompts, adapters and all."""
    groups: dict[tuple[int, frozenset[int], int], list[Policy]] = {}
    for index, policy in enumerate(policies):
        can = policy.shares_prompts and policy.has_adapter and not policy.is_adapted
        groups.setdefault((id(policy.model), policy.stop_ids, -1 if can else index), []).append(policy)
    result: list[list[str]] = []
    for group in groups.values():
        names = [policy.name for policy in group]
        adapters = {policy.parameter_set for policy in group}
        if len(adapters) == 1 or AdapterBank(group[0].model, list(adapters)).complete:
            result.append(names)
        else:
            result += [[name] for name in names]
    return result


def runs_of_equal(asked: Seq[T], most: int) -> Iterator[tuple[int, list[T], int]]:
    """Cut rows into runs in which every distinct one stands equally often, and at most ``most`` times.

    Yields:
        Index of the run's first row, its distinct rows in order, and how often each stands.
    """
    runs: list[tuple[T, int]] = []
    for row in asked:
        if runs and runs[-1][0] == row and runs[-1][1] < most:
            runs[-1] = (row, runs[-1][1] + 1)
        else:
            runs.append((row, 1))
    start = 0
    while runs:
        repeats = runs[0][1]
        count = 1
        while count < len(runs) and runs[count][1] == repeats:
            count += 1
        yield start, [row for row, _ in runs[:count]], repeats
        start += count * repeats
        runs = runs[count:]
