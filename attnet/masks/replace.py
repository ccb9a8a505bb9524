"""Does the network use its masks? Replace them, and see what becomes of the predictions.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017, section 3.1, for what a mask
does: it leaves its module as (1 + M)·T with residual combination, as M·T with naive. Masks are written [N, C, H, W].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.base.intervals import Interval, confidence_interval
from attnet.base.words import table
from attnet.masks.capture import as_input, capture
from attnet.masks.foreign import has_places, with_masks, without_places
from attnet.model.modules import AttentionModule
from attnet.model.network import attention_network, choose_modules, evaluating, uncompiled
from attnet.model.simplify import channel_means

INTERVENTIONS = ("zero", "one", "mean", "shuffled", "inverse")
OF_A_SET = ("constant", "resampled")  # these need other images as well
OF_PLACES = ("mean", "shuffled")  # these change nothing in a mask without places


@contextmanager
def intervening(model: nn.Module, interventions: Mapping[str, str | Tensor], seed: int = 0) -> Iterator[None]:
    """While inside, the named modules' masks are replaced; what `capture` sees and what flows on is the new mask.

    zero: M = 0, which with residual combination leaves the trunk alone. one: M = 1. mean: each channel's mean over
    positions, image by image, so that the mask still weighs channels but points nowhere. shuffled: the same values
    at other positions. inverse: 1 - M, or -M for the channel type, whose masks lie in [-1, 1]. Mean and shuffled do not
    apply to masks [N, C, 1, 1], which have no places.

    A shuffle is drawn from `seed` and the number of positions alone, with a generator of its own: all channels,
    images and modules of one resolution share it. A module cannot know where in a data set an image stands, so only
    this way is an image's result the same in every batch. Draw again with another seed to see how much hangs on it.

    Nested interventions on one module follow one another, the outer first. Gradients pass. A compiled network runs
    uncompiled meanwhile, since compiled code would not heed the replacement.

    Args:
        model: a network from `build_model`, or a `Foreign`; DDP- or compile-wrapped is fine. It is never changed
            itself: the masks are its own again on leaving, also on error.
        interventions: names from `attention_modules()` -> one of INTERVENTIONS, or a mask to take its place, which is
            as large or spreads to its size.

    Raises:
        ConfigError: an unknown module or intervention, one that does not apply, or a module without a mask; nothing
            is replaced then.
    """
    modules = _choose(model, tuple(interventions), tuple(interventions.values()))
    for name, module in modules.items():
        if not applies(interventions[name], module):
            raise ConfigError(f"intervention={interventions[name]!r}: does not apply: {without_places([name])}")
    handles = []
    try:
        for name, module in modules.items():
            handles.append(module.mask.register_forward_hook(_replacement(module, interventions[name], seed)))
        with uncompiled():
            yield
    finally:
        for handle in handles:
            handle.remove()


def intervene(
    model: nn.Module,
    images: Tensor,
    interventions: Mapping[str, str | Tensor],
    seed: int = 0,
    *,
    masks: Mapping[str, str] | None = None,
) -> Tensor:
    """Logits [N, K] of one batch under `interventions`, in evaluation mode, on the model's device; see `intervening`.

    `images`, `masks` and the errors on them are those of `capture_masks`; the train/eval state is restored.
    """
    network = with_masks(model, images, masks)
    with intervening(network, interventions, seed), evaluating(network):
        return network(as_input(network, images))


def applies(intervention: str | Tensor, module: object) -> bool:
    """Whether an intervention can do something to a module's mask: see OF_PLACES."""
    return isinstance(intervention, Tensor) or intervention not in OF_PLACES or has_places(module)


def replaced(mask: Tensor, intervention: str, *, signed: bool = False, seed: int = 0) -> Tensor:
    """A mask [N, C, H, W] after one of INTERVENTIONS, in its dtype on its device; it may be an expanded view.

    `signed` says that the mask's values lie around zero (the channel type), not in (0, 1).
    """
    if intervention == "zero":
        return torch.zeros_like(mask)
    if intervention == "one":
        return torch.ones_like(mask)
    if intervention == "mean":
        return mask.mean(dim=(2, 3), keepdim=True).expand_as(mask)
    if intervention == "inverse":
        return -mask if signed else 1 - mask
    if intervention in OF_A_SET:
        raise ConfigError(f"intervention={intervention!r}: needs a set of images; `effects` and `Replacing` have one")
    if intervention != "shuffled":
        raise ConfigError(f"intervention={intervention!r}: choose one of {', '.join(INTERVENTIONS)}")
    size = mask.shape[2:]
    order = torch.randperm(size.numel(), generator=torch.Generator().manual_seed(seed))
    return mask.flatten(2)[:, :, order.to(mask.device)].unflatten(2, size)


@dataclass(frozen=True)
class Effect:
    """What an intervention does to the predictions on a set of images.

    `module` is "all" where it is on every chosen module at once; both names are "none" for the untouched network.
    `top1` in per cent. `change` of Top-1 in percentage points and `logit_change` of the true class's logit are
    against the untouched network, paired image by image. `flipped`: per cent of predictions that are another class.
    """

    module: str
    intervention: str
    top1: float
    change: Interval
    logit_change: Interval
    flipped: float


def effects(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    interventions: Sequence[str] | str = (*INTERVENTIONS, *OF_A_SET),
    modules: Sequence[str] | str | None = None,
    *,
    batch_size: int = 100,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    masks: Mapping[str, str] | None = None,
) -> list[Effect]:
    """Every intervention on every module, and on all of them together: one pass over the images each.

    Besides those of one image (see `intervening`) there are constant: each channel's mean over all positions of all
    these images, which leaves nothing that depends on the image; and resampled: the mask of another of these images,
    which is as natural as the image's own and knows nothing of it.

    Args:
        model, images: as `capture_masks`; as many images as you like, `batch_size` of them on the device at a time.
        labels: true classes, whole numbers [N], on any device.
        modules: names from `attention_modules()`; None: all that there are. "all" means all of these.
        seed: of the shuffle and of the intervals.
        progress: called after each batch with the batches done and those to do in all.
        masks: as `capture_masks`.

    Returns:
        The untouched network first, then module by module, and "all" last when there is more than one. "mean" and
        "shuffled" have no row for masks without places; on "all" they are on those that have some.

    Raises:
        ConfigError: as `intervening`, and for labels that do not fit the images or the network.
    """
    network = with_masks(model, images, masks)
    interventions = [interventions] if isinstance(interventions, str) else interventions
    chosen = _choose(network, modules, interventions)
    names = list(chosen)
    images = images[None] if images.dim() == 3 else images
    labels = _check_labels(labels, len(images), network.num_classes)
    groups = {name: [name] for name in names} | ({"all": names} if len(names) > 1 else {})
    plans = [("none", "none", {})]
    for group, kind in ((group, kind) for group in groups for kind in interventions):
        if plan := {name: kind for name in groups[group] if applies(kind, chosen[name])}:
            plans.append((group, kind, plan))
    if names and interventions and len(plans) == 1:
        raise ConfigError(f"interventions={', '.join(interventions)}: do not apply: {without_places(names)}")
    many = len(plans) * -(-len(images) // batch_size)
    done, rows, untouched = 0, [], None
    replacing = Replacing(network, images, batch_size=batch_size, seed=seed)
    for group, kind, plan in plans:
        pieces = []
        for logits in replacing.batches(plan):
            pieces.append(logits)
            done += 1
            if progress:
                progress(done, many)
        logits = torch.cat(pieces)
        untouched = logits if untouched is None else untouched
        rows.append(_effect(group, kind, logits, untouched, labels, seed))
    return rows


class Replacing:
    """A network's predictions on a set of images with masks replaced, also by what other images of the set have.

    `means`, module -> [N, C], are those of each image's mask over positions, where somebody has them already:
    "constant" then takes no pass of its own over the images.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        *,
        batch_size: int = 100,
        seed: int = 0,
        means: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.network, self.images = attention_network(model), images[None] if images.dim() == 3 else images
        self.batch_size, self.seed = batch_size, seed
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed))
        self.donor = torch.empty_like(order)
        self.donor[order] = order.roll(1)  # one ring: nobody is their own
        self._constants = {name: values.double().mean(dim=0).float() for name, values in (means or {}).items()}

    def logits(self, plan: Mapping[str, str]) -> Tensor:
        """Float32 [N, K] on the CPU; `plan` is module -> an intervention, or empty for the untouched network.

        Raises:
            ConfigError: as `intervening`, and for "resampled" with one image alone.
        """
        return torch.cat(list(self.batches(plan)))

    def batches(self, plan: Mapping[str, str]) -> Iterator[Tensor]:
        """The same, batch by batch."""
        _choose(self.network, tuple(plan), tuple(plan.values()))
        if len(self.images) == 1 and "resampled" in plan.values():
            raise ConfigError("intervention='resampled': takes another image's mask; give two images or more")
        lent = [name for name, kind in plan.items() if kind == "resampled"]
        for number, batch in enumerate(self.images.split(self.batch_size)):
            masks: dict[str, str | Tensor] = dict(plan)
            masks |= {name: self._constant(name) for name, kind in plan.items() if kind == "constant"}
            if lent:
                donors = self.donor.split(self.batch_size)[number].to(self.images.device)
                found = capture(self.network, self.images[donors], ("mask",), lent).features
                masks |= {name: parts["mask"] for name, parts in found.items()}
            yield intervene(self.network, batch, masks, self.seed).float().cpu()

    def _constant(self, name: str) -> Tensor:
        if not self._constants:
            batches = (as_input(self.network, batch) for batch in self.images.split(self.batch_size))
            with uncompiled():
                self._constants = channel_means(self.network, batches)
        return self._constants[name][:, None, None]


def _effect(module: str, kind: str, logits: Tensor, untouched: Tensor, labels: Tensor, seed: int) -> Effect:
    after, before = logits.argmax(dim=1), untouched.argmax(dim=1)
    right, was_right = (after == labels).double(), (before == labels).double()
    gain = (logits.double() - untouched).gather(1, labels[:, None])[:, 0]
    return Effect(
        module,
        kind,
        100 * right.mean().item(),
        confidence_interval(100 * (right - was_right), seed=seed),
        confidence_interval(gain, seed=seed),
        100 * (after != before).double().mean().item(),
    )


def _choose(
    model: nn.Module, names: Sequence[str] | str | None, interventions: Sequence[str | Tensor]
) -> dict[str, nn.Module]:
    """The named modules, all with masks; ConfigError for any that has none, and for an unknown intervention."""
    modules = choose_modules(model, names)
    known = (*INTERVENTIONS, *OF_A_SET)
    for intervention in interventions:
        if not isinstance(intervention, Tensor) and intervention not in known:
            raise ConfigError(f"intervention={intervention!r}: choose one of {', '.join(known)}")
    for name, module in modules.items():
        if module.mask is None:
            raise ConfigError(
                f"module={name!r} has no mask to replace: build the network with attention mixed, channel or spatial"
            )
    return modules


def _replacement(module: object, intervention: str | Tensor, seed: int) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
    """A forward hook on what returns a module's mask: what the hook returns takes the mask's place."""
    signed = isinstance(module, AttentionModule) and module.mask.head.attention == "channel"

    def hook(_branch: nn.Module, _inputs: tuple, mask: Tensor) -> Tensor:
        if isinstance(intervention, Tensor):
            return intervention.to(mask).expand_as(mask)
        return replaced(mask, intervention, signed=signed, seed=seed)

    return hook


def _check_labels(labels: Tensor, count: int, num_classes: int) -> Tensor:
    """Labels as int64 on the CPU, or a ConfigError that says what they should be."""
    if labels.shape != (count,) or not count:
        raise ConfigError(f"labels of shape {list(labels.shape)}: one for each of at least one image, [{count}] here")
    if labels.is_floating_point() or labels.min() < 0 or labels.max() >= num_classes:
        raise ConfigError(f"labels of dtype {labels.dtype}: whole numbers from 0 to {num_classes - 1} are needed")
    return labels.cpu().long()


def effects_table(rows: Sequence[Effect]) -> str:
    """A Markdown table: a row an intervention, with 95 % confidence intervals."""
    header = ("module", "mask is", "Top-1 (%)", "change (points)", "true class's logit", "predictions changed (%)")
    lines = []
    for row in rows:
        change, logit = (f"{i.mean:+.2f} ({i.low:+.2f} to {i.high:+.2f})" for i in (row.change, row.logit_change))
        untouched = row.module == "none"
        cells = ("", "its own") if untouched else (row.module, row.intervention)
        measured = ("", "", "") if untouched else (change, logit, f"{row.flipped:.1f}")
        lines.append((*cells, f"{row.top1:.1f}", *measured))
    return table(header, lines, words=(0, 1))
