"""`attnet masks`: the page, the record and the figure of a network's verdict."""

import json

import pytest
import torch

import attnet
from attnet import masks_command
from attnet.data.shapes import make_shapes
from attnet.masks import controls, verdict
from attnet.masks.controls import IMAGE_CONTROLS
from attnet.masks.questions import QUESTIONS


@pytest.fixture
def quick(monkeypatch):
    torch.manual_seed(0)
    network = attnet.Pretrained(attnet.build_model("attention56_tiny").eval(), tuple("abcdefghij"), "tiny")
    monkeypatch.setattr(masks_command, "open_pretrained", lambda *_: (network, make_shapes(10, 10)))
    monkeypatch.setattr(controls, "IMAGE_CONTROLS", {"edges": IMAGE_CONTROLS["edges"]})
    monkeypatch.setattr(verdict, "CHOOSING", 2)
    monkeypatch.setattr(verdict, "SEEDS", 2)


def test_page_record_and_figure(tmp_path, quick, capsys):
    file = tmp_path / "masks.json"
    words = ["--images", "8", "--faithful_images", "3", "--output", str(file)]
    assert masks_command.main(words) == 0
    told = capsys.readouterr()
    assert all(question.words in told.out for question in QUESTIONS.values())
    assert "ROAD on 3 images ..." in told.err and str(file) in told.out
    record = json.loads(file.read_text())
    assert record["command"] == "attnet masks " + " ".join(words)
    assert record["data"] == "shapes, 8 test images" and (record["images"], record["images_for_road"]) == (8, 3)
    assert list(record["answers"]) == list(QUESTIONS)
    for answer in record["answers"].values():
        assert answer["verdict"] in ("yes", "no", "cannot tell") and answer["sentence"].lower().startswith(
            answer["verdict"]
        )
        low, high = answer["difference"]["low"], answer["difference"]["high"]
        assert low <= answer["claim"][1]["mean"] - answer["control"][1]["mean"] <= high
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG")


def test_weights_that_are_not_there_are_a_sentence(tmp_path, capsys):
    assert masks_command.main(["--weights", str(tmp_path / "none.pt")]) == 2
    assert "none.pt: no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tables_as_well(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(masks_command, "measure", lambda network, dataset, images, few: {"asked": [images, few]})
    file = tmp_path / "masks.json"
    assert masks_command.main(["--images", "4", "--faithful_images", "2", "--tables", "--output", str(file)]) == 0
    assert json.loads(file.read_text())["asked"] == [4, 2]
