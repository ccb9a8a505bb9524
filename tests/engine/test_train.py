"""The command line: a run, and mistakes as sentences."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path

import pytest
import torch

import attnet
from attnet.train import main

FLAGS = {
    "device_type": "CPU",
    "dataset": "shapes",
    "model": "attention56_tiny",
    "train_images": "64",
    "test_images": "50",
    "train_batch_size": "16",
    "total_epochs": "2",
    "progress": "lines",
}


def flags(**changes: object) -> list[str]:
    return [f"--{name}={value}" for name, value in (FLAGS | changes).items()]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, str]:
    """The folder of a finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("train") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        assert main(flags(output_dir=folder)) == 0
    return folder, shown.getvalue()


def test_it_prints_the_plan_a_line_an_epoch_and_the_result(run):
    folder, shown = run
    lines = shown.splitlines()
    assert lines[0].startswith("mode rehearsal, since there is no accelerator")
    assert [line.split("  ")[0] for line in lines if line.startswith("epoch ")] == ["epoch 1/2", "epoch 2/2"]
    result = attnet.Result.load(folder)
    assert lines[-3].startswith(f"Top-1 {result.top1:.2f} % (rehearsal), 2 epochs, ") and "images/s" in lines[-3]
    assert lines[-2] == "attention56_tiny on shapes, 64 of 2,000 images, O0, cpu_1p, batch 16"
    assert lines[-1] == f"run folder: {folder}"
    assert lines[:-3] == (folder / "log.txt").read_text().splitlines()


def test_the_run_folder_is_as_documented(run):
    folder, _ = run
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert names == {"config.json", "metrics.jsonl", "last.pt", "previous.pt", "best.pt", "log.txt", "result.json"}
    config = attnet.TrainConfig.load(folder / "config.json")
    assert attnet.make_plan(config).config == config  # nothing left open
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [
        ["epoch", "lr", "train_loss", "test_loss", "top1", "fps", "seconds", "processor_seconds", "trace"],
    ] * 2
    assert all(math.isfinite(value) for row in rows for value in (*row.pop("trace"), *row.values()))
    result = json.loads((folder / "result.json").read_text())
    documented = {"top1", "fps", "epochs", "amp", "device", "batch_size", "model", "dataset", "environment"}
    assert documented <= set(result)
    assert result["top1"] == max(row["top1"] for row in rows) and result["last_top1"] == rows[-1]["top1"]
    assert result["fps"] > 0 and result["environment"]["torch"] == torch.__version__
    for name in ("last.pt", "best.pt"):
        content = torch.load(folder / name, weights_only=True)
        attnet.build_model("attention56_tiny").load_state_dict(content["model"])


def test_evaluating_the_best_weights_gives_their_top1_and_touches_nothing(run, capsys):
    folder, _ = run
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(flags(output_dir=folder, is_train=False, pretrained=folder / "best.pt")) == 0
    assert f"run folder: {folder}-2" in capsys.readouterr().out
    evaluated = attnet.Result.load(f"{folder}-2")
    assert evaluated.top1 == torch.load(folder / "best.pt", weights_only=True)["top1"]
    assert (evaluated.epochs, evaluated.fps, evaluated.history) == (0, None, [])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"total_epoch": 1}, ["'total_epoch'", "'total_epochs'"]),
        ({"lr": -1}, ["lr='-1'", "at least 0"]),
        ({"total_epochs": 1.5}, ["total_epochs='1.5'", "whole number"]),
        ({"model": "resnet50"}, ["'resnet50'", "attention92"]),
        ({"device_id": 9}, ["device_id=9", "CPU"]),
        ({"dataset": "cifar10", "data_path": "{here}"}, ["{here}", "other.txt", "cifar-10-batches-py"]),
        ({"dataset": "auto", "data_path": "{here}/none"}, ["{here}/none does not exist"]),
        ({"train_images": 5000}, ["train_images=5000", "2000"]),
        ({"train_batch_size": 65}, ["train_batch_size=65", "64 training images"]),
        ({"resume": "{here}"}, ["resume={here}", "no run there"]),
        ({"is_train": "false"}, ["is_train=False", "pretrained=PATH"]),
        ({"is_pretrain": True, "pretrained": "{here}/none.pt"}, ["{here}/none.pt", "no such file"]),
        ({"is_pretrain": True, "pretrained": "{here}/other.txt"}, ["{here}/other.txt"]),
        ({"is_pretrain": True, "pretrained": "{best}", "model": "attention56_cifar"}, ["{best}", "shape"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_mistake_is_a_sentence_and_leaves_nothing_behind(run, tmp_path, capsys, changes, words):
    (tmp_path / "other.txt").write_text("not a data set, not weights")
    places = {"here": tmp_path, "best": run[0] / "best.pt"}
    filled = {name: str(value).format(**places) for name, value in changes.items()}
    assert main(flags(output_dir=tmp_path / "run", **filled)) == 2
    out, err = capsys.readouterr()
    assert err.startswith("attnet: ") and "Traceback" not in err
    assert [word for word in words if word.format(**places) not in err] == []
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_an_output_folder_that_cannot_be_written_is_a_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(flags(output_dir=tmp_path / "file")) == 2
    assert f"attnet: output_dir={tmp_path / 'file'}: cannot be written" in capsys.readouterr().err
