"""`torch.npu` of a process that has simulated cards: the part of torch_npu's module that PyTorch and programs use.

PyTorch loads it as it loads torch_npu, by the entry point group `torch.backends`. Names and signatures are
torch_npu's; the cards are the CPU's memory and kernels.
"""

from __future__ import annotations

import builtins
import os
import sys

import torch
from torch._utils import _get_device_index as _index_of

NAME = "simulated NPU (CPU memory, for tests)"
TOTAL_MEMORY = 32 * 2**30

_initialized = False


class _Properties:
    name, total_memory = NAME, TOTAL_MEMORY


def _is_in_bad_fork() -> bool:
    return False


def is_available() -> bool:
    return device_count() > 0


def is_initialized() -> bool:
    return _initialized


def init() -> None:
    _lazy_init()


def _lazy_init() -> None:
    global _initialized
    torch.ops.npu_simulation.start()
    _initialized = True


def device_count() -> int:
    return torch.ops.npu_simulation.card_count()


def _get_device_index(device: object, optional: bool = False, allow_cpu: bool = False) -> int:
    """As torch_npu's: `device` is a number, a name, a `torch.device`, or (optional) None for the current card."""
    return _index_of(device, optional, allow_cpu)


def _card(device: object) -> int:
    index = _get_device_index(device, optional=True)
    if not 0 <= index < device_count():
        raise AssertionError("Invalid device id")
    return index


def current_device() -> int:
    _lazy_init()
    return torch.ops.npu_simulation.current_card()


def set_device(device: object) -> None:
    index = _get_device_index(device, optional=True)
    if index >= 0:
        torch.ops.npu_simulation.set_card(index)


class device:
    """Context in which another card is the current one; none with None or a negative number."""

    def __init__(self, device: object) -> None:
        self.idx = _get_device_index(device, optional=True)
        self.prev_idx = -1

    def __enter__(self) -> None:
        if self.idx >= 0:
            self.prev_idx = current_device()
            set_device(self.idx)

    def __exit__(self, *_: object) -> bool:
        if self.prev_idx >= 0:
            set_device(self.prev_idx)
        return False


def synchronize(device: object = None) -> None:
    _card(device)


def get_device_name(device_name: object = None) -> str:
    _card(device_name)
    return NAME


def get_device_properties(device_name: object = None) -> _Properties:
    _card(device_name)
    return _Properties()


def mem_get_info(device: object = None) -> tuple[int, int]:
    return TOTAL_MEMORY - memory_allocated(device), TOTAL_MEMORY


def memory_allocated(device: object = None) -> int:
    return torch.ops.npu_simulation.allocated(_card(device))


def max_memory_allocated(device: object = None) -> int:
    return torch.ops.npu_simulation.peak(_card(device))


def reset_peak_memory_stats(device: object = None) -> None:
    torch.ops.npu_simulation.reset_peak(_card(device))


def empty_cache() -> None:
    pass


def _generator(index: int) -> torch.Generator:
    return torch.ops.npu_simulation.generator(index)


def get_rng_state(device: object = "npu") -> torch.Tensor:
    return _generator(_card(device)).get_state()


def set_rng_state(new_state: torch.Tensor, device: object = "npu") -> None:
    _generator(_card(device)).set_state(new_state)


def manual_seed(seed: int) -> None:
    _generator(current_device()).manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    for index in range(device_count()):
        _generator(index).manual_seed(int(seed))


def is_bf16_supported(including_emulation: bool = False) -> bool:
    return True


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.float16, torch.bfloat16, torch.float32]


def _print_from_cpu() -> None:
    # Printing computes in float64, which the cards lack.
    text = torch._tensor_str._tensor_str

    def tensor_str(tensor: torch.Tensor, indent: int) -> str:
        return text(tensor.cpu() if tensor.device.type == "npu" else tensor, indent)

    torch._tensor_str._tensor_str = tensor_str


def _leave_the_queue_in_ipython() -> None:
    # As torch_npu does in IPython's kernels (torch_npu/_init/core/optional_features.py).
    if hasattr(builtins, "__IPYTHON__"):
        os.environ["TASK_QUEUE_ENABLE"] = "0"


def _autoload() -> None:
    torch.ops.load_library(os.environ["NPU_SIMULATION_LIBRARY"])
    torch.utils.rename_privateuse1_backend("npu")
    this = sys.modules[__name__]
    torch._register_device_module("npu", this)
    torch.utils.generate_methods_for_privateuse1_backend(
        for_tensor=True,
        for_module=True,
        for_storage=True,
        unsupported_dtype=[torch.quint8, torch.quint4x2, torch.quint2x4, torch.qint32, torch.qint8],
    )
    _print_from_cpu()
    _leave_the_queue_in_ipython()
    import simulated_amp

    this.amp = simulated_amp.module()
    if torch.distributed.is_available():
        import simulated_hccl

        simulated_hccl.register()
