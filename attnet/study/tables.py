"""Rows as tables: what a column is, in one place; Markdown for people, CSV for programs, DataFrames for notebooks."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attnet.base.errors import AttnetError
from attnet.base.files.atomic import write_text
from attnet.base.files.outputs import output_file
from attnet.base.files.paths import resolve_path
from attnet.base.pages import Page, html_table
from attnet.base.words import NONE, duration, table
from attnet.engine.result import Result
from attnet.model.variants import variants
from attnet.study.published import DOCUMENT, Published
from attnet.study.records import RESULTS, others_table, read_records
from attnet.study.report import Report, collect
from attnet.study.rows import Row, in_order, published_rows

if TYPE_CHECKING:
    import pandas

# What stands around the table in README.md.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the beginning of one
MARKERS = ("<!-- results: attnet report --readme -->", "<!-- end of results -->")


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


def as_csv(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Comma-separated values. Text that a spreadsheet would run as a formula has an apostrophe before it: class names
    and folders come from files.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_no_formula(cell) for cell in line] for line in (header, *lines))
    return text.getvalue()


def _no_formula(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


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


def readme_table() -> str:
    """The table of README.md, in about ten rows: the best that data/results/ has measured of each network (Top-1, or
    FPS where that is published for it), the best that is published of each, and the document's best on either device.

    Everything else is in the whole table, `attnet report`.
    """
    known = variants()
    published = [row for row in published_rows() if row.model in known and row.task == "cifar10"]
    timed = {row.network for row in published if row.fps is not None}
    measured = [row for row in read_records(RESULTS).rows if row.kind == "measured" and not row.seeds]
    ours = [row for row in measured if row.top1 is not None or row.network in timed]
    document = [Row.of_published(figure) for figure in DOCUMENT]
    chosen = [
        *_best(ours, lambda row: (row.network, row.top1 is None)),
        *_best(published, lambda row: row.network),
        *_best(document, lambda row: row.device),
    ]
    return result_table(in_order(row for row in chosen if row.top1 is not None or row.kind == "measured"))


def _best(rows: Iterable[Row], alike: Callable[[Row], object]) -> list[Row]:
    """The first row of the highest Top-1, then FPS, of each kind that `alike` tells apart."""
    best: dict[object, Row] = {}
    for row in rows:
        kept = best.setdefault(alike(row), row)
        if (row.top1 or 0, row.fps or 0) > (kept.top1 or 0, kept.fps or 0):
            best[alike(row)] = row
    return list(best.values())


def write_readme() -> None:
    """Put `readme_table` between the markers of README.md.

    Raises:
        AttnetError: no README.md, or one without the markers.
    """
    path = resolve_path("README.md")
    try:
        before, rest = path.read_text(encoding="utf-8").split(MARKERS[0])
        _, after = rest.split(MARKERS[1])
    except (OSError, ValueError):
        raise AttnetError(f"{path}: its table belongs between the lines {MARKERS[0]} and {MARKERS[1]}") from None
    write_text(path, f"{before}{MARKERS[0]}\n\n{readme_table()}\n\n{MARKERS[1]}{after}")


# -- tables of sweeps and studies ----------------------------------------------------------------------------------


def sweep_table(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table of the rows of `Sweep.run`, means with 95 % confidence intervals; below it what failed."""
    header = ["configuration", "changed", "Top-1 of the last epoch (%)", "by seed", "data", "images/s", "time"]
    cells = [
        [
            row["name"],
            changes_text(row["changed"]),
            mean_text(row),
            ", ".join(NONE if value is None else f"{value:.2f}" for value in row["top1"]),
            row["dataset"],
            None if row["fps"] is None else f"{row['fps']:,.0f}",
            duration(row["seconds"]),
            len(row["failures"]),
        ]
        for row in rows
    ]
    return table([*header, "failed"], cells, words=(0, 1, 4)) + failures_text(rows)


def study_table(record: Mapping) -> str:
    """A Markdown table of a study's record, a row a configuration; then what is published for what, and what failed.

    Columns that would say nothing are left out.
    """
    rows = [record["baseline"], *record["rows"]]
    others = {row["against"] for row in rows if "against" in row}
    counts = {row.get("parameters") for row in rows}
    columns: dict[str, Callable[[Mapping], str | None]] = {
        "configuration": lambda row: row["name"],
        "changed": lambda row: changes_text(row["changed"]),
        "parameters": lambda row: f"{row['parameters']:,}" if row.get("parameters") and len(counts) > 1 else None,
        "MFLOPs an image": lambda row: f"{row['flops'] / 1e6:.1f}" if row.get("flops") else None,
        "Top-1 of the last epoch (%)": mean_text,
        "difference (points)": lambda row: _difference(row, len(others) > 1),
        "wrong labels learned by heart (%)": _learned_by_heart,
        "new class alone (%)": _new_class,
        "published Top-1 (%)": _published_text,
    }
    cells = {name: [text(row) for row in rows] for name, text in columns.items()}
    cells = {name: values for name, values in cells.items() if any(value not in (None, NONE) for value in values)}
    words = [i for i, name in enumerate(cells) if name in ("configuration", "changed")]
    lines = [budget_text(record), "", table(list(cells), zip(*cells.values(), strict=True), words)]
    if notes := published_note(rows):
        lines += ["", f"{notes}, with another network and training than here."]
    return "\n".join(lines) + failures_text(rows)


def budget_text(record: Mapping) -> str:
    """What all rows of a record share, in a line."""
    budget = record["budget"]
    seeds = budget["seeds"]
    parts = [
        f"{budget['model']}, recipe {budget['recipe']}, {budget['total_epochs']} epochs",
        f"{budget['dataset']}, batch {budget['train_batch_size']}",
        ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds)),
    ]
    return "; ".join(parts)


def published_note(rows: Sequence[Mapping]) -> str:
    """Where the published figures come from, and on what data; "" where there are none."""
    figures = [row["published"] for row in rows if "published" in row]
    sources = ", ".join(dict.fromkeys(figure["source"] for figure in figures))
    data = ", ".join(dict.fromkeys(figure["dataset"] for figure in figures))
    return f"published: {sources}; {data}" if figures else ""


def learned_by_heart(row: Mapping) -> list[float]:
    """How often, per cent, each seed's network says the wrong label of a training image; none without label noise."""
    return [found["wrong"] for found in row.get("memorisation", []) if found]


def changes_text(changed: Mapping[str, object]) -> str:
    """Parameters and their values for a cell of a table."""
    return ", ".join(f"{name}={value}" for name, value in changed.items()) or NONE


def failures_text(rows: Sequence[Mapping]) -> str:
    """What failed, a Markdown list to stand below a table; empty when nothing did."""
    items = [f"- {row['name']}, {failure}" for row in rows for failure in row["failures"]]
    return "\n".join(["\n", *items]) if items else ""


def mean_text(row: Mapping, form: str = ".2f") -> str:
    """`mean` with `low` and `high` as text; "–" where there is none."""
    if row["mean"] is None:
        return NONE
    interval = "" if row["low"] is None else f" ({row['low']:{form}} to {row['high']:{form}})"
    return f"{row['mean']:{form}}{interval}"


def _difference(row: Mapping, named: bool) -> str | None:
    """A difference with its interval, and to what where that is not always the same row."""
    if "difference" not in row:
        return None
    return mean_text(row["difference"], "+.2f") + (f" to {row['against']}" if named else "")


def _learned_by_heart(row: Mapping) -> str | None:
    values = learned_by_heart(row)
    return f"{statistics.mean(values):.1f}" if values else None


def _new_class(row: Mapping) -> str | None:
    """The mean alone: of so few images of one class an interval says nothing."""
    return mean_text({**row["new_class"], "low": None}, ".0f") if "new_class" in row else None


def _published_text(row: Mapping) -> str | None:
    figure = row.get("published")
    return f"{figure['top1']:.2f} ({figure['network']})" if figure else None
