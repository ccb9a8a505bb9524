"""Masks before the court: what looks like them without being learned, and the verdict in one figure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from attnet.masks.controls import image_controls, untrained
from attnet.masks.questions import CANNOT_TELL, DOES_NOT_APPLY, NO, QUESTIONS, YES
from attnet.masks.reduce import attention_maps
from attnet.masks.scale import robust_scale
from attnet.plots import sheet
from attnet.plots.figure import BLUE, GREEN, GREY, INK, ORANGE, RED, Picture, nothing

if TYPE_CHECKING:
    from attnet.base.intervals import Interval
    from attnet.masks.questions import Answer, Verdict

__all__ = ["plot_doubts", "plot_verdict"]

_COLOURS = {YES: GREEN, NO: RED, CANNOT_TELL: GREY, DOES_NOT_APPLY: GREY}
_SHOWN = 7  # controls of a question, the strongest first


def plot_doubts(
    model: nn.Module,
    images: Tensor,
    module: str,
    reduction: str = "std",
    beside: Sequence[str] = ("edges, 5x5 mean", "colour distance from the frame"),
    *,
    calibration: Tensor | None = None,
) -> Figure:
    """A module's map of each image, that of the same module untrained, and what the image alone gives.

    To see: how much of what looks like attention is there without anything learned. Every map has its own scale, as
    far as 98 % of its values go, since only their patterns are compared.

    Args:
        beside: names of `attnet.masks.controls.IMAGE_CONTROLS`.
        calibration: images for the untrained network's batch norms; None: these ones.
    """
    images = sheet.as_batch(images)
    found = attention_maps(model, images, "mask", reduction, [module])
    if not found:
        return nothing("no module has a mask")
    stranger = untrained(model, images if calibration is None else calibration)
    columns = {
        "trained": found[module],
        "untrained": attention_maps(stranger, images, "mask", reduction, [module])[module],
    }
    columns |= {name: values for name, values in image_controls(images).items() if name in beside}
    heads = [textwrap.fill(name, 16) for name in columns]
    above = [sheet.title_room([(head, "") for head in heads]), *[sheet.GAP] * (len(images) - 1)]
    words = f"{module}: {sheet.describe('mask', reduction)}; and what the image alone gives"
    figure, axes = sheet.make_sheet(images, above, [sheet.GAP] * (1 + len(columns)), 1.3, words, bars=0)
    for row, image in zip(axes, images, strict=True):
        sheet.draw_image(row[0], image)
    for column, (head, maps) in enumerate(zip(heads, columns.values(), strict=True), 1):
        for row, values in zip(axes, maps, strict=True):
            sheet.draw_map(row[column], values, robust_scale(values))
        axes[0, column].set_title(head, fontsize=8, pad=3)
    axes[0, 0].set_title("image", fontsize=8, pad=3)
    return figure


def plot_verdict(verdict: Verdict) -> Figure:
    """Six panels, a question each: the masks (blue diamond) and their strongest controls (grey), with 95 % intervals.

    To see: a "yes" has its diamond clear of the dashed line, which stands at the strongest control. What is orange
    is shown beside and is no control.
    """
    figure = Picture(figsize=(13, 9.6), layout="constrained")
    for ax, (key, answer) in zip(figure.subplots(3, 2).flat, verdict.answers.items(), strict=True):
        question = QUESTIONS[key]
        ax.set_title("\n".join(textwrap.wrap(question.words, 46)), fontsize=10.5, loc="left")
        ax.set_title(answer.verdict, fontsize=12, loc="right", color=_COLOURS[answer.verdict], fontweight="bold")
        if answer.difference is None:
            ax.set_axis_off()
            words = "\n".join(textwrap.wrap(answer.reason, 52))
            ax.text(0.5, 0.5, words, ha="center", va="center", color=GREY, transform=ax.transAxes)
            continue
        _panel(ax, answer)
        ax.set_xlabel("\n".join(textwrap.wrap(question.measure, 64)), fontsize=8.5)
    return figure


def _panel(ax: Axes, answer: Answer) -> None:
    controls = sorted(answer.controls.items(), key=lambda item: -item[1].mean)
    left = len(controls) - _SHOWN
    rows: list[tuple[str, Interval, str, str]] = [(*answer.claim, BLUE, "D")]
    rows += [(name, interval, ORANGE, "s") for name, interval in answer.beside.items()]
    rows += [(name, interval, GREY, "o") for name, interval in controls[:_SHOWN]]
    for y, (_, interval, colour, marker) in enumerate(rows):
        ends = [[interval.mean - interval.low], [interval.high - interval.mean]]
        ax.errorbar([interval.mean], [y], xerr=ends, fmt=marker, color=colour, ms=6, elinewidth=1.3, capsize=2.5)
    ax.axvline(answer.control[1].mean, color=GREY, lw=0.9, ls="--", zorder=0)
    names = ["\n".join(textwrap.wrap(name, 32)) for name, *_ in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=8.5)
    for label, (_, _, colour, _) in zip(ax.get_yticklabels(), rows, strict=True):
        label.set_color(INK if colour == BLUE else colour)
    if left > 0:
        words = f"and {left} weaker control{'s' if left > 1 else ''}"
        ax.annotate(words, (0, 0), (-8, -6), "axes fraction", "offset points", ha="right", va="top", fontsize=8,
                    color=GREY)  # fmt: skip
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.margins(x=0.08)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
