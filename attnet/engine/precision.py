"""Opt levels O0-O3 by native torch: which type weights and operators have, loss scaling, the optimiser's step.

The levels are NVIDIA apex's, which the document uses: O0 float32; O1 float32 weights, operators cast by autocast;
O2 half-precision weights and inputs, float32 batch norm and float32 master weights in the optimiser; O3 everything
in half precision. "Half" is the device's: float16, or bfloat16 on a CPU without float16 convolutions.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from attnet.base.device import Device
from attnet.base.errors import ConfigError


@dataclass(frozen=True)
class Level:
    """What an opt level does: which weights are in half precision, with float32 masters or not, and the rest.

    `half_weights`: weights and inputs; `half_norms`: batch norms, too; `masters`: float32 copies for the optimiser;
    `autocast`: operators cast by autocast; `scales`: the loss is scaled.
    """

    help: str
    half_weights: bool = False
    half_norms: bool = False
    masters: bool = False
    autocast: bool = False
    scales: bool = False


LEVELS = {
    "O0": Level("float32"),
    "O1": Level("autocast", autocast=True, scales=True),
    "O2": Level("half + float32 masters", half_weights=True, masters=True, scales=True),
    "O3": Level("half", half_weights=True, half_norms=True),
}
# Where a dynamic loss scale begins, as apex's does.
FIRST_SCALE = 2.0**16


def _plain(method: object) -> object:
    """A method of torch's without the wrappers that keep the compiler out of it.

    torch's optimisers import the whole of `torch._dynamo` to tell it that it has no business with them.
    """
    return inspect.unwrap(method)


class SGD(torch.optim.SGD):
    """`torch.optim.SGD`, the same numbers, without the import of torch.compile, which a process that trains alone would
    pay for at its start. It is not to be compiled itself; networks that it trains may be."""

    add_param_group = _plain(torch.optim.SGD.add_param_group)
    state_dict = _plain(torch.optim.SGD.state_dict)
    load_state_dict = _plain(torch.optim.SGD.load_state_dict)
    zero_grad = _plain(torch.optim.SGD.zero_grad)
    step = torch.no_grad()(_plain(torch.optim.SGD.step))

    def _init_group(self, group: dict, params: list, grads: list, momentum_buffer_list: list) -> bool:
        """Momentum begins as 0, which gives the numbers of torch's first step. The fused step would begin it as memory
        that nobody has filled, and where gradients overflow in the first step, it is skipped and leaves it so."""
        for weight in group["params"] if group["fused"] and group["momentum"] else ():
            if weight.grad is not None and self.state[weight].get("momentum_buffer") is None:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return super()._init_group(group, params, grads, momentum_buffer_list)


def parameter_groups(
    weights: Mapping[str, Tensor], no_bias_decay: bool, factors: Mapping[str, float]
) -> list[dict[str, object]]:
    """Parameter groups for SGD: all weights, or biases and norms apart, which then are not decayed.

    Weights whose rate is multiplied by another factor (by name; 1 where none is given) have groups of their own, with
    the factor as `lr_scale`.
    """
    groups: list[dict[str, object]] = []
    for factor in dict.fromkeys(factors.get(name, 1.0) for name in weights):
        chosen = [weight for name, weight in weights.items() if factors.get(name, 1.0) == factor]
        scale = {} if factor == 1 else {"lr_scale": factor}
        # Biases and norms have one dimension, weights have two or four.
        decaying = [weight for weight in chosen if weight.ndim > 1 or not no_bias_decay]
        others = [weight for weight in chosen if weight.ndim <= 1 and no_bias_decay]
        groups += [{"params": decaying, **scale}] if decaying else []
        groups += [{"params": others, "weight_decay": 0.0, **scale}] if others else []
    return groups


def frozen_copies(model: nn.Module) -> dict[nn.Parameter, Tensor]:
    """The parameters that need no gradient, as they are before anything converts them."""
    return {p: p.detach().clone() for p in model.parameters() if not p.requires_grad}


def set_rate(optimizer: Optimizer, lr: float | Tensor) -> None:
    """The learning rate of every group: `lr` times its own factor. A tensor stays one, for steps that are recorded."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def load_momentum(optimizer: Optimizer, state: Mapping[str, object]) -> None:
    """Take what SGD has gathered from a state dict, whose options may be another device type's or apex's.

    Each weight's momentum is laid out anew as the weight lies in memory: the fused optimiser goes over both as they
    lie, and where they lie otherwise (a file of somebody's, a run that goes on with another `channels_last`) it would
    add the wrong numbers, or read beyond their end.

    Raises:
        ConfigError: the momentum of other weights.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    held = {place: entry.get("momentum_buffer") for place, entry in state["state"].items()}
    held = {place: value for place, value in held.items() if value is not None}
    fits = held.keys() == set(range(len(weights)))
    if held and not (fits and all(held[place].shape == weight.shape for place, weight in enumerate(weights))):
        raise ConfigError("the momentum in it is that of other weights than are trained")
    fresh = {place: {"momentum_buffer": torch.empty_like(weights[place]).copy_(held[place])} for place in held}
    optimizer.load_state_dict({"state": fresh, "param_groups": optimizer.state_dict()["param_groups"]})


def input_type(level: str, device: Device) -> torch.dtype:
    """The type of images and weights at an opt level."""
    return device.half_dtype if LEVELS[level].half_weights else torch.float32


def autocast(level: str, device: Device) -> contextlib.AbstractContextManager:
    """The context of the forward pass at an opt level."""
    if not LEVELS[level].autocast:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=device.half_dtype)


class Precision:
    """One network with its optimiser at one opt level.

    `network` is what runs forward; with `bucket_views` DDP may let gradients lie in its buckets. `skipped` counts,
    on the device, the steps that were skipped since their gradients overflowed.

    Args:
        model: a float32 network on `device`; it is converted in place.
        device: decides the half-precision type and whether the fused optimiser is used.
        level: "O0", "O1", "O2" or "O3".
        loss_scale: static factor, or "dynamic" (starts at 65,536, halves on overflow, doubles after 2,000 good
            steps). Levels O1 and O2 scale the loss; a step whose gradients overflow is skipped.
        momentum, weight_decay: of SGD with Nesterov momentum.
        no_bias_decay: weight decay on the weights of convolutions and linear layers only (He et al., "Bag of
            Tricks for Image Classification", 2019).
        factors: parameter name -> what its learning rate is multiplied by; 1 where it is missing.

    Parameters that need no gradient are left alone by the optimiser.
    """

    def __init__(
        self,
        model: nn.Module,
        device: Device,
        level: str,
        *,
        loss_scale: float | str = 128.0,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        no_bias_decay: bool = False,
        factors: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.device, self.name, self.level = device, level, LEVELS[level]
        self.network, self.bucket_views = model, True
        self.dtype = device.half_dtype if self.level.half_weights or self.level.autocast else torch.float32
        self.input_dtype = input_type(level, device)
        frozen = frozen_copies(model)
        if self.level.half_weights:
            for module in model.modules():
                norm_stays = not self.level.half_norms and isinstance(module, nn.modules.batchnorm._BatchNorm)
                for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    if tensor.is_floating_point() and not norm_stays:
                        tensor.data = tensor.data.to(self.dtype)
        params = {name: p for name, p in model.named_parameters() if p.requires_grad}
        # The optimiser's own copy, float32, of every half-precision weight at O2; the weight itself otherwise.
        learning = {name: self._master(p) if self.level.masters else p for name, p in params.items()}
        self.masters = list(learning.values())
        pairs = [*zip(params.values(), self.masters, strict=True), *frozen.items()]
        self.halves = [(p, master) for p, master in pairs if p.dtype != master.dtype]
        self.optimizer = self._make_optimizer(
            parameter_groups(learning, no_bias_decay, factors),
            lr=0.0,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=momentum > 0,
        )
        self.static_scale = None if loss_scale == "dynamic" else float(loss_scale)
        self.scaler = device.grad_scaler(self.static_scale or FIRST_SCALE, enabled=self.level.scales)
        self.skipped = torch.zeros((), device=device.torch_device)

    def _make_optimizer(self, groups: list[dict[str, object]], **options: float) -> Optimizer:
        fused = all(self.device.has_fused_optimizer(weight.dtype) for weight in self.masters)
        return SGD(groups, **options, fused=fused or None)

    @staticmethod
    def _master(parameter: nn.Parameter) -> Tensor:
        if parameter.dtype == torch.float32:
            return parameter
        return parameter.detach().to(torch.float32).requires_grad_()

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context of the forward pass."""
        return autocast(self.name, self.device)

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """Add the gradients of `loss`, scaled, to the weights; `last` says that none follow in this step."""
        self.scaler.scale(loss).backward()

    def step(self, lr: float | Tensor) -> None:
        """One SGD step with learning rate `lr`; gradients are used up. Skipped where they overflowed."""
        self._collect()
        set_rate(self.optimizer, lr)
        self.scaler.step(self.optimizer)
        if self.scaler.is_enabled():
            self.skipped += sum(self.scaler._found_inf_per_device(self.optimizer).values()) > 0
            self.scaler.update(self.static_scale)
        for weight in self.masters:
            weight.grad = None
        self.publish()

    @torch.no_grad()
    def _collect(self) -> None:
        """Copy the gradients of half-precision weights to their masters, all in one go."""
        pairs = [(weight, master) for weight, master in self.halves if weight.grad is not None]
        for _, master in pairs:
            master.grad = torch.empty_like(master)
        if pairs:
            torch._foreach_copy_([master.grad for _, master in pairs], [weight.grad for weight, _ in pairs])
        for weight, _ in pairs:
            weight.grad = None

    @torch.no_grad()
    def publish(self) -> None:
        """Copy the master weights into the network."""
        if self.halves:
            weights, masters = zip(*self.halves, strict=True)
            torch._foreach_copy_(list(weights), list(masters))

    def full_weights(self, model: nn.Module) -> dict[str, Tensor]:
        """The network's state dict with master weights in place of half-precision ones: what checkpoints hold."""
        state = model.state_dict()
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        return state | {names[id(weight)]: master.detach() for weight, master in self.halves}

    def load_full_weights(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """The inverse of `full_weights`."""
        model.load_state_dict(state)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        with torch.no_grad():
            for weight, master in self.halves:
                master.copy_(state[names[id(weight)]])

    def state(self) -> dict[str, object]:
        """Optimiser, loss scale and count of skipped steps, for a checkpoint."""
        optimizer = self.optimizer.state_dict()
        groups = [group | {"lr": float(group["lr"])} for group in optimizer["param_groups"]]  # may be on the device
        return {
            "optimizer": optimizer | {"param_groups": groups},
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped,
        }

    def load_state(self, state: Mapping[str, object]) -> None:
        """The inverse of `state`, also of one that another device type or apex wrote: options stay this optimiser's."""
        load_momentum(self.optimizer, state["optimizer"])
        # torch_npu's scaler has one entry more; what others wrote is dynamic, as `step` drives it.
        self.scaler.load_state_dict({"dynamic": True, **state["scaler"]} if state["scaler"] else {})
        self.skipped.copy_(state["skipped"])
