"""Boxes, arrows and words of a diagram, laid out in inches."""

from __future__ import annotations

import math

from matplotlib.colors import to_rgb
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from attnet.plots.figure import Picture

INK = "#222222"
UNIT, TALL = 1.22, 0.5  # a box of residual units, inches


def tint(colour: str, strength: float = 0.2) -> tuple[float, float, float]:
    """The colour mixed with white."""
    return tuple(1 - strength * (1 - c) for c in to_rgb(colour))


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
        arm = 0.075 if sign == "+" else 0.075 / math.sqrt(2)
        pairs = [((-arm, 0), (arm, 0)), ((0, -arm), (0, arm))]
        if sign == "×":
            pairs = [((-arm, -arm), (arm, arm)), ((-arm, arm), (arm, -arm))]
        for start, end in pairs:
            self.ax.plot([x + start[0], x + end[0]], [y + start[1], y + end[1]], color=INK, lw=1.2, zorder=4)

    def dot(self, x: float, y: float) -> None:
        """Where one line becomes two."""
        self.ax.add_patch(Circle((x, y), 0.035, fc=INK, ec="none", zorder=3))

    def arrow(self, *points: tuple[float, float], colour: str = INK) -> None:
        """A line through the points with rounded corners and a head at its end."""
        vertices, codes = [points[0]], [Path.MOVETO]
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            near = [_towards(corner, other, 0.1) for other in (before, after)]
            vertices += [near[0], corner, near[1]]
            codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
        path = Path([*vertices, points[-1]], [*codes, Path.LINETO])
        style = {"arrowstyle": "-|>,head_length=3.5,head_width=2", "shrinkA": 0, "shrinkB": 0}
        self.ax.add_patch(FancyArrowPatch(path=path, color=colour, lw=1.1, zorder=1.5, **style))


def _towards(start: tuple[float, float], end: tuple[float, float], length: float) -> tuple[float, float]:
    distance = math.dist(start, end)
    share = min(length, distance / 2) / distance
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])
