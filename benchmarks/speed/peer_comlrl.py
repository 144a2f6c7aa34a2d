"""The rows of CoMLRL's MAGRPO, run by the Python that has it: `python peer_comlrl.py < request.json`.

What it is given, and why:

- its trainer, `MAGRPOTrainer.train`, unchanged: phases are timed around its own methods;
- `top_p=1`, `top_k=0`, temperature 1: no sorting of the vocabulary, the cheapest that it has;
- `rollout_buffer_size` and `train_batch_size` are the tasks of a step: one optimizer step each step, as everyone;
- a padding token that stands in no prompt: with the tokenizer's own, which ends every turn of its template, the
  prompt would be cut at its first turn and every response would have length 0;
- models handed over as objects, which it accepts as it does names: so that they can hold LoRA adapters, and have no
  end-of-sequence token in their generation settings;
- one task warms up, whatever the step has: it works on one task after the other, each in the same way.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import Any

os.environ.setdefault("WANDB_MODE", "disabled")

import torch
from comlrl.trainers.reinforce import MAGRPOConfig, MAGRPOTrainer  # type: ignore[import-not-found]
from comlrl.trainers.reinforce.magrpo import NodeSample  # type: ignore[import-not-found]
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from work import (  # type: ignore[import-not-found]  # beside this file
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    TEMPERATURE,
    Clock,
    Work,
    read_request,
    reward,
    seconds_of,
    write_answer,
)

FREE_TOKEN = "<|endoftext|>"


def load(work: Work) -> torch.nn.Module:
    """Load one agent's model; every agent has a whole one."""
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=getattr(torch, work.dtype))
    model.generation_config.eos_token_id = None
    if work.tuning == "lora":
        lora = LoraConfig(
            r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, lora)
    return model


def team_reward(*completions: list[str], **_: Any) -> list[float]:
    """Everyone's reward in the form that it wants: a list of texts per agent, a list of rewards."""
    return [reward(texts) for texts in zip(*completions, strict=True)]


def make_trainer(work: Work) -> MAGRPOTrainer:
    """Make a trainer; its data sets come later."""
    tokenizer = AutoTokenizer.from_pretrained(work.model)
    tokenizer.pad_token = FREE_TOKEN

    def formatter(index: int) -> Any:
        def write(item: dict[str, Any]) -> str:
            return str(
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": item["prompts"][index]}],
                    add_generation_prompt=True,
                    tokenize=False,
                )
            )

        return write

    config = MAGRPOConfig(
        num_train_epochs=1,
        agent_learning_rate=LEARNING_RATE,
        num_agents=work.agents,
        num_generations=work.group,
        max_new_tokens=work.new_tokens,
        temperature=TEMPERATURE,
        top_p=1.0,
        top_k=0,
        num_turns=1,
        eval_interval=0,
        rollout_buffer_size=work.tasks,
        train_batch_size=work.tasks,
        agent_devices="cpu",
    )
    return MAGRPOTrainer(
        agents=[load(work) for _ in range(work.agents)],
        num_agents=work.agents,
        tokenizer=tokenizer,
        reward_func=team_reward,
        formatters=[formatter(index) for index in range(work.agents)],
        args=config,
    )


def check_lengths(trainer: MAGRPOTrainer, work: Work) -> None:
    """Make sure that the loss is computed on every prompt and response in full."""
    original = trainer._compute_loss_with_gradients

    def checked(agent: Any, data: dict[str, Any], returns: list[float]) -> Any:
        prompt = data["prompt_input_ids"].shape[1]
        lengths = [len(tokens) for tokens in data["completion_input_ids"][0]]
        if prompt != work.prompt_tokens or lengths != [work.new_tokens] * work.group:
            raise RuntimeError(f"comlrl trains on a prompt of {prompt} and responses of {lengths} tokens")
        return original(agent, data, returns)

    trainer._compute_loss_with_gradients = checked


def step(work: Work, prompts: list[list[str]]) -> dict[str, Any]:
    """One step, after one on a single task that warms up."""
    trainer = make_trainer(work)
    check_lengths(trainer, work)
    generate, score = trainer._generate_completions, trainer._compute_rewards
    data = Dataset.from_list([{"prompts": own} for own in prompts])
    trainer.train_dataset = data.select([0])
    trainer.train()

    clock = Clock()
    trainer._generate_completions = clock.timed("generation", generate)
    trainer._compute_rewards = clock.timed("reward", score)
    trainer.train_dataset = data
    began = time.perf_counter()
    trainer.train()
    return {"seconds": clock.split(time.perf_counter() - began)}


def update(work: Work, prompts: list[list[str]], repeats: int) -> dict[str, Any]:
    """Its own loss, backward pass and optimizer step of one agent, after one that warms up."""
    trainer = make_trainer(work)
    check_lengths(trainer, work)
    draw = torch.Generator().manual_seed(0)
    samples = []
    for own in prompts:
        text = trainer.formatters[0]({"prompts": own})
        ids = trainer.tokenizer(text, return_tensors="pt").input_ids
        responses = torch.randint(
            3, len(trainer.tokenizer) - 1, (work.group, work.new_tokens), generator=draw
        )
        data = {"prompt_input_ids": ids, "completion_input_ids": [list(responses)], "reference_kls": []}
        samples.append(NodeSample(0, 0, data, torch.rand(work.group, generator=draw).tolist(), 0.0, 0.0, 0))
    trainer._update_from_samples(0, list(samples))
    return {
        "seconds": statistics.median(
            seconds_of(lambda: trainer._update_from_samples(0, list(samples))) for _ in range(repeats)
        )
    }


def main() -> None:
    """Measure what the request asks for."""
    work, request = read_request()
    if request["kind"] == "step":
        answer = step(work, request["prompts"])
    else:
        answer = update(work, request["prompts"], request["repeats"])
    write_answer(request, {**answer, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    main()
