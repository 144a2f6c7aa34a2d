"""Freed memory stays with the process, where the C library can be asked for that."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from textmarl.agents import memory

SCRIPT = """
import resource, sys
from textmarl.agents.memory import keep_freed_memory

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() / 2**20

if sys.argv[1] == "keep":
    keep_freed_memory()
before = resident()
block = bytearray(24 * 2**20)
del block
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(("asked", "stays"), [("keep", True), ("leave", False)])
def test_freed_memory_stays_with_the_process_once_asked_for(asked: str, stays: bool) -> None:
    kept = subprocess.run([sys.executable, "-c", SCRIPT, asked], capture_output=True, text=True, check=True)
    assert (float(kept.stdout) > 12) is stays


@pytest.mark.parametrize(("most", "asked"), [(1 << 30, [1 << 30]), (1 << 25, [1 << 30, 1 << 25])])
def test_an_older_glibc_is_asked_for_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, most: int, asked: list[int]
) -> None:
    calls: dict[int, list[int]] = {}

    def mallopt(option: int, value: int) -> int:
        calls.setdefault(option, []).append(value)
        return int(value <= most)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    memory.keep_freed_memory()
    assert calls == {memory._M_MMAP_THRESHOLD: asked, memory._M_TRIM_THRESHOLD: [(1 << 31) - 1]}


def test_another_system_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: pytest.fail("a C library is not to be asked"))
    memory.keep_freed_memory()
