"""The explorer's controls, without a browser: each changes the picture, nothing breaks it, a saved view is code."""

import base64
import io
import os
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attnet
from attnet import plots
from attnet.base.errors import ConfigError, DataError
from attnet.data.shapes import KINDS, make_shapes
from attnet.data.splits import Dataset
from attnet.model.pretrained import Pretrained, load_pretrained
from attnet.plots import explorer as explorer_module
from attnet.plots.explorer import Explorer


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Pretrained:
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny")
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    names = [kind.name for kind in KINDS]
    torch.save({"model": model.state_dict(), "classes": names, "config": {"model": "attention56_tiny"}}, path)
    return load_pretrained(path)


@pytest.fixture(scope="module")
def shapes() -> Dataset:
    return attnet.load_dataset(None, "shapes")


@pytest.fixture
def explorer(network, shapes, tmp_path) -> Explorer:
    return Explorer(network, shapes, folder=tmp_path / "views")


def photo(width: int = 50, height: int = 40, seed: int = 0, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(seed).randint(0, 255, (height, width, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def upload(explorer: Explorer, name: str, content: bytes) -> None:
    """What the browser sends."""
    sent = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
    explorer.upload.value = (sent | {"last_modified": datetime(2020, 1, 1, tzinfo=timezone.utc)},)


def shown(explorer: Explorer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(explorer.png)).convert("RGB"))


@pytest.mark.parametrize(
    "moves",
    [
        [("number", 7)],
        [("module", "stage3.0")],
        [("part", "trunk")],
        [("part", "1/4")],
        [("part", "Grad-CAM")],
        [("reduction", "pca")],
        [("reduction", "channel"), ("channel", 9)],
        [("strength", 10)],
        [("intervention", "zero"), ("everywhere", True)],
        [("intervention", "inverse")],
    ],
    ids=lambda moves: "-".join(f"{name}={value}" for name, value in moves),
)
def test_every_move_changes_the_picture(explorer, moves):
    for name, value in moves:
        before = shown(explorer)
        getattr(explorer, name).value = value
        assert shown(explorer).shape == before.shape and not np.array_equal(shown(explorer), before), name
        assert explorer.message.value == ""


def test_the_picture_is_that_of_the_view(explorer):
    explorer.module.value, explorer.part.value, explorer.number.value = "stage2.0", "masked", 3
    buffer = io.BytesIO()
    dataset = explorer.dataset
    label = dataset.classes[dataset.test.labels[3]]
    figure = plots.plot_view(explorer.network, explorer.view, dataset.test.images[3], label)
    figure.savefig(buffer, dpi=explorer_module.DPI)
    assert np.array_equal(shown(explorer), np.asarray(Image.open(buffer).convert("RGB")))


def test_controls_offer_what_the_module_has_and_keep_what_they_can(explorer):
    def offered() -> list[str]:
        return [value for _, value in explorer.part.options]

    assert offered() == ["mask", "trunk", "masked", "input", "1/2", "1/4", "Grad-CAM"]
    explorer.part.value = "1/4"
    explorer.reduction.value, explorer.channel.value = "channel", 31
    explorer.module.value = "stage3.0"
    assert offered() == ["mask", "trunk", "masked", "input", "1", "Grad-CAM"]
    assert explorer.part.value == "mask" and explorer.channel.max == 127
    explorer.part.value, explorer.channel.value = "trunk", 100
    explorer.module.value = "stage1.0"
    assert explorer.part.value == "trunk" and (explorer.channel.max, explorer.channel.value) == (31, 31)
    assert explorer.view.reduction == "channel:31" and not explorer.channel.disabled
    explorer.reduction.value = "mean"
    assert explorer.channel.disabled
    explorer.part.value = "Grad-CAM"
    assert explorer.reduction.disabled


def test_picture_has_words_for_those_who_cannot_see_it(explorer):
    text = explorer.picture.value
    words = explorer.looker.look(explorer.image, explorer.view).sentence(explorer.label)
    assert f'alt="{words}"' in text and f'role="status" aria-live="polite" style="margin:0">{words}' in text
    every = [c for row in explorer.children[:3] for c in row.children]
    assert all(control.description for control in every)


def test_an_uploaded_picture_of_any_size(explorer):
    before = shown(explorer)
    upload(explorer, "holiday.png", photo(301, 97))
    assert explorer.source.label == "your picture: holiday.png" and explorer.label == ""
    assert not np.array_equal(shown(explorer), before)
    assert explorer.number.disabled
    upload(explorer, "second.png", photo(seed=1))
    assert [label for label, _ in explorer.source.options][1:] == [
        "your picture: holiday.png",
        "your picture: second.png",
    ]
    explorer.source.value = -1
    assert np.array_equal(shown(explorer), before)


def test_what_is_no_picture_is_refused_in_a_sentence(explorer):
    before = shown(explorer)
    upload(explorer, "notes <b>.txt", b"no picture")
    assert 'role="alert"' in explorer.message.value
    assert "picture notes &lt;b&gt;.txt is no picture that can be read" in explorer.message.value
    assert np.array_equal(shown(explorer), before) and len(explorer.source.options) == 1
    explorer.number.value = 5
    assert explorer.message.value == ""


@pytest.mark.parametrize("own", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["own picture", "data set"])
def test_a_saved_view_is_a_picture_and_the_code_that_draws_it(explorer, tmp_path, monkeypatch, own):
    if own:
        upload(explorer, "photo.jpg", photo(64, 48, kind="JPEG"))
    explorer.intervention.value = "mean"
    for _ in range(2):
        explorer.save.click()
    folder = tmp_path / "views"
    inputs = ["view-001-input.jpg", "view-002-input.jpg"] if own else []
    names = ["view-001.png", "view-001.py", "view-002.png", "view-002.py", *inputs]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert "view-002.py" in explorer.message.value and "View(" in explorer.message.value
    if own:
        monkeypatch.chdir(tmp_path)
        exec((folder / "view-002.py").read_text(), {})
    else:
        root = str(Path(attnet.__file__).parent.parent)
        again = [sys.executable, folder / "view-002.py"]
        subprocess.run(again, cwd=tmp_path, check=True, timeout=300, env={**os.environ, "PYTHONPATH": root})
    drawn, saved = (np.asarray(Image.open(p / "view-002.png")) for p in (tmp_path, folder))
    assert np.array_equal(drawn, saved)


def test_a_folder_that_cannot_be_written(network, shapes, tmp_path):
    (tmp_path / "file").write_text("")
    explorer = Explorer(network, shapes, folder=tmp_path / "file")
    explorer.save.click()
    assert 'role="alert"' in explorer.message.value and "give another folder=" in explorer.message.value


def test_without_widgets_there_is_a_picture(explorer, monkeypatch):
    monkeypatch.setattr(explorer_module, "somebody_looks", lambda: True)
    live = explorer._repr_mimebundle_()
    monkeypatch.setattr(explorer_module, "somebody_looks", lambda: False)
    still = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in live
    assert "application/vnd.jupyter.widget-view+json" not in still
    assert base64.b64decode(live["image/png"]) == base64.b64decode(still["image/png"]) == explorer.png


def test_own_pictures_alone_are_enough(network, tmp_path):
    (tmp_path / "mine.png").write_bytes(photo())
    explorer = Explorer(network, pictures=[tmp_path / "mine.png"])
    assert explorer.image.shape == (3, 32, 32) and "The network says" in explorer.picture.value
    with pytest.raises(ConfigError, match="give a data set or at least one picture"):
        Explorer(network)
    with pytest.raises(DataError, match="does not exist"):
        Explorer(network, pictures=[tmp_path / "none.png"])


def test_a_network_without_masks_shows_its_trunk():
    bare = Pretrained(attnet.build_model("attention56_tiny", attention="none").eval(), tuple("abcdefghij"), "none")
    data = make_shapes(10, 10)
    explorer = Explorer(bare, data)
    assert [value for _, value in explorer.part.options] == ["trunk", "masked", "input", "Grad-CAM"]
    assert explorer.label == "" and explorer.message.value == ""
    explorer.intervention.value = "zero"
    assert 'role="alert"' in explorer.message.value
