"""Going on from weights: what their file records is taken over, and a last layer for other classes is a new one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnet.base.errors import ConfigError
from attnet.base.values import facts
from attnet.data.folder_scan import check_classes, recorded_folder
from attnet.data.registry import FOLDER
from attnet.data.splits import Dataset
from attnet.engine.parameters import TrainConfig
from attnet.model.network import ResidualAttentionNetwork
from attnet.model.simplify import can_simplify, channel_means, simplified
from attnet.model.variants import build_model, choose_variant, study_options
from attnet.model.weights.loading import load_weights
from attnet.model.weights.opened import Weights

if TYPE_CHECKING:
    from attnet.engine.plan import Plan

MEASURED_ON = 2000  # training images by which constants in the place of masks begin


def wanted_weights(config: TrainConfig) -> Weights | None:
    """The weights that `config` wants loaded; None when it wants none. WeightsError as `Weights.open`."""
    if config.is_train and not config.is_pretrain:
        return None
    return Weights.open(config.pretrained)


def for_training(config: TrainConfig, weights: Weights) -> tuple[TrainConfig, list[str]]:
    """`config` with the network and the colours of these weights where it leaves them open, and a line on what."""
    found = _taken_over(config, weights, ("always", "options"))
    if config.model is None and weights.model is not None:
        found["model"] = weights.model
    found = {name: value for name, value in found.items() if value is not None and getattr(config, name) is None}
    shown = [f"{name} {value}" for name, value in found.items() if value is not False]
    return config.replace(**found), [f"{', '.join(shown)}: those of {config.pretrained}"] if shown else []


def for_evaluation(config: TrainConfig, weights: Weights) -> TrainConfig:
    """`config` as these weights are to be evaluated: with everything that decides what a network sees and says.

    The training images are all of them, without noise; the test images as well, unless `test_images` is given.
    """
    if weights.is_graph:
        if config.device_type not in ("auto", "CPU"):
            raise ConfigError(
                f"device_type={config.device_type}: {weights.path.name} is run on the CPU; leave it at auto"
            )
        config = config.replace(device_type="CPU")
    found = _taken_over(config, weights, ("always", "options", "evaluation"))
    if config.model is None and weights.model is not None:
        found["model"] = weights.model
    if config.num_classes is None and "num_classes" not in found and weights.outputs:
        found["num_classes"] = weights.outputs
    if found.get("dataset") == FOLDER and "data_path" not in config.given():
        found["data_path"] = recorded_folder(weights.config, weights.path)
    whole = {"train_images": 0, "test_images": config.test_images or 0, "is_train": False, "is_pretrain": False}
    mode = "full" if config.mode == "auto" else config.mode
    return config.replace(**found, **whole, pretrained=weights.address, mode=mode)


def check_evaluation(dataset: Dataset, weights: Weights, asked: TrainConfig, plan: TrainConfig) -> None:
    """See that the labels mean to a network what they meant in training.

    Raises:
        ConfigError: other classes were asked for than it tells apart. DataError: another image folder.
    """
    recorded = weights.config
    if asked.classes and recorded and recorded.get("classes", "") != plan.classes:
        trained = recorded.get("classes") or f"all classes of {recorded.get('dataset')}"
        raise ConfigError(f"classes={asked.classes!r}: these weights tell apart {trained}; leave classes empty")
    if plan.dataset == FOLDER and weights.classes:
        check_classes(dataset.classes, dataset.source, weights.classes, weights.path)


def choose_head(config: TrainConfig, weights: Weights, classes: Sequence[str]) -> tuple[TrainConfig, str]:
    """`config` with `new_head` decided for the `classes` of its data set, and why."""
    outputs, wanted, name = weights.outputs, config.num_classes, config.pretrained
    if config.new_head is not None:
        why = f"{'new head' if config.new_head else 'head kept'}, as new_head={config.new_head} asks for"
        return config, f"{why}; {name} has {outputs} classes, here are {wanted}"
    if outputs != wanted:
        return config.replace(new_head=True), f"new head: {wanted} classes in place of the {outputs} of {name}"
    if weights.classes and weights.classes != tuple(classes):
        why = f"new head: {_some(classes)} in place of {_some(weights.classes)} of {name}"
        return config.replace(new_head=True), f"{why}; new_head=False keeps the old one"
    why = "the same classes" if weights.classes else "as many classes, which its file does not name"
    return config.replace(new_head=False), f"head kept: {name} has {why}; new_head=True begins a new one"


def begin_from(model: ResidualAttentionNetwork, plan: Plan) -> None:
    """Load the plan's weights into its network; into one with simpler masks than theirs, as `attnet.model.simplify`
    says, constants being the means over `MEASURED_ON` training images.

    Raises:
        WeightsError: weights that do not fit.
    """
    weights, config, state = plan.weights, plan.config, plan.weights
    new_head = bool(config.is_train and config.new_head)
    if config.is_train and (given := _simpler_masks(config, weights)):
        own = build_model(config.model, weights.outputs, **study_options(config.to_dict()) | {"attention": given})
        load_weights(own, weights)
        own.to(plan.device.torch_device)
        images = plan.dataset.train.subset(min(MEASURED_ON, len(plan.dataset.train)))
        means = channel_means(own, (batch.images for batch in plan.test_batches(split=images)))
        state = simplified(own.cpu().state_dict(), model.variant.attention, means)
    load_weights(model, state, new_head=new_head)


def _simpler_masks(config: TrainConfig, weights: Weights) -> str:
    """The attention type that the weights were trained with, where the network is to have a simpler one; else ""."""
    if config.model != weights.model:
        return ""
    plain = choose_variant(weights.model).attention
    trained = weights.config.get("attention") or plain
    return trained if can_simplify(config.attention or plain, trained) else ""


def from_scratch(config: TrainConfig, output_dir: str) -> TrainConfig:
    """The same training without the weights, for comparison: all of the network learns, at the recipe's own rate.

    Args:
        config: a plan's, which holds the network that the weights decided.
        output_dir: the folder of this other run.
    """
    fields = config.fields()
    without = {name: fields[name].default for name in config.named(only_with_weights=True)}
    return config.replace(**without, lr=None, output_dir=output_dir, resume="")


def _taken_over(config: TrainConfig, weights: Weights, when: Sequence[str]) -> dict[str, object]:
    """What the file records of parameters with one of these facts, where `config` leaves them open."""
    fields, recorded = config.fields(), weights.config
    names = [n for n, spec in fields.items() if facts(spec).weights in when and facts(spec).weights != "options"]
    found = {n: recorded[n] for n in names if n in recorded and getattr(config, n) == fields[n].default}
    return found | weights.options(config.to_dict(), config.model)


def _some(classes: Sequence[str]) -> str:
    return ", ".join(classes[:3]) + (" …" if len(classes) > 3 else "")
