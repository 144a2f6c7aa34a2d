from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial

import pytest

import textmarl.agents
from textmarl.agents import (
    Conversation,
    MessagesAgent,
    RandomAgent,
    Response,
    ScriptedAgent,
    TextAgent,
    as_agent,
    render_conversation,
)

PROMPT: Conversation = [{"role": "user", "content": "Say hello."}]
SECOND_TURN: Conversation = [
    {"role": "user", "content": "Say hello."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Louder."},
]


def test_a_single_message_is_rendered_unchanged() -> None:
    assert render_conversation(PROMPT) == "Say hello."


def test_a_longer_conversation_names_its_speakers_in_order() -> None:
    rendered = render_conversation([{"role": "system", "content": "Be kind."}, *SECOND_TURN])
    assert rendered == "System: Be kind.\n\nUser: Say hello.\n\nAssistant: Hello.\n\nUser: Louder."


def test_a_function_without_annotations_gets_the_text() -> None:
    assert as_agent(lambda text: text.upper()).act([PROMPT, PROMPT]) == [Response("SAY HELLO.")] * 2


def test_a_function_annotated_with_messages_gets_the_messages() -> None:
    def listed(messages: list[dict[str, str]]) -> str:
        return messages[-1]["content"]

    def sequence(messages: Sequence[dict[str, str]]) -> str:
        return messages[-1]["content"]

    def named(messages: Conversation) -> str:
        return messages[-1]["content"]

    for function in (listed, sequence, named):
        assert as_agent(function).act([SECOND_TURN]) == [Response("Louder.")]


def test_a_function_annotated_with_an_unknown_name_is_told_by_that_name() -> None:
    def function(messages):
        return type(messages).__name__

    function.__annotations__ = {"messages": "chat.Conversation"}  # a name imported for type checkers only
    assert as_agent(function).act([PROMPT]) == [Response("list")]
    function.__annotations__ = {"messages": "chat.Prompt"}
    assert as_agent(function).act([PROMPT]) == [Response("str")]


def test_a_callable_object_is_told_by_the_annotation_of_its_call() -> None:
    class Replier:
        def __call__(self, messages: Conversation) -> str:
            return messages[-1]["content"]

    assert as_agent(Replier()).act([SECOND_TURN]) == [Response("Louder.")]


def test_a_partial_function_is_an_agent() -> None:
    def prefixed(prefix: str, text: str) -> str:
        return prefix + text

    assert as_agent(partial(prefixed, "> ")).act([PROMPT]) == [Response("> Say hello.")]


def test_wrappers_choose_what_an_unannotated_function_gets() -> None:
    assert MessagesAgent(lambda messages: messages[0]["role"]).act([PROMPT]) == [Response("user")]
    assert TextAgent(len.__class__.__name__.__add__).act([PROMPT])[0].text.endswith("Say hello.")


def test_a_function_cannot_change_the_conversation_it_is_given() -> None:
    def vandal(messages: Conversation) -> str:
        messages[0]["content"] = "gone"
        messages.clear()
        return ""

    conversation = [dict(message) for message in SECOND_TURN]
    as_agent(vandal).act([conversation])
    assert conversation == SECOND_TURN


def test_an_object_that_acts_is_returned_as_it_is() -> None:
    agent = RandomAgent()
    assert as_agent(agent) is agent


@pytest.mark.parametrize("candidate", ["random", 3, None])
def test_what_is_neither_agent_nor_function_is_refused(candidate: object) -> None:
    with pytest.raises(TypeError, match="expected an agent, got"):
        as_agent(candidate)


def test_a_class_instead_of_an_instance_is_refused_with_advice() -> None:
    with pytest.raises(TypeError, match=r"pass an instance, RandomAgent\(\.\.\.\)"):
        as_agent(RandomAgent)


def test_a_function_of_two_arguments_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be called with one argument"):
        as_agent(lambda text, temperature: text)


def test_a_function_that_returns_no_text_is_named() -> None:
    def silent(text: str) -> None:
        return None

    with pytest.raises(TypeError, match="silent returned NoneType, expected a str"):
        as_agent(silent).act([PROMPT])


def test_a_scripted_agent_answers_by_turn_and_repeats_its_last_reply() -> None:
    agent = ScriptedAgent(["one", "two"])
    third_turn = [*SECOND_TURN, {"role": "assistant", "content": "x"}, {"role": "user", "content": "y"}]
    assert [response.text for response in agent.act([SECOND_TURN, PROMPT, third_turn])] == [
        "two",
        "one",
        "two",
    ]
    assert ScriptedAgent("always").act([third_turn]) == [Response("always")]
    with pytest.raises(ValueError, match="at least one reply"):
        ScriptedAgent([])


def test_a_random_agent_repeats_itself_only_with_the_same_seed() -> None:
    conversations = [PROMPT] * 5
    answers = RandomAgent(seed=1).act(conversations)
    assert answers == RandomAgent(seed=1).act(conversations)
    assert answers != RandomAgent(seed=2).act(conversations)
    assert len({answer.text for answer in answers}) > 1


def test_a_random_agent_uses_the_words_it_read_within_its_length() -> None:
    for response in RandomAgent(min_words=2, max_words=3).act([PROMPT] * 50):
        words = response.text.split()
        assert len(words) in (2, 3) and set(words) <= {"Say", "hello."}
    assert RandomAgent(min_words=1, max_words=1).act([[{"role": "user", "content": ""}]])[0].text
    with pytest.raises(ValueError, match="min_words <= max_words"):
        RandomAgent(min_words=3, max_words=2)


def test_importing_the_agents_does_not_import_torch() -> None:
    code = "import sys, textmarl.agents; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Teem'"):
        _ = textmarl.agents.Teem  # type: ignore[attr-defined]


def test_a_team_without_torch_asks_for_the_extra() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import textmarl.agents\n"
        "try: textmarl.agents.Team\n"
        "except ImportError as error: assert '-e \\'.[train]\\'' in str(error) and 'torch' in str(error), error\n"
        "else: raise SystemExit(1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
