"""Work that one agent does alone, with the other one's part a box: more kinds of `coding_junk`'s family `UNCOOPERATIVE`.

Either the helper hands its arguments back in a box and the main function solves the problem, or the main function gives
the helper all it has and takes the answer out of a box.
"""

from __future__ import annotations

from textmarl.benchmarks.coding_cases import Case
from textmarl.benchmarks.coding_junk import Kind, Pair


def _with_parameters(case: Case, parameters: str, body: str) -> str:
    """A helper that has `_solve` beside it and takes these parameters."""
    return case.aux(body, case.solver).replace(f"def aux({case.arguments})", f"def aux({parameters})")


def arguments_in_a_list(case: Case) -> Pair:
    """`aux` returns its arguments in a list; the main function solves the problem with what is in it."""
    return case.aux("return [ARGS]"), case.solo("return _solve(*aux(ARGS))")


def arguments_in_a_dict(case: Case) -> Pair:
    """The same with a dict."""
    items = ", ".join(f"'{name}': {name}" for name in case.parameters)
    return case.aux(f"return {{{items}}}"), case.solo("return _solve(**aux(ARGS))")


def arguments_backwards(case: Case) -> Pair:
    """The same with a tuple of the arguments backwards."""
    return case.aux("return (ARGS,)[::-1]"), case.solo("return _solve(*aux(ARGS)[::-1])")


def argument_beside_a_length(case: Case) -> Pair:
    """`aux` returns its first argument and a length that nobody reads."""
    first = case.parameters[0]
    return case.aux("return [FIRST, len(str([ARGS]))]"), case.solo(
        f"{first}, size = aux(ARGS)\nreturn _solve(ARGS)"
    )


def answer_beside_a_number(case: Case) -> Pair:
    """`aux` solves the problem; `value, extra = aux(x)`, and a condition that always holds."""
    return case.aux("return _solve(ARGS), 1", case.solver), case.function(
        "value, extra = aux(ARGS)\nif extra:\n    return value\nreturn None"
    )


def answer_in_a_dict(case: Case) -> Pair:
    """The same with a dict and a loop over it."""
    return case.aux("return {'answer': _solve(ARGS)}", case.solver), case.function(
        "for key, value in aux(ARGS).items():\n    return value"
    )


def answer_at_the_end(case: Case) -> Pair:
    """The same with a list and a computed index."""
    return case.aux("return [0, _solve(ARGS)]", case.solver), case.function(
        "values = aux(ARGS)\nreturn values[len(values) - 1]"
    )


def arguments_packed(case: Case) -> Pair:
    """`aux` solves the problem and takes all arguments as one list."""
    return _with_parameters(case, "given", "return _solve(*given)"), case.function(
        "values = [aux([ARGS]), None]\nif len(values) == 2:\n    return values[0]\nreturn None"
    )


def arguments_by_name(case: Case) -> Pair:
    """`aux` solves the problem and takes its arguments by name only."""
    named = ", ".join(f"{name}={name}" for name in case.parameters)
    return _with_parameters(case, f"*, {case.arguments}", "return _solve(ARGS)"), case.function(
        f"answer = aux({named})\nif answer is None:\n    return answer\nreturn answer"
    )


BOXED: tuple[Kind, ...] = (
    arguments_in_a_list,
    arguments_in_a_dict,
    arguments_backwards,
    argument_beside_a_length,
    answer_beside_a_number,
    answer_in_a_dict,
    answer_at_the_end,
    arguments_packed,
    arguments_by_name,
)
