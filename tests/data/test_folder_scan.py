"""Which pictures of an image folder train and test which class, and what is said when it lies otherwise."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(
    ("train", "test", "is_plain"),
    [
        ("Train", "test", True),
        ("train", "val", True),
        ("train", "Valid", True),
        ("TRAIN", "validation", True),
        ("Training", "Testing", True),
        ("训练集", "测试集", True),
        ("seg_train", "seg_test", False),
        ("training_set", "test_set", False),
        ("TrainImages", "TestImages", False),
        ("train2017", "val2017", False),
        ("seg_train/seg_train", "seg_test/seg_test", False),
    ],
)
def test_parts_to_train_and_to_test_on(tmp_path, train, test, is_plain):
    scan = scan_folder(lay(tmp_path, f"{train}/cat/*3", f"{train}/dog/*1", f"{test}/cat/*1", f"{test}/dog/*2"))
    assert names(scan.train) == {"cat": ["00.jpg", "01.jpg", "02.jpg"], "dog": ["00.jpg"]}
    assert [len(files) for files in scan.test.values()] == [1, 2]
    assert scan.name(scan.test["dog"][1]) == f"{test}/dog/01.jpg"
    assert is_image_folder(tmp_path)
    said = f"{tmp_path}: taken are {train} to train on and {test} to test on, by their names"
    assert scan.notes == (() if is_plain else (said,))


def test_of_parts_to_test_on_one_with_classes_is_taken(tmp_path):
    lay(tmp_path, "train/cat/*2", "train/dog/*2", "test/*5", "valid/cat/*1", "valid/dog/*1", "train_2/cat/*1", "a.jpg")
    scan = scan_folder(tmp_path)
    assert scan.name(scan.test["cat"][0]) == "valid/cat/00.jpg"
    assert "of its folders test, train_2 is not used" in scan.notes[0]
    assert "1 pictures beside its parts are left out (a.jpg)" in scan.notes[1]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            ["a_train", "b_train", "test"],
            "a_train, b_train may each be the part to train on; call the one that is meant",
        ),
        (["Train", "train"], "Train, train may each be the part to train on"),
        (["train", "x_test", "y_test"], "x_test, y_test may each be the part to test on; .* 'test'"),
    ],
)
def test_parts_that_cannot_be_told_are_asked_about(tmp_path, parts, words):
    lay(tmp_path, *(f"{part}/{name}/*2" for part in parts for name in ("cat", "dog")))
    with pytest.raises(DataError, match=words):
        scan_folder(tmp_path)
    assert is_image_folder(tmp_path)  # a question about it, not about CIFAR-10


def test_a_part_to_train_on_alone_is_divided_and_what_is_unused_is_said(tmp_path):
    scan = scan_folder(lay(tmp_path, "train/cat/*5", "train/dog/*5", "papers/x.pdf"))
    assert [len(files) for files in (*scan.train.values(), *scan.test.values())] == [4, 4, 1, 1]
    assert any("papers is not used" in note for note in scan.notes)
    lay(tmp_path, "val/cat/*1", "val/dog/*1", "test/cat/*2", "test/dog/*2")
    scan = scan_folder(tmp_path)
    assert len(scan.test["cat"]) == 2 and any("papers, val is not used" in note for note in scan.notes)


@pytest.mark.parametrize(
    "classes",
    [["bus", "train"], ["cat", "test"], ["bus", "test", "train"], ["bullet_train", "crash_test"], ["val", "valley"]],
)
def test_a_class_may_be_called_as_a_part_is(tmp_path, classes):
    assert list(scan_folder(lay(tmp_path, *(f"{name}/*2" for name in classes))).train) == classes


def test_a_name_is_a_class_as_it_is(tmp_path):
    names = [" cat", "Pepper,_bell", "cat", "cat "]
    scan = scan_folder(lay(tmp_path, *(f"{name}/*2" for name in names)))
    assert list(scan.train) == list(scan.test) == names
    assert all(files[0].parent.name == name and files[0].is_file() for name, files in scan.train.items())


def test_a_name_that_is_no_text_is_shown_escaped_and_read_as_it_is(tmp_path):
    for name in (b"\xb2\xe2\xca\xd4", b"cat"):
        folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        folder.mkdir()
        for number in range(6):
            Path(os.fsdecode(os.fsencode(folder) + b"/\xd0%d.jpg" % number)).touch()
    (tmp_path / os.fsdecode(b"\xff.jpg")).touch()
    scan = scan_folder(tmp_path)
    assert list(scan.train) == [r"cat", r"\xb2\xe2\xca\xd4"]
    file = scan.train[r"\xb2\xe2\xca\xd4"][0]
    assert file.is_file() and scan.name(file).startswith(r"\xb2\xe2\xca\xd4/\xd0")
    "".join([*scan.notes, *scan.train, scan.name(file)]).encode()
    assert r"\xff.jpg" in scan.notes[0]
    lay(tmp_path, r"\xb2\xe2\xca\xd4/*2")
    with pytest.raises(DataError, match="two folders that can only be shown as"):
        scan_folder(tmp_path)
    empty = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfe"))
    empty.mkdir()
    with pytest.raises(DataError, match=r"/\\xfe is empty") as error:
        scan_folder(empty)
    str(error.value).encode()


def test_a_picture_without_an_ending_is_known_by_its_first_bytes(tmp_path):
    lay(tmp_path, "cat/*2", "dog/*2", "dog/README")
    (tmp_path / "cat/n02").write_bytes(b"\xff\xd8\xff\xe0")
    os.mkfifo(tmp_path / "dog/pipe")  # opened, it would keep us waiting
    scan = scan_folder(tmp_path)
    assert "n02" in [file.name for file in scan.train["cat"] + scan.test["cat"]]
    assert any("2 files without a picture's ending are left out (2 without an ending)" in note for note in scan.notes)


@pytest.mark.parametrize("locked", ["dog", "dog/00.jpg", "train", "."])
def test_what_may_not_be_looked_into_is_named(tmp_path, monkeypatch, locked):
    """A folder's pixels are not looked at here; an unreadable picture is for those who read it."""
    path = lay(tmp_path / "mine", "cat/*2", "dog/*2", *(["train/cat/*2", "test/cat/*2"] if locked == "train" else []))
    place, scan = path / locked, os.scandir

    def scandir(folder):
        if Path(folder) == place:
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    if locked == "dog/00.jpg":
        assert len(scan_folder(path).train) == 2
        return
    with pytest.raises(DataError, match=re.escape(f"{place} cannot be read (Permission denied); check its perm")):
        scan_folder(path)
    assert is_image_folder(path) is (locked != ".")


def test_every_class_that_needs_mending_is_named(tmp_path):
    many = [f"class{number}" for number in range(12)]
    for files in ("{}/x.txt", "{}/*1", "{}/inner/*2"):
        path = lay(tmp_path / str(len(files)), "cat/*2", *(files.format(name) for name in many))
        with pytest.raises(DataError) as error:
            scan_folder(path)
        assert [name for name in many if not re.search(rf"\b{name}\b", str(error.value))] == []


def test_what_is_no_picture_is_left_out_and_counted(tmp_path):
    lay(tmp_path, "cat/*2", "dog/*2", "cat/a.heic", "cat/b.HEIC", "dog/Thumbs.db", "LICENSE", "overview.png")
    notes = "\n".join(scan_folder(tmp_path).notes)
    assert "4 files without a picture's ending are left out (1 .db, 2 .heic, 1 without an ending)" in notes
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
        (
            ["cat/*2", "dog/*2", "dog/big/*3"],
            ["{path} has classes that hold folders themselves: dog (big)", "train and"],
        ),
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
        (["cat/1.heic", "dog/1.HEIC"], True),
    ],
    ids=["classes", "parts", "one folder of pictures", "no classes", "of another kind"],
)
def test_what_is_taken_for_an_image_folder(tmp_path, files, is_one):
    assert is_image_folder(lay(tmp_path, *files)) is is_one
