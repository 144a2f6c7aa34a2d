"""Texts and numbers as a person reads them on a page or in a figure."""

from __future__ import annotations

import math
import re

from textmarl.agents.episodes import Evaluation
from textmarl.benchmarks.statistics import Interval

# Control characters except tab and line feed, lone surrogates, and what is no character.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def printable(text: str) -> str:
    r"""Text that UTF-8 and a browser can hold: what they cannot becomes visible.

    >>> printable("a\x00b\x1b[31m \ud83d end")
    'a␀b␛[31m \\ud83d end'
    """
    return _UNPRINTABLE.sub(_visible, text.replace("\r\n", "\n"))


def one_line(text: str, limit: int) -> str:
    """Printable text on one line of at most `limit` characters.

    >>> one_line("two  lines\\nof text", 12)
    'two lines o…'
    """
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """A number with a true minus sign.

    >>> number(-1234.5, 1), number(2.0, sign=True), number(float("nan"))
    ('−1,234.5', '+2.00', 'unknown')
    """
    if not math.isfinite(value):
        return "unknown"
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:  # no "-0.0"
        text = text.lstrip("+-")
    return text.replace("-", "−")


def bounds(interval: Interval, digits: int = 2, sign: bool = False) -> str:
    """The bounds of an interval in brackets, nothing where they are unknown.

    >>> bounds(Interval(1.0, 0.5, 1.5)), bounds(Interval(1.0, float("nan"), float("nan")))
    ('[0.50, 1.50]', '')
    """
    if not math.isfinite(interval.low):
        return ""
    return f"[{number(interval.low, digits, sign)}, {number(interval.high, digits, sign)}]"


def references(evaluation: Evaluation) -> str:
    """What known ways of playing score, to be read beside the score; empty where the environment names none.

    >>> references(Evaluation("Climbing-v0", 11.0, reference_scores={"optimal": 11.0, "uniform": -31 / 9}))
    'for comparison: optimal 11.00 (100.0 %), uniform −3.44 (−31.3 %)'
    """
    shown = [
        f"{one_line(name, 24)} {number(score)}"
        + (f" ({number(100 * score / evaluation.max_score, 1)} %)" if evaluation.max_score else "")
        for name, score in evaluation.reference_scores.items()
    ]
    return f"for comparison: {', '.join(shown)}" if shown else ""


def duration(seconds: float) -> str:
    """A time as one would say it.

    >>> duration(42.4), duration(360), duration(750), duration(7_500)
    ('42 s', '6 min', '12 min 30 s', '2 h 5 min')
    """
    whole = round(seconds)
    for size, name, part, small in ((3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {name} {rest} {small}" if rest else f"{whole // size} {name}"
    return f"{whole} s"


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else f"\\u{code:04x}"
