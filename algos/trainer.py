"""The training loop: collect, credit, update; evaluate, record, checkpoint. The same for every algorithm."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pettingzoo import ParallelEnv

from textmarl.agents.evaluation import Evaluation, evaluate, shared_tasks
from textmarl.agents.partner import PartnerFailed
from textmarl.agents.recording import describe_agent
from textmarl.agents.sampling import Sampling
from textmarl.agents.served import make_engine
from textmarl.agents.team import Team, random_stream
from textmarl.algos.algorithm import Algorithm, Group, returns
from textmarl.algos.config import FREE_SETTINGS, TrainerConfig, refuse_unserved, validate_run
from textmarl.algos.diagnostics import describe_groups, describe_scores, first_episode, peak_memory_gib
from textmarl.algos.observer import Observer
from textmarl.algos.records import RunDirectory
from textmarl.algos.reproduction import (
    describe_algorithm,
    describe_environments,
    describe_machine,
    describe_tasks,
)
from textmarl.algos.rollout import Node, Rollout
from textmarl.algos.room import check_room
from textmarl.algos.update import Updater, kl_to_reference
from textmarl.envs.instances import Instances

logger = logging.getLogger(__name__)

# Random streams of a run, told apart by their first number.
ROLLOUT, TASKS, EPISODES, MINIBATCHES, EVALUATION, SETUP, IMPROVE = range(7)


class Trainer:
    """Fine-tunes a team in an environment.

    Args:
        env: A text environment with the training tasks, or a function that makes one, which an environment that cannot
            be deep-copied needs (:mod:`textmarl.envs.instances`).
        team: The policies and partners; its agents are those of ``env``.
        algorithm: Collects, credits and gives the loss.
        config: The loop's settings.
        sampling: How responses are drawn, in training and in evaluation.
        eval_env: The same environment with held-out tasks, or a function as ``env``; without it nothing is evaluated.
        run: The run directory, new or (with ``train(resume=True)``) that of an interrupted run.
        observer: Watches. Without one, `logging` tells how the run goes: a line for each step and evaluation, at level
            INFO, under the name of this module; log.txt gets them in any case.
        resolved: The resolved configuration to keep in config.yaml; by default that of the arguments.

    Raises:
        ValueError: Agents, algorithm, team and sampling do not go together.
    """

    def __init__(
        self,
        env: ParallelEnv | Callable[[], ParallelEnv] | Instances,
        team: Team,
        algorithm: Algorithm,
        config: TrainerConfig | None = None,
        sampling: Sampling | None = None,
        eval_env: ParallelEnv | Callable[[], ParallelEnv] | Instances | None = None,
        run: str | Path = "runs/run",
        observer: Observer | None = None,
        resolved: dict[str, Any] | None = None,
    ):
        self.instances = env if isinstance(env, Instances) else Instances(env)
        self.eval_instances = eval_env if isinstance(eval_env, Instances | None) else Instances(eval_env)
        self.env: ParallelEnv = self.instances.env
        self.eval_env = None if self.eval_instances is None else self.eval_instances.env
        self.team, self.algorithm = team, algorithm
        self.config = config or TrainerConfig()
        self.sampling = sampling or Sampling()
        self.observer = observer or Observer()
        self.agents = list(self.env.possible_agents)
        if team.names != self.agents:
            raise ValueError(f"the team's agents {team.names} are not the environment's {self.agents}")
        validate_run(algorithm, self.agents, team.config, self.sampling, self.instances)
        refuse_unserved(team.config, self.config)
        if self.eval_instances is not None:
            self.eval_instances.check()
        self.run = RunDirectory(run, self.config.keep_checkpoints)
        self.resolved = resolved
        server, adapters = self.config.generation_server, self.config.adapter_folder
        self.engine = make_engine(
            server, adapters, self.run.folder, lambda text: self._message(text, logging.WARNING)
        )
        self._settings = self._fixed_settings()
        self.step = 0
        self.totals = {"reward_evaluations": 0, "generated_tokens": 0}
        self._stop = False
        seed = self.config.seed
        self.generators = {a: random_stream(seed, ROLLOUT, i) for i, a in enumerate(self.agents)}
        algorithm.setup(team, stream_seed(seed, SETUP))
        self.updaters = {}
        for agents in team.parameter_sets.values():
            policy = team.policies[agents[0]]
            own = [p for agent in agents for p in algorithm.parameters(agent)]
            optimizer = torch.optim.AdamW(
                [*policy.parameters().values(), *own],
                lr=self.config.learning_rate,
                weight_decay=self.config.weight_decay,
            )
            self.updaters[agents[0]] = Updater(
                policy,
                algorithm,
                self.sampling,
                optimizer,
                self.config.max_grad_norm,
                self.config.micro_batch_tokens,
            )

    @property
    def device(self) -> torch.device:
        """Where the first policy is."""
        return next(iter(self.team.policies.values())).device

    # ---------------------------------------------------------------------------------------------- the loop

    def train(self, resume: bool = False) -> bool:
        """Train to the last step, or until interrupted.

        The first Ctrl-C (or SIGTERM) ends the run after the current step with a checkpoint, a second one at once. A
        run killed at any moment continues from its last checkpoint with ``resume=True`` and leaves the same files as
        an uninterrupted one, but for times.

        Returns:
            True if the run is complete, False if it was interrupted.

        Raises:
            ValueError: The directory holds a run and ``resume`` is False, or its checkpoints are of another team.
        """
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        if resume:
            self._restore()
        elif self.run.in_use:
            raise ValueError(
                f"{str(self.run.folder)!r} already holds a run; go on with it by train(resume=True), or choose another "
                "run directory"
            )
        self._describe_run()
        unfinished = self.step < self.config.steps
        for path in dict.fromkeys(policy.path for policy in self.team.policies.values() if unfinished):
            agents = [agent for agent, policy in self.team.policies.items() if policy.path == path]
            self._message(f"{', '.join(agents)}: {path}")
        if (
            unfinished
            and self.team.config.tuning == "lora"
            and "tiny" in np.atleast_1d(self.team.config.model)
        ):
            advice = (
                "the model tiny has random weights, and a LoRA adapter on them learns next to nothing: use tuning full, "
                "with a learning rate of about 3e-3 (benchmarks/configs/games_tiny.yaml)"
            )
            self._message(f"note: {advice}", logging.WARNING)
        steps = range(self.step + 1, self.config.steps + 1)
        ahead = {task for step in steps for _, task in self._tasks(step) if task is not None}
        check_room(self.instances, self.team.policies, self.sampling, sorted(ahead))
        if self.eval_instances is not None:
            check_room(self.eval_instances, self.team.policies, self.sampling, range(self.config.eval_tasks))
        try:
            with self._interruptible():
                if self.step == 0:
                    self.engine.load(self.team.policies)  # a server that cannot is told of at once
                    if not self.run.read("evaluations.jsonl"):
                        self._evaluate()
                    self._checkpoint()
                elif self._misses_evaluation():
                    self._evaluate()
                    self._checkpoint()
                while self.step < self.config.steps and not self._stop:
                    self._train_step()
                    last = self.step == self.config.steps
                    if self._is_evaluated():
                        self._evaluate()
                    if last or self._stop or self.step % self.config.checkpoint_every == 0:
                        self._checkpoint()
            self.engine.close()
        finally:
            self.run.close()
        return self.step >= self.config.steps

    def _train_step(self) -> None:
        started = time.perf_counter()
        step = self.step + 1
        learning_rate = self.config.learning_rate_at(step)
        rollout = Rollout(
            self.instances,
            self.team.players,
            self.sampling,
            self.generators,
            self.config.rollout_batch_size,
            self.observer.phase,
            self.config.micro_batch_tokens,
        )
        rollout.answer = self.engine.answer
        tasks = self._tasks(step)
        with self._keeping():
            roots = self.algorithm.collect(rollout, tasks)
        groups: dict[str, list[Group]] = {agent: [] for agent in self.agents}
        for group in self.algorithm.credit(roots, self.agents):
            groups[group.samples[0].agent].append(group)

        update_started = time.perf_counter()
        metrics: dict[str, float] = {"step": step, "tasks": len(tasks), "learning_rate": learning_rate}
        metrics |= self._describe_experience(roots, rollout)
        # Undiscounted, whatever an algorithm makes of the rewards: comparable between algorithms.
        metrics["return"] = float(np.mean([returns(root, 1.0).mean() for root in roots]))
        total = sum(len(g.samples) for own in groups.values() for g in own) * self.algorithm.epochs
        done = 0

        def on_samples(count: int) -> None:
            nonlocal done
            done += count
            self.observer.phase("update", done, total)

        for agent in self.team.policies:
            if not groups[agent]:  # an algorithm may leave an agent as it is
                continue
            metrics |= {f"{name}/{agent}": value for name, value in describe_groups(groups[agent]).items()}
            if self.config.kl_every and step % self.config.kl_every == 0 and self._has_reference(agent):
                metrics[f"kl/{agent}"] = kl_to_reference(
                    self.team.policies[agent], groups[agent], self.sampling, self.config.micro_batch_tokens
                )
        for agents in self.team.parameter_sets.values():
            own = [group for agent in agents for group in groups[agent]]
            if not own:
                continue
            updater = self.updaters[agents[0]]
            for parameters in updater.optimizer.param_groups:
                parameters["lr"] = learning_rate
            rng = np.random.default_rng([self.config.seed, MINIBATCHES, step, self.agents.index(agents[0])])
            result = updater.update(own, rng, on_samples)
            metrics |= {f"{name}/{agent}": value for agent in agents for name, value in result.items()}
        metrics |= self.algorithm.improve(np.random.default_rng([self.config.seed, IMPROVE, step]))

        rollout.close()
        cost, now = rollout.cost, time.perf_counter()
        metrics |= {
            "seconds/generation": cost.generation_seconds,
            "seconds/reward": cost.reward_seconds,
            "seconds/update": now - update_started,
            "seconds/step": now - started,
            "rate/tokens_per_second": cost.generated_tokens / max(cost.generation_seconds, 1e-9),
            "memory/peak_gib": peak_memory_gib(self.device),
        }
        self.step = step
        self.run.log_metrics(metrics)
        self.engine.watch(metrics)
        self.observer.step(step, self.config.steps, metrics)
        self._tell(
            f"step {step} of {self.config.steps}: score {metrics['score']:.3f} in {now - started:.1f} s"
        )
        if self.config.samples_every and step % self.config.samples_every == 0:
            transcript = first_episode(roots[0], self.agents)
            self.run.append("samples.jsonl", {"step": step, **transcript})
            self.observer.sample(step, transcript)

    def _tasks(self, step: int) -> list[tuple[int, int | None]]:
        """Return a seed and a task for each episode of a step; every task is met once before any is met again."""
        count = len(self.env.unwrapped.tasks) if hasattr(self.env.unwrapped, "tasks") else None
        chosen = []
        for position in range((step - 1) * self.config.tasks_per_step, step * self.config.tasks_per_step):
            state = np.random.SeedSequence([self.config.seed, EPISODES, position]).generate_state(1)[0]
            task = None
            if count is not None:
                epoch, place = divmod(position, count)
                order = np.random.default_rng([self.config.seed, TASKS, epoch]).permutation(count)
                task = int(order[place])
            chosen.append((int(state), task))
        return chosen

    def _has_reference(self, agent: str) -> bool:
        policy = self.team.policies[agent]
        return self.team.config.reference != "none" and (policy.has_adapter or policy.reference is not None)

    # ----------------------------------------------------------------------------------- measuring and keeping

    def _evaluate(self) -> Evaluation | None:
        """Play the held-out tasks; every evaluation draws from the same random stream, so that they pair."""
        if self.eval_env is None or self.config.eval_tasks == 0:
            return None
        started = time.perf_counter()
        with self._keeping():
            result = evaluate(
                self.eval_instances,
                self.team.agents(self.sampling, seed=stream_seed(self.config.seed, EVALUATION)),
                tasks=self.config.eval_tasks,
                samples=self.config.eval_samples,
                seed=stream_seed(self.config.seed, EVALUATION),
                batch_size=self.config.eval_batch_size,
                progress=lambda done, total: self.observer.phase("evaluation", done, total),
            )
            if result.failures:  # means over other episodes than those of other steps could not be compared
                first = result.failures[0]
                raise PartnerFailed(
                    f"the partner {first.agent!r} gave no answer in {len(result.failures)} episodes of the evaluation: "
                    f"{first.error}"
                )
        record = {
            "step": self.step,
            "seconds": time.perf_counter() - started,
            "held_out": not shared_tasks(self.env, self.eval_env),
            **result.to_json(),
        }
        self.run.append("evaluations.jsonl", record)
        when = f"after step {self.step}" if self.step else "of the untrained team"
        maximum = f" of {result.max_score:g}" if result.max_score else ""
        self._tell(f"evaluation {when}: score {result.score:.3f}{maximum}, {len(result.episodes)} episodes")
        self.observer.evaluation(self.step, result)
        return result

    def _is_evaluated(self) -> bool:
        every = self.config.eval_every
        return self.step == self.config.steps or bool(every and self.step % every == 0)

    def _misses_evaluation(self) -> bool:
        """Say whether the last step's evaluation, which failed when the run was interrupted, has still to be made."""
        made = {record["step"] for record in self.run.read("evaluations.jsonl")}
        return self._is_evaluated() and self.eval_env is not None and self.step not in made

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Within this context an error leaves a checkpoint of the last whole step, to go on from as if nothing had been."""
        streams = {agent: generator.get_state() for agent, generator in self.generators.items()}
        try:
            yield
        except Exception as error:
            for agent, state in streams.items():
                self.generators[agent].set_state(state)
            if self.step:
                self._checkpoint()
            if isinstance(error, PartnerFailed):
                raise PartnerFailed(
                    f"after step {self.step}: {error}. Nothing of the run is lost; it goes on from there when resumed"
                ) from error
            raise

    def _describe_experience(self, roots: list[Node], rollout: Rollout) -> dict[str, float]:
        """Return the scores of a step, and what it cost."""
        result = describe_scores(roots)
        max_score = getattr(self.env.unwrapped, "max_score", None)  # environments of others have none
        if max_score:
            result["score_percent"] = 100 * result["score"] / max_score
        cost = rollout.cost
        for name, value in (
            ("reward_evaluations", cost.reward_evaluations),
            ("generated_tokens", cost.generated_tokens),
        ):
            self.totals[name] += value
            result |= {name: value, f"total/{name}": self.totals[name]}
        return result

    def _message(self, text: str, level: int = logging.INFO) -> None:
        self._tell(text, level)
        self.observer.message(text)

    def _tell(self, text: str, level: int = logging.INFO) -> None:
        logger.log(level, "%s", text)
        if not self.observer.keeps_log:
            self.run.log(text)

    def _checkpoint(self) -> None:
        self.team.save(self.run.folder)
        self.run.save_checkpoint(
            self.step,
            {
                "team": self.team.state_dict(),
                "optimizers": {a: u.optimizer.state_dict() for a, u in self.updaters.items()},
                "generators": {a: g.get_state() for a, g in self.generators.items()},
                "algorithm": self.algorithm.state_dict(),
                "totals": dict(self.totals),
                "settings": self._settings,
            },
        )

    def _fixed_settings(self) -> dict[str, str]:
        """Return what a run may not change half way, by name: all but ``FREE_SETTINGS`` and the device.

        More steps are another run where the learning rate falls towards the last one.
        """
        free = (*FREE_SETTINGS, "steps") if self.config.schedule == "constant" else FREE_SETTINGS
        parts = {
            "env": describe_tasks(self.env),
            "eval_env": describe_tasks(self.eval_env),
            "algo": {"name": type(self.algorithm).__name__, **asdict(self.algorithm)},  # type: ignore[call-overload]
            "team": {k: v for k, v in asdict(self.team.config).items() if k != "device"},
            "sampling": asdict(self.sampling),
            "trainer": {k: v for k, v in asdict(self.config).items() if k not in free},
        }
        parts["partner"] = {name: describe_agent(agent) for name, agent in self.team.partners.items()}
        return {f"{part}.{name}": repr(value) for part, own in parts.items() for name, value in own.items()}

    def _restore(self) -> None:
        state = self.run.load_checkpoint()
        if state is not None:
            self._refuse_changes(state["settings"])
            self.team.load_state_dict(state["team"])
            for agent, updater in self.updaters.items():
                updater.optimizer.load_state_dict(state["optimizers"][agent])
            for agent, generator in self.generators.items():
                generator.set_state(state["generators"][agent])
            self.algorithm.load_state_dict(state["algorithm"])
            self.totals = dict(state["totals"])
            self.step = state["step"]
            resumed = f"resumed after step {self.step} of {self.config.steps}"
            if self.step < self.config.steps:
                self._message(resumed)
            else:  # nothing is done, and nothing is written
                self.observer.message(resumed)
        self.run.cut_back(state)  # only once the checkpoint is known to fit

    def _refuse_changes(self, before: dict[str, str]) -> None:
        now = self._settings
        changed = [name for name in before | now if before.get(name) != now.get(name)]
        if changed:
            name = changed[0]
            raise ValueError(
                f"the run in {str(self.run.folder)!r} was started with {name} {before.get(name, 'unset')} and cannot "
                f"be continued with {now.get(name, 'unset')} ({len(changed)} setting(s) differ: {', '.join(changed)}). "
                "Use the settings of its config.yaml, or start a new run"
            )

    def _describe_run(self) -> None:
        """Write config.yaml and environment.json."""
        resolved = self.resolved or {
            "run": str(self.run.folder),
            **describe_environments(self.env, self.eval_env),
            "algo": describe_algorithm(self.algorithm),
            "team": asdict(self.team.config),
            "sampling": asdict(self.sampling),
            "trainer": asdict(self.config) | ({} if self.eval_env is not None else {"eval_tasks": 0}),
        }
        self.run.write("config.yaml", yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
        machine = describe_machine(str(self.device))
        self.run.write("environment.json", json.dumps(machine, indent=2) + "\n")

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Within this context the first SIGINT or SIGTERM asks the loop to stop, the second one stops it at once."""
        self._stop = False
        if threading.current_thread() is not threading.main_thread():
            yield  # signals reach the main thread only
            return

        def ask_to_stop(number: int, frame: object) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True
            self._message("stopping after this step, with a checkpoint; once more to stop at once")

        before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def stream_seed(seed: int, purpose: int) -> int:
    """Return an integer seed for one of the run's purposes."""
    return int(np.random.SeedSequence([seed, purpose]).generate_state(1)[0])
