"""What tests of several rooms make: results, the files of finished runs, notebooks; and waiting for other processes."""

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from attnet.engine.result import Result


def of_data(name: str, used: int, total: int = 0, noise: float = 0.0, **parameters: object) -> dict[str, object]:
    """What a result says of a training on so many images of a data set; other parameters of it beside."""
    total = total or used
    task = name + (f" (label noise {100 * noise:g} %)" if noise else "")
    count = f"{used:,} of {total:,}" if used < total else f"{used:,}"
    return {
        "dataset": f"{name}, {count} images" + task.removeprefix(name),
        "task": task,
        "images": {"train": used, "train_total": total, "test": 10_000, "test_total": 10_000},
        "parameters": {"mode": "full", "dataset": name, "label_noise": noise, "device_num": 1, **parameters},
    }


def make_result(**changes: object) -> Result:
    """A result; by default of a training on some of CIFAR-10's images, which makes it a rehearsal."""
    fields = {
        "top1": 71.25,
        "fps": 1234.5,
        "epochs": 3,
        "amp": "O2",
        "device": "gpu_1p",
        "batch_size": 64,
        "model": "attention56_tiny",
        "last_top1": 70.5,
        "per_class": {"cat": 60.0, "dog": 82.5},
        "confusion": [[6, 4], [2, 8]],
        "peak_memory": 2**30,
        "skipped_steps": 1,
        "environment": {"torch": "2.13.0"},
        **of_data("cifar10", 2_000, 50_000),
    }
    return Result(**fields | changes)


def save(result: Result, folder: Path) -> Path:
    """Write the files of a run folder that a result is read from."""
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result.to_json()))
    if result.history:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in result.history))
    return folder


ROW = {"epoch": 1, "lr": 0.1, "train_loss": 2.0, "test_loss": 2.1, "top1": 30.0, "fps": 100.0, "seconds": 60.0}


def begun_run(folder: Path, epochs: int = 2, **sign: object) -> Path:
    """The files of a run of 10 epochs that has done some and stands at step 5 of 10; its process is this one.

    `sign`: what the last sign of life of rank 0 says besides; size=2 makes a second rank.
    """
    (folder / "pulse").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"total_epochs": 10, "model": "attention56_tiny", "seed": 3}))
    rows = [ROW | {"epoch": n, "top1": 30.0 + n, "trace": [1.5, 3.0, 4.0]} for n in range(1, epochs + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "log.txt").write_text("a plan\n" + "".join(f"epoch {row['epoch']}/10\n" for row in rows))
    known = {"size": 1, "pid": os.getpid(), "host": socket.gethostname(), "keeper": None, "every": 1.0, "epochs": 10}
    known |= {"epoch": epochs, "step": 5, "steps": 10, "images": 16, "rate": 2.0, "still": 0.1, "trace": [], **sign}
    for rank in range(known["size"]):
        (folder / "pulse" / f"rank{rank}.json").write_text(json.dumps({"rank": rank, **known}))
    return folder


def write_notebook(path: Path, parameters: str, *cells: str) -> Path:
    """A notebook of some code cells, the first one tagged `parameters`."""
    import nbformat  # here: it takes seconds, and few files need it

    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def wait_until(condition: Callable[[], object], seconds: float = 200) -> None:
    """Look again and again; AssertionError when the time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
