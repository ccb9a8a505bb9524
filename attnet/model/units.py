"""The units that the network is built from: three kinds, and a factory of the user's.

A unit maps [N, c_in, H, W] to [N, c_out, H/stride, W/stride]. The same kind stands everywhere, in trunks, mask
branches, between stages and in the tail, as in the authors' own networks. Source: Wang et al., "Residual Attention
Network for Image Classification", CVPR 2017, sections 3 and 4.2.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError

# (c_in, c_out, stride) -> unit
UnitFactory = Callable[[int, int, int], nn.Module]


class InPlace(nn.Module):
    """A layer of this package that spares a pass over memory: with `inplace` it overwrites what it alone reads.

    The numbers are the same, but whoever looks at layers from outside (hooks, torch.func, torch.jit) needs every value
    to stay as it was made. So it is off until somebody who has the network for himself asks for it: `set_inplace`.
    """

    inplace = False


def set_inplace(network: nn.Module, on: bool = True) -> None:
    """Let the layers of this package within `network` work in place, or not; layers of the user's stay as they are."""
    for module in network.modules():
        if isinstance(module, InPlace):
            module.inplace = on


class ReLU(InPlace, nn.ReLU):
    """`nn.ReLU` that `set_inplace` reaches."""


def summed(x: Tensor, other: Tensor, inplace: bool) -> Tensor:
    """x + other; `inplace` overwrites x, but where that would round to another type than the sum has."""
    return x.add_(other) if inplace and x.dtype == torch.promote_types(x.dtype, other.dtype) else x + other


class ResidualUnit(InPlace):
    """Pre-activation bottleneck (He et al., 2016): BN-ReLU-1x1, BN-ReLU-3x3 (stride), BN-ReLU-1x1.

    [N, c_in, H, W] -> [N, c_out, H/stride, W/stride]. The shortcut is the input itself when that fits, else a
    1x1 convolution of the first BN-ReLU's output; it exists only then, so every parameter gets a gradient.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        c_mid = c_out // 4
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = nn.Conv2d(c_in, c_mid, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(c_mid)
        self.conv2 = nn.Conv2d(c_mid, c_mid, 3, stride, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(c_mid)
        self.conv3 = nn.Conv2d(c_mid, c_out, 1, bias=False)
        fits = c_in == c_out and stride == 1
        self.shortcut = None if fits else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm1(x), inplace=self.inplace)
        out = self.conv1(active)
        out = self.conv2(F.relu(self.norm2(out), inplace=self.inplace))
        out = self.conv3(F.relu(self.norm3(out), inplace=self.inplace))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        return summed(out, shortcut, self.inplace)


class Chain(nn.Sequential):
    """Convolutions, norms and ReLUs that run one after the other, so that `attnet.model.folding` may merge them."""


class ResNeXtUnit(InPlace):
    """Grouped bottleneck (Xie et al., 2017): 1x1-BN-ReLU, 3x3 in groups (stride)-BN-ReLU, 1x1-BN, sum, ReLU.

    [N, c_in, H, W] -> [N, c_out, H/stride, W/stride], c_out / 2 channels within. As in the authors' prototxt of
    AttentionNeXt-56 and -92 (fwang91/residual-attention-network): activated *after* each convolution, 32 groups, a
    1x1 convolution with batch norm as the shortcut where the shape changes. Narrow units, which the authors do not
    have, get fewer groups: their narrowest groups have 4 channels, and so have ours.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        c_mid = c_out // 2
        groups = max(1, min(32, c_mid // 4))
        self.conv1 = nn.Conv2d(c_in, c_mid, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(c_mid)
        self.conv2 = nn.Conv2d(c_mid, c_mid, 3, stride, padding=1, groups=groups, bias=False)
        self.norm2 = nn.BatchNorm2d(c_mid)
        self.conv3 = nn.Conv2d(c_mid, c_out, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(c_out)
        fits = c_in == c_out and stride == 1
        shortcut = () if fits else (nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        self.shortcut = Chain(*shortcut) if shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=self.inplace)
        out = F.relu(self.norm2(self.conv2(out)), inplace=self.inplace)
        out = self.norm3(self.conv3(out))
        out = summed(out, x if self.shortcut is None else self.shortcut(x), self.inplace)
        return F.relu(out, inplace=self.inplace)


def _activated(c_in: int, c_out: int, kernel: int = 1, stride: int = 1) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(c_out), ReLU()


class InceptionUnit(InPlace):
    """Inception-ResNet-A (Szegedy et al., "Inception-v4, Inception-ResNet ...", 2016, figure 10), pre-activated.

    [N, c_in, H, W] -> [N, c_out, H/stride, W/stride]. The first BN-ReLU feeds three branches: 1x1; 1x1, 3x3; 1x1,
    3x3, 3x3; the last convolution of each has the stride, and each convolution is followed by BN-ReLU. A 1x1
    convolution of all of them together is added to the shortcut, which is `ResidualUnit`'s.

    The paper names an "Inception unit" and prints no layout, so the widths are ours: c_out / 8 throughout, as
    theirs (32 of 256), but half of that in the 1x1 branch, which brings AttentionInception-56 to the paper's count.
    """

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        c = c_out // 8
        self.norm = nn.BatchNorm2d(c_in)
        self.branches = nn.ModuleList(
            [
                Chain(*_activated(c_in, c // 2, 1, stride)),
                Chain(*_activated(c_in, c), *_activated(c, c, 3, stride)),
                Chain(*_activated(c_in, c), *_activated(c, c, 3), *_activated(c, c, 3, stride)),
            ]
        )
        self.conv = nn.Conv2d(c // 2 + 2 * c, c_out, 1, bias=False)
        fits = c_in == c_out and stride == 1
        self.shortcut = None if fits else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.norm(x), inplace=self.inplace)
        out = self.conv(torch.cat([branch(active) for branch in self.branches], dim=1))
        return summed(out, x if self.shortcut is None else self.shortcut(active), self.inplace)


UNITS: dict[str, UnitFactory] = {"preact": ResidualUnit, "resnext": ResNeXtUnit, "inception": InceptionUnit}


def is_own_code(unit: object) -> bool:
    """Whether a value of the option `unit` means code of the user's, not one of `UNITS`."""
    return not isinstance(unit, str) or unit not in UNITS


def option_text(value: object) -> str:
    """The value of an option as the command line takes it: "1,2,3", "resnext", "package.module:name"."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}:{named.__qualname__}" if callable(value) else str(value)


def unit_factory(unit: str | UnitFactory) -> UnitFactory:
    """The factory meant by the option `unit`.

    Args:
        unit: a name of `UNITS`; a callable (c_in, c_out, stride) -> nn.Module; or where to import one from, as
            "package.module:name".

    Raises:
        ConfigError: none of these, or one that cannot be imported.
    """
    if callable(unit):
        return unit
    if not is_own_code(unit):
        return UNITS[unit]
    module, _, name = unit.partition(":") if isinstance(unit, str) else ("", "", "")
    if not module or not name:
        raise ConfigError(
            f"unit={unit!r}: choose one of {', '.join(UNITS)}, or name a factory of your own as package.module:name"
        )
    try:
        factory = getattr(importlib.import_module(module), name)
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(
            f"unit={unit!r}: cannot be imported ({type(error).__name__}: {error}); package.module:name is needed, its "
            "folder on PYTHONPATH"
        ) from error
    if not callable(factory):
        raise ConfigError(f"unit={unit!r}: is a {type(factory).__name__}; a callable(c_in, c_out, stride) is needed")
    return factory


def check_unit(unit: str | UnitFactory, c_in: int, c_out: int, stride: int) -> None:
    """Run a unit of the user's once on the meta device, which costs next to nothing and draws no random numbers.

    Raises:
        ConfigError: as `unit_factory`, or a factory or unit that fails, gives another shape, or changes its input,
            which other branches still read.
    """
    factory = unit_factory(unit)
    if not is_own_code(unit):
        return
    call = f"unit={option_text(unit)}: ({c_in}, {c_out}, {stride})"
    x = torch.empty(2, c_in, 16, 16, device="meta")
    try:
        with torch.device("meta"):
            made = factory(c_in, c_out, stride)
            out = made(x) if isinstance(made, nn.Module) else None
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(
            f"{call} fails on {list(x.shape)} on PyTorch's meta device ({type(error).__name__}: {error}); a unit is "
            "built as factory(c_in, c_out, stride) and called with one tensor"
        ) from error
    if out is None:
        raise ConfigError(f"{call} gives a {type(made).__name__}; an nn.Module is needed")
    wanted = [2, c_out, 16 // stride, 16 // stride]
    found = list(out.shape) if isinstance(out, Tensor) else type(out).__name__
    if found != wanted:
        raise ConfigError(
            f"{call} makes {found} of {list(x.shape)}; [N, c_out, H/stride, W/stride], {wanted}, is needed"
        )
    if x._version:
        raise ConfigError(f"{call} changes its input in place; other branches read it, so a copy must be changed")
