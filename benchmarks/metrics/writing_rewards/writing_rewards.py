"""The rewards of the writing environments: every pair is scored by a step of the environment itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import pettingzoo
from pettingzoo.env_registry.registration import parallel_registry

import textmarl.envs  # noqa: F401  (registers the environments)
from textmarl.envs import TaskSet

COLUMNS = {"textmarl/TLDR": "prompt", "textmarl/ArXiv": "abstract_text"}
"""Where the tasks of an environment hold the text that the agents write about."""

DESCRIPTION = "What the environments TLDR and ArXiv pay for a pair of texts about a source."
INPUTS = """
Args:
    predictions: pairs, `first` (TLDR: the concise text, ArXiv: the background) and `second` (detailed; method).
    references: what each pair is about: the column `prompt` of TLDR's data, `abstract_text` of ArXiv's.
    environment: "textmarl/TLDR-v0", "textmarl/TLDR-v1", "textmarl/ArXiv-v0" or "textmarl/ArXiv-v1".
Returns:
    score: the mean reward. percent: of its maximum. Then the mean of each reward term, which add up to the score, and
    of each metric that the environment reports beside it.
"""
CITATION = """@article{liu2025llm, title={LLM Collaboration With Multi-Agent Reinforcement Learning},
author={Shuo Liu and others}, journal={arXiv preprint arXiv:2508.04652}, year={2025}}"""


class WritingRewards(evaluate.Metric):
    """See the module."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": {"first": text, "second": text}, "references": text}),
        )

    def _compute(
        self,
        predictions: Sequence[Mapping[str, str]],
        references: Sequence[str],
        environment: str = "textmarl/TLDR-v1",
    ) -> dict[str, float]:
        name = environment.rpartition("-v")[0]
        there = sorted(known for known in parallel_registry if known.rpartition("-v")[0] in COLUMNS)
        if environment not in there:
            raise ValueError(
                f"environment={environment!r} is no writing environment; there are {', '.join(there)}"
            )
        env = pettingzoo.make("parallel", environment).unwrapped
        env.tasks = TaskSet.of({COLUMNS[name]: source} for source in references)
        infos = [_scored(env, number, pair) for number, pair in enumerate(predictions)]
        score = _mean(info["score"] for info in infos)
        means = {"score": score, "percent": 100 * score / env.max_score}
        for kind, names in (("reward_terms", env.term_names), ("metrics", env.metric_names)):
            means |= {name: _mean(info[kind][name] for info in infos) for name in names}
        return means


def _scored(env: Any, task: int, pair: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says about a pair."""
    first, second = env.possible_agents
    env.reset(seed=0, options={"task": task})
    infos: dict[str, dict[str, Any]] = env.step({first: pair["first"], second: pair["second"]})[-1]
    return infos[first]


def _mean(values: Any) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
