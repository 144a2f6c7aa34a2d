"""A local server that speaks OpenAI's chat completions (and whatever it is given), and misbehaves as it is told.

    with MockServer() as server:
        server.script = ["500", "ok"]      # what the next requests meet; afterwards `server.default`

Behaviours: `ok` (answers by `server.routes`: chat completions of `server.answer(body)`), a status (`500`, `429`, ...), a status with a Retry-After
(`503 after 7`), and those of `_Handler` below by name. A function `body -> behaviour` decides by request.
"""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any

Behaviour = str | Callable[[dict[str, Any]], str]


class MockServer:
    """Listens on a free port of this machine while it is used as a context manager."""

    def __init__(self) -> None:
        self.script: list[Behaviour] = []
        self.default: Behaviour = "ok"
        self.raw: tuple[bytes, int] = (b"", 200)
        self.answer: Callable[[dict[str, Any]], str | None] = lambda body: "an answer"
        self.routes: dict[str, Callable[[dict[str, Any]], dict[str, Any] | tuple[int, dict[str, Any]]]] = {
            "/v1/chat/completions": lambda body: completion(self.answer(body))
        }
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.concurrent = 0
        self.most_concurrent = 0
        self.closing = threading.Event()
        self.gate: threading.Barrier | None = None
        self.lock = threading.Lock()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.mock = self  # type: ignore[attr-defined]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> MockServer:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        mock: MockServer = self.server.mock  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with mock.lock:
            mock.concurrent += 1
            mock.most_concurrent = max(mock.most_concurrent, mock.concurrent)
            mock.requests.append(body)
            mock.paths.append(self.path)
            mock.headers.append(dict(self.headers))
            behaviour = mock.script.pop(0) if mock.script else mock.default
        if mock.gate is not None:
            mock.gate.wait(5)
        with mock.lock:  # before the answer: the client sends its next request as soon as it has it
            mock.concurrent -= 1
        self.behave(behaviour if isinstance(behaviour, str) else behaviour(body), body, mock)

    def behave(self, behaviour: str, body: dict[str, Any], mock: MockServer) -> None:
        name, _, more = behaviour.partition(" ")
        if self.path not in mock.routes:
            self.send(b'{"detail": "Not Found"}', 404)
        elif name.isdigit():
            headers = {"Retry-After": more.removeprefix("after ")} if more.startswith("after ") else {}
            said = more if more and not headers else f"the mock was told to answer {name}"
            self.send(json.dumps({"error": {"message": said}}).encode(), int(name), headers)
        else:
            data = mock.routes[self.path](body)
            if isinstance(data, tuple):  # a status, and what is said with it
                self.send(json.dumps(data[1]).encode(), data[0])
            else:
                getattr(self, name)(data, body, mock)

    def ok(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        self.send(json.dumps(data).encode())

    def without_usage(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        del data["usage"]
        self.send(json.dumps(data).encode())

    def cut(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        data["choices"][0]["finish_reason"] = "max_tokens"
        self.send(json.dumps(data).encode())

    def malformed(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        self.send(b'{"choices": [{"message": ')

    def no_choices(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        self.send(json.dumps({**data, "choices": []}).encode())

    def error_in_200(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        self.send(b'{"error": {"code": 502, "message": "upstream is gone"}}')

    def sends_raw(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        self.send(*mock.raw)

    def html(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        self.send(b"<html>Bad gateway\x00</html>", headers={"Content-Type": "text/html"})

    def mislabelled(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        self.send(json.dumps(data).encode(), headers={"Content-Type": "text/plain"})

    def truncated(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        text = json.dumps(data).encode()
        self.send(text[:-5], headers={"Content-Length": str(len(text))})

    def dropped(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        self.close_connection = True

    def silent(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        mock.closing.wait(5)

    def dripping(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        """Sends a blank now and then, so that no single read of the client times out."""
        self.send_response(200)
        self.end_headers()
        while not mock.closing.wait(0.02):
            self.wfile.write(b" ")
            self.wfile.flush()

    def null(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        data["choices"][0]["message"]["content"] = None
        data["choices"][0]["finish_reason"] = "content_filter"
        self.send(json.dumps(data).encode())

    def refusal(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        data["choices"][0]["message"] |= {"content": None, "refusal": "I will not."}
        self.send(json.dumps(data).encode())

    def tool_calls(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        data["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
        data["choices"][0]["finish_reason"] = "tool_calls"
        self.send(json.dumps(data).encode())

    def parts(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        text = data["choices"][0]["message"]["content"]
        data["choices"][0]["message"]["content"] = [
            {"type": "text", "text": text[:3]},
            {"type": "thinking", "thinking": []},
            {"type": "text", "text": text[3:]},
        ]
        self.send(json.dumps(data).encode())

    def no_text(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        data["choices"][0]["message"]["content"] = 3
        self.send(json.dumps(data).encode())

    def redirect(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        self.send(b"", 307, {"Location": mock.url + "/elsewhere"})

    def echoes_the_key(self, data: dict[str, Any], body: dict[str, Any], mock: MockServer) -> None:
        said = f"no such key: {self.headers['Authorization']}"
        self.send(json.dumps({"error": {"message": said}}).encode(), 401)

    def send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keeps the tests' output clean."""


def completion(text: str | None) -> dict[str, Any]:
    """A chat completion as OpenAI's API reference describes it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "mock",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
