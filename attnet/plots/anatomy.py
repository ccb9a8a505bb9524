"""Figures of what a network is made of: its blocks, parameters and FLOPs, receptive fields, the signal's strength."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import LogLocator
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.statistics import Signal
from attnet.model.anatomy import parts, shape_text
from attnet.model.network import attention_network, choose_modules
from attnet.model.reach import Field, receptive_field
from attnet.plots.figure import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    RED,
    Drawing,
    Picture,
    bare,
    legend_below,
    plain_numbers,
    tint,
)

__all__ = ["plot_network", "plot_parts", "plot_receptive_fields", "plot_signal"]

# kind of part -> colour and label in the picture of the whole network
NETWORK = {
    "image": (GREY, "image"),
    "stem": (GREY, "stem"),
    "unit": (BLUE, "unit"),
    "module": (ORANGE, "no mask"),
    "tail": (BLUE, "units"),
    "head": (GREEN, "head"),
}
BRANCHES = {"pre": "#9CC9E6", "trunk": BLUE, "mask": ORANGE, "level": ORANGE, "post": "#9CC9E6"}
OUTSIDE = "#9A9A9A"
FIELD_COLOURS = {"input": "#404040", "trunk": BLUE, "mask": RED}


def plot_network(model: nn.Module) -> Figure:
    """The whole network from the image to the logits: a block a part, with the shape C×H×W that leaves it.

    Heights follow the resolution (a power of it, so that small ones can be seen), widths the channels. Above each
    attention module stands how often its mask branch pools, below each stage its parameters.
    """
    network = attention_network(model)
    every = parts(network)
    rows = [part for part in every if part.kind in NETWORK]
    side = network.variant.input_size
    shapes = [(3, side, side), *(part.shape for part in rows)]
    names = ["image", *(part.name for part in rows)]
    kinds = ["image", *(part.kind for part in rows)]
    labels = {name: f"d = {module.mask.depth}" for name, module in network.attention_modules().items() if module.mask}
    labels["tail"] = f"{len(network.tail)} units"
    width = min(11.0, max(9.0, 0.5 + 0.62 * len(names)))
    pitch = (width - 0.5) / len(names)
    tallest, widest = max(shape[1] for shape in shapes), max(shape[0] for shape in shapes)
    sheet, axis = Drawing(width, 3.65), 1.85
    flops = sum(part.flops for part in rows)
    title = f"{network.variant.name}: {sum(part.parameters for part in rows):,} parameters, "
    sheet.text(0.15, 3.47, f"{title}{flops / 1e9:.2f} GFLOPs an image", ha="left", weight="bold", fontsize=9.5)
    legend = (
        ("unit", 0.15, "residual unit"),
        ("module", 1.3, "attention module; d: poolings of its mask branch"),
        ("", 4.75, "below each stage: its parameters"),
    )
    for kind, x, text in legend:
        if kind:
            sheet.ax.add_patch(Rectangle((x, 3.15), 0.12, 0.12, fc=tint(NETWORK[kind][0], 0.45), ec=NETWORK[kind][0]))
        sheet.text(x + 0.2, 3.2, text, ha="left", color=GREY)
    sheet.arrow((0.15, axis), (width - 0.08, axis))
    for index, (name, kind, shape) in enumerate(zip(names, kinds, shapes, strict=True)):
        x = 0.2 + pitch * (index + 0.45)
        colour, label = NETWORK[kind]
        thickness = 0.1 + (0.62 * pitch - 0.1) * math.sqrt(shape[0] / widest)
        _slab(sheet, x, axis, thickness, 0.14 + 1.7 * (shape[1] / tallest) ** 0.6, colour)
        sheet.text(x + 0.03, axis + 1.14, labels.get(name, label))
        sheet.text(x, 0.7, shape_text(shape).replace("×", "×\n", 1), linespacing=1.15)
    for stage, _ in network.stages.named_children():
        inside = [index for index, name in enumerate(names) if name.startswith(f"{stage}.")]
        left, right = 0.2 + pitch * (inside[0] + 0.02), 0.2 + pitch * (inside[-1] + 0.92)
        count = sum(part.parameters for part in rows if part.name.startswith(f"{stage}."))
        sheet.ax.plot([left, right], [0.46, 0.46], color=GREY, lw=1)
        sheet.text((left + right) / 2, 0.25, f"{stage.replace('stage', 'stage ')}\n{count / 1e6:#.3g} M", color=GREY)
    return sheet.figure


def _slab(sheet: Drawing, x: float, y: float, width: float, height: float, colour: str) -> None:
    """A box seen slightly from the right and above, its front centred at (x, y)."""
    left, right, bottom, top = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    lean = 0.04 + 0.035 * height
    faces = (
        ([(left, bottom), (right, bottom), (right, top), (left, top)], 0.45),
        ([(left, top), (right, top), (right + lean, top + lean), (left + lean, top + lean)], 0.25),
        ([(right, bottom), (right, top), (right + lean, top + lean), (right + lean, bottom + lean)], 0.7),
    )
    for corners, strength in faces:
        face = Polygon(corners, fc=tint(colour, strength), ec=colour, lw=0.8, zorder=2, joinstyle="round")
        face.set_gid("slab")
        sheet.ax.add_patch(face)


def plot_parts(model: nn.Module) -> Figure:
    """Where the parameters and the FLOPs of one image are, part by part; attention modules in their branches.

    The number behind a bar is its share of the whole in per cent.
    """
    every = parts(model)
    rows = [part for part in every if part.kind in NETWORK]
    figure = Picture(figsize=(9.5, 1.3 + 0.21 * len(rows)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, what, name in ((axes[0], "parameters", "parameters"), (axes[1], "flops", "FLOPs an image")):
        whole = sum(getattr(part, what) for part in rows)
        masks = sum(getattr(part, what) for part in every if part.kind == "mask")
        for y, row in enumerate(rows):
            left = 0.0
            for piece in [part for part in every if part.name.startswith(f"{row.name}.")] or [row]:
                value = getattr(piece, what) / 1e6
                ax.barh(y, value, left=left, height=0.76, color=BRANCHES.get(piece.kind, OUTSIDE), ec="white", lw=0.5)
                left += value
            ax.text(left, y, f" {100 * getattr(row, what) / whole:.1f} %", va="center", fontsize=8)
        ax.set_title(f"{whole / 1e6:,.1f} million {name}, {100 * masks / whole:.0f} % in mask branches", fontsize=9)
        ax.set_xlabel(f"million {name}", fontsize=8)
        ax.margins(x=0.14)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        bare(ax, "x", left=False, size=8)
    axes[0].set_yticks(range(len(rows)), [row.name for row in rows])
    colours = BRANCHES | {"outside attention modules": OUTSIDE}
    legend_below(figure, [Rectangle((0, 0), 1, 1, color=colour, label=name) for name, colour in colours.items()])
    return figure


def plot_receptive_fields(
    model: nn.Module, image: Tensor | None = None, modules: Sequence[str] | None = None
) -> Figure:
    """What one pixel in the middle can see of the image, at each scale of every attention module: squares to scale.

    Args:
        model: as `plot_network`.
        image: uint8 or float in [0, 1], [3, H, W]; None: a blank one of the network's input size.
        modules: names from `attention_modules()`; None: all.

    Returns:
        A panel a module. Where a field is larger than the image, the panel reaches beyond the image, whose edge is
        the black frame; there the real field ends, and such a pixel sees everything.

    Raises:
        ConfigError: an unknown module, or no single image.
    """
    network = attention_network(model)
    fields = receptive_field(network)
    modules = list(choose_modules(network, modules))
    if image is None:
        image = torch.full((3, network.variant.input_size, network.variant.input_size), 0.93)
    if image.dim() != 3 or image.shape[0] != 3:
        raise ConfigError(f"image of shape {list(image.shape)}: one image [3, H, W] is needed")
    shown = image.detach().cpu().float() / (1 if image.is_floating_point() else 255)
    shown = (0.45 + 0.55 * shown).permute(1, 2, 0).clamp(0, 1).numpy()  # paler, so that the squares stand out
    columns = min(len(modules), 6 if len(modules) > 7 else 4 if len(modules) in (4, 7) else 3)
    cell = min(10.4 / columns, 3.2)
    lines = max(sum(field.module == name for field in fields) for name in modules)
    tall = cell + 0.25 + 0.155 * lines
    sheet = Drawing(cell * columns, -(-len(modules) // columns) * tall + 0.3)
    width, height = sheet.figure.get_size_inches()
    sheet.text(0.1, height - 0.17, "black frame: the image's edge", ha="left", color=GREY)
    for index, name in enumerate(modules):
        row, column = divmod(index, columns)
        left, bottom, side = column * cell + 0.1, height - 0.6 - row * tall - (cell - 0.2), cell - 0.2
        ax = sheet.figure.add_axes((left / width, bottom / height, side / width, side / height))
        _draw_fields(ax, [field for field in fields if field.module == name], shown)
        ax.set_title(name, fontsize=9, pad=3)
    return sheet.figure


def _draw_fields(ax: Axes, fields: list[Field], image: np.ndarray) -> None:
    """Squares around the middle of the image, and below them a line of text for each, in its colour."""
    height, width = image.shape[:2]
    ax.imshow(image, extent=(-width / 2, width / 2, -height / 2, height / 2), interpolation="nearest")
    ax.add_patch(Rectangle((-width / 2, -height / 2), width, height, fc="none", ec="black", lw=1.4))
    scales = [field.scale for field in fields if field.scale not in FIELD_COLOURS]
    for line, field in enumerate(fields):
        shade = 1 - 0.6 * scales.index(field.scale) / len(scales) if field.scale in scales else 1
        colour = FIELD_COLOURS.get(field.scale, tuple(shade * c for c in to_rgb(ORANGE)))
        size, text = field.size, "all of any image"
        if math.isfinite(size):
            text = f"{size:.0f} pixels"
            # Fields of one size share one square, in dashes of each colour.
            before = sum(other.size == size for other in fields[:line])
            style = {"ls": (4 * before, (4, 8))} if before else {}
            ax.add_patch(Rectangle((-size / 2, -size / 2), size, size, fc="none", ec=colour, lw=1.8, **style))
        where = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 8, "color": colour}
        name = f"scale {field.scale}" if field.scale in scales else field.scale
        ax.annotate(f"{name}: {text}", (0, 0), (0, -11 - 11 * line), **where)
    reach = max(height, width, *(field.size for field in fields if math.isfinite(field.size)))
    ax.set(xlim=(-0.53 * reach, 0.53 * reach), ylim=(-0.53 * reach, 0.53 * reach), xticks=[], yticks=[])
    ax.spines[:].set_color("#dddddd")


def plot_signal(found: Mapping[str, Mapping[str, Signal]]) -> Figure:
    """How strong the features are behind every attention module, and how much of the stage's entry is left in them.

    Args:
        found: what `attnet.masks.statistics.signals` returns: a way of combining mask and trunk -> module -> `Signal`.

    The paper's reason for (1 + M)·T ("Attention Residual Learning"): masks between 0 and 1, multiplied again and
    again, make the features of deep layers ever weaker, and break the identity path of the residual units.
    """
    figure = Picture(figsize=(10, 3.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    modules = list(next(iter(found.values())))
    breaks = [i - 0.5 for i in range(1, len(modules)) if modules[i].split(".")[0] != modules[i - 1].split(".")[0]]
    for (label, signal), colour, marker in zip(found.items(), (BLUE, RED, GREY), "osv", strict=False):
        style = {"color": colour, "marker": marker, "ms": 4, "label": label}
        values = [signal[name] for name in modules]
        for first, last in itertools.pairwise([0, *(math.ceil(b) for b in breaks), len(modules)]):
            at = range(first, last)
            left.plot(at, [values[i].mean / values[0].mean for i in at], **style)
            right.plot(at, [100 * values[i].kept for i in at], **style)
            style["label"] = None
    left.set_title("mean |features|, first module = 1", fontsize=9)
    right.set_title("% of it carried by the identity path since the stage's entry", fontsize=9)
    left.set_yscale("log")
    right.set_ylim(0, None)
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain_numbers(left.yaxis)
    for ax in (left, right):
        ax.set_xticks(range(len(modules)), modules, rotation=90 if len(modules) > 7 else 0, fontsize=8)
        bare(ax, "y", size=8)
        for x in breaks:
            ax.axvline(x, color=GREY, lw=0.8, ls=":")
    left.legend(frameon=False, fontsize=8)
    return figure
