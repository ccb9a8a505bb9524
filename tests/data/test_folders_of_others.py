"""Image folders and masks as systems, tools and other people leave them."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from attnet.base.errors import DataError
from attnet.data.folder import load_pairs
from attnet.data.folder_scan import scan_folder
from attnet.data.objects import read_own, read_pair

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def lay(path: Path, *names: str) -> Path:
    """Empty files, for nothing here looks into them."""
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    return path


def two_classes(path: Path) -> Path:
    return lay(path, *(f"{name}/{k}.jpg" for name in ("cat", "dog") for k in range(3)))


def paint(path: Path, name: str, is_mask: bool = False) -> None:
    image = Image.new("RGB", (16, 16))
    if is_mask:
        image.paste((255, 255, 255), (4, 4, 12, 12))
    image.save(path / name, "PNG")


@pytest.mark.parametrize(
    "left",
    ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found", "__MACOSX", "__pycache__"],
)
def test_folders_that_a_system_left_are_no_classes(left, tmp_path):
    plain = scan_folder(two_classes(tmp_path / "a"))
    odd = scan_folder(lay(two_classes(tmp_path / "b"), f"{left}/cat/0.jpg", f"cat/{left}/0.jpg"))
    assert {name: len(files) for name, files in odd.train.items()} == {"cat": 2, "dog": 2} and len(plain.notes) == 1
    assert len(odd.notes) == 1


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "dev"), ("trainval", "test"), ("Train", "eval"), ("train", "tests"), ("训练数据", "测试数据")],
)
def test_parts_by_names_that_people_use(train, test, tmp_path):
    scan = scan_folder(lay(two_classes(tmp_path / train).parent, *(f"{test}/{c}/0.jpg" for c in ("cat", "dog"))))
    assert [len(files) for files in scan.train.values()] == [3, 3] and len(scan.test["cat"]) == 1


def test_a_letter_with_an_accent_is_one_however_it_is_spelt(tmp_path):
    part = lay(tmp_path / "a", f"train/{NFD}/0.jpg", "train/x/0.jpg", f"test/{NFC}/0.jpg", "test/x/0.jpg")
    assert list(scan_folder(part).train) == list(scan_folder(part).test) == [NFC, "x"]
    with pytest.raises(DataError, match="holds two folders that can only be shown as café; rename one"):
        scan_folder(lay(tmp_path / "b", *(f"{name}/{k}.jpg" for name in (NFC, NFD) for k in range(2))))


def test_masks_are_found_however_their_names_are_spelt(tmp_path):
    for picture, mask in ((f"{NFC}.png", f"{NFD}.mask.png"), ("b.png", "b.Mask.PNG")):
        paint(tmp_path, picture)
        paint(tmp_path, mask, is_mask=True)
        assert read_own(tmp_path / picture, size=8).masks.any() and read_pair(tmp_path / picture, size=8).masks.any()
    assert load_pairs(tmp_path, 8).masks.shape == (2, 8, 8)


def test_of_two_masks_neither_is_taken_in_silence(tmp_path):
    lay(two_classes(tmp_path), "cat/0.mask.png", "cat/0.MASK.png")
    with pytest.raises(DataError, match=r"cat/0\.jpg has two masks, 0\.MASK\.png, 0\.mask\.png; take away"):
        scan_folder(tmp_path)


@pytest.mark.parametrize("name", ["0_mask.png", "0-mask.png", "0.mask.jpg", "0_seg.png"])
def test_what_is_called_as_a_mask_and_taken_for_a_picture_is_said(name, tmp_path):
    notes = scan_folder(lay(two_classes(tmp_path), f"cat/{name}", "dog/gas_mask.jpg")).notes
    said = [note for note in notes if "called as masks of others" in note]
    assert len(said) == 1 and f"({name})" in said[0] and "NAME.mask.png" in said[0]
