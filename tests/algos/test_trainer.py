"""What the trainer promises whatever the algorithm: when it evaluates, which tasks it meets, what it leaves behind."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel

from textmarl.agents import Evaluation, Sampling, Team, TeamConfig
from textmarl.agents.tiny import tiny_model
from textmarl.algos import MAGRPO, Observer, Trainer, TrainerConfig
from textmarl.envs import Outcome, TaskSet, TextEnv

AGENTS = ["first", "second"]
MEASURED = ("seconds/", "rate/", "memory/")
RUN_KEYS = {
    "step", "tasks", "learning_rate", "score", "score_percent", "return", "terms/letters", "terms/length",
    "reward_evaluations", "generated_tokens", "total/reward_evaluations", "total/generated_tokens",
    "seconds/generation", "seconds/reward", "seconds/update", "seconds/step", "rate/tokens_per_second",
    "memory/peak_gib",
}  # fmt: skip
AGENT_KEYS = {
    "loss",
    "grad_norm",
    "entropy",
    "credit_std",
    "advantage_std",
    "no_signal",
    "length",
    "cut",
    "sampling_kl",
}


class Letters(TextEnv):
    """Two terms, so that hardly two responses score alike; rewards are shifted, scores are not."""

    possible_agents = AGENTS
    tasks = TaskSet.of(["one", "two", "three"])
    term_names = ("letters", "length")
    max_score = 4.0

    def observe(self, agent):
        return f"{agent}: {self.task.data['text']} {self.turn}"

    def judge(self, responses):
        text = "".join(responses.values())
        return Outcome({"letters": sum(c.isalpha() for c in text) / 8, "length": len(text) / 16})


@dataclass
class Recording(MAGRPO):
    """MAGRPO that remembers which tasks (and seeds) it was given and which nodes it credited."""

    tasks: list = field(default_factory=list)
    roots: list = field(default_factory=list)

    def collect(self, rollout, tasks):
        self.tasks += tasks
        self.roots = super().collect(rollout, tasks)
        return self.roots


def trainer(run, env=None, algorithm=None, eval_env=None, observer=None, sampling=None, team=None, **config):
    env = env or Letters()
    team = TeamConfig(
        **{"model": "tiny", "lora_rank": 4, "lora_targets": ["q_proj"], "device": "cpu", **(team or {})}
    )
    return Trainer(
        env,
        Team.create(env.possible_agents, team),
        algorithm or MAGRPO(group_size=3),
        TrainerConfig(**{"steps": 2, "warmup_steps": 0, "eval_tasks": 2, "eval_samples": 2, "tasks_per_step": 1, **config}),
        sampling or Sampling(temperature=1.0, max_new_tokens=4),
        eval_env,
        run,
        observer,
    )  # fmt: skip


def train(run, **settings) -> Trainer:
    result = trainer(run, **settings)
    assert result.train()
    return result


def lines(run: Path, name: str) -> list[dict]:
    path = run / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def reproducible(metrics: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if not k.startswith(MEASURED)} for line in metrics]


# ------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize(
    ("eval_every", "eval_tasks", "steps"),
    [(0, 2, [0, 3]), (2, 2, [0, 2, 3]), (1, 2, [0, 1, 2, 3]), (1, 0, [])],
)
def test_held_out_tasks_are_played_before_after_and_as_often_as_asked(
    tmp_path, eval_every, eval_tasks, steps
):
    train(tmp_path, steps=3, eval_env=Letters(), eval_every=eval_every, eval_tasks=eval_tasks)
    records = lines(tmp_path, "evaluations.jsonl")
    assert [record["step"] for record in records] == steps
    for record in records:
        evaluation = Evaluation.from_json(record)
        assert evaluation.per_task().keys() == {"task/0", "task/1"}
        assert [episode.sample for episode in evaluation.episodes] == [0, 1, 0, 1]
        assert record["env_name"] == "Letters" and record["max_score"] == 4.0 and record["seconds"] > 0
        assert record["held_out"] is False  # the same tasks as in training


def test_tasks_that_training_does_not_meet_are_held_out(tmp_path):
    class Others(Letters):
        tasks = TaskSet.of(["four", "five"])

    train(tmp_path, steps=1, eval_env=Others())
    assert all(record["held_out"] for record in lines(tmp_path, "evaluations.jsonl"))


def test_without_a_held_out_environment_nothing_is_evaluated(tmp_path):
    train(tmp_path, eval_every=1)
    assert lines(tmp_path, "evaluations.jsonl") == []


def test_evaluation_does_not_disturb_training(tmp_path):
    train(tmp_path / "without", steps=3)
    train(tmp_path / "with", steps=3, eval_env=Letters(), eval_every=1)
    assert reproducible(lines(tmp_path / "with", "metrics.jsonl")) == reproducible(
        lines(tmp_path / "without", "metrics.jsonl")
    )


def test_every_evaluation_draws_the_same_random_numbers(tmp_path):
    """So that an unchanged team answers word for word the same, and differences are the training's."""
    train(tmp_path, eval_env=Letters(), eval_every=1, learning_rate=1e-30)
    played = [record["episodes"] for record in lines(tmp_path, "evaluations.jsonl")]
    assert played[0] == played[1] == played[2]
    assert played[0][0]["turns"] != played[0][1]["turns"]  # its samples differ


# ------------------------------------------------------------------------------------------------ tasks


def test_every_task_is_met_once_before_any_is_met_again(tmp_path):
    algorithm = Recording(group_size=2)
    train(tmp_path, algorithm=algorithm, steps=6, tasks_per_step=2)
    met = [task for _, task in algorithm.tasks]
    epochs = [met[start : start + 3] for start in range(0, 12, 3)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2]] * 4
    assert len({tuple(epoch) for epoch in epochs}) > 1  # in an order of its own
    assert len({seed for seed, _ in algorithm.tasks}) == 12


def test_equal_seeds_give_equal_runs_and_others_do_not(tmp_path):
    runs = [train(tmp_path / str(i), seed=seed).run.folder for i, seed in enumerate([7, 7, 8])]
    first, again, other = (reproducible(lines(run, "metrics.jsonl")) for run in runs)
    assert first == again
    assert first[0]["score"] != other[0]["score"]


# --------------------------------------------------------------------------------------------- optimizer


def test_learning_rate_rises_linearly_and_then_follows_its_schedule():
    def rates(schedule):
        config = TrainerConfig(steps=10, warmup_steps=2, learning_rate=1.0, schedule=schedule)
        return [config.learning_rate_at(step) for step in range(1, 12)]

    assert rates("constant") == [0.5] + [1.0] * 10
    assert rates("linear") == pytest.approx([0.5, 1.0, *(k / 8 for k in range(8, -1, -1))])
    assert rates("cosine") == pytest.approx(
        [0.5, 1.0, *((1 + math.cos(math.pi * k / 8)) / 2 for k in range(9))]
    )
    assert TrainerConfig(warmup_steps=0, learning_rate=1.0).learning_rate_at(1) == 1.0


def test_optimizers_use_the_learning_rate_that_is_logged(tmp_path):
    used = []
    run = trainer(tmp_path, steps=3, warmup_steps=2, schedule="linear", learning_rate=0.1)
    for updater in run.updaters.values():
        step = updater.optimizer.step
        updater.optimizer.step = lambda step=step, o=updater.optimizer: (
            used.append(o.param_groups[0]["lr"]),
            step(),
        )
    run.train()
    logged = [line["learning_rate"] for line in lines(tmp_path, "metrics.jsonl")]
    assert logged == pytest.approx([0.05, 0.1, 0.1])
    assert used == [rate for rate in logged for _ in AGENTS]


@pytest.mark.parametrize("bound", [1e-3, 0.0])
def test_each_agents_gradient_is_clipped_to_the_bound_and_logged_unclipped(tmp_path, bound):
    stepped: dict[str, list[float]] = {agent: [] for agent in AGENTS}
    run = trainer(tmp_path, max_grad_norm=bound)
    for agent, updater in run.updaters.items():

        def step(agent=agent, optimizer=updater.optimizer):
            gradients = [p.grad.flatten() for p in optimizer.param_groups[0]["params"] if p.grad is not None]
            stepped[agent].append(float(torch.cat(gradients).norm()))

        updater.optimizer.step = step
    run.train()
    for agent in AGENTS:
        logged = [line[f"grad_norm/{agent}"] for line in lines(tmp_path, "metrics.jsonl")]
        assert min(logged) > 1e-3
        expected = [bound] * 2 if bound else logged
        assert stepped[agent] == pytest.approx(expected, rel=1e-2)


def test_optimizer_steps_once_for_each_minibatch_of_each_epoch(tmp_path):
    steps = []
    run = trainer(
        tmp_path, steps=1, tasks_per_step=3, algorithm=MAGRPO(group_size=2, epochs=2, minibatches=3)
    )
    run.updaters["first"].optimizer.step = lambda: steps.append(1)
    run.train()
    assert len(steps) == 2 * 3
    assert "approx_kl/first" in lines(tmp_path, "metrics.jsonl")[0]


def test_micro_batches_change_memory_and_not_the_result(tmp_path):
    small, large = (
        train(tmp_path / str(tokens), steps=1, tasks_per_step=3, micro_batch_tokens=tokens)
        for tokens in (1, 10**6)
    )
    of_small, of_large = (reproducible(lines(run.run.folder, "metrics.jsonl"))[0] for run in (small, large))
    assert of_small == pytest.approx(of_large, rel=1e-3, abs=1e-6)


def test_gradient_that_is_not_finite_stops_the_run_with_advice_and_leaves_the_policy_alone(tmp_path):
    class Broken(MAGRPO):
        def loss(self, batch):
            return super().loss(batch) * math.inf

    run = trainer(tmp_path, algorithm=Broken(group_size=3))
    before = {name: p.clone() for name, p in run.team.policies["first"].parameters().items()}
    with pytest.raises(
        FloatingPointError, match=r"agent 'first'.*not finite.*new run with a lower trainer.learning_rate"
    ):
        run.train()
    after = run.team.policies["first"].parameters()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert lines(tmp_path, "metrics.jsonl") == []


def test_agent_that_got_no_credit_stays_as_it_is(tmp_path):
    class FirstOnly(MAGRPO):
        def credit(self, roots, agents):
            return [group for group in super().credit(roots, agents) if group.samples[0].agent == "first"]

    run = trainer(tmp_path, algorithm=FirstOnly(group_size=3))
    before = {
        agent: {n: p.clone() for n, p in run.team.policies[agent].parameters().items()} for agent in AGENTS
    }
    run.train()
    changed = {
        agent: any(
            not torch.equal(before[agent][n], p) for n, p in run.team.policies[agent].parameters().items()
        )
        for agent in AGENTS
    }
    assert changed == {"first": True, "second": False}
    assert "loss/first" in lines(tmp_path, "metrics.jsonl")[0]
    assert "loss/second" not in lines(tmp_path, "metrics.jsonl")[0]


# ------------------------------------------------------------------------------------- what a run leaves


def test_metrics_are_complete_and_add_up(tmp_path):
    train(
        tmp_path,
        env=Letters(max_turns=2, reward_shift=1.0),
        algorithm=MAGRPO(group_size=2),
        tasks_per_step=2,
        kl_every=2,
        learning_rate=0.05,
    )
    first, second = lines(tmp_path, "metrics.jsonl")
    assert first.keys() == RUN_KEYS | {f"{key}/{agent}" for key in AGENT_KEYS for agent in AGENTS}
    assert second.keys() - first.keys() == {"kl/first", "kl/second"}  # measured every second step
    for line in (first, second):
        assert all(type(value) in (int, float) and math.isfinite(value) for value in line.values())
        assert line["score"] == pytest.approx(line["terms/letters"] + line["terms/length"])
        assert line["score_percent"] == pytest.approx(100 * line["score"] / 4)
        assert line["tasks"] == 2
        assert line["reward_evaluations"] == 2 * (2 + 4)  # a tree of two turns, two responses each
        assert line["memory/peak_gib"] > 0.01
    assert second["total/reward_evaluations"] == 24
    assert second["total/generated_tokens"] == first["generated_tokens"] + second["generated_tokens"]
    assert first["return"] > first["score"] + 1  # two turns, each shifted by 1
    assert second["kl/first"] > 0  # one step was made
    assert abs(first["sampling_kl/first"]) < 1e-4


def test_generated_tokens_are_those_of_all_responses(tmp_path):
    algorithm = Recording(group_size=3)
    train(tmp_path, algorithm=algorithm, steps=1, tasks_per_step=2)
    responses = [r for root in algorithm.roots for own in root.responses.values() for r in own]
    (line,) = lines(tmp_path, "metrics.jsonl")
    assert len(responses) == 2 * 3 * 2
    assert line["generated_tokens"] == sum(len(response.token_ids) for response in responses)
    cut = [r.finish == "length" for root in algorithm.roots for r in root.responses["first"]]
    assert line["cut/first"] == pytest.approx(np.mean(cut))


def test_run_directory_holds_everything(tmp_path):
    run = train(tmp_path, eval_env=Letters(), checkpoint_every=1, keep_checkpoints=2)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.yaml", "environment.json", "metrics.jsonl", "evaluations.jsonl", "samples.jsonl", "adapters", "team.json",
        "checkpoints", "tensorboard", "log.txt",
    }  # fmt: skip
    for agent in AGENTS:  # an ordinary peft folder
        alone = PeftModel.from_pretrained(
            tiny_model(0), str(tmp_path / "adapters" / agent), adapter_name=agent
        )
        own = run.team.policies[agent].parameters()
        assert all(
            torch.equal(p.cpu(), own[n]) for n, p in alone.get_base_model().named_parameters() if "lora_" in n
        )
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-000001",
        "step-000002",
    ]
    machine = json.loads((tmp_path / "environment.json").read_text())
    assert {"python", "textmarl", "torch", "transformers", "peft", "threads", "processor"} <= machine.keys()
    assert machine["torch"] == torch.__version__.partition("+")[0] or machine["torch"] == torch.__version__
    loaded = Team.load(tmp_path)
    for agent, policy in run.team.policies.items():
        own = loaded.policies[agent].parameters()
        assert all(torch.equal(own[name], parameter) for name, parameter in policy.parameters().items())


def test_config_yaml_tells_every_setting(tmp_path):
    run = train(tmp_path, algorithm=MAGRPO(group_size=2, baseline="max"), steps=1, learning_rate=0.02)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["run"] == str(tmp_path)
    assert config["env"] == {"name": "Letters"}  # it is not registered: nothing makes it again by an id
    assert config["algo"] == {"name": "magrpo", **asdict(run.algorithm)}
    assert config["team"] == asdict(run.team.config)
    assert config["sampling"] == asdict(run.sampling)
    assert config["trainer"] == {
        **asdict(run.config),
        "eval_tasks": 0,
    }  # without an eval_env nothing is evaluated
    assert set(config["trainer"]) == {setting.name for setting in fields(TrainerConfig)}


def test_given_configuration_is_kept_as_it_is(tmp_path):
    env = Letters()
    team = Team.create(AGENTS, TeamConfig(model="tiny", device="cpu"))
    resolved = {"run": "r", "env": {"id": "mine/Letters-v0", "kwargs": {"max_turns": 1}}}
    Trainer(env, team, MAGRPO(), TrainerConfig(steps=0), run=tmp_path, resolved=resolved).train()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == resolved


def test_observer_is_told_what_is_written(tmp_path):
    class Diary(Observer):
        def __init__(self):
            self.events, self.phases = [], {}

        def phase(self, name, done, total):
            assert 0 <= done <= total
            self.phases[name] = (done, total)

        def step(self, step, total, metrics):
            self.events.append(("step", step, total, dict(metrics)))

        def sample(self, step, transcript):
            self.events.append(("sample", step, transcript))

        def evaluation(self, step, evaluation):
            self.events.append(("evaluation", step, evaluation))

    diary = Diary()
    train(tmp_path, eval_env=Letters(), observer=diary, samples_every=2, eval_every=2)
    assert [event[:2] for event in diary.events] == [
        ("evaluation", 0), ("step", 1), ("step", 2), ("sample", 2), ("evaluation", 2)
    ]  # fmt: skip
    first, second = lines(tmp_path, "metrics.jsonl")
    assert [diary.events[1][2:], diary.events[2][2:]] == [(2, first), (2, second)]
    assert [{"step": 2, **diary.events[3][2]}] == lines(tmp_path, "samples.jsonl")
    assert [diary.events[0][2], diary.events[4][2]] == [
        Evaluation.from_json(record) for record in lines(tmp_path, "evaluations.jsonl")
    ]
    assert diary.phases["reward"] == (1, 1)
    assert diary.phases["update"] == (6, 6)  # 3 responses of 2 agents
    assert diary.phases["evaluation"] == (4, 4)
    assert diary.phases["generation"][1] == 3 * 2 * 4


def test_texts_of_any_kind_survive_in_samples(tmp_path):
    class Strange(Letters):
        tasks = TaskSet.of(["a\ud800b\x00\u2028\n\x1c"])

    train(tmp_path, env=Strange(), steps=1)
    (sample,) = lines(tmp_path, "samples.jsonl")
    assert sample["turns"][0]["first"]["observation"] == "first: a\ud800b\x00\u2028\n\x1c 0"


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"steps": -1}, "steps"),
        ({"tasks_per_step": 0}, "tasks_per_step"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"schedule": "cosin"}, "schedule must be one of .*constant.*linear.*cosine.*got 'cosin'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=f"trainer.*{complaint}"):
        TrainerConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"sampling": Sampling(temperature=0)}, "temperature 0 is greedy"),
        ({"algorithm": MAGRPO(kl_coef=0.1), "team": {"tuning": "full"}}, "set team.reference to copy"),
        ({"algorithm": MAGRPO(kl_coef=0.1), "team": {"reference": "none"}}, "KL to a reference policy"),
        ({"algorithm": MAGRPO(group_size=0)}, "group_size must be at least 1"),
        ({"algorithm": MAGRPO(group_size=1)}, "group_size 1 leaves nothing to compare with"),
        ({"algorithm": MAGRPO(branching="chain", joint_mode="cross")}, "chain cannot continue cross"),
        (
            {"algorithm": MAGRPO(group_size=17, joint_mode="cross")},
            "289 joint actions.*max_joint_actions 256",
        ),
        ({"algorithm": MAGRPO(discount=1.5)}, "discount"),
        ({"algorithm": MAGRPO(baseline="loo")}, "algo.baseline must be one of .*leave_one_out.*got 'loo'"),
        ({"algorithm": MAGRPO(joint_mode="crossed")}, "algo.joint_mode must be one of"),
        ({"algorithm": MAGRPO(epochs=0)}, "epochs and minibatches must be at least 1"),
        ({"team": {"tuning": "Full"}}, "team.tuning must be one of"),
        ({"team": {"model": ["tiny"]}}, "lists 1 models for 2 agents"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_before_training(tmp_path, settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        trainer(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_team_of_other_agents_is_refused(tmp_path):
    team = Team.create(["second", "first"], TeamConfig(model="tiny", device="cpu"))
    with pytest.raises(
        ValueError, match=r"\['second', 'first'\] are not the environment's \['first', 'second'\]"
    ):
        Trainer(Letters(), team, MAGRPO(), run=tmp_path / "run")


@pytest.mark.parametrize(
    "changes, name",
    [
        ({"learning_rate": 0.5}, "trainer.learning_rate"),
        ({"seed": 7}, "trainer.seed"),
        ({"algorithm": MAGRPO(group_size=5)}, "algo.group_size"),
        ({"sampling": Sampling(temperature=0.5, max_new_tokens=4)}, "sampling.temperature"),
    ],
)
def test_a_run_is_not_continued_with_other_settings(tmp_path, changes, name):
    train(tmp_path / "run", steps=1)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=re.escape(name)):
        trainer(tmp_path / "run", **{"steps": 2, **changes}).train(resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_finished_run_may_go_on_for_more_steps(tmp_path):
    train(tmp_path / "run", steps=1)
    assert trainer(tmp_path / "run", steps=2).train(resume=True)
    assert [line["step"] for line in lines(tmp_path / "run", "metrics.jsonl")] == [1, 2]
