"""The workbench on one Ascend NPU: all of it, on the simulated one of tests/npu_simulation, against the CPU.

A simulated NPU computes with the CPU's kernels, so float32 results must be equal to the last digit; it refuses what a
real one refuses or would be slow at: float64, pinned memory, CUDA's own calls.
"""

from __future__ import annotations

import subprocess
import sys

import npu_jobs
import pytest
import torch
from npu_runs import ROOT, SIMULATED, assert_equal_weights, flags, on_cpu, run, weights

from attnet.engine.result import Result

pytest_plugins = "harness_npu"

RECIPES = {
    "seed": {"recipe": "seed", "total_epochs": 1, "train_images": 32},
    "best": {"recipe": "best", "mixup_off_epochs": 1},  # mixup, cutout, standardised colours, EMA, mirrored tests
    "fast94": {"recipe": "fast94"},
}


# -- the device --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_auto_takes_the_npu(npu):
    found = npu(npu_jobs.cards)
    assert found.pop("total") > 0
    expected = {"kind": "NPU", "name": SIMULATED, "count": 8, "backend": "hccl"}
    assert found == expected | {"half": ["torch.float16", "torch.bfloat16"]}


@pytest.mark.slow
def test_the_generator_of_a_card_is_seeded_saved_and_put_back(npu):
    assert npu(npu_jobs.rng, 3) == [True, True, False]


@pytest.mark.slow
def test_what_is_not_visible_is_refused_by_name(npu_environment, tmp_path):
    few = npu_environment | {"ASCEND_RT_VISIBLE_DEVICES": "4,5"}
    done = run(few, "attnet.train", *flags(device_num=8, output_dir=tmp_path / "run"))
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    assert "device_num=8: only 2 NPU cards are here (ASCEND_RT_VISIBLE_DEVICES=4,5)" in done.stderr


# -- one card ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["seed", *(pytest.param(r, marks=pytest.mark.slow) for r in ("best", "fast94"))])
def test_float32_training_equals_the_cpu(npu, tmp_path, recipe):
    here = on_cpu(output_dir=str(tmp_path / "cpu"), amp="O0", **RECIPES[recipe])
    there = npu(npu_jobs.train, output_dir=str(tmp_path / "npu"), amp="O0", device_id=2, **RECIPES[recipe])
    assert (there["losses"], there["top1"]) == (here["losses"], here["top1"])
    assert_equal_weights(here["folder"], there["folder"])
    assert (there["device"], there["card"], here["device"]) == ("npu_1p", SIMULATED, "cpu_1p")
    result = Result.load(there["folder"])
    assert (result.kind, result.notes[0]) == ("simulated", SIMULATED)
    assert 2**20 < there["memory"] < 2**30  # of the card alone: torch itself takes more of the process


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_half_precision_follows_float32(npu, tmp_path, level):
    small = {"lr": 0.01, "total_epochs": 1}
    exact = on_cpu(output_dir=str(tmp_path / "cpu"), amp="O0", **small)
    half = npu(npu_jobs.train, output_dir=str(tmp_path / "npu"), amp=level, **small)
    assert half["losses"] == pytest.approx(exact["losses"], rel=0.02) and half["losses"] != exact["losses"]
    assert half["amp"] == level and half["skipped"] == 0
    stored = torch.float16 if level == "O3" else torch.float32
    assert weights(half["folder"])["fc.weight"].dtype == stored


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_a_dynamic_scale_comes_down_to_what_float16_holds(npu, tmp_path, level):
    """The first gradients, scaled by 2^22, overflow; some steps are skipped, the others learn."""
    small = {"lr": 0.01, "train_images": 96}
    result = npu(npu_jobs.train_from_scale, 2.0**22, output_dir=str(tmp_path), amp=level, keep_epochs=1, **small)
    assert 4 <= result["skipped"] <= 9
    begun, ended = (weights(result["folder"], name) for name in ("epoch_000.pt", "epoch_002.pt"))
    assert not torch.equal(begun["fc.weight"], ended["fc.weight"])


@pytest.mark.slow
def test_auto_is_o2_and_nchw_on_an_npu(npu):
    plans = [npu(npu_jobs.plan_lines, channels_last=last) for last in (None, True)]
    assert all("precision: O2 with float16, loss scale 128.0" in plan for plan in plans)
    assert ["channels_last False: NPUs take tensors as NCHW alone" in plan for plan in plans] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("level", ["O1", "O2"])
def test_steps_that_overflow_are_skipped(npu, tmp_path, level):
    """With a scale that no float16 gradient survives nothing changes but batch norm's statistics."""
    result = npu(npu_jobs.train, output_dir=str(tmp_path / level), amp=level, loss_scale=1e29, keep_epochs=1)
    assert result["skipped"] == 2 * 4
    begun, ended = (weights(result["folder"], name) for name in ("epoch_000.pt", "epoch_002.pt"))
    changed = [name for name in begun if not torch.equal(begun[name], ended[name])]
    assert changed and all("running" in name or "batches" in name for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [("NPU", "CPU"), ("CPU", "NPU"), ("NPU", "NPU")])
def test_a_run_goes_on_elsewhere(npu, tmp_path, first, then):
    """Stopped within the second epoch and resumed on the other device: the weights of an undisturbed run."""
    whole = on_cpu(output_dir=str(tmp_path / "whole"), amp="O0")
    words = npu(npu_jobs.train_until, 6, output_dir=str(tmp_path / "run"), amp="O0", device_type=first)
    assert "SIGTERM in epoch 2, step 2 of 4" in words
    assert npu(npu_jobs.tensors_of, str(tmp_path / "run/step.pt")) == ["cpu"]
    resumed = npu(npu_jobs.train, output_dir=str(tmp_path / "run"), resume="auto", amp="O0", device_type=then)
    assert resumed["device"] == f"{then.lower()}_1p" and resumed["losses"] == whole["losses"]
    assert_equal_weights(whole["folder"], resumed["folder"])


@pytest.mark.slow
def test_a_half_precision_run_goes_on_to_the_same_weights(npu, tmp_path):
    """Master weights, momentum and the loss scale come back; then the same run ends on a CPU."""
    half = {"amp": "O2", "loss_scale": "dynamic"}
    whole = npu(npu_jobs.train, output_dir=str(tmp_path / "whole"), **half)
    for name, then in (("again", "NPU"), ("cpu", "CPU")):
        npu(npu_jobs.train_until, 6, output_dir=str(tmp_path / name), **half)
        resumed = npu(npu_jobs.train, output_dir=str(tmp_path / name), resume="auto", device_type=then, **half)
        assert resumed["losses"] == pytest.approx(whole["losses"], rel=0 if then == "NPU" else 0.05)
        assert resumed["losses"][0] == whole["losses"][0]
    assert_equal_weights(whole["folder"], tmp_path / "again")


# -- looking -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_masks_and_everything_computed_from_them(npu):
    found = npu(npu_jobs.look_into_a_network, 1)
    assert len(found) > 30
    assert [name for name, equal in found.items() if not equal] == []


@pytest.mark.slow
def test_the_explorer_shows_the_same_pictures(npu, tmp_path):
    shown = npu(npu_jobs.explore, "NPU", str(tmp_path))
    assert shown == npu_jobs.explore("CPU", str(tmp_path))
    assert len({digest for digest, _ in shown}) == len(shown) and {message for _, message in shown} == {""}


@pytest.mark.slow
def test_a_figure(npu, tmp_path):
    npu(npu_jobs.draw_figure, str(tmp_path / "figure.png"))
    assert (tmp_path / "figure.png").stat().st_size > 10_000


# -- the tools ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_get_the_task_queue_back_that_kernels_lack(npu_environment, npu):
    """torch_npu, and so the simulated one, sets TASK_QUEUE_ENABLE=0 where IPython runs, under papermill as well."""
    code = "import builtins, os; builtins.__IPYTHON__ = True; from attnet import make_plan, TrainConfig; "
    code += "from attnet.base import processes; "
    code += "print(os.environ['TASK_QUEUE_ENABLE'], processes.environment().get('TASK_QUEUE_ENABLE')); "
    code += "print(make_plan(TrainConfig(mode='rehearsal')).describe())"  # which is not timed beforehand
    for given, children in (({}, "None"), ({"TASK_QUEUE_ENABLE": "2"}, "2")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=npu_environment | given,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[0] == f"0 {children}"
        assert "one by one here, as TASK_QUEUE_ENABLE=0 says" in done.stdout
    assert "TASK_QUEUE_ENABLE" not in "".join(npu(npu_jobs.plan_lines))


@pytest.mark.slow
def test_the_benchmark_times_a_step(npu):
    found = npu(npu_jobs.measure_step)
    assert found["step"] > 0 and sum(found["parts"].values()) > 0
    assert 2**20 < found["peak"] < 2**30


@pytest.mark.slow
def test_the_doctor_sees_the_cards(npu_environment):
    done = run(npu_environment, "attnet", "doctor")
    assert done.returncode == 0 and SIMULATED in done.stdout, done.stdout + done.stderr


def test_nothing_of_the_simulation_is_in_the_package():
    """Only what a result is worth knows the word, so that nobody takes such a run for a measurement."""
    found = [path for path in (ROOT / "attnet").rglob("*.py") if "simulat" in path.read_text().lower()]
    names = {str(path.relative_to(ROOT / "attnet")) for path in found}
    assert names <= {"engine/result.py", "study/rows.py", "plots/figure.py", "plots/runs.py", "report.py"} and names
