"""Training steps to measure, ours and the reference repository's, and the process that takes them when told to.

The reference needs one change to run on Python 3: `output_channels/4` to `output_channels//4` in its
model/basic_layers.py. Its images are on the device already, which favours it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from attnet.base import device as devices
from attnet.base.device import Device
from attnet.base.errors import AttnetError, ConfigError
from attnet.benchmark.ceilings import measure_ceilings
from attnet.benchmark.grid import Setting
from attnet.benchmark.operators import operator_seconds
from attnet.benchmark.worker import Worker, answer_parent
from attnet.data.splits import Split
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan
from attnet.model.variants import variants

REFERENCE_CLASS = "ResidualAttentionModel_92_32input_update"
REFERENCE_TEST_BATCH = 20
PARTS = ("data", "forward", "backward", "optimiser")
LR = 0.01  # small enough that the loss stays finite, without which loss scaling would leave out updates
# Images of CIFAR-10 on an accelerator; fewer on a CPU, where the memory of the process is what is measured.
TRAIN_IMAGES, TEST_IMAGES = {False: 2_000, True: 50_000}, {False: 500, True: 10_000}
EVALUATIONS = 3  # the first is not counted
ERROR_LENGTH = 300  # characters


class OurLoop:
    """The engine's own steps: batch making, augmentation, network, loss, optimiser, as a run takes them."""

    def __init__(self, setting: Setting, plan: Plan) -> None:
        self.trainer = Trainer(plan)
        self.stream = itertools.chain.from_iterable(map(self.trainer.train_batches.epoch, itertools.count()))
        self.trainer.train_step.train()

    def step(self) -> None:
        self.trainer.train_step(next(self.stream), LR)

    def data(self) -> None:
        self.micro_batches = next(self.stream)

    def forward(self) -> None:
        (batch,) = self.micro_batches
        self.loss = self.trainer.train_step.loss(batch)

    def backward(self) -> None:
        self.trainer.train_step.backward(self.loss)

    def optimiser(self) -> None:
        del self.loss  # nothing of the graph is left in memory, as in a whole step
        self.trainer.train_step.update(LR)

    def evaluate(self) -> int:
        """Test as at the end of an epoch; the number of images."""
        return len(self.trainer.test().labels)


class ReferenceLoop:
    """One step and the test of the reference's loop (its train.py) on its own network."""

    def __init__(self, setting: Setting, plan: Plan, folder: Path) -> None:
        device, batch_size = plan.device.torch_device, setting.batch_size
        self.network = reference_network(folder).to(device).train()
        self.criterion = nn.CrossEntropyLoss()
        parameters = self.network.parameters()
        self.sgd = torch.optim.SGD(parameters, lr=LR, momentum=0.9, nesterov=True, weight_decay=0.0001)
        self.images = torch.rand(batch_size, 3, 32, 32, device=device)
        self.labels = torch.randint(10, (batch_size,), device=device)
        self.test_images = plan.dataset.test.images.float().div(255).split(REFERENCE_TEST_BATCH)

    def step(self) -> None:
        for part in PARTS:
            getattr(self, part)()

    def data(self) -> None:
        """Nothing to do: the batch is there already."""

    def forward(self) -> None:
        self.sgd.zero_grad()
        self.loss = self.criterion(self.network(self.images), self.labels)

    def backward(self) -> None:
        self.loss.backward()

    def optimiser(self) -> None:
        self.sgd.step()

    def evaluate(self) -> int:
        """Test as it does: small batches, copied one by one; the number of images."""
        self.network.eval()
        with torch.no_grad():
            for images in self.test_images:
                self.network(images.to(self.images.device)).argmax(dim=1)
        self.network.train()
        return sum(map(len, self.test_images))


def reference_network(folder: Path) -> nn.Module:
    """The reference's own network from a copy of its inner folder, the one that holds model/.

    Raises:
        ConfigError: no such network there.
    """
    sys.path.insert(0, str(folder))
    try:
        return getattr(importlib.import_module("model.residual_attention_network"), REFERENCE_CLASS)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"reference={folder}: no {REFERENCE_CLASS} in model/residual_attention_network.py there ({error}); "
            "give the inner folder of a copy of the reference repository"
        ) from error


def step_plan(setting: Setting, device_type: str, test_images: int = 0) -> Plan:
    """A plan of recipe `seed` over noise: what the pictures show is nothing to the speed, their number and size is.

    `test_images` of 0 stands for as many as CIFAR-10 has on an accelerator, 500 on a CPU.
    """
    plan = make_plan(
        TrainConfig(
            mode="rehearsal",
            dataset="shapes",
            model=setting.model,
            train_batch_size=setting.batch_size,
            amp=setting.amp,
            channels_last=setting.channels_last,
            compile=setting.compile,
            device_type=device_type,
        )
    )
    if plan.config.channels_last != setting.channels_last:
        raise ConfigError(f"memory_format=channels_last: {plan.device.kind}s take contiguous tensors alone")
    side, fast = variants()[setting.model].input_size, plan.device.is_accelerator
    train_images = max(setting.batch_size, TRAIN_IMAGES[fast] * 32**2 // side**2)
    train, test = noise(train_images, side), noise(test_images or TEST_IMAGES[fast] * 32**2 // side**2, side)
    return dataclasses.replace(plan, dataset=dataclasses.replace(plan.dataset, train=train, test=test))


def noise(images: int, side: int) -> Split:
    """Random pixels, uint8 [N, 3, side, side], in 10 classes."""
    pixels = torch.randint(256, (images, 3, side, side), dtype=torch.uint8)
    return Split(pixels, torch.arange(images) % 10)


# -- the process ---------------------------------------------------------------------------------------------------


def steps_worker(
    setting: Setting, device_type: str, *, reference: Path | None = None, warm_up: int = 0, test_images: int = 0
) -> Worker:
    """A process that takes steps of one configuration, ready when it has taken the first and `warm_up` more.

    `ready["first_step_seconds"]` are those of building the network and of the first step, compiling included.
    `ask(what=...)` gives `{"answer": ...}`: "step", the seconds of a whole step; "parts", those of each part of one;
    "operators", those of each operator in one;
    "evaluation", images tested per second; "peak", the peak memory in bytes so far.

    Raises:
        AttnetError: in place of an answer, whatever went wrong in the process.
    """
    job = {"setting": setting.to_dict(), "device_type": device_type, "warm_up": warm_up, "test_images": test_images}
    return Worker("attnet.benchmark.loops", job | {"reference": str(reference) if reference else None})


def ceilings_apart(device_type: str) -> dict[str, object]:
    """`measure_ceilings` in a process of its own, so that its memory is free again afterwards."""
    with Worker("attnet.benchmark.loops", {"setting": None, "device_type": device_type}) as worker:
        return worker.ready


def work(job: argparse.Namespace) -> Iterator[dict]:
    """The process: what is ready, then an answer for each line of standard input."""
    try:
        # What a reference says of itself must not come between the answers.
        with contextlib.redirect_stdout(sys.stderr):
            answers = _measure(job)
            answer = next(answers)
        yield answer
        for line in sys.stdin:
            with contextlib.redirect_stdout(sys.stderr):
                answer = answers.send(json.loads(line)["what"])
            yield {"answer": answer}
    except AttnetError:
        raise
    except Exception as error:
        raise AttnetError(in_words(error)) from error


def _measure(job: argparse.Namespace) -> Iterator[object]:
    device = devices.choose(job.device_type)
    if job.setting is None:
        yield measure_ceilings(device)
        return
    setting = Setting.of(job.setting)
    ours = setting.implementation == "ours"
    plan = step_plan(setting, job.device_type, job.test_images)
    with device.working() if ours else contextlib.nullcontext():
        begun = time.perf_counter()
        loop = OurLoop(setting, plan) if ours else ReferenceLoop(setting, plan, Path(job.reference))
        loop.step()
        device.synchronize()
        first = time.perf_counter() - begun
        for _ in range(job.warm_up):
            loop.step()
        answers: dict[str, Callable[[], object]] = {
            "step": lambda: _seconds(device, loop.step),
            "parts": lambda: {part: _seconds(device, getattr(loop, part)) for part in PARTS},
            "operators": lambda: operator_seconds(device, loop.step),
            "evaluation": lambda: _evaluation_speed(device, loop),
            "peak": lambda: device.memory().peak,
        }
        what = yield {"first_step_seconds": first}
        while True:
            what = yield answers[what]()


def _seconds(device: Device, operation: Callable[[], object]) -> float:
    device.synchronize()
    begun = time.perf_counter()
    operation()
    device.synchronize()
    return time.perf_counter() - begun


def _evaluation_speed(device: Device, loop: OurLoop | ReferenceLoop) -> float:
    images = loop.evaluate()
    return images / statistics.median(_seconds(device, loop.evaluate) for _ in range(EVALUATIONS - 1))


def in_words(error: Exception) -> str:
    """What went wrong, in a line: torch's messages go on for pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {' '.join(lines[:2])}"
    return text if len(text) <= ERROR_LENGTH else text[:ERROR_LENGTH] + " …"


if __name__ == "__main__":
    sys.exit(answer_parent(work))
