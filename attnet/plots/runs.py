"""Figures of many results at once: curves overlaid, and Top-1 by network beside what is published."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, RED, Picture, nothing
from attnet.plots.performance import bare
from attnet.study.rows import KINDS, Row

LINES = {"measured": "-", "rehearsal": "--", "simulated": ":"}
# Shape and colour of each kind: no two can be taken for one another, in print either.
MARKS = {
    "measured": {"marker": "o", "color": BLUE, "ms": 7},
    "published": {"marker": "D", "color": ORANGE, "mfc": "none", "mew": 1.6, "ms": 6.5},
    "rehearsal": {"marker": "o", "color": BLUE, "mfc": "none", "ms": 6},
    "simulated": {"marker": "x", "color": GREY, "mew": 1.6, "ms": 6},
}
_COLOURS = (BLUE, RED, GREEN, ORANGE, "#CC79A7", "#56B4E9", "black")
_MARKERS = ("o", "s")
MOST = len(_COLOURS) * len(_MARKERS)
_NAME = 44  # letters of a name in the legend


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
        style = {
            "color": _COLOURS[i % len(_COLOURS)],
            "marker": _MARKERS[i // len(_COLOURS)],
            "markevery": max(1, len(epochs) // 10),
            "ms": 4,
            "lw": 1.4,
            "ls": LINES[row.kind],
        }
        lines += left.plot(epochs, [epoch["top1"] for epoch in row.history], **style)
        right.plot(epochs, [epoch.get("test_loss") for epoch in row.history], **style)
    left.set(ylabel="test Top-1 (%)", ylim=(0, 102))
    right.set(ylabel="test loss (nats)", yscale="log")  # one bad epoch may be fifty times as high as all others
    low, high = right.get_ylim()
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 8 * low else range(1, 10)))
    _plain_numbers(right.yaxis)
    lengths = [row.history[-1]["epoch"] for row in shown]
    for ax in (left, right):
        bare(ax, "both")
        _epoch_axis(ax, lengths)
    names = [f"{row.name if len(row.name) <= _NAME else '…' + row.name[1 - _NAME :]} ({row.kind})" for row in shown]
    figure.legend(lines, names, loc="outside lower center", ncols=2, frameon=False, fontsize=8, handlelength=3.5)
    if len(drawn) > MOST:
        figure.suptitle(f"the first {MOST} of {len(drawn)} runs", fontsize=10)
    return figure


def _epoch_axis(ax: Axes, lengths: Sequence[int]) -> None:
    ax.set_xlabel("epoch")
    if max(lengths) > 10 * min(lengths):
        ax.set_xscale("log")
        _plain_numbers(ax.xaxis)
        return
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if max(lengths) == 1:
        ax.set_xlim(0, 2)


def _plain_numbers(axis: Axis) -> None:
    """1, 10, 100 on a logarithmic axis, and nothing between."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def plot_top1(rows: Sequence[Row]) -> Figure:
    """Top-1 by network and data: ours on the upper half of each band (full circles measured, rings rehearsals,
    crosses simulated), published figures as diamonds on the lower half; intervals (95 %) where there are some."""
    known = [row for row in rows if row.top1 is not None]
    if not known:
        return nothing("no row has a Top-1")
    bands = list(dict.fromkeys((row.model, row.data) for row in known))
    figure = Picture(figsize=(9, 1.1 + 0.42 * len(bands)), layout="constrained")
    ax = figure.subplots()
    for row in known:
        y = bands.index((row.model, row.data)) + (0.18 if row.kind == "published" else -0.18)
        if row.low is not None:
            ax.plot([row.low, row.high], [y, y], color=MARKS[row.kind]["color"], lw=0.8, alpha=0.5)
        ax.plot(row.top1, y, ls="none", **MARKS[row.kind])
    for y in range(0, len(bands), 2):
        ax.axhspan(y - 0.5, y + 0.5, color="black", alpha=0.04, lw=0)
    ax.set_yticks(range(len(bands)), [f"{model}\n{data}" for model, data in bands], linespacing=1.15)
    ax.set(xlabel="test Top-1 (%)", ylim=(len(bands) - 0.5, -0.5))
    bare(ax, "x")
    ax.tick_params(axis="y", labelsize=8, length=0)
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in known)]
    handles = [ax.plot([], [], ls="none", **MARKS[kind])[0] for kind in kinds]
    figure.legend(handles, kinds, loc="outside upper center", ncols=len(kinds), frameon=False, fontsize=9)
    return figure
