"""Whether a model can read what it will be asked, found out before any time is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textmarl.agents.policy import Policy
from textmarl.agents.sampling import Sampling
from textmarl.envs.instances import Instances
from textmarl.envs.vector import acting


def check_room(
    instances: Instances, policies: Mapping[str, Policy], sampling: Sampling, tasks: Sequence[int]
) -> None:
    """Refuse tasks whose first conversations a model cannot read and answer.

    An agent that waits at first is asked as soon as steps that only pass texts on lead to it (a pipeline's), as if
    the others had written nothing: what it reads will be longer by their texts. Those, later turns, and agents whose
    turn comes only after a reward are not foreseen; where they leave no room, the rollout or the evaluation says so.

    Args:
        instances: Makes the environment; nothing is checked where it has no task set.
        policies: Of the agents that are trained.
        sampling: How long an answer may be.
        tasks: Indices; those beyond the task set are left out.

    Raises:
        ValueError: Names the task and the agent, and how long the conversation is.
    """
    if not hasattr(instances.env.unwrapped, "tasks"):
        return
    env = instances.new()
    for task in tasks[: len(env.unwrapped.tasks)]:
        observations, infos = env.reset(seed=0, options={"task": task})
        unasked = set(policies)
        while True:
            asked = acting(env)
            for agent in (a for a in asked if a in unasked):
                prompt = policies[agent].encode([{"role": "user", "content": observations[agent]}])
                try:
                    policies[agent].check_room([prompt], sampling)
                except ValueError as error:
                    raise ValueError(f"task {infos[agent]['task_id']!r}: {error}") from None
            unasked -= set(asked)
            # Other environments than protocols compute a reward at every step; none is asked for here.
            if not unasked or not getattr(env, "passes_on", False):
                break
            observations, *_ = env.step(dict.fromkeys(asked, ""))
    instances.done(env)
