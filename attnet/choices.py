"""What a configuration leaves open, decided: mode, data set, presets, what the device takes. Each with its reason."""

from __future__ import annotations

import torch

from attnet import apex
from attnet.config import TrainConfig, parameter_fields
from attnet.data import FOLDER, ON_DISK, find_dataset, load_dataset
from attnet.device import Device
from attnet.errors import ConfigError
from attnet.model import Variant
from attnet.parts import frozen_parts
from attnet.paths import resolve_path
from attnet.presets import COUNTED_IN_EPOCHS, LENGTHS, MODES, RECIPES


def choose_preset(config: TrainConfig, device: Device, choices: list[str]) -> TrainConfig:
    """`config` with mode and data set chosen, and all that these and the recipe set for what is left open.

    Sentences that say why are added to `choices`.

    Raises:
        DataError: nothing usable at a `data_path` that was given.
    """
    data_path = resolve_path(config.data_path)
    given = config.data_path != parameter_fields()["data_path"].default
    wanted = config.dataset if config.dataset in ON_DISK else "cifar10"
    found = find_dataset(data_path, wanted)
    if config.dataset == "auto" and given and found is None and (found := find_dataset(data_path, FOLDER)):
        wanted = FOLDER
        choices.append(f"data set folder, since {data_path} holds folders of images: one a class")
    if config.dataset == "auto" and given and found is None:
        load_dataset(data_path, wanted)  # raises, and says what is at data_path and what is needed

    mode = config.mode
    if mode == "auto":
        mode = "full" if device.is_accelerator and found else "rehearsal"
        if not device.is_accelerator:
            why = "there is no accelerator here"
        else:
            why = f"an accelerator and {wanted} are here" if found else f"there is no {wanted} at {data_path}"
        other = "mode=full trains the real network to the end" if mode == "rehearsal" else "mode=rehearsal is short"
        choices.append(f"mode {mode}, since {why}; {other}")
    name = config.dataset
    if name == "auto":
        name = wanted if found or mode != "rehearsal" else "shapes"
        if name == "shapes":
            choices.append(f"data set shapes (embedded, synthetic), since there is no CIFAR-10 at {data_path}")

    preset = _preset(config, mode, device) | {"mode": mode, "dataset": name, "device_type": device.kind}
    asked = config.to_dict()
    return config.replace(**{key: value for key, value in preset.items() if asked[key] is None or asked[key] == "auto"})


def _preset(config: TrainConfig, mode: str, device: Device) -> dict[str, object]:
    """What mode, recipe and device set for parameters that are left open."""
    preset = dict(MODES[mode])
    if mode == "performance" and config.device_num > 1:
        preset["total_epochs"] = 3
    if mode == "rehearsal":  # about as many images a step on many cards as on one
        preset["train_batch_size"] = max(8, preset["train_batch_size"] // config.device_num)
    if mode == "full":
        preset |= LENGTHS.get(config.recipe, {})
    preset |= RECIPES[config.recipe]
    usual = LENGTHS.get(config.recipe, MODES["full"])["total_epochs"]
    epochs = preset["total_epochs"] if config.total_epochs is None else config.total_epochs
    for counted in COUNTED_IN_EPOCHS if epochs < usual else ():
        preset[counted] = type(preset[counted])(preset[counted] * epochs / usual)
    preset |= {"amp": device.usual_level, "channels_last": device.memory_format == torch.channels_last}
    return preset


def fit_to_device(config: TrainConfig, device: Device, choices: list[str]) -> TrainConfig:
    """`config` with what the device and its software do not do given up, and why among `choices`.

    Raises:
        ConfigError: apex's amp with torch.compile.
    """
    if config.channels_last and device.memory_format != torch.channels_last:
        choices.append(f"channels_last False: {device.kind}s take tensors as NCHW alone")
        config = config.replace(channels_last=False)
    if device.remark:
        choices.append(device.remark)
    if config.amp_backend != "apex":
        return config
    is_used, why = apex.choose(config.amp, device.kind)
    choices.append(f"amp_backend {'apex' if is_used else 'native'}: {why}")
    if is_used and config.compile != "off" and apex.find().has_amp:
        raise ConfigError(
            f"compile={config.compile}: torch.compile is untried with apex's amp, which patches what it would "
            "compile; give compile=off or amp_backend=native"
        )
    return config.replace(amp_backend="apex" if is_used else "native")


def check_together(config: TrainConfig, network: Variant) -> None:
    """ConfigError where complete parameters contradict each other or the network."""
    if config.warmup_epochs >= config.total_epochs:
        raise ConfigError(
            f"warmup_epochs={config.warmup_epochs:g}: fewer than total_epochs={config.total_epochs} are needed, or lr "
            "never gets to its full value"
        )
    frozen_parts(network, config.freeze)
