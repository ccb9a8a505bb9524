"""Runs worked off: taken, several at once, tried again when they fail, left to others who took them, ended with us."""

from __future__ import annotations

import contextlib
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from attnet.base.errors import say
from attnet.base.processes import STOPPED, StopSignal, TrainingInterrupted, end
from attnet.base.words import duration
from attnet.engine.holding.lease import Lease, Lost
from attnet.engine.result import Result
from attnet.engine.run_folder import is_finished
from attnet.study.sweeps.runs import LOG, Run
from attnet.study.sweeps.workers import Worker

POLL = 0.2  # seconds between looks at the processes
SHARE = 0.05  # of the time, at most, for looks at the runs of others: a network file system may be slow
GRACE = 120.0  # seconds that stopped runs have to finish their step and save
ATTEMPTS = 2  # a run that failed is tried once more
AGAIN = 60.0  # seconds between words about what is waited for
_SHOWN = 3  # runs in such words


@dataclass
class Job:
    """A run at work: its process, and when that was started (seconds of the monotonic clock)."""

    run: Run
    process: subprocess.Popen
    begun: float


class Runner:
    """Works off runs, `parallel` at once, a line on standard output for each that is done here; leaving the context
    ends every process and gives every lease back.

    `failures` says why, for each run that failed ATTEMPTS times, here or with another worker.
    """

    def __init__(self, runs: Sequence[Run], parallel: int, worker: Worker) -> None:
        self.waiting, self.total, self.parallel, self.worker = list(runs), len(runs), parallel, worker
        self.jobs: dict[int, Job] = {}  # by slot
        self.leases: dict[Run, Lease] = {}  # of the runs at work, and of those that are to be tried again
        self.attempts: Counter[Run] = Counter()
        self.failures: dict[Run, str] = {}
        self.seconds: list[float] = []  # of each run that was finished here
        self.done = 0
        self._looked = self._spoke = float("-inf")
        self._look_at, self._is_first = float("-inf"), True

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        """Ask what still runs to stop, which saves it; then make sure."""
        for job in self.jobs.values():
            job.process.terminate()
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C shortens the wait
            while any(job.process.poll() is None for job in self.jobs.values()) and time.monotonic() < deadline:
                self._beat()
                time.sleep(POLL / 2)
        for job in self.jobs.values():
            end(job.process, 0.0)
        for lease in self.leases.values():
            lease.give_back()

    def work(self, stop: StopSignal) -> None:
        """Until every run is finished or has failed, here or with another worker.

        Raises:
            TrainingInterrupted: `stop` has a signal.
        """
        while self.waiting or self.jobs or self._may_come():
            if stop.number is not None:
                message = (
                    f"{STOPPED} {signal.Signals(stop.number).name} with {self.done} of {self.total} runs done; what "
                    "was begun is saved. Start the same again to go on"
                )
                raise TrainingInterrupted(message, stop.number)
            self._look()
            time.sleep(POLL)
            for run in self._beat():
                self._leave(run)
            for slot, job in list(self.jobs.items()):
                if (status := job.process.poll()) is not None:
                    del self.jobs[slot]
                    self._look_at = float("-inf")
                    self._ended(job, status)
                else:
                    self._goes_on(job)

    # -- for those whose runs are not all known from the start -----------------------------------------------------

    def _may_come(self) -> bool:
        """Whether more runs are to come."""
        return False

    def _goes_on(self, job: Job) -> None:
        """A job is still at work."""

    def _settled(self, run: Run) -> None:
        """A run is finished or has failed, here or elsewhere; its lease, where it is ours, is not given back yet."""

    # -- which runs there are to do ------------------------------------------------------------------------------

    def _look(self) -> None:
        """See what others have done, and fill free slots; only watch what others hold where there is none."""
        now, is_full = time.monotonic(), len(self.jobs) == self.parallel
        if now < (max(self._look_at, self._looked + self.worker.every) if is_full else self._look_at):
            return
        self._looked = now
        if is_full:
            for run in self.waiting:
                self.worker.note(run.folder)
        else:
            self._pass_finished()
            self._start_some()
            self._speak(now)
        self._look_at = now + (time.monotonic() - now) / SHARE

    def _pass_finished(self) -> None:
        """Runs that are done, before this worker came or by others since, are not to be done."""
        for run in list(self.waiting):
            if is_finished(run.folder):
                self.waiting.remove(run)
                self._passed(run)
            elif why := self.worker.failure(run.folder):
                self.waiting.remove(run)
                self.failures[run] = why
                self._settled(run)
                self.done += 1
        self._is_first = False

    def _passed(self, run: Run) -> None:
        self._settled(run)
        self._give_back(run)
        if self._is_first:
            self._show(run, f"Top-1 {Result.load(run.folder).last_top1:.2f} %, done before")
        else:  # by another worker, who shows it
            self.done += 1

    def _start_some(self) -> None:
        for slot in sorted(set(range(self.parallel)) - set(self.jobs)):
            if (run := self._take()) is None:
                return
            self.waiting.remove(run)
            self.attempts[run] += 1
            self.jobs[slot] = Job(run, run.start(slot, self.parallel, self.leases[run]), time.monotonic())

    def _take(self) -> Run | None:
        """The first waiting run that can be had; its lease is ours then."""
        for run in self.waiting:
            if run in self.leases and not run.is_in_use():
                return run
            if run not in self.leases and (lease := self.worker.take(run.folder)) is not None:
                self.leases[run] = lease
                if not is_finished(run.folder):
                    return run
                lease.give_back()  # by another a moment ago; the next look passes it
                del self.leases[run]
        return None

    # -- leases --------------------------------------------------------------------------------------------------

    def _beat(self) -> list[Run]:
        """Say that we are at work; the runs that were taken from us all the same."""
        lost = []
        for run, lease in self.leases.items():
            try:
                lease.beat()
            except Lost:
                lost.append(run)
        return lost

    def _leave(self, run: Run) -> None:
        """A run that another worker has now: this process slept, or could not reach the file system, for too long."""
        del self.leases[run]
        self.attempts[run] = 0
        for slot, job in list(self.jobs.items()):
            if job.run == run:
                end(job.process, 2.0)
                del self.jobs[slot]
        if run not in self.waiting:
            self.waiting.append(run)
        who = self.worker.holder(run.folder)
        say(f"{run}: left to {who}; nothing was heard of this worker for {self.worker.seconds:g} s")

    def _give_back(self, run: Run, outcome: str = "") -> None:
        if (lease := self.leases.pop(run, None)) is not None:
            lease.give_back(outcome)

    # -- what came of them ---------------------------------------------------------------------------------------

    def _ended(self, job: Job, status: int) -> None:
        run = job.run
        if is_finished(run.folder):
            self.seconds.append(time.monotonic() - job.begun)
            self._settled(run)
            self._show(run, f"Top-1 {Result.load(run.folder).last_top1:.2f} %, {duration(self.seconds[-1])}")
            self._give_back(run)
        elif not self.leases[run].is_held():
            self._leave(run)
        elif self.attempts[run] < ATTEMPTS:
            self.waiting.insert(0, run)
        else:
            self.failures[run] = run.failure(status)
            self._settled(run)
            self._show(run, f"failed {ATTEMPTS} times: {self.failures[run]} ({run.folder / LOG})")
            self._give_back(run, self.failures[run])

    def _show(self, run: Run, outcome: str) -> None:
        self.done += 1
        left = max(self.total - self.done, 0)
        if left and self.seconds:
            at_once = min(left, self.parallel * (1 + len(self.worker.others)))
            outcome += f", about {duration(statistics.mean(self.seconds) * left / at_once)} left"
        say(f"[{self.done}/{self.total}] {run}: {outcome}")

    def _speak(self, now: float) -> None:
        """Say what is waited for, where nothing is left to take."""
        if self.jobs or not self.waiting or now < self._spoke + AGAIN:
            return
        self._spoke = now
        shown = "; ".join(f"{run} ({self.worker.holder(run.folder)})" for run in self.waiting[:_SHOWN])
        more = f"; {len(self.waiting) - _SHOWN} more" if len(self.waiting) > _SHOWN else ""
        say(f"waiting for runs that others have: {shown}{more}")
