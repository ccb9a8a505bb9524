"""Sheets of pictures: tiles placed to the inch, titles with class and confidence, scales and their colour bars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.masks.capture import capture
from attnet.masks.scale import Scale, neutral, robust_scale
from attnet.model.network import choose_modules
from attnet.plots.figure import GREEN, RED, Picture

NO_MASKS = "attention='none' has no masks"
ONE_SIGN, BOTH_SIGNS = "viridis", "RdBu_r"
WIDTH, GAP, LINE, BAR = 10.8, 0.05, 0.17, 0.92  # inches: a figure, between pictures, a line of words, a colour bar
_WORDS = {"mask": "mask M", "trunk": "trunk T", "masked": "after mask", "input": "input x"}
_WORDS |= {"mean": "mean over channels", "max": "maximum over channels", "l2": "norm over channels"}
_WORDS |= {"std": "standard deviation over channels"}

Title = tuple[str, str]  # words and their colour


# -- words and scales ---------------------------------------------------------------------------------------------


def as_batch(images: Tensor) -> Tensor:
    at_least_one("the number of images", len(images))
    return images[None] if images.dim() == 3 else images


def at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}: {value}, but at least 1 is needed")


def see(model: nn.Module, images: Tensor, part: str, modules: Sequence[str] | None) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and one part of each module that has it."""
    if part == "scales":
        raise ConfigError("part='scales': one of them at a time, for instance 1/2")
    seen = capture(model, images, (part,), modules)
    return seen.logits, {name: parts[part] for name, parts in seen.features.items() if part in parts}


def as_numbers(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()


def as_pixels(image: Tensor) -> np.ndarray:
    """uint8 or float [3, H, W] as float64 [H, W, 3] in [0, 1]."""
    pixels = image.detach().cpu().permute(1, 2, 0).double()
    return (pixels if image.is_floating_point() else pixels / 255).numpy().clip(0, 1)


def scale_of(model: nn.Module, module: str, maps: Tensor, part: str = "mask", reduction: str = "mean") -> Scale:
    """The one scale of these maps of a module: around the value that favours nothing, where there is one."""
    return robust_scale(maps, neutral(choose_modules(model, [module])[module], part, reduction))


def colours(scale: Scale) -> str:
    """The name of a scale's colour map: diverging where it has a middle."""
    return ONE_SIGN if scale.centre is None else BOTH_SIGNS


def span(low: float, high: float) -> str:
    """Two ends with as many digits as tell them apart: 0.44 to 0.56."""
    digits = max(0, 1 - math.floor(math.log10(high - low))) if high > low else 2
    return f"{low:.{digits}f} to {high:.{digits}f}".replace("-", "−")


def colours_and_all(scale: Scale) -> str:
    """What the colours span, and in a second line the values' own range: what is stretched is said."""
    return f"{span(scale.low, scale.high)}\n(all {span(scale.smallest, scale.largest)})"


def describe(part: str, reduction: str = "") -> str:
    words = [_WORDS.get(part, f"scale {part}"), _WORDS.get(reduction, reduction.replace(":", " "))]
    return ", ".join(filter(None, words))


def size_words(maps: Tensor) -> str:
    return "×".join(map(str, maps.shape[-2:]))


def make_titles(
    logits: Tensor, classes: Sequence[str] | None, labels: Sequence[int] | Tensor | None, apart: str = " "
) -> list[Title]:
    """Words and colour over each image; `apart` stands between class and confidence."""
    shares, guesses = logits.float().softmax(dim=1).max(dim=1)
    truths = guesses.tolist() if labels is None else torch.as_tensor(labels).tolist()
    if len(truths) != len(guesses):
        raise ConfigError(f"labels: {len(truths)} for {len(guesses)} images; give one each")
    titles = []
    for share, guess, truth in zip(shares.tolist(), guesses.tolist(), truths, strict=True):
        name, true = (classes[k] if classes and k < len(classes) else f"class {k}" for k in (guess, truth))
        words = f"{name}{apart}{100 * share:.0f} %" + (f"\nis {true}" if guess != truth else "")
        titles.append((words, "black" if labels is None else GREEN if guess == truth else RED))
    return titles


# -- sheets of pictures, placed to the inch: a layout engine is slow for a hundred of them, and leaves gaps -------


def make_sheet(
    images: Tensor,
    above: Sequence[float],
    before: Sequence[float],
    largest: float,
    headline: str = "",
    *,
    least: float = 0.0,
    bars: int = 1,
) -> tuple[Figure, np.ndarray]:
    """Axis-free tiles in the images' proportions, with room `above` each row and `before` each column, in inches."""
    right = bars * BAR or GAP
    tile = min(largest, max(0.48, (WIDTH - right - sum(before)) / len(before)))
    tall = tile * images.shape[-2] / images.shape[-1]
    above = [above[0] + (LINE + 0.06 if headline else 0), *above[1:]]
    width = max(least, sum(before) + tile * len(before) + right, 0.077 * len(headline))
    height = sum(above) + tall * len(above) + 0.08
    figure = Picture(figsize=(width, height))
    axes = np.empty((len(above), len(before)), dtype=object)
    for i, j in np.ndindex(axes.shape):
        x, y = sum(before[: j + 1]) + j * tile, height - sum(above[: i + 1]) - (i + 1) * tall
        axes[i, j] = figure.add_axes((x / width, y / height, tile / width, tall / height))
        axes[i, j].set_axis_off()
    figure.text(GAP / width, 1 - GAP / height, headline, fontsize=9, va="top")
    return figure, axes


def title_room(titles: Sequence[Title]) -> float:
    """Inches for the titles of a row."""
    return LINE * max(len(words.splitlines()) for words, _ in titles) + 0.1


def draw_map(ax: Axes, values: Tensor, scale: Scale) -> None:
    ends = {"vmin": scale.low, "vmax": scale.high}
    ax.imshow(as_numbers(values), cmap=colours(scale), **ends, interpolation="nearest", aspect="auto")


def draw_image(ax: Axes, image: Tensor, title: Title = ("", "black")) -> None:
    ax.imshow(as_pixels(image), interpolation="nearest", aspect="auto")
    words, colour = title
    longest = max(map(len, words.splitlines()), default=1)
    room = ax.get_window_extent().width * 72 / ax.figure.dpi  # points; long names must not touch
    if words:
        ax.set_title(words, fontsize=min(8, room / (0.5 * longest)), color=colour, pad=3)


def draw_images(images: Tensor, titles: Sequence[Title], columns: int, largest: float) -> Figure:
    """Images under their titles, `columns` a row."""
    columns = min(columns, len(images))
    above = [title_room(titles)] * -(-len(images) // columns)
    figure, axes = make_sheet(images, above, [GAP] * columns, largest, bars=0)
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        draw_image(ax, image, title)
    return figure


def draw_pairs(axes: np.ndarray, images: Tensor, titles: Sequence[Title], maps: Tensor, scale: Scale) -> None:
    """Images in rows 0, 2 ..., each over its map."""
    for image, title, map_, top, below in zip(images, titles, maps, axes[::2].flat, axes[1::2].flat, strict=False):
        draw_image(top, image, title)
        draw_map(below, map_, scale)


def draw_modules(
    images: Tensor,
    titles: Sequence[Title],
    modules: Mapping[str, Mapping[str, tuple[Tensor, Scale]]],
    headline: str = "",
) -> tuple[Figure, np.ndarray]:
    """A row a module beside each image, two images side by side; `modules`: words beside the row -> name of a
    column -> its maps [N, h, w] and their scale. Room is left for two colour bars."""
    rows, blocks = len(modules), min(len(images), 2)
    top = title_room(titles) if rows < 3 else LINE + 0.15  # of three rows and more, the image stands in the middle
    above = [top, *[GAP] * (rows - 1)] * -(-len(images) // 2)
    before = [1.25, 3 * GAP, GAP, GAP, 5 * GAP, 3 * GAP, GAP, GAP][: 4 * blocks]
    figure, axes = make_sheet(images, above, before, 1.4, headline, bars=2)
    for i, image in enumerate(images):
        first, left = rows * (i // 2), 4 * (i % 2)
        draw_image(axes[first + (rows - 1) // 2, left], image, titles[i])
        for row, (words, columns) in enumerate(modules.items(), first):
            for ax, (head, (maps, scale)) in zip(axes[row, left + 1 :], columns.items(), strict=False):
                draw_map(ax, maps[i], scale)
                ax.set_title(head if row == first else "", fontsize=8, pad=3)
            if left == 0:
                style = {"xycoords": "axes fraction", "fontsize": 8, "linespacing": 1.2}
                axes[row, 0].annotate(words, (-0.06, 0.5), ha="right", va="center", **style)
    return figure, axes


def colour_bar(figure: Figure, axes: np.ndarray, scale: Scale, label: str, slot: int = 0) -> Colorbar:
    """The colour bar of one scale, with the values' own range below it."""
    bar = _bar(figure, axes, ScalarMappable(Normalize(scale.low, scale.high), colours(scale)), label, slot, 3.6 * LINE)
    bar.locator = MaxNLocator(5 if bar.ax.get_position().height * figure.get_figheight() > 1 else 2)
    ends = span(scale.smallest, scale.largest).replace(" to ", "\nto ")
    bar.ax.annotate(f"all values:\n{ends}", (0, 0), (0, -8), "axes fraction", "offset points", fontsize=8, va="top")
    return bar


def own_bar(figure: Figure, axes: np.ndarray, scales: Sequence[Scale], label: str, slot: int = 0) -> Colorbar:
    """The colour bar of several scales, whose ends are written beside the pictures."""
    centres = {scale.centre for scale in scales}
    ticks = {0.0: "low", 1.0: "high"}
    if None not in centres:
        ticks[0.5] = f"{centres.pop():g}" if len(centres) == 1 else "middle"
    bar = _bar(figure, axes, ScalarMappable(Normalize(0, 1), colours(scales[0])), label, slot)
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    return bar


def _bar(
    figure: Figure, axes: np.ndarray, colours: ScalarMappable, label: str, slot: int, below: float = 0.0
) -> Colorbar:
    """To the right of the sheet, as high as the pictures but no higher than 2.8 inches, so many inches free below."""
    width, height = figure.get_size_inches()
    top, bottom = axes[0, 0].get_position().y1, axes[-1, 0].get_position().y0
    tall = min(top - bottom, 2.8 / height)
    low = (top + bottom - tall) / 2
    room = max(0.0, below / height - (low - bottom))
    x = axes[0, -1].get_position().x1 + (0.12 + slot * BAR) / width
    ax = figure.add_axes((x, low + room, 0.11 / width, tall - room))
    bar = figure.colorbar(colours, cax=ax)
    ax.tick_params(labelsize=8, length=2)
    ax.set_title(label, fontsize=8, loc="left", pad=7)  # beside the bar, long numbers would push it off the sheet
    return bar
