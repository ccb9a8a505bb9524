"""Capturing masks: what is returned, and that the network is left as it was."""

import pytest
import torch
from torch import Tensor, nn

import attnet
from attnet.base.errors import ConfigError
from attnet.masks.capture import capture
from attnet.masks.reduce import attention_maps, reduce_channels
from attnet.model.modules import MaskLevel, module_parts

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


def test_a_network_compiled_in_place_and_already_run(model, pixels):
    """Its compiled code knows nothing of hooks that come later."""
    expected = attnet.capture_masks(model, pixels)
    model.compile(backend="eager")
    model.eval()
    with torch.no_grad():
        model(pixels / 255)
    assert equal(attnet.capture_masks(model, pixels), expected)


@pytest.mark.parametrize("fails", [False, True], ids=["works", "raises"])
def test_the_network_is_left_as_it_was(model, fails):
    model.train()
    model.stem.eval()
    model.stages.stage2.attention[0].mask.eval()
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if fails:
        model.fc.in_features, weight = 0, model.fc.weight
        model.fc.weight = nn.Parameter(weight[:, :1].detach())  # the very last step of the pass
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            capture(model, torch.rand(2, 3, 32, 32), ("input", "trunk", "mask", "masked", "scales"))
        model.fc.weight = weight
    else:
        capture(model, torch.rand(2, 3, 32, 32), ("input", "trunk", "mask", "masked", "scales"))
    assert hooks(model) == 0
    assert [module.training for module in model.modules()] == modes
    assert equal(model.state_dict(), state)  # running statistics of the batch norms included
    assert torch.is_grad_enabled()


def test_half_precision_network_keeps_its_type(model, pixels):
    masks = attnet.capture_masks(model.to(torch.bfloat16), pixels)
    assert {mask.dtype for mask in masks.values()} == {torch.bfloat16}


def test_a_foreign_network_and_odd_images_get_a_sentence(model, pixels):
    with pytest.raises(ConfigError, match=r"model is a Linear: .* attnet\.build_model"):
        attnet.capture_masks(nn.Linear(3, 3), pixels)
    with pytest.raises(ConfigError, match=r"images of shape \[2, 4, 32, 32\]: \[N, 3, H, W\]"):
        attnet.capture_masks(model, torch.rand(2, 4, 32, 32))
    with pytest.raises(ConfigError, match=r"module='stage9\.0': this network has stage1\.0, stage2\.0, stage3\.0"):
        capture(model, pixels, modules=["stage9.0"])
    with pytest.raises(ConfigError, match=r"parts='1/8': choose from 1, 1/2, 1/4, input, mask, masked, scales, trunk"):
        capture(model, pixels, ["mask", "1/8"])


def test_no_masks_without_attention(pixels):
    model = attnet.build_model("attention56_tiny", attention="none")
    assert attnet.capture_masks(model, pixels) == {}
    features = capture(model, pixels, ("trunk", "mask", "masked", "input")).features
    assert all(
        equal({"": parts["masked"]}, {"": parts["trunk"]}) and "mask" not in parts for parts in features.values()
    )


@pytest.mark.parametrize("combine", ["residual", "naive"])
def test_parts_fit_together(pixels, combine):
    """(1 + M)·T is what leaves, and the rest of the network makes the logits of it."""
    model = attnet.build_model("attention56_tiny", combine=combine).eval()
    taken = capture(model, pixels, ("input", "trunk", "mask", "masked"))
    with torch.no_grad():
        assert torch.equal(taken.logits, model(pixels / 255))
        for name, parts in taken.features.items():
            module = model.attention_modules()[name]
            torch.testing.assert_close(module.trunk(parts["input"]), parts["trunk"])
            torch.testing.assert_close(module.mask(parts["input"], parts["trunk"]), parts["mask"])
            gain = parts["mask"] + (combine == "residual")
            torch.testing.assert_close(gain * parts["trunk"], parts["masked"])


def test_scales_of_the_mask_branch(pixels):
    model = attnet.build_model("attention56_tiny", r=2).eval()
    features = capture(model, pixels, ["scales"]).features
    sizes = {name: {part: value.shape[-1] for part, value in parts.items()} for name, parts in features.items()}
    assert sizes == {"stage1.0": {"1/2": 16, "1/4": 8}, "stage2.0": {"1/2": 8}, "stage3.0": {"1": 8}}
    assert [module_parts(m)[4:] for m in model.attention_modules().values()] == [("1/2", "1/4"), ("1/2",), ("1",)]
    branch = model.stages.stage2.attention[0].mask
    with torch.no_grad():  # the coarse level, up-sampled and added to the trunk, is what the head reads
        parts = capture(model, pixels, ["trunk", "mask", "1/2"]).features["stage2.0"]
        up = nn.functional.interpolate(parts["1/2"], size=16, mode="bilinear", align_corners=True)
        torch.testing.assert_close(branch.head(up + parts["trunk"]), parts["mask"])
    assert isinstance(branch.levels, MaskLevel)


def test_one_image_without_a_batch_dimension(model, pixels):
    assert equal(attnet.capture_masks(model, pixels[0]), attnet.capture_masks(model, pixels[:1]))


def test_reductions_of_a_hand_made_feature():
    features = torch.tensor([[3.0, -4.0], [0.0, 1.0]]).view(1, 2, 1, 2).expand(1, 2, 3, 2)
    expected = {"mean": [1.5, -1.5], "max": [3, 1], "l2": [3, 17**0.5], "std": [1.5, 2.5], "channel:1": [0, 1]}
    for reduction, row in expected.items():
        torch.testing.assert_close(reduce_channels(features, reduction), torch.tensor(row).float().expand(1, 3, 2))
    for reduction, message in (
        ("median", "choose one of mean, max, l2, std, pca or channel:K"),
        ("channel:2", "0 to 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            reduce_channels(features, reduction)


def test_principal_component_finds_the_direction_of_most_variance():
    torch.manual_seed(0)
    strong, weak = torch.randn(2, 4, 1, 5, 5)
    direction = torch.tensor([0.6, 0.8, 0.0]).view(1, 3, 1, 1)
    features = 5 + 3 * strong * direction + 0.01 * weak
    scores = reduce_channels(features, "pca")
    assert torch.corrcoef(torch.stack([scores.flatten(), strong.flatten()]))[0, 1] > 0.999
    torch.testing.assert_close(scores, reduce_channels(features, "pca") * 1.0)
    assert abs(scores.mean()) < 1e-4
    flipped = reduce_channels(-features, "pca")  # the sign follows the mean over channels
    assert torch.corrcoef(torch.stack([flipped.flatten(), -strong.flatten()]))[0, 1] > 0.999


@pytest.mark.parametrize("reduction", ["mean", "l2", "pca", "channel:5"])
def test_maps_of_many_images_do_not_depend_on_the_batch(model, reduction):
    images = torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    whole = attention_maps(model, images, reduction=reduction, batch_size=100)
    pieces = attention_maps(model, images, reduction=reduction, batch_size=2)
    assert {name: tuple(maps.shape) for name, maps in whole.items()} == dict.fromkeys(SHAPES, (7, 32, 32))
    for name in SHAPES:
        torch.testing.assert_close(pieces[name], whole[name], rtol=1e-4, atol=2e-4 if reduction == "pca" else 1e-5)
    small = attention_maps(model, images, reduction=reduction, full_size=False)
    assert [maps.shape[-1] for maps in small.values()] == [32, 16, 8]
    corners = (slice(None), slice(None, None, 31), slice(None, None, 31))
    torch.testing.assert_close(whole["stage3.0"][corners], small["stage3.0"][:, ::7, ::7])


def test_maps_leave_out_modules_without_the_part(model, pixels):
    assert list(attention_maps(model, pixels, part="1/4")) == ["stage1.0"]
