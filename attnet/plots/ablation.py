"""Figures of ablations: what was measured, and in a panel of its own what is published."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, Picture, nothing
from attnet.plots.performance import bare, check_kind
from attnet.study.ask_table import budget_text, learned_by_heart, published_note

Row = Mapping[str, Any]
PAPER = "#FBF3E4"  # behind whatever was not measured here
LINES = (BLUE, GREEN)


def plot_ablation(record: Row) -> Figure:
    """Top-1 of each configuration: a dot at the mean with its 95 % interval, a ring a seed; published figures apart.

    Rows stand below each other, with a stroke at what they are held against and the difference at their right; the
    farther from the stroke, compared with the length of the bars, the surer the change matters. Where rows make lines,
    over depth or label noise, those are drawn, and with noisy labels a panel shows how many wrong labels were learned
    by heart. Diamonds on a yellow ground are published: another training, so their scale is their own.

    Args:
        record: of `attnet.ablation.ablate`, or of a file of `attnet ablation`.

    Raises:
        ConfigError: a record of another kind.
    """
    check_kind(record, "ablation")
    rows = [record["baseline"], *record["rows"]]
    if not any(_values(row) for row in rows):
        return nothing("no configuration was run to its end")
    figure = _lines(record, rows) if record["axis"] else _rows(rows)
    title = "\n".join([*textwrap.wrap(record["question"], 110), f"measured: {budget_text(record)}"])
    figure.suptitle(title, fontsize=10)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.05)
    return figure


def _values(row: Row) -> list[float]:
    return [value for value in row["top1"] if value is not None]


def _rows(rows: Sequence[Row]) -> Figure:
    """A row a configuration."""
    figure = Picture(figsize=(10.5, 1.6 + 0.33 * len(rows)), layout="constrained")
    has_published = any("published" in row for row in rows)
    panels = figure.subplots(1, 2 if has_published else 1, squeeze=False, width_ratios=[2.4, 1][: 1 + has_published])[0]
    ax = panels[0]
    for y, row in enumerate(rows):
        _draw_row(ax, y, row)
        group = [place for place, other in enumerate(rows) if other.get("against") == row["name"]]
        if group and _values(row):
            mean = statistics.mean(_values(row))
            ax.vlines(mean, min(y, *group) - 0.4, max(y, *group) + 0.4, color="black", lw=0.8)
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.set(xlabel="measured Top-1 (%)", ylim=(len(rows) - 0.5, -0.5), xlim=_possible(*ax.get_xlim()))
    bare(ax, "x")
    if has_published:
        apart = panels[1]
        found = {y: row["published"]["top1"] for y, row in enumerate(rows) if "published" in row}
        apart.plot(list(found.values()), list(found), "D", color=ORANGE, ms=6)
        for y, top1 in found.items():
            apart.annotate(f"{top1:.2f}", (top1, y), (7, 0), textcoords="offset points", fontsize=8.5, va="center")
        apart.set(ylim=ax.get_ylim(), xlabel="published Top-1 (%)", yticks=[])
        apart.margins(x=0.4)
        _as_published(apart, rows, "x")
    _legend(figure, has_published, "stroke: what a row is held against; beside a row its difference in points")
    return figure


def _draw_row(ax: Axes, y: int, row: Row) -> None:
    """The mean with its interval, each seed, and the difference in points at the right."""
    words, top1 = "not run", _values(row)
    if top1:
        colour = BLUE if "against" in row else "black"
        _draw_point(ax, statistics.mean(top1), y, row, colour)
        ax.plot(top1, [y] * len(top1), "o", color=colour, mfc="none", ms=4, alpha=0.6)
        words = _points(row["difference"]) if "against" in row else f"{statistics.mean(top1):.2f} %"
    ax.text(1.02, y, words, transform=ax.get_yaxis_transform(), fontsize=8.5, va="center")


def _draw_point(ax: Axes, mean: float, y: float, row: Row, colour: str) -> None:
    if row["low"] is not None:
        ax.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.5, marker="|", ms=7)
    ax.plot(mean, y, "o", color=colour, ms=6)


def _lines(record: Row, rows: Sequence[Row]) -> Figure:
    """A line a network over what the study changes: measured, learned by heart where labels are wrong, published."""
    has_published = any("published" in row for row in rows)
    has_noise = any(learned_by_heart(row) for row in rows)
    count = 1 + has_noise + has_published
    figure = Picture(figsize=(3.4 * count + 0.6, 4), layout="constrained")
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    steps = sorted({row["x"] for row in rows})
    names = dict.fromkeys(row["line"] for row in rows)
    groups = {name: [row for row in rows if row["line"] == name] for name in names}
    for side, (colour, (name, group)) in enumerate(zip(LINES, groups.items(), strict=False)):
        shift = 0.07 * (2 * side - 1) if len(groups) > 1 else 0  # so that intervals do not hide each other
        ran = [row for row in group if _values(row)]
        x = [steps.index(row["x"]) + shift for row in ran]
        _draw_line(panels[0], x, [_values(row) for row in ran], colour, f"{name}, measured")
        for here, row in zip(x, ran, strict=True):
            if row["low"] is not None:
                panels[0].plot([here, here], [row["low"], row["high"]], color=colour, lw=1.5, marker="_", ms=7)
        if has_noise:
            _draw_line(panels[1], x, [learned_by_heart(row) for row in ran], colour, name)
        if has_published:
            found = [row for row in group if "published" in row]
            networks = ", ".join(dict.fromkeys(row["published"]["network"] for row in found))
            label = f"{networks if len(groups) > 1 else name}, published"
            top1 = [row["published"]["top1"] for row in found]
            panels[-1].plot([steps.index(row["x"]) for row in found], top1, "D--", color=colour, ms=6, label=label)
    panels[0].set(ylabel="measured Top-1 (%)", ylim=_possible(*panels[0].get_ylim()))
    if has_noise:
        panels[1].set_ylabel("wrong labels learned by heart (%)")
    if has_published:
        panels[-1].set_ylabel("published Top-1 (%)")
        _as_published(panels[-1], rows, "y")
    sizes = {row["x"]: row["parameters"] for row in rows if len(groups) == 1}
    for i, ax in enumerate(panels):
        own = has_published and i == count - 1  # the paper's networks are of another size
        words = [f"{step:g}" + (f"\n{sizes[step] / 1e6:.2f} M" if sizes and not own else "") for step in steps]
        ax.set_xticks(range(len(steps)), words)
        ax.set(xlabel=record["axis"], xlim=(-0.5, len(steps) - 0.5))
        bare(ax, "y")
        ax.legend(loc="best", fontsize=8, frameon=False)
    _legend(figure, False, "below a depth: parameters in millions" if sizes else "")
    return figure


def _draw_line(ax: Axes, x: Sequence[float], values: Sequence[Sequence[float]], colour: str, label: str) -> None:
    """Means as a line of dots, a ring a seed."""
    ax.plot(x, [statistics.mean(each) for each in values], "o-", color=colour, lw=1.5, ms=6, label=label)
    for here, each in zip(x, values, strict=True):
        ax.plot([here] * len(each), each, "o", color=colour, mfc="none", ms=4, alpha=0.6)


def _as_published(ax: Axes, rows: Sequence[Row], grid: str) -> None:
    """What the figures of this panel are, and a ground of its own."""
    ax.set_title("\n".join(textwrap.wrap(published_note(rows), 36)), fontsize=8.5)
    ax.set_facecolor(PAPER)
    bare(ax, grid)


def _possible(low: float, high: float) -> tuple[float, float]:
    """What of an axis can be a Top-1: the interval of two seeds may reach beyond."""
    return max(low, 0), min(high, 100)


def _legend(figure: Figure, has_published: bool, more: str) -> None:
    key = [
        Line2D([], [], color=GREY, marker="o", lw=1.5, ms=6, label="measured: mean, 95 % interval"),
        Line2D([], [], color=GREY, marker="o", mfc="none", ls="", ms=4, label="a seed"),
    ]
    if has_published:
        key.append(Line2D([], [], color=ORANGE, marker="D", ls="", ms=6, label="published"))
    if more:
        key.append(Line2D([], [], ls="", label=more))
    figure.legend(handles=key, loc="outside lower center", ncols=len(key), frameon=False, fontsize=8)


def _points(gap: Row) -> str:
    """A difference in points with its interval, if it has one; – for none."""
    if gap["mean"] is None:
        return "–"
    ends = "" if gap.get("low") is None else f" ({gap['low']:+.2f} to {gap['high']:+.2f})"
    return f"{gap['mean']:+.2f}{ends}".replace("-", "−")
