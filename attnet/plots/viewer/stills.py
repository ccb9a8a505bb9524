"""What the viewer shows, as pictures that stand still or move by themselves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from attnet.base.errors import ConfigError
from attnet.base.files.outputs import output_file, writing
from attnet.data.splits import Dataset
from attnet.masks.choose import telling_images
from attnet.masks.foreign import Foreign
from attnet.masks.frames import BEST, Frame, make_frames
from attnet.masks.look import Looker, View
from attnet.masks.reduce import REDUCTIONS
from attnet.masks.scale import Scale
from attnet.model.pretrained import Pretrained
from attnet.plots import sheet
from attnet.plots.masks import overlay
from attnet.plots.viewer.film import best_module, facts
from attnet.plots.viewer.states import States

__all__ = ["Shown", "animate_masks", "plot_masks"]


@dataclass(frozen=True)
class Shown:
    """An image to show, uint8 or float [3, H, W], what it is called, and its true class, "" where that is unknown."""

    image: Tensor
    name: str
    label: str = ""


def choose(network: Pretrained | Foreign, dataset: Dataset, images: int | Sequence[int]) -> list[Shown]:
    """Test images: so many by `telling_images`, or those at positions; ConfigError for one that is not there."""
    split = dataset.test
    chosen = telling_images(network.model, split, images).tolist() if isinstance(images, int) else list(images)
    if wrong := [n for n in chosen if not 0 <= n < len(split)]:
        raise ConfigError(f"images: {wrong[0]}: there are test images 0 to {len(split) - 1}")
    if not chosen:
        raise ConfigError("images: at least one image is needed")
    names = [dataset.classes[int(split.labels[n])] for n in chosen]
    labels = [name if name in network.classes else "" for name in names]
    return [Shown(split.images[n], f"test image {n}", label) for n, label in zip(chosen, labels, strict=True)]


def composed(image: Tensor, values: Tensor, scale: Scale, side: int, strength: float = 0.8) -> np.ndarray:
    """A map over its image as the viewer lays it, smooth over pixels that stay sharp: uint8 [side, side, 3]."""
    large = Image.fromarray(np.uint8(255 * sheet.as_pixels(image))).resize((side, side), Image.Resampling.NEAREST)
    laid = overlay(torch.from_numpy(np.array(large)).permute(2, 0, 1), values, strength, scale)
    return np.uint8(255 * laid)


def plot_masks(network: Pretrained | Foreign, dataset: Dataset, images: int | Sequence[int] = 12) -> Figure:
    """Test images, each beside every module's mask over it: red places are strengthened, blue ones weakened.

    Colours are centred at the value that favours nothing (one half) and span what 98 % of a map's values need, image by
    image and module by module: they say where a mask is high in an image, not in which image it is higher.

    Args:
        images: how many, chosen by `telling_images`: predicted right, and their masks vary most; or positions.
    """
    shown, known = choose(network, dataset, images), facts(network)
    batch = torch.stack([each.image for each in shown])
    view = View(best_module([module["name"] for module in known["modules"]]), known["parts"][0][0])
    return plot_still(shown, make_frames(Looker(network), batch, view, (BEST,)), network.classes, States(network).title)


def plot_still(
    shown: Sequence[Shown], frames: Sequence[Frame], classes: Sequence[str], title: str, reduction: str = BEST
) -> Figure:
    """A sheet of all images, each beside every module's map over it; one image alone fills the width."""
    modules = list(frames[0].panels)
    width = 1 + len(modules)
    blocks = max(1, 12 // width) if len(shown) > 1 else 1
    side = 1.1 if blocks > 1 else min(2.4, 9.9 / width - sheet.GAP)
    rows = -(-len(shown) // blocks)
    before = [3 * sheet.GAP, *[sheet.GAP] * (width - 1)] * min(blocks, len(shown))
    headline = f"{title}; {REDUCTIONS[reduction].words} of all channels"
    images = torch.stack([each.image for each in shown])
    figure, axes = sheet.make_sheet(images, [sheet.LINE + 0.12] * rows, before, side, headline, bars=0)
    for place, (each, frame) in enumerate(zip(shown, frames, strict=True)):
        row, first = place // blocks, width * (place % blocks)
        top = int(frame.probabilities.argmax())
        colour = sheet.GREEN if classes[top] == each.label else sheet.RED
        sheet.draw_image(
            axes[row, first], each.image, (f"{classes[top]} {100 * frame.probabilities[top]:.0f} %", colour)
        )
        for ax, name in zip(axes[row, first + 1 :], modules, strict=False):
            panel = frame.panels[name]
            pixels = composed(each.image, panel.maps[reduction], panel.scales[reduction], round(146 * side))
            ax.imshow(pixels, aspect="auto")
            ax.set_title(name, fontsize=7, pad=2)
    return figure


def stacked(figures: Sequence[Figure], dpi: int) -> bytes:
    """Figures one below the other, on white, as PNG."""
    pictures = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
        pictures.append(Image.open(buffer).convert("RGB"))
    whole = Image.new("RGB", (max(each.width for each in pictures), sum(each.height for each in pictures)), "white")
    top = 0
    for each in pictures:
        whole.paste(each, (0, top))
        top += each.height
    out = io.BytesIO()
    whole.save(out, "PNG")
    return out.getvalue()


def as_webp(figure: Figure) -> bytes:
    buffer, out = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    Image.open(buffer).convert("RGB").save(out, "WEBP", quality=82)
    return out.getvalue()


def animate_masks(
    network: Pretrained,
    images: Tensor,
    file: str | Path,
    *,
    module: str = "",
    reduction: str = BEST,
    side: int = 128,
    seconds: float = 0.7,
) -> Path:
    """A moving picture of masks while they were learned, as animated WebP or GIF; a frame an epoch that the run kept.

    Args:
        network: from a run with `keep_epochs`.
        images: [N, 3, H, W], side by side, above their masks.
        file: FILE.webp or FILE.gif.
        module: whose masks; "": the last one's.
        side: pixels of an image.
        seconds: a frame is shown; the last three times as long.

    Raises:
        ConfigError: weights without kept epochs, another kind of file, or one that cannot be written.
    """
    path = output_file(file, (".webp", ".gif"))
    states = States(network)
    if len(states.epochs) < 2:
        raise ConfigError(
            f"weights {network.weights}: their run kept no epochs, so nothing moves; train with keep_epochs=1"
        )
    pictures = []
    for place, epoch in enumerate(states.epochs):
        looker = states.looker(place)
        view = View(module or best_module(list(network.model.attention_modules())))
        frames = make_frames(looker, images, view, (reduction,))
        panels = [frame.panels[view.module] for frame in frames]
        tiles = [
            composed(image, panel.maps[reduction], panel.scales[reduction], side)
            for image, panel in zip(images, panels, strict=True)
        ]
        plain = [composed(image, torch.zeros(2, 2), Scale(-1, 1, 0, 0, 0.0), side) for image in images]
        words = f"{view.module}, {epoch.name}" + ("" if epoch.top1 is None else f", Top-1 {epoch.top1:.1f} %")
        pictures.append(_captioned(np.vstack([np.hstack(plain), np.hstack(tiles)]), words))
    times = [round(1000 * seconds)] * (len(pictures) - 1) + [round(3000 * seconds)]
    with writing(f"file={str(file)!r}"):
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0, quality=80)
    return path


def _captioned(pixels: np.ndarray, words: str) -> Image.Image:
    picture = Image.new("RGB", (pixels.shape[1], pixels.shape[0] + 26), "white")
    picture.paste(Image.fromarray(pixels), (0, 26))
    ImageDraw.Draw(picture).text((6, 4), words, fill="#222222", font=ImageFont.load_default(16))
    return picture
