"""Training and test batches from a data set that lives on the device as uint8; augmentation works on whole batches.

No worker processes and no per-image Python. Everything random in an epoch (order, flips, crops, cutout, mixup) is
drawn at its start from (seed, epoch) alone, per image of the epoch's order, so that a resumed run, another device
or a run on several cards sees the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attnet.errors import ConfigError
from attnet.splits import Split


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image; pixels, and Beta's alpha for `mixup` in the first `mixup_epochs` epochs.

    `flip`: "random" mirrors an image with probability 1/2, anew each epoch; "alternating" does so in the first epoch
    and then every other time, so that two epochs show both sides (Jordan, 2024); "off".
    """

    flip: str = "random"
    crop_padding: int = 4
    cutout: int = 0
    mixup: float = 0.0
    mixup_epochs: float = math.inf


@dataclass(frozen=True)
class Colour:
    """Standardisation of each colour channel: (x - mean) / std, on images in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of(cls, images: Tensor) -> Colour:
        """Mean and standard deviation per channel of uint8 images [N, 3, H, W]."""
        counts = torch.stack([images[:, c].flatten().bincount(minlength=256) for c in range(3)]).double()
        levels = torch.arange(256, dtype=torch.float64) / 255
        weights = counts / counts.sum(dim=1, keepdim=True)
        mean = weights @ levels
        variance = weights @ levels.square() - mean.square()
        return cls(tuple(mean.tolist()), tuple(variance.sqrt().tolist()))

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
        augmentation: what to do to each image.
        colour: standardisation, if any.
        compiled: make a batch in one kernel instead of a dozen (torch.compile).
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
    ) -> None:
        if batch_size * shards > len(split):
            parts = f" x {shards} micro-batches a step" if shards > 1 else ""
            raise ConfigError(
                f"train_batch_size={batch_size}{parts}: more than the {len(split)} training images; "
                "take a smaller batch or more images (train_images)"
            )
        self.augmentation = augmentation or Augmentation()
        self.batch_size, self.shards, self.first = batch_size, shards, first
        self.count = shards if count is None else count
        self.seed, self.colour, self.device = seed, colour and colour.on(device), device
        self.images, self.side = len(split), split.images.shape[-1]
        self.steps = self.images // (batch_size * shards)
        pad = self.augmentation.crop_padding
        # Rows of 3 bytes: cropping and mirroring become one gather of whole pixels, and its result is NHWC.
        padded = torch.nn.functional.pad(split.images, (pad, pad, pad, pad))
        self.padded_side = padded.shape[-1]
        self.pixels = padded.permute(0, 2, 3, 1).reshape(-1, 3).to(device)
        self.labels = split.labels.to(device)
        self._make = torch.compile(self._make_batch, dynamic=False) if compiled else self._make_batch

    def __len__(self) -> int:
        """Steps in an epoch."""
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[list[Batch]]:
        """The steps of an epoch from step `start` on; each is a list of this object's micro-batches."""
        plan = self._draw(epoch)
        for step in range(start, self.steps):
            micro = range(step * self.shards + self.first, step * self.shards + self.first + self.count)
            yield [self._batch(plan, number) for number in micro]

    def _draw(self, epoch: int) -> dict[str, Tensor]:
        """All random choices of an epoch, a row per image in the epoch's order, on the device."""
        random = np.random.default_rng([self.seed, epoch])
        aug, n = self.augmentation, self.images
        choices = {
            "image": random.permutation(n),
            "mirror": random.integers(0, 2, n) if aug.flip == "random" else np.zeros(n, np.int64),
            "offset": random.integers(0, 2 * aug.crop_padding + 1, (n, 2)),
            "hole": random.integers(0, self.side, (n, 2)),
        }
        if aug.flip == "alternating":
            first = np.random.default_rng(self.seed).integers(0, 2, n)
            choices["mirror"] = (first[choices["image"]] + epoch) % 2
        if aug.mixup and epoch < aug.mixup_epochs:
            weight = random.beta(aug.mixup, aug.mixup, n // self.batch_size).astype(np.float32)
            # As pairs are mutual, w and 1 - w give the same batch in reverse order.
            choices["weight"] = np.maximum(weight, 1 - weight)
        return {name: torch.from_numpy(values).to(self.device) for name, values in choices.items()}

    def _batch(self, plan: dict[str, Tensor], number: int) -> Batch:
        rows = slice(number * self.batch_size, (number + 1) * self.batch_size)
        image = plan["image"][rows]
        weight = plan["weight"][number] if "weight" in plan else None
        images = self._make(image, plan["mirror"][rows], plan["offset"][rows], plan["hole"][rows], weight)
        labels = self.labels[image]
        return Batch(images, labels) if weight is None else Batch(images, labels, labels.flip(0), weight)

    def _make_batch(self, image: Tensor, mirror: Tensor, offset: Tensor, hole: Tensor, weight: Tensor | None) -> Tensor:
        side = self.side
        line = torch.arange(side, device=self.device)
        mirrored = torch.where(mirror[:, None] == 1, side - 1 - line, line)
        y = offset[:, 0, None] + line
        x = offset[:, 1, None] + mirrored
        flat = (image[:, None, None] * self.padded_side + y[:, :, None]) * self.padded_side + x[:, None, :]
        pixels = self.pixels[flat.flatten()].view(len(image), side, side, 3)
        images = to_float(pixels, self.colour)
        if self.augmentation.cutout:
            self._cut_out(images, hole, line)
        # Mixing with the batch in reverse pairs every image with another one without drawing a second order.
        return images if weight is None else images.lerp(images.flip(0), 1 - weight)

    def _cut_out(self, images: Tensor, hole: Tensor, line: Tensor) -> None:
        """Zero, in place, a square of side `cutout` around `hole`, clipped at the border (DeVries and Taylor, 2017)."""
        start = hole - self.augmentation.cutout // 2
        inside = (line >= start[..., None]) & (line < start[..., None] + self.augmentation.cutout)
        images.masked_fill_((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0)


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
