"""Charts of what a network is made of: parameters and FLOPs of its parts, receptive fields, the signal's strength."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.statistics import Signal
from attnet.model.anatomy import parts
from attnet.model.network import attention_network, choose_modules
from attnet.model.reach import Field, receptive_field
from attnet.plots.architecture import NETWORK
from attnet.plots.drawing import Drawing
from attnet.plots.figure import BLUE, GREY, ORANGE, RED, Picture

BRANCHES = {"pre": "#9CC9E6", "trunk": BLUE, "mask": ORANGE, "post": "#9CC9E6"}
OUTSIDE = "#9A9A9A"
FIELD_COLOURS = {"input": "#404040", "trunk": BLUE, "mask": RED}


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
        ax.tick_params(labelsize=8, left=False)
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.grid(axis="x", alpha=0.25)
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(rows)), [row.name for row in rows])
    handles = [Rectangle((0, 0), 1, 1, color=colour) for colour in (*BRANCHES.values(), OUTSIDE)]
    names = [*BRANCHES, "outside attention modules"]
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
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
        found: what `attnet.model.anatomy.signals` returns: a way of combining mask and trunk -> module -> `Signal`.

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
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_formatter(NullFormatter())
    for ax in (left, right):
        ax.set_xticks(range(len(modules)), modules, rotation=90 if len(modules) > 7 else 0, fontsize=8)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.25)
        for x in breaks:
            ax.axvline(x, color=GREY, lw=0.8, ls=":")
    left.legend(frameon=False, fontsize=8)
    return figure
