"""Small random language models, saved in folders, and the teams that tests of algorithms train from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
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

from textmarl.agents import Team, TeamConfig


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


@pytest.fixture(scope="session")
def make_team() -> Callable[..., Team]:
    """Makes teams whose trained parameters are away from their initial values: LoRA begins with B = 0."""

    def make(model: str | list[str], tuning: str = "lora", dtype: str = "float64", **settings: Any) -> Team:
        config = TeamConfig(model=model, tuning=tuning, lora_rank=4, dtype=dtype, device="cpu", **settings)  # type: ignore[arg-type]
        team = Team.create(["left", "right"], config)
        scale = 0.1 if tuning == "lora" else 0.02
        for index, policy in enumerate(team.policies.values()):
            generator = torch.Generator().manual_seed(index)
            with torch.no_grad():
                for parameter in policy.parameters().values():
                    parameter += scale * torch.randn(
                        parameter.shape, generator=generator, dtype=parameter.dtype
                    )
        return team

    return make
