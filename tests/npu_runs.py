"""Runs of attnet on simulated NPUs and on the CPU, for tests to compare."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import npu_jobs
import torch

import attnet

ROOT = Path(__file__).resolve().parent.parent
SIMULATED = "simulated NPU (CPU memory, for tests)"


def run(environment: dict[str, str], *words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False, **options
    )


def flags(**changes: object) -> list[str]:
    parameters = {**npu_jobs.TINY, "device_type": "NPU", **changes}
    return [f"--{name}={value}" for name, value in parameters.items()]


def on_cpu(**changes: object) -> dict:
    return npu_jobs.train(**{**changes, "device_type": "CPU"})


def weights(folder: object, name: str = "last.pt") -> dict[str, torch.Tensor]:
    return torch.load(Path(folder) / name, weights_only=True)["model"]


def distance(here: torch.Tensor, there: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((here - there).norm() / there.norm().clamp(min=1e-9))


def assert_same_weights(a: object, b: object) -> None:
    """To rounding: SGD is fused on a CPU, and its kernel may round the last few numbers of a tensor otherwise.

    That spreads to all the others, so each tensor is compared as a whole. What is no number differs.
    """
    here, there = weights(a), weights(b)
    differ = [name for name in here if not distance(here[name].double(), there[name].double()) <= 1e-5]
    assert (differ, here.keys()) == ([], there.keys())


def assert_equal_weights(a: object, b: object) -> None:
    """Bit for bit."""
    here, there = weights(a), weights(b)
    assert ([name for name in here if not torch.equal(here[name], there[name])], here.keys()) == ([], there.keys())


def launched(environment: dict[str, str], folder: Path, ranks: int, **changes: object) -> attnet.Result:
    done = run(environment, "attnet.train", *flags(device_num=ranks, output_dir=folder, **changes))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return attnet.Result.load(folder)
