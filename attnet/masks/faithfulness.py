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

    RISE deletes to black and inserts into a blurred image. Here both curves have one baseline, so each is the other
    read from its far end by another order of pixels, and the two ends are computed once: 2·steps - 2 forward passes
    an image.

    Args:
        model: any classifier, images to logits [N, K]; its train/eval state is restored.
        images: as `grad_cam`.
        maps: [N, H, W] of the images' size, larger where more important. Pixels with equal values follow in random
            order, drawn from `seed` image by image and the same for both curves: an order by position would favour
            the top of the image.
        targets: the classes whose probability is followed, whole numbers [N]; None: those predicted for the whole
            images.
        steps: points of a curve with both ends, from 2 to one more than there are pixels.
        baseline: what pixels that are gone are replaced by. "blur": a Gaussian with a standard deviation of an eighth
            of the image's side, which leaves little but a gradient of colours; "mean": the image's mean colour;
            "black"; "linear": what the pixels around them say (see `impute`), so that neither an edge nor a blur
            tells where something was taken away: ROAD.

    Raises:
        ConfigError: maps, targets, steps or a baseline that do not fit.
    """
    images = images[None] if images.dim() == 3 else images
    _check(images, maps, steps, baseline)
    if targets is not None:
        check_targets(targets, len(images))
    pixels = maps[0].numel()
    counts = torch.linspace(0, pixels, steps, dtype=torch.float64).round()
    generator = torch.Generator().manual_seed(seed)
    pieces = []
    with evaluating(model):
        for start in range(0, len(images), batch_size):
            here = slice(start, start + batch_size)
            whole = _input(model, images[here])
            ranks = _ranks(maps[here].detach().cpu(), generator).to(whole.device)
            chosen = None if targets is None else targets[here]
            without = _without(whole, baseline, generator)
            pieces.append(_curves(model, whole, without, ranks, counts[1:-1].tolist(), chosen))
    deletion, insertion = (torch.cat(curves) for curves in zip(*pieces, strict=True))
    return Curves((counts / pixels).float(), deletion, insertion)


def _curves(
    model: nn.Module,
    whole: Tensor,
    without: Callable[[Tensor], Tensor],
    ranks: Tensor,
    counts: list[float],
    targets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Both curves of a batch, float32 [n, len(counts) + 2] on the CPU; `counts` are those between the ends."""
    logits = model(whole)
    chosen = logits.argmax(dim=1)
    if targets is not None:
        chosen = check_targets(targets, len(whole), logits.shape[1]).to(logits.device)

    def probability(logits: Tensor) -> Tensor:
        return logits.float().softmax(dim=1).gather(1, chosen[:, None])

    start, end = probability(logits), probability(model(without(torch.ones_like(ranks, dtype=torch.bool))))
    deletion, insertion = [start], [end]
    for count in counts:
        top = ranks < count
        deletion.append(probability(model(without(top))))
        insertion.append(probability(model(without(~top))))
    return torch.cat([*deletion, end], dim=1).cpu(), torch.cat([*insertion, start], dim=1).cpu()


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
    kernel = images.new_tensor([[1.0, 2.0, 1.0], [2.0, 0.0, 2.0], [1.0, 2.0, 1.0]]) / 12

    def around(values: Tensor) -> Tensor:
        return F.conv2d(values.flatten(0, 1)[:, None], kernel[None, None], padding=1)[:, 0].view_as(values)

    known = (~gone).expand_as(images)
    weight = around(torch.ones_like(images[:1, :1]))  # of the neighbours that there are: less at the frame
    mean = (images * known).sum(dim=(2, 3), keepdim=True) / known.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    found = torch.where(known, images, torch.where(known.any(dim=3).any(dim=2)[..., None, None], mean, _colour(images)))
    left = torch.where(known, 0, around(found) - weight * found)
    step, size = left, left.square().sum(dim=(2, 3), keepdim=True)
    for _ in range(MOST_ITERATIONS):
        if size.max() <= TOLERANCE**2:
            break
        change = torch.where(known, 0, weight * step - around(step))
        rate = size / (step * change).sum(dim=(2, 3), keepdim=True).clamp(min=1e-20)
        found, left = found + rate * step, left - rate * change
        size, before = left.square().sum(dim=(2, 3), keepdim=True), size
        step = left + size / before.clamp(min=1e-20) * step
    return found


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


def _check(images: Tensor, maps: Tensor, steps: int, baseline: str) -> None:
    if images.dim() != 4 or maps.shape != (len(images), *images.shape[2:]) or not len(images):
        raise ConfigError(
            f"maps of shape {list(maps.shape)} for images of shape {list(images.shape)}: [N, H, W] for at least one "
            "image [N, 3, H, W] is needed; bring maps to the images' size with attnet.masks.reduce.upsample"
        )
    if not maps.isfinite().all():
        raise ConfigError("maps hold a value that is not finite: pixels can only be ordered by numbers; repair the map")
    if not 2 <= steps <= maps[0].numel() + 1:
        raise ConfigError(f"steps={steps}: from 2 (the two ends) to {maps[0].numel() + 1}, a step a pixel, is needed")
    if baseline not in BASELINES:
        raise ConfigError(f"baseline={baseline!r}: choose one of {', '.join(BASELINES)}")
