"""Our rows: one measurement a process, asked for on the standard input.

python -m textmarl.benchmarks.speed.ours < request.json
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from textmarl.agents.sampling import Sampling
from textmarl.agents.team import Team, TeamConfig, random_stream
from textmarl.algos import MAGRPO, Group, Observer, Rollout, Sample, Trainer, TrainerConfig
from textmarl.algos.update import Updater
from textmarl.benchmarks.speed.profiled import decoding_profile
from textmarl.benchmarks.speed.work import (
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    TEMPERATURE,
    Work,
    peak_memory_gib,
    read_request,
    reward,
    seconds_of,
    write_answer,
)
from textmarl.envs import Outcome, TaskSet, TextEnv


class SameWork(TextEnv):
    """Every agent reads a prompt of its own and is rewarded by the function that everyone is rewarded by."""

    def __init__(self, prompts: Sequence[Sequence[str]]) -> None:
        self.possible_agents = [f"agent_{index}" for index in range(len(prompts[0]))]
        super().__init__(TaskSet.of([{"prompts": list(own)} for own in prompts], name="same work"))

    def observe(self, agent: str) -> str:
        """The agent's prompt."""
        return str(self.task.data["prompts"][self.possible_agents.index(agent)])

    def judge(self, responses: dict[str, str]) -> Outcome:  # type: ignore[override]
        """The reward."""
        return Outcome({"score": reward([responses[agent] for agent in self.possible_agents])})


class Done(Exception):
    """Ends a run after the step that was measured: what comes after (a checkpoint) is no part of it."""


class Watch(Observer):
    """Keeps the metrics of the last of ``steps`` steps and ends the run."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.metrics: dict[str, float] = {}

    def step(self, step: int, total: int, metrics: dict[str, float]) -> None:
        """Look at a step's metrics."""
        if step == self.steps:
            self.metrics = {**metrics, "peak_gib": peak_memory_gib()}
            raise Done


def team_config(work: Work) -> TeamConfig:
    """Return what the policies are made of."""
    return TeamConfig(
        model=work.model,
        tuning=work.tuning,  # type: ignore[arg-type]
        dtype=work.dtype,
        lora_rank=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        device="cpu",
    )


def make_team(work: Work) -> Team:
    """Load the policies; they never stop before the last token, and adapters are not the zeros they begin as."""
    team = Team.create([f"agent_{index}" for index in range(work.agents)], team_config(work))
    draw = random_stream(1)
    for policy in team.policies.values():
        policy.stop_ids = frozenset()
        if policy.has_adapter:
            with torch.no_grad():
                for parameter in policy.parameters().values():
                    noise = torch.randn(parameter.shape, generator=draw)
                    parameter.add_(noise.to(parameter), alpha=1e-3)
    return team


def sampling_of(work: Work, new_tokens: int | None = None) -> Sampling:
    """How everyone samples."""
    return Sampling(temperature=TEMPERATURE, max_new_tokens=new_tokens or work.new_tokens)


def step(work: Work, prompts: list[list[str]]) -> dict[str, Any]:
    """A whole MAGRPO step as the trainer makes it, after one that warms up."""
    warm_up = 1
    watch = Watch(warm_up + 1)
    config = TrainerConfig(
        steps=warm_up + 1,
        tasks_per_step=work.tasks,
        learning_rate=LEARNING_RATE,
        eval_tasks=0,
        kl_every=0,
        samples_every=0,
        checkpoint_every=1000,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            SameWork(prompts),
            make_team(work),
            MAGRPO(group_size=work.group),
            config,
            sampling_of(work),
            run=f"{folder}/run",
            observer=watch,
        )
        with contextlib.suppress(Done):
            trainer.train()
    found = watch.metrics
    if found["generated_tokens"] != work.tokens:
        raise RuntimeError(f"{found['generated_tokens']} tokens were generated, expected {work.tokens}")
    split = {name: found[f"seconds/{name}"] for name in ("generation", "reward", "step")}
    split["scoring"] = 0.0  # one update on fresh experience, no reference: nothing is scored beforehand
    split["update"] = split["step"] - split["generation"] - split["reward"]
    return {"seconds": split, "peak_gib": found["peak_gib"]}


def generator_of(work: Work, prompts: list[list[str]]) -> Callable[[int], float]:
    """Return what samples ``group`` responses of so many tokens to every prompt, and tells the seconds.

    One agent is its policy's ``generate``; several are a rollout of the team.
    """
    team = make_team(work)
    env = SameWork(prompts)
    batch = work.responses
    generators = {agent: random_stream(0, index) for index, agent in enumerate(team.policies)}

    def generate(new_tokens: int) -> float:
        sampling = sampling_of(work, new_tokens)
        if work.agents > 1:
            rollout = Rollout(env, team.policies, sampling, generators, batch)
            rollout.collect([(0, task) for task in range(work.tasks)], work.group)
            return rollout.cost.generation_seconds
        ((agent, policy),) = team.policies.items()
        conversations = [[{"role": "user", "content": own[0]}] for own in prompts]
        return seconds_of(
            lambda: policy.generate(
                conversations, sampling, generators[agent], n=work.group, batch_size=batch
            )
        )

    return generate


def decoding(generate: Callable[[int], float], work: Work, repeats: int) -> dict[str, Any]:
    """Time ``generate(new_tokens)`` with all tokens and with one, in turns, after one that warms up.

    A decoding step is what each token after the first costs: (all - one token) / (new_tokens - 1).
    """
    generate(2)
    whole, first = [], []
    for _ in range(repeats):
        first.append(generate(1))
        whole.append(generate(work.new_tokens))
    seconds = statistics.median(whole)
    return {
        "seconds": seconds,
        "first_token_seconds": statistics.median(first),
        "decode_step_seconds": (seconds - statistics.median(first)) / (work.new_tokens - 1),
        "tokens_per_second": work.tokens / seconds,
    }


def update(work: Work, prompts: list[list[str]], repeats: int) -> dict[str, Any]:
    """Loss, gradients and optimizer step of one agent on responses that it sampled, after one that warms up."""
    ((agent, policy),) = make_team(work).policies.items()
    sampling = sampling_of(work)
    conversations = [[{"role": "user", "content": own[0]}] for own in prompts]
    answers = policy.generate(
        conversations, sampling, random_stream(0), n=work.group, batch_size=work.responses
    )
    groups = []
    for group in answers:
        credits = np.array([reward([response.text]) for response in group])
        samples = [
            Sample(
                agent=agent,
                prompt_ids=response.prompt_ids,
                token_ids=response.token_ids,
                sampled_logprobs=response.logprobs,
                finish=response.finish,
                advantage=float(advantage),
                weight=1 / work.responses,
            )
            for response, advantage in zip(group, credits - credits.mean(), strict=True)
        ]
        groups.append(Group(samples, credits))
    optimizer = torch.optim.AdamW(list(policy.parameters().values()), lr=LEARNING_RATE)
    defaults = TrainerConfig()
    updater = Updater(
        policy,
        MAGRPO(group_size=work.group),
        sampling,
        optimizer,
        defaults.max_grad_norm,
        defaults.micro_batch_tokens,
    )
    rng = np.random.default_rng(0)
    updater.update(groups, rng)
    return {
        "seconds": statistics.median(seconds_of(lambda: updater.update(groups, rng)) for _ in range(repeats))
    }


def main() -> None:
    """Measure what the request asks for."""
    work, request = read_request()
    kind, prompts = request["kind"], request["prompts"]
    if kind == "step":
        answer = step(work, prompts)
    elif kind == "generation":
        answer = decoding(generator_of(work, prompts), work, request["repeats"])
    elif kind == "update":
        answer = update(work, prompts, request["repeats"])
    else:
        answer = decoding_profile(generator_of(work, prompts))
    write_answer(request, {**answer, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    main()
