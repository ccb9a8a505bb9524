"""What is inside a network, counted from the model object itself: parts, shapes, parameters, FLOPs.

Everything here runs on a copy without numbers (the meta device): nothing is allocated, the largest network
takes a second, and the model that was given stays as it is, on whatever device. Shapes are written (C, H, W).
The paper: Wang et al., "Residual Attention Network for Image Classification", CVPR 2017.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from attnet.base.errors import ConfigError
from attnet.base.words import NONE, table
from attnet.model.modules import mask_levels
from attnet.model.network import ResidualAttentionNetwork, attention_network, copy_network
from attnet.model.units import ResidualUnit
from attnet.model.variants import build_model, variants

Shape = tuple[int, int, int]

# The paper's own counts: its results on CIFAR, and its ImageNet networks with 1,000 classes.
PAPER_PARAMETERS = {
    "attention92_cifar": 1.9e6,
    "attention236_cifar": 5.1e6,
    "attention452_cifar": 8.6e6,
    "attention56_224": 31.9e6,
    "attention92_224": 51.3e6,
}
# What it calls FLOPs of an image are multiply-adds, each counted once: half of what `parts` gives.
PAPER_MULTIPLY_ADDS = {"attention56_224": 6.2e9, "attention92_224": 10.4e9}
# The paper's ImageNet networks -> ours, its count, and the count of the authors' own prototxt where they published one
# (fwang91/residual-attention-network), both with 1,000 classes.
PAPER_NETWORKS = {
    "Attention-56": ("attention56_224", "preact", 31.9e6, 31_810_728),
    "Attention-92": ("attention92_224", "preact", 51.3e6, 52_466_344),
    "AttentionNeXt-56": ("attention56_224", "resnext", 31.9e6, 31_318_824),
    "AttentionInception-56": ("attention56_224", "inception", 31.9e6, None),
}


@dataclass(frozen=True)
class Part:
    """A piece of a network: its output (C, H, W), its parameters, and its FLOPs for one image.

    `kind`: stem, unit (a stage's entry), module (an attention module), pre, trunk, mask, post (its branches), tail,
    head. A row of kind "module" sums up the branches behind it, so leave one or the other out of a total. FLOPs
    are two for each multiply-add of the convolutions and of the linear layer; nothing else is counted.
    """

    name: str
    kind: str
    shape: Shape
    parameters: int
    flops: int


@dataclass(frozen=True)
class Totals:
    """Parameters and FLOPs (as `Part`) of a whole network, and of these what its mask branches take."""

    parameters: int
    flops: int
    mask_parameters: int
    mask_flops: int


# -- the copy that is looked into --------------------------------------------------------------------------------


class _ShapesAlone(TorchFunctionMode):
    """Leaves out what keeps shapes and is not counted: it would take most of the time here."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return args[0] if args and function in (F.batch_norm, F.relu) else function(*args, **(kwargs or {}))


def _trace(model: nn.Module, size: int | None) -> tuple[ResidualAttentionNetwork, dict[str, Shape], dict[str, int]]:
    """The copy, and by module name: the shape of what comes out for a square image, and FLOPs."""
    network = copy_network(model, meta=True).eval()
    size = network.variant.input_size if size is None else size
    if type(size) is not int or size < 1:
        raise ConfigError(f"size={size!r}: a whole number of pixels, at least 1, is needed (None: the network's own)")
    shapes: dict[str, Shape] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _i, out, name=name: shapes.update(_shape(name, out)))
    with FlopCounterMode(display=False) as counter, _ShapesAlone(), torch.no_grad():
        network(torch.empty(1, 3, size, size, device="meta"))
    counts, root = counter.get_flop_counts(), type(network).__name__
    return network, shapes, {name: sum(counts.get(f"{root}.{name}", {}).values()) for name in shapes}


def _shape(name: str, out: object) -> dict[str, Shape]:
    """(C, H, W), or nothing for a layer within a unit of the user's that gives no tensor."""
    return {name: (*out.shape[1:], 1, 1)[:3]} if isinstance(out, torch.Tensor) else {}


def _places(network: ResidualAttentionNetwork) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Name, kind and submodules of every part in forward order."""
    yield "stem", "stem", ("stem",)
    for stage, children in network.stages.named_children():
        yield f"{stage}.entry", "unit", (f"stages.{stage}.entry",)
        for index, module in enumerate(children.attention):
            name, place = f"{stage}.{index}", f"stages.{stage}.attention.{index}"
            yield name, "module", (place,)
            for branch in ("pre", "trunk", "mask", "level", "post"):
                if getattr(module, branch) is not None:
                    yield f"{name}.{branch}", branch, (f"{place}.{branch}",)
    yield "tail", "tail", ("tail",)
    yield "head", "head", ("norm", "fc")


def parts(model: nn.Module, size: int | None = None) -> list[Part]:
    """The network cut into its parts, in forward order: "stem", "stage1.entry", "stage1.0", "stage1.0.pre" ...

    Args:
        model: a network from `build_model`, on any device; DDP- or compile-wrapped is fine.
        size: side of the image, pixels; None: the variant's `input_size`.

    Returns:
        A row a part. Mind that many papers, this one included, count a multiply-add once: half of `flops`.

    Raises:
        ConfigError: a model without attention modules, or a size that is no whole number of pixels.
    """
    network, shapes, flops = _trace(model, size)
    rows = []
    for name, kind, places in _places(network):
        parameters = sum(p.numel() for place in places for p in network.get_submodule(place).parameters())
        rows.append(Part(name, kind, shapes[places[-1]], parameters, sum(flops[place] for place in places)))
    return rows


@functools.cache
def totals(name: str, num_classes: int = 10, **options: object) -> Totals:
    """Parameters and FLOPs of a variant at its own input size; arguments and errors as `build_model`."""
    with torch.device("meta"):
        rows = [part for part in parts(build_model(name, num_classes, **options)) if part.kind != "module"]
    masks = [part for part in rows if part.kind == "mask"]
    return Totals(*(sum(getattr(p, what) for p in some) for some in (rows, masks) for what in ("parameters", "flops")))


def unused_shortcuts(model: nn.Module) -> int:
    """Parameters that the reference implementation stores for this network and never uses.

    It builds a 1x1 convolution, without bias, as the shortcut of every residual unit; its forward pass applies it
    only where width or resolution change. Ours exist only there, so this counts c_in · c_out for every other unit;
    0 with another kind of unit, which the reference does not have.
    """
    units = (module for module in attention_network(model).modules() if isinstance(module, ResidualUnit))
    return sum(unit.conv1.in_channels * unit.conv3.out_channels for unit in units if unit.shortcut is None)


def activations(model: nn.Module, size: int | None = None) -> list[tuple[str, str, Shape]]:
    """(module, step, output shape) through both branches of every attention module; arguments and errors as `parts`.

    Steps: "pre", "trunk unit 1" ..., then down the mask branch ("mask 1/2 down", "mask 1/2 skip" ...) to its
    coarsest scale ("mask 1/4", or "mask 1" where it does not pool), up again ("mask 1/2 up"), "mask head", "post".
    """
    network, shapes, _ = _trace(model, size)
    rows = []
    for name, module in network.attention_modules().items():
        steps = [("pre", "pre"), *((f"trunk unit {i + 1}", f"trunk.{i}") for i in range(len(module.trunk)))]
        up = [("mask head", "mask.head")]
        levels = mask_levels(module) if module.mask is not None else {}
        for i, (scale, level) in enumerate(levels.items()):
            path = "mask.levels" + ".below" * i
            if level.below is None:
                steps.append((f"mask {scale}", f"{path}.units"))
            else:
                steps += [(f"mask {scale} down", f"{path}.units"), (f"mask {scale} skip", f"{path}.skip")]
                up.insert(0, (f"mask {scale} up", f"{path}.up"))
        steps += [*(up if module.mask is not None else ()), ("post", "post")]
        prefix = "stages.{}.attention.{}".format(*name.split("."))
        rows += [(name, step, shapes[f"{prefix}.{path}"]) for step, path in steps]
    return rows


# -- tables ------------------------------------------------------------------------------------------------------


def shape_text(shape: Shape) -> str:
    """ "128×32×32"."""
    return "×".join(map(str, shape))


def part_table(model: nn.Module, size: int | None = None) -> str:
    """`parts` as a Markdown table with shares of the whole; arguments and errors as `parts`."""
    rows = parts(model, size)
    whole = [sum(getattr(p, what) for p in rows if p.kind != "module") for what in ("parameters", "flops")]
    cells = [
        (
            f"**{p.name}**" if p.kind == "module" else p.name,
            shape_text(p.shape),
            f"{p.parameters:,}",
            f"{100 * p.parameters / whole[0]:.1f}",
            f"{p.flops / 1e6:,.1f}",
            f"{100 * p.flops / whole[1]:.1f}",
        )
        for p in rows
    ]
    cells.append(("**all**", "", f"{whole[0]:,}", "100.0", f"{whole[1] / 1e6:,.1f}", "100.0"))
    return table(("part", "output C×H×W", "parameters", "%", "MFLOPs", "%"), cells)


def variant_table() -> str:
    """Every network of `variants()` with its counts, and beside them the paper's where it gives any (Markdown).

    The counts beside the paper's are made as the paper makes them: 1,000 classes for the ImageNet networks, and a
    multiply-add counted once.
    """
    cells = []
    for name, variant in variants().items():
        ours = totals(name)
        paper = totals(name, 1000) if name in PAPER_MULTIPLY_ADDS else ours
        modules = " ".join(map(str, variant.modules)) + " · " + " ".join(map(str, variant.depths))
        row = [f"`{name}`", variant.input_size, modules, f"{ours.parameters:,}", f"{ours.flops / 1e9:.2f}"]
        row += [f"{100 * ours.mask_parameters / ours.parameters:.0f} / {100 * ours.mask_flops / ours.flops:.0f}"]
        for published, count, unit in (
            (PAPER_PARAMETERS.get(name), paper.parameters, 1e6),
            (PAPER_MULTIPLY_ADDS.get(name), paper.flops / 2, 1e9),
        ):
            row.append(NONE if published is None else f"{published / unit:.1f} / {count / unit:.2f}")
        cells.append(row)
    header = ("network", "input", "modules · poolings", "parameters", "GFLOPs", "% in masks (parameters / FLOPs)")
    return table((*header, "M parameters: paper / ours", "G multiply-adds: paper / ours"), cells)


def paper_table() -> str:
    """The paper's four ImageNet networks with 1,000 classes: parameters by paper, authors' prototxt and us (Markdown).

    Layer by layer, the prototxts of Attention-56 and -92 and ours hold the same convolutions and batch norms (counted
    by shape, stride and groups). Those of AttentionNeXt-56 and -92 lack batch norms that ours keep for every unit: the
    first of each mask's head and the last one, since their units end in a ReLU. That is 2·C each: 7,680 parameters for
    -56, 12,800 for -92 (52,102,952 in the prototxt). The paper does not lay out its Inception unit, so ours is only of
    the same size. Its own 51.3 million for Attention-92 are not those of the authors' prototxt either.
    """
    cells = []
    for network, (name, unit, paper, prototxt) in PAPER_NETWORKS.items():
        ours = totals(name, 1000, unit=unit).parameters
        gap = NONE if prototxt is None else f"{ours - prototxt:+,}" if ours != prototxt else "0"
        theirs = NONE if prototxt is None else f"{prototxt:,}"
        cells.append((network, f"`{name}`, {unit}", f"{paper / 1e6:.1f} M", theirs, f"{ours:,}", gap))
    return table(("network", "ours", "paper", "authors' prototxt", "parameters of ours", "above the prototxt"), cells)
