"""What a device can do at best, measured on the spot: bandwidth of a copy, FLOP/s of a matrix product.

They are the two roofs of the roofline model: Williams, Waterman and Patterson, "Roofline: an insightful visual
performance model for multicore architectures", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Callable, Iterator

import torch

from attnet.base import device as devices
from attnet.base.device import Device
from attnet.benchmark.loops import seconds_of
from attnet.benchmark.worker import Worker, answer_parent

# Bytes copied and side of the matrices, on a CPU and on an accelerator: well beyond the caches, and long enough that
# starting the operation does not count.
COPY_SIZE = {False: 2**28, True: 2**31}
MATRIX_SIDE = {False: 1536, True: 8192}
REPEATS = 9


def measure_ceilings(device: Device, half: bool = False) -> dict[str, object]:
    """Both ceilings of `device`, the product's in float32 and, where that pays or is asked for, in its half type.

    Returns:
        `copy_bytes_per_second`, and `matmul_flops_per_second` by type ("float32", and "float16" or "bfloat16").
    """
    types = [torch.float32] + [device.half_dtype] * (half or device.usual_level[0] != "O0")
    return {
        "copy_bytes_per_second": copy_bandwidth(device),
        "matmul_flops_per_second": {str(t).removeprefix("torch."): matmul_speed(device, t) for t in types},
    }


def copy_bandwidth(device: Device, size: int | None = None, repeats: int = REPEATS) -> float:
    """Bytes read plus bytes written per second as `size` bytes of float32 are copied on the device; a median."""
    size = COPY_SIZE[device.is_accelerator] if size is None else size
    source = torch.rand(size // 4, device=device.torch_device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / median_seconds(device, lambda: target.copy_(source), repeats)


def matmul_speed(device: Device, dtype: torch.dtype, side: int | None = None, repeats: int = REPEATS) -> float:
    """FLOP/s, two for each multiply-add, of the product of two square matrices of normal numbers; a median.

    float32 may take the shorter products that some devices have for it (TF32), as their convolutions do.
    """
    side = MATRIX_SIDE[device.is_accelerator] if side is None else side
    # Random numbers: on zeros, a GPU draws less power and clocks higher.
    a, b = (torch.randn(side, side, device=device.torch_device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    with _short_products():
        return 2 * side**3 / median_seconds(device, lambda: torch.mm(a, b, out=out), repeats)


def median_seconds(device: Device, operation: Callable[[], object], repeats: int) -> float:
    """Median seconds of `operation`, each time until the device is done; the first two times are not counted."""
    return statistics.median([seconds_of(device, operation) for _ in range(repeats + 2)][2:])


@contextlib.contextmanager
def _short_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def ceilings_apart(device_type: str, half: bool = False) -> dict[str, object]:
    """`measure_ceilings` in a process of its own, so that its memory is free again afterwards."""
    with Worker("-m", "attnet.benchmark.ceilings", job={"device_type": device_type, "half": half}) as worker:
        return worker.ready


def work(job: argparse.Namespace) -> Iterator[dict]:
    """The process: the ceilings are all that it says."""
    yield measure_ceilings(devices.choose(job.device_type), job.half)


if __name__ == "__main__":
    sys.exit(answer_parent(work))
