"""The arithmetic of apex's fused SGDs, a tensor after another."""

import torch
from torch.optim.optimizer import Optimizer, required


class SGD(Optimizer):
    def _init(self, params, lr, momentum, dampening, weight_decay, nesterov):
        if lr is not required and lr < 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)
        Optimizer.__init__(self, params, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                change = weight.grad.add(weight, alpha=group["weight_decay"])
                if group["momentum"]:
                    buffer = self.state[weight].get("momentum_buffer")
                    if buffer is None:
                        buffer = self.state[weight]["momentum_buffer"] = change.clone()
                    else:
                        buffer.mul_(group["momentum"]).add_(change, alpha=1 - group["dampening"])
                    change = change.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
                weight.add_(change, alpha=-group["lr"])


class FusedSGD(SGD):
    """NVIDIA's: its kernels are compiled, and `zero_grad` takes no argument."""

    def __init__(
        self,
        params,
        lr=required,
        momentum=0,
        dampening=0,
        weight_decay=0,
        nesterov=False,
        wd_after_momentum=False,
        materialize_master_grads=True,
        set_grad_none=False,
    ):
        self._init(params, lr, momentum, dampening, weight_decay, nesterov)
        self.most_recent_scale, self.scale_set_by_backward = 1.0, False
        try:
            import amp_C  # noqa: F401
        except ImportError:
            raise RuntimeError("apex.optimizers.FusedSGD requires cuda extensions") from None

    def zero_grad(self):
        Optimizer.zero_grad(self)
