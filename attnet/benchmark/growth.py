"""How the cost of training grows: with images, batch size, model size and ranks, each with a fitted straight line.

Rounds are interleaved: every point of a curve is measured once before any is measured again, so that a change in
the machine's speed meets all points. A new curve is a function here, and its line in CURVES.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from attnet.base import device as devices
from attnet.base.errors import ConfigError
from attnet.base.host import usable_cores
from attnet.benchmark.counts import counts_of
from attnet.benchmark.epoch import config_of, side_worker, whole_steps
from attnet.benchmark.loops import Setting, steps_worker
from attnet.benchmark.worker import say, short_run

WHAT = "cost of training against its size; points of a curve in turn, least-squares lines through medians"
IMAGES_CPU, IMAGES_ACCELERATOR = (1000, 2000, 4000, 8000), (6250, 12500, 25000, 50000)
BATCHES = (8, 16, 32, 64, 128)
MODELS = ("attention56_tiny", "attention56_cifar", "attention92_cifar", "attention92")
RANK_STEPS, TESTS_OF_RUN = 25, 100  # of a run on several ranks; speed is that of training, from the sixth step on

Curves = dict[str, dict[str, object]]
Point = TypeVar("Point")
Value = TypeVar("Value")


def measure(options: argparse.Namespace) -> Curves:
    """The curves named in `options.curves`, `options.rounds` of each.

    Args:
        options: those that `attnet.benchmark.epoch.measure` takes, curves, growth_images, growth_batches,
            growth_models and growth_ranks. `train_images` is for ranks.

    Raises:
        ConfigError: an unknown curve, or sizes that cannot be measured.
        AttnetError: a process failed.
    """
    if unknown := [name for name in options.curves if name not in CURVES]:
        raise ConfigError(f"curves={unknown[0]!r}: choose from {', '.join(CURVES)}")
    found: Curves = {}
    for name in options.curves:
        found |= CURVES[name](options)
    return found


def curve(x: Sequence[float], y: Sequence[Sequence[float]], **settings: object) -> dict[str, object]:
    """A curve of the result: `y` holds the values of every round for each x; `fit` is None for less than three x."""
    median = [statistics.median(values) for values in y]
    fit = line(x, median) if len(set(x)) > 2 else None
    return {"x": list(x), "y": [list(values) for values in y], "median": median, "fit": fit, **settings}


def line(x: Sequence[float], y: Sequence[float]) -> dict[str, float]:
    """The straight line of least squares through points: slope, intercept and r2, the share of variance explained.

    `r2` is 1 where all y are the same: nothing is left to explain.
    """
    slope, intercept = statistics.linear_regression(x, y)
    r2 = statistics.correlation(x, y) ** 2 if len(set(y)) > 1 else 1.0
    return {"slope": slope, "intercept": intercept, "r2": r2}


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


def images(options: argparse.Namespace) -> Curves:
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


def memory(options: argparse.Namespace) -> Curves:
    """Peak memory of training steps against batch size, bytes, each in a fresh process.

    Two steps: the first makes the optimiser's buffers, so the second holds the most.
    """

    def peak(batch_size: int, _: int) -> int:
        setting = Setting.asked(options, batch_size=batch_size)
        with steps_worker(setting, options.device_type, warm_up=1, test_images=1) as worker:
            return worker.ask(what="peak")["answer"]

    x = sorted(set(options.growth_batches))
    y = in_turn("batch size", options.rounds, x, peak, lambda value: f"{value / 1e6:,.0f} MB")
    return {"memory": curve(x, y, model=options.model)}


def start_up(options: argparse.Namespace) -> Curves:
    """Seconds from the start of a process to its first finished step, on pictures that it makes, against parameters."""

    def seconds(model: str, _: int) -> float:
        begun = time.perf_counter()
        with steps_worker(Setting.asked(options, model=model), options.device_type, test_images=1):
            return time.perf_counter() - begun

    models = sorted(set(options.growth_models), key=lambda model: counts_of(model).parameters)
    y = in_turn("start-up of", options.rounds, models, seconds, lambda value: f"{value:.2f} s")
    x = [counts_of(model).parameters for model in models]
    return {"start_up": curve(x, y, names=models, batch_size=options.batch_size)}


def ranks(options: argparse.Namespace) -> Curves:
    """Images/s of whole runs, as the engine counts them, against ranks that share one global batch.

    Raises:
        ConfigError: a global batch that some number of ranks cannot share evenly.
        AttnetError: a run failed.
    """
    x = sorted(set(options.growth_ranks or rank_counts(options)))
    if uneven := [count for count in x if options.batch_size % count]:
        raise ConfigError(
            f"batch_size={options.batch_size}: {uneven[0]} ranks cannot share it; give a multiple or other growth_ranks"
        )
    enough = options.train_images // options.batch_size if options.train_images else RANK_STEPS
    steps = max(1, min(RANK_STEPS, enough))

    def images_per_second(count: int, _: int) -> float:
        run = short_run(
            train_batch_size=options.batch_size // count,
            device_num=count,
            train_images=options.batch_size * steps,
            test_images=TESTS_OF_RUN,
            **config_of(options),
        )
        return run["metrics"]["fps"]

    y = in_turn("ranks", options.rounds, x, images_per_second, lambda value: f"{value:,.1f} images/s")
    return {"ranks": curve(x, y, model=options.model, global_batch_size=options.batch_size, steps=steps)}


def rank_counts(options: argparse.Namespace) -> list[int]:
    """1, 2, 4 ... up to the cards that are here, or the cores of this process, of those that share the batch evenly."""
    device = devices.choose(options.device_type)
    most = devices.count(device.kind) if device.is_accelerator else usable_cores()
    doubled = (2**power for power in range(most.bit_length()))
    return [count for count in doubled if options.batch_size % count == 0]


CURVES: dict[str, Callable[[argparse.Namespace], Curves]] = {
    "images": images,
    "memory": memory,
    "start_up": start_up,
    "ranks": ranks,
}
