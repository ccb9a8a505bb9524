"""The explorer's figure: an image, a module's map over it, the map alone, and what the network says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn

from attnet.masks.foreign import Foreign
from attnet.masks.look import GRAD_CAM, Look, Looker, View, top_classes
from attnet.masks.reduce import find_reduction
from attnet.model.pretrained import Pretrained
from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, RED, Picture, bare
from attnet.plots.masks import overlay
from attnet.plots.sheet import as_pixels, colours

__all__ = ["plot_look", "plot_view"]

PART_WORDS = {
    "mask": "mask M",
    "trunk": "trunk T, before the mask",
    "masked": "after the mask",
    "input": "input of both branches",
    GRAD_CAM: "Grad-CAM",
}


def plot_view(
    network: Pretrained | nn.Module,
    view: View,
    image: Tensor,
    label: str = "",
    *,
    masks: Mapping[str, str] | None = None,
) -> Figure:
    """The picture of a view; `image` uint8 or float in [0, 1], [3, H, W]; `label` names its true class.

    `network` comes from `load_pretrained`, or is a `Foreign`, or with `masks` any classifier, as `capture_masks`.
    """
    if masks is not None:
        network = Foreign(network, masks, tuple(image.shape[-2:]))
    return plot_look(Looker(network).look(image, view), label)


def plot_look(look: Look, label: str = "") -> Figure:
    """Image, overlay, map with its scale, and the probabilities (with an intervention, the untouched ones as well).

    The map's colours span its `scale`, whose ends the bar below it gives; the range of all values stands beside it.
    `label` is the true class, if known.
    """
    view, top = look.view, int(look.probabilities.argmax())
    figure = Picture(figsize=(10, 3.05))
    axes = [figure.add_axes((0.008 + 0.245 * i, 0.14, 0.235, 0.77)) for i in range(3)]
    low, high, palette = look.scale.low, look.scale.high, colours(look.scale)
    blended = overlay(look.image, look.map, view.strength, look.scale)
    for ax, content in zip(axes, (as_pixels(look.image), blended, look.map.numpy()), strict=True):
        ax.set_axis_off()
        ax.imshow(content, interpolation="nearest", cmap=palette, vmin=low, vmax=high)
    said = f"{look.classes[top]} {100 * look.probabilities[top]:.0f} %"
    colour = "black"
    if label:
        colour = GREEN if label == look.classes[top] else RED
        said += f", is {label}" if colour == RED else ""
    axes[0].set_title(said, fontsize=10, color=colour, pad=5)
    what = part_words(view.part)
    axes[1].set_title(f"{look.place}: {what}", fontsize=10, pad=5)
    how = "" if view.part == GRAD_CAM else f", {_reduced(look)}"
    size = "no places" if look.resolution == (1, 1) else f"{look.resolution[0]}×{look.resolution[1]}"
    axes[2].set_title(f"{size}{how}", fontsize=10, pad=5)
    _scale(figure, look)
    _probabilities(figure, look)
    return figure


def part_words(part: str) -> str:
    """What a part of a module is called."""
    return PART_WORDS.get(part, f"mask branch at {part}")


def _reduced(look: Look) -> str:
    kind = find_reduction(look.view.reduction)
    return f"{kind.words} of {look.channels}" + ("" if look.view.reduction.startswith("channel") else " channels")


def _scale(figure: Figure, look: Look) -> None:
    """The colours below the map, with the values at both ends."""
    ax = figure.add_axes((0.548, 0.085, 0.135, 0.03))
    ax.set_axis_off()
    ax.imshow(np.linspace(0, 1, 128)[None], aspect="auto", cmap=colours(look.scale))
    for x, value, side in ((0.54, look.scale.low, "right"), (0.691, look.scale.high, "left")):
        figure.text(x, 0.1, f"{value:.3g}", ha=side, va="center", fontsize=9)
    spread = f"all values: mean {look.mean:.3g}, σ {look.std:.2g}, {look.smallest:.3g} to {look.largest:.3g}"
    figure.text(0.008, 0.1, spread, fontsize=9, color=GREY, va="center")


def _probabilities(figure: Figure, look: Look) -> None:
    """Bars of the leading classes; the untouched network's as a tick when a mask was replaced."""
    chosen = top_classes(look)
    ax = figure.add_axes((0.83, 0.14, 0.155, 0.77))
    touched = look.view.intervention != "none"
    values = [100 * look.probabilities[k].item() for k in chosen]
    ax.barh(range(len(chosen)), values, color=ORANGE if touched else BLUE, height=0.6)
    for row, (k, value) in enumerate(zip(chosen, values, strict=True)):
        before = 100 * look.untouched[k].item()
        change = f" ({round(value - before):+d})".replace("+0", "±0") if touched else ""
        end = max(value, before if touched else 0)
        place, side = (value - 2, "right") if value > 60 else (end + 3, "left")  # a long bar holds its own number
        ax.text(place, row, f"{value:.0f}{change}", va="center", ha=side, fontsize=9)
        if touched:
            ax.plot([before, before], [row - 0.38, row + 0.38], color="black", lw=2)
    ax.set_yticks(range(len(chosen)), [look.classes[k] for k in chosen], fontsize=9)
    ax.set(xlim=(0, 100), ylim=(len(chosen) - 0.5, -0.5), xticks=[0, 50, 100])
    bare(ax, left=False, size=9)
    ax.tick_params(pad=2)
    where = "every mask" if look.view.everywhere else "this mask"
    title = f"{where}: {look.view.intervention}" if touched else "probability, %"
    ax.set_title(title, fontsize=10, pad=5)
