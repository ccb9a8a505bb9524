"""A sweep as Markdown: the rows of `Sweep.run`, and before that what there is to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attnet.base import words as markdown
from attnet.base.words import NONE

if TYPE_CHECKING:
    from attnet.study.runner import Run


def sweep_table(rows: Sequence[Mapping[str, object]]) -> str:
    """A Markdown table of the rows of `Sweep.run`, means with 95 % confidence intervals; below it what failed."""
    header = ["configuration", "changed", "Top-1 of the last epoch (%)", "by seed", "data", "images/s", "minutes"]
    cells = [
        [
            row["name"],
            changes_text(row["changed"]),
            mean_text(row),
            ", ".join(NONE if value is None else f"{value:.2f}" for value in row["top1"]),
            row["dataset"],
            None if row["fps"] is None else f"{row['fps']:,.0f}",
            f"{row['seconds'] / 60:.1f}",
            len(row["failures"]),
        ]
        for row in rows
    ]
    return markdown.table([*header, "failed"], cells, words=(0, 1, 4)) + failures_text(rows)


def state_table(runs: Sequence[Run]) -> str:
    """A Markdown table of the runs of a sweep with their states and folders, in the order they are started."""
    cells = [[run.name, run.config.seed, run.state, run.config.output_dir] for run in runs]
    return markdown.table(["configuration", "seed", "state", "folder"], cells, words=(0, 2, 3))


def changes_text(changed: Mapping[str, object]) -> str:
    """Parameters and their values for a cell of a table."""
    return ", ".join(f"{name}={value}" for name, value in changed.items()) or NONE


def failures_text(rows: Sequence[Mapping[str, object]]) -> str:
    """What failed, a Markdown list to stand below a table; empty when nothing did."""
    items = [f"- {row['name']}, {failure}" for row in rows for failure in row["failures"]]
    return "\n".join(["\n", *items]) if items else ""


def mean_text(row: Mapping[str, object], form: str = ".2f") -> str:
    """`mean` with `low` and `high` as text; "–" where there is none."""
    if row["mean"] is None:
        return NONE
    interval = "" if row["low"] is None else f" ({row['low']:{form}} to {row['high']:{form}})"
    return f"{row['mean']:{form}}{interval}"
