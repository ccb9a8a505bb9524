"""Which images are shown: the rule, by hand, and that nothing but network and split decides."""

import pytest
import torch
from networks import contrasting, tiny
from torch import Tensor, nn

import attnet
from attnet.data.splits import Split
from attnet.masks.choose import plain_image, telling_images


def make_split(model: nn.Module, wrong: tuple[int, ...] = (), images: int = 12) -> Split:
    """Noise of growing contrast, labelled with what the network says of it, but for some."""
    generator = torch.Generator().manual_seed(3)
    strength = torch.linspace(0.1, 1, images)[:, None, None, None]
    pixels = (128 + 127 * strength * (2 * torch.rand(images, 3, 32, 32, generator=generator) - 1)).to(torch.uint8)
    labels = attnet.capture(model, pixels).logits.argmax(dim=1)
    labels[list(wrong)] = (labels[list(wrong)] + 1) % 10
    return Split(pixels, labels)


def variation(model: nn.Module, split: Split) -> Tensor:
    found = attnet.capture_masks(model, split.images).values()
    return torch.stack([mask.std(dim=(2, 3), correction=0).mean(dim=1) for mask in found]).mean(dim=0)


def test_right_ones_come_first_and_vary_less_and_less_within_a_class():
    model = contrasting()
    split = make_split(model, wrong=(3, 11))
    spread, found = variation(model, split), telling_images(model, split, 12).tolist()
    assert sorted(found) == list(range(12))
    assert set(found[-2:]) == {3, 11}
    for label in split.labels.unique().tolist():
        own = [i for i in found[:10] if split.labels[i] == label]
        assert own == sorted(own, key=lambda i: -spread[i])
        assert len(own) == 0 or own[0] in found[: len(split.labels[found[:10]].unique())], "a class each at first"


def test_the_same_images_in_whatever_batches_and_positions_in_the_split_itself():
    model = contrasting()
    whole = make_split(model)
    part = whole.rows(torch.tensor([9, 2, 5, 7]))
    assert telling_images(model, whole, 5).tolist() == telling_images(model, whole, 5, batch_size=5).tolist()
    assert sorted(telling_images(model, part, 9).tolist()) == [0, 1, 2, 3]
    few = telling_images(model, whole, 3, among=4)
    assert set(few.tolist()) <= set(whole.subset(4).places.tolist())


@pytest.mark.parametrize("options", [{"attention": "none"}, {}])
def test_of_equals_the_earlier_one_comes_first(options):
    model = tiny(**options)
    split = make_split(model, images=6)
    same = Split(split.images[:1].repeat(6, 1, 1, 1), split.labels[:1].repeat(6))
    assert telling_images(model, same, 4).tolist() == [0, 1, 2, 3]


def test_masks_of_another_network_are_asked_in_the_same_way():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.head = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid()), nn.Linear(4, 10)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.gate(images).mean(dim=(2, 3)))

    torch.manual_seed(0)
    model = Gated()
    split = Split(torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), torch.zeros(6, dtype=torch.int64))
    assert len(telling_images(model, split, 3, masks={"only": "gate"})) == 3


def test_before_there_is_a_network_the_object_that_stands_out_is_shown():
    images = torch.full((3, 3, 32, 32), 90, dtype=torch.uint8)
    images[0, :, :4, :4] = 255  # in the frame
    images[1, :, 10:22, 10:22] = 140
    images[2, :, 26:31, 4:30] = 255
    labels = torch.zeros(3, dtype=torch.int64)
    assert plain_image(Split(images, labels)) == 1
    objects = torch.zeros(3, 32, 32, dtype=torch.bool)
    objects[:, 26:31, 4:30] = True
    assert plain_image(Split(images, labels, objects)) == 2
