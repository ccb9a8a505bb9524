"""Which pictures of an image folder train and test which class, and what is said when it lies otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attnet.base.errors import DataError
from attnet.data.folder_scan import is_image_folder, scan_folder


def lay(path: Path, *names: str) -> Path:
    """Empty files, for nothing here looks into them; "cat/*10" stands for ten pictures."""
    path.mkdir(exist_ok=True)
    for name in names:
        folder, _, count = name.partition("*")
        for file in [path / name] if not count else [path / folder / f"{i:02d}.jpg" for i in range(int(count))]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    return path


def names(part: dict[str, list[Path]]) -> dict[str, list[str]]:
    return {name: [file.name for file in files] for name, files in part.items()}


def test_classes_and_pictures_come_in_the_order_of_their_names(tmp_path):
    lay(tmp_path, "dog/*2", "Ant/*2", "cat/b.PNG", "cat/a.jpeg", "cat/.hidden.jpg", ".git/x.jpg", "__MACOSX/a.jpg")
    scan = scan_folder(tmp_path)
    assert list(scan.train) == list(scan.test) == ["Ant", "cat", "dog"]
    assert sorted(names(scan.train)["cat"] + names(scan.test)["cat"]) == ["a.jpeg", "b.PNG"]
    assert is_image_folder(tmp_path)


def test_a_fixed_share_of_each_class_is_set_aside(tmp_path):
    scan = scan_folder(lay(tmp_path, "cat/*20", "dog/*9", "eel/*2"))
    assert {name: len(files) for name, files in scan.test.items()} == {"cat": 4, "dog": 1, "eel": 1}
    # By the names alone, hence the same on every machine.
    assert names(scan.test) == {"cat": ["02.jpg", "07.jpg", "09.jpg", "13.jpg"], "dog": ["01.jpg"], "eel": ["01.jpg"]}
    assert all(set(files).isdisjoint(scan.test[name]) for name, files in scan.train.items())
    assert len(scan.train["cat"]) == 16 and scan.train["cat"] == sorted(scan.train["cat"])
    assert len(scan.notes) == 1 and "(6 of 31) is set aside" in scan.notes[0] and str(tmp_path) in scan.notes[0]


@pytest.mark.parametrize("test", ["test", "val", "Valid", "validation"])
def test_parts_to_train_and_to_test_on(tmp_path, test):
    scan = scan_folder(lay(tmp_path, "Train/cat/*3", "Train/dog/*1", f"{test}/cat/*1", f"{test}/dog/*2"))
    assert names(scan.train) == {"cat": ["00.jpg", "01.jpg", "02.jpg"], "dog": ["00.jpg"]}
    assert [len(files) for files in scan.test.values()] == [1, 2] and scan.notes == ()
    assert scan.name(scan.test["dog"][1]) == f"{test}/dog/01.jpg"
    assert is_image_folder(tmp_path)


def test_a_part_to_train_on_alone_is_divided_and_what_is_unused_is_said(tmp_path):
    scan = scan_folder(lay(tmp_path, "train/cat/*5", "train/dog/*5", "papers/x.pdf"))
    assert [len(files) for files in (*scan.train.values(), *scan.test.values())] == [4, 4, 1, 1]
    assert any("papers is not used" in note for note in scan.notes)
    lay(tmp_path, "val/cat/*1", "val/dog/*1", "test/cat/*2", "test/dog/*2")
    scan = scan_folder(tmp_path)
    assert len(scan.test["cat"]) == 2 and any("papers, val is not used" in note for note in scan.notes)


def test_a_class_may_be_called_train(tmp_path):
    assert list(scan_folder(lay(tmp_path, "bus/*2", "train/*2")).train) == ["bus", "train"]


def test_what_is_no_picture_is_left_out_and_counted(tmp_path):
    lay(tmp_path, "cat/*2", "dog/*2", "cat/a.heic", "cat/b.HEIC", "dog/Thumbs.db", "LICENSE", "overview.png")
    notes = "\n".join(scan_folder(tmp_path).notes)
    assert "4 files that are no pictures are left out (1 .db, 2 .heic, 1 without ending)" in notes
    assert "1 pictures in no class folder are left out (overview.png)" in notes


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], ["{path} is empty", "one folder a class"]),
        (["notes.txt"], ["{path} holds no folders, only notes.txt"]),
        (["a.jpg", "b.jpg"], ["{path} holds 2 pictures itself (a.jpg, b.jpg)", "no class", "PATH/CLASS/picture.jpg"]),
        (["train/*2", "test/*2"], ["{path}/train holds 2 pictures itself", "PATH/train/CLASS"]),
        (["cat/*9"], ["{path} holds one class alone, cat"]),
        (["flowers/rose/*2", "flowers/iris/*2"], ["one class alone, flowers", "give data_path={path}/flowers"]),
        (["cat/*2", "dog/a.heic", "eel/.x"], ["classes without a picture: dog (1 .heic), eel (nothing in it)"]),
        (["cat/*2", "dog/*2", "dog/big/*3"], ["{path}/dog is a class and holds folders itself (big)"]),
        (["cat/*2", "dog/*1", "eel/*1"], ["{path}: one picture alone of dog, eel", "two or more"]),
        (
            ["train/cat/*1", "train/dog/*1", "train/eel/*1", "val/cat/*1", "val/fox/*1", "val/eel/*1"],
            ["{path}: train lacks fox and val lacks dog", "same classes"],
        ),
    ],
    ids=["empty", "text", "loose", "loose parts", "one", "too high", "no pictures", "nested", "few", "parts differ"],
)
def test_what_lies_otherwise_is_explained(tmp_path, files, words):
    path = lay(tmp_path / "mine", *files)
    with pytest.raises(DataError, match=r"^data_path: ") as error:
        scan_folder(path)
    assert [word for word in words if word.format(path=path) not in str(error.value)] == []


def test_no_folder_at_all(tmp_path):
    (tmp_path / "cats.zip").touch()
    for name, words in (("cats.zip", "is a file; unpack it"), ("dogs", "does not exist")):
        with pytest.raises(DataError, match=re.escape(f"{tmp_path / name} {words}")):
            scan_folder(tmp_path / name)
        assert not is_image_folder(tmp_path / name)


@pytest.mark.parametrize(
    ("files", "is_one"),
    [
        (["cat/*2", "dog/*2", "eel/x.txt"], True),
        (["train/cat/*1", "train/dog/*1", "test/cat/*1"], True),
        (["results/*9", "text/a.txt", "holiday.jpg"], False),
        (["train/*2", "test/*2"], False),
    ],
    ids=["classes", "parts", "one folder of pictures", "no classes"],
)
def test_what_is_taken_for_an_image_folder(tmp_path, files, is_one):
    assert is_image_folder(lay(tmp_path, *files)) is is_one
