"""`attnet verify`: what was done as it says agrees, and whatever was changed afterwards differs."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import attnet
from attnet.base.device import KINDS
from attnet.base.errors import AttnetError, ConfigError
from attnet.base.files.atomic import save
from attnet.engine.parameters import TrainConfig
from attnet.engine.result import configuration_link
from attnet.study import verify as verifying
from attnet.study.records import record
from attnet.study.verify import AGREE, CANNOT, DIFFER, main, verify

TINY = {"device_type": "CPU", "dataset": "shapes", "model": "attention56_tiny", "mode": "full", "progress": "none"}
TINY |= {"train_images": 64, "test_images": 20, "train_batch_size": 8, "total_epochs": 2, "image_sizes": "8,32"}

TOP1 = ("Top-1 and the epochs", "Top-1 of best.pt")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    torch.set_num_threads(1)
    return attnet.fit(TrainConfig(**TINY, output_dir=str(tmp_path_factory.mktemp("verify") / "run"))).output_dir


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def outcomes(place: Path, **options: object) -> dict[str, str]:
    return {finding.what: finding.outcome for finding in verify(place, **options)}


@pytest.mark.parametrize("seed", [0, 1])  # the steps from the seed, and those from the end of the first epoch
def test_a_run_that_is_as_it_says(run, seed):
    findings = verify(run, seed=seed)
    assert {finding.outcome for finding in findings} == {AGREE}
    last = findings[-1]
    assert last.what == "steps taken again"
    assert f"epoch {2 - seed}, steps 1 to" in last.detail and "within" not in last.detail


def changed(file: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return do


def other_metrics(folder: Path) -> None:
    file = folder / "metrics.jsonl"
    file.write_text(file.read_text().replace('"lr": ', '"lr": 1'))


def other_weights(folder: Path) -> None:
    content = torch.load(folder / "best.pt", weights_only=True)
    content["model"]["fc.bias"] += 1
    save(content, folder / "best.pt")


def test_a_mode_that_asks_for_more_test_images_than_there_are(tmp_path):
    classes = tmp_path / "data" / "a", tmp_path / "data" / "b"
    for number, folder in enumerate(classes):
        folder.mkdir(parents=True)
        for picture in range(5):
            Image.new("RGB", (32, 32), (40 * picture, 200 * number, 9)).save(folder / f"{picture}.png")
    data = {"mode": "rehearsal", "dataset": "folder", "data_path": str(tmp_path / "data"), "total_epochs": 1}
    more = {"model": "attention56_tiny", "train_batch_size": 4, "device_type": "CPU", "progress": "none"}
    found = outcomes(attnet.fit(TrainConfig(**data, **more, output_dir=str(tmp_path / "run"))).output_dir)
    assert set(found.values()) == {AGREE} and {"Top-1 of best.pt", "Top-1 of last.pt"} <= found.keys()


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        (changed("result.json", lambda c: c.update(top1=c["top1"] + 5)), {"seal", *TOP1}),
        (changed("result.json", lambda c: c["parameters"].update(lr=0.5)), {"seal", "configuration"}),
        (changed("config.json", lambda c: c.update(weight_decay=0.5)), {"configuration"}),
        (changed("result.json", lambda c: c["chain"].update(data={})), {"seal"}),
        (other_weights, {"best.pt"}),
        (lambda f: (f / "last.pt").write_bytes((f / "previous.pt").read_bytes()), {"last.pt"}),
        (other_metrics, {"seal"}),
    ],
    ids=["top1", "parameters", "config", "data", "weights", "checkpoint", "metrics"],
)
def test_whatever_is_changed_differs(copy, change, differ):
    change(copy)
    found = outcomes(copy, steps=0)
    assert differ <= {what for what, outcome in found.items() if outcome == DIFFER}


def test_what_may_be_given_anew_does_not_differ(copy):
    """config.json is from the beginning; where the data lie may be another place when a run goes on."""
    changed("config.json", lambda c: c.update(data_path="elsewhere", device_num=2, accumulate=4, progress="bar"))(copy)
    assert outcomes(copy, steps=0)["configuration"] == AGREE


def test_weights_are_tested_as_they_were_where_bits_are_compared(tmp_path, monkeypatch):
    """A run in half precision on a processor that is not quick in it would be tested in float32."""
    monkeypatch.setattr(KINDS["CPU"], "usual_level", ("O0", ""))
    run = attnet.fit(
        TrainConfig(**TINY | {"total_epochs": 1, "image_sizes": ""}, amp="O2", output_dir=tmp_path / "run")
    )
    asked = []
    plan = verifying.plan_evaluation
    monkeypatch.setattr(verifying, "plan_evaluation", lambda config: asked.append(plan(config)) or asked[-1])
    assert outcomes(run.output_dir, steps=0)["Top-1 of best.pt"] == AGREE
    assert {plan.config.amp for plan in asked} == {"O2"}
    asked.clear()
    monkeypatch.setattr(verifying, "code_link", lambda: "another")
    outcomes(run.output_dir, steps=0)
    assert {plan.config.amp for plan in asked} == {"O0"}, "to a tolerance: as is quickest here"


def test_the_command_ends_with_one_where_something_differs(copy):
    assert main([str(copy), "--steps", "0"]) == 0
    other_metrics(copy)
    assert main([str(copy), "--steps", "0"]) == 1


def test_steps_that_were_other_ones_differ(copy):
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["trace"] = [value * 1.0001 for value in row["trace"]]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert outcomes(copy)["steps taken again"] == DIFFER


def test_other_code_is_compared_to_a_tolerance(run, monkeypatch):
    monkeypatch.setattr(verifying, "code_link", lambda: "another")
    findings = {finding.what: finding for finding in verify(run, seed=1)}
    assert findings["code and machine"].outcome == CANNOT and "code is another" in findings["code and machine"].detail
    assert findings["steps taken again"].outcome == AGREE and "(within 2 %)" in findings["steps taken again"].detail


def test_another_processor_of_the_same_name_is_another_machine(run, monkeypatch):
    here = verifying.environment
    monkeypatch.setattr(verifying, "environment", lambda device: here(device) | {"instructions": "others"})
    found = {finding.what: finding for finding in verify(run, steps=0)}["code and machine"]
    assert found.outcome == CANNOT and "then, others now" in found.detail


def test_a_record_has_no_weights_but_steps(run, tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(record(run)))
    found = outcomes(tmp_path / "record.json")
    assert found.pop("Top-1 of the weights") == CANNOT
    assert set(found.values()) == {AGREE} and {"seal", "configuration", "data", "steps taken again"} <= found.keys()
    (tmp_path / "other.json").write_text('{"kind": "steps"}')
    with pytest.raises(AttnetError, match="no record of a training"):
        verify(tmp_path / "other.json")


def test_results_from_before_say_so(copy):
    changed("result.json", lambda c: c.pop("chain"))(copy)
    assert outcomes(copy, steps=0)["seal"] == CANNOT


def test_no_unit_is_imported_because_a_file_names_it(copy, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    changed("result.json", lambda c: c["parameters"].update(unit="evil:Unit"))(copy)
    findings = {finding.what: finding for finding in verify(copy)}
    assert findings["the training"].outcome == CANNOT and "give --unit evil:Unit" in findings["the training"].detail


def test_a_run_does_not_go_on_with_other_data(copy):
    (copy / "result.json").unlink()
    state = torch.load(copy / "previous.pt", weights_only=True)
    (copy / "last.pt").unlink()
    for name, other, says in (
        ("pixels and labels", "0" * 32, "pixels and labels 0{32} there"),
        ("classes", ["a"], r"classes \['a'\] there"),
        ("training images", 63, "training images 63 there, 64 now"),
    ):
        save(state | {"data": state["data"] | {name: other}}, copy / "previous.pt")
        with pytest.raises(ConfigError, match=says):
            attnet.fit(TrainConfig(resume=str(copy)))


def test_parameters_that_came_later_change_nothing(copy):
    """A run of today, verified by a version that knows one parameter more: here, a run that knows one fewer."""
    for file in ("config.json", "result.json"):
        content = json.loads((copy / file).read_text())
        parameters = content if file == "config.json" else content["parameters"]
        del parameters["sums"]
        if file == "result.json":
            content["chain"]["configuration"] = configuration_link(parameters)
        (copy / file).write_text(json.dumps(content))
    assert outcomes(copy, steps=0)["configuration"] == AGREE


ODD = {
    "a result without its figure": (lambda c: c.pop("top1"), "result.json: lacks top1"),
    "a Top-1 that cannot be": (lambda c: c.update(top1=250), "top1 is 250 where 0 to 100 per cent is needed"),
    "weights that are a list": (lambda c: c["chain"].update(weights=[1]), "weights is a list where"),
    "data that are text": (lambda c: c["chain"].update(data="abc"), "data is text where"),
    "a seal that is a number": (lambda c: c["chain"].update(seal=5), "seal is a number where"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_result_of_another_form_is_a_sentence(copy, name):
    change, says = ODD[name]
    changed("result.json", change)(copy)
    with pytest.raises(AttnetError, match=says):
        verify(copy)


@pytest.mark.parametrize("history", [5, [5], [{"epoch": 1}], [{"epoch": 1, "top1": 5.0, "trace": "x"}]])
def test_a_record_of_another_form_is_a_sentence(run, tmp_path, history):
    (tmp_path / "record.json").write_text(json.dumps(record(run) | {"history": history}))
    with pytest.raises(AttnetError, match="history"):
        verify(tmp_path / "record.json")


@pytest.mark.parametrize("name", ["/dev/zero", "../secret", "x" * 100_000, "a\0b", "pipe"])
def test_no_file_outside_the_folder_is_read_because_a_result_names_it(copy, name, tmp_path):
    (tmp_path / "secret").write_text("mine")
    os.mkfifo(copy / "pipe")
    changed("result.json", lambda c: c["chain"].update(weights={name: "abc"}))(copy)
    assert [f.outcome for f in verify(copy, steps=0) if f.what == name] == [CANNOT]


def test_the_checkpoint_of_another_network_cannot_be_gone_on_from(copy):
    """Verified or resumed: a sentence, never a step with another network's momentum."""
    for change in ({"freeze": "body"}, {"model": "attention56_cifar"}):
        changed("result.json", lambda c: c["parameters"].update(change))(copy)  # noqa: B023
        last = verify(copy, seed=0)[-1]
        assert last.outcome == CANNOT and "the checkpoint is none of this run" in last.detail
    (copy / "result.json").unlink()
    good = torch.load(copy / "last.pt", weights_only=True)
    (copy / "previous.pt").unlink()
    for other in (
        {"model": {}},
        {"precision": 5},
        {"rows": [{"top1": "x"}]},
        {"rng": 3},
        {"epoch": 50},
        {"best": None},
        {"rank_fps": "x"},
        {"rank_fps": [math.nan]},
    ):
        save(good | other, copy / "last.pt")
        with pytest.raises(ConfigError, match="resume: the checkpoint is none of this run"):
            attnet.fit(TrainConfig(resume=str(copy)))
