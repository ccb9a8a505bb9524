"""The one place that knows device types: a class each for Ascend NPU, NVIDIA GPU, Apple MPS and CPU.

Everything else asks a `Device` and stays device-neutral. A new type is a class of its own here, and a line in KINDS.
torch is imported where it is needed, since the doctor reads this file on machines where `import torch` fails.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

from attnet.base import host
from attnet.base.errors import ConfigError
from attnet.base.host import Memory, builds, kept_memory, process_memory, processor_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:

    class _Late:
        """torch, imported when the first of its names is asked for."""

        def __getattr__(self, name: str) -> object:
            return getattr(importlib.import_module("torch"), name)

    torch = _Late()

# Whether torch_npu prepares operators in a second thread (1, its default, or 2) or one by one (0).
QUEUE = "TASK_QUEUE_ENABLE"


@dataclass(frozen=True)
class Device:
    """A chosen device, `index` the card. What is here holds for any accelerator that torch knows.

    `kind` is the document's name (NPU, GPU, MPS, CPU), `type` torch's, `backend` the process-group backend of several
    cards, `visible` the variable that says which cards a process sees, `is_numbered` whether there are cards to tell
    apart: several ranks then have one each. `takes_channels_last`: whether tensors may lie as NHWC, which is best
    where they may.
    """

    index: int = 0

    kind: ClassVar[str]
    type: ClassVar[str]
    backend: ClassVar[str] = "gloo"
    visible: ClassVar[str] = ""
    is_numbered: ClassVar[bool] = False
    is_accelerator: ClassVar[bool] = True
    takes_channels_last: ClassVar[bool] = True

    @classmethod
    def module(cls) -> ModuleType | None:
        """`torch.cuda`, `torch.npu` (there once torch_npu is imported) ..., or None when it cannot be used."""
        module = getattr(torch, cls.type, None)
        return module if module is not None and module.is_available() else None

    @classmethod
    def count(cls) -> int:
        """Number of cards that this process can see."""
        module = cls.module()
        return 0 if module is None else module.device_count()

    @property
    def label(self) -> str:
        """The document's word in its table of results: npu, gpu."""
        return self.kind.lower()

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.type, self.index) if self.is_numbered else torch.device(self.type)

    @property
    def group_options(self) -> dict[str, object]:
        """What `init_process_group` takes besides."""
        return {}

    @property
    def half_types(self) -> tuple[torch.dtype, ...]:
        """The half-precision types that convolutions run in here, the one that is used first.

        An NPU or GPU of the first generations has float16 alone.
        """
        asked = getattr(self.module(), "is_bf16_supported", None)
        return (torch.float16, torch.bfloat16) if asked is None or asked() else (torch.float16,)

    @property
    def half_dtype(self) -> torch.dtype:
        """The half-precision type that training uses."""
        return self.half_types[0]

    @property
    def usual_level(self) -> tuple[str, str]:
        """The opt level that pays here, and why."""
        if self.is_numbered:
            return "O2", "the document's on cards"
        return "O0", f"half precision is untried on {self.kind}"

    @property
    def memory_format(self) -> torch.memory_format:
        """How images and weights lie in memory best."""
        return torch.channels_last if self.takes_channels_last else torch.contiguous_format

    def has_fused_optimizer(self, dtype: torch.dtype) -> bool:
        """Whether `torch.optim.SGD(fused=True)` runs here on weights of this type."""
        return False

    def grad_scaler(self, init_scale: float, enabled: bool) -> torch.amp.GradScaler:
        """What scales losses, and skips steps whose gradients overflow."""
        return torch.amp.GradScaler(self.type, init_scale=init_scale, enabled=enabled)

    @property
    def remark(self) -> str:
        """What slows this process down on the device and can be had otherwise; mostly empty."""
        return ""

    @property
    def name(self) -> str:
        """Card or processor name for records."""
        module = self.module()
        if module is not None and hasattr(module, "get_device_name"):
            return module.get_device_name(self.index)
        return processor_name()

    @property
    def versions(self) -> dict[str, str]:
        """Versions of what drives the device, for records."""
        return {}

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Make this card the process's current one, and be quick with steps that are all of one size."""
        module = self.module()
        if module is not None and hasattr(module, "set_device"):
            module.set_device(self.index)
        yield

    def synchronize(self) -> None:
        """Wait until everything queued on the device is done; needed before reading a clock."""
        module = self.module()
        if self.is_accelerator and module is not None:
            module.synchronize(*self._card)

    def memory(self) -> Memory:
        """What is used of the card's memory, or of the machine's, by this process."""
        module = self.module()
        if module is None:
            return process_memory()
        used, peak = module.memory_allocated(self.index), module.max_memory_allocated(self.index)
        return Memory(used, peak, module.mem_get_info(self.index)[1])

    def rng_state(self) -> dict[str, Tensor]:
        """The states of torch's generators that this process draws from: the CPU's and the card's, uint8."""
        state = {"cpu": torch.get_rng_state()}
        module = self.module()
        if self.is_accelerator and module is not None:
            state[self.type] = module.get_rng_state(*self._card).cpu()
        return state

    def set_rng_state(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `rng_state`; the state of another device type's generator means nothing here."""
        torch.set_rng_state(state["cpu"])
        module = self.module()
        if self.is_accelerator and module is not None and self.type in state:
            module.set_rng_state(state[self.type], *self._card)

    @property
    def _card(self) -> tuple[int, ...]:
        return (self.index,) if self.is_numbered else ()


class Npu(Device):
    """Huawei's Ascend, through torch_npu and CANN."""

    kind, type, backend, visible, is_numbered = "NPU", "npu", "hccl", "ASCEND_RT_VISIBLE_DEVICES", True

    takes_channels_last = False  # torch_npu's operators take NCHW alone

    def grad_scaler(self, init_scale: float, enabled: bool) -> torch.amp.GradScaler:
        """torch_npu's own: torch's takes a reciprocal in float64, and NPUs of the first generation saturate where
        others give infinity, which torch_npu asks the card for."""
        return torch.npu.amp.GradScaler(init_scale=init_scale, enabled=enabled)

    @property
    def remark(self) -> str:
        if os.environ.get(QUEUE) != "0":
            return ""
        return (
            f"torch_npu hands operators over one by one here, as {QUEUE}=0 says, which it sets in notebooks; "
            "train_8p.ipynb (with device_num=1, too) and attnet train start processes without that"
        )

    @property
    def versions(self) -> dict[str, str]:
        from attnet.base.cann import cann_version, find_cann

        home = find_cann(os.environ)
        return {"cann": "" if home is None else cann_version(home)}


class Gpu(Device):
    """NVIDIA's, or AMD's where torch was built for them."""

    kind, type, backend, visible, is_numbered = "GPU", "cuda", "nccl", "CUDA_VISIBLE_DEVICES", True

    @property
    def group_options(self) -> dict[str, object]:
        """NCCL sets up its links at once when it knows the card."""
        return {"device_id": self.torch_device}

    def has_fused_optimizer(self, dtype: torch.dtype) -> bool:
        return True

    @property
    def versions(self) -> dict[str, str]:
        return {"cuda": " ".join(builds().values()).strip()}

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """cuDNN chooses the quickest algorithm of each convolution by trying."""
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            with super().working():
                yield
        finally:
            torch.backends.cudnn.benchmark = before


class Mps(Device):
    """Apple's own GPUs: one card, no number."""

    kind, type = "MPS", "mps"

    def memory(self) -> Memory:
        module = self.module()
        if module is None:
            return process_memory()
        return Memory(module.current_allocated_memory(), 0, module.recommended_max_memory())


class Cpu(Device):
    """The processor: always there, one."""

    kind, type, is_accelerator = "CPU", "cpu", False

    @classmethod
    def count(cls) -> int:
        return 1

    @property
    def half_types(self) -> tuple[torch.dtype, ...]:
        """bfloat16 first: where there are float16 convolutions, too, their gradients have no fast path."""
        return (torch.bfloat16, torch.float16) if host.has_float16_convolution() else (torch.bfloat16,)

    @property
    def usual_level(self) -> tuple[str, str]:
        """O2 where bfloat16 is computed natively (`cpu_sweep.json`); elsewhere it is emulated, slower than float32."""
        native = host.native_bfloat16()
        without = "this processor does not compute bfloat16 itself, and would be slower in it"
        return ("O2", f"this processor computes bfloat16 ({native})") if native else ("O0", without)

    def has_fused_optimizer(self, dtype: torch.dtype) -> bool:
        """With half-precision weights torch 2.13's for CPUs computes something else."""
        return dtype == torch.float32

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Freed memory is kept for the next step."""
        with kept_memory():
            yield

    def memory(self) -> Memory:
        return process_memory()


# The document's names, in the order in which `auto` looks for them.
KINDS: dict[str, type[Device]] = {kind.kind: kind for kind in (Npu, Gpu, Mps, Cpu)}


def count(device_type: str) -> int:
    """Number of cards of a document device type that this process can see; a CPU counts as one."""
    return KINDS[device_type].count()


def choose(device_type: str = "auto", device_id: int = 0) -> Device:
    """Resolve `device_type` (NPU, GPU, MPS, CPU, auto; any case) and `device_id` to a device that is here.

    Raises:
        ConfigError: an unknown type, a type that is not here, or a card number beyond those that are.
    """
    kind = device_type.upper()
    if kind == "AUTO":
        kind = next(k for k in KINDS if k == Cpu.kind or KINDS[k].module() is not None)
    if kind not in KINDS:
        raise ConfigError(f"device_type={device_type!r}: choose one of auto, {', '.join(KINDS)}")
    available = count(kind)
    if available == 0:
        here = [k for k in KINDS if count(k)]
        raise ConfigError(
            f"device_type={kind}: no such device is usable here, only {', '.join(here)}{_as_visible(kind)}; "
            "`attnet doctor` says what is missing"
        )
    if not 0 <= device_id < available:
        raise ConfigError(
            f"device_id={device_id}: {kind} cards here are numbered 0 to {available - 1}{_as_visible(kind)}"
        )
    return KINDS[kind](device_id)


def check_cards(kind: str, cards: int) -> None:
    """Refuse to start a process a card with too few of them.

    Raises:
        ConfigError: naming device_num and how many cards there are.
    """
    available = count(kind)
    if cards > available and KINDS[kind].is_numbered:
        raise ConfigError(f"device_num={cards}: only {available} {kind} cards are here{_as_visible(kind)}")


def _as_visible(kind: str) -> str:
    variable = KINDS[kind].visible
    return f" ({variable}={os.environ[variable]})" if variable in os.environ else ""


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (every device type that is here)."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
