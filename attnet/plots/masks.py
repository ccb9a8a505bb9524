"""Figures of the attention masks: the paper's figure 1, overlays, a module over many images, channels.

Everywhere `model` is a network of `attnet.build_model`, wrapped or not; `images` are uint8, or float in [0, 1],
[N, 3, H, W]; `classes` name the outputs (without them: "class 3"). Titles give the predicted class and its softmax
confidence; with the true `labels` they are green when right, and red with "is cat" when wrong. `part` and `reduction`
are those of `attnet.masks.reduce.attention_maps`; a wrong one, or an unknown module, raises its ConfigError.

Each module has its own scale (`attnet.masks.scale`): masks go from blue through white, the value that favours nothing
(0.5), to red, as far as 98 % of the values go, and the whole range is written beside; features and what has no such
value are viridis where of one sign. Maps are drawn cell by cell as the module computes them; only overlays are smooth.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017, figure 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

import attnet.plots.sheet as sheet
from attnet.base.errors import ConfigError
from attnet.masks.capture import capture
from attnet.masks.reduce import reduce_channels, upsample
from attnet.masks.scale import Scale, robust_scale
from attnet.model.network import attention_network, choose_modules
from attnet.plots.figure import nothing
from attnet.plots.sheet import GAP, LINE, NO_MASKS

__all__ = ["overlay", "plot_channels", "plot_figure1", "plot_module", "plot_overlays"]


def overlay(image: Tensor, map_: Tensor, strength: float, scale: Scale) -> np.ndarray:
    """A map in colours over its image: float64 [H, W, 3] in [0, 1].

    Where a scale has a centre, colours are the stronger the farther a value is from it: what the mask does not favour
    lets the image through.

    Args:
        image: uint8, or float in [0, 1], [3, H, W].
        map_: [h, w] of any size; up-sampled bilinearly to the image's.
        strength: share of the colours, at the ends of a scale with a centre: 0 is the image alone.
        scale: what the colours span; what lies beyond gets the end's colour.

    Raises:
        ConfigError: a strength outside 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength={strength!r}: a number from 0 (image alone) to 1 (full colours) is needed")
    if map_.shape != image.shape[-2:]:
        map_ = upsample(map_[None].float(), image.shape[-2:])[0]
    values = ((sheet.as_numbers(map_).astype(float) - scale.low) / max(scale.high - scale.low, 1e-12)).clip(0, 1)
    colour = mpl.colormaps[sheet.colours(scale)](values)[..., :3]
    share = strength * (np.abs(2 * values - 1) if scale.centre is not None else np.ones_like(values))[..., None]
    return ((1 - share) * sheet.as_pixels(image) + share * colour).clip(0, 1)


def plot_figure1(
    model: nn.Module,
    images: Tensor,
    modules: Sequence[str] | None = None,
    channels: Mapping[str, int] | None = None,
    classes: Sequence[str] | None = None,
    labels: Sequence[int] | Tensor | None = None,
) -> Figure:
    """The paper's figure 1: a feature before the soft mask, the mask, the feature after it; a row a module.

    To see: where the mask is blue the feature is held back, where it is red it is let through (at 0 it stays as it
    was, at 1 it is doubled). Both pictures of a feature share the limit written beside their row, and so does the
    mask of all images: 98 % of the values lie within.

    Args:
        channels: module -> the channel to show; where not given, that whose mask has the largest standard
            deviation over positions, on average over these images.

    Raises:
        ConfigError: an unknown module, or a channel that is not there.
    """
    images, network, channels = sheet.as_batch(images), attention_network(model), dict(channels or {})
    choose_modules(network, list(channels))
    seen = capture(network, images, ("trunk", "mask", "masked"), modules)
    after = "(1 + M)·T" if network.variant.combine == "residual" else "M·T"
    rows, scales = {}, []
    for name, parts in seen.features.items():
        if "mask" not in parts:
            continue
        spread = parts["mask"].float().std(dim=(2, 3), correction=0).mean(dim=0)
        channel = channels.get(name, int(spread.argmax()))
        if not 0 <= channel < len(spread):
            raise ConfigError(f"channels[{name!r}]={channel}: there are channels 0 to {len(spread) - 1}")
        trunk, mask, masked = (parts[part][:, channel] for part in ("trunk", "mask", "masked"))
        feature, scale = robust_scale(torch.stack([trunk, masked]), 0.0), sheet.scale_of(network, name, mask)
        words = f"{name}, {sheet.size_words(mask)}\nchannel {channel}\nM {sheet.colours_and_all(scale)}"
        columns = {"before: T": (trunk, feature), "soft mask M": (mask, scale), f"after: {after}": (masked, feature)}
        rows[f"{words}\nfeature ±{feature.high:.2g}"] = columns
        scales.append(scale)
    if not rows:
        return nothing(NO_MASKS)
    figure, axes = sheet.draw_modules(images, sheet.make_titles(seen.logits, classes, labels), rows)
    sheet.own_bar(figure, axes, scales, "soft mask M")
    sheet.own_bar(figure, axes, [robust_scale(torch.zeros(1), 0.0)], "feature", slot=1)
    return figure


def plot_overlays(
    model: nn.Module,
    image: Tensor,
    modules: Sequence[str] | None = None,
    part: str = "mask",
    reduction: str = "mean",
    strength: float = 0.8,
    classes: Sequence[str] | None = None,
    label: int | None = None,
) -> Figure:
    """One image [3, H, W] beside every module's map laid over it.

    Titles give what the colours of each span, and the map's own range.
    """
    images = sheet.as_batch(image)[:1]
    logits, features = sheet.see(model, images, part, modules)
    maps = {name: reduce_channels(values, reduction).float() for name, values in features.items()}
    if not maps:
        return nothing(NO_MASKS)
    columns = min(len(maps) + 1, 7)
    above = [3 * LINE + 0.1] * -(-(len(maps) + 1) // columns)
    figure, axes = sheet.make_sheet(images, above, [GAP] * columns, 2.0, sheet.describe(part, reduction))
    scales = {name: sheet.scale_of(model, name, map_, part, reduction) for name, map_ in maps.items()}
    sheet.draw_image(axes[0, 0], images[0], sheet.make_titles(logits, classes, None if label is None else [label])[0])
    factor = max(1, round(192 / max(images.shape[-2:])))  # enlarged: the map smooth over pixels that stay sharp
    large = images[0].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    for ax, (name, map_) in zip(axes.flat[1:], maps.items(), strict=False):
        fine = F.interpolate(upsample(map_, images.shape[-2:])[None], scale_factor=factor, mode="bilinear")[0, 0]
        scale = scales[name]
        ax.imshow(overlay(large, fine, strength, scale), interpolation="nearest")
        ax.set_title(f"{name}\n{sheet.colours_and_all(scale)}", fontsize=8, pad=3)
    sheet.own_bar(figure, axes, list(scales.values()), sheet.describe(part))
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
    strength: float = 1.0,
) -> Figure:
    """One module over many images: each image above its map, `columns` of them a row.

    With a `strength` below 1 the map is laid over the image, as by `overlay`; 1 shows it alone, cell by cell.
    """
    sheet.at_least_one("columns", columns)
    images = sheet.as_batch(images)
    logits, features = sheet.see(model, images, part, [module])
    if not features:
        return nothing(NO_MASKS)
    maps = reduce_channels(features[module], reduction).float()
    titles, scale = sheet.make_titles(logits, classes, labels), sheet.scale_of(model, module, maps, part, reduction)
    columns = min(columns, len(images))
    above = [sheet.title_room(titles), GAP] * -(-len(images) // columns)
    words = f"{module}, {sheet.size_words(maps)}: {sheet.describe(part, reduction)}"
    figure, axes = sheet.make_sheet(images, above, [GAP] * columns, 1.5, words)
    sheet.draw_pairs(axes, images, titles, maps, scale)
    for ax, image, map_ in zip(axes[1::2].flat, images, maps, strict=False) if strength != 1 else ():
        ax.imshow(overlay(image, map_, strength, scale), interpolation="nearest", aspect="auto")
    sheet.colour_bar(figure, axes, scale, sheet.describe(part))
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
    sheet.at_least_one("count", count)
    if order not in ("variation", "number"):
        raise ConfigError(f"order={order!r}: choose variation or number")
    images = sheet.as_batch(image)[:1]
    logits, features = sheet.see(model, images, part, [module])
    if not features:
        return nothing(NO_MASKS)
    maps = features[module][0].float()
    spread = maps.flatten(1).std(dim=1, correction=0)
    ranked = spread.argsort(descending=True, stable=True) if order == "variation" else torch.arange(len(maps))
    numbers = ranked[:count].tolist()
    which = "those that vary most over positions first" if order == "variation" else "as they come"
    what = f"{module}, {sheet.size_words(maps)}: {sheet.describe(part)}"
    words = f"{what}, {len(numbers)} of {len(maps)} channels, {which}"
    titles = sheet.make_titles(logits, classes, None if label is None else [label], apart="\n")
    columns = min(len(numbers) + 1, 11)
    above = [sheet.title_room(titles), *[LINE + GAP] * (-(-(len(numbers) + 1) // columns) - 1)]
    figure, axes = sheet.make_sheet(images, above, [GAP] * columns, 1.2, words)
    scale = sheet.scale_of(model, module, maps[numbers], part)
    sheet.draw_image(axes[0, 0], images[0], titles[0])
    for ax, number in zip(axes.flat[1:], numbers, strict=False):
        sheet.draw_map(ax, maps[number], scale)
        ax.set_title(str(number), fontsize=8, pad=2)
    sheet.colour_bar(figure, axes, scale, sheet.describe(part))
    return figure
