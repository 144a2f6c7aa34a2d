"""From the agents' answers to one program: which text counts.

    helper = extract("Sure!\\n```python\\ndef aux(x):\\n    return x + 1\\n```", "aux", drop=["double"])
    main = extract("def double(x):\\n    return aux(x) + x - 1", "double", drop=["aux"])
    program = assemble("", [helper, main])
    program.source      # both functions; program.error is empty

**An answer contributes** the function that its agent owes and the module-level code that functions need. Of its Python
(`reading` says how that is found among fences, prose and cut-off text) these statements are kept, in their order:

- imports, functions and classes, all of them;
- any other statement, compound ones included, that binds or changes a name which a kept definition or statement
  reads: constants, tables filled by a loop, a call of a function of the answer that fills one;
- settings: `sys.setrecursionlimit(...)`, `random.seed(...)`, an attribute set on something imported.

All else is dropped: docstrings, prints, asserts, examples, `if __name__ == "__main__":` blocks, `input()`. The task asks
for a function, and what else runs while the program is loaded can only cost tests (a wrong example, an endless loop),
never answer one.

**Names that others own** (`drop`: for the helper's agent the entry point, for the main agent every helper) are not to
be written by this agent. A module-level statement that binds one, in whatever way (`def`, `class`, `=`, `:=`, `for`,
`with`, `except`, `match`, `del`), is dropped, and of an import statement that name. What a function does when it
runs is left as it is: `cooperation` treats a name that is rebound by `global` as no helper. Tricks like
`globals()["aux"] = ...` in a function, or `exec`, are not seen by any reading of the text.

**The function is defined** if a module-level `def`, `async def` or assignment of a lambda binds its name, also within
`if`, `try` and the like, and nothing binds the name to something else afterwards; wrapping it (`aux = cache(aux)`)
leaves it what it is. As in Python the last definition counts. A method or a nested function of the name is none, nor is
an alias, a class or an import. A function's body without its `def` line is not a function: the task gives the signature
and asks for the whole.

**It returns a value** if its own body, not that of a function inside, has a `return` with an expression or a `yield`.

**A text that does not parse**: where the wanted function itself is no Python, `defined` and `returns` go by its `def`
line and by a `return` in what is indented below it, and `error` says what is wrong; such a program has the same error.
Where only other things in the text are no Python (prose, a later statement that the token limit cut off), they are
dropped like prose and the text counts.

**The program** is the prelude (imports and helper functions of the task's prompt, `checks.prelude_of`), then the answers
in the order given: helpers before the main function. It is one module: of two definitions of one name in different
answers the later one holds for both. `from __future__` imports go to the top, as Python demands.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from textmarl.envs.coding import reading
from textmarl.envs.coding.scopes import (
    DEFINITIONS,
    FUNCTIONS,
    IMPORTS,
    alias_name,
    body,
    bound,
    bound_in,
    changed,
    local_names,
    read,
    root,
    scope,
)

_SETTINGS = frozenset(["setrecursionlimit", "set_int_max_str_digits", "seed"])
_FUTURE = "from __future__ import "


@dataclass(frozen=True)
class Part:
    """What one agent's text contributes. The module's docstring has the rules."""

    text: str
    """The answer as it came."""
    role_name: str
    """The function that the agent owes."""
    code: str
    """The code that counts; where the function is no Python, that function as written."""
    defined: bool
    """Whether the function is there."""
    returns: bool
    """Whether it returns a value."""
    error: str = ""
    """Why the function is no Python: `line 2: invalid syntax: 'return x +'`, lines of `code`; else empty."""
    module: ast.Module = field(default_factory=lambda: ast.Module([], []), compare=False, repr=False)
    """The tree of `code`; empty where there is an error."""
    function: FUNCTIONS | None = field(default=None, compare=False, repr=False)
    """The definition in `module` that is in force; None where there is none, or an error."""


@dataclass(frozen=True)
class Program:
    """One program made of a prelude and parts."""

    source: str
    error: str = ""
    """Why it does not parse, with the name of the function whose text is to blame; else empty."""


def extract(text: str, name: str, *, drop: Collection[str] = ()) -> Part:
    """What a text contributes, given the function that its author owes. No text makes it raise.

    Args:
        text: the answer, whatever it is.
        name: the function that is wanted of this agent.
        drop: the functions that other agents own.

    Raises:
        ValueError: `name` is no name, or is dropped.
    """
    if not name.isidentifier() or name in drop:
        raise ValueError(f"the wanted function needs a name that is not dropped as well, not {name!r}")
    found = reading.read(text, name)
    if found.broken and len(found.broken) < len(text):
        # By itself it may be read otherwise than in the midst of the text, and by itself it will be run.
        return replace(extract(found.broken, name, drop=drop), text=text)
    if found.broken:
        return Part(text, name, found.broken, defined=True, returns=found.returns, error=found.error)
    kept = _kept(_owned(found.statements, frozenset(drop)), name)
    module = ast.Module([statement.node for statement in kept], [])
    code = "\n".join(statement.text for statement in kept)
    function = _in_force(module.body, name)
    defined, returns = function is not None, function is not None and _returns(function)
    return Part(text, name, code, defined, returns, module=module, function=function)


def assemble(prelude: str, parts: Sequence[Part]) -> Program:
    """One program of the code of all parts that have their function, in the order given, after the prelude.

    A part without its function contributes nothing: alone, what came with it could only get in the way.
    """
    future: list[str] = []
    rest: list[str] = []
    for code in [prelude, *(part.code for part in parts if part.defined)]:
        lines = code.split("\n")
        moved = len(list(itertools.takewhile(lambda line: line.startswith(_FUTURE), lines)))
        future += lines[:moved]
        rest += lines[moved:]
    source = "\n".join([*dict.fromkeys(future), *rest]) + "\n"
    for part in parts:
        if part.error:
            return Program(source, f"{part.role_name}: {part.error}")
    return Program(source, reading.check(source))


# ------------------------------------------------------------------------------------------------ which code is kept


def _owned(statements: Sequence[reading.Statement], others: frozenset[str]) -> list[reading.Statement]:
    """The statements that bind no name which another agent owns; import statements without such a name."""
    found: list[reading.Statement] = []
    for statement in statements:
        node = statement.node
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if isinstance(node, IMPORTS) and (future or others & set(bound(node))):
            node.names = [alias for alias in node.names if alias_name(alias) not in others]
            if not node.names:
                continue
            statement = reading.Statement(node, ast.unparse(node))  # on one line: of __future__ it moves up
        elif others & bound_in([node]):
            continue
        if future:
            found.insert(0, statement)
        else:
            found.append(statement)
    return found


def _kept(statements: Sequence[reading.Statement], name: str) -> list[reading.Statement]:
    """What the program needs: definitions, and backwards from the end the statements that give them their names."""
    definitions = [s.node for s in statements if isinstance(s.node, DEFINITIONS | ast.ClassDef)]
    imports = [part for part in scope(s.node for s in statements) if isinstance(part, IMPORTS)]
    imported = {alias for part in imports for alias in bound(part)}
    effects = {
        node.name: _changes_of_others(node)
        for node in definitions
        if isinstance(node, DEFINITIONS) and node.name != name  # its calls here are examples
    }
    needed = {name} | read(definitions)
    kept = []
    for statement in reversed(statements):
        node = statement.node
        if not isinstance(node, DEFINITIONS | ast.ClassDef | IMPORTS):
            if _is_main_block(node) or not (
                needed & _given(node, effects, imported) or _is_setting(node, imported)
            ):
                continue
            needed |= read([node])
        kept.append(statement)
    return kept[::-1]


def _given(node: ast.stmt, effects: dict[str, set[str]], imported: set[str]) -> set[str]:
    """The names that a statement binds, and those whose objects it changes, by a function of the text as well."""
    found: set[str] = set()
    for part in scope([node]):
        found |= changed(part) - imported
        match part:
            case ast.Expr(value=ast.Call(func=ast.Name(id=called))):
                found |= effects.get(called, set())
        if not (isinstance(part, ast.AnnAssign) and part.value is None):
            found.update(bound(part))
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return set()
    return found


def _changes_of_others(function: FUNCTIONS) -> set[str]:
    """The module's names that a call of a function binds or changes."""
    nodes = list(scope(body(function)))
    declared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    return set().union(*map(changed, nodes), declared) - local_names(function)


def _is_main_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and "__name__" in read([node.test])


def _is_setting(node: ast.stmt, imported: set[str]) -> bool:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=called) | ast.Name(id=called))):
            return called in _SETTINGS
        case ast.Assign(targets=[ast.Attribute(value=target)]):
            while isinstance(target, ast.Call):  # getcontext().prec = 50
                target = target.func
            return root(target) in imported
        case ast.If() | ast.Try():
            return any(isinstance(part, IMPORTS) and "*" in bound(part) for part in scope([node]))
        case _:
            return False


# ------------------------------------------------------------------------------------------------------ the function


def _in_force(statements: Sequence[ast.stmt], name: str) -> FUNCTIONS | None:
    """The last definition of a function at module level, unless its name means something else afterwards."""
    function: FUNCTIONS | None = None
    settled: set[int] = set()  # the targets of assignments that were looked at as a whole
    for node in scope(statements):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name == name:
                function = node
            case (
                ast.Assign(value=ast.expr() as value)
                | ast.AnnAssign(value=value)
                | ast.NamedExpr(value=value)
            ):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                settled |= {id(part) for target in targets for part in scope([target])}
                if value is not None and name in bound_in(targets):
                    function = _assigned(value, name, function)
            case _ if name in bound(node) and id(node) not in settled:
                function = None
    return function


def _assigned(value: ast.expr, name: str, before: FUNCTIONS | None) -> FUNCTIONS | None:
    if isinstance(value, ast.Lambda):
        return value
    return before if name in read([value]) else None


def _returns(function: FUNCTIONS) -> bool:
    if isinstance(function, ast.Lambda):
        return True
    return any(
        (isinstance(node, ast.Return) and node.value is not None)
        or isinstance(node, ast.Yield | ast.YieldFrom)
        for node in scope(function.body)
    )
