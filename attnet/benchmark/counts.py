"""What a training step computes and moves, counted from the model object: FLOPs, and the least bytes.

The step runs once on a copy without numbers (the meta device), operator by operator: forward, cross-entropy,
backward. A map below is any tensor with a row an image. FLOPs are those of torch's FlopCounterMode: two for each
multiply-add of convolutions and linear layers, forward and backward.

`floor_bytes`: the least that a step moves as long as no map stays on the chip from one convolution to the next.
- Convolutions, linear layers, poolings, up-samplings, the global mean and the combination of mask and trunk read
  each input map once and write their output once. Backward, they read the gradient and the maps that it depends on,
  and write the gradient of their input, the combination in a pass for each of its two. Where a max-pool found its
  maxima is not counted.
- Batch norm, ReLU, sigmoid and the loss are fused into these neighbours and move nothing of their own, but for what
  training-mode batch norm makes unavoidable: forward, what a convolution writes is complete, and written, before
  its consumer can normalise it; backward, likewise the gradient, and batch norm's input is read once more with it.
  Jung et al., "Restructuring batch normalization to accelerate CNN training", MLSys 2019, fuse in this way.
- A sum, of a residual unit or of gradients that meet, reads one map more than its neighbours do. A gradient that a
  convolution and a skip connection both need is written once.
- Each parameter is read forward and backward, its gradient is written, and the optimiser reads gradient, weight and
  momentum and writes weight and momentum: 8 a parameter and step, which a larger batch shares out.
All of this in elements of the opt level's type: 4 bytes at O0, else 2. For attention92 at 2 bytes, batch 512, the
floor is 78 MB an image. It would be 112 MB were batch norm with its ReLU a pass of its own, one forward and one
backward, and 129 MB were sums passes as well: what the separate operators of vendor libraries need at least.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from attnet.model.network import copy_network
from attnet.model.variants import build_model

IMAGES = 3  # of the traced batch: the first dimension of a map, and of no weight
PARAMETER_ACCESSES = 8  # a parameter and step
# Operators that read and write maps in the floor; so does the product of two maps.
ANCHORS = {
    "convolution", "convolution_backward", "addmm", "mm", "mean", "addcmul", "max_pool2d_with_indices",
    "max_pool2d_with_indices_backward", "upsample_bilinear2d", "upsample_bilinear2d_backward",
}  # fmt: skip


@dataclass(frozen=True)
class StepCounts:
    """Of a training step, for one image: `flops`, and the elements of maps that the floor moves.

    `parameters` are those of the network; `stored` the elements of maps that a forward pass makes, for estimates of
    memory.
    """

    flops: float
    floor_maps: float
    parameters: int
    stored: float

    def floor_bytes(self, batch_size: int, element_size: int) -> float:
        """The floor an image; see the module's docstring."""
        return element_size * (self.floor_maps + PARAMETER_ACCESSES * self.parameters / batch_size)


def element_size(amp: str) -> int:
    """Bytes of an element of maps at an opt level: 4 at O0, else 2."""
    return 4 if amp == "O0" else 2


@functools.cache
def counts_of(model: str) -> StepCounts:
    """`count_step` of a network of `attnet.variants()` with 10 classes."""
    with torch.device("meta"):
        return count_step(build_model(model))


def count_step(model: nn.Module) -> StepCounts:
    """Run a training step of `model` on the meta device, with images of the network's own size, and count.

    Args:
        model: a network from `build_model`, on any device; it stays as it is.

    Raises:
        ConfigError: a model without attention modules.
    """
    network = copy_network(model, meta=True).train().requires_grad_()
    size = network.variant.input_size
    images = torch.empty(IMAGES, 3, size, size, device="meta")
    labels = torch.empty(IMAGES, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as flops:
        with _Recorder() as forward:
            loss = F.cross_entropy(network(images), labels)
        with _Recorder() as backward:
            loss.backward()
    made = [t for op in forward.operators if not op.in_place for t in op.outputs]
    return StepCounts(
        flops=flops.get_total_flops() / IMAGES,
        floor_maps=(_forward_floor(forward.operators) + _backward_floor(backward.operators)) / IMAGES,
        parameters=sum(p.numel() for p in network.parameters()),
        stored=sum(t.elements for t in made if t.is_map) / IMAGES,
    )


# -- recording -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tensor:
    """What is kept of a tensor; `storage` is the same for a tensor and its views, and for no other."""

    storage: int
    elements: int
    is_map: bool  # real numbers, a row an image


@dataclass(frozen=True)
class _Operator:
    """One call of an aten operator, with its tensors in the order of its arguments and results."""

    name: str
    inputs: Sequence[_Tensor]
    outputs: Sequence[_Tensor]
    in_place: bool

    @property
    def is_anchor(self) -> bool:
        return self.name in ANCHORS or (self.name == "mul" and self._maps() == 2)

    @property
    def is_sum(self) -> bool:
        return self.name in ("add", "add_") and self._maps() == 2

    def _maps(self) -> int:
        return sum(t.is_map for t in self.inputs)


class _Recorder(TorchDispatchMode):
    """Keeps every operator but views and those that only allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[_Operator] = []
        # A weak reference keeps a storage's address from being used again. A real one would change what autograd
        # does: it copies a gradient that somebody else holds.
        self.references: list[StorageWeakRef] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs, outputs = (
            [self._kept(t) for t in tree_leaves(of) if isinstance(t, Tensor)] for of in ((args, kwargs), result)
        )
        name = func.overloadpacket.__name__
        in_place = name.endswith("_")
        is_view = not in_place and {t.storage for t in inputs} & {t.storage for t in outputs}
        if inputs and not is_view:
            self.operators.append(_Operator(name, inputs, outputs, in_place))
        return result

    def _kept(self, tensor: Tensor) -> _Tensor:
        self.references.append(StorageWeakRef(tensor.untyped_storage()))
        is_map = tensor.is_floating_point() and tensor.dim() > 1 and tensor.shape[0] == IMAGES
        return _Tensor(self.references[-1].cdata, tensor.numel(), is_map)


# -- the floor, in elements of the traced batch --------------------------------------------------------------------


def _moved(operator: _Operator) -> int:
    """Elements of the maps that an anchor reads and writes, each map once."""
    # A max-pool is given its input for the gradient as well, but needs the shape alone.
    inputs = operator.inputs[:1] if operator.name == "max_pool2d_with_indices_backward" else operator.inputs
    return sum(sum({t.storage: t.elements for t in some if t.is_map}.values()) for some in (inputs, operator.outputs))


def _forward_floor(operators: Sequence[_Operator]) -> int:
    anchors = sum(_moved(operator) for operator in operators if operator.is_anchor)
    return anchors + sum(operator.outputs[0].elements for operator in operators if operator.is_sum)


def _backward_floor(operators: Sequence[_Operator]) -> int:
    uses = Counter(storage for operator in operators for storage in {t.storage for t in operator.inputs})
    written: set[int] = set()  # by an anchor, or by a sum in its place
    total = 0
    for operator in operators:
        result = operator.outputs[0]
        if operator.is_anchor:
            total += _moved(operator)
            written.add(result.storage)
        elif "batch_norm" in operator.name:
            total += operator.inputs[1].elements + (result.elements if uses[result.storage] > 1 else 0)
        elif operator.is_sum:
            total += result.elements
            if any(t.storage in written and uses[t.storage] == 1 for t in operator.inputs):
                written.add(result.storage)
            elif uses[result.storage] > 1:
                total += result.elements
    return total
