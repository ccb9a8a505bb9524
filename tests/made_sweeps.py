"""What tests of sweeps make: sweeps of tiny runs, and processes that stand in for trainings."""

import json
import subprocess
import sys
import time
from pathlib import Path

from made import make_result

from attnet.engine.parameters import TrainConfig
from attnet.study.sweeps import runner as running
from attnet.study.sweeps.runs import LOG, Run
from attnet.study.sweeps.sweep import Sweep

EPOCHS = 8  # long enough to be stopped from outside
TINY = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"},
    **{"train_images": 32, "test_images": 20, "train_batch_size": 16, "total_epochs": EPOCHS},
}


def with_processes(monkeypatch, code: str) -> list[tuple[str, int, float]]:
    """Let `code` run in place of training, in the run's folder with `name`, `attempt` and `result` defined.

    Returns a list that grows by name, slot and time at every start.
    """
    started = []
    result = json.dumps(make_result(last_top1=50.0).to_json())

    def start(run: Run, slot: int = 0, parallel: int = 1, lease: object = None) -> subprocess.Popen:
        attempt = sum(name == run.name for name, *_ in started) + 1
        started.append((run.name, slot, time.monotonic()))
        run.folder.mkdir(parents=True, exist_ok=True)
        words = f"import time, signal; name, attempt, result = {run.name!r}, {attempt}, {result!r}\n{code}"
        with open(run.folder / LOG, "a") as log:
            return subprocess.Popen([sys.executable, "-S", "-c", words], cwd=run.folder, stdout=log, stderr=log)

    monkeypatch.setattr(Run, "start", start)
    monkeypatch.setattr(running, "POLL", 0.02)
    return started


def sweep_of(folder: Path, names: str, seeds: tuple[int, ...] = (0,)) -> Sweep:
    return Sweep({name: TrainConfig(**TINY) for name in names}, seeds, folder)
