"""Data sets by name: each has its reader, and a new one is a line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from attnet.base.errors import DataError
from attnet.data import registry
from attnet.data.registry import FOLDER, ON_DISK, READERS, SHAPES, find_dataset, load_dataset, require_dataset
from attnet.data.splits import Dataset, Split


class Dots:
    """A reader of files of zeros and ones: an image a character."""

    def find(self, data_path: str | Path, name: str) -> Path | None:
        return next(iter(sorted(Path(data_path).glob("*.dots"))), None)

    def load(self, source: Path, name: str, size: int) -> Dataset:
        labels = torch.tensor([int(mark) for mark in source.read_text()])
        images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, size, size)
        return Dataset(*2 * (Split(images, labels),), ("off", "on"), name, str(source))

    def absent(self, data_path: str | Path | None, name: str) -> tuple[str, str]:
        return "a file that ends in .dots", "write one"


@pytest.fixture
def dots(monkeypatch) -> None:
    monkeypatch.setitem(READERS, "dots", Dots())


@pytest.mark.parametrize("name", READERS)
def test_every_reader_has_what_a_reader_needs(name):
    reader = registry._reader(name)
    wanted = ("find", "load", "absent") if name in ON_DISK else ("load",)
    assert all(callable(getattr(reader, function)) for function in wanted)


def test_a_reader_of_ones_own_is_found_and_read(dots, tmp_path):
    with pytest.raises(DataError) as error:
        load_dataset(tmp_path, "dots")
    assert str(error.value).startswith(f"data_path: {tmp_path} is an empty folder; expected at that path, or in it")
    assert str(error.value).endswith("a file that ends in .dots. write one")
    with pytest.raises(DataError, match="data_path: None, but dots is read from disk: give the path of a file"):
        load_dataset(None, "dots")
    (tmp_path / "a.dots").write_text("0110")
    assert require_dataset(tmp_path, "dots") == find_dataset(tmp_path, "dots") == tmp_path / "a.dots"
    data = load_dataset(tmp_path, "dots", 48)
    assert data.train.images.shape == (4, 3, 48, 48) and data.train.labels.tolist() == [0, 1, 1, 0]


def test_a_set_of_another_kind_is_named(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    assert find_dataset(tmp_path, FOLDER) == tmp_path
    with pytest.raises(DataError, match="is an image folder: ask for it as dataset=folder"):
        require_dataset(tmp_path, "cifar10")


def test_shapes_need_no_path_and_are_drawn_once():
    assert find_dataset(None, SHAPES) is None
    assert load_dataset(None, SHAPES) is load_dataset("anywhere", SHAPES)


def test_unknown_names_are_told_what_there_is():
    with pytest.raises(DataError, match=r"'mnist' is not a data set; known are cifar10, .*, folder, shapes$"):
        load_dataset(".", "mnist")


def test_a_place_that_may_not_be_looked_into_is_a_sentence_whoever_asks(dots, tmp_path, monkeypatch):
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "a.dots"))

    monkeypatch.setattr(Dots, "find", forbidden)
    for ask in (find_dataset, require_dataset, load_dataset):
        with pytest.raises(DataError, match=r"^data_path: .* cannot be read .*Permission denied.*; check its permis"):
            ask(tmp_path, "dots")
