"""Records as rows: each form that is known, and that nothing of data/results/ is lost or stops the list."""

import json
from pathlib import Path

import pytest
from test_result import make_result, save

import attnet
from attnet.base.files import resolve_path
from attnet.engine.run_folder import Result
from attnet.study.record import record
from attnet.study.records import asked_by, others_table, read_records, records
from attnet.study.rows import Row

ENVIRONMENT = {"device": "AMD EPYC", "torch": "2.13.0"}
COMMON = {"environment": ENVIRONMENT, "date": "2026-01-02", "command": "attnet benchmark"}


def write(folder: Path, name: str, content: object) -> Path:
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_everything_under_data_results_is_a_row_or_named():
    found = read_records()
    assert not found.warnings
    rows = {row.name.split(":")[0] for row in found.rows}
    assert rows | found.others.keys() == {path.stem for path in resolve_path("data/results").glob("*.json")}
    assert not rows & found.others.keys()
    kinds = {row.name: row.kind for row in found.rows}
    assert kinds["train_1p_tiny_cifar10"] == kinds["attention56_cifar"] == "measured"
    assert kinds["attention56_shapes"] == kinds["ablation: baseline"] == "rehearsal"
    table = others_table(found.others)
    for name, content in found.others.items():
        assert f"| {name} " in table and content["what"] in table, name


@pytest.mark.parametrize(
    "command",
    [
        "attnet train --mode full --train_images 0 --is_pretrain True  # a remark",
        "papermill notebooks/train_1p.ipynb runs/x.ipynb -p mode full -p train_images 0 -p is_pretrain True",
    ],
    ids=["flags", "papermill"],
)
def test_what_a_command_asked_for(command):
    assert asked_by(command) == {"mode": "full", "train_images": "0", "is_pretrain": "True"}


def test_a_training_is_the_row_of_its_run(tmp_path):
    epochs = [{"epoch": i, "top1": 60.0 + i, "test_loss": 1.0, "seconds": 2.0} for i in (1, 2, 3)]
    folder = save(make_result(environment=ENVIRONMENT, history=epochs), tmp_path / "run")
    config = attnet.TrainConfig(mode="rehearsal", test_images=500)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    [row] = read_records(write(tmp_path, "best", record(folder))).rows
    run = Row.of(Result.load(folder))
    same = ("kind", "top1", "fps", "epochs", "amp", "device", "batch_size", "model", "dataset", "notes", "card", "date")
    assert [getattr(row, name) for name in same] == [getattr(run, name) for name in same]
    assert (row.name, row.where, row.history) == ("best", "record best", epochs)
    assert row.kind == "rehearsal" and "mode rehearsal" in row.source


def test_a_training_in_two_parts_counts_both(tmp_path):
    epochs = [{"epoch": i, "top1": 60.0, "test_loss": 1.0} for i in (1, 2, 3)]
    content = make_result(dataset="cifar10, 50,000 images", environment=ENVIRONMENT).to_json() | COMMON
    content |= {"kind": "training", "history_before": epochs[:2], "history": epochs}
    content["command"] = "attnet train --is_pretrain True --pretrained runs/a.pt"
    [row] = read_records(write(tmp_path, "two", content)).rows
    assert (row.epochs, [epoch["epoch"] for epoch in row.history]) == (5, [1, 2, 3, 4, 5])
    assert row.source == "measured (2 + 3 epochs): record two"


def step(speed: float | None, **setting: object) -> dict:
    row = {"model": "attention92", "batch_size": 64, "amp": "O2", "channels_last": True, "compile": "off"} | setting
    return row | ({"error": "no memory"} if speed is None else {"images_per_second": speed})


def test_of_training_steps_the_fastest_way_of_each_batch_is_a_row(tmp_path):
    rows = [step(10.0), step(30.0, compile="graphs"), step(20.0, channels_last=False), step(5.0, batch_size=8)]
    rows += [step(99.0, implementation="reference"), step(None, batch_size=512), step(7.0, device_num=8)]
    content = {"kind": "steps", "rows": rows, **COMMON, "environment": ENVIRONMENT | {"device_type": "GPU"}}
    found = read_records(write(tmp_path, "gpu_fps", content)).rows
    assert [(row.fps, row.batch_size, row.device) for row in found] == [
        (30.0, 64, "gpu_1p"), (5.0, 8, "gpu_1p"), (7.0, 64, "gpu_8p"),
    ]  # fmt: skip
    assert found[0].source == "measured (training steps alone; channels-last; compiled): record gpu_fps"
    assert {(row.top1, row.epochs, row.dataset, row.amp) for row in found} == {(None, None, "", "O2")}


def test_beside_the_reference_only_ours_is_a_row(tmp_path):
    content = {"kind": "versus", "images_per_second": {"ours": 22.0, "reference": 16.0}, **COMMON}
    content |= {"model": "attention92", "batch_size": 64, "amp": "O0"}
    content["environment"] = {"device": "simulated NPU", "torch": "2.13.0", "device_type": "NPU"}
    [row] = read_records(write(tmp_path, "x", content)).rows
    assert (row.fps, row.device, row.kind) == (22.0, "npu_1p", "simulated")


def test_means_over_seeds_are_rows_with_their_number_and_interval(tmp_path):
    budget = {"model": "attention92", "dataset": "cifar10, 50,000 images", "total_epochs": 5, "train_batch_size": 32}
    baseline = {"name": "plain", "changed": {}, "top1": [80.0, None], "mean": 80.0, "low": None, "high": None}
    naive = {"name": "naive", "changed": {"combine": "naive", "label_noise": 0.3}, "top1": [70.0, 72.0], "fps": 9.0}
    failed = {"name": "failed", "changed": {}, "top1": [None, None], "mean": None}
    rows = [naive | {"mean": 71.0, "low": 58.3, "high": 83.7}, failed]
    content = {"kind": "of tomorrow", "budget": budget, "baseline": baseline, "rows": rows, **COMMON}
    plain, other = read_records(write(tmp_path, "study", content)).rows
    assert plain.source == "measured (mean of 1 seed, last epoch): record study, plain"
    assert other.source == "measured (mean of 2 seeds, last epoch): record study, naive"
    assert (other.model, other.data) == ("attention92 with combine=naive", "cifar10 (label noise 30 %)")
    assert (other.top1, other.low, other.high, other.seeds, other.fps) == (71.0, 58.3, 83.7, 2, 9.0)
    assert (other.epochs, other.batch_size) == (5, 32)


def test_means_of_a_sweep_are_told_of_by_its_runs(tmp_path):
    run = {"model": "attention92 with t=3", "dataset": "cifar10, 50,000 images", "epochs": 9, "batch_size": 8}
    runs = [{"name": "t=3", **dict.fromkeys(run)}, {"name": "t=3", "amp": "O2", "device": "gpu_2p", **run}]
    row = {"name": "t=3", "changed": {"t": 3}, "top1": [None, 80.0], "mean": 80.0, "low": None, "high": None}
    content = {"kind": "sweep", "rows": [row], "runs": runs, **COMMON}
    content["command"] = "attnet sweep --grid t=3 --mode rehearsal"
    [found] = read_records(write(tmp_path, "sweep", content)).rows
    assert (found.model, found.dataset, found.epochs, found.batch_size) == tuple(run.values())
    assert (found.amp, found.device, found.seeds) == ("O2", "gpu_2p", 1)
    assert found.source == "rehearsal (mode rehearsal; mean of 1 seed, last epoch): record sweep, t=3"


def test_what_is_unknown_is_named_and_what_is_damaged_warned_of(tmp_path):
    write(tmp_path, "new", {"kind": "of tomorrow", "what": "a | bar", "date": "2026-01-02"})
    write(tmp_path, "bare", {})
    write(tmp_path, "unlike", {"kind": "training", "top1": 3})
    write(tmp_path, "sweep", {"kind": "sweep", "rows": [{"name": "a", "changed": {}, "mean": 3.0, "top1": [3.0]}]})
    write(tmp_path, "list", [1])
    (tmp_path / "torn.json").write_text('{"kind": "tr')
    found = read_records(tmp_path)
    assert found.rows == () and set(found.others) == {"new", "bare", "unlike", "sweep"}
    assert "| a \\| bar " in others_table(found.others)
    [first, second, third] = found.warnings
    assert str(tmp_path / "list.json") in first and "no JSON object" in first
    assert str(tmp_path / "torn.json") in second and "cannot be read" in second
    assert str(tmp_path / "unlike.json") in third and "kind 'training'" in third
    assert records("training", tmp_path) == {"unlike": {"kind": "training", "top1": 3}}
