"""Results of finished runs: written, read back, and folders that hold none."""

import json
from pathlib import Path

import pytest

from attnet.base.errors import AttnetError
from attnet.engine.run_folder import Result


def make_result(**changes: object) -> Result:
    fields = {
        "top1": 71.25,
        "fps": 1234.5,
        "epochs": 3,
        "amp": "O2",
        "device": "gpu_1p",
        "batch_size": 64,
        "model": "attention56_tiny",
        "dataset": "cifar10, 2,000 of 50,000 images",
        "last_top1": 70.5,
        "per_class": {"cat": 60.0, "dog": 82.5},
        "confusion": [[6, 4], [2, 8]],
        "peak_memory": 2**30,
        "skipped_steps": 1,
        "environment": {"torch": "2.13.0"},
    }
    return Result(**fields | changes)


def save(result: Result, folder: Path) -> Path:
    """Write the files of a run folder that a result is read from."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result.to_json()))
    if result.history:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in result.history))
    return folder


@pytest.mark.parametrize("changes", [{}, {"fps": None, "epochs": 0, "history": []}], ids=["trained", "evaluated"])
def test_round_trip(tmp_path, changes):
    folder = tmp_path / "run"
    result = make_result(**{"output_dir": folder, "history": [{"epoch": 1, "top1": 71.25}, {"epoch": 2}]} | changes)
    save(result, folder)
    assert Result.load(str(folder)) == result


def test_result_json_has_the_keys_others_rely_on():
    promised = {"top1", "fps", "epochs", "amp", "device", "batch_size", "model", "dataset", "environment"}
    content = make_result(output_dir=Path("somewhere"), history=[{"epoch": 1}]).to_json()
    assert promised <= content.keys()
    assert not {"output_dir", "history"} & content.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("", "Expecting value"), ('{"top1": 3', "Expecting"), ('{"accuracy": 3}', "accuracy")],
    ids=["missing", "empty", "truncated", "other"],
)
def test_a_folder_without_a_result_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(AttnetError, match=message) as error:
        Result.load(tmp_path)
    assert str(tmp_path) in str(error.value)
