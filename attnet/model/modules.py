"""The attention module of the Residual Attention Network, its mask branch written recursively.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017 (sections in brackets).
Shapes are written [N, C, H, W].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from attnet.model.units import InPlace, ResidualUnit, UnitFactory, summed

ATTENTION_TYPES = ("mixed", "channel", "spatial", "gain", "constant", "none")
WITHOUT_BRANCH = ("constant", "none")  # these have no mask branch
COMBINE_TYPES = ("residual", "naive")
SUM_TYPES = ("reference", "paper")


def _units(unit: UnitFactory, count: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(unit(channels, channels, 1) for _ in range(count)))


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def _upsample_like(x: Tensor, target: Tensor) -> Tensor:
    return F.interpolate(x, size=target.shape[2:], mode="bilinear", align_corners=True)


class MaskLevel(InPlace):
    """One resolution of the mask branch and, recursively, every coarser one (section 3.2, figure 2).

    [N, C, h, w] -> [N, C, h, w]. The coarsest level (`poolings` = 0) is 2r units; any other one is r units, a
    pooled level below it, a one-unit skip connection, and r units on the sum of the three on the way up.

    That sum is the reference's. The authors' own networks (`sums="paper"`: prototxt of Attention-56 and -92,
    fwang91/residual-attention-network) leave out the units' own output, which the skip's identity brings once already.
    """

    def __init__(
        self, channels: int, poolings: int, r: int, unit: UnitFactory = ResidualUnit, sums: str = "reference"
    ) -> None:
        super().__init__()
        self.sums = sums
        coarsest = poolings == 0
        self.units = _units(unit, 2 * r if coarsest else r, channels)
        self.skip = None if coarsest else unit(channels, channels, 1)
        self.below = None if coarsest else MaskLevel(channels, poolings - 1, r, unit, sums)
        self.up = None if coarsest else _units(unit, r, channels)

    def forward(self, x: Tensor) -> Tensor:
        here = self.units(x)
        if self.below is None:
            return here
        fine = _upsample_like(self.below(_pool(here)), here)
        if self.sums == "reference":
            fine = summed(fine, here, self.inplace)
        return self.up(summed(fine, self.skip(here), self.inplace))


class MaskHead(InPlace):
    """BN-ReLU-1x1, BN-ReLU-1x1, then the attention type's normalisation (section 3.3). Keeps [N, C, H, W].

    mixed: sigmoid, in (0, 1). channel: divided by the L2 norm over channels at each position, in [-1, 1].
    spatial: each channel standardised over its positions, then sigmoid, in (0, 1). gain: sigmoid, then each channel's
    mean over all positions, which points nowhere.
    """

    def __init__(self, channels: int, attention: str) -> None:
        super().__init__()
        self.attention = attention
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x), inplace=self.inplace))
        out = self.conv2(F.relu(self.norm2(out), inplace=self.inplace))
        if self.attention == "channel":
            return F.normalize(out, dim=1)
        if self.attention == "spatial":
            out = F.instance_norm(out)
        out = torch.sigmoid(out)
        return out.mean(dim=(2, 3), keepdim=True).expand_as(out) if self.attention == "gain" else out


class MaskBranch(InPlace):
    """The soft mask of an attention module; its output is what `attnet.capture_masks` returns.

    Without poolings it sees x alone; with them, the up-sampled coarse path is added to the trunk's output, but not with
    the authors' sums (see `MaskLevel`).
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        r: int,
        attention: str,
        unit: UnitFactory = ResidualUnit,
        sums: str = "reference",
    ) -> None:
        super().__init__()
        self.depth, self.sums = depth, sums
        self.levels = MaskLevel(channels, max(depth - 1, 0), r, unit, sums)
        self.head = MaskHead(channels, attention)

    def forward(self, x: Tensor, trunk: Tensor) -> Tensor:
        if self.depth == 0:
            return self.head(self.levels(x))
        coarse = _upsample_like(self.levels(_pool(x)), x)
        return self.head(summed(coarse, trunk, self.inplace) if self.sums == "reference" else coarse)


class ChannelLevel(nn.Module):
    """Attention type "constant": the sigmoid of a learned number a channel, [C, 1, 1], in the place of a mask."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.zeros(channels))

    def forward(self, trunk: Tensor) -> Tensor:
        return torch.sigmoid(self.logit)[:, None, None].to(trunk.dtype).expand_as(trunk)


class _ResidualAttention(torch.autograd.Function):
    """(1 + mask) * trunk, one pass over memory forward and two backward; autograd's own derivative takes five.

    Only where nobody looks in, as `InPlace` says: torch.func, forward derivatives and torch.jit do not know it.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, trunk: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(trunk, mask)
        return torch.addcmul(trunk, mask, trunk)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor]:
        trunk, mask = ctx.saved_tensors
        return torch.addcmul(grad, grad, mask), grad * trunk


class AttentionModule(InPlace):
    """p units, then trunk (t units) and mask branch side by side, (1 + mask) * trunk, p units (section 3).

    [N, C, H, W] -> [N, C, H, W]. `combine="naive"` is mask * trunk, which the paper compares with;
    `attention="none"` leaves the trunk alone. With "constant" there is no mask but a `level`, the same for every image
    and position.
    """

    def __init__(
        self,
        channels: int,
        depth: int,
        *,
        p: int = 1,
        t: int = 2,
        r: int = 1,
        attention: str = "mixed",
        combine: str = "residual",
        sums: str = "reference",
        unit: UnitFactory = ResidualUnit,
    ) -> None:
        super().__init__()
        self.channels, self.combine = channels, combine
        self.pre = _units(unit, p, channels)
        self.trunk = _units(unit, t, channels)
        has_branch = attention not in WITHOUT_BRANCH
        self.mask = MaskBranch(channels, depth, r, attention, unit, sums) if has_branch else None
        self.level = ChannelLevel(channels) if attention == "constant" else None
        self.post = _units(unit, p, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre(x)
        out = self.trunk(x)
        if self.mask is not None or self.level is not None:
            mask = self.level(out) if self.mask is None else self.mask(x, out)
            out = mask * out if self.combine == "naive" else self._residual(out, mask)
        return self.post(out)

    def _residual(self, trunk: Tensor, mask: Tensor) -> Tensor:
        """(1 + mask) * trunk: the same numbers either way."""
        return _ResidualAttention.apply(trunk, mask) if self.inplace else torch.addcmul(trunk, mask, trunk)


# What there is to see in an attention module besides the scales of its mask branch ("1/2", "1/4" ...):
# x, what both branches read; T, the paper's "feature before mask"; M, the soft mask; (1 + M)·T, "feature after mask".
PARTS = ("input", "trunk", "mask", "masked")


def module_parts(module: AttentionModule) -> tuple[str, ...]:
    """The parts that `capture` can give of a module, finest scale first; of what is no AttentionModule, the mask."""
    if not isinstance(module, AttentionModule):
        return ("mask",)
    if module.mask is None:
        return ("input", "trunk", "masked")
    return (*PARTS, *mask_levels(module))


def mask_levels(module: AttentionModule) -> dict[str, MaskLevel]:
    """The levels of a mask branch by their resolution: "1/2", "1/4" ...; "1" where it does not pool."""
    level, side, found = module.mask.levels, 2 if module.mask.depth else 1, {}
    while level is not None:
        found["1" if side == 1 else f"1/{side}"] = level
        level, side = level.below, 2 * side
    return found
