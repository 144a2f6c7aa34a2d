"""A team: one language-model policy for each agent.

By default all policies share one frozen base and differ by a LoRA adapter each, so a team needs the memory of one
model. They can as well be separate models with tokenizers of their own, and train adapters or full weights.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textmarl.agents.conversation import Conversation, Response
from textmarl.agents.models import load_model, no_progress_bars
from textmarl.agents.policy import Policy
from textmarl.agents.prefix import shares_prompts
from textmarl.agents.sampling import Sampling

__all__ = ["PolicyAgent", "Sampling", "Team", "TeamConfig"]


@dataclass
class TeamConfig:
    """Which models a team is made of and what of them is trained."""

    model: str | list[str] = "smollm2-135m"
    """A preset (smollm2-135m, tiny), Hub id or local folder for everyone, or a list with one for each agent."""
    tuning: Literal["lora", "full"] = "lora"
    """Train a LoRA adapter on a frozen base, or every weight of a copy of the model per agent."""
    lora_rank: int = 16
    """Rank of each adapter."""
    lora_alpha: float = 32.0
    """The adapter's output is scaled by lora_alpha / lora_rank."""
    lora_targets: str | list[str] = "all-linear"
    """Modules that get an adapter: "all-linear" (all but the output head) or module names, as in peft."""
    share_base: bool = True
    """With LoRA, agents of the same model share one frozen base; false gives each a copy of its own."""
    reference: Literal["adapter-off", "copy", "none"] = "adapter-off"
    """The reference policy of KL: the base with adapters off; with full weights "copy" keeps a frozen copy."""
    dtype: str = "auto"
    """float32, bfloat16, float16, float64; auto: bfloat16 where it is fast, float32 with full weights."""
    device: str = "auto"
    """A torch device; auto: the first GPU, else the CPU."""
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to the chat template (for instance enable_thinking: false)."""
    thinking: Literal["keep", "strip"] = "keep"
    """strip: the environment gets the answer without what precedes </think>."""
    seed: int = 0
    """Draws the adapters' initial weights (and the weights of tiny)."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(TeamConfig).items():
            if get_origin(kind) is Literal and vars(self)[name] not in get_args(kind):
                raise ValueError(f"team.{name} must be one of {get_args(kind)}, got {vars(self)[name]!r}")
        if self.lora_rank < 1:
            raise ValueError(f"team.lora_rank must be at least 1, got {self.lora_rank}")
        if self.tuning == "lora" and self.reference == "copy":
            raise ValueError(
                'team.reference="copy" is for full weights; with LoRA the base itself is the reference'
            )

    def model_of(self, index: int, agents: int) -> str:
        """Return the model's name of one of ``agents`` agents.

        Raises:
            ValueError: ``model`` is a list of another length.
        """
        if isinstance(self.model, str):
            return self.model
        if len(self.model) != agents:
            raise ValueError(
                f"team.model lists {len(self.model)} models for {agents} agents; "
                "expected one name for all, or one for each agent"
            )
        return self.model[index]


@dataclass
class PolicyAgent:
    """A policy as an :class:`~textmarl.agents.conversation.Agent`, with a random stream of its own."""

    policy: Policy
    sampling: Sampling
    generator: torch.Generator

    @property
    def settings(self) -> dict[str, Any]:
        """What the answers depend on beside the random stream: the weights (a digest), the sampling, the template."""
        return {
            "weights": self.policy.digest(),
            "sampling": asdict(self.sampling),
            "thinking": self.policy.thinking,
            "chat_template_kwargs": self.policy.chat_template_kwargs,
        }

    def act(self, conversations: Sequence[Conversation]) -> list[Response]:
        """Answer each conversation once."""
        batch = max(1, len(conversations))
        answers = self.policy.generate(conversations, self.sampling, self.generator, batch_size=batch)
        return [answer for (answer,) in answers]


class Team:
    """The policies of all agents, in the environment's order. Make one with :meth:`create` or :meth:`load`."""

    def __init__(self, policies: Mapping[str, Policy], config: TeamConfig):
        self.policies = dict(policies)
        self.config = config

    @classmethod
    def create(cls, agents: Sequence[str], config: TeamConfig | None = None) -> Team:
        """Load the models and give every agent a policy.

        Args:
            agents: The agents' names, ``env.possible_agents``.
            config: Default: a LoRA adapter each on one SmolLM2-135M-Instruct.

        Raises:
            ModelNotFound: A model cannot be loaded.
            ValueError: Wrong number of models, unknown dtype, an agent's name that peft cannot use.
        """
        config = config or TeamConfig()
        if not agents or len(set(agents)) != len(agents):
            raise ValueError(f"expected one or more different agent names, got {list(agents)}")
        if any("." in name or "/" in name for name in agents):
            raise ValueError(
                f"agent names name adapters and folders and may hold no dot or slash: {list(agents)}"
            )
        names = [config.model_of(index, len(agents)) for index in range(len(agents))]
        shared: dict[str, tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]] = {}
        policies = {}
        for index, (agent, name) in enumerate(zip(agents, names, strict=True)):
            if config.tuning == "full":
                network, tokenizer = cls._load(name, config)
                reference = (
                    cls._load(name, config)[0].requires_grad_(False) if config.reference == "copy" else None
                )
            else:
                key = name if config.share_base else f"{name}#{index}"
                if key not in shared:
                    shared[key] = cls._load(name, config)
                network, tokenizer = shared[key]
                network = add_adapter(network, agent, config, index)
                shared[key], reference = (network, tokenizer), None
            policies[agent] = Policy(
                agent, network, tokenizer, reference, config.chat_template_kwargs, config.thinking
            )
        return cls(policies, config)

    @staticmethod
    def _load(name: str, config: TeamConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        full_precision = config.dtype == "auto" and config.tuning == "full"
        return load_model(name, "float32" if full_precision else config.dtype, config.device, config.seed)

    def agents(self, sampling: Sampling, seed: int = 0) -> dict[str, PolicyAgent]:
        """Return the policies as agents to play with, each with a random stream drawn from ``seed``."""
        return {
            name: PolicyAgent(policy, sampling, random_stream(seed, index))
            for index, (name, policy) in enumerate(self.policies.items())
        }

    def save(self, folder: str | Path) -> None:
        """Write every policy: ``adapters/<agent>`` (peft folders) or ``models/<agent>`` (full weights), and team.json.

        Each folder holds its tokenizer too and loads with transformers and peft alone.
        """
        folder = Path(folder)
        for name, policy in self.policies.items():
            kind = "adapters" if isinstance(policy.network, PeftModel) else "models"
            if policy.has_adapter:
                policy.save_adapter(folder / kind)
            else:
                with no_progress_bars():
                    policy.model.save_pretrained(folder / kind / name)
            policy.tokenizer.save_pretrained(folder / kind / name)
        description = {"agents": list(self.policies), "team": asdict(self.config)}
        (folder / "team.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, device: str | None = None) -> Team:
        """Load a team that :meth:`save` wrote.

        Args:
            folder: A run directory, or wherever the team was saved.
            device: Where to load it instead of where it was trained.

        Raises:
            ValueError: The folder holds no team, or a part of it is missing or broken.
        """
        folder = Path(folder)
        try:
            description = json.loads((folder / "team.json").read_text(encoding="utf-8"))
            agents, config = description["agents"], TeamConfig(**description["team"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{str(folder)!r} holds no saved team (team.json: {error}); expected a run directory of "
                "textmarl train, or a folder written by Team.save"
            ) from error
        if device is not None:
            config.device = device
        kind = "models" if config.tuning == "full" else "adapters"
        parts = {agent: folder / kind / agent for agent in agents}
        try:
            for part in parts.values():
                if not part.is_dir():
                    raise FileNotFoundError(f"there is no {kind}/{part.name}")
            if config.tuning == "full":
                team = cls.create(
                    agents, replace(config, model=[str(p) for p in parts.values()], reference="none")
                )
                team.config = config
                if config.reference == "copy":  # of the model that training began with
                    for index, policy in enumerate(team.policies.values()):
                        reference, _ = cls._load(config.model_of(index, len(agents)), config)
                        policy.reference = reference.requires_grad_(False)
                        shares_prompts(reference)
                return team
            team = cls.create(agents, config)
            for agent, policy in team.policies.items():
                weights = load_file(parts[agent] / "adapter_model.safetensors")
                result = set_peft_model_state_dict(policy.network, weights, agent)
                expected = {f"base_model.model.{name}" for name in policy.parameters()}
                if expected & set(result.missing_keys) or result.unexpected_keys:
                    raise RuntimeError(f"adapters/{agent} is of another model, or not whole")
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"the team in {str(folder)!r} is broken: {error}. Restore the folder, or continue the run from its "
                "last checkpoint to write it anew"
            ) from error
        return team

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return every policy's trained parameters, by agent and name, on the CPU."""
        return {
            agent: {name: p.detach().cpu() for name, p in policy.parameters().items()}
            for agent, policy in self.policies.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Copy parameters from :meth:`state_dict` into the policies.

        Raises:
            ValueError: The state is of another team.
        """
        if list(state) != list(self.policies):
            raise ValueError(
                f"the saved state is of the agents {list(state)}, expected {list(self.policies)}: it is of another "
                "environment"
            )
        parameters = {agent: policy.parameters() for agent, policy in self.policies.items()}
        for agent, own in parameters.items():
            shapes = {name: tuple(p.shape) for name, p in own.items()}
            if {name: tuple(p.shape) for name, p in state[agent].items()} != shapes:
                raise ValueError(
                    f"the saved state does not fit agent {agent!r}: it is of another model, or was trained with other "
                    "settings of tuning, lora_rank or lora_targets; create the team as it was"
                )
        for agent, own in parameters.items():
            for name, parameter in own.items():
                parameter.copy_(state[agent][name])


def add_adapter(
    network: PreTrainedModel | PeftModel, agent: str, config: TeamConfig, index: int
) -> PreTrainedModel | PeftModel:
    """Give ``network`` a LoRA adapter called ``agent``, its weights drawn from the team's seed and ``index``.

    Raises:
        ValueError: A part of the network has the agent's name; peft tells adapters by their names alone.
    """
    parts = {part for name, _ in network.named_parameters() for part in name.split(".")}
    if agent in parts | {"default", "base_layer"} or agent.startswith("lora_"):
        raise ValueError(
            f"an adapter cannot be called {agent!r}: peft or the network itself uses that name; rename the agent, "
            'or train full weights (team.tuning="full")'
        )
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,  # scoring must see the policy that sampled
        target_modules=config.lora_targets,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft still reads an attribute that transformers has renamed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        torch.manual_seed(int(random_stream(config.seed, index).initial_seed()))
        if isinstance(network, PeftModel):
            network.add_adapter(agent, lora)
        else:
            network = get_peft_model(network, lora, adapter_name=agent)
    return network.eval()


def random_stream(seed: int, *path: int) -> torch.Generator:
    """Return a CPU generator whose stream is fixed by ``seed`` and ``path`` and independent of every other path's."""
    # As a spawn key: appended to the seed, (1,) and (1, 0) would give the same stream.
    state = np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
