"""What happens to training images: a class a kind of augmentation, and their parameters.

A new kind is a field of `Augmentation` and a class in KINDS. Whole batches are augmented on the device. Everything
random in an epoch is drawn at its start from (seed, epoch) alone, per image of the epoch's order, so that a resumed
run, another device or a run on several cards sees the same pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attnet.base.values import Parameters, parameter, parameters


@parameters
class Augmentation(Parameters):
    """The parameters of augmentation; None: off (in a training: as the recipe has it)."""

    flip: str | None = parameter(
        default=None,
        help="mirror half of the training images; random: drawn anew each epoch; alternating: each image every other "
        "epoch; off",
        choices=("off", "random", "alternating"),
        true="random",
        recipe="random",
    )
    crop_padding: int | None = parameter(
        default=None, help="random crop after this many zero pixels of padding", low=0, high=16, recipe=4
    )
    cutout: int | None = parameter(
        default=None, help="side of the square set to zero in each training image, pixels", low=0, high=1024, recipe=0
    )
    mixup: float | None = parameter(
        default=None, help="alpha of mixup's Beta(alpha, alpha); 0: off", low=0, high=1000, recipe=0.0
    )
    mixup_off_epochs: int | None = parameter(
        default=None, help="so many last epochs without mixup", low=0, high=100_000, recipe=0
    )
    image_sizes: str | None = parameter(
        default=None,
        help="sides of the training images, pixels, small ones first: 16,24,32 trains a third of the epochs at each; "
        "the last is the full size, at which is tested; empty: always full",
        counts=True,
        low=1,
        high=1024,
        recipe="",
    )


@dataclass(frozen=True)
class Epoch:
    """One epoch of `images` images, numbered from 0 of `epochs`, each of `side` pixels: what is drawn depends on it.

    `order` is the epoch's order of images, `random` its generator. A new kind takes `own(KEY)` with a key of its own
    instead, so that what the others draw stays as it is.
    """

    number: int
    epochs: float
    images: int
    batch_size: int
    side: int
    seed: int
    order: np.ndarray
    random: np.random.Generator

    def own(self, key: int) -> np.random.Generator:
        """A generator for one kind of augmentation alone; `key` from 1 on."""
        return np.random.default_rng([self.seed, self.number, key])


class Kind:
    """One kind of augmentation. Each of the methods does nothing unless a kind has its own.

    `draw` gives the random choices of an epoch, by name; a row an image in the epoch's order (or one a batch). The
    others get their rows back as tensors on the device. `padding` is how many zero pixels around the images it needs,
    `a_batch` names the choices of which there is one a batch.
    """

    padding = 0
    a_batch: tuple[str, ...] = ()

    def __init__(self, given: Augmentation) -> None:
        self.given = given

    def draw(self, epoch: Epoch) -> dict[str, np.ndarray]:
        """Random choices, name -> values."""
        return {}

    def places(self, y: Tensor, x: Tensor, side: int, chosen: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Which pixel of the padded image to show: rows `y`, columns `x`, both int64 [B, side]."""
        return y, x

    def shown(self, number: int, epochs: float, side: int) -> int:
        """The side that images of `side` pixels are to have in epoch `number` of `epochs`."""
        return side

    def pixels(self, images: Tensor, chosen: dict[str, Tensor], shown: int) -> Tensor:
        """Other pixels: float32 [B, 3, side, side], of which the last kind makes `shown` a side; may write in place."""
        return images


class Flip(Kind):
    """Mirrors: "random" with probability 1/2, anew each epoch; "alternating" so in the first epoch and then every other
    time, so that two epochs show both sides (Jordan, 2024)."""

    def draw(self, epoch: Epoch) -> dict[str, np.ndarray]:
        if self.given.flip == "random":
            return {"mirror": epoch.random.integers(0, 2, epoch.images)}
        if self.given.flip == "alternating":
            first = np.random.default_rng(epoch.seed).integers(0, 2, epoch.images)
            return {"mirror": (first[epoch.order] + epoch.number) % 2}
        return {}

    def places(self, y: Tensor, x: Tensor, side: int, chosen: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if "mirror" not in chosen:
            return y, x
        return y, torch.where(chosen["mirror"][:, None] == 1, side - 1 - x, x)


class Crop(Kind):
    """A window as large as the image, anywhere in the padded one."""

    @property
    def padding(self) -> int:
        return self.given.crop_padding or 0

    def draw(self, epoch: Epoch) -> dict[str, np.ndarray]:
        return {"offset": epoch.random.integers(0, 2 * self.padding + 1, (epoch.images, 2))}

    def places(self, y: Tensor, x: Tensor, side: int, chosen: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return chosen["offset"][:, 0, None] + y, chosen["offset"][:, 1, None] + x


class Cutout(Kind):
    """Zeroes a square around a place in the image, clipped at the border (DeVries and Taylor, 2017)."""

    def draw(self, epoch: Epoch) -> dict[str, np.ndarray]:
        return {"hole": epoch.random.integers(0, epoch.side, (epoch.images, 2))}

    def pixels(self, images: Tensor, chosen: dict[str, Tensor], shown: int) -> Tensor:
        cutout = self.given.cutout
        if not cutout:
            return images
        line = torch.arange(images.shape[-1], device=images.device)
        start = chosen["hole"] - cutout // 2
        inside = (line >= start[..., None]) & (line < start[..., None] + cutout)
        return images.masked_fill_((inside[:, 0, :, None] & inside[:, 1, None, :])[:, None], 0)


class Mixup(Kind):
    """Weighted sums of two images and their labels (Zhang et al., 2018), but not in the last epochs.

    Mixing with the batch in reverse pairs every image with another one without drawing a second order.
    """

    a_batch = ("weight",)

    def draw(self, epoch: Epoch) -> dict[str, np.ndarray]:
        alpha = self.given.mixup
        if not alpha or epoch.number >= epoch.epochs - (self.given.mixup_off_epochs or 0):
            return {}
        weight = epoch.random.beta(alpha, alpha, epoch.images // epoch.batch_size).astype(np.float32)
        # As pairs are mutual, w and 1 - w give the same batch in reverse order.
        return {"weight": np.maximum(weight, 1 - weight)}

    def pixels(self, images: Tensor, chosen: dict[str, Tensor], shown: int) -> Tensor:
        return images.lerp(images.flip(0), 1 - chosen["weight"]) if "weight" in chosen else images


class Resize(Kind):
    """Progressive resizing: small images first, full ones at the end (Howard, in fast.ai's entry to DAWNBench, 2018).

    What else is done to an image is done at full size; a small one is its averages over areas, so that cutout and
    crops stay in proportion.
    """

    def shown(self, number: int, epochs: float, side: int) -> int:
        sizes = image_sizes(self.given)
        if not sizes or math.isinf(epochs):
            return side
        # Counted from the end, so that the last epoch is at full size however few there are.
        return sizes[max(0, len(sizes) - 1 - math.floor((epochs - 1 - number) * len(sizes) / epochs))]

    def pixels(self, images: Tensor, chosen: dict[str, Tensor], shown: int) -> Tensor:
        return images if images.shape[-1] == shown else torch.nn.functional.adaptive_avg_pool2d(images, shown)


KINDS: tuple[type[Kind], ...] = (Flip, Crop, Cutout, Mixup, Resize)  # in the order in which they draw and act


def image_sizes(given: Augmentation) -> list[int]:
    """The sides that the parameter `image_sizes` names; none: every image is at full size."""
    return [int(size) for size in (given.image_sizes or "").split(",") if size]


class Augmenter:
    """All kinds together: crops and mirrors are one gather of whole pixels, and its result is NHWC."""

    def __init__(self, given: Augmentation) -> None:
        self.kinds = [kind(given) for kind in KINDS]
        self.padding = sum(kind.padding for kind in self.kinds)

    def draw(self, seed: int, number: int, images: int, batch_size: int, side: int, epochs: float = math.inf) -> dict:
        """All random choices of epoch `number`, name -> array; "image" is the order."""
        random = np.random.default_rng([seed, number])
        order = random.permutation(images)
        epoch = Epoch(number, epochs, images, batch_size, side, seed, order, random)
        return {"image": order} | {name: v for kind in self.kinds for name, v in kind.draw(epoch).items()}

    def in_batch(self, choices: dict[str, Tensor], number: int, batch_size: int) -> dict[str, Tensor]:
        """The choices for batch `number` of an epoch."""
        single = {name for kind in self.kinds for name in kind.a_batch}
        rows = slice(number * batch_size, (number + 1) * batch_size)
        return {name: values[number] if name in single else values[rows] for name, values in choices.items()}

    def places(self, side: int, chosen: dict[str, Tensor]) -> Tensor:
        """The pixels to show, numbered line by line in the padded image: int64 [B, side, side]."""
        line = torch.arange(side, device=chosen["image"].device)
        y = x = line.expand(len(chosen["image"]), side)
        for kind in self.kinds:
            y, x = kind.places(y, x, side, chosen)
        return y[:, :, None] * (side + 2 * self.padding) + x[:, None, :]

    def shown(self, number: int, epochs: float, side: int) -> int:
        """The side of the images that epoch `number` of `epochs` trains on, where the data set's have `side`."""
        for kind in self.kinds:
            side = kind.shown(number, epochs, side)
        return side

    def pixels(self, images: Tensor, chosen: dict[str, Tensor], shown: int) -> Tensor:
        """float32 [B, 3, side, side] -> [B, 3, shown, shown] with everything done that changes pixels."""
        for kind in self.kinds:
            images = kind.pixels(images, chosen, shown)
        return images
