"""Read anybody's pictures, of any format and size, as a network takes them."""

from __future__ import annotations

import contextlib
import functools
import io
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from attnet.base.errors import DataError
from attnet.base.files import resolve_path
from attnet.base.host import usable_cores
from attnet.base.progress import tracked

FORMATS = "PNG, JPEG, WebP, AVIF, GIF, BMP, TIFF, PPM"


def read_picture(source: str | Path | bytes, size: int = 32, name: str = "") -> Tensor:
    """A picture as uint8 [3, size, size]: upright, on white where it is transparent, its middle square, resized.

    Args:
        source: a file (a relative path starts at the repository root), or a file's bytes.
        size: side in pixels; `variant.input_size` is what a network was made for.
        name: what to call it in an error; a file has its path.

    Raises:
        DataError: no such file, no picture, a damaged one, or one too large to unpack safely.
    """
    with _refusing_bombs():
        return _read(source, size, name)


def read_pictures(files: Sequence[Path], size: int, names: Sequence[str]) -> tuple[Tensor, list[DataError]]:
    """Many pictures as uint8 [N, 3, size, size], each as `read_picture` gives it, by a thread a core.

    Returns:
        The pictures, and why some could not be read, in their order; the pixels of those mean nothing.
    """
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)

    def read(place: int) -> DataError | None:
        try:
            images[place] = _read(files[place], size, names[place])
        except DataError as error:
            return error
        return None

    # Filters of warnings belong to the whole process: set here once, not by each thread.
    with _refusing_bombs(), ThreadPoolExecutor(usable_cores()) as pool:
        answers = list(tracked(pool.map(read, range(len(files))), len(files), "pictures read"))
    return images, [error for error in answers if error is not None]


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height as the header of a file that `read_picture` takes says them, in pixels."""
    with _refusing_bombs(), Image.open(file, formats=_formats()) as image:
        return image.size


@contextlib.contextmanager
def _refusing_bombs() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@functools.cache
def _formats() -> list[str]:
    """Pillow's names of FORMATS, as far as this Pillow knows them: others may start programs (EPS does)."""
    Image.init()
    return [name for name in FORMATS.upper().split(", ") if name in Image.OPEN]


def _read(source: str | Path | bytes, size: int, name: str) -> Tensor:
    path = None if isinstance(source, bytes) else resolve_path(source)
    name = name or (str(path) if path else "the picture")
    if path is not None and not path.is_file():
        what = "is a folder: give one file" if path.is_dir() else "does not exist"
        raise DataError(f"picture {name} {what}")
    try:
        with Image.open(io.BytesIO(source) if path is None else path, formats=_formats()) as file:
            file.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded small, several times as fast
            image = _rgb(ImageOps.exif_transpose(file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"picture {name} is too large to unpack safely ({error}); shrink it first") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"picture {name} is no picture that can be read; {FORMATS} are") from None
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise DataError(f"picture {name} is damaged ({error})") from None
    image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _rgb(image: Image.Image) -> Image.Image:
    """8 bits a colour, on white: Pillow alone would cut 16-bit greys at 255 and drop transparency to black."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64)
        low, high = values.min(), values.max()
        if image.mode.startswith("I") and low >= 0 and high <= 65535:
            low, high = 0, 65535
        image = Image.fromarray(np.uint8(255 * (values - low) / max(high - low, 1e-12)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
