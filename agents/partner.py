"""Who plays with the agents that are trained and is not trained itself: a partner.

Any agent can be one: a model behind a server, a script, a person, a policy that stays as it is. In a rollout it answers
as a policy does, and its answers hold no tokens, so nothing is learned from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from textmarl.agents.conversation import (
    Agent,
    AsyncAgent,
    Conversation,
    MessagesAgent,
    NoRoomError,
    Response,
    TextAgent,
)
from textmarl.agents.endpoint import EndpointAgent
from textmarl.agents.evaluation import check_responses
from textmarl.agents.policy import Policy
from textmarl.agents.sampling import Sampling
from textmarl.agents.scripted import RandomAgent


class PartnerFailed(RuntimeError):
    """A partner gave no answer, so the episode cannot go on."""


@dataclass
class PolicyAgent:
    """A policy as an :class:`~textmarl.agents.conversation.Agent`, with a random stream of its own."""

    policy: Policy
    sampling: Sampling
    generator: torch.Generator

    @property
    def settings(self) -> dict[str, Any]:
        """What the answers depend on beside the random stream: the weights (a digest), the sampling, the template."""
        return {
            "weights": self.policy.digest(),
            "sampling": asdict(self.sampling),
            "thinking": self.policy.thinking,
            "chat_template_kwargs": self.policy.chat_template_kwargs,
        }

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Answer each conversation once."""
        batch = max(1, len(conversations))
        answers = self.policy.generate(conversations, self.sampling, self.generator, batch_size=batch)
        return [answer for (answer,) in answers]


@dataclass
class Partner:
    """An agent in a policy's place in a rollout.

    Its randomness comes from the rollout's stream where the agent lets it (an ``AsyncAgent``, a :class:`PolicyAgent`), so
    that a continued run hears the same answers as one that was never interrupted; any other agent's is its own.
    """

    name: str
    agent: Agent

    def generate(
        self,
        conversations: Sequence[Conversation],
        sampling: Sampling,
        generator: torch.Generator,
        n: int = 1,
        batch_size: int = 64,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[list[Response]]:
        """Answer each conversation ``n`` times; the arguments are those of :meth:`Policy.generate`.

        Args:
            conversations: C conversations.
            sampling: The team's; a partner draws its answers by settings of its own.
            generator: Where the randomness comes from, as far as the agent takes it.
            n: Responses per conversation.
            batch_size: Most responses that a local policy decodes at once.
            on_tokens: Called with the number of tokens of the answers, as far as the agent counts them.

        Returns:
            C lists of n responses without tokens.

        Raises:
            PartnerFailed: The agent raised, or gave no answer (a server that is down).
            NoRoomError: A local policy cannot read so long a conversation.
        """
        asked = [conversation for conversation in conversations for _ in range(n)]
        try:
            answers = self._answers(asked, generator, batch_size)
            check_responses(self.name, answers, len(asked))
        except NoRoomError as error:
            raise NoRoomError(str(error), self.name, error.place // n) from error
        except Exception as error:
            raise PartnerFailed(
                f"the partner {self.name!r} failed with {type(error).__name__}: {error}"
            ) from error
        for answer in answers:
            if answer.error is not None:
                raise PartnerFailed(f"the partner {self.name!r} gave no answer: {answer.error}")
        if on_tokens is not None:
            on_tokens(sum(answer.tokens for answer in answers))
        bare = [replace(answer, token_ids=[], logprobs=[], prompt_ids=[]) for answer in answers]
        return [bare[start : start + n] for start in range(0, len(bare), n)]

    def _answers(
        self, asked: Sequence[Conversation], generator: torch.Generator, batch_size: int
    ) -> Sequence[Response]:
        if isinstance(self.agent, PolicyAgent):
            own = self.agent
            drawn = own.policy.generate(asked, own.sampling, generator, batch_size=batch_size)
            return [response for (response,) in drawn]
        if not isinstance(self.agent, AsyncAgent):
            return self.agent.act(asked)
        seeds = torch.randint(2**31 - 1, (len(asked),), generator=generator).tolist()
        futures: list[Future[Response]] = []
        try:
            for conversation, seed in zip(asked, seeds, strict=True):
                futures.append(self.agent.submit(conversation, seed))
            return [future.result() for future in futures]
        finally:  # after a failure, what has not been sent yet need not be
            for future in futures:
                future.cancel()


def specification(agent: Agent) -> str:
    """Say in a few words who an agent is: where that is possible, as ``textmarl eval --agent`` would name it."""
    if isinstance(agent, EndpointAgent):
        return f"openai:{agent.url}#{agent.model}"
    if isinstance(agent, RandomAgent):
        return "random"
    named = agent.function if isinstance(agent, (TextAgent, MessagesAgent)) else type(agent)
    prefix = "" if named is type(agent) else "python:"
    return f"{prefix}{named.__module__}:{getattr(named, '__qualname__', repr(named))}"
