"""What sweeps and studies found as tables: Markdown, readable as plain text."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from attnet.base.words import NONE, duration, table


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
        "told apart": _told_apart,
        "wrong labels learned by heart (%)": _learned_by_heart,
        "new class alone (%)": _new_class,
        "published Top-1 (%)": _published_text,
    }
    cells = {name: [text(row) for row in rows] for name, text in columns.items()}
    cells = {name: values for name, values in cells.items() if any(value not in (None, NONE) for value in values)}
    words = [i for i, name in enumerate(cells) if name in ("configuration", "changed", "told apart")]
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


def _told_apart(row: Mapping) -> str | None:
    """What the interval of a difference says: an answer where it does not hold 0."""
    gap = row.get("difference")
    if not gap or gap["low"] is None:
        return None
    return "higher" if gap["low"] > 0 else "lower" if gap["high"] < 0 else "cannot tell"


def _learned_by_heart(row: Mapping) -> str | None:
    values = learned_by_heart(row)
    return f"{statistics.mean(values):.1f}" if values else None


def _new_class(row: Mapping) -> str | None:
    """The mean alone: of so few images of one class an interval says nothing."""
    return mean_text({**row["new_class"], "low": None}, ".0f") if "new_class" in row else None


def _published_text(row: Mapping) -> str | None:
    figure = row.get("published")
    return f"{figure['top1']:.2f} ({figure['network']})" if figure else None
