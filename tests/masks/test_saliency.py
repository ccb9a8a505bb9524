"""Grad-CAM against formulas, deletion and insertion against models whose answer is known."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import attnet
from attnet.base.errors import ConfigError
from attnet.masks.replace import intervening
from attnet.masks.saliency import Curves, deletion_insertion, grad_cam
from attnet.model.network import ResidualAttentionNetwork


@pytest.fixture
def model() -> ResidualAttentionNetwork:
    """Its norms are drawn at random: fresh ones leave features so alike that many a map is 0 all over."""
    torch.manual_seed(0)
    network = attnet.build_model("attention56_tiny")
    for name, parameter in network.named_parameters():
        if "norm" in name:
            nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.5)
    return network


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def enlarge(maps: Tensor) -> Tensor:
    return F.interpolate(maps[:, None], size=(32, 32), mode="bilinear", align_corners=False)[:, 0]


# -- Grad-CAM -----------------------------------------------------------------------------------------------------


def test_at_the_last_features_the_weights_are_the_classifiers(model, images):
    """Pooling is a mean and the classifier linear: the gradient is its weight over the number of positions."""
    targets = torch.tensor([4, 0, 9])
    maps = grad_cam(model, images, targets)
    with torch.no_grad():
        model.eval()
        features = F.relu(model.norm(model.tail(model.stages(model.stem(images)))))
        weights = model.fc.weight[targets] / (8 * 8)
        expected = F.relu(torch.einsum("nc,nchw->nhw", weights, features))
    assert maps.dtype == torch.float32 and maps.shape == (3, 32, 32)
    torch.testing.assert_close(maps, enlarge(expected))
    assert maps.min() == 0 < maps.max()
    assert (features == 0).any()  # there, too, the gradient counts


@pytest.mark.parametrize("name", ["stage1.0", "stage2.0", "stage3.0"])
def test_at_a_module_against_autograd_by_hand(model, images, name):
    maps = grad_cam(model, images, module=name)
    model.eval()
    features = model.stages[: int(name[5])](model.stem(images)).detach().requires_grad_()
    rest = F.relu(model.norm(model.tail(model.stages[int(name[5]) :](features))))
    logits = model.fc(rest.mean(dim=(2, 3)))
    gradient = torch.autograd.grad(logits.amax(dim=1).sum(), features)[0]  # the predicted class is the default
    expected = F.relu((gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1))
    torch.testing.assert_close(maps, enlarge(expected.detach()))
    assert maps.max() > 0


def test_batches_number_types_and_wrappers_make_no_difference(model, images):
    pixels = (images * 255).byte()
    expected = grad_cam(model, pixels)
    wrapped = torch.compile(model, backend="eager")
    for maps in (grad_cam(model, pixels.float() / 255, batch_size=2), grad_cam(wrapped, pixels)):
        torch.testing.assert_close(maps, expected)
    torch.testing.assert_close(grad_cam(model, pixels[1]), expected[1:2])
    targets = torch.tensor([3, 1, 2])
    torch.testing.assert_close(grad_cam(model, pixels, targets, batch_size=1), grad_cam(model, pixels, targets))
    assert grad_cam(model.to(torch.bfloat16), pixels).dtype == torch.float32


@pytest.mark.parametrize("module", [None, "stage2.0"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_gradient_mode_and_frozen_parameters(model, images, module, mode):
    expected = grad_cam(model, images, module=module)
    model.requires_grad_(False)
    with mode():
        enabled = torch.is_grad_enabled()
        maps = grad_cam(model, images + 0, module=module)
        assert torch.is_grad_enabled() == enabled
    assert torch.equal(maps, expected) and not maps.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("module", [None, "stage1.0"])
@pytest.mark.parametrize("fails", [False, True], ids=["works", "raises"])
def test_the_network_is_left_as_it_was(model, images, module, fails):
    model.train()
    model.stem.eval()
    modes = [part.training for part in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if fails:
        model.fc.weight, weight = nn.Parameter(model.fc.weight[:, :1].detach()), model.fc.weight
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            grad_cam(model, images, module=module)
        model.fc.weight = weight
    else:
        grad_cam(model, images, module=module)
    assert hooks(model) == 0
    assert [part.training for part in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_nothing_is_recorded_before_the_place(model, images):
    graphs = []
    model.tail.register_forward_hook(lambda _module, _inputs, output: graphs.append(output.requires_grad))
    model.stages.stage2.register_forward_hook(lambda _module, _inputs, output: graphs.append(output.requires_grad))
    grad_cam(model, images)
    grad_cam(model, images, module="stage3.0")
    assert graphs == [False, False, False, True]


def test_grad_cam_of_a_network_whose_masks_are_replaced(model, images):
    trunk = attnet.build_model("attention56_tiny", attention="none")
    trunk.load_state_dict(model.state_dict(), strict=False)
    for module in (None, "stage1.0"):
        with intervening(model, dict.fromkeys(model.attention_modules(), "zero")):
            torch.testing.assert_close(grad_cam(model, images, module=module), grad_cam(trunk, images, module=module))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": "stage9.0"}, r"module='stage9\.0': this network has stage1\.0"),
        ({"targets": torch.tensor([0, 1])}, r"targets of shape \[2\] and dtype torch\.int64: .* \[3\] here"),
        ({"targets": torch.rand(3)}, "dtype torch.float32: a whole number for each image"),
        ({"targets": torch.tensor([0, 1, 10])}, "targets from 0 to 10: the model has classes 0 to 9"),
    ],
)
def test_what_grad_cam_refuses(model, images, arguments, message):
    with pytest.raises(ConfigError, match=message):
        grad_cam(model, images, **arguments)
    assert hooks(model) == 0


def test_grad_cam_needs_one_of_our_networks(images):
    with pytest.raises(ConfigError, match="model is a Linear"):
        grad_cam(nn.Linear(3, 3), images)


# -- deletion and insertion ---------------------------------------------------------------------------------------


class Block(nn.Module):
    """Class 0 has 3/4 where a 2x2 block of pixels is white and 1/4 where it is black; nothing else counts."""

    def __init__(self, row: int = 4, column: int = 2) -> None:
        super().__init__()
        self.rows, self.columns = slice(row, row + 2), slice(column, column + 2)
        self.batches: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        self.batches.append(images)
        logit = math.log(3) * (2 * images[:, :, self.rows, self.columns].mean(dim=(1, 2, 3)) - 1)
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)

    def map(self, count: int = 1) -> Tensor:
        maps = torch.zeros(count, 8, 8)
        maps[:, self.rows, self.columns] = 1
        return maps


WHITE = torch.ones(1, 3, 8, 8)


def test_curves_of_a_model_that_looks_at_four_pixels():
    """17 points over 64 pixels are 4 pixels a step: the map that knows the block has it gone after the first."""
    model = Block()
    curves = deletion_insertion(model, WHITE, model.map(), baseline="black")
    assert torch.equal(curves.fractions, torch.linspace(0, 1, 17))
    torch.testing.assert_close(curves.deletion, torch.tensor([[0.75] + [0.25] * 16]))
    torch.testing.assert_close(curves.insertion, torch.tensor([[0.25] + [0.75] * 16]))
    torch.testing.assert_close(curves.deletion_areas, torch.tensor([0.25 + 1 / 64]))
    assert curves.insertion_area.mean == pytest.approx(0.75 - 1 / 64)

    worst = deletion_insertion(model, WHITE, -model.map(), baseline="black")
    torch.testing.assert_close(worst.deletion, torch.tensor([[0.75] * 16 + [0.25]]))
    assert worst.deletion_area.mean == pytest.approx(0.75 - 1 / 64)
    assert worst.insertion_area.mean == pytest.approx(0.25 + 1 / 64)

    noise = torch.rand(400, 8, 8, generator=torch.Generator().manual_seed(0))
    chance = deletion_insertion(model, WHITE.expand(400, -1, -1, -1), noise, baseline="black")
    for area in (chance.deletion_area, chance.insertion_area):
        # One image's area has the standard deviation of a mean of four pixels' places, 0.07; of 400 images', 0.0036.
        assert area.mean == pytest.approx(0.5, abs=0.015)
        assert area.low < area.mean < area.high < area.low + 0.03


def test_targets_are_the_predicted_classes_unless_given():
    model = Block()
    black = torch.zeros(1, 3, 8, 8)  # class 1 has 3/4
    both = torch.cat([WHITE, black])
    curves = deletion_insertion(model, both, model.map(2), baseline="black")
    torch.testing.assert_close(curves.deletion[1], torch.full((17,), 0.75))
    given = deletion_insertion(model, both, model.map(2), torch.tensor([1, 0]), baseline="black")
    torch.testing.assert_close(given.deletion, 1 - curves.deletion)
    torch.testing.assert_close(given.insertion, 1 - curves.insertion)


def test_each_image_is_seen_once_a_step_and_curve():
    model = Block().train()
    deletion_insertion(model, WHITE.expand(5, -1, -1, -1), torch.rand(5, 8, 8), steps=6, batch_size=2)
    assert sum(len(batch) for batch in model.batches) == 5 * (2 * 6 - 2)
    assert max(len(batch) for batch in model.batches) == 2
    assert model.training


@pytest.mark.parametrize("corner", [(0, 0), (6, 6)])
def test_ties_are_not_broken_by_position(corner):
    """On a flat map the pixels of either corner go at any time: half-way on average, and not in all images alike."""
    white, flat = WHITE.expand(200, -1, -1, -1), torch.zeros(200, 8, 8)
    areas = deletion_insertion(Block(*corner), white, flat, baseline="black").deletion_areas
    assert abs(areas.mean() - 0.5) < 0.02
    assert areas.std() > 0.02
    again, other = (
        deletion_insertion(
            Block(*corner), white[:7], flat[:7], baseline="black", batch_size=3, seed=seed
        ).deletion_areas
        for seed in (0, 1)
    )
    torch.testing.assert_close(again, areas[:7])
    assert not torch.allclose(other, areas[:7])


def test_both_curves_break_ties_alike():
    """What one has deleted the other has inserted: together their images are the whole image."""
    model = Block()
    deletion_insertion(model, WHITE, torch.zeros(1, 8, 8), steps=5, baseline="black")
    _whole, _empty, *pairs = model.batches
    for removed, put_in in zip(pairs[::2], pairs[1::2], strict=True):
        assert torch.equal(removed + put_in, WHITE)


@pytest.mark.parametrize("baseline", ["blur", "mean", "black"])
def test_insertion_is_deletion_from_the_other_end(model, images, baseline):
    maps = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
    there = deletion_insertion(model, images, maps, steps=4, baseline=baseline)
    back = deletion_insertion(model, (images * 1.0).double(), -maps, steps=4, baseline=baseline, batch_size=2)
    torch.testing.assert_close(there.deletion, back.insertion.flip(1))
    torch.testing.assert_close(there.insertion, back.deletion.flip(1))
    with torch.no_grad():
        first = model.eval()(images).softmax(dim=1).amax(dim=1)
    torch.testing.assert_close(there.deletion[:, 0], first)
    assert torch.equal(there.deletion[:, 0], there.insertion[:, -1])


def test_baselines(images):
    def empty(baseline: str, images: Tensor) -> Tensor:
        model = Block()
        deletion_insertion(model, images, torch.rand(len(images), *images.shape[2:]), steps=2, baseline=baseline)
        return model.batches[1]

    assert not empty("black", images).any()
    torch.testing.assert_close(empty("mean", images), images.mean(dim=(2, 3), keepdim=True).expand_as(images))
    blurred = empty("blur", images)
    assert (blurred.std(dim=(2, 3)) < images.std(dim=(2, 3)) / 5).all()
    flat = torch.rand(1, 3, 1, 1).expand(1, 3, 20, 12)  # no border darkens, and sides may differ
    torch.testing.assert_close(empty("blur", flat), flat)
    point = torch.zeros(1, 3, 33, 33)
    point[:, :, 16, 16] = 1
    spread = empty("blur", point)[0, 0]
    assert spread.argmax() == 16 * 33 + 16
    torch.testing.assert_close(spread, spread.T)
    torch.testing.assert_close(spread, spread.flip(0))


def test_a_model_without_an_opinion_and_uint8_images():
    class Constant(Block):
        def forward(self, images: Tensor) -> Tensor:
            super().forward(images)
            return torch.tensor([0.2, 0.5, 0.3]).log().expand(len(images), 3)

    model = Constant()
    pixels = torch.full((2, 3, 3, 3), 255, dtype=torch.uint8)
    curves = deletion_insertion(model, pixels, torch.rand(2, 3, 3), steps=5)
    assert torch.equal(model.batches[0], torch.ones(2, 3, 3, 3))
    torch.testing.assert_close(curves.fractions, torch.tensor([0, 2, 4, 7, 9]) / 9)  # whole pixels
    for areas in (curves.deletion_areas, curves.insertion_areas):
        torch.testing.assert_close(areas, torch.full((2,), 0.5))
    assert curves.deletion_area.mean == pytest.approx(0.5)


def test_areas_by_hand():
    curves = Curves(torch.tensor([0.0, 0.25, 1.0]), torch.tensor([[1.0, 0.5, 0.0]]), torch.tensor([[0.0, 1.0, 1.0]]))
    assert curves.deletion_areas.item() == pytest.approx(0.25 * 0.75 + 0.75 * 0.25)
    assert curves.insertion_areas.item() == pytest.approx(0.25 * 0.5 + 0.75)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"maps": torch.rand(1, 4, 4)}, r"maps of shape \[1, 4, 4\] .* attnet\.masks\.reduce\.upsample"),
        ({"maps": torch.full((1, 8, 8), math.nan)}, "maps hold a value that is not finite"),
        ({"steps": 1}, r"steps=1: from 2 \(the two ends\) to 65"),
        ({"steps": 66}, "steps=66"),
        ({"baseline": "white"}, "baseline='white': choose one of blur, mean, black"),
        ({"targets": torch.tensor([2])}, "targets from 2 to 2: the model has classes 0 to 1"),
    ],
)
def test_what_deletion_and_insertion_refuse(arguments, message):
    with pytest.raises(ConfigError, match=message):
        deletion_insertion(Block(), WHITE, **{"maps": torch.rand(1, 8, 8), **arguments})
