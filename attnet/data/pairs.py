"""Which mask belongs to which picture, by names alone: NAME.mask.png beside NAME.jpg (or .png, or another picture)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attnet.base.errors import DataError

ENDING = ".mask.png"  # in any case
_SHOWN = 4  # names in a message, at most


def is_mask(file: Path) -> bool:
    """Whether a file is called as the mask of a picture beside it."""
    return file.name.lower().endswith(ENDING)


def mask_beside(picture: Path) -> Path:
    """Where the mask of a picture lies, whether or not it is there."""
    return picture.with_name(picture.stem + ENDING)


def with_masks(files: Sequence[Path]) -> tuple[list[Path], dict[Path, Path]]:
    """The pictures among the files of one folder, in their order, and picture -> its mask where it has one.

    Raises:
        DataError: a mask without a picture, or of two.
    """
    pictures = [file for file in files if not is_mask(file)]
    masks = {file.name[: -len(ENDING)]: file for file in files if is_mask(file)}
    named: dict[str, list[Path]] = {}
    for picture in pictures:
        named.setdefault(picture.stem, []).append(picture)
    if alone := [masks[stem].name for stem in masks if stem not in named]:
        raise DataError(
            f"data_path: {files[0].parent}: {_few(alone)}: no such picture beside it; NAME{ENDING} is the mask of "
            "NAME.jpg, NAME.png or the like. Put the picture there, call the mask as the picture, or take it away"
        )
    for stem, mask in masks.items():
        if len(of := named[stem]) > 1:
            raise DataError(
                f"data_path: {mask} may be the mask of {_few(one.name for one in of)}; give them different names"
            )
    return pictures, {named[stem][0]: mask for stem, mask in masks.items()}


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
                f"them ({_few(lacking)}), so the masks of the others are left out"
            )
    return kept, notes


def _few(names: Sequence[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else "")
