"""A row of a sweep: the figures that follow from measured seconds, counted work and measured ceilings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from attnet.benchmark.counts import StepCounts, counts_of, element_size
from attnet.benchmark.grid import Setting

EPOCH_TRAIN, EPOCH_TEST = 50_000, 10_000  # images of an epoch of CIFAR-10

Row = dict[str, object]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def speed_row(setting: Setting, step_seconds: Sequence[float], ceilings: Mapping[str, Any]) -> Row:
    """What every row has: speed, and how near it comes to the ceilings.

    `share_of_ceiling` is images_per_second / device_num over the speed at which a card would reach the nearer
    ceiling: the lesser of copy_bytes_per_second / bytes_per_image and matmul_flops_per_second / flops_per_image,
    the latter in float32 at O0 and in the half type else. A batch small enough for the caches can come out above 1.
    """
    counts = counts_of(setting.model)
    median = statistics.median(step_seconds)
    speed = setting.batch_size * setting.device_num / median
    each = speed / setting.device_num
    size = element_size(setting.amp)
    moved = counts.floor_bytes(setting.batch_size, size)
    return setting.to_dict() | {
        "step_seconds": spread(step_seconds) | {"all": list(step_seconds)},
        "images_per_second": speed,
        "flops_per_image": counts.flops,
        "bytes_per_image": moved,
        "eager_bytes_per_image": counts.eager_bytes(setting.batch_size, size),
        "flops_per_second": counts.flops * each,
        "bytes_per_second": moved * each,
        "share_of_ceiling": each / ceiling(counts, setting, ceilings),
    }


def ceiling(counts: StepCounts, setting: Setting, ceilings: Mapping[str, Any]) -> float:
    """Images per second of a card that either moves or computes as fast as was measured, whichever takes longer."""
    peaks = ceilings["matmul_flops_per_second"]
    peak = next(value for name, value in peaks.items() if (name == "float32") == (setting.amp == "O0"))
    moved = counts.floor_bytes(setting.batch_size, element_size(setting.amp))
    return min(ceilings["copy_bytes_per_second"] / moved, peak / counts.flops)


def part_figures(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median seconds of each part of a step."""
    return {name: statistics.median(row[name] for row in parts) for name in parts[0]}


def evaluation_figures(images_per_second: float, evaluation_speed: float) -> dict[str, float]:
    """Testing, images/s, and its share of an epoch of 50,000 training and 10,000 test images at these speeds."""
    training, testing = EPOCH_TRAIN / images_per_second, EPOCH_TEST / evaluation_speed
    return {
        "evaluation_images_per_second": evaluation_speed,
        "evaluation_share": testing / (training + testing),
    }
