"""Results of finished runs: written, read back, and folders that hold none."""

from pathlib import Path

import pytest
from made import make_result, save

from attnet.base.errors import AttnetError
from attnet.engine.result import Result


@pytest.mark.parametrize("changes", [{}, {"fps": None, "epochs": 0, "history": []}], ids=["trained", "evaluated"])
def test_round_trip(tmp_path, changes):
    folder = tmp_path / "run"
    history = [{"epoch": 1, "top1": 71.25}, {"epoch": 2, "top1": 9.5}]
    result = make_result(**{"output_dir": folder, "history": history} | changes)
    save(result, folder)
    assert Result.load(str(folder)) == result


def test_result_json_has_the_keys_others_rely_on():
    promised = {"top1", "fps", "epochs", "amp", "device", "batch_size", "model", "dataset", "environment"}
    content = make_result(output_dir=Path("somewhere"), history=[{"epoch": 1}]).to_json()
    assert promised <= content.keys()
    assert not {"output_dir", "history"} & content.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "Expecting value"),
        ('{"top1": 3', "Expecting"),
        ('{"accuracy": 3}', "lacks top1"),
    ],
    ids=["missing", "empty", "truncated", "other"],
)
def test_a_folder_without_a_result_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(AttnetError, match=message) as error:
        Result.load(tmp_path)
    assert str(tmp_path) in str(error.value)
