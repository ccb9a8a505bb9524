"""Read anybody's picture, of any format and size, as a network takes it."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from attnet.errors import DataError
from attnet.paths import resolve_path

FORMATS = "PNG, JPEG, GIF, BMP, TIFF, WebP"


def read_picture(source: str | Path | bytes, size: int = 32, name: str = "") -> Tensor:
    """A picture as uint8 [3, size, size]: upright, on white where it is transparent, its middle square, resized.

    Args:
        source: a file (a relative path starts at the repository root), or a file's bytes.
        size: side in pixels; `variant.input_size` is what a network was made for.
        name: what to call the bytes in an error.

    Raises:
        DataError: no such file, no picture, a damaged one, or one too large to unpack safely.
    """
    path = None if isinstance(source, bytes) else resolve_path(source)
    name = name or (str(path) if path else "the picture")
    if path is not None and not path.is_file():
        what = "is a folder: give one file" if path.is_dir() else "does not exist"
        raise DataError(f"picture {name} {what}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if path is None else path) as file:
                image = _rgb(ImageOps.exif_transpose(file))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"picture {name} is too large to unpack safely ({error}); shrink it first") from None
    except Image.UnidentifiedImageError:
        raise DataError(f"picture {name} is no picture that can be read; {FORMATS} are") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damaged files
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
