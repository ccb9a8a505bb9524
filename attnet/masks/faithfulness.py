"""Does the network need what a map calls important? The network is asked, instead of the eye.

Sources: deletion and insertion, Petsiuk et al., "RISE: randomized input sampling for explanation of black-box models",
BMVC 2018; ROAD, Rong et al., "A consistent and efficient evaluation strategy for attribution methods", ICML 2022.
Shapes are written [N, C, H, W].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.base.intervals import Interval, confidence_interval
from attnet.masks.capture import as_input
from attnet.masks.saliency import check_targets
from attnet.model.network import evaluating

BASELINES = ("blur", "mean", "black", "linear")
NOISE = 0.01  # standard deviation, of the full range of a colour, on imputed pixels: ROAD's own
TOLERANCE = 1e-3  # of an imputed channel: the root of its summed squared errors
MOST_ITERATIONS = 500


@dataclass(frozen=True)
class Curves:
    """Probability of the target class as the image goes and as it comes, most important pixels first; on the CPU.

    `fractions` float32 [S], the share of pixels deleted or inserted, 0 to 1; `deletion`, `insertion` float32 [N, S].
    Areas lie under an image's curve (trapezoids), in [0, 1]: of two maps the better has less under the deletion
    curve and more under the insertion curve. With baseline "linear" they are ROAD's two orders: the most important
    pixels removed first, and, read from its far end, the least important.
    """

    fractions: Tensor
    deletion: Tensor
    insertion: Tensor

    @property
    def deletion_areas(self) -> Tensor:
        """[N]"""
        return torch.trapezoid(self.deletion, self.fractions)

    @property
    def insertion_areas(self) -> Tensor:
        """[N]"""
        return torch.trapezoid(self.insertion, self.fractions)

    @property
    def contrast(self) -> Tensor:
        """[N], in [-1, 1]: by how much the image holds out longer without what matters least than without what most."""
        return self.insertion_areas - self.deletion_areas

    @property
    def right_way(self) -> Tensor:
        """[N]: 1.0 where the class loses as the first pixels go, 0.5 where nothing happens, 0.0 where it gains.

        A map that calls pixels important claims that the class rests on them. Liu et al., "Rethinking attention-model
        explainability through faithfulness violation test", ICML 2022, count the zeros.
        """
        return ((self.deletion[:, 0] - self.deletion[:, 1]).sign() + 1) / 2

    @property
    def deletion_area(self) -> Interval:
        """Mean over images with its confidence interval."""
        return confidence_interval(self.deletion_areas)

    @property
    def insertion_area(self) -> Interval:
        """Mean over images with its confidence interval."""
        return confidence_interval(self.insertion_areas)


def deletion_insertion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Tensor | None = None,
    *,
    steps: int = 17,
    baseline: str = "blur",
    batch_size: int = 100,
    seed: int = 0,
) -> Curves:
    """Replace an image's pixels by a baseline's, the map's most important first, and the other way round.

    2·steps - 2 forward passes an image. Of many maps of the same images, `Removal` takes fewer.

    Args:
        model, images, targets, steps, baseline, batch_size, seed: as `Removal`. maps: as `Removal.curves`.

    Raises:
        ConfigError: maps, targets, steps or a baseline that do not fit.
    """
    options = {"steps": steps, "baseline": baseline, "batch_size": batch_size, "seed": seed}
    return Removal(model, images, targets, **options).curves(maps)


class Removal:
    """Curves of one network on one set of images, by as many maps as you like.

    RISE deletes to black and inserts into a blurred image. Here both curves have one baseline, so each is the other
    read from its far end by another order of pixels. What lies at the two ends hangs on no map: it is computed once, in
    2 forward passes an image; each map takes 2·steps - 4 more.

    Args:
        model: any classifier, images to logits [N, K]; its train/eval state is restored.
        images: as `grad_cam`, `batch_size` of them on the device at a time.
        targets: the classes whose probability is followed, whole numbers [N]; None: those predicted for the whole
            images.
        steps: points of a curve with both ends, from 2 to one more than there are pixels.
        baseline: what pixels that are gone are replaced by. "blur": a Gaussian with a standard deviation of an eighth
            of the image's side, which leaves little but a gradient of colours; "mean": the image's mean colour;
            "black"; "linear": what the pixels around them say (see `impute`), so that neither an edge nor a blur
            tells where something was taken away: ROAD.
        seed: of the order of equal pixels and of ROAD's noise, which are the same for every map.

    Raises:
        ConfigError: images, targets, steps or a baseline that do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor | None = None,
        *,
        steps: int = 17,
        baseline: str = "blur",
        batch_size: int = 100,
        seed: int = 0,
    ) -> None:
        self.model, self.images, self.targets = model, images[None] if images.dim() == 3 else images, targets
        self.baseline, self.batch_size, self.seed = baseline, batch_size, seed
        _check(self.images, steps, baseline)
        if targets is not None:
            check_targets(targets, len(self.images))
        self.pixels = self.images[0, 0].numel()
        self.counts = torch.linspace(0, self.pixels, steps, dtype=torch.float64).round()
        self._known: list[tuple[Tensor, Tensor, Tensor]] = []  # batch by batch: the class, its probability at both ends

    def curves(self, maps: Tensor) -> Curves:
        """Both curves by one map an image.

        Args:
            maps: [N, H, W] of the images' size, larger where more important. Pixels with equal values follow in random
                order, image by image and the same for both curves: an order by position would favour the top.

        Raises:
            ConfigError: maps that do not fit, or targets that are no classes of the model.
        """
        _check_maps(maps, self.images)
        generator = torch.Generator().manual_seed(self.seed)
        pieces = []
        with evaluating(self.model):
            for number, start in enumerate(range(0, len(self.images), self.batch_size)):
                here = slice(start, start + self.batch_size)
                whole = _input(self.model, self.images[here])
                ranks = _ranks(maps[here].detach().cpu(), generator).to(whole.device)
                without = _without(whole, self.baseline, generator)
                if number == len(self._known):
                    self._known.append(self._ends(whole, without, here))
                pieces.append(self._curves(ranks, without, *self._known[number]))
        deletion, insertion = (torch.cat(curves).cpu() for curves in zip(*pieces, strict=True))
        return Curves((self.counts / self.pixels).float(), deletion, insertion)

    def _ends(self, whole: Tensor, without: Callable[[Tensor], Tensor], here: slice) -> tuple[Tensor, Tensor, Tensor]:
        """The classes that are followed, int64 [n, 1], and their probability with all pixels and with none."""
        logits = self.model(whole)
        chosen = logits.argmax(dim=1)
        if self.targets is not None:
            chosen = check_targets(self.targets[here], len(whole), logits.shape[1]).to(logits.device)
        chosen = chosen[:, None]
        gone = torch.ones_like(whole[:, :1], dtype=torch.bool)
        return chosen, _probability(logits, chosen), _probability(self.model(without(gone)), chosen)

    def _curves(
        self, ranks: Tensor, without: Callable[[Tensor], Tensor], chosen: Tensor, start: Tensor, end: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both curves of a batch, float32 [n, S]."""
        deletion, insertion = [start], [end]
        for count in self.counts[1:-1].tolist():
            top = ranks < count
            deletion.append(_probability(self.model(without(top)), chosen))
            insertion.append(_probability(self.model(without(~top)), chosen))
        return torch.cat([*deletion, end], dim=1), torch.cat([*insertion, start], dim=1)


def _probability(logits: Tensor, chosen: Tensor) -> Tensor:
    """Of the chosen classes, [n, 1] both."""
    return logits.float().softmax(dim=1).gather(1, chosen)


def _ranks(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Each pixel's place in its image's order of importance, 0 first: int64 [n, 1, H, W]."""
    # A stable sort leaves ties as it finds them, and it finds them shuffled. One draw an image: whatever the batch.
    shuffle = torch.stack([torch.randperm(maps[0].numel(), generator=generator) for _ in maps])
    order = maps.flatten(1).gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
    return shuffle.gather(1, order).argsort(dim=1).view_as(maps)[:, None]


def _without(images: Tensor, baseline: str, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """What makes of a choice of pixels, bool [n, 1, H, W], the images without them, in their dtype."""
    if baseline == "linear":
        noise = torch.stack([torch.randn(images.shape[1:], generator=generator) for _ in images]).to(images.device)

        def imputed(gone: Tensor) -> Tensor:
            return torch.where(gone, impute(images.float(), gone) + NOISE * noise, images.float()).to(images.dtype)

        return imputed
    empty = _empty(images, baseline)
    return lambda gone: torch.where(gone, empty, images)


def impute(images: Tensor, gone: Tensor) -> Tensor:
    """Images with the chosen pixels as the weighted mean of the eight around them, which may be gone as well.

    Noisy linear imputation without its noise: Rong et al., "A consistent and efficient evaluation strategy for
    attribution methods", ICML 2022. Neighbours beside, above and below weigh twice as much as those across a corner.
    Solved by conjugate gradients, all images at once.

    Args:
        images: float [N, C, H, W]. gone: bool [N, 1, H, W]; where all are, the image's mean colour takes their place.
    """
    known = (~gone).expand_as(images)
    hole = gone.to(images.dtype)
    weight = _around(torch.ones_like(images[:1, :1]))  # of the neighbours that there are: less at the frame
    mean = (images * known).sum(dim=(2, 3), keepdim=True) / known.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    found = torch.where(known, images, torch.where(known.any(dim=3).any(dim=2)[..., None, None], mean, _colour(images)))
    left = (_around(found) - weight * found) * hole
    step, size = left.clone(), left.square().sum(dim=(2, 3), keepdim=True)
    for _ in range(MOST_ITERATIONS):
        if size.max() <= TOLERANCE**2:
            break
        change = (weight * step).sub_(_around(step)).mul_(hole)
        rate = size / (step * change).sum(dim=(2, 3), keepdim=True).clamp(min=1e-20)
        found.addcmul_(rate, step)
        left.addcmul_(rate, change, value=-1)
        size, before = left.square().sum(dim=(2, 3), keepdim=True), size
        step.mul_(size / before.clamp(min=1e-20)).add_(left)
    return found


def _around(values: Tensor) -> Tensor:
    """The weighted sum of each pixel's eight neighbours, those outside the image being 0; of the values' shape.

    Two sums of shifted copies, across and down, less what they count of the pixel itself: a convolution of so few
    weights takes three times as long on a CPU.
    """
    padded = F.pad(values, (1, 1, 1, 1))
    across = (padded[..., :-2] + padded[..., 2:]).add_(padded[..., 1:-1], alpha=2)
    both = (across[..., :-2, :] + across[..., 2:, :]).add_(across[..., 1:-1, :], alpha=2)
    return both.sub_(values, alpha=4).div_(12)


def _colour(images: Tensor) -> Tensor:
    """The mean colour of each image, as large as the image."""
    return images.mean(dim=(2, 3), keepdim=True).expand_as(images)


def _empty(images: Tensor, baseline: str) -> Tensor:
    """The images without what is to be seen in them: [N, 3, H, W], of the same dtype."""
    if baseline == "black":
        return torch.zeros_like(images)
    if baseline == "mean":
        return _colour(images)
    down, across = (_gaussian(side).to(images.device) for side in images.shape[-2:])
    return (down @ images.float() @ across.T).to(images.dtype)


def _gaussian(side: int) -> Tensor:
    """Weights [side, side] that blur a line of pixels; every row sums to 1, so no border darkens."""
    place = torch.arange(side) / (side / 8)
    weights = (-(place[:, None] - place).square() / 2).exp()
    return weights / weights.sum(dim=1, keepdim=True)


def _input(model: nn.Module, images: Tensor) -> Tensor:
    """As `as_input`; a model without parameters takes float32 images, or floats as they are."""
    if next(model.parameters(), None) is not None:
        return as_input(model, images)
    return images if images.is_floating_point() else images.float() / 255


def _check(images: Tensor, steps: int, baseline: str) -> None:
    if images.dim() != 4 or not len(images):
        raise ConfigError(f"images of shape {list(images.shape)}: [N, 3, H, W] with at least one image is needed")
    pixels = images[0, 0].numel()
    if not 2 <= steps <= pixels + 1:
        raise ConfigError(f"steps={steps}: from 2 (the two ends) to {pixels + 1}, a step a pixel, is needed")
    if baseline not in BASELINES:
        raise ConfigError(f"baseline={baseline!r}: choose one of {', '.join(BASELINES)}")


def _check_maps(maps: Tensor, images: Tensor) -> None:
    if maps.shape != (len(images), *images.shape[2:]):
        raise ConfigError(
            f"maps of shape {list(maps.shape)} for images of shape {list(images.shape)}: [N, H, W], a map an image, is "
            "needed; bring maps to the images' size with attnet.masks.reduce.upsample"
        )
    if not maps.isfinite().all():
        raise ConfigError("maps hold a value that is not finite: pixels can only be ordered by numbers; repair the map")
