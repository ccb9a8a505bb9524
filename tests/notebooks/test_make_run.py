"""Ctrl-C in `make run`: it ends when the run has saved itself, with the command that goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from made import wait_until

from attnet.base.execution import STOPPING

ROOT = Path(__file__).resolve().parents[2]
SAVES_SLOWLY = """
import pathlib, signal, sys, time
def stop(*_):
    time.sleep(1)  # a step
    pathlib.Path("saved").touch()
    print('Go on with resume="runs/a b" (a parameter)', file=sys.stderr)
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
pathlib.Path("at work").touch()
time.sleep(100)
"""


@pytest.fixture
def house(tmp_path) -> Path:
    """A folder in which `make run` works, with this Python as its environment."""
    if not shutil.which("make"):
        pytest.skip("no make on this machine")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    packages = "".join((tmp_path / name).read_text() for name in ("pyproject.toml", "constraints.txt"))
    (tmp_path / ".venv" / "ready-test").write_text(f"{tmp_path}\n{packages}")
    (tmp_path / ".venv" / "place").write_text(str(tmp_path))
    return tmp_path


def interrupted(house: Path, python: str, sign: Path, arguments: str = "") -> str:
    """What `make run` says when Ctrl-C comes as soon as `sign` is there, to all its processes, as from a terminal."""
    file = house / ".venv" / "bin" / "python"
    file.write_text(f"#!/bin/sh\n{python}\n")
    file.chmod(0o755)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}
    process = subprocess.Popen(
        ["make", "run", f"ARGS={arguments}"], cwd=house, env=outside | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        wait_until(lambda: sign.exists() or process.poll() is not None)
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(200) != 0
        return process.stdout.read()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_it_waits_until_everything_is_saved_and_says_how_to_go_on(house):
    (house / "slow.py").write_text(SAVES_SLOWLY)
    python = f'case "$2" in papermill) exec {sys.executable} slow.py ;; esac'
    said = interrupted(house, python, house / "at work").splitlines()
    assert (house / "saved").exists()
    last = [line for line in said if not line.startswith("make: ")][-2:]
    assert last[0] == 'The run stopped: Go on with resume="runs/a b" (a parameter)'
    assert last[1] == "To go on: make run ARGS=\"-p resume 'runs/a b'\""


@pytest.mark.slow
def test_a_real_training_is_saved_at_its_step(house):
    run = house / "run"
    small = {"mode": "rehearsal", "dataset": "shapes", "device_type": "CPU", "total_epochs": 500, "train_images": 64}
    given = " ".join(f"-p {name} {value}" for name, value in {**small, "output_dir": run}.items())
    said = interrupted(house, f'exec {sys.executable} "$@"', run / "last.pt", given)
    logged = (run / "log.txt").read_text().splitlines()[-1]
    assert logged.startswith("stopped by SIGINT in epoch ") and f"The run stopped: {logged}\n" in said
    assert STOPPING in said and f"To go on: make run ARGS=\"-p resume '{run}'\"\n" in said
    assert (house / "runs/train_1p/train_1p.ipynb").exists()
