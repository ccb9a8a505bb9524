"""The table of an ablation's record: what was measured, and apart from it what is published."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from attnet.base.words import NONE, table
from attnet.study.sweep_table import changes_text, failures_text, mean_text

Record = Mapping[str, object]


def ablation_table(record: Record) -> str:
    """A Markdown table of a record, a row a configuration; then what is published for what, and what failed.

    Columns that would say nothing are left out.
    """
    rows = [record["baseline"], *record["rows"]]
    columns = {
        "configuration": [row["name"] for row in rows],
        "changed": [changes_text(row["changed"]) for row in rows],
        "parameters": _counts(rows),
        "Top-1 of the last epoch (%)": [mean_text(row) for row in rows],
        "difference (points)": _differences(rows),
        "wrong labels learned by heart (%)": [_learned_by_heart(row) for row in rows],
        "published Top-1 (%)": [_published_text(row) for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if any(cell != NONE for cell in cells)}
    words = [i for i, name in enumerate(columns) if name in ("configuration", "changed")]
    lines = [budget_text(record), "", table(list(columns), zip(*columns.values(), strict=True), words)]
    if notes := published_note(rows):
        lines += ["", f"{notes}, with another network and training than here."]
    return "\n".join(lines) + failures_text(rows)


def budget_text(record: Record) -> str:
    """What all rows of a record share, in a line."""
    budget = record["budget"]
    seeds = budget["seeds"]
    parts = [
        f"{budget['model']}, recipe {budget['recipe']}, {budget['total_epochs']} epochs",
        f"{budget['dataset']}, batch {budget['train_batch_size']}",
        ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds)),
    ]
    return "; ".join(parts)


def published_note(rows: Sequence[Record]) -> str:
    """Where the published figures come from, and on what data; "" where there are none."""
    figures = [row["published"] for row in rows if "published" in row]
    places: dict[str, list[str]] = {}  # work -> tables
    for source in dict.fromkeys(figure["source"] for figure in figures):
        work, _, number = source.partition(", table ")
        places.setdefault(work, []).append(number)
    sources = ", ".join(f"{work}, table{'s' * (len(of) > 1)} {' and '.join(of)}" for work, of in places.items())
    data = ", ".join(dict.fromkeys(figure["dataset"] for figure in figures))
    return f"published: {sources}; {data}" if figures else ""


def learned_by_heart(row: Record) -> list[float]:
    """How often, per cent, each seed's network says the wrong label of a training image; none without label noise."""
    return [found["wrong"] for found in row.get("memorisation", []) if found]


def _learned_by_heart(row: Record) -> str:
    values = learned_by_heart(row)
    return f"{statistics.mean(values):.1f}" if values else NONE


def _counts(rows: Sequence[Record]) -> list[str]:
    """Parameters of the networks, where they are not all of one size."""
    counts = [row.get("parameters") for row in rows]
    return [f"{count:,}" if count and len({*counts}) > 1 else NONE for count in counts]


def _differences(rows: Sequence[Record]) -> list[str]:
    """Differences with their intervals, and to what where it is not always the same row."""
    others = {row["against"] for row in rows if "against" in row}
    return [
        mean_text(row["difference"], "+.2f") + (f" to {row['against']}" if len(others) > 1 else "")
        if "difference" in row
        else NONE
        for row in rows
    ]


def _published_text(row: Record) -> str:
    figure = row.get("published")
    return f"{figure['top1']:.2f} ({figure['network']})" if figure else NONE
