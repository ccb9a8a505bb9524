"""The pixels of an opened picture, of whatever kind and number, as a small square of 8-bit colours.

Work goes strip by strip: of the full-size picture there is never more than what Pillow itself holds of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, features
from torch import Tensor

from attnet.base.errors import DataError

# Pixels; a picture of more is cut to its middle square and averaged over whole blocks before it is resized. The result
# is within 5 of 255 of what the whole picture resized at once gives, and within 1 in the mean.
EXACT = 2**22
_KEPT = 16  # blocks leave so many times the side that is wanted, or more
_LARGEST_BLOCK, _STRIP = 64, 2**20  # side of a block; pixels at work at once, about
_GREATEST = float(np.finfo(np.float32).max)  # of either sign: what elevation data say for "no data"
_SAMPLE_FORMAT = 339  # TIFF: 1 for unsigned whole numbers
_BITS, _SHADES, _PLANES = 258, 262, 284  # TIFF: of a number; 0 where the lowest is white; 2 where colours lie apart
_NO_DATA = 42113  # GDAL's tag: the number that stands for a missing one, as text
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
Box = tuple[int, int, int, int]


def prepare(image: Image.Image, name: str) -> None:
    """See to what Pillow would misread of an opened picture whose pixels are not loaded yet.

    Raises:
        DataError: of a TIFF it takes the halves of 16-bit colours for whole ones where the colours lie apart.
    """
    tile = image.tile[0] if image.tile else (None,) * 4
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == 2 and tile[0] == "raw" and max(tags.get(_BITS, (8,))) > 8:
        raise DataError(
            f"picture {name} has colours of 16 bits in planes of their own, which Pillow cannot read: save it as PNG"
        )
    transparent = image.info.get("transparency")
    if image.format != "PNG" or transparent is None:
        return
    # What is transparent is said in the numbers of the file, and Pillow stretches or halves those of the pixels.
    if isinstance(transparent, bytes):
        image.info["transparency"] = transparent[:256]
    elif isinstance(transparent, int) and image.mode == "1":
        image.info["transparency"] = 255 if transparent else 0  # newer ones do that themselves
    elif isinstance(transparent, int):
        image.info["transparency"] = transparent * {"L;2": 85, "L;4": 17}.get(tile[3], 1)
    elif tile[3] == "RGB;16B":
        image.info["transparency"] = tuple(level >> 8 for level in transparent)


def middle_square(image: Image.Image, size: int, name: str) -> Image.Image:
    """The middle square of a loaded picture as RGB [size, size], upright, on white where it is transparent.

    Raises:
        DataError: pixels that are no numbers, or in colours that this Pillow cannot turn into RGB.
    """
    width, height = image.size
    turn = _TURNS.get(_orientation(image))
    if width * height <= EXACT:
        whole = _colours(image, (0, 0, width, height), 1, name)
        return ImageOps.fit(_turned(whole, turn), (size, size), Image.Resampling.LANCZOS)
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    block = min(_LARGEST_BLOCK, max(1, side // (_KEPT * size)))
    beyond = 3 * side / size  # pixels around the square that the filter looks at
    first, last = max(0, int(left - beyond)), min(width, math.ceil(left + side + beyond))
    upper, lower = max(0, int(top - beyond)), min(height, math.ceil(top + side + beyond))
    blocks = _colours(image, (first, upper, last, lower), block, name)
    box = left - first, top - upper, left - first + side, top - upper + side
    square = blocks.resize((size, size), Image.Resampling.LANCZOS, tuple(place / block for place in box))
    return _turned(square, turn)


def shrunk(image: Image.Image, longest: int, name: str) -> Image.Image:
    """All of a loaded picture as RGB, upright, on white where it is transparent, its sides at most `longest` pixels.

    Raises:
        DataError: as `middle_square`.
    """
    width, height = image.size
    block = min(_LARGEST_BLOCK, max(1, max(width, height) // (2 * longest)))
    blocks = _colours(image, (0, 0, width, height), block, name)
    sides = width / block, height / block  # the last blocks may be partly filled
    share = min(1.0, longest / max(sides))
    size = tuple(max(1, round(share * side)) for side in sides)
    return _turned(blocks.resize(size, Image.Resampling.LANCZOS, (0, 0, *sides)), _TURNS.get(_orientation(image)))


def cut(image: Image.Image, regions: Sequence[tuple[int, int, int]], size: int) -> Tensor:
    """Squares of a picture as a network takes them: uint8 [N, 3, size, size].

    Args:
        image: in RGB, as `pictures.read_whole` returns it.
        regions: (left, top, side) of each, in its pixels, within it.
    """
    boxes = ((left, top, left + side, top + side) for left, top, side in regions)
    squares = [image.crop(box).resize((size, size), Image.Resampling.LANCZOS) for box in boxes]
    return torch.stack([torch.from_numpy(np.array(square)).permute(2, 0, 1) for square in squares]).contiguous()


def upright(image: Image.Image) -> Image.Image:
    """A loaded picture, of any kind, turned as its EXIF says it is to be shown."""
    return _turned(image, _TURNS.get(_orientation(image)))


def upright_size(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a loaded picture as it is shown, from those in its file."""
    return size[::-1] if _orientation(image) in (5, 6, 7, 8) else size


def _orientation(image: Image.Image) -> object:
    """The one in the EXIF; metadata that cannot be read take nothing from the pixels."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow raises nearly anything here
        return None


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return image if turn is None else image.transpose(turn)


def _colours(image: Image.Image, box: Box, block: int, name: str) -> Image.Image:
    """What `box` holds as RGB, each `block` x `block` pixels averaged."""
    coloured = _painter(image, name)
    left, top, right, bottom = box
    whole = Image.new("RGB", (-(-(right - left) // block), -(-(bottom - top) // block)))
    for strip, y in strips(image, box, block):
        colours = coloured(strip)
        whole.paste(colours.reduce(block) if block > 1 else colours, (0, (y - top) // block))
    return whole


def strips(image: Image.Image, box: Box, block: int = 1) -> Iterator[tuple[Image.Image, int]]:
    """`box` from its top to its bottom in strips of whole blocks, and the row where each begins."""
    left, top, right, bottom = box
    rows = max(1, _STRIP // (right - left) // block) * block
    for y in range(top, bottom, rows):
        yield image.crop((left, y, right, min(y + rows, bottom))), y


def _painter(image: Image.Image, name: str) -> Callable[[Image.Image], Image.Image]:
    """What makes RGB of a strip of this picture: Pillow alone would cut 16-bit greys at 255 and drop transparency to
    black.
    """
    if image.mode.startswith(("I", "F")):
        return _levels(image, name)
    if image.mode == "LAB":
        return _from_lab(name)
    return _on_white


def _on_white(strip: Image.Image) -> Image.Image:
    if strip.has_transparency_data:
        strip = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
    return strip.convert("RGB")


def _levels(image: Image.Image, name: str) -> Callable[[Image.Image], Image.Image]:
    """Numbers as greys: of 16 bits or less on the scale of theirs, others from the lowest in the picture to the
    highest.
    """
    read, most, turned = _reader(image), most_of(image), lowest_is_white(image)
    low, high = (0, most) if most else _range(image, read, name)
    transparent = image.info.get("transparency")

    def grey(strip: Image.Image) -> Image.Image:
        values = read(strip)
        levels = np.uint8((255 * (values - low) / max(high - low, 1e-12)).clip(0, 255))
        levels = 255 - levels if turned else levels
        if isinstance(transparent, int):
            levels[values == transparent] = 255
        return Image.fromarray(levels).convert("RGB")

    return grey


def most_of(image: Image.Image) -> int | None:
    """The number that stands for white in a picture of whole numbers without a sign and of 16 bits or less."""
    if not image.mode.startswith("I"):
        return None
    tags = getattr(image, "tag_v2", {})  # other formats have 16 bits whatever Pillow makes of them
    bits, formats = tags.get(_BITS, (16,)), tags.get(_SAMPLE_FORMAT, (1,))
    return 2 ** bits[0] - 1 if bits[0] <= 16 and formats[0] == 1 else None


def lowest_is_white(image: Image.Image) -> bool:
    """Of a picture of numbers, as X-rays often are; Pillow sees to it where there are 8 bits alone."""
    return image.mode.startswith(("I", "F")) and getattr(image, "tag_v2", {}).get(_SHADES) == 0


def _range(image: Image.Image, read: Callable[[Image.Image], np.ndarray], name: str) -> tuple[float, float]:
    """The lowest and the highest number of a picture, which must have one at every pixel."""
    low, high, missing = np.inf, -np.inf, 0
    for strip, _ in strips(image, (0, 0, *image.size)):
        values = read(strip)
        numbers = values[_are_data(values, image)]
        missing += values.size - numbers.size
        low, high = min(low, numbers.min(initial=np.inf)), max(high, numbers.max(initial=-np.inf))
    if missing:
        width, height = image.size
        raise DataError(
            f"picture {name} has no number for {missing:,} of its {width * height:,} pixels (NaN, infinity or what "
            "stands for no data), so nobody can say which colour they have: fill them in"
        )
    return low, high


def _reader(image: Image.Image) -> Callable[[Image.Image], np.ndarray]:
    """What makes float64 [H, W] of a strip."""
    formats = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, (0,))
    if image.mode == "I" and formats == (1,):  # unsigned ones in a TIFF, of which Pillow makes signed ones
        return lambda strip: np.asarray(strip).view(np.uint32).astype(np.float64)
    return lambda strip: np.asarray(strip, dtype=np.float64)


def _are_data(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """Where `values` are numbers of something."""
    there = np.isfinite(values) & (np.abs(values) < _GREATEST)
    try:
        marker = np.float32(getattr(image, "tag_v2", {})[_NO_DATA].strip("\0 "))
    except (KeyError, ValueError, AttributeError):
        return there
    return there & (values != marker)


def _from_lab(name: str) -> Callable[[Image.Image], Image.Image]:
    if not features.check("littlecms2"):
        raise DataError(f"picture {name} has LAB colours, which this Pillow cannot read: save it as RGB")
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(*profiles, "LAB", "RGB")
    return lambda strip: ImageCms.applyTransform(strip, transform)
