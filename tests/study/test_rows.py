"""Rows of the result table: measured, published, rehearsed and simulated figures can't be confused."""

import json
from pathlib import Path

import pytest
from made import make_result, of_data, save

from attnet.base.files import paths
from attnet.engine.result import Result, standing
from attnet.study.published import DOCUMENT, PAPER, PORTS
from attnet.study.rows import KINDS, Row, in_order, published_rows

REAL = {"device": "Ascend910B", "torch_npu": "2.13.0"}
SIMULATED = {"device": "simulated NPU (CPU memory, for tests)"}
SHAPES, FEW = {"dataset": "shapes"}, {"train": 2_000, "train_total": 50_000}
ALL = of_data("cifar10", 50_000)


@pytest.mark.parametrize(
    ("parameters", "environment", "images", "kind", "why"),
    [
        ({"mode": "full", "test_images": 0}, {"device": "H100"}, {}, "measured", ()),
        ({"mode": "performance", "total_epochs": 1}, REAL, {}, "measured", ()),
        ({"test_images": 10_000}, {}, {"test": 10_000, "test_total": 10_000}, "measured", ()),
        (SHAPES | {"mode": "full"}, {}, {}, "rehearsal", ("shapes, not CIFAR-10",)),
        ({"mode": "rehearsal"}, {}, {}, "rehearsal", ("mode rehearsal",)),
        ({"train_images": 2_000}, {}, FEW, "rehearsal", ("2,000 of 50,000 training images",)),
        ({"test_images": 500}, {}, {}, "rehearsal", ("500 test images",)),
        ({}, SIMULATED | REAL | SIMULATED, {}, "simulated", (SIMULATED["device"],)),
        (SHAPES, SIMULATED, {}, "simulated", (SIMULATED["device"], "shapes, not CIFAR-10")),
    ],
    ids=["full", "performance", "all-tested", "shapes", "mode", "subset", "test-subset", "npu", "both"],
)
def test_the_rule(parameters, environment, images, kind, why):
    assert standing(parameters, environment, images) == (kind, why)


def test_a_run_is_known_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "repository_root", lambda: tmp_path)
    environment = {"device": "H100", "torch": "2.13.0"}
    folder = save(make_result(**ALL, environment=environment), tmp_path / "runs" / "x")
    row = Row.of(Result.load(folder))
    assert (row.kind, row.source, row.name) == ("measured", "measured: runs/x", "x")
    assert (row.top1, row.fps, row.batch_size, row.card, row.torch) == (71.25, 1234.5, 64, "H100", "2.13.0")
    assert Row.of(Result.load(folder), notes=["a note"]).source == "measured (a note): runs/x"


def test_a_run_from_before_results_held_parameters_is_told_by_its_config(tmp_path):
    result = make_result(environment={"device": "H100"}, output_dir=tmp_path / "x", **ALL | {"parameters": {}})
    folder = save(result, tmp_path / "x")
    config = {"mode": "rehearsal", "is_pretrain": True, "pretrained": "w.pt"}
    (folder / "config.json").write_text(json.dumps(config))
    assert Row.of(Result.load(folder)).notes == ("mode rehearsal", "from the weights w.pt")


def test_an_evaluation_alone_says_so(tmp_path):
    given = of_data("cifar10", 50_000, is_train=False, pretrained="best.pt")
    result = make_result(fps=None, epochs=0, output_dir=tmp_path, **given)
    assert Row.of(result).source == f"measured (evaluation alone, of best.pt): {tmp_path}"


def test_published_figures_name_what_differs():
    rows = published_rows()
    assert len(rows) == len((*DOCUMENT, *PORTS, *PAPER))
    assert {row.kind for row in rows} == {"published"} and all(row.source.startswith("published") for row in rows)
    found = {(row.model, row.task): row.top1 for row in rows}
    assert found["attention56_cifar with combine=naive", "cifar10"] == 94.11
    assert found["attention92_cifar", "cifar10 (label noise 70 %)"] == 84.25
    assert found["ResNet-164", "cifar100"] == 75.67
    assert any("mixup, warm-up" in row.source and row.top1 == 97.14 for row in rows)


def test_what_is_published_of_a_network_stands_beside_it():
    def naive(rows: list[Row]) -> list[Row]:
        return [row for row in rows if "combine=naive" in row.model]

    alone = published_rows(beside=[])
    assert {"attention92", "attention452_cifar"} < {row.network for row in alone} and not naive(alone)
    ours = Row.of(make_result(model="attention56_cifar with combine=naive", **ALL))
    assert [row.top1 for row in naive(published_rows(beside=[ours]))] == [94.11]
    noisy = Row.of(make_result(model="attention92_cifar", **of_data("cifar10", 9, noise=0.3)))
    assert [row.top1 for row in published_rows(beside=[noisy]) if "noise" in row.dataset] == [94.21]


def test_what_compares_stands_together():
    ours = [
        Row("rehearsal", "r", "runs/r", "attention92", "cifar10, some", task="cifar10", top1=40.0),
        Row("measured", "low", "runs/low", "attention92", "cifar10", top1=80.0, date="2026-02-01"),
        Row("measured", "shapes", "runs/s", "attention92", "shapes", top1=100.0, fps=2.0),
        Row("measured", "high", "runs/high", "attention92", "cifar10", top1=90.0, date="2026-01-01"),
        Row("measured", "other", "runs/o", "attention56_tiny", "cifar10", top1=99.0),
        Row("measured", "unknown", "runs/u", "own.net", "cifar10"),
    ]
    document = Row.of_published(DOCUMENT[1])
    rows = in_order([*ours, document])
    assert [row.name for row in rows] == ["high", "low", document.name, "r", "shapes", "other", "unknown"]
    assert [row.name for row in in_order(ours, "top1")][:3] == ["shapes", "other", "high"]
    assert [row.name for row in in_order(ours, "fps")][:1] == ["shapes"]
    assert [row.name for row in in_order(ours, "date")][:2] == ["low", "high"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_begins_with_the_kind(kind):
    assert Row(kind, "x", "runs/x", "attention92", "cifar10").source == f"{kind}: runs/x"
    assert Row(kind, "x", "runs/x", "attention92", "cifar10", notes=("a", "b")).source == f"{kind} (a; b): runs/x"


def test_a_folder_elsewhere_is_shown_whole(tmp_path):
    assert Row.of(make_result(output_dir=Path(tmp_path) / "a")).where == str(tmp_path / "a")
