"""`attnet report [FOLDER …]`: tables of run folders, records and published figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from attnet.base.errors import ConfigError, in_sentences
from attnet.base.files import relative_to_root, resolve_path
from attnet.study.records import RESULTS
from attnet.study.report import NAMES, ORDERS, Report, collect
from attnet.study.runs import RUNS
from attnet.study.tables import markdown, write_readme, write_report


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 2 after a sentence when it cannot be done. What is left out as damaged is named on stderr."""
    options = _parser().parse_args(arguments)
    if options.readme:
        write_readme()
        return 0
    report = _collected(options)
    for warning in report.warnings:
        print(f"attnet: {warning}", file=sys.stderr)
    if not report.rows:
        raise ConfigError(_why_empty(options))
    if options.curves:
        _draw(report, options.curves)
    if options.output:
        print(f"{len(report.rows)} rows: {relative_to_root(write_report(report, options.output))}")
    else:
        print(markdown(report), end="")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnet report",
        description="One table of results, each row with its kind: measured, published, rehearsal or simulated. "
        "Where nothing is named: all runs below runs/, the records of data/results/, and published rows beside.",
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="run folders, or folders of them")
    parser.add_argument("--newest", action="store_true", help="only the run that finished last")
    parser.add_argument("--results", nargs="?", const=RESULTS, default="", metavar="FOLDER",
                        help=f"the records of a folder (default {RESULTS})")  # fmt: skip
    parser.add_argument("--published", nargs="?", const="beside", default="", choices=("beside", "all"),
                        help="published rows: those to stand beside ours (default), or all that are known")  # fmt: skip
    parser.add_argument("--where", action="append", default=[], metavar="NAME=VALUE[,VALUE]",
                        help=f"only such rows, * standing for anything; names: {', '.join(NAMES)}")  # fmt: skip
    parser.add_argument("--sort", default=ORDERS[0], choices=ORDERS, help=f"order of the rows (default {ORDERS[0]})")
    parser.add_argument("--output", default="", metavar="FILE", help="write to FILE.md or FILE.csv, not to the screen")
    parser.add_argument(
        "--curves", default="", metavar="FILE", help="draw the rows' epochs into a picture, as FILE.png"
    )
    parser.add_argument("--readme", action="store_true", help="bring the table in README.md up to date, nothing else")
    return parser


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


def _draw(report: Report, file: str) -> None:
    from attnet.plots import plot_runs  # here, since matplotlib takes a second to import

    path = resolve_path(file)
    try:
        plot_runs(report.rows).savefig(path, dpi=120)
    except (OSError, ValueError) as error:  # no such folder, no such format
        raise ConfigError(
            f"curves={file}: it cannot be written ({error}); give a picture in a folder, as runs/x.png"
        ) from None
