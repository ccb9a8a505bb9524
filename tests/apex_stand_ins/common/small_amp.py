"""A small apex.amp for the CPU: what both Ascend's and NVIDIA's former one do at O1 and O2, in few words.

Where the real one would go wrong in silence (weights that were given other memory, a step without unscaled
gradients), this one raises.
"""

import contextlib
import types

import torch
from torch import nn

from attnet.base.device import choose

HALF = choose().half_dtype  # float16, but on a CPU without float16 convolutions


class LossScaler:
    def __init__(self, loss_scale):
        self.dynamic = loss_scale == "dynamic"
        self._loss_scale = 2.0**16 if self.dynamic else loss_scale
        self._unskipped = 0

    def update(self, overflow):
        """Whether the step is to be skipped."""
        self._unskipped += 1
        if overflow:
            self._loss_scale, self._unskipped = self._loss_scale / 2, 0
        elif self.dynamic and self._unskipped == 2000:
            self._loss_scale, self._unskipped = min(2.0**24, self._loss_scale * 2), 0
        return overflow


state = types.SimpleNamespace(loss_scalers=[], handle=None)


def initialize(model, optimizer, opt_level, loss_scale, combine_grad):
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise RuntimeError("Parallel wrappers should only be applied AFTER amp.initialize")
    if any(p.dtype != torch.float32 for p in model.parameters()):
        raise RuntimeError("Found param that is not float32")
    if hasattr(optimizer, "_amp_stash"):
        raise RuntimeError("A given optimizer should only be passed through amp.initialize once.")
    if opt_level == "O2":
        _to_half(model)
    optimizer.accelerate = combine_grad
    optimizer._amp_stash = Stash(optimizer, opt_level == "O2", combine_grad)
    for name, function in {"step": _step, "zero_grad": _zero_grad, "_amp_lazy_init": _lazy_init}.items():
        setattr(optimizer, name, types.MethodType(function, optimizer))
    state.loss_scalers = [LossScaler(loss_scale if loss_scale is not None else "dynamic")]
    if opt_level == "O1":
        state.handle = types.SimpleNamespace(_is_active=True)
        for name in ("conv2d", "linear"):
            setattr(nn.functional, name, _casting(getattr(nn.functional, name), state.handle))
    if combine_grad:
        nn.Module.zero_grad = _module_zero_grad
    return model, optimizer


def _to_half(model):
    for module in model.modules():
        module._register_state_dict_hook(_float32_state)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(HALF)
    forward = model.forward
    model.forward = lambda images: forward(images.to(HALF)).float()


def _float32_state(module, state_dict, prefix, local_metadata):
    for key, value in state_dict.items():
        state_dict[key] = value.float() if value.dtype == HALF else value


def _casting(function, handle):
    def cast(images, weight, bias=None, *rest, **options):
        if handle._is_active:
            images, weight, bias = (t if t is None else t.to(HALF) for t in (images, weight, bias))
        return function(images, weight, bias, *rest, **options)

    return cast


def _module_zero_grad(self, set_to_none=False):
    assert set_to_none is False, "For combined grad, `set_to_none` must be False."


class Stash:
    """An optimiser's gradients and masters: `weights` are the network's, `targets` what the optimiser moves."""

    def __init__(self, optimizer, master_weights, combine):
        self.optimizer, self.master_weights, self.combine = optimizer, master_weights, combine
        self.lazy_init_called = self.already_patched = self.params_have_scaled_gradients = False
        self.already_combined = self.ready = False
        self.zeroed, self.kept = True, None

    def lazy_init(self):
        if self.lazy_init_called:
            return
        self.lazy_init_called = True
        self.weights, self.targets = [], []
        for group in self.optimizer.param_groups:
            for index, weight in enumerate(group["params"]):
                self.weights.append(weight)
                if self.master_weights and weight.dtype == HALF:
                    group["params"][index] = weight.detach().clone().float().requires_grad_()
                self.targets.append(group["params"][index])
        # The optimiser casts and re-keys what it had.
        self.optimizer.load_state_dict(self.optimizer.state_dict())

    def everything(self):
        return {id(t): t for t in (*self.weights, *self.targets)}.values()

    def combine_gradients(self):
        """Move every gradient into one tensor a type, and remember where all is."""
        for dtype in (HALF, torch.float32):
            tensors = [t for t in self.everything() if t.dtype == dtype]
            combined = torch.zeros(sum(t.numel() for t in tensors), dtype=dtype, device=self.weights[0].device)
            for tensor, part in zip(tensors, combined.split([t.numel() for t in tensors]), strict=True):
                part = part.view(tensor.shape)
                tensor.grad = part if tensor.grad is None else part.copy_(tensor.grad)
        self.already_combined = True
        self.places = [(t, t.data_ptr(), t.grad.data_ptr()) for t in self.everything()]

    def check(self):
        if self.already_combined:
            for tensor, place, grad_place in self.places:
                if tensor.data_ptr() != place or tensor.grad is None or tensor.grad.data_ptr() != grad_place:
                    raise RuntimeError("a weight or gradient left the memory it shares with the combined tensor")

    def prepare(self):
        self.lazy_init()
        self.check()
        self.kept = None if self.zeroed else [t.grad.clone() for t in self.targets]
        for weight in self.weights:
            if self.already_combined:
                weight.grad.zero_()
            else:
                weight.grad = None

    @torch.no_grad()
    def post(self, scaler):
        self.check()
        if self.combine and not self.already_combined:
            self.combine_gradients()
        # With a static scale apex does not look.
        overflow = scaler.dynamic and not all(w.grad.isfinite().all() for w in self.weights)
        for index, (weight, target) in enumerate(zip(self.weights, self.targets, strict=True)):
            if target is not weight:
                target.grad = torch.empty_like(target) if target.grad is None else target.grad
                target.grad.copy_(weight.grad)
            target.grad.mul_(1 / scaler._loss_scale)
            if self.kept is not None:
                target.grad.add_(self.kept[index])
        self.zeroed, self.kept, self.ready = False, None, True
        return overflow


@contextlib.contextmanager
def scale_loss(loss, optimizer, delay_unscale):
    if not hasattr(optimizer, "_amp_stash"):
        raise RuntimeError("amp.initialize must be called before amp.scale_loss")
    stash, scaler = optimizer._amp_stash, state.loss_scalers[0]
    if not delay_unscale and not stash.params_have_scaled_gradients:
        stash.prepare()
    yield loss.float() * scaler._loss_scale
    stash.params_have_scaled_gradients = delay_unscale
    if not delay_unscale and scaler.update(stash.post(scaler)):
        stash.already_patched = True


def _lazy_init(self):
    self._amp_stash.lazy_init()


def _step(self, closure=None):
    stash = self._amp_stash
    if not stash.ready or stash.params_have_scaled_gradients:
        raise RuntimeError("optimizer.step() without gradients that amp.scale_loss has unscaled")
    stash.check()
    if not stash.already_patched:
        type(self).step(self)
        with torch.no_grad():
            for weight, target in zip(stash.weights, stash.targets, strict=True):
                if weight is not target:
                    weight.copy_(target)
    stash.already_patched = stash.ready = False
    if state.handle is not None:
        state.handle._is_active = True


def _zero_grad(self):
    stash = self._amp_stash
    stash.lazy_init()
    stash.zeroed = True
    for tensor in stash.everything():
        if stash.already_combined:
            tensor.grad.zero_()
        else:
            tensor.grad = None


def state_dict():
    return {
        f"loss_scaler{index}": {"loss_scale": scaler._loss_scale, "unskipped": scaler._unskipped}
        for index, scaler in enumerate(state.loss_scalers)
    }


def load_state_dict(state_dict):
    for index, scaler in enumerate(state.loss_scalers):
        values = state_dict[f"loss_scaler{index}"]
        scaler._loss_scale, scaler._unskipped = values["loss_scale"], values["unskipped"]


def master_params(optimizer):
    return (p for group in optimizer.param_groups for p in group["params"])
