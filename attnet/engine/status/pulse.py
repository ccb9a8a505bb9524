"""Signs of life: every second each rank says in a file of its own where it stands, and rank 0 looks whether the run is
asked to stop.

A thread does it, which reads what the training keeps anyway: the steps themselves have nothing to do for it, and the
device is never waited for. What cannot be written, as on a full disk, is left out.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from attnet.base.errors import say
from attnet.base.files.atomic import write_text
from attnet.base.files.opening import own_folder
from attnet.base.json_files import to_json
from attnet.base.processes import TrainingInterrupted
from attnet.engine.names import PULSES, STOP

EVERY = 1.0  # seconds between signs
AT_ONCE = 16  # signs a second of all ranks together, at most: they may share a file system
STRETCH, FEWEST = 30.0, 5  # the rate is that of so many seconds, and of so many steps at least
STOPPED = "stopped"  # how a run ended that was asked to and saved itself


class Pulse:
    """One rank's signs of life. `asked` becomes true, on rank 0 alone, when the run is asked to stop.

    Args:
        rank, size: which rank of how many.
        where: `epochs` in all, `epoch`s done, `step` of `steps` in the one at work, `images` a step of all ranks, and
            where it costs nothing `trace`, the sums of losses so far in this epoch.
    """

    def __init__(self, rank: int, size: int, where: Callable[[], dict[str, object]]) -> None:
        self.rank, self.where, self.asked = rank, where, False
        # torchrun brings ranks back: while it lives, a run whose ranks are gone is not over.
        keeper = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None
        self.every = max(EVERY, size / AT_ONCE)
        self.fixed = {"rank": rank, "size": size, "pid": os.getpid(), "host": socket.gethostname(), "keeper": keeper}
        self.fixed["every"] = self.every
        self.passed: deque[tuple[float, int]] = deque()  # when so many steps of the epoch were done
        self.epoch, self.moved, self.rate = -1, (-1, time.monotonic()), None

    @contextlib.contextmanager
    def beating(self, folder: Path) -> Iterator[None]:
        """Give signs in a run folder as long as this lasts. One that ended well leaves none behind."""
        self.folder = folder
        self.file: Path | None = folder / PULSES / f"rank{self.rank}.json"  # None: there is no place for it
        try:
            own_folder(self.file.parent)
            if self.rank == 0:
                self._tidy()
        except OSError as error:  # a training is worth more than what is told of it
            self.file = None
            say(f"{folder}: `attnet watch` will not see this run ({error.strerror})", sys.stderr)
        self._beat()
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self.every):
                self._beat()

        thread = threading.Thread(target=beat, name="attnet-pulse", daemon=True)
        thread.start()
        ended = ""
        try:
            yield
        except BaseException as error:
            ended = STOPPED if isinstance(error, TrainingInterrupted) else f"{type(error).__name__}: {error}"[:2_000]
            raise
        finally:
            over.set()
            thread.join(10 * EVERY)  # a file system that hangs is no reason to wait for ever
            self._end(ended)

    def _tidy(self) -> None:
        """Take away what an earlier start left: a request that nobody obeyed, signs of ranks that are no more."""
        (self.folder / STOP).unlink(missing_ok=True)
        for file in self.file.parent.glob("rank*.json*"):
            number = file.name.removeprefix("rank").partition(".")[0]
            if not (number.isdecimal() and int(number) < self.fixed["size"] and file.suffix == ".json"):
                file.unlink()

    def _beat(self) -> None:
        with contextlib.suppress(Exception):  # a training is worth more than what is told of it
            self._write()
        if self.rank == 0:
            self.asked = self.asked or os.path.lexists(self.folder / STOP)

    def _write(self, **more: object) -> None:
        if self.file is None:
            return
        position = self.where()
        now, here = time.monotonic(), (position["epoch"], position["step"])
        if here != self.moved[0]:
            self.moved = here, now
        if here[0] != self.epoch or here[1] == position["steps"]:  # what lies between epochs is no step
            self.epoch = here[0]
            self.passed.clear()
        self.passed.append((now, here[1]))
        first = self.passed[0]
        if here[1] > first[1]:
            self.rate = (here[1] - first[1]) / (now - first[0])
        while len(self.passed) > 2 and now - self.passed[1][0] > STRETCH and here[1] - self.passed[1][1] >= FEWEST:
            self.passed.popleft()
        sign = {**self.fixed, **position, "rate": self.rate, "still": round(now - self.moved[1], 1), **more}
        write_text(self.file, to_json(sign) + "\n")

    def _end(self, ended: str) -> None:
        with contextlib.suppress(Exception):
            if self.rank == 0:
                (self.folder / STOP).unlink(missing_ok=True)
        if ended:
            with contextlib.suppress(Exception):
                self._write(ended=ended)
            return
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.file.unlink(missing_ok=True)
                self.file.parent.rmdir()  # by the last of them


def ask_to_stop(folder: Path) -> None:
    """Ask the run that works in a folder to save itself and end, on whatever machine it is; it looks every second.

    Raises:
        SaveError: the folder cannot be written.
    """
    write_text(folder / STOP, f"asked by process {os.getpid()} on {socket.gethostname()}\n")
