"""Read anybody's pictures, of any format and size, as a network takes them.

No file runs code or takes more than _MEMORY, and what is said of it is true: a picture is damaged only where Pillow
cannot decode its pixels. What its metadata hold is no part of them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor

from attnet.base.errors import DataError, printable
from attnet.base.files.paths import resolve_path
from attnet.base.host import usable_cores
from attnet.base.progress import tracked
from attnet.data.picture_bytes import described, without_metadata
from attnet.data.pixels import middle_square, prepare, shrunk

FORMATS = "PNG, JPEG, WebP, AVIF, GIF, BMP, TIFF, PPM"
_MEMORY = 2**30  # bytes that pictures may take while they are decoded: one alone, and all threads together
_COSTLY = {"WEBP": 16, "AVIF": 16}  # bytes a pixel, of decoders that keep frames of their own
_MOST_SCANS = 100  # of a JPEG; programs write about ten, and each goes over all pixels, however few bytes it has
_T = TypeVar("_T")


class _Damaged(DataError):
    """Pillow cannot decode it; perhaps it could without the metadata."""


def read_picture(source: str | Path | bytes, size: int = 32, name: str = "") -> Tensor:
    """A picture as uint8 [3, size, size]: upright, on white where it is transparent, its middle square, resized.

    Args:
        source: a file (a relative path starts at the repository root), or a file's bytes.
        size: side in pixels; `variant.input_size` is what a network was made for.
        name: what to call it in an error; a file has its path.

    Raises:
        DataError: no such file, none that may be read, no picture, a damaged one, one too large to unpack safely, or
            one with pixels that are no numbers.
    """
    with refusing_bombs():
        return decoded(source, lambda image, _full, shown: as_square(image, size, shown), name, 2 * size)


def read_whole(source: str | Path | bytes, longest: int = 1600, name: str = "") -> Image.Image:
    """All of a picture as a Pillow image in RGB: upright, on white where it is transparent, shrunk to `longest`.

    Args:
        source, name: as `read_picture`.
        longest: of its sides, in pixels; smaller pictures keep their size.

    Raises:
        DataError: as `read_picture`.
    """
    with refusing_bombs():
        return decoded(source, lambda image, _full, shown: shrunk(image, longest, shown), name, longest)


def in_threads(read: Callable[[int], None], count: int) -> list[DataError]:
    """`read(0)` to `read(count - 1)`, and why some could not be read, in their order.

    There is a thread a core; large pictures wait until all that are being decoded fit into _MEMORY.
    """

    def why_not(place: int) -> DataError | None:
        try:
            read(place)
        except DataError as error:
            return error
        return None

    # Filters of warnings belong to the whole process: set here once, not by each thread.
    with refusing_bombs(), ThreadPoolExecutor(usable_cores()) as pool:
        answers = list(tracked(pool.map(why_not, range(count)), count, "pictures read"))
    return [error for error in answers if error is not None]


def picture_size(file: Path) -> tuple[int, int]:
    """Width and height as the header of a file that `read_picture` takes says them, in pixels; errors as there."""

    def header(opened: BinaryIO) -> tuple[int, int]:
        with _open(opened, name) as image:
            return image.size

    name = printable(file)
    with refusing_bombs(), _file(file, name) as opened:
        return _whatever_its_metadata(opened, header)


@contextlib.contextmanager
def refusing_bombs() -> Iterator[None]:
    """Around `decoded`: Pillow's warning of a file that unpacks to very much becomes an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def as_square(image: Image.Image, size: int, name: str) -> Tensor:
    """A loaded picture as uint8 [3, size, size]; see `middle_square`."""
    return torch.from_numpy(np.array(middle_square(image, size, name))).permute(2, 0, 1).contiguous()


def decoded(
    source: str | Path | bytes,
    use: Callable[[Image.Image, tuple[int, int], str], _T],
    name: str = "",
    draft: int = 0,
) -> _T:
    """`use(image, (width, height), name)` of a picture whose pixels are loaded, under `refusing_bombs`.

    Args:
        source, name: as `read_picture`.
        use: it may take about as much memory as the pixels do; `image` is closed after it. Width and height are
            those in the file, the name is what messages call it.
        draft: a JPEG may be decoded smaller, as long as its sides have so many pixels; 0: not.

    Raises:
        DataError: as `read_picture`.
    """
    path = None if isinstance(source, bytes) else resolve_path(source)
    name = printable(name or path or "the picture")

    def used(opened: BinaryIO) -> _T:
        with _open(opened, name) as image:
            full = image.size
            with _blaming(opened, name):
                if draft:
                    image.draft(None, (draft, draft))  # a large JPEG is decoded small, several times as fast
                _forget_folders(image)
            prepare(image, name)
            with _memory.held(_cost(image, full, opened, name)):
                with _blaming(opened, name):
                    image.load()
                return use(image, full, name)

    with io.BytesIO(source) if path is None else _file(path, name) as opened:
        return _whatever_its_metadata(opened, used)


def _file(path: Path, name: str) -> BinaryIO:
    """Open a regular file: others, as pipes, may keep us waiting for ever."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return open(path, "rb")
    except FileNotFoundError:
        what = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise DataError(f"picture {name} {what}") from None
    except OSError as error:
        raise _unreadable(name, error) from None
    what = "is a folder: give one file" if stat.S_ISDIR(mode) else "is no regular file; give one"
    raise DataError(f"picture {name} {what}")


def _unreadable(name: str, error: OSError) -> DataError:
    way_out = "; check its permissions" if isinstance(error, PermissionError) else ""
    return DataError(f"picture {name} cannot be read ({error.strerror}){way_out}")


@functools.cache
def _formats() -> list[str]:
    """Pillow's names of FORMATS, as far as this Pillow knows them: others may start programs (EPS does)."""
    Image.init()
    return [name for name in FORMATS.upper().split(", ") if name in Image.OPEN]


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Its header read, its pixels not yet."""
    file.seek(0)
    with _blaming(file, name):
        return Image.open(file, formats=_formats())


@contextlib.contextmanager
def _blaming(file: BinaryIO, name: str) -> Iterator[None]:
    """Around calls of Pillow, and of nothing else: what it raises is laid to the picture."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"picture {name} is too large to unpack safely ({error}); shrink it first") from None
    except Image.UnidentifiedImageError:
        what = f", it is {what}" if (what := described(file, _formats())) else f"; {FORMATS} are"
        raise _Damaged(f"picture {name} is no picture that can be read{what}") from None
    except MemoryError:
        raise DataError(f"picture {name} needs more memory than this process gets; shrink it first") from None
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        if isinstance(error, OSError) and error.errno is not None:  # the machine's, not Pillow's
            raise _unreadable(name, error) from None
        raise _Damaged(f"picture {name} is damaged ({printable(error)})") from None


def _forget_folders(image: Image.Image) -> None:
    """Of a TIFF Pillow reads folders of metadata together with the pixels, which is not worth a picture."""
    if image.format == "TIFF":
        for folder in ExifTags.IFD:
            image.getexif().pop(folder, None)


def _cost(image: Image.Image, full: tuple[int, int], file: BinaryIO, name: str) -> int:
    """Bytes that decoding it takes, at most and about.

    Args:
        full: width and height before it was decided to decode it smaller.

    Raises:
        DataError: too many of them, or a file made to keep a decoder busy.
    """
    (width, height), cost = full, image.width * image.height * _COSTLY.get(image.format, 8)
    if image.format in ("JPEG", "MPO") and (scans := _count(file, b"\xff\xda")) > 1:
        cost += 6 * width * height  # 16-bit numbers of the whole, until the last scan is there
        if scans > _MOST_SCANS:
            raise DataError(f"picture {name} takes too long to unpack ({scans:,} scans): open it and save it anew")
    if image.format == "TIFF":  # unpacked by the tile, however small the picture is
        with _blaming(file, name):
            cost = max(cost, 8 * image.tag_v2.get(322, 0) * image.tag_v2.get(323, 0))
    if cost > _MEMORY:
        raise DataError(
            f"picture {name} is too large to unpack safely ({width:,} x {height:,} pixels in {image.format} may take "
            f"{cost / 2**30:.1f} GiB of memory, and {_MEMORY / 2**30:.0f} is the limit); shrink it first"
        )
    return cost


def _count(file: BinaryIO, mark: bytes) -> int:
    """How often two bytes stand in a file."""
    file.seek(0)
    found, last = 0, b""
    while block := file.read(2**20):
        found, last = found + (last + block).count(mark), block[-1:]
    return found


class _Budget:
    """Bytes that threads may hold together."""

    def __init__(self, total: int) -> None:
        self._free, self._changed = total, threading.Condition()

    @contextlib.contextmanager
    def held(self, wanted: int) -> Iterator[None]:
        """Wait until `wanted` are free, at most all there are, and hold them."""
        with self._changed:
            self._changed.wait_for(lambda: wanted <= self._free)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


_memory = _Budget(_MEMORY)


def _whatever_its_metadata(file: BinaryIO, use: Callable[[BinaryIO], _T]) -> _T:
    """`use(file)`; of a PNG or JPEG that Pillow finds damaged, `use` of its pixels and orientation alone."""
    try:
        return use(file)
    except _Damaged:
        if (pixels := without_metadata(file, _MEMORY)) is None:
            raise
    return use(io.BytesIO(pixels))
