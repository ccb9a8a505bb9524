"""Markdown tables that read well as plain text, too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NONE = "–"  # where there is no figure


def table(header: Sequence[str], rows: Iterable[Sequence[object]], words: Sequence[int] = (0,)) -> str:
    """A table with padded columns; those numbered in `words` stand to the left, all others, figures, to the right.

    None is shown as a dash, and a bar within a cell does not end it.
    """
    lines = [[NONE if cell is None else str(cell).replace("|", "\\|") for cell in line] for line in (header, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def padded(line: Sequence[str]) -> str:
        pairs = enumerate(zip(line, widths, strict=True))
        return (
            "| "
            + " | ".join(cell.ljust(width) if i in words else cell.rjust(width) for i, (cell, width) in pairs)
            + " |"
        )

    rule = "|" + "|".join("-" * (width + 1) + ("-" if i in words else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([padded(lines[0]), rule, *map(padded, lines[1:])])
