"""Words for people: Markdown tables and CSV, lists as text, how long something takes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

from attnet.base.errors import ConfigError, brief, printable, shown

NONE = "–"  # where there is no figure
_WIDEST = 500  # characters of a cell
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of one


def table(header: Sequence[str], rows: Iterable[Sequence[object]], words: Sequence[int] = (0,)) -> str:
    """A Markdown table with padded columns; those numbered in `words` stand to the left, all others, figures, to the
    right.

    None is shown as a dash. What stands in a cell, whoever wrote it, ends neither the cell nor the line, and is cut
    where it is long.
    """
    lines = [[NONE if cell is None else _cell(cell) for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def padded(line: Sequence[str]) -> str:
        pairs = enumerate(zip(line, widths, strict=True))
        cells = (cell.ljust(width) if i in words else cell.rjust(width) for i, (cell, width) in pairs)
        return f"| {' | '.join(cells)} |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if i in words else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([padded(lines[0]), rule, *map(padded, lines[1:])])


def _cell(cell: object) -> str:
    return brief(printable(cell), _WIDEST).replace("|", "\\|")


def as_csv(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Comma-separated values. Text that a spreadsheet would run as a formula has an apostrophe before it: class names
    and folders come from files.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_no_formula(cell) for cell in line] for line in (header, *lines))
    return text.getvalue()


def _no_formula(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def duration(seconds: float) -> str:
    """How long something takes, in two units at most: "0.8 s", "12 s", "4 min 10 s", "3 h 28 min", "8 days 2 h".

    Every duration that a person reads is written by this; a measurement that is compared keeps its digits and its unit.
    """
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if round(seconds) < 3600:
        return _in_two(round(seconds), 60, "min", "s")
    if round(seconds / 60) < 24 * 60:
        return _in_two(round(seconds / 60), 60, "h", "min")
    days = round(seconds / 3600)
    return _in_two(days, 24, "day" if days < 48 else "days", "h")


def _in_two(count: int, many: int, large: str, small: str) -> str:
    high, low = divmod(count, many)
    return f"{high} {large}" + (f" {low} {small}" if low else "")


def folded(summary: str, text: str) -> str:
    """Markdown in whose place a line stands until somebody unfolds it: a table below its figure."""
    return f"<details><summary>{summary}</summary>\n\n{text}\n\n</details>"


def listed(text: str) -> list[str]:
    """ "a, b" as ["a", "b"]; nothing in, nothing out."""
    return [word.strip() for word in text.split(",") if word.strip()]


def names_of(given: object, name: str = "names") -> list[str]:
    """Names from "cat, dog", from a list, or from the text of one, as ["Pepper,_bell", "cat"].

    Names that hold commas or begin or end with spaces come from a list or its JSON text alone. Numbers are taken as
    they are written.

    Raises:
        ConfigError: something else, naming the parameter `name`.
    """
    asked = given
    if isinstance(given, str):
        text = given.strip()
        bracketed = text.startswith("[") and text.endswith("]")
        given = [word.strip() for word in text.split(",")] if text else []
        if bracketed:
            try:
                given = json.loads(text)
            except ValueError:  # [cat, dog], as YAML and Python write it
                given = [word.strip().strip("\"'") for word in text[1:-1].split(",")]
    words = given if isinstance(given, list | tuple) else [None]
    if any(type(word) not in (str, int) or "\0" in str(word) for word in words):
        raise ConfigError(
            f'{name}={shown(asked)}: names with commas between are needed, or a list of them, as ["cat", "dog"]'
        )
    return [str(word) for word in words]


def names_text(names: Sequence[str]) -> str:
    """Names as text that `names_of` makes the same names of: "cat,dog", or JSON where that would not do."""
    plain = ",".join(names)
    return plain if names_of(plain) == list(names) else json.dumps(list(names), ensure_ascii=False)


def listed_seeds(text: str) -> list[int]:
    """ "0,1,2" as [0, 1, 2]; ConfigError for anything but whole numbers."""
    if not all(word.isdecimal() for word in listed(text)):
        raise ConfigError(f"seeds={text!r}: whole numbers with commas between are needed, as 0,1,2")
    return [int(word) for word in listed(text)]
