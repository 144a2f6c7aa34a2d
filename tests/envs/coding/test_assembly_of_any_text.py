"""No text makes the assembly of programs raise, and what it finds is stable: random texts, huge ones, warnings."""

from __future__ import annotations

import ast
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textmarl.envs.coding import reading
from textmarl.envs.coding.assembly import assemble, extract
from textmarl.envs.coding.scopes import bound_in

LINES = st.sampled_from(
    [
        "def aux(x):", "    return x", "    yield x", "  return (x +", "async def aux(x, y=1):", "aux = lambda x: x",
        "class A:", "    def aux(self): return 1", "@cache", "def main(x): return aux(x)", "    v = aux(x)", "    return v",
        "```python", "```", "~~~", "````", "   ```py", ">>> aux(3)", "... x", "    >>> def aux(x): return x", "x = '''",
        '    """Doc.', '"""', "(", ")", "[1,", "]", "else:", "if x:", "if __name__ == '__main__':", "    global aux",
        "    aux = 3", "del aux", "import aux, os", "from m import *", "from __future__ import annotations", "return 5",
        "# note", "x = 1; y = x", "\\", "\tpass", "\x00", "\ufeff", "\ud800", "\u200b", "It's prose (really", "x: int",
        "for aux in y:", "match x:", "    case [aux, *b]:", "(aux := 1)", "print(aux(1))", "", "    ", "\x0c", "try:",
        "except E as aux:", "while 1:", "    x[aux(1)] += v", "\u2028", "é = ü", "type aux = int", "with a as b: pass",
        "from __future__ import braces", "    nonlocal x", "lambda:", "aux(x) = 3", "f'{x!r:{y}}'", "\r", "K = K",
    ]
)  # fmt: skip
AUX = "def aux(x):\n    return x + 1"
CODE = f"{AUX}\n\ndef main(x):\n    return aux(x) * 2\n"
ANYTHING = st.text(st.characters(categories=["L", "N", "P", "S", "Z", "C", "Cs"]))
TEXTS = st.one_of(
    ANYTHING,
    st.lists(LINES, max_size=14).map("\n".join),
    st.lists(st.one_of(LINES, ANYTHING), max_size=8).map("\n".join),
    st.tuples(st.just(CODE), st.integers(0, 70), ANYTHING).map(lambda t: t[0][: t[1]] + t[2] + t[0][t[1] :]),
)


@settings(max_examples=250, deadline=None)
@given(TEXTS)
def test_no_text_makes_it_raise_and_what_it_finds_is_stable(text: str) -> None:
    part = extract(text, "aux", drop=["main"])
    assert part == extract(text, "aux", drop=["main"])
    again = extract(part.code, "aux", drop=["main"])
    assert (again.code, again.defined, again.returns, again.error) == (
        part.code,
        part.defined,
        part.returns,
        part.error,
    )
    assert part.defined or not (part.returns or part.error)
    program = assemble("import os", [part])
    assert bool(program.error) == bool(part.error)
    if not part.error:
        assert "main" not in bound_in(part.module.body)
        assert ast.dump(ast.parse(part.code)) == ast.dump(part.module)
        assert (part.function is not None) == part.defined


@pytest.mark.parametrize("filter_action", ["error", "default"])
def test_warnings_about_the_code_change_nothing_and_are_not_shown(
    filter_action: Any, recwarn: pytest.WarningsRecorder
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(filter_action)
        part = extract("def aux(x):\n    return x is 5 or '\\d'", "aux")
        assert assemble("", [part]).error == "" and part.returns
    assert len(recwarn) == 0


def test_only_the_beginning_of_a_huge_text_is_read() -> None:
    junk = "words and (brackets\n" * 200_000
    assert extract(f"{AUX}\n{junk}", "aux").code == AUX
    assert not extract(f"{junk}{AUX}", "aux").defined
    assert len(junk) == 4_000_000 > reading.MAX_TEXT
