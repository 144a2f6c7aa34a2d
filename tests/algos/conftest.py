"""Small random language models, saved in folders; the teams that tests of algorithms train from them; and a slow
reference for their gradients.

The reference (`Exact`) scores one response at a time by an ordinary forward pass over prompt and response. Whoever uses it
says which responses enter with which advantage and weight; it shares no code with the package but the records of the
experience.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
import torch
from peft import PeftModel
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from textmarl.agents import Response, Sampling, Team, TeamConfig
from textmarl.agents.policy import Policy
from textmarl.algos import Algorithm, Node, Rollout
from textmarl.algos.update import Updater
from textmarl.envs import Outcome, TaskSet, TextEnv


def save_model(
    folder: Path, characters: str, pad_is_end: bool, architecture: Callable[[int], PreTrainedModel], seed: int
) -> str:
    """Write a small random model with a character tokenizer; a turn of its chat ends with <end>."""
    special = ["<end>"] if pad_is_end else ["<pad>", "<end>"]
    vocabulary = {token: index for index, token in enumerate([*special, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special[0],
        eos_token="<end>",
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = (
        "{% for m in messages %}{{ m['role'][0] }}{{ m['content'] }}<end>{% endfor %}"
        "{% if add_generation_prompt %}a{% endif %}"
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = architecture(len(vocabulary))
    model.generation_config.eos_token_id = vocabulary["<end>"]
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return str(folder)


SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.1,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def phi(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Phi: it computes in double precision throughout, where Llama and Qwen2 normalise in single precision."""
    return save_model(
        tmp_path_factory.mktemp("phi"),
        "eabcdi ?",
        False,
        lambda v: PhiForCausalLM(PhiConfig(vocab_size=v, **SMALL)),
        3,
    )


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Llama whose padding token is its end of turn, which therefore occurs inside every prompt."""
    return save_model(
        tmp_path_factory.mktemp("llama"),
        "abcdei ?",
        True,
        lambda v: LlamaForCausalLM(LlamaConfig(vocab_size=v, **SMALL)),
        1,
    )


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Qwen2 with another vocabulary in another order, biases, and tied embeddings."""
    return save_model(
        tmp_path_factory.mktemp("qwen"),
        "?zyx aou",
        False,
        lambda v: Qwen2ForCausalLM(Qwen2Config(vocab_size=v, tie_word_embeddings=True, **SMALL)),
        2,
    )


def moved_team(
    agents: Sequence[str],
    model: str | list[str],
    tuning: str = "lora",
    dtype: str = "float64",
    **settings: Any,
) -> Team:
    """Make a team whose trained parameters are away from their initial values: LoRA begins with B = 0."""
    config = TeamConfig(model=model, tuning=tuning, lora_rank=4, dtype=dtype, device="cpu", **settings)  # type: ignore[arg-type]
    team = Team.create(agents, config)
    scale = 0.1 if tuning == "lora" else 0.02
    for index, policy in enumerate(team.policies.values()):
        generator = torch.Generator().manual_seed(index)
        with torch.no_grad():
            for parameter in policy.parameters().values():
                parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return team


@pytest.fixture(scope="session")
def make_team() -> Callable[..., Team]:
    """Makes teams of "left" and "right", away from their initial values."""

    def make(model: str | list[str], tuning: str = "lora", dtype: str = "float64", **settings: Any) -> Team:
        return moved_team(["left", "right"], model, tuning, dtype, **settings)

    return make


SAMPLING = Sampling(temperature=0.7, max_new_tokens=6)


class Gradient(dict[str, Tensor]):
    """Of each trained parameter; with the loss that it is the gradient of, where that is the formula's own."""

    loss: float | None = None


Row = tuple[Response, float, float]
"""A response, its advantage, and its weight in the loss with 1/c in it."""


class Syllables(TextEnv):
    """Vowels of the first and brevity of the last are paid, to each its own part; some joint answers end it."""

    tasks = TaskSet.of(["abc", "a rather longer task than the other"])
    individual_rewards = True

    def __init__(self, agents: int = 2, ends: bool = True, **settings: Any):
        self.possible_agents = [f"player_{i}" for i in range(agents)]
        self.ends = ends
        super().__init__(**settings)

    def observe(self, agent: str) -> str:
        if not self.history:
            return f"{agent}: {self.task.data['text']}"
        said = list(self.history[-1].responses.values())
        return f"{agent} reads {said[self.possible_agents.index(agent) - 1]}"

    def judge(self, responses: dict[str, str]) -> Outcome:
        texts = list(responses.values())
        parts = [
            (0.4 + 0.3 * i) * sum(text.count(v) for v in "aeiou") - 0.1 * i * len(text)
            for i, text in enumerate(texts)
        ]
        alike = 0.9 * (texts[0][:1] == texts[-1][:1])
        finished = self.ends and (3 * len(texts[0]) + len(texts[-1])) % 3 == 0
        own = {agent: part + alike for agent, part in zip(responses, parts, strict=True)}
        return Outcome({"score": sum(parts) + alike}, own, finished)


class Counter:
    """Stands in for a policy: writes 1, 2, 3, ... over all its answers, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[dict[str, str]]] = []
        self.written = 0

    def generate(
        self,
        conversations: Sequence[list[dict[str, str]]],
        sampling: Any,
        generator: Any,
        n: int = 1,
        batch_size: int = 64,
        on_tokens: Callable[[int], None] | None = None,
    ) -> list[list[Response]]:
        answers = []
        for conversation in conversations:
            self.asked += [conversation] * n
            answers.append([self.next(conversation) for _ in range(n)])
        if on_tokens is not None:
            on_tokens(n * len(conversations))
        return answers

    def next(self, conversation: list[dict[str, str]]) -> Response:
        self.written += 1
        return Response(str(self.written), [self.written], [-1.0], "stop", [len(conversation)])


class Recorder(torch.optim.SGD):
    """Keeps the gradient of every step before it takes it."""

    def __init__(self, policy: Policy, lr: float):
        super().__init__(list(policy.parameters().values()), lr=lr)
        self.policy, self.gradients = policy, list[Gradient]()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        own = self.policy.parameters().items()
        self.gradients.append(Gradient({n: p.grad.clone() for n, p in own}))  # type: ignore[union-attr]
        super().step()


class Keeper(torch.optim.SGD):
    """Keeps the gradients of every step, by the parameters' order, and takes none."""

    def __init__(self, parameters: Sequence[Tensor]):
        super().__init__(list(parameters), lr=0.0)
        self.kept = list[list[Tensor]]()

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.kept.append([p.grad.clone() for p in self.param_groups[0]["params"]])


@torch.no_grad()
def move(parameters: Sequence[Tensor], spread: float, seed: int) -> None:
    """Add noise to parameters."""
    stream = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter += spread * torch.randn(parameter.shape, generator=stream, dtype=parameter.dtype)


class Exact:
    """Teams, experience, the gradients that the package takes, and those that a formula asks for."""

    sampling = SAMPLING
    move = staticmethod(move)

    def __init__(self, model: str):
        self.model = model

    def team(
        self, agents: Sequence[str], model: str | None = None, dtype: str = "float64", **settings: Any
    ) -> Team:
        """A team away from its initial values, of the exact model unless another one is named."""
        return moved_team(agents, model or self.model, dtype=dtype, **settings)

    def rollout(self, env: TextEnv, policies: Any, seed: int = 0) -> Rollout:
        generators = {
            a: torch.Generator().manual_seed(100 * seed + i) for i, a in enumerate(env.possible_agents)
        }
        return Rollout(env, policies, SAMPLING, generators)

    def collect(self, algorithm: Algorithm, env: TextEnv, policies: Any, seed: int = 0) -> list[Node]:
        return algorithm.collect(self.rollout(env, policies, seed), [(7, 0), (8, 1)])

    def gradients(
        self, team: Team, algorithm: Algorithm, roots: list[Node], agent: str, lr: float = 0.0
    ) -> list[Gradient]:
        """Let the package update one agent; the gradient of each optimizer step."""
        optimizer = Recorder(team.policies[agent], lr)
        updater = Updater(team.policies[agent], algorithm, SAMPLING, optimizer, 0.0, 120)
        groups = [g for g in algorithm.credit(roots, list(team.policies)) if g.samples[0].agent == agent]
        metrics = updater.update(groups, np.random.default_rng(0))
        if len(optimizer.gradients) == 1:
            optimizer.gradients[0].loss = metrics["loss"]
        return optimizer.gradients

    def explicit_gradient(self, policy: Policy, rows: Sequence[Row]) -> Gradient:
        """Gradient of - sum over rows of weight * A * log pi(y | h), one response at a time."""
        model, trained = self.ordinary(policy)
        loss = 0.0
        for response, advantage, weight in rows:
            term = -weight * advantage * self.token_logprobs(model, response).sum()
            term.backward()
            loss += float(term.detach())
        gradient = Gradient({name: parameter.grad for name, parameter in trained.items()})  # type: ignore[misc]
        gradient.loss = loss
        return gradient

    def explicit_clipped_gradients(
        self, policy: Policy, rows: Sequence[Row], epochs: int, lr: float, clip: float
    ) -> list[Gradient]:
        """Gradients of - sum of weight * sum over tokens of min(ratio A, clip(ratio) A), epoch after epoch of descent."""
        model, trained = self.ordinary(policy)
        old = [self.token_logprobs(model, response).detach() for response, _, _ in rows]
        gradients, clipped = list[Gradient](), list[bool]()
        for _ in range(epochs):
            model.zero_grad()
            for (response, advantage, weight), before in zip(rows, old, strict=True):
                for ratio in (self.token_logprobs(model, response) - before).exp():
                    value = float(ratio.detach())
                    bounded = min(max(value, 1 - clip), 1 + clip)
                    clipped.append(bounded * advantage < value * advantage)
                    if not clipped[-1]:  # a clipped ratio is a constant
                        (-weight * advantage * ratio).backward(retain_graph=True)
            gradients.append(Gradient({name: p.grad.clone() for name, p in trained.items()}))
            with torch.no_grad():
                for parameter in trained.values():
                    parameter -= lr * parameter.grad
        assert 0.02 < np.mean(clipped[len(clipped) // 2 :]) < 0.98, (
            "some ratios must be clipped and some must not"
        )
        return gradients

    def critics(self, algorithm: Any, team: Team, spread: float = 0.3) -> dict[str, Keeper]:
        """Give an algorithm its critics, away from the values of 0 that they begin with; return optimizers that only
        keep the gradients of each step."""
        algorithm.setup(team, 5)
        keepers = {}
        for k, (name, critic) in enumerate(algorithm.critics.items()):
            move(critic.parameters(), spread, seed=90 + k)
            if name in algorithm.optimizers:
                keepers[name] = algorithm.optimizers[name] = Keeper(critic.parameters())
        return keepers

    def explicit_values(self, critic: Any) -> Callable[[list[int], list[int]], list[float]]:
        """Return a function of a prompt and tokens: V before each token, from the library's own hidden states."""
        model, _ = self.ordinary(critic.trunk)
        inner, outer = critic.head.inner, critic.head.outer

        @torch.no_grad()
        def values(prompt_ids: list[int], token_ids: list[int]) -> list[float]:
            ids = torch.tensor([prompt_ids + token_ids])
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
            at = states[len(prompt_ids) - 1 : len(prompt_ids) - 1 + len(token_ids)]
            return (torch.tanh(at @ inner.weight.T + inner.bias) @ outer.weight[0] + outer.bias[0]).tolist()

        return values

    @staticmethod
    def played(roots: list[Node]) -> list[list[tuple[Node, int]]]:
        """Every episode of chains, turn by turn: the node, and the episode's place there."""
        found = []
        for root in roots:
            for member in range(len(root.rewards)):
                path, after = [], (root, member)
                while after is not None:
                    path.append(after)
                    after = after[0].continuations[after[1]]  # type: ignore[assignment]
                found.append(path)
        return found

    @staticmethod
    def ordinary(policy: Policy) -> tuple[Any, dict[str, Any]]:
        """A copy of the policy's network that attends by the library's own code, and its trained parameters."""
        network = copy.deepcopy(policy.network)
        model = network.get_base_model() if isinstance(network, PeftModel) else network
        model.set_attn_implementation("sdpa")
        if isinstance(network, PeftModel):
            network.set_adapter(policy.parameter_set)
        own = dict(model.named_parameters())
        return model, {name: own[name] for name in policy.parameters()}

    @staticmethod
    def token_logprobs(model: Any, response: Response) -> Tensor:
        """log pi(y_t | h, y_<t) of each token, from a full forward pass and a full softmax."""
        logits = model(input_ids=torch.tensor([response.prompt_ids + response.token_ids])).logits[0]
        start = len(response.prompt_ids) - 1
        logprobs = (logits[start : start + len(response.token_ids)] / SAMPLING.temperature).log_softmax(-1)
        return logprobs[torch.arange(len(response.token_ids)), torch.tensor(response.token_ids)]

    @staticmethod
    def assert_equal(actual: Gradient, expected: Gradient, tolerance: float) -> None:
        """Compare to a share of the largest entry, and the loss to as large a share of its own size (or of 1 nat)."""
        assert actual.keys() == expected.keys()
        if (
            isinstance(actual, Gradient)
            and isinstance(expected, Gradient)
            and None not in (actual.loss, expected.loss)
        ):
            assert actual.loss == pytest.approx(expected.loss, rel=tolerance, abs=tolerance)
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        assert largest > 1e-4, "a gradient of zero would prove nothing"
        error = max(float((actual[name] - expected[name]).abs().max()) for name in expected)
        assert error <= tolerance * largest, f"off by {error / largest:.1e} of the largest entry"


@pytest.fixture(scope="module")
def exact(phi: str) -> Exact:
    return Exact(phi)


@pytest.fixture(scope="session")
def syllables() -> type[Syllables]:
    return Syllables


@pytest.fixture(scope="session")
def counter() -> type[Counter]:
    return Counter
