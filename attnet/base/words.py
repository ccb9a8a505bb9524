"""Words for people: Markdown tables, and lists as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attnet.base.errors import ConfigError

NONE = "–"  # where there is no figure


def table(header: Sequence[str], rows: Iterable[Sequence[object]], words: Sequence[int] = (0,)) -> str:
    """A Markdown table with padded columns; those numbered in `words` stand to the left, all others, figures, to the
    right.

    None is shown as a dash, and a bar within a cell does not end it.
    """
    lines = [[NONE if cell is None else str(cell).replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def padded(line: Sequence[str]) -> str:
        pairs = enumerate(zip(line, widths, strict=True))
        cells = (cell.ljust(width) if i in words else cell.rjust(width) for i, (cell, width) in pairs)
        return f"| {' | '.join(cells)} |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if i in words else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([padded(lines[0]), rule, *map(padded, lines[1:])])


def listed(text: str) -> list[str]:
    """ "a, b" as ["a", "b"]; nothing in, nothing out."""
    return [word.strip() for word in text.split(",") if word.strip()]


def listed_seeds(text: str) -> list[int]:
    """ "0,1,2" as [0, 1, 2]; ConfigError for anything but whole numbers."""
    if not all(word.isdecimal() for word in listed(text)):
        raise ConfigError(f"seeds={text!r}: whole numbers with commas between are needed, as 0,1,2")
    return [int(word) for word in listed(text)]
