"""Look at the attention masks: capture them, and all that surrounds them, without touching the forward code.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017, figure 1 and section 3.
Shapes are written [N, C, H, W]; a part has the resolution of its module, which halves from stage to stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.errors import ConfigError
from attnet.layers import AttentionModule, MaskLevel
from attnet.model import ResidualAttentionNetwork, evaluating, memory_format, uncompiled, unwrap

# What there is to see in an attention module besides the scales of its mask branch ("1/2", "1/4" ...):
# x, what both branches read; T, the paper's "feature before mask"; M, the soft mask; (1 + M)·T, "feature after mask".
PARTS = ("input", "trunk", "mask", "masked")
REDUCTIONS = ("mean", "max", "l2", "std", "pca")  # and "channel:K"


@dataclass(frozen=True)
class Capture:
    """One forward pass: `logits` [N, K], and `features[module][part]` [N, C, H, W], modules in forward order."""

    logits: Tensor
    features: dict[str, dict[str, Tensor]]


def capture_masks(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The attention masks of `images`, in forward order; `capture` gives everything around them as well.

    Args:
        model: a network from `build_model`; DDP- or compile-wrapped is fine. Its train/eval state is restored.
        images: [N, 3, S, S] (or one, [3, S, S]), float in [0, 1] or uint8, which is scaled; on any device.

    Returns:
        "stage1.0", "stage2.0" ... -> [N, C, H, W] on the model's device, in (0, 1) for the default attention
        type. A network built with `attention="none"` has no masks: the dict is empty.

    Raises:
        ConfigError: a model without attention modules, or images of another shape.
    """
    return {name: parts["mask"] for name, parts in capture(model, images).features.items() if parts}


def capture(
    model: nn.Module, images: Tensor, parts: Sequence[str] = ("mask",), modules: Sequence[str] | None = None
) -> Capture:
    """Run `images` through a network in evaluation mode and keep what its attention modules compute.

    Args:
        model, images: as `capture_masks`.
        parts: of each module: "input" x, "trunk" T (the paper's feature before mask), "mask" M, "masked"
            (1 + M)·T (feature after mask), a scale of the mask branch as "1/2", "1/4" ... of the module's
            resolution ("1" where the branch does not pool), or "scales" for all of these. A scale is the output
            of its level: the coarsest as computed there, the others on the way up, after the sum.
        modules: names from `attention_modules()`; None: all.

    Returns:
        Logits and parts. A module lacks the parts it does not have: no mask with `attention="none"`, no "1/4"
        where the mask branch pools once.

    Raises:
        ConfigError: an unknown module, or a part that no module has.
    """
    network = attention_network(model)
    chosen = choose_modules(network, modules)
    known = {*PARTS, "scales", *(part for module in chosen.values() for part in module_parts(module))}
    if unknown := [part for part in parts if part not in known]:
        raise ConfigError(f"parts={unknown[0]!r}: choose from {', '.join(sorted(known))}")
    features: dict[str, dict[str, Tensor]] = {name: {} for name in chosen}
    handles = []
    try:
        for name, module in chosen.items():
            handles += _watch(module, set(parts), features[name])
        with evaluating(network), uncompiled():
            logits = network(as_input(network, images))
    finally:
        for handle in handles:
            handle.remove()
    return Capture(
        logits,
        {name: {p: features[name][p] for p in module_parts(chosen[name]) if p in features[name]} for name in chosen},
    )


def attention_network(model: nn.Module) -> ResidualAttentionNetwork:
    """The network inside its wrappers; ConfigError when it is of another kind."""
    network = unwrap(model)
    if not hasattr(network, "attention_modules"):
        raise ConfigError(
            f"model is a {type(network).__name__}: masks are those of networks from attnet.build_model "
            f"({type(network).__name__} has no attention_modules)"
        )
    return network


def choose_modules(model: nn.Module, names: Sequence[str] | str | None = None) -> dict[str, AttentionModule]:
    """Attention modules by name, in forward order; None: all. ConfigError for a name that is not there."""
    modules = attention_network(model).attention_modules()
    names = [names] if isinstance(names, str) else names
    for name in names or ():
        if name not in modules:
            raise ConfigError(f"module={name!r}: this network has {', '.join(modules)}")
    return {name: module for name, module in modules.items() if names is None or name in names}


def module_parts(module: AttentionModule) -> tuple[str, ...]:
    """The parts that `capture` can give of a module, finest scale first."""
    if module.mask is None:
        return ("input", "trunk", "masked")
    return (*PARTS, *mask_levels(module))


def as_input(network: nn.Module, images: Tensor) -> Tensor:
    """Images as the network takes them: [N, 3, S, S] in its dtype on its device; uint8 is scaled to [0, 1]."""
    images = images[None] if images.dim() == 3 else images
    if images.dim() != 4 or images.shape[1] != 3:
        raise ConfigError(f"images of shape {list(images.shape)}: [N, 3, H, W] or [3, H, W] is needed")
    weight = next(network.parameters())
    if not images.is_floating_point():
        images = images.to(torch.float32) / 255
    return images.to(weight.device, weight.dtype, memory_format=memory_format(network))


def mask_levels(module: AttentionModule) -> dict[str, MaskLevel]:
    """The levels of a mask branch by their resolution: "1/2", "1/4" ...; "1" where it does not pool."""
    level, side, found = module.mask.levels, 2 if module.mask.depth else 1, {}
    while level is not None:
        found["1" if side == 1 else f"1/{side}"] = level
        level, side = level.below, 2 * side
    return found


def _watch(module: AttentionModule, parts: set[str], into: dict[str, Tensor]) -> list:
    """Hooks that keep the wanted parts of a module as they pass by."""
    handles = []

    def keep(place: nn.Module, part: str, value: Callable[[tuple, Tensor], Tensor]) -> None:
        def hook(_module: nn.Module, inputs: tuple, output: Tensor) -> None:
            into[part] = value(inputs, output).detach()

        handles.append(place.register_forward_hook(hook))

    for part in parts & {"input", "trunk"}:
        keep(module.trunk, part, (lambda inputs, _: inputs[0]) if part == "input" else (lambda _, output: output))
    if "masked" in parts:
        keep(module.post, "masked", lambda inputs, _: inputs[0])
    if module.mask is not None:
        if "mask" in parts:
            keep(module.mask, "mask", lambda _, output: output)
        for name, level in mask_levels(module).items():
            if "scales" in parts or name in parts:
                keep(level, name, lambda _, output: output)
    return handles


# -- from channels to a map --------------------------------------------------------------------------------------


def reduce_channels(features: Tensor, reduction: str = "mean") -> Tensor:
    """One map an image from many channels: [N, C, H, W] -> [N, H, W], in the features' dtype (pca: float32).

    Args:
        reduction: "mean", "max", "l2" (root of the sum of squares) or "std" (standard deviation: large where
            channels disagree) over channels; "channel:K" for channel K; "pca": the first principal component of
            the channel vectors at all positions of all N images, with the sign that makes it go along with the mean.

    Raises:
        ConfigError: an unknown reduction, or a channel that is not there.
    """
    if reduction == "pca":
        moments = _Moments()
        moments.add(features)
        return moments.project(features)
    if reduction == "mean":
        return features.mean(dim=1)
    if reduction == "max":
        return features.amax(dim=1)
    if reduction == "l2":
        return features.norm(dim=1)
    if reduction == "std":
        return features.std(dim=1, correction=0)
    kind, _, number = reduction.partition(":")
    if kind != "channel" or not number.isdecimal():
        raise ConfigError(f"reduction={reduction!r}: choose one of {', '.join(REDUCTIONS)} or channel:K")
    if int(number) >= features.shape[1]:
        raise ConfigError(f"reduction={reduction!r}: there are channels 0 to {features.shape[1] - 1}")
    return features[:, int(number)]


class _Moments:
    """Mean and covariance of channel vectors, gathered batch by batch; O(C²) memory."""

    def __init__(self) -> None:
        self.count, self.sum, self.products = 0, 0.0, 0.0

    def add(self, features: Tensor) -> None:
        rows = features.transpose(0, 1).flatten(1).float()  # [C, positions]
        self.count += rows.shape[1]
        self.sum = self.sum + rows.sum(dim=1).cpu().double()
        self.products = self.products + (rows @ rows.T).cpu().double()

    def project(self, features: Tensor) -> Tensor:
        """Scores on the first principal component, [N, H, W]."""
        mean = self.sum / self.count
        covariance = self.products / self.count - mean.outer(mean)
        direction = torch.linalg.eigh(covariance).eigenvectors[:, -1]
        # An eigenvector's sign is arbitrary: let the score rise with the mean over channels.
        direction = direction if (covariance.sum(dim=0) @ direction) >= 0 else -direction
        direction, mean = (value.to(features.device, torch.float32) for value in (direction, mean))
        return torch.einsum("nchw,c->nhw", features.float(), direction) - mean @ direction


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
) -> dict[str, Tensor]:
    """A map an image and module, for as many images as you like: one batch of features is held at a time.

    Args:
        part, modules: as `capture`; one part (not "scales"). Modules without it are left out.
        reduction: as `reduce_channels`; "pca" looks at all images (two passes over them).
        full_size: up-sampled to the images' size; otherwise as large as the features are.

    Returns:
        module -> float32 [N, H, W] on the CPU.
    """
    moments: dict[str, _Moments] = {}
    if reduction == "pca":
        for _, features in _passes(model, images, part, modules, batch_size):
            for name, value in features.items():
                moments.setdefault(name, _Moments()).add(value)
    maps: dict[str, list[Tensor]] = {}
    for batch, features in _passes(model, images, part, modules, batch_size):
        for name, value in features.items():
            map_ = moments[name].project(value) if moments else reduce_channels(value, reduction).float()
            maps.setdefault(name, []).append((upsample(map_, batch.shape[-2:]) if full_size else map_).cpu())
    return {name: torch.cat(pieces) for name, pieces in maps.items()}


def _passes(
    model: nn.Module, images: Tensor, part: str, modules: Sequence[str] | None, batch_size: int
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Batches of images with the wanted part of each module that has it."""
    for batch in (images[None] if images.dim() == 3 else images).split(batch_size):
        features = capture(model, batch, (part,), modules).features
        yield batch, {name: parts[part] for name, parts in features.items() if part in parts}
