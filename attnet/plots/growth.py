"""Figures of how time, memory and speed grow, of epochs beside a plain loop's, of a training beside the reference's.

Each takes the object of the JSON file that `attnet benchmark`, or the harness of the race, wrote; one of another kind
raises a ConfigError.
"""

from __future__ import annotations

import itertools
import statistics

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from attnet.plots.figure import BLUE, GREY, ORANGE, Picture, Result, bare, check_kind, legend_below, nothing
from attnet.plots.steps import digits, subject

__all__ = ["plot_epoch", "plot_growth", "plot_race"]

# A curve: title; labels of x and y; what both are divided by; how the fit's intercept and slope are written.
_CURVES = {
    "images": ("an epoch", "training images", "seconds", 1, 1, "s", 1, "ms an image", 1e3),
    "memory": ("peak memory", "batch size (images)", "GB", 1, 1e9, "GB", 1e-9, "MB an image", 1e-6),
    "start_up": ("start to first step", "parameters (millions)", "seconds", 1e6, 1, "s", 1,
                 "s a million parameters", 1e6),
    "ranks": ("ranks together", "ranks", "images/s", 1, 1, "images/s", 1, "images/s a rank", 1),
}  # fmt: skip


def plot_growth(result: Result) -> Figure:
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
    legend_below(figure, key)
    return figure


def plot_epoch(result: Result) -> Figure:
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


def plot_race(result: Result) -> Figure:
    """Test Top-1 by the processor time spent: a training of ours beside the reference repository's own.

    To see: where both curves end, since a rate that falls to 0, and images that grow, give what they give at the end.
    Grounds say on how large images ours was trained; it is tested on full ones throughout.

    Args:
        result: of kind "race", as `tests/harness_race.py` writes it.
    """
    check_kind(result, "race")
    figure = Picture(figsize=(7.5, 4), layout="constrained")
    ax = figure.subplots()
    begun = 0.0
    for size, rows in itertools.groupby(result["ours"], lambda row: row.get("image_size")):
        ended = list(rows)[-1]["processor_seconds"] / 3600
        if size is not None:
            ax.axvspan(begun, ended, color=BLUE, alpha=0.03 * (size // 8), lw=0)
            ax.text((begun + ended) / 2, 1, f"{size} px", ha="center", va="bottom", transform=ax.get_xaxis_transform(),
                    color=BLUE, fontsize=8)  # fmt: skip
        begun = ended
    for name, curve, look in (
        ("ours", result["ours"], {"color": BLUE, "marker": "o"}),
        ("the reference's own training", result["reference"], {"color": ORANGE, "marker": "D"}),
    ):
        hours = [row["processor_seconds"] / 3600 for row in curve]
        ax.plot(hours, [row["top1"] for row in curve], lw=1.4, ms=5, label=name, **look)
    ax.set(xlabel="processor hours", ylabel="test Top-1 (%)", xlim=(0, 1.03 * begun), ylim=(0, 102))
    bare(ax, "y")
    last = result["beside"][-1]
    theirs = "no test yet" if last["reference"] is None else f"{last['reference']:.2f} %"
    words = f"after {last['processor_hours']:.2f} processor hours: ours {last['ours']:.2f} %, the reference {theirs}"
    figure.suptitle(f"{subject(result, [result['training']])}\n{words}", fontsize=9)
    legend_below(figure, ax.get_lines())
    return figure
