"""Conversations, responses, and what counts as an agent.

An agent sees its own conversation only: what the environment told it (role `user`) and what it answered
(role `assistant`). It is anything with `act(conversations) -> responses`; a plain function becomes one with
`as_agent`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

Message = dict[str, str]
"""`{"role": "user" | "assistant" | "system", "content": text}`."""

Conversation = list[Message]
"""One agent's messages, oldest first; ends with the message to answer."""

SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}


@dataclass(frozen=True)
class Usage:
    """What an answer cost an agent whose tokens are counted, but not known one by one."""

    completion_tokens: int
    """Tokens of the answer, with those of a hidden chain of thought where the server counts them."""
    prompt_tokens: int
    """Tokens of the conversation it answers."""
    estimated: bool = False
    """True if nobody counted: both are numbers of words between white space."""


@dataclass
class Response:
    """What an agent answered to one conversation."""

    text: str
    """The action handed to the environment; any text, also an empty one."""
    token_ids: list[int] = field(default_factory=list)
    """The sampled tokens, end-of-sequence token included, padding excluded; empty for agents without tokens."""
    logprobs: list[float] = field(default_factory=list)
    """Log-probability (nats) of each token under the distribution that sampled it; as long as `token_ids`."""
    finish: str = "stop"
    """`"length"` if the answer was cut at the token limit, else `"stop"`; servers know further reasons, such as
    `"content_filter"`."""
    prompt_ids: list[int] = field(default_factory=list)
    """The tokens of the conversation the answer was sampled from."""
    usage: Usage | None = None
    """The numbers of tokens, where `token_ids` does not tell them."""
    error: str | None = None
    """Why there is no answer, if an agent that depends on others (a server) gave up; `text` is then no action,
    and the episode cannot go on."""

    @property
    def tokens(self) -> int:
        """How many tokens the answer has; 0 for an agent without tokens."""
        return len(self.token_ids) if self.usage is None else self.usage.completion_tokens


class NoRoomError(ValueError):
    """A conversation leaves no room for an answer in what a model can read.

    Args:
        message: How long it is, and what to do.
        agent: Whose.
        place: Which of the conversations that the agent was to answer, from 0; the longest.
    """

    def __init__(self, message: str, agent: str, place: int) -> None:
        super().__init__(message)
        self.agent, self.place = agent, place


@runtime_checkable
class Agent(Protocol):
    """Who acts: answers a batch of conversations at once."""

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Answers each conversation; the responses come in the conversations' order."""
        ...


@runtime_checkable
class AsyncAgent(Agent, Protocol):
    """An agent that answers conversations one by one, each with its own randomness.

    `evaluate` then need not wait for a whole batch, and an evaluation that is interrupted and resumed, or played
    with another batch size, gets the same answers.
    """

    def submit(self, conversation: Conversation, seed: int) -> Future[Response]:
        """Begins to answer and returns at once; all randomness of the answer comes from `seed`."""
        ...


@dataclass
class TextAgent:
    """A function `text -> answer` as an agent; it gets the conversation rendered as one text."""

    function: Callable[[str], str]

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Calls the function once a conversation; raises TypeError if it returns no text."""
        return [_answer(self.function, render_conversation(conversation)) for conversation in conversations]


@dataclass
class MessagesAgent:
    """A function `messages -> answer` as an agent; it gets its own copy of the list of messages."""

    function: Callable[[Conversation], str]

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Calls the function once a conversation; raises TypeError if it returns no text."""
        return [_answer(self.function, [dict(message) for message in c]) for c in conversations]


def _answer(function: Callable[[Any], str], argument: str | Conversation) -> Response:
    text = function(argument)
    if not isinstance(text, str):
        raise TypeError(
            f"the agent function {_name(function)} returned {type(text).__name__}, expected a str; "
            "return the response's text"
        )
    return Response(text)


def render_conversation(conversation: Conversation) -> str:
    """The conversation as one text.

    A single message is its bare content (the prompt, unchanged). A longer conversation names the speakers:

    >>> print(render_conversation([
    ...     {"role": "user", "content": "Name a colour."},
    ...     {"role": "assistant", "content": "Red."},
    ...     {"role": "user", "content": "Another."},
    ... ]))
    User: Name a colour.
    <BLANKLINE>
    Assistant: Red.
    <BLANKLINE>
    User: Another.
    """
    if len(conversation) == 1:
        return conversation[0]["content"]
    return "\n\n".join(f"{SPEAKERS[message['role']]}: {message['content']}" for message in conversation)


def without_thinking(text: str, begun: bool = False) -> str:
    """What a reasoning model says after its chain of thought; nothing if that does not end.

    Args:
        text: the model's text.
        begun: whether the prompt ended inside a chain of thought.

    >>> without_thinking("<think>Hm, 2 + 2.</think>\\n4"), without_thinking("<think>Hm"), without_thinking("4")
    ('4', '', '4')
    """
    if "</think>" in text:
        return text.rpartition("</think>")[2].lstrip()
    return "" if begun or "<think>" in text else text


def as_agent(candidate: Any) -> Agent:
    """Makes an agent of an object with `.act` (returned as it is) or of a plain function.

    A function whose first parameter is annotated as a list of messages (`Conversation`, `list[...]`,
    `Sequence[...]`) gets the messages; any other function of one argument gets the rendered text. Wrap it in
    `TextAgent` or `MessagesAgent` to say so without an annotation.

    Raises:
        TypeError: not an agent and not callable with one argument, or a class instead of an instance.
    """
    if isinstance(candidate, type):
        raise TypeError(
            f"expected an agent, got the class {candidate.__name__}; pass an instance, {candidate.__name__}(...)"
        )
    if isinstance(candidate, Agent):
        return candidate
    if not callable(candidate):
        raise TypeError(
            f"expected an agent, got {type(candidate).__name__}; pass an object with "
            "act(conversations) -> responses, or a function from text (or messages) to the answer's text"
        )
    return MessagesAgent(candidate) if _takes_messages(candidate) else TextAgent(candidate)


def _takes_messages(function: Callable[..., Any]) -> bool:
    """Whether the annotation of the function's first parameter is a list of messages."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some C functions have none: assume text
        return False
    try:
        signature.bind("text")
    except TypeError as error:
        raise TypeError(
            f"the agent function {_name(function)}{signature} cannot be called with one argument ({error}); "
            "expected text -> answer or messages -> answer"
        ) from None
    first = next(iter(signature.parameters.values()))
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        annotation = typing.get_type_hints(target).get(first.name, first.annotation)
    except Exception:  # an annotation that cannot be evaluated (a name imported for type checkers only)
        annotation = first.annotation
    if isinstance(annotation, str):
        return annotation.split("[")[0].split(".")[-1] in {"Conversation", "list", "List", "Sequence"}
    origin = typing.get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Sequence) and not issubclass(origin, str)


def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None)  # functools.partial and callable objects have none
    return name if isinstance(name, str) else repr(function)
