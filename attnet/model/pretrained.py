"""A trained network, ready to be looked into: opened from weights with its classes and colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnet.base.device import choose
from attnet.base.errors import WeightsError
from attnet.model.network import ResidualAttentionNetwork, standardising
from attnet.model.variants import build_model
from attnet.model.weights.loading import load_weights
from attnet.model.weights.opened import Weights

# What `load_pretrained` and `open_pretrained` take when nothing is asked for: by the data set it was trained on.
SHIPPED = {"cifar10": "attention56_cifar", "shapes": "attention56_shapes"}


@dataclass(frozen=True)
class Pretrained:
    """A trained network, ready to be looked into.

    `model` is in evaluation mode and float32, and takes images in [0, 1] (or uint8 through this package's functions)
    whatever it was trained on: a standardisation of the colours, by the mean and deviation of `colour`, happens
    inside. `weights` is what `load_pretrained` was called with, and `choice` says which of several in that file they
    are; `top1` is the per cent its record claims on the test images of `dataset`; both may be unknown.
    """

    model: ResidualAttentionNetwork
    classes: tuple[str, ...]
    weights: str
    dataset: str = ""
    top1: float | None = None
    epoch: int | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    colour: Mapping[str, Sequence[float]] | None = None
    choice: str = ""

    @property
    def size(self) -> int:
        """The side of the images it was made for, in pixels."""
        return self.model.variant.input_size

    def describe(self) -> str:
        """One line: which network, from where, how good."""
        parts = [f"{self.model.variant.label} from {self.weights}"]
        parts += [self.choice] if self.choice else []
        parts += [f"trained on {self.dataset}"] if self.dataset else []
        earlier = " after earlier ones" if self.config.get("is_pretrain") else ""
        parts += [f"{self.epoch} epochs{earlier}"] if self.epoch else []
        parts += [f"Top-1 {self.top1:.2f} %"] if self.top1 is not None else []
        return ", ".join(parts)


def load_pretrained(
    weights: str | Path = SHIPPED["cifar10"],
    model: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    device_type: str = "CPU",
    device_id: int = 0,
    **options: object,
) -> Pretrained:
    """Open weights.

    Args:
        weights: as `Weights.open`: a name of `shipped_weights()`, a weights file (ours, also as .safetensors, or a
            checkpoint of the reference's classes, in whatever wrapper), a run folder (its best.pt), or "" for the run
            that finished last. Relative paths start at the repository root. "FILE:ENTRY" chooses among averaged
            ("model_ema") and raw ("model") weights in one file; without it the average is taken.
        model: a name of `variants()`; None: what the file records, else the variant that its tensors fit.
        classes: class names; None: what the file records, else "class 0", "class 1" ...
        device_type, device_id: where the network is to be, as in `TrainConfig`; images follow it by themselves.
        **options: of the network, as `build_model`; what is not given is as the file records.

    Raises:
        WeightsError: no such file, weights that fit no network, colours that are not recorded, or a unit that is
            no part of this package: its code is not run unless you give it as unit=...
        ConfigError: a device that is not here, or options that do not exist.
    """
    device = choose(device_type, device_id)
    opened = Weights.open(weights)
    name = model or opened.model
    if name is None:
        raise WeightsError(
            f"weights {opened.path}: they fit no network of attnet.variants(); give its name as model=..."
        )
    network = build_model(name, opened.outputs or 10, **options | opened.options(options, name))
    load_weights(network, opened)
    colour = None
    if opened.config.get("normalize"):
        if opened.colour is None:
            raise WeightsError(
                f"weights {opened.path}: trained on standardised colours that the file does not record; evaluate them "
                "with notebooks/evaluate.ipynb, or train with this version, which records them"
            )
        colour = opened.colour
        standardising(network, **colour)
    names = tuple(classes or opened.classes)[: network.num_classes]
    return Pretrained(
        model=network.eval().to(device.torch_device, memory_format=device.memory_format),
        classes=(*names, *(f"class {k}" for k in range(len(names), network.num_classes))),
        weights=opened.name,
        dataset=str(opened.config.get("dataset", "")),
        top1=opened.top1,
        epoch=opened.epoch,
        config=opened.config,
        colour=colour,
        choice=opened.choice(),
    )
