"""An image folder as a data set: pixels, labels, refusals, the example, and the whole way from it to a run's masks."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attnet
from attnet.base.errors import ConfigError, DataError
from attnet.base.host import Memory
from attnet.data import folder as folders
from attnet.data.folder import load, write_example
from attnet.data.pictures import read_picture
from attnet.data.shapes import KINDS, make_shapes
from attnet.plots.viewer.explorer import Explorer

RED, BLUE = (255, 0, 0), (0, 0, 255)
TINY = {
    **{"device_type": "CPU", "model": "attention56_tiny", "mode": "rehearsal", "total_epochs": 1},
    **{"train_batch_size": 16, "progress": "none"},
}


def paint(file: Path, size: tuple[int, int], colour: tuple[int, ...] = RED, mode: str = "RGB") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour if mode != "L" else 128).save(file)


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> Path:
    """The example with six images a class."""
    return write_example(tmp_path_factory.mktemp("data") / "example", 6)


@pytest.fixture
def mine(tmp_path) -> Path:
    """Two classes, two pictures each."""
    for name, colour in (("blue", BLUE), ("red", RED)):
        for number in (1, 2):
            paint(tmp_path / "mine" / name / f"{number}.png", (40, 40), colour)
    return tmp_path / "mine"


# ---- reading ----


@pytest.mark.parametrize("size", [20, 32, 224])
def test_pictures_of_any_kind_become_one_size(tmp_path, size):
    paint(tmp_path / "red/a.jpg", (1000, 300))
    paint(tmp_path / "red/b.gif", (7, 90))
    paint(tmp_path / "red/c.webp", (64, 64), (*RED, 255), "RGBA")
    for number in range(3):
        paint(tmp_path / f"grey/{number}.png", (31 + number, 50), mode="L")
    data = load(tmp_path, "folder", size)
    assert data.classes == ("grey", "red") and data.name == "folder" and data.source == str(tmp_path)
    assert [len(data.train), len(data.test)] == [4, 2]
    assert data.test.labels.tolist() == [0, 1] and data.train.labels.dtype == torch.int64
    for split in (data.train, data.test):
        assert split.images.dtype == torch.uint8 and split.images.shape[1:] == (3, size, size)
        colours = torch.tensor([[128] * 3, RED])[split.labels]
        assert (split.images - colours[..., None, None]).abs().max() <= 2


def test_each_picture_is_read_as_any_other_picture_is(example):
    data, scan = load(example, "folder", 32), folders.scan_folder(example)
    assert data.train.labels.tolist() == [*range(11)] * 5  # the classes in turn
    for place in range(0, 55, 7):
        file = scan.train[data.classes[place % 11]][place // 11]
        assert torch.equal(data.train.images[place], read_picture(file, 32))


def test_pictures_that_cannot_be_read_are_named_and_counted(mine, tmp_path, monkeypatch):
    noise = Image.fromarray(np.random.RandomState(0).randint(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(mine / "red/cut.png")
    (mine / "red/cut.png").write_bytes((mine / "red/cut.png").read_bytes()[:5000])
    (mine / "blue/text.jpg").write_text("no picture")
    with pytest.raises(DataError) as error:
        load(mine, "folder", 32)
    for words in (str(mine), "2 of 6 pictures cannot be read", "blue/text.jpg is no", "red/cut.png is damaged", "Mend"):
        assert words in str(error.value)
    for number in range(40):
        (mine / f"blue/{number:03d}.jpg").touch()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DataError, match=r"42 of 46 .*… and 32 more, all of them listed in .*\.txt\.") as error:
        load(mine, "folder", 32)
    written = Path(re.search(r"listed in (\S+\.txt)", str(error.value))[1])
    lines = written.read_text(encoding="utf-8").splitlines()
    assert written.parent == tmp_path and str(mine) in lines[0] and len(lines) == 43
    for name in (*(f"blue/{number:03d}.jpg" for number in range(40)), "blue/text.jpg", "red/cut.png"):
        assert sum(f"picture {name} is" in line for line in lines) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"42 of 46") as error:
        load(mine, "folder", 32)
    assert str(error.value).count("it is empty") == 40  # nowhere to write: then all in the message


@pytest.mark.skipif(sys.platform != "linux", reason="others have no such names")
def test_many_unreadable_pictures_in_a_folder_whose_name_is_no_utf8(mine, tmp_path, monkeypatch):
    for number in range(20):
        (mine / f"blue/{number:03d}.jpg").touch()
    other = mine.rename(os.fsdecode(b"/".join([os.fsencode(tmp_path), b"caf\xe9"])))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DataError, match=r"listed in .*\.txt") as error:
        load(other, "folder", 32)
    written = Path(re.search(r"listed in (\S+\.txt)", str(error.value))[1])
    assert "caf\\xe9 that cannot be read" in written.read_text(encoding="utf-8")


def test_a_picture_too_large_to_unpack_is_refused_by_every_thread(mine, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # theirs have 1,600
    with pytest.raises(DataError, match=r"4 of 4 pictures cannot be read: .*too large to unpack safely"):
        load(mine, "folder", 32)
    assert not recwarn.list


def test_more_pictures_than_memory_are_refused_before_they_are_read(mine, monkeypatch):
    monkeypatch.setattr(folders, "process_memory", lambda: Memory(0, 0, 4 * 3 * 32 * 32 - 1))
    with pytest.raises(DataError, match=r"4 pictures of 32 x 32 pixels take 0 GiB"):
        load(mine, "folder", 32)
    assert len(load(mine, "folder", 31).train) == 2


def test_a_folder_of_odd_names_is_checked_and_read(tmp_path, capsys):
    folder = tmp_path / os.fsdecode(b"\xcd\xbc")
    names = [b" cat", b"Pepper,_bell", b"\xb2\xe2"]
    for shade, name in enumerate(names):
        for number in range(2):
            paint(folder / os.fsdecode(name) / os.fsdecode(b"\xca%d.png" % number), (30, 30), (80 * shade, 0, 0))
    assert folders.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert all(f"| {name.ljust(12)} |     1 |    1 |" in printed for name in (" cat", "Pepper,_bell", r"\xb2\xe2"))
    data = load(folder, "folder", 32)
    assert data.classes == (" cat", "Pepper,_bell", r"\xb2\xe2") and data.train.images[:, 0, 9, 9].tolist() == [
        0,
        80,
        160,
    ]
    "".join([printed, *data.classes, *data.warnings, data.source]).encode()
    (folder / os.fsdecode(names[2]) / os.fsdecode(b"\xca1.png")).write_bytes(b"")
    with pytest.raises(DataError, match=r"\\xb2\\xe2/\\xca1\.png is no picture that can be read, it is empty") as error:
        load(folder, "folder", 32)
    str(error.value).encode()


# ---- the example ----


def test_the_example_has_eleven_classes_of_many_sizes(example):
    data = load(example, "folder", 32)
    assert set(data.classes) == {kind.name for kind in KINDS} | {"arrow"} and len(data.classes) == 11
    assert torch.equal(data.train.labels.bincount() + data.test.labels.bincount(), torch.full((11,), 6))
    sizes = {Image.open(file).size for file in example.glob("*/*.png")}
    assert all(24 <= side <= 96 for size in sizes for side in size) and len(sizes) > 30
    assert {(width > height) - (width < height) for width, height in sizes} == {-1, 0, 1}


def test_the_object_stays_in_the_middle_square_and_is_none_of_shapes(tmp_path, monkeypatch):
    """Without scaling, every image is in the middle of its file as it was drawn."""
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "resize", lambda image, *_: image)
        example = write_example(tmp_path / "example", 4)
    known = {image.numpy().tobytes() for split in (make_shapes().train, make_shapes().test) for image in split.images}
    drawn = folders.draw_split(44, 0, 2, (*KINDS, folders.ARROW))
    for label, name in enumerate([*(kind.name for kind in KINDS), "arrow"]):
        files = sorted((example / name).iterdir())
        for file, image in zip(files, drawn.images[drawn.labels == label], strict=True):
            assert torch.equal(read_picture(file, 32), image) and image.numpy().tobytes() not in known


def test_the_example_is_the_same_again_and_never_overwrites(example, tmp_path):
    again = write_example(tmp_path / "again", 6)
    files = [file.relative_to(example) for file in example.glob("*/*.png")]
    assert len(files) == 66 and all((again / f).read_bytes() == (example / f).read_bytes() for f in files)
    with pytest.raises(DataError, match=f"{again} is there already and not empty"):
        write_example(again)
    assert [entry.name for entry in tmp_path.iterdir()] == ["again"]
    with pytest.raises(DataError, match="images_per_class=1"):
        write_example(tmp_path / "small", 1)


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(folders, "write_example", lambda path: write_example(path, 6))
    folders.main([str(tmp_path / "example"), "--example"])
    printed = capsys.readouterr().out
    assert "| arrow    |     5 |    1 |" in printed and "| all      |    55 |   11 |" in printed
    assert "set aside" in printed and f"--dataset folder --data_path {tmp_path / 'example'}" in printed
    (tmp_path / "example/star/star_000.png").write_bytes(b"")
    assert folders.main([str(tmp_path / "example")]) == 2
    assert re.search(r"^attnet: .*1 of 66 pictures cannot be read: .*star_000\.png", capsys.readouterr().err)


# ---- as the data set of a run ----


def test_it_is_taken_where_it_clearly_is_one(example):
    plan = attnet.make_plan(attnet.TrainConfig(**TINY, data_path=example))
    assert (plan.config.dataset, plan.config.num_classes) == ("folder", 11)
    assert plan.dataset_label == "folder example, 55 images" and plan.dataset.train.images.shape[-1] == 32
    assert f"data set folder, since {example} holds" in plan.choices[0] and "set aside" in plan.describe()
    with pytest.raises(DataError, match=r"is an image folder: ask for it as dataset=folder"):
        attnet.make_plan(attnet.TrainConfig(**TINY, data_path=example, dataset="cifar10"))
    with pytest.raises(DataError, match="data_path: None"):
        attnet.load_dataset(None, "folder")


def test_images_have_the_size_of_the_network(example):
    config = attnet.TrainConfig(**TINY | {"model": "attention56_224"}, data_path=example, cutout=16, normalize=True)
    plan = attnet.make_plan(config.replace(classes="arrow,star", train_images=8, train_batch_size=4))
    [batch] = next(iter(plan.train_batches().epoch(1)))
    assert batch.images.shape == (4, 3, 224, 224)
    assert next(iter(plan.test_batches())).images.shape == (2, 3, 224, 224)


def test_from_a_folder_to_a_run_to_its_masks(example, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(example, folder)
    config = attnet.TrainConfig(**TINY, data_path=folder, dataset="folder", output_dir=tmp_path / "run")
    result = attnet.fit(config)
    assert result.dataset == "folder pictures, 55 images" and len(result.per_class) == 11
    asked = attnet.TrainConfig(device_type="CPU", pretrained=tmp_path / "run")
    plan = attnet.plan_evaluation(asked)  # finds the folder where it was
    assert plan.dataset_label == "folder pictures, 11 test images" and plan.dataset.source == str(folder)
    assert attnet.evaluate_weights(plan, plan.config.pretrained).top1 == result.top1
    network, data = attnet.open_pretrained(tmp_path / "run")
    assert network.classes == data.classes and data.source == str(folder)
    assert attnet.capture_masks(network.model, data.test.images)["stage1.0"].shape[0] == 11
    assert f"load_dataset({str(folder)!r}, 'folder', 32)" in Explorer(network, data).code()

    moved = folder.rename(tmp_path / "moved")
    for gone in (lambda: attnet.plan_evaluation(asked), lambda: attnet.open_pretrained(tmp_path / "run")):
        with pytest.raises(DataError, match=rf"trained on the image folder {folder}, which is not there any more"):
            gone()
    assert attnet.plan_evaluation(asked.replace(data_path=moved)).dataset.source == str(moved)
    (moved / "disc").rename(moved / "circle")
    with pytest.raises(DataError, match=r"only here: circle; only there: disc"):
        attnet.plan_evaluation(asked.replace(data_path=moved))
    (moved / "circle").rename(moved / "disc")
    shutil.copytree(moved / "star", moved / "zebra")
    with pytest.raises(ConfigError, match="num_classes=11: folder has 12 classes"):
        attnet.plan_evaluation(asked.replace(data_path=moved))
