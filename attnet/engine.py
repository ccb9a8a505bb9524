"""From a configuration to a result: `fit` plans, opens the run folder, trains, on one card or as one of many."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from attnet import checkpoint
from attnet.checkpoint import RunFolder
from attnet.config import TrainConfig
from attnet.distributed import World
from attnet.errors import ConfigError
from attnet.plan import make_plan
from attnet.progress import make_progress
from attnet.result import Result
from attnet.trainer import Trainer


def fit(config: TrainConfig) -> Result:
    """Train (or, with is_train=False, only evaluate) as `config` says.

    Returns:
        The result; the run folder `Result.output_dir` holds config.json, metrics.jsonl, last.pt, best.pt,
        log.txt and result.json.

    Raises:
        AttnetError: before anything is written, when configuration, data or weights do not work.
        TrainingInterrupted: after Ctrl-C or SIGTERM; saved, and the message says how to continue.
    """
    world = World.from_environment()
    config = world.fit_to(config)
    resumed = checkpoint.run_to_resume(config)
    if resumed is None:
        plan = make_plan(config)
    else:
        stored = TrainConfig.load(resumed / "config.json")
        plan = make_plan(checkpoint.inherit(stored, config))
        checkpoint.check_same_run(stored, plan.config)
    with plan.device.working(), world.joined(plan.device):
        trainer = Trainer(plan, world)  # before the folder: what cannot start leaves nothing behind
        try:
            with _folder_of_all(plan.config, resumed, world) as folder:
                progress = make_progress(plan.config.progress if world.is_main else "none", folder.log)
                return trainer.run(folder, progress, resumed is not None)
        finally:
            trainer.train_step.let_go()


@contextlib.contextmanager
def _folder_of_all(config: TrainConfig, resumed: Path | None, world: World) -> Iterator[RunFolder]:
    """The run folder, which rank 0 holds; the other ranks only read it. A refusal stops all ranks alike."""
    folder, answer = None, None
    if world.is_main:
        try:
            folder = checkpoint.new_run(config) if resumed is None else RunFolder(resumed)
            answer = folder.path
        except ConfigError as error:
            answer = error
    answer = world.broadcast(answer)
    if isinstance(answer, ConfigError):
        raise answer
    if folder is None:
        yield RunFolder(answer, held=False)
        return
    with folder:
        yield folder
