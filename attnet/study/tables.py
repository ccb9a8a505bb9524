"""Rows as tables: what a column is, in one place; Markdown for people, CSV for programs, DataFrames for notebooks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnet.base.files.atomic import write_text
from attnet.base.files.outputs import output_file
from attnet.base.pages import Page, html_table
from attnet.base.words import NONE, as_csv, table
from attnet.engine.result import Result
from attnet.study.published import Published
from attnet.study.records import others_table
from attnet.study.report import Report, collect
from attnet.study.rows import Row

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Column:
    """A column: the field of `Row` (or what is made of a row) in files, and with a `title` its text in the table."""

    name: str
    title: str = ""
    text: Callable[[Row], str | None] | None = None
    is_words: bool = False

    def value(self, row: Row) -> object:
        """The unrounded value."""
        return getattr(row, self.name)

    def cell(self, row: Row) -> str | None:
        """As the table shows it; None where there is no figure."""
        shown = self.value(row) if self.text is None else self.text(row)
        return None if shown in (None, "") else str(shown)


def _top1(row: Row) -> str | None:
    if row.top1 is None:
        return None
    return f"{row.top1:.2f}" if row.low is None else f"{row.top1:.2f} ± {(row.high - row.low) / 2:.2f}"


# All columns, in order.
COLUMNS = (
    Column("kind", "Kind", is_words=True),
    Column("name"),
    Column("top1", "Top-1 (%)", _top1),
    Column("low"),
    Column("high"),
    Column("seeds"),
    Column("fps", "FPS", lambda row: None if row.fps is None else f"{row.fps:,.0f}"),
    Column("epochs", "Epochs"),
    Column("amp", "AMP", is_words=True),
    Column("device", "Device", is_words=True),
    Column("batch_size", "Bs"),
    Column("model", "Network", is_words=True),
    Column("dataset", "Data", is_words=True),
    Column("card"),
    Column("torch"),
    Column("date"),
    Column("source", "Source", is_words=True),
)


def result_table(results: Iterable[Result | Published | Row]) -> str:
    """A Markdown table, readable as plain text, of runs, published figures and rows in the order given.

    Top-1 in per cent, with ± half of its 95 % interval where there is one; FPS in images/s; Bs is the batch of a card.
    """
    shown = [column for column in COLUMNS if column.title]
    words = [place for place, column in enumerate(shown) if column.is_words]
    lines = [[column.cell(row) for column in shown] for row in map(as_row, results)]
    return table([column.title for column in shown], lines, words)


def as_row(result: Result | Published | Row) -> Row:
    """The row of a run or a published figure; a row as it is."""
    if isinstance(result, Result):
        return Row.of(result)
    return Row.of_published(result) if isinstance(result, Published) else result


def frame(results: Iterable[Result | Published | Row] | None = None, every: bool = False) -> pandas.DataFrame:
    """Results as a pandas DataFrame, figures unrounded: to be sorted, filtered and exported.

    Args:
        results: runs, published figures or rows; None: everything that `collect` finds.
        every: all columns under the names of the CSV; otherwise those of the table under its titles.
    """
    shown = {column.name if every else column.title: column for column in COLUMNS if every or column.title}
    # Whole numbers stay whole where some are missing.
    return _frame(results, {title: column.value for title, column in shown.items()}).convert_dtypes()


def show(results: Iterable[Result | Published | Row] | None = None, folded: str = "") -> Page:
    """The table of `result_table` as a notebook shows it, every row whole: a click on a head sorts by it.

    `folded` is a line in whose place the table unfolds. `frame` has the figures.
    """
    shown = [column for column in COLUMNS if column.title]
    rows = [[column.cell(row) or NONE for column in shown] for row in map(as_row, _or_all(results))]
    words = [place for place, column in enumerate(shown) if column.is_words]
    return Page(html_table([column.title for column in shown], rows, words), folded)


def _or_all(results: Iterable[Result | Published | Row] | None) -> Iterable[Result | Published | Row]:
    return collect().rows if results is None else results


def _frame(
    results: Iterable[Result | Published | Row] | None, columns: Mapping[str, Callable[[Row], object]]
) -> pandas.DataFrame:
    import pandas  # here, since it takes a second to import

    rows = [as_row(result) for result in _or_all(results)]
    return pandas.DataFrame({title: [value(row) for row in rows] for title, value in columns.items()}, dtype=object)


def csv_table(rows: Iterable[Row]) -> str:
    """Every column of the rows as comma-separated values, figures unrounded, nothing where there is none."""
    return as_csv([column.name for column in COLUMNS], ([column.value(row) for column in COLUMNS] for row in rows))


def markdown(report: Report) -> str:
    """The table of a report, and below it the records that are no rows."""
    text = result_table(report.rows) + "\n"
    if report.others:
        text += f"\nRecords that are no rows of this table:\n\n{others_table(report.others)}\n"
    return text


FORMATS = {".md": markdown, ".csv": lambda report: csv_table(report.rows)}


def write_report(report: Report, path: str | Path) -> Path:
    """Write a report to a file: as Markdown to FILE.md, as comma-separated values to FILE.csv.

    Raises:
        ConfigError: another ending, or a place that cannot be written.
    """
    file = output_file(path, tuple(FORMATS))
    write_text(file, FORMATS[file.suffix](report))
    return file
