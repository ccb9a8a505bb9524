"""One training step: loss, gradients, optimiser, averaged weights. Nothing waits for the device unless clocked."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnet.base.device import Device
from attnet.base.errors import ConfigError
from attnet.base.files.paths import resolve_path
from attnet.data.batches import Batch
from attnet.engine.distributed import World
from attnet.engine.parameters import TrainConfig
from attnet.engine.precision import Precision
from attnet.engine.trouble import training_memory
from attnet.model.folding import folded
from attnet.model.network import ResidualAttentionNetwork
from attnet.model.units import set_inplace

WARM_UP = 3  # steps that are taken as they are before one is recorded: kernels are chosen, memory of the optimiser made


class TrainStep:
    """A network with everything that changes it. The network is moved to the device, in place.

    `network` is what runs forward: `model` as DDP and torch.compile wrap it. `precision` holds the optimiser,
    `average` the exponential moving average of all weights and of batch norm's statistics, by name, or nothing.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, device: Device, world: World) -> None:
        self.model, self.config, self.world = model, config, world
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        model.to(device.torch_device, memory_format=self.layout)
        set_inplace(model)  # nobody else looks into it, until `let_go`
        factors: dict[str, float] = {}
        if config.freeze or config.layer_decay != 1:
            from attnet.model.parts import freeze_parts, rate_factors

            factors = rate_factors(model, config.layer_decay)
            if config.is_train:
                freeze_parts(model, config.freeze)
        given = {} if config.is_train else {name: value.clone() for name, value in model.state_dict().items()}
        precision_type = Precision
        if config.amp_backend == "apex" and config.is_train:
            from attnet.engine import apex

            precision_type = apex.precision_type(config.amp, device)
        self.precision = precision_type(
            model,
            device,
            config.amp,
            loss_scale=config.loss_scale,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            no_bias_decay=config.no_bias_decay,
            factors=factors,
        )
        if given:  # masters begin as what half precision leaves of the weights, but these are tested as they are
            self.precision.load_full_weights(model, given)
        network = self.precision.network
        if config.is_train:
            network = world.wrap(network, device, self.precision.bucket_views)
        self.network: nn.Module = network
        if config.compile in ("on", "both") and config.is_train:
            # Under runs/, where compiled code outlives a restart of the machine, unlike in /tmp.
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(resolve_path("runs/.compiled")))
            # Every batch has the same size. Testing runs on a folded copy, so that nothing is compiled twice.
            self.network = torch.compile(self.network, dynamic=False)
        self.norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.zero = torch.zeros((), device=device.torch_device)
        # What is averaged: master weights and the statistics of batch norm, updated in place by everybody.
        followed = self.precision.full_weights(model) if config.ema else {}
        self.followed = {name: value for name, value in followed.items() if value.is_floating_point()}
        self.average = {name: value.float().clone() for name, value in self.followed.items()}
        self.updates = 0  # of the average
        # Seconds of forward passes, of the steps in which `clocked` is on: the only part of a step in which a card of
        # many waits for no other.
        self.clocked, self.forwards = False, []
        self.take: Callable[[Sequence[Batch], float | Tensor], Tensor] = self._step
        if config.compile in ("graphs", "both") and config.is_train:
            self.take = Replayed(self._step, device)

    def train(self) -> None:
        """Put the network, but for frozen parts, in training mode."""
        self.model.train()
        if self.config.freeze:
            from attnet.model.parts import rest_frozen

            rest_frozen(self.model)

    def __call__(self, micro_batches: Sequence[Batch], lr: float) -> Tensor:
        """Forward, backward and one update; the mean loss of this card's micro-batches, on the device."""
        with training_memory(self.config, self.precision.device, self.model):
            loss = self.take(micro_batches, lr)
            if self.average:
                self._follow()
        return loss

    def _step(self, micro_batches: Sequence[Batch], lr: float | Tensor) -> Tensor:
        total = self.zero.clone()
        for index, batch in enumerate(micro_batches):
            self._update_statistics(index == 0)
            last = index == len(micro_batches) - 1
            with self._exchange(last):
                begun = self._clock()
                loss = self.loss(batch) / len(micro_batches)
                if begun is not None:
                    self.forwards.append(self._clock() - begun)
                self.backward(loss, last)
            total += loss.detach()
        self.precision.step(lr)
        return total

    def loss(self, batch: Batch) -> Tensor:
        """The recipe's loss of one micro-batch, a scalar on the device."""
        images = batch.images.to(self.precision.input_dtype, memory_format=self.layout)
        with self.precision.autocast():
            logits = self.network(images)
        return batch_loss(logits, batch, self.config.label_smoothing)

    def _clock(self) -> float | None:
        """The time when the device has done all it was given; None in a step that is not clocked."""
        if not self.clocked:
            return None
        self.precision.device.synchronize()
        return time.perf_counter()

    def backward(self, loss: Tensor, last: bool = True) -> None:
        """Add the gradients of `loss`, the `last` of the step or not."""
        self.precision.backward(loss, last)

    def update(self, lr: float) -> None:
        """Let the optimiser take a step of rate `lr`, and the average follow."""
        self.precision.step(lr)
        if self.average:
            self._follow()

    def _update_statistics(self, on: bool) -> None:
        """Batch norm's running statistics follow the first micro-batch of a step alone: rank 0's, on many cards."""
        if self.config.accumulate > 1:
            for norm in self.norms:
                norm.track_running_stats = on

    def _exchange(self, on: bool) -> contextlib.AbstractContextManager:
        """Ranks exchange gradients once a step, after its last micro-batch."""
        return contextlib.nullcontext() if on or self.world.size == 1 else self.network.no_sync()

    @torch.no_grad()
    def _follow(self) -> None:
        """Polyak's average with a window that grows up to the decay's (as in TensorFlow's ExponentialMovingAverage)."""
        decay = min(self.config.ema, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        now = [value.float() for value in self.followed.values()]
        torch._foreach_lerp_(list(self.average.values()), now, 1 - decay)

    def let_go(self) -> None:
        """Give up DDP's wrapper: if it outlived the process group, Gloo's threads could wait for ever at its end.

        The model is anybody's again.
        """
        set_inplace(self.model, False)
        self.take = self._step  # a recorded step holds the card's memory
        del self.network
        gc.collect()

    # -- what others need --------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tensor]:
        """The weights that are tested and kept, in full precision: the average where there is one."""
        return self.precision.full_weights(self.model) | self.average

    def for_testing(self) -> ResidualAttentionNetwork:
        """An inference copy with these weights and its batch norms folded away; the same on all ranks."""
        names = [name for name, _ in self.model.named_buffers()]
        self.world.broadcast_tensors([*self.model.buffers(), *(self.average[n] for n in names if n in self.average)])
        return folded(self.model, self.precision.input_dtype, self.weights())

    def state(self) -> dict[str, object]:
        """Everything needed to go on exactly from here; `model` are the weights that are tested."""
        state: dict[str, object] = {"model": self.weights(), "precision": self.precision.state()}
        if self.average:
            state |= {"training": self.precision.full_weights(self.model), "updates": self.updates}
        return state

    def load_state(self, state: Mapping[str, object]) -> None:
        """The inverse of `state`."""
        self.precision.load_full_weights(self.model, state.get("training", state["model"]))
        self.precision.load_state(state["precision"])
        if isinstance(self.take, Replayed):
            self.take.forget()  # the optimiser has other tensors now
        for name, value in self.average.items():
            if state["model"][name].shape != value.shape:  # which `copy_` would stretch
                raise ConfigError(f"the average of {name} in it is that of another weight")
            value.copy_(state["model"][name])
        self.updates = state.get("updates", 0)


class Replayed:
    """A step by micro-batches and rate, recorded once as a graph and replayed.

    A step of these networks is some thousand small operators, and a fast card is done with each before the processor
    has started the next; replaying leaves it next to nothing to do. The numbers are those of the step as it is.

    Every step of one kind, so many micro-batches of one shape, is one graph; at another kind (other image sizes, mixup
    that ends) the graph is given up and a new one recorded.

    Args:
        step: (micro-batches, rate) -> loss, on the device, without waiting for it; the rate is a number on the device
            here. What it does besides to tensors, it does in place.
        device: one that `records_steps`.
    """

    def __init__(self, step: Callable[[Sequence[Batch], Tensor], Tensor], device: Device) -> None:
        self.step, self.device = step, device
        self.rate = torch.zeros((), device=device.torch_device)
        self.forget()

    def forget(self) -> None:
        """Give up what is recorded: somebody has put other tensors in the place of those that the step works on."""
        self.kind: object = None
        self.inputs: list[Batch] = []
        self.replay: Callable[[], Tensor] | None = None
        self.taken = 0

    def __call__(self, micro_batches: Sequence[Batch], lr: float) -> Tensor:
        """Take a step; its loss, on the device."""
        self.rate.fill_(lr)
        kind = [
            [(name, value.shape, value.dtype) for name, value in batch.tensors().items()] for batch in micro_batches
        ]
        if kind != self.kind:
            self.forget()
            self.kind = kind
        if self.taken < WARM_UP:
            self.taken += 1
            with self.device.aside():
                return self.step(micro_batches, self.rate)
        if self.replay is None:
            self.inputs = [batch.copied() for batch in micro_batches]
            self.replay = self.device.recorded(lambda: self.step(self.inputs, self.rate))
        for kept, batch in zip(self.inputs, micro_batches, strict=True):
            for name, value in batch.tensors().items():
                kept.tensors()[name].copy_(value)
        return self.replay().clone()  # the next replay writes over it


def batch_loss(logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy, nats; with mixup, weighted between both labels (Zhang et al., 2018).

    `label_smoothing` of each label is spread evenly over all classes (Szegedy et al., 2016).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    loss = F.cross_entropy(logits, batch.labels, label_smoothing=label_smoothing)
    if batch.other_labels is None:
        return loss
    other = F.cross_entropy(logits, batch.other_labels, label_smoothing=label_smoothing)
    return batch.weight * loss + (1 - batch.weight) * other
