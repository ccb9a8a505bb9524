"""Which mask belongs to which picture, by names alone: NAME.mask.png beside NAME.jpg (or .png, or another picture)."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attnet.base.errors import DataError

ENDING = ".mask.png"  # in any case
_SHOWN = 4  # names in a message, at most, where none of them needs mending


def is_mask(file: Path) -> bool:
    """Whether a file is called as the mask of a picture beside it."""
    return file.name.lower().endswith(ENDING)


def mask_beside(picture: Path) -> Path:
    """Where the mask of a picture lies, whether or not it is there."""
    mask = picture.with_name(picture.stem + ENDING)
    others = []
    if not os.path.exists(mask):
        with contextlib.suppress(OSError):  # of the folder, which is said where the picture is read
            others = [file for file in picture.parent.iterdir() if is_mask(file) and _stem(file) == _stem(picture)]
    return min(others, default=mask)


def with_masks(files: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """The pictures among the files of one folder, in their order, and picture -> its mask where it has one.

    Raises:
        DataError: a mask without a picture, of two, or one of two of a picture.
    """
    pictures = [file for file in files if not is_mask(file)]
    masks: dict[str, list[Path]] = {}
    for mask in filter(is_mask, files):
        masks.setdefault(_stem(mask), []).append(mask)
    named: dict[str, list[Path]] = {}
    for picture in pictures:
        named.setdefault(_stem(picture), []).append(picture)
    if alone := [mask.name for stem, found in masks.items() for mask in found if stem not in named]:
        raise DataError(
            f"data_path: {files[0].parent}: {few(alone)}: no such picture beside it; NAME{ENDING} is the mask of "
            "NAME.jpg, NAME.png or the like. Put the picture there, call the mask as the picture, or take it away"
        )
    for stem, found in masks.items():
        if len(of := named[stem]) > 1:
            raise DataError(
                f"data_path: {found[0]} may be the mask of {few(one.name for one in of)}; give them different names"
            )
        if len(found) > 1:
            raise DataError(
                f"data_path: {of[0]} has two masks, {few(one.name for one in found)}; take away the one that is not "
                "meant"
            )
    return pictures, {named[stem][0]: found[0] for stem, found in masks.items()}


def perhaps_masks(pictures: Sequence[Path]) -> list[str]:
    """Names of pictures that are called as if they were masks of others among them: cat_mask.png beside cat.jpg."""
    stems = {_stem(picture) for picture in pictures}
    called = [(picture, re.fullmatch(r"(.+)[-_. ](mask|seg|segmentation)", _stem(picture))) for picture in pictures]
    return [picture.name for picture, found in called if found and found[1] in stems]


def _stem(file: Path) -> str:
    """A file's name without its ending; a letter with an accent is one, however the file's system spells it."""
    name = file.name[: -len(ENDING)] if is_mask(file) else file.stem
    return unicodedata.normalize("NFC", name)


def whole_parts(
    path: Path, parts: Mapping[str, Sequence[Path]], masks: Mapping[Path, Path]
) -> tuple[dict[Path, Path], list[str]]:
    """The masks of those parts where every picture has one, and a note of every part where only some have.

    Args:
        parts: what a part is for ("train") -> its pictures.
    """
    kept, notes = {}, []
    for use, pictures in parts.items():
        lacking = [picture.name for picture in pictures if picture not in masks]
        if not lacking:
            kept |= {picture: masks[picture] for picture in pictures}
        elif len(lacking) < len(pictures):
            notes.append(
                f"{path}: {len(lacking):,} of {len(pictures):,} pictures to {use} on have no mask NAME{ENDING} beside "
                f"them ({few(lacking)}), so the masks of the others are left out"
            )
    return kept, notes


def few(names: Iterable[str]) -> str:
    """The first names, in their order, and how many more."""
    names = sorted(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
