"""What the masks do to the signal: how their values are spread, and how strong the features are before and after.

Source: Wang et al., CVPR 2017, section 3.2, and section 4.1 for the mean response of a stage's features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnet.masks import attention_network, capture


@dataclass(frozen=True)
class MaskStatistics:
    """A module's masks over a set of images, all channels and positions.

    `counts` int64 [bins] over equal bins of `low` to `high`; `mean`, `std` of the values. `over_space` is the
    standard deviation over an image's positions, mean over channels and images: how much the mask points
    somewhere. `over_channels` is that of the channels' means: how much it weighs channels. `trunk`, `masked`,
    `naive` are mean absolute responses: of T, of what the module passes on, and of M·T, which a naive
    combination would (section 3.2: responses dwindle when masks below 1 are multiplied again and again).
    """

    module: str
    counts: Tensor
    low: float
    high: float
    mean: float
    std: float
    over_space: float
    over_channels: float
    trunk: float
    masked: float
    naive: float


def mask_statistics(
    model: nn.Module,
    images: Tensor,
    modules: Sequence[str] | None = None,
    *,
    bins: int = 50,
    batch_size: int = 100,
) -> list[MaskStatistics]:
    """Statistics of every module's masks over `images` (as `capture_masks`), a batch in memory at a time."""
    images = images[None] if images.dim() == 3 else images
    totals: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    network = attention_network(model)
    low = -1.0 if network.variant.attention == "channel" else 0.0
    for batch in images.split(batch_size):
        for name, parts in capture(network, batch, ("trunk", "mask", "masked"), modules).features.items():
            if "mask" not in parts:
                continue
            trunk, mask, masked = (parts[part].float() for part in ("trunk", "mask", "masked"))
            per_channel = mask.mean(dim=(2, 3))
            offset = mask - (low + 1) / 2  # small, so that its square keeps the digits of a narrow spread
            sums = [offset.mean(), offset.square().mean(), mask.std(dim=(2, 3), correction=0).mean()]
            sums += [per_channel.std(dim=1, correction=0).mean()]
            sums += [value.abs().mean() for value in (trunk, masked, mask * trunk)]
            totals[name] = totals.get(name, 0) + torch.stack(sums).double().cpu() * len(batch)
            counts[name] = counts.get(name, 0) + torch.histc(mask.cpu(), bins, low, 1.0).long()
    rows = []
    for name, total in totals.items():
        offset, square, space, channels, trunk, masked, naive = (total / len(images)).tolist()
        mean, std = offset + (low + 1) / 2, max(square - offset * offset, 0) ** 0.5
        rows.append(MaskStatistics(name, counts[name], low, 1.0, mean, std, space, channels, trunk, masked, naive))
    return rows
