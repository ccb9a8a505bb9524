"""`attnet masks`: the page, the record and the figure of a network's verdict."""

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import attnet
from attnet import masks_command
from attnet.data.folder import load
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


def draw_pairs(folder, count):
    """Pictures of `shapes` at three times their size, with their masks."""
    folder.mkdir(parents=True)
    split = make_shapes(10, count).test
    for number, (image, mask) in enumerate(zip(split.images, split.masks, strict=True)):
        for name, pixels in ((f"{number}.png", image.permute(1, 2, 0)), (f"{number}.mask.png", mask.byte() * 255)):
            picture = Image.fromarray(pixels.numpy())
            picture.resize((96, 96), Image.Resampling.NEAREST).save(folder / name)
    return folder


def test_a_folder_of_pairs_is_a_table_of_every_map(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(controls, "IMAGE_CONTROLS", {name: IMAGE_CONTROLS[name] for name in ("edges", "centre prior")})
    folder, file = draw_pairs(tmp_path / "mine", 12), tmp_path / "own.json"
    words = ["--weights", "attention56_shapes", "--data_path", str(folder), "--output", str(file)]
    assert masks_command.main(words) == 0
    told, record = capsys.readouterr().out, json.loads(file.read_text())
    assert f"12 pictures of {folder} with their objects" in told and "fewer than 30, intervals are too narrow" in told
    rows = {row["method"]: row for row in record["localisation"]}
    maps = [f"stage{i}.0 mask {how}" for how in ("mean", "max", "std") for i in (1, 2, 3)]
    assert list(rows) == [*maps, "Grad-CAM", "edges", "centre prior", "random"]
    assert all(f"\n| {name} " in told for name in rows)
    assert record["kind"] == "localisation" and record["command"] == "attnet masks " + " ".join(words)
    assert record["images"] == 12 and 0.1 < record["area"]["mean"] < 0.3
    found, edges = (rows[name]["scores"]["auroc"]["mean"] for name in ("stage3.0 mask max", "edges"))
    assert found > 0.8 > edges  # as on shapes themselves
    assert not rows["stage3.0 mask max"]["baseline"] and rows["edges"]["baseline"]
    assert not (tmp_path / "own.png").exists()
    assert masks_command.main([*words[:4], "--images", "3"]) == 0
    assert "3 pictures of" in capsys.readouterr().out
    (folder / "0.mask.png").unlink()
    assert masks_command.main(words) == 2
    assert "1 of 12 pictures have no mask beside them (0.png)" in capsys.readouterr().err


@pytest.mark.slow
def test_class_folders_with_masks_answer_the_question_of_the_object(tmp_path, quick, monkeypatch, capsys):
    for name in ("cat", "dog"):
        draw_pairs(tmp_path / "train" / name, 2)
        draw_pairs(tmp_path / "test" / name, 2)
    network = masks_command.open_pretrained()[0]
    monkeypatch.setattr(masks_command, "open_pretrained", lambda *_: (network, load(tmp_path, "folder", 32)))
    file = tmp_path / "masks.json"
    words = ["--data_path", str(tmp_path), "--faithful_images", "2", "--output", str(file)]
    assert masks_command.main(words) == 0
    assert json.loads(file.read_text())["answers"]["object"]["claim"] is not None
    assert "are not known" not in capsys.readouterr().out


def test_weights_that_are_not_there_are_a_sentence(tmp_path, capsys):
    assert masks_command.main(["--weights", str(tmp_path / "none.pt")]) == 2
    assert "none.pt: no such file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tables_as_well(tmp_path, quick, monkeypatch, capsys):
    asked = []

    def measure(_network: object, _data: object, *counts: int) -> SimpleNamespace:
        asked.append(counts)
        return SimpleNamespace(page=lambda: "## a table", to_json=lambda: {"tables_of": "some"})

    monkeypatch.setattr(masks_command, "measure", measure)
    file = tmp_path / "masks.json"
    words = ["--images", "4", "--faithful_images", "2", "--tables"]
    assert masks_command.main([*words, "--output", str(file)]) == 0
    assert json.loads(file.read_text())["tables_of"] == "some" and "## a table" in capsys.readouterr().out
    assert masks_command.main(words) == 0, "and without a record"
    assert "## a table" in capsys.readouterr().out
    assert asked == [(4, 2), (4, 2)]
