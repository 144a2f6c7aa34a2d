"""One agent's step by TRL's `GRPOTrainer`, run by the Python that has it: `python peer_trl.py < request.json`.

TRL trains one policy, so a team is a run for each agent, and their times add up. What it is given, and why:

- its trainer unchanged: phases are timed around its own methods, the step from one end of a step to the next;
- no KL (`beta=0`, its default) and one update per rollout: it then scores nothing before the update;
- `min_new_tokens`, its way to keep end-of-sequence away; it masks whatever follows that token;
- no gradient checkpointing, which it has on by default: that would compute the forward pass twice;
- one task a micro-batch, the tasks added up in one optimizer step;
- in bfloat16 the base is loaded in bfloat16, with its own mixed precision (`bf16=True`, its default) on top: faster, and
  smaller, than without; in float32 neither.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer  # type: ignore[import-not-found]
from work import (  # type: ignore[import-not-found]  # beside this file
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    TEMPERATURE,
    Clock,
    Work,
    read_request,
    reward,
    write_answer,
)


class StepTimer(TrainerCallback):
    """When each step ended; the clock begins anew after the step that warms up."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())
        if len(self.ends) == 1:
            self.clock.seconds = dict.fromkeys(self.clock.seconds, 0.0)


def own_reward(completions: list[Any], **_: Any) -> list[float]:
    """Everyone's reward in the form that it wants; a completion of a conversation is a list of messages."""
    return [reward([completion[0]["content"]]) for completion in completions]


def step(work: Work, prompts: list[list[str]], agent: int) -> dict[str, Any]:
    """One step of one agent, after one that warms up."""
    clock = Clock()
    timer = StepTimer(clock)
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": own[agent]}]} for own in prompts])
    lora = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            max_steps=2,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=work.group,
            gradient_accumulation_steps=work.tasks,
            num_generations=work.group,
            max_completion_length=work.new_tokens,
            temperature=TEMPERATURE,
            generation_kwargs={"min_new_tokens": work.new_tokens},
            model_init_kwargs={"dtype": work.dtype},
            bf16=work.dtype == "bfloat16",
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=work.model,
            reward_funcs=own_reward,
            args=config,
            train_dataset=data,
            peft_config=lora if work.tuning == "lora" else None,
            callbacks=[timer],
        )
        watch(trainer, clock, work)
        trainer.train()
    return {"seconds": clock.split(timer.ends[1] - timer.ends[0])}


def watch(trainer: GRPOTrainer, clock: Clock, work: Work) -> None:
    """Time its phases, and make sure that every response is trained on in full."""
    collect, score = trainer._generate_and_score_completions, trainer._get_per_token_logps_and_entropies
    collecting = False

    def collected(*args: Any, **kwargs: Any) -> Any:
        nonlocal collecting
        collecting = True
        output = collect(*args, **kwargs)
        collecting = False
        shapes = output["prompt_mask"].sum(1).tolist(), output["completion_mask"].sum(1).tolist()
        wanted = [work.prompt_tokens] * work.tasks * work.group, [work.new_tokens] * work.tasks * work.group
        if shapes != wanted:
            raise RuntimeError(f"TRL trains on prompts and responses of {shapes} tokens, expected {wanted}")
        return output

    def scored(*args: Any, **kwargs: Any) -> Any:
        if not collecting:
            return score(*args, **kwargs)
        with clock.phase("scoring"):
            return score(*args, **kwargs)

    trainer._generate_and_score_completions = collected
    trainer._get_per_token_logps_and_entropies = scored
    trainer._generate = clock.timed("generation", trainer._generate)
    trainer._calculate_rewards = clock.timed("reward", trainer._calculate_rewards)


def main() -> None:
    """Measure what the request asks for."""
    work, request = read_request()
    answer = step(work, request["prompts"], request["agent"])
    write_answer(request, {**answer, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    main()
