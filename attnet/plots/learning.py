"""Figures of a training's course: the loss step by step, Top-1 epoch by epoch, one image's mask as it is learned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from attnet.base.watching import Sight
from attnet.engine.training import traced_steps
from attnet.masks.scale import robust_scale
from attnet.plots import sheet
from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, Picture, bare, epoch_axis, logarithmic, nothing, stamped

__all__ = ["Glimpses", "plot_curves", "plot_learning"]

WIDTH, TALL, STRIP = 10.0, 3.1, 1.5  # inches: the page, the curves, the masks below them
SHOWN = 7  # masks in a strip
PARTS = 40  # the smoothed loss is a running mean over one of so many parts of the steps
STEEP = 4.0  # a test loss so many times the highest training loss makes the axis logarithmic
POINTS = 400  # of a line of losses; more would not be seen


@dataclass
class Glimpses:
    """One image, and what became of its mask: `maps` float32 [h, w], each after so many `epochs`.

    `middle` is the value that favours nothing, if there is one: see `attnet.masks.scale`.
    """

    image: Tensor
    words: str
    middle: float | None = None
    epochs: list[float] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)


def plot_curves(rows: Sequence[dict], chance: float | None = None, kind: str = "") -> Figure:
    """Losses and test Top-1 over the epochs; `rows` are the objects of metrics.jsonl.

    The training loss is drawn in parts of an epoch where those are on record (runs on one card), else by epoch.

    Args:
        chance: Top-1 of guessing, per cent, drawn as a line; 100 over the number of classes.
        kind: as `Result.kind`; "rehearsal" is written across.
    """
    return plot_learning(Sight(rows, (), 0, 1), None, chance, kind)


def plot_learning(
    sight: Sight, glimpses: Glimpses | None = None, chance: float | None = None, kind: str = ""
) -> Figure:
    """A training as it stands. To see: the loss of single steps (faint) and smoothed (blue), the test loss (orange) and
    Top-1 after each epoch; below, the image's mask from the untrained network on."""
    if not (sight.rows or sight.losses or sight.begun):
        return nothing("no step was taken")
    strip = bool(glimpses and glimpses.maps)
    height = TALL + STRIP * strip
    figure = Picture(figsize=(WIDTH, height))

    def panel(left: float, width: float) -> Axes:
        return figure.add_axes((left, (0.52 + STRIP * strip) / height, width, (TALL - 0.9) / height))

    left, right = panel(0.065, 0.42), panel(0.565, 0.42)
    _draw_losses(left, sight)
    _draw_top1(right, sight.rows, chance)
    longest = max([row["epoch"] for row in [*sight.rows, *sight.begun]], default=0)
    if sight.losses:
        longest = max(longest, math.ceil(_epochs(sight)[-1]))
    for ax in (left, right):
        bare(ax, "both", size=10)
        epoch_axis(ax, longest + 1)
        ax.set_xlim(0, 1.02 * max(longest, 1))
    if strip:
        _draw_strip(figure, glimpses)
    return stamped(figure, kind)


def _epochs(sight: Sight) -> np.ndarray:
    """How many epochs were done after each of the steps whose loss is known."""
    return (sight.first + 1 + np.arange(len(sight.losses))) / sight.steps


def _draw_losses(ax: Axes, sight: Sight) -> None:
    rows = sight.rows
    if sight.losses:
        x, losses = _epochs(sight), np.asarray(sight.losses, dtype=float)
        window = max(1, len(losses) // PARTS)
        smooth = np.convolve(losses, np.ones(window) / window, "valid")
        thin = max(1, len(losses) // POINTS)
        ax.plot(x[::thin], losses[::thin], color=BLUE, lw=0.7, alpha=0.3)
        words = f"train loss, mean of {window} steps" if window > 1 else "train loss, each step"
        ax.plot(x[window - 1 :][::thin], smooth[::thin], color=BLUE, lw=1.6, label=words)
    else:
        x, losses = _recorded([*rows, *sight.begun])
        ax.plot(x, losses, color=BLUE, marker="o" if len(x) <= 30 else None, ms=4, label="train loss")
    if rows:
        ax.plot([row["epoch"] for row in rows], [row["test_loss"] for row in rows], color=ORANGE, ms=4,
                marker="o" if len(rows) <= 30 else None, label="test loss")  # fmt: skip
    ax.set_ylabel("cross-entropy (nats)")
    train, test = (np.nanmax(line.get_ydata(), initial=0) for line in (ax.lines[0], ax.lines[-1]))
    if test > STEEP * train > 0:  # one bad epoch may be fifty times as high as all others, and nothing else be seen
        logarithmic(ax)
    else:
        ax.update_datalim([(0, 0)])  # room above the points in proportion to what is shown
        ax.set_ylim(0, None)
    ax.legend(frameon=False, fontsize=9)
    # A schedule that glides changes the rate at every epoch: only steps are worth a line.
    drops = [row["epoch"] for before, row in itertools.pairwise(rows) if math.isclose(10 * row["lr"], before["lr"])]
    for epoch in drops:
        ax.axvline(epoch - 1, color=GREY, lw=0.8, ls=":")
    if drops:
        ax.annotate("lr ÷ 10", (drops[0] - 1, 0.02), (3, 3), xycoords=("data", "axes fraction"),
                    textcoords="offset points", fontsize=8, color=GREY)  # fmt: skip


def _recorded(rows: Sequence[dict]) -> tuple[list[float], list[float]]:
    """The mean training loss of each part of an epoch that is on record, at its middle; of the epoch, at its end."""
    x, losses = [], []
    for row in rows:
        sums = row.get("trace") or row.get("trace_of_rank_0") or []
        if len(sums) < 2 or not math.isfinite(row["train_loss"]) or row["train_loss"] <= 0:
            x.append(row["epoch"])
            losses.append(row["train_loss"])
            continue
        steps = row.get("steps") or round(sums[-1] / row["train_loss"])
        ends = [0, *traced_steps(steps)]
        for before, after, low, high in zip(ends, ends[1:], [0.0, *sums], sums, strict=False):
            x.append(row["epoch"] - 1 + (before + after) / 2 / steps)
            losses.append((high - low) / (after - before))
    return x, losses


def _draw_top1(ax: Axes, rows: Sequence[dict], chance: float | None) -> None:
    ax.set(ylabel="test Top-1 (%)", ylim=(0, 100))
    if chance is not None:
        ax.axhline(chance, color=GREY, lw=1, ls="--")
        ax.annotate(f"chance, {chance:.3g} %", (1, chance), (-2, 3), ("axes fraction", "data"), "offset points",
                    ha="right", fontsize=8, color=GREY)  # fmt: skip
    if not rows:
        ax.set_title("the first test comes after an epoch", fontsize=10, color=GREY)
        return
    epochs, top1 = [row["epoch"] for row in rows], [row["top1"] for row in rows]
    best = max(range(len(rows)), key=lambda i: top1[i])
    ax.plot(epochs, top1, color=GREEN, marker="o" if len(rows) <= 30 else None, ms=4)
    ax.plot(epochs[best], top1[best], "o", ms=9, mfc="none", color=GREEN)
    ax.set_title(f"best {top1[best]:.2f} % in epoch {epochs[best]}", fontsize=10, color=GREEN)


def _draw_strip(figure: Figure, glimpses: Glimpses) -> None:
    """The image, and its masks from the first to the last, as evenly spread over the training as they were seen."""
    width, height = figure.get_size_inches()
    places = np.linspace(0, len(glimpses.maps) - 1, min(SHOWN, len(glimpses.maps))).round().astype(int).tolist()
    tile, scale = 1.0, robust_scale(torch.stack([glimpses.maps[place] for place in places]), glimpses.middle)
    axes = [
        figure.add_axes(((0.4 + i * (tile + 0.05)) / width, 0.08 / height, tile / width, tile / height))
        for i in range(1 + len(places))
    ]
    for ax in axes:
        ax.set_axis_off()
    sheet.draw_image(axes[0], glimpses.image)
    for ax, place in zip(axes[1:], places, strict=True):
        sheet.draw_map(ax, glimpses.maps[place], scale)
        done = glimpses.epochs[place]
        words = "at the start" if not done else f"epoch {done:.0f}" if done >= 10 else f"epoch {done:.2g}"
        ax.set_title(words, fontsize=8, pad=3)
    figure.text(0.4 / width, (0.08 + tile + 0.3) / height, glimpses.words, fontsize=9)
    sheet.colour_bar(figure, np.array([axes]), scale, "mask M")
