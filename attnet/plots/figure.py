"""What every figure stands on: colours, a page that a notebook shows sharply, bare panels, and diagrams in inches.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from attnet.base.errors import ConfigError
from attnet.plots.fonts import make_readable

__all__ = ["Picture", "stamped"]

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#767676"
PURPLE, SKY = "#CC79A7", "#56B4E9"
SERIES = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, "black")  # lines of one panel, in this order
INK = "#222222"
SCREEN_DPI = 80
UNIT, TALL = 1.22, 0.5  # a box of residual units in a diagram, inches

Result = Mapping[str, Any]  # what a JSON file of results holds
_DRAWN_BY = {
    "steps": "plot_roofline or plot_step_shares",
    "growth": "plot_growth",
    "epoch": "plot_epoch",
    "ablation": "plot_ablation",
    "race": "plot_race",
}


class Picture(Figure):
    """A figure that a notebook shows sharply wherever it stands last in a cell, whatever backend is chosen.

    Its words are in fonts that have their characters, as far as any here has.
    """

    def draw(self, renderer: RendererBase) -> None:
        make_readable(self)
        super().draw(renderer)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * SCREEN_DPI)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(SCREEN_DPI * width), "height": round(SCREEN_DPI * height)}


def nothing(why: str) -> Figure:
    """A figure that says why there is none."""
    figure = Picture(figsize=(4, 0.6))
    figure.text(0.5, 0.5, f"nothing to show: {why}", ha="center", va="center", color=GREY)
    return figure


def stamped(figure: Figure, kind: str) -> Figure:
    """The figure with REHEARSAL (or SIMULATED) across it, where `kind` says that it is no measurement."""
    if kind in ("rehearsal", "simulated"):
        width, height = figure.get_size_inches()
        size = min(60.0, 72 * min(0.11 * width, 0.5 * height))
        figure.text(0.5, 0.5, kind.upper(), fontsize=size, rotation=12, ha="center", va="center", color=ORANGE,
                    alpha=0.16, weight="bold", zorder=0, gid="stamp")  # fmt: skip
    return figure


def check_kind(result: Result, kind: str) -> None:
    """Refuse a result that another figure is for."""
    given = result.get("kind")
    if given != kind:
        hint = f"; that one goes to {_DRAWN_BY[given]}" if given in _DRAWN_BY else ""
        raise ConfigError(f"result of kind {given!r}: this figure needs one of kind {kind!r}{hint}")


def bare(ax: Axes, grid: str = "", *, left: bool = True, size: float = 8.5) -> None:
    """A panel without a frame, with a faint grid behind along `grid`; the left axis and its ticks only where `left`."""
    if grid:
        ax.grid(axis=grid, alpha=0.25)
        ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines["left"].set_visible(left)
    ax.tick_params(axis="y", left=left)
    ax.tick_params(labelsize=size)


def epoch_axis(ax: Axes, longest: int, shortest: int = 0) -> None:
    """Epochs as whole numbers; on a logarithmic axis where the longest of several runs has ten times the shortest's."""
    ax.set_xlabel("epoch")
    if shortest and longest > 10 * shortest:
        ax.set_xscale("log")
        plain_numbers(ax.xaxis)
        return
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if longest == 1:
        ax.set_xlim(0, 2)


def plain_numbers(axis: Axis) -> None:
    """1, 10, 100 on a logarithmic axis, and nothing between but what its locator asks for."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def logarithmic(ax: Axes) -> None:
    """A logarithmic y axis with a label at 1, 2 and 5 of each power of ten, or at each digit where there are few."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 8 * low else range(1, 10)))
    plain_numbers(ax.yaxis)


def stripes(ax: Axes, count: int) -> None:
    """A faint ground behind every second of `count` rows, the first among them."""
    for y in range(0, count, 2):
        ax.axhspan(y - 0.5, y + 0.5, color="black", alpha=0.04, lw=0)


def legend_below(figure: Figure, signs: Sequence[Artist], columns: int | None = None, **style: object) -> None:
    """What the signs of all panels mean, by their labels: in one line, or in `columns`."""
    style = {"ncols": columns or len(signs), "frameon": False, "fontsize": 8, **style}
    figure.legend(handles=signs, loc="outside lower center", **style)


class Drawing:
    """A page measured in inches from its lower left corner; boxes are placed by their centres."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Picture(figsize=(width, height))
        self.ax = self.figure.add_axes((0, 0, 1, 1))
        self.ax.set(xlim=(0, width), ylim=(0, height))
        self.ax.set_axis_off()

    def text(self, x: float, y: float, text: str, **style: object) -> None:
        self.ax.text(x, y, text, **{"fontsize": 8, "ha": "center", "va": "center", "color": INK, **style})

    def region(self, left: float, bottom: float, right: float, top: float, colour: str) -> None:
        style = "round,pad=0,rounding_size=0.12"
        size = (right - left, top - bottom)
        self.ax.add_patch(FancyBboxPatch((left, bottom), *size, style, fc=tint(colour, 0.1), ec="none", zorder=0))

    def box(self, x: float, y: float, text: str, colour: str, width: float = UNIT, height: float = TALL,
            cards: int = 1) -> None:  # fmt: skip
        """A labelled box, or a stack of up to three cards; its patches carry the gid "box"."""
        for card in reversed(range(min(cards, 3))):
            corner = (x - width / 2 + 0.05 * card, y - height / 2 + 0.05 * card)
            style = "round,pad=0,rounding_size=0.06"
            patch = FancyBboxPatch(corner, width, height, style, fc=tint(colour), ec=colour, lw=1, zorder=2)
            patch.set_gid("box" if card == 0 else "card")
            self.ax.add_patch(patch)
        self.text(x, y, text, linespacing=1.25, zorder=3)

    def units(self, x: float, y: float, count: int, shape: str, colour: str) -> None:
        name = "residual unit" if count == 1 else f"{count} residual units"
        self.box(x, y, f"{name}\n{shape}", colour, cards=count)

    def sign(self, x: float, y: float, sign: str) -> None:
        """× or + in a circle."""
        circle = Circle((x, y), 0.13, fc="white", ec=INK, lw=1, zorder=3)
        circle.set_gid(sign)
        self.ax.add_patch(circle)
        arm = 0.075
        for angle in (0, 90) if sign == "+" else (45, 135):
            dx, dy = arm * math.cos(math.radians(angle)), arm * math.sin(math.radians(angle))
            self.ax.plot([x - dx, x + dx], [y - dy, y + dy], color=INK, lw=1.2, zorder=4)

    def dot(self, x: float, y: float) -> None:
        """Where one line becomes two."""
        self.ax.add_patch(Circle((x, y), 0.035, fc=INK, ec="none", zorder=3))

    def arrow(self, *points: tuple[float, float]) -> None:
        """A line through the points with rounded corners and a head at its end."""
        vertices, codes = [points[0]], [Path.MOVETO]
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            near = [_towards(corner, other, 0.1) for other in (before, after)]
            vertices += [near[0], corner, near[1]]
            codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
        path = Path([*vertices, points[-1]], [*codes, Path.LINETO])
        style = {"arrowstyle": "-|>,head_length=3.5,head_width=2", "shrinkA": 0, "shrinkB": 0}
        self.ax.add_patch(FancyArrowPatch(path=path, color=INK, lw=1.1, zorder=1.5, **style))


def tint(colour: str, strength: float = 0.2) -> tuple[float, float, float]:
    """The colour mixed with white."""
    return tuple(1 - strength * (1 - c) for c in to_rgb(colour))


def _towards(start: tuple[float, float], end: tuple[float, float], length: float) -> tuple[float, float]:
    distance = math.dist(start, end)
    share = min(length, distance / 2) / distance
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
