"""A model behind a server: what is sent, what is read, what is tried again, and what is kept from whom."""

from __future__ import annotations

import datetime
import email.utils
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from textmarl.agents import AsyncAgent, EndpointAgent, Usage

KEY = "sk-very-secret"
MakeAgent = Callable[..., EndpointAgent]


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class FakeTime:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def make_agent(mock_server: Any, fake_time: FakeTime) -> MakeAgent:
    """Return a function: options -> an agent of the mock server that does not really wait."""

    def make(**options: Any) -> EndpointAgent:
        given = {"sleep": fake_time.sleep, "clock": fake_time.clock, "timeout": 5.0, **options}
        return EndpointAgent(mock_server.url, "mock-model", **given)

    return make


def test_the_request_holds_the_conversation_and_what_was_given(
    mock_server: Any, make_agent: MakeAgent
) -> None:
    conversation = [*ask("one"), {"role": "assistant", "content": "two"}, *ask("three")]
    options = {"temperature": 0.0, "top_p": 0.9, "max_tokens": 5, "stop": "END"}
    make_agent(**options, extra_body={"top_k": 3}).act([conversation])
    make_agent().act([ask("plain")])
    assert mock_server.requests == [
        {"model": "mock-model", "messages": conversation, **options, "stop": ["END"], "top_k": 3},
        {"model": "mock-model", "messages": ask("plain")},  # what is None is the server's to choose
    ]


def test_the_answer_has_text_finish_and_counted_tokens(mock_server: Any, make_agent: MakeAgent) -> None:
    mock_server.answer = lambda body: body["messages"][0]["content"].upper()
    mock_server.script = ["ok", "cut"]
    first, second = make_agent(concurrency=1).act([ask("ab"), ask("cd")])
    assert (first.text, first.finish, first.error, first.tokens) == ("AB", "stop", None, 7)
    assert (second.text, second.finish) == ("CD", "length")
    assert first.usage == Usage(completion_tokens=7, prompt_tokens=11)  # the mock's numbers


def test_tokens_that_nobody_counted_are_estimated_and_marked(mock_server: Any, make_agent: MakeAgent) -> None:
    mock_server.answer = lambda body: "three words  here"
    mock_server.default = "without_usage"
    (response,) = make_agent().act([ask("two words")])
    assert response.usage == Usage(completion_tokens=3, prompt_tokens=2, estimated=True)


@pytest.mark.parametrize(
    ("behaviour", "text", "finish"),
    [
        ("null", "", "content_filter"),
        ("tool_calls", "", "tool_calls"),
        ("refusal", "I will not.", "stop"),
        ("parts", "an answer", "stop"),
        ("mislabelled", "an answer", "stop"),
    ],
)
def test_odd_answers_are_answers(
    behaviour: str, text: str, finish: str, mock_server: Any, make_agent: MakeAgent
) -> None:
    mock_server.script = [behaviour]
    (response,) = make_agent().act([ask("?")])
    assert (response.text, response.finish, response.error) == (text, finish, None)


def test_a_chain_of_thought_is_stripped_on_demand(mock_server: Any, make_agent: MakeAgent) -> None:
    thoughts = iter(["<think>Hm.</think>\n\n4", "<think>Hm", "4"] * 2)
    mock_server.answer = lambda body: next(thoughts)
    for thinking, texts in (
        ("strip", ["4", "", "4"]),
        ("keep", ["<think>Hm.</think>\n\n4", "<think>Hm", "4"]),
    ):
        agent = make_agent(thinking=thinking, concurrency=1)
        assert [response.text for response in agent.act([ask("2 + 2?")] * 3)] == texts


def test_any_text_is_received_and_lone_surrogates_are_replaced_before_they_are_sent(
    mock_server: Any, make_agent: MakeAgent
) -> None:
    odd = "NUL \0, U+2028 \u2028, emoji \U0001f600, Ünïcode"
    mock_server.answer = lambda body: odd + " \ud800"  # JSON can escape half a pair
    (response,) = make_agent().act([ask(odd + " \udfff")])
    assert response.text == odd + " \ud800"
    assert mock_server.requests[0]["messages"] == ask(odd + " \ufffd")


FAULTS = [
    "500", "502", "503", "504", "408", "409", "425", "429", "529", "malformed", "no_choices", "error_in_200", "html",
    "truncated", "dropped", "no_text",
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_may_pass_is_tried_again(
    fault: str, mock_server: Any, make_agent: MakeAgent, fake_time: FakeTime
) -> None:
    mock_server.script = [fault, fault, "ok"]
    (response,) = make_agent().act([ask("?")])
    assert (response.text, response.error) == ("an answer", None)
    assert len(mock_server.requests) == 3 and len(fake_time.waits) == 2


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "422", "redirect", "429 insufficient_quota"])
def test_what_will_not_pass_is_not_tried_again(status: str, mock_server: Any, make_agent: MakeAgent) -> None:
    mock_server.default = status
    (response,) = make_agent().act([ask("?")])
    assert response.error is not None and response.text == "" and response.tokens == 0
    assert "(1 attempt)" in response.error
    assert len(mock_server.requests) == 1  # nor was a redirect followed


def test_waiting_grows_exponentially_with_full_jitter_up_to_its_bound(
    mock_server: Any, make_agent: MakeAgent, fake_time: FakeTime
) -> None:
    mock_server.default = "500"
    agent = make_agent(retries=5, backoff=1.0, max_backoff=4.0)
    agent._connection._jitter = random.Random(3)
    (response,) = agent.act([ask("?")])
    expected = random.Random(3)
    assert fake_time.waits == [expected.uniform(0, bound) for bound in (1, 2, 4, 4, 4)]
    assert response.error is not None and "HTTP 500" in response.error and "6 attempts" in response.error
    assert "the mock was told to answer 500" in response.error and "mock-model" in response.error


@pytest.mark.parametrize("as_date", [False, True])
def test_a_retry_after_is_waited_for(
    as_date: bool, mock_server: Any, make_agent: MakeAgent, fake_time: FakeTime
) -> None:
    when = "7"
    if as_date:
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=8)  # sent in whole seconds
        when = email.utils.format_datetime(soon, usegmt=True)
    mock_server.script = [f"503 after {when}", "ok"]
    (response,) = make_agent(backoff=0.0).act([ask("?")])
    assert response.text == "an answer"
    assert 6 < sum(fake_time.waits) <= 8


def test_a_retry_after_holds_back_the_other_requests_too(
    mock_server: Any, make_agent: MakeAgent, fake_time: FakeTime
) -> None:
    mock_server.script = ["429 after 60", "429 after 60"]
    agent = make_agent(concurrency=1, deadline=100.0, backoff=0.0)
    refused, answered = agent.act([ask("1")])[0], agent.act([ask("2")])[0]
    assert refused.error is not None and answered.text == "an answer"
    assert fake_time.waits == [60, 60]  # the second is the other request's


@pytest.mark.parametrize("limited", ["429", "429 after 1", "503 after 1"])
def test_a_rate_limit_costs_no_answer(
    limited: str, mock_server: Any, make_agent: MakeAgent, fake_time: FakeTime
) -> None:
    """20 requests a minute, with default retries: what is refused waits until the minute is over."""
    taken: dict[int, int] = {}

    def limit(body: dict[str, Any]) -> str:
        minute = int(fake_time.now // 60)
        taken[minute] = taken.get(minute, 0) + 1
        return "ok" if taken[minute] <= 20 else limited

    mock_server.default = limit
    responses = make_agent(concurrency=1).act([ask("?")] * 128)
    assert [response.error for response in responses if response.error] == []
    assert (
        fake_time.now < 60 * 128 / 20 + 6 * 30
    )  # seven minutes' worth, and at most max_backoff late after each


def test_a_rate_limit_does_not_make_a_server_count_as_down(mock_server: Any, make_agent: MakeAgent) -> None:
    mock_server.default = "429"
    agent = make_agent(concurrency=1, deadline=10.0)
    (refused,) = agent.act([ask("?")])
    assert refused.error is not None and "HTTP 429" in refused.error
    mock_server.default, mock_server.script = "ok", ["500", "500"]
    assert agent.act([ask("?")])[0].text == "an answer"


def test_a_rate_limit_is_waited_for_no_longer_than_the_deadline(
    mock_server: Any, make_agent: MakeAgent, fake_time: FakeTime
) -> None:
    mock_server.default = "429 after 0"
    (response,) = make_agent(deadline=20.0, backoff=0.0).act([ask("?")])
    assert response.error is not None and "HTTP 429" in response.error
    assert 19 < fake_time.now <= 20 and len(mock_server.requests) <= 20 / 0.1 + 1  # a pause before each


def test_one_absurd_retry_after_is_not_believed(
    mock_server: Any, make_agent: MakeAgent, fake_time: FakeTime
) -> None:
    mock_server.script = ["429 after 1790000000"]
    responses = make_agent(concurrency=1).act([ask(str(number)) for number in range(3)])
    assert [response.error for response in responses] == [None] * 3
    assert fake_time.now < 301


def test_every_answer_gets_an_attempt_however_long_the_server_asked_to_wait(
    mock_server: Any, make_agent: MakeAgent
) -> None:
    mock_server.script = ["429 after 3600"]
    agent = make_agent(concurrency=1, deadline=100.0)
    assert [response.text for response in agent.act([ask("1"), ask("2")])] == ["", "an answer"]


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("body", ["[" * 200_000, '{"error": ' + "1" * 5_000 + "}"])
def test_json_that_python_refuses_to_read_is_a_fault_like_another(
    body: str, status: int, mock_server: Any, make_agent: MakeAgent
) -> None:
    mock_server.raw = body.encode(), status
    mock_server.script = ["sends_raw", "sends_raw", "ok"]
    (response,) = make_agent().act([ask("?")])
    assert (response.text, response.error) == ("an answer", None)
    mock_server.default = "sends_raw"
    (response,) = make_agent().act([ask("?")])
    assert response.error is not None and "7 attempts" in response.error


def test_an_unforeseen_error_costs_its_own_answer_only(
    mock_server: Any, make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    agent = make_agent(concurrency=1)
    post = agent._connection._post

    def broken(address: str, body: bytes, ends: float) -> bytes:
        if b"bad" in body:
            raise OverflowError(f"nobody thought of this: {KEY}")
        return post(address, body, ends)

    monkeypatch.setattr(agent._connection, "_post", broken)
    bad, good = agent.act([ask("bad"), ask("fine")])
    assert good.text == "an answer"
    assert bad.error is not None and "OverflowError: nobody thought of this: [API key]" in bad.error


def test_a_retry_after_beyond_the_deadline_gives_up_at_once(
    mock_server: Any, make_agent: MakeAgent, fake_time: FakeTime
) -> None:
    mock_server.default = "429 after 3600"
    (response,) = make_agent(deadline=100.0).act([ask("?")])
    assert response.error is not None and "HTTP 429" in response.error
    assert fake_time.waits == [] and len(mock_server.requests) == 1


def test_the_deadline_bounds_all_attempts_together(
    mock_server: Any, make_agent: MakeAgent, fake_time: FakeTime
) -> None:
    mock_server.default = "500"
    (response,) = make_agent(deadline=10.0, retries=1000).act([ask("?")])
    assert response.error is not None and fake_time.now < 10


@pytest.mark.parametrize("behaviour", ["silent", "dripping"])
def test_a_server_that_never_answers_is_given_up_in_time(behaviour: str, mock_server: Any) -> None:
    mock_server.default = behaviour
    agent = EndpointAgent(mock_server.url, "m", timeout=0.15, retries=1, backoff=0.0)
    began = time.monotonic()
    (response,) = agent.act([ask("?")])
    assert response.error is not None and "in time" in response.error and "2 attempts" in response.error
    assert 0.2 < time.monotonic() - began < 3


def test_nobody_listening_is_told(fake_time: FakeTime) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    agent = EndpointAgent(url, "m", retries=2, sleep=fake_time.sleep, clock=fake_time.clock)
    (response,) = agent.act([ask("?")])
    assert response.error is not None and "ConnectionRefusedError" in response.error
    assert "3 attempts" in response.error


def test_a_server_that_is_down_gets_one_attempt_an_answer_until_it_is_back(
    mock_server: Any, make_agent: MakeAgent
) -> None:
    mock_server.default = "500"
    agent = make_agent(concurrency=2, retries=3)
    assert all(response.error for response in agent.act([ask("?")] * 2))
    assert len(mock_server.requests) == 8  # two answers, four attempts each
    assert all(response.error for response in agent.act([ask("?")] * 10))
    assert len(mock_server.requests) == 18
    mock_server.default = "ok"
    assert agent.act([ask("?")])[0].text == "an answer"
    mock_server.script = ["500"]
    assert agent.act([ask("?")])[0].text == "an answer"  # tried again


def test_concurrency_is_used_and_bounded_and_the_order_is_kept(
    mock_server: Any, make_agent: MakeAgent
) -> None:
    mock_server.gate = threading.Barrier(3)  # nobody is answered until three requests are there
    mock_server.answer = lambda body: body["messages"][0]["content"]
    responses = make_agent(concurrency=3).act([ask(str(number)) for number in range(12)])
    assert [response.text for response in responses] == [str(number) for number in range(12)]
    assert mock_server.most_concurrent == 3


def test_request_seeds_follow_from_the_agents_and_the_answers_alone(
    mock_server: Any, make_agent: MakeAgent
) -> None:
    agent = make_agent(seed=5, concurrency=1)
    assert isinstance(agent, AsyncAgent)
    for seed in (1, 2, 1):
        agent.submit(ask("?"), seed).result()
    make_agent(seed=6).submit(ask("?"), 1).result()
    one, two, again, other = (request["seed"] for request in mock_server.requests)
    assert one == again and len({one, two, other}) == 3 and 0 <= one < 2**31
    agent.act([ask("?")] * 2)
    assert mock_server.requests[-1]["seed"] != mock_server.requests[-2]["seed"]  # samples differ


def test_the_key_is_sent_and_kept_nowhere(
    mock_server: Any, make_agent: MakeAgent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    mock_server.default = "echoes_the_key"
    agent = make_agent()
    (response,) = agent.act([ask("?")])
    assert mock_server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert response.error is not None and "no such key: Bearer [API key]" in response.error
    assert KEY not in repr(agent) + json.dumps(agent.settings) + repr(vars(agent)) + caplog.text

    monkeypatch.setenv("MY_KEY", "another")
    make_agent(api_key_env="MY_KEY").act([ask("?")])
    assert mock_server.headers[1]["Authorization"] == "Bearer another"


def test_without_a_key_none_is_sent_and_a_401_says_so(mock_server: Any, make_agent: MakeAgent) -> None:
    mock_server.default = "401"
    (response,) = make_agent().act([ask("?")])
    assert "Authorization" not in mock_server.headers[0]
    assert response.error is not None and "set the environment variable OPENAI_API_KEY" in response.error


def test_the_default_key_goes_to_no_other_machine_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    sent = {
        url: bool(EndpointAgent(url, "m")._connection.api_key())
        for url in ("http://node17:8000/v1", "https://api.example.com/v1", "http://localhost:8000/v1")
    }
    assert list(sent.values()) == [False, True, True]
    assert (
        EndpointAgent("http://node17:8000/v1", "m", api_key_env="OPENAI_API_KEY")._connection.api_key() == KEY
    )


def test_the_url_may_be_the_base_or_the_whole_address() -> None:
    for url in ("http://h:1/v1", "http://h:1/v1/", "http://h:1/v1/chat/completions"):
        assert EndpointAgent(url, "m").url == "http://h:1/v1/chat/completions"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "no http or https address"),
        ({"url": "ftp://host/v1"}, "no http or https address"),
        ({"url": "http://host:port/v1"}, "is no address"),
        ({"url": f"https://me:{KEY}@host/v1"}, "holds a user name or password"),
        ({"url": f"https://host/v1?api-key={KEY}"}, "must end with its path; it goes on with a query"),
        ({"model": ""}, "model is empty"),
        ({"thinking": "drop"}, "thinking='drop'"),
        ({"concurrency": 0}, "concurrency=0: expected more than 0"),
        ({"timeout": 0}, "timeout=0"),
        ({"retries": -1}, "retries=-1: expected 0 or more"),
        ({"temperature": -0.5}, "temperature=-0.5"),
        ({"extra_body": {"stream": True}}, "'stream', which the agent sets itself"),
        ({"api_key_env": "NO_SUCH_KEY"}, "NO_SUCH_KEY for the API key is not set"),
        ({"api_key_env": "BAD_KEY"}, "BAD_KEY holds no API key"),
    ],
)
def test_wrong_options_are_refused_without_telling_secrets(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_KEY", f"{KEY}\r\nX-Other: {KEY}")
    with pytest.raises(ValueError, match=r".") as caught:
        EndpointAgent(**{"url": "http://h/v1", "model": "m", **options})
    assert message in str(caught.value) and KEY not in str(caught.value)
