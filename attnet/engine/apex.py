"""Opt levels by apex, the document's way: `amp.initialize`, `amp.scale_loss` and apex's fused optimisers.

What differs from native torch: a static loss scale never skips a step, and O1 casts by patching torch's functions.
Checkpoints are those of `attnet.engine.precision`, so that a run begun with the one goes on with the other.
"""

from __future__ import annotations

import contextlib
import inspect
import weakref
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from attnet.base.apex import choose, find
from attnet.base.device import Device
from attnet.base.errors import ConfigError
from attnet.engine.precision import LEVELS, Precision, frozen_copies, load_momentum, parameter_groups, set_rate

# How both torch.amp.GradScaler and apex move a dynamic scale unless told otherwise.
_DYNAMIC = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000}


def precision_type(level: str, device: Device) -> type[Precision]:
    """The class that does `level` on `device` with the installed apex: native torch where that one is no use."""
    apex = find()
    if not choose(level, device.kind, apex)[0]:
        return Precision
    return FusedPrecision if apex.kind == "nvidia" else ApexPrecision


class FusedPrecision(Precision):
    """Native torch with the FusedSGD of NVIDIA's present apex as optimiser."""

    def _make_optimizer(self, groups: list[dict[str, object]], **options: float) -> Optimizer:
        with _imported():
            from apex.optimizers import FusedSGD
        return FusedSGD(groups, **options)


class ApexPrecision(Precision):
    """One network with its optimiser at O1 or O2, by apex's amp; arguments are those of `Precision`.

    amp keeps one loss scale for the whole process: the latest such object owns it.

    Raises:
        ConfigError: the installed apex cannot be imported.
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
        with _imported():
            from apex import amp, optimizers
        self.amp, self.device, self.level = amp, device, LEVELS[level]
        self.bucket_views = False  # gradients move into one tensor of apex's
        self.dtype = device.half_dtype
        self.input_dtype = self.dtype if self.level.half_weights else torch.float32
        self.is_dynamic = loss_scale == "dynamic"
        learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
        frozen = frozen_copies(model)
        groups = parameter_groups(learning, no_bias_decay, factors)
        weights = [weight for group in groups for weight in group["params"]]
        if find().kind == "ascend":
            sgd = optimizers.NpuFusedSGD if self.level.masters else torch.optim.SGD
        else:
            sgd = optimizers.FusedSGD
        self.optimizer = sgd(groups, lr=0.0, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)
        options: dict[str, object] = {"opt_level": level, "loss_scale": loss_scale, "verbosity": 0}
        if "combine_grad" in inspect.signature(amp.initialize).parameters:
            options["combine_grad"] = True
        self.network, self.optimizer = amp.initialize(_Forward(model), self.optimizer, **options)
        self._casts(False)
        # amp would make its masters at the first backward; checkpoints and averages want them before.
        self.optimizer._amp_lazy_init()
        pairs = zip(weights, amp.master_params(self.optimizer), strict=True)
        pairs = [*pairs, *frozen.items()]
        self.halves = [(weight, master) for weight, master in pairs if weight.dtype != master.dtype]
        # Ascend's apex moves weights into memory that the optimiser alone keeps.
        weakref.finalize(model, id, self.optimizer).atexit = False
        self.skipped = torch.zeros((), device=device.torch_device)

    def _casts(self, on: bool) -> None:
        """Let O1's patched functions cast or not. They are torch's own, so every other network would get them too."""
        if self.level.autocast:
            self.amp._amp_state.handle._is_active = on

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        self._casts(True)
        try:
            yield
        finally:
            self._casts(False)

    def backward(self, loss: Tensor, last: bool = True) -> None:
        with self.amp.scale_loss(loss, self.optimizer, delay_unscale=not last) as scaled:
            scaled.backward()

    def step(self, lr: float) -> None:
        """One SGD step with learning rate `lr`; gradients are used up. A dynamic scale skips it on overflow."""
        set_rate(self.optimizer, lr)
        self.skipped += float(self.optimizer._amp_stash.already_patched)  # for the one call that does nothing
        self.optimizer.step()
        self._casts(False)  # apex switches them on after a step
        self.optimizer.zero_grad()

    def state(self) -> dict[str, object]:
        scaler = self.amp.state_dict()["loss_scaler0"]
        steps = scaler["unskipped"] if self.is_dynamic else 0
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": {"scale": float(scaler["loss_scale"]), **_DYNAMIC, "_growth_tracker": steps},
            "skipped": self.skipped,
        }

    def load_state(self, state: Mapping[str, object]) -> None:
        load_momentum(self.optimizer, state["optimizer"])
        if self.is_dynamic:
            scale, steps = state["scaler"]["scale"], state["scaler"]["_growth_tracker"]
            self.amp.load_state_dict({"loss_scaler0": {"loss_scale": scale, "unskipped": steps}})
        self.skipped.copy_(state["skipped"])


class _Forward(nn.Module):
    """What amp is given: it patches the `forward` of this, while the network inside keeps its own and can be copied."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


@contextlib.contextmanager
def _imported() -> Iterator[None]:
    try:
        yield
    except (ImportError, AttributeError) as error:  # what an apex meets that is too old for this torch
        raise ConfigError(
            f"amp_backend=apex: the apex in {find().path} cannot be imported with torch {torch.__version__} ({error}); "
            "build it for this torch, or set amp_backend=native"
        ) from error
