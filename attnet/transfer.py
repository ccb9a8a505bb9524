"""Going on from weights: what their file records is taken over, and a last layer for other classes is a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from attnet.batches import Colour
from attnet.config import TrainConfig, parameter_fields
from attnet.weights import (
    count_classes,
    find_weights,
    fitting_variants,
    read_checkpoint,
    read_weights,
    recorded_options,
)

_TAKEN_OVER = ("model", "normalize")


@dataclass(frozen=True)
class Origin:
    """The weights that a run begins with: their name, their file, and what that records besides them."""

    name: str
    path: Path
    config: Mapping[str, object]
    classes: tuple[str, ...]
    colour: Colour | None

    @classmethod
    def of(cls, config: TrainConfig) -> Origin | None:
        """Of the weights that `config` wants loaded; None when it wants none.

        Raises:
            WeightsError: no such file, or not one of weights.
        """
        if not config.pretrained or (config.is_train and not config.is_pretrain):
            return None
        path = find_weights(config.pretrained)
        content = read_checkpoint(path)
        recorded, colour = content.get("config"), content.get("colour")
        return cls(
            config.pretrained,
            path,
            recorded if isinstance(recorded, Mapping) else {},
            tuple(content.get("classes") or ()),
            Colour(**colour) if isinstance(colour, Mapping) else None,
        )

    def complete(self, config: TrainConfig) -> tuple[TrainConfig, list[str]]:
        """`config` for training, with the network and the colours of these weights where it leaves them open.

        Returns:
            The configuration, and a line that says what was taken over.
        """
        found = taken_over(config, self.config, _TAKEN_OVER, self.path)
        if config.model is None and "model" not in found:
            found["model"] = next(iter(fitting_variants(self._state())), None)
        found = {name: value for name, value in found.items() if value is not None and getattr(config, name) is None}
        shown = [f"{name} {value}" for name, value in found.items() if value is not False]
        return config.replace(**found), [f"{', '.join(shown)}: those of {self.name}"] if shown else []

    def choose_head(self, config: TrainConfig, classes: Sequence[str]) -> tuple[TrainConfig, str]:
        """`config` with `new_head` decided for the `classes` of its data set, and why."""
        outputs, wanted = count_classes(self._state()), config.num_classes
        if config.new_head is not None:
            why = f"{'new head' if config.new_head else 'head kept'}, as new_head={config.new_head} asks for"
            return config, f"{why}; {self.name} has {outputs} classes, here are {wanted}"
        if outputs != wanted:
            return config.replace(new_head=True), f"new head: {wanted} classes in place of the {outputs} of {self.name}"
        if self.classes and self.classes != tuple(classes):
            why = f"new head: {_some(classes)} in place of {_some(self.classes)} of {self.name}"
            return config.replace(new_head=True), f"{why}; new_head=False keeps the old one"
        why = "the same classes" if self.classes else "as many classes, which its file does not name"
        return config.replace(new_head=False), f"head kept: {self.name} has {why}; new_head=True begins a new one"

    def _state(self) -> dict[str, Tensor]:
        return read_weights(self.path)


def from_scratch(config: TrainConfig, output_dir: str) -> TrainConfig:
    """The same training without the weights, for comparison: all of the network learns, at the recipe's own rate.

    Args:
        config: a plan's, which holds the network that the weights decided.
        output_dir: the folder of this other run.
    """
    without = {"is_pretrain": False, "pretrained": "", "new_head": None, "freeze": "", "layer_decay": 1.0}
    return config.replace(**without, lr=None, output_dir=output_dir, resume="")


def taken_over(
    config: TrainConfig, recorded: Mapping[str, object], names: Sequence[str], path: str | Path
) -> dict[str, object]:
    """What a checkpoint records of `names` and of the network's options, where `config` leaves it open.

    Raises:
        WeightsError: as `recorded_options`.
    """
    fields = parameter_fields()
    found = {n: recorded[n] for n in names if n in recorded and getattr(config, n) == fields[n].default}
    is_same = config.model in (None, recorded.get("model"))
    return found | recorded_options(recorded if is_same else {}, config.to_dict(), path)


def _some(classes: Sequence[str]) -> str:
    return ", ".join(classes[:3]) + (" …" if len(classes) > 3 else "")
