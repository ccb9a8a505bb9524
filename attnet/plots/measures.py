"""Figures of what is measured on the masks: their statistics, interventions, deletion and insertion, localisation.

Intervals are drawn as they come: dots at `mean`, bars from `low` to `high`.

Sources: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017, section 3.1; those of the
measures are named where they are computed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attnet.masks.statistics import MaskStatistics
from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY, Picture, bare, nothing, stripes

if TYPE_CHECKING:
    from attnet.base.intervals import Interval
    from attnet.masks.compare import Finding
    from attnet.masks.replace import Effect
    from attnet.masks.saliency import Curves

__all__ = ["plot_deletion_insertion", "plot_effects", "plot_localisation", "plot_mask_statistics"]

_COLOURS = (BLUE, GREEN, PURPLE, RED, SKY, "black")
_STAGES = (BLUE, GREEN, ORANGE, PURPLE)
# An intervention: its colour, its marker, and what it does.
_LOOKS = {
    "zero": (BLUE, "o", "zero: M = 0"),
    "one": (ORANGE, "s", "one: M = 1"),
    "mean": (GREEN, "D", "mean: one value a channel"),
    "shuffled": (PURPLE, "^", "shuffled: positions exchanged"),
    "inverse": (RED, "v", "inverse: high for low"),
    "constant": (SKY, "p", "constant: the same for all images"),
    "resampled": ("black", "X", "resampled: another image's mask"),
}
_SCORES = {"pointing": "pointing game", "auroc": "AUROC", "iou": "best IoU", "energy": "energy in the object"}


def plot_mask_statistics(statistics: Sequence[MaskStatistics]) -> Figure:
    """The masks' values, and the paper's argument for (1 + M)·T, module by module.

    To see, on the left: how mask values are spread (each histogram to its own height; a stroke at the mean), and
    mean ± standard deviation. On the right: the mean absolute response of the trunk, of what the module passes on,
    and of what M·T alone would leave; the farther left of the trunk, the sooner the signal of a deep stack dies.
    """
    if not statistics:
        return nothing("no module has a mask")
    rows = range(len(statistics))
    figure = Picture(figsize=(10, 1.15 + 0.5 * len(statistics)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    stages = list(dict.fromkeys(row.module.partition(".")[0] for row in statistics))
    for y, row in zip(rows, statistics, strict=True):
        colour = _STAGES[stages.index(row.module.partition(".")[0]) % len(_STAGES)]
        heights = 0.85 * row.counts.double().numpy() / max(int(row.counts.max()), 1)
        edges = np.linspace(row.low, row.high, len(heights) + 1)
        # y runs downwards: a histogram stands on its row's line.
        left.stairs(y + 0.35 - heights, edges, baseline=y + 0.35, fill=True, color=colour, alpha=0.75)
        left.plot([row.mean, row.mean], [y + 0.35, y - 0.5], color="black", lw=1)
        words = f"{row.mean:.3f} ± {row.std:.3f}".replace("-", "−")
        left.text(1.02, y, words, transform=left.get_yaxis_transform(), fontsize=8, va="center")
    naive = all(math.isclose(row.masked, row.naive, rel_tol=1e-4) for row in statistics)
    series = {"trunk T": ([row.trunk for row in statistics], GREY, "o")}
    if not naive:
        series["M·T alone would leave"] = ([row.naive for row in statistics], RED, "v")
    words = "passed on: M·T" if naive else "passed on: (1 + M)·T"
    series[words] = ([row.masked for row in statistics], BLUE, "D")
    ends = np.array([values for values, _, _ in series.values()])
    right.hlines(rows, ends.min(axis=0), ends.max(axis=0), color=GREY, lw=0.8, zorder=1)
    for label, (values, colour, marker) in series.items():
        right.plot(values, rows, marker, color=colour, ms=6, label=label)
    shares = [f"{100 * np.mean([getattr(row, name) / row.trunk for row in statistics]):.0f} %"
              for name in ("naive", "masked")]  # fmt: skip
    words = f"M·T keeps {shares[0]} of the trunk's response" + ("" if naive else f", (1 + M)·T {shares[1]}")
    right.set_title(words, fontsize=9)
    left.set_title("how often a mask takes a value; mean ± standard deviation", fontsize=9)
    left.set(xlabel="mask value", xlim=(statistics[0].low, statistics[0].high), ylim=(len(statistics) - 0.5, -0.65))
    left.set_yticks(rows, [row.module for row in statistics], fontsize=9)
    right.set(xlabel="mean absolute response", xlim=(0, 1.08 * ends.max()))
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=3, frameon=False, fontsize=8)
    for ax in (left, right):
        _measured(ax)
    return figure


def plot_effects(effects: Sequence[Effect]) -> Figure:
    """What replacing the masks does to Top-1: module by module (rows), a dot with its interval an intervention.

    To see: a module whose dots lie on the zero line could do without what was taken away; "shuffled" and "mean"
    take only the places away, "zero" the whole mask. The untouched network's Top-1 stands in the title.

    Args:
        effects: as `attnet.masks.replace.effects` gives them, the untouched network ("none") among them.
    """
    untouched = next((effect.top1 for effect in effects if effect.module == "none"), None)
    effects = [effect for effect in effects if effect.module != "none"]
    if not effects:
        return nothing("no intervention was made")
    modules = list(dict.fromkeys(effect.module for effect in effects))
    kinds = list(dict.fromkeys(effect.intervention for effect in effects))
    figure = Picture(figsize=(9, 1.2 + len(modules) * (0.25 + 0.13 * len(kinds))), layout="constrained")
    ax = figure.subplots()
    step = 0.7 / len(kinds)
    for j, kind in enumerate(kinds):
        mine = [effect for effect in effects if effect.intervention == kind]
        places = [modules.index(effect.module) + (j - (len(kinds) - 1) / 2) * step for effect in mine]
        colour, marker, label = _LOOKS.get(kind, (GREY, "o", kind))
        _dots(ax, [effect.change for effect in mine], places, colour, marker, label=label)
    stripes(ax, len(modules))
    ax.axvline(0, color="black", lw=0.8)
    if untouched is not None:
        ax.set_title(f"untouched: Top-1 {untouched:.2f} %", fontsize=10)
    ax.set_yticks(range(len(modules)), ["all together" if name == "all" else name for name in modules], fontsize=9)
    ax.set(xlabel="change of Top-1 (percentage points)", ylim=(len(modules) - 0.5, -0.5))
    _measured(ax)
    figure.legend(loc="outside right center", frameon=False, fontsize=8, title="each mask replaced by",
                  title_fontsize=8, alignment="left")  # fmt: skip
    return figure


def plot_deletion_insertion(curves: Mapping[str, Curves]) -> Figure:
    """Mean probability of the class as pixels go (left) and come (right), the most important first by each method.

    To see: a good map has a low deletion curve and a high insertion curve. The legends give the mean area under
    each with its interval, the best first. "random" and "centre prior" are grey, dashed and dotted, "Grad-CAM" is
    orange.
    """
    if not curves:
        return nothing("no curves")
    figure = Picture(figsize=(10, 3.5 + 0.19 * len(curves)), layout="constrained")
    styles = {"random": (GREY, "--"), "centre prior": (GREY, ":"), "Grad-CAM": (ORANGE, "-")}
    others = itertools.cycle((colour, line) for line in ("-", "-.", "--") for colour in _COLOURS)
    styles |= {name: next(others) for name in curves if name not in styles}
    panels = zip(figure.subplots(1, 2, sharey=True), ("deletion", "insertion"), ("lower", "higher"), strict=True)
    for ax, kind, better in panels:
        areas = {name: getattr(curve, f"{kind}_area") for name, curve in curves.items()}
        for name in sorted(areas, key=lambda name: areas[name].mean, reverse=better == "higher"):
            area, (colour, line) = areas[name], styles[name]
            words = f"{name}: {area.mean:.3f} ({area.low:.3f}–{area.high:.3f})"
            means = getattr(curves[name], kind).mean(dim=0)
            ax.plot(100 * curves[name].fractions.numpy(), means.numpy(), line, color=colour, lw=1.8, label=words)
        ax.set(xlabel=f"pixels {kind.removesuffix('ion')}ed (%)", xlim=(0, 100), ylim=(0, 1))
        ax.set_title(f"{kind}: {better} is better", fontsize=10)
        _measured(ax, "both")
        # Below the panel: within it, there is no place that curves never cross.
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False, fontsize=8, alignment="left",
                  title="area under the curve (95 % interval)", title_fontsize=8)  # fmt: skip
    figure.axes[0].set_ylabel("mean probability of the class")
    return figure


def plot_localisation(rows: Sequence[Finding]) -> Figure:
    """How well each method's maps find the object: four scores, a row a method, baselines grey below the line.

    To see: maps that point at objects lie right of the centre prior, which has not seen the image. In each panel
    the best that is no baseline is orange, with its number.
    """
    if not rows:
        return nothing("no method was scored")
    rows = sorted(rows, key=lambda row: row.baseline)  # stable: otherwise as they come
    figure = Picture(figsize=(10.5, 0.95 + 0.3 * len(rows)), layout="constrained")
    for ax, (key, words) in zip(figure.subplots(1, len(_SCORES), sharey=True), _SCORES.items(), strict=True):
        scored = [(y, row) for y, row in enumerate(rows) if key in row.scores]
        found = [y for y, row in scored if not row.baseline and row.scores[key].mean > 0]
        best = max(found, key=lambda y: rows[y].scores[key].mean, default=None)
        for y, row in scored:
            colour = GREY if row.baseline else ORANGE if y == best else BLUE
            _dots(ax, [row.scores[key]], [y], colour, "D" if y == best else "o", ms=7 if y == best else 5)
        if best is not None:
            top = rows[best].scores[key]
            ax.axhspan(best - 0.45, best + 0.45, color=ORANGE, alpha=0.15, lw=0)
            ax.annotate(f"{top.mean:.3f}", (top.high, best), (5, 0), textcoords="offset points", fontsize=8,
                        va="center")  # fmt: skip
        if 0 < (first := sum(not row.baseline for row in rows)) < len(rows):
            ax.axhline(first - 0.5, color=GREY, lw=0.8)
        ax.set_title(words, fontsize=10)
        _measured(ax)
        top_end = max((row.scores[key].high for _, row in scored), default=1.0)
        ax.set_xlim(-0.03 * max(top_end, 0.1), 1.3 * max(top_end, 0.1))  # from zero: scores are shares
        ax.set_xticks([tick for tick in MaxNLocator(4).tick_values(0, top_end) if 0 <= tick <= 1])  # scores are shares
    ax.set_yticks(range(len(rows)), [row.method for row in rows], fontsize=9)
    ax.set_ylim(len(rows) - 0.5, -0.7)
    for label, row in zip(figure.axes[0].get_yticklabels(), rows, strict=True):
        label.set_color(GREY if row.baseline else "black")
    return figure


def _dots(
    ax: Axes, intervals: Sequence[Interval], places: Sequence[float], colour: str, marker: str, **style: object
) -> None:
    """A dot and a horizontal bar for each interval."""
    means = [interval.mean for interval in intervals]
    bars = [[interval.mean - interval.low for interval in intervals],
            [interval.high - interval.mean for interval in intervals]]  # fmt: skip
    style = {"ms": 5, "elinewidth": 1.2, "capsize": 2, **style}
    ax.errorbar(means, places, xerr=bars, fmt=marker, color=colour, **style)


def _measured(ax: Axes, grid: str = "x") -> None:
    bare(ax, grid)
    ax.tick_params(axis="y", left=False)
