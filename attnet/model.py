"""The Residual Attention Network: the network, the table of its variants, and building one by name.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017 (sections in brackets),
and the reference implementation tengshaofeng/ResidualAttentionNetwork-pytorch, whose five classes are rows of
`variants()`. Shapes are written [N, C, H, W]; H and W halve from stage to stage.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.errors import ConfigError
from attnet.layers import ATTENTION_TYPES, COMBINE_TYPES, AttentionModule
from attnet.units import UnitFactory, check_unit, option_text, unit_factory

# What `build_model` lets a study change.
OPTIONS = ("attention", "combine", "unit", "p", "t", "r", "modules")


@dataclass(frozen=True)
class Stem:
    """First convolution (`channels`, `kernel`, `stride`) and, when `pool` > 0, a max-pool of stride 2."""

    channels: int
    kernel: int = 3
    stride: int = 1
    pool: int = 0


@dataclass(frozen=True)
class Variant:
    """One row of the table of networks; `build_model` turns it into a module.

    `modules[i]` attention modules stand in stage i on `widths[i]` channels, and their mask branches pool
    `depths[i]` times. `p`, `t`, `r` are the paper's hyper-parameters (section 3): units before and after the
    branches, in the trunk, and between two poolings of the mask branch.
    """

    name: str
    input_size: int
    stem: Stem
    modules: tuple[int, ...]
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    tail_width: int
    tail_stride: int = 1
    p: int = 1
    t: int = 2
    r: int = 1
    attention: str = "mixed"
    combine: str = "residual"
    unit: str | UnitFactory = "preact"
    source: str = ""

    @property
    def study(self) -> dict[str, object]:
        """The options of its attention modules."""
        options = {name: getattr(self, name) for name in OPTIONS if name != "modules"}
        return options | {"unit": unit_factory(self.unit)}

    @property
    def label(self) -> str:
        """Its name, and the options in which it differs from the row of the table: "attention92 with t=3"."""
        row = variants().get(self.name, self)
        changed = {name: getattr(self, name) for name in OPTIONS if getattr(self, name) != getattr(row, name)}
        texts = [f"{name}={option_text(value)}" for name, value in changed.items()]
        return self.name + (" with " if texts else "") + ", ".join(texts)

    @property
    def parameters(self) -> int:
        """Trainable parameters with 10 classes, counted from the module itself."""
        return _count_parameters(self)


class Stage(nn.Module):
    """A residual unit that changes width (and, with stride 2, resolution), then attention modules."""

    def __init__(self, c_in: int, c_out: int, stride: int, modules: int, depth: int, variant: Variant) -> None:
        super().__init__()
        self.entry = unit_factory(variant.unit)(c_in, c_out, stride)
        self.attention = nn.Sequential(*(AttentionModule(c_out, depth, **variant.study) for _ in range(modules)))

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.entry(x))


class ResidualAttentionNetwork(nn.Module):
    """Images [N, 3, S, S], float in [0, 1], to logits [N, num_classes]; S is `variant.input_size`.

    Other sizes run as well, since the last pooling is global; weights carry over.
    """

    def __init__(self, variant: Variant, num_classes: int = 10) -> None:
        super().__init__()
        self.variant = variant
        self.num_classes = num_classes
        stem = variant.stem
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem.channels, stem.kernel, stem.stride, padding=stem.kernel // 2, bias=False),
            nn.BatchNorm2d(stem.channels),
            nn.ReLU(inplace=True),
        )
        if stem.pool:
            self.stem.append(nn.MaxPool2d(stem.pool, stride=2, padding=(stem.pool - 1) // 2))
        self.stages = nn.Sequential()
        channels = stem.channels
        rows = zip(variant.widths, variant.modules, variant.depths, strict=True)
        for index, (width, modules, depth) in enumerate(rows):
            stage = Stage(channels, width, 1 if index == 0 else 2, modules, depth, variant)
            self.stages.add_module(f"stage{index + 1}", stage)
            channels = width
        unit, width = unit_factory(variant.unit), variant.tail_width
        self.tail = nn.Sequential(
            unit(channels, width, variant.tail_stride), unit(width, width, 1), unit(width, width, 1)
        )
        self.norm = nn.BatchNorm2d(variant.tail_width)
        self.fc = nn.Linear(variant.tail_width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.tail(self.stages(self.stem(images)))
        x = F.relu(self.norm(x), inplace=True)
        return self.fc(x.mean(dim=(2, 3)))

    def attention_modules(self) -> dict[str, AttentionModule]:
        """The attention modules in forward order, named "stage1.0", "stage2.0", "stage2.1" ..."""
        return {
            f"{stage_name}.{index}": module
            for stage_name, stage in self.stages.named_children()
            for index, module in enumerate(stage.attention)
        }


def unwrap(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile` and DistributedDataParallel wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def memory_format(model: nn.Module) -> torch.memory_format:
    """How the weights of a network's convolutions lie in memory: images are to come in the same way."""
    is_last = any(weight.dim() == 4 and not weight.is_contiguous() for weight in model.parameters())
    return torch.channels_last if is_last else torch.contiguous_format


def uncompiled() -> AbstractContextManager:
    """Compiled networks run as written: code compiled before ignores new hooks, and later code would keep them."""
    # Without dynamo nothing has been compiled, and importing it for nothing takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every submodule's own mode is put back afterwards, also on error."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _cifar(depth: int, modules: int, p: int = 1, t: int = 2, r: int = 1) -> Variant:
    """The paper's CIFAR networks (section 4.1): 16-64-128-256 channels, m modules in each of three stages."""
    return Variant(
        name=f"attention{depth}_cifar",
        input_size=32,
        stem=Stem(16),
        modules=(modules,) * 3,
        depths=(2, 1, 0),
        widths=(64, 128, 256),
        tail_width=256,
        p=p,
        t=t,
        r=r,
        source="paper, section 4.1",
    )


def _table() -> tuple[Variant, ...]:
    cifar = Variant("attention92", 32, Stem(32), (1, 2, 3), (2, 1, 0), (128, 256, 512), 1024)
    large = Variant("attention92_224", 224, Stem(64, 7, 2, 3), (1, 2, 3), (3, 2, 1), (256, 512, 1024), 2048, 2)
    row = dataclasses.replace
    return (
        row(cifar, source="ResidualAttentionModel_92_32input_update"),
        row(cifar, name="attention92_pooled", stem=Stem(32, 5, 1, 2), source="ResidualAttentionModel_92_32input"),
        row(large, source="ResidualAttentionModel_92"),
        row(large, name="attention56_224", modules=(1, 1, 1), source="ResidualAttentionModel_56"),
        row(
            large,
            name="attention92_448",
            input_size=448,
            modules=(1, 1, 2, 3),
            depths=(4, 3, 2, 1),
            widths=(128, 256, 512, 1024),
            source="ResidualAttentionModel_448input",
        ),
        _cifar(56, 1),
        _cifar(92, 2),
        _cifar(236, 6),
        _cifar(452, 6, p=2, t=4, r=3),
        Variant("attention56_tiny", 32, Stem(8), (1, 1, 1), (2, 1, 0), (32, 64, 128), 256, source="for rehearsals"),
    )


def variants() -> dict[str, Variant]:
    """Every network by name; `variants()["attention92"].parameters` is 12,170,730."""
    return {variant.name: variant for variant in _table()}


@functools.cache
def _count_parameters(variant: Variant) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in ResidualAttentionNetwork(variant).parameters())


def _check_options(variant: Variant) -> None:
    for name, known in (("attention", ATTENTION_TYPES), ("combine", COMBINE_TYPES)):
        if getattr(variant, name) not in known:
            raise ConfigError(f"{name}={getattr(variant, name)!r}: choose one of {', '.join(known)}")
    for name in ("p", "t", "r"):
        value = getattr(variant, name)
        if type(value) is not int or value < 1:
            raise ConfigError(f"{name}={value!r}: a whole number of units, at least 1, is needed")
    counts, stages = variant.modules, len(variant.depths)
    if len(counts) != stages or any(type(count) is not int or count < 1 for count in counts):
        raise ConfigError(
            f"modules={counts!r}: {variant.name} has {stages} stages, so {stages} whole numbers of attention modules, "
            "each at least 1, are needed"
        )
    widths, tail = variant.widths, variant.tail_width
    strides = (1, *(2,) * (stages - 1), variant.tail_stride)
    changing = zip((variant.stem.channels, *widths), (*widths, tail), strides, strict=True)
    for shape in dict.fromkeys((*changing, *((width, width, 1) for width in (*widths, tail)))):
        check_unit(variant.unit, *shape)


def choose_variant(name: str, **options: object) -> Variant:
    """A row of the table with options changed; arguments and errors as `build_model`."""
    table = variants()
    if name not in table:
        raise ConfigError(f"model={name!r} is unknown: choose one of {', '.join(table)}")
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise ConfigError(f"unknown model option {unknown[0]!r}: choose from {', '.join(OPTIONS)}")
    if "modules" in options:
        options["modules"] = _counts(options["modules"])
    variant = dataclasses.replace(table[name], **options)
    _check_options(variant)
    return variant


def _counts(value: object) -> tuple[object, ...]:
    """Numbers a stage from a sequence, or from text as "1,2,3"; what is none stays, for the check to name."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, tuple | list) else (value,)
    return tuple(int(part) if isinstance(part, str) and part.strip().isdecimal() else part for part in parts)


def study_options(config: Mapping[str, object]) -> dict[str, object]:
    """The options for `build_model` among parameters of a run; None, or missing as in old runs: the network's own."""
    return {name: config[name] for name in OPTIONS if config.get(name) is not None}


def build_model(name: str, num_classes: int = 10, **options: object) -> ResidualAttentionNetwork:
    """Build a network of the table, with PyTorch's default initialisation as the reference does.

    Args:
        name: a key of `variants()`.
        num_classes: width of the last layer.
        **options: for study, the variant's own value where not given. `attention`: mixed, channel, spatial, none.
            `combine`: residual, naive. `unit`: preact, resnext, inception, or a factory of your own, which is a
            callable (c_in, c_out, stride) -> nn.Module or "package.module:name" to import one; its units map
            [N, c_in, H, W] to [N, c_out, H/stride, W/stride]. `p`, `t`, `r`: the paper's numbers of units.
            `modules`: attention modules of each stage, as (1, 2, 3) or "1,2,3".

    Returns:
        The network in training mode, float32, on the default device.

    Raises:
        ConfigError: an unknown name or option, a value out of range, or a unit that cannot be used.
    """
    variant = choose_variant(name, **options)
    if type(num_classes) is not int or num_classes < 1:
        raise ConfigError(f"num_classes={num_classes!r}: a whole number, at least 1, is needed")
    return ResidualAttentionNetwork(variant, num_classes)
