"""Masks of somebody's own pictures: which pixels are the object, at the network's input and in every refusal."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attnet.base.errors import ConfigError, DataError
from attnet.data.folder import load, load_pairs
from attnet.data.folder_scan import scan_folder
from attnet.data.objects import read_own, read_pair, region_of
from attnet.data.pictures import read_picture
from attnet.masks.compare import compare_localisation
from attnet.masks.localise import localise

DRAWN = np.array([[0, 0, 0, 0], [0, 255, 255, 0], [0, 255, 255, 255], [0, 0, 0, 0]], dtype=np.uint8)


def save(file: Path, pixels: np.ndarray, **options: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)
    return file


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def disc(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    near = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(height, width) / 3) ** 2
    return np.uint8(255 * near)


def pair(folder: Path, name: str, height: int = 40, width: int = 40, mask: np.ndarray | None = None) -> Path:
    save(folder / f"{name}.mask.png", disc(height, width) if mask is None else mask)
    return save(folder / f"{name}.png", noise(height, width, len(name)))


# ---- to the network's input ----


def test_a_pixel_is_the_object_when_at_least_half_of_it_is(tmp_path):
    # 6 x 4 pixels, of which the middle 4 x 4 are seen; two by two become one.
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[:2, 1:3] = 255  # the upper left one: column 1 of it whole, which is half, and column 0 is cut away
    mask[0, 3] = 255  # the upper right one: a quarter
    mask[2, 1] = mask[2, 2] = mask[3, 1] = 255  # the lower left one: three quarters by columns 1 and 2
    mask[2:, 3:5] = 127  # less than half of the range is black
    mask[3, 3] = mask[2, 4] = 128  # half, as half of the range is white
    file = pair(tmp_path, "cat", 4, 6, mask)
    split = read_pair(file, size=2)
    assert split.masks.dtype == torch.bool and split.masks.tolist() == [[[True, False], [True, True]]]
    assert torch.equal(split.images[0], read_picture(file, 2)) and split.labels.tolist() == [0]


def test_parts_of_pixels_count_as_their_areas(tmp_path):
    # Three to two: each of the two takes one and a half.
    thirds = np.zeros((3, 3), dtype=np.uint8)
    thirds[:, 1] = 255  # half a pixel of one and a half: a third
    thirds[0, 0] = 255  # and one of the 2.25 more: (0.75 + 1) / 2.25
    file = pair(tmp_path, "cat", 3, 3, thirds)
    assert read_pair(file, size=2).masks.tolist() == [[[True, False], [False, False]]]
    enlarged = read_pair(file, size=6).masks[0]
    assert torch.equal(enlarged, torch.from_numpy(thirds > 0).repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize(("height", "width"), [(90, 50), (47, 101), (20, 33)])
def test_the_object_lies_where_the_picture_shows_it(tmp_path, height, width):
    """White on black as the picture itself: its resized brightness and its mask agree but at the edge."""
    white = disc(height, width)
    file = save(tmp_path / "cat.png", white)
    image, mask = read_picture(file, 32)[0], read_pair(file, file).masks[0]
    assert mask.any() and not mask.all()
    assert image[mask].min() >= 110 and image[~mask].max() <= 145


def test_a_picture_that_its_exif_turns_has_a_mask_as_it_is_shown(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    lying = np.zeros((30, 40, 3), dtype=np.uint8)
    lying[:10, :20] = 255
    file = save(tmp_path / "cat.png", lying, exif=exif)
    shown = np.rot90(lying[..., 0], -1)
    save(tmp_path / "cat.mask.png", shown.copy())
    split = read_pair(file, size=30)
    assert torch.equal(split.masks[0], split.images[0, 0] > 127) and split.masks[0].any()
    save(tmp_path / "cat.mask.png", lying[..., 0].copy())
    with pytest.raises(DataError, match=r"mask .*cat.mask.png has 40 x 30 pixels and its picture 30 x 40.*EXIF"):
        read_pair(file)


def test_a_large_jpeg_has_the_mask_of_its_full_size(tmp_path):
    save(tmp_path / "cat.jpg", np.stack([disc(600, 800)] * 3, axis=2))
    save(tmp_path / "cat.mask.png", disc(600, 800))
    split = read_pair(tmp_path / "cat.jpg")
    assert ((split.images[0, 0] > 127) != split.masks[0]).float().mean() < 0.02


@pytest.mark.parametrize("kind", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "grey and transparent"])
def test_every_kind_of_png_says_the_same(tmp_path, kind):
    file = save(tmp_path / "cat.png", noise(4, 4))
    if kind == "I;16":
        mask = Image.fromarray(np.where(DRAWN > 0, 32768, 32767).astype(np.uint16))
    elif kind == "grey and transparent":  # white throughout, and the object alone is opaque
        mask = Image.fromarray(np.stack([np.full_like(DRAWN, 255)] * 3 + [DRAWN], axis=2))
    else:
        mask = Image.fromarray(DRAWN).convert(kind)
    mask.save(tmp_path / "cat.mask.png")
    assert torch.equal(read_pair(file, size=4).masks[0], torch.from_numpy(DRAWN > 0))


# ---- regions that are no files ----


def test_a_rectangle_a_polygon_an_array_and_a_file_are_one(tmp_path):
    file = pair(tmp_path, "cat", 20, 20, np.uint8(255 * np.pad(np.ones((8, 6)), ((4, 8), (5, 9)))))
    there = read_pair(file, size=20).masks
    pixels = np.asarray(Image.open(tmp_path / "cat.mask.png")) > 0
    corners = [(5, 4), (11, 4), (11, 12), (5, 12)]
    for region in (
        (5, 4, 11, 12), [4.6, 3.6, 11.4, 12.2], corners, torch.tensor(corners[::-1]), np.array(corners, float),
        pixels, torch.from_numpy(pixels), str(tmp_path / "cat.mask.png"), tmp_path / "cat.mask.png",
    ):  # fmt: skip
        assert torch.equal(read_pair(file, region, 20).masks, there), region
    assert there.sum() == 48


def test_a_polygon_holds_the_pixels_whose_centre_is_in_it(tmp_path):
    file = save(tmp_path / "cat.png", noise(8, 8))
    triangle = read_pair(file, [(0, 0), (8, 0), (0, 8)], 8).masks[0]
    y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    assert torch.equal(triangle, x + y + 1 < 8)
    other = read_pair(file, [(8, 0), (8, 8), (0, 8)], 8).masks[0]
    assert torch.equal(other, ~triangle)  # no pixel is in both or in neither
    beyond = read_pair(file, [(-9, -9), (4, -9), (4, 30), (-9, 30)], 8).masks[0]
    assert torch.equal(beyond, x < 4)
    ring = [(1, 1), (7, 1), (7, 7), (1, 7), (1, 1), (3, 3), (5, 3), (5, 5), (3, 5), (3, 3)]
    assert read_pair(file, ring, 8).masks.sum() == 36 - 4


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ((5, 4, 5, 12), r"region=\(5, 4, 5, 12\): a rectangle is \(left, top, right, bottom\)"),
        ([(0, 0), (8, 8)], "a polygon has three corners or more"),
        ([(0, 0), (8, float("nan")), (0, 8)], "every number must be finite"),
        ([(0, 0), (8,), (0, 8)], r"region=.*a rectangle \(left"),
        ((1, 2, 3), r"region of shape \[3\]"),
        (np.zeros((40, 40), np.uint8), r"dtype uint8: .*mask >= 128"),
        (np.zeros((30, 40), bool), r"shape \[30, 40\]: the picture has 40 rows of 40"),
        (np.zeros((40, 40), bool), "False at every pixel"),
        (torch.ones(40, 40, dtype=torch.bool), "True at every pixel"),
        (7, r"region of shape \[\]"),
        (object(), "dtype object"),
    ],
)
def test_what_is_no_region_is_refused(tmp_path, region, words):
    with pytest.raises(ConfigError, match=words):
        read_pair(pair(tmp_path, "cat"), region)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ((50, 50, 60, 60), "holds the centre of no pixel of the picture, which has 40 x 40"),
        ((-1, -1, 41, 41), "holds every pixel"),
        ((20, 20, 21, 21), r"nothing is left of its object .* 8 x 8 pixels .*at most 4 % of one"),
        ((0, 0, 40, 39), "its object is all of the middle square"),
    ],
)
def test_a_region_that_leaves_nothing_to_find_is_refused(tmp_path, region, words):
    with pytest.raises(DataError, match=words):
        read_pair(pair(tmp_path, "cat"), region, 8)


# ---- files that are no mask ----


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((40, 40), np.uint8), r"has no object: its brightest pixel is 0 of 255, and white \(128 or more\)"),
        (np.eye(40, dtype=np.uint8), r"has no object: its brightest pixel is 1 of 255.*times 255"),
        (np.full((40, 40), 255, np.uint8), "has no background: its darkest pixel is 255 of 255"),
        (
            np.zeros((40, 40), np.uint16),
            r"has no object: its brightest pixel is 0 of 65535, and white \(32768",
        ),
        (disc(20, 40), "has 40 x 20 pixels and its picture 40 x 40: each pixel"),
    ],
)
def test_a_file_that_is_no_mask_of_its_picture_is_named(tmp_path, mask, words):
    file = pair(tmp_path, "cat", mask=mask)
    with pytest.raises(DataError, match=rf"mask \S*cat\.mask\.png {words}"):
        read_pair(file)


def test_masks_are_read_as_safely_as_pictures(tmp_path, monkeypatch):
    file = pair(tmp_path, "cat", 20, 20)
    mask = tmp_path / "cat.mask.png"
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        with pytest.raises(DataError, match="too large to unpack safely"):
            read_pair(save(tmp_path / "small.png", noise(5, 5)), mask)
    mask.write_bytes(mask.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cat\.mask\.png is damaged"):
        read_pair(file)
    mask.write_text("no picture")
    with pytest.raises(DataError, match=r"cat\.mask\.png is no picture that can be read, it is a text"):
        read_pair(file)
    Image.fromarray(np.ones((20, 20), np.float32)).save(tmp_path / "cat.tif")
    with pytest.raises(DataError, match=r"cat\.tif has pixels of kind F: save it as a black and white PNG"):
        read_pair(file, tmp_path / "cat.tif")
    mask.unlink()
    with pytest.raises(DataError, match=r"has no mask beside it: .*cat\.mask\.png does not exist"):
        read_pair(file)


# ---- folders ----


def test_a_folder_of_pairs_is_a_split(tmp_path):
    for name, sides in (("b", (40, 50)), ("a", (33, 21)), ("c.d", (64, 64))):
        pair(tmp_path, name, *sides)
    (tmp_path / "notes.txt").touch()
    split = load_pairs(tmp_path, 16)
    assert split.images.shape == (3, 3, 16, 16) and split.masks.shape == (3, 16, 16)
    assert split.labels.tolist() == [0] * 3
    for place, name in enumerate(("a", "b", "c.d")):
        one = read_pair(tmp_path / f"{name}.png", size=16)
        assert torch.equal(split.images[place], one.images[0]) and torch.equal(split.masks[place], one.masks[0])


def test_what_is_wrong_with_a_folder_of_pairs_is_said(tmp_path):
    with pytest.raises(DataError, match=rf"^data_path: {tmp_path}/none cannot be read \(No such file"):
        load_pairs(tmp_path / "none")
    with pytest.raises(DataError, match=r"holds no pictures itself; .*NAME\.mask\.png is needed"):
        load_pairs(tmp_path)
    pair(tmp_path, "cat")
    save(tmp_path / "dog.png", noise(9, 9))
    with pytest.raises(DataError, match=r"1 of 2 pictures have no mask beside them \(dog\.png\).*Paint the masks"):
        load_pairs(tmp_path)
    (tmp_path / "dog.png").rename(tmp_path / "cat.bmp")
    with pytest.raises(DataError, match=r"cat\.mask\.png may be the mask of cat\.bmp, cat\.png; give them different"):
        load_pairs(tmp_path)
    (tmp_path / "cat.bmp").unlink()
    save(tmp_path / "eel.mask.png", disc(9, 9))
    with pytest.raises(DataError, match=rf"{tmp_path}: eel\.mask\.png: no such picture beside it; .*take it away"):
        load_pairs(tmp_path)
    save(tmp_path / "eel.png", noise(9, 8))
    with pytest.raises(DataError, match=r"1 of 2 pictures or their masks cannot be read: mask eel\.mask\.png has 9"):
        load_pairs(tmp_path)


@pytest.fixture
def classes(tmp_path) -> Path:
    """Two classes of six pictures, each with its mask."""
    for name in ("cat", "dog"):
        for number in range(6):
            pair(tmp_path / name, f"{name}{number}", 30 + number, 40)
    return tmp_path


def test_class_folders_with_masks_have_their_objects(classes):
    scan, data = scan_folder(classes), load(classes, "folder", 24)
    assert [len(data.train), len(data.test)] == [10, 2] and len(scan.masks) == 12 and len(scan.notes) == 1
    assert not any("mask" in file.name for part in scan.parts for files in part.values() for file in files)
    for split, part in ((data.train, scan.train), (data.test, scan.test)):
        assert split.masks.shape == (len(split), 24, 24)
        for place, label in enumerate(split.labels.tolist()):
            one = read_pair(part[data.classes[label]][place // 2], size=24)
            assert torch.equal(split.images[place], one.images[0]) and torch.equal(split.masks[place], one.masks[0])


def test_a_part_with_some_masks_has_none_and_says_so(classes):
    scan = scan_folder(classes)
    lost = scan.train["cat"][0]
    lost.with_name(f"{lost.stem}.mask.png").unlink()
    data = load(classes, "folder", 24)
    assert data.train.masks is None and data.test.masks is not None
    assert data.warnings[-1] == (
        f"{classes}: 1 of 10 pictures to train on have no mask NAME.mask.png beside them ({lost.name}), so the masks "
        "of the others are left out"
    )
    lost = scan.train["cat"][1]
    lost.unlink()
    with pytest.raises(DataError, match=rf"^data_path: {classes}/cat: {lost.stem}\.mask\.png: no such picture"):
        scan_folder(classes)


def test_without_masks_nothing_is_said(classes):
    for file in classes.glob("*/*.mask.png"):
        file.unlink()
    data = load(classes, "folder", 24)
    assert data.train.masks is None and data.test.masks is None and not re.search("masks? ", "".join(data.warnings))
    with pytest.raises(ConfigError, match=r"a NAME\.mask\.png beside each"):
        compare_localisation(torch.nn.Identity(), data.test)


def test_every_measure_takes_them(tmp_path):
    for name in ("cat", "a dog"):
        pair(tmp_path, name)
    split = load_pairs(tmp_path)
    found = localise(split.masks.float(), split.masks)
    for scores in (found.pointing, found.auroc, found.iou, found.energy):
        assert scores.tolist() == [1, 1]
    one = read_pair(tmp_path / "cat.png", (10, 10, 30, 30))
    assert localise(one.masks.float(), one.masks).area.item() == 0.25


# ---- told by the text of a parameter ----


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("1,2,9,8.5", [1, 2, 9, 8.5]),
        ("0,0 9,0 9,9", [[0, 0], [9, 0], [9, 9]]),
        ("masks/dog,1.png", "masks/dog,1.png"),
        ("5", [5]),
    ],
)
def test_numbers_are_a_rectangle_or_a_polygon_and_all_else_a_file(text, region):
    assert region_of(text) == region


def test_a_picture_is_read_with_what_is_told_of_its_object(tmp_path):
    file = pair(tmp_path, "dog", 40, 40)
    other = save(tmp_path / "other.png", np.roll(disc(40, 40), 5, axis=1))
    assert torch.equal(read_own(file).masks, read_pair(file).masks)
    assert torch.equal(read_own(file, str(other)).masks, read_pair(file, other).masks)
    assert torch.equal(read_own(file, "4,6,20,30", 20).masks, read_pair(file, (4, 6, 20, 30), 20).masks)
    alone = read_own(save(tmp_path / "alone.png", noise(9, 9)))
    assert alone.masks is None and alone.images.shape == (1, 3, 32, 32)
    with pytest.raises(ConfigError, match="region"):
        read_own(file, "1,2,3,4,5")
