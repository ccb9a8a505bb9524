"""Networks whose masks are made by hand, so that the court's answers are known before it is asked."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from networks import narrow
from torch import Tensor, nn

from attnet.data.splits import Split
from attnet.masks.questions import Verdict
from attnet.masks.verdict import judge
from attnet.model.modules import MaskBranch
from attnet.model.units import ResidualUnit


def colours(strength: float, combine: str = "naive") -> nn.Module:
    """A network that is all shortcuts: a logit a colour, by how much of it the masks let pass."""
    network = narrow((1, 0), combine=combine).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ResidualUnit):
                module.conv3.weight.zero_()
                if module.shortcut is not None:
                    _first_three(module.shortcut.weight)
        _first_three(network.stem[0].weight)
        _first_three(network.fc.weight[:, :, None, None])
        network.fc.weight *= strength
        network.fc.bias.copy_(torch.tensor([0.0] * 3 + [-1e3] * 7))
    return network


def _first_three(weight: Tensor) -> None:
    weight.zero_()
    middle = weight.shape[-1] // 2
    for k in range(3):
        weight[k, k, middle, middle] = 1.0


class MadeMask(nn.Module):
    """In the place of a mask branch: `make` gets the trunk's features and gives the mask.

    A copy of it is the branch as it was, since copies are what untrained networks are made of.
    """

    def __init__(self, branch: MaskBranch, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.levels, self.head, self.depth = branch.levels, branch.head, branch.depth
        self.make, self.branch = make, [branch]  # in a list, so that it is no child

    def forward(self, _x: Tensor, trunk: Tensor) -> Tensor:
        return self.make(trunk)

    def __deepcopy__(self, memo: dict[int, object]) -> MaskBranch:
        return copy.deepcopy(self.branch[0], memo)


def with_masks(network: nn.Module, scenes: Split, mask: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """The network with masks made by hand: `mask` gets the images and which of the scenes they come from."""
    seen: list[Tensor] = []
    network.stem.register_forward_pre_hook(lambda _module, inputs: seen.__setitem__(slice(None), [inputs[0]]))
    whole = scenes.images.float().flatten(1) / 255

    def make(trunk: Tensor) -> Tensor:
        scene = torch.cdist(seen[0].flatten(1), whole).argmin(dim=1)  # also where some pixels are gone
        made = mask(seen[0], scene)[:, : trunk.shape[1]]
        gain = torch.linspace(0.6, 1, trunk.shape[1])[:, None, None]
        made = F.interpolate(made, size=trunk.shape[-2:], mode="nearest") if made.shape[-1] > 1 else made
        return (made * (gain if made.shape[1] == 1 else 1)).expand_as(trunk)

    for module in network.attention_modules().values():
        module.mask = MadeMask(module.mask, make)
    return network


def objects(scenes: Split) -> Callable[[Tensor, Tensor], Tensor]:
    """The object's own pixels as a mask, for `with_masks`."""
    return lambda _images, scene: scenes.masks[scene][:, None].float()


def tried(network: nn.Module, scenes: Split, faithful: int, **options: object) -> Verdict:
    """The verdict where labels are what the network says of the whole images."""
    with torch.no_grad():
        labels = torch.cat([network(batch.float() / 255).argmax(dim=1) for batch in scenes.images.split(40)])
    return judge(network, Split(scenes.images, labels, scenes.masks), faithful=faithful, **options)
