"""The report of a run: right numbers, in every state that a run can be in, and safe whatever the texts hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("matplotlib", reason="the report is part of the extra `train`")

from textmarl.benchmarks.report import render_page, write_report
from textmarl.benchmarks.runs import load_run

MakeRun = Callable[..., Path]
HOSTILE = (
    "</div><script>alert('x')</script><img src=x onerror=alert(1)>\"'&amp; $x_1$ \ud83d\x00\x1b[31m\u202e"
)
VOID = {"meta", "br", "img", "link", "hr", "input"}


@pytest.fixture
def plain_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures out of the page, for tests of its words: drawing is what takes the time."""
    monkeypatch.setattr(
        "textmarl.benchmarks.figures.to_svg", lambda draw, width, height, label: "<svg></svg>"
    )


words_only = pytest.mark.usefixtures("plain_figures")


class Page(HTMLParser):
    """What a page holds: its tags, attributes and text; fails on tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def mean_percent(row: dict[str, Any]) -> float:
    scores = [episode["score"] for episode in row["episodes"]]
    return 100 * sum(scores) / len(scores) / row["max_score"]


@words_only
def test_headline_is_the_first_and_last_evaluation_in_percent_of_the_maximum(make_run: MakeRun) -> None:
    folder = make_run()
    first, _, last = (mean_percent(row) for row in read_rows(folder / "evaluations.jsonl"))
    page = Page(render_page(folder))
    assert f"{first:.1f}→{last:.1f} %" in page.text
    assert f"{last - first:+.1f} points [" in page.text
    assert "12 held-out tasks, 2 samples each" in page.text
    assert "finished, 40 steps" in page.text


@words_only
def test_table_holds_every_term_before_and_after_with_the_change(make_run: MakeRun) -> None:
    folder = make_run()
    rows = read_rows(folder / "evaluations.jsonl")
    page = Page(render_page(folder))
    for term in rows[0]["episodes"][0]["reward_terms"]:
        before, after = (
            sum(episode["reward_terms"][term] for episode in row["episodes"]) / len(row["episodes"])
            for row in (rows[0], rows[-1])
        )
        assert f"{term}{before:.2f}{after:.2f}{after - before:+.2f}[" in page.text


def with_metrics(folder: Path, names: tuple[str, ...] = ("v0_score",)) -> Path:
    """The run with metrics beside the score: 1 for every task before and 1.5 after."""
    evaluations = read_rows(folder / "evaluations.jsonl")
    for row in evaluations:
        for episode in row["episodes"]:
            episode["metrics"] = dict.fromkeys(names, 1.0 if row["step"] == 0 else 1.5)
    write_rows(folder / "evaluations.jsonl", evaluations)
    measured = {f"metrics/{name}": 1.25 for name in names}
    write_rows(folder / "metrics.jsonl", [{**row, **measured} for row in read_rows(folder / "metrics.jsonl")])
    return folder


@words_only
def test_metrics_beside_the_score_have_a_table_of_their_own_and_stand_in_the_summary(
    make_run: MakeRun,
) -> None:
    text = Page(render_page(with_metrics(make_run()))).text
    # The same change in every task gives no interval.
    assert "beside the score: v0_score 1.00 to 1.50 (+0.50)" in text
    section = text[text.index("Beside the score") :]
    assert "v0_score1.001.50+0.50unknown" in section
    terms = text[text.index("What the score is made of") : text.index("Beside the score")]
    assert "v0_score" not in terms


@words_only
def test_a_run_without_metrics_has_no_such_part(make_run: MakeRun) -> None:
    assert "beside the score" not in Page(render_page(make_run())).text.lower()


@words_only
def test_metrics_that_an_evaluation_lacks_or_that_are_no_numbers_are_left_out(make_run: MakeRun) -> None:
    folder = with_metrics(make_run(), ("kept", "torn"))
    rows = read_rows(folder / "evaluations.jsonl")
    rows[-1]["episodes"][0]["metrics"]["torn"] = None
    write_rows(folder / "evaluations.jsonl", rows)
    text = Page(render_page(folder)).text
    assert "kept1.001.50" in text and "torn1.00" not in text


@words_only
def test_what_known_ways_of_playing_score_stands_beside_the_score(make_run: MakeRun) -> None:
    folder = make_run()
    assert "for comparison" not in Page(render_page(folder)).text
    rows = [
        {**row, "max_score": 3.0, "reference_scores": {"optimal": 3.0, "<decoy>": 1.5, "uniform": -0.75}}
        for row in read_rows(folder / "evaluations.jsonl")
    ]
    write_rows(folder / "evaluations.jsonl", rows)
    text = "for comparison: optimal 3.00 (100.0 %), <decoy> 1.50 (50.0 %), uniform −0.75 (−25.0 %)"
    assert text in Page(render_page(folder)).text
    write_rows(folder / "evaluations.jsonl", rows[:1])
    assert text in Page(render_page(folder)).text


@words_only
def test_many_metrics_are_counted_in_the_summary_and_listed_in_the_table(make_run: MakeRun) -> None:
    names = ("one", "two", "three", "four", "five")
    text = Page(render_page(with_metrics(make_run(), names))).text
    assert "three 1.00 to 1.50 (+0.50)  ·  2 more" in text
    assert all(f"{name}1.001.50+0.50" in text for name in names)


def test_page_needs_nothing_but_itself(make_run: MakeRun) -> None:
    html = render_page(make_run())
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "img"} & set(page.tags)
    assert "http" not in html
    references = [value for name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(value and value.startswith("#") for value in references)


def test_figures_take_the_colours_of_the_page_and_keep_their_own_ids(make_run: MakeRun) -> None:
    html = render_page(make_run())
    page = Page(html)
    assert page.tags.count("svg") == 4
    assert "#010203" not in html
    # Names of clip paths and markers are what figures refer to; groups such as axes_1 are referred to by none.
    ids = [value for name, value in page.attributes if name == "id" and value and len(value) == 11]
    assert ids and len(ids) == len(set(ids))


@words_only
def test_transcripts_show_the_tasks_with_the_largest_and_smallest_gain_on_both_sides(
    make_run: MakeRun,
) -> None:
    folder = make_run(tasks=3, samples=1, evaluated=(0, 40))
    rows = read_rows(folder / "evaluations.jsonl")
    before = {"test/0000": 1.0, "test/0001": 1.0, "test/0002": 1.0}
    after = {"test/0000": 1.5, "test/0001": 0.5, "test/0002": 2.5}
    for row, scores in zip(rows, (before, after), strict=True):
        for episode in row["episodes"]:
            episode["score"] = scores[episode["task_id"]]
            episode["turns"][0]["concise"]["response"] = f"said at {row['step']} for {episode['task_id']}"
    write_rows(folder / "evaluations.jsonl", rows)
    text = Page(render_page(folder)).text
    assert text.index("Largest gain: test/0002, +1.50") < text.index("Median gain: test/0000, +0.50")
    assert text.index("Median gain: test/0000") < text.index("Smallest gain: test/0001, −0.50")
    for task in before:
        assert f"said at 0 for {task}" in text and f"said at 40 for {task}" in text


@words_only
def test_shown_sample_is_the_one_nearest_to_the_mean_of_its_task(make_run: MakeRun) -> None:
    folder = make_run(tasks=1, samples=3, evaluated=(0, 40))
    rows = read_rows(folder / "evaluations.jsonl")
    for episode, score in zip(rows[1]["episodes"], (0.0, 1.4, 3.0), strict=True):  # mean 1.47
        episode["score"] = score
        episode["turns"][0]["concise"]["response"] = f"scored {score}"
    write_rows(folder / "evaluations.jsonl", rows)
    text = Page(render_page(folder)).text
    assert "scored 1.4" in text
    assert "scored 0.0" not in text and "scored 3.0" not in text


@words_only
def test_the_first_prompt_of_an_agent_that_acts_in_a_later_turn_is_shown(make_run: MakeRun) -> None:
    folder = make_run(tasks=1, samples=1, evaluated=(0,), steps=1)
    (row,) = read_rows(folder / "evaluations.jsonl")
    (turn,) = row["episodes"][0]["turns"]
    turn["detailed"]["observation"] = "what the second one reads"
    again = {"concise": {**turn["concise"], "observation": "read later"}}
    row["episodes"][0]["turns"] = [{"concise": turn["concise"]}, {"detailed": turn["detailed"]}, again]
    write_rows(folder / "evaluations.jsonl", [row])
    text = Page(render_page(folder)).text
    assert "what the second one reads" in text and "read later" not in text


@words_only
def test_run_in_progress_with_only_the_untrained_evaluation(make_run: MakeRun) -> None:
    page = Page(render_page(make_run(steps=3, evaluated=(0,))))
    assert "step 3 of 40" in page.text
    assert "no second evaluation yet" in page.text
    assert "Held-out transcripts" in page.text
    assert "Newest training samples" in page.text
    assert "Before and after" not in page.text


def test_run_without_any_evaluation(make_run: MakeRun) -> None:
    page = Page(render_page(make_run(steps=12, evaluated=())))
    assert "No evaluation yet" in page.text
    assert "Learning curve" in page.text


@words_only
def test_tasks_that_training_met_are_not_called_held_out(make_run: MakeRun) -> None:
    folder = make_run()
    assert "held-out" in Page(render_page(folder)).text.lower()
    path = folder / "evaluations.jsonl"
    rows = [{**json.loads(line), "held_out": False} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = Page(render_page(folder)).text
    assert "held-out" not in text.lower() and "Every training task" in text


def test_run_that_has_just_started(make_run: MakeRun) -> None:
    folder = make_run(steps=0, evaluated=())
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl", "environment.json"):
        (folder / name).unlink()
    page = Page(render_page(folder))
    assert "step 0 of 40" in page.text
    assert "textmarl/TLDR-v0 with MAGRPO" in page.text


@words_only
def test_algorithm_from_a_file_is_named_by_its_class(make_run: MakeRun) -> None:
    folder = make_run(steps=1, evaluated=())
    config = (folder / "config.yaml").read_text(encoding="utf-8")
    (folder / "config.yaml").write_text(
        config.replace("name: magrpo", "name: 'own/credit.py:Mine'"), encoding="utf-8"
    )
    assert "textmarl/TLDR-v0 with Mine" in Page(render_page(folder)).text


def test_run_of_evaluations_alone_needs_no_metrics_and_no_configuration(make_run: MakeRun) -> None:
    folder = make_run()
    for name in ("metrics.jsonl", "samples.jsonl", "environment.json", "config.yaml"):
        (folder / name).unlink()
    page = Page(render_page(folder))
    assert "Before and after" in page.text
    assert "Diagnostics" not in page.text


def test_metrics_that_are_missing_or_not_finite_leave_out_their_panel_only(make_run: MakeRun) -> None:
    folder = make_run()
    rows = read_rows(folder / "metrics.jsonl")
    for row in rows:
        row["entropy/concise"] = None
        del row["entropy/detailed"]
        row["grad_norm/concise"] = math.nan
        row["kl/detailed"] = "unknown"
    write_rows(folder / "metrics.jsonl", rows)
    page = Page(render_page(folder))
    assert "Entropy (" not in page.text
    assert "Gradient norm" in page.text


def test_nothing_in_a_run_can_put_markup_into_the_page(make_run: MakeRun) -> None:
    folder = make_run(tasks=3, samples=1)
    for name in ("metrics.jsonl", "evaluations.jsonl", "samples.jsonl"):
        hostile = json.dumps(HOSTILE)[1:-1]
        text = (folder / name).read_text(encoding="utf-8")
        for word in ("detailed", "overlap", "test/0001", "TLDR-v0", "The author"):
            text = text.replace(word, hostile + word)
        (folder / name).write_text(text, encoding="utf-8")
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config["env"]["id"] = config["team"]["model"] = config["algo"]["name"] = HOSTILE
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps({HOSTILE: {HOSTILE: HOSTILE}}), encoding="utf-8")

    page = Page(write_report(folder).read_text(encoding="utf-8"))

    assert not {"script", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert('x')</script>" in page.text  # shown, not run
    assert "\\ud83d␀␛[31m" in page.text
    assert "\x00" not in page.text


@words_only
def test_transcripts_that_are_none_are_left_out(make_run: MakeRun) -> None:
    folder = make_run(steps=2, evaluated=(0,), tasks=1, samples=1)
    (evaluation,) = read_rows(folder / "evaluations.jsonl")
    evaluation["episodes"][0]["turns"].insert(0, "no turn")
    write_rows(folder / "evaluations.jsonl", [evaluation])
    (sample,) = read_rows(folder / "samples.jsonl")
    sample |= {
        "step": "<script>1</script>",
        "turns": [None, {"concise": 3, "detailed": {"response": "said"}}],
    }
    write_rows(folder / "samples.jsonl", [sample])
    page = Page(render_page(folder))
    assert "script" not in page.tags and "Step <script>1</script>" in page.text
    assert "said" in page.text and "turn 2" in page.text


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "evaluations.jsonl", "metrics.jsonl"])
def test_empty_file_is_as_good_as_none(make_run: MakeRun, name: str) -> None:
    folder = make_run()
    (folder / name).write_text("", encoding="utf-8")
    Page(render_page(folder))


@words_only
def test_line_torn_by_a_kill_is_left_out_and_said(make_run: MakeRun) -> None:
    folder = make_run()
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole + b'{"step": 41, "score": 1.\n' + b'{"step"')
    page = Page(render_page(folder))
    assert "2 lines of metrics.jsonl could not be read" in page.text
    assert "2 lines of evaluations.jsonl could not be read" in page.text
    assert load_run(folder).steps_done == 40


def test_step_that_was_done_again_after_a_kill_counts_once_and_the_later_one(make_run: MakeRun) -> None:
    folder = make_run()
    rows = read_rows(folder / "metrics.jsonl")
    again = [row | {"score": 9.0} for row in rows[36:38]]
    write_rows(folder / "metrics.jsonl", [*rows[:38], *again, *rows[38:]])
    steps, scores = load_run(folder).series("score")
    assert list(steps) == list(range(1, 41))
    assert list(scores[36:38]) == [9.0, 9.0]


@words_only
def test_evaluations_on_different_tasks_are_compared_on_the_common_ones_and_it_is_said(
    make_run: MakeRun,
) -> None:
    folder = make_run(tasks=4, samples=1, evaluated=(0, 40))
    rows = read_rows(folder / "evaluations.jsonl")
    rows[1]["episodes"].pop()
    write_rows(folder / "evaluations.jsonl", rows)
    assert "Only the 3 tasks that both evaluations played" in Page(render_page(folder)).text


@words_only
def test_evaluations_without_a_common_task_are_not_compared(make_run: MakeRun) -> None:
    folder = make_run(tasks=2, samples=1, evaluated=(0, 40))
    rows = read_rows(folder / "evaluations.jsonl")
    for episode in rows[1]["episodes"]:
        episode["task_id"] += "-other"
    write_rows(folder / "evaluations.jsonl", rows)
    assert "no task in common" in Page(render_page(folder)).text


@words_only
def test_single_task_gets_an_interval_over_its_samples_that_says_so(make_run: MakeRun) -> None:
    page = Page(render_page(make_run(tasks=1, samples=4)))
    assert "interval of the paired change over samples of one task." in page.text
    assert "points [" in page.text


@words_only
def test_single_sample_of_a_single_task_gets_no_interval(make_run: MakeRun) -> None:
    page = Page(render_page(make_run(tasks=1, samples=1)))
    assert "No interval: needs 2 tasks." in page.text
    assert "points [" not in page.text


def test_environment_without_a_maximum_is_shown_in_its_own_unit(make_run: MakeRun) -> None:
    folder = make_run(evaluated=(0, 40))
    rows = [row | {"max_score": None} for row in read_rows(folder / "evaluations.jsonl")]
    write_rows(folder / "evaluations.jsonl", rows)
    first, last = (sum(e["score"] for e in row["episodes"]) / len(row["episodes"]) for row in rows)
    page = Page(render_page(folder))
    assert f"{first:.1f}→{last:.1f}" in page.text
    assert "percent" not in page.text


@words_only
def test_change_that_may_be_none_is_called_so(make_run: MakeRun) -> None:
    folder = make_run(tasks=8, samples=1, evaluated=(0, 40))
    rows = read_rows(folder / "evaluations.jsonl")
    for index, (first, last) in enumerate(zip(rows[0]["episodes"], rows[1]["episodes"], strict=True)):
        last["score"] = first["score"] + 0.3 * (-1) ** index
    write_rows(folder / "evaluations.jsonl", rows)
    assert "The interval contains 0" in Page(render_page(folder)).text


@words_only
def test_response_of_megabytes_does_not_make_a_page_of_megabytes(make_run: MakeRun) -> None:
    folder = make_run(tasks=3, samples=1, evaluated=(0, 40))
    rows = read_rows(folder / "evaluations.jsonl")
    for episode in rows[1]["episodes"]:
        episode["turns"][0]["detailed"]["response"] = "blah " * 400_000
    write_rows(folder / "evaluations.jsonl", rows)
    html = render_page(folder)
    assert len(html) < 1_000_000
    assert "more characters in the run's files" in Page(html).text


def test_report_is_replaced_whole(make_run: MakeRun) -> None:
    folder = make_run(steps=3, evaluated=(0,))
    first = write_report(folder).read_text(encoding="utf-8")
    assert write_report(folder).read_text(encoding="utf-8") == first
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "report"))) == [
        "report.html",
        "report.png",
    ]


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*textmarl train"):
        write_report(tmp_path / "nowhere")


def test_folder_that_is_no_run_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not a run: .*metrics\.jsonl.*holiday\.jpg"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_broken_configuration_is_named(make_run: MakeRun) -> None:
    folder = make_run()
    (folder / "config.yaml").write_text("env: [1, 2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config\.yaml cannot be read"):
        write_report(folder)


def test_importing_without_matplotlib_names_the_extra() -> None:
    import subprocess
    import sys

    code = "import sys; sys.modules['matplotlib'] = None; import textmarl.benchmarks.report"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "ImportError: the report needs matplotlib" in done.stderr
    assert "pip install matplotlib" in done.stderr
