"""Who acts: agents without a model, people, language-model teams, and playing episodes to score them.

Importing this package does not import torch. The names of the language-model side (`Team`, `TeamConfig`,
`Sampling`, `PRESETS`, `load_model`) are loaded when they are first used and need the extra
`train`: `pip install -e '.[train]' -c constraints.txt` in a checkout of textmarl.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from textmarl.agents.conversation import (
    Agent,
    AsyncAgent,
    Conversation,
    Message,
    MessagesAgent,
    Response,
    TextAgent,
    Usage,
    as_agent,
    render_conversation,
)
from textmarl.agents.endpoint import EndpointAgent
from textmarl.agents.episodes import Episode, Evaluation, Failure
from textmarl.agents.evaluation import evaluate
from textmarl.agents.human import HumanAgent
from textmarl.agents.scripted import RandomAgent, ScriptedAgent

if TYPE_CHECKING:
    from textmarl.agents.models import PRESETS, load_model
    from textmarl.agents.sampling import Sampling
    from textmarl.agents.team import Team, TeamConfig

_NEEDS_TORCH = {
    "PRESETS": "models",
    "Sampling": "sampling",
    "Team": "team",
    "TeamConfig": "team",
    "load_model": "models",
}

__all__ = [
    "PRESETS",
    "Agent",
    "AsyncAgent",
    "Conversation",
    "EndpointAgent",
    "Episode",
    "Evaluation",
    "Failure",
    "HumanAgent",
    "Message",
    "MessagesAgent",
    "RandomAgent",
    "Response",
    "Sampling",
    "ScriptedAgent",
    "Team",
    "TeamConfig",
    "TextAgent",
    "Usage",
    "as_agent",
    "evaluate",
    "load_model",
    "render_conversation",
]


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_NEEDS_TORCH[name]}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("textmarl"):
            raise
        raise ImportError(
            f"textmarl.agents.{name} needs {error.name}, which is not installed; "
            "in a checkout of textmarl: pip install -e '.[train]' -c constraints.txt"
        ) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
