"""A process that trains starts with little: each card has one, and each restart begins anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FLAGS = {
    "device_type": "CPU",
    "dataset": "shapes",
    "model": "attention56_tiny",
    "train_images": 16,
    "test_images": 10,
    "train_batch_size": 8,
    "total_epochs": 1,
}
PROGRAM = """
import sys
from attnet.__main__ import main
status = main(["train", *sys.argv[1:]])
print("MODULES", *sorted(sys.modules))
sys.exit(status)
"""
OTHER_ROOMS = ("study", "plots", "masks", "doctor", "benchmark")
# pandas and the like take seconds to import; torch._dynamo is for torch.compile alone.
HEAVY = ("pandas", "scipy", "matplotlib", "papermill", "IPython", "torch._dynamo")


def test_a_process_that_trains_imports_what_training_takes(tmp_path):
    words = [f"--{name}={value}" for name, value in FLAGS.items()]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words, f"--output_dir={tmp_path / 'run'}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *shown, last = done.stdout.splitlines()
    assert any(line.startswith("epoch 1/1") for line in shown)
    modules = last.split()[1:]
    unwanted = [f"attnet.{room}" for room in OTHER_ROOMS] + list(HEAVY)
    found = [name for name in modules if any(name == other or name.startswith(f"{other}.") for other in unwanted)]
    assert found == []
    ours = [name for name in modules if name.split(".")[0] == "attnet"]
    assert len(ours) < 70, ours
