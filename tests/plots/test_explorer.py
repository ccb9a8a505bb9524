"""The explorer without a browser: every move changes what is sent, nothing breaks it, a saved view is code."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from PIL import Image

import attnet
from attnet import explore_command
from attnet.base.errors import ConfigError, DataError
from attnet.data.shapes import KINDS, make_shapes
from attnet.data.splits import Dataset
from attnet.masks.reduce import reduce_channels
from attnet.model.pretrained import Pretrained, load_pretrained
from attnet.plots.viewer import explorer as explorer_module
from attnet.plots.viewer.explorer import Explorer
from attnet.plots.viewer.film import Reel
from attnet.plots.viewer.selection import read_selection


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
    return make_shapes(40, 40)


@pytest.fixture
def explorer(network, shapes, tmp_path) -> Explorer:
    return Explorer(network, shapes, folder=tmp_path / "views")


def photo(width: int = 50, height: int = 40, seed: int = 0, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.RandomState(seed).randint(0, 255, (height, width, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def numbers(explorer: Explorer, entry: dict) -> np.ndarray:
    """What the browser reads of a block."""
    whole = np.frombuffer(explorer.numbers, "<u2")[entry["at"] : entry["at"] + entry["n"]].astype(float)
    return entry["lo"] + whole * (entry["hi"] - entry["lo"]) / 65535


def pixels(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


@pytest.mark.parametrize(
    "move",
    [
        {"image": {"set": "test", "n": 7}},
        {"part": "trunk"},
        {"part": "1/4"},
        {"part": "Grad-CAM"},
        {"replaced": "inverse"},
        {"replaced": "zero", "everywhere": True},
    ],
    ids=str,
)
def test_every_move_is_answered_with_other_numbers(explorer, move):
    before = explorer.numbers
    explorer.move(**move)
    assert explorer.numbers != before and not explorer.said
    assert explorer.answer["id"] == explorer.asked["id"] == 1


def test_the_numbers_are_those_of_the_masks(explorer, network, shapes):
    explorer.move(image={"set": "test", "n": 3})
    masks = attnet.capture_masks(network.model, shapes.test.images[3])
    for name, panel in explorer.answer["panels"].items():
        mask = masks[name][0]
        shown = numbers(explorer, panel["channels"]).reshape(-1, panel["h"], panel["w"])
        assert np.abs(shown - mask[panel["numbers"]].numpy()).max() < 1e-4
        spread = mask.flatten(1).std(dim=1, correction=0)[panel["numbers"]]
        assert (spread[:-1] >= spread[1:] - 1e-6).all(), "those that vary most first"
        assert np.abs(numbers(explorer, panel["maps"]["max"]) - mask.amax(0).flatten().numpy()).max() < 1e-4
    picture = explorer.answer["picture"]
    assert np.array_equal(pixels(picture["src"]), shapes.test.images[3].permute(1, 2, 0).numpy())
    assert picture["label"] == shapes.classes[shapes.test.labels[3]]
    assert sum(explorer.answer["p"]) == pytest.approx(1, abs=1e-3)


def test_a_costly_reduction_comes_when_it_is_asked_for(explorer, network):
    assert set(explorer.answer["panels"]["stage1.0"]["maps"]) == {"mean", "max", "l2", "std"}
    explorer.move(reduction="pca")
    entry = explorer.answer["panels"]["stage1.0"]["maps"]["pca"]
    image = explorer.dataset.test.images[explorer.asked["image"]["n"]]
    mask = attnet.capture_masks(network.model, image)["stage1.0"]
    assert np.abs(numbers(explorer, entry) - reduce_channels(mask, "pca").flatten().numpy()).max() < 1e-3


def test_it_opens_on_an_image_that_tells_something_and_the_best_reduction(explorer):
    start = explorer.film["start"]
    assert (start["module"], start["reduction"]) == ("stage3.0", "max")
    assert start["image"] == {key: explorer.film["images"][0][key] for key in ("set", "n")}
    assert len({image["n"] for image in explorer.film["images"]}) == explorer_module.STRIP


def test_fields_of_the_film_are_those_of_the_network(explorer):
    assert [module["name"] for module in explorer.film["modules"]] == ["stage1.0", "stage2.0", "stage3.0"]
    assert [part for part, _ in explorer.film["parts"]] == [
        *("mask", "trunk", "masked", "input", "Grad-CAM", "1/2", "1/4", "1"),
    ]
    assert explorer.film["total"] == 40 and explorer.film["live"]


def test_a_photograph_stays_as_it_is_and_its_regions_are_one_batch(explorer, network):
    content = photo(301, 97)
    explorer._told(explorer, {"kind": "upload", "name": "holiday.png"}, [memoryview(content)])
    assert explorer.film["images"][0]["name"] == "holiday.png"
    explorer.move(image={"set": "own", "n": 0}, regions=None)
    shown = explorer.answer["picture"]["photo"]
    assert (shown["w"], shown["h"], shown["regions"]) == (301, 97, ((102, 0, 97),))
    assert pixels(explorer.answer["picture"]["src"]).shape == (97, 301, 3)
    explorer.move(regions=[[0, 0, 97], [400, -5, 60]], active=1)
    assert explorer.answer["picture"]["photo"]["regions"] == ((0, 0, 97), (241, 0, 60)), "kept inside"
    assert len(explorer.answer["regions"]) == 2
    eye = pixels(explorer.answer["picture"]["eye"])
    cropped = Image.open(io.BytesIO(content)).crop((241, 0, 301, 60)).resize((32, 32), Image.Resampling.LANCZOS)
    assert np.abs(eye.astype(int) - np.asarray(cropped)).max() <= 1
    mask = attnet.capture_masks(network.model, torch.from_numpy(eye.copy()).permute(2, 0, 1))["stage1.0"][0]
    entry = explorer.answer["panels"]["stage1.0"]["maps"]["max"]
    assert np.abs(numbers(explorer, entry) - mask.amax(0).flatten().numpy()).max() < 1e-3


def test_what_is_no_picture_is_refused_in_a_sentence(explorer):
    before = explorer.film["images"]
    explorer._told(explorer, {"kind": "upload", "name": "notes <b>.txt"}, [memoryview(b"no picture")])
    assert explorer.said["alarm"] and "notes <b>.txt is no picture that can be read" in explorer.said["text"]
    assert explorer.film["images"] == before
    explorer.move(image={"set": "test", "n": 5})
    assert not explorer.said


@pytest.mark.parametrize(
    ("move", "message"),
    [
        ({"image": {"set": "test", "n": 40}}, "image=40: a whole number from 0 to 39"),
        ({"image": {"set": "own", "n": 0}}, "image=0: "),
        ({"image": "7"}, "image=None: "),
        ({"network": 1}, "network=1: "),
        ({"epoch": -1}, "epoch=-1: "),
        ({"module": "stage9.0", "replaced": "zero"}, "module='stage9.0'"),
        ({"part": "soul"}, "part='soul'"),
        ({"replaced": "halved"}, "intervention='halved'"),
    ],
    ids=str,
)
def test_what_is_not_there_is_said_and_nothing_is_lost(explorer, move, message):
    before = explorer.answer
    explorer.move(**move)
    assert message in explorer.said["text"] and explorer.said["id"] == explorer.asked["id"]
    assert explorer.answer == before
    explorer.move(**{name: explorer.film["start"][name] for name in move})
    assert not explorer.said and explorer.answer["id"] == 2


@pytest.mark.parametrize("regions", [[[1, 2]], [["a", 0, 5]], ["square"], [[0, 0, None]]])
def test_regions_that_are_none_are_refused(regions):
    said = {"image": {"set": "own", "n": 0}, "module": "m", "part": "mask", "regions": regions}
    with pytest.raises(ConfigError, match="left, top and side"):
        read_selection(said, 0, [(50, 40)], [1])


@pytest.mark.parametrize("own", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["own picture", "data set"])
def test_a_saved_view_is_a_picture_and_the_code_that_draws_it(explorer, tmp_path, monkeypatch, own):
    if own:
        explorer.add_picture(photo(64, 48, kind="JPEG"), "photo.jpg")
        explorer.move(image={"set": "own", "n": 0}, regions=[[3, 4, 40]])
    explorer.move(replaced="mean", channel=3)
    for _ in range(2):
        explorer._told(explorer, {"kind": "save", **explorer.asked}, [])
    folder = tmp_path / "views"
    inputs = ["view-001-input.png", "view-002-input.png"] if own else []
    names = ["view-001.png", "view-001.py", "view-002.png", "view-002.py", *inputs]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert "view-002.py" in explorer.said["text"] and "channel:3" in explorer.said["code"]
    if own:
        monkeypatch.chdir(tmp_path)
        exec((folder / "view-002.py").read_text(), {})
    else:
        root = str(Path(attnet.__file__).parent.parent)
        again = [sys.executable, folder / "view-002.py"]
        subprocess.run(again, cwd=tmp_path, check=True, timeout=300, env={**os.environ, "PYTHONPATH": root})
    drawn, saved = (np.asarray(Image.open(p / "view-002.png")) for p in (tmp_path, folder))
    assert np.array_equal(drawn, saved)


def test_a_theatre_of_what_is_shown(explorer, tmp_path):
    explorer._told(explorer, {"kind": "html", **explorer.asked}, [])
    assert "masks-001.html" in explorer.said["text"]
    assert (tmp_path / "views" / "masks-001.html").read_text().startswith("<!DOCTYPE html>")


def test_a_folder_that_cannot_be_written(network, shapes, tmp_path):
    (tmp_path / "file").write_text("")
    explorer = Explorer(network, shapes, folder=tmp_path / "file")
    explorer._told(explorer, {"kind": "save", **explorer.asked}, [])
    assert explorer.said["alarm"] and "give another place" in explorer.said["text"]


def test_without_widgets_there_is_a_picture(explorer, monkeypatch):
    monkeypatch.setattr(explorer_module, "somebody_looks", lambda: True)
    live = explorer._repr_mimebundle_()
    live = live[0] if isinstance(live, tuple) else live
    monkeypatch.setattr(explorer_module, "somebody_looks", lambda: False)
    still = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in live
    assert "application/vnd.jupyter.widget-view+json" not in still
    assert base64.b64decode(live["image/png"]) == base64.b64decode(still["image/png"]) == explorer.png


def test_own_pictures_alone_are_enough(network, tmp_path):
    (tmp_path / "mine.png").write_bytes(photo())
    explorer = Explorer(network, pictures=[tmp_path / "mine.png"])
    assert explorer.answer["picture"]["name"] == "mine.png" and explorer.film["total"] == 0
    with pytest.raises(ConfigError, match="give a data set or at least one picture"):
        Explorer(network)
    with pytest.raises(DataError, match="does not exist"):
        Explorer(network, pictures=[tmp_path / "none.png"])


def test_a_network_without_masks_shows_its_trunk():
    bare = Pretrained(attnet.build_model("attention56_tiny", attention="none").eval(), tuple("abcdefghij"), "none")
    explorer = Explorer(bare, make_shapes(10, 10))
    assert [part for part, _ in explorer.film["parts"]] == ["trunk", "masked", "input", "Grad-CAM"]
    assert explorer.film["replaced"] == [["none", "its own"]]
    assert explorer.answer["picture"]["label"] == "" and not explorer.said


def test_epochs_that_a_run_kept_are_there_in_order(tmp_path, network, shapes):
    paths = []
    for epoch in (0, 1, 3):
        torch.manual_seed(epoch)
        state = attnet.build_model("attention56_tiny").state_dict()
        name = "best.pt" if epoch == 1 else f"epoch_{epoch:03d}.pt"
        torch.save({"model": state, "epoch": epoch, "config": {"model": "attention56_tiny"}}, tmp_path / name)
        paths.append(state)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 3, "top1": 61.5}\n')
    explorer = Explorer(load_pretrained(tmp_path / "best.pt"), shapes, others=[network])
    assert [epoch["name"] for epoch in explorer.film["epochs"]] == ["epoch 0", "epoch 1", "epoch 3"]
    assert [epoch["top1"] for epoch in explorer.film["epochs"]] == [None, None, 61.5]
    assert explorer.film["start"]["epoch"] == 1
    explorer.move(epoch=2)
    last = attnet.build_model("attention56_tiny")
    last.load_state_dict(paths[2])
    expected = attnet.capture_masks(last.eval(), shapes.test.images[explorer.asked["image"]["n"]])["stage1.0"][0]
    entry = explorer.answer["panels"]["stage1.0"]["maps"]["max"]
    assert np.abs(numbers(explorer, entry) - expected.amax(0).flatten().numpy()).max() < 1e-4
    before = explorer.numbers
    explorer.move(network=1)
    assert explorer.numbers != before and not explorer.said


@pytest.mark.parametrize("values", [[0.0, 1.0, float("nan")], [2.0, 2.0], [-1e30, 1e30]])
def test_a_reel_holds_any_numbers(values):
    reel = Reel(8)
    entry = reel.add(torch.tensor(values))
    assert entry["n"] == len(values) == len(reel.bytes()) and np.isfinite([entry["lo"], entry["hi"]]).all()


def test_explore_is_one_call(network, tmp_path):
    (tmp_path / "mine.png").write_bytes(photo())
    path = network.weights
    explorer = attnet.explore(path, tmp_path, str(tmp_path / "mine.png"), [path], folder=tmp_path)
    assert explorer.answer["picture"]["name"] == "mine.png" and len(explorer.film["networks"]) == 2
    assert explorer.dataset.name == "shapes"


def test_the_command_opens_a_notebook_with_what_was_given(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(explore_command, "resolve_path", lambda path: tmp_path / Path(path).name)
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(explore_command.subprocess, "run", lambda words, **_: started.append(words) or done)
    assert explore_command.main(["--weights", "attention56_shapes", "--pictures", "a.jpg b.jpg", "--no-browser"]) == 0
    book = nbformat.read(tmp_path / "explorer.ipynb", as_version=4)
    names: dict[str, object] = {}
    for cell in book.cells[1:3]:
        exec(cell.source, names)
    assert (names["pretrained"], names["pictures"], names["others"]) == ("attention56_shapes", "a.jpg b.jpg", "")
    assert "jupyterlab" in started[0] and started[0][-1] == "--no-browser"
