"""Whole runs of `attnet train` on several ranks, and their speed against one process on the same cores."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from attnet.base import device as devices
from attnet.base.errors import AttnetError
from attnet.benchmark.rows import spread
from attnet.benchmark.worker import end

SHOWN_LINES = 15


def short_run(**parameters: object) -> dict[str, object]:
    """One epoch of `mode=performance` in a process of its own, ranks and all.

    Args:
        parameters: of `TrainConfig`, besides mode, total_epochs and output_dir.

    Returns:
        Its result.json, with the line of metrics.jsonl as "metrics".

    Raises:
        AttnetError: the run failed; its last words.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        given: Mapping[str, object] = parameters | {"output_dir": f"{folder}/run"}
        words = ["--mode=performance", "--total_epochs=1", *(f"--{name}={value}" for name, value in given.items())]
        process = subprocess.Popen(
            [sys.executable, "-m", "attnet.train", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            shown, _ = process.communicate()
        finally:
            end(process)
        if process.returncode:
            last = "\n".join(shown.splitlines()[-SHOWN_LINES:])
            raise AttnetError(f"a run ended with status {process.returncode}; its last words:\n{last}")
        metrics, result = (Path(folder, "run", name).read_text() for name in ("metrics.jsonl", "result.json"))
        return json.loads(result) | {"metrics": json.loads(metrics)}


def measure_ranks(options: argparse.Namespace) -> dict[str, object]:
    """FPS of `options.ranks` processes against one process on the same cores, runs in turn.

    Args:
        options: model, ranks, batch_size (of all ranks together), train_images (0: all), rounds, data_path and
            device_type.
    """
    cards = (1, options.ranks)
    fps: dict[int, list[float]] = {count: [] for count in cards}
    for _ in range(options.rounds):
        for count in cards:
            run = short_run(
                model=options.model,
                data_path=options.data_path,
                train_images=options.train_images,
                train_batch_size=options.batch_size // count,
                device_num=count,
            )
            fps[count].append(run["metrics"]["fps"])
    return {
        "kind": "ranks",
        "what": "images/s of several ranks against one process with as many threads, same global batch, in turn",
        "model": options.model,
        "global_batch_size": options.batch_size,
        "train_images": options.train_images,
        "fps": {f"{count} ranks": values for count, values in fps.items()},
        "efficiency": spread([many / one for one, many in zip(fps[1], fps[options.ranks], strict=True)]),
        "environment": devices.environment(devices.choose(options.device_type)),
        "date": date.today().isoformat(),
    }
