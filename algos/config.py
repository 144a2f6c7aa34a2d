"""How a run is set: the trainer's settings, and which settings go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from pettingzoo import ParallelEnv

from textmarl.agents.connection import checked_url
from textmarl.agents.sampling import Sampling
from textmarl.agents.team import TeamConfig
from textmarl.algos.algorithm import Algorithm
from textmarl.envs.instances import Instances, name_of

Schedule = Literal["constant", "linear", "cosine"]

#: What may differ when a run is continued: nothing of it changes a result (but for rounding, and for which responses a
#: server draws from the same distribution).
FREE_SETTINGS = (
    "generation_server",
    "adapter_folder",
    "threads",
    "micro_batch_tokens",
    "rollout_batch_size",
    "checkpoint_every",
    "keep_checkpoints",
    "samples_every",
)


@dataclass
class TrainerConfig:
    """How long and how fast to train, what to measure and what to keep."""

    steps: int = 40
    """Training steps."""
    tasks_per_step: int = 2
    """Tasks whose experience makes one update."""
    learning_rate: float = 3e-4
    """Of AdamW, after the warm-up. 3e-4 suits LoRA; full weights want about 1e-5."""
    warmup_steps: int = 5
    """Steps over which the learning rate rises linearly to its value."""
    schedule: Schedule = "constant"
    """What the learning rate does after the warm-up: stay, or fall so as to be 0 a step after the last."""
    weight_decay: float = 0.0
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Each agent's gradient is clipped to this norm; 0 does not clip."""
    micro_batch_tokens: int = 1024
    """Tokens in one forward and backward pass, a prompt once for its group: bounds the memory of the update, not its
    result. Two CPU cores are busy with 1024; a GPU may want more."""
    rollout_batch_size: int = 64
    """Responses decoded at once."""
    eval_every: int = 0
    """Evaluate on held-out tasks every so many steps; before and after training it is always done."""
    eval_tasks: int = 32
    """Held-out tasks of an evaluation (the first so many); 0 evaluates never."""
    eval_samples: int = 4
    """Episodes of each held-out task."""
    eval_batch_size: int = 64
    """Episodes played at once in evaluation."""
    checkpoint_every: int = 5
    """Steps between checkpoints; the last step always has one."""
    keep_checkpoints: int = 2
    """Older checkpoints are deleted."""
    kl_every: int = 5
    """Measure KL to the initial policy every so many steps; 0 never."""
    samples_every: int = 1
    """Keep a transcript every so many steps; 0 never."""
    seed: int = 0
    """Of task order, sampling, mini-batches and evaluation."""
    generation_server: str | None = None
    """Address of a vLLM server (http://localhost:8000/v1) that samples the responses of training; none: this process
    does. Adapters only (team.tuning lora). Scoring, updates and evaluation stay here. See docs/engine.md."""
    adapter_folder: str | None = None
    """Where adapters are written for the server, which must see it under the same path; none: inside the run."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's own choice. Bit-for-bit equal runs need equal numbers."""

    def __post_init__(self) -> None:
        positive = (
            "tasks_per_step", "micro_batch_tokens", "rollout_batch_size", "eval_samples", "eval_batch_size",
            "checkpoint_every", "keep_checkpoints",
        )  # fmt: skip
        for name in positive:
            if vars(self)[name] < 1:
                raise ValueError(f"trainer.{name} must be at least 1, got {vars(self)[name]}")
        for name in (
            "steps",
            "warmup_steps",
            "eval_every",
            "eval_tasks",
            "kl_every",
            "samples_every",
            "threads",
        ):
            if vars(self)[name] < 0:
                raise ValueError(f"trainer.{name} must not be negative, got {vars(self)[name]}")
        if self.generation_server is not None:
            checked_url(self.generation_server)
        elif self.adapter_folder is not None:
            raise ValueError("trainer.adapter_folder is for trainer.generation_server, which is not set")
        if self.seed < 0:
            raise ValueError(f"trainer.seed must not be negative, got {self.seed}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"trainer.learning_rate must be a positive number, got {self.learning_rate}")
        if not (self.max_grad_norm >= 0 and self.weight_decay >= 0):
            raise ValueError(
                "trainer.max_grad_norm (0: no clipping) and trainer.weight_decay must not be negative, got "
                f"{self.max_grad_norm} and {self.weight_decay}"
            )
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"trainer.schedule must be one of {get_args(Schedule)}, got {self.schedule!r}")

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of training step ``step`` (1, 2, ...)."""
        if step <= self.warmup_steps:
            return self.learning_rate * step / self.warmup_steps
        remaining = (self.steps - step + 1) / max(self.steps - self.warmup_steps, 1)
        if self.schedule == "linear":
            return self.learning_rate * remaining
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 - math.cos(math.pi * remaining))
        return self.learning_rate


def validate_run(
    algorithm: Algorithm,
    agents: list[str],
    team: TeamConfig,
    sampling: Sampling,
    env: ParallelEnv | Instances | None = None,
) -> None:
    """Refuse settings that do not go together, before any model is loaded.

    Args:
        algorithm: Its settings.
        agents: Of the environment, trained or not.
        team: Its settings; partners are told by ``team.partners``.
        sampling: Of the rollouts.
        env: The environment; whether it can be copied half way is tried only where the algorithm has to.

    Raises:
        ValueError: Says which setting, and what to do.
    """
    algorithm.validate(agents)
    algorithm.validate_learners(team.learners(agents))
    if env is not None:
        instances = env if isinstance(env, Instances) else Instances(env)
        algorithm.validate_environment(instances.env)
        instances.check()
        if algorithm.copies_episodes and instances.obstacle is not None:
            raise ValueError(
                f"the algorithm plays on several times from one history, and the environment {name_of(instances.env)} "
                f"cannot be copied half way through an episode ({instances.obstacle}). Use chains, which play every "
                "episode in an instance of its own (algo.branching chain with aligned joint actions; or algo igrpo), or "
                "give the environment a __deepcopy__"
            )
    if sampling.temperature == 0:
        raise ValueError(
            "sampling.temperature 0 is greedy: a group's responses would all be equal. Use 0.7, or 1"
        )
    no_reference = team.reference == "none" or (team.tuning == "full" and team.reference != "copy")
    if algorithm.plays_initial_policies and no_reference:
        raise ValueError(
            "the algorithm plays with the initial policies and the team keeps none: with full weights set "
            "team.reference to copy, with LoRA to adapter-off, or choose other partners"
        )
    if algorithm.needs_reference and no_reference:
        raise ValueError(
            "the algorithm asks for KL to a reference policy and the team keeps none: with full weights set "
            "team.reference to copy, with LoRA to adapter-off, or leave the KL out (kl_coef 0)"
        )


def refuse_unserved(team: TeamConfig, trainer: TrainerConfig) -> None:
    """Refuse a team whose responses a server with adapters cannot sample, if one is to sample.

    Raises:
        ValueError: Full weights, or several base models.
    """
    if trainer.generation_server is None:
        return
    if team.tuning == "full":
        raise ValueError(
            "trainer.generation_server samples with adapters on one base, and team.tuning full changes the base itself "
            "at every step; set team.tuning to lora, or leave trainer.generation_server out"
        )
    models = set([team.model] if isinstance(team.model, str) else team.model)
    if len(models) > 1:
        raise ValueError(
            f"trainer.generation_server serves one base model, and the team has {len(models)} ({', '.join(sorted(models))}); "
            "give all agents one team.model, or leave trainer.generation_server out"
        )
