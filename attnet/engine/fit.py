"""From a configuration to a result: `fit` plans, opens the run folder, trains, on one card or as one of many."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from attnet.base.errors import ConfigError, in_sentences, say
from attnet.base.processes import TrainingInterrupted
from attnet.base.progress import make_progress, unsaved_end
from attnet.base.watching import Draw
from attnet.engine.distributed import World, is_kept_by_torchrun, is_watched, redirect_output
from attnet.engine.estimate import estimate
from attnet.engine.hooks.hook import Hooks, as_hook
from attnet.engine.hooks.names import check_log
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, make_plan
from attnet.engine.recipes import preset_of
from attnet.engine.result import Result
from attnet.engine.run_folder import (
    CONFIG,
    RunFolder,
    check_same_run,
    checkpoint,
    new_run,
    resumable,
    resume_lines,
    resuming,
)

if TYPE_CHECKING:
    from attnet.engine.hooks.hook import Pictures


def fit(
    config: TrainConfig | Plan,
    draw: Callable[[TrainConfig, Plan], Draw] | None = None,
    *,
    log: object = None,
    pictures: Callable[[Plan], Pictures] | None = None,
) -> Result:
    """Train (or, with is_train=False, only evaluate) as `config` says.

    Args:
        config: the parameters, or the plan that `attnet.make_plan` made of them: then nothing is read or said twice.
        draw: gives who makes a picture of it, which a notebook shows while it grows.
        log: is told of every epoch, besides what the parameter `log` names: a function that takes an epoch's row, or
            what has any of the methods of `attnet.engine.hooks.hook.Hook`.
        pictures: gives who draws masks and confusion for such a log.

    Returns:
        The result; the run folder `Result.output_dir` holds config.json, metrics.jsonl, last.pt, best.pt,
        log.txt and result.json.

    Raises:
        AttnetError: before anything is written, when configuration, data or weights do not work.
        TrainingInterrupted: after Ctrl-C or SIGTERM; saved, and the message says how to continue.
    """
    world, shown = World.from_environment(), isinstance(config, Plan)
    plan = config if shown else plan_run(world.fit_to(config), timed=world.is_main)
    world.fit_to(plan.config)
    hooks = [as_hook(each) for each in (plan.config.log, log) if each] if world.is_main else []
    with plan.device.working(), world.joined(plan.device):
        trainer = Trainer(plan, world)  # before the folder: what cannot start leaves nothing behind
        try:
            with _folder_of_all(plan, world) as folder:
                kind, drawer = (plan.config.progress, draw) if world.is_main else ("none", None)
                progress = make_progress(kind, folder.log, drawer and drawer(plan.config, plan))
                for line in plan.describe().splitlines():
                    (folder.log if shown else progress.emit)(line)
                if note := unsaved_end():
                    progress.emit(note)
                told = Hooks(hooks, plan, pictures, progress.emit)
                return trainer.run(folder, progress, plan.resumed is not None, told)
        finally:
            trainer.train_step.let_go()


def plan_run(config: TrainConfig, timed: bool = True) -> Plan:
    """The plan of what `fit` will do: with `resume` what is left of the interrupted run, as it was begun.

    Args:
        config: the parameters.
        timed: find out how long it will take, unless that is short: some seconds.

    Raises:
        AttnetError: as `make_plan` and `resuming`, and where a resumed run was begun with other parameters.
    """
    check_log(config.log)
    asked, (config, resumed) = config, resuming(config)
    plan = make_plan(config)
    if resumed is not None:
        begun = TrainConfig.load(resumed / CONFIG)
        check_same_run(begun, plan.config)
        state, _ = checkpoint(resumed, plan.config.device_num * plan.config.accumulate)
        position = (0, 0) if state is None else (state["epoch"], state["step"])
        usual = preset_of(begun, begun.mode, plan.device)
        left_out = ()
        if begun.log and not plan.config.log:
            left_out = (f"log={begun.log}: not called, since code is not run because {CONFIG} names it; give it anew",)
            begun = begun.replace(log="")
        lines = (*resume_lines(resumed, begun, asked, position, usual), *left_out)
        plan = dataclasses.replace(plan, resumed=resumed, position=position, choices=(*lines, *plan.choices))
    return dataclasses.replace(plan, time=estimate(plan)) if timed else plan


@contextlib.contextmanager
def _folder_of_all(plan: Plan, world: World) -> Iterator[RunFolder]:
    """The run folder, which rank 0 holds; the other ranks only read it. A refusal stops all ranks alike."""
    folder, answer = None, None
    if world.is_main:
        try:
            folder = new_run(plan.config) if plan.resumed is None else RunFolder(resumable(plan.resumed))
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


@in_sentences
def main(arguments: Sequence[str] | None = None, pictures: Callable[[Plan], Pictures] | None = None) -> int:
    """`attnet train`: every parameter of `TrainConfig` is a flag; `pictures` as of `fit`.

    With `--device_num` above 1 it starts itself through torchrun, a process a card; under torchrun it is one of them.
    Exit status 0, 2 for a mistake in the parameters or data, 128 + signal.
    """
    redirect_output()
    world = World.from_environment()
    given = TrainConfig.parse_given(arguments, description="Train a residual attention network.")
    config = TrainConfig(**given)
    if config.device_num > 1 and world.size == 1:
        from attnet.engine.launching.launch import launch_as_said
        from attnet.engine.launching.slurm import on_this_machine

        config = config if given.get("nnodes") == "1" else on_this_machine(config)
        result = launch_as_said(config)
    else:
        try:
            result = fit(config, pictures=pictures)
        except TrainingInterrupted as stop:
            if not (stop.was_asked and is_kept_by_torchrun()):
                raise
            say(f"attnet: {stop}", sys.stderr)
            return 0  # for torchrun anything else were a failure, and it would begin again
    if world.is_main and config.node_rank == 0 and not is_watched():  # else `attnet.launch` shows the result
        fps = "" if result.fps is None else f", {result.fps:,.0f} images/s"
        say(f"Top-1 {result.top1:.2f} % ({result.kind}), {result.epochs} epochs{fps}")
        say(f"{result.model} on {result.dataset}, {result.amp}, {result.device}, batch {result.batch_size}")
        say(f"run folder: {result.output_dir}")
    return 0
