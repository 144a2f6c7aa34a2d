"""What the machine allows one decoding step: its bare matrix products, and its cache read once; and the products of a step.

    python -m textmarl.benchmarks.speed.floor < request.json

Every layer has weights of its own, as in the model: a benchmark of one layer over and over would find them in the
processor's cache. Nothing else is counted: no normalisation, no rotary positions, no softmax, no sampling.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoConfig, PretrainedConfig

from textmarl.agents.models import load_model, smollm2_folder
from textmarl.algos.config import TrainerConfig
from textmarl.benchmarks.speed.work import Work, read_request, write_answer

#: A linear layer: (inputs, outputs).
Shape = tuple[int, int]


def head_dim(config: PretrainedConfig) -> int:
    """Return the width of one attention head."""
    own = config.to_dict().get("head_dim")
    return int(own or config.hidden_size // config.num_attention_heads)


def layer_shapes(config: PretrainedConfig) -> dict[str, Shape]:
    """Return the products of one layer of a Llama-like decoder."""
    width, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * head_dim(config)
    keys = config.num_key_value_heads * head_dim(config)
    return {
        "q_proj": (width, queries),
        "k_proj": (width, keys),
        "v_proj": (width, keys),
        "o_proj": (queries, width),
        "gate_proj": (width, inner),
        "up_proj": (width, inner),
        "down_proj": (inner, width),
    }


def step_shapes(config: PretrainedConfig) -> list[Shape]:
    """Return all products of one decoding step: every layer's, and the head's."""
    layers = list(layer_shapes(config).values()) * config.num_hidden_layers
    return [*layers, (config.hidden_size, config.vocab_size)]


def product_seconds(
    shapes: list[Shape], batch: int, dtype: torch.dtype, repeats: int, gradients: Sequence[str] = ()
) -> float:
    """Return the median seconds of all products for ``batch`` rows.

    Args:
        shapes: The layers.
        batch: Rows.
        dtype: Of everything.
        repeats: Times, after three that are not counted.
        gradients: Of ``"inputs"`` and ``"weights"``, the products of the backward pass that are made as well.
    """
    weights = [torch.randn(outputs, inputs).to(dtype) for inputs, outputs in shapes]
    rows = {width: torch.randn(batch, width).to(dtype) for width in {w for shape in shapes for w in shape}}

    def products() -> float:
        began = time.perf_counter()
        for weight in weights:
            outputs, inputs = weight.shape
            functional.linear(rows[inputs], weight)
            if "inputs" in gradients:
                torch.mm(rows[outputs], weight)
            if "weights" in gradients:
                torch.mm(rows[outputs].T, rows[inputs])
        return time.perf_counter() - began

    with torch.inference_mode():
        for _ in range(3):
            products()
        return statistics.median(products() for _ in range(repeats))


def bandwidth(mebibytes: int = 512, repeats: int = 7) -> float:
    """Return the bytes a second that are read from memory: the faster of a dot product and a sum."""
    x = torch.ones(mebibytes * 2**20 // 8)
    y = torch.ones_like(x)
    rates = []
    with torch.inference_mode():
        for _ in range(repeats):
            began = time.perf_counter()
            torch.dot(x, y)
            rates.append(2 * x.nbytes / (time.perf_counter() - began))
            began = time.perf_counter()
            x.sum()
            rates.append(x.nbytes / (time.perf_counter() - began))
    return max(rates)


def cache_bytes(config: PretrainedConfig, work: Work, bytes_per_number: int) -> int:
    """Return what one decoding step reads of the cache: prompts stored once per group, responses half written."""
    tokens = work.agents * work.tasks * work.prompt_tokens + work.responses * work.new_tokens // 2
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim(config)
    return tokens * per_token * bytes_per_number


def measure(work: Work, config: PretrainedConfig, repeats: int) -> dict[str, Any]:
    """Measure the floor of a decoding step of ``work``."""
    dtype = getattr(torch, work.dtype)
    products = product_seconds(step_shapes(config), work.responses, dtype, repeats)
    rate = bandwidth()
    read = cache_bytes(config, work, dtype.itemsize)
    return {
        "product_seconds": products,
        "bytes_per_second": rate,
        "cache_bytes": read,
        "cache_seconds": read / rate,
        "seconds": products + read / rate,
    }


def step_products(
    work: Work, config: PretrainedConfig, micro_batch_tokens: int, repeats: int
) -> dict[str, Any]:
    """Measure the bare matrix products of a whole training step of ``work``, each prompt computed once for its group.

    Prompts are encoded; every token but the first is decoded; prompts and responses pass forward and backward, in
    micro-batches. Adapters share the base: one product for all agents' rows, and no gradients of the base's weights. Of
    the head, only the trained tokens are counted. Left out: adapters, attention, and whatever is no product.
    """
    dtype, shared = getattr(torch, work.dtype), work.tuning == "lora"
    layers, head = step_shapes(config)[:-1], step_shapes(config)[-1]
    teams = 1 if shared else work.agents  # that pass one after the other
    gradients = ("inputs",) if shared else ("inputs", "weights")

    def seconds(shapes: list[Shape], rows: int, largest: int, gradients: Sequence[str] = ()) -> float:
        parts = -(-rows // largest)
        return parts * product_seconds(shapes, round(rows / parts), dtype, repeats, gradients)

    prompts, responses = work.agents * work.tasks * work.prompt_tokens, work.responses
    prefill = teams * seconds(layers, prompts // teams, 8192)
    decode = teams * (work.new_tokens - 1) * seconds([*layers, head], responses // teams, responses)
    tokens = (prompts + work.tokens) // work.agents
    update = work.agents * (
        seconds(layers, tokens, micro_batch_tokens, gradients)
        + seconds([head], work.tokens // work.agents, 256, gradients)
    )
    return {
        "prefill_seconds": prefill,
        "decode_seconds": decode,
        "update_seconds": update,
        "seconds": prefill + decode + update,
    }


def load_config(model: str) -> PretrainedConfig:
    """Return the configuration of a preset or a folder."""
    if model == "tiny":
        return load_model("tiny")[0].config
    return AutoConfig.from_pretrained(smollm2_folder() if model == "smollm2-135m" else model)


def main() -> None:
    """Measure what the request asks for."""
    work, request = read_request()
    config, repeats = load_config(work.model), request["repeats"]
    if request["kind"] == "products":
        answer = step_products(work, config, TrainerConfig().micro_batch_tokens, repeats)
    else:
        answer = measure(work, config, 10 * repeats)
    write_answer(request, {**answer, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    main()
