"""Training and test batches from a data set that lives on the device as uint8: no workers, no per-image Python.

What is random in them is drawn in `attnet.data.augment`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnet.base.errors import ConfigError
from attnet.data.augment import Augmentation, Augmenter
from attnet.data.splits import Split


@dataclass(frozen=True)
class Colour:
    """Standardisation of each colour channel: (x - mean) / std, on images in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, images: Tensor) -> Colour:
        """Mean and standard deviation per channel of uint8 images [N, 3, H, W].

        A channel that is the same everywhere, as of pictures in two colours, has none; it is divided by 1.
        """
        counts = torch.stack([images[:, c].flatten().bincount(minlength=256) for c in range(3)]).double()
        levels = torch.arange(256, dtype=torch.float64) / 255
        weights = counts / counts.sum(dim=1, keepdim=True)
        mean = weights @ levels
        variance = weights @ levels.square() - mean.square()
        alike = (counts > 0).sum(dim=1) == 1
        std = torch.where(alike, 1.0, variance.clamp(min=0).sqrt())
        return cls(tuple(mean.tolist()), tuple(std.tolist()))

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and deviation as float32 [3] where the images are: sent there once, not with every batch."""
        return torch.tensor(self.mean, device=device), torch.tensor(self.std, device=device)


@dataclass(frozen=True)
class Batch:
    """`images` float32 [B, 3, H, W], NHWC in memory; `labels` int64 [B].

    With mixup, `images` is weight * image + (1 - weight) * the image of `other_labels`, and weight is at least 1/2,
    so that `labels` name what is mostly seen (float32 scalar on the device); without, it is 1.
    """

    images: Tensor
    labels: Tensor
    other_labels: Tensor | None = None
    weight: float | Tensor = 1.0

    def tensors(self) -> dict[str, Tensor]:
        """Its fields that are tensors, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def copied(self) -> Batch:
        """The same with tensors of its own."""
        return Batch(**vars(self) | {name: value.clone() for name, value in self.tensors().items()})


def to_float(pixels: Tensor, colour: tuple[Tensor, Tensor] | None) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [0, 1] (or standardised), NHWC in memory."""
    images = pixels.to(torch.float32).div_(255)
    if colour is not None:
        mean, std = colour
        images = images.sub_(mean).div_(std)
    return images.permute(0, 3, 1, 2)


class TrainBatches:
    """The batches of a training set on one device.

    A step takes `shards` micro-batches of `batch_size` images: `shards` is the number of cards times
    `accumulate`. This object yields micro-batches `first` to `first + count - 1` of each step, so that k cards, or
    one card with accumulate=k, work through exactly the same micro-batches. Images that do not fill a last step are
    left out of the epoch.

    Args:
        split: uint8 images [N, 3, H, W] and labels [N]; N must fill at least one step.
        batch_size: images in a micro-batch.
        device: where the images live.
        seed: with the epoch number, decides order and augmentation.
        augmentation: what to do to each image; None: nothing.
        colour: standardisation, if any.
        compiled: make a batch in one kernel instead of a dozen (torch.compile).
        epochs: of the whole training, since mixup may stop before its end.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        device: torch.device,
        *,
        seed: int = 0,
        augmentation: Augmentation | None = None,
        colour: Colour | None = None,
        compiled: bool = False,
        shards: int = 1,
        first: int = 0,
        count: int | None = None,
        epochs: float = math.inf,
    ) -> None:
        if batch_size * shards > len(split):
            parts = f" x {shards} micro-batches a step" if shards > 1 else ""
            raise ConfigError(
                f"train_batch_size={batch_size}{parts}: more than the {len(split)} training images; "
                "take a smaller batch or more images (train_images)"
            )
        self.augmenter, self.epochs = Augmenter(augmentation or Augmentation()), epochs
        self.batch_size, self.shards, self.first = batch_size, shards, first
        self.count = shards if count is None else count
        self.seed, self.colour, self.device = seed, colour and colour.on(device), device
        self.images, self.side = len(split), split.images.shape[-1]
        self.steps = self.images // (batch_size * shards)
        pad = self.augmenter.padding
        # Rows of 3 bytes: cropping and mirroring become one gather of whole pixels, and its result is NHWC.
        padded = torch.nn.functional.pad(split.images, (pad, pad, pad, pad))
        self.padded_pixels = padded.shape[-1] ** 2
        self.pixels = padded.permute(0, 2, 3, 1).reshape(-1, 3).to(device)
        self.labels = split.labels.to(device)
        self._make = torch.compile(self._make_batch, dynamic=False) if compiled else self._make_batch

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The steps of an epoch from step `start` on; each is a list of this object's micro-batches."""
        plan, shown = self._draw(epoch), self.shown(epoch)
        for step in range(start, self.steps):
            micro = range(step * self.shards + self.first, step * self.shards + self.first + self.count)
            yield [self._batch(plan, number, shown) for number in micro]

    def shown(self, epoch: int) -> int:
        """The side of an epoch's images, pixels: smaller than the data set's where `image_sizes` says so."""
        return self.augmenter.shown(epoch, self.epochs, self.side)

    def _draw(self, epoch: int) -> dict[str, Tensor]:
        """All random choices of an epoch, on the device."""
        drawn = self.augmenter.draw(self.seed, epoch, self.images, self.batch_size, self.side, self.epochs)
        return {name: torch.from_numpy(values).to(self.device) for name, values in drawn.items()}

    def _batch(self, plan: dict[str, Tensor], number: int, shown: int) -> Batch:
        chosen = self.augmenter.in_batch(plan, number, self.batch_size)
        images, labels = self._make(chosen, shown), self.labels[chosen["image"]]
        return Batch(images, labels, labels.flip(0), chosen["weight"]) if "weight" in chosen else Batch(images, labels)

    def _make_batch(self, chosen: dict[str, Tensor], shown: int) -> Tensor:
        image, side = chosen["image"], self.side
        places = image[:, None, None] * self.padded_pixels + self.augmenter.places(side, chosen)
        pixels = self.pixels[places.flatten()].view(len(image), side, side, 3)
        return self.augmenter.pixels(to_float(pixels, self.colour), chosen, shown)


class TestBatches:
    """The batches of a test set on one device, in order, every image once (the last batch may be smaller).

    Card `rank` of `size` has every `size`-th batch. A batch is the same whoever has it, so the outputs of all
    cards, put together by `whole`, are those of one card to the last digit.
    """

    __test__ = False  # not a pytest class

    def __init__(
        self,
        split: Split,
        batch_size: int,
        device: torch.device,
        colour: Colour | None = None,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        batches = torch.arange(len(split)).split(batch_size)
        self.rows = [torch.cat([*batches[r::size], torch.empty(0, dtype=torch.int64)]) for r in range(size)]
        mine = self.rows[rank]
        self.pixels = split.images[mine].permute(0, 2, 3, 1).contiguous().to(device)
        self.labels = split.labels[mine].to(device)
        self.batch_size, self.colour = batch_size, colour and colour.on(device)

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.labels), self.batch_size):
            here = slice(start, start + self.batch_size)
            yield Batch(to_float(self.pixels[here], self.colour), self.labels[here])

    def whole(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows that the cards computed, by rank, in the order of the set."""
        used = [part for part in parts if len(part)]
        together = torch.empty(sum(map(len, used)), *used[0].shape[1:], dtype=used[0].dtype)
        together[torch.cat(self.rows)] = torch.cat(used)
        return together
