"""The routes of vLLM's API that training with a server uses, on a small model: adapters by name, and completions.

It samples by plain forward passes over the whole text, and shares no code with the package.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

Answer = dict[str, Any] | tuple[int, dict[str, Any]]


class MockVLLM:
    """Serves a base model with adapters; `server.routes` gets its routes."""

    def __init__(self, model: PreTrainedModel, server: Any):
        self.model = model
        self.network: PeftModel | None = None
        self.adapters: dict[str, dict[str, torch.Tensor]] = {}
        self.loaded: list[str] = []
        self.unloaded: list[str] = []
        self.max_lora_rank = 16
        self.lora_enabled = True
        self.logprobs_mode = "processed_logprobs"
        self.lock = threading.Lock()
        server.routes |= {
            "/v1/load_lora_adapter": self.load,
            "/v1/unload_lora_adapter": self.unload,
            "/v1/completions": self.complete,
        }

    def load(self, body: dict[str, Any]) -> Answer:
        name, folder = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters:
            return refusal(400, f"The lora adapter '{name}' has already been loaded.")
        if not self.lora_enabled:
            return refusal(500, "LoRA is not enabled.")
        if not (folder / "adapter_config.json").is_file():
            return refusal(404, f"Loading lora {name} failed: No adapter found for {folder}")
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        if rank > self.max_lora_rank:
            return refusal(500, f"LoRA rank {rank} is greater than max_lora_rank {self.max_lora_rank}.")
        with self.lock:
            if self.network is None:
                self.network = get_peft_model(self.model, LoraConfig.from_pretrained(folder), "served").eval()
            self.adapters[name] = load_file(folder / "adapter_model.safetensors")
            self.loaded.append(name)
        return {"said": f"Success: LoRA adapter '{name}' added successfully."}

    def unload(self, body: dict[str, Any]) -> Answer:
        name = body["lora_name"]
        with self.lock:
            if self.adapters.pop(name, None) is None:
                return refusal(404, f"The lora adapter '{name}' cannot be found.")
            self.unloaded.append(name)
        return {"said": f"Success: LoRA adapter '{name}' removed successfully."}

    def complete(self, body: dict[str, Any]) -> Answer:
        with self.lock, torch.no_grad():
            if body["model"] not in self.adapters or self.network is None:
                return refusal(404, f"The model `{body['model']}` does not exist.")
            result = set_peft_model_state_dict(self.network, self.adapters[body["model"]], "served")
            assert not result.unexpected_keys
            return {"choices": [self.choice(body, index) for index in range(body["n"])]}

    def choice(self, body: dict[str, Any], index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(body["seed"] + index)
        ids: list[int] = []
        logprobs: list[float] = []
        finish = "length"
        while len(ids) < body["max_tokens"] and finish == "length":
            logits = self.network(torch.tensor([body["prompt"] + ids])).logits[0, -1].double()  # type: ignore[misc]
            scaled = logits / body["temperature"]
            if body["top_k"] > 0:
                scaled[scaled < scaled.topk(body["top_k"]).values[-1]] = -torch.inf
            ids.append(int(torch.multinomial(scaled.softmax(-1), 1, generator=generator)))
            seen = scaled if self.logprobs_mode == "processed_logprobs" else logits
            logprobs.append(float(seen.log_softmax(-1)[ids[-1]]))
            finish = "stop" if ids[-1] in body["stop_token_ids"] else "length"
        return {
            "index": index,
            "text": "",
            "finish_reason": finish,
            "token_ids": ids,
            "prompt_token_ids": body["prompt"],
            "logprobs": {"token_logprobs": logprobs},
        }


def refusal(status: int, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"message": message, "type": "Error", "param": None, "code": status}}
