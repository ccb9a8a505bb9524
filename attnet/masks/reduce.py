"""From many channels to one map: a class a kind of reduction, in REDUCTIONS; maps for as many images as you like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.capture import capture
from attnet.masks.foreign import has_places, with_masks, without_places
from attnet.model.network import choose_modules


class Reduction:
    """One kind: [N, C, H, W] -> [N, H, W]. `words` is what a title calls it, before "of C channels".

    A kind that `looks_first` is shown all features by `look` before it reduces any.
    """

    words = ""
    looks_first = False

    def look(self, features: Tensor) -> None:
        """See features [N, C, H, W] that will be reduced, a batch at a time."""

    def reduce(self, features: Tensor) -> Tensor:
        """One map an image, in the features' dtype."""
        raise NotImplementedError


class Mean(Reduction):
    """The mean over channels."""

    words = "mean"

    def reduce(self, features: Tensor) -> Tensor:
        return features.mean(dim=1)


class Largest(Reduction):
    """The largest channel at each position."""

    words = "largest"

    def reduce(self, features: Tensor) -> Tensor:
        return features.amax(dim=1)


class Norm(Reduction):
    """The root of the sum of squares over channels."""

    words = "norm"

    def reduce(self, features: Tensor) -> Tensor:
        return features.norm(dim=1)


class Deviation(Reduction):
    """The standard deviation over channels: large where they disagree."""

    words = "deviation"

    def reduce(self, features: Tensor) -> Tensor:
        if features.shape[1] == 1:
            raise ConfigError(
                f"reduction={DEVIATION!r}: does not apply: one channel alone cannot disagree; choose mean"
            )
        return features.std(dim=1, correction=0)


class MainComponent(Reduction):
    """The first principal component of the channel vectors at all positions of all images, with the sign that makes it
    go along with the mean; float32. Mean and covariance are gathered batch by batch in O(C²) memory."""

    words = "main component"
    looks_first = True

    def __init__(self) -> None:
        self.count, self.sum, self.products = 0, 0.0, 0.0

    def look(self, features: Tensor) -> None:
        rows = features.transpose(0, 1).flatten(1).float()  # [C, positions]
        self.count += rows.shape[1]
        self.sum = self.sum + rows.sum(dim=1).cpu().double()
        self.products = self.products + (rows @ rows.T).cpu().double()

    def reduce(self, features: Tensor) -> Tensor:
        if not self.count:
            self.look(features)
        mean = self.sum / self.count
        covariance = self.products / self.count - mean.outer(mean)
        direction = torch.linalg.eigh(covariance).eigenvectors[:, -1]
        # An eigenvector's sign is arbitrary: let the score rise with the mean over channels.
        direction = direction if (covariance.sum(dim=0) @ direction) >= 0 else -direction
        direction, mean = (value.to(features.device, torch.float32) for value in (direction, mean))
        return torch.einsum("nchw,c->nhw", features.float(), direction) - mean @ direction


class Channel(Reduction):
    """One channel alone: "channel:K"."""

    def __init__(self, number: int) -> None:
        self.number, self.words = number, f"channel {number}"

    def reduce(self, features: Tensor) -> Tensor:
        if self.number >= features.shape[1]:
            raise ConfigError(f"reduction='channel:{self.number}': there are channels 0 to {features.shape[1] - 1}")
        return features[:, self.number]


DEVIATION = "std"
REDUCTIONS: dict[str, type[Reduction]] = {
    "mean": Mean,
    "max": Largest,
    "l2": Norm,
    DEVIATION: Deviation,
    "pca": MainComponent,
}


def find_reduction(name: str) -> Reduction:
    """A reduction by its name: one of REDUCTIONS, or "channel:K"; ConfigError for any other."""
    if name in REDUCTIONS:
        return REDUCTIONS[name]()
    kind, _, number = name.partition(":")
    if kind != "channel" or not number.isdecimal():
        raise ConfigError(f"reduction={name!r}: choose one of {', '.join(REDUCTIONS)} or channel:K")
    return Channel(int(number))


def reduce_channels(features: Tensor, reduction: str = "mean") -> Tensor:
    """One map an image from many channels: [N, C, H, W] -> [N, H, W], in the features' dtype (pca: float32).

    Args:
        reduction: "mean", "max", "l2" (root of the sum of squares) or "std" (standard deviation: large where
            channels disagree) over channels; "channel:K" for channel K; "pca": the first principal component of
            the channel vectors at all positions of all N images, with the sign that makes it go along with the mean.

    Raises:
        ConfigError: an unknown reduction, a channel that is not there, or "std" of one channel alone.
    """
    return find_reduction(reduction).reduce(features)


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """[N, h, w] -> [N, H, W] bilinearly, corners on corners, as the mask branch does it."""
    return F.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=True)[:, 0]


def attention_maps(
    model: nn.Module,
    images: Tensor,
    part: str = "mask",
    reduction: str = "mean",
    modules: Sequence[str] | None = None,
    *,
    full_size: bool = True,
    batch_size: int = 100,
    masks: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """A map an image and module, for as many images as you like: one batch of features is held at a time.

    Args:
        part, modules: as `capture`; one part (not "scales"). Modules without it are left out.
        reduction: as `reduce_channels`; what looks first ("pca") takes two passes over the images.
        full_size: up-sampled to the images' size; otherwise as large as the features are.
        masks: as `capture_masks`.

    Returns:
        module -> float32 [N, H, W] on the CPU.

    Raises:
        ConfigError: as `capture` and `reduce_channels`, and for masks without places, [N, C, 1, 1], of which there is
            no map; where `modules` does not name them and others have places, they are left out.
    """
    network, options = with_masks(model, images, masks), {"full_size": full_size, "batch_size": batch_size}
    found = reduced_maps(network, images, part, (reduction,), modules, **options)
    return {name: maps for (name, _), maps in found.items()}


def reduced_maps(
    model: nn.Module,
    images: Tensor,
    part: str = "mask",
    reductions: Sequence[str] = tuple(REDUCTIONS),
    modules: Sequence[str] | None = None,
    *,
    full_size: bool = True,
    batch_size: int = 100,
) -> dict[tuple[str, str], Tensor]:
    """(module, reduction) -> maps, as `attention_maps` for every reduction, in the same passes over the images.

    "std" of masks of one channel is left out where another reduction is asked for.
    """
    wanted = applicable(model, modules, reductions)
    modules = list(wanted)
    first = [name for name in reductions if find_reduction(name).looks_first]
    reducers: dict[tuple[str, str], Reduction] = {}

    def reducer(module: str, name: str) -> Reduction:
        return reducers.setdefault((module, name), find_reduction(name))

    for _, features in _passes(model, images, part, modules, batch_size) if first else ():
        for module, value in features.items():
            for name in first:
                reducer(module, name).look(value)
    maps: dict[tuple[str, str], list[Tensor]] = {}
    for batch, features in _passes(model, images, part, modules, batch_size):
        for name in reductions:
            for module, value in ((module, value) for module, value in features.items() if name in wanted[module]):
                map_ = reducer(module, name).reduce(value).float()
                whole = upsample(map_, batch.shape[-2:]) if full_size else map_
                maps.setdefault((module, name), []).append(whole.cpu())
    return {key: torch.cat(pieces) for key, pieces in maps.items()}


def applicable(model: nn.Module, modules: Sequence[str] | None, reductions: Sequence[str]) -> dict[str, Sequence[str]]:
    """Modules that can have a map, each with the reductions that make one; ConfigError where there is none."""
    chosen = choose_modules(model, modules)
    placeless = [name for name, module in chosen.items() if not has_places(module)]
    if placeless and (modules is not None or len(placeless) == len(chosen)):
        raise ConfigError(f"a map does not apply: {without_places(placeless)}; leave them out")
    others = [name for name in reductions if name != DEVIATION] or reductions
    placed = {name: module for name, module in chosen.items() if name not in placeless}
    return {name: others if module.channels == 1 else reductions for name, module in placed.items()}


def _passes(
    model: nn.Module, images: Tensor, part: str, modules: Sequence[str] | None, batch_size: int
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Batches of images with the wanted part of each module that has it."""
    for batch in (images[None] if images.dim() == 3 else images).split(batch_size):
        features = capture(model, batch, (part,), modules).features
        yield batch, {name: parts[part] for name, parts in features.items() if part in parts}
