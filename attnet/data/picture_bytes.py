"""Pictures by their bytes: why one does not open, and what of its file its pixels need."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from typing import BinaryIO

from PIL import Image

from attnet.base.errors import printable
from attnet.base.files.kinds import SEEN, kind_of

_UNOPENED = "a picture cut short or damaged in its header, or of a kind that this Pillow does not know"
_AVIF = "an AVIF picture, damaged or of a kind that this Pillow does not know"
_OURS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# Bytes of transparency in a PNG, by its kind of colours: one grey, one colour, a number an entry of the palette.
_TRANSPARENCY = {0: (2, 2), 2: (6, 6), 3: (1, 256)}


def described(file: BinaryIO, formats: Sequence[str]) -> str:
    """What a file is that Pillow does not open as one of `formats`, or what it should be; "" where nobody can tell."""
    file.seek(0)
    head = file.read(SEEN)
    if head.startswith(_OURS) or head.startswith(b"WEBP", 8):
        return _UNOPENED + _reason(file, head, formats)
    return _AVIF if head.startswith(b"ftypavi", 4) else kind_of(head)


def _reason(file: BinaryIO, head: bytes, formats: Sequence[str]) -> str:
    """Why Pillow does not open it, which `Image.open` keeps to itself: " (unknown pixel mode)"."""
    for name in formats:
        make, accepts = Image.OPEN[name]
        if accepts is None or accepts(head[:16]) is not True:
            continue
        file.seek(0)
        try:
            make(file, "")
        except SyntaxError as error:  # the one that Image.open met; of bytes that lack it says how it looked for them
            plain = str(error) != str(error.__cause__) and "not identified" not in str(error)
            return f" ({printable(error)})" if plain else ""
        except Exception:
            return ""
    return ""


def without_metadata(file: BinaryIO, most: int) -> bytes | None:
    """What a viewer needs of a PNG or JPEG, that is its pixels, orientation and transparency; None of another kind.

    Args:
        most: bytes that may be kept.
    """
    file.seek(0)
    head = file.read(len(_PNG))
    if head == _PNG:
        return _png_pixels(file, most)
    if head.startswith(_JPEG):
        file.seek(len(_JPEG))
        return _jpeg_pixels(file, most)
    return None


def _png_pixels(file: BinaryIO, left: int) -> bytes:
    """The chunks of a PNG, read up to its signature, that a viewer needs."""
    kept, colours = [_PNG], -1
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        least, most = _TRANSPARENCY.get(colours, (1, 0))
        needed = not kind[:1].islower() or (kind == b"eXIf" and length < 2**16)
        needed |= kind == b"tRNS" and least <= length <= most
        if not needed:
            file.seek(length + 4, os.SEEK_CUR)
            continue
        chunk = file.read(min(length + 4, left))
        left -= len(chunk)
        colours = chunk[9] if kind == b"IHDR" and length >= 10 and len(chunk) > 9 else colours
        # A lower-case letter begins what a viewer can do without; then it does where the checksum is wrong.
        if not kind[:1].islower() or chunk[length:] == struct.pack(">I", zlib.crc32(kind + chunk[:length])):
            kept += [head, chunk]
    return b"".join(kept)


def _jpeg_pixels(file: BinaryIO, left: int) -> bytes:
    """The segments of a JPEG, read up to its first marker, that a viewer needs."""
    kept = [_JPEG]
    while len(mark := file.read(2)) == 2 and mark[0] == 0xFF and mark[1] != 0xDA:  # up to its scans
        if mark[1] == 0xFF:  # bytes to fill up with
            file.seek(-1, os.SEEK_CUR)
            continue
        length = file.read(2)
        size = int.from_bytes(length, "big") - 2
        content = file.read(max(size, 0))
        about = mark[1] == 0xFE or 0xE0 <= mark[1] <= 0xEF  # a comment, or of an application
        # JFIF and Adobe say what the colours are.
        whole = {0xE0: (b"JFIF\0", 12), 0xE1: (b"Exif\0\0", 14), 0xEE: (b"Adobe", 12)}.get(mark[1], (b"", 2**16))
        if not about or (content.startswith(whole[0]) and size >= whole[1]):
            kept += [mark, length, content]
    return b"".join([*kept, mark, file.read(left)])
