"""The scale of a picture of masks: around the value that favours nothing, as wide as nearly all values, never wider.

Most values of a trained mask lie within a tenth of one half. On a scale from 0 to 1 they are all one colour; on the
scale of their own extremes noise looks like a finding. So the colours span what 98 % of the values need, at least
`LEAST` to either side, and the whole range is kept beside, to be shown with the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from attnet.model.modules import AttentionModule

SHARE = 0.98  # of the values that the colours span; the others get the colour of the end
LEAST = 0.02  # half a scale of masks is at least this: what varies less is flat, and looks flat


@dataclass(frozen=True)
class Scale:
    """Colours span `low` to `high`; with a `centre` they diverge from it, which is then in the middle.

    `smallest` and `largest` are the values' own range.
    """

    low: float
    high: float
    smallest: float
    largest: float
    centre: float | None = None


def robust_scale(values: Tensor, centre: float | None = None) -> Scale:
    """The scale of any values that are shown together; NaN and infinite ones are left out.

    Args:
        values: any shape and dtype, on any device.
        centre: the value in the middle of diverging colours. None: 0 where there are both signs, else no middle, and
            the colours go from the smallest to the largest of 98 % of the values.
    """
    numbers = values.detach().flatten().float().cpu().numpy()
    finite = np.isfinite(numbers)
    numbers = numbers if finite.all() else numbers[finite]
    if not len(numbers):
        return Scale(0.0, 1.0, 0.0, 0.0, centre)
    smallest, largest = float(numbers.min()), float(numbers.max())
    if centre is None and smallest < 0 < largest:
        centre = 0.0
    if centre is None:
        low, high = map(float, np.quantile(numbers, ((1 - SHARE) / 2, (1 + SHARE) / 2)))
        margin = 0.0 if low < high else max(abs(low), 1.0) * 1e-3  # constant values need a scale as well
        return Scale(low - margin, high + margin, smallest, largest)
    half = float(np.quantile(np.abs(numbers - np.float32(centre)), SHARE))
    half = max(half, LEAST if centre else 1e-6)
    return Scale(centre - half, centre + half, smallest, largest, centre)


def neutral(module: nn.Module, part: str = "mask", reduction: str = "mean") -> float | None:
    """The value at which a mask of this module favours no place and no channel; None where there is no such value.

    0.5 for masks in (0, 1), 0 for `attention="channel"`, whose masks have both signs. No such value: features, norms
    and deviations over channels, and masks of other networks, of which it is not known.
    """
    if not isinstance(module, AttentionModule) or part != "mask" or not keeps_values(reduction):
        return None
    branch = module.mask
    return 0.0 if branch is not None and branch.head.attention == "channel" else 0.5


def keeps_values(reduction: str) -> bool:
    """Whether a reduction's results are values that a channel could have: the mean, the largest, one channel."""
    return reduction in ("mean", "max") or reduction.startswith("channel")
