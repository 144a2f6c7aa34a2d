"""Prompts of an exact number of tokens, the same for everyone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pettingzoo
from transformers import PreTrainedTokenizerBase

import textmarl.envs  # noqa: F401  registers TLDR

INSTRUCTIONS = ("Summarise the post in a sentence.", "Summarise the post in detail.")


def prompt_length(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Return the tokens of ``text`` as the one message of a conversation, with the template around it."""
    if tokenizer.chat_template is None:
        return len(tokenizer(text + "\n\n")["input_ids"])
    messages = [{"role": "user", "content": text}]
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return len(encoded["input_ids"])


def post_words() -> Iterator[str]:
    """The words of the bundled TLDR posts, over and over."""
    env = pettingzoo.make("parallel", "textmarl/TLDR-v0", split="test")
    posts = [str(task.data["prompt"]) for task in env.unwrapped.tasks]
    return itertools.cycle(word for post in posts for word in post.split())


def make_prompts(tokenizer: PreTrainedTokenizerBase, agents: int, lengths: list[int]) -> list[list[str]]:
    """Write a prompt for each agent and each length: an instruction and the words of posts, cut to fit exactly.

    Returns:
        For each length the agents' prompts.

    Raises:
        ValueError: No text has that many tokens; the template alone may have more.
    """
    words = post_words()
    return [
        [
            _prompt(tokenizer, INSTRUCTIONS[agent % len(INSTRUCTIONS)], words, length)
            for agent in range(agents)
        ]
        for length in lengths
    ]


def _prompt(tokenizer: PreTrainedTokenizerBase, text: str, words: Iterator[str], length: int) -> str:
    measured = prompt_length(tokenizer, text)
    while measured < length:
        word = next(words)
        # A word that is too long for what is left gives way to single letters.
        for addition in (f" {word}", " a", "a"):
            longer = prompt_length(tokenizer, text + addition)
            if measured < longer <= length:
                text, measured = text + addition, longer
                break
        else:
            break
    if measured != length:
        raise ValueError(
            f"no prompt has exactly {length} tokens: {text[:40]!r} ... has {measured}; ask for another length"
        )
    return text
