"""How many tests programs pass, and pass@k; the programs run in `textmarl.envs.sandbox`.

pass@k is the unbiased estimate of Chen et al. 2021 (arXiv 2107.03374), `textmarl.benchmarks.statistics.pass_at_k`; a
sample solves its task if it passes all tests.
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Mapping, Sequence

import datasets
import evaluate
import numpy as np

from textmarl.benchmarks.statistics import pass_at_k
from textmarl.envs.coding.checks import humaneval_suite
from textmarl.envs.sandbox import Limits, Sandbox, Suite

DESCRIPTION = (
    "The share of its task's tests that a program passes, and how likely one of k programs passes all."
)
INPUTS = """
Args:
    predictions: of each task a list of programs, each whole (with the prompt's imports, where it needs them) and nothing but
        code: one in a Markdown fence is no program and passes nothing, of which a warning tells.
    references: of each task the columns `prompt`, `test` and `entry_point` of HumanEval. `test` is one text (no list):
        it defines `check(candidate)`, or holds statements such as "assert add(1, 2) == 3", one a line; `prompt` may be empty.
    k: those of pass@k, at least 1 each, or one number; one that is larger than the smallest number of programs of a task is left out.
    seconds: CPU time of one test.
Returns:
    test_pass_rate: the mean over the tasks of the mean share of passed tests of their programs, 0 to 1.
    pass@k: of each k, the mean over the tasks.
"""
CITATION = """@article{chen2021evaluating, title={Evaluating Large Language Models Trained on Code},
author={Mark Chen and others}, journal={arXiv preprint arXiv:2107.03374}, year={2021}}"""


class TestPassRate(evaluate.Metric):
    """See the module."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(text),
                    "references": {"prompt": text, "test": text, "entry_point": text},
                }
            ),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[str]],
        references: Sequence[Mapping[str, str]],
        k: int | Sequence[int] = (1, 10, 100),
        seconds: float = 10.0,
    ) -> dict[str, float]:
        if not all(predictions):
            raise ValueError("a task has an empty list of programs; give at least one (an empty text fails)")
        sizes = _sizes(k)
        fenced = sum(_is_fenced(program) for programs in predictions for program in programs)
        if fenced:
            warnings.warn(
                f"{fenced} of the predictions hold a Markdown fence and are no Python, so they pass no test: give the code "
                "alone (textmarl.envs.coding.assembly.extract finds it in a text)",
                stacklevel=2,
            )
        suites = [_suite(reference, f"task {number}") for number, reference in enumerate(references)]
        jobs = [
            (program, suite)
            for programs, suite in zip(predictions, suites, strict=True)
            for program in programs
        ]
        with Sandbox(limits=Limits(seconds=seconds)) as sandbox:
            reports = iter(sandbox.run_many(jobs))
        rates, counts = [], []
        for programs, suite in zip(predictions, suites, strict=True):
            passed = [next(reports).passed for _ in programs]
            rates.append(np.mean(passed) / len(suite.tests))
            counts.append((len(passed), sum(number == len(suite.tests) for number in passed)))
        fewest = min(samples for samples, _ in counts)
        at_k = {
            f"pass@{size}": float(np.mean([pass_at_k(samples, solved, size) for samples, solved in counts]))
            for size in sizes
            if size <= fewest
        }
        return {"test_pass_rate": float(np.mean(rates)), **at_k}


def _sizes(k: int | Sequence[int]) -> list[int]:
    sizes = list(k) if isinstance(k, Sequence) else [k]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"k must be one integer of at least 1, or several, as [1, 10], not {k!r}")
    return sizes


def _is_fenced(program: str) -> bool:
    if "```" not in program:
        return False
    try:
        with warnings.catch_warnings():  # an invalid escape
            warnings.simplefilter("ignore")
            ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return False  # in a docstring, say


def _suite(reference: Mapping[str, str], task: str) -> Suite:
    prompt, test, entry_point = (reference[name] for name in ("prompt", "test", "entry_point"))
    try:
        statements = ast.parse(test).body
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{task}: the test is not Python: {error}") from error
    if statements and not any(
        isinstance(node, ast.FunctionDef) and node.name == "check" for node in statements
    ):
        test = "def check(candidate):\n" + textwrap.indent(ast.unparse(ast.Module(statements, [])), "    ")
    return humaneval_suite(prompt, test, entry_point, task=task)
