"""Results in documentation pages: a benchmark puts its tables between two marks, and all else is written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def write_into(page: Path, tables: str) -> None:
    """Put the tables between the marks of a page.

    Raises:
        ValueError: The page has no marks.
    """
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text.partition(BEGIN)[2]:
        raise ValueError(
            f"{page} has no place for the results: put the lines {BEGIN} and {END} where they belong"
        )
    before, _, rest = text.partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def table_line(texts: Iterable[str]) -> str:
    """Return a line of a markdown table."""
    return f"| {' | '.join(texts)} |"


def markdown_of(table: Table) -> str:
    """Return what a table of the console says as a markdown table, below its title."""
    lines = [
        table_line(str(column.header) for column in table.columns),
        table_line("---:" if column.justify == "right" else "---" for column in table.columns),
        *map(
            table_line, zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True)
        ),
    ]
    return "\n".join([f"**{table.title}**", "", *lines])
