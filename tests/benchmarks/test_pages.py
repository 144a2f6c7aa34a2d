"""Tables in documentation pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.table import Table

from textmarl.benchmarks.pages import BEGIN, END, markdown_of, write_into


def test_tables_are_put_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    write_into(page, "| new |")
    write_into(page, "| newer |")
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n\n| newer |\n\n{END}\nafter\n"
    page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for the results"):
        write_into(page, "| new |")


def test_a_table_of_the_console_as_markdown() -> None:
    table = Table(title="Steps")
    table.add_column("who")
    table.add_column("seconds", justify="right")
    table.add_row("ours", "1.0")
    table.add_row("theirs", "-")
    assert markdown_of(table).splitlines() == [
        "**Steps**", "", "| who | seconds |", "| --- | ---: |", "| ours | 1.0 |", "| theirs | - |",
    ]  # fmt: skip
