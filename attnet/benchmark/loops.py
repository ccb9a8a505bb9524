"""Training steps to measure, and the process that takes them when told to."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from attnet.base.device import Device
from attnet.base.errors import ConfigError
from attnet.benchmark.worker import Worker, answer_parent
from attnet.data.splits import Split
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan
from attnet.model.variants import variants

PARTS = ("data", "forward", "backward", "optimiser")
LR = 0.01  # small enough that the loss stays finite, without which loss scaling would leave out updates
# Images of CIFAR-10 on an accelerator; fewer on a CPU, where the memory of the process is what is measured.
TRAIN_IMAGES, TEST_IMAGES = {False: 2_000, True: 50_000}, {False: 500, True: 10_000}
EVALUATIONS = 3  # the first is not counted


@dataclass(frozen=True)
class Setting:
    """One configuration of a training step; `batch_size` is that of a card."""

    model: str
    batch_size: int
    amp: str = "O0"
    channels_last: bool = True
    compile: str = "off"
    device_num: int = 1

    @classmethod
    def of(cls, row: dict[str, object]) -> Setting:
        """The configuration of a row of a result."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if name in row})

    @classmethod
    def asked(cls, options: argparse.Namespace, **changes: object) -> Setting:
        """The configuration that the command line's single values say, but for what is given here."""
        of = {name: getattr(options, name) for name in ("model", "batch_size", "amp", "compile")}
        return cls(**of | {"channels_last": options.memory_format == "channels_last"} | changes)

    def to_dict(self) -> dict[str, object]:
        """Name -> value, as in a row of a result."""
        return asdict(self)

    def __str__(self) -> str:
        words = [self.model, f"batch {self.batch_size}", self.amp]
        words += ["channels-last" if self.channels_last else "contiguous"]
        words += {"off": [], "on": ["compiled"], "graphs": ["graphs"], "both": ["compiled, graphs"]}[self.compile]
        words += [f"{self.device_num} cards"] if self.device_num > 1 else []
        return ", ".join(words)


class OurLoop:
    """The engine's own steps: batch making, augmentation, network, loss, optimiser, as a run takes them."""

    def __init__(self, plan: Plan) -> None:
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


def step_plan(setting: Setting, device_type: str, test_images: int = 0) -> Plan:
    """A plan of recipe `seed` over noise: what the pictures show is nothing to the speed, their number and size is.

    `test_images` of 0 stands for as many as CIFAR-10 has on an accelerator, 500 on a CPU.

    Raises:
        ConfigError: channels_last on a device that takes contiguous tensors alone.
    """
    given = {name: value for name, value in setting.to_dict().items() if name not in ("batch_size", "device_num")}
    config = TrainConfig(
        mode="rehearsal", dataset="shapes", device_type=device_type, train_batch_size=setting.batch_size, **given
    )
    plan = make_plan(config)
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


def steps_worker(setting: Setting, device_type: str, *, warm_up: int = 0, test_images: int = 0) -> Worker:
    """A process that takes steps of one configuration, ready when it has taken the first and `warm_up` more.

    It answers as `answers` says.

    Raises:
        AttnetError: in place of an answer, whatever went wrong in the process.
    """
    job = {"setting": setting.to_dict(), "device_type": device_type, "warm_up": warm_up, "test_images": test_images}
    return Worker("-m", "attnet.benchmark.loops", job=job)


def work(job: argparse.Namespace) -> Iterator[dict]:
    """The process of `steps_worker`."""
    plan = step_plan(Setting.of(job.setting), job.device_type, job.test_images)
    with plan.device.working():
        yield from answers(plan.device, lambda: OurLoop(plan), job.warm_up)


def answers(device: Device, make_loop: Callable[[], Any], warm_up: int) -> Iterator[dict]:
    """What a process says of the loop that it makes: what is ready, then `{"answer": ...}` to each line that it reads.

    The loop is like `OurLoop`; one that has `step` alone can be asked for "step", "operators" and "peak".
    `first_step_seconds` are those of making the loop and of its first step, compiling included. To "step" the answer
    is the seconds of a whole step; to "parts" those of each part of one, to "operators" those of each operator in
    one; to "evaluation" the images tested a second; to "peak" the peak memory in bytes so far.
    """
    begun = time.perf_counter()
    loop = make_loop()
    loop.step()
    device.synchronize()
    first = time.perf_counter() - begun
    for _ in range(warm_up):
        loop.step()
    known: dict[str, Callable[[], object]] = {
        "step": lambda: seconds_of(device, loop.step),
        "parts": lambda: {part: seconds_of(device, getattr(loop, part)) for part in PARTS},
        "operators": lambda: operator_seconds(device, loop.step),
        "evaluation": lambda: _evaluation_speed(device, loop),
        "peak": lambda: device.memory().peak,
    }
    yield {"first_step_seconds": first}
    for line in sys.stdin:
        yield {"answer": known[json.loads(line)["what"]]()}


def seconds_of(device: Device, operation: Callable[[], object]) -> float:
    """Seconds of `operation` until the device is done with it."""
    device.synchronize()
    begun = time.perf_counter()
    operation()
    device.synchronize()
    return time.perf_counter() - begun


def _evaluation_speed(device: Device, loop: OurLoop) -> float:
    images = loop.evaluate()
    return images / statistics.median(seconds_of(device, loop.evaluate) for _ in range(EVALUATIONS - 1))


class OperatorClock(TorchDispatchMode):
    """Adds up each operator's seconds, waiting for the device after it; the waits are what profiling costs."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.seconds: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begun = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        self.device.synchronize()
        self.seconds[func.overloadpacket.__name__] += time.perf_counter() - begun
        return result


def operator_seconds(device: Device, step: Callable[[], object]) -> dict[str, float]:
    """Seconds of each operator in one call of `step`; compiled code shows as what it calls, or not at all."""
    device.synchronize()
    with OperatorClock(device) as clock:
        step()
    return dict(clock.seconds)


if __name__ == "__main__":
    sys.exit(answer_parent(work))
