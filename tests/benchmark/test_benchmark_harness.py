"""The two harnesses that stand beside the benchmark: our step beside the reference's, losses against float64."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator

import harness_losses
import harness_versus
import pytest
import torch

from attnet.base.files.paths import repository_root
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan

# Stands in for a copy of the reference repository.
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
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "residual_attention_network.py").write_text(REFERENCE)
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
