"""`torch.npu.amp`: the loss scaler of torch_npu, which differs from torch's. Names and signatures are torch_npu 2.13's.

torch's own computes the scale's reciprocal in float64, which a card may lack; this one does not. A scale that is not
dynamic is divided out without a look for overflows, and state dicts have one entry more.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping

import torch
from torch.amp.grad_scaler import OptState
from torch.optim import Optimizer


class GradScaler(torch.amp.GradScaler):
    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        dynamic: bool = True,
        enabled: bool = True,
    ) -> None:
        super().__init__("npu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)
        self._dynamic = dynamic

    def unscale_(self, optimizer: Optimizer) -> None:
        if not self._enabled:
            return
        state = self._per_optimizer_states[id(optimizer)]
        inverse = self._scale.float().reciprocal()
        found = self._unscale_grads_(optimizer, inverse, torch.zeros((), device=inverse.device), False)
        for overflows in found.values() if self._dynamic else ():
            overflows.add_(overflows > 0)  # theirs counts an overflow twice
        state["found_inf_per_device"], state["stage"] = found, OptState.UNSCALED

    def _maybe_opt_step(self, optimizer: Optimizer, optimizer_state: dict, *args: object, **kwargs: object) -> object:
        if not self._dynamic:
            return optimizer.step(*args, **kwargs)
        return super()._maybe_opt_step(optimizer, optimizer_state, *args, **kwargs)

    def update(self, new_scale: float | None = None) -> None:
        if new_scale is not None and not isinstance(new_scale, float):
            raise TypeError("new_scale should be a float")
        if self._enabled and new_scale is None and not self._dynamic:
            new_scale = self.get_scale()
        super().update(new_scale)

    def state_dict(self) -> dict:
        return super().state_dict() | ({"dynamic": self._dynamic} if self._enabled else {})

    def load_state_dict(self, state_dict: Mapping) -> None:
        super().load_state_dict(state_dict)
        if self._enabled:
            self._dynamic = state_dict["dynamic"]


def module() -> types.ModuleType:
    amp = types.ModuleType("torch.npu.amp")
    amp.GradScaler = GradScaler
    return sys.modules.setdefault(amp.__name__, amp)
