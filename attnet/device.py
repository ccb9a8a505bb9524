"""The one place that knows device types: Ascend NPU, NVIDIA GPU, Apple MPS, CPU.

Everything else asks a `Device` and stays device-neutral.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from attnet.doctor.ascend import cann_version, find_cann
from attnet.errors import ConfigError
from attnet.host import VISIBLE, Memory, kept_memory, process_memory, processor_name

# The document's names -> torch's, in the order in which `auto` looks for them.
DEVICE_TYPES = {"NPU": "npu", "GPU": "cuda", "MPS": "mps", "CPU": "cpu"}
_BACKENDS = {"npu": "hccl", "cuda": "nccl"}
# Whether torch_npu prepares operators in a second thread (1, its default, or 2) or one by one (0).
QUEUE = "TASK_QUEUE_ENABLE"


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
    def label(self) -> str:
        """The document's word in its table of results: npu, gpu; else torch's."""
        return self.kind.lower()

    @property
    def is_accelerator(self) -> bool:
        return self.type != "cpu"

    @property
    def is_numbered(self) -> bool:
        """Whether there are cards to tell apart: several ranks then have one each."""
        return self.type in _BACKENDS

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.type, self.index) if self.is_numbered else torch.device(self.type)

    @property
    def backend(self) -> str:
        """Process-group backend for several cards."""
        return _BACKENDS.get(self.type, "gloo")

    @property
    def group_options(self) -> dict[str, object]:
        """What `init_process_group` takes besides: NCCL sets up its links at once when it knows the card."""
        return {"device_id": self.torch_device} if self.type == "cuda" else {}

    @property
    def half_types(self) -> tuple[torch.dtype, ...]:
        """The half-precision types that convolutions run in here, the one that is used first.

        A CPU without float16 convolutions has bfloat16 alone, an NPU or GPU of the first generations float16 alone.
        """
        if self.type == "cpu" and not _cpu_has_float16_convolution():
            return (torch.bfloat16,)
        module = _module(self.type)
        asked = getattr(module, "is_bf16_supported", None)
        return (torch.float16, torch.bfloat16) if asked is None or asked() else (torch.float16,)

    @property
    def half_dtype(self) -> torch.dtype:
        """The half-precision type that training uses."""
        return self.half_types[0]

    @property
    def usual_level(self) -> str:
        """The opt level that pays here: the document's O2 on an NPU or GPU; elsewhere half precision gains nothing."""
        return "O2" if self.is_numbered else "O0"

    @property
    def memory_format(self) -> torch.memory_format:
        """How images and weights lie in memory best: NHWC; torch_npu's operators take NCHW alone."""
        return torch.contiguous_format if self.type == "npu" else torch.channels_last

    def has_fused_optimizer(self, dtype: torch.dtype) -> bool:
        """Whether `torch.optim.SGD(fused=True)` runs here on weights of this type.

        torch 2.13's for CPUs computes something else with half-precision weights.
        """
        return self.type == "cuda" or (self.type == "cpu" and dtype == torch.float32)

    def grad_scaler(self, init_scale: float, enabled: bool) -> torch.amp.GradScaler:
        """What scales losses, and skips steps whose gradients overflow.

        On an NPU torch_npu's own: torch's takes a reciprocal in float64, and NPUs of the first generation saturate
        where others give infinity, which torch_npu asks the card for.
        """
        if self.type == "npu":
            return torch.npu.amp.GradScaler(init_scale=init_scale, enabled=enabled)
        return torch.amp.GradScaler(self.type, init_scale=init_scale, enabled=enabled)

    @property
    def remark(self) -> str:
        """What slows this process down on the device and can be had otherwise; mostly empty."""
        if self.type == "npu" and os.environ.get(QUEUE) == "0":
            return (
                f"torch_npu hands operators over one by one here, as {QUEUE}=0 says, which it sets in notebooks; "
                "train_8p.ipynb (with device_num=1, too) and python -m attnet.train start processes without that"
            )
        return ""

    @property
    def name(self) -> str:
        """Card or processor name for records."""
        module = _module(self.type)
        if module is not None and hasattr(module, "get_device_name"):
            return module.get_device_name(self.index)
        return processor_name()

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
            with kept_memory() if self.type == "cpu" else contextlib.nullcontext():
                yield
        finally:
            torch.backends.cudnn.benchmark = before

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done; needed before reading a clock."""
        module = _module(self.type)
        if self.is_accelerator and module is not None:
            module.synchronize(*self._card)

    def memory(self) -> Memory:
        """What is used of the card's memory, or of the machine's, by this process."""
        module = _module(self.type)
        if self.is_numbered and module is not None:
            used, peak = module.memory_allocated(self.index), module.max_memory_allocated(self.index)
            return Memory(used, peak, module.mem_get_info(self.index)[1])
        if self.type == "mps" and module is not None:
            return Memory(module.current_allocated_memory(), 0, module.recommended_max_memory())
        return process_memory()

    def rng_state(self) -> dict[str, Tensor]:
        """The states of torch's generators that this process draws from: the CPU's and the card's, uint8."""
        state = {"cpu": torch.get_rng_state()}
        module = _module(self.type)
        if self.is_accelerator and module is not None:
            state[self.type] = module.get_rng_state(*self._card).cpu()
        return state

    def set_rng_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `rng_state`; the state of another device type's generator means nothing here."""
        torch.set_rng_state(state["cpu"])
        module = _module(self.type)
        if self.is_accelerator and module is not None and self.type in state:
            module.set_rng_state(state[self.type], *self._card)

    @property
    def _card(self) -> tuple[int, ...]:
        return (self.index,) if self.is_numbered else ()


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
        raise ConfigError(
            f"device_type={kind}: no such device is usable here, only {', '.join(here)}{_as_visible(kind)}; "
            "`python -m attnet.doctor` says what is missing"
        )
    if not 0 <= device_id < available:
        raise ConfigError(
            f"device_id={device_id}: {kind} cards here are numbered 0 to {available - 1}{_as_visible(kind)}"
        )
    return Device(kind, device_id)


def check_cards(kind: str, cards: int) -> None:
    """Refuse to start a process a card with too few of them.

    Raises:
        ConfigError: naming device_num and how many cards there are.
    """
    available = count(kind)
    if cards > available and Device(kind).is_numbered:
        raise ConfigError(f"device_num={cards}: only {available} {kind} cards are here{_as_visible(kind)}")


def _as_visible(kind: str) -> str:
    variable = VISIBLE.get(kind, "")
    return f" ({variable}={os.environ[variable]})" if variable in os.environ else ""


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


def builds() -> dict[str, str]:
    """The versions of CUDA and of AMD's ROCm that this torch was built with, "" where it was not."""
    return {"CUDA": torch.version.cuda or "", "ROCm": torch.version.hip or ""}


def child_environment() -> dict[str, str]:
    """os.environ for a process that is started from here.

    In a notebook's kernel torch_npu sets TASK_QUEUE_ENABLE to 0, which makes it hand operators over one by one; in
    processes of their own it can be what the user set, or torch_npu's default.
    """
    variables = dict(os.environ)
    if variables.get(QUEUE) == "0" and _module("npu") is not None:
        with open("/proc/self/environ", "rb") as file:  # as this process was started
            begun = dict(entry.partition("=")[::2] for entry in os.fsdecode(file.read()).split("\0"))
        variables.pop(QUEUE)
        variables |= {QUEUE: begun[QUEUE]} if QUEUE in begun else {}
    return variables


# What must agree of `environment` for measured figures to be comparable; what a device lacks is left out.
DECISIVE = ("device", "torch", "cuda", "torch_npu", "cann", "cores", "threads")


def environment(device: Device) -> dict[str, object]:
    """What a reproducer needs to know of this machine, for result.json."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    if (torch_npu := sys.modules.get("torch_npu")) is not None:
        versions["torch_npu"] = torch_npu.__version__
    if device.type == "npu":
        home = find_cann(os.environ)
        versions["cann"] = "" if home is None else cann_version(home)
    if device.type == "cuda":
        versions["cuda"] = " ".join(builds().values()).strip()
    return versions | {
        "device": device.name,
        "device_type": device.kind,
        "platform": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
