"""The residual unit, the mask branch and the attention module against the design's equations, written out."""

import pytest
import torch
import torch.nn.functional as F
from networks import settled
from torch import Tensor

from attnet.model.modules import COMBINE_TYPES, AttentionModule, MaskBranch, MaskHead
from attnet.model.units import ResidualUnit


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.double)


def pool(x: Tensor) -> Tensor:
    """Max-pool 3x3, stride 2, padding 1, as the maximum of nine shifted views."""
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
    views = [padded[:, :, i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    return torch.stack(views).amax(0)


def up(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear up-sampling with the corners aligned, as a product with one matrix a dimension."""

    def matrix(size: int, target: int) -> Tensor:
        positions = torch.arange(target, dtype=x.dtype) * (size - 1) / max(target - 1, 1)
        return (1 - (positions[:, None] - torch.arange(size)).abs()).clamp(min=0)

    rows, columns = (matrix(x.shape[i], like.shape[i]) for i in (2, 3))
    return torch.einsum("yh,nchw,xw->ncyx", rows, x, columns)


def equal(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(8, 8, 1), (8, 16, 1), (8, 8, 2), (16, 8, 2)])
def test_residual_unit(c_in, c_out, stride):
    unit = settled(ResidualUnit(c_in, c_out, stride))
    x = noise(2, c_in, 7, 6)
    given = x.clone()
    active = unit.norm1(x).relu()
    out = F.conv2d(active, unit.conv1.weight)
    out = F.conv2d(unit.norm2(out).relu(), unit.conv2.weight, stride=stride, padding=1)
    out = F.conv2d(unit.norm3(out).relu(), unit.conv3.weight)
    if (c_in, stride) == (c_out, 1):
        assert unit.shortcut is None
        expected = out + x
    else:
        expected = out + F.conv2d(active, unit.shortcut.weight, stride=stride)
    equal(unit(x), expected)
    assert torch.equal(x, given), "the unit changed its input"
    assert not [name for name, _ in unit.named_parameters() if name.startswith("conv") and name.endswith("bias")]
    assert unit.conv1.out_channels == unit.conv3.in_channels == c_out // 4


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (5, 12)], ids=str)
@pytest.mark.parametrize("r", [1, 2])
@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("sums", ["reference", "paper"])
def test_mask_branch_is_the_designs_equation(sums, depth, r, size):
    branch = settled(MaskBranch(8, depth, r, "mixed", sums=sums))
    x, trunk = noise(2, 8, *size), noise(2, 8, *size).flip(3)
    one = branch.levels
    here = 1 if sums == "reference" else 0  # how often the units' own output and the trunk are added
    if depth == 0:
        out = one.units(x)
    elif depth == 1:
        out = up(one.units(pool(x)), x) + here * trunk
    elif depth == 2:
        two = one.below
        a1 = one.units(pool(x))
        s1 = one.skip(a1)
        a2 = two.units(pool(a1))
        out = up(one.up(up(a2, a1) + here * a1 + s1), x) + here * trunk
    else:
        two, three = one.below, one.below.below
        a1 = one.units(pool(x))
        s1 = one.skip(a1)
        a2 = two.units(pool(a1))
        s2 = two.skip(a2)
        a3 = three.units(pool(a2))
        u = two.up(up(a3, a2) + here * a2 + s2)
        out = up(one.up(up(u, a1) + here * a1 + s1), x) + here * trunk
    head = branch.head
    out = F.conv2d(head.norm1(out).relu(), head.conv1.weight)
    out = F.conv2d(head.norm2(out).relu(), head.conv2.weight)
    equal(branch(x, trunk), 1 / (1 + (-out).exp()))


@pytest.mark.parametrize(("p", "t", "r"), [(1, 2, 1), (2, 4, 3)])
@pytest.mark.parametrize("depth", range(5))
def test_units_of_an_attention_module(depth, p, t, r):
    """Counted by hand from the equations, in parameters of one residual unit and of the head."""
    c = 16
    unit = (2 * c + c * c // 4) + (c // 2 + 9 * (c // 4) ** 2) + (c // 2 + c * c // 4)
    head = 2 * (2 * c + c * c)
    levels_with_a_skip = max(depth - 1, 0)
    units = 2 * p + t + 2 * r + levels_with_a_skip * (2 * r + 1)
    module = AttentionModule(c, depth, p=p, t=t, r=r)
    assert sum(parameter.numel() for parameter in module.parameters()) == units * unit + head
    module(torch.rand(2, c, 16, 16)).square().sum().backward()
    assert [name for name, parameter in module.named_parameters() if parameter.grad is None] == []


def test_channel_attention_has_unit_length_at_every_position():
    mask = settled(MaskHead(8, "channel"))(noise(2, 8, 5, 4))
    equal(mask.square().sum(dim=1), torch.ones(2, 5, 4, dtype=torch.double))


def test_spatial_attention_standardises_each_channel_before_the_sigmoid():
    mask = settled(MaskHead(8, "spatial"))(noise(2, 8, 16, 16))
    assert mask.min() > 0
    assert mask.max() < 1
    standardised = mask.logit()
    torch.testing.assert_close(standardised.mean(dim=(2, 3)), torch.zeros(2, 8).double(), rtol=0, atol=1e-6)
    # Not quite 1: the normalisation adds an epsilon to the variance.
    torch.testing.assert_close(standardised.var(dim=(2, 3), correction=0), torch.ones(2, 8).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize("attention", ["mixed", "channel", "spatial", "none"])
@pytest.mark.parametrize("combine", COMBINE_TYPES)
def test_how_mask_and_trunk_are_combined(combine, attention):
    module = settled(AttentionModule(8, 1, attention=attention, combine=combine))
    seen = {}
    for name in ("pre", "trunk", "mask", "post"):
        if getattr(module, name) is not None:
            getattr(module, name).register_forward_hook(
                lambda _, inputs, output, name=name: seen.update({name: (inputs, output.clone())})
            )
    x = noise(2, 8, 6, 6)
    out = module(x)
    before = seen["pre"][1]
    trunk = seen["trunk"][1]
    equal(seen["trunk"][0][0], before)
    if attention == "none":
        expected = trunk
    else:
        mask_inputs, mask = seen["mask"]
        equal(mask_inputs[0], before)
        equal(mask_inputs[1], trunk)
        expected = (1 + mask) * trunk if combine == "residual" else mask * trunk
    equal(seen["post"][0][0], expected)
    equal(out, seen["post"][1])
