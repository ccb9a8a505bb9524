"""One view into a network: an image, a module, what to show of it, and what happens when its mask is replaced.

The explorer moves views; a view saved there is a few lines of code that draw the same picture again.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.capture import Capture, capture
from attnet.masks.foreign import Foreign
from attnet.masks.reduce import reduce_channels, upsample
from attnet.masks.replace import INTERVENTIONS, applies, intervening
from attnet.masks.saliency import enlarged, grad_cam
from attnet.masks.scale import Scale, neutral, robust_scale
from attnet.model.modules import PARTS
from attnet.model.network import attention_network, choose_modules
from attnet.model.pretrained import Pretrained

GRAD_CAM = "Grad-CAM"
KEPT = 6  # images whose features stay in memory; one of attention92 takes 6.5 MB


@dataclass(frozen=True)
class View:
    """What to look at.

    `part` is one of a module's `module_parts` or "Grad-CAM" (of the predicted class, at the module's output; of a
    `Foreign` at its last features);
    `reduction` as `reduce_channels`; `strength` 0 to 1 is the overlay's; `intervention` "none" or one of
    INTERVENTIONS, on this module's mask or, with `everywhere`, on every module's.
    """

    module: str
    part: str = "mask"
    reduction: str = "mean"
    strength: float = 0.8
    intervention: str = "none"
    everywhere: bool = False

    def code(self) -> str:
        """The expression that makes this view again."""
        given = ((spec.name, getattr(self, spec.name), spec.default) for spec in dataclasses.fields(self))
        return f"View({', '.join(f'{name}={value!r}' for name, value, default in given if value != default)})"


@dataclass(frozen=True)
class Look:
    """What a view shows: `map` float32 [H, W] at the image's size, the `scale` of its colours; probabilities [K].

    `untouched` are the probabilities without intervention. `mean`, `std`, `smallest`, `largest` are over all
    channels and positions of the part, before the reduction; `channels` counts them (1 for Grad-CAM). `place` is the
    module that was looked at, which is another one than the view's for Grad-CAM of a `Foreign`.
    """

    image: Tensor
    view: View
    classes: tuple[str, ...]
    map: Tensor
    scale: Scale
    probabilities: Tensor
    untouched: Tensor
    mean: float
    std: float
    smallest: float
    largest: float
    channels: int
    resolution: tuple[int, int]
    place: str

    def sentence(self, label: str = "") -> str:
        """The picture in words, as a screen reader says it."""
        view, top = self.view, int(self.probabilities.argmax())
        words = [f"The network says {self.classes[top]}, {100 * self.probabilities[top]:.1f} per cent"]
        if view.intervention != "none":
            before = int(self.untouched.argmax())
            words[0] += f" (untouched: {self.classes[before]}, {100 * self.untouched[before]:.1f} per cent)"
        words += [f"the image is labelled {label}"] if label else []
        y, x = divmod(int(self.map.argmax()), self.map.shape[1])
        height, width = self.map.shape
        rows, columns = ("top", "middle", "bottom"), ("left", "centre", "right")
        where = f"{rows[min(3 * y // height, 2)]} {columns[min(3 * x // width, 2)]}"
        words += [f"{view.part} of {self.place}, {self.resolution[0]} by {self.resolution[1]}: mean {self.mean:.3f}"]
        words[-1] += f", from {self.smallest:.3f} to {self.largest:.3f}"
        flat = "the map is the same everywhere"
        flat += ", since this mask has no places" if self.resolution == (1, 1) else ""
        words += [f"the map is highest at the {where}" if self.scale.largest > self.scale.smallest else flat]
        return "; ".join(words) + "."


class Looker:
    """Makes looks, and remembers the passes they took, so that another module or reduction costs no pass."""

    def __init__(self, network: Pretrained | Foreign) -> None:
        if not isinstance(network, Pretrained | Foreign):
            raise ConfigError(
                f"network is a {type(network).__name__}: one of load_pretrained is needed, or a Foreign, or masks=..., "
                "which names the modules of another network whose outputs multiply features"
            )
        self.network = network
        self.passes: OrderedDict[tuple, Capture] = OrderedDict()

    def look(self, image: Tensor, view: View) -> Look:
        """Look at one image [3, H, W]; ConfigError for a module, part, reduction or intervention that is not there."""
        model = self.network.model
        if view.part == GRAD_CAM:
            taken, cam = self.grad_cam(image, view)
            features, (height, width) = enlarged(cam, image.shape[-2:])[:, None], cam.shape[-2:]
            map_, centre = features[0, 0], None
        else:
            taken = self.taken(image, view)
            parts = taken.features[choose_one(model, view.module)]
            if view.part not in parts:
                raise ConfigError(f"part={view.part!r}: {view.module} has {', '.join([*parts, GRAD_CAM])}")
            features = parts[view.part].float()
            height, width = features.shape[-2:]
            map_ = upsample(reduce_channels(features, view.reduction), image.shape[-2:])[0].cpu()
            centre = neutral(attention_network(model).attention_modules()[view.module], view.part, view.reduction)
        untouched = self.untouched(image).logits[0].float().softmax(dim=0).cpu()
        probabilities = taken.logits[0].float().softmax(dim=0).cpu()
        numbers = features.cpu().double()
        return Look(
            image=image,
            view=view,
            classes=self.network.classes,
            map=map_,
            scale=robust_scale(map_, centre),
            probabilities=probabilities,
            untouched=untouched,
            mean=numbers.mean().item(),
            std=numbers.std(correction=0).item(),
            smallest=numbers.min().item(),
            largest=numbers.max().item(),
            channels=features.shape[1],
            resolution=(height, width),
            place=model.features if view.part == GRAD_CAM and isinstance(model, Foreign) else view.module,
        )

    def untouched(self, images: Tensor) -> Capture:
        """A pass without interventions; `images` [3, H, W] or [N, 3, H, W]."""
        return self._pass(images, {})

    def taken(self, images: Tensor, view: View) -> Capture:
        """The pass that a view takes, with its intervention."""
        return self._pass(images, self._interventions(view))

    def grad_cam(self, images: Tensor, view: View) -> tuple[Capture, Tensor]:
        """The pass, and Grad-CAM at the view's module [N, h, w]; of a `Foreign` at its last features."""
        model, taken = self.network.model, self.taken(images, view)
        at = None if isinstance(model, Foreign) else view.module
        with intervening(model, self._interventions(view)):
            return taken, grad_cam(model, images, module=at, full_size=False)

    def _interventions(self, view: View) -> dict[str, str]:
        model = self.network.model
        choose_one(model, view.module)
        if view.intervention == "none":
            return {}
        if view.intervention not in INTERVENTIONS:
            raise ConfigError(f"intervention={view.intervention!r}: choose none or one of {', '.join(INTERVENTIONS)}")
        modules = attention_network(model).attention_modules() if view.everywhere else {}
        modules = [name for name, module in modules.items() if applies(view.intervention, module)]
        return dict.fromkeys(modules or [view.module], view.intervention)

    def _pass(self, image: Tensor, interventions: dict[str, str]) -> Capture:
        image = image[None] if image.dim() == 3 else image
        key = (image.cpu().contiguous().numpy().tobytes(), tuple(image.shape), tuple(interventions.items()))
        if key not in self.passes:
            with intervening(self.network.model, interventions):
                parts = ("mask",) if isinstance(self.network.model, Foreign) else (*PARTS, "scales")
                self.passes[key] = capture(self.network.model, image, parts)
            while len(self.passes) > KEPT:
                self.passes.popitem(last=False)
        self.passes.move_to_end(key)
        return self.passes[key]


def choose_one(model: nn.Module, module: str) -> str:
    """The module's name, when the network has it; ConfigError lists those it has."""
    return next(iter(choose_modules(model, module)))


def top_classes(look: Look, count: int = 5) -> list[int]:
    """The most probable classes, and the one that led without the intervention."""
    order = look.probabilities.argsort(descending=True).tolist()[:count]
    before = int(torch.argmax(look.untouched))
    return order if before in order else [*order[:-1], before]
