"""Frames: all that is seen of an image in one state of a network, every module at once, for those who move through it.

A `View` is one picture of one module; a frame holds what all views of an image and a state have in common, so that
another module, channel or reduction costs no pass and no word with the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from attnet.masks.look import GRAD_CAM, Looker, View
from attnet.masks.reduce import DEVIATION, REDUCTIONS, reduce_channels
from attnet.masks.replace import intervene
from attnet.masks.scale import Scale, neutral, robust_scale
from attnet.model.network import attention_network

BEST = "max"  # the reduction that finds objects best: data/results/verdict_shapes.json
CHANNEL = "channel"  # the key of what holds for single channels


@dataclass(frozen=True)
class Panel:
    """What one module shows of one image: `channels` float32 [C, h, w] of the part, `maps` float32 [h, w] by reduction.

    `scales` are those of the maps by reduction, and of all channels together under "channel".
    """

    channels: Tensor
    maps: dict[str, Tensor]
    scales: dict[str, Scale]


@dataclass(frozen=True)
class Frame:
    """One image in one state: `probabilities` [K], those of the `untouched` network [K], a panel a module.

    `effects`: module -> what becomes of the predicted class's probability (a share) where the module's mask is 0.
    """

    probabilities: Tensor
    untouched: Tensor
    panels: dict[str, Panel]
    effects: dict[str, float] = field(default_factory=dict)


def make_frames(
    looker: Looker, images: Tensor, view: View, reductions: Sequence[str] = tuple(REDUCTIONS), *, effects: bool = False
) -> list[Frame]:
    """A frame an image.

    Args:
        images: [N, 3, H, W] or one, as `attnet.capture_masks` takes them.
        view: whose `part`, `intervention`, `everywhere` and, for the intervention and Grad-CAM, `module` count.
        reductions: which maps there are to be of every part but Grad-CAM, which has one, called as it is.
        effects: work out `Frame.effects` as well: a pass a module.

    Raises:
        ConfigError: as `Looker.look`.
    """
    images = images[None] if images.dim() == 3 else images
    untouched = looker.untouched(images).logits.float().softmax(dim=1).cpu()
    if view.part == GRAD_CAM:
        taken, maps = looker.grad_cam(images, view)
        features, reductions = {view.module: maps[:, None]}, (GRAD_CAM,)
    else:
        taken = looker.taken(images, view)
        features = {name: parts[view.part] for name, parts in taken.features.items() if view.part in parts}
        if not features:
            looker.look(images[0], view)  # raises, and says what is there instead
    modules = attention_network(looker.network.model).attention_modules()
    probabilities = taken.logits.float().softmax(dim=1).cpu()
    changes = _effects(looker, images, untouched) if effects else [{} for _ in images]
    panels: list[dict[str, Panel]] = [{} for _ in images]
    for name, values in features.items():
        for place, channels in enumerate(values.float().cpu()):
            panels[place][name] = _panel(modules[name], channels, view.part, reductions)
    rows = zip(probabilities, untouched, panels, changes, strict=True)
    return [Frame(*row) for row in rows]


def _panel(module: nn.Module, channels: Tensor, part: str, reductions: Sequence[str]) -> Panel:
    fitting = [kind for kind in reductions if len(channels) > 1 or kind != DEVIATION]
    maps = {kind: channels[0] if kind == GRAD_CAM else reduce_channels(channels[None], kind)[0] for kind in fitting}
    scales = {kind: robust_scale(map_, neutral(module, part, kind)) for kind, map_ in maps.items()}
    return Panel(channels, maps, scales | {CHANNEL: robust_scale(channels, neutral(module, part, CHANNEL))})


def _effects(looker: Looker, images: Tensor, untouched: Tensor) -> list[dict[str, float]]:
    model = looker.network.model
    found: list[dict[str, float]] = [{} for _ in images]
    predicted = untouched.argmax(dim=1, keepdim=True)
    for name, module in attention_network(model).attention_modules().items():
        if module.mask is None:
            continue
        without = intervene(model, images, {name: "zero"}).float().softmax(dim=1).cpu()
        change = (without - untouched).gather(1, predicted)[:, 0]
        for place, value in enumerate(change.tolist()):
            found[place][name] = value
    return found


def variation(channels: Tensor) -> Tensor:
    """How much each channel [C, h, w] varies over places: standard deviations [C]."""
    return torch.std(channels.flatten(1), dim=1, correction=0)
