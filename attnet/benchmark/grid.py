"""What a sweep measures: every combination of the values given, checked before anything starts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from attnet.base import device as devices
from attnet.base.errors import ConfigError
from attnet.engine.parameters import TrainConfig
from attnet.model.variants import variants

MEMORY_FORMATS = ("channels_last", "contiguous")


def usual_formats(device_type: str) -> tuple[str]:
    """The memory format that training takes on a device."""
    is_last = devices.choose(device_type).memory_format == torch.channels_last
    return ("channels_last" if is_last else "contiguous",)


REFERENCE_MODEL = "attention92"  # our name of the reference's network


@dataclass(frozen=True)
class Setting:
    """One configuration of a training step; `batch_size` is that of a card.

    `implementation` is "ours", or "reference": the reference repository's own network and loop.
    """

    model: str
    batch_size: int
    amp: str = "O0"
    channels_last: bool = True
    compile: str = "off"
    device_num: int = 1
    implementation: str = "ours"

    @classmethod
    def of(cls, row: dict[str, object]) -> Setting:
        """The configuration of a row of a result."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if name in row})

    def to_dict(self) -> dict[str, object]:
        """Name -> value, as in a row of a result."""
        return asdict(self)

    def __str__(self) -> str:
        if self.implementation == "reference":
            return f"reference, batch {self.batch_size}"
        words = [self.model, f"batch {self.batch_size}", self.amp]
        words += ["channels-last" if self.channels_last else "contiguous"]
        words += {"off": [], "on": ["compiled"], "graphs": ["compiled with graphs"]}[self.compile]
        words += [f"{self.device_num} cards"] if self.device_num > 1 else []
        return ", ".join(words)


def grid(
    models: Sequence[str],
    batch_sizes: Sequence[int],
    amps: Sequence[str],
    memory_formats: Sequence[str],
    compiles: Sequence[str],
    device_nums: Sequence[int],
) -> list[Setting]:
    """Every combination once, the last list varying fastest.

    Raises:
        ConfigError: a value that is none of the parameter's.
    """
    for name in memory_formats:
        if name not in MEMORY_FORMATS:
            raise ConfigError(f"memory_format={name!r}: choose from {', '.join(MEMORY_FORMATS)}")
    settings = []
    for model, batch_size, amp, name, compiled, cards in itertools.product(
        models, batch_sizes, amps, memory_formats, compiles, device_nums
    ):
        if model not in variants():
            raise ConfigError(f"model={model!r} is unknown: choose from {', '.join(variants())}")
        if amp == "auto":
            raise ConfigError("amp='auto': name the opt levels to measure, from O0, O1, O2, O3")
        # It raises for what is none of their values, and knows other spellings of those that are.
        config = TrainConfig(train_batch_size=batch_size, amp=amp, compile=compiled, device_num=cards)
        values = (config.train_batch_size, config.amp, name == "channels_last", config.compile, config.device_num)
        settings.append(Setting(model, *values))
    return list(dict.fromkeys(settings))


def reference_settings(batch_sizes: Sequence[int]) -> list[Setting]:
    """The reference's network and loop at each batch size; it knows float32 and contiguous tensors alone."""
    plain = {"amp": "O0", "channels_last": False, "implementation": "reference"}
    return [Setting(REFERENCE_MODEL, batch_size, **plain) for batch_size in dict.fromkeys(batch_sizes)]
