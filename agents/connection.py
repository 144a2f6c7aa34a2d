"""HTTP with a model's server: JSON is posted, and what may heal is tried again.

It is made with the standard library: requests that take seconds gain nothing from an HTTP package, and evaluation needs
no further dependency. Proxies are those of the environment (`HTTPS_PROXY`, `NO_PROXY`), except for this machine's own
addresses.

**The API key** is read from an environment variable at every request and is kept nowhere: not in the connection, in
settings, logs or error messages. Redirects are refused, so that it reaches no other server.

**What goes wrong** is tried again with exponential back-off and full jitter (Brooker 2015, "Exponential Backoff And
Jitter", AWS Architecture Blog): connections that fail, break or time out, the statuses 408, 409, 425, 429 and from
500 on, and answers that cannot be read (cut off, not JSON). Other statuses are final, and so is a 429 that says the
account's quota is used up.

**Rate limits** are no failures: a 429, and a 503 with a `Retry-After`, is waited out until the answer's `deadline` and
uses up none of its `retries`. A `Retry-After` holds back all requests of the connection, for 5 minutes at most: a
header that asks for more is taken for that. Every answer gets at least one attempt.
"""

from __future__ import annotations

import collections
import datetime
import email.utils
import http.client
import importlib.metadata
import json
import os
import random
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

API_KEY = "OPENAI_API_KEY"
"""The environment variable of the API key, unless another is named."""

RETRIED = frozenset({408, 409, 425, 429})
"""Statuses that may heal; and those from 500 on."""
_LONGEST_HOLD = 300.0  # seconds that one Retry-After counts for, whatever it says
_SHORTEST_BUSY_WAIT = 0.1  # seconds: a limit is not asked again without a pause, even with backoff=0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_LARGEST_BODY = 64 * 2**20
_EXCERPT = 300  # characters of a server's message that an error shows


class Fault(Exception):
    """An attempt that gave no answer; `busy` if the server answers others meanwhile."""

    def __init__(
        self, message: str, retry: bool, retry_after: float | None = None, busy: bool = False
    ) -> None:
        super().__init__(message)
        self.retry = retry
        self.retry_after = retry_after
        self.busy = busy


class ServerError(RuntimeError):
    """A server gave no usable answer, whatever was tried; the message holds its last words."""


@dataclass
class Connection:
    """Requests to one server. It is safe to use from several threads.

    Raises:
        ValueError: an address that is none, or a key variable that was named and is not set.
    """

    url: str
    """The API's base, `http://localhost:8000/v1`."""
    api_key_env: str | None = None
    """The environment variable that holds the API key. None takes `OPENAI_API_KEY` where it is set, but only
    over https or to this machine: it is not handed to any other server in plain text unless it is named."""
    concurrency: int = 8
    """The largest number of requests at a time."""
    timeout: float = 300.0
    """Seconds one attempt may take."""
    deadline: float = 900.0
    """Seconds one answer may take, with all attempts and the waiting between them."""
    retries: int = 6
    """Failed attempts after the first; rate limits do not count (see above). Once as many answers in a row as
    `concurrency` were given up, the server counts as down and gets a single attempt for each further answer, until one
    succeeds."""
    backoff: float = 0.5
    """Before retry n (from 0) the agent waits between 0 and `backoff * 2**n` seconds, uniformly ..."""
    max_backoff: float = 30.0
    """... and at most this long."""
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)
    """Waits so many seconds (tests replace it)."""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)
    """Seconds since some moment (tests replace it)."""

    def __post_init__(self) -> None:
        self.url, own_machine, encrypted = checked_url(self.url)
        self._key_name = self.api_key_env or (API_KEY if own_machine or encrypted else None)
        if self.api_key_env and not os.environ.get(self.api_key_env):
            raise ValueError(f"the environment variable {self.api_key_env} for the API key is not set")
        self.api_key()
        proxies = urllib.request.ProxyHandler({} if own_machine else None)
        self._opener = urllib.request.build_opener(proxies, _NoRedirects)
        self._jitter = random.Random()
        self._lock = threading.Lock()
        self._waiting: collections.deque[tuple[Future[Any], Callable[[], Any]]] = collections.deque()
        self._workers = 0
        self._not_before = -float("inf")
        self._given_up_in_a_row = 0

    def submit(self, task: Callable[[], T]) -> Future[T]:
        """Queues a task; it begins as soon as fewer than `concurrency` are being done."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append((future, task))
            if self._workers < self.concurrency:
                self._workers += 1
                # A daemon: Ctrl-C need not wait until a server that is silent has been given up.
                threading.Thread(target=self._work, daemon=True, name="endpoint").start()
        return future

    def _work(self) -> None:
        """Does what is queued; the thread ends with the queue."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._workers -= 1
                    return
                future, task = self._waiting.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)

    def ask(self, address: str, body: bytes, read: Callable[[bytes], T], final: Collection[str] = ()) -> T:
        """Posts `body` until an answer can be read.

        Args:
            address: The whole address of the request.
            body: JSON.
            read: Makes of the answer's body what is returned, or raises a :class:`Fault`.
            final: Words in a refusal that say that trying again is of no use.

        Raises:
            ServerError: the server was given up.
        """
        ends = self.clock() + self.deadline
        attempts = failed = 0
        fault: Fault | None = None
        wait = 0.0
        while True:
            held_back = self._not_before - self.clock()
            if held_back > wait:  # another request was told to wait
                wait = held_back + self._jitter.uniform(0, self.backoff)
            if self.clock() + wait >= ends:
                if fault is not None:
                    break
                wait = 0.0  # the one attempt that every answer gets
            elif wait > 0:
                self.sleep(wait)
                wait = 0.0
                continue
            attempts += 1
            try:
                result = read(self._post(address, body, ends))
            except Fault as error:
                fault = error
            else:
                self._given_up_in_a_row = 0
                return result
            retry_after = min(fault.retry_after or 0.0, _LONGEST_HOLD, self.deadline)
            if retry_after:
                with self._lock:
                    self._not_before = max(self._not_before, self.clock() + retry_after)
            if any(words in str(fault) for words in final):
                fault.retry = fault.busy = False
            if not fault.busy:
                failed += 1
                server_is_down = self._given_up_in_a_row >= self.concurrency
                if not fault.retry or failed > (0 if server_is_down else self.retries):
                    break
            grown = self.backoff * 2 ** min(attempts - 1, 100)
            wait = retry_after + self._jitter.uniform(0, min(self.max_backoff, grown))
            if fault.busy:
                wait = max(wait, _SHORTEST_BUSY_WAIT)
        if fault.retry and not fault.busy:
            with self._lock:
                self._given_up_in_a_row += 1
        raise ServerError(f"{fault} ({attempts} attempt{'s' if attempts != 1 else ''})")

    def _post(self, address: str, body: bytes, ends: float) -> bytes:
        """The body of the server's answer with status 200.

        Raises:
            Fault: there is none.
        """
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            # Some hosts turn urllib's own name away.
            "User-Agent": f"textmarl/{importlib.metadata.version('textmarl')}",
        }
        key = self.api_key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(address, data=body, headers=headers, method="POST")
        ends = min(ends, self.clock() + self.timeout)
        try:
            with self._opener.open(request, timeout=max(0.001, ends - self.clock())) as answer:
                return self._read(answer, ends)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, key) from None
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, TimeoutError):
                raise Fault("no answer in time", retry=True) from None
            never_heals = isinstance(reason, ssl.SSLCertVerificationError)
            text = without(key, f"{type(reason).__name__}: {reason}")
            raise Fault(f"the connection failed ({text})", retry=not never_heals) from None

    def _read(self, answer: Any, ends: float) -> bytes:
        body = bytearray()
        while chunk := answer.read1(65536):
            body += chunk
            if self.clock() > ends:  # the socket's own time-out starts again with every byte
                raise Fault("no complete answer in time", retry=True)
            if len(body) > _LARGEST_BODY:
                raise Fault(f"the answer is larger than {_LARGEST_BODY // 2**20} MiB", retry=False)
        if answer.length:
            raise Fault(f"the answer broke off {answer.length} bytes before its end", retry=True)
        return bytes(body)

    def _refusal(self, error: urllib.error.HTTPError, key: str) -> Fault:
        """A status other than 200 as a fault, with what the server says about it."""
        try:
            text = error.read(65536).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException):
            text = ""
        said = message_of(text)
        message = f"HTTP {error.code} {error.reason}" + (f": {without(key, said)}" if said else "")
        if 300 <= error.code < 400:
            where = without(key, str(error.headers.get("Location", "another address")))
            return Fault(f"{message}; redirected to {where}: give the final address as the URL", retry=False)
        if error.code == 401 and not key:
            name = self.api_key_env or API_KEY
            plain = (
                "" if self._key_name else " and name it as api_key_env, as the connection is not encrypted"
            )
            message += f"; no API key was sent: set the environment variable {name}{plain}"
        retry = error.code in RETRIED or error.code >= 500
        if "insufficient_quota" in text:  # a 429 that waiting does not mend
            retry = False
        after = retry_after(error.headers.get("Retry-After")) if retry else None
        busy = retry and (error.code == 429 or (error.code == 503 and after is not None))
        return Fault(message, retry, after, busy)

    def api_key(self) -> str:
        """The key that is sent now; empty for none.

        Raises:
            ValueError: the variable holds what no header takes.
        """
        key = os.environ.get(self._key_name, "").strip() if self._key_name else ""
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise ValueError(f"the environment variable {self._key_name} holds no API key: it has blanks or "
                             "characters that no HTTP header takes")  # fmt: skip
        return key

    def without_key(self, text: str) -> str:
        """A text without the key, should it repeat it."""
        return without(os.environ.get(self._key_name, "").strip() if self._key_name else "", text)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Leaves the redirect to be raised as an HTTPError."""


def checked_url(url: str) -> tuple[str, bool, bool]:
    """The address without a final slash, whether it is on this machine, and whether it is encrypted.

    Raises:
        ValueError: no http or https address, or one with a password, query or fragment.
    """
    parts = urllib.parse.urlsplit(url)
    try:
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise ValueError(f"{url!r} is no address: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"{url!r} is no http or https address; expected one such as http://localhost:8000/v1"
        )
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL holds a user name or password; put the key into an environment variable")
    if parts.query or parts.fragment:
        raise ValueError(
            f"{parts.scheme}://{parts.netloc}{parts.path}: the URL must end with its path; it goes on with a "
            f"{'query' if parts.query else 'fragment'} (a key belongs into an environment variable)"
        )
    address = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    return address, parts.hostname in _LOOPBACK, parts.scheme == "https"


def read_choices(body: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The JSON of a completion, and its choices.

    Raises:
        Fault: this is no completion.
    """
    text = body.decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):  # a plain ValueError: an integer of more than 4,300 digits
        raise Fault(f"the answer is not JSON: {one_line(text)!r}", retry=True) from None
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        error = data.get("error") if isinstance(data, dict) else None
        code = (
            error.get("code") if isinstance(error, dict) else None
        )  # a status, as some hosts send it with 200
        final = isinstance(code, int) and 400 <= code < 500 and code not in RETRIED
        said = message_of(text) if error else one_line(text)
        raise Fault(f"the answer has no choices: {said!r}", retry=not final, busy=code == 429)
    return data, choices


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header: a number, or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (date - datetime.datetime.now(datetime.UTC)).total_seconds() if date.tzinfo else 0.0
    return max(0.0, seconds) if seconds < float("inf") else None


def message_of(text: str) -> str:
    """What an error body says: `error.message`, `message` or `detail`, or its beginning."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return one_line(text)
    error = data.get("error", data) if isinstance(data, dict) else data
    if isinstance(error, dict):
        error = next((error[name] for name in ("message", "detail") if error.get(name)), error)
    return one_line(error if isinstance(error, str) else json.dumps(error))


def one_line(text: str) -> str:
    """The beginning of a text, without line breaks and control characters."""
    line = "".join(char if char.isprintable() else " " for char in text[: 4 * _EXCERPT])
    line = " ".join(line.split())
    return line if len(line) <= _EXCERPT else line[: _EXCERPT - 3] + "..."


def without(key: str, text: str) -> str:
    """A server's words without the key, should it repeat it."""
    return text.replace(key, "[API key]") if key else text


def encodable(text: str) -> str:
    """Lone surrogates, which a partner's text may hold and UTF-8 cannot, become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
