"""Teams: adapters on a shared base, full weights, references, saving and loading."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from textmarl.agents import Conversation, Sampling, Team, TeamConfig, evaluate, load_model
from textmarl.agents.policy import Policy
from textmarl.agents.team import random_stream
from textmarl.envs import Outcome, TaskSet, TextEnv

AGENTS = ["left", "right"]
PROMPT, RESPONSE = [5, 3, 7, 2], [4, 9, 1]
SAMPLING = Sampling(max_new_tokens=6)


def make_team(agents: list[str] | None = None, moved: bool = True, **settings: Any) -> Team:
    """Make a team, by default with trained parameters away from their initial values: LoRA begins with B = 0."""
    team = Team.create(agents or AGENTS, TeamConfig(**{"model": "tiny", "lora_rank": 4, **settings}))
    if moved:
        for index, policy in enumerate(team.policies.values()):
            generator = torch.Generator().manual_seed(index)
            with torch.no_grad():
                for parameter in policy.parameters().values():
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter += 0.1 * noise.to(parameter.dtype)
    return team


def scores(policy: Policy) -> Tensor:
    return policy.score([PROMPT], [[RESPONSE]], SAMPLING).logprobs[0]


def snapshot(policy: Policy) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def frozen(policy: Policy) -> dict[str, Tensor]:
    return {name: value for name, value in snapshot(policy).items() if "lora_" not in name}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def say(text: str) -> Conversation:
    return [{"role": "user", "content": text}]


def answers(policy: Policy, seed: int = 0, n: int = 4) -> list[list[int]]:
    rows = policy.generate([say("a cat")], SAMPLING, torch.Generator().manual_seed(seed), n)
    return [response.token_ids for response in rows[0]]


# ----------------------------------------------------------------------------------------------------- adapters


def test_agents_share_one_base_and_differ_by_their_adapters() -> None:
    team = make_team()
    left, right = team.policies.values()
    assert left.model is right.model
    assert len(left.parameters()) == len(right.parameters()) > 0
    assert not left.parameters().keys() & right.parameters().keys()
    assert not torch.allclose(scores(left), scores(right), atol=1e-3)


def test_adapters_begin_as_the_base_model_and_with_random_numbers_of_their_own() -> None:
    team = make_team(moved=False)
    left, right = team.policies.values()
    base, _ = load_model("tiny", "float32", "cpu")
    expected = torch.log_softmax(base(torch.tensor([PROMPT + RESPONSE])).logits[0] / SAMPLING.temperature, -1)
    expected = expected[range(3, 6), RESPONSE]
    assert torch.allclose(scores(left), expected, atol=1e-5) and torch.allclose(
        scores(right), expected, atol=1e-5
    )
    for (name, one), other in zip(left.parameters().items(), right.parameters().values(), strict=True):
        assert torch.equal(one, other) == ("lora_B" in name)  # B is 0


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_training_one_agent_does_not_move_the_other(tuning: str) -> None:
    team = make_team(tuning=tuning)
    left, right = team.policies.values()
    base, others, before = frozen(left), right.parameters(), scores(right).detach()
    others = {name: p.detach().clone() for name, p in others.items()}
    optimizer = torch.optim.AdamW(left.parameters().values(), lr=0.1, weight_decay=0.1)
    moved = scores(left).detach()
    for _ in range(2):
        optimizer.zero_grad()
        (-scores(left).sum()).backward()
        optimizer.step()
        answers(right)  # sampling in between must not get in the way
    assert not torch.allclose(scores(left), moved, atol=1e-2)
    assert torch.equal(scores(right), before)
    assert all(torch.equal(p, others[name]) for name, p in right.parameters().items())
    if tuning == "lora":
        assert same(frozen(left), base)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_sampling_leaves_every_weight_bit_for_bit_as_it_was(dtype: str) -> None:
    team = make_team(dtype=dtype)
    left = team.policies["left"]
    before = snapshot(left)
    answers(left)
    answers(team.policies["right"])
    assert same(snapshot(left), before)


def test_an_exception_while_sampling_leaves_every_weight_bit_for_bit_as_it_was() -> None:
    team = make_team()
    left = team.policies["left"]
    before, expected = snapshot(left), scores(left).detach()

    def interrupt(tokens: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        left.generate([say("a")], SAMPLING, torch.Generator(), on_tokens=interrupt)
    assert same(snapshot(left), before)
    assert torch.equal(scores(left), expected)
    assert torch.allclose(scores(team.policies["right"]), scores(make_team().policies["right"]), atol=1e-6)


def test_sampling_draws_from_the_adapted_model_not_from_the_base() -> None:
    team = make_team()
    rows = {
        name: policy.generate([say("a cat")], SAMPLING, torch.Generator().manual_seed(0), n=3)[0]
        for name, policy in team.policies.items()
    }
    for name, policy in team.policies.items():
        for response in rows[name]:
            scored = policy.score([response.prompt_ids], [[response.token_ids]], SAMPLING).logprobs[0]
            assert response.logprobs == pytest.approx(scored.tolist(), abs=2e-5)


def test_linear_layers_stored_transposed_are_sampled_right(save_folder: Callable[..., Path]) -> None:
    team = make_team(model=str(save_folder("gpt2")), dtype="float32")
    policy = team.policies["right"]
    for response in policy.generate([say("abc")], SAMPLING, torch.Generator().manual_seed(0), n=4)[0]:
        scored = policy.score([response.prompt_ids], [[response.token_ids]], SAMPLING).logprobs[0]
        assert response.logprobs == pytest.approx(scored.tolist(), abs=2e-5)


def test_agents_with_similar_names_have_adapters_of_their_own(tmp_path: Path) -> None:
    agents = ["a", "A", "o", "player_1", "player_10", "weights", "main"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of names that occur in "lora_"
        team = make_team(agents)
        team.save(tmp_path)
        loaded = Team.load(tmp_path)
    parameters = [id(p) for policy in team.policies.values() for p in policy.parameters().values()]
    assert (
        len(set(parameters)) == len(parameters) == len(agents) * 2 * 2 * 7
    )  # A and B, 2 layers, 7 linear maps
    for name, policy in team.policies.items():
        assert torch.equal(scores(loaded.policies[name]), scores(policy))


@pytest.mark.parametrize(
    "name", ["layers", "mlp", "q_proj", "0", "weight", "lora_A", "base_layer", "default"]
)
def test_an_agent_called_like_a_part_of_its_network_is_refused(name: str) -> None:
    for agents in (["one", name], [name, "one"]):
        with pytest.raises(ValueError, match=f"cannot be called '{name}': .*rename the agent"):
            make_team(agents)


# ---------------------------------------------------------------------------------------------------- reference


def test_the_reference_of_an_adapter_is_the_base_model() -> None:
    team = make_team()
    base, _ = load_model("tiny", "float32", "cpu")
    expected = torch.log_softmax(base(torch.tensor([PROMPT + RESPONSE])).logits[0] / SAMPLING.temperature, -1)
    for policy in team.policies.values():
        found = policy.score_reference([PROMPT], [[RESPONSE]], SAMPLING).logprobs[0]
        assert torch.allclose(found, expected[range(3, 6), RESPONSE], atol=1e-5)
        assert not torch.allclose(scores(policy), found, atol=1e-3)


def test_the_reference_of_full_weights_is_a_copy_that_stays() -> None:
    team = make_team(tuning="full", reference="copy")
    base, _ = load_model("tiny", "float32", "cpu")
    expected = torch.log_softmax(base(torch.tensor([PROMPT + RESPONSE])).logits[0] / SAMPLING.temperature, -1)
    found = team.policies["left"].score_reference([PROMPT], [[RESPONSE]], SAMPLING).logprobs[0]
    assert torch.allclose(found, expected[range(3, 6), RESPONSE], atol=1e-5)


def test_full_weights_without_a_copy_have_no_reference() -> None:
    team = make_team(tuning="full")
    with pytest.raises(ValueError, match='no reference policy; create the team with reference="copy"'):
        team.policies["left"].score_reference([PROMPT], [[RESPONSE]], SAMPLING)


# ----------------------------------------------------------------------------------------------- random streams


def test_every_agent_has_a_random_stream_of_its_own() -> None:
    team = make_team(moved=False)  # equal policies: only their streams tell them apart
    left, right = team.agents(SAMPLING, seed=3).values()
    first = [right.act([say("a")])[0].token_ids for _ in range(3)]
    left, right = team.agents(SAMPLING, seed=3).values()
    for _ in range(5):
        left.act([say("a"), say("b")])
    assert [right.act([say("a")])[0].token_ids for _ in range(3)] == first
    left, _ = team.agents(SAMPLING, seed=3).values()
    assert [left.act([say("a")])[0].token_ids for _ in range(3)] != first


def test_streams_of_different_seeds_and_paths_differ() -> None:
    paths = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0)]
    firsts = [float(torch.rand(1, generator=random_stream(*path), dtype=torch.float64)) for path in paths]
    assert len(set(firsts)) == len(firsts)
    assert torch.rand(1, generator=random_stream(5, 2)) == torch.rand(1, generator=random_stream(5, 2))


class Echo(TextEnv):
    possible_agents = AGENTS
    tasks = TaskSet.of(["one", "two", "three"])

    def observe(self, agent: str) -> str:
        return self.task.data["text"]

    def judge(self, responses: dict[str, str]) -> Outcome:
        return Outcome({"score": float(sum(map(len, responses.values())))})


def test_a_team_plays_an_evaluation_the_same_way_twice() -> None:
    team = make_team()

    def played() -> list[Any]:
        result = evaluate(Echo(), team.agents(SAMPLING, seed=1), samples=3, seed=2)
        return [episode.turns for episode in result.episodes]

    assert played() == played()


# ------------------------------------------------------------------------------------------- saving and loading


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_saved_team_loads_as_it_was(tmp_path: Path, tuning: str) -> None:
    team = make_team(tuning=tuning, thinking="strip", lora_alpha=7.0)
    team.save(tmp_path)
    loaded = Team.load(tmp_path)
    assert list(loaded.policies) == AGENTS
    assert loaded.config == team.config
    for name, policy in team.policies.items():
        assert torch.equal(scores(loaded.policies[name]), scores(policy))
        assert answers(loaded.policies[name]) == answers(policy)
        assert loaded.policies[name].parameters().keys() == policy.parameters().keys()
        assert all(p.requires_grad for p in loaded.policies[name].parameters().values()) or tuning == "lora"


def test_a_loaded_team_trains_on(tmp_path: Path) -> None:
    make_team().save(tmp_path)
    policy = Team.load(tmp_path).policies["left"]
    (-scores(policy).sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.parameters().values())


def test_a_loaded_team_of_full_weights_keeps_the_reference_that_training_began_with(tmp_path: Path) -> None:
    team = make_team(tuning="full", reference="copy")
    expected = team.policies["left"].score_reference([PROMPT], [[RESPONSE]], SAMPLING).logprobs
    team.save(tmp_path)
    found = Team.load(tmp_path).policies["left"].score_reference([PROMPT], [[RESPONSE]], SAMPLING).logprobs
    assert torch.equal(found, expected)


def test_a_team_of_different_models_loads_as_it_was(save_folder: Callable[..., Path], tmp_path: Path) -> None:
    team = make_team(model=["tiny", str(save_folder("qwen2"))], dtype="float32")
    team.save(tmp_path / "team")
    loaded = Team.load(tmp_path / "team")
    for name, policy in team.policies.items():
        assert torch.equal(scores(loaded.policies[name]), scores(policy))


def test_saved_adapters_load_with_transformers_and_peft_alone(
    save_folder: Callable[..., Path], tmp_path: Path
) -> None:
    base = str(save_folder("llama"))
    team = make_team(model=base, dtype="float32")
    team.save(tmp_path)
    for name, policy in team.policies.items():
        folder = tmp_path / "adapters" / name
        described = json.loads((folder / "adapter_config.json").read_text())
        assert described["base_model_name_or_path"] == base
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
        logits = model(input_ids=torch.tensor([PROMPT + RESPONSE])).logits[0]
        expected = torch.log_softmax(logits / SAMPLING.temperature, -1)[range(3, 6), RESPONSE]
        assert torch.allclose(scores(policy), expected, atol=1e-5)
        assert (
            AutoTokenizer.from_pretrained(folder)("abc")["input_ids"] == policy.tokenizer("abc")["input_ids"]
        )


def test_saved_full_weights_load_with_transformers_alone(tmp_path: Path) -> None:
    team = make_team(tuning="full")
    team.save(tmp_path)
    for name, policy in team.policies.items():
        folder = tmp_path / "models" / name
        assert "textmarl" not in (folder / "config.json").read_text()
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([PROMPT + RESPONSE])).logits[0]
        expected = torch.log_softmax(logits / SAMPLING.temperature, -1)[range(3, 6), RESPONSE]
        assert torch.allclose(scores(policy), expected, atol=1e-5)


def lose_team(folder: Path) -> None:
    (folder / "team.json").unlink()


def misspell_a_field(folder: Path) -> None:
    text = (folder / "team.json").read_text()
    (folder / "team.json").write_text(text.replace('"lora_rank"', '"rank"'))


def lose_an_adapter(folder: Path) -> None:
    shutil.rmtree(folder / "adapters" / "right")


def lose_weights(folder: Path) -> None:
    (folder / "adapters" / "right" / "adapter_model.safetensors").unlink()


def cut_weights(folder: Path) -> None:
    file = folder / "adapters" / "right" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:3000])


def overwrite_weights(folder: Path) -> None:
    (folder / "adapters" / "right" / "adapter_model.safetensors").write_bytes(b"not weights")


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor], str], None]) -> None:
    file = folder / "adapters" / "right" / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors, next(iter(tensors)))
    save_file(tensors, file)


def drop_a_tensor(folder: Path) -> None:
    change_tensors(folder, lambda tensors, name: tensors.__delitem__(name))


def add_a_tensor(folder: Path) -> None:
    change_tensors(
        folder, lambda tensors, name: tensors.update({name.replace("layers.0", "layers.7"): torch.ones(2)})
    )


def reshape_a_tensor(folder: Path) -> None:
    change_tensors(folder, lambda tensors, name: tensors.update({name: torch.ones(3, 3)}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_team, "holds no saved team .*expected a run directory"),
        (misspell_a_field, "holds no saved team .*'rank'"),
        (lose_an_adapter, "is broken: there is no adapters/right"),
        (lose_weights, "is broken: .*adapter_model.safetensors"),
        (cut_weights, "is broken: "),
        (overwrite_weights, "is broken: "),
        (drop_a_tensor, "is broken: adapters/right is of another model, or not whole"),
        (add_a_tensor, "is broken: adapters/right is of another model, or not whole"),
        (reshape_a_tensor, "is broken: .*size mismatch"),
    ],
)
def test_a_broken_folder_is_refused_with_what_is_wrong(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    make_team().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=f"(?s){message}") as caught:
        Team.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_broken_folder_of_full_weights_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    make_team(tuning="full").save(tmp_path)
    (tmp_path / "models" / "left" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="models/left' holds no loadable causal language model"):
        Team.load(tmp_path)
    shutil.rmtree(tmp_path / "models" / "left")
    with pytest.raises(ValueError, match="is broken: there is no models/left"):
        Team.load(tmp_path)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_trained_parameters_go_into_another_team_of_the_same_kind(tuning: str) -> None:
    team, other = make_team(tuning=tuning), make_team(tuning=tuning, moved=False)
    other.load_state_dict(team.state_dict())
    for name, policy in team.policies.items():
        assert torch.equal(scores(other.policies[name]), scores(policy))


def test_parameters_of_another_team_are_refused() -> None:
    state = make_team().state_dict()
    with pytest.raises(ValueError, match="does not fit agent 'left'"):
        make_team(lora_rank=8).load_state_dict(state)
    with pytest.raises(ValueError, match=r"of the agents \['left', 'right'\], expected \['left'\]"):
        make_team(["left"]).load_state_dict(state)


# ------------------------------------------------------------------------------------------- making a team wrong


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 0}, "lora_rank must be at least 1, got 0"),
        ({"reference": "copy"}, "reference=.copy. is for full weights"),
        ({"tuning": "half"}, "tuning must be one of .*'half'"),
        ({"thinking": "drop"}, "thinking must be one of .*'drop'"),
        ({"reference": "base"}, "reference must be one of .*'base'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"team.{message}"):
        TeamConfig(**settings)


@pytest.mark.parametrize("models", [["tiny"], ["tiny"] * 3, []])
def test_a_list_of_models_has_one_for_each_agent(models: list[str]) -> None:
    with pytest.raises(
        ValueError, match=f"lists {len(models)} models for 2 agents; expected one name for all"
    ):
        Team.create(AGENTS, TeamConfig(model=models))


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ([], "different agent names"),
        (["a", "a"], "different agent names"),
        (["v1.0", "b"], "no dot or slash"),
    ],
)
def test_agents_that_cannot_be_told_apart_or_stored_are_refused(agents: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Team.create(agents, TeamConfig(model="tiny"))


def test_an_evaluation_of_other_weights_or_sampling_is_not_continued(tmp_path: Path) -> None:
    def play(team: Team, sampling: Sampling = SAMPLING) -> None:
        evaluate(Echo(), team.agents(sampling, seed=1), tasks=1, output=tmp_path)

    team = make_team()
    play(team)
    play(team)
    with pytest.raises(ValueError, match=r"agents\.\w+\.sampling\.temperature was"):
        play(team, replace(SAMPLING, temperature=0.1))
    first, second = team.policies.values()
    digests = [first.digest(), second.digest()]
    with torch.no_grad():
        next(iter(second.parameters().values()))[-1, -1] += 1e-3  # the last number of one tensor
    assert first.digest() == digests[0], "the partner's adapter is none of its weights"
    assert second.digest() != digests[1]
    with pytest.raises(ValueError, match=rf"agents\.{second.name}\.weights was '{digests[1]}'"):
        play(team)
