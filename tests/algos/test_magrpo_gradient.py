"""The gradient of a MAGRPO step against a slow reference written from the formulas of arXiv 2508.04652.

The reference scores one response at a time by an ordinary forward pass over prompt and response, and finds returns,
baselines and weights by recursion over the recorded rewards. It shares no code with the package but the records of
the experience, and these are checked against a replay of every episode in test_rollout.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import Tensor
from transformers import (
    PreTrainedModel,
)

from textmarl.agents import Response, Sampling, Team, load_model
from textmarl.agents.policy import Policy
from textmarl.algos import MAGRPO, Node, Rollout
from textmarl.algos.update import Updater
from textmarl.envs import Outcome, TaskSet, TextEnv

AGENTS = ["left", "right"]
SAMPLING = Sampling(temperature=0.7, max_new_tokens=6)
Gradient = dict[str, Tensor]
MakeTeam = Callable[..., Team]

# Llama and Qwen2 round to single precision inside their norms, also in a model of double precision.
EXACT, ROUNDED, SINGLE = 1e-10, 1e-6, 1e-5


class Vowels(TextEnv):
    """Left is paid for vowels, right for brevity, both for starting alike; about one joint answer in three ends it."""

    possible_agents = AGENTS
    tasks = TaskSet.of(["abc", "a rather longer task than the other"])

    def observe(self, agent: str) -> str:
        if not self.history:
            return f"{agent}: {self.task.data['text']}"
        said = self.history[-1].responses
        return f"{agent} reads {said['right' if agent == 'left' else 'left']}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        left, right = responses.values()
        score = 0.4 * sum(left.count(v) for v in "aeiou") - 0.3 * len(right) + 0.9 * (left[:1] == right[:1])
        return Outcome({"score": score}, finished=(3 * len(left) + len(right)) % 3 == 0)


# ----------------------------------------------------------------------------------------------------- experience


def collect(
    team: Team, algorithm: MAGRPO, turns: int = 1, sampling: Sampling = SAMPLING, seed: int = 0
) -> list[Node]:
    generators = {agent: torch.Generator().manual_seed(100 * seed + i) for i, agent in enumerate(AGENTS)}
    rollout = Rollout(Vowels(max_turns=turns), team.policies, sampling, generators)
    return algorithm.collect(rollout, [(7, 0), (8, 1)])


class Recorder(torch.optim.SGD):
    """Keeps the gradient of every step before it takes it."""

    def __init__(self, policy: Policy, lr: float):
        super().__init__(list(policy.parameters().values()), lr=lr)
        self.policy, self.gradients = policy, list[Gradient]()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.gradients.append({n: p.grad.clone() for n, p in self.policy.parameters().items()})  # type: ignore[union-attr]
        super().step()


def step(
    team: Team,
    algorithm: MAGRPO,
    roots: list[Node],
    agent: str,
    sampling: Sampling = SAMPLING,
    micro_batch_tokens: int = 120,
    lr: float = 0.0,
) -> tuple[list[Gradient], float]:
    """Let the package update one agent; return the gradient of each optimizer step, and the loss."""
    optimizer = Recorder(team.policies[agent], lr)
    updater = Updater(team.policies[agent], algorithm, sampling, optimizer, 0.0, micro_batch_tokens)
    groups = [group for group in algorithm.credit(roots, AGENTS) if group.samples[0].agent == agent]
    metrics = updater.update(groups, np.random.default_rng(0))
    return optimizer.gradients, metrics["loss"]


def step_gradients(*args: Any, **kwargs: Any) -> list[Gradient]:
    """Return the gradients of :func:`step`."""
    return step(*args, **kwargs)[0]


# ------------------------------------------------------------------------------------------------- the reference


def ordinary(policy: Policy) -> tuple[PreTrainedModel, dict[str, torch.nn.Parameter]]:
    """Copy the policy's network and let it attend by the library's own code; return it with its trained parameters."""
    network = copy.deepcopy(policy.network)
    model = network.get_base_model() if isinstance(network, PeftModel) else network
    model.set_attn_implementation("sdpa")
    if isinstance(network, PeftModel):
        network.set_adapter(policy.name)
    own = dict(model.named_parameters())
    trained = {name: own[name] for name in policy.parameters()}
    return model, trained


def token_logprobs(model: PreTrainedModel, response: Response, sampling: Sampling = SAMPLING) -> Tensor:
    """log pi(y_t | h, y_<t) for t = 1 ... L, from a full forward pass and a full softmax."""
    logits = model(input_ids=torch.tensor([response.prompt_ids + response.token_ids])).logits[0]
    chosen = []
    for t, token in enumerate(response.token_ids):
        scaled = logits[len(response.prompt_ids) - 1 + t] / sampling.temperature
        ranked = scaled.detach().argsort(descending=True).tolist()
        if sampling.top_k:
            ranked = ranked[: sampling.top_k]
        weights, reached, kept = scaled.detach()[ranked].softmax(-1).tolist(), 0.0, []
        for candidate, probability in zip(ranked, weights, strict=True):
            if reached < sampling.top_p:
                kept.append(candidate)
            reached += probability
        chosen.append(scaled[token] - torch.logsumexp(scaled[kept], -1))
    return torch.stack(chosen)


def joint_return(node: Node, j: int, agent: int, discount: float) -> float:
    """R = r at a leaf, else r + gamma * mean over the returns that follow (a chain has one that follows)."""
    reward, continuation = float(node.rewards[j][agent]), node.continuations[j]
    if continuation is None:
        return reward
    child, place = continuation
    following = range(len(child.rewards)) if place is None else [place]
    values = [joint_return(child, k, agent, discount) for k in following]
    return reward + discount * sum(values) / len(values)


def advantages(credits: list[float], baseline: str, normalize: str) -> list[float]:
    n = len(credits)
    compared = []
    for k, credit in enumerate(credits):
        others = credits[:k] + credits[k + 1 :]
        value = {
            "mean": sum(credits) / n,
            "none": 0.0,
            "leave_one_out": sum(others) / len(others) if others else credit,
            "max": max(credits),
        }[baseline]
        compared.append(credit - value)
    if normalize == "std":
        mean = sum(compared) / n
        std = math.sqrt(sum((a - mean) ** 2 for a in compared) / n)
        compared = [(a - mean) / max(std, 1e-6) for a in compared]
    return compared


def credited(roots: list[Node], agent: int, algorithm: MAGRPO) -> Iterator[tuple[Response, float, float]]:
    """Yield every response of an agent with its advantage and its weight in L_i, 1 / c left out."""

    def visit(node: Node, weight: float) -> Iterator[tuple[Response, float, float]]:
        responses = node.responses[AGENTS[agent]]
        credits = []
        for k in range(len(responses)):
            values = [
                joint_return(node, j, agent, algorithm.discount)
                for j, joint in enumerate(node.joint_actions)
                if joint[agent] == k
            ]
            credits.append(sum(values) / len(values))
        for response, advantage in zip(
            responses, advantages(credits, algorithm.baseline, algorithm.normalize), strict=True
        ):
            yield response, advantage, weight / algorithm.group_size / len(roots)
        chain = algorithm.branching == "chain"
        followed: list[Node] = []
        for continuation in node.continuations:
            if continuation is not None and not any(continuation[0] is node for node in followed):
                followed.append(continuation[0])
                yield from visit(continuation[0], weight if chain else weight / len(node.joint_actions))

    for root in roots:
        yield from visit(root, 1.0)


def divisor(response: Response, algorithm: MAGRPO, sampling: Sampling = SAMPLING) -> float:
    """c of the length weighting."""
    return {
        "sum": 1.0,
        "constant": float(sampling.max_new_tokens),
        "token_mean": float(len(response.token_ids)),
    }[algorithm.length_weighting]


def explicit_gradient(
    team: Team, algorithm: MAGRPO, roots: list[Node], agent: str, sampling: Sampling = SAMPLING
) -> Gradient:
    """Gradient of L_i = - sum of weight * A * (1 / c) * log pi_i, one response at a time."""
    return explicit_step(team, algorithm, roots, agent, sampling)[0]


def explicit_step(
    team: Team, algorithm: MAGRPO, roots: list[Node], agent: str, sampling: Sampling = SAMPLING
) -> tuple[Gradient, float]:
    """Return the gradient of L_i, and L_i."""
    model, trained = ordinary(team.policies[agent])
    loss = 0.0
    for response, advantage, weight in credited(roots, AGENTS.index(agent), algorithm):
        log_pi = token_logprobs(model, response, sampling).sum()
        term = -weight * advantage / divisor(response, algorithm, sampling) * log_pi
        term.backward()
        loss += float(term.detach())
    return {name: parameter.grad for name, parameter in trained.items()}, loss  # type: ignore[misc]


def assert_equal(actual: Gradient, expected: Gradient, tolerance: float) -> None:
    """Compare to a share of the largest entry."""
    assert actual.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 1e-4, "a gradient of zero would prove nothing"
    error = max(float((actual[name] - expected[name]).abs().max()) for name in expected)
    assert error <= tolerance * largest, f"off by {error / largest:.1e} of the largest entry"


def everything(roots: list[Node]) -> list[Response]:
    return [
        r for root in roots for node in root.subtree() for group in node.responses.values() for r in group
    ]


# ----------------------------------------------------------------------------------------------------- the tests

SHAPES = {
    "aligned, one turn": (MAGRPO(group_size=4), 1),
    "aligned, two turns": (MAGRPO(group_size=3, discount=0.9), 2),
    "cross, one turn": (MAGRPO(group_size=3, joint_mode="cross"), 1),
    "cross, two turns": (MAGRPO(group_size=2, joint_mode="cross", discount=0.8), 2),
    "chain, three turns": (MAGRPO(group_size=5, branching="chain", discount=0.9), 3),
    "published settings": (MAGRPO.preset("paper"), 1),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradient_of_a_step_are_the_formula(make_team: MakeTeam, phi: str, shape: str) -> None:
    algorithm, turns = SHAPES[shape]
    assert isinstance(algorithm, MAGRPO)
    team = make_team(phi)
    roots = collect(team, algorithm, turns)
    for agent in AGENTS:
        (actual,), loss = step(team, algorithm, roots, agent)
        expected, expected_loss = explicit_step(team, algorithm, roots, agent)
        assert_equal(actual, expected, EXACT)
        assert loss == pytest.approx(expected_loss, rel=EXACT, abs=EXACT)


@pytest.mark.parametrize("shape", ["aligned, two turns", "chain, three turns"])
def test_models_that_cannot_share_a_prompt_have_the_same_gradient(
    make_team: MakeTeam, phi: str, shape: str
) -> None:
    algorithm, turns = SHAPES[shape]
    assert isinstance(algorithm, MAGRPO)
    team = make_team(phi)
    assert all(policy.shares_prompts for policy in team.policies.values())
    shared = collect(team, algorithm, turns)
    for policy in team.policies.values():
        policy.shares_prompts = False
    plain = collect(team, algorithm, turns)
    assert [r.token_ids for r in everything(plain)] == [r.token_ids for r in everything(shared)]
    (actual,) = step_gradients(team, algorithm, plain, "left")
    assert_equal(actual, explicit_gradient(team, algorithm, plain, "left"), EXACT)


@pytest.mark.parametrize("shape", ["aligned, two turns", "cross, two turns", "chain, three turns"])
def test_gradient_holds_to_rounding_in_single_precision(make_team: MakeTeam, llama: str, shape: str) -> None:
    algorithm, turns = SHAPES[shape]
    assert isinstance(algorithm, MAGRPO)
    team = make_team(["tiny", llama], dtype="float32")
    roots = collect(team, algorithm, turns)
    (actual,) = step_gradients(team, algorithm, roots, "right")
    assert_equal(actual, explicit_gradient(team, algorithm, roots, "right"), SINGLE)


def test_the_shapes_above_have_branches_that_end_early_and_branches_that_go_on(
    make_team: MakeTeam, phi: str
) -> None:
    team = make_team(phi)
    for shape in ("aligned, two turns", "cross, two turns"):
        algorithm, turns = SHAPES[shape]
        assert isinstance(algorithm, MAGRPO)
        continued = [c is not None for root in collect(team, algorithm, turns) for c in root.continuations]
        assert any(continued) and not all(continued), shape
    algorithm, turns = SHAPES["chain, three turns"]
    assert isinstance(algorithm, MAGRPO)
    sizes = {
        len(node.responses["left"]) for root in collect(team, algorithm, turns) for node in root.subtree()
    }
    assert 5 in sizes and min(sizes) < 5


@pytest.mark.parametrize("shape", ["aligned, two turns", "chain, three turns"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_agents_with_different_models_and_tokenizers(
    make_team: MakeTeam, llama: str, qwen: str, tuning: str, shape: str
) -> None:
    algorithm, turns = SHAPES[shape]
    assert isinstance(algorithm, MAGRPO)
    team = make_team([llama, qwen], tuning)
    roots = collect(team, algorithm, turns)
    responses = everything(roots)
    assert len({len(r.token_ids) for r in responses}) > 2
    assert {r.finish for r in responses} == {"stop", "length"}
    for agent in AGENTS:
        (actual,) = step_gradients(team, algorithm, roots, agent)
        assert_equal(actual, explicit_gradient(team, algorithm, roots, agent), ROUNDED)


def test_a_padding_token_that_occurs_in_the_prompt_is_read_like_any_other(
    make_team: MakeTeam, llama: str
) -> None:
    team = make_team(llama)
    algorithm = MAGRPO(group_size=4)
    roots = collect(team, algorithm)
    pad = team.policies["left"].tokenizer.pad_token_id
    assert all(pad in r.prompt_ids for r in everything(roots))
    for agent in AGENTS:
        (actual,) = step_gradients(team, algorithm, roots, agent)
        assert_equal(actual, explicit_gradient(team, algorithm, roots, agent), ROUNDED)


def test_agents_train_adapters_on_one_base_as_on_two(make_team: MakeTeam, llama: str) -> None:
    algorithm = MAGRPO(group_size=4)
    shared, apart = make_team(llama), make_team(llama, share_base=False)
    assert shared.policies["left"].model is shared.policies["right"].model
    assert apart.policies["left"].model is not apart.policies["right"].model
    roots = collect(shared, algorithm)
    for agent in AGENTS:
        (one,) = step_gradients(shared, algorithm, roots, agent)
        (other,) = step_gradients(apart, algorithm, roots, agent)
        assert_equal(one, other, EXACT)


@pytest.fixture(scope="module")
def experience(make_team: MakeTeam, phi: str) -> tuple[Team, list[Node], dict[int, Gradient]]:
    """Two turns of experience, and the gradient of every response's log pi by itself."""
    team = make_team(phi)
    roots = collect(team, MAGRPO(group_size=3), turns=2)
    gradients = {}
    model, trained = ordinary(team.policies["right"])
    for response, _, _ in credited(roots, 1, MAGRPO(group_size=3)):
        model.zero_grad()
        token_logprobs(model, response).sum().backward()
        gradients[id(response)] = {name: p.grad.clone() for name, p in trained.items()}  # type: ignore[union-attr]
    return team, roots, gradients


@pytest.mark.parametrize("length_weighting", ["sum", "constant", "token_mean"])
@pytest.mark.parametrize("normalize", ["std", "none"])
@pytest.mark.parametrize("baseline", ["mean", "none", "leave_one_out", "max"])
def test_every_baseline_normalisation_and_length_weighting(
    experience: tuple[Team, list[Node], dict[int, Gradient]],
    baseline: Any,
    normalize: Any,
    length_weighting: Any,
) -> None:
    team, roots, gradients = experience
    algorithm = MAGRPO(
        group_size=3, baseline=baseline, normalize=normalize, length_weighting=length_weighting, discount=0.9
    )
    names = team.policies["right"].parameters()
    expected = {name: torch.zeros_like(parameter) for name, parameter in names.items()}
    for response, advantage, weight in credited(roots, 1, algorithm):
        for name, gradient in gradients[id(response)].items():
            expected[name] -= weight * advantage / divisor(response, algorithm) * gradient
    (actual,) = step_gradients(team, algorithm, roots, "right")
    assert_equal(actual, expected, EXACT)


@pytest.mark.parametrize("truncation", [{"top_k": 4}, {"top_p": 0.7}, {"top_k": 6, "top_p": 0.8}], ids=str)
def test_truncated_sampling_trains_the_renormalised_distribution(
    make_team: MakeTeam, phi: str, truncation: dict[str, Any]
) -> None:
    sampling = Sampling(temperature=0.9, max_new_tokens=5, **truncation)
    algorithm = MAGRPO(group_size=4)
    team = make_team(phi)
    roots = collect(team, algorithm, sampling=sampling)
    (actual,) = step_gradients(team, algorithm, roots, "left", sampling)
    assert_equal(actual, explicit_gradient(team, algorithm, roots, "left", sampling), EXACT)


@pytest.mark.parametrize("length_weighting", ["sum", "constant", "token_mean"])
@pytest.mark.parametrize("ratio_level", ["token", "sequence"])
def test_second_epoch_follows_the_clipped_ratio(
    make_team: MakeTeam, phi: str, ratio_level: Any, length_weighting: Any
) -> None:
    algorithm = MAGRPO(
        group_size=5, epochs=2, ratio_level=ratio_level, length_weighting=length_weighting, clip=0.1
    )
    lr = {"sum": 0.1, "constant": 0.6, "token_mean": 0.6}[length_weighting]
    team = make_team(phi)
    roots = collect(team, algorithm)
    rows = list(credited(roots, 0, algorithm))
    model, trained = ordinary(team.policies["left"])
    old = [token_logprobs(model, response).detach() for response, _, _ in rows]
    expected, clipped = [], []
    for _ in range(2):
        model.zero_grad()
        for (response, advantage, weight), before in zip(rows, old, strict=True):
            log_ratio = token_logprobs(model, response) - before
            if ratio_level == "sequence":
                log_ratio = log_ratio.mean().expand(len(before))
            objective = torch.zeros((), dtype=torch.float64)
            for ratio in log_ratio.exp():
                value = float(ratio.detach())
                bounded = min(max(value, 0.9), 1.1)
                clipped.append(bounded * advantage < value * advantage)
                # A clipped ratio is a constant: times 0 keeps it in the graph.
                objective = objective + (0 * ratio + bounded if clipped[-1] else ratio) * advantage
            (-weight / divisor(response, algorithm) * objective).backward()
        expected.append({name: p.grad.clone() for name, p in trained.items()})  # type: ignore[union-attr]
        with torch.no_grad():
            for parameter in trained.values():
                parameter -= lr * parameter.grad  # type: ignore[operator]
    assert 0.05 < np.mean(clipped[len(clipped) // 2 :]) < 0.95, (
        "some ratios must be clipped and some must not"
    )
    actual = step_gradients(team, algorithm, roots, "left", lr=lr)
    assert_equal(actual[0], expected[0], EXACT)
    assert_equal(actual[1], expected[1], EXACT)
    assert_equal(actual[0], explicit_gradient(make_team(phi), algorithm, roots, "left"), EXACT)  # ratio 1


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_kl_is_the_k3_estimate_against_the_initial_model(make_team: MakeTeam, phi: str, tuning: str) -> None:
    algorithm = MAGRPO(group_size=4, kl_coef=0.3)
    team = make_team(phi, tuning, reference="copy" if tuning == "full" else "adapter-off")
    roots = collect(team, algorithm)
    model, trained = ordinary(team.policies["left"])
    initial, _ = load_model(phi, "float64", "cpu")
    divergence = 0.0
    for response, advantage, weight in credited(roots, 0, algorithm):
        log_pi = token_logprobs(model, response)
        with torch.no_grad():
            log_reference = token_logprobs(initial, response)
        q = log_reference - log_pi
        k3 = (q.exp() - q - 1).sum()
        divergence += float(k3.detach())
        (weight / divisor(response, algorithm) * (0.3 * k3 - advantage * log_pi.sum())).backward()
    assert divergence > 0.1
    expected = {name: parameter.grad for name, parameter in trained.items()}
    (actual,) = step_gradients(team, algorithm, roots, "left")
    assert_equal(actual, expected, EXACT)  # type: ignore[arg-type]


@pytest.mark.parametrize("kl_coef", [0.0, 0.2])
def test_size_of_micro_batches_does_not_change_the_gradient(
    make_team: MakeTeam, phi: str, kl_coef: float
) -> None:
    algorithm = MAGRPO(group_size=4, kl_coef=kl_coef, length_weighting="token_mean")
    team = make_team(phi)
    roots = collect(team, algorithm, turns=2)
    (whole,) = step_gradients(team, algorithm, roots, "left", micro_batch_tokens=10**6)
    for tokens in (1, 30, 70, 200):
        (actual,) = step_gradients(team, algorithm, roots, "left", micro_batch_tokens=tokens)
        assert_equal(actual, whole, EXACT)


@pytest.mark.parametrize("minibatches", [2, 3, 100])
def test_mini_batches_average_to_the_whole(make_team: MakeTeam, phi: str, minibatches: int) -> None:
    team = make_team(phi)
    roots = collect(team, MAGRPO(group_size=3), turns=2)
    (whole,) = step_gradients(team, MAGRPO(group_size=3), roots, "left")
    parts = step_gradients(team, MAGRPO(group_size=3, minibatches=minibatches), roots, "left")
    groups = sum(len(root.subtree()) for root in roots)
    assert len(parts) == min(minibatches, groups)
    mean = {name: sum(part[name] for part in parts) / len(parts) for name in whole}
    assert_equal(mean, whole, EXACT)  # type: ignore[arg-type]
