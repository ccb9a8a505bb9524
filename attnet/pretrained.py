"""Open trained weights with all that is needed to look into them: the network, its classes, what it was trained on."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from attnet.batches import Colour
from attnet.config import TrainConfig
from attnet.data import FOLDER, find_dataset, load_dataset
from attnet.device import choose
from attnet.engine import fit
from attnet.errors import WeightsError
from attnet.folders import check_classes, recorded_folder
from attnet.model import ResidualAttentionNetwork, build_model
from attnet.paths import relative_to_root, resolve_path
from attnet.shapes import KINDS
from attnet.splits import Dataset
from attnet.weights import (
    count_classes,
    find_weights,
    fitting_variants,
    load_weights,
    read_checkpoint,
    read_weights,
    recorded_options,
    shipped_weights,
)

# What `load_pretrained` and `open_pretrained` take when nothing is asked for: by the data set it was trained on.
SHIPPED = {"cifar10": "attention56_cifar", "shapes": "attention56_shapes"}
TRAIN = "train"


@dataclass(frozen=True)
class Pretrained:
    """A trained network, ready to be looked into.

    `model` is in evaluation mode and float32, and takes images in [0, 1] (or uint8 through this package's functions)
    whatever it was trained on: a standardisation of the colours, `colour`, happens inside. `weights` is what
    `load_pretrained` was called with, `top1` the per cent its record claims on the test images of `dataset`; both may
    be unknown.
    """

    model: ResidualAttentionNetwork
    classes: tuple[str, ...]
    weights: str
    dataset: str = ""
    top1: float | None = None
    epoch: int | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    colour: Colour | None = None

    @property
    def size(self) -> int:
        """The side of the images it was made for, in pixels."""
        return self.model.variant.input_size

    def describe(self) -> str:
        """One line: which network, from where, how good."""
        parts = [f"{self.model.variant.label} from {self.weights}"]
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
        weights: a name of `shipped_weights()`, a weights file (ours, also as .safetensors, or a checkpoint of the
            reference's classes), a run folder (its best.pt), or "" for the run that finished last. Relative paths
            start at the repository root.
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
    path = find_weights(weights)
    content, state = read_checkpoint(path), read_weights(path)
    config = content.get("config")
    config = config if isinstance(config, Mapping) else {}
    name = model or config.get("model") or next(iter(fitting_variants(state)), None)
    if name is None:
        raise WeightsError(f"weights {path}: they fit no network of attnet.variants(); give its name as model=...")
    chosen = recorded_options(config if name == config.get("model") else {}, options, path)
    network = build_model(name, count_classes(state) or 10, **options | chosen)
    load_weights(network, state)
    colour = None
    if config.get("normalize"):
        if not isinstance(content.get("colour"), Mapping):
            raise WeightsError(
                f"weights {path}: trained on standardised colours that the file does not record; evaluate them with "
                "notebooks/evaluate.ipynb, or train with this version, which records them"
            )
        colour = Colour(**content["colour"])
        _standardise(network, colour)
    dataset = str(config.get("dataset", ""))
    return Pretrained(
        model=network.eval().to(device.torch_device, memory_format=device.memory_format),
        classes=_class_names(classes or content.get("classes"), dataset, network.num_classes),
        weights=str(weights) if str(weights) in shipped_weights() else relative_to_root(path),
        dataset=dataset,
        top1=content.get("top1"),
        epoch=content.get("epoch"),
        config=config,
        colour=colour,
    )


def open_pretrained(
    weights: str | Path = "", data_path: str | Path | None = None, *, device_type: str = "CPU", device_id: int = 0
) -> tuple[Pretrained, Dataset]:
    """Weights and the images to look at with them.

    Args:
        weights: as `load_pretrained`; "" for the shipped ones that were trained on CIFAR-10 when that is at
            `data_path`, else for those trained on shapes; "train" trains on shapes first, in about a minute.
        data_path: as in TrainConfig; a relative path starts at the repository root. Weights trained on an image
            folder look for it where it was then, unless this is one.
        device_type, device_id: as `load_pretrained`.

    Returns:
        The network, and its classes of the data set it was trained on. When that is not at hand, CIFAR-10 if it is
        there, else shapes, and a warning: such images are strange to the network.

    Raises:
        WeightsError: as `load_pretrained`. DataError: a damaged data set, or an image folder that is gone.
    """
    place = None if data_path is None else resolve_path(data_path)
    here = "cifar10" if find_dataset(place, "cifar10") else "shapes"
    if weights == TRAIN:
        config = TrainConfig(mode="rehearsal", dataset="shapes", keep_epochs=1, output_dir="runs/open_pretrained")
        weights = fit(config).output_dir
    network = load_pretrained(weights or SHIPPED[here], device_type=device_type, device_id=device_id)
    name = network.dataset or here
    if name == FOLDER and not find_dataset(place, FOLDER):
        place = resolve_path(recorded_folder(network.config, network.weights))
    if name != "shapes" and not find_dataset(place, name):
        warnings.warn(
            f"{network.weights} was trained on {name}, which is not at {data_path}: {here} instead", stacklevel=2
        )
        name = here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a preprocessed copy is as good to look at
        dataset = load_dataset(place, name, network.size)
    if name == network.dataset and network.config.get("classes"):
        dataset = dataset.of_classes(network.config["classes"])
    if name == FOLDER:
        check_classes(dataset, network.classes, network.weights)
    if network.classes[:1] == ("class 0",) and len(network.classes) == len(dataset.classes):
        network = dataclasses.replace(network, classes=dataset.classes)  # a checkpoint of the reference has no names
    return network, dataset


def _class_names(given: object, dataset: str, outputs: int) -> tuple[str, ...]:
    names = list(given) if isinstance(given, Sequence) else []
    if not names and dataset == "shapes":
        names = [kind.name for kind in KINDS]
    return tuple([*names[:outputs], *(f"class {k}" for k in range(len(names), outputs))])


def _standardise(network: nn.Module, colour: Colour) -> None:
    def before(_network: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        mean, std = (inputs[0].new_tensor(value).view(3, 1, 1) for value in (colour.mean, colour.std))
        return ((inputs[0] - mean) / std,)

    network.register_forward_pre_hook(before)
