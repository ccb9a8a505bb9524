"""Figures of what `attnet benchmark` measures: parts of a step, growth, epochs.

Each takes the object of the JSON file that the benchmark wrote; one of another kind raises a ConfigError.
"""

from __future__ import annotations

import itertools
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from attnet.base.errors import ConfigError
from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, RED, Picture, nothing

Row = Mapping[str, Any]
_DRAWN_BY = {
    "steps": "plot_roofline or plot_step_shares",
    "growth": "plot_growth",
    "epoch": "plot_epoch",
    "ablation": "plot_ablation",
}

WAYS = {"off": ("eager", "o"), "on": ("compiled", "s"), "graphs": ("compiled with graphs", "D")}
WAYS |= {"reference": ("the reference's loop", "X")}
_PARTS = {"data": GREY, "forward": BLUE, "backward": ORANGE, "optimiser": GREEN}
# A curve: title; labels of x and y; what both are divided by; how the fit's intercept and slope are written.
_CURVES = {
    "images": ("an epoch", "training images", "seconds", 1, 1, "s", 1, "ms an image", 1e3),
    "memory": ("peak memory", "batch size (images)", "GB", 1, 1e9, "GB", 1e-9, "MB an image", 1e-6),
    "start_up": ("start to first step", "parameters (millions)", "seconds", 1e6, 1, "s", 1,
                 "s a million parameters", 1e6),
    "ranks": ("ranks together", "ranks", "images/s", 1, 1, "images/s", 1, "images/s a rank", 1),
}  # fmt: skip


def plot_step_shares(result: Row) -> Figure:
    """Where the time of a training step goes: a panel a batch size, a bar a configuration, images/s at its end.

    To see: which part is worth mending. The device is waited for after each part, which costs time: the black
    stroke is the whole step without these waits, and images/s follow from it. Of several cards it is all that is known.

    Args:
        result: of kind "steps"; a configuration that failed shows its error.
    """
    check_kind(result, "steps")
    rows = result["rows"]
    if not rows:
        return nothing("no configuration was tried")
    groups: dict[int, list[tuple[str, Row]]] = {batch: [] for batch in sorted({row["batch_size"] for row in rows})}
    for row, name in zip(rows, names_of(rows, batch=False), strict=True):
        groups[row["batch_size"]].append((name, row))
    heights = [0.6 + 0.23 * len(group) for group in groups.values()]
    figure = Picture(figsize=(9.5, 0.9 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (batch, group) in zip(panels, groups.items(), strict=True):
        ran = {y: row for y, (_, row) in enumerate(group) if "error" not in row}
        ends = np.zeros(len(ran))
        for part, colour in _PARTS.items():
            times = np.array([1e3 * row.get("shares", {}).get(part, 0) for row in ran.values()])
            ax.barh(list(ran), times, left=ends, color=colour, height=0.72)
            ends = ends + times
        whole = np.array([1e3 * row["step_seconds"]["median"] for row in ran.values()])
        ax.vlines(whole, np.array([*ran]) - 0.42, np.array([*ran]) + 0.42, color="black", lw=1.5)
        places = dict(zip(ran, np.maximum(ends, whole).tolist(), strict=True))
        for y, (_, row) in enumerate(group):
            words = speed(row) if y in ran else textwrap.shorten(row["error"], 80, placeholder=" …")
            ax.annotate(words, (places.get(y, 0), y), (5, 0), textcoords="offset points", va="center", fontsize=8,
                        color="black" if y in ran else RED)  # fmt: skip
        ax.set_yticks(range(len(group)), [name for name, _ in group])
        ax.set(xlim=(0, 1.25 * max(places.values(), default=0.8)), ylim=(len(group) - 0.4, -0.6))
        if not ran:
            ax.set_xticks([])
        ax.set_title(f"batch {batch:,}", fontsize=9, loc="left")
        ax.xaxis.set_major_formatter("{x:,g}")
        bare(ax, "x")
    panels[-1].set_xlabel("time of a step (ms)")
    figure.suptitle(f"where the time of a training step goes: {subject(result, rows)}", fontsize=10)
    key = [Line2D([], [], color=colour, lw=7, label=part) for part, colour in _PARTS.items()]
    key.append(Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.5, label="whole step"))
    figure.legend(handles=key, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return figure


def plot_growth(result: Row) -> Figure:
    """How time, memory and speed grow: a panel a curve, a dot a round, medians as a line, the fitted line dashed.

    To see: above each panel, the fixed cost and what each image, parameter or rank adds; with r² near 1, the line
    also tells what a larger job costs.

    Args:
        result: of kind "growth"; curves that were not measured are left out.
    """
    check_kind(result, "growth")
    curves = {name: result[name] for name in _CURVES if result.get(name)}
    if not curves:
        return nothing("no curve was measured")
    columns, lines = min(len(curves), 2), -(-len(curves) // 2)
    figure = Picture(figsize=(4.9 * columns, 0.6 + 3 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for ax in panels[len(curves) :]:
        ax.remove()
    for ax, (name, curve) in zip(panels, curves.items(), strict=False):
        title, xlabel, ylabel, x_unit, y_unit, cost, cost_unit, slope, slope_unit = _CURVES[name]
        x = np.array(curve["x"]) / x_unit
        named = curve.get("names", [None] * len(x))
        for here, values, label, marker in zip(x, curve["y"], named, itertools.cycle("osD^vPX"), strict=False):
            style = {"marker": marker if label else "o", "ls": "", "color": BLUE, "ms": 5, "alpha": 0.6}
            ax.plot([here] * len(values), np.array(values) / y_unit, **style, label=label)
        ax.plot(x, np.array(curve["median"]) / y_unit, color=BLUE, lw=1.2)
        title += f", {curve['model']}" if "model" in curve else ""
        if fit := curve.get("fit"):
            ends = np.array([0, 1.05 * x.max()])
            ax.plot(ends, (fit["intercept"] + fit["slope"] * x_unit * ends) / y_unit, "--", color=ORANGE, lw=1.5)
            fixed, adds = digits(cost_unit * fit["intercept"]), digits(slope_unit * fit["slope"])
            title += f"\n{fixed} {cost} + {adds} {slope}, r² = {fit['r2']:.4f}".replace("+ −", "− ")
        ax.set_title(title, fontsize=9)
        ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.05 * x.max()))
        ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=name == "ranks"))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter("{x:,g}")
        bare(ax, "both")
        if "names" in curve:
            ax.legend(loc="lower right", frameon=False, fontsize=8)  # what grows leaves this corner free
    figure.suptitle(subject(result, []), fontsize=10)
    key = [Line2D([], [], color=BLUE, marker="o", ls="", ms=5, alpha=0.6, label="a round")]
    key += [Line2D([], [], color=BLUE, lw=1.2, label="median")]
    key += [Line2D([], [], color=ORANGE, lw=1.5, ls="--", label="straight line fitted")]
    figure.legend(handles=key, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def plot_epoch(result: Row) -> Figure:
    """Epochs of ours beside those of a plain loop: medians as bars, every round as a dot, the ratio above.

    Args:
        result: of kind "epoch"; parts that were not measured are left out.
    """
    check_kind(result, "epoch")
    parts = {kind: result.get("parts", {}).get(kind, {}) for kind in ("ours", "plain")}
    groups = {
        name: {kind: parts[kind][part] for kind in parts}
        for name, part in (("training", "train"), ("test", "test"))
        if all(part in parts[kind] for kind in parts)
    }
    groups["whole epoch"] = result["seconds"]
    figure = Picture(figsize=(7.5, 3.9), layout="constrained")
    ax = figure.subplots()
    for kind, colour, side in (("ours", BLUE, -0.2), ("plain", GREY, 0.2)):
        medians = [statistics.median(seconds[kind]) for seconds in groups.values()]
        ax.bar(np.arange(len(groups)) + side, medians, width=0.36, color=colour, alpha=0.6, label=kind)
        for i, seconds in enumerate(groups.values()):
            rounds = seconds[kind]
            spread = np.linspace(-0.1, 0.1, len(rounds)) if len(rounds) > 1 else np.zeros(1)
            ax.plot(i + side + spread, rounds, "o", color="black", ms=3.5)
            ax.annotate(f"{medians[i]:.3g} s", (i + side, max(rounds)), (0, 5), textcoords="offset points",
                        ha="center", fontsize=8)  # fmt: skip
    ax.set_xticks(range(len(groups)), groups)
    ax.set(ylabel="seconds", ylim=(0, 1.12 * max(max(times) for of in groups.values() for times in of.values())))
    ax.legend(loc="upper left", frameon=False, fontsize=8)
    bare(ax, "y")
    ratio = result["ratio"]
    title = f"plain / ours: {ratio['median']:.2f} ({ratio['low']:.2f}–{ratio['high']:.2f})\n"
    title += f"{subject(result, [result])}, batch {result['batch_size']:,}, {result['train_images']:,} training and "
    figure.suptitle(title + f"{result['test_images']:,} test images", fontsize=9)
    return figure


def check_kind(result: Row, kind: str) -> None:
    """Refuse a result that another figure is for."""
    given = result.get("kind")
    if given != kind:
        hint = f"; that one goes to {_DRAWN_BY[given]}" if given in _DRAWN_BY else ""
        raise ConfigError(f"result of kind {given!r}: this figure needs one of kind {kind!r}{hint}")


def way_of(row: Row) -> str:
    """The key in WAYS of how a step is run."""
    return "reference" if row.get("implementation") == "reference" else row["compile"]


def names_of(rows: Sequence[Row], *, batch: bool = True) -> list[str]:
    """A name a configuration: opt level, batch, compiled or not, and what else is not the same in all rows."""
    differ = [name for name in ("model", "channels_last", "device_num") if len({row[name] for row in rows}) > 1]
    names = []
    for row in rows:
        words = {"amp": row["amp"], "batch": f"batch {row['batch_size']:,}", "compile": WAYS[way_of(row)][0]}
        words["channels_last"] = "channels-last" if row["channels_last"] else "contiguous"
        words |= {"model": row["model"], "device_num": f"{row['device_num']} card" + "s" * (row["device_num"] > 1)}
        names.append(", ".join(words[name] for name in ["amp", *["batch"] * batch, *differ, "compile"]))
    return names


def subject(result: Row, rows: Sequence[Row]) -> str:
    """The networks and the device, as far as they are told."""
    models = ", ".join(dict.fromkeys(row["model"] for row in rows))
    return " on ".join(filter(None, [models, result.get("environment", {}).get("device")]))


def speed(row: Row) -> str:
    """Images per second of a row."""
    return f"{digits(row['images_per_second'])} images/s"


def digits(value: float) -> str:
    """Three digits, more only before the point: 1,432; 3.07; −0.5."""
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}").replace("-", "−")


def bare(ax: Axes, grid: str) -> None:
    """A panel with a faint grid and without a frame."""
    ax.grid(axis=grid, alpha=0.25)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8.5)
