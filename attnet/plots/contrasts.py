"""Figures that hold masks against each other: before and after training, through it, of right and wrong predictions.

Arguments, colours and scales are those of `attnet.plots.masks`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

import attnet.plots.sheet as sheet
from attnet.base.errors import ConfigError
from attnet.base.files.paths import resolve_path
from attnet.data.splits import Split
from attnet.engine.evaluation import Evaluation
from attnet.masks.changes import check_comparable, mask_changes
from attnet.masks.reduce import attention_maps
from attnet.masks.scale import robust_scale
from attnet.model.network import attention_network
from attnet.model.weights.formats import read_torch
from attnet.model.weights.loading import load_weights
from attnet.plots.figure import BLUE, ORANGE, Picture, bare, nothing
from attnet.plots.sheet import GAP, LINE, NO_MASKS

__all__ = ["plot_mask_changes", "plot_masks_before_after", "plot_masks_through_training", "plot_right_and_wrong"]


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

    To see: white differences are masks that stayed; red ones grew, blue ones fell. Before and after share the scale
    of their module, which is written beside the row.

    Args:
        before, after: for instance pretrained weights, and a network that was fine-tuned from them.
        classes, labels: for the titles, which give the prediction of `after`.

    Raises:
        ConfigError: networks with other modules or other numbers of channels.
    """
    images = sheet.as_batch(images)
    check_comparable(before, after)
    old, new = (attention_maps(of, images, "mask", reduction, modules, full_size=False) for of in (before, after))
    if not old:
        return nothing(NO_MASKS)
    rows, scales, differences = {}, [], []
    for name in old:
        change = new[name] - old[name]
        scales.append(sheet.scale_of(after, name, torch.cat([old[name], new[name]]), "mask", reduction))
        differences.append(robust_scale(change, 0.0))
        words = f"{name}, {sheet.size_words(change)}\nM {sheet.colours_and_all(scales[-1])}"
        rows[f"{words}\nchange ±{differences[-1].high:.2g}"] = {
            "before": (old[name], scales[-1]),
            "after": (new[name], scales[-1]),
            "after − before": (change, differences[-1]),
        }
    titles = sheet.make_titles(sheet.see(after, images, "mask", modules)[0], classes, labels)
    figure, axes = sheet.draw_modules(images, titles, rows, sheet.describe("mask", reduction))
    sheet.own_bar(figure, axes, scales, sheet.describe("mask"))
    sheet.own_bar(figure, axes, differences, "change", slot=1)
    return figure


def plot_mask_changes(before: nn.Module, after: nn.Module, images: Tensor) -> Figure:
    """How much the masks of each module changed over `images`: correlation, and mean absolute change."""
    changes = mask_changes(before, after, sheet.as_batch(images))
    if not changes:
        return nothing(NO_MASKS)
    figure = Picture(figsize=(9, 0.9 + 0.3 * len(changes)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    correlations = [change.correlation for change in changes.values()]
    moves = [change.change for change in changes.values()]
    for ax, values, colour in ((left, correlations, BLUE), (right, moves, ORANGE)):
        bars = ax.barh(list(changes), values, color=colour, height=0.7)
        ax.bar_label(bars, [f"{value:.3f}" for value in values], padding=3, fontsize=8)
        bare(ax, left=False, size=10)
    left.set(xlabel="correlation of the masks before and after", xlim=(min(0, *correlations) * 1.15, 1.15))
    right.set(xlabel="mean absolute change of a mask value", xlim=(0, 1.18 * max(moves) or 1))
    right.xaxis.set_major_locator(MaxNLocator(4))  # small numbers are long
    left.invert_yaxis()
    return figure


def plot_masks_through_training(
    model: nn.Module, weights: Sequence[str | Path], images: Tensor, module: str, reduction: str = "mean"
) -> Figure:
    """How one module's mask comes to be: a row an image, a column a checkpoint, one scale throughout.

    Args:
        model: the network the weights belong to; a copy of it is loaded, so its own weights stay as they are.
        weights: checkpoint files in the order of the columns, for instance those of
            `attnet.engine.run_folder.epoch_files`. A relative path starts at the repository root.

    Raises:
        WeightsError: a file that cannot be read, or that fits another network.
    """
    images, network, strips, heads = sheet.as_batch(images), copy.deepcopy(attention_network(model)), [], []
    for path in map(resolve_path, weights):
        load_weights(network, path)
        strips += attention_maps(network, images, "mask", reduction, [module], full_size=False).values()
        heads.append(_epoch_title(path))
    if not strips:
        return nothing(NO_MASKS if heads else "no weights were kept (keep_epochs)")
    above = [2 * LINE + 0.1, *[GAP] * (len(images) - 1)]
    words = f"{module}, {sheet.size_words(strips[0])}: {sheet.describe('mask', reduction)}"
    figure, axes = sheet.make_sheet(images, above, [GAP] * (len(strips) + 1), 1.3, words)
    scale = sheet.scale_of(network, module, torch.stack(strips), "mask", reduction)
    if any("%" in head for head in heads):
        axes[0, 0].set_title("\nTop-1", fontsize=8, pad=3, loc="right")
    for ax, image in zip(axes[:, 0], images, strict=True):
        sheet.draw_image(ax, image)
    for column, head, maps in zip(axes.T[1:], heads, strips, strict=True):
        column[0].set_title(head, fontsize=8 if len(strips) < 14 else 7.5, pad=3)
        for ax, map_ in zip(column, maps, strict=True):
            sheet.draw_map(ax, map_, scale)
    sheet.colour_bar(figure, axes, scale, sheet.describe("mask"))
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
    sheet.at_least_one("count", count)
    if len(split) != len(evaluation.labels):
        raise ConfigError(f"evaluation of {len(evaluation.labels)} images, split of {len(split)}: they must match")
    images = sheet.as_batch(split.images)
    maps = attention_maps(model, images, "mask", reduction, [module], full_size=False).get(module)
    if maps is None:
        return nothing(NO_MASKS)
    right = evaluation.predictions == evaluation.labels
    sure = evaluation.logits.softmax(dim=1).amax(dim=1).masked_fill(~right, -1).argsort(descending=True)
    chosen = {"right": sure[: min(count, int(right.sum()))], "wrong": evaluation.mistakes(count)}
    chosen = {word: rows for word, rows in chosen.items() if len(rows)}
    titles = {
        word: sheet.make_titles(evaluation.logits[rows], evaluation.classes, evaluation.labels[rows])
        for word, rows in chosen.items()
    }
    above = [room for heads in titles.values() for room in (sheet.title_room(heads) + LINE + 0.1, GAP)]
    words = f"{module}, {sheet.size_words(maps)}: {sheet.describe('mask', reduction)}"
    scale = sheet.scale_of(model, module, maps[torch.cat([*chosen.values()])], "mask", reduction)
    figure, axes = sheet.make_sheet(images, above, [GAP] * max(map(len, chosen.values())), 1.5, words, least=6.6)
    for here, (word, rows) in zip((axes[:2], axes[2:]), chosen.items(), strict=False):
        sheet.draw_pairs(here, images[rows], titles[word], maps[rows], scale)
        flat = maps[right if word == "right" else ~right].flatten(1)
        mean, spread = _average_words(flat.mean(dim=1)), _average_words(flat.std(dim=1, correction=0))
        words = f"Sure and {word}. All {len(flat):,} {word} images: mean {mean}, spread over positions {spread}"
        box, up = here[0, 0].get_position(), sheet.title_room(titles[word]) / figure.get_figheight()
        figure.text(box.x0, box.y1 + up, words, fontsize=8.5, va="bottom")
    sheet.colour_bar(figure, axes[:2], scale, sheet.describe("mask"))  # not across the line between the halves
    return figure


def _epoch_title(path: Path) -> str:
    """What stands over a checkpoint's column."""
    content = read_torch(path)
    epoch, top1 = content.get("epoch"), content.get("top1")
    return (path.stem if epoch is None else f"epoch {epoch}") + ("\n" if top1 is None else f"\n{top1:.1f} %")


def _average_words(values: Tensor) -> str:
    """Mean ± half its 95 % interval, by the normal approximation: there are many images."""
    half = f" ± {1.96 * values.std() / len(values) ** 0.5:.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{half}"
