"""Data sets by name: which reader has which, finding them on disk, reading them.

A new format is a reader, a module or class with the functions of `Reader`, under its names in READERS.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from attnet.base.errors import DataError
from attnet.base.files.paths import expand_path
from attnet.data.splits import Dataset


class Reader(Protocol):
    """What a module of READERS has."""

    def find(self, data_path: str | Path, name: str) -> Path | None:
        """The file or folder of the set that is meant by `data_path`, or None when there is nothing."""

    def load(self, source: Path, name: str, size: int) -> Dataset:
        """Read it: uint8 images [N, 3, S, S] and int64 labels [N]; S is `size` where images have none of their own.

        DataError for anything missing, damaged, unsafe or of the wrong shape.
        """

    def absent(self, data_path: str | Path | None, name: str) -> tuple[str, str]:
        """Where `find` finds nothing: what is needed, and how to get it, as parts of a sentence.

        A reader that can say more of what is at `data_path` raises DataError itself.
        """


FOLDER, SHAPES = "folder", "shapes"
# name -> what reads it: a `Reader`, or the module that is one, loaded when it is asked for.
READERS: dict[str, str | Reader] = {
    "cifar10": "attnet.data.cifar",
    "cifar100": "attnet.data.cifar",
    "cifar100_coarse": "attnet.data.cifar",
    FOLDER: "attnet.data.folder",
    SHAPES: "attnet.data.shapes",
}
ON_DISK = tuple(name for name in READERS if name != SHAPES)


def load_dataset(data_path: str | Path | None, name: str = "cifar10", size: int = 32) -> Dataset:
    """Read one of `ON_DISK` at `data_path` (see `find_dataset`), or draw `shapes`, which needs none.

    Returns:
        Images uint8 [N, 3, S, S] in RGB, labels int64 [N]; S is 32, or `size` for an image folder.

    Raises:
        DataError: an unknown name, nothing at the path, or what is there is damaged, unsafe or of the wrong shape.
    """
    if name == SHAPES:
        return _reader(name).load(Path(), name, size)
    return _reader(name).load(require_dataset(data_path, name), name, size)


def require_dataset(data_path: str | Path | None, name: str) -> Path:
    """What `find_dataset` finds; DataError says what is there instead, and what is needed."""
    reader = _reader(name)
    if data_path is None:
        needed, fetch = reader.absent(None, name)
        raise DataError(f"data_path: None, but {name} is read from disk: give the path of {needed}. {fetch}")
    with _readable(data_path):
        if (source := reader.find(data_path, name)) is None:
            needed, fetch = reader.absent(data_path, name)
            raise DataError(f"data_path: {data_path} {_what_is_at(Path(data_path), name)}: {needed}. {fetch}")
    return source


def find_dataset(data_path: str | Path | None, name: str = "cifar10") -> Path | None:
    """The folder or archive that `load_dataset` would read, or None when there is nothing.

    Raises:
        DataError: an unknown name, or a place that cannot be looked into.
    """
    reader = _reader(name)
    if data_path is None or name == SHAPES:
        return None
    with _readable(data_path):
        return reader.find(data_path, name)


@contextlib.contextmanager
def _readable(data_path: str | Path) -> Iterator[None]:
    """DataError in place of what the disk answers."""
    try:
        yield
    except OSError as error:
        raise DataError(f"data_path: {data_path} cannot be read ({error}); check its permissions") from error


def _reader(name: str) -> Reader:
    if name not in READERS:
        raise DataError(f"name: {name!r} is not a data set; known are {', '.join(READERS)}")
    reader = READERS[name]
    return importlib.import_module(reader) if isinstance(reader, str) else reader


def _what_is_at(path: Path, name: str) -> str:
    """What there is instead of the set."""
    path, wanted = Path(expand_path(path)), "expected at that path, or in it"
    if not path.is_dir():
        return f"{'is a file of another kind' if path.exists() else 'does not exist'}; {wanted}"
    if other := next((o for o in ON_DISK if o != name and find_dataset(path, o)), None):
        found = "an image folder" if other == FOLDER else other
        return f"is {found}: ask for it as dataset={other}; {wanted}"
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    more = f" and {len(entries) - 8} more" if len(entries) > 8 else ""
    found = f"holds {', '.join(entries[:8])}{more}" if entries else "is an empty folder"
    return f"{found}; {wanted} (or, with dataset={FOLDER}, your own pictures in one folder a class)"
