"""A mean and how far chance may have moved it: in the choice of images, or of seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnet.errors import ConfigError

CHUNK = 2**18  # values resampled at a time: bounds the memory, not the results


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval from `low` to `high`, 95 % unless another level was asked for."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f}–{self.high:.3f})"


def confidence_interval(values: Tensor, level: float = 0.95, resamples: int = 1000, seed: int = 0) -> Interval:
    """The mean of one value an image, and how far chance in the choice of images may have moved it.

    Percentile bootstrap: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13. Computed in
    float64. The same seed draws the same images for as many values, so methods scored on the same images meet the
    same resamples. The interval is a little narrow for fewer than some thirty images, and is a point for one.

    Args:
        values: [N] of any real or bool dtype, on any device.
        level: share of such intervals that hold the true mean, between 0 and 1.
        resamples: sets of N images drawn with replacement; `seed` is that of their own generator.

    Raises:
        ConfigError: no values, more than one dimension, a value that is not finite, a level or number out of range.
    """
    if values.dim() != 1 or not len(values):
        raise ConfigError(f"values of shape {list(values.shape)}: [N] with at least one value is needed")
    if not 0 < level < 1:
        raise ConfigError(f"level={level}: it must lie between 0 and 1, as 0.95 does")
    if resamples < 1:
        raise ConfigError(f"resamples={resamples}: it must be 1 or more; 1000 serves for a level of 0.95")
    values = values.detach().cpu().double()
    if not (finite := values.isfinite()).all():
        i = int((~finite).nonzero()[0])
        raise ConfigError(f"values[{i}]={values[i].item()}: every value must be finite; leave out images without one")
    if (values == values[0]).all():  # resampled sums of equal values would differ in their last digits
        return Interval(*3 * (values[0].item(),))
    generator = torch.Generator().manual_seed(seed)
    n, means = len(values), []
    for rows in torch.arange(resamples).split(max(1, CHUNK // n)):
        means.append(values[torch.randint(n, (len(rows), n), generator=generator)].mean(dim=1))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return Interval(values.mean().item(), *torch.cat(means).quantile(ends).tolist())


def over_seeds(values: Sequence[float]) -> dict[str, float | None]:
    """`mean` of a value a seed, and `low` to `high`, its 95 % confidence interval; None for what too few values give.

    By Student's t distribution (Student, "The probable error of a mean", 1908), which holds for few and roughly
    normal values; the bootstrap of `confidence_interval` is too narrow for so few.
    """
    mean = statistics.mean(values) if values else None
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    reach = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def t_quantile(freedom: int, level: float = 0.95) -> float:
    """What |t| stays below with probability `level`, for Student's t of `freedom` degrees of freedom.

    With t = sqrt(freedom) tan(angle), the density of the angle is proportional to cos(angle)^(freedom - 1).
    """
    low, high = 0.0, math.pi / 2
    wanted = level * _cosine_integral(freedom - 1, high)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _cosine_integral(freedom - 1, middle) < wanted else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _cosine_integral(power: int, angle: float) -> float:
    """The integral of cos^power from 0 to `angle`, by parts."""
    value, first = (math.sin(angle), 3) if power % 2 else (angle, 2)
    for k in range(first, power + 1, 2):
        value = (math.cos(angle) ** (k - 1) * math.sin(angle) + (k - 1) * value) / k
    return value
