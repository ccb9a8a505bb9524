"""The theatre: what stands in the file is what the network says; it stays small; nothing in it is code."""

import base64
import io
import json
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import attnet
from attnet.base.errors import ConfigError
from attnet.data.shapes import make_shapes
from attnet.data.splits import Dataset
from attnet.masks.replace import intervene
from attnet.masks_command import main
from attnet.model.pretrained import Pretrained, load_pretrained
from attnet.plots import Shown, animate_masks, make_theatre, stage


@pytest.fixture(scope="module")
def data() -> Dataset:
    return make_shapes(20, 20)


@pytest.fixture(scope="module")
def network(tmp_path_factory, data) -> Pretrained:
    """Weights of three epochs, of which the last are the best."""
    folder = tmp_path_factory.mktemp("run")
    for epoch in range(3):
        torch.manual_seed(epoch)
        state = attnet.build_model("attention56_tiny").state_dict()
        content = {"model": state, "epoch": epoch, "classes": list(data.classes)}
        content["config"] = {"model": "attention56_tiny"}
        torch.save(content, folder / f"epoch_{epoch:03d}.pt")
    torch.save(content, folder / "best.pt")
    return load_pretrained(folder / "best.pt")


def unpacked(page: str) -> tuple[dict, bytes]:
    """The film and its numbers, as the script in the page reads them."""
    [packed] = re.findall(r'play\(root, "([A-Za-z0-9+/=]+)"\)', page)
    content = zlib.decompress(base64.b64decode(packed))
    [length] = struct.unpack_from("<I", content)
    return json.loads(content[4 : 4 + length]), content[4 + length :]


def test_the_file_holds_what_the_network_says(network, data):
    film, numbers = unpacked(make_theatre(network, data, [3, 5]).html)
    assert [image["name"] for image in film["images"]] == ["test image 3", "test image 5"]
    assert [epoch["name"] for epoch in film["epochs"]] == ["epoch 0", "epoch 1", "epoch 2"]
    kinds = {"none", "zero", "mean", "shuffled"}
    expected = {f"{i}/{epoch}/none" for i in range(2) for epoch in range(3)} | {
        f"{i}/2/{k}" for i in range(2) for k in kinds
    }
    assert set(film["frames"]) == expected
    frame = film["frames"]["1/2/zero"]
    plan = dict.fromkeys(["stage1.0", "stage2.0", "stage3.0"], "zero")
    without = intervene(network.model, data.test.images[5], plan)[0].softmax(dim=0)
    assert np.abs(np.array(frame["p"]) - without.numpy()).max() < 1e-4
    own = film["frames"]["1/2/none"]
    mask = attnet.capture_masks(network.model, data.test.images[5])["stage2.0"][0]
    entry = own["panels"]["stage2.0"]["maps"]["max"]
    whole = np.frombuffer(numbers, np.uint8)[entry["at"] : entry["at"] + entry["n"]]
    values = entry["lo"] + whole * (entry["hi"] - entry["lo"]) / 255
    assert np.abs(values - mask.amax(0).flatten().numpy()).max() <= (entry["hi"] - entry["lo"]) / 500
    assert set(own["effects"]) == set(plan) and not frame["effects"]
    assert len(own["panels"]["stage2.0"]["numbers"]) == 12 and "numbers" not in frame["panels"]["stage2.0"]


def test_it_grows_no_larger_than_allowed_and_says_so_where_it_must(network, data):
    whole = make_theatre(network, data, [0, 1, 2])
    smaller = make_theatre(network, data, [0, 1, 2], limit=len(whole.html) - 1)
    film, _ = unpacked(smaller.html)
    assert len(smaller.html) < len(whole.html)
    assert len(film["frames"]["0/2/none"]["panels"]["stage1.0"]["numbers"]) < 12
    with pytest.raises(ConfigError, match=r"limit=1,000: the file has .* give fewer images"):
        make_theatre(network, data, [0], limit=1000)


def test_names_are_never_markup(network, data):
    evil = "</script><script>alert(1)</script>"
    page = stage(network, [Shown(data.test.images[0], evil, evil)]).html
    assert page.count("</script>") == 1 and "alert(1)" not in page
    assert unpacked(page)[0]["images"][0]["name"] == evil


def test_without_a_script_there_is_a_still_sheet(network, data):
    theatre = make_theatre(network, data, [0, 1])
    still = Image.open(io.BytesIO(theatre.still))
    assert still.format == "WEBP" and still.width > 300
    assert base64.b64encode(theatre.still).decode() in theatre.html
    bundle = theatre._repr_mimebundle_()
    assert bundle["text/html"].startswith("<style>.attnet-untrusted") and "allow-scripts" in bundle["text/html"]
    assert Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))).size == still.size
    for outside in ("http://", "https://", "import ", ' src="//'):
        assert outside not in theatre.html, "it needs no network"


def test_a_network_without_masks_and_no_images(data):
    bare = Pretrained(attnet.build_model("attention56_tiny", attention="none").eval(), data.classes, "")
    film, _ = unpacked(make_theatre(bare, data, [0]).html)
    assert set(film["frames"]) == {"0/0/none"}
    with pytest.raises(ConfigError, match="at least one image"):
        make_theatre(bare, data, [])
    with pytest.raises(ConfigError, match="images: 20: there are test images 0 to 19"):
        make_theatre(bare, data, [20])


@pytest.mark.parametrize("ending", ["webp", "gif"])
def test_masks_that_move(network, data, tmp_path, ending):
    file = animate_masks(network, data.test.images[:3], tmp_path / f"moving.{ending}", side=64)
    moving = Image.open(file)
    assert moving.n_frames == 3 and moving.size == (192, 154)
    first = np.asarray(moving.convert("RGB")).astype(int)
    moving.seek(2)
    assert np.abs(np.asarray(moving.convert("RGB")) - first)[90:].max() > 20
    with pytest.raises(ConfigError, match=r"ends in \.webp or \.gif"):
        animate_masks(network, data.test.images[:3], tmp_path / "moving.mp4")


def test_nothing_moves_without_kept_epochs(data, tmp_path):
    alone = Pretrained(attnet.build_model("attention56_tiny").eval(), data.classes, "")
    with pytest.raises(ConfigError, match="kept no epochs"):
        animate_masks(alone, data.test.images[:1], tmp_path / "a.gif")


def test_the_command_writes_it(network, tmp_path, capsys):
    file = tmp_path / "masks.html"
    assert main(["--weights", network.weights, "--data_path", str(tmp_path), "--html", str(file), "--shown", "2"]) == 0
    assert "written: " in capsys.readouterr().out and len(unpacked(file.read_text())[0]["images"]) == 2
    assert main(["--weights", network.weights, "--html", str(tmp_path / "masks.pdf")]) == 2
    assert "give a file that ends in .html or .webp or .gif" in capsys.readouterr().err
