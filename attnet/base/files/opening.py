"""Opening files that anybody may have laid there: plain files alone, never through a link, never waiting."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO, TextIO


def append_to(path: str | Path) -> TextIO:
    """Open a log to add lines to; it is made where it is missing. UTF-8, and no character is too much for it.

    A folder may come from anybody: through a link there the lines would go into a file somewhere else, and a pipe
    never opens.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
            raise OSError(error.errno, "it is no plain file; take it away") from None
        raise
    file = os.fdopen(handle, "a", encoding="utf-8", errors="replace")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no plain file; take it away")
    return file


def own_folder(path: str | Path) -> Path:
    """A folder of ours within another, made where it is missing; the outer one may come from anybody, and through a
    link there files would be made, or taken away, somewhere else.

    Raises:
        OSError: it cannot be made, or is a link or no folder.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise OSError(errno.ENOTDIR, f"{Path(path).name} in it is a link or no folder; take it away")
    return Path(path)


def open_plain(path: str | Path) -> BinaryIO:
    """Open a plain file to read it; OSError for anything else: a pipe would keep us waiting."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no plain file")
    return os.fdopen(handle, "rb")


def read_small(path: str | Path, most: int) -> bytes | None:
    """The first bytes of a plain file, `most` of them; None where there is none."""
    with contextlib.suppress(OSError, ValueError), open_plain(path) as file:
        return file.read(most)
    return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits, in a megabyte of memory."""
    return digest_of(path).hexdigest()


def digest_of(path: Path) -> hashlib._Hash:
    """The same, to go on with."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest
