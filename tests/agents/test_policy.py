"""How a policy reads a conversation and what it takes for its answer: templates, odd texts, thinking, room to answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from textmarl.agents import Conversation, Sampling, Team, TeamConfig
from textmarl.agents.policy import Policy

SAMPLING = Sampling(max_new_tokens=6)
TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}{{ m['content'] }}<end>{% endfor %}"
    "{% if loud is defined and loud %}h{% endif %}{% if add_generation_prompt %}a{% endif %}"
)


@pytest.fixture
def policy(make_model: Callable[..., Any], make_tokenizer: Callable[..., Any]) -> Callable[..., Policy]:
    def make(tokenizer: dict[str, Any] | None = None, **settings: Any) -> Policy:
        return Policy("one", make_model("llama"), make_tokenizer(**(tokenizer or {})), **settings)

    return make


def tiny(**settings: Any) -> Policy:
    """The bundled model, which has no chat template."""
    team = Team.create(["one"], TeamConfig(**{"model": "tiny", "lora_rank": 4, **settings}))
    return team.policies["one"]


def asked(text: str) -> Conversation:
    return [{"role": "user", "content": text}]


CONVERSATION: Conversation = [
    {"role": "user", "content": "ab"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d"},
]


def test_a_chat_template_is_used_and_asks_for_the_next_answer(policy: Callable[..., Policy]) -> None:
    made = policy({"template": TEMPLATE})
    assert (
        made.tokenizer.decode(made.encode(CONVERSATION)) == "?ab<end>ac<end>?d<end>a"
    )  # u is no character of it


def test_settings_reach_the_chat_template(policy: Callable[..., Policy]) -> None:
    made = policy({"template": TEMPLATE}, chat_template_kwargs={"loud": True})
    assert made.tokenizer.decode(made.encode(asked("b"))) == "?b<end>ha"


def test_without_a_chat_template_texts_are_separated_by_blank_lines() -> None:
    policy = tiny()
    assert policy.tokenizer.chat_template is None
    assert policy.tokenizer.decode(policy.encode(CONVERSATION)) == "ab\n\nc\n\nd\n\n"


def test_a_padding_token_that_ends_a_turn_does_not_cut_the_prompt(policy: Callable[..., Policy]) -> None:
    made = policy({"pad": "<end>", "template": TEMPLATE})
    assert made.tokenizer.pad_token_id == made.tokenizer.eos_token_id == 1
    ids = made.encode(CONVERSATION)
    assert ids.count(1) == 3
    for shares in (True, False):
        made.shares_prompts = shares
        rows = made.generate([CONVERSATION, asked("h")], SAMPLING, torch.Generator().manual_seed(0), n=3)
        with torch.no_grad():
            logits = made.model(torch.tensor([ids])).logits[0, -1] / SAMPLING.temperature
        for response in rows[0]:
            expected = float(torch.log_softmax(logits, -1)[response.token_ids[0]])
            assert response.logprobs[0] == pytest.approx(expected, abs=2e-5)
            assert response.prompt_ids == ids


@pytest.mark.parametrize(
    "text",
    [
        "\ud800",
        "a\udfffb",
        "\udc00\ud83d",
        "\ud83d\ude00",
        "\x00",
        "\ufeffa",
        "e\u0301",
        "\u202eabc",
        "\U0010ffff",
        "a" * 1500,
    ],
    ids=lambda text: ascii(text[:9]),
)
def test_any_text_can_be_answered(policy: Callable[..., Policy], text: str) -> None:
    for made in (policy(), policy({"template": TEMPLATE})):
        ((response,),) = made.generate(
            [asked(text)], Sampling(max_new_tokens=2), torch.Generator().manual_seed(0)
        )
        response.text.encode("utf-8")


def test_an_empty_text_can_be_answered(policy: Callable[..., Policy]) -> None:
    one = tiny()
    for made in (one, policy({"template": TEMPLATE})):
        ((response,),) = made.generate([asked("")], SAMPLING, torch.Generator().manual_seed(0))
        assert response.token_ids


def test_thinking_is_stripped_only_where_that_is_asked_for() -> None:
    kept = tiny()
    stripped = tiny(thinking="strip")

    def ids(text: str) -> list[int]:
        return kept.tokenizer(text)["input_ids"] + [kept.tokenizer.eos_token_id]

    assert kept.text(ids("<think>hm</think>\n\nyes")) == "<think>hm</think>\n\nyes"
    assert stripped.text(ids("<think>hm</think>\n\nyes")) == "yes"
    assert stripped.text(ids("hm</think> yes")) == "yes"  # templates may open the thinking themselves
    assert stripped.text(ids("a</think>b</think>yes")) == "yes"
    assert stripped.text(ids("yes")) == "yes"


def test_thinking_that_was_cut_leaves_no_answer() -> None:
    stripped = tiny(thinking="strip")
    ids = [stripped.tokenizer(text)["input_ids"] for text in ("<think>hm", "hm", "a? <think>\n")]
    assert stripped.text(ids[0]) == ""
    assert stripped.text(ids[1], prompt_ids=ids[2]) == ""  # the template opened the thinking
    assert stripped.text(ids[1], prompt_ids=ids[1]) == "hm"


def test_stripped_thinking_is_still_trained(policy: Callable[..., Policy]) -> None:
    stripped = tiny(thinking="strip")
    rows = stripped.generate([asked("a")], Sampling(max_new_tokens=5), torch.Generator().manual_seed(0), n=3)
    assert all(len(r.token_ids) == len(r.logprobs) > 0 for r in rows[0])


def test_a_conversation_that_leaves_no_room_for_an_answer_is_refused() -> None:
    policy = tiny()
    limit = policy.model.config.max_position_embeddings
    fits, too_long = "a" * (limit - SAMPLING.max_new_tokens - 2), "a" * (limit - SAMPLING.max_new_tokens - 1)
    policy.check_room([policy.encode(asked(fits))], SAMPLING)
    with pytest.raises(ValueError, match=f"exceed the {limit} tokens that the model reads"):
        policy.generate([asked(too_long)], SAMPLING, torch.Generator())


@pytest.mark.parametrize(
    ("family", "path"),
    [
        ("llama", "prompts shared, in generation and in the update"),
        (
            "gemma2",
            "generated and scored by the library's plain path, for it has layers of sliding_attention",
        ),
    ],
)
def test_a_policy_says_which_path_it_takes_and_why(
    make_model: Callable[..., Any], make_tokenizer: Callable[..., Any], family: str, path: str
) -> None:
    assert Policy("one", make_model(family), make_tokenizer()).path == path
