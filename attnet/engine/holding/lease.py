"""Leases: which worker, of many on any machines that share a file system, may train in a run's folder.

A lease is a number. In the folder `.lease` of the run, lease 7 has

    7        made by who takes it, in the one step that only one can win (O_EXCL), and never taken away: says who it is
    7.beat   written every few seconds by who holds it; taken away when the lease is over
    7.over   the lease is over: given back, with what came of it, or ended by who took number 8

Nothing here asks for locks, for clocks that agree, or for times of files. Whoever watches a lease judges by whether
the content of its beat changes while it watches, by its own clock. Whoever holds one writes a checkpoint or result in
three steps: the new file under a name of this lease's own, a look whether the beat is still there, then the rename.
Whoever takes a lease ends the ones before first: `over`, then the beat away, then their new files away. So the rename
of a process that slept through all this finds nothing to rename, however late it comes.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from attnet.base.errors import AttnetError, ConfigError
from attnet.base.files.opening import own_folder, read_small
from attnet.base.files.outputs import writing
from attnet.base.json_files import misfit
from attnet.base.processes import identity, is_gone

PLACE = ".lease"  # in a run's folder
VARIABLE = "ATTNET_LEASE"  # by which a worker tells the training it starts which lease that has
SECONDS = 60.0  # without a beat, after which a lease is another's to take
BEATS = 6  # in that time
_MOST = 4096  # bytes of any of these files that are read
_GONE = (errno.ENOENT, errno.ESTALE)  # of a file that was taken away; the second is NFS's word


class Lost(AttnetError):
    """Another worker has the run now; nothing more may be written for it."""


@dataclass
class Lease:
    """A lease that this process, or the one that started it, holds.

    Attributes:
        marker: its file, `.lease/NUMBER` in the run's folder.
        seconds: without a beat, after which others may take the run.
        clock: seconds of a clock that never goes back.
    """

    marker: Path
    seconds: float = SECONDS
    clock: Callable[[], float] = time.monotonic
    _beaten: float = field(default=float("-inf"), init=False, compare=False)
    _beats: int = field(default=0, init=False, compare=False)

    @property
    def number(self) -> int:
        return int(self.marker.name)

    @property
    def folder(self) -> Path:
        """The run's."""
        return self.marker.parent.parent

    @classmethod
    def take(cls, folder: Path, after: int, seconds: float = SECONDS, worker: str = "") -> Lease | None:
        """The lease that follows number `after` (0: there was none), which is over from now on; None when somebody was
        quicker.

        Raises:
            ConfigError: the folder cannot be written.
        """
        lease = cls(folder / PLACE / str(after + 1), seconds)
        holder = {"worker": worker or name_of_worker(), "seconds": float(seconds), "process": identity()}
        with writing(f"folder={folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            own_folder(lease.marker.parent)
            try:
                with open(lease.marker, "x", encoding="utf-8") as file:
                    file.write(json.dumps(holder))
            except FileExistsError:
                return None
            lease._end_those_before()
            lease._part("beat").touch()
            if lease._part("over").exists():  # it took so long that another took the next number meanwhile
                lease._part("beat").unlink(missing_ok=True)
                return None
        return lease

    @classmethod
    def of_environment(cls, folder: Path) -> Lease | None:
        """The lease under which this process was started to train in `folder`; None where there is none."""
        marker = Path(os.environ.get(VARIABLE, ""))
        if marker.parent.parent != folder:
            return None
        return cls(marker, Seen(**_holder(marker)).seconds)

    def beat(self) -> None:
        """Say that somebody is at work, if it is time for that.

        Raises:
            Lost: another worker has taken the run.
        """
        if self.clock() - self._beaten < self.seconds / BEATS:
            return
        self._beats += 1
        try:
            with open(self._part("beat"), "r+b") as file:  # never made anew
                file.write(f"{os.getpid()} {self._beats} {time.time_ns()}\n".encode())
        except OSError as error:
            if error.errno in _GONE:
                raise self._lost() from None
            return  # a file system that does not answer: the next beat may come through, and writing asks again
        self._beaten = self.clock()

    def beside(self, path: Path) -> Path:
        """Where what is to replace `path` is written first: a name of this lease alone."""
        return self._part(f"{path.name}.tmp")

    def check(self) -> None:
        """Before a new file is put in its place.

        Raises:
            Lost: another worker has taken the run. OSError: the file system does not say.
        """
        try:
            open(self._part("beat"), "rb").close()  # opened: that is when NFS asks its server
        except OSError as error:
            if error.errno in _GONE:
                raise self._lost() from None
            raise

    def is_held(self) -> bool:
        """Whether it is still ours, as far as the file system says."""
        try:
            with contextlib.suppress(OSError):
                self.check()
        except Lost:
            return False
        return True

    def give_back(self, outcome: str = "") -> None:
        """The lease is over, and others may take the run at once; `outcome` is what came of it, to be told to them."""
        if not self.is_held():
            return
        fresh = self.beside(self._part("over"))
        with contextlib.suppress(OSError):  # taken by another just now, or a full disk: then its silence tells
            fresh.write_text(outcome, encoding="utf-8")
            os.replace(fresh, self._part("over"))
            self._part("beat").unlink()

    def _end_those_before(self) -> None:
        """Whoever holds one of them, asleep at whatever point, finds it over.

        All of them: who took one may have died before this. Who sleeps just before it makes its beat finds `over`; who
        sleeps before its look finds no beat; who sleeps after that has a file to rename, which goes last.
        """
        place = self.marker.parent
        names = set(os.listdir(place))
        for number in range(1, self.number):
            if str(number) not in names:  # the folder may come from anybody, with one lease of a large number in it
                continue
            over, beat = f"{number}.over", f"{number}.beat"
            if over not in names:
                (place / over).touch()
            if over not in names or beat in names:
                (place / beat).unlink(missing_ok=True)
        for name in os.listdir(place):
            number, _, rest = name.partition(".")
            if rest.endswith(".tmp") and number.isdecimal() and int(number) < self.number:
                (place / name).unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        return self.marker.with_name(f"{self.marker.name}.{name}")

    def _lost(self) -> Lost:
        seen = look(self.folder)
        by = f"by {seen.worker} " if seen.number > self.number else ""
        return Lost(
            f"{self.folder}: taken over {by}after this worker had not been heard of for {self.seconds:g} s (lease "
            f"{self.number}, now {seen.number}); what it had saved until then is what the other goes on from"
        )


def name_of_worker() -> str:
    """This process, for people."""
    return f"process {os.getpid()} on {socket.gethostname()}"


# -- those of others -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """The newest lease of a run, as it was just now.

    Attributes:
        number: 0 where there was never one.
        outcome: what came of it, "" for nothing to tell; None while it is held.
        beat: what its beat holds.
        worker, seconds, process: what its holder said of itself, as far as it could be read.
    """

    number: int = 0
    outcome: str | None = ""
    beat: bytes = b""
    worker: str = "another worker"
    seconds: float = SECONDS
    process: str = ""

    @property
    def is_held(self) -> bool:
        return self.outcome is None


def look(folder: Path) -> Seen:
    """The newest lease of a run."""
    place = folder / PLACE
    try:
        number = max((int(name) for name in os.listdir(place) if name.isdecimal() and len(name) < 7), default=0)
    except OSError:
        number = 0
    if not number:
        return Seen()
    outcome, beat = _read(place / f"{number}.over"), _read(place / f"{number}.beat")
    told = None if outcome is None else outcome.decode(errors="replace")
    return Seen(number, told, beat or b"", **_holder(place / str(number)))


class Watch:
    """How long the leases of others have not changed, in the time that this process has watched them.

    A gap between two looks counts as `seconds` / BEATS * 2 at most: who slept itself has not watched.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[Path, tuple[tuple[int, bytes], float, float]] = {}  # what it was, when looked at, how long so

    def still(self, folder: Path, seen: Seen) -> float:
        """Seconds for which the lease of a run has been as it is."""
        now, what = self._clock(), (seen.number, seen.beat)
        before, at, waited = self._known.get(folder, (None, now, 0.0))
        waited = waited + min(now - at, 2 * seen.seconds / BEATS) if before == what else 0.0
        self._known[folder] = (what, now, waited)
        return waited


def is_orphan(seen: Seen) -> bool:
    """Whether a held lease is known to have lost its holder: a process of this machine that is gone."""
    return seen.is_held and is_gone(seen.process)


def _holder(marker: Path) -> dict[str, object]:
    """What a lease says of who took it; nothing where it was only just made, or damaged."""
    try:
        said = json.loads(_read(marker) or b"")
    except ValueError:
        return {}
    wanted = {"worker": str, "seconds": float, "process": str}
    fits = isinstance(said, dict) and wanted.keys() <= said.keys() and not misfit(said, wanted)
    return {name: said[name] for name in wanted} if fits else {}


def _read(file: Path) -> bytes | None:
    return read_small(file, _MOST)


def check_seconds(seconds: float) -> float:
    """`seconds` of a lease, from the command line; ConfigError for what is none."""
    if not 1 <= seconds <= 86_400:
        raise ConfigError(f"lease={seconds:g}: 1 to 86400 seconds; {SECONDS:g} suits most network file systems")
    return seconds
