"""One turn of an episode in plain data: what `judge` answers (`Outcome`), and what is kept of a turn played (`Turn`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """What one joint answer is worth. A subclass may carry more (feedback for the next turn, say).

    Attributes:
        terms: the parts of the team score, named as in `term_names` of the environment; they add up to it.
        individual: every agent's own reward where the environment sets `individual_rewards`, else None.
        finished: True ends the episode before `max_turns`.
        metrics: numbers worth logging that are no part of the score, named as in `metric_names`.
    """

    terms: Mapping[str, float]
    individual: Mapping[str, float] | None = None
    finished: bool = False
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """One turn that was played: what each agent read and wrote, what it was worth. Treat it as read-only.

    Attributes:
        observations: agent -> the text it read.
        responses: agent -> the text it wrote.
        outcome: what `judge` returned.
        terms: the reward terms as reported (those of `reward_fn` where one is given); their sum is `score`.
        score: the unshifted team score.
    """

    observations: Mapping[str, str]
    responses: Mapping[str, str]
    outcome: Outcome
    terms: Mapping[str, float]
    score: float


def check_actions(actions: Mapping[str, str], acting: Sequence[str], agents: Sequence[str]) -> None:
    """Refuse actions that are not one text from each agent that acts.

    Args:
        actions: what `step` was given.
        acting: who must have written.
        agents: who may be among them.

    Raises:
        TypeError: `actions` is no mapping, or an action is no str.
        ValueError: an agent is missing or unknown.
    """
    if not isinstance(actions, Mapping):
        raise TypeError(
            f"step() takes a dict of one text per agent, not {type(actions).__name__}; {list(acting)} act now."
        )
    unknown = [agent for agent in actions if agent not in agents]
    missing = [agent for agent in acting if agent not in actions]
    if unknown or missing:
        raise ValueError(
            f"step() takes one text from each of {list(acting)}: missing {missing}, unknown {unknown}."
        )
    for agent, text in actions.items():
        if not isinstance(text, str):
            raise TypeError(
                f"The action of {agent!r} must be a str, not {type(text).__name__}: hand over the text itself (an agent "
                "with nothing to say sends an empty text)."
            )
