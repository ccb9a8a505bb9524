"""Several simulated NPUs: DDP over hccl, restarts, sweeps, the notebooks, apex; see tests/engine/test_npu.py."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import npu_jobs
import pytest
from npu_runs import ROOT, SIMULATED, assert_equal_weights, assert_same_weights, flags, launched, on_cpu, run

import attnet

pytestmark = pytest.mark.slow

pytest_plugins = "harness_npu"

# -- many cards --------------------------------------------------------------------------------------------------------


# The batch of one card, for each of two. At lr 0.1 a last digit grows a thousandfold in these eight steps.
HALF_BATCH = {"amp": "O0", "train_batch_size": 8, "lr": 0.01}


@pytest.fixture(scope="module")
def two_cards(npu_environment, tmp_path_factory) -> attnet.Result:
    return launched(npu_environment, tmp_path_factory.mktemp("two") / "run", 2, **HALF_BATCH)


def test_two_ranks_over_hccl_equal_gloo_on_the_cpu(two_cards, tmp_path):
    here = launched(dict(os.environ), tmp_path / "cpu", 2, device_type="CPU", **HALF_BATCH)
    assert (two_cards.device, two_cards.environment["device"], here.device) == ("npu_2p", SIMULATED, "cpu_2p")
    losses = [[row["train_loss"] for row in result.history] for result in (two_cards, here)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert_same_weights(two_cards.output_dir, here.output_dir)


def pid_of_rank(rank: int, launcher: int) -> int:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            if {b"RANK=%d" % rank, b"ATTNET_LAUNCHER_PID=%d" % launcher} <= set(variables):
                return int(folder.name)
    raise AssertionError(f"there is no rank {rank}")


def test_a_rank_that_dies_is_brought_back(npu_environment, two_cards, tmp_path):
    """The process group meets anew, on the same cards, and ends at the weights of an undisturbed run."""
    words = flags(device_num=2, output_dir=tmp_path / "run", **HALF_BATCH)
    command = [sys.executable, "-m", "attnet.train", *words]
    with subprocess.Popen(command, cwd=ROOT, env=npu_environment, stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / "run/last.pt").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(pid_of_rank(1, process.pid), signal.SIGKILL)
        assert process.wait(120) == 0
    assert "resume:" in (tmp_path / "run" / "log.txt").read_text()
    assert_equal_weights(two_cards.output_dir, tmp_path / "run")


def test_a_sweep_gives_each_run_a_card(npu, tmp_path):
    assert npu(npu_jobs.sweep_on_two_cards, str(tmp_path)) == [0, 1]


# -- apex --------------------------------------------------------------------------------------------------------------


def test_the_documents_apex(npu_environment, npu, tmp_path):
    """amp.initialize and NpuFusedSGD, of a stand-in for Ascend's apex, on two cards; the same steps by native torch."""
    folders = [str(ROOT / "tests/apex_stand_ins" / name) for name in ("ascend", "common")]
    with_apex = npu_environment | {"PYTHONPATH": os.pathsep.join([*folders, npu_environment["PYTHONPATH"]])}
    small = {"lr": 0.01, "train_batch_size": 8}
    result = launched(with_apex, tmp_path / "apex", 2, amp_backend="apex", **small)
    log = (tmp_path / "apex" / "log.txt").read_text()
    assert "does O2 with combined gradients and apex's NpuFusedSGD" in log and "loss scale 128.0, by apex" in log
    native = npu(npu_jobs.train, output_dir=str(tmp_path / "native"), accumulate=2, **small)
    assert [row["train_loss"] for row in result.history] == pytest.approx(native["losses"], rel=0.01)
    assert "no apex is installed" in npu(npu_jobs.plan_lines, amp_backend="apex")


# -- the tools ---------------------------------------------------------------------------------------------------------


def papermill(environment: dict[str, str], notebook: str, output: Path, **parameters: object) -> list:
    given = [word for name, value in parameters.items() for word in ("-p", name, value)]
    words = [f"notebooks/{notebook}", output, "-k", "python3", "--no-progress-bar", *given]
    done = run(environment, "papermill", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    return nbformat.read(output, as_version=4).cells


SMALL = {"dataset": "shapes", "mode": "rehearsal", "device_type": "NPU", "train_images": 96, "test_images": 40}


@pytest.mark.parametrize(("notebook", "cards"), [("train_1p.ipynb", 1), ("train_8p.ipynb", 8)])
def test_train_notebooks(npu_environment, tmp_path, notebook, cards):
    """In the document's precision, and near the losses of as many micro-batches in float32 on the CPU."""
    size = {"total_epochs": 1, "train_batch_size": 32 // cards, "lr": 0.01, "seed": 3}
    cells = papermill(npu_environment, notebook, tmp_path / "out.ipynb", **SMALL, **size, output_dir=tmp_path / "run")
    result = attnet.Result.load(tmp_path / "run")
    assert (result.device, result.amp, result.epochs) == (f"npu_{cards}p", "O2", 1)
    assert SIMULATED in json.dumps(cells), "the plan names the card"
    exact = on_cpu(output_dir=str(tmp_path / "cpu"), amp="O0", accumulate=cards, **SMALL, **size)
    assert result.history[0]["train_loss"] == pytest.approx(exact["losses"][0], rel=0.02)


def test_evaluate_notebook(npu_environment, npu, tmp_path):
    npu(npu_jobs.train, output_dir=str(tmp_path / "run"), total_epochs=1)
    given = {"pretrained": tmp_path / "run", "device_type": "NPU", "test_images": 60}
    cells = papermill(npu_environment, "evaluate.ipynb", tmp_path / "out.ipynb", **given)
    assert SIMULATED in json.dumps(cells)
