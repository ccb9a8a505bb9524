"""Splits and data sets: parts of them keep together what belongs together."""

from __future__ import annotations

import pytest
import torch

from attnet.base.errors import DataError
from attnet.data.noise import with_label_noise
from attnet.data.splits import Dataset, Split

NAMES = ("cat", "dog", "frog", "horse", "ship")


def split(labels: list[int]) -> Split:
    n = len(labels)
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, 32, 32)
    return Split(images, torch.tensor(labels), images[:, 0] % 2 == 0)


def test_subset_is_balanced_and_keeps_images_labels_and_masks_together() -> None:
    whole = split([i // 20 for i in range(200)])  # sorted by class: a plain head would hold one class only
    part = whole.subset(53)
    counts = part.labels.bincount(minlength=10)
    assert len(part) == 53 and counts.min() == 5 and counts.max() == 6
    chosen = part.images[:, 0, 0, 0].long()
    assert (chosen.diff() > 0).all()  # each image once, in the original order
    assert torch.equal(whole.labels[chosen], part.labels)
    assert torch.equal(part.masks[:, 0, 0], chosen % 2 == 0)
    assert Split(whole.images, whole.labels).subset(5).masks is None


def test_subset_fills_up_where_a_class_is_short() -> None:
    assert split([0] * 2 + [1] * 30 + [2] * 30).subset(42).labels.bincount().tolist() == [2, 20, 20]


def test_subset_depends_on_seed_alone_and_is_nested() -> None:
    whole = split([i % 10 for i in range(200)])
    first, again, other = (whole.subset(40, seed=s).images[:, 0, 0, 0].tolist() for s in (1, 1, 2))
    assert first == again != other
    assert set(whole.subset(25, seed=1).images[:, 0, 0, 0].tolist()) < set(first)
    assert torch.equal(whole.subset(200).labels, whole.labels)


@pytest.mark.parametrize("n", [201, 0, -1, 2.5, True, "many"])
def test_subset_of_an_impossible_size(n: object) -> None:
    with pytest.raises(DataError, match=f"n: {n!r}; give a whole number from 1 to 200"):
        split([0] * 200).subset(n)


def test_a_part_of_a_part_keeps_true_labels_and_places() -> None:
    whole = with_label_noise(split([i % 5 for i in range(100)]), 5, 0.4)
    part = whole.subset(60).subset(30)
    assert torch.equal(part.places, part.images[:, 0, 0, 0].long())
    assert torch.equal(part.labels, whole.labels[part.places])
    assert torch.equal(part.true_labels, part.places % 5)
    assert not torch.equal(part.labels, part.true_labels)


def test_places_are_of_the_whole_and_evenly_of_the_part() -> None:
    part = split([i % 5 for i in range(100)]).subset(60)
    chosen = part.evenly(20)
    assert torch.equal(part.rows(chosen).places, part.subset(20).places)
    assert chosen.max() < 60 <= part.places.max(), "a part has fewer positions than the whole"


# ---- classes ----


def dataset() -> Dataset:
    return Dataset(split([i % 5 for i in range(50)]), split([4, 3, 2, 1, 0]), NAMES, "animals", "made here")


@pytest.mark.parametrize("wanted", ["ship,dog", " ship , dog ", "4,1", "ship,1"])
def test_classes_by_name_or_number_are_renumbered_in_the_given_order(wanted: str) -> None:
    part = dataset().of_classes(wanted)
    assert part.classes == ("ship", "dog") and part.name == "animals"
    places = part.train.places
    assert places.tolist() == [i for i in range(50) if i % 5 in (1, 4)]
    assert part.train.labels.tolist() == [0 if i % 5 == 4 else 1 for i in places.tolist()]
    assert torch.equal(part.train.images[:, 0, 0, 0].long(), places)
    assert torch.equal(part.train.masks[:, 0, 0], places % 2 == 0)
    assert (part.test.labels.tolist(), part.test.places.tolist()) == ([0, 1], [0, 3])


def test_all_classes_in_another_order() -> None:
    part = dataset().of_classes("4,3,2,1,0")
    assert part.classes == NAMES[::-1] and part.test.labels.tolist() == [0, 1, 2, 3, 4]
    assert part.train.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("dgo,cat", "'dgo' is no class of animals; did you mean 'dog'?"),
        ("Cat,dog", "'Cat' is no class of animals; did you mean 'cat'?"),
        ("dog,5", "'5' is no class of animals; known are 0 to 4: cat, dog, frog, horse, ship"),
        ("dog,-1", "'-1' is no class"),
        ("dog,", "'' is no class"),
        ("dog,ship,1", "'dog' is there twice; give each class once"),
        ("dog", "one class alone leaves nothing to tell apart; give two or more"),
    ],
)
def test_classes_that_cannot_be(wanted: str, reason: str) -> None:
    with pytest.raises(DataError) as error:
        dataset().of_classes(wanted)
    assert str(error.value).startswith(f"classes={wanted!r}: {reason}")


def test_a_number_of_thousands_of_digits_is_no_class() -> None:
    with pytest.raises(DataError, match="is no class of animals; known are 0 to 4"):
        dataset().of_classes(f"dog,{'9' * 5000}")


def test_classes_are_chosen_before_noise_is_drawn() -> None:
    noisy = Dataset(with_label_noise(split([0, 1] * 5), 2, 0.5), split([0, 1]), ("cat", "dog"), "animals", "made here")
    with pytest.raises(DataError, match="before label noise is drawn"):
        noisy.of_classes("dog,cat")
