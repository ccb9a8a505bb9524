"""Look at the attention masks: capture them, and all that surrounds them, without touching the forward code.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017, figure 1 and section 3.
Shapes are written [N, C, H, W]; a part has the resolution of its module, which halves from stage to stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.foreign import ForeignMask, with_masks
from attnet.model.modules import PARTS, AttentionModule, mask_levels, module_parts
from attnet.model.network import choose_modules, evaluating, memory_format, uncompiled


@dataclass(frozen=True)
class Capture:
    """One forward pass: `logits` [N, K], and `features[module][part]` [N, C, H, W], modules in forward order."""

    logits: Tensor
    features: dict[str, dict[str, Tensor]]


def capture_masks(model: nn.Module, images: Tensor, masks: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """The attention masks of `images`, in forward order; `capture` gives everything around them as well.

    Args:
        model: a network from `build_model`; DDP- or compile-wrapped is fine. Its train/eval state is restored.
        images: [N, 3, S, S] (or one, [3, S, S]), float in [0, 1] or uint8, which is scaled; on any device.
        masks: of another network: a name -> the path of the module that returns the mask; see `Foreign`, which
            `model` may be as well.

    Returns:
        "stage1.0", "stage2.0" ... -> [N, C, H, W] on the model's device, in (0, 1) for the default attention
        type. A network built with `attention="none"` has no masks: the dict is empty. With `masks` its names -> what
        these modules return, [N, C, H, W], [N, C, 1, 1] or [N, 1, H, W].

    Raises:
        ConfigError: a model without attention modules, or images of another shape; with `masks` as `Foreign`.
    """
    return {name: parts["mask"] for name, parts in capture(model, images, masks=masks).features.items() if parts}


def capture(
    model: nn.Module,
    images: Tensor,
    parts: Sequence[str] = ("mask",),
    modules: Sequence[str] | None = None,
    *,
    masks: Mapping[str, str] | None = None,
) -> Capture:
    """Run `images` through a network in evaluation mode and keep what its attention modules compute.

    Args:
        model, images, masks: as `capture_masks`.
        parts: of each module: "input" x, "trunk" T (the paper's feature before mask), "mask" M, "masked"
            (1 + M)·T (feature after mask), a scale of the mask branch as "1/2", "1/4" ... of the module's
            resolution ("1" where the branch does not pool), or "scales" for all of these. A scale is the output
            of its level: the coarsest as computed there, the others on the way up, after the sum. Of another network
            "mask" alone.
        modules: names from `attention_modules()`; None: all.

    Returns:
        Logits and parts. A module lacks the parts it does not have: no mask with `attention="none"`, no "1/4"
        where the mask branch pools once.

    Raises:
        ConfigError: an unknown module, or a part that no module has; with `masks` as `Foreign`.
    """
    network = with_masks(model, images, masks)
    chosen = choose_modules(network, modules)
    if any(isinstance(module, ForeignMask) for module in chosen.values()) and (other := set(parts) - {"mask"}):
        raise ConfigError(
            f"parts={min(other)!r}: only attention modules of attnet.build_model have it; of the modules that masks= "
            'names there is "mask" alone'
        )
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


def as_input(network: nn.Module, images: Tensor) -> Tensor:
    """Images as the network takes them: [N, 3, S, S] in its dtype on its device; uint8 is scaled to [0, 1]."""
    images = images[None] if images.dim() == 3 else images
    if images.dim() != 4 or images.shape[1] != 3:
        raise ConfigError(f"images of shape {list(images.shape)}: [N, 3, H, W] or [3, H, W] is needed")
    weight = next(network.parameters())
    if not images.is_floating_point():
        images = images.to(torch.float32) / 255
    return images.to(weight.device, weight.dtype, memory_format=memory_format(network))


def _watch(module: AttentionModule | ForeignMask, parts: set[str], into: dict[str, Tensor]) -> list:
    """Hooks that keep the wanted parts of a module as they pass by."""
    handles = []

    def keep(place: nn.Module, part: str, value: Callable[[tuple, Tensor], Tensor]) -> None:
        def hook(_module: nn.Module, inputs: tuple, output: Tensor) -> None:
            into[part] = value(inputs, output).detach()

        handles.append(place.register_forward_hook(hook))

    if isinstance(module, ForeignMask):  # a copy, since what follows may write to its mask
        keep(module.mask, "mask", lambda _, output: output.clone())
        return handles
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
