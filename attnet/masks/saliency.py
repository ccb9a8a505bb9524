"""Maps to hold the attention masks against, and a test of any map that asks the network instead of the eye.

Sources: Grad-CAM, Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based
localization", ICCV 2017; deletion and insertion, Petsiuk et al., "RISE: randomized input sampling for explanation
of black-box models", BMVC 2018. Shapes are written [N, C, H, W].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.base.intervals import Interval, confidence_interval
from attnet.masks.capture import as_input
from attnet.model.network import ResidualAttentionNetwork, attention_network, choose_modules, evaluating

BASELINES = ("blur", "mean", "black")


def grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None = None,
    module: str | None = None,
    *,
    batch_size: int = 50,
) -> Tensor:
    """Where evidence for a class was found: channels weighed by the gradient of its logit, summed, negatives cut.

    Args:
        model: a network from `build_model`; DDP- or compile-wrapped is fine. Its train/eval state is restored and
            its parameters get no gradients; frozen ones are fine, and so is a caller's `torch.no_grad()`.
        images: [N, 3, S, S] (or one, [3, S, S]), float in [0, 1] or uint8, which is scaled; on any device.
        targets: the classes to explain, whole numbers [N]; None: those that the network predicts.
        module: the output of this attention module; None: the last features, those that are averaged for the
            classifier.

    Returns:
        Maps as large as the images, float32 [N, S, S] on the CPU, at least 0 and not normalised: up-sampled
        bilinearly with pixel centres on pixel centres (align_corners=False), as usual for Grad-CAM.

    Raises:
        ConfigError: a model without attention modules, an unknown module, odd images, or targets that do not fit.
    """
    network = attention_network(model)
    images = images[None] if images.dim() == 3 else images
    if targets is not None:
        targets = _check_targets(targets, len(images), network.num_classes)
    maps, start, size = [], 0, images.shape[-2:]
    features = _Features(network, module)
    try:
        for batch in images.split(batch_size):
            chosen = None if targets is None else targets[start : start + len(batch)]
            cam = features.weigh(batch, chosen)[:, None]
            maps.append(F.interpolate(cam, size=size, mode="bilinear", align_corners=False)[:, 0].cpu())
            start += len(batch)
    finally:
        features.close()
    return torch.cat(maps)


class _Features:
    """Hooks that make the features at one place of a network a leaf to differentiate by.

    Gradients are recorded from there on only, so memory holds no graph of what comes before.
    """

    def __init__(self, network: ResidualAttentionNetwork, module: str | None) -> None:
        self.network = network
        self.leaf = torch.empty(0)

        def at_module(_module: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
            return self._start(output)

        # The network's own ReLU works in place, which a leaf does not allow, and after a leaf that is rectified
        # already it would hide the gradient wherever that is 0. So the averaging is done anew from the leaf.
        def at_norm(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            self.leaf = F.relu(output)

        def at_classifier(_module: nn.Module, _inputs: tuple) -> Tensor:
            return self._start(self.leaf).mean(dim=(2, 3))

        if module is not None:
            self.handles = [choose_modules(network, module)[module].register_forward_hook(at_module)]
        else:
            self.handles = [network.norm.register_forward_hook(at_norm)]
            self.handles.append(network.fc.register_forward_pre_hook(at_classifier))

    def _start(self, features: Tensor) -> Tensor:
        torch.set_grad_enabled(True)  # until `evaluating` ends
        self.leaf = features.detach().requires_grad_()
        return self.leaf

    def weigh(self, images: Tensor, targets: Tensor | None) -> Tensor:
        """The map of each image at the features' own resolution, float32 [N, h, w]."""
        with torch.inference_mode(False), evaluating(self.network):
            logits = self.network(as_input(self.network, images))
            chosen = logits.argmax(dim=1) if targets is None else targets.to(logits.device)
            score = logits.gather(1, chosen[:, None]).sum()  # an image's gradient comes from its own logit alone
            gradient = torch.autograd.grad(score, self.leaf)[0].float()
            weights = gradient.mean(dim=(2, 3), keepdim=True)
            return F.relu((weights * self.leaf.detach().float()).sum(dim=1)).detach()

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


# -- deletion and insertion ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curves:
    """Probability of the target class as the image goes and as it comes, most important pixels first; on the CPU.

    `fractions` float32 [S], the share of pixels deleted or inserted, 0 to 1; `deletion`, `insertion` float32 [N, S].
    Areas lie under an image's curve (trapezoids), in [0, 1]: of two maps the better has less under the deletion
    curve and more under the insertion curve.
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
        baseline: "blur": a Gaussian with a standard deviation of an eighth of the image's side, which leaves little
            but a gradient of colours; "mean": the image's mean colour; "black".

    Raises:
        ConfigError: maps, targets, steps or a baseline that do not fit.
    """
    images = images[None] if images.dim() == 3 else images
    _check(images, maps, steps, baseline)
    if targets is not None:
        _check_targets(targets, len(images))
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
            pieces.append(_curves(model, whole, _empty(whole, baseline), ranks, counts[1:-1].tolist(), chosen))
    deletion, insertion = (torch.cat(curves) for curves in zip(*pieces, strict=True))
    return Curves((counts / pixels).float(), deletion, insertion)


def _curves(
    model: nn.Module, whole: Tensor, empty: Tensor, ranks: Tensor, counts: list[float], targets: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Both curves of a batch, float32 [n, len(counts) + 2] on the CPU; `counts` are those between the ends."""
    logits = model(whole)
    chosen = logits.argmax(dim=1)
    if targets is not None:
        chosen = _check_targets(targets, len(whole), logits.shape[1]).to(logits.device)

    def probability(logits: Tensor) -> Tensor:
        return logits.float().softmax(dim=1).gather(1, chosen[:, None])

    start, end = probability(logits), probability(model(empty))
    deletion, insertion = [start], [end]
    for count in counts:
        top = ranks < count
        deletion.append(probability(model(torch.where(top, empty, whole))))
        insertion.append(probability(model(torch.where(top, whole, empty))))
    return torch.cat([*deletion, end], dim=1).cpu(), torch.cat([*insertion, start], dim=1).cpu()


def _ranks(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Each pixel's place in its image's order of importance, 0 first: int64 [n, 1, H, W]."""
    # A stable sort leaves ties as it finds them, and it finds them shuffled. One draw an image: whatever the batch.
    shuffle = torch.stack([torch.randperm(maps[0].numel(), generator=generator) for _ in maps])
    order = maps.flatten(1).gather(1, shuffle).argsort(dim=1, descending=True, stable=True)
    return shuffle.gather(1, order).argsort(dim=1).view_as(maps)[:, None]


def _empty(images: Tensor, baseline: str) -> Tensor:
    """The images without what is to be seen in them: [N, 3, H, W], of the same dtype."""
    if baseline == "black":
        return torch.zeros_like(images)
    if baseline == "mean":
        return images.mean(dim=(2, 3), keepdim=True).expand_as(images)
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


def _check_targets(targets: Tensor, count: int, num_classes: int | None = None) -> Tensor:
    """Targets as int64, or a ConfigError that says what they should be."""
    if targets.shape != (count,) or targets.is_floating_point():
        raise ConfigError(
            f"targets of shape {list(targets.shape)} and dtype {targets.dtype}: a whole number for each image, "
            f"[{count}] here, is needed"
        )
    if num_classes is not None and count and (targets.min() < 0 or targets.max() >= num_classes):
        raise ConfigError(
            f"targets from {targets.min()} to {targets.max()}: the model has classes 0 to {num_classes - 1}"
        )
    return targets.long()
