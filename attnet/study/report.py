"""Which rows a report shows: run folders, records and published figures, and those of them that were asked for."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from attnet.base.errors import ConfigError
from attnet.base.files import resolve_path
from attnet.study.records import RESULTS, Content, read_records
from attnet.study.rows import Row, in_order, published_rows
from attnet.study.runs import RUNS, finished_runs, read_runs

# What rows are chosen by.
NAMES = ("kind", "name", "model", "dataset", "device", "amp", "batch_size", "epochs", "card", "torch", "date")
ORDERS = ("network", "top1", "fps", "date")


@dataclass(frozen=True)
class Report:
    """`rows` in order; `others`, name -> content of records that are none; `warnings`, sentences on damaged files."""

    rows: list[Row]
    others: Mapping[str, Content] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def collect(
    folders: Sequence[str] = (RUNS,),
    *,
    newest: bool = False,
    results: str = RESULTS,
    published: str = "beside",
    where: str = "",
    sort: str = "network",
) -> Report:
    """Everything there is to be shown, in one order; by default all of it.

    Args:
        folders: run folders, or folders of them; a relative path starts at the repository root.
        newest: only the run that finished last.
        results: the folder of records; "": none.
        published: "beside" (those of section "Results so far" in README.md, and whatever is published of the network
            and data of a row of ours), "all", or "" (none).
        where: only these rows, as "kind=measured,rehearsal model=attention92": all conditions hold, each with one of
            its values, * standing for anything. A network goes by its name with or without its options, a data set
            with or without its number of images, a device with or without the number of cards.
        sort: by "network", "top1", "fps" or "date".

    Raises:
        ConfigError: a condition on what is no name of a row, or an order that does not exist.
    """
    conditions = _conditions(where)
    if sort not in ORDERS:
        raise ConfigError(f"sort={sort!r}: choose one of {', '.join(ORDERS)}")
    if published not in ("", "beside", "all"):
        raise ConfigError(f"published={published!r}: choose beside, all, or nothing")
    found = finished_runs(*map(resolve_path, folders))
    runs, warnings = read_runs(found[-1:] if newest else found)
    rows, others = [Row.of(result) for result in runs], {}
    if results:
        records = read_records(results)
        rows += records.rows
        others, warnings = records.others, [*warnings, *records.warnings]
    rows = [row for row in rows if _fits(row, conditions)]
    if published:
        known = published_rows(None if published == "all" else rows)
        rows += [row for row in known if _fits(row, conditions)]
    return Report(in_order(rows, sort), {} if conditions else others, warnings)


def _conditions(where: str) -> dict[str, list[str]]:
    """name -> allowed values."""
    found = {}
    for word in shlex.split(where):
        name, sign, values = word.partition("=")
        if name not in NAMES or not sign:
            raise ConfigError(f"where={word!r}: name=value is needed, with a name of {', '.join(NAMES)}")
        found[name] = values.split(",")
    return found


def _fits(row: Row, conditions: Mapping[str, Sequence[str]]) -> bool:
    return all(
        any(fnmatchcase(text, value) for text in _texts(row, name) for value in values)
        for name, values in conditions.items()
    )


def _texts(row: Row, name: str) -> set[str]:
    """What a row may be asked for by."""
    texts = {str(getattr(row, name))}
    if name == "model":
        texts |= {row.network}
    if name == "dataset":
        texts |= {row.data, row.data.split(" ")[0]}
    if name == "device":
        texts |= {row.device.split("_")[0]}
    return texts
