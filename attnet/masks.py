"""Look at the attention masks: capture them from any network of the table without touching its forward code."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnet.layers import AttentionModule, MaskBranch
from attnet.model import evaluating, unwrap


def capture_masks(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """The attention masks of `images`, in forward order.

    Args:
        model: a network from `build_model`; DDP- or compile-wrapped is fine. Its train/eval state is restored.
        images: [N, 3, S, S], float in [0, 1] (or uint8, which is scaled), on any device.

    Returns:
        "stage1.0", "stage2.0" ... -> [N, C, H, W] on the model's device, in (0, 1) for the default attention
        type. A network built with `attention="none"` has no masks: the dict is empty.
    """
    network = unwrap(model)
    masks: dict[str, Tensor] = {}
    weight = next(network.parameters())
    if not images.is_floating_point():
        images = images.to(torch.float32) / 255
    handles = []
    try:
        for name, module in network.attention_modules().items():
            handles += _watch(module, name, masks)
        with evaluating(network):
            network(images.to(weight.device, weight.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return masks


def _watch(module: AttentionModule, name: str, into: dict[str, Tensor]) -> list:
    def keep(_module: MaskBranch, _inputs: tuple, mask: Tensor) -> None:
        into[name] = mask.detach()

    return [] if module.mask is None else [module.mask.register_forward_hook(keep)]
