"""What modes and recipes set: how long and how large, and how to train; and deciding by them what was left open.

A recipe is what it does differently from recipe `seed`, the document's, which stands with each parameter.
"""

from __future__ import annotations

from attnet.base.device import Device
from attnet.base.errors import ConfigError
from attnet.base.files.paths import resolve_path
from attnet.base.values import Parameters
from attnet.data.augment import image_sizes
from attnet.data.registry import FOLDER, ON_DISK, SHAPES, find_dataset, require_dataset
from attnet.model.network import Variant
from attnet.model.variants import choose_variant

# mode -> what it sets. The document's train_full_* and train_performance_*; a quick training on CIFAR-10 that gets
# somewhere (some 81 % Top-1) in about a quarter of an hour on two CPU cores of today; and a rehearsal of the same code
# that takes about a minute there.
MODES: dict[str, dict[str, object]] = {
    "full": {
        "model": "attention92",
        "total_epochs": 300,
        "train_batch_size": 512,
        "train_images": 0,
        "test_images": 0,
    },
    "performance": {
        "model": "attention92",
        "total_epochs": 1,
        "train_batch_size": 512,
        "train_images": 0,
        "test_images": 0,
    },
    "quick": {
        "model": "attention56_tiny",
        "total_epochs": 8,
        "train_batch_size": 128,
        "train_images": 0,
        "test_images": 0,
    },
    "rehearsal": {
        "model": "attention56_tiny",
        "total_epochs": 5,
        "train_batch_size": 32,
        "train_images": 2000,
        "test_images": 500,
    },
}
# recipe -> what differs from `seed`.
RECIPES: dict[str, dict[str, object]] = {
    "seed": {},
    # The document's rows lose nine points at 4,096 images a step. The rate grows with the batch after a warm-up, as in
    # Goyal et al., "Accurate, Large Minibatch SGD" (2017).
    "large_batch": {"lr_batch": 256, "warmup_epochs": 5.0},
    # What the Gluon port reached 97.14 % with (mixup, warm-up, cosine, cutout, no bias decay; He et al., "Bag of Tricks
    # for Image Classification", 2019), the stronger weight decay of wide residual networks, averaged weights, and the
    # last epochs without mixup, on the images as they are.
    "best": {
        "lr_batch": 128,
        "schedule": "cosine",
        "warmup_epochs": 5.0,
        "weight_decay": 5e-4,
        "no_bias_decay": True,
        "cutout": 16,
        "mixup": 0.2,
        "mixup_off_epochs": 15,
        "normalize": True,
        "ema": 0.999,
        "test_flip": True,
    },
    # Few epochs at a high rate, as in Page, "How to Train Your ResNet" (2018), and Jordan, "94 % on CIFAR-10 in 3.29
    # Seconds on a Single GPU" (2024). No mixup: it pays in long trainings only.
    "fast94": {
        "lr_batch": 128,
        "schedule": "onecycle",
        "warmup_epochs": 5.0,
        "weight_decay": 5e-4,
        "no_bias_decay": True,
        "label_smoothing": 0.1,
        "flip": "alternating",
        "cutout": 8,
        "normalize": True,
        "test_flip": True,
    },
}
# Modes of so few epochs, and images a step, that the document's way to train would not get anywhere in them -> what
# they do in its place, where no other recipe is asked for. Those of `quick` were chosen by `data/results/tuning.json`.
SHORT: dict[str, dict[str, object]] = {
    "quick": RECIPES["fast94"]
    | {"lr": 0.2, "warmup_epochs": 1.6, "weight_decay": 1e-3, "label_smoothing": 0.0, "cutout": 0},
    "rehearsal": {"schedule": "onecycle"},
}
# mode -> sides of its training images, in parts of the network's own; each for an equal part of the epochs.
GROWING = {"quick": (0.5, 0.75, 1)}
# recipe -> how long, in mode full, where it differs from the mode's.
LENGTHS: dict[str, dict[str, object]] = {
    "best": {"total_epochs": 250, "train_batch_size": 128},
    "fast94": {"total_epochs": 24},
}
# Pixels; below this nothing is left of an image at a network's coarsest level.
SMALLEST = 8
# What people set elsewhere and nobody has to here -> why, or what does it.
NOT_HERE: dict[tuple[str, ...], str] = {
    ("workers", "num_workers", "n_workers", "pin_memory"): "the images live on the device, so there are no workers "
    "to make batches; leave it out",
    ("optimizer", "optim", "opt"): "it is SGD with Nesterov momentum; lr, momentum and weight_decay set it",
    ("gamma", "milestones", "step_size", "lr_decay"): "schedule says how lr falls: step, cosine or onecycle",
    ("print_freq", "log_interval", "log_every"): "progress=lines prints a line an epoch; leave it out",
}
# What a recipe counts in epochs keeps its share when another mode, or somebody, makes the run shorter.
COUNTED_IN_EPOCHS = ("warmup_epochs", "mixup_off_epochs")
# Left open, these depend on how long a training is as well as on its recipe.
BY_LENGTH = ("schedule", *COUNTED_IN_EPOCHS)


def choose_preset(config: Parameters, device: Device, choices: list[str]) -> Parameters:
    """`config` with mode and data set chosen, and all that these and the recipe set for what is left open.

    Sentences that say why are added to `choices`.

    Raises:
        DataError: nothing usable at a `data_path` that was given.
    """
    data_path = resolve_path(config.data_path)
    given = "data_path" in config.given()
    wanted = config.dataset if config.dataset in ON_DISK else "cifar10"
    found = None if config.dataset == SHAPES else find_dataset(data_path, wanted)
    if config.dataset == "auto" and given and found is None and (found := find_dataset(data_path, FOLDER)):
        wanted = FOLDER
        choices.append(f"data set folder, since {data_path} holds folders of images: one a class")
    if config.dataset == "auto" and given and found is None:
        require_dataset(data_path, wanted)  # says what is at data_path and what is needed

    mode = config.mode
    if mode == "auto":
        mode = "full" if device.is_accelerator and found else "rehearsal"
        if not device.is_accelerator:
            why = "there is no accelerator here"
        else:
            why = f"an accelerator and {wanted} are here" if found else f"there is no {wanted} at {data_path}"
        other = "mode=rehearsal is short"
        if mode == "rehearsal":
            sooner = "mode=quick trains a small one on it in about a quarter of an hour, " if found else ""
            other = f"{sooner}mode=full trains the real network to the end"
        choices.append(f"mode {mode}, since {why}; {other}")
    name = config.dataset
    if name == "auto":
        name = wanted if found or mode != "rehearsal" else SHAPES
        if name == SHAPES:
            choices.append(f"data set shapes (embedded, synthetic), since there is no CIFAR-10 at {data_path}")

    if config.amp == "auto" and not device.is_accelerator:
        choices.append(f"amp {' since '.join(device.usual_level)}")
    preset = preset_of(config, mode, device) | {"mode": mode, "dataset": name, "device_type": device.kind}
    asked = config.to_dict()
    chosen = {key: value for key, value in preset.items() if asked[key] is None or asked[key] == "auto"}
    return config.replace(**chosen)


def preset_of(config: Parameters, mode: str, device: Device) -> dict[str, object]:
    """What mode, recipe and device set for parameters that are left open."""
    preset = dict(MODES[mode])
    if mode == "performance" and config.device_num > 1:
        preset["total_epochs"] = 3
    if mode in SHORT:  # about as many images a step on many cards as on one
        preset["train_batch_size"] = max(8, preset["train_batch_size"] // config.device_num)
    if mode == "full":
        preset |= LENGTHS.get(config.recipe, {})
    preset |= recipe_in(config, mode)
    usual = (MODES[mode] if _has_own(config, mode) else LENGTHS.get(config.recipe, MODES["full"]))["total_epochs"]
    epochs = preset["total_epochs"] if config.total_epochs is None else config.total_epochs
    for counted in COUNTED_IN_EPOCHS if epochs < usual else ():
        preset[counted] = type(preset[counted])(preset[counted] * epochs / usual)
    is_alone = config.device_num == 1 and config.amp_backend == "native"
    preset["compile"] = device.usual_compile if is_alone and config.is_train else "off"
    return preset | {"amp": device.usual_level[0], "channels_last": device.takes_channels_last}


def by_preset(name: str, usual: object) -> dict[str, object]:
    """What a parameter that is left open becomes: mode or recipe -> value. Of recipes `seed`, and those where it is
    not `usual`; none where recipes do not set it and `usual` is None.
    """
    values = {mode: table[name] for mode, table in MODES.items() if name in table}
    values |= {f"full with {recipe}": table[name] for recipe, table in LENGTHS.items() if name in table}
    if usual is not None:
        recipes = {recipe: table.get(name, usual) for recipe, table in RECIPES.items()}
        values |= {recipe: value for recipe, value in recipes.items() if recipe == "seed" or value != usual}
    values |= {mode: table[name] for mode, table in SHORT.items() if table.get(name, usual) != usual}
    if name == "image_sizes":
        values |= {mode: f"{', '.join(f'{part:g}' for part in parts)} of full" for mode, parts in GROWING.items()}
    return values


def _has_own(config: Parameters, mode: str) -> bool:
    return mode in SHORT and config.recipe == "seed"


def recipe_in(config: Parameters, mode: str) -> dict[str, object]:
    """All that the recipe sets in this mode: in place of recipe `seed` a short one has what `SHORT` says."""
    values = config.recipe_values(config.recipe)
    if not _has_own(config, mode):
        return values
    if parts := GROWING.get(mode):
        side = choose_variant(config.model or str(MODES[mode]["model"])).input_size
        values["image_sizes"] = ",".join(str(round(side * part)) for part in parts)
    return values | SHORT[mode]


def recipe_name(config: Parameters) -> str:
    """For after the word "recipe"."""
    return "of mode quick" if config.mode == "quick" and config.recipe == "seed" else config.recipe


def fit_to_device(config: Parameters, device: Device, choices: list[str]) -> Parameters:
    """`config` with what the device and its software do not do given up, and why among `choices`.

    Raises:
        ConfigError: apex's amp with torch.compile.
    """
    if config.channels_last and not device.takes_channels_last:
        choices.append(f"channels_last False: {device.kind}s take tensors as NCHW alone")
        config = config.replace(channels_last=False)
    if config.compile in ("graphs", "both") and (not device.records_steps or config.device_num > 1):
        why = "steps of several cards are not recorded" if device.records_steps else f"{device.kind}s record no steps"
        config = config.replace(compile={"graphs": "off", "both": "on"}[config.compile])
        choices.append(f"compile {config.compile}: {why} as graphs")
    if device.remark:
        choices.append(device.remark)
    if config.amp_backend != "apex":
        return config
    from attnet.base import apex

    is_used, why = apex.choose(config.amp, device.kind)
    choices.append(f"amp_backend {'apex' if is_used else 'native'}: {why}")
    if is_used and config.compile != "off" and apex.find().has_amp:
        raise ConfigError(
            f"compile={config.compile}: torch.compile is untried with apex's amp, which patches what it would "
            "compile; give compile=off or amp_backend=native"
        )
    return config.replace(amp_backend="apex" if is_used else "native")


def check_together(config: Parameters, network: Variant) -> None:
    """ConfigError where complete parameters contradict each other or the network."""
    if config.warmup_epochs >= config.total_epochs:
        raise ConfigError(
            f"warmup_epochs={config.warmup_epochs:g}: fewer than total_epochs={config.total_epochs} are needed, or lr "
            "never gets to its full value"
        )
    sizes = image_sizes(config)
    if sizes and (sizes[-1] != network.input_size or not SMALLEST <= min(sizes) <= max(sizes) <= network.input_size):
        raise ConfigError(
            f"image_sizes={config.image_sizes}: sides from {SMALLEST} to {network.input_size} pixels are needed, the "
            f"last {network.input_size}, the full size of {network.name}, as image_sizes={network.input_size // 2},"
            f"{network.input_size}"
        )
    if config.freeze:
        from attnet.model.parts import frozen_parts

        frozen_parts(network, config.freeze)
