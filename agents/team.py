"""A team: one language-model policy for each agent that is trained, and a partner for each that is not.

By default all policies share one frozen base and differ by a LoRA adapter each, so a team needs the memory of one
model. They can as well be separate models with tokenizers of their own, train adapters or full weights, or share what
they train.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textmarl.agents.conversation import Agent, as_agent
from textmarl.agents.models import load_model, no_progress_bars
from textmarl.agents.partner import Partner, PolicyAgent, specification
from textmarl.agents.policy import Policy
from textmarl.agents.prefix import why_plain
from textmarl.agents.sampling import Sampling
from textmarl.agents.values import Critic

__all__ = ["PolicyAgent", "Sampling", "Team", "TeamConfig"]

SHARED = "shared"
"""The name of the parameters that all agents share."""


@dataclass
class TeamConfig:
    """Which models a team is made of and what of them is trained."""

    model: str | list[str] = "smollm2-135m"
    """A preset (smollm2-135m, tiny), Hub id or local folder for everyone, or a list with one for each trained agent."""
    tuning: Literal["lora", "full"] = "lora"
    """Train a LoRA adapter on a frozen base, or every weight of a copy of the model per agent."""
    lora_rank: int = 16
    """Rank of each adapter."""
    lora_alpha: float = 32.0
    """The adapter's output is scaled by lora_alpha / lora_rank."""
    lora_targets: str | list[str] = "all-linear"
    """Modules that get an adapter: "all-linear" (all but the output head) or module names, as in peft."""
    partners: dict[str, str] = field(default_factory=dict)
    """Agents that are not trained, and who plays each, as `textmarl eval --agent` names it: openai:URL#MODEL, run:DIR,
    hf:MODEL, python:file.py:function, scripted:FILE or random. From Python, Team.create takes the agents themselves."""
    parameter_sharing: bool = False
    """All trained agents use one adapter (or one set of full weights), trained on the sum of their losses."""
    share_base: bool = True
    """With LoRA, agents of the same model share one frozen base; false gives each a copy of its own."""
    reference: Literal["adapter-off", "copy", "none"] = "adapter-off"
    """The reference policy of KL: the base with adapters off; with full weights "copy" keeps a frozen copy."""
    dtype: str = "auto"
    """float32, bfloat16, float16, float64; auto: bfloat16 where it is fast, float32 with full weights."""
    device: str = "auto"
    """A torch device; auto: the first GPU, else the CPU."""
    capture_decoding: bool = True
    """On a GPU, record a decoding step once and repeat it as a CUDA graph; false where a model's code resists."""
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
        """Return the model's name of one of ``agents`` trained agents.

        Raises:
            ValueError: ``model`` is a list of another length.
        """
        if isinstance(self.model, str):
            return self.model
        if len(self.model) != agents:
            raise ValueError(
                f"team.model lists {len(self.model)} models for {agents} agents; "
                "expected one name for all, or one for each agent that is trained"
            )
        return self.model[index]

    def learners(self, agents: Sequence[str]) -> list[str]:
        """Return which of an environment's agents are trained, in their order.

        Raises:
            ValueError: A partner is none of them, nobody is left to train, or agents of different models are to share
                parameters.
        """
        for partner in self.partners:
            if partner not in agents:
                raise ValueError(f"team.partners names {partner!r}; the agents are {', '.join(agents)}")
        learners = [agent for agent in agents if agent not in self.partners]
        if not learners:
            raise ValueError(
                "team.partners names every agent, so nobody is left to train; leave one out, or score them as they are "
                "with textmarl eval"
            )
        names = {self.model_of(index, len(learners)) for index in range(len(learners))}
        if self.parameter_sharing and len(names) > 1:
            raise ValueError(
                f"team.parameter_sharing needs one model for all trained agents, and team.model lists "
                f"{', '.join(sorted(names))}; name one, or set team.parameter_sharing to false"
            )
        return learners


class Team:
    """Who acts, in the environment's order. Make one with :meth:`create` or :meth:`load`.

    Attributes:
        policies: Of the agents that are trained.
        partners: Who plays the others.
        names: All of them.
        config: What the team is made of.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy],
        config: TeamConfig,
        partners: Mapping[str, Agent] | None = None,
        names: Sequence[str] | None = None,
    ):
        self.policies = dict(policies)
        self.partners = dict(partners or {})
        self.names = list(names) if names is not None else [*self.policies, *self.partners]
        self.config = config

    @classmethod
    def create(
        cls,
        agents: Sequence[str],
        config: TeamConfig | None = None,
        partners: Mapping[str, Agent | Callable[..., str]] | None = None,
    ) -> Team:
        """Load the models and give every agent that is trained a policy.

        Args:
            agents: The agents' names, ``env.possible_agents``.
            config: Default: a LoRA adapter each on one SmolLM2-135M-Instruct.
            partners: Who plays the agents that are not trained: agents or plain functions
                (:func:`~textmarl.agents.conversation.as_agent`). A policy that stays as it is is one of
                ``Team.load(folder).agents(sampling)``.

        Raises:
            ModelNotFound: A model cannot be loaded.
            ValueError: Wrong number of models, unknown dtype, an agent's name that peft cannot use; a partner that is
                no agent of the environment or is only named in ``config``; nobody to train.
            TypeError: A partner that is no agent.
        """
        config = config or TeamConfig()
        playing = {name: as_agent(agent) for name, agent in (partners or {}).items()}
        for name, spec in config.partners.items():
            if name not in playing:
                raise ValueError(
                    f"team.partners says that {spec} plays {name!r}, which only the command textmarl train looks up; "
                    f"give the agent itself: Team.create(..., partners={{{name!r}: agent}})"
                )
        told = {name: config.partners.get(name, specification(agent)) for name, agent in playing.items()}
        config = replace(config, partners=told)
        if not agents or len(set(agents)) != len(agents):
            raise ValueError(f"expected one or more different agent names, got {list(agents)}")
        learners = config.learners(agents)
        if any("." in name or "/" in name for name in learners):
            raise ValueError(
                f"agent names name adapters and folders and may hold no dot or slash: {learners}"
            )
        return cls(cls._policies(learners, config), config, playing, agents)

    @classmethod
    def _policies(cls, learners: Sequence[str], config: TeamConfig) -> dict[str, Policy]:
        """Load the models; with parameter sharing, all policies are views of one."""
        shared: dict[str, tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]] = {}
        policies: dict[str, Policy] = {}
        for index, agent in enumerate(learners):
            if config.parameter_sharing and policies:
                policies[agent] = copy.copy(policies[learners[0]])
                policies[agent].name = agent
                continue
            parameter_set = SHARED if config.parameter_sharing else agent
            name = config.model_of(index, len(learners))
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
                network = add_adapter(network, parameter_set, config, index)
                shared[key], reference = (network, tokenizer), None
            policies[agent] = Policy(
                agent,
                network,
                tokenizer,
                reference,
                config.chat_template_kwargs,
                config.thinking,
                parameter_set,
                config.capture_decoding,
            )
        return policies

    @property
    def parameter_sets(self) -> dict[str, list[str]]:
        """Return what is trained: the name of each set of parameters, and the agents that act by it."""
        sets: dict[str, list[str]] = {}
        for agent, policy in self.policies.items():
            sets.setdefault(policy.parameter_set, []).append(agent)
        return sets

    @property
    def players(self) -> dict[str, Policy | Partner]:
        """Return who answers in rollouts, for all agents."""
        return {
            name: self.policies[name] if name in self.policies else Partner(name, self.partners[name])
            for name in self.names
        }

    @staticmethod
    def _load(name: str, config: TeamConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        full_precision = config.dtype == "auto" and config.tuning == "full"
        return load_model(name, "float32" if full_precision else config.dtype, config.device, config.seed)

    def agents(self, sampling: Sampling, seed: int = 0) -> dict[str, Agent]:
        """Return everybody as agents to play with, each policy with a random stream drawn from ``seed``."""
        playing: dict[str, Agent] = {}
        for index, name in enumerate(self.names):
            stream = random_stream(seed, index)
            if name in self.policies:
                playing[name] = PolicyAgent(self.policies[name], sampling, stream)
                continue
            partner = self.partners[name]
            playing[name] = (
                replace(partner, generator=stream) if isinstance(partner, PolicyAgent) else partner
            )
        return playing

    def add_critic(self, name: str, agent: str, seed: int) -> Critic:
        """Make a critic with a trunk of its own, which begins as an agent's base model does.

        With LoRA the trunk is a further adapter on that agent's frozen base, so memory grows by an adapter; with full
        weights it is a copy of the agent's model as it is now. It is no agent: it is not saved with the team. A critic
        that had the name before is forgotten.

        Args:
            name: Of the critic, and of its adapter; no agent's.
            agent: Whose base model and tokenizer it reads with.
            seed: Draws its initial weights.

        Raises:
            ValueError: The name is an agent's, or one that peft cannot use.
        """
        if name in self.policies or "." in name or "/" in name:
            raise ValueError(
                f"a critic needs a name that no agent has, without dot or slash, got {name!r}; the agents are "
                f"{list(self.policies)}"
            )
        policy = self.policies[agent]
        if isinstance(policy.network, PeftModel):
            if name in policy.network.peft_config:
                policy.network.delete_adapter(name)
            network = add_adapter(policy.network, name, replace(self.config, seed=seed), 0)
        else:
            network = copy.deepcopy(policy.model)
        trunk = Policy(name, network, policy.tokenizer, None, policy.chat_template_kwargs)
        return Critic.on(trunk, seed, owns_trunk=True)

    def share_trunk(self, agent: str, seed: int) -> Critic:
        """Make a critic of an agent's own policy and a head.

        Args:
            agent: Whose policy.
            seed: Draws the head's initial weights.
        """
        return Critic.on(self.policies[agent], seed, owns_trunk=False)

    def save(self, folder: str | Path) -> None:
        """Write every policy: ``adapters/<agent>`` (peft folders) or ``models/<agent>`` (full weights), and team.json.

        Each folder holds its tokenizer too and loads with transformers and peft alone. What all agents share is in
        ``adapters/shared`` or ``models/shared``; of partners, team.json says who they are.
        """
        folder = Path(folder)
        for name, agents in self.parameter_sets.items():
            policy = self.policies[agents[0]]
            kind = "adapters" if isinstance(policy.network, PeftModel) else "models"
            if policy.has_adapter:
                policy.save_adapter(folder / kind)
            else:
                with no_progress_bars():
                    policy.model.save_pretrained(folder / kind / name)
            policy.tokenizer.save_pretrained(folder / kind / name)
        description = {"agents": self.names, "team": asdict(self.config)}
        (folder / "team.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | None = None,
        partners: Mapping[str, Agent | Callable[..., str]] | None = None,
    ) -> Team:
        """Load a team that :meth:`save` wrote.

        Args:
            folder: A run directory, or wherever the team was saved.
            device: Where to load it instead of where it was trained.
            partners: Who plays the agents that were not trained; without them the team has the others only.

        Raises:
            ValueError: The folder holds no team, or a part of it is missing or broken.
        """
        folder = Path(folder)
        try:
            description = json.loads((folder / "team.json").read_text(encoding="utf-8"))
            names, config = description["agents"], TeamConfig(**description["team"])
            learners = config.learners(names)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{str(folder)!r} holds no saved team (team.json: {error}); expected a run directory of "
                "textmarl train, or a folder written by Team.save"
            ) from error
        if device is not None:
            config.device = device
        playing = {name: as_agent(agent) for name, agent in (partners or {}).items()}
        names = [name for name in names if name in learners or name in playing]
        kind = "models" if config.tuning == "full" else "adapters"
        parts = {agent: folder / kind / (SHARED if config.parameter_sharing else agent) for agent in learners}
        try:
            for part in parts.values():
                if not part.is_dir():
                    raise FileNotFoundError(f"there is no {kind}/{part.name}")
            if config.tuning == "full":
                saved = replace(config, model=[str(p) for p in parts.values()], reference="none")
                team = cls(cls._policies(learners, saved), config, playing, names)
                if config.reference == "copy":  # of the model that training began with
                    for agents in team.parameter_sets.values():
                        model = config.model_of(learners.index(agents[0]), len(learners))
                        reference = cls._load(model, config)[0].requires_grad_(False)
                        why_plain(reference)
                        for agent in agents:
                            team.policies[agent].reference = reference
                return team
            team = cls(cls._policies(learners, config), config, playing, names)
            for name, agents in team.parameter_sets.items():
                policy = team.policies[agents[0]]
                weights = load_file(parts[agents[0]] / "adapter_model.safetensors")
                result = set_peft_model_state_dict(policy.network, weights, name)
                expected = {f"base_model.model.{parameter}" for parameter in policy.parameters()}
                if expected & set(result.missing_keys) or result.unexpected_keys:
                    raise RuntimeError(f"adapters/{name} is of another model, or not whole")
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"the team in {str(folder)!r} is broken: {error}. Restore the folder, or continue the run from its "
                "last checkpoint to write it anew"
            ) from error
        return team

    def state_dict(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return every set of trained parameters by its name (the agent's, unless shared), on the CPU."""
        return {
            own: {name: p.detach().cpu() for name, p in self.policies[agents[0]].parameters().items()}
            for own, agents in self.parameter_sets.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Copy parameters from :meth:`state_dict` into the policies.

        Raises:
            ValueError: The state is of another team.
        """
        sets = self.parameter_sets
        if list(state) != list(sets):
            raise ValueError(
                f"the saved state is of the agents {list(state)}, expected {list(sets)}: it is of another environment, "
                "or was trained with other settings of partners or parameter_sharing"
            )
        parameters = {own: self.policies[agents[0]].parameters() for own, agents in sets.items()}
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
