"""The table of networks, and building one by name.

Source: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017 (sections in brackets), and the
reference implementation tengshaofeng/ResidualAttentionNetwork-pytorch, whose five classes are rows of it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

from attnet.base.errors import ConfigError
from attnet.model.modules import ATTENTION_TYPES, COMBINE_TYPES, SUM_TYPES
from attnet.model.network import ResidualAttentionNetwork, Stem, Variant
from attnet.model.options import OPTIONS
from attnet.model.units import check_unit


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


@functools.cache
def _by_name() -> dict[str, Variant]:
    return {variant.name: variant for variant in _table()}


def variants() -> dict[str, Variant]:
    """Every network by name; `variants()["attention92"].parameters` is 12,170,730."""
    return dict(_by_name())


def _check_options(variant: Variant) -> None:
    for name, known in (("attention", ATTENTION_TYPES), ("combine", COMBINE_TYPES), ("sums", SUM_TYPES)):
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
    variant = dataclasses.replace(table[name], **options, row=table[name])
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
            `combine`: residual, naive. `sums`: of the mask branch, reference or paper (see `MaskLevel`); no weights
            differ. `unit`: preact, resnext, inception, or a factory of your own, which is a
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
