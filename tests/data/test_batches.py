"""Batches and their augmentation against a straightforward image-by-image reference."""

import numpy as np
import pytest
import torch
from torch import Tensor

from attnet.base.errors import ConfigError
from attnet.data.augment import Augmentation
from attnet.data.batches import Batch, Colour, TestBatches, TrainBatches
from attnet.data.splits import Split

CPU = torch.device("cpu")
PLAIN = Augmentation(flip="off", crop_padding=0)
USUAL = Augmentation(flip="random", crop_padding=4)
ALL = Augmentation(flip="random", crop_padding=2, cutout=5, mixup=0.3)
SIDE = 12


def make_split(n: int = 50, side: int = SIDE) -> Split:
    """Random images, never twice the same; label i is image i's."""
    generator = torch.Generator().manual_seed(5)
    return Split(torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator), torch.arange(n))


def flat(batches: TrainBatches, epoch: int = 0, start: int = 0) -> list[Batch]:
    """The micro-batches of an epoch, one after the other."""
    return [batch for step in batches.epoch(epoch, start) for batch in step]


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.weight == b.weight
        for a, b in zip(left, right, strict=True)
    )


def by_hand(split: Split, plan: dict[str, Tensor], row: int, augmentation: Augmentation, colour: Colour | None):
    """One training image as float64 [3, side, side], done the slow way."""
    image = split.images[int(plan["image"][row])].numpy()
    side, pad = image.shape[-1], augmentation.crop_padding or 0
    canvas = np.zeros((3, side + 2 * pad, side + 2 * pad), np.uint8)
    canvas[:, pad : pad + side, pad : pad + side] = image
    top, left = plan["offset"][row].tolist()
    image = canvas[:, top : top + side, left : left + side]
    if "mirror" in plan and plan["mirror"][row]:
        image = image[:, :, ::-1]
    image = image / 255
    if colour is not None:
        image = (image - np.reshape(colour.mean, (3, 1, 1))) / np.reshape(colour.std, (3, 1, 1))
    if augmentation.cutout:
        y, x = (plan["hole"][row] - augmentation.cutout // 2).tolist()
        image[:, max(y, 0) : y + augmentation.cutout, max(x, 0) : x + augmentation.cutout] = 0
    return image


@pytest.mark.parametrize("standardised", [False, True], ids=["raw", "standardised"])
@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(flip="random"),
        Augmentation(crop_padding=4),
        Augmentation(flip="random", crop_padding=3, cutout=5),
        Augmentation(flip="random", crop_padding=3, cutout=6),
    ],
    ids=["flip", "crop", "cutout5", "cutout6"],
)
def test_augmentation_is_the_reference_image_by_image(augmentation, standardised):
    split = make_split()
    colour = Colour.of(split.images) if standardised else None
    batches = TrainBatches(split, 10, CPU, seed=3, augmentation=augmentation, colour=colour)
    plan = batches._draw(7)
    assert "mirror" not in plan if augmentation.flip is None else set(plan["mirror"].tolist()) == {0, 1}
    assert set(plan["offset"].flatten().tolist()) == set(range(2 * (augmentation.crop_padding or 0) + 1))
    images = torch.cat([batch.images for batch in flat(batches, 7)])
    labels = torch.cat([batch.labels for batch in flat(batches, 7)])
    assert torch.equal(labels, split.labels[plan["image"]])
    expected = np.stack([by_hand(split, plan, row, augmentation, colour) for row in range(50)])
    np.testing.assert_allclose(images.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_without_augmentation_every_image_comes_once_and_unchanged():
    split = make_split()
    batches = flat(TrainBatches(split, 10, CPU, augmentation=PLAIN))
    images, labels = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("images", "labels"))
    assert sorted(labels.tolist()) == list(range(50))
    assert labels.tolist() != list(range(50))
    assert torch.equal(images, split.images[labels].float() / 255)


def test_cutout_is_a_square_and_smaller_only_at_the_border():
    white = Split(torch.full((400, 3, SIDE, SIDE), 255, dtype=torch.uint8), torch.zeros(400, dtype=torch.int64))
    augmentation = Augmentation(flip="off", crop_padding=0, cutout=4)
    (batch,) = flat(TrainBatches(white, 400, CPU, augmentation=augmentation))
    hole = batch.images == 0
    assert torch.equal(hole.any(dim=1), hole.all(dim=1)), "all colours at once"
    rows, columns = hole[:, 0].any(dim=2).sum(dim=1), hole[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(hole[:, 0].sum(dim=(1, 2)), rows * columns), "a rectangle"
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4}  # its centre is always a pixel of the image


def test_mixup_is_a_weighted_sum_with_the_batch_in_reverse():
    split = make_split(60)
    augmentation = Augmentation(flip="random", crop_padding=2, cutout=3)
    apart = flat(TrainBatches(split, 6, CPU, seed=1, augmentation=augmentation))
    mixed = flat(TrainBatches(split, 6, CPU, seed=1, augmentation=augmentation.replace(mixup=0.5)))
    weights = [batch.weight for batch in mixed]
    assert len({weight.item() for weight in weights}) == len(mixed) == 10
    assert 0.5 <= min(weights) < max(weights) <= 1
    for plain, batch in zip(apart, mixed, strict=True):
        assert plain.weight == 1
        assert plain.other_labels is None
        expected = batch.weight * plain.images + (1 - batch.weight) * plain.images.flip(0)
        torch.testing.assert_close(batch.images, expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(batch.labels, plain.labels)
        assert torch.equal(batch.other_labels, plain.labels.flip(0))


def test_mixup_ends_where_it_is_told_to():
    mixing = Augmentation(mixup=0.5, mixup_off_epochs=2)
    batches = TrainBatches(make_split(), 10, CPU, augmentation=mixing, epochs=4)
    mixed = [all(batch.other_labels is not None for batch in flat(batches, epoch)) for epoch in range(4)]
    assert mixed == [True, True, False, False]
    assert all(batch.other_labels is None and batch.weight == 1 for batch in flat(batches, 2))


def test_alternating_flip_shows_every_image_from_both_sides_in_two_epochs():
    split = make_split()
    augmentation = Augmentation(flip="alternating", crop_padding=0)
    seen: dict[int, list[bool]] = {label: [] for label in range(50)}
    for epoch in range(4):
        for batch in flat(TrainBatches(split, 10, CPU, seed=2, augmentation=augmentation), epoch):
            for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
                original = split.images[label].float() / 255
                assert torch.equal(image, original) or torch.equal(image, original.flip(2))
                seen[label].append(not torch.equal(image, original))
    assert all(sides in ([False, True] * 2, [True, False] * 2) for sides in seen.values())
    assert 10 < sum(sides[0] for sides in seen.values()) < 40, "which side comes first is drawn"


@pytest.mark.parametrize(
    ("sizes", "epochs", "shown"),
    [
        ("", 3, [12, 12, 12]),
        ("12", 2, [12, 12]),
        ("6,8,12", 6, [6, 6, 8, 8, 12, 12]),
        ("6,6,8,12", 8, [6, 6, 6, 6, 8, 8, 12, 12]),
        ("6,8,12", 4, [6, 8, 12, 12]),  # what does not come out even is full
        ("6,8,12", 2, [8, 12]),
        ("6,8,12", 1, [12]),  # the last epoch always
    ],
)
def test_images_grow_through_the_training(sizes, epochs, shown):
    augmentation = USUAL.replace(image_sizes=sizes)
    batches = TrainBatches(make_split(), 10, CPU, augmentation=augmentation, epochs=epochs)
    assert [batches.shown(epoch) for epoch in range(epochs)] == shown
    assert [flat(batches, epoch)[0].images.shape[2:] for epoch in range(epochs)] == [(s, s) for s in shown]


def test_small_images_are_averages_of_the_same_pictures():
    """Everything drawn is what it would be at full size; half the side is the mean of every two by two pixels."""
    full = flat(TrainBatches(make_split(), 10, CPU, seed=3, augmentation=ALL, epochs=2))
    small = flat(TrainBatches(make_split(), 10, CPU, seed=3, augmentation=ALL.replace(image_sizes="6,12"), epochs=2))
    for large, half in zip(full, small, strict=True):
        assert torch.equal(large.labels, half.labels) and torch.equal(large.weight, half.weight)
        means = large.images.reshape(10, 3, 6, 2, 6, 2).mean(dim=(3, 5))
        torch.testing.assert_close(half.images, means)
        assert half.images.is_contiguous(memory_format=torch.channels_last)


def test_an_epoch_depends_on_seed_and_number_alone():
    split = make_split()
    first = flat(TrainBatches(split, 10, CPU, seed=4, augmentation=ALL), 2)
    torch.manual_seed(99)
    np.random.seed(99)
    state = torch.get_rng_state()
    again = TrainBatches(split, 10, CPU, seed=4, augmentation=ALL)
    flat(again, 1)
    assert same(flat(again, 2), first)
    assert torch.equal(torch.get_rng_state(), state), "drawing disturbed the global generator"
    assert not same(flat(again, 3), first)
    other = TrainBatches(split, 10, CPU, seed=5, augmentation=ALL)
    assert not same(flat(other, 2), first)
    assert not same(flat(other, 1), first), "runs with neighbouring seeds share epochs"


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_a_resumed_epoch_goes_on_with_the_same_batches(start):
    batches = TrainBatches(make_split(), 5, CPU, augmentation=ALL, shards=2)
    whole = list(batches.epoch(3))
    rest = list(batches.epoch(3, start))
    assert len(whole) == 5
    assert len(rest) == 5 - start
    assert all(same(a, b) for a, b in zip(rest, whole[start:], strict=True))


@pytest.mark.parametrize("shards", [2, 3])
def test_cards_share_out_exactly_the_micro_batches_of_accumulation(shards):
    split = make_split(53)
    one_card = TrainBatches(split, 4, CPU, augmentation=ALL, shards=shards)
    cards = [TrainBatches(split, 4, CPU, augmentation=ALL, shards=shards, first=j, count=1) for j in range(shards)]
    assert {len(card) for card in cards} == {len(one_card)} == {53 // (4 * shards)}
    for step, *parts in zip(one_card.epoch(1), *(card.epoch(1) for card in cards), strict=True):
        assert same(step, [batch for part in parts for batch in part])
    seen = torch.cat([batch.labels for batch in flat(one_card, 1)]).tolist()
    assert len(set(seen)) == len(seen) == len(one_card) * 4 * shards


def test_two_micro_batches_a_card():
    split = make_split()
    whole = list(TrainBatches(split, 4, CPU, shards=4).epoch(0))
    second = list(TrainBatches(split, 4, CPU, shards=4, first=2, count=2).epoch(0))
    assert all(same(a, b[2:]) for a, b in zip(second, whole, strict=True))


def test_how_the_epoch_is_cut_does_not_change_the_pictures():
    split, augmentation = make_split(), Augmentation(flip="random", crop_padding=2, cutout=5)
    coarse, fine = (TrainBatches(split, size, CPU, augmentation=augmentation) for size in (24, 6))
    assert (len(coarse), len(fine)) == (2, 8)  # the 2 images left over are dropped
    assert torch.equal(
        torch.cat([batch.images for batch in flat(coarse)]), torch.cat([batch.images for batch in flat(fine)])
    )


@pytest.mark.parametrize("augmentation", [PLAIN, USUAL, ALL], ids=["plain", "usual", "all"])
@pytest.mark.parametrize("standardised", [False, True], ids=["raw", "standardised"])
def test_images_are_float32_and_lie_channels_last_in_memory(augmentation, standardised):
    split = make_split()
    colour = Colour.of(split.images) if standardised else None
    train = next(TrainBatches(split, 10, CPU, augmentation=augmentation, colour=colour).epoch(0))[0]
    test = next(iter(TestBatches(split, 10, CPU, colour)))
    for images in (train.images, test.images):
        assert images.shape == (10, 3, SIDE, SIDE)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)


def test_standardised_images_have_mean_0_and_deviation_1():
    split = make_split(200)
    split.images[:, 1] //= 2  # colours differ
    (batch,) = TestBatches(split, 200, CPU, Colour.of(split.images))
    torch.testing.assert_close(batch.images.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(batch.images.std(dim=(0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_colour_that_is_the_same_everywhere_stays_a_number(level):
    """Pictures in two colours; a deviation of 0, or of what rounding leaves of it, would make no numbers of them."""
    split = make_split(200)
    split.images[:, 2] = level
    colour = Colour.of(split.images)
    assert colour.std[2] == 1 and colour.mean[2] == pytest.approx(level / 255)
    (batch,) = TestBatches(split, 200, CPU, colour)
    torch.testing.assert_close(batch.images[:, 2], torch.zeros_like(batch.images[:, 2]), rtol=0, atol=1e-6)
    assert batch.images[:, :2].std() == pytest.approx(1, abs=1e-4)
    split.images[0, 2, 0, 0] ^= 1  # one pixel, one level: a deviation, however small
    assert 0 < Colour.of(split.images).std[2] < 0.001


def test_test_batches_give_every_image_once_in_order():
    split = make_split(23)
    batches = TestBatches(split, 10, CPU)
    for _ in range(2):  # it can be walked again and again
        assert [len(batch.labels) for batch in batches] == [10, 10, 3]
    assert len(batches) == 3
    assert torch.cat([batch.labels for batch in batches]).tolist() == list(range(23))
    assert torch.equal(torch.cat([batch.images for batch in batches]), split.images.float() / 255)


def test_the_data_set_itself_is_never_changed():
    split = make_split()
    images = split.images.clone()
    flat(TrainBatches(split, 10, CPU, augmentation=ALL, colour=Colour.of(images)))
    list(TestBatches(split, 10, CPU, Colour.of(images)))
    assert torch.equal(split.images, images)


@pytest.mark.parametrize(
    ("size", "shards", "message"),
    [(51, 1, "train_batch_size=51: more than the 50 training"), (26, 2, "=26 x 2 micro-batches a step: more than")],
)
def test_a_step_larger_than_the_set_is_an_error_with_the_numbers(size, shards, message):
    with pytest.raises(ConfigError, match=message):
        TrainBatches(make_split(), size, CPU, shards=shards)
    assert len(TrainBatches(make_split(), 50 // shards, CPU, shards=shards)) == 1
