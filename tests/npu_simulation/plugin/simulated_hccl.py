"""The process group `hccl` of the simulated cards: Gloo on the memory that the cards share with the CPU.

A collective is done when its call returns; only sending and receiving wait when they are asked to.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future

# What HCCL takes (torch_npu's table of data types).
DTYPES = (
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.bool,
)


def register() -> None:
    dist.Backend.register_backend("hccl", _create, extended_api=True, devices=["npu"])


def _create(options: object, _: object) -> _HCCL:
    return _HCCL(options.store, options.group_rank, options.group_size, options.timeout)


def _memory(tensor: Tensor) -> Tensor:
    """The CPU tensor over the same memory as a card's."""
    if tensor.device.type != "npu":
        raise RuntimeError(f"No backend type associated with device type {tensor.device.type}")
    if tensor.dtype not in DTYPES:
        raise TypeError(f"simulated HCCL: unsupported data type {tensor.dtype}")
    return torch.ops.npu_simulation.memory(tensor.detach())


def _memories(tensors: list[Tensor]) -> list[Tensor]:
    return [_memory(tensor) for tensor in tensors]


class _Work(dist._Work):
    """Gloo's work on CPU memory, whose results are the cards' tensors."""

    def __init__(self, work: object, results: list[Tensor]) -> None:
        super().__init__()
        self.work, self.results = work, results

    def wait(self, *timeout: object) -> bool:
        return self.work.wait(*timeout)

    def is_completed(self) -> bool:
        return self.work.is_completed()

    def get_future(self) -> Future:
        self.wait()
        future = Future()
        future.set_result(self.results)
        return future

    def result(self) -> list[Tensor]:
        return self.results


class _HCCL(dist.ProcessGroup):
    def __init__(self, store: object, rank: int, size: int, timeout: object) -> None:
        super().__init__(rank, size)
        self.gloo = dist.ProcessGroupGloo(store, rank, size, timeout)

    @property
    def _device_types(self) -> list[torch.device]:
        """Where PyTorch puts the tensors in which objects travel."""
        return [torch.device("npu")]

    def _get_backend(self, _: torch.device) -> dist.ProcessGroupGloo:
        return self.gloo

    def shutdown(self) -> None:
        # Gloo ends here, not with DDP's reducer, which can be this group's last owner: it goes with Python's lock in
        # hand, while Gloo's destructor waits for threads that may need that lock.
        del self.gloo

    def getBackendName(self) -> str:
        return "hccl"

    @staticmethod
    def _done(work: object, results: list[Tensor]) -> _Work:
        work.wait()
        return _Work(work, results)

    def allreduce(self, tensors: list[Tensor], opts: object = None) -> _Work:
        opts = opts or dist.AllreduceOptions()
        return self._done(self.gloo.allreduce(_memories(tensors), opts), tensors)

    def allreduce_coalesced(self, tensors: list[Tensor], opts: object = None) -> _Work:
        opts = opts or dist.AllreduceCoalescedOptions()
        return self._done(self.gloo.allreduce_coalesced(_memories(tensors), opts), tensors)

    def broadcast(self, tensors: list[Tensor], opts: object = None) -> _Work:
        opts = opts or dist.BroadcastOptions()
        return self._done(self.gloo.broadcast(_memories(tensors), opts), tensors)

    def reduce(self, tensors: list[Tensor], opts: object = None) -> _Work:
        opts = opts or dist.ReduceOptions()
        return self._done(self.gloo.reduce(_memories(tensors), opts), tensors)

    def allgather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: object = None) -> _Work:
        opts = opts or dist.AllgatherOptions()
        memories = [_memories(tensors) for tensors in outputs]
        return self._done(self.gloo.allgather(memories, _memories(inputs), opts), outputs)

    def all_gather_single(self, output: Tensor, input: Tensor, opts: object = None) -> _Work:
        opts = opts or dist.AllgatherOptions()
        return self._done(self.gloo._allgather_base(_memory(output), _memory(input), opts), [output])

    _allgather_base = all_gather_single  # the name before torch 2.13

    def gather(self, outputs: list[list[Tensor]], inputs: list[Tensor], opts: object = None) -> _Work:
        opts = opts or dist.GatherOptions()
        memories = [_memories(tensors) for tensors in outputs]
        return self._done(self.gloo.gather(memories, _memories(inputs), opts), outputs)

    def scatter(self, outputs: list[Tensor], inputs: list[list[Tensor]], opts: object = None) -> _Work:
        opts = opts or dist.ScatterOptions()
        memories = [_memories(tensors) for tensors in inputs]
        return self._done(self.gloo.scatter(_memories(outputs), memories, opts), outputs)

    def reduce_scatter(self, outputs: list[Tensor], inputs: list[list[Tensor]], opts: object = None) -> _Work:
        opts = opts or dist.ReduceScatterOptions()
        memories = [_memories(tensors) for tensors in inputs]
        return self._done(self.gloo.reduce_scatter(_memories(outputs), memories, opts), outputs)

    def reduce_scatter_single(self, output: Tensor, input: Tensor, opts: object = None) -> _Work:
        opts = opts or dist.ReduceScatterOptions()
        return self._done(self.gloo._reduce_scatter_base(_memory(output), _memory(input), opts), [output])

    _reduce_scatter_base = reduce_scatter_single  # the name before torch 2.13

    def barrier(self, opts: object = None) -> _Work:
        return self._done(self.gloo.barrier(opts or dist.BarrierOptions()), [])

    def send(self, tensors: list[Tensor], rank: int, tag: int) -> _Work:
        return _Work(self.gloo.send(_memories(tensors), rank, tag), tensors)

    def recv(self, tensors: list[Tensor], rank: int, tag: int) -> _Work:
        return _Work(self.gloo.recv(_memories(tensors), rank, tag), tensors)
