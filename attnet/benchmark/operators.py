"""The seconds of each operator while something runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from attnet.base.device import Device

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


class OperatorClock(TorchDispatchMode):
    """Adds up each operator's seconds, waiting for the device after it; the waits are what profiling costs."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begun = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self.device.synchronize()
        self.seconds[func.overloadpacket.__name__] += time.perf_counter() - begun
        return result


def operator_seconds(device: Device, step: Callable[[], object]) -> dict[str, float]:
    """Seconds of each operator in one call of `step`; compiled code shows as what it calls, or not at all."""
    device.synchronize()
    with OperatorClock(device) as clock:
        step()
    return dict(clock.seconds)


def kind_of(operator: str) -> str:
    """What kind of work an operator does; "other" where it is none of KINDS."""
    return next((kind for kind, starts in KINDS.items() if operator.startswith(starts)), "other")
