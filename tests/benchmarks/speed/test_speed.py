"""What the speed benchmark computes, and that our rows run; the peers need not be installed."""

from __future__ import annotations

import argparse
import ast
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from textmarl.agents.tiny import tiny_model, tiny_tokenizer
from textmarl.benchmarks.pages import BEGIN, END
from textmarl.benchmarks.speed import __main__ as command
from textmarl.benchmarks.speed import floor, ours, peer_transformers, processes, profiled, summary, work
from textmarl.benchmarks.speed.plan import PARTS, ROWS, Measurement, in_turns, plan
from textmarl.benchmarks.speed.plots import save_plots, series
from textmarl.benchmarks.speed.prompts import make_prompts, prompt_length

TINY = work.Work("tiny", tasks=2, group=3, new_tokens=4, prompt_tokens=80)
SIZES = [(1, 4, 64), (4, 4, 64), (4, 8, 64)]


# --- the floor ------------------------------------------------------------------------------------------------------


def small(kind: type[PretrainedConfig], **more: Any) -> PretrainedConfig:
    return kind(
        hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
        vocab_size=70, **more,
    )  # fmt: skip


def smollm2_like() -> PretrainedConfig:
    return LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=49152, tie_word_embeddings=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [small(LlamaConfig), small(Qwen2Config), small(Qwen3Config, head_dim=20), smollm2_like()],
    ids=["Llama", "Qwen2", "Qwen3 with heads of their own width", "SmolLM2-135M"],
)
def test_the_floor_has_the_shapes_of_every_linear_layer_of_the_model(config: PretrainedConfig) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    real = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert sorted(floor.step_shapes(config)) == sorted(real)


def test_the_floor_reads_as_many_cache_bytes_as_the_model_has_stored() -> None:
    model = tiny_model()
    cache = model(torch.zeros(1, 10, dtype=torch.long), use_cache=True).past_key_values
    stored = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    one_prompt = work.Work("tiny", tasks=1, group=5, new_tokens=0, agents=1, prompt_tokens=10)
    assert floor.cache_bytes(model.config, one_prompt, 4) == stored  # once, though five responses follow it
    half_written = replace(one_prompt, new_tokens=8)
    assert floor.cache_bytes(model.config, half_written, 4) == stored + 5 * 4 * stored // 10


def test_the_floor_is_its_products_and_its_cache() -> None:
    found = floor.measure(TINY, tiny_model().config, repeats=2)
    assert found["seconds"] == found["product_seconds"] + found["cache_seconds"] > 0
    assert found["cache_seconds"] == pytest.approx(found["cache_bytes"] / found["bytes_per_second"])


@pytest.mark.parametrize(("tuning", "passes"), [("lora", 1), ("full", 2)])
def test_the_products_of_a_step_are_those_of_its_tokens(
    monkeypatch: pytest.MonkeyPatch, tuning: str, passes: int
) -> None:
    """Two agents, two tasks, groups of three, four tokens, prompts of 80: 320 prompt tokens and 48 of responses."""
    asked: list[tuple[int, int, tuple[str, ...]]] = []

    def product_seconds(shapes: Any, rows: int, dtype: Any, repeats: int, gradients: Any = ()) -> float:
        asked.append((len(shapes), rows, tuple(gradients)))
        return 1.0

    monkeypatch.setattr(floor, "product_seconds", product_seconds)
    config = tiny_model().config
    layers = 7 * config.num_hidden_layers
    found = floor.step_products(replace(TINY, tuning=tuning), config, 100, repeats=1)
    gradients = ("inputs",) if tuning == "lora" else ("inputs", "weights")
    assert asked == [
        (layers, 320 // passes, ()),
        (layers + 1, 12 // passes, ()),
        (layers, 92, gradients),  # each agent's 184 in two micro-batches
        (1, 24, gradients),
    ]
    assert found == {
        "prefill_seconds": passes,
        "decode_seconds": 3 * passes,
        "update_seconds": 2 * (2 + 1),
        "seconds": passes + 3 * passes + 6,
    }


def test_products_of_the_backward_pass_are_made_too() -> None:
    shapes = [(64, 32), (32, 48)]
    assert floor.product_seconds(shapes, 5, torch.float32, 2, ("inputs", "weights")) > 0


# --- our rows -------------------------------------------------------------------------------------------------------


def tiny_prompts(job: work.Work) -> list[list[str]]:
    return make_prompts(tiny_tokenizer(), job.agents, [job.prompt_tokens] * job.tasks)


@pytest.mark.parametrize(("tuning", "dtype"), [("full", "float32"), ("lora", "bfloat16")])
def test_our_step_generates_every_token_and_its_phases_add_up(tuning: str, dtype: str) -> None:
    job = replace(TINY, tuning=tuning, dtype=dtype)
    found = ours.step(job, tiny_prompts(job))
    seconds = found["seconds"]
    assert sum(seconds[phase] for phase in work.PHASES) == pytest.approx(seconds["step"])
    assert min(seconds["generation"], seconds["update"], found["peak_gib"]) > 0


@pytest.mark.parametrize("agents", [1, 2])
def test_our_generation_runs_for_one_policy_and_for_a_team(agents: int) -> None:
    job = replace(TINY, agents=agents, tuning="lora")
    found = ours.decoding(ours.generator_of(job, tiny_prompts(job)), job, repeats=1)
    assert found["tokens_per_second"] == pytest.approx(job.tokens / found["seconds"])
    steps = found["seconds"] - found["first_token_seconds"]
    assert found["decode_step_seconds"] == pytest.approx(steps / (job.new_tokens - 1))


def test_our_decoding_step_is_divided_among_what_it_is_made_of() -> None:
    job = replace(TINY, agents=1, tuning="lora")
    found = profiled.decoding_profile(ours.generator_of(job, tiny_prompts(job)))
    assert list(found) == list(profiled.GROUPS)
    assert all(found[name] > 0 for name in profiled.GROUPS if name.endswith("products"))


@pytest.mark.parametrize(
    ("operation", "shapes", "expected"),
    [
        ("aten::mm", [[8, 64], [64, 128]], "base's products"),
        ("aten::mm", [[8, 64], [64, 16]], "adapters' products"),
        ("aten::addmm", [[8, 128], [8, 16], [16, 128], [], []], "adapters' products"),
        ("aten::bmm", [[8, 1, 16], [8, 16, 30]], "attention's products"),
        ("aten::copy_", [[8], [8], []], "copies"),
        ("aten::silu", [[8, 128]], "other operations"),
    ],
)
def test_an_operation_belongs_to_a_group(operation: str, shapes: list[list[int]], expected: str) -> None:
    assert profiled.group_of(operation, shapes, rank=16) == expected


def test_our_update_runs() -> None:
    job = replace(TINY, agents=1, tasks=1, tuning="lora")
    assert ours.update(job, tiny_prompts(job), repeats=1)["seconds"] > 0


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_library_generates_from_the_same_request(tuning: str) -> None:
    job = replace(TINY, agents=1, tuning=tuning)
    assert peer_transformers.generation(job, tiny_prompts(job), repeats=1)["tokens_per_second"] > 0


def test_a_team_never_stops_early_and_its_adapters_do_something() -> None:
    team = ours.make_team(replace(TINY, tuning="lora"))
    for policy in team.policies.values():
        assert not policy.stop_ids
        assert all(bool(parameter.any()) for parameter in policy.parameters().values())


def test_prompts_have_exactly_the_tokens_asked_for_and_differ() -> None:
    tokenizer = tiny_tokenizer()
    prompts = make_prompts(tokenizer, 2, [80, 61])
    assert [[prompt_length(tokenizer, text) for text in own] for own in prompts] == [[80, 80], [61, 61]]
    assert len({text for own in prompts for text in own}) == 4
    with pytest.raises(ValueError, match="exactly 5 tokens"):
        make_prompts(tokenizer, 1, [5])


# --- what everyone shares -------------------------------------------------------------------------------------------


def test_the_reward_tells_joint_actions_apart() -> None:
    assert work.reward(["a b", "c d"]) > work.reward(["a b", "a b"]) > work.reward(["", ""]) == 0


def test_a_phase_within_a_phase_is_counted_once() -> None:
    clock = work.Clock()
    inner = clock.timed("reward", lambda: None)
    clock.timed("generation", inner)()
    assert clock.seconds["reward"] == 0 < clock.seconds["generation"]
    split = clock.split(10.0)
    assert sum(split[phase] for phase in work.PHASES) == pytest.approx(split["step"])


def test_the_peers_scripts_use_what_there_is() -> None:
    folder = Path(str(work.__file__)).parent
    for path in (folder / "peer_comlrl.py", folder / "peer_trl.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "work"]
        names = [alias.name for node in imports for alias in node.names]
        assert names
        assert not [name for name in names if not hasattr(work, name)]


# --- the plan -------------------------------------------------------------------------------------------------------


def test_every_peer_does_work_that_we_do_too() -> None:
    measurements = plan(PARTS, ROWS, "tiny", SIZES, [8, 32], repeats=5)
    assert len({m.key for m in measurements}) == len(measurements)
    own = {(m.kind, m.work) for m in measurements if m.row == "textmarl"}
    assert {(m.kind, m.work) for m in measurements if m.row in ("comlrl", "trl", "transformers")} <= own
    batches = {(m.row, m.work.responses) for m in measurements if m.kind in ("generation", "floor")}
    assert batches == {(row, b) for row in ("textmarl", "transformers", "floor") for b in (8, 32)}


def test_rows_take_turns_and_only_the_two_sizes_are_repeated() -> None:
    measurements = plan(["step"], ["textmarl", "trl"], "tiny", SIZES, [], repeats=2)
    turns = list(in_turns(measurements))
    assert [m for repeat, m in turns if repeat == 0] == measurements
    again = {(m.work.tasks, m.work.group) for repeat, m in turns if repeat == 1}
    assert again == {(1, 4), (4, 4)}


def test_unequal_prompts_spread_from_half_the_length_to_all_of_it() -> None:
    job = work.Work("tiny", tasks=3, prompt_tokens=200)
    assert Measurement("generation", "textmarl", "generation", job).prompt_lengths == [200, 200, 200]
    spread = Measurement("generation", "textmarl", "generation", job, "unequal prompts")
    assert spread.prompt_lengths == [200, 150, 100]


@pytest.mark.parametrize(("text", "expected"), [("4x8", (4, 8, 64)), ("4x4x128", (4, 4, 128))])
def test_a_size_is_read(text: str, expected: tuple[int, int, int]) -> None:
    assert command.size(text) == expected


@pytest.mark.parametrize("text", ["4", "4x1", "axb", "0x4"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="tasks x group"):
        command.size(text)


# --- running and adding up ------------------------------------------------------------------------------------------


def run_of(step: float, peak: float = 1.0) -> dict[str, Any]:
    seconds = {"generation": step / 2, "reward": 0.0, "scoring": 0.0, "update": step / 2, "step": step}
    return {"seconds": seconds, "peak_gib": peak, "threads": 2}


def made_up(run: Callable[[Measurement], dict[str, Any]], measurements: list[Measurement]) -> list[Any]:
    results: dict[str, Any] = {"measurements": {}}
    command.measure(measurements, run, results, lambda text: None, lambda: None)
    return list(results["measurements"].values())


def test_a_median_of_steps_is_a_run_whose_phases_add_up() -> None:
    found = summary.medians([run_of(9.0, 3.0), run_of(1.0, 1.0), run_of(4.0, 2.0)])
    assert (found["step_seconds"], found["fastest_step_seconds"], found["slowest_step_seconds"]) == (4, 1, 9)
    assert found["seconds"] == run_of(4.0)["seconds"]
    assert found["peak_gib"] == 2.0
    assert summary.medians([run_of(1.0), run_of(4.0)])["step_seconds"] == 2.5
    assert summary.medians([]) == {}


def test_ratios_compare_like_with_like_and_best_with_best() -> None:
    steps = {
        ("textmarl", "full"): 8.0,
        ("textmarl", "lora"): 4.0,
        ("comlrl", "full"): 40.0,
        ("comlrl", "lora"): 48.0,
    }
    measurements = plan(["step"], ["textmarl", "comlrl", "trl"], "tiny", [(4, 4, 64)], [], repeats=1)

    def run(measurement: Measurement) -> dict[str, Any]:
        who = measurement.row, measurement.work.tuning
        if who not in steps:
            raise processes.MeasurementFailed("not installed")
        return run_of(steps[who], peak=steps[who] / 4)

    rows = made_up(run, measurements)
    comlrl, trl = summary.ratios(rows)
    assert (comlrl["full float32"], comlrl["lora bfloat16"], comlrl["best with best"]) == (5.0, 12.0, 10.0)
    assert comlrl["memory, best with best"] == pytest.approx(1 / 10)
    assert trl["best with best"] is None
    console = Console(record=True, width=200, file=io.StringIO())
    summary.show(console, rows)
    shown = console.export_text()
    assert "10.0x" in shown
    assert "not installed" in shown


def test_decoding_is_compared_with_the_floor_and_with_the_library_at_the_same_batch_weights_and_precision() -> (
    None
):
    measurements = plan(["floor", "generation"], ROWS, "tiny", [], [8, 32], repeats=1)

    def run(measurement: Measurement) -> dict[str, Any]:
        seconds = measurement.work.responses * (2 if measurement.work.dtype == "float32" else 1)
        if measurement.row == "floor":
            return {
                "product_seconds": 1,
                "cache_bytes": 1,
                "bytes_per_second": 1,
                "cache_seconds": 1,
                "seconds": seconds,
            }
        speed = 5.0 if measurement.work.tuning == "lora" else 10.0
        speed *= 3 if measurement.row == "textmarl" else 1
        return {"tokens_per_second": speed, "decode_step_seconds": 1.5 * seconds}

    found = summary.against_floor(made_up(run, measurements))
    assert {each["over_floor"] for each in found} == {1.5}
    assert {each["over_generate"] for each in found if each["who"] == "textmarl"} == {3.0}
    assert {each["over_generate"] for each in found if each["who"] == "transformers"} == {None}


def test_the_update_is_compared_in_the_same_precision() -> None:
    measurements = plan(["update"], ROWS, "tiny", [], [], repeats=1)
    seconds = {
        ("textmarl", "full"): 2.0,
        ("comlrl", "full"): 5.0,
        ("textmarl", "lora"): 1.0,
        ("comlrl", "lora"): 6.0,
    }
    rows = made_up(lambda m: {"seconds": seconds[m.row, m.work.tuning]}, measurements)
    assert [each["ratio"] for each in summary.update_ratios(rows)] == [2.5, 6.0]


def test_what_was_measured_is_not_measured_again_and_a_failure_is_told() -> None:
    measurements = plan(["scaling"], ROWS, "tiny", [], [], repeats=1)
    results: dict[str, Any] = {"measurements": {}}
    asked = []

    def run(measurement: Measurement) -> dict[str, Any]:
        asked.append(measurement.key)
        if measurement.work.agents == 8:
            raise processes.MeasurementFailed("no memory")
        return run_of(1.0)

    for _ in range(2):
        command.measure(measurements, run, results, lambda text: None, lambda: None)
    failed = [m.key for m in measurements if m.work.agents == 8]
    assert sorted(asked) == sorted([m.key for m in measurements] + failed)
    assert results["measurements"][failed[0]]["errors"] == ["no memory"] * 2


def test_the_pictures_show_what_differs_in_one_thing_alone(tmp_path: Path) -> None:
    rows = made_up(lambda m: run_of(float(m.work.tokens)), plan(["scaling"], ROWS, "tiny", [], [], repeats=1))
    assert [row["work"]["group"] for row in series(rows, "group")] == [4, 8, 16, 32]
    assert [row["work"]["agents"] for row in series(rows, "agents")] == [2, 4, 8]
    written = save_plots(rows, tmp_path)
    assert [path.name for path in written] == ["speed-group.png", "speed-new-tokens.png", "speed-agents.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_a_process_without_an_answer_is_an_error_that_quotes_it(tmp_path: Path) -> None:
    runner = processes.Runner(1, tmp_path, lambda text: None)
    with pytest.raises(processes.MeasurementFailed, match="no such peer"):
        runner._ask([sys.executable, "-c", "raise SystemExit('no such peer')"], {})
    script = "import json, sys; open(json.load(sys.stdin)['answer'], 'w').write('{\"seconds\": 2}')"
    assert runner._ask([sys.executable, "-c", script], {}) == {"seconds": 2}


def test_runs_of_several_agents_add_up_in_time_and_not_in_memory() -> None:
    found = processes.summed([run_of(3.0, 5.0), run_of(4.0, 2.0)])
    assert (found["seconds"]["step"], found["peak_gib"]) == (7.0, 5.0)


def test_results_are_shown_from_their_file(tmp_path: Path) -> None:
    rows = made_up(lambda m: run_of(1.0), plan(["scaling"], ROWS, "tiny", [], [], repeats=1))
    results = {"machine": command.machine(1), "peers": {}, "measurements": rows}
    (tmp_path / "speed.json").write_text(json.dumps(results), encoding="utf-8")
    page = tmp_path / "speed.md"
    page.write_text(f"{BEGIN}\n{END}\n", encoding="utf-8")
    command.main(["--show", str(tmp_path / "speed.json"), "--plots", str(tmp_path), "--docs", str(page)])
    assert len(list(tmp_path.glob("*.png"))) == 3
    assert "| agents | group | new tokens |" in page.read_text(encoding="utf-8")
