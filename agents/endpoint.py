"""A model behind any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, Ollama, hosted APIs.

    >>> agent = EndpointAgent("http://localhost:8000/v1", "my-model", temperature=0.7, max_tokens=256)
    >>> agent.url
    'http://localhost:8000/v1/chat/completions'

One answer is one `POST`, without streaming. How requests are made, tried again and kept from leaking the API key is
told in `textmarl.agents.connection`. When an agent gives up, the response carries the reason in `error`; `evaluate` then
records that episode as failed and plays on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from textmarl.agents.connection import Connection, Fault, ServerError, encodable, one_line, read_choices
from textmarl.agents.conversation import Conversation, Response, Usage, without_thinking

_CUT = frozenset({"length", "max_tokens", "model_length"})  # one meaning, spelt differently by servers
_OURS = frozenset({"messages", "model", "n", "stream"})


@dataclass
class EndpointAgent:
    """A model behind an OpenAI-compatible server.

    Several environment seats may share one agent. It is safe to use from several threads.

    Raises:
        ValueError: an argument that makes no sense, or a key variable that was named and is not set.
    """

    url: str
    """The API's base (`http://localhost:8000/v1`), or the whole address that ends in `/chat/completions`."""
    model: str
    """The model's name, as the server knows it."""
    api_key_env: str | None = None
    """The environment variable that holds the API key. None takes `OPENAI_API_KEY` where it is set, but only
    over https or to this machine: it is not handed to any other server in plain text unless it is named."""
    concurrency: int = 8
    """The largest number of requests at a time."""
    temperature: float | None = None
    """What is None is not sent, and the server's default applies."""
    top_p: float | None = None
    """Nucleus sampling."""
    max_tokens: int | None = None
    """Of an answer. Some hosted models want `extra_body={"max_completion_tokens": n}` instead."""
    seed: int | None = None
    """Each request is sent with a seed derived from this one and its episode's (so samples of a task differ).
    None sends no seed."""
    stop: Sequence[str] | None = None
    """Texts at which an answer ends."""
    thinking: Literal["keep", "strip"] = "keep"
    """"strip" takes away what precedes `</think>`, for servers that send it as part of the answer."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, for this server: `{"top_k": 20}`, `{"reasoning_effort": "low"}`."""
    timeout: float = 300.0
    """Seconds one attempt may take."""
    deadline: float = 900.0
    """Seconds one answer may take, with all attempts and the waiting between them."""
    retries: int = 6
    """Failed attempts after the first; rate limits do not count (see above). Once as many answers in a row as `concurrency` were given up, the server counts as
    down and gets a single attempt for each further answer, until one succeeds."""
    backoff: float = 0.5
    """Before retry n (from 0) the agent waits between 0 and `backoff * 2**n` seconds, uniformly ..."""
    max_backoff: float = 30.0
    """... and at most this long."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)
    """Waits so many seconds (tests replace it)."""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
    """Seconds since some moment (tests replace it)."""

    def __post_init__(self) -> None:
        self._connection = Connection(
            self.url, self.api_key_env, self.concurrency, self.timeout, self.deadline, self.retries, self.backoff,
            self.max_backoff, self.sleep, self.clock,
        )  # fmt: skip
        self.url = self._connection.url
        if not self.url.endswith("/chat/completions"):
            self.url += "/chat/completions"
        if not self.model:
            raise ValueError("model is empty; give the name by which the server knows it")
        positive = ("concurrency", "timeout", "deadline", "max_tokens")
        for name in (*positive, "retries", "backoff", "max_backoff", "temperature", "top_p"):
            value = getattr(self, name)
            if value is not None and (value < 0 or (value == 0 and name in positive)):
                raise ValueError(
                    f"{name}={value}: expected {'more than 0' if name in positive else '0 or more'}"
                )
        if self.thinking not in ("keep", "strip"):
            raise ValueError(f'thinking={self.thinking!r}: expected "keep" or "strip"')
        if isinstance(self.stop, str):
            self.stop = [self.stop]
        if owned := sorted(_OURS & self.extra_body.keys()):
            raise ValueError(f"extra_body holds {owned[0]!r}, which the agent sets itself; leave it out")
        self._lock = threading.Lock()
        self._calls = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What the answers depend on, as plain values; no key."""
        names = (
            "url",
            "model",
            "temperature",
            "top_p",
            "max_tokens",
            "seed",
            "stop",
            "thinking",
            "extra_body",
        )
        given = {name: getattr(self, name) for name in names}
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in given.items()
            if value not in (None, {})
        }

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Answers the conversations, `concurrency` at a time. A response that nobody gave has an `error`."""
        with self._lock:
            first = self._calls
            self._calls += len(conversations)
        futures = [self.submit(c, first + number) for number, c in enumerate(conversations)]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def submit(self, conversation: Conversation, seed: int) -> Future[Response]:
        """Queues a request; it is sent as soon as fewer than `concurrency` are on their way."""
        copied = [dict(message) for message in conversation]
        return self._connection.submit(lambda: self._answer(copied, seed))

    # ------------------------------------------------------------------------------------------- inside

    def _answer(self, conversation: Conversation, seed: int) -> Response:
        try:
            body = self._body(conversation, seed)
            response = self._connection.ask(self.url, body, lambda answer: _response(answer, conversation))
        except ServerError as error:
            reason = str(error)
        except Exception as error:  # unforeseen; it costs this answer, not everything that was played
            reason = self._connection.without_key(f"{type(error).__name__}: {error}")
        else:
            if self.thinking == "strip":
                response.text = without_thinking(response.text)
            return response
        return Response("", finish="error", error=f"{self.url}, model {self.model!r}: {reason}")

    def _body(self, conversation: Conversation, seed: int) -> bytes:
        messages = [{**message, "content": encodable(message["content"])} for message in conversation]
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "stop": list(self.stop) if self.stop else None,
        }
        if self.seed is not None:  # 31 bits: what every server takes for an integer
            fields["seed"] = int(np.random.SeedSequence([self.seed, seed]).generate_state(1)[0] >> 1)
        given = {name: value for name, value in fields.items() if value is not None}
        return json.dumps({**given, **self.extra_body}).encode("ascii")


def _response(body: bytes, conversation: Conversation) -> Response:
    """What the server answered.

    Raises:
        Fault: this is no chat completion.
    """
    data, choices = read_choices(body)
    text = body.decode("utf-8", "replace")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise Fault(f"the answer's first choice has no message: {one_line(text)!r}", retry=True)
    finish = str(choices[0].get("finish_reason") or "stop")
    if finish == "error":
        raise Fault(f"the server broke the answer off: {one_line(text)!r}", retry=True)
    content = message.get("content")
    if isinstance(content, list):  # parts, as some servers send them
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    elif content is None:  # a refusal, a tool call, or a chain of thought that ate the token limit
        refusal = message.get("refusal")
        content = refusal if isinstance(refusal, str) else ""
    if not isinstance(content, str):
        raise Fault(f"the answer's content is no text: {one_line(text)!r}", retry=True)
    usage = _usage(data.get("usage"), content, conversation)
    return Response(content, finish="length" if finish in _CUT else finish, usage=usage)


def _usage(counted: Any, text: str, conversation: Conversation) -> Usage:
    if isinstance(counted, dict):
        written, read = counted.get("completion_tokens"), counted.get("prompt_tokens")
        if isinstance(written, int) and isinstance(read, int) and min(written, read) >= 0:
            return Usage(written, read)
    prompt = sum(len(message["content"].split()) for message in conversation)
    return Usage(len(text.split()), prompt, estimated=True)
