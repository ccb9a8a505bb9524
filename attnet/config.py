"""Every training parameter once: name, type, default, help. The command line, the notebooks and the checks read this.

Names are those of the document (3d_attention_net for PyTorch). A parameter left at None takes its value from the
`mode` (how long, how large) or the `recipe` (how to train); what is given explicitly always wins.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnet.errors import ConfigError
from attnet.presets import MODES, RECIPES
from attnet.values import checked


def _parameter(
    default: object,
    help: str,
    *,
    choices: Sequence[str] = (),
    true: str = "",
    low: float | None = None,
    high: float | None = None,
    counts: bool = False,
) -> typing.Any:
    """A field. `true` names the choice that True means; False then means "off". `counts`: text as "1,2,3"."""
    metadata = {"help": help, "choices": tuple(choices), "true": true, "low": low, "high": high, "counts": counts}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainConfig:
    """Parameters of a run; checked when created, unknown names included.

    Raises:
        ConfigError: naming the parameter, its value, the rule, and for an unknown name the nearest known one.
    """

    # What to run
    mode: str = _parameter(
        "auto",
        "full, performance, rehearsal; auto: full with an accelerator and CIFAR-10, else rehearsal",
        choices=("auto", *MODES),
    )
    is_train: bool = _parameter(True, "train; False: only evaluate the weights at pretrained on the test images")
    is_pretrain: bool = _parameter(False, "start from the weights at pretrained")
    pretrained: str = _parameter("", "weights file: ours or a reference checkpoint; a path")
    new_head: bool | None = _parameter(
        None, "with is_pretrain: a fresh last layer; None: where the weights' classes are others"
    )
    freeze: str = _parameter(
        "", "parts that keep their weights: stem, stage1 ..., tail, norm, head, or body (all but the head)"
    )
    layer_decay: float = _parameter(
        1.0, "rate of a part (see freeze) over that of the part above it; the head learns at lr", low=0, high=1
    )
    # Where
    device_type: str = _parameter(
        "auto",
        "NPU, GPU, MPS or CPU; auto takes the first of these that is here",
        choices=("auto", "NPU", "GPU", "MPS", "CPU"),
    )
    device_id: int = _parameter(0, "which card, counted from 0, when one is used", low=0)
    device_num: int = _parameter(1, "how many cards in all; more than one: attnet.launch or torchrun", low=1)
    nnodes: int = _parameter(1, "how many machines share the cards", low=1)
    node_rank: int = _parameter(0, "which of them this one is, counted from 0", low=0)
    dist_url: str = _parameter("", "HOST:PORT on machine 0 where several machines meet")
    max_restarts: int = _parameter(3, "how often a job of several cards is brought back after a rank died", low=0)
    # Data
    data_path: str = _parameter(
        "./data/cifar-10-batches-py",
        "CIFAR folder, parent or .tar.gz; image folder; from the repository root",
    )
    dataset: str = _parameter(
        "auto",
        "cifar10, cifar100[_coarse], shapes, folder; auto: what is at data_path, else shapes (rehearsal)",
        choices=("auto", "cifar10", "cifar100", "cifar100_coarse", "shapes", "folder"),
    )
    classes: str = _parameter(
        "", "train and test on these classes alone, names or numbers, renumbered in this order: cat,dog; empty: all"
    )
    train_images: int | None = _parameter(None, "train on a class-balanced subset of this many; 0: all", low=0)
    test_images: int | None = _parameter(None, "test on a class-balanced subset of this many; 0: all", low=0)
    label_noise: float = _parameter(
        0.0, "share of the training labels, 0 to 1, that are replaced by wrong ones, all equally likely", low=0, high=1
    )
    noise_seed: int = _parameter(0, "seed of the label noise", low=0, high=2**32 - 1)
    # Network
    model: str | None = _parameter(None, "a name of attnet.variants()")
    num_classes: int | None = _parameter(None, "outputs of the network; None: as many as the data set has", low=1)
    attention: str | None = _parameter(
        None, "how masks are normalised; None: the model's own", choices=("mixed", "channel", "spatial", "none")
    )
    combine: str | None = _parameter(
        None, "mask on trunk: (1 + M)·T or M·T; None: the model's own", choices=("residual", "naive")
    )
    unit: str | None = _parameter(None, "preact, resnext, inception, or yours as package.module:name; None: preact")
    p: int | None = _parameter(None, "units before a module's branches, and after; None: the model's own", low=1)
    t: int | None = _parameter(None, "units of a trunk branch; None: the model's own", low=1)
    r: int | None = _parameter(None, "units between two poolings of a mask branch; None: the model's own", low=1)
    modules: str | None = _parameter(None, "attention modules a stage, as 1,2,3; None: the model's own", counts=True)
    # How long, how large
    total_epochs: int | None = _parameter(None, "epochs", low=1)
    train_batch_size: int | None = _parameter(None, "images a step and card", low=1)
    test_batch_size: int = _parameter(500, "images a step of evaluation", low=1)
    accumulate: int = _parameter(1, "micro-batches of train_batch_size a step; k on one card equals k cards", low=1)
    # How to train
    recipe: str = _parameter(
        "seed",
        "how to train: seed (the document's), large_batch, best (Top-1), fast94 (soonest at 94 %)",
        choices=tuple(RECIPES),
    )
    lr: float | None = _parameter(None, "learning rate at the start", low=0)
    lr_batch: int | None = _parameter(None, "lr is for this many images a step, scaled in proportion; 0: never", low=0)
    schedule: str | None = _parameter(
        None,
        "how lr falls; step: ÷ 10 after 30, 60 and 90 % of the epochs; cosine, onecycle (a straight line): to 0 at "
        "the end",
        choices=("step", "cosine", "onecycle"),
    )
    warmup_epochs: float | None = _parameter(
        None, "epochs in which lr rises from 0 (with lr_batch, from its unscaled value) to its full value", low=0
    )
    momentum: float | None = _parameter(None, "Nesterov momentum of SGD", low=0, high=1)
    weight_decay: float | None = _parameter(None, "L2 penalty on every parameter", low=0)
    no_bias_decay: bool | None = _parameter(
        None, "weight decay on the weights of convolutions and linear layers only, not on biases and norms"
    )
    label_smoothing: float | None = _parameter(
        None, "share of the label that is spread over all classes, 0 to 1", low=0, high=1
    )
    flip: str | None = _parameter(
        None,
        "mirror half of the training images; random: drawn anew each epoch; alternating: each image every other "
        "epoch; off",
        choices=("off", "random", "alternating"),
        true="random",
    )
    crop_padding: int | None = _parameter(None, "random crop after this many zero pixels of padding", low=0, high=16)
    cutout: int | None = _parameter(None, "side of the square set to zero in each training image, pixels", low=0)
    mixup: float | None = _parameter(None, "alpha of mixup's Beta(alpha, alpha); 0: off", low=0)
    mixup_off_epochs: int | None = _parameter(None, "so many last epochs without mixup", low=0)
    normalize: bool | None = _parameter(None, "standardise each colour by the training set's mean and deviation")
    ema: float | None = _parameter(
        None,
        "decay a step of an exponential moving average of the weights, which is then what is tested and kept; 0: off",
        low=0,
        high=0.99999,
    )
    test_flip: bool | None = _parameter(
        None, "also test with logits averaged over each image and its mirror image; reported apart, as top1_flip"
    )
    # Precision and speed
    amp: str = _parameter(
        "auto",
        "O0 float32, O1 autocast, O2 half + float32 masters, O3 half; auto: O2 on NPU, GPU, else O0",
        choices=("auto", "O0", "O1", "O2", "O3"),
    )
    amp_backend: str = _parameter(
        "native",
        "who does O1 and O2: native torch, or apex where a fitting one is installed",
        choices=("native", "apex"),
    )
    loss_scale: float | str = _parameter(128.0, 'loss scale of O1 and O2: a number, or "dynamic"', low=1)
    channels_last: bool | None = _parameter(
        None, "keep images and activations as NHWC in memory; None: yes, but not on an NPU, which takes NCHW alone"
    )
    compile: str = _parameter(
        "off",
        "torch.compile: off, on, graphs (CUDA graphs too); gains nothing on CPUs, not measured on GPUs",
        choices=("off", "on", "graphs"),
        true="on",
    )
    # Reproducing
    seed: int = _parameter(0, "seed of weights, data order and augmentation", low=0, high=2**32 - 1)
    output_dir: str = _parameter(
        "", "run folder (empty: runs/train_1p); one in use gets a number, nothing is overwritten"
    )
    checkpoint_seconds: float = _parameter(600.0, "save within an epoch after this many seconds; 0: never", low=0)
    keep_epochs: int = _parameter(
        0, "keep the weights after every so many epochs (and before the first) as epoch_NNN.pt; 0: never", low=0
    )
    resume: str = _parameter(
        "",
        'run folder to continue, or "auto": the newest at output_dir; empty: begin afresh',
    )
    progress: str = _parameter(
        "auto",
        "live (bar and curve), lines (one an epoch), none; auto: live when somebody is looking",
        choices=("auto", "live", "lines", "none"),
    )

    def __init__(self, **parameters: object) -> None:
        known = parameter_fields()
        for name in parameters:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise ConfigError(f"unknown parameter {name!r}: {hint}")
        for name, spec in known.items():
            value = checked(spec, field_types(spec), parameters[name]) if name in parameters else spec.default
            object.__setattr__(self, name, value)
        self._check_together()

    def _check_together(self) -> None:
        if (self.is_pretrain or not self.is_train) and not self.pretrained:
            which = "is_pretrain=True" if self.is_pretrain else "is_train=False"
            raise ConfigError(f"{which} needs weights: give their file as pretrained=PATH")

    @classmethod
    def gather(cls, namespace: Mapping[str, object]) -> TrainConfig:
        """A configuration from the variables of a notebook: `TrainConfig.gather(globals())`.

        Every variable named like a parameter is taken, whether it stands in the parameters cell or was injected by
        `papermill -p`. A simple variable whose name is nearly a parameter's is taken for a slip of the pen.
        """
        known = parameter_fields()
        for name, value in namespace.items():
            simple = value is None or isinstance(value, bool | int | float | str)
            if simple and not name.startswith("_") and name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
                if near:
                    raise ConfigError(f"unknown parameter {name!r}: did you mean {near[0]!r}?")
        return cls(**{name: namespace[name] for name in known if name in namespace})

    def replace(self, **changes: object) -> TrainConfig:
        """A copy with some parameters changed."""
        return TrainConfig(**{**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, object]:
        """Name -> value, ready for JSON."""
        return {name: getattr(self, name) for name in parameter_fields()}

    @classmethod
    def load(cls, path: str | Path) -> TrainConfig:
        """Read a run folder's config.json."""
        return cls(**json.loads(Path(path).read_text()))


def parameter_fields() -> dict[str, dataclasses.Field]:
    """Name -> field (type, default, metadata help/choices/low/high), in order."""
    return {spec.name: spec for spec in dataclasses.fields(TrainConfig)}


def field_types(spec: dataclasses.Field) -> tuple[type, ...]:
    """The types a parameter may have, without None: `int | None` -> (int,)."""
    hint = _type_hints()[spec.name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(t for t in options if t is not type(None))


@functools.cache
def _type_hints() -> dict[str, object]:
    return typing.get_type_hints(TrainConfig)
