"""Tables as a notebook shows them: every cell in three lines at most, sorted by a click on a head, folded where asked.

Without JavaScript they are plain tables. Where HTML is no use (a terminal, a file) there is `attnet.base.words.table`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from attnet.base.words import folded

LINES, WIDEST = 3, 52  # lines of a cell, letters of a line; what is longer is cut, and whole where the mouse rests
# Figures are sorted by their first number (thousands have commas), words by themselves; a second click turns it round.
_SORT = """window.attnetSort = window.attnetSort || function (head) {
  const at = head.cellIndex, body = head.closest("table").tBodies[0], down = head.dataset.down !== "1";
  const key = row => row.cells[at].textContent.trim();
  const number = text => parseFloat(text.replace(/,/g, "").replace("\\u2212", "-"));
  const rows = Array.from(body.rows).sort((one, other) => {
    const a = key(one), b = key(other), x = number(a), y = number(b);
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
    return (isNaN(x) ? a.localeCompare(b) : x - y) * (down ? -1 : 1);
  });
  for (const other of head.parentNode.cells) delete other.dataset.down;
  head.dataset.down = down ? "1" : "0";
  rows.forEach(row => body.appendChild(row));
};"""


@dataclass(frozen=True)
class Page:
    """HTML that a notebook shows where it stands last in a cell; with `folded`, a line in whose place it unfolds."""

    html: str
    folded: str = ""

    def _repr_html_(self) -> str:
        if not self.folded:
            return self.html
        return f"<details><summary>{escape(self.folded)}</summary>\n{self.html}\n</details>"


@dataclass(frozen=True)
class Fold:
    """Markdown behind a line in whose place it unfolds."""

    summary: str
    text: str

    def _repr_markdown_(self) -> str:
        return folded(self.summary, self.text)


def html_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], words: Collection[int] = (0,), *, sortable: bool = True
) -> str:
    """A table; columns numbered in `words` stand to the left, all others, figures, to the right.

    Not `sortable` where it is replaced while somebody looks, or where scripts are not run, as in a widget.
    """

    def line(cells: Sequence[object], tag: str, more: str = "") -> str:
        parts = []
        for i, cell in enumerate(map(str, cells)):
            style = f"text-align:{'left' if i in words else 'right'};min-width:{widths[i]}ch"
            whole = f' title="{escape(cell)}"' if _cut(cell) != cell else ""
            parts.append(f'<{tag}{more}{whole} style="{style}">{escape(_cut(cell))}</{tag}>')
        return f"<tr>{''.join(parts)}</tr>"

    widths = [_width([header[i], *(_cut(str(row[i])) for row in rows)]) for i in range(len(header))]
    head = line(header, "th", ' onclick="attnetSort(this)" title="sort" tabindex="0"' * sortable)
    body = "\n".join(line(row, "td") for row in rows)
    script = f"<script>{_SORT}</script>\n" * sortable
    return (
        f'{script}<div style="overflow-x:auto"><table class="attnet">\n<thead>{head}</thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _cut(cell: str) -> str:
    """What of a cell fits into its lines at the widest."""
    lines = textwrap.wrap(cell, WIDEST, break_on_hyphens=False)
    return cell if len(lines) <= LINES else " ".join(lines[:LINES])[: LINES * WIDEST - 12].rsplit(" ", 1)[0] + " …"


def _width(cells: Sequence[str]) -> int:
    """The fewest letters a line at which no cell takes more lines than it may."""
    width = max(max((len(word) for word in cell.split()), default=1) for cell in cells)
    while any(len(textwrap.wrap(cell, width, break_on_hyphens=False)) > LINES for cell in cells):
        width += 1
    return width
