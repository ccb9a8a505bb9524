"""The table of results in README.md: the best of each network and device, in about ten rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attnet.base.errors import AttnetError
from attnet.base.files.atomic import write_text
from attnet.base.files.paths import resolve_path
from attnet.model.variants import variants
from attnet.study.published import DOCUMENT
from attnet.study.records import RESULTS, read_records
from attnet.study.rows import Row, in_order, published_rows
from attnet.study.tables import result_table

# What stands around the table.
MARKERS = ("<!-- results: attnet report --readme -->", "<!-- end of results -->")


def readme_table() -> str:
    """The table of README.md, in about ten rows: the best Top-1 that data/results/ has measured of each network on each
    kind of device, and its FPS where that is published for it; the best that is published of each, and the document's
    best on either device.

    Everything else is in the whole table, `attnet report`.
    """
    known = variants()
    published = [row for row in published_rows() if row.model in known and row.task == "cifar10"]
    timed = {row.network for row in published if row.fps is not None}
    measured = [row for row in read_records(RESULTS).rows if row.kind == "measured" and not row.seeds]
    ours = [row for row in measured if row.top1 is not None or row.network in timed]
    document = [Row.of_published(figure) for figure in DOCUMENT]
    chosen = [
        *_best(ours, lambda row: (row.network, row.device if row.top1 is not None else None)),
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
