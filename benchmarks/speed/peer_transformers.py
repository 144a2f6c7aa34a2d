"""`transformers`' own `generate` with the same weights, the rows that our generation is compared with.

    python -m textmarl.benchmarks.speed.peer_transformers < request.json

With adapters (one agent's, by peft) or without, as the row that it is compared with.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig

from textmarl.agents.models import load_model
from textmarl.agents.team import add_adapter
from textmarl.benchmarks.speed.ours import decoding, team_config
from textmarl.benchmarks.speed.work import TEMPERATURE, Work, read_request, seconds_of, write_answer


def generation(work: Work, prompts: list[list[str]], repeats: int) -> dict[str, Any]:
    """Sample ``group`` responses to each prompt, padded on the left where prompts differ in length."""
    model, tokenizer = load_model(work.model, work.dtype, "cpu")
    if work.tuning == "lora":
        model = add_adapter(model, "agent_0", team_config(work), 0)
    tokenizer.padding_side = "left"
    texts = [own[0] for own in prompts]
    if tokenizer.chat_template is not None:
        texts = [
            str(
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
                )
            )
            for text in texts
        ]
    encoded = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    model.generation_config = GenerationConfig()

    def generate(new_tokens: int) -> float:
        with torch.inference_mode():
            return seconds_of(
                lambda: model.generate(
                    input_ids=encoded["input_ids"],
                    attention_mask=encoded["attention_mask"],
                    do_sample=True,
                    temperature=TEMPERATURE,
                    top_k=0,
                    top_p=1.0,
                    num_return_sequences=work.group,
                    max_new_tokens=new_tokens,
                    pad_token_id=0,
                    eos_token_id=None,
                )
            )

    return decoding(generate, work, repeats)


def main() -> None:
    """Measure what the request asks for."""
    work, request = read_request()
    answer = generation(work, request["prompts"], request["repeats"])
    write_answer(request, {**answer, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    main()
