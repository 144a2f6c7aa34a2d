"""A fixed embedding of texts: signed feature hashing (arXiv 0902.2206) of words and character n-grams.

Nothing is trained or downloaded. Character n-grams need no word boundaries, so every language and every text has
features; words are added because one different word should move a text further than its letters do. The hash is BLAKE2b,
the same in every process and on every machine. With signs, the inner product of two embeddings is in expectation over hash
functions that of the features themselves (there, section 3), so that texts that share features are near each other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

from textmarl.agents.conversation import Conversation

WORD = re.compile(r"\w+")
NGRAMS = (1, 2, 3)
"""Lengths of the character n-grams. Single characters, because answers of a few letters must differ too."""


def embed(text: str, size: int, namespace: str = "") -> np.ndarray:
    """Return the embedding of a text, a float32 vector of Euclidean length 1 (of an empty text: 0).

    A feature that occurs c times counts 1 + log c (sublinear term frequency: Manning, Raghavan and Schuetze,
    Introduction to Information Retrieval, section 6.4.1).

    Args:
        text: Any; lone surrogates too.
        size: Length of the vector.
        namespace: The same text in two namespaces has unrelated embeddings.
    """
    vector = np.zeros(size)
    for feature, count in Counter(features(text)).items():
        data = f"{namespace}\0{feature}".encode("utf-8", "surrogatepass")
        code = int.from_bytes(blake2b(data, digest_size=8).digest(), "little")
        place, sign = (code >> 1) % size, 1 - 2 * (code & 1)
        vector[place] += sign * (1 + np.log(count))
    return unit(vector)


def features(text: str) -> Iterable[str]:
    """Yield the words of a text, whatever their case, and its character n-grams as they are."""
    for word in WORD.findall(text.casefold()):
        yield f"word {word}"
    for n in NGRAMS:
        for start in range(len(text) - n + 1):
            yield f"{n} {text[start : start + n]}"


class Embedder:
    """Embeds conversations; remembers the messages it has embedded, since the turns of an episode share them.

    Args:
        size: Length of a vector.
    """

    def __init__(self, size: int):
        self.size = size
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def text(self, text: str, namespace: str = "") -> np.ndarray:
        """Return the embedding of a text; see :func:`embed`."""
        key = (namespace, text)
        if key not in self._known:
            self._known[key] = embed(text, self.size, namespace)
        return self._known[key]

    def conversation(self, conversation: Conversation) -> np.ndarray:
        """Return the embedding of a conversation, a float32 vector of length 1 (of an empty one: 0).

        It is the sum of its messages' embeddings, each in a namespace of its place and role: a short answer weighs as
        much as a long instruction, and who said it when can be told.
        """
        total = np.zeros(self.size)
        for place, message in enumerate(conversation):
            total += self.text(message["content"], f"{place} {message['role']}")
        return unit(total)


def unit(vector: np.ndarray) -> np.ndarray:
    """Scale a vector to length 1; 0 stays 0."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)
