"""What it takes to work on Ascend: the section of the README beside this file, for a terminal. Imports no torch."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

README = Path(__file__).with_name("README.md")
_WIDTH = 100
_COLUMN = 34  # the widest that a column may be which is not the last


def ascend_guide() -> str:
    """Versions, installation and variables, as the README's section "Ascend" has them."""
    section = README.read_text(encoding="utf-8").split("\n## Ascend\n")[1].split("\n## ")[0]
    # Paragraphs, tables and blocks of commands, which hold no empty lines.
    return "\n\n".join(["Ascend", *map(_shown, re.split(r"\n\n+", section.strip()))])


def _shown(block: str) -> str:
    lines = block.splitlines()
    if lines[0].startswith("```"):
        return "\n".join(f"    {line}" for line in lines[1:-1])
    if lines[0].startswith("|"):
        rows = [[_bare(cell) for cell in line.strip("|").split("|")] for line in lines]
        return "\n".join(_table([row for row in rows if set("".join(row)) - {"-"}]))
    return textwrap.fill(_bare(block), _WIDTH, break_long_words=False, break_on_hyphens=False)


def _bare(text: str) -> str:
    return text.strip().replace("`", "").replace("**", "")


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns side by side, long cells in several lines."""
    widths = [min(_COLUMN, max(map(len, column))) for column in zip(*rows, strict=True)]
    widths[-1] = _WIDTH - sum(widths[:-1]) - 2 * len(widths)
    for row in rows:
        cells = [
            textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False)
            for cell, width in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*cells, fillvalue=""):
            yield "  ".join(f"{part:{width}}" for part, width in zip(parts, widths, strict=True)).rstrip()
