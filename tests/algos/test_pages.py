"""Each algorithm has a page that says what it is, and the page tells its settings as they are."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from textmarl.algos import resolve

PAGES = Path(__file__).parents[2] / "docs" / "algorithms"
NAMES = ("c3", "collm", "grpo", "igrpo", "ippo", "magrpo", "pmic")


def rows(page: str) -> dict[str, str]:
    """Each field of the table of settings, with the default beside it; "" where the row gives one for several."""
    found = {}
    for names, default in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ([^|]*) \|", page, flags=re.MULTILINE):
        listed = re.findall(r"\w+", names)
        shown = default.split(", ") if len(listed) > 1 else [default]
        alike = len(shown) == len(listed) and "[" not in default
        found |= dict(zip(listed, shown if alike else [""] * len(listed), strict=True))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_page_says_what_it_is_how_it_is_computed_what_it_costs_and_what_was_verified(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    for part in (r"\*\*What it is\.\*\*", r"\*\*Equations\.\*\*", r"\*\*Cost\*?\*?", r"\*\*Verified\.\*\*"):
        assert re.search(part, page), part
    for what in ("reward evaluations", r"generat|responses", f"tests/algos/test_{name}"):
        assert re.search(what, page[page.index("**Cost") :]), what


@pytest.mark.parametrize("name", NAMES)
def test_a_page_lists_every_setting_with_its_default(name: str) -> None:
    listed = rows((PAGES / f"{name}.md").read_text(encoding="utf-8"))
    own = {field.name: field for field in fields(resolve(name))}
    assert set(listed) == set(own)
    for field, shown in ((own[key], text) for key, text in listed.items() if text):
        if field.default is MISSING or shown.startswith("as "):
            continue
        first = re.split(r"[\s:]", shown)[0]
        number = isinstance(field.default, int | float) and not isinstance(field.default, bool)
        assert (float(first) if number else first) == (
            field.default if number else str(field.default).lower()
        ), field.name
