"""A sandbox for programs, and hosts of contained processes: a function of a test runs in a contained child, and the test
looks at what came of it."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from textmarl.envs.sandbox import Limits, Sandbox
from textmarl.envs.sandbox.containment import required

MEMORY, SCRATCH = 400 * 2**20, 2**20
"""The limits of the hosts, in bytes."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(limits=Limits(seconds=0.4, wall_seconds=10)) as made:
        yield made


class Host:
    """A fork server in a process of its own, which runs functions of the tests in contained children."""

    def __init__(self, level: str, folder: Path) -> None:
        self.level = level
        self.memory = MEMORY
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-s", "-S", "-P", "-B"),
                *(
                    str(Path(__file__).with_name("containment_host.py")),
                    level,
                    str(folder),
                    str(MEMORY),
                    str(SCRATCH),
                ),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"LC_ALL": "C.UTF-8"},
        )
        self.held = set(self._read()["held"])

    def begin(
        self, function: Callable[..., Any], *args: Any, descriptors: int = 0, role: str = "candidate"
    ) -> None:
        """Has a function run, which must stand by itself: its source is what the child gets."""
        source = textwrap.dedent(inspect.getsource(function))
        task = {"source": source, "name": function.__name__, "args": args}
        task |= {"descriptors": descriptors, "role": role}
        assert self.process.stdin
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, Any]:
        return self._read()

    def run(
        self, function: Callable[..., Any], *args: Any, descriptors: int = 0, role: str = "candidate"
    ) -> dict[str, Any]:
        """The host's answer about the child: what the function returned or raised, or how the child died."""
        self.begin(function, *args, descriptors=descriptors, role=role)
        return self.end()

    def value(self, function: Callable[..., Any], *args: Any) -> Any:
        answer = self.run(function, *args)
        assert "value" in answer, answer
        return answer["value"]

    def child(self) -> int:
        """The pid, as seen from here, of the one child that runs."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            found = path.read_text().split()
            if found:
                return int(found[0])
            time.sleep(0.002)
        raise AssertionError("the child did not start")

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the host of the contained children died"
        return json.loads(line)


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Host]]:
    """Hosts by level, each started once; a test that asks for a level this machine lacks is skipped."""
    running = {"outside": Host("outside", tmp_path_factory.mktemp("outside"))}

    def get(level: str) -> Host:
        if level not in running:
            absent = set(required(level)) - running["outside"].held
            if absent:
                pytest.skip(f"this machine has no {', '.join(sorted(absent))}")
            running[level] = Host(level, tmp_path_factory.mktemp(level))
        return running[level]

    yield get
    for host in running.values():
        host.close()


@pytest.fixture(params=["confined", "strict"])
def contained(request: pytest.FixtureRequest, hosts: Callable[[str], Host]) -> Host:
    return hosts(request.param)


@pytest.fixture
def outside(hosts: Callable[[str], Host]) -> Host:
    """Contains nothing: shows that what is refused inside works outside."""
    return hosts("outside")


@pytest.fixture
def strict(hosts: Callable[[str], Host]) -> Host:
    return hosts("strict")


@pytest.fixture
def confined(hosts: Callable[[str], Host]) -> Host:
    return hosts("confined")


@pytest.fixture
def start(hosts: Callable[[str], Host]) -> Iterator[Callable[[str, Path], Host]]:
    """Starts a host of the test's own, with the folder that the test gives."""
    running = []

    def begin(level: str, folder: Path) -> Host:
        if level in ("confined", "strict"):
            hosts(level)  # or skip
        running.append(Host(level, folder))
        return running[-1]

    yield begin
    for host in running:
        host.close()
