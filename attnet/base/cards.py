"""What everything else asks of a device, of whatever type it is; `attnet.base.device` has the types.

torch is imported where it is needed, since the doctor reads this file on machines where `import torch` fails.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

from attnet.base.host import Memory, process_memory, processor_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:

    class _Late:
        """torch, imported when the first of its names is asked for."""

        def __getattr__(self, name: str) -> object:
            return getattr(importlib.import_module("torch"), name)

    torch = _Late()


@dataclass(frozen=True)
class Device:
    """A chosen device, `index` the card. What is here holds for any accelerator that torch knows.

    `kind` is the document's name (NPU, GPU, MPS, CPU), `type` torch's, `backend` the process-group backend of several
    cards, `visible` the variable that says which cards a process sees, `is_numbered` whether there are cards to tell
    apart: several ranks then have one each. `takes_channels_last`: whether tensors may lie as NHWC, which is best
    where they may. `records_steps`: whether a whole step can be recorded as a graph.
    """

    index: int = 0

    kind: ClassVar[str]
    type: ClassVar[str]
    backend: ClassVar[str] = "gloo"
    visible: ClassVar[str] = ""
    is_numbered: ClassVar[bool] = False
    is_accelerator: ClassVar[bool] = True
    takes_channels_last: ClassVar[bool] = True
    records_steps: ClassVar[bool] = False

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
    def usual_compile(self) -> str:
        """What `compile` pays here."""
        return "graphs" if self.records_steps else "off"

    def aside(self) -> contextlib.AbstractContextManager:
        """Beside the process's own queue of operators: where a step is tried before it is recorded."""
        return contextlib.nullcontext()

    def recorded(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """`step`, recorded without being taken; each call of the result takes it again on the same tensors."""
        raise NotImplementedError(f"{self.kind}s record no steps")

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

    def mark(self) -> Callable[[], None]:
        """A call that waits for what was queued on the device until now, and for nothing that is queued later."""
        event = getattr(self.module(), "Event", None)
        if event is None or not self.is_numbered:
            return self.synchronize
        begun = event()
        begun.record()
        return begun.synchronize

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
