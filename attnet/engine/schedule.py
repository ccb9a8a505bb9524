"""How the learning rate falls: its parameters, a function a schedule, in SCHEDULES, and the rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable

from attnet.base.values import Parameters, parameter, parameters


def _step(full: float, done: float, epochs: int, warmup: float) -> float:
    return full / 10 ** sum(10 * int(done) >= tenths * epochs for tenths in (3, 6, 9))


def _onecycle(full: float, done: float, epochs: int, warmup: float) -> float:
    """Smith and Topin, "Super-Convergence", 2018, without momentum's cycle."""
    return full * _left(done, epochs, warmup)


def _cosine(full: float, done: float, epochs: int, warmup: float) -> float:
    """Loshchilov and Hutter, "SGDR", 2017, without restarts."""
    return full * (1 - math.cos(math.pi * _left(done, epochs, warmup))) / 2


def _left(done: float, epochs: int, warmup: float) -> float:
    """1 at the end of the warm-up, 0 at the end of all epochs."""
    return min(max((epochs - done) / max(epochs - warmup, 1e-9), 0), 1)


# name -> (what it does, the rate after `done` of all `epochs`, a fraction within one, from its `full` value on, which
# is reached after `warmup` epochs).
SCHEDULES: dict[str, tuple[str, Callable[[float, float, int, float], float]]] = {
    "step": ("÷ 10 after 30, 60 and 90 % of the epochs", _step),
    "cosine": ("half a cosine to 0", _cosine),
    "onecycle": ("a straight line to 0", _onecycle),
}


@parameters
class Rate(Parameters):
    """The parameters of the learning rate; None: as the recipe has it."""

    lr: float | None = parameter(
        default=None,
        help="learning rate at the start",
        low=0,
        high=1000,
        recipe=0.1,
        also=("learning_rate", "base_lr", "rate"),
    )
    lr_batch: int | None = parameter(
        default=None,
        help="lr is for this many images a step, scaled in proportion; 0: never",
        low=0,
        high=10**9,
        recipe=0,
    )
    schedule: str | None = parameter(
        default=None,
        help="how lr falls; " + "; ".join(f"{name}: {what}" for name, (what, _) in SCHEDULES.items()),
        choices=tuple(SCHEDULES),
        recipe="step",
        also=("scheduler", "lr_schedule", "lr_scheduler"),
    )
    warmup_epochs: float | None = parameter(
        default=None,
        help="epochs in which lr rises from 0 (with lr_batch, from its unscaled value) to its full value",
        low=0,
        high=100_000,
        recipe=0.0,
        also=("warmup",),
    )


def learning_rate(
    schedule: str,
    done: float,
    *,
    lr: float,
    images: int,
    lr_batch: int,
    total_epochs: int,
    warmup_epochs: float,
) -> float:
    """The rate of SGD after `done` epochs (a fraction within one).

    With `lr_batch` the full rate is lr * images / lr_batch, `images` a step of all cards. It is reached in a straight
    line within `warmup_epochs`: from `lr` where the batch scaled it up (Goyal et al., 2017), else from 0.
    """
    full = lr * (images / lr_batch if lr_batch else 1)
    if done < warmup_epochs:
        start = lr if full > lr else 0
        return start + (full - start) * done / warmup_epochs
    return SCHEDULES[schedule][1](full, done, total_epochs, warmup_epochs)
