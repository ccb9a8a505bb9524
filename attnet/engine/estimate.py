"""How long a training will take here: a few real steps are timed before it begins, and everything left as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from attnet.base.device import Device
from attnet.base.host import usable_cores
from attnet.base.words import duration
from attnet.data.augment import image_sizes
from attnet.data.batches import Batch
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan
from attnet.engine.recipes import MODES
from attnet.engine.step import WARM_UP
from attnet.engine.training import Training

# Images that are trained on, times parameters: below it a run takes a minute or a few, and is not kept waiting to hear
# that. Operations grow with both, some 600 for each of these; a processor does about a hundredth of what a card does.
WORTH = {"processor": 2e10, "accelerator": 2e12}
# Seconds: beyond them it is said what would be quicker.
LONG = {"processor": 3 * 3600, "accelerator": 24 * 3600}
SECONDS = 1.5  # for timing, besides making the network and the steps that warm it up
FEW = 4  # images by which it is seen how many a slow processor can take in that time
TESTING = 1 / 3  # of an image's training: the forward pass, whose gradients cost about twice as much


@dataclass(frozen=True)
class Estimate:
    """What was found: seconds of an epoch with its test, how many epochs are left, and what it leaves out."""

    epoch: float
    epochs: float
    is_long: bool
    without: str = ""

    @property
    def seconds(self) -> float:
        """Until the last epoch is tested."""
        return self.epoch * self.epochs

    def describe(self, config: TrainConfig) -> str:
        """One line, with what would be quicker where it is long."""
        count = f"{self.epochs:,.1f}".removesuffix(".0")
        each = "one epoch" if count == "1" else f"{count} epochs of {duration(self.epoch)}"
        line = f"time: about {duration(self.seconds)} here, {each}{self.without}"
        if not self.is_long:
            return line
        small = str(MODES["quick"]["model"])
        ways = ["mode=quick"] if config.mode != "quick" else []
        ways += ["fewer total_epochs", *([f"a smaller network (model={small})"] if config.model != small else [])]
        return f"{line}; quicker: {', '.join(ways[:-1])} or {ways[-1]}" if ways[1:] else f"{line}; quicker: {ways[0]}"


def estimate(plan: Plan) -> Estimate | None:
    """How long what is left of a training will take on this device; None where it is short, or cannot be timed.

    What cannot be timed (a batch that does not fit) is for the training to refuse. Neither the random numbers of this
    process nor anything of the run is touched: the steps are taken by a network of their own.
    """
    config, kind = plan.config, "accelerator" if plan.device.is_accelerator else "processor"
    total, (done, step) = config.total_epochs, plan.position
    steps = len(plan.dataset.train) // (config.train_batch_size * config.accumulate * config.device_num)
    left = total - done - step / max(steps, 1)
    size = left * len(plan.dataset.train) * plan.network.count_parameters(config.num_classes)
    if not config.is_train or not steps or size < WORTH[kind]:
        return None
    with contextlib.suppress(Exception), _random_kept(plan.device), plan.device.working():
        image = _image_seconds(plan)
        if not plan.device.is_accelerator:  # processes share the cores, of which as many were at work as threads
            image *= max(1, config.device_num // config.nnodes * torch.get_num_threads() / usable_cores())
        sizes = image_sizes(config) or [plan.network.input_size]
        share = statistics.mean((side / plan.network.input_size) ** 2 for side in sizes)
        training = steps * config.train_batch_size * config.accumulate * image * share
        testing = len(plan.dataset.test) / config.device_num * image * TESTING
        epoch = training + testing
        return Estimate(epoch, left, epoch * left > LONG[kind], _without(config))
    return None


def _without(config: TrainConfig) -> str:
    """What is not counted, in words."""
    alone = ", by one card alone: what cards wait for each other comes on top" if config.device_num > 1 else ""
    return alone + (", without torch.compile, which makes it quicker" if config.compile in ("on", "both") else "")


def _image_seconds(plan: Plan) -> float:
    """Seconds that a step takes for each of its images.

    A card takes whole steps; a processor as many images of one as fit into the time, since it needs so much longer for
    each that the rest does not count.
    """
    training = Training(_small(plan))
    try:
        training.train_step.train()
        (batch,) = next(training.train_batches.epoch(0))
        images = len(batch.labels)
        if not plan.device.is_accelerator:
            each = _step_seconds(training, batch, min(FEW, images), warm=1, most=2) / min(FEW, images)
            images = min(images, max(FEW, int(SECONDS / 2 / each)))
        warm = WARM_UP + 1 if plan.device.is_accelerator else 0
        return _step_seconds(training, batch, images, warm, warm + 3) / images
    finally:
        training.train_step.let_go()


def _step_seconds(training: Training, batch: Batch, images: int, warm: int, most: int) -> float:
    """Of a step with the first `images` of a batch: the median of up to `most`, but for the first `warm` of them."""
    some = dataclasses.replace(
        batch,
        images=batch.images[:images],
        labels=batch.labels[:images],
        other_labels=None if batch.other_labels is None else batch.other_labels[:images],
    )
    taken: list[float] = []
    while len(taken) < most and sum(taken) < SECONDS:
        begun = time.perf_counter()
        training.train_step([some], training.lr)
        training.device.synchronize()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[warm:] or taken[-1:])


def _small(plan: Plan) -> Plan:
    """The same training with no more images than a micro-batch, of random weights, at full size."""
    config = plan.config
    changes = {"amp_backend": "native", "accumulate": 1, "image_sizes": "", "is_pretrain": False}
    compiled = {"on": "off", "both": "graphs"}.get(config.compile, config.compile)
    data = dataclasses.replace(
        plan.dataset, train=plan.dataset.train.subset(config.train_batch_size), test=plan.dataset.test.subset(1)
    )
    config = config.replace(**changes, compile=compiled)
    return dataclasses.replace(plan, config=config, dataset=data, weights=None)


@contextlib.contextmanager
def _random_kept(device: Device) -> Iterator[None]:
    """All generators are afterwards where they were before."""
    states = random.getstate(), np.random.get_state(), device.rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        device.set_rng_state(states[2])
