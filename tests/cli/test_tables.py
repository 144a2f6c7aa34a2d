"""What the tables and the lines of a run show beside the score, and that it stands apart from it."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

from textmarl.agents import Episode, Evaluation
from textmarl.cli.display import TrainingDisplay
from textmarl.cli.tables import change_table, evaluation_table

SCORES = (
    ((0.25, 1.0), (0.75, 2.0)),
    ((0.5, 1.5), (1.0, 4.0)),
)  # of two tasks before and after: score, v0_score


def evaluation(values: tuple[tuple[float, float], ...], beside: bool = True) -> Evaluation:
    episodes = [
        Episode(
            task_id=f"task/{number}",
            sample=0,
            score=score,
            reward_terms={"facts": score, "style": 0.0},
            individual_reward=None,
            turns=[],
            metrics={"v0_score": other} if beside else {},
        )
        for number, (score, other) in enumerate(values)
    ]
    return Evaluation("Made-v1", 1.0, episodes)


def shown(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


def rows(text: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in text.splitlines()]
    return {first: others for first, *others in filter(None, cells) if first}


def test_the_final_table_has_metrics_before_and_after_below_a_line_of_their_own() -> None:
    text = shown(change_table(evaluation(SCORES[0]), evaluation(SCORES[1])))
    table = rows(text)
    # v0_score: (1 + 2) / 2 before, (1.5 + 4) / 2 after; the tasks gain 0.5 and 2.
    assert table["v0_score"] == [
        "1.500",
        "2.750",
        "+1.250",
        "-8.280 to +10.780",
    ]  # t of 0.5 and 2.0: 1.25 ± 12.706 * 0.75
    assert table["score"][:3] == ["0.500", "0.750", "+0.250"]
    assert list(table)[-2:] == ["beside the score", "v0_score"]
    assert text.index("style") < text.index("├") < text.index("beside the score")


def test_an_evaluations_table_has_metrics_below_a_line_of_their_own() -> None:
    text = shown(evaluation_table(evaluation(SCORES[1])))
    assert rows(text)["v0_score"] == ["2.750", "-13.133 to 18.633", ""]  # 2.75 ± 12.706 * 1.25
    assert text.index("style") < text.index("├") < text.index("beside the score") < text.index("v0_score")


def test_tables_without_metrics_have_no_such_part() -> None:
    plain = [evaluation(values, beside=False) for values in SCORES]
    for text in (shown(change_table(*plain)), shown(evaluation_table(plain[0]))):
        assert "beside" not in text and "├" not in text


def test_metrics_that_only_one_of_two_evaluations_has_are_not_compared() -> None:
    text = shown(change_table(evaluation(SCORES[0], beside=False), evaluation(SCORES[1])))
    assert "v0_score" not in text and "score" in text


def test_the_lines_of_a_run_name_what_is_measured_beside_the_score(tmp_path: Path) -> None:
    file = io.StringIO()
    display = TrainingDisplay(Console(file=file, width=100), tmp_path / "log.txt")
    step = {"score": 0.5, "seconds/step": 1.0, "rate/tokens_per_second": 9.0}
    display.step(1, 2, {**step, "metrics/v0_score": 1.25, "terms/facts": 0.5})
    display.step(2, 2, step)
    display.evaluation(2, evaluation(SCORES[1]))
    first, second, third = file.getvalue().splitlines()
    assert first.startswith("step 1/2  score 0.500  v0_score 1.250  9 tokens/s")
    assert second.startswith("step 2/2  score 0.500  9 tokens/s")
    assert third.endswith("score 0.750 (2 episodes); beside it v0_score 2.750")
    assert "v0_score 1.250" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_a_narrow_bar_leaves_out_what_does_not_fit(tmp_path: Path) -> None:
    step = {"score": 0.5, "seconds/step": 1.0, "rate/tokens_per_second": 9.0, "metrics/v0_score": 1.25}
    for width, fits in ((80, False), (120, True)):
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        with TrainingDisplay(console, tmp_path / "log.txt") as display:
            display.step(1, 2, step)
        assert ("v0_score" in console.file.getvalue()) is fits  # type: ignore[attr-defined]


def test_the_length_of_answers_is_that_of_agents_with_tokens() -> None:
    turn = {
        "model": {"observation": "", "response": "a", "tokens": 6, "finish": "length"},
        "other": {"observation": "", "response": "", "tokens": 2, "finish": "stop"},
        "random": {"observation": "", "response": "b c d", "tokens": 0, "finish": "stop"},
    }
    played = evaluation(SCORES[0])
    played.episodes[0].turns = [turn]
    text = " ".join(shown(evaluation_table(played)).split())
    assert "mean response of model, other 4.0 tokens, 50 % cut at the limit" in text  # (6 + 2) / 2, 1 of 2
    del turn["random"]
    assert "mean response 4.0 tokens" in " ".join(shown(evaluation_table(played)).split())
