"""Figures that hold masks against each other: through training, and of right against wrong predictions.

Arguments, colours and scales are those of `attnet.plots.masks`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.base.files import resolve_path
from attnet.data.splits import Split
from attnet.engine.evaluation import Evaluation
from attnet.masks.reduce import attention_maps
from attnet.model.network import attention_network
from attnet.model.weights import load_weights
from attnet.plots.figure import nothing
from attnet.plots.masks import NO_MASKS
from attnet.plots.sheet import (
    GAP,
    LINE,
    as_batch,
    at_least_one,
    average_words,
    colour_bar,
    describe,
    draw_image,
    draw_map,
    draw_pairs,
    epoch_title,
    make_sheet,
    make_titles,
    shared_scale,
    size_words,
    title_room,
)


def plot_masks_through_training(
    model: nn.Module, weights: Sequence[str | Path], images: Tensor, module: str, reduction: str = "mean"
) -> Figure:
    """How one module's mask comes to be: a row an image, a column a checkpoint, one scale throughout.

    Args:
        model: the network the weights belong to; a copy of it is loaded, so its own weights stay as they are.
        weights: checkpoint files in the order of the columns, for instance `attnet.engine.run_folder.epoch_files(folder)`.
            A relative path starts at the repository root.

    Raises:
        WeightsError: a file that cannot be read, or that fits another network.
    """
    images, network, strips, heads = as_batch(images), copy.deepcopy(attention_network(model)), [], []
    for path in map(resolve_path, weights):
        load_weights(network, path)
        strips += attention_maps(network, images, "mask", reduction, [module], full_size=False).values()
        heads.append(epoch_title(path))
    if not strips:
        return nothing(NO_MASKS if heads else "no weights were kept (keep_epochs)")
    above = [2 * LINE + 0.1, *[GAP] * (len(images) - 1)]
    words = f"{module}, {size_words(strips[0])}: {describe('mask', reduction)}"
    figure, axes = make_sheet(images, above, [GAP] * (len(strips) + 1), 1.3, words)
    scale = shared_scale(strips)
    if any("%" in head for head in heads):
        axes[0, 0].set_title("\nTop-1", fontsize=8, pad=3, loc="right")
    for ax, image in zip(axes[:, 0], images, strict=True):
        draw_image(ax, image)
    for column, head, maps in zip(axes.T[1:], heads, strips, strict=True):
        column[0].set_title(head, fontsize=8 if len(strips) < 14 else 7.5, pad=3)
        for ax, map_ in zip(column, maps, strict=True):
            draw_map(ax, map_, scale)
    colour_bar(figure, axes, scale, describe("mask"))
    return figure


def plot_right_and_wrong(
    model: nn.Module, split: Split, evaluation: Evaluation, module: str, reduction: str = "mean", count: int = 8
) -> Figure:
    """Images the network is surest of, right ones above and wrong ones below, each over its mask.

    The lines above them compare the masks of ALL right and all wrong images of the split: the mean value and its
    spread (the standard deviation over an image's positions), each with the 95 % interval of its mean over images.

    Args:
        split, evaluation: images, and the outputs of this very network on them (`attnet.evaluate`).

    Raises:
        ConfigError: an evaluation of another number of images, or a count below 1.
    """
    at_least_one("count", count)
    if len(split) != len(evaluation.labels):
        raise ConfigError(f"evaluation of {len(evaluation.labels)} images, split of {len(split)}: they must match")
    images = as_batch(split.images)
    maps = attention_maps(model, images, "mask", reduction, [module], full_size=False).get(module)
    if maps is None:
        return nothing(NO_MASKS)
    right = evaluation.predictions == evaluation.labels
    sure = evaluation.logits.softmax(dim=1).amax(dim=1).masked_fill(~right, -1).argsort(descending=True)
    chosen = {"right": sure[: min(count, int(right.sum()))], "wrong": evaluation.mistakes(count)}
    chosen = {word: rows for word, rows in chosen.items() if len(rows)}
    titles = {
        word: make_titles(evaluation.logits[rows], evaluation.classes, evaluation.labels[rows])
        for word, rows in chosen.items()
    }
    above = [room for heads in titles.values() for room in (title_room(heads) + LINE + 0.1, GAP)]
    words = f"{module}, {size_words(maps)}: {describe('mask', reduction)}"
    scale = shared_scale([maps[rows] for rows in chosen.values()])
    figure, axes = make_sheet(images, above, [GAP] * max(map(len, chosen.values())), 1.5, words, least=6.6)
    for here, (word, rows) in zip((axes[:2], axes[2:]), chosen.items(), strict=False):
        draw_pairs(here, images[rows], titles[word], maps[rows], scale)
        flat = maps[right if word == "right" else ~right].flatten(1)
        mean, spread = average_words(flat.mean(dim=1)), average_words(flat.std(dim=1, correction=0))
        words = f"Sure and {word}. All {len(flat):,} {word} images: mean {mean}, spread over positions {spread}"
        box, up = here[0, 0].get_position(), title_room(titles[word]) / figure.get_figheight()
        figure.text(box.x0, box.y1 + up, words, fontsize=8.5, va="bottom")
    colour_bar(figure, axes[:2], scale, describe("mask"))  # not across the line between the halves
    return figure
