"""Deletion, insertion and ROAD against models whose answer is known, and against other libraries."""

import math

import pytest
import torch
from networks import varied
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.faithfulness import Curves, Removal, deletion_insertion, impute
from attnet.model.network import ResidualAttentionNetwork


@pytest.fixture
def model() -> ResidualAttentionNetwork:
    return varied()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


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


@pytest.mark.parametrize("baseline", ["black", "linear"])
def test_the_ends_are_computed_once_for_all_maps(model, images, baseline):
    """Each map's curves are, to the digit, those that it has alone."""
    options = {"steps": 4, "baseline": baseline, "batch_size": 2, "seed": 3}
    maps = torch.rand(3, len(images), 32, 32, generator=torch.Generator().manual_seed(2)).round(decimals=1)
    alone = [deletion_insertion(model, images, one, **options) for one in maps]
    passed: list[int] = []
    model.register_forward_pre_hook(lambda _module, inputs: passed.append(len(inputs[0])))
    removal = Removal(model, images, **options)
    for one, expected in zip(maps, alone, strict=True):
        found = removal.curves(one)
        assert torch.equal(found.deletion, expected.deletion) and torch.equal(found.insertion, expected.insertion)
    assert sum(passed) == len(images) * (2 + len(maps) * (2 * 4 - 4))


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


# -- ROAD ---------------------------------------------------------------------------------------------------------


def test_imputed_pixels_are_the_mean_of_those_around_them():
    """A plane stays one, since its values are the mean of their neighbours'; kept pixels stay as they are."""
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    plane = (0.02 * x + 0.03 * y).expand(2, 3, 12, 12)
    gone = torch.zeros(2, 1, 12, 12, dtype=torch.bool)
    gone[0, 0, 3:9, 2:10] = True
    gone[1, 0, 5, 5] = True
    torch.testing.assert_close(impute(plane, gone), plane, rtol=0, atol=2e-3)
    noise = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    filled = impute(noise, gone)
    assert torch.equal(filled[~gone.expand_as(filled)], noise[~gone.expand_as(noise)])
    around = noise[1, :, 4:7, 4:7]
    weights = torch.tensor([[1.0, 2.0, 1.0], [2.0, 0.0, 2.0], [1.0, 2.0, 1.0]]) / 12
    torch.testing.assert_close(filled[1, :, 5, 5], (around * weights).sum(dim=(1, 2)), rtol=0, atol=2e-3)


def test_an_image_that_is_gone_altogether_has_its_mean_colour():
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    filled = impute(image, torch.ones(1, 1, 8, 8, dtype=torch.bool))
    torch.testing.assert_close(filled, image.mean(dim=(2, 3), keepdim=True).expand_as(image))


@pytest.mark.slow
def test_imputation_is_that_of_another_library():
    """Theirs solves the same equations; its noise is left out."""
    perturb = pytest.importorskip("quantus.functions.perturb_func", reason='pip install -e ".[test]" brings quantus')
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    gone = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.6
    gone[2, :, :, 2:] = True
    filled = impute(images, gone)
    for image, chosen, ours in zip(images, gone, filled, strict=True):
        indices = chosen.flatten().nonzero()[:, 0].numpy()
        theirs = torch.from_numpy(perturb.noisy_linear_imputation(image.numpy(), indices, noise=0.0))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)


def test_the_two_orders_and_what_they_say(images):
    """A model that sees the brightness of a block: without it the probability falls, without the rest it does not."""
    model = Block(2, 2)
    image = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.2
    image[:, :, 2:4, 2:4] = 1.0
    curves = deletion_insertion(model, image, model.map(6), steps=5, baseline="linear")
    assert (curves.contrast > 0.2).all() and (curves.right_way == 1).all()
    wrong = deletion_insertion(model, image, -model.map(6), steps=5, baseline="linear")
    assert (wrong.contrast < -0.2).all() and (wrong.right_way < 1).all()
    again = deletion_insertion(model, image[3:], model.map(3), steps=5, baseline="linear", batch_size=1)
    assert again.deletion.shape == (3, 5)


def test_right_way_by_hand():
    curves = Curves(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[0.9, 0.5, 0.1], [0.4, 0.6, 0.1], [0.3, 0.3, 0.1]]),
                    torch.tensor([[0.1, 0.8, 0.9], [0.1, 0.5, 0.4], [0.1, 0.2, 0.3]]))  # fmt: skip
    assert curves.right_way.tolist() == [1.0, 0.0, 0.5]
    areas = torch.tensor([[0.5, 0.65], [0.425, 0.375], [0.25, 0.2]])  # of deletion and insertion, by trapezoids
    torch.testing.assert_close(curves.contrast, areas[:, 1] - areas[:, 0])
