"""A trained network with simpler masks, to go on training from: what do masks bring that a constant does not?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from attnet.model.modules import WITHOUT_BRANCH
from attnet.model.network import ResidualAttentionNetwork, evaluating

_BRANCH, _LEVEL = ".mask.", ".level.logit"
_EDGE = 1e-4  # from 0 and 1, where the inverse of a sigmoid ends


def can_simplify(attention: str, trained: str) -> bool:
    """Whether weights trained with masks of one type can go on as a network with `attention`.

    A gain needs the same weights as the mask whose mean it is; constants, and no masks at all, fewer.
    """
    return trained in ("mixed", "gain") and attention in ("gain", *WITHOUT_BRANCH) and attention != trained


def channel_means(network: ResidualAttentionNetwork, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """Module -> the mean of its mask over all positions of all images, a number a channel: float32 [C].

    Args:
        network: on the device of the images; its mode is put back.
        batches: images [N, 3, S, S] as the network takes them.
    """
    sums: dict[str, Tensor] = {}
    images = 0

    def add_to(name: str) -> object:
        def hook(_module: object, _inputs: tuple, mask: Tensor) -> None:
            sums[name] = sums.get(name, 0) + mask.double().mean(dim=(2, 3)).sum(dim=0)

        return hook

    masks = {name: module.mask for name, module in network.attention_modules().items() if module.mask is not None}
    hooks = [mask.register_forward_hook(add_to(name)) for name, mask in masks.items()]
    try:
        with evaluating(network):
            for batch in batches:
                network(batch)
                images += len(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (total / images).float() for name, total in sums.items()}


def simplified(state: Mapping[str, Tensor], attention: str, means: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a network with masks as the one of the same network with `attention` gain, constant or none.

    Constants begin as `means`, which `channel_means` gives; other types need none.
    """
    if attention not in WITHOUT_BRANCH:
        return dict(state)
    kept = {name: value for name, value in state.items() if _BRANCH not in name}
    if attention == "constant":
        for name, mean in means.items():
            level = torch.logit(mean.double().clamp(_EDGE, 1 - _EDGE)).float()
            kept[_place(name) + _LEVEL] = level.cpu()
    return kept


def _place(name: str) -> str:
    """The prefix of a module's entries in a state dict: "stage1.0" is stages.stage1.attention.0."""
    stage, number = name.split(".")
    return f"stages.{stage}.attention.{number}"
