"""Capturing masks: what is returned, and that the network is left as it was."""

import pytest
import torch
from torch import Tensor, nn

import attnet

SHAPES = {"stage1.0": (3, 32, 32, 32), "stage2.0": (3, 64, 16, 16), "stage3.0": (3, 128, 8, 8)}


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return attnet.build_model("attention56_tiny")


@pytest.fixture
def pixels() -> Tensor:
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Wrapper(nn.Module):
    """What DistributedDataParallel looks like from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_masks_have_the_modules_names_order_shapes_and_range(model, pixels):
    masks = attnet.capture_masks(model, pixels / 255)
    assert [(name, tuple(mask.shape)) for name, mask in masks.items()] == list(SHAPES.items())
    for name, mask in masks.items():
        assert 0 < mask.min() < mask.max() < 1, name
        assert not mask.requires_grad, name


def test_a_mask_bears_the_name_of_its_own_module(model, pixels):
    """With its last 1x1 convolution at zero a mask is sigmoid(0) everywhere, whatever comes in."""
    with torch.no_grad():
        model.stages.stage2.attention[0].mask.head.conv2.weight.zero_()
    masks = attnet.capture_masks(model, pixels)
    assert torch.equal(masks["stage2.0"], torch.full(SHAPES["stage2.0"], 0.5))
    assert masks["stage1.0"].unique().numel() > 100
    assert masks["stage3.0"].unique().numel() > 100


def test_each_images_masks_are_its_own(model, pixels):
    together, alone = attnet.capture_masks(model, pixels), attnet.capture_masks(model, pixels[1:2])
    for name in SHAPES:
        torch.testing.assert_close(together[name][1:2], alone[name])


@pytest.mark.parametrize(
    "images",
    [lambda p: p, lambda p: p.to(torch.int64), lambda p: p.double() / 255],
    ids=["uint8", "int64", "float64"],
)
def test_other_number_types_are_scaled_and_converted(model, pixels, images):
    assert equal(attnet.capture_masks(model, images(pixels)), attnet.capture_masks(model, pixels.float() / 255))


@pytest.mark.parametrize(
    "wrap",
    [
        Wrapper,
        lambda model: torch.compile(model, backend="eager"),
        lambda model: Wrapper(torch.compile(model, backend="eager")),
    ],
    ids=["ddp", "compiled", "both"],
)
def test_wrapped_networks(model, pixels, wrap):
    assert equal(attnet.capture_masks(wrap(model), pixels), attnet.capture_masks(model, pixels))


@pytest.mark.parametrize("channels", [3, 4], ids=["works", "raises"])
def test_the_network_is_left_as_it_was(model, channels):
    model.train()
    model.stem.eval()
    model.stages.stage2.attention[0].mask.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if channels == 3:
        attnet.capture_masks(model, torch.rand(2, 3, 32, 32))
    else:
        with pytest.raises(RuntimeError, match="channels"):
            attnet.capture_masks(model, torch.rand(2, channels, 32, 32))
    assert hooks(model) == 0
    assert [module.training for module in model.modules()] == modes
    assert equal(model.state_dict(), state)  # running statistics of the batch norms included
    assert torch.is_grad_enabled()


def test_half_precision_network_keeps_its_type(model, pixels):
    masks = attnet.capture_masks(model.to(torch.bfloat16), pixels)
    assert {mask.dtype for mask in masks.values()} == {torch.bfloat16}
