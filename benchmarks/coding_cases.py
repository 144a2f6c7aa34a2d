"""A problem with its reference solution, taken apart: what junk answers, and shows of cooperation, are made from."""

from __future__ import annotations

import ast
import itertools
import re
from dataclasses import dataclass
from functools import cached_property

from textmarl.envs.coding.problem import Problem


@dataclass(frozen=True)
class Case:
    """A problem with a solution in two parts.

    Attributes:
        problem: what is to be solved.
        helper, main: a reference solution, in which the helper is called `aux`.
    """

    problem: Problem
    helper: str
    main: str

    @property
    def entry_point(self) -> str:
        """The name of the main function."""
        return self.problem.entry_point

    @cached_property
    def parameters(self) -> list[str]:
        """The names of the main function's parameters."""
        function = next(
            node
            for node in ast.parse(self.main).body
            if isinstance(node, ast.FunctionDef) and node.name == self.entry_point
        )
        return [argument.arg for argument in function.args.args]

    @property
    def arguments(self) -> str:
        """The parameters as a call passes them on."""
        return ", ".join(self.parameters)

    @property
    def solver(self) -> str:
        """The whole solution as a function `_solve`."""
        code = re.sub(r"\baux\b", "_part", f"{self.helper}\n\n{self.main}")
        return re.sub(rf"\b{self.entry_point}\b", "_solve", code)

    def function(self, body: str, before: str = "") -> str:
        """A main function with this body (one statement a line); `ARGS` stands for the arguments."""
        return _function(self.entry_point, self, body, before)

    def aux(self, body: str, before: str = "") -> str:
        """A helper that takes the same arguments."""
        return _function("aux", self, body, before)

    def solo(self, body: str) -> str:
        """A main function that has `_solve` beside it."""
        return self.function(body, self.solver)

    def by_itself(self) -> str:
        """A main function that solves the problem without a helper."""
        return self.solo("return _solve(ARGS)")

    def whole_aux(self) -> str:
        """A helper that solves the problem."""
        return self.aux("return _solve(ARGS)", self.solver)

    def examples(self) -> list[tuple[str, str]]:
        """Arguments, as the code of a tuple, and value of each example in the prompt and of each shown test."""
        found = []
        lines = [line.strip() for line in self.problem.prompt.split("\n")]
        for line, after in itertools.pairwise(lines):
            if line.startswith(f">>> {self.entry_point}("):
                arguments = line.removeprefix(f">>> {self.entry_point}(").removesuffix(")")
                found.append((f"({arguments},)", after))
        for test in self.problem.suite.tests[: self.problem.shown]:
            match ast.parse(test.source).body:
                case [ast.Assert(test=ast.Compare(left=ast.Call() as call, comparators=[value]))]:
                    arguments = ", ".join(map(ast.unparse, call.args))
                    found.append((f"({arguments},)", ast.unparse(value)))
        return found

    def expected_values(self) -> list[str]:
        """The values that the tests expect, as code."""
        found = []
        for test in self.problem.suite.tests:
            match ast.parse(test.source).body:
                case [ast.Assert(test=ast.Compare(comparators=[value]))]:
                    found.append(ast.unparse(value))
        return found


def _function(name: str, case: Case, body: str, before: str) -> str:
    lines = body.replace("ARGS", case.arguments).replace("FIRST", case.parameters[0]).split("\n")
    return "\n\n".join(
        filter(
            None, [before, "\n".join([f"def {name}({case.arguments}):", *(f"    {line}" for line in lines)])]
        )
    )
