"""From what was asked to what will be done: mode, device, data and every preset resolved, with the reasons."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass

from attnet import device as devices
from attnet.batches import Augmentation, Colour, TestBatches, TrainBatches
from attnet.choices import check_together, choose_preset, fit_to_device
from attnet.config import TrainConfig, parameter_fields
from attnet.data import FOLDER, load_dataset
from attnet.device import Device
from attnet.errors import ConfigError, DataError
from attnet.folders import check_classes, recorded_folder
from attnet.model import choose_variant, study_options
from attnet.noise import noise_lines, with_label_noise
from attnet.parts import learning_lines
from attnet.paths import resolve_path
from attnet.presets import MODES
from attnet.splits import Dataset, Split
from attnet.transfer import Origin, taken_over
from attnet.weights import find_weights, is_onnx, read_checkpoint, recorded_config


@dataclass(frozen=True)
class Plan:
    """Everything decided before training starts. `config` has no None and no "auto" left in it, but for the options
    of the network, where None is its own.

    `choices` are sentences that say what was chosen and why.
    """

    config: TrainConfig
    device: Device
    dataset: Dataset
    dataset_label: str
    colour: Colour | None
    choices: tuple[str, ...]

    def train_batches(self, rank: int = 0, size: int = 1) -> TrainBatches:
        """The training batches of card `rank` of `size`, on the device."""
        config = self.config
        return TrainBatches(
            self.dataset.train,
            config.train_batch_size,
            self.device.torch_device,
            seed=config.seed,
            augmentation=Augmentation(
                config.flip,
                config.crop_padding,
                config.cutout,
                config.mixup,
                mixup_epochs=config.total_epochs - config.mixup_off_epochs,
            ),
            colour=self.colour,
            compiled=config.compile != "off",
            shards=size * config.accumulate,
            first=rank * config.accumulate,
            count=config.accumulate,
        )

    def test_batches(self, rank: int = 0, size: int = 1, split: Split | None = None) -> TestBatches:
        """The batches of card `rank` of `size` for evaluating the test images, or another split, on the device."""
        split = self.dataset.test if split is None else split
        return TestBatches(split, self.config.test_batch_size, self.device.torch_device, self.colour, rank, size)

    def _precision(self) -> str:
        if self.config.amp == "O0":
            return "O0, float32"
        half = str(self.device.half_dtype).removeprefix("torch.")
        why = ", since this CPU has no float16 convolutions" if half == "bfloat16" else ""
        scale = f", loss scale {self.config.loss_scale}" if self.config.amp in ("O1", "O2") else ""
        by = ", by apex" if self.config.amp_backend == "apex" else ""
        return f"{self.config.amp} with {half}{why}{scale}{by}"

    def describe(self) -> str:
        """The plan in plain lines, for logs and notebooks."""
        config = self.config
        network = choose_variant(config.model, **study_options(config.to_dict()))
        steps = len(self.dataset.train) // (config.train_batch_size * config.accumulate * config.device_num)
        training = (
            f"training: recipe {config.recipe}, {config.total_epochs} epochs of {steps} steps, "
            f"batch {config.train_batch_size} x {config.device_num * config.accumulate}"
        )
        return "\n".join(
            [
                *self.choices,
                f"device: {self.device.name} ({self.device.kind})"
                + (f", {config.device_num} processes, one a card" if config.device_num > 1 else ""),
                f"precision: {self._precision()}"
                + (f"; torch.compile {config.compile}, the first step takes minutes" * (config.compile != "off")),
                f"data: {self.dataset_label} from {self.dataset.source}",
                *noise_lines(self.dataset.train, config.label_noise, config.noise_seed),
                f"network: {network.label}, {network.parameters:,} parameters with 10 classes",
                *([training, *learning_lines(network, config.freeze, config.layer_decay)] if config.is_train else []),
                *([f"weights: {config.pretrained}"] if config.is_pretrain or not config.is_train else []),
            ]
        )


def make_plan(config: TrainConfig) -> Plan:
    """Resolve a configuration: choose what was left open, load the data, check that all fits together.

    Raises:
        ConfigError: parameters that cannot work together or on this machine.
        DataError: no usable data set at `data_path`.
    """
    device = devices.choose(config.device_type, config.device_id)
    origin, choices = Origin.of(config), []
    if origin is not None and config.is_train:
        config, choices = origin.complete(config)
    config = choose_preset(config, device, choices)
    config = fit_to_device(config, device, choices)
    network = choose_variant(config.model, **study_options(config.to_dict()))
    check_together(config, network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same sentences are among the choices
        dataset = load_dataset(resolve_path(config.data_path), config.dataset, network.input_size)
    choices += dataset.warnings
    # Of the whole training set, so that weights trained on a subset are tested as they were trained; and weights go on
    # with the colours they were trained with.
    recorded = origin and origin.colour
    colour = (recorded or Colour.of(dataset.train.images)) if config.normalize else None
    if config.classes:
        dataset = dataset.of_classes(config.classes)
        config = config.replace(classes=",".join(dataset.classes))
    whole = len(dataset.train)
    dataset = _chosen_images(config, dataset, choices)
    config = _with_head(config, dataset, origin, choices)
    return Plan(config, device, dataset, _label(config, len(dataset.train), whole), colour, tuple(choices))


def _chosen_images(config: TrainConfig, dataset: Dataset, choices: list[str]) -> Dataset:
    """As many images of either split as are wanted, the training labels with as much noise."""
    train = _subset(dataset.train, "train_images", config.train_images, config.mode, choices)
    test = _subset(dataset.test, "test_images", config.test_images, config.mode, choices)
    if config.label_noise and config.is_train:
        train = with_label_noise(train, len(dataset.classes), config.label_noise, config.noise_seed)
    elif config.label_noise:
        choices.append(f"labels are the true ones: label noise ({100 * config.label_noise:g} %) is for training alone")
    return dataclasses.replace(dataset, train=train, test=test)


def _with_head(config: TrainConfig, dataset: Dataset, origin: Origin | None, choices: list[str]) -> TrainConfig:
    """`config` with the number of outputs, and whether the last layer of given weights is kept."""
    if config.num_classes is None:
        config = config.replace(num_classes=len(dataset.classes))
    if config.num_classes < len(dataset.classes):
        raise ConfigError(
            f"num_classes={config.num_classes}: {config.dataset} has {len(dataset.classes)} classes; give that many or "
            "more"
        )
    if origin is None or not config.is_train:
        return config.replace(new_head=False)
    config, why = origin.choose_head(config, dataset.classes)
    choices.append(why)
    return config


def _label(config: TrainConfig, images: int, whole: int) -> str:
    """The training data in words: how many `images` of how many, and how many of their labels are wrong."""
    count = f"{images:,} of {whole:,}" if images < whole else f"{images:,}"
    noise = f" (label noise {100 * config.label_noise:g} %)" if config.label_noise and config.is_train else ""
    return f"{_name(config)}, {count} images{noise}"


# What evaluation takes from a checkpoint's record where nothing else is asked for.
_INHERITED = ("model", "num_classes", "dataset", "classes", "label_noise", "noise_seed", "normalize", "recipe")


def plan_evaluation(config: TrainConfig, split: str = "test") -> Plan:
    """The plan for looking at weights: what their checkpoint records is taken for what `config` leaves open.

    Args:
        config: `pretrained` is a weights file (an .onnx file as well), a run folder (its best.pt), or "" for the
            newest finished run's.
        split: "test" or "train"; the plan's test batches are of this split, whole unless test_images is given. Its
            labels are the true ones, whatever noise the network was trained with.

    Raises:
        WeightsError: no such weights. ConfigError, DataError: as `make_plan`, and other classes than the network's.
    """
    if split not in ("test", "train"):
        raise ConfigError(f"split={split!r}: choose test or train")
    path = find_weights(config.pretrained)
    recorded = recorded_config(path)
    if is_onnx(path):
        if config.device_type not in ("auto", "CPU"):
            raise ConfigError(f"device_type={config.device_type}: {path.name} is run on the CPU; leave it at auto")
        config = config.replace(device_type="CPU")
    inherited = taken_over(config, recorded, _INHERITED, path)
    if inherited.get("dataset") == FOLDER and config.data_path == parameter_fields()["data_path"].default:
        inherited["data_path"] = recorded_folder(recorded, path)
    everything = {"train_images": 0, "test_images": 0, "is_train": False, "is_pretrain": False}
    mode = "full" if config.mode == "auto" else config.mode
    plan = make_plan(config.replace(**inherited, **everything, pretrained=str(path), mode=mode))
    if config.classes and recorded.get("classes", "") != plan.config.classes:
        trained = recorded.get("classes") or f"all classes of {recorded.get('dataset')}"
        raise ConfigError(f"classes={config.classes!r}: these weights tell apart {trained}; leave classes empty")
    if plan.config.dataset == FOLDER and (names := read_checkpoint(path).get("classes")):
        check_classes(plan.dataset, names, path)
    images = plan.dataset.test if split == "test" else plan.dataset.train
    images = _subset(images, "test_images", config.test_images or 0, plan.config.mode, [])
    return dataclasses.replace(
        plan,
        dataset=dataclasses.replace(plan.dataset, test=images),
        dataset_label=f"{_name(plan.config)}, {len(images):,} {split} images",
    )


def _name(config: TrainConfig) -> str:
    """The data set (an image folder by its name), and which classes of it: few by their names."""
    name = f"{FOLDER} {resolve_path(config.data_path).name}" if config.dataset == FOLDER else config.dataset
    classes = config.classes.split(",")
    shown = ", ".join(classes) if len(classes) <= 4 else f"{len(classes)} classes"
    return f"{name} ({shown})" if config.classes else name


def _subset(split: Split, parameter: str, wanted: int, mode: str, choices: list[str]) -> Split:
    """`wanted` images of a split (0: all). A mode's preset larger than the set takes all; a user's is an error."""
    if wanted == 0 or wanted == len(split) or (wanted > len(split) and MODES[mode][parameter] == wanted):
        return split
    if wanted > len(split):
        raise DataError(f"{parameter}={wanted}: the data set has only {len(split)}; 0 means all")
    if MODES[mode][parameter] == wanted:
        choices.append(f"{parameter} {wanted:,} of {len(split):,}, as a {mode} does; {parameter}=0 takes all")
    return split.subset(wanted)
