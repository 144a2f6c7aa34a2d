"""A source with honest texts about it and about another one: what junk for the writing rewards is made from."""

from __future__ import annotations

import re
from dataclasses import dataclass

from textmarl.envs.writing.rewards import stop_words

Pair = tuple[str, str]


@dataclass(frozen=True)
class Post:
    """What junk is made from.

    Attributes:
        source: the text that should be summarised.
        honest: a good pair about this source.
        other: a good pair about another source.
        prompts: the two agents' instructions without the source.
        short, long: words that the two texts are cut to.
    """

    source: str
    honest: Pair
    other: Pair
    prompts: Pair
    short: int = 26
    long: int = 68

    @property
    def tokens(self) -> list[str]:
        """The source between white space, without what stands before the last heading."""
        return self.source.split("\n\n", 2)[-1].split()

    @property
    def sentences(self) -> list[str]:
        """The sentences of the source."""
        body = " ".join(self.tokens)
        return [part for part in re.split(r"(?<=[.!?])\s+", body) if part]

    @property
    def keywords(self) -> list[str]:
        """The distinct content words of the source, in its order."""
        words = re.findall(r"[^\W_]+", " ".join(self.tokens))
        return list(dict.fromkeys(word for word in words if word.lower() not in stop_words()))
