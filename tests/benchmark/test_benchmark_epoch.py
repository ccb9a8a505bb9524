"""The plain loop is what it says; an epoch of both sides gives numbers that fit together, and leaves nothing behind."""

import argparse
import dataclasses
import statistics

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attnet.base.errors import AttnetError, ConfigError
from attnet.benchmark import epoch, plain
from attnet.data.splits import Dataset, Split
from attnet.engine.plan import make_plan


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def make_options(**changes: object) -> argparse.Namespace:
    given = {
        **{"model": "attention56_tiny", "batch_size": 8, "rounds": 2, "amp": "O0", "device_type": "CPU"},
        **{"memory_format": "channels_last", "compile": "off"},
        **{"data_path": "", "dataset": "shapes", "train_images": 27, "test_images": 30, "workers": 1},
    }
    return argparse.Namespace(**given | changes)


def make_split(n: int) -> Split:
    """Random images of 32 pixels; label i is image i's."""
    generator = torch.Generator().manual_seed(3)
    return Split(torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator), torch.arange(n))


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


class Noting(nn.Module):
    """Says class 0 for every image, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))
        self.shown: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        assert images.is_contiguous()
        self.shown.append(images)
        return self.bias + torch.eye(10)[torch.zeros(len(images), dtype=torch.int64)]


def make_loop(network: nn.Module | None = None, batch_size: int = 8) -> plain.PlainLoop:
    """The plain loop without worker processes, around `network` in place of its own."""
    loop = plain.PlainLoop(make_plan(epoch.epoch_config(make_options(batch_size=batch_size))), workers=0)
    loop.network = network or loop.network
    return loop


def test_to_tensor_is_the_image_over_255():
    (image,) = make_split(1).images
    tensor = plain.to_tensor(picture(image))
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    torch.testing.assert_close(tensor, image / 255, rtol=0, atol=0)


def test_flip_mirrors():
    (image,) = make_split(1).images
    assert torch.equal(plain.to_tensor(plain.flip(picture(image))), image.flip(2) / 255)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (4, 4), (8, 1), (3, 8)])
def test_crop_is_a_window_of_the_padded_image(top, left):
    (image,) = make_split(1).images
    padded = np.zeros((3, 40, 40), np.uint8)
    padded[:, 4:36, 4:36] = image.numpy()
    piece = plain.crop(picture(image), top, left)
    assert np.array_equal(np.moveaxis(np.asarray(piece), 2, 0), padded[:, top : top + 32, left : left + 32])


def test_both_sides_draw_from_the_same_pictures():
    """Every picture that one side makes of an image is one that the other may make, and each has all of them."""
    one = make_split(1)
    many = Split(one.images.repeat(900, 1, 1, 1), torch.zeros(900, dtype=torch.int64))
    config = epoch.epoch_config(make_options())
    plan = dataclasses.replace(make_plan(config), dataset=Dataset(many, many, (), "", ""))
    batches = plan.train_batches()
    images = torch.cat([batch.images for (batch,) in batches.epoch(0)])
    torch.manual_seed(0)
    pictures = plain.Pictures(one, augmented=True)
    seen = {pictures[0][0].numpy().tobytes() for _ in range(2500)}
    assert len(seen) == 2 * 9 * 9, "mirrored or not, at 9 x 9 places"
    assert {image.contiguous().numpy().tobytes() for image in images} <= seen


def test_training_shuffles_and_testing_does_neither_that_nor_augment():
    split = make_split(43)
    still, training = plain.Pictures(split, augmented=False), plain.Pictures(split, augmented=True)
    assert [still[i][1] for i in range(len(still))] == list(range(43))
    assert all(torch.equal(still[i][0], split.images[i] / 255) for i in range(43))
    torch.manual_seed(1)
    assert sum(torch.equal(training[i][0], still[i][0]) for i in range(43)) < 5
    loop = make_loop(Noting(), batch_size=10)
    loop.train(Split(split.images, split.labels % 10))
    assert [len(images) for images in loop.network.shown] == [10, 10, 10, 10, 3]
    assert loop.network.training


def test_plain_loop_tests_every_image_once_in_steps_of_20():
    split = make_split(47)
    loop = make_loop(Noting())
    network = loop.network
    top1 = loop.test(Split(split.images, torch.tensor([0] * 9 + [1] * 38)))
    assert [len(images) for images in network.shown] == [20, 20, 7]
    assert torch.equal(torch.cat(network.shown), split.images / 255)
    assert top1 == pytest.approx(100 * 9 / 47)
    assert not network.training


def test_plain_loop_trains(monkeypatch):
    monkeypatch.setattr(plain, "SHOWN", 1)
    labels = torch.arange(8 * 20) % 2
    darker_and_brighter = (64 + 128 * labels).to(torch.uint8)[:, None, None, None].repeat(1, 3, 32, 32)
    loop = make_loop()
    loop.network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    loop.optimizer = torch.optim.SGD(loop.network.parameters(), lr=1e-3)
    losses = loop.train(Split(darker_and_brighter, labels))
    assert len(losses) == 20
    assert statistics.mean(losses[-5:]) < 0.5 * losses[0]


@pytest.mark.parametrize(("images", "expected"), [(8, 8), (15, 8), (16, 16), (100, 96)])
def test_whole_steps(images, expected):
    assert epoch.whole_steps(images, 8, {"train_images": 100}) == expected


@pytest.mark.parametrize("images", [7, 101])
def test_images_that_there_are_not(images):
    with pytest.raises(ConfigError, match=rf"train_images={images}: give from 8 \(batch_size\) to 100"):
        epoch.whole_steps(images, 8, {"train_images": 100})


@pytest.mark.slow
def test_an_epoch_of_both_sides(capfd):
    options = make_options()
    result = epoch.measure(options)
    assert not psutil.Process().children(recursive=True)
    assert result["workers"] == 1
    assert (result["train_images"], result["test_images"]) == (24, 30), "27 without what does not fill a step"
    for side in ("ours", "plain"):
        parts, seconds = result["parts"][side], result["seconds"][side]
        assert len(seconds) == len(result["top1"][side]) == options.rounds
        assert all(value > 0 for part in ("train", "test") for value in parts[part])
        assert seconds == pytest.approx([a + b for a, b in zip(parts["train"], parts["test"], strict=True)])
        assert all(0 <= 30 * top1 / 100 <= 30 and (30 * top1 / 100) % 1 == pytest.approx(0, abs=1e-6)
                   for top1 in result["top1"][side])  # fmt: skip
    ratios = [p / o for o, p in zip(result["seconds"]["ours"], result["seconds"]["plain"], strict=True)]
    assert result["ratio"] == {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    assert capfd.readouterr().err.count("benchmark: epoch: round") == 4


@pytest.mark.slow
def test_what_a_worker_cannot_do_is_said_here(tmp_path):
    with pytest.raises(AttnetError, match=r"data_path: .*nothing.* does not exist"):
        epoch.side_worker("plain", make_options(dataset="cifar10", data_path=str(tmp_path / "nothing")))
    assert not psutil.Process().children(recursive=True)


def test_options_become_parameters():
    config = epoch.epoch_config(make_options(memory_format="contiguous", compile="on", amp="O1"))
    assert (config.channels_last, config.compile, config.amp) == (False, "on", "O1")
    assert (config.train_batch_size, config.train_images, config.total_epochs, config.recipe) == (8, 0, 1, "seed")
    assert epoch.epoch_config(make_options()).channels_last
