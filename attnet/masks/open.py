"""Weights together with images to look at: what every look into a network begins with."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

from attnet.base.files.paths import resolve_path
from attnet.data.folder_scan import check_classes, recorded_folder
from attnet.data.registry import FOLDER, find_dataset, load_dataset
from attnet.data.splits import Dataset
from attnet.engine.fit import fit
from attnet.engine.parameters import TrainConfig
from attnet.model.pretrained import SHIPPED, Pretrained, load_pretrained

TRAIN = "train"


def open_pretrained(
    weights: str | Path = "", data_path: str | Path | None = None, *, device_type: str = "CPU", device_id: int = 0
) -> tuple[Pretrained, Dataset]:
    """Weights and the images to look at with them.

    Args:
        weights: as `load_pretrained`; "" for the shipped ones that were trained on CIFAR-10 when that is at
            `data_path`, else for those trained on shapes; "train" trains on shapes first, in about a minute.
        data_path: as in TrainConfig, and as there by default where `attnet download` puts CIFAR-10; a relative path
            starts at the repository root. Weights trained on an image folder look for it where it was then, unless
            this is one.
        device_type, device_id: as `load_pretrained`.

    Returns:
        The network, and its classes of the data set it was trained on. When that is not at hand, CIFAR-10 if it is
        there, else shapes, and a warning: such images are strange to the network.

    Raises:
        WeightsError: as `load_pretrained`. DataError: a damaged data set, or an image folder that is gone.
    """
    place = resolve_path(data_path or TrainConfig.fields()["data_path"].default)
    here = "cifar10" if find_dataset(place, "cifar10") else "shapes"
    if weights == TRAIN:
        config = TrainConfig(mode="rehearsal", dataset="shapes", keep_epochs=1, output_dir="runs/open_pretrained")
        weights = fit(config).output_dir
    network = load_pretrained(weights or SHIPPED[here], device_type=device_type, device_id=device_id)
    name = network.dataset or here
    if name == FOLDER and not find_dataset(place, FOLDER):
        place = resolve_path(recorded_folder(network.config, network.weights))
    if name != "shapes" and not find_dataset(place, name):
        warnings.warn(f"{network.weights} was trained on {name}, which is not at {place}: {here} instead", stacklevel=2)
        name = here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a preprocessed copy is as good to look at
        dataset = load_dataset(place, name, network.size)
    if name == network.dataset and network.config.get("classes"):
        dataset = dataset.of_classes(network.config["classes"])
    if name == FOLDER:
        check_classes(dataset.classes, dataset.source, network.classes, network.weights)
    if network.classes[:1] == ("class 0",) and len(network.classes) == len(dataset.classes):
        network = dataclasses.replace(network, classes=dataset.classes)  # a checkpoint of the reference has no names
    return network, dataset
