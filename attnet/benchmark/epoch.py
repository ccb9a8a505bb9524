"""A whole epoch, training and then testing: our engine against a plain loop on the same images.

The plain loop is the way of the reference repository: a `DataLoader` with worker processes over PIL images, three
transforms an image, contiguous float32, torch's SGD, tests of 20 images. It trains our network, so that only the loop
differs. Two things favour it: it tests without recording gradients, and keeps no tallies by class.

Counted on both sides: making the batches (the plain loop starts its worker processes anew each epoch), every step,
every test image. On neither side: starting the process, reading the data set, building and compiling the network, a
short epoch to warm up, writing weights. Both sides take the same whole steps, and train on from round to round.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from attnet.base.device import Device
from attnet.base.errors import ConfigError
from attnet.base.progress import Progress
from attnet.benchmark.plain import PlainLoop
from attnet.benchmark.steps import spread
from attnet.benchmark.worker import Worker, answer_parent, say
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan
from attnet.engine.run_folder import RunFolder

WHAT = (
    "an epoch of training and testing: our engine beside a plain loop around the same network, in turn, each in a "
    "process of its own"
)
SIDES = ("ours", "plain")
WARM_UP_STEPS, WARM_UP_TESTS = 3, 500
# Of the options: what a worker process is told.
TOLD = ("model", "batch_size", "test_images", "workers", "amp", "memory_format", "compile", "device_type", "data_path",
        "dataset")  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Epochs of both sides in turn, `options.rounds` of each; `ratio` is the plain loop's seconds over ours.

    Args:
        options: those of TOLD (workers: the plain loop's), rounds, and train_images (0: all).

    Raises:
        ConfigError: more images than there are, or fewer than a batch.
    """
    found: dict[str, list[dict]] = {side: [] for side in SIDES}
    with contextlib.ExitStack() as stack:
        workers = {side: stack.enter_context(side_worker(side, options)) for side in SIDES}
        sizes = workers["ours"].ready
        asked = {
            "train_images": whole_steps(options.train_images or sizes["train_images"], options.batch_size, sizes),
            "test_images": options.test_images or sizes["test_images"],
        }
        for number in range(options.rounds):
            for side, worker in workers.items():
                found[side].append(worker.ask(**asked, seed=number))
                seconds = found[side][-1]["train"] + found[side][-1]["test"]
                say(f"epoch: round {number + 1} of {options.rounds}, {side}: {seconds:.2f} s")
    seconds = {side: [row["train"] + row["test"] for row in rows] for side, rows in found.items()}
    return {
        **asked,
        "workers": options.workers,
        "seconds": seconds,
        "parts": {side: {part: [row[part] for row in found[side]] for part in ("train", "test")} for side in SIDES},
        "ratio": spread([plain / ours for ours, plain in zip(seconds["ours"], seconds["plain"], strict=True)]),
        "top1": {side: [row["top1"] for row in found[side]] for side in SIDES},
    }


def whole_steps(images: int, batch_size: int, sizes: dict[str, int]) -> int:
    """`images` without those that would not fill a step, which our engine leaves out.

    Raises:
        ConfigError: not even one step, or more images than the data set has.
    """
    if not batch_size <= images <= sizes["train_images"]:
        raise ConfigError(
            f"train_images={images}: give from {batch_size} (batch_size) to {sizes['train_images']} (the data set)"
        )
    return images - images % batch_size


# -- processes -----------------------------------------------------------------------------------------------------


def side_worker(side: str, options: argparse.Namespace) -> Worker:
    """A process that runs epochs of "ours" or "plain"; `ask(train_images, test_images, seed)` gives its seconds."""
    told = {name: getattr(options, name) for name in TOLD}
    return Worker("-m", "attnet.benchmark.epoch", job=told | {"side": side})


def work(job: argparse.Namespace) -> Iterator[dict]:
    """The sizes of the data set after a short epoch to warm up, then an epoch for each line of standard input."""
    plan = make_plan(epoch_config(job))
    sizes = {"train_images": len(plan.dataset.train), "test_images": len(plan.dataset.test)}
    with plan.device.working() if job.side == "ours" else contextlib.nullcontext():
        side = Engine(plan) if job.side == "ours" else PlainLoop(plan, job.workers)
        tests = min(WARM_UP_TESTS, job.test_images or WARM_UP_TESTS, sizes["test_images"])
        steps = min(WARM_UP_STEPS, sizes["train_images"] // job.batch_size)
        side.epoch(limited(plan, steps * job.batch_size, tests, seed=0))
        yield sizes
        for line in sys.stdin:
            yield side.epoch(limited(plan, **json.loads(line)))


def config_of(options: argparse.Namespace) -> dict[str, object]:
    """The parameters of a run that follow from the options alone."""
    names = ("model", "amp", "compile", "device_type", "data_path", "dataset")
    channels_last = options.memory_format == "channels_last"
    return {name: getattr(options, name) for name in names} | {"channels_last": channels_last}


def epoch_config(job: argparse.Namespace) -> TrainConfig:
    """One epoch of recipe `seed` over all images, as the plain loop trains."""
    return TrainConfig(
        mode="full",
        train_batch_size=job.batch_size,
        total_epochs=1,
        train_images=0,
        checkpoint_seconds=0,
        progress="none",
        **config_of(job),
    )


def limited(plan: Plan, train_images: int, test_images: int, seed: int) -> Plan:
    """The plan with a class-balanced subset of so many images, and another seed."""
    train, test = plan.dataset.train.subset(train_images), plan.dataset.test.subset(test_images)
    dataset = dataclasses.replace(plan.dataset, train=train, test=test)
    return dataclasses.replace(plan, dataset=dataset, config=plan.config.replace(seed=seed))


# -- our side ------------------------------------------------------------------------------------------------------


class Clock(Progress):
    """A progress display that shows nothing and clocks the training part of an epoch."""

    def __init__(self, device: Device) -> None:
        super().__init__(lambda line: None)
        self.device = device

    def begin_epoch(self, epoch: int, step: int) -> None:
        super().begin_epoch(epoch, step)
        self.train_begun = time.perf_counter()

    def step(self, done: int, loss: Tensor) -> None:
        super().step(done, loss)
        if done == self.steps:  # the engine waits for the device here, too
            self.device.synchronize()
            self.train_seconds = time.perf_counter() - self.train_begun


class Engine:
    """Our side: a `Trainer`, which keeps its weights and what is compiled from epoch to epoch."""

    def __init__(self, plan: Plan) -> None:
        self.trainer = Trainer(plan)

    def epoch(self, plan: Plan) -> dict[str, float]:
        """Seconds of the engine's own epoch on the plan's images ("train", "test") and its Top-1, per cent."""
        trainer, clock = self.trainer, Clock(plan.device)
        trainer.train_batches, trainer.test_batches = plan.train_batches(), plan.test_batches()
        trainer.epoch, trainer.rows = 0, []  # a run of one epoch, none of it done
        with tempfile.TemporaryDirectory() as path, RunFolder(Path(path)) as folder:
            trainer.run(folder, clock)
        (row,) = trainer.rows
        return {"train": clock.train_seconds, "test": row["seconds"] - clock.train_seconds, "top1": row["top1"]}


if __name__ == "__main__":
    sys.exit(answer_parent(work))
