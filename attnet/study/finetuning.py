"""What pretraining is worth on few images: a network trained on `shapes`, fine-tuned to an image folder of 11 classes.

The folder is the example of `attnet folders PATH --example`: ten kinds as in `shapes`, drawn anew, and one that the
network has never seen.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnet.base.errors import AttnetError
from attnet.base.files.paths import relative_to_root, resolve_path
from attnet.base.intervals import over_seeds
from attnet.data.folder import write_example
from attnet.data.shapes import ARROW
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan
from attnet.engine.result import Result
from attnet.study.questions import Case, Study, pick
from attnet.study.sweeps.sweep import Sweep

PRETRAINING = {"mode": "rehearsal", "dataset": "shapes"}
BUDGET = {
    "mode": "rehearsal",
    "dataset": "folder",
    "model": "attention56_tiny",
    "train_images": 110,
    "test_images": 0,
    "train_batch_size": 11,
    "total_epochs": 10,
}
SCRATCH, TUNED, FROZEN = "from scratch", "fine-tuned", "body frozen"


def _cases(base: TrainConfig, size: str, only: Sequence[str]) -> list[Case]:
    begun = {"is_pretrain": True}
    rows = [
        Case(SCRATCH, {}, what="all weights drawn at random, rate 0.1"),
        Case(TUNED, begun | {"lr": 0.01}, SCRATCH, "all weights learn, rate 0.01"),
        Case(
            "layer decay",
            begun | {"layer_decay": 0.5},
            SCRATCH,
            "rate 0.1 for the head, half of it for the part below, and so on",
        ),
        Case(FROZEN, begun | {"freeze": "body"}, SCRATCH, "the new head alone learns, rate 0.1"),
    ]
    return pick(rows, only)


def _pretraining(folder: str) -> Sweep:
    return Sweep({"pretraining": TrainConfig(**PRETRAINING)}, (0,), folder)


def _example(folder: str) -> Path:
    return resolve_path(folder) / "example"


def _prepare(folder: str) -> None:
    """Train the weights and write the example, where they are not there yet.

    Raises:
        AttnetError: the pretraining failed.
    """
    [pretraining] = _pretraining(folder).run()
    if pretraining["failures"]:
        raise AttnetError(f"pretraining: {pretraining['failures'][0]}")
    if not _example(folder).exists():
        write_example(_example(folder))


def _prepared(folder: str) -> dict[str, object]:
    weights = _pretraining(folder).runs()[0].folder
    return {"data_path": relative_to_root(_example(folder)), "pretrained": relative_to_root(weights)}


def _new_class(results: Mapping[int, Result]) -> dict[str, object]:
    """Top-1, per cent, of the class alone which shapes lacks."""
    return {"new_class": over_seeds([result.per_class[ARROW.name] for result in results.values()], within=(0, 100))}


def step_costs(configs: Mapping[str, TrainConfig], rounds: int = 9) -> dict[str, float]:
    """Processor seconds of a training step of each configuration on the CPU, the median of `rounds` taken in turn."""
    trainers = {name: Trainer(make_plan(config.replace(device_type="CPU"))) for name, config in configs.items()}
    micro_batches = {name: next(trainer.train_batches.epoch(0)) for name, trainer in trainers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for trainer in trainers.values():
        trainer.train_step.train()
    for _ in range(rounds + 1):
        for name, trainer in trainers.items():
            begun = time.process_time()
            trainer.train_step(micro_batches[name], 0.01)
            seconds[name].append(time.process_time() - begun)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first ones set up


def _finish(configs: Mapping[str, TrainConfig]) -> dict[str, object]:
    return {"step_seconds": step_costs({name: configs[name] for name in (TUNED, FROZEN) if name in configs})}


FINETUNE = Study(
    "finetune",
    "What is pretraining worth on few images?",
    "The gain over from scratch, and the class alone that the weights have never seen. That each way of fine-tuning "
    "learns at a rate of its own is our choice, not tuned.",
    _cases,
    {size: BUDGET for size in ("rehearsal", "full")},
    prepare=_prepare,
    prepared=_prepared,
    measure=_new_class,
    finish=_finish,
)
