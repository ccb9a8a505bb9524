"""How much the masks of a network changed between two states of its weights, in figures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.capture import capture_masks
from attnet.model.network import attention_network

_BATCH = 100


@dataclass(frozen=True)
class MaskChange:
    """Of one module: Pearson's `correlation` of all mask values before and after, over images, channels and
    positions (nan where either is constant), and the mean absolute `change` of a value.
    """

    correlation: float
    change: float


def mask_changes(before: nn.Module, after: nn.Module, images: Tensor) -> dict[str, MaskChange]:
    """Module -> what became of its masks, in forward order; empty for networks with attention="none".

    Args:
        before, after: networks with the same modules, for instance weights and what was fine-tuned from them.
        images: [N, 3, S, S], uint8 or float in [0, 1]; one batch of masks is held at a time.

    Raises:
        ConfigError: networks with other modules or other numbers of channels.
    """
    check_comparable(before, after)
    sums: dict[str, Tensor] = {}
    for batch in images.split(_BATCH):
        others = capture_masks(after, batch)
        for name, mask in capture_masks(before, batch).items():
            x, y = mask.double().cpu(), others[name].double().cpu()
            one = torch.ones_like(x).sum()
            found = [one, x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum(), (y - x).abs().sum()]
            sums[name] = sums.get(name, 0) + torch.stack(found)
    return {name: _change(*total.tolist()) for name, total in sums.items()}


def _change(n: float, x: float, y: float, xx: float, yy: float, xy: float, moved: float) -> MaskChange:
    spread = ((xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)) ** 0.5
    return MaskChange((xy / n - x * y / n**2) / spread if spread > 0 else float("nan"), moved / n)


def check_comparable(before: nn.Module, after: nn.Module) -> None:
    """ConfigError unless the masks of both networks can be held against each other."""
    shapes = [
        {name: module.mask and module.mask.head.conv2.weight.shape[0] for name, module in network.items()}
        for network in (attention_network(model).attention_modules() for model in (before, after))
    ]
    if shapes[0] != shapes[1]:
        labels = " and ".join(attention_network(model).variant.label for model in (before, after))
        raise ConfigError(f"{labels} have other modules, so that no mask has a counterpart; compare the same network")
