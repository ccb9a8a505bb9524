"""What the masks do to the signal: how their values are spread, and how strong the features are before and after.

Source: Wang et al., CVPR 2017, section 3.1, and section 4.1 for the mean response of a stage's features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.capture import as_input, capture
from attnet.model.network import attention_network, copy_network
from attnet.model.variants import build_model

# What `signals` compares: the label of a figure -> options of `build_model`.
COMBINATIONS = {
    "(1 + M)·T": {"combine": "residual"},
    "M·T": {"combine": "naive"},
    "T, no mask": {"attention": "none"},
}


@dataclass(frozen=True)
class MaskStatistics:
    """A module's masks over a set of images, all channels and positions.

    `counts` int64 [bins] over equal bins of `low` to `high`; `mean`, `std` of the values. `over_space` is the
    standard deviation over an image's positions, mean over channels and images: how much the mask points
    somewhere. `over_channels` is that of the channels' means: how much it weighs channels. `trunk`, `masked`,
    `naive` are mean absolute responses: of T, of what the module passes on, and of M·T, which a naive
    combination would (section 3.1: responses dwindle when masks below 1 are multiplied again and again).
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
            totals[name] = totals.get(name, 0) + torch.stack(sums).cpu().double() * len(batch)
            counts[name] = counts.get(name, 0) + torch.histc(mask.cpu(), bins, low, 1.0).long()
    rows = []
    for name, total in totals.items():
        offset, square, space, channels, trunk, masked, naive = (total / len(images)).tolist()
        mean, std = offset + (low + 1) / 2, max(square - offset * offset, 0) ** 0.5
        rows.append(MaskStatistics(name, counts[name], low, 1.0, mean, std, space, channels, trunk, masked, naive))
    return rows


# -- a new network: why (1 + M) · T ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signal:
    """The features behind an attention module.

    `mean` is their mean absolute value. `kept` is that of what the identity path alone has carried here from the
    stage's entry, through the masks of every module on the way, over `mean`.
    """

    mean: float
    kept: float


def signal(model: nn.Module, images: Tensor) -> dict[str, Signal]:
    """How strong the features behind every attention module are, and how much of it is old.

    Batch norms take the statistics of `images`, as in training: a new network's running statistics describe no data.

    Args:
        model: as `parts`; a copy of it is run, on its device.
        images: [N, 3, S, S], float in [0, 1] or uint8; N of some dozens gives steady statistics.

    Returns:
        "stage1.0" ... -> Signal. The identity path of a module is what its units' shortcuts carry: x times
        (1 + M), M or 1. A stage begins anew, since its entry's shortcut is a convolution.

    Raises:
        ConfigError: a network of other units than preact and inception.
    """
    network = copy_network(model, meta=False).train()
    if network.variant.unit not in ("preact", "inception"):
        raise ConfigError(
            f"signal: {network.variant.label} has units whose shortcut may not carry their input unchanged, as "
            "ReLU-ended ones do not; it is measured for unit=preact and unit=inception"
        )
    path: dict[str, Tensor] = {}
    found: dict[str, Signal] = {}

    def enter(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        path["identity"] = output

    def through_mask(combine: str, mask: Tensor) -> None:
        path["identity"] = path["identity"] * (mask + 1 if combine == "residual" else mask)

    def leave(name: str, output: Tensor) -> None:
        mean = output.abs().mean()
        found[name] = Signal(mean.item(), (path["identity"].abs().mean() / mean).item())

    for _, stage in network.stages.named_children():
        stage.entry.register_forward_hook(enter)
    for name, module in network.attention_modules().items():
        if module.mask is not None:
            module.mask.register_forward_hook(lambda _m, _i, mask, kind=module.combine: through_mask(kind, mask))
        module.register_forward_hook(lambda _m, _i, output, name=name: leave(name, output))
    with torch.no_grad():
        network(as_input(network, images))
    return found


def signals(name: str, images: Tensor, seed: int = 0, **options: object) -> dict[str, dict[str, Signal]]:
    """`signal` of a new network with (1 + M)·T, M·T and no mask, the same weights in each.

    Args:
        name, options: as `build_model`. images: as `signal`. seed: of the weights; torch's own is put back.

    Returns:
        A key of `COMBINATIONS` -> `signal`'s result.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        weights = build_model(name, **options).state_dict()
        found = {}
        for label, chosen in COMBINATIONS.items():
            model = build_model(name, **{**options, **chosen})
            model.load_state_dict(weights, strict=False)  # without a mask branch its weights are left over
            found[label] = signal(model, images)
    return found
