"""The one place that knows device types: Ascend NPU, NVIDIA GPU, Apple MPS, CPU.

Everything else asks a `Device` and stays device-neutral.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch

from attnet.errors import ConfigError

# The document's names -> torch's, in the order in which `auto` looks for them.
DEVICE_TYPES = {"NPU": "npu", "GPU": "cuda", "MPS": "mps", "CPU": "cpu"}
_BACKENDS = {"npu": "hccl", "cuda": "nccl"}


def _module(torch_type: str) -> ModuleType | None:
    """`torch.cuda`, `torch.npu` (there once torch_npu is imported) ..., or None when it cannot be used."""
    module = getattr(torch, torch_type, None)
    return module if module is not None and module.is_available() else None


def count(device_type: str) -> int:
    """Number of cards of a document device type that this process can see; a CPU counts as one."""
    torch_type = DEVICE_TYPES[device_type]
    module = _module(torch_type)
    if torch_type == "cpu" or module is None:
        return int(torch_type == "cpu")
    return module.device_count()


@dataclass(frozen=True)
class Device:
    """A chosen device; `kind` is the document's name (NPU, GPU, MPS, CPU), `index` the card."""

    kind: str
    index: int = 0

    @property
    def type(self) -> str:
        """torch's name: npu, cuda, mps, cpu."""
        return DEVICE_TYPES[self.kind]

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.type) if self.type in ("cpu", "mps") else torch.device(self.type, self.index)

    @property
    def is_accelerator(self) -> bool:
        return self.type != "cpu"

    @property
    def backend(self) -> str:
        """Process-group backend for several cards."""
        return _BACKENDS.get(self.type, "gloo")

    @property
    def half_dtype(self) -> torch.dtype:
        """The half-precision type that convolutions run in: float16, or bfloat16 on a CPU without it."""
        if self.type == "cpu" and not _cpu_has_float16_convolution():
            return torch.bfloat16
        return torch.float16

    @property
    def has_fused_optimizer(self) -> bool:
        """Whether `torch.optim.SGD(fused=True)` runs here."""
        return self.type in ("cuda", "cpu")

    @property
    def name(self) -> str:
        """Card or processor name for records."""
        module = _module(self.type)
        if module is not None and hasattr(module, "get_device_name"):
            return module.get_device_name(self.index)
        return _processor_name()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Make this card the process's current one, and be quick with steps that are all of one size.

        On a CPU freed memory is kept for the next step; with cuDNN the quickest algorithm of each convolution is
        chosen by trying.
        """
        module = _module(self.type)
        if module is not None and hasattr(module, "set_device"):
            module.set_device(self.index)
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = self.type == "cuda"
        try:
            with _kept_memory() if self.type == "cpu" else contextlib.nullcontext():
                yield
        finally:
            torch.backends.cudnn.benchmark = before

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done; needed before reading a clock."""
        module = _module(self.type)
        if self.is_accelerator and module is not None:
            module.synchronize()

    def peak_memory(self) -> int:
        """Bytes: the most this process held on the card, or, on a CPU, the largest resident size so far."""
        module = _module(self.type)
        if self.is_accelerator and hasattr(module, "max_memory_allocated"):
            return module.max_memory_allocated(self.index)
        try:
            # Linux's own count, since getrusage lets a process inherit that of the one which started it.
            with open("/proc/self/status") as lines:
                return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            pass
        try:
            import resource
        except ImportError:  # Windows
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def choose(device_type: str = "auto", device_id: int = 0) -> Device:
    """Resolve `device_type` (NPU, GPU, MPS, CPU, auto; any case) and `device_id` to a device that is here.

    Raises:
        ConfigError: an unknown type, a type that is not here, or a card number beyond those that are.
    """
    kind = device_type.upper()
    if kind == "AUTO":
        kind = next(k for k, t in DEVICE_TYPES.items() if t == "cpu" or _module(t) is not None)
    if kind not in DEVICE_TYPES:
        raise ConfigError(f"device_type={device_type!r}: choose one of auto, {', '.join(DEVICE_TYPES)}")
    available = count(kind)
    if available == 0:
        here = [k for k in DEVICE_TYPES if count(k)]
        hint = "; install torch_npu and CANN for it" if kind == "NPU" and not hasattr(torch, "npu") else ""
        raise ConfigError(f"device_type={kind}: no such device is usable here, only {', '.join(here)}{hint}")
    if not 0 <= device_id < available:
        raise ConfigError(f"device_id={device_id}: {kind} cards here are numbered 0 to {available - 1}")
    return Device(kind, device_id)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (every device type that is here)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@functools.cache
def _cpu_has_float16_convolution() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    except (AttributeError, RuntimeError):
        return False


# glibc's mallopt parameters (malloc.h) with the values for training and glibc's own defaults.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TRAINING = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**28, _M_MMAP_MAX: 0}
_DEFAULTS = {_M_TRIM_THRESHOLD: 2**17, _M_TOP_PAD: 2**17, _M_MMAP_MAX: 65536}


@contextlib.contextmanager
def _kept_memory() -> Iterator[None]:
    """Let glibc keep what is freed instead of giving every large tensor back to the system.

    Getting the same pages again, zeroed, at each step costs time. Where the C library
    is another one, nothing happens.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        mallopt, trim = libc.mallopt, libc.malloc_trim
    except (OSError, AttributeError):
        yield
        return
    try:
        for parameter, value in _TRAINING.items():
            mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _DEFAULTS.items():
            mallopt(parameter, value)
        trim(0)


@functools.cache
def _processor_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def environment(device: Device) -> dict[str, object]:
    """What a reproducer needs to know of this machine, for result.json."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    torch_npu = sys.modules.get("torch_npu")
    if torch_npu is not None:
        versions["torch_npu"] = torch_npu.__version__
    if device.type == "cuda":
        versions["cuda"] = torch.version.cuda or torch.version.hip or ""
    return versions | {
        "device": device.name,
        "platform": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
