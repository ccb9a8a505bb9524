"""Signs that a training goes wrong, seen while it runs: stuck at chance, diverging, masks that are all 0 or all 1."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from attnet.model.network import ResidualAttentionNetwork, evaluating

STUCK = 5  # epochs at chance
CHANCE = 4  # standard deviations of a guesser's Top-1
GROWN = 2  # times the lowest training loss so far
EDGE, SHARE = 0.01, 0.99  # so many of a mask's values are so near 0, or 1


def signs(rows: Sequence[Mapping[str, float]], classes: int, test_images: int) -> Iterator[tuple[str, str]]:
    """(what, sentence) of each sign in the epochs so far; `rows` as in metrics.jsonl."""
    chance = 1 / classes
    guesser = 100 * (chance + CHANCE * math.sqrt(chance * (1 - chance) / test_images))
    last = rows[-STUCK:]
    if classes > 1 and len(last) == STUCK and max(row["top1"] for row in last) <= guesser:
        yield (
            "stuck",
            f"Top-1 has been at chance ({100 * chance:.1f} %) for {STUCK} epochs (at most "
            f"{max(row['top1'] for row in last):.1f} %): nothing is learned; look at lr, the labels and the data",
        )
    losses = [row["train_loss"] for row in rows]
    if losses[-1] > max(GROWN * min(losses), math.log(max(classes, 2))):
        yield (
            "diverging",
            f"the training loss has risen to {losses[-1]:.3g}, from {min(losses):.3g} in epoch "
            f"{losses.index(min(losses)) + 1}: diverging; a lower lr may help",
        )


def dead_masks(network: ResidualAttentionNetwork, images: Tensor) -> Iterator[tuple[str, str]]:
    """(module, sentence) of each attention module whose mask is all 0 or all 1 on some images [N, 3, S, S]."""
    shares: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> object:
        def hook(_module: nn.Module, _inputs: tuple, mask: Tensor) -> None:
            shares[name] = (mask < EDGE).float().mean(), (mask > 1 - EDGE).float().mean()

        return hook

    # Channel attention is normalised to length 1, not squeezed between 0 and 1.
    watched = {
        name: module.mask
        for name, module in network.attention_modules().items()
        if module.mask is not None and module.mask.head.attention != "channel"
    }
    hooks = [mask.register_forward_hook(watch(name)) for name, mask in watched.items()]
    try:
        with evaluating(network):
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    for name, both in shares.items():
        for value, share in zip((0, 1), torch.stack(both).tolist(), strict=True):
            if share >= SHARE:
                yield name, f"the mask of {name} is {value} nearly everywhere ({100 * share:.1f} %): it selects nothing"
