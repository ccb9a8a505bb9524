"""Training on several cards from a notebook cell or a shell: torchrun started, watched, streamed and ended.

    result = attnet.launch(attnet.TrainConfig(device_num=8, …))
    python -m attnet.train --device_num 8 …

Nothing is forked, so it works from a kernel that has used its cards already.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from attnet import checkpoint
from attnet import device as devices
from attnet.config import TrainConfig
from attnet.distributed import LAUNCHER, LOG_DIR
from attnet.errors import AttnetError, ConfigError
from attnet.flags import to_flags
from attnet.interrupt import STOPPED, StopSignal, TrainingInterrupted
from attnet.paths import relative_to_root, repository_root, resolve_path
from attnet.plan import make_plan
from attnet.progress import LiveProgress, make_progress
from attnet.result import Result

POLL = 0.2  # seconds between looks at the log
GRACE = 45.0  # seconds that ranks have to save and end; torchrun itself allows 30
SHOWN_LINES = 15
# With several machines, ranks that are brought back meet in a new store, free of their dead predecessors' addresses.
FRESH_STORE = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


class LaunchError(AttnetError):
    """A rank failed for good; the message holds its last lines and where its log lies."""


def torchrun_arguments(config: TrainConfig, folder: Path) -> list[str]:
    """What follows `torchrun` on the command line for this configuration and run folder.

    Raises:
        ConfigError: cards that do not divide among the machines, or no meeting point for several machines.
    """
    if config.device_num % config.nnodes:
        raise ConfigError(
            f"device_num={config.device_num}: {config.nnodes} machines cannot share them evenly; "
            "give a multiple of nnodes"
        )
    if config.node_rank >= config.nnodes:
        raise ConfigError(f"node_rank={config.node_rank}: machines are numbered 0 to {config.nnodes - 1} (nnodes)")
    where = ["--standalone"]
    if config.nnodes > 1:
        if not config.dist_url:
            raise ConfigError(f"nnodes={config.nnodes}: give dist_url=HOST:PORT of machine 0, where all meet")
        endpoint = config.dist_url.removeprefix("tcp://")
        where = [f"--nnodes={config.nnodes}", f"--node_rank={config.node_rank}", "--rdzv_backend=c10d"]
        where += [f"--rdzv_endpoint={endpoint}", "--rdzv_id=attnet"]
    each = config.device_num // config.nnodes
    flags = to_flags(config.replace(output_dir=relative_to_root(folder), resume="auto", progress="auto"))
    return [*where, f"--nproc_per_node={each}", f"--max_restarts={config.max_restarts}", "-m", "attnet.train", *flags]


def launch(config: TrainConfig) -> Result:
    """Train with `device_num` processes, one a card, through torchrun; rank 0's lines appear here as they come.

    Each rank's output is kept in `logs/rank<k>.log` of the run folder. A rank that dies is brought back from the
    last checkpoint up to `max_restarts` times. Interrupting saves the run and ends every process.

    Returns:
        The result, as `attnet.fit`.

    Raises:
        ConfigError, DataError: before anything is started.
        LaunchError: with the last lines of the rank that failed.
        TrainingInterrupted: after Ctrl-C or SIGTERM; saved, and the message says how to continue.
    """
    folder = checkpoint.run_to_resume(config)
    if folder is not None:
        stored = TrainConfig.load(folder / "config.json")
        cards = stored.device_num if config.device_num == 1 else config.device_num
        config = checkpoint.inherit(stored, config).replace(device_num=cards)
    plan = make_plan(config)
    devices.check_cards(plan.device.kind, config.device_num // config.nnodes)
    if folder is None and config.nnodes == 1:
        with checkpoint.new_run(config) as claimed:
            folder = claimed.path
    elif folder is None:  # machines cannot agree on a number without talking; the folder must be free
        folder = resolve_path(config.output_dir or "runs/train")
        if checkpoint.is_finished(folder):
            raise ConfigError(f"output_dir={folder}: holds a finished run; give another one on every machine")
    arguments = torchrun_arguments(config, folder)
    prefix = "".join(f"{name}={value} " for name, value in FRESH_STORE.items()) if config.nnodes > 1 else ""
    print(f"{prefix}torchrun {shlex.join(arguments)}", flush=True)
    with StopSignal() as stop, _Job(arguments, folder, plan.config) as job:
        return job.follow(stop)


class _Job:
    """One torchrun with its ranks; leaving the context leaves no process behind."""

    def __init__(self, arguments: Sequence[str], folder: Path, config: TrainConfig) -> None:
        self.folder, self.config = folder, config
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.rank0 = self.logs / "rank0.log"
        self.position = self.rank0.stat().st_size if self.rank0.exists() else 0
        self.command = [sys.executable, "-m", "torch.distributed.run", *arguments]

    def __enter__(self) -> _Job:
        environment = {**devices.child_environment(), LAUNCHER: str(os.getpid()), LOG_DIR: str(self.logs)}
        if self.config.nnodes > 1:
            environment |= FRESH_STORE
        path = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *([path] if path else [])])
        with open(self.logs / "torchrun.log", "a") as log:
            # A session of its own, so that Ctrl-C here reaches it only as our orderly request to stop.
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=repository_root(),
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._end(signal.SIGTERM)

    def follow(self, stop: StopSignal) -> Result:
        """Show rank 0's lines until the job ends, by itself or by a signal."""
        display = make_progress(self.config.progress, lambda line: None)
        live = isinstance(display, LiveProgress)
        if live:
            display.start(1, self.config.total_epochs, 1)
        try:
            while self.process.poll() is None and stop.number is None:
                time.sleep(POLL)
                self._show(display if live else None)
            if stop.number is not None:
                self._end(signal.SIGTERM)
            self._show(display if live else None)
        finally:
            display.close()
        if self.process.returncode == 0:
            return Result.load(self.folder)
        if stop.number is not None:
            message = f'stopped; everything is saved. Go on with resume="{relative_to_root(self.folder)}"'
            raise TrainingInterrupted(message, stop.number)
        log = self.folder / "log.txt"
        last = log.read_text().splitlines()[-1:] if log.exists() else []
        if last and last[0].startswith(STOPPED):  # torchrun was asked to end from outside, as by a batch system
            raise TrainingInterrupted(last[0], signal.SIGTERM)
        raise LaunchError(self._cause())

    def _show(self, live: LiveProgress | None) -> None:
        if not self.rank0.exists():
            return
        with open(self.rank0, errors="replace") as log:
            log.seek(self.position)
            text = log.read()
            text = text[: text.rfind("\n") + 1]
            self.position += len(text.encode())
        if not text or self.config.progress == "none":
            return
        if live is None:
            print(text, end="", flush=True)
            return
        metrics = self.folder / "metrics.jsonl"
        rows = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        if rows:
            live.begin_epoch(rows[-1]["epoch"], 1)
            live.end_epoch(rows)

    def _cause(self) -> str:
        """Which rank failed first, how, and its last lines."""
        report = (self.logs / "torchrun.log").read_text(errors="replace")
        found = re.findall(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", report, flags=re.DOTALL)
        rank, code = map(int, found[-1]) if found else (0, self.process.returncode)
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        log = self.logs / f"rank{rank}.log"
        lines = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:] if log.exists() else []
        lines = lines or report.splitlines()[-SHOWN_LINES:]
        return "\n".join(
            [
                f"rank {rank} of {self.config.device_num} failed ({how}) after {self.config.max_restarts} restarts; "
                f"its last lines, from {log}:",
                *(f"    {line}" for line in lines),
            ]
        )

    def _end(self, number: int) -> None:
        """Ask torchrun to stop, which asks the ranks; then make sure."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(GRACE)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                self.process.kill()
                self.process.wait()
        # Ranks notice within a second that torchrun is gone; a dead one leaves nothing to wait for.
