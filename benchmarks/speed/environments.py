"""The peers' own Python environments, made when they are first needed."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

#: What each peer needs. It gets our versions of the libraries below it, so that nobody is slower for an old one.
PEERS = {
    "comlrl": ("comlrl==1.4.3", "peft"),
    "trl": ("trl==1.16.0", "peft"),
}
SHARED = ("torch", "transformers", "peft", "accelerate")


def shared_versions() -> list[str]:
    """Return our versions of the libraries that the peers stand on, as constraints."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in SHARED]


def peer_python(peer: str, folder: Path, tell: Callable[[str], None]) -> Path:
    """Return the Python that has ``peer``, installing it into ``folder / peer`` at the first call.

    Raises:
        RuntimeError: It cannot be installed; says what pip said.
    """
    home = folder / peer
    python = home / "bin" / "python"
    if (home / "installed.txt").is_file():
        return python
    tell(f"installing {' '.join(PEERS[peer])} into an environment of its own")
    home.mkdir(parents=True, exist_ok=True)
    constraints = home / "constraints.txt"
    constraints.write_text("\n".join(shared_versions()) + "\n", encoding="utf-8")
    torch = next(line for line in shared_versions() if line.startswith("torch=="))
    commands = (
        [sys.executable, "-m", "venv", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", "-c", str(constraints), torch, *PEERS[peer]],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{peer} could not be installed: {done.stderr.strip()[-500:]}")
    (home / "installed.txt").write_text(versions(python), encoding="utf-8")
    return python


def versions(python: Path) -> str:
    """Return what is installed there, one ``name==version`` a line."""
    command = [str(python), "-m", "pip", "list", "--format", "freeze", "--disable-pip-version-check"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def version_of(peer: str, folder: Path) -> dict[str, str]:
    """Return the versions of a peer and of what it shares with us."""
    listed = dict(
        line.split("==", 1)
        for line in (folder / peer / "installed.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    return {name: listed[name] for name in (peer, *SHARED) if name in listed}
