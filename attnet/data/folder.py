"""An image folder of the user's own as a data set: `dataset=folder`, with `data_path` naming it.

attnet folders PATH             checks a folder and says what is in it
attnet folders PATH --example   writes an example there first
"""

from __future__ import annotations

import argparse
import os
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attnet.base.errors import DataError, answer, in_sentences, printable
from attnet.base.files.paths import relative_to_root, resolve_path
from attnet.base.host import process_memory
from attnet.base.words import table
from attnet.data.folder_scan import RULE, FolderScan, is_image_folder, pictures_in, scan_folder
from attnet.data.objects import read_pairs
from attnet.data.pairs import ENDING, with_masks
from attnet.data.pictures import picture_size
from attnet.data.shapes import ARROW, KINDS, SIZE, draw_split
from attnet.data.splits import Dataset, Split

_SHOWN = 10  # pictures that cannot be read, of which a message gives the reasons; of more a file gives them all


def find(data_path: str | Path, name: str) -> Path | None:
    """The folder, where two folders in it or more hold pictures, whatever else may be wrong."""
    return resolve_path(data_path) if is_image_folder(data_path) else None


def absent(data_path: str | Path | None, name: str) -> tuple[str, str]:
    """What is needed; DataError where a look at the folder can say what is wrong with it."""
    if data_path is not None:
        scan_folder(data_path)
    return f"an image folder: {RULE}", "`attnet folders PATH` checks one"


def load(source: str | Path, name: str, size: int) -> Dataset:
    """Read an image folder (see `scan_folder` for how it must lie).

    Every picture comes as uint8 [3, size, size] (see `read_picture`): upright, on white where it is transparent, its
    middle square resized. Classes are numbered in the order of their names; a split begins with the first picture of
    every class, then comes the second …, so that its beginning shows them all. A split has `masks`, bool
    [N, size, size], where every picture of it has its NAME.mask.png beside it (see `read_pair`).

    Args:
        source: the folder; a relative one starts at the repository root.
        size: side in pixels, for instance a variant's `input_size`.

    Raises:
        DataError: a folder that lies otherwise, or pictures or masks that cannot be read.
    """
    return _load(scan_folder(source), size)


def is_pair_folder(path: str | Path) -> bool:
    """Whether pictures lie in a folder itself and it is no image folder: `load_pairs` takes it, or says what lacks."""
    try:
        return bool(pictures_in(resolve_path(path))) and not is_image_folder(path)
    except OSError:
        return False


def load_pairs(source: str | Path, size: int = 32) -> Split:
    """Read a folder of pictures without classes, each with its NAME.mask.png beside it; other files are left out.

    Args:
        source: the folder; a relative one starts at the repository root.
        size: side in pixels, as `network.size`.

    Returns:
        The pictures in the order of their names, as `read_pair` gives one: images, masks, and labels that are 0.

    Raises:
        DataError: no such folder, no pictures in it, one without its mask, a mask without its picture, or some that
            cannot be read.
    """
    path = resolve_path(source)
    try:
        pictures, masks = with_masks(pictures_in(path))
    except OSError as error:
        raise DataError(f"data_path: {printable(path)} cannot be read ({error.strerror}); give a folder") from None
    except DataError as error:
        raise DataError(printable(error)) from None
    rule = f"beside each NAME.jpg or .png the file NAME{ENDING} is needed, white where the object is"
    if not pictures:
        raise DataError(f"data_path: {printable(path)} holds no pictures itself; put some there: {rule}")
    if lacking := [printable(file.name) for file in pictures if file not in masks]:
        first = ", ".join(lacking[:_SHOWN]) + " …" * (len(lacking) > _SHOWN)
        raise DataError(
            f"data_path: {printable(path)}: {len(lacking):,} of {len(pictures):,} pictures have no mask beside them "
            f"({first}): {rule}. Paint the masks, or take these pictures away"
        )
    images, objects = _read_all(path, pictures, masks, size, lambda file: printable(file.name))
    return Split(images, torch.zeros(len(images), dtype=torch.int64), objects)


def _load(scan: FolderScan, size: int) -> Dataset:
    parts = [_in_turn(list(part.values())) for part in scan.parts]
    files = [file for part in parts for _, file in part]
    images, objects = _read_all(scan.path, files, scan.masks, size, scan.name)
    splits, start = [], 0
    for part in parts:
        here = slice(start, start := start + len(part))
        known = all(file in scan.masks for _, file in part)
        labels = torch.tensor([label for label, _ in part])
        splits.append(Split(images[here], labels, objects[here] if known else None))
    return Dataset(*splits, tuple(scan.train), "folder", printable(scan.path), scan.notes)


def _read_all(
    folder: Path, files: Sequence[Path], masks: Mapping[Path, Path], size: int, name: Callable[[Path], str]
) -> tuple[Tensor, Tensor]:
    """Images and objects as `read_pairs` gives them; DataError with the reasons where some cannot be read."""
    path = printable(folder)
    needed, there = (3 * len(files) + len(masks)) * size * size, process_memory().total
    if needed > there > 0:
        raise DataError(
            f"data_path: {path}: {len(files):,} pictures of {size} x {size} pixels take {needed / 2**30:.0f} GiB "
            f"of memory, and this machine has {there / 2**30:.0f}; take some away, or a network for smaller ones"
        )
    images, objects, errors = read_pairs(files, [masks.get(file) for file in files], size, name)
    if errors:
        what = "pictures or their masks" if masks else "pictures"
        raise DataError(
            f"data_path: {path}: {len(errors):,} of {len(files):,} {what} cannot be read: "
            f"{_reasons(path, errors)}. Mend them, or take them away"
        )
    return images, objects


def _reasons(path: str, errors: Sequence[DataError]) -> str:
    """Why pictures cannot be read: of many the first, and where all of them are written."""
    if len(errors) <= _SHOWN:
        return "; ".join(map(str, errors))
    text = "\n".join([f"Pictures in {printable(path)} that cannot be read:", *map(str, errors), ""])
    try:
        with tempfile.NamedTemporaryFile("wb", prefix="attnet-unreadable-", suffix=".txt", delete=False) as file:
            file.write(text.encode())
    except OSError:  # nowhere to write: then a long message
        return "; ".join(map(str, errors))
    first = "; ".join(map(str, errors[:_SHOWN]))
    return f"{first} … and {len(errors) - _SHOWN:,} more, all of them listed in {file.name}"


def _in_turn(classes: list[list[Path]]) -> list[tuple[int, Path]]:
    """Pictures with their labels."""
    turns = [(turn, label, file) for label, files in enumerate(classes) for turn, file in enumerate(files)]
    return [(label, file) for _, label, file in sorted(turns)]


def write_example(path: str | Path, images_per_class: int = 60, seed: int = 0) -> Path:
    """Write an example: PNG files of the ten kinds of `shapes` and of a new one, "arrow", one folder a class.

    None of its images is one of `shapes`. Their sides have 24 to 96 pixels; every third image is wide or high, with
    the object in the middle square.

    Args:
        path: a folder that is not there yet or empty; a relative one starts at the repository root.
        images_per_class: at least 2.
        seed: at least 0.

    Returns:
        The folder; it is there as a whole or not at all.

    Raises:
        DataError: there is something at `path` already.
    """
    path = resolve_path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"data_path: {path} is there already and not empty; give another path for the example")
    if images_per_class < 2:
        raise DataError(f"images_per_class={images_per_class}: give 2 or more, one to train and one to test on")
    kinds = *KINDS, ARROW
    split = draw_split(images_per_class * len(kinds), seed, 2, kinds)
    random = np.random.default_rng([seed, 2])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as beside:
            made = Path(beside) / path.name
            for label, kind in enumerate(kinds):
                (made / kind.name).mkdir(parents=True)
                for number, image in enumerate(split.images[split.labels == label]):
                    picture = _resized(image.permute(1, 2, 0).numpy(), number, random)
                    picture.save(made / kind.name / f"{kind.name}_{number:03d}.png")
            if path.exists():
                path.rmdir()
            os.replace(made, path)
    except OSError as error:
        raise DataError(f"data_path: {path} cannot be written ({error}); give another path") from error
    return path


def _resized(image: np.ndarray, number: int, random: np.random.Generator) -> Image.Image:
    """uint8 [32, 32, 3] at a size of its own; every third one goes on beyond two of its sides, as in a mirror."""
    if number % 3 == 0:
        beyond = int(random.integers(3, 14))
        sides = [(beyond, beyond), (0, 0), (0, 0)]
        image = np.pad(image, sides if number % 2 else [sides[1], sides[0], sides[2]], mode="symmetric")
    longer = max(image.shape[:2])
    scale = random.integers(-(-24 * longer // SIZE), 97) / longer
    height, width = (round(scale * side) for side in image.shape[:2])
    return Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)


def describe(scan: FolderScan) -> str:
    """The classes of a folder as a table, with the pictures in each part and their extreme sizes, and its notes."""
    rows = []
    for name, files in scan.train.items():
        sizes = sorted((picture_size(file) for file in files + scan.test[name]), key=lambda size: (min(size), size))
        rows.append([name, len(files), len(scan.test[name]), *("{} x {}".format(*sizes[end]) for end in (0, -1))])
    totals = ["all", *(sum(row[column] for row in rows) for column in (1, 2))]
    columns = ["class", "train", "test", "smallest (pixels)", "largest (pixels)"]
    return "\n".join([table(columns, [*rows, [*totals, "", ""]]), "", *scan.notes])


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, else as `attnet.base.words.in_sentences`."""
    parser = argparse.ArgumentParser(prog="attnet folders", description="Check an image folder.")
    parser.add_argument("path", metavar="PATH", help="the folder, from the repository root")
    parser.add_argument("--example", action="store_true", help="write an example of eleven classes there first")
    words = parser.parse_args(arguments)
    path = write_example(words.path) if words.example else resolve_path(words.path)
    scan = scan_folder(path)
    _load(scan, 32)  # reads every picture to its end
    answer(describe(scan))
    answer(f"train on it: attnet train --dataset folder --data_path {shlex.quote(printable(relative_to_root(path)))}")
    return 0
