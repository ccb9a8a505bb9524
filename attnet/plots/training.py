"""Figures of data, training and evaluation: batches, confusion, predictions, ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from attnet.data.splits import Split
from attnet.engine.evaluation import Evaluation
from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, Picture, bare, epoch_axis, nothing, stamped
from attnet.plots.sheet import draw_images, make_titles
from attnet.plots.steps import digits

__all__ = ["plot_batch", "plot_confusion", "plot_predictions", "plot_ranks"]

MOST = 20  # classes in a confusion matrix
SLOW = 1.15  # of the median: a card that others wait for


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


def plot_confusion(confusion: Tensor | Sequence[Sequence[int]], classes: Sequence[str], kind: str = "") -> Figure:
    """What is taken for what: the share of each true class (row) that is taken for each other class (column), per cent.

    Right answers would outshine every mistake, so the diagonal is left out; they are the bars beside, Top-1 of each
    class. Of more than 20 classes those that are mixed up most are shown, each with all its images counted.

    Args:
        confusion: how many images of class i were taken for class j, [K, K] at [i, j].
        kind: as `Result.kind`; "rehearsal" is written across.
    """
    counts = np.asarray(confusion, dtype=float)[: len(classes)]
    images = counts.sum(axis=1)
    shares = (100 * counts / np.maximum(images, 1)[:, None])[:, : len(classes)]
    right, wrong = shares.diagonal().copy(), shares.copy()
    np.fill_diagonal(wrong, 0)
    mixed = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:MOST]
    shown = np.sort(mixed)
    wrong, names = wrong[np.ix_(shown, shown)], [classes[k] for k in shown]
    figure = Picture(figsize=(10, 1.5 + 0.42 * max(len(names), 4)), layout="constrained")
    left, ax = figure.subplots(1, 2, sharey=True, width_ratios=(3.1, 1))
    most = max(wrong.max(initial=0), 5.0)
    blank = np.ma.masked_array(wrong, np.eye(len(names), dtype=bool))
    left.imshow(blank, cmap="Blues", vmin=0, vmax=most, aspect="auto")
    left.set_facecolor("#E4E4E4")
    for (i, j), share in np.ndenumerate(wrong):
        if share > 0.5:
            left.text(j, i, f"{share:.0f}", ha="center", va="center", fontsize=9,
                      color="white" if share > 0.6 * most else "black")  # fmt: skip
    left.set_xticks(range(len(names)), names, fontsize=9, rotation=40, ha="right", rotation_mode="anchor")
    left.set_yticks(range(len(names)), names, fontsize=9)
    left.set(xlabel="taken for", ylabel="true class")
    left.set_title("wrong answers, % of the true class", fontsize=10, loc="left")
    ax.barh(range(len(names)), right[shown], color=GREEN, height=0.7, alpha=0.8)
    for y, k in enumerate(shown):
        words = f"{right[k]:.0f} %" if images[k] else "no images"
        ax.annotate(words, (right[k], y), (4, 0), textcoords="offset points", va="center", fontsize=9)
    ax.axvline(100 / len(classes), color=GREY, lw=1, ls="--")
    ax.set(xlim=(0, 125), xticks=(0, 50, 100), xlabel="Top-1 (%)\ndashed: chance")
    ax.set_title("right answers", fontsize=10, loc="left")
    bare(ax, left=False, size=9)
    if len(shown) < len(classes):
        figure.suptitle(f"the {len(shown)} of {len(classes)} classes that are mixed up most", fontsize=10)
    return stamped(figure, kind)


def plot_predictions(split: Split, evaluation: Evaluation, indices: Sequence[int] | Tensor, columns: int = 8) -> Figure:
    """Images with predicted and true class and the confidence; wrong ones in red.

    `indices` are positions in `split`, whose evaluation this is; see `Evaluation.mistakes` for telling ones.
    """
    indices = torch.as_tensor(indices).tolist()
    if not indices:
        return nothing("no such images")
    titles = make_titles(evaluation.logits[indices], evaluation.classes, evaluation.labels[indices])
    return draw_images(split.images[indices], titles, columns, largest=1.25)


def plot_ranks(rows: Sequence[dict], kind: str = "") -> Figure:
    """Each card's own pace beside the throughput of all. To see: a bar that is longer than the others is a card for
    which all others wait; throughput alone would hide it, since cards exchange gradients at every step.

    Args:
        rows: objects of metrics.jsonl; left `rank_fps` by epoch, right the medians of `rank_forward`, where there are
            some: a forward pass waits for no other card.
    """
    measured = [row for row in rows if "rank_fps" in row]
    if not measured:
        return nothing("one card only")
    epochs = [row["epoch"] for row in measured]
    fps = np.array([row["rank_fps"] for row in measured])
    figure = Picture(figsize=(10, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, fps.sum(axis=1), color=BLUE, marker="o" if len(epochs) <= 30 else None, ms=4)
    left.set(ylabel="images/s of all cards", ylim=(0, 1.15 * fps.sum(axis=1).max()))
    left.set_title(f"throughput; each card {digits(np.median(fps))} images/s", fontsize=10, loc="left")
    epoch_axis(left, 2)
    forwards = [row["rank_forward"] for row in measured if "rank_forward" in row]
    if forwards:
        own = 1e3 * np.median(np.array(forwards), axis=0)
        colours = [ORANGE if ms > SLOW * np.median(own) else BLUE for ms in own]
        bars = right.bar(range(len(own)), own, color=colours, width=0.7)
        right.bar_label(bars, [digits(ms) for ms in own], padding=2, fontsize=9)
        right.set(xlabel="card (rank)", ylabel="forward pass (ms)", ylim=(0, 1.18 * own.max()), xticks=range(len(own)))
        right.set_title(
            f"own pace: the slowest takes {own.max() / own.mean():.2f} of the mean", fontsize=10, loc="left"
        )
    else:
        right.set_axis_off()
        right.text(0.5, 0.5, "each card's own pace was not measured", ha="center", color=GREY, fontsize=10)
    for ax in (left, right):
        bare(ax, size=9)
    return stamped(figure, kind)
