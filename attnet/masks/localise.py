"""How well does a map find the object whose pixels are known? Four scores.

Sources: pointing game, Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018; energy-based
pointing game, Wang et al., "Score-CAM", CVPR Workshops 2020; one threshold for a whole set, Choe et al.,
"Evaluating weakly supervised object localization methods right", CVPR 2020.
Shapes are written [N, H, W], maps and objects of the same size; scores are shares in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnet.base.errors import ConfigError
from attnet.base.intervals import Interval, confidence_interval

CHUNK = 2**18  # values worked on at a time, in whole images: bounds the memory, not the results
# A scaled value this little below a threshold counts as on it. Maps often take few values (counts, bytes, steps
# of a hundredth), and float32 rounding would otherwise toss a coin for each that meets a threshold.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Localisation:
    """Scores of N maps against their objects' pixels, each float32 [N] on the CPU, in the maps' order.

    All but `auroc` and `pointing` look at the map scaled to [0, 1] by its own minimum and maximum, and none changes
    when a map is multiplied by a positive number or shifted. A constant map, which has no scale, counts as 1
    everywhere: it points at every pixel alike, and scores the object's area (AUROC: one half).
    """

    # 1 where the map's maximum lies in the object; of tied maxima the share that does.
    pointing: Tensor
    # Probability that a pixel of the object has a larger value than one of the background; ties count half.
    auroc: Tensor
    # Share of the scaled map's sum that lies in the object.
    energy: Tensor
    # Intersection over union of the object and {scaled map >= threshold}.
    iou: Tensor
    # The one threshold for all images, in [0, 1]: that of the best mean IoU on these very images, the lowest of
    # equals. `iou` is thus an upper bound that a threshold chosen elsewhere would not quite reach. Every method is
    # given the same advantage, so they compare fairly; its interval does not cover the choice.
    threshold: float
    # Share of the image that the object covers: what a constant map scores.
    area: Tensor

    def summary(self) -> dict[str, Interval]:
        """Mean and 95 % interval over images of "pointing", "auroc", "iou" and "energy", in this order."""
        return {name: confidence_interval(getattr(self, name)) for name in ("pointing", "auroc", "iou", "energy")}


def localise(maps: Tensor, objects: Tensor, thresholds: int = 101) -> Localisation:
    """Score each map against its object's pixels; see `Localisation` for what the scores mean.

    `iou` takes the threshold that is best on these same images, whatever method the maps come from.

    Args:
        maps: [N, H, W] of any float dtype, larger where the object is thought to be; on any device. Low-resolution
            maps are up-sampled first.
        objects: bool [N, H, W], True on the object; at least one pixel of each image is, and one is not.
        thresholds: how many are tried for `iou`, evenly spaced from 0 to 1, at least 2.

    Raises:
        ConfigError: other shapes or dtypes, no images, an object without pixels or without background, a map whose
            values are not finite; the message names the first such image.
    """
    _check(maps, objects, thresholds)
    levels = torch.linspace(0, 1, thresholds, dtype=torch.float64)
    columns: list[tuple[Tensor, ...]] = []
    tables: list[Tensor] = []
    step = max(1, CHUNK // objects[0].numel())
    for start in range(0, len(maps), step):
        here = slice(start, start + step)
        values, inside = maps[here].detach().cpu().double().flatten(1), objects[here].cpu().flatten(1)
        scaled = _scale(values, start)
        energy = torch.where(inside, scaled, 0).sum(dim=1) / scaled.sum(dim=1)  # the maximum is 1: no sum is 0
        columns.append((_pointing(values, inside), _auroc(values, inside), energy, inside.double().mean(dim=1)))
        tables.append(_overlaps(scaled, inside, levels).float())
    pointing, auroc, energy, area = (torch.cat(column).float() for column in zip(*columns, strict=True))
    table = torch.cat(tables)  # [N, thresholds]
    # A row a threshold: all are then summed in one order, and equal ones have equal means.
    best = int(table.T.double().contiguous().mean(dim=1).argmax())
    return Localisation(pointing, auroc, energy, table[:, best].clone(), levels[best].item(), area)


# -- the scores of a chunk: values and scaled float64 [n, P], inside bool [n, P], P pixels in any order ------------


def _scale(values: Tensor, start: int) -> Tensor:
    """Each row to [0, 1] by its own minimum and maximum; `start` is the first row's index, for the message."""
    low, high = values.aminmax(dim=1, keepdim=True)
    span = high - low
    if not (finite := span.isfinite()).all():  # nan and infinities among the values show in their span
        raise ConfigError(
            f"maps[{start + _first(~finite)}] holds a value that is not finite (or spans more than float64 does): "
            "every value must be finite; repair the map or leave the image out"
        )
    return torch.where(span > 0, (values - low) / span, 1.0)


def _pointing(values: Tensor, inside: Tensor) -> Tensor:
    maxima = values == values.amax(dim=1, keepdim=True)
    return (maxima & inside).sum(dim=1).double() / maxima.sum(dim=1)


def _auroc(values: Tensor, inside: Tensor) -> Tensor:
    """Mann and Whitney's U over the number of pairs; tied values share the average of their ranks."""
    ordered, order = values.sort(dim=1)
    inside = inside.gather(1, order)
    n, pixels = values.shape
    place = torch.arange(pixels).expand(n, -1)
    differs, edge = ordered.diff(dim=1) != 0, torch.ones(n, 1, dtype=torch.bool)
    # Where a run of equal values begins, carried to its end; where it ends, carried back to its beginning.
    first = torch.where(torch.cat((edge, differs), 1), place, 0).cummax(dim=1).values
    last = torch.where(torch.cat((differs, edge), 1), place, pixels).flip(1).cummin(dim=1).values.flip(1)
    doubled = torch.where(inside, first + last + 2, 0).sum(dim=1)  # ranks count from 1; doubled, they are whole
    object_pixels = inside.sum(dim=1)
    wins = (doubled - object_pixels * (object_pixels + 1)).double() / 2
    return wins / (object_pixels * (pixels - object_pixels))


def _overlaps(scaled: Tensor, inside: Tensor, levels: Tensor) -> Tensor:
    """IoU at every threshold, float64 [n, T], from one histogram an image instead of T thresholded maps."""
    n, t = len(scaled), len(levels)
    reached = torch.bucketize(scaled, levels - TOLERANCE, right=True) - 1  # the highest threshold that a value meets
    cell = reached + t * torch.arange(n)[:, None]
    # Pixels that meet a threshold are those whose highest one is this or a later one.
    chosen, hit = (
        cells.bincount(minlength=n * t).view(n, t).flip(1).cumsum(dim=1).flip(1)
        for cells in (cell.flatten(), cell[inside])
    )
    return hit.double() / (chosen + inside.sum(dim=1, keepdim=True) - hit)


def _first(wrong: Tensor) -> int:
    """Index of the first True."""
    return int(wrong.flatten().nonzero()[0])


def _check(maps: Tensor, objects: Tensor, thresholds: int) -> None:
    """All that `localise` asks of its arguments but finite values, which are cheaper to see chunk by chunk."""
    if maps.dim() != 3 or maps.shape != objects.shape:
        raise ConfigError(
            f"maps of shape {list(maps.shape)}, objects of shape {list(objects.shape)}: both must be [N, H, W] of one "
            "size; bring maps to the objects' size with attnet.masks.reduce.upsample"
        )
    if not len(maps):
        raise ConfigError(f"maps of shape {list(maps.shape)}: at least one image is needed")
    if not maps.is_floating_point():
        raise ConfigError(f"maps of dtype {maps.dtype}: a float dtype is needed; use maps.float()")
    if objects.dtype != torch.bool:
        raise ConfigError(f"objects of dtype {objects.dtype}: bool is needed; use objects > 0 or the like")
    if thresholds < 2:
        raise ConfigError(f"thresholds={thresholds}: at least 2 are needed, 0 and 1; 101 gives steps of a hundredth")
    covered = objects.sum(dim=(1, 2)).cpu()
    for what, wrong in (("object", covered == 0), ("background", covered == objects.shape[1] * objects.shape[2])):
        if wrong.any():
            raise ConfigError(
                f"objects[{_first(wrong)}] has no {what} pixel ({int(wrong.sum())} of {len(wrong)} images have none): "
                "each needs at least one of the object and one of the background; leave these images out"
            )
