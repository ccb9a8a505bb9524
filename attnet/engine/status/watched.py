"""What somebody watches: one run, or the runs below a folder; looked at again and again, and asked to stop."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from attnet.base.errors import ConfigError, SaveError
from attnet.engine.names import CONFIG, STOP
from attnet.engine.status import words
from attnet.engine.status.facts import Status
from attnet.engine.status.look import Looker
from attnet.engine.status.pulse import ask_to_stop
from attnet.engine.status.read import is_run, runs_below, worker


class Watched:
    """A run. `look` first; then the others speak of what was seen."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.looker = folder, Looker(folder)

    def look(self) -> Status:
        self.status = self.looker.look()
        return self.status

    @property
    def is_at_work(self) -> bool:
        return self.status.is_at_work

    @property
    def exit_status(self) -> int:
        return self.status.exit_status

    def frame(self, width: int, height: int, marks: str = words.MARKS) -> list[str]:
        """Lines for a terminal."""
        return words.frame(self.status, width, height, marks)

    def line(self) -> str:
        """One line for a log."""
        return words.line(self.status)

    def told(self) -> tuple:
        """What is worth a new line when it changes."""
        return self.status.state, self.status.epoch, self.status.asked

    def stop(self) -> str:
        """Ask it to save itself and stop; what will happen, in words.

        Raises:
            ConfigError: it is not at work, belongs to a sweep, which would begin it again, or cannot be asked.
        """
        status = self.look()
        if status.state != "running":
            hint = "; ask again when it trains" if status.is_at_work else ""
            raise ConfigError(f"{self.folder}: this run is not training ({status.state}), so nothing is asked{hint}")
        if name := worker(self.folder)[1]:
            above = self.folder.parent.parent
            raise ConfigError(
                f"{self.folder}: this run is a sweep's, which would begin it again ({name}); stop that with "
                f"attnet watch {words.shown(above)} --stop"
            )
        try:
            ask_to_stop(self.folder)
        except SaveError as error:
            raise ConfigError(
                f"{self.folder / STOP}: cannot be written, so the run cannot be asked ({error})"
            ) from None
        return f"{words.shown(self.folder)}: asked to stop; it saves itself after the step that it is in"


class WatchedRuns:
    """The runs below a folder, as a sweep's."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lookers, self.over = folder, {}, {}
        self.runs: Sequence[Status] = ()
        self.workers: dict[str, int] = {}  # those that have a run now: name, and process where it is of this machine

    def look(self) -> Sequence[Status]:
        """Every run; of one that is finished nothing is read again."""
        found = []
        for folder in runs_below(self.folder):
            if folder not in self.over:
                try:
                    status = self.lookers.setdefault(folder, Looker(folder)).look()
                except ConfigError:  # taken away this moment
                    continue
                if status.state != "finished":
                    found.append(status)
                    continue
                self.over[folder] = status
            found.append(self.over[folder])
        self.runs = found
        having = (worker(run.folder) for run in found if run.state != "finished")
        self.workers = {name: pid for pid, name in having if name}
        return found

    @property
    def is_at_work(self) -> bool:
        return bool(self.workers) or any(run.is_at_work for run in self.runs)

    @property
    def exit_status(self) -> int:
        """As of a run: that of the state that is most worth knowing of."""
        statuses = [run.exit_status for run in self.runs]
        return 5 if self.is_at_work else max(statuses, default=2)

    def frame(self, width: int, height: int, _marks: str = "") -> list[str]:
        return [f"{words.shown(self.folder)}{self._sweep()}", *words.rows(self.runs, self.folder, width, height - 1)]

    def line(self) -> str:
        return f"{words.shown(self.folder)}: {words.summary(self.runs)}"

    def told(self) -> tuple:
        return tuple((run.folder, run.state) for run in self.runs)

    def _sweep(self) -> str:
        names = [f"process {pid} here" if pid else name for name, pid in self.workers.items()]
        return f": a sweep is at work, {', '.join(names)}" if names else ""

    def stop(self) -> str:
        """Ask the sweep's workers of this machine to stop, which saves the runs that they have begun; what will happen,
        in words.

        Raises:
            ConfigError: none of this machine is at work there.
        """
        self.look()
        pids, others = set(self.workers.values()) - {0}, [name for name, pid in self.workers.items() if not pid]
        if not pids:
            elsewhere = f", but {', '.join(others)}: stop it there" if others else ""
            raise ConfigError(
                f"{self.folder}: no sweep of this machine is at work there{elsewhere}; a single run is stopped by its "
                "own folder"
            )
        for pid in pids:
            try:
                os.kill(pid, signal.SIGTERM)
            except OSError as error:
                raise ConfigError(f"{self.folder}: process {pid} cannot be asked to stop ({error.strerror})") from None
        asked = ", ".join(f"process {pid}" for pid in sorted(pids))
        left = f"; {', '.join(others)} goes on: stop it there" if others else ""
        return f"{words.shown(self.folder)}: {asked} is asked to stop; what was begun is saved first{left}"


def watched(folder: Path) -> Watched | WatchedRuns:
    """The run or the runs in a folder.

    Raises:
        ConfigError: neither is there.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; give that of a run, or one with runs below it")
    if is_run(folder):
        return Watched(folder)
    if next(runs_below(folder), None) is None:
        raise ConfigError(f"{folder}: no run is there or below (no {CONFIG}); give the folder of a run")
    return WatchedRuns(folder)
