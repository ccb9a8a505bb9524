"""Which operators a training step spends its time in, ours and, beside it, the reference repository's."""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections import Counter
from datetime import date

from attnet.base import device as devices
from attnet.benchmark.grid import Setting
from attnet.benchmark.loops import steps_worker
from attnet.benchmark.operators import kind_of


def measure_profile(options: argparse.Namespace) -> dict[str, object]:
    """Median seconds of each operator and kind of operator in a training step, each side in a process of its own.

    Args:
        options: model, batch_size, amp, memory_format, compile (of ours), rounds, reference (or None) and device_type.
    """
    ours = Setting(options.model, options.batch_size, options.amp, options.memory_format == "channels_last",
                   options.compile)  # fmt: skip
    settings = [ours]
    if options.reference:
        settings.append(Setting(options.model, options.batch_size, implementation="reference"))
    found: dict[str, list[dict[str, float]]] = {setting.implementation: [] for setting in settings}
    with contextlib.ExitStack() as stack:
        workers = {
            setting.implementation: stack.enter_context(
                steps_worker(setting, options.device_type, reference=options.reference, warm_up=1)
            )
            for setting in settings
        }
        for _ in range(options.rounds):
            for side, worker in workers.items():
                found[side].append(worker.ask(what="operators")["answer"])
    return {
        "kind": "profile",
        "what": "seconds of a training step by operator, the device waited for after each; medians over rounds",
        "model": options.model,
        "batch_size": options.batch_size,
        "amp": options.amp,
        "memory_format": options.memory_format,
        "operators": {side: _medians(rounds) for side, rounds in found.items()},
        "kinds": {side: _medians([_by_kind(row) for row in rounds]) for side, rounds in found.items()},
        "environment": devices.environment(devices.choose(options.device_type)),
        "date": date.today().isoformat(),
    }


def _by_kind(seconds: dict[str, float]) -> dict[str, float]:
    kinds: Counter[str] = Counter()
    for operator, value in seconds.items():
        kinds[kind_of(operator)] += value
    return dict(kinds)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each name, longest first."""
    names = {name for row in rounds for name in row}
    medians = {name: statistics.median(row.get(name, 0.0) for row in rounds) for name in names}
    return dict(sorted(medians.items(), key=lambda item: (-item[1], item[0])))
