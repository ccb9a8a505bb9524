"""Receptive fields: how much of the image a position of each branch and scale can see.

The paper: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.model.modules import AttentionModule, mask_levels
from attnet.model.network import ResidualAttentionNetwork, attention_network
from attnet.model.units import Chain, InceptionUnit, ReLU, ResidualUnit, ResNeXtUnit


@dataclass(frozen=True)
class Field:
    """Receptive field of one pixel: `size` input pixels a side, `jump` input pixels from its neighbour's field.

    `size` is `math.inf` where the whole image is seen, however large. `scale` is "input" (what both branches read),
    "trunk", a scale of the mask branch on its way down ("1/2 down" ..., then the coarsest, "1/4"; "1" where it
    does not pool), or "mask" (the mask itself, up-sampled).
    """

    module: str
    scale: str
    size: float
    jump: int


# What pixels of a row can depend on is a tensor "reach" [2, n]: for each of them the last input pixel seen, and minus
# the first one. Every step of the network is then a maximum.
_POOL = nn.MaxPool2d(3, stride=2, padding=1)  # layers._pool as a module: a function has no kernel to be asked for


def _through(module: nn.Module, reach: Tensor) -> Tensor:
    """The reach behind a module, by its own kernels, strides and paddings."""
    kind = type(module)  # a subclass may compute something else
    if kind in (nn.Sequential, Chain):
        return functools.reduce(lambda so_far, child: _through(child, so_far), module, reach)
    # The shortcut of a unit sees nothing that its convolutions do not see.
    if kind in (ResidualUnit, ResNeXtUnit):
        return functools.reduce(lambda r, conv: _through(conv, r), (module.conv1, module.conv2, module.conv3), reach)
    if kind is InceptionUnit:
        return torch.stack([_through(branch, reach) for branch in module.branches]).amax(dim=0)
    if kind in (nn.Conv2d, nn.MaxPool2d) and _is_square(module):
        window = (module.kernel_size, module.stride, module.padding)
        return F.max_pool1d(reach, *(value if isinstance(value, int) else value[0] for value in window))
    if kind in (nn.BatchNorm2d, nn.ReLU, ReLU):
        return reach
    raise ConfigError(
        f"receptive_field: no rule for a {kind.__name__}, which may be a unit of yours; known are the units "
        "of attnet.model.units, and convolutions and pools with square kernels without dilation"
    )


def _is_square(module: nn.Conv2d | nn.MaxPool2d) -> bool:
    pairs = (module.kernel_size, module.stride, module.padding)
    return module.dilation in (1, (1, 1)) and all(isinstance(v, int) or v == (v[0], v[0]) for v in pairs)


def _upsampled(coarse: Tensor, like: Tensor) -> Tensor:
    """Bilinear, corners on corners: each pixel reads the two coarse ones around its place."""
    old, new = coarse.shape[1], like.shape[1]
    below = torch.arange(new, device=coarse.device) * (old - 1) // max(new - 1, 1)
    return torch.maximum(coarse[:, below], coarse[:, (below + 1).clamp(max=old - 1)])


def _mask_reaches(module: AttentionModule, here: Tensor, trunk: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The reach of each scale on the way down, then of the mask."""
    full, passed = here, []
    for scale, level in mask_levels(module).items():
        here = _through(level.units, here if scale == "1" else _through(_POOL, here))
        yield scale if level.below is None else f"{scale} down", here
        passed.append((level, here))
    for level, down in reversed(passed[:-1]):
        here = _through(level.up, torch.maximum(_upsampled(here, down), _through(level.skip, down)))
    if module.mask.depth:
        here = _upsampled(here, full)
        here = torch.maximum(here, trunk) if module.mask.sums == "reference" else here
    # Standardised or averaged over all positions, each sees every pixel of any image.
    yield "mask", torch.full_like(here, math.inf) if module.mask.head.attention in ("spatial", "gain") else here


def _reaches(network: ResidualAttentionNetwork, side: int) -> Iterator[tuple[str, str, Tensor]]:
    """Module, scale and reach of every `Field` in an image of `side` pixels; exact for each position."""
    pixels = torch.arange(side, dtype=torch.float64, device="cpu")  # also under another default device
    here = _through(network.stem, torch.stack([pixels, -pixels]))
    for stage, children in network.stages.named_children():
        here = _through(children.entry, here)
        for index, module in enumerate(children.attention):
            here = _through(module.pre, here)
            trunk = _through(module.trunk, here)
            scales = [("input", here), ("trunk", trunk)]
            if module.mask is not None:
                scales += _mask_reaches(module, here, trunk)
            yield from ((f"{stage}.{index}", scale, reach) for scale, reach in scales)
            here = _through(module.post, torch.maximum(trunk, scales[-1][1]))


def receptive_field(model: nn.Module) -> list[Field]:
    """How many input pixels one pixel can depend on, at each scale of every attention module (evaluation mode).

    Worked out exactly, from the kernels, strides and paddings of the model's own modules, on an image so large that
    its edges do not matter; smaller images cut the field. Behind an up-sampling the size differs a little with the
    position, since with corners on corners a pixel's place between two coarse ones does: the largest is given.

    Raises:
        ConfigError: a model without attention modules, or with a layer that there is no rule for.
    """
    network, side, fields = attention_network(model), 512, []
    while not fields or side < 4 * max(field.size for field in fields if field.size < math.inf):
        side, fields = 2 * side, []
        for module, scale, reach in _reaches(network, side):
            inside = reach[:, (reach[0] < side - 1) & (reach[1] < 0)]  # not cut by an edge
            size = (inside.sum(dim=0) + 1).max().item() if inside.numel() else side
            endless = bool(reach.isinf().any())
            fields.append(Field(module, scale, math.inf if endless else int(size), side // reach.shape[1]))
    return fields
