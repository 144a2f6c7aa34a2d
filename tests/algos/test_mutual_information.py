"""The fixed embedding of texts, the two bounds of mutual information, and which episodes they learn from."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from textmarl.algos.collaboration_buffer import CollaborationBuffer, Episode
from textmarl.algos.mutual_information import Estimator, LowerBound, UpperBound, descend, estimate
from textmarl.algos.text_embedding import Embedder, embed

# ------------------------------------------------------------------------------------------------------ embedding


def counted(text: str) -> dict[str, float]:
    """Each feature of a text with its weight, written out: words without case, and n-grams of 1 to 3 characters."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in text.casefold()).split()
    found = [f"word {word}" for word in words]
    found += [f"{n} {text[k : k + n]}" for n in (1, 2, 3) for k in range(len(text) - n + 1)]
    return {feature: 1 + math.log(count) for feature, count in Counter(found).items()}


@pytest.mark.parametrize("text", ["The cat, the dog", "def f(x):\n    return x", "我喜欢猫", "a", "?!"])
def test_embedding_is_signed_hashing_by_a_hash_that_no_process_changes(text: str) -> None:
    vector = np.zeros(50)
    for feature, weight in counted(text).items():
        digest = hashlib.blake2b(f"here\0{feature}".encode(), digest_size=8).digest()
        code = int.from_bytes(digest, "little")
        vector[code // 2 % 50] += weight if code % 2 == 0 else -weight
    np.testing.assert_allclose(embed(text, 50, "here"), vector / np.linalg.norm(vector), atol=1e-7)


def test_inner_product_is_in_expectation_that_of_the_features() -> None:
    one, two = "the cat sat on the mat", "a cat sat on my hat"
    a, b = counted(one), counted(two)
    shared = sum(a[feature] * b[feature] for feature in a.keys() & b.keys())
    cosine = shared / math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))
    # Every namespace is another hash function. Collisions spread one product by about 1/sqrt(256): 0.004 over 300.
    products = [float(embed(one, 256, str(k)) @ embed(two, 256, str(k))) for k in range(300)]
    assert np.mean(products) == pytest.approx(cosine, abs=0.02)
    assert 0.3 < cosine < 0.9


@pytest.mark.parametrize("text", ["x", "\ud800", "\0", "ß" * 3000, "🙂 שלום", "  "])
def test_any_text_has_an_embedding_of_length_one(text: str) -> None:
    assert np.linalg.norm(embed(text, 64)) == pytest.approx(1, abs=1e-6)


def test_empty_text_and_empty_conversation_are_zero() -> None:
    assert not embed("", 64).any() and not Embedder(64).conversation([]).any()


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("the quick brown fox jumps", "the quick brown fox leaps", "interest rates rose again"),
        ("昨天我去了北京的公园", "昨天我去了上海的公园", "股票市场今天大幅下跌"),
        ("def add(a, b): return a + b", "def add(x, y): return x + y", "while queue: node = queue.pop()"),
    ],
)
def test_texts_that_share_more_are_nearer(text: str, near: str, far: str) -> None:
    def embedded(text: str) -> np.ndarray:
        return embed(text, 256)

    assert embedded(text) @ embedded(near) > embedded(text) @ embedded(far) + 0.2


def test_a_conversation_tells_who_said_what_when_and_weighs_messages_alike() -> None:
    embedder = Embedder(256)

    def told(*messages: tuple[str, str]) -> np.ndarray:
        return embedder.conversation([{"role": role, "content": text} for role, text in messages])

    one = told(("user", "long " * 100), ("assistant", "left"), ("user", "right"))
    assert np.linalg.norm(one) == pytest.approx(1, abs=1e-6)
    swapped = told(("user", "long " * 100), ("assistant", "right"), ("user", "left"))
    other_role = told(("user", "long " * 100), ("user", "left"), ("user", "right"))
    # One of three messages of equal weight is shared by all, and with another role one more.
    assert one @ swapped == pytest.approx(1 / 3, abs=0.15)
    assert one @ other_role == pytest.approx(2 / 3, abs=0.15)


# --------------------------------------------------------------------------------------------------------- bounds


def drawn(count: int, size: int, rho: float, seed: int) -> tuple[Tensor, Tensor]:
    """Standard normal pairs whose components are correlated with rho, one by one."""
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((count, size))
    actions = rho * states + math.sqrt(1 - rho**2) * rng.standard_normal((count, size))
    return torch.from_numpy(states), torch.from_numpy(actions)


def made(kind: type[Estimator], states: int, actions: int) -> Estimator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(states, actions)


def test_lower_bound_is_the_formula_pair_by_pair() -> None:
    states, actions = drawn(7, 3, 0.5, 1)
    bound = made(LowerBound, 3, 3)
    with torch.no_grad():
        f, g = bound.of_state(states).numpy(), bound.of_action(actions).numpy()
        found, loss = bound(states, actions).numpy(), float(bound.loss(states, actions))

    def sp(x: float) -> float:
        return math.log(1 + math.exp(x))

    expected = []
    for k in range(7):
        together = math.log(2) - sp(-float(f[k] @ g[k]))
        apart = [sp(float(f[k] @ g[j])) - math.log(2) for j in range(7) if j != k]
        expected.append(together - sum(apart) / 6)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert loss == pytest.approx(-np.mean(expected), abs=1e-12)


def test_upper_bound_is_the_formula_pair_by_pair_and_fits_by_likelihood() -> None:
    states, actions = drawn(6, 2, 0.5, 2)
    bound = made(UpperBound, 2, 2)
    with torch.no_grad():
        mean, variance = bound.mean(states).numpy(), bound.log_variance(states).exp().numpy()
        found, loss = bound(states, actions).numpy(), float(bound.loss(states, actions))

    def log_q(k: int, j: int) -> float:
        return sum(
            -0.5 * math.log(2 * math.pi * variance[k, d])
            - (float(actions[j, d]) - mean[k, d]) ** 2 / (2 * variance[k, d])
            for d in range(2)
        )

    expected = [log_q(k, k) - sum(log_q(k, j) for j in range(6) if j != k) / 5 for k in range(6)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert loss == pytest.approx(-np.mean([log_q(k, k) for k in range(6)]), abs=1e-12)


def trained(kind: type[Estimator], rho: float) -> tuple[float, float]:
    """The bound of a trained estimator on fresh pairs of two components, and its standard error."""
    estimator = made(kind, 2, 2)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=3e-3)
    states, actions = drawn(4000, 2, rho, 3)
    rng = np.random.default_rng(4)
    for _ in range(300):
        batch = torch.from_numpy(rng.choice(4000, 128, replace=False))
        descend(estimator, optimizer, states[batch], actions[batch])
    assert int(estimator.trained) == 300
    parts = estimate(estimator, *drawn(2000, 2, rho, 5))
    return float(parts.mean()), float(parts.std() / math.sqrt(2000))


def test_lower_bound_tells_dependent_from_independent_pairs_and_stays_below_the_information() -> None:
    rho = 0.6
    information = -math.log(1 - rho**2)  # two components, -1/2 log(1 - rho^2) each: 0.45 nats
    dependent, error = trained(LowerBound, rho)
    independent, chance = trained(LowerBound, 0.0)
    # What the best T there is reaches: T = log p(s, u) - log p(s) p(u), averaged over fresh pairs.
    s, u = (x.numpy() for x in drawn(100_000, 2, rho, 6))
    other = np.roll(u, 1, axis=0)

    def ratio(u: np.ndarray) -> np.ndarray:
        inside = (2 * rho * s * u - rho**2 * (s**2 + u**2)) / (2 * (1 - rho**2))
        return (inside - 0.5 * math.log(1 - rho**2)).sum(axis=1)

    best = float(np.mean(2 * math.log(2) - np.logaddexp(0, -ratio(u)) - np.logaddexp(0, ratio(other))))
    assert 0.75 * best < dependent < best + 3 * error
    assert best < information
    assert independent < 3 * chance < 0.1


def test_upper_bound_of_gaussian_pairs_is_above_the_information_and_what_theory_gives() -> None:
    rho = 0.6
    dependent, error = trained(UpperBound, rho)
    # With q = p: E_p (u - rho s)^2 = 1 - rho^2 and E_pp (u - rho s)^2 = 1 + rho^2, both halved over 1 - rho^2.
    exact = 2 * rho**2 / (1 - rho**2)
    assert dependent > -math.log(1 - rho**2)
    assert dependent == pytest.approx(exact, abs=3 * error + 0.1 * exact)
    independent, error = trained(UpperBound, 0.0)
    assert independent == pytest.approx(0, abs=3 * error + 0.02)


def test_many_pairs_are_compared_in_parts() -> None:
    states, actions = drawn(10, 2, 0.5, 7)
    bound = made(LowerBound, 2, 2)
    assert not estimate(bound, states, actions).any()  # never trained
    bound.trained += 1
    with torch.no_grad():
        expected = np.zeros(10)
        for first in range(3):
            expected[first::3] = bound(states[first::3], actions[first::3]).numpy()
    np.testing.assert_array_equal(estimate(bound, states, actions, most=4), expected)
    assert not estimate(bound, states[:1], actions[:1]).any()  # nothing to compare with


# -------------------------------------------------------------------------------------------------------- buffers


def episode(task: str, paid: float) -> Episode:
    return Episode(task, paid, np.full((1, 2), paid, np.float32), np.full((1, 2), -paid, np.float32))


def scores(episodes: object) -> list[float]:
    return [entry.score for entry in episodes]  # type: ignore[attr-defined]


def test_a_task_met_once_is_measured_by_its_own_episodes() -> None:
    buffer = CollaborationBuffer(10, 10, 100)
    buffer.add([episode("easy", paid) for paid in (8.0, 9.0, 10.0)])
    buffer.add([episode("hard", paid) for paid in (0.0, 0.0, 1.0)])
    easy, hard = np.array([8, 9, 10.0]), np.array([0, 0, 1.0])
    expected = [(easy[2] - 9) / easy.std(), (hard[2] - 1 / 3) / hard.std()]
    assert scores(buffer.positive) == pytest.approx(expected)
    assert scores(buffer.negative) == pytest.approx(
        [-expected[0], 0, *((0 - 1 / 3) / hard.std() for _ in "ab")]
    )


def test_a_task_met_again_is_measured_by_its_past_too() -> None:
    buffer = CollaborationBuffer(10, 10, 100)
    buffer.add([episode("task", 0.0), episode("task", 2.0)])
    assert scores(buffer.positive) == [1.0] and scores(buffer.negative) == [-1.0]
    buffer.add([episode("task", 2.0), episode("task", 2.0)])
    later = (2 - 1.5) / np.std([0, 2, 2, 2])
    assert later > np.mean([-1, 1, later, later])  # exceeds the running mean, and there is room
    assert scores(buffer.positive) == pytest.approx([1.0, later, later])


def test_equal_returns_and_a_single_episode_are_no_success() -> None:
    buffer = CollaborationBuffer(10, 10, 100)
    buffer.add([episode("same", 0.1 + 0.2), episode("same", 0.3), episode("alone", 5.0)])
    assert buffer.positive == [] and scores(buffer.negative) == [0.0, 0.0, 0.0]


def test_a_full_positive_buffer_gives_up_its_worst_to_a_better_one_only() -> None:
    buffer = CollaborationBuffer(2, 10, 1)
    buffer.tasks = {"task": (1_000_000, 0.0, 1_000_000.0)}  # so that normalised and paid are almost equal
    for paid in (1.0, 3.0):
        buffer.recent.clear()
        buffer.recent.append(-9.0)
        buffer.positive.append(episode("task", paid))
    buffer.add(
        [episode("task", 0.9), episode("task", -50.0)]
    )  # the running mean is the last one's: far below
    assert scores(buffer.positive) == [1.0, 3.0]
    assert scores(buffer.negative) == pytest.approx([0.9, -50.0], abs=0.1)
    buffer.add([episode("task", 2.0), episode("task", -50.0)])
    assert scores(buffer.positive) == pytest.approx([3.0, 2.0], abs=0.1)
    assert 1.0 not in scores(buffer.negative)  # what is pushed out is forgotten


def test_the_running_mean_is_that_of_the_last_episodes() -> None:
    buffer = CollaborationBuffer(10, 10, 3)
    buffer.recent.extend([5.0, 6.0, 7.0])
    assert buffer.threshold == pytest.approx(6.0)
    buffer.recent.extend([1.0, 1.0])
    assert buffer.threshold == pytest.approx(3.0)


def test_the_oldest_negative_leaves_first() -> None:
    buffer = CollaborationBuffer(10, 2, 100)
    buffer.add([episode(task, float(k)) for k, task in enumerate("abc")])  # single episodes: 0 each
    assert [entry.task_id for entry in buffer.negative] == ["b", "c"]
