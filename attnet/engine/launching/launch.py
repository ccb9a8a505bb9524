"""Training on several cards from a notebook cell or a shell: torchrun started, watched, streamed and ended.

    result = attnet.launch(attnet.TrainConfig(device_num=8, …))
    attnet train --device_num 8 …

Nothing is forked, so it works from a kernel that has used its cards already. A launcher of another kind is a file
beside `torchrun.py`, and its line in LAUNCHERS.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from attnet.base import device as devices
from attnet.base.errors import AttnetError, ConfigError, say
from attnet.base.files.atomic import write_text
from attnet.base.files.opening import append_to, open_plain, own_folder
from attnet.base.files.outputs import writing
from attnet.base.files.paths import relative_to_root, resolve_path
from attnet.base.json_files import read_lines
from attnet.base.processes import STOPPED, StopSignal, TrainingInterrupted, end, how_it_ended, start
from attnet.base.progress import LiveProgress, Progress, make_progress
from attnet.base.watching import Draw
from attnet.base.words import duration
from attnet.engine.distributed import LAUNCHER, LOG_DIR, of_another_job, spoken_of
from attnet.engine.hooks.names import check_log
from attnet.engine.launching import slurm
from attnet.engine.launching.torchrun import Torchrun
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, decide
from attnet.engine.result import ROW, Result
from attnet.engine.run_folder import CLAIM, CONFIG, LAST, METRICS, PREVIOUS, STEP, is_finished, new_run, resuming
from attnet.model.variants import build_model
from attnet.model.weights.loading import load_weights
from attnet.model.weights.opened import Weights

if TYPE_CHECKING:
    from torch import nn

POLL = 0.2  # seconds between looks at the log
GRACE = 45.0  # seconds that ranks have to save and end; torchrun itself allows 30
SHOWN_LINES = 15


class LaunchError(AttnetError):
    """A rank failed for good; the message holds its last lines and where its log lies."""


LAUNCHERS: dict[str, Callable[[TrainConfig], Torchrun]] = {"torchrun": Torchrun}


def launch(
    config: TrainConfig | Plan,
    draw: Callable[[TrainConfig, Plan | None], Draw] | None = None,
    launcher: str = "torchrun",
) -> Result:
    """Train with `device_num` processes, one a card; rank 0's lines appear here as they come.

    Under srun the machines are those of Slurm's step, unless nnodes and dist_url say otherwise. Each rank's output is
    kept in `logs/rank<k>.log` of the run folder. A rank that dies is brought back from the last checkpoint up to
    `max_restarts` times. Interrupting saves the run and ends every process.

    Args:
        config: the parameters, or the plan that `attnet.make_plan` made of them: then data are not read again here.
        draw: as of `fit`; it gets the plan, for this process's CPU, only where that is what is launched.
        launcher: a name of LAUNCHERS.

    Returns:
        The result, as `attnet.fit`.

    Raises:
        ConfigError, DataError: before anything is started.
        LaunchError: with the last lines of the rank that failed.
        TrainingInterrupted: after Ctrl-C or SIGTERM; saved, and the message says how to continue.
    """
    if isinstance(config, Plan):
        on_this = {name: slurm.on_this_machine(getattr(config, name)) for name in ("config", "asked")}
        config = dataclasses.replace(config, **on_this)
    else:
        config = slurm.on_this_machine(config)
    return launch_as_said(config, draw, launcher)


def launch_as_said(
    config: TrainConfig | Plan,
    draw: Callable[[TrainConfig, Plan | None], Draw] | None = None,
    launcher: str = "torchrun",
) -> Result:
    """`launch` with the machines that `config` names, whatever Slurm says."""
    plan = None
    if isinstance(config, Plan):
        plan = dataclasses.replace(config, device=devices.choose("CPU"))  # cards are the ranks'
        asked, chosen, device, folder = config.asked, config.config, config.device, config.resumed
    else:
        asked, folder = resuming(config)
        if folder is not None and config.device_num == 1:  # not said: as many as before
            asked = asked.replace(device_num=TrainConfig.load(folder / CONFIG).device_num)
        chosen, device, *_ = decide(asked)
    check_log(chosen.log)
    devices.check_cards(device.kind, asked.device_num // asked.nnodes)
    if folder is None and asked.nnodes == 1:
        with new_run(asked) as claimed:  # its ranks will hold it; until then the claim keeps others away
            folder = claimed.path
            write_text(folder / CLAIM, str(os.getpid()))
    elif folder is None:  # machines cannot agree on a number without talking; the folder must be free
        folder = resolve_path(asked.output_dir or "runs/train")
        if is_finished(folder):
            raise ConfigError(f"output_dir={folder}: holds a finished run; give another one on every machine")
    elif asked.nnodes == 1:  # who watches the folder is to know that its ranks will come
        with writing(f"output_dir={folder}"):
            write_text(folder / CLAIM, str(os.getpid()))
    by = LAUNCHERS[launcher](asked)
    shown = by.shown(folder)
    by.check_port()
    if others := of_another_job():
        say(
            f"attnet: {', '.join(others)}: set here, by another job it seems, and not passed on to this one", sys.stderr
        )
    if line := slurm.describe(asked):
        say(line)
    say(shown)
    with StopSignal() as stop, _Job(by, folder, chosen, draw and draw(chosen, plan)) as job:
        return job.follow(stop)


class _Job:
    """One launcher with its ranks; leaving the context leaves no process behind."""

    def __init__(self, launcher: Torchrun, folder: Path, config: TrainConfig, draw: Draw | None) -> None:
        self.launcher, self.folder, self.config, self.draw = launcher, folder, config, draw
        self.logs = folder / "logs"
        with writing(f"output_dir={folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            own_folder(self.logs)
        self.rank0, self.log = self.logs / "rank0.log", folder / "log.txt"
        self.torchrun = self.logs / f"torchrun{config.node_rank or ''}.log"
        self.position, self.logged = (file.stat().st_size if file.exists() else 0 for file in (self.rank0, self.log))
        self.begun = time.time()
        self.shown = 0  # epochs

    def __enter__(self) -> _Job:
        variables = {**self.launcher.variables, LAUNCHER: str(os.getpid()), LOG_DIR: str(self.logs)}
        with writing(f"output_dir={self.folder}"):
            log = append_to(self.torchrun)
        with log:
            self.process = start(
                self.launcher.words(self.folder), log, variables, without=of_another_job(), end_with_us=False
            )
        return self

    def __exit__(self, *_: object) -> None:
        end(self.process, GRACE)  # it asks the ranks; they notice within a second that it is gone
        with contextlib.suppress(OSError):
            (self.folder / CLAIM).unlink(missing_ok=True)

    def follow(self, stop: StopSignal) -> Result:
        """Show rank 0's lines, on machine 0, until the job ends, by itself or by a signal."""
        display = make_progress(self.config.progress, lambda line: None, self.draw)
        if isinstance(display, LiveProgress):
            display.start(1, self.config.total_epochs, 1, look=self._look)
        elif display.watch is not None:
            display.watch.start(0, self.config.total_epochs, 1, self._look)
        try:
            with spoken_of(self._waiting) as met:
                while self.process.poll() is None and stop.number is None:
                    time.sleep(POLL)
                    self._show(display)
                    if self._has_begun():
                        met.set()
            if stop.number is not None:
                end(self.process, GRACE)
            self._show(display)
        finally:
            display.close()
        if self.process.returncode == 0 and is_finished(self.folder):  # else it was asked to stop, through its folder
            return Result.load(self.folder)
        last = self._last_word()
        if stop.number is not None:
            raise TrainingInterrupted(self._left_behind(bool(last)), stop.number)
        if last:  # torchrun or the run was asked to end from outside, as by a batch system or `attnet watch`
            raise TrainingInterrupted(last, signal.SIGTERM)
        raise LaunchError(self._cause())

    def _has_begun(self) -> bool:
        """Whether a rank of this job, and not of the one that it goes on with, has said anything."""
        return any(log.stat().st_mtime >= self.begun for log in self.logs.glob("rank*.log"))

    def _waiting(self, waited: float) -> str:
        """What to say while no rank has begun."""
        config, log = self.config, self.torchrun
        if config.nnodes == 1:
            return f"no rank has begun after {duration(waited)}; torchrun's own words are in {log}"
        return (
            f"no rank has begun after {duration(waited)}: {config.nnodes} machines are to meet at {config.dist_url}, "
            f"each with its own node_rank, this one is {config.node_rank}; torchrun's own words are in {log}"
        )

    def _last_word(self) -> str:
        """What this job's ranks wrote last when they were asked to stop and had saved everything; "" if not."""
        last = _said(self.log, self.logged).decode(errors="replace").splitlines()[-1:]
        return last[0] if last and last[0].startswith(STOPPED) else ""

    def _left_behind(self, is_saved: bool) -> str:
        """What is on the disk after a request to stop."""
        go_on = f'with resume="{relative_to_root(self.folder)}"'
        if is_saved:
            return f"stopped; everything is saved. Go on {go_on}"
        saved = [file for name in (STEP, LAST, PREVIOUS) if (file := self.folder / name).exists()]
        if saved:
            newest = max(saved, key=lambda file: file.stat().st_mtime)
            at = time.strftime("%H:%M:%S", time.localtime(newest.stat().st_mtime))
            return f"stopped, too late or too early to save: the last checkpoint is of {at}. Go on from it {go_on}"
        when = "before anything was saved" if self._has_begun() else "before its ranks began"
        return f"stopped {when}; there is nothing to go on with, so begin again"

    def _look(self) -> nn.Module | None:
        """The network as it was saved after the last epoch that was shown; None when a later one is already there."""
        if not (self.folder / LAST).exists():
            return None
        saved = Weights.open(self.folder / LAST)
        if saved.epoch != self.shown:
            return None
        network = build_model(saved.model, saved.outputs, **saved.options({}, saved.model))
        load_weights(network, saved)
        return network.eval()

    def _show(self, display: Progress) -> None:
        """What rank 0 has said since, and the picture of an epoch that has ended."""
        if self.config.node_rank:
            return
        lines = _said(self.rank0, self.position)
        lines = lines[: lines.rfind(b"\n") + 1]
        self.position += len(lines)
        text = lines.decode(errors="replace")
        if not text or self.config.progress == "none":
            return
        live = isinstance(display, LiveProgress)
        if not live:
            say(text.removesuffix("\n"))
        if (not live and display.watch is None) or not (metrics := self.folder / METRICS).exists():
            return
        rows = read_lines(metrics, ROW, ("epoch", "top1"))
        if not rows or rows[-1]["epoch"] == self.shown:
            return
        self.shown = rows[-1]["epoch"]
        if live:
            display.begin_epoch(self.shown, 1)
            display.end_epoch(rows)
        else:
            display.watch.end_epoch(rows)

    def _cause(self) -> str:
        """Which rank failed first, how, and its last lines."""
        report = _said(self.torchrun).decode(errors="replace")
        found = re.findall(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", report, flags=re.DOTALL)
        rank, code = map(int, found[-1]) if found else (0, self.process.returncode)
        if not self._has_begun():
            lines = report.splitlines()[-SHOWN_LINES:]
            ended = f"torchrun ended before its ranks began ({how_it_ended(self.process.returncode)})"
            return "\n".join([f"{ended}; its last lines, from {self.torchrun}:", *(f"    {x}" for x in lines)])
        log = self.logs / f"rank{rank}.log"
        lines = _said(log).decode(errors="replace").splitlines()[-SHOWN_LINES:]
        lines = lines or report.splitlines()[-SHOWN_LINES:]
        failed = f"rank {rank} of {self.config.device_num} failed ({how_it_ended(code)})"
        return "\n".join(
            [
                f"{failed} after {self.config.max_restarts} restarts; its last lines, from {log}:",
                *(f"    {line}" for line in lines),
            ]
        )


def _said(log: Path, position: int = 0) -> bytes:
    """What a log holds from a place on; nothing where there is no plain file, of which its own writer will complain."""
    with contextlib.suppress(OSError), open_plain(log) as file:
        file.seek(position)
        return file.read()
    return b""
