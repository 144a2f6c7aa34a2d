"""Small random language models that tests of the language-model side share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

CHARACTERS = "abcdefgh ?"
SIZE: dict[str, Any] = {
    "vocab_size": 12,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
WITHOUT_KV_HEADS = {k: v for k, v in SIZE.items() if k not in ("num_key_value_heads", "intermediate_size")}

# Sliding windows of 4 tokens are shorter than every test's prompts.
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZE, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZE, head_dim=16)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SIZE, head_dim=8, tie_word_embeddings=False)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**WITHOUT_KV_HEADS, n_positions=128)),
    "gemma2": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZE, head_dim=8, sliding_window=4, final_logit_softcapping=2.0)
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZE, sliding_window=4)),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., PreTrainedModel]:
    """Return a function: family -> a fresh model, always with the same random weights."""

    def make(family: str) -> PreTrainedModel:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = FAMILIES[family]().eval()
            if family == "gpt2":  # it begins with biases of 0, which would hide a mistake
                for name, parameter in model.named_parameters():
                    if name.endswith("bias"):
                        torch.nn.init.normal_(parameter, std=0.1)
        model.generation_config.eos_token_id = 1
        model.generation_config.pad_token_id = 0
        return model

    return make


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """Return a function: padding token, chat template -> a tokenizer of 10 characters, <pad> and <end>."""

    def make(pad: str = "<pad>", template: str | None = None) -> PreTrainedTokenizerFast:
        vocabulary = {token: index for index, token in enumerate(["<pad>", "<end>", *CHARACTERS])}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
        tokenizer.decoder = decoders.Fuse()
        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token=pad, eos_token="<end>", clean_up_tokenization_spaces=False
        )
        wrapped.chat_template = template
        return wrapped

    return make


@pytest.fixture
def save_folder(
    tmp_path: Path, make_model: Callable[..., PreTrainedModel], make_tokenizer: Callable[..., Any]
) -> Callable[..., Path]:
    """Return a function: family and the tokenizer's settings -> a folder that load_model loads."""

    def save(family: str = "llama", **tokenizer: Any) -> Path:
        folder = tmp_path / f"model-{family}"
        make_model(family).save_pretrained(folder)
        make_tokenizer(**tokenizer).save_pretrained(folder)
        return folder

    return save
