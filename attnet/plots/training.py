"""Figures of data, training and evaluation: batches, accuracy by class, confusion, predictions, ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from attnet.data.splits import Split
from attnet.engine.evaluation import Evaluation
from attnet.plots.figure import BLUE, Picture, bare, epoch_axis, nothing
from attnet.plots.sheet import draw_images, make_titles

__all__ = ["plot_batch", "plot_confusion", "plot_per_class", "plot_predictions", "plot_ranks"]


def plot_batch(images: Tensor, labels: Tensor, classes: Sequence[str], n: int = 20) -> Figure:
    """The first `n` images of a batch as the network gets them, float [B, 3, H, W], with their classes.

    Standardised images are stretched back into the visible range, all alike.
    """
    images = images[:n].float()
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        images = (images - low) / (high - low)
    titles = [(classes[label], "black") for label in labels[:n].tolist()]
    return draw_images(images, titles, columns=10, largest=0.95)


def plot_per_class(per_class: dict[str, float | None]) -> Figure:
    """Top-1 of each class, per cent, best first; at most the 40 worst of many classes. None: a class without images."""
    items = sorted(per_class.items(), key=lambda item: math.inf if item[1] is None else item[1])[:40]
    figure = Picture(figsize=(6, 0.6 + 0.27 * len(items)), layout="constrained")
    ax = figure.subplots()
    bars = ax.barh([name for name, _ in items], [rate or 0.0 for _, rate in items], color=BLUE, height=0.7)
    labels = ["no images" if rate is None else f"{rate:.1f}" for _, rate in items]
    ax.bar_label(bars, labels, padding=3, fontsize=8)
    ax.set(xlabel="Top-1 (%)", xlim=(0, 108), ylim=(-0.6, len(items) - 0.4))
    if len(items) < len(per_class):
        ax.set_title(f"the {len(items)} worst of {len(per_class)} classes", fontsize=10)
    bare(ax, left=False, size=10)
    return figure


def plot_confusion(confusion: Tensor | Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Share of each true class (row) taken for each predicted class (column), per cent; the diagonal is right."""
    counts = np.asarray(confusion, dtype=float)[: len(classes)]
    shares = (100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))[:, : len(classes)]
    few = len(classes) <= 20
    side = 1.6 + (0.42 if few else 0.1) * len(classes)
    figure = Picture(figsize=(side + 0.8, side), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(shares, cmap="cividis", vmin=0, vmax=100)
    font, lean = {"fontsize": 8 if few else 6}, {"rotation": 45, "ha": "right"} if few else {"rotation": 90}
    ax.set_xticks(range(len(classes)), classes, **font, **lean)
    ax.set_yticks(range(len(classes)), classes, **font)
    if few:
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.5:
                ax.text(j, i, f"{share:.0f}", ha="center", va="center", fontsize=7.5,
                        color="black" if share > 50 else "white")  # fmt: skip
    ax.set(xlabel="predicted", ylabel="true class")
    figure.colorbar(image, ax=ax, shrink=0.8, label="% of the true class")
    return figure


def plot_predictions(split: Split, evaluation: Evaluation, indices: Sequence[int] | Tensor, columns: int = 8) -> Figure:
    """Images with predicted and true class and the confidence; wrong ones in red.

    `indices` are positions in `split`, whose evaluation this is; see `Evaluation.mistakes` for telling ones.
    """
    indices = torch.as_tensor(indices).tolist()
    if not indices:
        return nothing("no such images")
    titles = make_titles(evaluation.logits[indices], evaluation.classes, evaluation.labels[indices])
    return draw_images(split.images[indices], titles, columns, largest=1.25)


def plot_ranks(rows: Sequence[dict]) -> Figure:
    """Images/s of each card over the epochs (`rank_fps` of metrics.jsonl): the mean as a line, the spread as a band."""
    measured = [row for row in rows if "rank_fps" in row]
    if not measured:
        return nothing("one card only")
    epochs = [row["epoch"] for row in measured]
    fps = np.array([row["rank_fps"] for row in measured])
    figure = Picture(figsize=(9, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    low, high, marker = fps.min(axis=1), fps.max(axis=1), "o" if len(epochs) <= 30 else None
    left.fill_between(epochs, low, high, color=BLUE, alpha=0.25, lw=0, label="slowest to fastest card")
    left.plot(epochs, fps.mean(axis=1), color=BLUE, marker=marker, ms=4, label="mean of the cards")
    left.set(ylabel="images/s a card", ylim=(0, 1.15 * fps.max()))
    epoch_axis(left, 2)
    left.legend(frameon=False, loc="lower right")
    medians = np.median(fps, axis=0)
    bars = right.bar(range(len(medians)), medians, color=BLUE, width=0.7)
    right.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=8)
    right.set(xlabel="rank", ylabel="median images/s", ylim=(0, 1.15 * medians.max()), xticks=range(len(medians)))
    for ax in (left, right):
        bare(ax, size=10)
    return figure
