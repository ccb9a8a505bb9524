"""What every figure shares: colours, sharpness in a notebook, grids of pictures without axes.

Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#767676"
SCREEN_DPI = 80


class Picture(Figure):
    """A figure that a notebook shows sharply wherever it stands last in a cell, whatever backend is chosen."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=2 * SCREEN_DPI)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(SCREEN_DPI * width), "height": round(SCREEN_DPI * height)}


def grid(count: int, columns: int, size: float, title_lines: int = 1) -> tuple[Figure, list[Axes]]:
    """`count` axis-free squares of `size` inches, `columns` a row, with room for titles."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Picture(figsize=(columns * size, rows * (size + 0.17 * title_lines)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for ax in axes:
        ax.set_axis_off()
    return figure, axes[:count]


def nothing(why: str) -> Figure:
    """A figure that says why there is none."""
    figure = Picture(figsize=(4, 0.6))
    figure.text(0.5, 0.5, f"nothing to show: {why}", ha="center", va="center", color=GREY)
    return figure


def show(ax: Axes, image: Tensor, title: str, colour: str = "black") -> None:
    """An image uint8 or float in [0, 1], [3, H, W], without smoothing."""
    ax.imshow(image.detach().cpu().permute(1, 2, 0).numpy(), interpolation="nearest")
    longest = max(map(len, title.splitlines()), default=1)
    ax.set_title(title, fontsize=min(8, 125 / longest), color=colour, pad=2)  # long names must not touch
