"""CIFAR-10 and CIFAR-100 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009), read and checked.

Both are Python pickles, which `attnet.data.pickles` reads without unpickling; every count, shape and label is checked.
An archive is read as it is: nothing is unpacked to disk, nothing is followed, and memory has a bound whatever it says.
"""

import gzip
import hashlib
import re
import reprlib
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnet.base.errors import DataError, printable
from attnet.base.files.kinds import ARCHIVES, EMPTY, GZIP, SEEN, TAR, TEXT, kind_of
from attnet.base.files.opening import read_small
from attnet.base.files.paths import expand_path
from attnet.data import archive
from attnet.data.pickles import read_pickle
from attnet.data.splits import Dataset, Split

TRAIN, TEST, PIXELS = 50_000, 10_000, 3 * 32 * 32  # images of either set; numbers in an image


@dataclass(frozen=True)
class _Layout:
    """How one CIFAR set lies on disk; CIFAR-100 holds two, by its 100 classes and by their 20 superclasses."""

    name: str
    classes: int
    folder: str
    labels_key: str
    names_key: str
    md5: dict[str, str]  # of the original files; the first holds the class names, the last the test images

    @property
    def original(self) -> str:
        """What attnet.data.download calls it."""
        return self.name.removesuffix("_coarse")

    @property
    def archive(self) -> str:
        return f"cifar-{self.original.removeprefix('cifar')}-python.tar.gz"

    @property
    def fetch(self) -> str:
        return f"`attnet download {self.original}` fetches the original"


_MD5_10 = {
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_MD5_100 = {
    "meta": "7973b15100ade9c7d40fb424638fde48",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}
_LAYOUTS = {
    "cifar10": _Layout("cifar10", 10, "cifar-10-batches-py", "labels", "label_names", _MD5_10),
    "cifar100": _Layout("cifar100", 100, "cifar-100-python", "fine_labels", "fine_label_names", _MD5_100),
    "cifar100_coarse": _Layout(
        "cifar100_coarse", 20, "cifar-100-python", "coarse_labels", "coarse_label_names", _MD5_100
    ),
}
NAMES = tuple(_LAYOUTS)
_ARCHIVES = (".tar.gz", ".tgz", ".tar")  # the last is what a browser leaves that unpacks what it fetches
# What the two other versions of the sets are called, in names of archives, folders and files.
_OTHERS = {
    "binary": re.compile(r"cifar-100?-binary|cifar-10-batches-bin|(data_batch_\d|test(_batch)?|train)\.bin$"),
    "MATLAB": re.compile(r"cifar-100?-matlab|cifar-10-batches-mat|(data_batch_\d|test(_batch)?|train)\.mat$"),
}


def load(source: Path, name: str, size: int) -> Dataset:
    """Read one of NAMES from what `find` found: uint8 [N, 3, 32, 32] in RGB, int64 labels [N]; `size` does not matter.

    Files that differ from the originals only warn (UserWarning, and `Dataset.warnings`), because preprocessed copies
    are legitimate.

    Raises:
        DataError: anything missing, damaged, unsafe or of the wrong shape.
    """
    layout = _LAYOUTS[name]
    meta, *batches, last = layout.md5
    step = TRAIN // len(batches)
    rows = {file: slice(i * step, (i + 1) * step) for i, file in enumerate(batches)}
    rows[last] = slice(TRAIN, TRAIN + TEST)
    images, labels = np.empty((TRAIN + TEST, PIXELS), np.uint8), np.empty(TRAIN + TEST, np.int64)
    classes: tuple[str, ...] = ()
    altered, missing, held = [], dict(layout.md5), []
    for file, blob in _files(source, layout, held):
        if hashlib.md5(blob, usedforsecurity=False).hexdigest() != layout.md5[file]:
            altered.append(file)
        try:
            content = _unpickle(blob)
            if file == meta:
                classes = _class_names(content, layout)
            else:
                images[rows[file]], labels[rows[file]] = _batch(content, layout, len(labels[rows[file]]))
        except DataError as error:
            if (kind := kind_of(blob[:SEEN])) not in ("", EMPTY, TEXT):  # a pickle may be a text
                raise DataError(f"{source}/{file} is {kind}, and a pickle is needed; {layout.fetch}") from None
            raise DataError(f"{source}/{file} {error}. Move it away; {layout.fetch}") from error.__cause__
        missing.pop(file, None)
    if missing == layout.md5:
        raise DataError(f"{source} holds no file of {name}{_told(held, layout)}; {layout.fetch}")
    if missing:
        raise DataError(f"{source} lacks {', '.join(missing)} of {', '.join(layout.md5)}; {layout.fetch}")

    note = ""
    if altered:
        differ = f"{len(altered)} of {len(layout.md5)} files differ from the originals by md5"
        note = f"{source}: {differ} ({', '.join(altered)}). Fine if preprocessed; if not, {layout.fetch}"
        warnings.warn(note, UserWarning, stacklevel=3)
    pictures, answers = torch.from_numpy(images).view(-1, 3, 32, 32), torch.from_numpy(labels)
    splits = Split(pictures[:TRAIN], answers[:TRAIN]), Split(pictures[TRAIN:], answers[TRAIN:])
    return Dataset(*splits, classes, name, str(source), (note,) if note else ())


def find(data_path: str | Path, name: str) -> Path | None:
    """The folder or archive of the set at `data_path`, or None when there is nothing.

    `data_path` may be the set's folder (under any name), the folder that holds it or its `.tar.gz`, or a
    `.tar.gz`. The path of a set's folder also finds what lies beside it, so one path serves packed and unpacked,
    CIFAR-10 and CIFAR-100. A folder that lacks files gives way to an archive: an interrupted unpacking may have
    left it.
    """
    layout, path = _LAYOUTS[name], Path(expand_path(data_path))
    if path.is_file():
        packed = archive.is_packed(path) or path.name.lower().endswith(_ARCHIVES)
        return path if packed else None
    homes = [path, path.parent] if path.name in {other.folder for other in _LAYOUTS.values()} else [path]
    places = [path, *(home / layout.folder for home in homes)]
    held = {place: sum((place / file).is_file() for file in layout.md5) for place in places}
    # Any folder may hold something called "test": without the set's own name, it takes two files.
    folders = [f for f, files in held.items() if files >= (1 if f.name == layout.folder else 2)]
    whole = [f for f in folders if held[f] == len(layout.md5)]
    archives = [home / layout.archive.replace(".tar.gz", ending) for home in homes for ending in _ARCHIVES]
    return next(iter(whole + [file for file in archives if file.is_file()] + folders), None)


def absent(data_path: str | Path | None, name: str) -> tuple[str, str]:
    """What is needed at the path, and how to get it, as parts of a sentence.

    Raises:
        DataError: something is there that was meant, but is not what is read.
    """
    layout = _LAYOUTS[name]
    needed = f"the folder {layout.folder} ({', '.join(layout.md5)}) or {layout.archive}"
    path = Path(expand_path(data_path)) if data_path is not None else None
    if path is not None and path.exists():
        there = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
        if other := _other_version([path.name, *there]):
            raise DataError(f"data_path: {data_path} {other}; needed is {needed}. {layout.fetch}")
        kind = kind_of(read_small(path, SEEN) or b"") if path.is_file() else ""
        if kind not in ("", EMPTY):
            unpack = "; unpack it and give the folder" if kind in ARCHIVES else ""
            raise DataError(f"data_path: {data_path} is {kind}{unpack}. Needed is {needed}. {layout.fetch}")
    return needed, layout.fetch


def _other_version(names: Sequence[str]) -> str:
    """Which version of a set that is not read here some names speak of, as part of a sentence."""
    for version, called in _OTHERS.items():
        if found := next(filter(called.search, names), ""):
            return f"is or holds the {version} version of CIFAR ({found}), and the Python version is read"
    return ""


def _told(held: Sequence[str], layout: _Layout) -> str:
    """What an archive holds in place of the set, as part of a sentence."""
    folders = {part for name in held for part in name.split("/")[:-1]}
    if other := next((o for o in _LAYOUTS.values() if o.folder != layout.folder and o.folder in folders), None):
        return f", but {other.name}: ask for it as dataset={other.name}"
    if version := _other_version(held):
        return f": it {version}"
    return f", but {', '.join(held[:4])}{' …' * (len(held) > 4)}" if held else " nor any other"


def _files(source: Path, layout: _Layout, held: list[str]) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the set's files, from a folder or straight out of the archive; `held` gets all of its names.

    In an archive they may lie in their folder, wherever that is, or in none.
    """

    def wanted(member: str) -> bool:
        *above, file = member.split("/")
        held.append(member)
        return file in layout.md5 and above[-1:] in ([], [layout.folder])

    try:
        if source.is_dir():
            for file in layout.md5:
                if (source / file).is_file():
                    size, most = (source / file).stat().st_size, _most_bytes(layout)
                    if size > most:
                        raise DataError(f"{source}/{file} has {size:,} bytes, more than {most:,}; {layout.fetch}")
                    yield file, (source / file).read_bytes()
            return
        for member, blob in archive.members(source, wanted, _most_bytes(layout)):
            yield member.rpartition("/")[2], blob
    except (EOFError, tarfile.TarError, zlib.error, gzip.BadGzipFile) as error:
        kind = kind_of(read_small(source, SEEN) or b"")
        what = f"damaged, perhaps half a download ({source.stat().st_size:,} bytes; {error})"
        what = kind if kind not in ("", EMPTY, GZIP, TAR) else what
        raise DataError(f"{source} is {what}. Move it away; {layout.fetch}") from error
    except OSError as error:
        raise DataError(f"{source} cannot be read ({error}); check its permissions") from error


def _most_bytes(layout: _Layout) -> int:
    """Bytes of the set's largest file, however it is written down: pickle's oldest protocol takes four for one."""
    return 4 * PIXELS * (TRAIN // (len(layout.md5) - 2)) + (32 << 20)


def _unpickle(blob: bytes) -> dict[str, Any]:
    """The dict in a pickle of Python 2 or Python 3, with keys as str."""
    content = read_pickle(blob)
    if not isinstance(content, dict):
        raise DataError(f"holds a {type(content).__name__} where a dict is expected")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): content[key] for key in content}


def _get(content: dict[str, Any], key: str, layout: _Layout) -> Any:
    if key not in content:
        raise DataError(f"has no `{key}`, only {reprlib.repr(sorted(content))}: not a file of {layout.name}")
    return content[key]


def _batch(content: dict[str, Any], layout: _Layout, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, uint8 [rows, 3072] (the red plane line by line, then green, blue), and labels, int [rows]."""
    key = layout.labels_key
    data, labels = _get(content, "data", layout), _get(content, key, layout)
    kind = data.dtype if isinstance(data, np.ndarray) else type(data).__name__
    if kind != np.uint8:
        raise DataError(f"has pixels in `data` of type {kind}; they must be a numpy array of uint8")
    if data.ndim != 2 or data.shape[1] != PIXELS:
        raise DataError(f"has `data` of shape {data.shape}; 32x32 RGB images, one a row, are (n, {PIXELS})")
    if len(data) != rows:
        raise DataError(f"holds {len(data):,} images where {rows:,} are expected")
    if isinstance(labels, list | tuple):
        odd = [label for label in labels if type(label) is not int or abs(label) >= 1 << 63]
        if odd:
            raise DataError(f"has `{key}` with {reprlib.repr(odd[0])} among them; whole numbers are needed")
        labels = np.array(labels, np.int64)
    if not isinstance(labels, np.ndarray):
        raise DataError(f"has `{key}` of type {type(labels).__name__}; they must be one whole number an image")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"has `{key}` of {labels.dtype} {labels.shape}; it must be one whole number an image")
    if len(labels) != rows:
        raise DataError(f"has {len(labels):,} `{key}` for {rows:,} images")
    wrong = np.flatnonzero((labels < 0) | (labels >= layout.classes))
    if wrong.size:
        bad = f"{labels[wrong[0]]} at position {wrong[0]}, {wrong.size:,} such in all"
        raise DataError(f"has `{key}` outside 0 to {layout.classes - 1} ({bad})")
    return data, labels


def _class_names(content: dict[str, Any], layout: _Layout) -> tuple[str, ...]:
    names = _get(content, layout.names_key, layout)
    if isinstance(names, list | tuple):
        names = [name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name for name in names]
        if all(isinstance(name, str) for name in names):
            names = [printable(name) for name in names]  # they go into every figure, record and terminal
            if len(names) == len(set(names)) == layout.classes:
                return tuple(names)
    raise DataError(f"must give {layout.classes} different names in `{layout.names_key}`, not {reprlib.repr(names)}")
