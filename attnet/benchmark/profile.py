"""Which operators a training step spends its time in."""

from __future__ import annotations

import argparse
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from attnet.benchmark.loops import Setting, steps_worker

WHAT = "seconds of a training step by operator, the device waited for after each; medians over rounds"
# Kind -> how its operators' names begin.
KINDS = {
    "convolution": ("convolution", "addmm", "mm"),
    "batch norm": ("native_batch_norm", "batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "_batch_norm"),
    "ReLU, sigmoid": ("relu", "threshold", "sigmoid"),
    "sums": ("add", "sum"),
    "mask combine": ("addcmul", "mul"),
    "pooling, up-sampling": ("max_pool", "upsample", "mean"),
    "optimiser": ("_fused", "_foreach"),
}


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Median seconds of each operator and kind of operator in a training step, under the name of what was measured.

    Args:
        options: model, batch_size, amp, memory_format, compile, rounds and device_type.
    """
    with steps_worker(Setting.asked(options), options.device_type, warm_up=1) as worker:
        rounds = [worker.ask(what="operators")["answer"] for _ in range(options.rounds)]
    return by_operator({"ours": rounds})


def by_operator(found: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, object]:
    """For each side "operators" and "kinds": medians of its rounds' seconds by operator, longest first."""
    return {
        "operators": {side: _medians(rounds) for side, rounds in found.items()},
        "kinds": {side: _medians([_by_kind(row) for row in rounds]) for side, rounds in found.items()},
    }


def kind_of(operator: str) -> str:
    """What kind of work an operator does; "other" where it is none of KINDS."""
    return next((kind for kind, starts in KINDS.items() if operator.startswith(starts)), "other")


def _by_kind(seconds: Mapping[str, float]) -> dict[str, float]:
    kinds: Counter[str] = Counter()
    for operator, value in seconds.items():
        kinds[kind_of(operator)] += value
    return dict(kinds)


def _medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name for row in rounds for name in row}
    medians = {name: statistics.median(row.get(name, 0.0) for row in rounds) for name in names}
    return dict(sorted(medians.items(), key=lambda item: (-item[1], item[0])))
