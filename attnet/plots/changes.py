"""Figures of what further training changed: masks before and after it.

Arguments, colours and scales are those of `attnet.plots.masks`.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor, nn

from attnet.masks.changes import check_comparable, mask_changes
from attnet.masks.reduce import attention_maps
from attnet.plots.figure import BLUE, ORANGE, Picture, nothing
from attnet.plots.masks import NO_MASKS
from attnet.plots.sheet import (
    BOTH_SIGNS,
    GAP,
    LINE,
    as_batch,
    colour_bar,
    describe,
    draw_image,
    draw_map,
    make_sheet,
    make_titles,
    see,
    shared_scale,
    size_words,
)


def plot_masks_before_after(
    before: nn.Module,
    after: nn.Module,
    images: Tensor,
    modules: Sequence[str] | None = None,
    reduction: str = "std",
    classes: Sequence[str] | None = None,
    labels: Sequence[int] | Tensor | None = None,
) -> Figure:
    """Masks of two networks with the same modules, a row a module: before, after, and the difference.

    To see: white differences are masks that stayed; red ones grew, blue ones fell. All masks share one scale, and all
    differences another.

    Args:
        before, after: for instance pretrained weights, and a network that was fine-tuned from them.
        classes, labels: for the titles, which give the prediction of `after`.

    Raises:
        ConfigError: networks with other modules or other numbers of channels.
    """
    images = as_batch(images)
    check_comparable(before, after)
    maps = [attention_maps(model, images, "mask", reduction, modules, full_size=False) for model in (before, after)]
    if not maps[0]:
        return nothing(NO_MASKS)
    changes = {name: maps[1][name] - maps[0][name] for name in maps[0]}
    limit = max(change.abs().max().item() for change in changes.values()) or 1.0
    titles = make_titles(see(after, images, "mask", modules)[0], classes, labels, apart="\n")
    scale, both = shared_scale([map_ for of in maps for map_ in of.values()]), (-limit, limit, BOTH_SIGNS)
    rows, blocks = len(changes), min(len(images), 2)
    above = [2 * LINE + 0.15, *[GAP] * (rows - 1)] * -(-len(images) // 2)
    space = [1.2, GAP, GAP, GAP, 5 * GAP, GAP, GAP, GAP][: 4 * blocks]
    figure, axes = make_sheet(images, above, space, 1.2, describe("mask", reduction), bars=2)
    for row, (name, change) in enumerate(changes.items()):
        for i in range(len(images)):
            line, left = rows * (i // 2) + row, 4 * (i % 2)
            pictures = (maps[0][name][i], scale), (maps[1][name][i], scale), (change[i], both)
            heads = ("before", "after", "after − before")
            for ax, head, (values, limits) in zip(axes[line, left + 1 :], heads, pictures, strict=False):
                draw_map(ax, values, limits)
                ax.set_title(head if row == 0 else "", fontsize=8, pad=3)
            if row == 0:
                draw_image(axes[line, left], images[i], titles[i])
            if left == 0:
                words = f"{name}, {size_words(change)}"
                axes[line, 0].annotate(words, (-0.06, 0.5), xycoords="axes fraction", fontsize=8,
                                       ha="right", va="center", linespacing=1.4)  # fmt: skip
    colour_bar(figure, axes, scale, describe("mask"))
    colour_bar(figure, axes, both, "after − before", slot=1)
    return figure


def plot_mask_changes(before: nn.Module, after: nn.Module, images: Tensor) -> Figure:
    """How much the masks of each module changed over `images`: correlation, and mean absolute change.

    Raises:
        ConfigError: as `plot_masks_before_after`.
    """
    changes = mask_changes(before, after, as_batch(images))
    if not changes:
        return nothing(NO_MASKS)
    figure = Picture(figsize=(9, 0.9 + 0.3 * len(changes)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = list(changes)
    correlations = [change.correlation for change in changes.values()]
    moves = [change.change for change in changes.values()]
    for ax, values, colour in ((left, correlations, BLUE), (right, moves, ORANGE)):
        bars = ax.barh(names, values, color=colour, height=0.7)
        ax.bar_label(bars, [f"{value:.3f}" for value in values], padding=3, fontsize=8)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.tick_params(left=False)
    left.set(xlabel="correlation of the masks before and after", xlim=(min(0, *correlations) * 1.15, 1.15))
    right.set(xlabel="mean absolute change of a mask value", xlim=(0, 1.18 * max(moves) or 1))
    left.invert_yaxis()
    return figure
