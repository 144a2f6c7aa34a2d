"""Responses sampled by a server that holds the adapters: what is sent, what is believed, and when adapters are loaded."""

from __future__ import annotations

import importlib.util
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from textmarl.agents import Response, Sampling, Team, TeamConfig
from textmarl.agents.connection import Connection, ServerError
from textmarl.agents.served import ServedEngine
from textmarl.algos import Trainer, TrainerConfig
from textmarl.algos.config import refuse_unserved
from textmarl.algos.magrpo import MAGRPO
from textmarl.envs import Outcome, TaskSet, TextEnv

AGENTS = ["left", "right"]
SAMPLING = Sampling(temperature=0.7, max_new_tokens=6)


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


CONVERSATIONS = {"left": [ask("abc"), ask("feed")], "right": [ask("had a bad cab")]}


@pytest.fixture(scope="module")
def base(
    tmp_path_factory: pytest.TempPathFactory,
    make_model: Callable[..., Any],
    make_tokenizer: Callable[..., Any],
) -> str:
    folder = tmp_path_factory.mktemp("base")
    make_model("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def vllm(base: str, mock_server: Any) -> Any:
    """A server of the base model, with none of the package's code in it."""
    spec = importlib.util.spec_from_file_location("mock_vllm", Path(__file__).with_name("mock_vllm.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MockVLLM(LlamaForCausalLM.from_pretrained(base, dtype=torch.float32).eval(), mock_server)


@pytest.fixture
def engine(vllm: Any, mock_server: Any, tmp_path: Path) -> ServedEngine:
    connection = Connection(mock_server.url, timeout=5.0, retries=2, backoff=0.001)
    return ServedEngine(connection, tmp_path / "adapters")


@pytest.fixture
def team(base: str) -> Team:
    """Adapters that differ from each other and from the base: LoRA begins with B = 0."""
    made = Team.create(AGENTS, TeamConfig(model=base, lora_rank=4, dtype="float32", device="cpu"))
    for index, agent in enumerate(AGENTS):
        move(made, agent, index)
    return made


def move(team: Team, agent: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in team.policies[agent].parameters().values():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)


def sample(
    engine: ServedEngine, team: Team, seed: int = 0, sampling: Sampling = SAMPLING, **how: Any
) -> dict[str, list[list[Response]]]:
    generators = {agent: torch.Generator().manual_seed(seed + i) for i, agent in enumerate(AGENTS)}
    return engine.answer(team.policies, CONVERSATIONS, sampling, generators, **how)


def flat(answers: dict[str, list[list[Response]]]) -> list[Response]:
    return [response for rows in answers.values() for row in rows for response in row]


def local_logprobs(team: Team, agent: str, response: Response, sampling: Sampling) -> list[float]:
    with torch.no_grad():
        scores = team.policies[agent].score([response.prompt_ids], [[response.token_ids]], sampling)
    return scores.logprobs[0].tolist()


@pytest.mark.parametrize("sampling", [SAMPLING, Sampling(temperature=1.3, top_k=4, max_new_tokens=6)])
def test_responses_are_what_this_process_would_score_and_no_other_agent_would(
    sampling: Sampling, engine: ServedEngine, team: Team
) -> None:
    counted: list[int] = []
    answers = sample(engine, team, sampling=sampling, n=8, on_tokens=counted.append)
    assert {agent: [len(row) for row in rows] for agent, rows in answers.items()} == {
        "left": [8, 8],
        "right": [8],
    }
    for agent, rows in answers.items():
        for conversation, row in zip(CONVERSATIONS[agent], rows, strict=True):
            for response in row:
                assert response.prompt_ids == team.policies[agent].encode(conversation)
                assert response.text == team.policies[agent].text(response.token_ids)
                assert response.finish == ("stop" if response.token_ids[-1] == 1 else "length")
                assert response.logprobs == pytest.approx(
                    local_logprobs(team, agent, response, sampling), abs=1e-5
                )
    everything = flat(answers)
    assert {response.finish for response in everything} == {"stop", "length"}
    assert sum(counted) == sum(response.tokens for response in everything)
    other = answers["left"][0][0]
    assert other.logprobs != pytest.approx(local_logprobs(team, "right", other, sampling), abs=0.01)


def test_the_request_asks_for_exactly_the_policys_distribution(
    engine: ServedEngine, team: Team, mock_server: Any
) -> None:
    sample(engine, team, n=2)
    asked = [body for body in mock_server.requests if "prompt" in body]
    seeds, prompts, models = ([body.pop(name) for body in asked] for name in ("seed", "prompt", "model"))
    plain = {"min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert asked == 3 * [
        {"n": 2, "max_tokens": 6, "temperature": 0.7, "top_p": 1.0, "top_k": -1, "ignore_eos": True,
         "stop_token_ids": [1], "include_stop_str_in_output": True, "logprobs": 0, "return_token_ids": True,
         **plain}
    ]  # fmt: skip
    assert len(set(seeds)) == 3 and len(set(models)) == 2
    assert sorted(prompts) == sorted(
        team.policies[agent].encode(each) for agent, own in CONVERSATIONS.items() for each in own
    )


def test_the_agents_streams_decide_what_is_sampled(engine: ServedEngine, team: Team) -> None:
    first, again, other = (
        [response.token_ids for response in flat(sample(engine, team, seed, n=3))] for seed in (0, 0, 5)
    )
    assert first == again != other
    assert len({tuple(ids) for ids in first[:3]}) > 1  # a group's members differ


def test_an_adapter_is_loaded_when_its_weights_have_changed_and_only_then(
    engine: ServedEngine, team: Team, vllm: Any
) -> None:
    sample(engine, team)
    left, right = vllm.loaded
    sample(engine, team, seed=1)
    assert vllm.loaded == [left, right] and not vllm.unloaded
    move(team, "left", 7)
    answers = sample(engine, team)
    assert vllm.loaded[:2] == [left, right] and len(vllm.loaded) == 3
    assert vllm.unloaded == [left] and vllm.loaded[2] not in (left, right)
    assert sorted(path.name for path in engine.folder.iterdir()) == sorted([right, vllm.loaded[2]])
    response = answers["left"][0][0]
    assert response.logprobs == pytest.approx(local_logprobs(team, "left", response, SAMPLING), abs=1e-5)
    engine.close()
    assert not vllm.adapters and not engine.folder.exists()


def test_agents_that_share_their_parameters_share_one_adapter(
    engine: ServedEngine, base: str, vllm: Any
) -> None:
    config = TeamConfig(model=base, lora_rank=4, dtype="float32", device="cpu", parameter_sharing=True)
    team = Team.create(AGENTS, config)
    move(team, "right", 3)
    answers = sample(engine, team)
    assert len(vllm.loaded) == 1
    for agent in AGENTS:
        response = answers[agent][0][0]
        assert response.logprobs == pytest.approx(local_logprobs(team, agent, response, SAMPLING), abs=1e-5)


def test_every_conversation_is_told_of_once_with_its_responses(engine: ServedEngine, team: Team) -> None:
    told: dict[tuple[str, int], list[Response]] = {}
    answers = sample(
        engine, team, n=2, on_answered=lambda agent, index, own: told.update({(agent, index): own})
    )
    assert told == {(agent, i): own for agent, rows in answers.items() for i, own in enumerate(rows)}


def test_files_that_a_killed_run_left_are_taken_away(engine: ServedEngine, team: Team) -> None:
    (engine.folder / "of_another").mkdir(parents=True)
    engine.load(team.policies)
    move(team, "left", 7)
    anew = ServedEngine(engine.connection, engine.folder)
    anew.load(team.policies)
    assert {path.name for path in engine.folder.iterdir()} == {
        "of_another",
        *(published.name for published in anew.published.values()),
    }


def test_an_adapter_that_an_unheard_attempt_has_loaded_is_loaded(
    engine: ServedEngine, team: Team, vllm: Any, mock_server: Any
) -> None:
    mock_server.script = ["truncated"]  # loaded, but the answer is lost on its way
    assert len(flat(sample(engine, team))) == 3
    assert mock_server.paths.count("/v1/load_lora_adapter") == 3 and len(vllm.loaded) == 2


def test_all_agents_requests_are_under_way_at_once_as_far_as_the_batch_allows(
    engine: ServedEngine, team: Team, mock_server: Any
) -> None:
    engine.load(team.policies)
    mock_server.most_concurrent = 0
    mock_server.gate = threading.Barrier(3)  # three requests go on only together
    sample(engine, team, n=2, batch_size=6)
    assert mock_server.most_concurrent == 3
    mock_server.gate, mock_server.most_concurrent = None, 0
    sample(engine, team, n=2, batch_size=3)
    assert mock_server.most_concurrent == 1


@pytest.mark.parametrize("trouble", ["500", "429 after 0.01", "truncated", "dropped", "html"])
def test_what_heals_is_tried_again_and_samples_the_same(
    trouble: str, engine: ServedEngine, team: Team, mock_server: Any
) -> None:
    expected = [response.token_ids for response in flat(sample(engine, team))]
    mock_server.script = [trouble, trouble]
    assert [response.token_ids for response in flat(sample(engine, team))] == expected
    assert not mock_server.script


def test_a_server_that_never_answers_is_given_up(engine: ServedEngine, team: Team, mock_server: Any) -> None:
    engine.load(team.policies)
    engine.connection.timeout, engine.connection.retries = 0.1, 1
    mock_server.default = "silent"
    with pytest.raises(ServerError, match=r"/v1/completions: no answer in time \(2 attempts\)"):
        sample(engine, team)


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no ids": (lambda c: c.pop("token_ids"), "no token_ids"),
    "no logprobs": (lambda c: c.update(logprobs=None), "no logprobs"),
    "nothing sampled": (lambda c: c.update(token_ids=[], logprobs={"token_logprobs": []}), "no token_ids"),
    "other lengths": (lambda c: c["logprobs"]["token_logprobs"].pop(), "as many of both"),
    "too long": (
        lambda c: c.update(token_ids=[3] * 7, logprobs={"token_logprobs": [-1.0] * 7}),
        "at most 6",
    ),
    "unknown token": (lambda c: c["token_ids"].__setitem__(0, 12), "outside of the 12"),
    "ids as text": (lambda c: c["token_ids"].__setitem__(0, "3"), "outside of the 12"),
    "logits": (lambda c: c["logprobs"]["token_logprobs"].__setitem__(0, 2.5), "--logprobs-mode"),
    "a missing number": (lambda c: c["logprobs"]["token_logprobs"].__setitem__(0, None), "--logprobs-mode"),
    "another prompt": (lambda c: c["prompt_token_ids"].insert(0, 0), "another prompt"),
    "cut": (
        lambda c: c.update(token_ids=[3], logprobs={"token_logprobs": [-1.0]}, finish_reason="abort"),
        "'abort'.*--max-model-len",
    ),
    "goes on": (
        lambda c: c.update(token_ids=[1] * 6, logprobs={"token_logprobs": [-1.0] * 6}),
        "ends neither",
    ),
    "another number": (lambda c: c.update(index=1), "asked for 1 responses"),
}


def test_a_response_that_cannot_be_trained_on_is_an_error_at_once(
    engine: ServedEngine, team: Team, vllm: Any, mock_server: Any
) -> None:
    for spoil, message in MALFORMED.values():

        def complete(body: dict[str, Any], spoil: Callable[[dict[str, Any]], Any] = spoil) -> dict[str, Any]:
            data = vllm.complete(body)
            spoil(data["choices"][0])
            return data

        mock_server.routes["/v1/completions"] = complete
        with pytest.raises(ServerError, match=rf"{message}.*\(1 attempt\)"):
            sample(engine, team)


def test_errors_say_how_to_start_the_server(
    engine: ServedEngine, team: Team, vllm: Any, mock_server: Any, tmp_path: Path
) -> None:
    load = mock_server.routes.pop("/v1/load_lora_adapter")
    with pytest.raises(ServerError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        sample(engine, team)
    mock_server.routes["/v1/load_lora_adapter"] = load
    vllm.lora_enabled = False
    with pytest.raises(ServerError, match="--enable-lora"):
        sample(engine, team)
    vllm.lora_enabled, vllm.max_lora_rank = True, 2
    with pytest.raises(ServerError, match=r"LoRA rank 4 .*--max-lora-rank"):
        sample(engine, team)
    vllm.max_lora_rank = 16
    elsewhere = lambda body: load({**body, "lora_path": str(tmp_path / "not-mounted")})  # noqa: E731
    mock_server.routes["/v1/load_lora_adapter"] = elsewhere
    with pytest.raises(ServerError, match="same path"):
        sample(engine, team)
    mock_server.routes["/v1/load_lora_adapter"] = load
    assert len(flat(sample(engine, team))) == 3
    vllm.adapters.clear()  # as after a restart
    with pytest.raises(ServerError, match="lost the adapter"):
        sample(engine, team)


def test_weights_that_no_adapter_holds_are_refused(engine: ServedEngine, base: str, mock_server: Any) -> None:
    full = Team.create(AGENTS, TeamConfig(model=base, tuning="full", device="cpu"))
    with pytest.raises(ValueError, match="full weights"):
        sample(engine, full)
    assert not mock_server.requests


def test_a_distribution_far_from_local_scoring_is_told_once(engine: ServedEngine) -> None:
    told: list[str] = []
    engine.warn = told.append
    for kl in (0.01, 0.3, 0.4):
        engine.watch({"sampling_kl/left": kl, "sampling_kl/right": 0.001, "loss/left": 9.0})
    assert len(told) == 1 and "sampling_kl/left 0.300" in told[0] and "processed_logprobs" in told[0]


# ---------------------------------------------------------------------------------------------- training


class Letters(TextEnv):
    """Two turns; almost every two texts are paid differently, so that each step has a gradient."""

    metadata = {"name": "letters", "render_modes": [], "is_parallelizable": True}
    possible_agents = AGENTS
    tasks = TaskSet.of(["abc", "feed", "head", "cab"])

    def observe(self, agent: str) -> str:
        return self.task.data["text"] if not self.history else "again"

    def judge(self, responses: dict[str, str]) -> Outcome:
        return Outcome({"score": sum(map(ord, "".join(responses.values()))) / 100})


def train(
    base: str, url: str, run: Path, resume: bool = False, steps: int = 3, temperature: float = 0.7,
    folder: str | None = None,
) -> None:  # fmt: skip
    """Train as usual, with evaluation; without a failure, checkpoints are of step 0 and the last one."""
    trainer = Trainer(
        Letters(max_turns=2),
        Team.create(AGENTS, TeamConfig(model=base, lora_rank=4, dtype="float32", device="cpu")),
        MAGRPO(group_size=2),
        TrainerConfig(
            steps=steps, tasks_per_step=1, learning_rate=0.01, warmup_steps=0, eval_tasks=1, eval_samples=1,
            generation_server=url, adapter_folder=folder, checkpoint_every=5, kl_every=0,
        ),
        Sampling(temperature=temperature, max_new_tokens=4),
        eval_env=Letters(max_turns=2),
        run=run,
    )  # fmt: skip
    trainer.train(resume=resume)


def metrics(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    measured = ("seconds/", "rate/", "memory/")
    return [{k: v for k, v in line.items() if not k.startswith(measured)} for line in lines]


def test_a_run_trains_on_what_the_server_samples_and_loads_each_version_once(
    base: str, vllm: Any, mock_server: Any, tmp_path: Path
) -> None:
    train(base, mock_server.url, tmp_path / "run")
    # Before the first step and after each update but the last: 3 versions of 2 adapters.
    assert len(vllm.loaded) == len(set(vllm.loaded)) == 6
    assert vllm.unloaded and sorted(vllm.unloaded) == sorted(vllm.loaded) and not vllm.adapters
    assert not (tmp_path / "run" / "served_adapters").exists()
    # A root with 2 responses, and 2 histories after it with 2 each, for 2 agents in 3 steps, a request each.
    assert mock_server.paths.count("/v1/completions") == 3 * 2 * (1 + 2)
    for line in metrics(tmp_path / "run"):
        assert all(abs(line[f"sampling_kl/{agent}"]) < 1e-6 for agent in AGENTS)


def test_a_server_that_fails_costs_no_finished_step_and_the_run_goes_on_as_if_it_had_not(
    base: str, vllm: Any, mock_server: Any, tmp_path: Path
) -> None:
    train(base, mock_server.url, tmp_path / "alone")
    begun = mock_server.paths.count("/v1/completions")

    def dies_in_the_second_turn_of_step_3(body: dict[str, Any]) -> str:
        asked = mock_server.paths.count("/v1/completions") - begun
        return "400 out of memory" if asked > 2 * 6 + 3 else "ok"

    mock_server.default = dies_in_the_second_turn_of_step_3
    with pytest.raises(ServerError, match="out of memory"):
        train(base, mock_server.url, tmp_path / "run")
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())] == [
        "step-000000",
        "step-000002",
    ]
    mock_server.default = "ok"
    train(base, mock_server.url, tmp_path / "run", resume=True)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "alone")


def test_log_probabilities_of_another_distribution_are_told_in_the_log(
    base: str, vllm: Any, mock_server: Any, tmp_path: Path
) -> None:
    vllm.logprobs_mode = "raw_logprobs"  # vLLM's default: before the temperature
    train(base, mock_server.url, tmp_path / "run", steps=1, temperature=0.3)
    assert "--logprobs-mode processed_logprobs" in (tmp_path / "run" / "log.txt").read_text()


def test_runs_that_share_an_adapter_folder_write_apart(
    base: str, vllm: Any, mock_server: Any, tmp_path: Path
) -> None:
    for run in ("one", "two"):
        train(base, mock_server.url, tmp_path / run, steps=1, folder=str(tmp_path / "adapters"))
    paths = [Path(body["lora_path"]) for body in mock_server.requests if "lora_path" in body]
    assert len({path.parents[1] for path in paths}) == 2
    assert all(path.parents[2] == tmp_path / "adapters" for path in paths)
    assert len(set(vllm.loaded)) == 4  # equal weights, and names of their own


@pytest.mark.parametrize(
    ("team", "settings", "message"),
    [
        ({"tuning": "full"}, {"generation_server": "http://h/v1"}, "team.tuning to lora"),
        ({"model": ["a", "b"]}, {"generation_server": "http://h/v1"}, "one base model"),
        ({}, {"adapter_folder": "adapters"}, "trainer.generation_server, which is not set"),
        ({}, {"generation_server": "localhost:8000"}, "no http or https address"),
    ],
)
def test_settings_that_cannot_be_served_are_refused_before_any_model_is_loaded(
    team: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        refuse_unserved(TeamConfig(**team), TrainerConfig(**settings))
