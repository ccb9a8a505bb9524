"""The one place that knows device types: a class each for Ascend NPU, NVIDIA GPU, Apple MPS and CPU.

Everything else asks a `Device` and stays device-neutral. A new type is a class of its own here, and a line in KINDS.
torch is imported where it is needed, since the doctor reads this file on machines where `import torch` fails.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from attnet.base import host
from attnet.base.cards import Device, torch
from attnet.base.errors import ConfigError
from attnet.base.host import Memory, builds, kept_memory, process_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Whether torch_npu prepares operators in a second thread (1, its default, or 2) or one by one (0).
QUEUE = "TASK_QUEUE_ENABLE"


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
    records_steps = True

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
    def aside(self) -> Iterator[None]:
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            yield
        here.wait_stream(aside)

    def recorded(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = step()

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

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
