"""The machine around the cards: its processor, its memory, and how its C library hands memory out."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Memory:
    """Bytes of a card: `used` by tensors of this process, the most it used (`peak`), all there is (`total`).

    A CPU's are this process's resident memory and the machine's. 0: not known.
    """

    used: int
    peak: int
    total: int


# glibc's mallopt parameters (malloc.h) with the values for training and glibc's own defaults.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TRAINING = {_M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**28, _M_MMAP_MAX: 0}
_DEFAULTS = {_M_TRIM_THRESHOLD: 2**17, _M_TOP_PAD: 2**17, _M_MMAP_MAX: 65536}


@contextlib.contextmanager
def kept_memory() -> Iterator[None]:
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


def process_memory() -> Memory:
    """Resident memory of this process and memory of the machine, bytes."""
    try:
        # Linux's own count, since getrusage lets a process inherit the peak of the one which started it.
        with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
            kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Vm")}
        used, peak = 1024 * kilobytes["VmRSS"], 1024 * kilobytes["VmHWM"]
    except (OSError, KeyError):
        try:
            import resource
        except ImportError:  # Windows
            return Memory(0, 0, 0)
        used, peak = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Memory(used, peak, total)


# How CPUs, CUDA, Ascend, Apple and their libraries say that memory is exhausted, in a RuntimeError.
_EXHAUSTED = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "memory allocation still failed",
    "alloc_failed",
)


def is_out_of_memory(error: BaseException | str) -> bool:
    """Whether an error, or what a program said last, says that the memory of the machine or of a card is exhausted."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _EXHAUSTED)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def native_bfloat16() -> str:
    """The instructions by which this processor computes in bfloat16, as torch knows them; "" where it has none.

    `torch.ops.mkldnn._is_mkldnn_bf16_supported` alone will not do: on x86 it is true wherever bfloat16 can be emulated.
    Whoever holds torch down to older instructions (ATEN_CPU_CAPABILITY=avx2) has none.
    """
    import torch

    try:
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return ""
        known, level = torch.cpu.get_capabilities(), torch.backends.cpu.get_cpu_capability()
    except (AttributeError, RuntimeError):  # torch without oneDNN
        return ""
    names = {"amx_bf16": "AMX", "avx512_bf16": "avx512_bf16"} if level.startswith("AVX512") else {"bf16": "Arm's bf16"}
    return next((words for name, words in names.items() if known.get(name)), "")


@functools.cache
def has_float16_convolution() -> bool:
    """Whether this processor's convolutions take float16."""
    import torch

    try:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    except (AttributeError, RuntimeError):
        return False


def builds() -> dict[str, str]:
    """The versions of CUDA and of AMD's ROCm that this torch was built with, "" where it was not."""
    import torch

    return {"CUDA": torch.version.cuda or "", "ROCm": torch.version.hip or ""}


# What must agree of `environment` for measured figures to be comparable; what a device lacks is left out.
DECISIVE = ("device", "torch", "cuda", "torch_npu", "cann", "cores", "threads")


def environment(device: Any) -> dict[str, object]:
    """What a reproducer needs to know of this machine, for result.json; `device` is a `Device`."""
    import numpy as np
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    if (torch_npu := sys.modules.get("torch_npu")) is not None:
        versions["torch_npu"] = torch_npu.__version__
    return {
        **versions,
        **device.versions,
        "device": device.name,
        "device_type": device.kind,
        "platform": platform.platform(terse=True),
        # Processors of one name compute with other instructions, and so to other last digits.
        "instructions": f"{torch.backends.cpu.get_cpu_capability()} {native_bfloat16()}".strip(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
