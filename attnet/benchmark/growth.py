"""How the cost of training grows: with images, batch size, model size and ranks, each with a fitted straight line.

Rounds are interleaved: every point of a curve is measured once before any is measured again, so that a change in
the machine's speed meets all points.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import TypeVar

from attnet.base import device as devices
from attnet.base.errors import ConfigError
from attnet.base.host import usable_cores
from attnet.benchmark.epoch import COMMON, config_of, epoch_config, side_worker, whole_steps
from attnet.benchmark.ranks import short_run
from attnet.benchmark.worker import Worker, answer_parent, say
from attnet.engine.loop import Trainer
from attnet.engine.plan import make_plan

CURVES = ("images", "memory", "start_up", "ranks")
IMAGES_CPU, IMAGES_ACCELERATOR = (1000, 2000, 4000, 8000), (6250, 12500, 25000, 50000)
BATCHES = (8, 16, 32, 64, 128)
MODELS = ("attention56_tiny", "attention56_cifar", "attention92_cifar", "attention92")
MEMORY_STEPS = 2  # the first makes the optimiser's buffers, so the second holds the most
RANK_STEPS, TESTS_OF_RUN = 25, 100  # of a run on several ranks; speed is that of training, from the sixth step on

Point = TypeVar("Point")
Value = TypeVar("Value")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What this needs besides the common arguments and those of `attnet.benchmark.epoch`; lists have commas."""
    parser.add_argument("--curves", type=_curves, default=CURVES, help=f"default {_words(CURVES)}")
    parser.add_argument("--growth_images", type=_numbers, help=f"default {_words(IMAGES_CPU)} on a CPU; "
                        f"{_words(IMAGES_ACCELERATOR)} on a card")  # fmt: skip
    parser.add_argument("--growth_batches", type=_numbers, default=BATCHES, help=f"default {_words(BATCHES)}")
    parser.add_argument("--growth_models", type=_names, default=MODELS, help=f"default {_words(MODELS)}")
    parser.add_argument("--growth_ranks", type=_numbers, help="default 1,2,4 ... up to the number of cards or cores")


def measure(options: argparse.Namespace) -> dict[str, object]:
    """The curves named in `options.curves`, `options.rounds` of each.

    Args:
        options: those that `attnet.benchmark.epoch.measure` takes, and those of `add_arguments`. `train_images` is
            for start-up and ranks, `reference` not used.
    """
    curves: dict[str, object] = {}
    for name in options.curves:
        curves |= {"images": images, "memory": memory, "start_up": start_up, "ranks": ranks}[name](options)
    return {
        "kind": "growth",
        "what": "cost of training against its size; points of a curve in turn, least-squares lines through medians",
        "model": options.model,
        "batch_size": options.batch_size,
        "amp": options.amp,
        "memory_format": options.memory_format,
        "compile": options.compile,
        **curves,
        "environment": devices.environment(devices.choose(options.device_type)),
        "date": date.today().isoformat(),
    }


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """The straight line of least squares through points: slope, intercept and r2, the share of variance explained.

    `r2` is 1 where all y are the same: nothing is left to explain.

    Raises:
        ConfigError: fewer than two different x, or not one y for each x.
    """
    if len(set(x)) < 2 or len(x) != len(y):
        raise ConfigError(f"x={list(x)}, y={list(y)}: a line needs two different x or more, and a y for each")
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    intercept = mean_y - slope * mean_x
    left = sum((b - intercept - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    total = sum((b - mean_y) ** 2 for b in y)
    return {"slope": slope, "intercept": intercept, "r2": 1 - left / total if total else 1.0}


def curve(x: Sequence[float], y: Sequence[Sequence[float]], **settings: object) -> dict[str, object]:
    """A curve of the result: `y` holds the values of every round for each x; `fit` is None for less than three x."""
    median = [statistics.median(values) for values in y]
    fit = line(x, median) if len(set(x)) > 2 else None
    return {"x": list(x), "y": [list(values) for values in y], "median": median, "fit": fit, **settings}


def in_turn(
    what: str, rounds: int, points: Sequence[Point], once: Callable[[Point, int], Value], words: Callable[[Value], str]
) -> list[list[Value]]:
    """`once(point, round)` for all points, round after round: for each point its values, one a round."""
    values: list[list[Value]] = [[] for _ in points]
    for number, (i, point) in itertools.product(range(rounds), enumerate(points)):
        values[i].append(once(point, number))
        done = f"{number * len(points) + i + 1} of {rounds * len(points)}"
        say(f"growth, {what} {point}, round {number + 1} of {rounds}: {words(values[i][-1])} ({done})")
    return values


# -- the four curves -----------------------------------------------------------------------------------------------


def images(options: argparse.Namespace) -> dict[str, dict]:
    """Seconds of the engine's epoch against training images: "images" with the test, "images_training" without."""
    with side_worker("ours", options) as worker:
        x = sorted({whole_steps(number, options.batch_size, worker.ready) for number in image_counts(options)})
        tests = options.test_images or worker.ready["test_images"]
        rows = in_turn(
            "training images",
            options.rounds,
            x,
            lambda number, seed: worker.ask(train_images=number, test_images=tests, seed=seed),
            lambda row: f"{row['train']:.2f} s of training, {row['test']:.2f} s of testing",
        )
    settings = {"model": options.model, "batch_size": options.batch_size, "test_images": tests}
    whole = [[row["train"] + row["test"] for row in point] for point in rows]
    return {
        "images": curve(x, whole, **settings),
        "images_training": curve(x, [[row["train"] for row in point] for point in rows], **settings),
    }


def image_counts(options: argparse.Namespace) -> Sequence[int]:
    """Those asked for; an accelerator takes more, so that its epochs are long enough to clock."""
    is_accelerator = devices.choose(options.device_type).is_accelerator
    return options.growth_images or (IMAGES_ACCELERATOR if is_accelerator else IMAGES_CPU)


def memory(options: argparse.Namespace) -> dict[str, dict]:
    """Peak memory of training steps against batch size, bytes, each in a fresh process.

    The pictures are the embedded ones whatever the data set: reading a large set would hide the steps' own memory
    where a CPU's is that of the whole process.
    """

    def peak(batch_size: int, _: int) -> int:
        with steps_worker(options, batch_size=batch_size, dataset="shapes", train_images=0, steps=MEMORY_STEPS) as one:
            return one.ready["peak_memory_bytes"]

    x = sorted(set(options.growth_batches))
    y = in_turn("batch size", options.rounds, x, peak, lambda value: f"{value / 1e6:,.0f} MB")
    return {"memory": curve(x, y, model=options.model)}


def start_up(options: argparse.Namespace) -> dict[str, dict]:
    """Seconds from the start of a process to its first finished step, data set read, against parameters."""
    parameters = {}

    def seconds(model: str, _: int) -> float:
        begun = time.perf_counter()
        with steps_worker(options, model=model, steps=1) as one:
            spent = time.perf_counter() - begun
            parameters[model] = one.ready["parameters"]
        return spent

    models = list(dict.fromkeys(options.growth_models))
    y = in_turn("start-up of", options.rounds, models, seconds, lambda value: f"{value:.2f} s")
    found = sorted(zip(parameters.values(), parameters, y, strict=True))
    x, names, y = (list(column) for column in zip(*found, strict=True))
    return {"start_up": curve(x, y, names=names, batch_size=options.batch_size, train_images=options.train_images)}


def ranks(options: argparse.Namespace) -> dict[str, dict]:
    """Images/s of whole runs against ranks: "ranks" at one global batch size, "ranks_per_card" at one batch a card.

    Raises:
        ConfigError: a global batch that some number of ranks cannot share evenly.
        AttnetError: a run failed.
    """
    x = sorted(set(options.growth_ranks or rank_counts(options)))
    if uneven := [count for count in x if options.batch_size % count]:
        raise ConfigError(
            f"batch_size={options.batch_size}: {uneven[0]} ranks cannot share it; give a multiple or other growth_ranks"
        )
    same_batch = [(count, options.batch_size // count) for count in x]
    per_card = [(count, options.batch_size) for count in x if count > 1]
    y = in_turn(
        "(ranks, batch a card)",
        options.rounds,
        same_batch + per_card,
        lambda point, _: images_per_second(options, *point),
        lambda value: f"{value:,.1f} images/s",
    )
    strong, weak = y[: len(x)], y[len(x) :]
    weak = [strong[0], *weak] if x[0] == 1 else weak  # one rank is the same run in both
    together = {"model": options.model, "global_batch_size": options.batch_size}
    found = {"ranks": curve(x, strong, **together, steps=steps_of_run(options, options.batch_size))}
    if per_card:
        steps = [steps_of_run(options, count * options.batch_size) for count in x]
        found["ranks_per_card"] = curve(x, weak, model=options.model, batch_size=options.batch_size, steps=steps)
    return found


def rank_counts(options: argparse.Namespace) -> list[int]:
    """1, 2, 4 ... up to the cards that are here, or the cores of this process, of those that share the batch evenly."""
    device = devices.choose(options.device_type)
    most = devices.count(device.kind) if device.is_accelerator else usable_cores()
    doubled = (2**power for power in range(most.bit_length()))
    return [count for count in doubled if options.batch_size % count == 0]


def steps_of_run(options: argparse.Namespace, images_a_step: int) -> int:
    """25, or fewer where `train_images` are not enough."""
    return min(RANK_STEPS, max(1, options.train_images // images_a_step)) if options.train_images else RANK_STEPS


def images_per_second(options: argparse.Namespace, count: int, batch_size: int) -> float:
    """FPS, as the engine counts it, of a run of `attnet train` on `count` ranks."""
    run = short_run(
        model=options.model,
        train_batch_size=batch_size,
        device_num=count,
        train_images=batch_size * count * steps_of_run(options, batch_size * count),
        test_images=TESTS_OF_RUN,
        max_restarts=0,
        progress="none",
        **config_of(options),
    )
    return run["metrics"]["fps"]


# -- the process that takes a few steps ----------------------------------------------------------------------------


def steps_worker(options: argparse.Namespace, steps: int, **changes: object) -> Worker:
    """A fresh process whose `ready` line tells what it found after `steps` steps."""
    names = ("model", "batch_size", "train_images", *COMMON)
    job = {name: getattr(options, name) for name in names}
    return Worker("attnet.benchmark.growth", job | {"steps": steps} | changes)


def work(job: argparse.Namespace) -> Iterator[dict]:
    """Trainable parameters, and the peak memory after the first `job.steps` steps, all on the same batch."""
    plan = make_plan(epoch_config(job, train_images=job.train_images))
    with plan.device.working():
        trainer = Trainer(plan)
        batch = next(trainer.train_batches.epoch(0))
        trainer.train_step.train()
        for _ in range(job.steps):
            trainer.train_step(batch, trainer.config.lr)
        plan.device.synchronize()
        parameters = sum(p.numel() for p in trainer.model.parameters())
        yield {"parameters": parameters, "peak_memory_bytes": plan.device.memory().peak}


def _names(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _numbers(text: str) -> list[int]:
    numbers = [int(word) for word in _names(text)]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: numbers from 1 on, separated by commas, are needed")
    return numbers


def _curves(text: str) -> list[str]:
    names = _names(text)
    if unknown := [name for name in names if name not in CURVES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is unknown: choose from {_words(CURVES)}")
    return names


def _words(values: Sequence[object]) -> str:
    return ",".join(map(str, values))


if __name__ == "__main__":
    sys.exit(answer_parent(work))
