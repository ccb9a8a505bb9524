"""From what was asked to what will be done: mode, device, data and every preset resolved, with the reasons."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from attnet.base import device as devices
from attnet.base.device import Device
from attnet.base.errors import ConfigError, DataError
from attnet.base.files.paths import resolve_path
from attnet.base.words import names_of, names_text
from attnet.data.batches import Colour, TestBatches, TrainBatches
from attnet.data.registry import FOLDER, SHAPES, load_dataset, require_dataset
from attnet.data.splits import Dataset, Split
from attnet.engine.parameters import TrainConfig
from attnet.engine.precision import LEVELS
from attnet.engine.recipes import MODES, check_together, choose_preset, fit_to_device, recipe_name
from attnet.model.network import Variant
from attnet.model.variants import choose_variant, study_options

if TYPE_CHECKING:
    from attnet.engine.estimate import Estimate
    from attnet.model.weights.opened import Weights


_LATER = "torch.compile, the first step takes minutes"
COMPILED = {"off": "", "on": f"; {_LATER}", "graphs": "; steps recorded as graphs"}
COMPILED["both"] = COMPILED["graphs"] + COMPILED["on"]


@dataclass(frozen=True)
class Plan:
    """Everything decided before training starts. `config` has no None and no "auto" left in it, but for the options
    of the network, where None is its own; `asked` is what it was made of.

    `weights` are those that it begins with or evaluates, `resumed` the interrupted run that it goes on with. `choices`
    are sentences that say what was chosen and why.
    """

    config: TrainConfig
    device: Device
    dataset: Dataset
    dataset_label: str
    colour: Colour | None
    choices: tuple[str, ...]
    asked: TrainConfig
    weights: Weights | None = None
    resumed: Path | None = None
    position: tuple[int, int] = (0, 0)  # epochs, and steps of the next one, that `resumed` has done
    time: Estimate | None = None  # how long it will take, where somebody has found out
    whole: tuple[int, int] = (0, 0)  # images that the data set has to train and to test on, whatever is taken of them

    @property
    def network(self) -> Variant:
        """The network that will be built."""
        return _network(self.config)

    def train_batches(self, rank: int = 0, size: int = 1) -> TrainBatches:
        """The training batches of card `rank` of `size`, on the device."""
        config = self.config
        return TrainBatches(
            self.dataset.train,
            config.train_batch_size,
            self.device.torch_device,
            seed=config.seed,
            augmentation=config,
            colour=self.colour,
            compiled=config.compile in ("on", "both"),
            shards=size * config.accumulate,
            first=rank * config.accumulate,
            count=config.accumulate,
            epochs=config.total_epochs,
        )

    def test_batches(self, rank: int = 0, size: int = 1, split: Split | None = None) -> TestBatches:
        """The batches of card `rank` of `size` for evaluating the test images, or another split, on the device."""
        split = self.dataset.test if split is None else split
        return TestBatches(split, self.config.test_batch_size, self.device.torch_device, self.colour, rank, size)

    def describe(self) -> str:
        """The plan in plain lines, for logs and notebooks."""
        config, network = self.config, self.network
        cards = f", {config.device_num} processes, one a card" if config.device_num > 1 else ""
        cards += f", on {config.nnodes} machines" if config.nnodes > 1 else ""
        compiled = COMPILED[config.compile]
        counted = network.count_parameters(config.num_classes)
        return "\n".join(
            [
                *self.choices,
                f"device: {self.device.name} ({self.device.kind}){cards}",
                f"precision: {self._precision()}{compiled}",
                f"data: {self.dataset_label} from {self.dataset.source}",
                *self._wrong_labels(),
                f"network: {network.label}, {counted:,} parameters with {config.num_classes} classes",
                *(self._training() if config.is_train else []),
                *([f"weights: {config.pretrained}{self._choice()}"] if self.weights is not None else []),
                *([self.time.describe(config)] if self.time is not None else []),
            ]
        )

    def _choice(self) -> str:
        choice = self.weights.choice()
        return f", {choice}" if choice else ""

    def _precision(self) -> str:
        level = LEVELS[self.config.amp]
        if not (level.half_weights or level.autocast):
            return f"{self.config.amp}, {level.help}"
        half = str(self.device.half_dtype).removeprefix("torch.")
        scale = f", loss scale {self.config.loss_scale}" if level.scales else ""
        by = ", by apex" if self.config.amp_backend == "apex" else ""
        return f"{self.config.amp} with {half}{scale}{by}"

    def _wrong_labels(self) -> list[str]:
        train, config = self.dataset.train, self.config
        if train.true_labels is None:
            return []
        wrong, share = int((train.labels != train.true_labels).sum()), 100 * config.label_noise
        seed = f"seed {config.noise_seed}"
        return [f"label noise {share:g} %: {wrong:,} of {len(train):,} training labels are wrong, {seed}"]

    def _training(self) -> list[str]:
        config = self.config
        cards = config.device_num * config.accumulate
        steps = len(self.dataset.train) // (config.train_batch_size * cards)
        lines = [
            f"training: recipe {recipe_name(config)}, {config.total_epochs} epochs of {steps} steps, "
            f"batch {config.train_batch_size} x {cards}"
        ]
        if config.image_sizes:
            lines.append(f"images of {config.image_sizes.replace(',', ', ')} pixels, an equal part of the epochs each")
        if config.freeze or config.layer_decay != 1:
            from attnet.model.parts import learning_lines

            lines += learning_lines(self.network, config.freeze, config.layer_decay)
        return lines


class Decision(NamedTuple):
    """What is decided before any data are read; fields as of `Plan`."""

    config: TrainConfig
    device: Device
    weights: Weights | None
    choices: list[str]


def decide(config: TrainConfig) -> Decision:
    """Everything but the data: weights, device, mode and presets, and whether a data set is there at all.

    Raises:
        AttnetError: as `make_plan`, but for what only shows when data are read.
    """
    weights, choices, amp = None, [], config.amp
    if config.is_pretrain or not config.is_train:
        from attnet.engine.transfer import for_evaluation, for_training, wanted_weights

        weights = wanted_weights(config)
        if config.is_train:
            config, choices = for_training(config, weights)
        else:
            config = for_evaluation(config, weights)
    device = devices.choose(config.device_type, config.device_id)
    if amp == "auto" and not config.is_train and device.usual_level[0] == "O0":
        config = config.replace(amp="auto")  # whatever they were trained in: half precision would be slow here
    config = choose_preset(config, device, choices)
    config = fit_to_device(config, device, choices)
    check_together(config, _network(config))
    if config.dataset != SHAPES:
        require_dataset(resolve_path(config.data_path), config.dataset)
    return Decision(config, device, weights, choices)


def make_plan(asked: TrainConfig) -> Plan:
    """Resolve a configuration: choose what was left open, load the data, check that all fits together.

    With is_train=False it is `plan_evaluation`'s of the test images.

    Raises:
        ConfigError: parameters that cannot work together or on this machine.
        DataError: no usable data set at `data_path`.
        WeightsError: no such weights.
    """
    config, device, weights, choices = decide(asked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the same sentences are among the choices
        dataset = load_dataset(resolve_path(config.data_path), config.dataset, _network(config).input_size)
    choices += dataset.warnings
    # Of the whole training set, so that weights trained on a subset are tested as they were trained; and weights go on
    # with the colours they were trained with.
    colour = None
    if config.normalize:
        recorded = weights and weights.colour
        colour = Colour(**recorded) if recorded else Colour.of(dataset.train.images)
    if config.classes:
        dataset = dataset.of_classes(config.classes)
        config = config.replace(classes=names_text(dataset.classes))
    whole = len(dataset.train), len(dataset.test)
    dataset = _chosen_images(config, dataset, choices)
    config = _with_head(config, dataset, weights, choices)
    if not config.is_train:
        from attnet.engine.transfer import check_evaluation

        check_evaluation(dataset, weights, asked, config)
    label = _label(config, len(dataset.train), whole[0])
    return Plan(config, device, dataset, label, colour, tuple(choices), asked, weights, whole=whole)


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
    wanted = config.test_images or 0
    if not config.pretrained:
        from attnet.model.weights.opened import find_weights

        config = config.replace(pretrained=str(find_weights()))
    plan = make_plan(config.replace(is_train=False, is_pretrain=False, test_images=0 if split == "train" else wanted))
    images = plan.dataset.test
    if split == "train":
        images = _subset(plan.dataset.train, "test_images", wanted, plan.config.mode, [])
    return dataclasses.replace(
        plan,
        dataset=dataclasses.replace(plan.dataset, test=images),
        dataset_label=f"{_name(plan.config)}, {len(images):,} {split} images",
    )


def _network(config: TrainConfig) -> Variant:
    return choose_variant(config.model, **study_options(config.to_dict()))


def _chosen_images(config: TrainConfig, dataset: Dataset, choices: list[str]) -> Dataset:
    """As many images of either split as are wanted, the training labels with as much noise."""
    train = _subset(dataset.train, "train_images", config.train_images, config.mode, choices)
    test = _subset(dataset.test, "test_images", config.test_images, config.mode, choices)
    if config.label_noise and config.is_train:
        from attnet.data.noise import with_label_noise

        train = with_label_noise(train, len(dataset.classes), config.label_noise, config.noise_seed)
    elif config.label_noise:
        choices.append(f"labels are the true ones: label noise ({100 * config.label_noise:g} %) is for training alone")
    return dataclasses.replace(dataset, train=train, test=test)


def _with_head(config: TrainConfig, dataset: Dataset, weights: Weights | None, choices: list[str]) -> TrainConfig:
    """`config` with the number of outputs, and whether the last layer of given weights is kept."""
    if config.num_classes is None:
        config = config.replace(num_classes=len(dataset.classes))
    if config.num_classes < len(dataset.classes):
        raise ConfigError(
            f"num_classes={config.num_classes}: {config.dataset} has {len(dataset.classes)} classes; give that many or "
            "more"
        )
    if weights is None or not config.is_train:
        return config.replace(new_head=False)
    from attnet.engine.transfer import choose_head

    config, why = choose_head(config, weights, dataset.classes)
    choices.append(why)
    return config


def _label(config: TrainConfig, images: int, whole: int) -> str:
    """The training data in words: how many `images` of how many, and how many of their labels are wrong."""
    count = f"{images:,} of {whole:,}" if images < whole else f"{images:,}"
    return f"{_name(config)}, {count} images{_noise(config)}"


def task(config: TrainConfig) -> str:
    """What is learned, however many images of it are taken: data set, classes, label noise."""
    return _name(config) + _noise(config)


def _noise(config: TrainConfig) -> str:
    return f" (label noise {100 * config.label_noise:g} %)" if config.label_noise and config.is_train else ""


def _name(config: TrainConfig) -> str:
    """The data set (an image folder by its name), and which classes of it: few by their names."""
    name = f"{FOLDER} {resolve_path(config.data_path).name}" if config.dataset == FOLDER else config.dataset
    classes = names_of(config.classes, "classes")
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
