"""Label noise: some training labels are made wrong on purpose, and afterwards we ask what the network made of them.

The paper does this to show that its masks resist wrong labels (Wang et al., 2017, section 4.1, noisy labels: 10, 30,
50 and 70 %).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from attnet.data.splits import Split

LOOKED_AT = 2_000  # wrongly labelled images that `memorisation` looks at, at most: under a second on any card


def with_label_noise(split: Split, classes: int, share: float, seed: int = 0) -> Split:
    """`split` with some of its labels replaced by wrong ones; `true_labels` are those it had.

    The noise is the paper's, symmetric: with r the ratio of clean labels (r = 1 - share), a label stays as it is with
    probability r and becomes each of the other classes with (1 - r) / (classes - 1). Their number is no matter of
    chance here: `round(share * N)` labels are wrong.

    Each image has a number and a wrong label of its own, drawn from `seed` and its place in the whole set alone, and
    the images with the lowest numbers get their wrong labels. So what is wrong at 10 % is as wrong at 30 %, and the
    images of a subset mostly keep the labels that they have in the whole.

    Args:
        split: true labels, 0 to classes - 1.
        classes: at least 2.
        share: of wrong labels, 0 to 1.
        seed: at least 0.
    """
    places = torch.arange(len(split)) if split.places is None else split.places
    # Raw words, since numpy promises their stream; a key of its own, since other things are drawn from the same seeds.
    words = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(1,)))
    drawn = torch.from_numpy((words.random_raw((int(places.max()) + 1, 2)) >> np.uint64(11)) * 2.0**-53)[places]
    wrong = drawn[:, 0].argsort(stable=True)[: round(share * len(split))]
    labels = split.labels.clone()
    labels[wrong] = (labels[wrong] + 1 + (drawn[wrong, 1] * (classes - 1)).long()) % classes
    return dataclasses.replace(split, labels=labels, true_labels=split.labels)


def memorisation(split: Split, predict: Callable[[Split], Tensor]) -> dict[str, float] | None:
    """What a network says of the wrongly labelled images of a split; None where there are none.

    Args:
        split: the training images.
        predict: classes, int64 [n], that the network in evaluation mode gives to n images.

    Returns:
        `images`, how many were looked at (at most LOOKED_AT, as even over their wrong labels as can be); how often, in
        per cent, the network says the label that is `true`, and the `wrong` one, which it can only have learned by
        heart.
    """
    if split.true_labels is None or not (mislabelled := split.labels != split.true_labels).any():
        return None
    part = split.rows(mislabelled.nonzero().squeeze(1))
    part = part.subset(min(LOOKED_AT, len(part)))
    said = predict(part)
    agreement = {"true": said == part.true_labels, "wrong": said == part.labels}
    return {"images": len(part)} | {name: 100 * same.double().mean().item() for name, same in agreement.items()}
