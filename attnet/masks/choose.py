"""Which images to show: by a rule that is stated and costs next to nothing, not "the first", which may show nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from attnet.data.splits import Split
from attnet.masks.capture import capture
from attnet.masks.controls import centre_prior, image_controls
from attnet.masks.foreign import with_masks


def telling_images(
    model: nn.Module,
    split: Split,
    count: int,
    *,
    among: int = 200,
    batch_size: int = 50,
    masks: Mapping[str, str] | None = None,
) -> Tensor:
    """Images whose masks have something to show: predicted right, and the masks vary most over places.

    Of each class the best comes first, then the second best of each ...; what is predicted wrong comes last, where
    right ones are too few. How much a mask varies is its standard deviation over places, on average over channels and
    modules. Of equals (masks without places, no masks) the one that is earlier in the split comes first.

    Args:
        model, masks: as `capture_masks`.
        split: with labels; `Split.subset` says which images are considered.
        count: how many are wanted; fewer come where fewer are considered.
        among: how many are considered at most, as even over the classes as can be.

    Returns:
        Positions in `split`, int64 [<= count], on the CPU; the same for the same network and split.
    """
    network = with_masks(model, split.images[:1], masks)
    places = split.evenly(min(among, len(split)))
    considered = split.rows(places)
    labels = considered.labels.cpu()
    rights, variations = [], []
    for start in range(0, len(considered), batch_size):
        piece = slice(start, start + batch_size)
        seen = capture(network, considered.images[piece])
        rights.append(seen.logits.argmax(dim=1).cpu() == labels[piece])
        found = [part["mask"].float() for part in seen.features.values() if "mask" in part]
        spreads = [mask.std(dim=(2, 3), correction=0).mean(dim=1).cpu() for mask in found]
        variations.append(torch.stack(spreads).mean(dim=0) if spreads else torch.zeros(len(seen.logits)))
    variation, right = torch.cat(variations), torch.cat(rights)
    order = variation.argsort(descending=True, stable=True)
    turn = torch.zeros(len(considered), dtype=torch.int64)  # the how-manieth of its class, among right ones
    for label in labels.unique():
        own = order[right[order] & (labels[order] == label)]
        turn[own] = torch.arange(len(own))
    order = order[turn[order].argsort(stable=True)]
    order = order[(~right[order]).int().argsort(stable=True)]
    return places[order[:count]]


def plain_image(split: Split, among: int = 200) -> int:
    """Before there is a network to ask: the image whose object stands out most; its position in `split`.

    By how much is the colour distance from the frame, on the object less beside it; where no object is known, the
    middle of the image stands for it. As many images are considered as by `telling_images`.
    """
    places = split.evenly(min(among, len(split)))
    considered = split.rows(places)
    distance = image_controls(considered.images)["colour distance from the frame"]
    objects = centre_prior(len(considered), distance.shape[1:]) > 0.5 if split.masks is None else considered.masks.cpu()
    inside, beside = (
        (distance * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2)).clamp(min=1) for where in (objects, ~objects)
    )
    return int(places[(inside - beside).argmax()])
