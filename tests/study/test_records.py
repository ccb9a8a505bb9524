"""Records: a run's own, and all as rows: each form that is known; nothing of data/results/ lost or in the way."""

import json
import shlex
from pathlib import Path

import pytest
from made import make_result, of_data, save

from attnet.base.files.paths import resolve_path
from attnet.engine.parameters import TrainConfig
from attnet.engine.result import Result
from attnet.report import main
from attnet.study.records import others_table, reached, read_records, record, records
from attnet.study.rows import FACTS, Row

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


def test_a_training_is_the_row_of_its_run(tmp_path):
    epochs = [{"epoch": i, "top1": 60.0 + i, "test_loss": 1.0, "seconds": 2.0} for i in (1, 2, 3)]
    config = TrainConfig(mode="rehearsal", dataset="cifar10", test_images=500)
    result = make_result(environment=ENVIRONMENT, history=epochs, parameters=config.to_dict())
    folder = save(result, tmp_path / "run")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    [row] = read_records(write(tmp_path, "best", record(folder))).rows
    run = Row.of(Result.load(folder))
    same = ("kind", "top1", "fps", "epochs", "amp", "device", "batch_size", "model", "dataset", "notes", "card", "date")
    assert [getattr(row, name) for name in same] == [getattr(run, name) for name in same]
    assert (row.name, row.where, row.history) == ("best", "record best", epochs)
    assert row.kind == "rehearsal" and "mode rehearsal" in row.source


def test_a_training_in_two_parts_counts_both(tmp_path):
    epochs = [{"epoch": i, "top1": 60.0, "test_loss": 1.0} for i in (1, 2, 3)]
    given = of_data("cifar10", 50_000, is_pretrain=True, pretrained="runs/a.pt")
    content = make_result(environment=ENVIRONMENT, **given).to_json() | COMMON
    content |= {"kind": "training", "history_before": epochs[:2], "history": epochs}
    [row] = read_records(write(tmp_path, "two", content)).rows
    assert (row.epochs, [epoch["epoch"] for epoch in row.history]) == (5, [1, 2, 3, 4, 5])
    assert row.source == "measured (2 + 3 epochs): record two"
    [row] = read_records(write(tmp_path, "two", content | {"history_before": []})).rows
    assert row.source == "measured (from the weights runs/a.pt): record two"


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
    rows = [step(22.0, implementation="ours", amp="O0"), step(44.0, implementation="ours", amp="O2")]
    content = {"kind": "versus", "rows": [*rows, step(16.0, implementation="reference", amp="O0")], **COMMON}
    content["environment"] = {"device": "simulated NPU", "torch": "2.13.0", "device_type": "NPU"}
    single, half = read_records(write(tmp_path, "x", content)).rows
    assert (single.fps, single.amp, half.fps, half.amp) == (22.0, "O0", 44.0, "O2")
    assert {(row.device, row.kind) for row in (single, half)} == {("npu_1p", "simulated")}


def facts(**changes: object) -> dict:
    result = make_result(**changes)
    return {name: getattr(result, name) for name in FACTS}


def test_means_over_seeds_are_rows_with_their_number_and_interval(tmp_path):
    of_plain = facts(model="attention92", epochs=5, batch_size=32, **of_data("cifar10", 50_000, model="attention92"))
    noisy = of_data("cifar10", 50_000, noise=0.3, model="attention92")
    of_naive = facts(model="attention92 with combine=naive", amp="O0", device="cpu_1p", **noisy)
    baseline = {"name": "plain", "top1": [80.0, None], "mean": 80.0, "low": None, "high": None, "result": of_plain}
    naive = {"name": "naive", "top1": [70.0, 72.0], "fps": 9.0, "result": of_naive}
    failed = {"name": "failed", "top1": [None, None], "mean": None, "result": None}
    untold = {"name": "untold", "top1": [3.0], "mean": 3.0}
    rows = [naive | {"mean": 71.0, "low": 58.3, "high": 83.7}, failed, untold]
    content = {"kind": "of tomorrow", "baseline": baseline, "rows": rows, **COMMON}
    plain, other = read_records(write(tmp_path, "study", content)).rows
    assert plain.source == "measured (mean of 1 seed, last epoch): record study, plain"
    assert (plain.epochs, plain.batch_size, plain.dataset) == (5, 32, "cifar10, 50,000 images")
    assert other.source == "measured (mean of 2 seeds, last epoch): record study, naive"
    assert (other.model, other.network) == ("attention92 with combine=naive", "attention92")
    assert (other.task, other.amp, other.device) == ("cifar10 (label noise 30 %)", "O0", "cpu_1p")
    assert (other.top1, other.low, other.high, other.seeds, other.fps) == (71.0, 58.3, 83.7, 2, 9.0)


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
    assert str(tmp_path / "list.json") in first and "holds a list where an object is needed" in first
    assert str(tmp_path / "torn.json") in second and "cannot be read" in second
    assert str(tmp_path / "unlike.json") in third and "kind 'training'" in third
    assert records("training", tmp_path) == {"unlike": {"kind": "training", "top1": 3}}


# -- the record of a run -------------------------------------------------------------------------------------------


def test_a_record_holds_the_run_and_its_command(tmp_path, capsys):
    history = [{"epoch": i, "top1": 60.0 + i, "seconds": 2.0, "test_loss": 1.0} for i in (1, 2, 3)]
    config = TrainConfig(dataset="shapes", model="attention56_tiny", cutout=4, seed=3, output_dir="runs/x")
    folder = save(make_result(history=history, parameters=config.to_dict()), tmp_path / "run")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    run = Result.load(folder)
    file = tmp_path / "new" / "record.json"
    assert main(["--record", str(file), str(run.output_dir), "--reach", "0"]) == 0
    assert f"Top-1 {run.top1:.2f} %, 3 epochs, 6.0 s; 0 % after 2.0 s" in capsys.readouterr().out
    content = json.loads(file.read_text())
    assert content == json.loads(json.dumps(record(run.output_dir, 0.0)))
    assert (content["kind"], content["top1"], content["fps"]) == ("training", run.top1, run.fps)
    assert content["history"] == run.history
    assert content["seconds"] == 6.0 and content["reached"] == {"epoch": 1, "top1": 61.0, "seconds": 2.0}
    program, command, *words = shlex.split(content["command"])
    assert (program, command) == ("attnet", "train") and str(run.output_dir) not in content["command"]
    again = TrainConfig.parse(words)
    assert again == config.replace(output_dir="", data_path=again.data_path)


def test_reached_is_the_first_epoch_that_is_good_enough():
    history = [
        {"epoch": 1, "top1": 50.0, "seconds": 10.0},
        {"epoch": 2, "top1": 94.3, "seconds": 9.0},
        {"epoch": 3, "top1": 95.0, "seconds": 8.0},
    ]
    assert reached(history, 94.3) == {"epoch": 2, "top1": 94.3, "seconds": 19.0}
    assert reached(history, 94.4) == {"epoch": 3, "top1": 95.0, "seconds": 27.0}
    assert reached(history, 96) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--record", "{0}/a.json", "{0}"], "{0}: not a finished run's folder"),
        (["--record", "{0}/a.json"], "give the one run folder"),
        (["--record", "{0}/a.md", "{0}"], "give a file that ends in .json"),
    ],
    ids=["no-run", "no-folder", "ending"],
)
def test_what_cannot_be_a_record_is_a_sentence(tmp_path, capsys, words, message):
    assert main([word.format(tmp_path) for word in words]) == 2
    assert message.format(tmp_path) in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
