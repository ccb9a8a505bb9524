"""What lies in an image folder of the user's: which pictures train and test which class, and what is wrong with it.

Only names are looked at here, never pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnet.base.errors import DataError
from attnet.base.files import resolve_path

TRAIN, TESTS = "train", ("test", "val", "valid", "validation")  # parts of a folder, in any case; the first is taken
SHARE = 5  # one in so many pictures of a class is set aside where there is no part to test on
ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif"),
    *(".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
RULE = "one folder a class, PATH/CLASS/picture.jpg, or PATH/train/CLASS and PATH/test/CLASS"
_SHOWN = 4  # names in a message, at most


@dataclass(frozen=True)
class FolderScan:
    """The pictures of each class (in order of the names, of classes as of files) and what is odd, though not wrong."""

    path: Path
    train: dict[str, list[Path]]
    test: dict[str, list[Path]]
    notes: tuple[str, ...]

    @property
    def parts(self) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
        return self.train, self.test

    def name(self, file: Path) -> str:
        """A file as a message calls it: from `path` on."""
        return str(file.relative_to(self.path))


def is_image_folder(path: str | Path) -> bool:
    """Whether a folder was meant as one, wrong or not: there are two folders or more that hold pictures."""
    try:
        parts = _parts(resolve_path(path))
        classes = [folder for part in parts[:1] for folder in _entries(part)[0]]
        return sum(any(map(_is_picture, _entries(folder)[1])) for folder in classes) > 1
    except (OSError, DataError):
        return False


def scan_folder(path: str | Path) -> FolderScan:
    """Find the classes and pictures of an image folder; hidden files are passed over.

    `path` holds one folder a class, or `train` with one folder a class and, to test on, `test` (or `val`, `valid`,
    `validation`) with the same ones. Without pictures to test on, one in SHARE of each class, at least one, is set
    aside: those whose names have the lowest SHA-256, so they are the same on every machine.

    Args:
        path: the folder; a relative one starts at the repository root.

    Raises:
        DataError: no such folder, no or one class, a class without pictures, with folders inside or in one part
            alone, or fewer than two pictures of it.
    """
    path = resolve_path(path)
    if not path.is_dir():
        what = "is a file; unpack it and give the folder" if path.exists() else "does not exist"
        raise DataError(f"data_path: {path} {what}. An image folder holds {RULE}")
    notes: list[str] = []
    try:
        parts = _parts(path)
        found = [_classes(part, notes) for part in parts]
        if parts[0] != path and (unused := [folder.name for folder in _entries(path)[0] if folder not in parts]):
            notes.append(f"{path}: of its folders {_few(unused)} is not used")
    except OSError as error:
        raise DataError(f"data_path: {path} cannot be read ({error}); check its permissions") from error
    if len(found) == 1:
        train, test = _set_aside(path, found[0])
        aside, whole = (sum(map(len, part.values())) for part in (test, found[0]))
        notes.append(
            f"{path}: no part to test on, so one in {SHARE} pictures of each class ({aside:,} of {whole:,}) is set "
            "aside, chosen by name: the same ones on every machine"
        )
        return FolderScan(path, train, test, tuple(notes))
    train, test = found
    if train.keys() != test.keys():
        sides = (parts[0], test.keys() - train.keys()), (parts[1], train.keys() - test.keys())
        lacks = " and ".join(f"{part.name} lacks {_few(missing)}" for part, missing in sides if missing)
        raise DataError(f"data_path: {path}: {lacks}; both parts need the same classes")
    return FolderScan(path, train, test, tuple(notes))


def recorded_folder(recorded: Mapping[str, object], weights: str | Path) -> str:
    """The image folder that weights were trained on, by the parameters in their record.

    Raises:
        DataError: it is not there any more.
    """
    path = str(recorded.get("data_path", ""))
    if not is_image_folder(path):
        raise DataError(
            f"data_path: {weights} was trained on the image folder {path}, which is not there any more; say where it "
            "is now: data_path=PATH"
        )
    return path


def check_classes(classes: Sequence[str], source: str, trained: Sequence[str], weights: str | Path) -> None:
    """See that the labels of an image folder mean to a network what they meant in training.

    Raises:
        DataError: folders were added, renamed or taken away since, so that classes have other numbers.
    """
    if tuple(classes) != tuple(trained[: len(classes)]):
        here, there = set(classes), set(trained)
        raise DataError(
            f"data_path: {source} has not the classes that {weights} was trained on (only here: "
            f"{', '.join(sorted(here - there)) or 'none'}; only there: {', '.join(sorted(there - here)) or 'none'}); "
            "give the folder it was trained on, or one with the same names"
        )


def _parts(path: Path) -> list[Path]:
    """Where the classes are: `path` itself, or its part to train on and, if there is one, the part to test on."""
    folders = {folder.name.lower(): folder for folder in _entries(path)[0]}
    train = folders.get(TRAIN)
    # "train" may be a class, too, of vehicles: then pictures lie in it, beside classes of other names.
    if train is None or not (_entries(train)[0] or folders.keys() <= {TRAIN, *TESTS}):
        return [path]
    return [train, *[folders[name] for name in TESTS if name in folders][:1]]


def _classes(part: Path, notes: list[str]) -> dict[str, list[Path]]:
    """Class -> its pictures; what else there is is added to `notes`."""
    folders, files = _entries(part)
    loose = [file.name for file in files if _is_picture(file)]
    if not folders:
        found = f"holds no folders, only {_few(file.name for file in files)}" if files else "is empty"
        if loose:
            found = f"holds {len(loose)} pictures itself ({_few(loose)}), which then have no class"
        raise DataError(f"data_path: {part} {found}. Needed is {RULE}")
    if len(folders) == 1:
        inner = [folder.name for folder in _entries(folders[0])[0]]
        hint = f"it holds the folders {_few(inner)}: if these are the classes, give data_path={folders[0]}"
        raise DataError(
            f"data_path: {part} holds one class alone, {folders[0].name}, which leaves nothing to tell apart; "
            + (hint if inner else f"needed is {RULE}")
        )
    if loose:
        notes.append(f"{part}: {len(loose)} pictures in no class folder are left out ({_few(loose)})")
    found, empty, others = {}, [], Counter(map(_ending, files)) - Counter(map(_ending, map(Path, loose)))
    for folder in folders:
        inner, files = _entries(folder)
        if inner:
            raise DataError(
                f"data_path: {folder} is a class and holds folders itself ({_few(one.name for one in inner)}); move "
                f"their pictures up into it, or take them away. Needed is {RULE}"
            )
        found[folder.name] = [file for file in files if _is_picture(file)]
        rest = Counter(_ending(file) for file in files if not _is_picture(file))
        if not found[folder.name]:
            empty.append(f"{folder.name} ({_counts(rest) or 'nothing in it'})")
        others += rest
    if empty:
        raise DataError(
            f"data_path: {part} has classes without a picture: {_few(empty)}. Put some in, or take the folders away; "
            f"read are {' '.join(ENDINGS)}"
        )
    if others:
        notes.append(f"{part}: {others.total()} files that are no pictures are left out ({_counts(others)})")
    return found


def _set_aside(path: Path, classes: dict[str, list[Path]]) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """The pictures to train on and those to test on, by class."""
    single = [name for name, files in classes.items() if len(files) < 2]
    if single:
        raise DataError(
            f"data_path: {path}: one picture alone of {_few(single)}; each class needs two or more, one of them to "
            "test on"
        )
    train, test = {}, {}
    for name, files in classes.items():
        # By hash, not by order: numbers in names often stand for a day or a camera, of which both sides need some.
        ranked = sorted(files, key=lambda file: hashlib.sha256(os.fsencode(f"{file.parent.name}/{file.name}")).digest())
        chosen = set(ranked[: max(1, len(files) // SHARE)])
        test[name] = [file for file in files if file in chosen]
        train[name] = [file for file in files if file not in chosen]
    return train, test


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders and the files in a folder, sorted, without what is hidden or left by macOS."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    entries.sort(key=lambda entry: entry.name)  # paths themselves sort otherwise on Windows
    folders = [entry for entry in entries if entry.is_dir()]
    return folders, [entry for entry in entries if not entry.is_dir()]


def _is_picture(file: Path) -> bool:
    return file.suffix.lower() in ENDINGS


def _ending(file: Path) -> str:
    return file.suffix.lower() or "without ending"


def _counts(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _few(names: Iterable[str]) -> str:
    """The first names, and how many more."""
    names: Sequence[str] = sorted(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
