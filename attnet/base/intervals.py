"""A mean and how far chance may have moved it: in the choice of images, or of seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from torch import Tensor

from attnet.base.errors import ConfigError

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
    found = scipy.stats.bootstrap(
        (values.numpy(),),
        np.mean,
        n_resamples=resamples,
        batch=max(1, CHUNK // len(values)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(values.mean().item(), *map(float, found.confidence_interval))


def over_seeds(values: Sequence[float], within: tuple[float, float] = (-math.inf, math.inf)) -> dict[str, float | None]:
    """`mean` of a value a seed, and `low` to `high`, its 95 % confidence interval; None for what too few values give.

    By Student's t distribution (Student, "The probable error of a mean", 1908), which holds for few and roughly
    normal values; the bootstrap of `confidence_interval` is too narrow for so few.

    Args:
        within: what the mean can be at all, as 0 to 100 for a share in per cent; the interval ends there.
    """
    mean = statistics.mean(values) if values else None
    if len(values) < 2:
        return {"mean": mean, "low": None, "high": None}
    reach = scipy.stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": mean, "low": float(max(mean - reach, within[0])), "high": float(min(mean + reach, within[1]))}
