"""The harnesses that hold ours beside the reference: a step, the accuracy at equal processor time, losses."""

import dataclasses
import itertools
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import harness_losses
import harness_race
import harness_versus
import pytest
import torch

import attnet
from attnet.base.errors import ConfigError
from attnet.base.files.paths import repository_root
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan

REFERENCE = f"""
import torch

class {harness_versus.REFERENCE_CLASS}(torch.nn.Module):
    def __init__(self):
        super().__init__()
        print("hello from the reference")
        self.fc = torch.nn.Linear(3, 10)

    def forward(self, images):
        assert images.is_contiguous()
        return self.fc(images.mean(dim=(2, 3)))
"""


def stand_in(folder: Path) -> Path:
    """A folder that stands in for a copy of the reference repository."""
    (folder / "model").mkdir()
    (folder / "model" / "residual_attention_network.py").write_text(REFERENCE)
    return folder


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here and in processes: on a machine that does other work, threads wait for each other's cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_our_step_beside_the_references(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness_versus, "MODEL", "attention56_tiny")
    monkeypatch.setattr(harness_versus, "import_seconds", lambda: {"torch": 1.0, "attnet": 1.1})
    stand_in(tmp_path)
    output = tmp_path / "step.json"
    words = f"--reference {tmp_path} --batch_size 4 --rounds 3 --device_type CPU --output {output} --amp O0,O2".split()
    assert harness_versus.main(words) == 0
    result = json.loads(output.read_text())
    kept = json.loads((repository_root() / "data/results/cpu_step.json").read_text())
    assert list(result) == [*[name for name in kept if name not in ("date", "command")], "command", "date"]
    assert result["command"] == shlex.join(["python", "tests/harness_versus.py", *words])
    assert [list(row) for row in result["rows"]] == [list(kept["rows"][0])] * 3
    assert [(row["implementation"], row["amp"]) for row in result["rows"]] == [
        ("ours", "O0"), ("ours", "O2"), ("reference", "O0"),
    ]  # fmt: skip
    assert {len(row["step_seconds"]) for row in result["rows"]} == {3}
    *ours, reference = (row["ratio"] for row in result["rows"])
    assert all(row["low"] <= row["median"] < 1 for row in ours), "a linear layer is faster than a network"
    assert set(reference.values()) == {1.0}
    assert "ours O2: " in capsys.readouterr().out
    assert harness_versus.main([*words, "--operators"]) == 2
    assert "amp=O0,O2: --operators looks at one opt level, such as --amp O0" in capsys.readouterr().err
    assert harness_versus.main([*words[:-1], "O0", "--operators"]) == 0
    assert set(json.loads(output.read_text())["kinds"]) == {"ours", "reference"}


def test_a_folder_without_the_reference_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ValueError, match="give the inner folder of a copy"):
        harness_versus.reference_network(tmp_path)


SMALL = {"mode": "rehearsal", "dataset": "shapes", "train_images": 256, "test_images": 20, "device_type": "CPU"}


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the reference takes a second of the processor."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "model.residual_attention_network", raising=False)
    monkeypatch.delitem(sys.modules, "model", raising=False)
    monkeypatch.setattr(harness_race.time, "process_time", itertools.count().__next__)


@pytest.mark.usefixtures("no_clock")
def test_the_references_training_goes_on_where_it_was_stopped(tmp_path):
    plan = make_plan(TrainConfig(**SMALL, model="attention56_tiny", recipe="seed", train_batch_size=64))
    folder = stand_in(tmp_path)
    torch.manual_seed(0)
    whole = harness_race.Reference(folder, plan, tmp_path / "whole.pt")
    torch.save(whole.network.state_dict(), tmp_path / "initial.pt")
    whole.train(until=lambda: 6, every=2)
    assert [row["images"] for row in whole.curve] == [128, 256, 384]
    assert [row["processor_seconds"] for row in whole.curve] == [2, 4, 6], "tests cost it nothing"
    begun = harness_race.Reference(folder, plan, tmp_path / "begun.pt")
    begun.network.load_state_dict(torch.load(tmp_path / "initial.pt"))
    begun.train(until=lambda: 2, every=2)
    later = harness_race.Reference(folder, plan, tmp_path / "begun.pt")
    later.train(until=lambda: 6, every=2)
    later.train(until=lambda: 6, every=2)
    assert later.curve == whole.curve, "a finished one takes no more steps"
    assert all(torch.equal(a, b) for a, b in zip(later.network.parameters(), whole.network.parameters(), strict=True))
    other = dataclasses.replace(plan, config=dataclasses.replace(plan.config, seed=1))
    with pytest.raises(ConfigError, match=f"folder={tmp_path}: that had seed=0, this is 1; give another"):
        harness_race.Reference(folder, other, tmp_path / "begun.pt")


def test_at_equal_time_the_best_of_the_reference_so_far_counts():
    curve = harness_race.curve_of([{"epoch": n, "processor_seconds": 3600, "top1": 20.0 * n} for n in (1, 2, 3)])
    assert [row["processor_seconds"] for row in curve] == [3600, 7200, 10800]
    theirs = [{"processor_seconds": 4000, "top1": 30.0}, {"processor_seconds": 7000, "top1": 25.0}]
    assert harness_race.beside(curve, theirs) == [
        {"processor_hours": 1, "ours": 20, "reference": None, "reference_tested": None},
        {"processor_hours": 2, "ours": 40, "reference": 30, "reference_tested": 7000 / 3600},
        {"processor_hours": 3, "ours": 60, "reference": 30, "reference_tested": 7000 / 3600},
    ]
    last = harness_race.beside(curve, [*theirs, {"processor_seconds": 10_805.0, "top1": 45.0}])[-1]
    assert last["reference"] == 45, "the step in which the time was up is one of the reference's"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread", "no_clock")
def test_a_run_of_ours_beside_the_references_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness_race, "MODEL", "attention56_tiny")
    run, output = tmp_path / "run", tmp_path / "race.json"
    config = TrainConfig(**SMALL, model="attention56_tiny", total_epochs=2, train_batch_size=32, output_dir=str(run))
    attnet.fit(config)
    monkeypatch.setattr(harness_race, "curve_of", lambda history: [row | {"processor_seconds": 5.0} for row in history])
    words = f"--reference {stand_in(tmp_path)} --run {run} --folder {tmp_path / 'kept'} --output {output} --every 3"
    asked = iter([False, False, False, True])  # at work for two steps yet
    monkeypatch.setattr(harness_race, "is_finished", lambda folder: next(asked, True))
    assert harness_race.main(words.split()) == 0
    record = json.loads(output.read_text())
    assert [row["images"] for row in record["reference"]] == [192, 320], "the run's images, at batch 64"
    assert record["beside"][-1]["reference"] == max(row["top1"] for row in record["reference"])
    assert record["beside"][-1]["ours"] == record["ours"][-1]["top1"]
    assert record["command"] == shlex.join(["python", "tests/harness_race.py", *words.split()])
    assert "processor hours: ours " in capsys.readouterr().out
    monkeypatch.setattr(harness_race, "MODEL", "attention92")
    assert harness_race.main(words.split()) == 2
    assert "attention56_tiny on 1 cards; give a run of attention92 on 1" in capsys.readouterr().err


def test_importing_is_timed_in_fresh_processes_in_turn(monkeypatch):
    readings = iter([0.0, 1.0, 0.0, 2.0, 0.0, 9.0, 0.0, 4.0, 0.0, 3.0, 0.0, 2.5])
    monkeypatch.setattr(harness_versus.time, "perf_counter", lambda: next(readings))
    started = []
    monkeypatch.setattr(subprocess, "run", lambda words, check: started.append(words[-1]))
    assert harness_versus.import_seconds(rounds=3) == {"torch": 3.0, "attnet": 2.5}
    assert started == ["import torch", "from attnet.engine.fit import fit"] * 3


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_losses_of_our_engine_are_those_of_float64(monkeypatch, tmp_path, capsys):
    given = {"mode": "rehearsal", "dataset": "shapes", "train_images": 40, "train_batch_size": 8}
    plan = make_plan(TrainConfig(model="attention56_tiny", device_type="CPU", amp="O0", **given))
    monkeypatch.setattr(harness_losses, "make_plan", lambda config: plan)
    output = tmp_path / "losses.json"
    assert harness_losses.main(["--steps", "2", "--lr", "0.01", "--output", str(output)]) == 0
    result = json.loads(output.read_text())
    kept = json.loads((repository_root() / "data/results/attention92_losses.json").read_text())
    assert set(result) == set(kept) and set(result["losses"]) == set(kept["losses"])
    assert {len(values) for values in result["losses"].values()} == {2}
    assert result["largest_relative_difference"]["ours to float64_at_our_weights"] < 1e-4
    assert "ours to float64: at most" in capsys.readouterr().out
