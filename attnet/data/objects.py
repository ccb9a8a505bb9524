"""Which pixels of somebody's picture are the object: from a mask beside it, an array, a rectangle or a polygon.

Whatever it was given as, a region comes to a network's input as its picture does: the middle square, as small or as
large as the network takes it. There a pixel is the object's when at least half of it is.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attnet.base.errors import ConfigError, DataError, printable, shown
from attnet.base.files.paths import resolve_path
from attnet.data.pairs import mask_beside
from attnet.data.pictures import as_square, decoded, in_threads, refusing_bombs
from attnet.data.pixels import lowest_is_white, most_of, strips, upright, upright_size
from attnet.data.splits import Split

Region = str | Path | Tensor | np.ndarray | Sequence[float] | Sequence[Sequence[float]]
_AT_WORK = 2**20  # pixels turned into numbers at once, about
_FARTHEST = 1e9  # a corner from the picture, in pixels
_HALF = 0.5 - 1e-9  # of a pixel; sums of parts of pixels differ from it in their last digits
_KINDS = "a file, a bool array [H, W], a rectangle (left, top, right, bottom) or a polygon [(x, y), ...] is needed"


def read_pair(picture: str | Path, region: Region | None = None, size: int = 32) -> Split:
    """One picture with its object, for `localise`, `compare_localisation` and all else that takes a split.

    Args:
        picture: a file, as `read_picture` takes it.
        region: the object, in the picture as it is shown (upright): a file whose white pixels it is, of the picture's
            size; a bool array or tensor [H, W] of that size; (left, top, right, bottom) of a rectangle, or the corners
            (x, y) of a polygon, three or more, in pixels from the upper left corner; of these a pixel is part when its
            centre is. None: the file NAME.mask.png beside the picture. White is half of the range or more (128 of
            255, of 16-bit numbers 32768 of 65535), of a colour its brightness; what is transparent is black.
        size: side in pixels of what the network takes, as `network.size`.

    Returns:
        `images` uint8 [1, 3, size, size] as `read_picture` gives it, `masks` bool [1, size, size], True on the object,
        and `labels` int64 [1], 0 since no class is known.

    Raises:
        DataError: a file as `read_picture` refuses it, a mask of another size than its picture, one without object or
            without background, or without either at the network's input.
        ConfigError: a region that is none of these.
    """
    if region is None and not os.path.exists(region := mask_beside(resolve_path(picture))):
        raise DataError(
            f"picture {printable(picture)} has no mask beside it: {printable(region)} does not exist; paint one (white "
            "is the object) or give region=(left, top, right, bottom) or the like"
        )
    with refusing_bombs():
        image, pixels = _read(picture, region, size, printable)
    return Split(image[None], torch.zeros(1, dtype=torch.int64), pixels[None])


def read_own(picture: str | Path, region: str = "", size: int = 32) -> Split:
    """A picture with its object where one is told, else without `masks`: for a notebook's parameters, which are text.

    Args:
        picture, size: as `read_pair`.
        region: a mask's file; "left,top,right,bottom" of a rectangle; "x,y x,y x,y ..." of a polygon; "": the mask
            beside the picture, if there is one.

    Raises:
        DataError, ConfigError: as `read_pair`.
    """
    if region:
        return read_pair(picture, region_of(region), size)
    if os.path.exists(mask_beside(resolve_path(picture))):
        return read_pair(picture, None, size)
    with refusing_bombs():
        image, _ = _read(picture, None, size, printable)
    return Split(image[None], torch.zeros(1, dtype=torch.int64))


def region_of(text: str) -> Region:
    """Numbers as a rectangle or a polygon, anything else as the name of a file."""
    try:
        corners = [[float(number) for number in corner.split(",")] for corner in text.split()]
    except ValueError:
        return text
    return corners[0] if len(corners) == 1 and len(corners[0]) != 2 else corners


def read_pairs(
    files: Sequence[Path], masks: Sequence[Path | None], size: int, name: Callable[[Path], str] = printable
) -> tuple[Tensor, Tensor, list[DataError]]:
    """Many pictures and the masks of those that have one, each as `read_pair` gives it.

    Args:
        name: what messages call a file.

    Returns:
        Images uint8 [N, 3, size, size], objects bool [N, size, size] (False throughout where there is no mask), and
        why some could not be read, in their order; the pixels of those mean nothing.
    """
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    objects = torch.zeros(len(files), size, size, dtype=torch.bool)

    def read(place: int) -> None:
        image, pixels = _read(files[place], masks[place], size, name)
        images[place] = image
        if pixels is not None:
            objects[place] = pixels

    return images, objects, in_threads(read, len(files))


def _read(
    picture: str | Path, region: Region | None, size: int, name: Callable[[Path], str]
) -> tuple[Tensor, Tensor | None]:
    """uint8 [3, size, size] and bool [size, size], or None without a region."""

    def shown_as(image: Image.Image, full: tuple[int, int], called: str) -> tuple[Tensor, tuple[int, int]]:
        return as_square(image, size, called), upright_size(image, full)

    image, sides = decoded(picture, shown_as, name(resolve_path(picture)), 2 * size)
    if region is None:
        return image, None
    if not isinstance(region, str | Path):
        pixels = _drawn(region, sides)
        return image, _at_input(pixels, size, f"region={shown(region)} in {printable(picture)}")

    def object_of(mask: Image.Image, _full: tuple[int, int], called: str) -> Tensor:
        return _at_input(_white(upright(mask), sides, called), size, f"mask {called}")

    return image, decoded(region, object_of, name(resolve_path(region)))


def _white(mask: Image.Image, sides: tuple[int, int], name: str) -> np.ndarray:
    """Where a loaded mask is white, bool [H, W]."""
    (width, height), (w, h) = sides, mask.size
    if (w, h) != sides:
        turned = "; the picture is shown turned, as its EXIF says: draw the mask on it as it is shown"
        raise DataError(
            f"mask {name} has {w:,} x {h:,} pixels and its picture {width:,} x {height:,}: each pixel of a mask speaks "
            f"of one of the picture, so save it as large{turned if (h, w) == sides else ''}"
        )
    white, least, greatest = np.empty((height, width), dtype=bool), math.inf, -math.inf
    scale, turned = most_of(mask), lowest_is_white(mask)
    for strip, y in strips(mask, (0, 0, width, height)):
        levels, most = _brightness(strip, scale, turned, name)
        white[y : y + len(levels)] = levels >= (most + 1) // 2
        least, greatest = min(least, levels.min()), max(greatest, levels.max())
    if not white.any():
        raise DataError(
            f"mask {name} has no object: its brightest pixel is {greatest} of {most}, and white ({(most + 1) // 2} or "
            "more) is the object; paint the object white (a mask of 0 and 1 times 255), or take the mask away"
        )
    if white.all():
        raise DataError(
            f"mask {name} has no background: its darkest pixel is {least} of {most}, and white ({(most + 1) // 2} or "
            "more) is the object; paint black what is not, or take the mask away"
        )
    return white


def _brightness(strip: Image.Image, most: int | None, turned: bool, name: str) -> tuple[np.ndarray, int]:
    """Whole numbers [h, W], and the number that white has; see `most_of` and `lowest_is_white`."""
    if most:
        levels = np.asarray(strip)
        return most - levels if turned else levels, most
    if strip.mode.startswith(("I", "F", "LAB")):
        raise DataError(f"mask {name} has pixels of kind {strip.mode}: save it as a black and white PNG")
    if strip.has_transparency_data:
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "black"), strip.convert("RGBA"))
    return np.asarray(strip.convert("L")), 255


def _drawn(region: object, sides: tuple[int, int]) -> np.ndarray:
    """The pixels of an array, a rectangle or a polygon, bool [H, W]; `sides` are the picture's width and height."""
    width, height = sides
    try:
        given = region.detach().cpu().numpy() if isinstance(region, Tensor) else np.asarray(region)
    except (ValueError, TypeError, RuntimeError):  # lists of unequal lengths, and what NumPy has no type for
        raise ConfigError(f"region={shown(region)}: {_KINDS}") from None
    if given.dtype == bool and given.ndim == 2:
        if given.shape != (height, width):
            raise ConfigError(
                f"region of shape {list(given.shape)}: the picture has {height:,} rows of {width:,} pixels as it is "
                f"shown, and [{height}, {width}] is needed"
            )
        if not given.any() or given.all():
            raise ConfigError(
                f"region is {bool(given.any())} at every pixel: True on the object and False beside it is needed, "
                "each at one pixel or more"
            )
        return given
    if given.dtype.kind not in "iuf" or not (given.shape == (4,) or (given.ndim == 2 and given.shape[1] == 2)):
        kind = f"region of shape {list(given.shape)} and dtype {given.dtype}"
        raise ConfigError(f"{kind}: {_KINDS}; bool comes of mask >= 128 or the like")
    corners = given.astype(np.float64)
    if not (np.abs(corners) < _FARTHEST).all():
        raise ConfigError(f"region={shown(region)}: every number must be finite, and of less than {_FARTHEST:,.0f}")
    if given.shape == (4,):
        left, top, right, bottom = corners
        if left >= right or top >= bottom:
            raise ConfigError(
                f"region={shown(region)}: a rectangle is (left, top, right, bottom), left less than right and top less "
                "than bottom, counted from the upper left corner"
            )
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if len(corners) < 3:
        raise ConfigError(f"region={shown(region)}: a polygon has three corners or more")
    pixels = _polygon(corners, width, height)
    for what, missing in (("holds the centre of no", not pixels.any()), ("holds every", pixels.all())):
        if missing:
            raise DataError(
                f"region={shown(region)}: {what} pixel of the picture, which has {width:,} x {height:,}; corners are "
                "(x, y) in its pixels, from the upper left"
            )
    return pixels


def _polygon(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """Pixels whose centre lies within corners [n, 2], by the even-odd rule; one on an edge is that of the region to
    its right or below, so that neighbours share none."""
    crossed = np.zeros((height, width + 1), dtype=bool)  # an odd number of edges lies just left of the centre
    for (x, y), (to_x, to_y) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        first, last = (math.ceil(min(max(end, 0), height) - 0.5) for end in sorted((y, to_y)))
        rows = np.arange(first, last)
        if y != to_y and len(rows):
            at = x + (rows + 0.5 - y) * (to_x - x) / (to_y - y)
            crossed[rows, np.ceil(at - 0.5).clip(0, width).astype(np.int64)] ^= True
    return np.logical_xor.accumulate(crossed, axis=1)[:, :width]


def _at_input(pixels: np.ndarray, size: int, what: str) -> Tensor:
    """The middle square of bool [H, W] as bool [size, size]: where at least half of a pixel is the object's."""
    share = _shares(pixels, size)
    inside = share >= _HALF
    where = f"of the middle square, at the {size} x {size} pixels that a network takes"
    if not inside.any():
        raise DataError(
            f"{what}: nothing is left of its object {where} (at most {100 * share.max():.0f} % of one, and half is "
            "needed). Crop the picture around the object, take a network for larger pictures, or leave it out"
        )
    if inside.all():
        raise DataError(f"{what}: its object is all {where}. Give a picture with more around it, or leave it out")
    return torch.from_numpy(inside)


def _shares(pixels: np.ndarray, size: int) -> np.ndarray:
    """Which share of each pixel of the square is the object's, float64 [size, size] in [0, 1], by exact areas."""
    height, width = pixels.shape
    side = min(height, width)
    down, across = (_coverage(length, side, size) for length in (height, width))
    step = max(1, _AT_WORK // width)
    found = np.zeros((size, size))
    for y in range(0, height, step):
        found += down[:, y : y + step] @ (pixels[y : y + step].astype(np.float64) @ across.T)
    return found


def _coverage(length: int, side: int, size: int) -> np.ndarray:
    """Which share of each of `size` equal parts of the middle `side` pixels lies in each pixel: [size, length]."""
    edges = (length - side) / 2 + side * np.arange(size + 1) / size
    pixel = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return overlap.clip(0) * size / side
