"""A run's record: its own figures, a command that gives the same run, the time to an accuracy."""

import json

import pytest

import attnet
from attnet.engine.parameters import TrainConfig
from attnet.study.record import main, reached, record

SMALL = {
    "model": "attention56_tiny",
    "dataset": "shapes",
    "mode": "rehearsal",
    "train_images": 64,
    "test_images": 40,
    "train_batch_size": 16,
    "total_epochs": 2,
    "progress": "none",
    "device_type": "CPU",
    "cutout": 4,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> attnet.Result:
    folder = tmp_path_factory.mktemp("runs") / "small"
    return attnet.fit(TrainConfig(**SMALL, output_dir=str(folder)))


def test_a_record_holds_the_run_and_its_command(run, tmp_path, capsys):
    assert main([str(run.output_dir), str(tmp_path / "record.json"), "--reach", "0"]) == 0
    assert f"Top-1 {run.top1:.2f} %, 2 epochs" in capsys.readouterr().out
    content = json.loads((tmp_path / "record.json").read_text())
    assert content == json.loads(json.dumps(record(run.output_dir, 0.0)))
    assert (content["kind"], content["top1"], content["fps"]) == ("training", run.top1, run.fps)
    assert content["history"] == run.history
    assert content["seconds"] == pytest.approx(sum(row["seconds"] for row in run.history))
    assert content["reached"]["epoch"] == 1 and content["reached"]["seconds"] == run.history[0]["seconds"]
    program, words = content["command"].split(" ")[:3], content["command"].split(" ")[3:]
    assert program == ["python", "-m", "attnet.train"] and str(run.output_dir) not in content["command"]
    again, before = TrainConfig.parse(words), TrainConfig.load(run.output_dir / "config.json")
    where = {"output_dir": "", "progress": "auto", "data_path": again.data_path}
    assert again == before.replace(**where)


def test_reached_is_the_first_epoch_that_is_good_enough():
    history = [
        {"epoch": 1, "top1": 50.0, "seconds": 10.0},
        {"epoch": 2, "top1": 94.3, "seconds": 9.0},
        {"epoch": 3, "top1": 95.0, "seconds": 8.0},
    ]
    assert reached(history, 94.3) == {"epoch": 2, "top1": 94.3, "seconds": 19.0}
    assert reached(history, 94.4) == {"epoch": 3, "top1": 95.0, "seconds": 27.0}
    assert reached(history, 96) is None


def test_what_is_no_run_is_refused(run, tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "a.json")]) == 2
    assert "not a finished run's folder" in capsys.readouterr().err
    assert main([str(run.output_dir), str(tmp_path / "nowhere" / "a.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err
