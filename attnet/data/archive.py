"""A few known files straight out of a .tar.gz or .tar that may be anybody's: in bounded memory, nothing on the disk.

A header's word is not taken for anything: links, devices, files with holes, long names and sizes are refused or passed
over, and the whole may unpack to so many bytes and no more.
"""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from attnet.base.errors import DataError

_GZIP = b"\x1f\x8b"  # how a gzip file begins; a plain tar under its name is as good
_BLOCK = tarfile.BLOCKSIZE
_PIECE = 1 << 20
_MEMBERS = 1_000
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


def is_packed(source: Path) -> bool:
    """Whether a file begins as gzip's do; OSError as it comes."""
    with open(source, "rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def members(source: Path, wanted: Callable[[str], bool], most: int) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of those files that are wanted, in the archive's order.

    Args:
        wanted: asked once of each member; a name is what the archive says, less any "/", "./" and "../" before it.
        most: bytes that one of them may have; all together may unpack to eight times as many.

    Raises:
        DataError: more, or something else under a wanted name. EOFError, tarfile.TarError, zlib.error, OSError: damaged
            or unreadable.
    """
    with gzip.open(source) if is_packed(source) else open(source, "rb") as raw:
        stream = _Stream(raw, source, 8 * most)
        for _ in range(_MEMBERS):
            header = stream.read(_BLOCK)
            if not header.strip(b"\0"):
                break
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            name = "/".join(part for part in member.name.split("/") if part not in ("", ".", ".."))
            shown = ascii(name)[1:-1][:80]
            if member.size < 0:
                raise tarfile.ReadError(f"{shown} has {member.size:,} bytes")
            rest = -member.size % _BLOCK
            if member.isdir() or not wanted(name):
                stream.skip(member.size + rest)
                continue
            if member.type not in _PLAIN:
                raise DataError(f"{source}: {shown} is no plain file in it; do not trust this archive")
            if member.size > most:
                raise DataError(f"{source}: {shown} has {member.size:,} bytes, more than {most:,}; do not trust it")
            yield name, stream.read(member.size)
            stream.skip(rest)
        else:
            raise DataError(f"{source} holds more than {_MEMBERS:,} files; give the archive of the data set alone")
        while stream.read(_PIECE, exactly=False):  # gzip compares its checksum only at the very end
            pass


class _Stream:
    """Reads on in pieces, whatever size a header announces, and no more than `left` bytes in all."""

    def __init__(self, raw: BinaryIO, source: Path, left: int) -> None:
        self.raw, self.source, self.left = raw, source, left

    def read(self, size: int, exactly: bool = True) -> bytes:
        pieces = []
        while size:
            piece = self._piece(size)
            if not piece:
                if exactly:
                    raise EOFError("the archive ends too soon")
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        while size:
            piece = self._piece(size)
            if not piece:
                raise EOFError("the archive ends too soon")
            size -= len(piece)

    def _piece(self, size: int) -> bytes:
        piece = self.raw.read(min(size, _PIECE))
        self.left -= len(piece)
        if self.left < 0:
            raise DataError(f"{self.source} unpacks to far more than the data set has; do not trust this archive")
        return piece
