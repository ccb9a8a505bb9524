"""Figures of the attention masks: the paper's figure 1, overlays, a module over many images, channels.

Everywhere `model` is a network of `attnet.build_model`, wrapped or not; `images` are uint8, or float in [0, 1],
[N, 3, H, W]; `classes` name the outputs (without them: "class 3"). Titles give the predicted class and its softmax
confidence; with the true `labels` they are green when right, and red with "is cat" when wrong. `part` and `reduction`
are those of `attnet.masks.reduce.attention_maps`; a wrong one, or an unknown module, raises its ConfigError.

Pictures that are compared share one scale and one colour bar: viridis for values of one sign, blue through white
(zero) to red for both. Maps are drawn cell by cell as the module computes them; only overlays are smooth.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017, figure 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.capture import capture
from attnet.masks.reduce import reduce_channels, upsample
from attnet.model.network import attention_network, choose_modules
from attnet.plots.figure import nothing
from attnet.plots.sheet import (
    BOTH_SIGNS,
    GAP,
    LINE,
    ONE_SIGN,
    as_batch,
    as_numbers,
    as_pixels,
    at_least_one,
    colour_bar,
    describe,
    draw_image,
    draw_map,
    draw_pairs,
    make_sheet,
    make_titles,
    mask_scale,
    see,
    shared_scale,
    size_words,
    title_room,
)

NO_MASKS = "attention='none' has no masks"


def overlay(
    image: Tensor, map_: Tensor, strength: float, low: float, high: float, colours: str = ONE_SIGN
) -> np.ndarray:
    """A map in colours over the greyed image: float64 [H, W, 3] in [0, 1].

    Args:
        image: uint8, or float in [0, 1], [3, H, W].
        map_: [h, w] of any size; up-sampled bilinearly to the image's.
        strength: share of the colours: 0 is the grey image alone, 1 the map alone.
        low, high: the values at the two ends of the colour map; what lies beyond gets the end's colour.
        colours: name of a matplotlib colour map.

    Raises:
        ConfigError: a strength outside 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength={strength!r}: a number from 0 (image alone) to 1 (map alone) is needed")
    if map_.shape != image.shape[-2:]:
        map_ = upsample(map_[None].float(), image.shape[-2:])[0]
    values = (as_numbers(map_).astype(float) - low) / max(high - low, 1e-12)
    colour = mpl.colormaps[colours](values.clip(0, 1))[..., :3]
    grey = as_pixels(image) @ np.array([0.299, 0.587, 0.114])  # brightness as ITU-R BT.601 weighs it
    return ((1 - strength) * grey[..., None] + strength * colour).clip(0, 1)


def plot_figure1(
    model: nn.Module,
    images: Tensor,
    modules: Sequence[str] | None = None,
    channels: Mapping[str, int] | None = None,
    classes: Sequence[str] | None = None,
    labels: Sequence[int] | Tensor | None = None,
) -> Figure:
    """The paper's figure 1: a feature before the soft mask, the mask, the feature after it; a row a module.

    To see: where the mask is near 0 the feature stays as it was, where it is near 1 the feature is doubled. Both
    pictures of a feature share the limit written beside their row (99.5 % of the values of all images lie within);
    masks are drawn from 0 to 1 throughout, or from -1 to 1 where the attention type is "channel".

    Args:
        channels: module -> the channel to show; where not given, that whose mask has the largest standard
            deviation over positions, on average over these images.

    Raises:
        ConfigError: an unknown module, or a channel that is not there.
    """
    images, network, channels = as_batch(images), attention_network(model), dict(channels or {})
    choose_modules(network, list(channels))
    seen = capture(network, images, ("trunk", "mask", "masked"), modules)
    features = {name: parts for name, parts in seen.features.items() if "mask" in parts}
    if not features:
        return nothing(NO_MASKS)
    rows, blocks = len(features), min(len(images), 2)  # two images side by side
    heads = make_titles(seen.logits, classes, labels)
    top = title_room(heads) if rows < 3 else LINE + 0.15  # of three rows and more, the image stands in the middle
    above = [top, *[GAP] * (rows - 1)] * -(-len(images) // 2)
    before = [1.2, 3 * GAP, GAP, GAP, 5 * GAP, 3 * GAP, GAP, GAP][: 4 * blocks]
    figure, axes = make_sheet(images, above, before, 1.4, bars=2)
    after = "(1 + M)·T" if network.variant.combine == "residual" else "M·T"
    for row, (name, parts) in enumerate(features.items()):
        spread = parts["mask"].float().std(dim=(2, 3), correction=0).mean(dim=0)
        channel = channels.get(name, int(spread.argmax()))
        if not 0 <= channel < len(spread):
            raise ConfigError(f"channels[{name!r}]={channel}: there are channels 0 to {len(spread) - 1}")
        trunk, mask, masked = (as_numbers(parts[part][:, channel]) for part in ("trunk", "mask", "masked"))
        limit = float(np.quantile(np.abs([trunk, masked]), 0.995)) or 1.0
        columns = {"before: T": trunk, "soft mask M": mask, f"after: {after}": masked}
        for i in range(len(images)):
            first, left = rows * (i // 2), 4 * (i % 2)
            for ax, (head, values) in zip(axes[first + row, left + 1 :], columns.items(), strict=False):
                draw_map(ax, values[i], mask_scale(network) if values is mask else (-limit, limit, BOTH_SIGNS))
                ax.set_title(head if row == 0 else "", fontsize=8, pad=3)
            if row == 0:
                draw_image(axes[first + (rows - 1) // 2, left], images[i], heads[i])
            if left == 0:
                words = f"{name}, {size_words(parts['mask'])}\nchannel {channel}\nfeature ±{limit:.2g}"
                axes[first + row, 0].annotate(words, (-0.06, 0.5), xycoords="axes fraction", fontsize=8, ha="right",
                                              va="center", linespacing=1.4)  # fmt: skip
    colour_bar(figure, axes, mask_scale(network), "soft mask M")
    bar = colour_bar(figure, axes, (-1, 1, BOTH_SIGNS), "feature", slot=1)
    bar.set_ticks([-1, 0, 1], labels=["− limit", "0", "+ limit"])
    return figure


def plot_overlays(
    model: nn.Module,
    image: Tensor,
    modules: Sequence[str] | None = None,
    part: str = "mask",
    reduction: str = "mean",
    strength: float = 0.6,
    classes: Sequence[str] | None = None,
    label: int | None = None,
) -> Figure:
    """One image [3, H, W] beside every module's map laid over it; titles give each map's own range."""
    images = as_batch(image)[:1]
    logits, features = see(model, images, part, modules)
    maps = {name: reduce_channels(values, reduction).float() for name, values in features.items()}
    if not maps:
        return nothing(NO_MASKS)
    columns = min(len(maps) + 1, 7)
    above = [2 * LINE + 0.1] * -(-(len(maps) + 1) // columns)
    figure, axes = make_sheet(images, above, [GAP] * columns, 2.0, describe(part, reduction))
    scale = shared_scale(list(maps.values()))
    digits = max(0, 2 - math.floor(math.log10(scale[1] - scale[0])))
    draw_image(axes[0, 0], images[0], make_titles(logits, classes, None if label is None else [label])[0])
    factor = max(1, round(192 / max(images.shape[-2:])))  # enlarged: the map smooth over pixels that stay sharp
    large = images[0].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    for ax, (name, map_) in zip(axes.flat[1:], maps.items(), strict=False):
        fine = F.interpolate(upsample(map_, images.shape[-2:])[None], scale_factor=factor, mode="bilinear")[0, 0]
        ax.imshow(overlay(large, fine, strength, *scale), interpolation="nearest")
        words = f"{name}\n{map_.min():.{digits}f} to {map_.max():.{digits}f}"
        ax.set_title(words.replace("-", "−"), fontsize=8, pad=3)
    colour_bar(figure, axes, scale, describe(part))
    return figure


def plot_module(
    model: nn.Module,
    images: Tensor,
    module: str,
    part: str = "mask",
    reduction: str = "mean",
    classes: Sequence[str] | None = None,
    labels: Sequence[int] | Tensor | None = None,
    columns: int = 8,
) -> Figure:
    """One module over many images: each image above its map, `columns` of them a row."""
    at_least_one("columns", columns)
    images = as_batch(images)
    logits, features = see(model, images, part, [module])
    if not features:
        return nothing(NO_MASKS)
    maps = reduce_channels(features[module], reduction).float()
    titles, columns, scale = make_titles(logits, classes, labels), min(columns, len(images)), shared_scale([maps])
    above = [title_room(titles), GAP] * -(-len(images) // columns)
    words = f"{module}, {size_words(maps)}: {describe(part, reduction)}"
    figure, axes = make_sheet(images, above, [GAP] * columns, 1.5, words)
    draw_pairs(axes, images, titles, maps, scale)
    colour_bar(figure, axes, scale, describe(part))
    return figure


def plot_channels(
    model: nn.Module,
    image: Tensor,
    module: str,
    part: str = "mask",
    count: int = 32,
    order: str = "variation",
    classes: Sequence[str] | None = None,
    label: int | None = None,
) -> Figure:
    """The channels of one module for one image [3, H, W], which comes first; each with its number.

    Args:
        count: how many at most.
        order: "variation": those with the largest standard deviation over positions first; "number": as they come.

    Raises:
        ConfigError: another order, or a count below 1.
    """
    at_least_one("count", count)
    if order not in ("variation", "number"):
        raise ConfigError(f"order={order!r}: choose variation or number")
    images = as_batch(image)[:1]
    logits, features = see(model, images, part, [module])
    if not features:
        return nothing(NO_MASKS)
    maps = features[module][0].float()
    spread = maps.flatten(1).std(dim=1, correction=0)
    ranked = spread.argsort(descending=True, stable=True) if order == "variation" else torch.arange(len(maps))
    numbers = ranked[:count].tolist()
    which = "those that vary most over positions first" if order == "variation" else "as they come"
    words = f"{module}, {size_words(maps)}: {describe(part)}, {len(numbers)} of {len(maps)} channels, {which}"
    titles = make_titles(logits, classes, None if label is None else [label], apart="\n")
    columns = min(len(numbers) + 1, 11)
    above = [title_room(titles), *[LINE + GAP] * (-(-(len(numbers) + 1) // columns) - 1)]
    figure, axes = make_sheet(images, above, [GAP] * columns, 1.2, words)
    scale = mask_scale(attention_network(model)) if part == "mask" else shared_scale([maps[numbers]])
    draw_image(axes[0, 0], images[0], titles[0])
    for ax, number in zip(axes.flat[1:], numbers, strict=False):
        draw_map(ax, maps[number], scale)
        ax.set_title(str(number), fontsize=8, pad=2)
    colour_bar(figure, axes, scale, describe(part))
    return figure
