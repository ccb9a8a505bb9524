"""What lies in an image folder of the user's: which pictures train and test which class, and what is wrong with it.

Only names are looked at here, never pixels; of a file without an ending the first bytes, too.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnet.base.errors import DataError, printable
from attnet.base.files.paths import resolve_path
from attnet.data.pairs import ENDING, few, perhaps_masks, whole_parts, with_masks

# Words in the names of parts, in any case, alone before others ("seg_train"); the first one that is there is taken.
TRAIN = ("train", "training", "trainset", "trainval", "训练", "训练集", "训练数据")
TESTS = (
    *("test", "testing", "tests", "testset", "测试", "测试集", "测试数据"),
    *("val", "valid", "validation", "valset", "验证集", "dev", "eval", "evaluation", "holdout"),
)
# Folders that systems and programs leave, in small letters; hidden ones begin with a dot.
_LEFT = {"__macosx", "__pycache__", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
SHARE = 5  # one in so many pictures of a class is set aside where there is no part to test on
ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif"),
    *(".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
# Of pictures that are not read here: a folder of them was meant as one of pictures.
_OTHER_ENDINGS = (".heic", ".heif", ".jp2", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".nef", ".arw", ".tga", ".ico")
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*")  # of pictures without an ending
RULE = "one folder a class, PATH/CLASS/picture.jpg, or PATH/train/CLASS and PATH/test/CLASS"


@dataclass(frozen=True)
class FolderScan:
    """The pictures of each class (in order of the names, of classes as of files) and what is odd, though not wrong.

    `masks` are the files of the objects' pixels, by picture, of the parts where every picture has one beside it.
    Classes and notes are text for every file and terminal; names that are not, are escaped there (see `printable`).
    """

    path: Path
    train: dict[str, list[Path]]
    test: dict[str, list[Path]]
    notes: tuple[str, ...]
    masks: dict[Path, Path] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
        return self.train, self.test

    def name(self, file: Path) -> str:
        """A file as a message calls it: from `path` on."""
        return printable(file.relative_to(self.path))


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie in a folder itself, masks among them, in order of their names; OSError as it comes."""
    return [file for file in _entries(folder)[1] if _is_picture(file)]


def is_image_folder(path: str | Path) -> bool:
    """Whether a folder was meant as one, wrong or not: there are two folders or more that hold pictures."""
    path = resolve_path(path)
    try:
        _entries(path)
    except OSError:
        return False
    try:
        meant = [_may_hold_pictures(folder) for folder in _entries(_parts(path)[0])[0]]
    except (OSError, DataError):  # a part that cannot be read, or told: it has parts
        return True
    return sum(meant) > 1


def _may_hold_pictures(folder: Path) -> bool:
    try:
        return any(_is_picture(file) or file.suffix.lower() in _OTHER_ENDINGS for file in _entries(folder)[1])
    except PermissionError:
        return True


def scan_folder(path: str | Path) -> FolderScan:
    """Find the classes and pictures of an image folder; hidden files are passed over.

    `path` holds one folder a class, or a part to train on with one folder a class and, to test on, another one with
    the same classes: `train` and `test` (or `val`), or names with a word of TRAIN and TESTS in them. Without pictures
    to test on, one in SHARE of each class, at least one, is set aside: those whose names have the lowest SHA-256, so
    they are the same on every machine.

    Args:
        path: the folder; a relative one starts at the repository root.

    Raises:
        DataError: no such folder, one that cannot be read, parts that cannot be told, no or one class, a class without
            pictures, with folders inside or in one part alone, or fewer than two pictures of it.
    """
    path = resolve_path(path)
    try:
        if not path.is_dir():
            what = "is a file; unpack it and give the folder" if path.exists() else "does not exist"
            raise DataError(f"data_path: {path} {what}. An image folder holds {RULE}")
        return _scan(path)
    except DataError as error:
        raise DataError(printable(error)) from None
    except OSError as error:
        way_out = "check its permissions" if isinstance(error, PermissionError) else "mend it, or take it away"
        words = f"data_path: {error.filename or path} cannot be read ({error.strerror}); {way_out}"
        raise DataError(printable(words)) from None


def _scan(path: Path) -> FolderScan:
    notes: list[str] = []
    masks: dict[Path, Path] = {}
    parts = _parts(path)
    found = [_classes(part, notes, masks) for part in parts]
    if parts[0] != path:
        notes += _about_parts(path, parts)
    if len(found) == 1:
        train, test = _set_aside(path, found[0])
        aside, whole = (sum(map(len, part.values())) for part in (test, found[0]))
        notes.append(
            f"{path}: no part to test on, so one in {SHARE} pictures of each class ({aside:,} of {whole:,}) is set "
            "aside, chosen by name: the same ones on every machine"
        )
    else:
        train, test = found
    if train.keys() != test.keys():
        sides = (parts[0], test.keys() - train.keys()), (parts[1], train.keys() - test.keys())
        lacks = " and ".join(f"{part.name} lacks {_all(missing)}" for part, missing in sides if missing)
        raise DataError(f"data_path: {path}: {lacks}; both parts need the same classes")
    uses = zip(("train", "test"), (train, test), strict=True)
    pictures = {use: [file for files in part.values() for file in files] for use, part in uses}
    masks, more = whole_parts(path, pictures, masks)
    return FolderScan(path, train, test, tuple(map(printable, notes + more)), masks)


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
    folders = _entries(path)[0]
    to_train = _called(folders, TRAIN)
    to_test = [folder for folder in _called(folders, TESTS) if folder not in to_train]
    # A class may be called so, too, "train" of vehicles: pictures lie in a class, folders in a part.
    if whole := [folder for folder in to_train if _entries(folder)[0]]:
        tests = [folder for folder in to_test if _entries(folder)[0]] or to_test
        chosen = [_first(whole, TRAIN), *([_first(tests, TESTS)] if tests else [])]
        return [_within(part) for part in chosen]
    named = [folder for folder in folders if folder.name.lower() in {*TRAIN, *TESTS}]
    if to_train and named == folders:
        return [to_train[0], *to_test[:1]]
    return [path]


def _called(folders: Sequence[Path], words: Sequence[str]) -> list[Path]:
    """The folders that are called by one of the words, best first."""
    return sorted((folder for folder in folders if _rank(folder, words)), key=lambda folder: _rank(folder, words))


def _rank(folder: Path, words: Sequence[str]) -> tuple[int, int] | None:
    """How well words describe a folder's name, low is good: one alone, then one among others, in their order."""
    said = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder.name).lower())
    places = [place for place, word in enumerate(words) if word in said]
    return (0 if folder.name.lower() in words else 1, places[0]) if places else None


def _first(parts: Sequence[Path], words: Sequence[str]) -> Path:
    """The best of some parts; DataError where two are as good."""
    if len(parts) > 1 and _rank(parts[0], words) == _rank(parts[1], words):
        raise DataError(
            f"data_path: {parts[0].parent}: {_all(part.name for part in parts)} may each be the part to "
            f"{'train' if words is TRAIN else 'test'} on; call the one that is meant {words[0]!r}, or take the others "
            "away"
        )
    return parts[0]


def _within(part: Path) -> Path:
    """Where a part really begins: many archives hold `seg_train/seg_train/CLASS`."""
    inner = _entries(part)[0]
    if len(inner) == 1 and inner[0].name == part.name and _entries(inner[0])[0]:
        return _within(inner[0])
    return part


def _about_parts(path: Path, parts: Sequence[Path]) -> list[str]:
    """What was taken for parts, where that is not plain, and what was not."""
    folders, files = _entries(path)
    notes = []
    if any(part.parent != path or part.name.lower() not in {*TRAIN, *TESTS} for part in parts):
        words = [f"{part.relative_to(path)} to {use} on" for part, use in zip(parts, ("train", "test"), strict=False)]
        notes.append(f"{path}: taken are {' and '.join(words)}, by their names")
    unused = [folder.name for folder in folders if not any(part.is_relative_to(folder) for part in parts)]
    if unused:
        notes.append(f"{path}: of its folders {few(unused)} is not used")
    if loose := [file.name for file in files if _is_picture(file)]:
        notes.append(f"{path}: {len(loose)} pictures beside its parts are left out ({few(loose)})")
    return notes


def _classes(part: Path, notes: list[str], masks: dict[Path, Path]) -> dict[str, list[Path]]:
    """Class -> its pictures; their masks are added to `masks`, and what else there is to `notes`."""
    folders, files = _entries(part)
    loose = [file.name for file in files if _is_picture(file)]
    if not folders:
        found = f"holds no folders, only {few(file.name for file in files)}" if files else "is empty"
        if loose:
            found = f"holds {len(loose)} pictures itself ({few(loose)}), which then have no class"
        raise DataError(f"data_path: {part} {found}. Needed is {RULE}")
    if len(folders) == 1:
        inner = [folder.name for folder in _entries(folders[0])[0]]
        hint = f"it holds the folders {few(inner)}: if these are the classes, give data_path={folders[0]}"
        raise DataError(
            f"data_path: {part} holds one class alone, {folders[0].name}, which leaves nothing to tell apart; "
            + (hint if inner else f"needed is {RULE}")
        )
    if loose:
        notes.append(f"{part}: {len(loose)} pictures in no class folder are left out ({few(loose)})")
    found, empty, nested, others = {}, [], [], Counter(_ending(file) for file in files if file.name not in loose)
    for folder in folders:
        inner, files = _entries(folder)
        pictures, beside = with_masks([file for file in files if _is_picture(file)])
        name = printable(unicodedata.normalize("NFC", folder.name))  # systems spell letters with accents in two ways
        if name in found:
            raise DataError(f"data_path: {part} holds two folders that can only be shown as {name}; rename one")
        found[name] = pictures
        masks |= beside
        if odd := perhaps_masks(pictures):
            notes.append(
                f"{folder}: {len(odd)} pictures are called as masks of others ({few(odd)}) and are taken for pictures "
                f"of {name}; call them NAME{ENDING}, or take them away"
            )
        rest = Counter(map(_ending, files)) - Counter(map(_ending, [*pictures, *beside.values()]))
        if inner:
            nested.append(f"{name} ({few(one.name for one in inner)})")
        elif not pictures:
            empty.append(f"{name} ({_counts(rest) or 'nothing in it'})")
        others += rest
    if nested:
        raise DataError(
            f"data_path: {part} has classes that hold folders themselves: {_all(nested)}. Move their pictures up, or "
            f"take them away; if they are parts to train and to test on, call them train and test. Needed is {RULE}"
        )
    if empty:
        raise DataError(
            f"data_path: {part} has classes without a picture: {_all(empty)}. Put some in, or take the folders away; "
            f"read are {' '.join(ENDINGS)}"
        )
    if others:
        notes.append(f"{part}: {others.total()} files without a picture's ending are left out ({_counts(others)})")
    return found


def _set_aside(path: Path, classes: dict[str, list[Path]]) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """The pictures to train on and those to test on, by class."""
    single = [name for name, files in classes.items() if len(files) < 2]
    if single:
        raise DataError(
            f"data_path: {path}: one picture alone of {_all(single)}; each class needs two or more, one of them to "
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
    """The folders and the files in a folder, sorted, without what is hidden or left by a system."""
    with os.scandir(folder) as found:
        entries = [entry for entry in found if not entry.name.startswith(".") and entry.name.lower() not in _LEFT]
    entries.sort(key=lambda entry: entry.name)  # paths themselves sort otherwise on Windows
    folders = {entry.name for entry in entries if entry.is_dir()}
    paths = [folder / entry.name for entry in entries]
    return [path for path in paths if path.name in folders], [path for path in paths if path.name not in folders]


def _is_picture(file: Path) -> bool:
    """By its ending or, where it has none, by its first bytes."""
    if file.suffix:
        return file.suffix.lower() in ENDINGS
    try:
        if not file.is_file():
            return False
        with open(file, "rb") as opened:
            return opened.read(8).startswith(_BEGINNINGS)
    except OSError:
        return False


def _ending(file: Path) -> str:
    return file.suffix.lower() or "without an ending"


def _counts(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _all(names: Iterable[str]) -> str:
    """Every name, since each of them needs mending."""
    return ", ".join(sorted(names))
