"""What the documentation shows exists, and what it says to run without torch runs."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
)


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_links_between_files_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if not target.startswith("http")]
    assert [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()] == []


def test_evaluation_without_torch_prints_a_percentage() -> None:
    (example,) = (code for code in examples("README.md") if "RandomAgent" in code)
    blocked = "import sys\nsys.modules['torch'] = None\n"
    done = subprocess.run([sys.executable, "-c", blocked + example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.match(r"\d+\.\d % of the maximum \{'", done.stdout)
    names: dict = {}
    exec(example.split("result =")[0], names)
    observations, _ = names["env"].reset(seed=0)
    assert names["first_sentence"](observations["concise"])[:-1] in names["env"].unwrapped.task.data["prompt"]


def test_a_model_behind_a_server_is_evaluated_and_the_command_goes_on_with_it(
    mock_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from textmarl.cli import main

    (example,) = (code for code in examples("README.md") if "EndpointAgent" in code)
    monkeypatch.chdir(tmp_path)
    exec(example.replace("http://localhost:8000/v1", mock_server.url), {})
    assert re.fullmatch(r"\d+\.\d % of the maximum, 0 episodes failed\n", capsys.readouterr().out)
    episodes = (tmp_path / "results" / "my-model" / "episodes.jsonl").read_text().splitlines()
    assert len(episodes) == 4 * 32  # samples of the held-out posts
    asked = len(mock_server.requests)
    command = command_with("openai:").replace("http://localhost:8000/v1", mock_server.url)
    assert main(shlex.split(command.replace("\\\n", " "))[1:]) == 0
    assert "32 tasks, 4 samples of each" in capsys.readouterr().out
    assert len(mock_server.requests) == asked, "the same evaluation: nothing is left to play"


def test_an_agent_that_answers_batches_plays_in_every_seat() -> None:
    import pettingzoo

    import textmarl.envs  # noqa: F401  (registers the environments)
    from textmarl.agents import evaluate

    (example,) = (code for code in examples("README.md") if "class Shouting" in code)
    names: dict = {}
    exec(example, names)
    env = pettingzoo.make("parallel", "textmarl/Chorus-v0", n_agents=2)
    agent = names["Shouting"]()
    result = evaluate(env, dict.fromkeys(env.possible_agents, agent), tasks=2)
    turn = result.episodes[0].turns[0]
    assert all(said["response"] == said["observation"].upper() for said in turn.values())


def test_the_metric_of_the_readme_gives_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("evaluate")
    (example,) = (code for code in examples("README.md") if "evaluate.load" in code)
    exec(example, {})
    assert example.rstrip().endswith(f"# {capsys.readouterr().out.strip()}")


@pytest.mark.parametrize("page", ["README.md", "docs/sandbox.md"])
def test_sandbox_examples_judge_what_they_say(page: str) -> None:
    (example,) = (code for code in examples(page) if "Sandbox" in code)
    names: dict = {}
    exec(example, names)
    assert names["report"].passed == 1
    assert names["report"].verdicts[1].call == "square(-1) -> -3"


def test_own_algorithm_of_the_readme_gives_a_group_advantages(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    pytest.importorskip("torch")
    from textmarl.algos import resolve

    (example,) = (code for code in examples("README.md") if "class Wins" in code)
    (tmp_path / "own_wins.py").write_text(example, encoding="utf-8")
    own: Any = resolve(f"{tmp_path / 'own_wins.py'}:Wins")
    # 3 beats both others, 1 loses to both, 2 beats one and loses to one.
    credits = np.array([3.0, 1.0, 2.0])
    assert own(group_size=3).advantages(credits) == pytest.approx([2 / 3, -2 / 3, 0.0])
    # A lead of 1 is half a win where 2 make a whole one.
    assert own(group_size=3, lead=2.0).advantages(credits) == pytest.approx([1.5 / 3, -1.5 / 3, 0.0])


def train_in(folder: Path, command: str, *more: str) -> list[dict]:
    """Run a command of the README's in ``folder``; return the run's metrics."""
    from textmarl.cli import main

    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["textmarl", "train"]
    assert main([*words[1:], *more]) in (0, None)
    run = folder / words[words.index("--run") + 1]
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def command_with(words: str) -> str:
    blocks = re.findall(
        r"```\n(textmarl.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    (command,) = (block for block in blocks if words in block)
    return command


SHORT = (
    "--trainer.steps",
    "1",
    "--trainer.eval_tasks",
    "1",
    "--trainer.eval_samples",
    "1",
    "--algo.group_size",
    "4",
)


def test_own_environment_of_the_readme_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    (example,) = (code for code in examples("README.md") if "class Letters" in code)
    assert len(example.splitlines()) + len(command_with("letters.py").splitlines()) <= 40
    monkeypatch.chdir(tmp_path)
    Path("letters.py").write_text(example, encoding="utf-8")
    (metrics,) = train_in(tmp_path, command_with("letters.py"), *SHORT)
    assert metrics["grad_norm/first"] > 0 and metrics["grad_norm/second"] > 0


SMALL = ("--team.model", "tiny", "--sampling.max_new_tokens", "16", "--env.kwargs.split", "train[:2]")


def test_the_algorithm_among_the_examples_is_trained_by_its_own_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    docstring = ast.get_docstring(
        ast.parse((ROOT / "examples" / "own_algorithm.py").read_text()), clean=False
    )
    assert docstring is not None
    command = docstring[docstring.index("textmarl train") :]
    for folder in ("examples", "benchmarks"):  # it is called at the root
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    assert len(train_in(tmp_path, command, *SMALL, *SHORT)) == 1


def test_own_algorithm_of_the_readme_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    (example,) = (code for code in examples("README.md") if "class Wins" in code)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    command = command_with("wins.py").replace("benchmarks/configs", str(ROOT / "benchmarks" / "configs"))
    monkeypatch.chdir(tmp_path)
    Path("wins.py").write_text(example, encoding="utf-8")
    metrics = train_in(tmp_path, command, *SMALL, *SHORT)
    assert len(metrics) == 1
    saved = (tmp_path / "runs" / "wins" / "config.yaml").read_text()
    assert "wins.py:Wins" in saved and "lead: 0.2" in saved
