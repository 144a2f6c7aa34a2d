"""`textmarl train` with a server that samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from textmarl.cli import main
from textmarl.cli.settings import read_settings


def test_a_server_that_cannot_be_used_is_told_in_one_line_and_the_run_may_go_on_without_it(
    small_training: Callable[..., list[str]],
    mock_server: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    server = ("--trainer.steps", "1", "--trainer.generation_server", mock_server.url)
    assert main(small_training(run, *server)) == 2  # the mock has no route to load adapters
    told = capsys.readouterr().err
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in told and "Traceback" not in told
    assert f"textmarl train --resume {run}" in told
    settings = read_settings(["--resume", str(run), "--trainer.generation_server", "null"])
    assert settings.resume and settings.trainer.generation_server is None
