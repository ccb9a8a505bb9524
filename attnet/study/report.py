"""Which rows a report shows: run folders, records and published figures, and those of them that were asked for."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from attnet.base.errors import AttnetError, ConfigError, shown
from attnet.base.files.paths import listed_folders, relative_to_root, resolve_path
from attnet.engine.result import Result
from attnet.engine.run_folder import finished_runs
from attnet.study.records import RESULTS, Content, read_records
from attnet.study.rows import Row, in_order, published_rows

RUNS = "runs"
# What rows are chosen by: each name's texts, any of which may be asked for.
_TEXTS = {
    **dict.fromkeys(("kind", "name", "amp", "batch_size", "epochs", "card", "torch", "date"), ()),
    "model": ("network",),
    "dataset": ("task",),
    "device": (),
}
NAMES = tuple(_TEXTS)
ORDERS = ("network", "top1", "fps", "date")


@dataclass(frozen=True)
class Report:
    """`rows` in order; `others`, name -> content of records that are none; `warnings`, sentences on damaged files."""

    rows: list[Row]
    others: Mapping[str, Content] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def collect(
    folders: str | Sequence[str] = (RUNS,),
    *,
    newest: bool = False,
    results: str = RESULTS,
    published: str = "beside",
    where: str = "",
    sort: str = "network",
) -> Report:
    """Everything there is to be shown, in one order; by default all of it.

    Args:
        folders: run folders, or folders of them, also as text (see `listed_folders`); a relative path starts at the
            repository root.
        newest: only the run that finished last.
        results: the folder of records; "": none.
        published: "beside" (those of the README's table, and whatever is published of the network and data of a row
            of ours), "all", or "" (none).
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
    found = finished_runs(*map(resolve_path, listed_folders(folders)))
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


def read_runs(folders: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """The results of run folders, and a sentence on each that is damaged."""
    results, warnings = [], []
    for folder in folders:
        try:
            results.append(Result.load(folder))
        except AttnetError as error:
            warnings.append(f"left out: {error}")
    return results, warnings


def scaling(result: Result, runs: str | Path = RUNS) -> str:
    """How well a run used its cards, in plain lines: each card's throughput, its own pace, the efficiency of all.

    Cards wait for each other at every step, so all have the throughput of the slowest. A card's own pace is that of
    its forward pass, in which it waits for nobody; the slowest over the mean says how much faster even cards would be.
    Efficiency is FPS over that many times the FPS of one card, taken from the newest one-card run below `runs`
    of the same network, data, batch size and precision on the same processor.
    """
    ranks = [row["rank_fps"] for row in result.history if "rank_fps" in row]
    if not ranks:
        return "one card: nothing to compare"
    each = [statistics.median(values) for values in zip(*ranks, strict=True)]
    lines = [f"{len(each)} cards: {min(each):,.0f} to {max(each):,.0f} images/s each, {result.fps:,.0f} together"]
    if forwards := [row["rank_forward"] for row in result.history if "rank_forward" in row]:
        own = [statistics.median(values) for values in zip(*forwards, strict=True)]
        shown, slowest = ", ".join(f"{1e3 * seconds:,.0f}" for seconds in own), own.index(max(own))
        lines.append(f"forward pass of each card, waiting for nobody: {shown} ms")
        lines.append(f"slowest over mean: {max(own) / statistics.mean(own):.2f} (card {slowest})")
    else:
        lines.append("each card's own pace: not measured (recorded steps, or a run from before)")
    alike = ("model", "dataset", "batch_size", "amp")
    singles = [
        single
        for single in read_runs(finished_runs(resolve_path(runs)))[0]
        if single.parameters.get("device_num") == 1
        and single.fps
        and all(getattr(single, name) == getattr(result, name) for name in alike)
        and single.environment["device"] == result.environment["device"]
    ]
    if not singles:
        lines.append("scaling efficiency: unknown, since no one-card run with the same settings is below runs/")
    else:
        efficiency = result.fps / (len(each) * singles[-1].fps)
        folder = relative_to_root(singles[-1].output_dir)
        lines.append(f"scaling efficiency: {efficiency:.3f} of one card's {singles[-1].fps:,.0f} images/s ({folder})")
    return "\n".join(lines)


def _conditions(where: str) -> dict[str, list[str]]:
    """name -> allowed values."""
    found = {}
    try:
        words = shlex.split(where)
    except ValueError:
        raise ConfigError(f"where={shown(where)}: a quotation mark has no partner; add it") from None
    for word in words:
        name, sign, values = word.partition("=")
        if name not in NAMES or not sign:
            raise ConfigError(f"where={shown(word)}: name=value is needed, with a name of {', '.join(NAMES)}")
        found[name] = values.split(",")
    return found


def _fits(row: Row, conditions: Mapping[str, Sequence[str]]) -> bool:
    return all(
        any(
            fnmatchcase(str(getattr(row, field)), f"{value}{end}") for field, end in _asked_by(name) for value in values
        )
        for name, values in conditions.items()
    )


def _asked_by(name: str) -> list[tuple[str, str]]:
    """The fields of a row that a name asks for, and what may follow the value there."""
    fields = [(field, "") for field in (name, *_TEXTS[name])]
    if name == "dataset":  # cifar10 is also "cifar10 (label noise 30 %)"
        fields.append(("task", " (*"))
    return [*fields, ("device", "_*")] if name == "device" else fields
