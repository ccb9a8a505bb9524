"""Rows as the document's table: Markdown for people, CSV for programs, and the table of the README."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from attnet.base.errors import AttnetError, ConfigError
from attnet.base.files import resolve_path, write_text
from attnet.base.words import table
from attnet.engine.run_folder import Result
from attnet.study.published import Published
from attnet.study.records import RESULTS, others_table, read_records
from attnet.study.report import Report
from attnet.study.rows import Row, in_order, published_rows

COLUMNS = ("Kind", "Top-1 (%)", "FPS", "Epochs", "AMP", "Device", "Bs", "Network", "Data", "Source")
_WORDS = (0, 4, 5, 7, 8, 9)
# A field of `Row` each; `source` last, as in the table.
FIELDS = ("kind", "name", "top1", "low", "high", "seeds", "fps", "epochs", "amp", "device", "batch_size", "model",
          "dataset", "card", "torch", "date", "source")  # fmt: skip
# What stands around the table in README.md.
MARKERS = ("<!-- results: attnet report --readme -->", "<!-- end of results -->")


def result_table(results: Sequence[Result | Published | Row]) -> str:
    """A Markdown table, readable as plain text, of runs, published figures and rows in the order given.

    Top-1 in per cent, with ± half of its 95 % interval where there is one; FPS in images/s; Bs is the batch of a card.
    """
    return table(COLUMNS, [_cells(_row(result)) for result in results], words=_WORDS)


def _row(result: Result | Published | Row) -> Row:
    if isinstance(result, Result):
        return Row.of(result)
    return Row.of_published(result) if isinstance(result, Published) else result


def _cells(row: Row) -> tuple[str | None, ...]:
    """The row as text, None where there is no figure."""
    top1 = None if row.top1 is None else f"{row.top1:.2f}"
    top1 = top1 if row.low is None else f"{top1} ± {(row.high - row.low) / 2:.2f}"
    fps = None if row.fps is None else f"{row.fps:,.0f}"
    rest = (row.epochs, row.amp, row.device, row.batch_size, row.model, row.dataset, row.source)
    return (row.kind, top1, fps, *(None if value == "" else value for value in rest))


def csv_table(rows: Sequence[Row]) -> str:
    """Every field of the rows as comma-separated values, figures unrounded, nothing where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([getattr(row, name) for name in FIELDS] for row in rows)
    return text.getvalue()


def markdown(report: Report) -> str:
    """The table of a report, and below it the records that are no rows."""
    text = result_table(report.rows) + "\n"
    if report.others:
        text += f"\nRecords that are no rows of this table:\n\n{others_table(report.others)}\n"
    return text


def write_report(report: Report, path: str | Path) -> Path:
    """Write a report to a file: as Markdown to FILE.md, as comma-separated values to FILE.csv.

    Raises:
        ConfigError: another ending, or a folder that does not exist.
    """
    file = resolve_path(path)
    if file.suffix not in FORMATS:
        raise ConfigError(
            f"output={path}: {file.suffix or 'no ending'}; give a file that ends in {' or '.join(FORMATS)}"
        )
    if not file.parent.is_dir():
        raise ConfigError(f"output={path}: there is no folder {file.parent}; make it, or name another")
    write_text(file, FORMATS[file.suffix](report))
    return file


FORMATS = {".md": markdown, ".csv": lambda report: csv_table(report.rows)}


def readme_table() -> str:
    """The table of README.md: what data/results/ has measured of Top-1, and of FPS where that is published for the
    network, the published rows beside.

    Rehearsals, simulations and all other throughput are in the whole table, `attnet report`.
    """
    timed = {row.network for row in published_rows() if row.fps is not None}
    measured = [row for row in read_records(RESULTS).rows if row.kind == "measured"]
    ours = [row for row in measured if row.top1 is not None or row.network in timed]
    return result_table(in_order([*ours, *published_rows(beside=ours)]))


def write_readme() -> None:
    """Put `readme_table` between the markers of README.md.

    Raises:
        AttnetError: no README.md, or one without the markers.
    """
    path = resolve_path("README.md")
    try:
        before, rest = path.read_text().split(MARKERS[0])
        _, after = rest.split(MARKERS[1])
    except (OSError, ValueError):
        raise AttnetError(f"{path}: its table belongs between the lines {MARKERS[0]} and {MARKERS[1]}") from None
    write_text(path, f"{before}{MARKERS[0]}\n\n{readme_table()}\n\n{MARKERS[1]}{after}")
