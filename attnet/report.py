"""Results: `attnet report`, and in a notebook `from attnet import report`: runs, records and published figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from attnet.base.errors import ConfigError, answer, in_sentences, say
from attnet.base.files.outputs import output_file, write_record
from attnet.base.files.paths import relative_to_root
from attnet.base.pages import Fold
from attnet.base.words import duration
from attnet.study.readme import write_readme
from attnet.study.records import RESULTS, others_table, record, records
from attnet.study.report import NAMES, ORDERS, RUNS, Report, collect, scaling
from attnet.study.rows import Row, published_rows
from attnet.study.study_tables import study_table
from attnet.study.tables import FORMATS, frame, markdown, result_table, show, write_report

__all__ = [
    "Report",
    "Row",
    "collect",
    "folded_table",
    "frame",
    "markdown",
    "others_table",
    "published_rows",
    "record",
    "records",
    "result_table",
    "scaling",
    "show",
    "study_table",
    "write_report",
]


def folded_table(summary: str, table: str) -> Fold:
    """A Markdown table as a notebook shows it below its figure: a line in whose place it unfolds."""
    return Fold(summary, table)


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 2 after a sentence when it cannot be done. What is left out as damaged is named on stderr."""
    options = _parser().parse_args(arguments)
    if options.readme:
        write_readme()
        return 0
    if options.record:
        return _write_record(options)
    output = output_file(options.output, tuple(FORMATS)) if options.output else None
    curves = output_file(options.curves) if options.curves else None
    report = _collected(options)
    for warning in report.warnings:
        say(f"attnet: {warning}", sys.stderr)
    if not report.rows:
        raise ConfigError(_why_empty(options))
    if curves:
        _draw(report, curves)
    if output:
        say(f"{len(report.rows)} rows: {relative_to_root(write_report(report, output))}")
    else:
        answer(markdown(report).removesuffix("\n"))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnet report",
        description="One table of results, each row with its kind: measured, published, rehearsal or simulated. "
        "Where nothing is named: all runs below runs/, the records of data/results/, and published rows beside.",
    )
    add = parser.add_argument
    add("folders", nargs="*", metavar="FOLDER", help="run folders, or folders of them")
    add("--newest", action="store_true", help="only the run that finished last")
    add("--results", nargs="?", const=RESULTS, default="", metavar="FOLDER",
        help=f"the records of a folder (default {RESULTS})")  # fmt: skip
    add("--published", nargs="?", const="beside", default="", choices=("beside", "all"),
        help="published rows: those to stand beside ours (default), or all that are known")  # fmt: skip
    add("--where", action="append", default=[], metavar="NAME=VALUE[,VALUE]",
        help=f"only such rows, * standing for anything; names: {', '.join(NAMES)}")  # fmt: skip
    add("--sort", default=ORDERS[0], choices=ORDERS, help=f"order of the rows (default {ORDERS[0]})")
    add("--output", default="", metavar="FILE", help="write to FILE.md or FILE.csv, not to the screen")
    add("--curves", default="", metavar="FILE", help="draw the rows' epochs into a picture, as FILE.png")
    add("--record", default="", metavar="FILE.json",
        help="write the one run FOLDER as a record, with the command that repeats it")  # fmt: skip
    add("--reach", type=float, help="with --record: Top-1 (per cent) whose first epoch, and time until then, is noted")
    add("--readme", action="store_true", help="bring the table in README.md up to date, nothing else")
    return parser


def _write_record(options: argparse.Namespace) -> int:
    if len(options.folders) != 1:
        raise ConfigError(f"record={options.record}: give the one run folder that it is to be made of")
    file = output_file(options.record, (".json",))
    content = record(options.folders[0], options.reach)
    write_record(file, content, content["command"])
    line = f"{relative_to_root(file)}: Top-1 {content['top1']:.2f} %, {content['epochs']} epochs, "
    line += f"{duration(content['seconds'])}"
    if options.reach is not None:
        found = content["reached"]
        line += f"; {options.reach:g} % " + (f"after {duration(found['seconds'])}" if found else "not reached")
    say(line)
    return 0


def _collected(options: argparse.Namespace) -> Report:
    named = options.folders or options.newest or options.results or options.published
    folders = options.folders or ([] if named and not options.newest else [RUNS])
    results, published = (options.results, options.published) if named else (RESULTS, "beside")
    where = " ".join(options.where)
    report = collect(folders, newest=options.newest, results=results, published=published, where=where,
                     sort=options.sort)  # fmt: skip
    ours = any(row.kind != "published" for row in report.rows)
    if options.folders and not (ours or where or report.warnings):
        raise ConfigError(_why_empty(options))
    return report


def _why_empty(options: argparse.Namespace) -> str:
    if options.where:
        return f"where={' '.join(options.where)!r}: no row is so; without --where all are shown"
    if options.results and not options.folders:
        return f"results={options.results}: no record (*.json) that gives a row is there"
    folders = ", ".join(options.folders or [RUNS])
    return f"no finished run (result.json) below {folders}; make one with `make run`"


def _draw(report: Report, file: object) -> None:
    from attnet.plots import plot_runs  # here, since matplotlib takes a second to import

    try:
        plot_runs(report.rows).savefig(file, dpi=120)
    except (OSError, ValueError) as error:  # no such format
        raise ConfigError(f"curves={file}: it cannot be written ({error}); give a picture, as runs/x.png") from None
