"""Our training step beside the reference repository's own network and loop, and what importing takes."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
from datetime import date

from attnet.base import device as devices
from attnet.benchmark.grid import Setting
from attnet.benchmark.loops import steps_worker
from attnet.benchmark.rows import spread

IMPORTS = 7  # rounds


def measure_versus(options: argparse.Namespace) -> dict[str, object]:
    """Steps of both in turn, each kind in a process of its own; `ratio` is the reference's seconds over ours.

    Args:
        options: model, batch_size, amp, memory_format, compile (of ours), rounds, reference and device_type.
    """
    ours = Setting(options.model, options.batch_size, options.amp, options.memory_format == "channels_last",
                   options.compile)  # fmt: skip
    reference = Setting(options.model, options.batch_size, implementation="reference")
    seconds: dict[str, list[float]] = {"ours": [], "reference": []}
    with contextlib.ExitStack() as stack:
        workers = {
            setting.implementation: stack.enter_context(
                steps_worker(setting, options.device_type, reference=options.reference)
            )
            for setting in (ours, reference)
        }
        for _ in range(options.rounds):
            for kind, worker in workers.items():
                seconds[kind].append(worker.ask(what="step")["answer"])
        peaks = {kind: int(worker.ask(what="peak")["answer"]) for kind, worker in workers.items()}
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {
        "kind": "versus",
        "what": "one training step; medians of steps taken in turn, each kind in a process of its own",
        "model": options.model,
        "batch_size": options.batch_size,
        "amp": options.amp,
        "images_per_second": {kind: options.batch_size / value for kind, value in medians.items()},
        "step_seconds": {kind: {"median": medians[kind], "all": values} for kind, values in seconds.items()},
        "peak_memory_bytes": peaks,
        "import_seconds": import_seconds(),
        "ratio": spread([theirs / our for our, theirs in zip(seconds["ours"], seconds["reference"], strict=True)]),
        "environment": devices.environment(devices.choose(options.device_type)),
        "date": date.today().isoformat(),
    }


def import_seconds(rounds: int = IMPORTS) -> dict[str, float]:
    """Median seconds of a fresh process that imports torch, and of one that imports what attnet.fit needs, in turn."""
    codes = {"torch": "import torch", "attnet": "from attnet import fit"}
    seconds: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(rounds):
        for name, values in seconds.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", codes[name]], check=True)
            values.append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}
