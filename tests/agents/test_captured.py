"""Recorded decoding steps: repeated with the same shapes on the same memory, they sample what other steps sample.

A CUDA graph repeats the kernels of the one call that it recorded. Here the operations of that call are recorded below
Python, and done again on the same tensors in the same order: whatever a step takes from Python alone (a number, a length,
a new tensor made beforehand) is repeated as it was, and shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only
from transformers import PreTrainedModel

from textmarl.agents import captured
from textmarl.agents import policy as policy_module
from textmarl.agents.adapters import AdapterBank
from textmarl.agents.captured import CapturedPrefix, why_unrecorded
from textmarl.agents.generation import generate_shared
from textmarl.agents.policy import Policy
from textmarl.agents.prefix import SharedPrefix, shares_prompts
from textmarl.agents.sampling import Sampling
from textmarl.agents.team import Team, TeamConfig

STOP = frozenset({1})
PROMPTS = [[5, 3, 7, 2, 6, 9, 4, 4], [8], [2, 0, 1, 0, 11, 3]]


class Recorded(TorchDispatchMode):
    """The operations of one call. It does them, as a graph does not; the first repetition is therefore left out.

    Of what waits for a device it knows numbers that are read and places that are searched, not copies between devices.
    """

    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Any]]] = []
        self.repetitions = 0
        with self:
            step()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise RuntimeError(f"{operation} waits for the device")
        result = operation(*args, **(kwargs or {}))
        self.operations.append((operation, args, kwargs or {}, tree_flatten(result)[0]))
        return result

    def repeat(self) -> None:
        """Do the operations again; what they return goes where it was the first time."""
        self.repetitions += 1
        if self.repetitions == 1:
            return
        made: dict[int, Tensor] = {}
        for operation, args, kwargs, results in self.operations:
            args, kwargs = tree_map_only(Tensor, lambda t: made.get(id(t), t), (args, kwargs))
            for old, new in zip(results, tree_flatten(operation(*args, **kwargs))[0], strict=True):
                made[id(old)] = new
        for *_, results in self.operations:  # a graph's outputs keep their addresses
            for old in results:
                if isinstance(old, Tensor) and made[id(old)] is not old:
                    old.set_(made[id(old)])


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    found: list[Recorded] = []

    class Recorder:
        def __init__(self, device: torch.device) -> None:
            assert device.type == "cpu"

        def record(self, step: Callable[[], None]) -> Callable[[], None]:
            found.append(Recorded(step))
            return found[-1].repeat

    monkeypatch.setattr(captured, "Recorder", Recorder)
    monkeypatch.setattr(captured, "RECORD_AFTER", 1)
    return found


def sampled(model: PreTrainedModel, n: int, kind: type[SharedPrefix], **options: Any) -> list[Any]:
    tokens = options.pop("max_new_tokens", 16)
    prompts = options.pop("prompts", PROMPTS)
    uniform = torch.rand(len(prompts) * n, tokens, generator=torch.Generator().manual_seed(3))
    sampling = Sampling(temperature=1.5, max_new_tokens=tokens)
    stop = options.pop("stop", STOP)
    return generate_shared(model, prompts, n, stop, sampling, uniform, kind=kind, **options)


def assert_same(found: list[Any], expected: list[Any]) -> None:
    assert [s.token_ids for s in found] == [s.token_ids for s in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=2e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma", "gpt2"])
def test_repeated_steps_sample_the_same(
    make_model: Callable[..., PreTrainedModel], family: str, recordings: list[Recorded]
) -> None:
    model = make_model(family)
    assert shares_prompts(model)
    assert_same(sampled(model, 8, CapturedPrefix), sampled(model, 8, SharedPrefix))
    assert max(recording.repetitions for recording in recordings) > 1


def test_rows_that_enter_and_places_that_are_used_again_are_as_without_recording(
    make_model: Callable[..., PreTrainedModel], recordings: list[Recorded], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("llama")
    assert shares_prompts(model)
    monkeypatch.setattr(captured, "BLOCK", 8)
    many = {"prompts": [[2 + i % 9, 3, 2 + i // 9] for i in range(24)], "batch_size": 4, "max_new_tokens": 30}
    assert_same(sampled(model, 1, CapturedPrefix, **many), sampled(model, 1, SharedPrefix, **many))
    assert len(recordings) > 8 and max(recording.repetitions for recording in recordings) > 2


def test_adapters_of_several_agents_are_recorded_with_the_rows_they_belong_to(
    recordings: list[Recorded],
) -> None:
    team = Team.create(["player_0", "player_1"], TeamConfig(model="tiny", device="cpu"))
    for policy in team.policies.values():
        for parameter in policy.parameters().values():
            torch.nn.init.normal_(parameter, std=0.1)
    model = team.policies["player_0"].model
    found, often = [], frozenset(range(8))
    for kind in (CapturedPrefix, SharedPrefix):
        with AdapterBank(model, list(team.policies)) as bank:
            found.append(sampled(model, 4, kind, adapters=bank, owners=[0, 1, 0], stop=often))
    assert_same(*found)
    assert len(recordings) > 1


class Idle:
    """Records nothing, as a recording on another device would."""

    def __init__(self, device: torch.device) -> None:
        pass

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        step()
        return lambda: None


class Refusing(Idle):
    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)


@pytest.mark.usefixtures("without_cuda")
def test_a_model_is_asked_for_proof(
    make_model: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch, recordings: list[Recorded]
) -> None:
    model = make_model("llama")
    assert shares_prompts(model)
    assert why_unrecorded(model) == ""
    assert recordings[0].repetitions > 2
    monkeypatch.setattr(captured, "Recorder", Idle)
    assert "differ" in why_unrecorded(model)
    monkeypatch.setattr(captured, "Recorder", Refusing)
    assert "not permitted" in why_unrecorded(model)


@pytest.mark.parametrize("reason", ["", "its code cannot be recorded"])
@pytest.mark.parametrize("device, wanted", [("cuda", True), ("cuda", False), ("cpu", True)])
def test_steps_are_recorded_on_a_gpu_unless_that_is_switched_off_or_cannot_be(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: bool, reason: str
) -> None:
    monkeypatch.setattr(Policy, "device", torch.device(device))
    monkeypatch.setattr(policy_module, "why_unrecorded", lambda model: reason)
    team = Team.create(["player_0"], TeamConfig(model="tiny", device="cpu", capture_decoding=wanted))
    policy = team.policies["player_0"]
    assert policy.captures_decoding == (device == "cuda" and wanted and not reason)
    assert ("recorded" in policy.path) == (device == "cuda" and wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("device", range(torch.cuda.device_count()))
def test_cuda_graphs_sample_the_same(
    make_model: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch, device: int
) -> None:
    made: list[Any] = []
    record = captured.Recorder.record

    def counted(self: Any, step: Callable[[], None]) -> Callable[[], None]:
        made.append(step)
        return record(self, step)

    monkeypatch.setattr(captured.Recorder, "record", counted)
    model = make_model("llama").to(f"cuda:{device}")
    assert shares_prompts(model) and why_unrecorded(model) == ""
    many = {"prompts": [[2 + i % 9, 3, 2 + i // 9] for i in range(24)], "batch_size": 8, "max_new_tokens": 30}
    assert_same(sampled(model, 1, CapturedPrefix, **many), sampled(model, 1, SharedPrefix, **many))
    assert len(made) > 2
