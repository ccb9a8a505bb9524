"""Figures of many runs at once: curves overlaid, Top-1 by network, ablations; published figures always stand apart."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnet.engine.result import standing
from attnet.plots.figure import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SERIES,
    Picture,
    Result,
    bare,
    check_kind,
    epoch_axis,
    legend_below,
    logarithmic,
    nothing,
    stamped,
    stripes,
)
from attnet.study.rows import KINDS, Row
from attnet.study.study_tables import budget_text, learned_by_heart, published_note

__all__ = ["plot_ablation", "plot_runs", "plot_top1"]

LINES = {"measured": "-", "rehearsal": "--", "simulated": ":"}
# Shape and colour of each kind: no two can be taken for one another, in print either.
MARKS = {
    "measured": {"marker": "o", "color": BLUE, "ms": 7},
    "published": {"marker": "D", "color": ORANGE, "mfc": "none", "mew": 1.6, "ms": 6.5},
    "rehearsal": {"marker": "o", "color": BLUE, "mfc": "none", "ms": 6},
    "simulated": {"marker": "x", "color": GREY, "mew": 1.6, "ms": 6},
}
_MARKERS = ("o", "s")
MOST = len(SERIES) * len(_MARKERS)
_NAME = 44  # letters of a name in the legend
PAPER = "#FBF3E4"  # behind whatever was not measured here


def plot_runs(rows: Sequence[Row]) -> Figure:
    """Test Top-1 and test loss over the epochs of several runs, a line each: solid where measured, dashed where a
    rehearsal, dotted where simulated. Losses are on a logarithmic axis.

    Rows without epochs (published ones, means over seeds) are left out. Beyond the first 14 runs only their number
    is told. Where some runs are more than ten times as long as others, epochs are on a logarithmic axis.
    """
    drawn = [row for row in rows if row.history]
    if not drawn:
        return nothing("no row has a curve")
    shown = drawn[:MOST]
    figure = Picture(figsize=(9, 3.2 + 0.22 * -(-len(shown) // 2)), layout="constrained")
    left, right = figure.subplots(1, 2)
    lines = []
    for i, row in enumerate(shown):
        epochs = [epoch["epoch"] for epoch in row.history]
        look = {"color": SERIES[i % len(SERIES)], "marker": _MARKERS[i // len(SERIES)], "ls": LINES[row.kind]}
        style = {"markevery": max(1, len(epochs) // 10), "ms": 4, "lw": 1.4, **look}
        name = row.name if len(row.name) <= _NAME else "…" + row.name[1 - _NAME :]
        lines += left.plot(epochs, [epoch["top1"] for epoch in row.history], label=f"{name} ({row.kind})", **style)
        right.plot(epochs, [epoch.get("test_loss") for epoch in row.history], **style)
    left.set(ylabel="test Top-1 (%)", ylim=(0, 102))
    right.set_ylabel("test loss (nats)")
    logarithmic(right)  # one bad epoch may be fifty times as high as all others
    lengths = [row.history[-1]["epoch"] for row in shown]
    for ax in (left, right):
        bare(ax, "both")
        epoch_axis(ax, max(lengths), min(lengths))
    legend_below(figure, lines, 2, handlelength=3.5)
    if len(drawn) > MOST:
        figure.suptitle(f"the first {MOST} of {len(drawn)} runs", fontsize=10)
    kinds = {row.kind for row in shown}
    return stamped(figure, kinds.pop() if len(kinds) == 1 else "")


def plot_top1(rows: Sequence[Row]) -> Figure:
    """Top-1 by network and data: ours on the upper half of each band (full circles measured, rings rehearsals,
    crosses simulated), published figures as diamonds on the lower half; intervals (95 %) where there are some."""
    known = [row for row in rows if row.top1 is not None]
    if not known:
        return nothing("no row has a Top-1")
    bands = list(dict.fromkeys((row.model, row.task) for row in known))
    figure = Picture(figsize=(9, 1.1 + 0.42 * len(bands)), layout="constrained")
    ax = figure.subplots()
    for row in known:
        y = bands.index((row.model, row.task)) + (0.18 if row.kind == "published" else -0.18)
        if row.low is not None:
            ax.plot(_possible(row.low, row.high), [y, y], color=MARKS[row.kind]["color"], lw=0.8, alpha=0.5)
        ax.plot(row.top1, y, ls="none", **MARKS[row.kind])
    stripes(ax, len(bands))
    ax.set_yticks(range(len(bands)), [f"{model}\n{task}" for model, task in bands], linespacing=1.15)
    ax.set(xlabel="test Top-1 (%)", ylim=(len(bands) - 0.5, -0.5))
    bare(ax, "x")
    ax.tick_params(axis="y", labelsize=8, length=0)
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in known)]
    handles = [ax.plot([], [], ls="none", **MARKS[kind])[0] for kind in kinds]
    figure.legend(handles, kinds, loc="outside upper center", ncols=len(kinds), frameon=False, fontsize=9)
    return figure


def plot_ablation(record: Result) -> Figure:
    """Top-1 of each configuration: a dot at the mean with its 95 % interval, a ring a seed; published figures apart.

    Rows stand below each other, with a stroke at what they are held against and the difference at their right; the
    farther from the stroke, compared with the length of the bars, the surer the change matters. Where rows make lines,
    over depth or label noise, those are drawn, and with noisy labels a panel shows how many wrong labels were learned
    by heart. Diamonds on a yellow ground are published: another training, so their scale is their own.

    Args:
        record: what a file of `attnet ablation` holds.

    Raises:
        ConfigError: a record of another kind.
    """
    check_kind(record, "ablation")
    rows = [record["baseline"], *record["rows"]]
    if not any(_seeds(row) for row in rows):
        return nothing("no configuration was run to its end")
    figure = _lines(record, rows) if record["axis"] else _rows(record, rows)
    title = "\n".join([*textwrap.wrap(record["question"], 110), f"measured: {budget_text(record)}"])
    figure.suptitle(title, fontsize=10)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.05)
    return stamped(figure, _kind(record))


def _kind(record: Result) -> str:
    """Whether a study is measured or a rehearsal: of size rehearsal, but given all images of real data, the former."""
    if record.get("size") != "rehearsal":
        return "measured"
    ran = record["baseline"].get("result")
    if not ran:
        return "rehearsal"
    given = {name: value for name, value in ran["parameters"].items() if name != "mode"}  # the size's, as a default
    return standing(given, record.get("environment", {}), ran["images"])[0]


def _seeds(row: Result) -> list[float]:
    return [value for value in row["top1"] if value is not None]


def _rows(record: Result, rows: Sequence[Result]) -> Figure:
    """A row a configuration: the mean with its interval, each seed, and at the right the difference in points."""
    figure = Picture(figsize=(10.5, 1.6 + 0.33 * len(rows)), layout="constrained")
    published = {y: row["published"]["top1"] for y, row in enumerate(rows) if "published" in row}
    ax, *apart = figure.subplots(1, 1 + bool(published), squeeze=False, width_ratios=[2.4, 1][: 1 + bool(published)])[0]
    for y, row in enumerate(rows):
        words, compared = "not run", "against" in row
        if _seeds(row):
            _interval(ax, row, y, BLUE if compared else "black")
            words = _points(row["difference"]) if compared else f"{row['mean']:.2f} %"
        ax.text(1.02, y, words, transform=ax.get_yaxis_transform(), fontsize=8.5, va="center")
        group = [place for place, other in enumerate(rows) if other.get("against") == row["name"]]
        if group and _seeds(row):
            ax.vlines(row["mean"], min(y, *group) - 0.4, max(y, *group) + 0.4, color="black", lw=0.8)
    ax.set_yticks(range(len(rows)), [row["name"] for row in rows])
    ax.set_xlabel("measured Top-1 (%)" + _chance(ax.axvline, record, rows))
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlim=_possible(*ax.get_xlim()))
    bare(ax, "x")
    for panel in apart:
        panel.plot(list(published.values()), list(published), "D", color=ORANGE, ms=6)
        for y, top1 in published.items():
            panel.annotate(f"{top1:.2f}", (top1, y), (7, 0), textcoords="offset points", fontsize=8.5, va="center")
        panel.set(ylim=ax.get_ylim(), xlabel="published Top-1 (%)", yticks=[])
        panel.margins(x=0.4)
        _as_published(panel, rows, "x")
    key = [Line2D([], [], color=ORANGE, marker="D", ls="", ms=6, label="published")] if published else []
    _legend(figure, key, "stroke: what a row is held against; beside a row its difference in points")
    return figure


def _chance(draw: Callable[..., object], record: Result, rows: Sequence[Result]) -> str:
    """Guessing, dashed where some row is near it; in words otherwise, since a far line would take all the room."""
    if record.get("chance") is None:
        return ""
    near = min(value for row in rows for value in _seeds(row)) < 4 * record["chance"]
    if near:
        draw(record["chance"], color=GREY, lw=1, ls="--")
    return f"; {'dashed: ' * near}chance, {record['chance']:.3g} %"


def _interval(ax: Axes, row: Result, y: float, colour: str) -> None:
    if row["low"] is not None:
        ax.plot([row["low"], row["high"]], [y, y], color=colour, lw=1.5, marker="|", ms=7)
    ax.plot(row["mean"], y, "o", color=colour, ms=6)
    ax.plot(_seeds(row), [y] * len(_seeds(row)), "o", color=colour, mfc="none", ms=4, alpha=0.6)


def _points(gap: Result) -> str:
    """A difference in points with its interval, if it has one; – for none."""
    if gap["mean"] is None:
        return "–"
    ends = "" if gap.get("low") is None else f" ({gap['low']:+.2f} to {gap['high']:+.2f})"
    return f"{gap['mean']:+.2f}{ends}".replace("-", "−")


def _lines(record: Result, rows: Sequence[Result]) -> Figure:
    """A line a network over what the study changes: measured, learned by heart where labels are wrong, published."""
    panels = {"measured Top-1 (%)": _seeds}
    if any(learned_by_heart(row) for row in rows):
        panels["wrong labels learned by heart (%)"] = learned_by_heart
    has_published = any("published" in row for row in rows)
    count = len(panels) + has_published
    figure = Picture(figsize=(3.4 * count + 0.6, 4), layout="constrained")
    axes = figure.subplots(1, count, squeeze=False)[0]
    steps = sorted({row["x"] for row in rows})
    names = list(dict.fromkeys(row["line"] for row in rows))
    for side, (colour, name) in enumerate(zip((BLUE, GREEN), names, strict=False)):
        shift = 0.07 * (2 * side - 1) if len(names) > 1 else 0  # so that intervals do not hide each other
        group = [row for row in rows if row["line"] == name]
        ran = [row for row in group if _seeds(row)]
        x = [steps.index(row["x"]) + shift for row in ran]
        for here, row in zip(x, ran, strict=True):
            if row["low"] is not None:
                axes[0].plot([here, here], [row["low"], row["high"]], color=colour, lw=1.5, marker="_", ms=7)
        for ax, values, label in zip(axes, panels.values(), (f"{name}, measured", name), strict=False):
            _means(ax, x, [values(row) for row in ran], colour, label)
        if found := [row for row in group if "published" in row]:
            networks = ", ".join(dict.fromkeys(row["published"]["network"] for row in found))
            label = f"{networks if len(names) > 1 else name}, published"
            top1 = [row["published"]["top1"] for row in found]
            axes[-1].plot([steps.index(row["x"]) for row in found], top1, "D--", color=colour, ms=6, label=label)
    sizes = {row["x"]: row["parameters"] for row in rows if len(names) == 1}
    for ax, ylabel in zip(axes, [*panels, "published Top-1 (%)"], strict=False):
        own = ylabel.startswith("published")  # the paper's networks are of another size
        words = [f"{step:g}" + (f"\n{sizes[step] / 1e6:.2f} M" if sizes and not own else "") for step in steps]
        ax.set_xticks(range(len(steps)), words)
        ax.set(xlabel=record["axis"], ylabel=ylabel, xlim=(-0.5, len(steps) - 0.5))
        if ylabel == "measured Top-1 (%)":
            ax.set_ylabel(ylabel + _chance(ax.axhline, record, rows).replace("; ", "\n"))
        bare(ax, "y")
        ax.legend(loc="best", fontsize=8, frameon=False)
    axes[0].set_ylim(_possible(*axes[0].get_ylim()))
    if has_published:
        _as_published(axes[-1], rows, "y")
    _legend(figure, [], "below a depth: parameters in millions" if sizes else "")
    return figure


def _means(ax: Axes, x: Sequence[float], values: Sequence[Sequence[float]], colour: str, label: str) -> None:
    """Means as dots, a ring a seed; a line where there are several seeds: through single ones it would show chance."""
    line = "o-" if all(len(each) > 1 for each in values) else "o"
    ax.plot(x, [statistics.mean(each) for each in values], line, color=colour, lw=1.5, ms=6, label=label)
    for here, each in zip(x, values, strict=True):
        ax.plot([here] * len(each), each, "o", color=colour, mfc="none", ms=4, alpha=0.6)


def _as_published(ax: Axes, rows: Sequence[Result], grid: str) -> None:
    """What the figures of this panel are, and a ground of its own."""
    ax.set_title("\n".join(textwrap.wrap(published_note(rows), 36)), fontsize=8.5)
    ax.set_facecolor(PAPER)
    bare(ax, grid)


def _possible(low: float, high: float) -> tuple[float, float]:
    """What of an axis can be a Top-1: the interval of two seeds may reach beyond."""
    return max(low, 0), min(high, 100)


def _legend(figure: Figure, more: Sequence[Line2D], words: str) -> None:
    key = [Line2D([], [], color=GREY, marker="o", lw=1.5, ms=6, label="measured: mean, 95 % interval")]
    key += [Line2D([], [], color=GREY, marker="o", mfc="none", ls="", ms=4, label="a seed"), *more]
    legend_below(figure, key + [Line2D([], [], ls="", label=words)] * bool(words))
