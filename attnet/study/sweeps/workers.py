"""A worker among many: which run of a folder it may take, what others hold, and what they could not finish."""

from __future__ import annotations

from pathlib import Path

from attnet.base.files.outputs import writing
from attnet.base.files.paths import resolve_path
from attnet.base.words import duration
from attnet.engine.holding.lease import (
    BEATS,
    PLACE,
    SECONDS,
    Lease,
    Seen,
    Watch,
    check_seconds,
    is_orphan,
    look,
    name_of_worker,
)
from attnet.engine.holding.lock import user_of


class Worker:
    """This process among all that work on the runs of a folder.

    Attributes:
        seconds: how long a worker may be silent before its runs are taken by others.
        others: names of the workers that held a run here when this one came.
    """

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        self.name, self.seconds, self.watch = name_of_worker(), seconds, Watch()
        seen = {place.parent: look(place.parent) for place in folder.glob(f"*/*/{PLACE}")}
        self.others = sorted({one.worker for one in seen.values() if one.is_held and not is_orphan(one)})
        # What failed before is tried again, but not while others are at work, who would do so one after the other.
        self._again = {} if self.others else {path: one.number for path, one in seen.items() if one.outcome}

    @classmethod
    def at(cls, folder: str | Path, seconds: float) -> Worker:
        """A worker in a folder, made where it is not there; ConfigError where that or the lease cannot be."""
        path = resolve_path(folder)
        with writing(f"folder={path}"):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path, check_seconds(seconds))

    def company(self) -> str:
        """How many others were at work when this one came, to follow a line; "" for nobody."""
        many = len(self.others)
        return f"; {many} other worker{'s are' if many > 1 else ' is'} at work here" if many else ""

    @property
    def every(self) -> float:
        """Seconds between two looks at what others hold."""
        return self.seconds / BEATS

    def take(self, folder: Path) -> Lease | None:
        """The lease of a run, which is ours then; None while it is another's, or another process works there."""
        seen = look(folder)
        return Lease.take(folder, seen.number, self.seconds, self.name) if self._may_take(folder, seen) else None

    def note(self, folder: Path) -> None:
        """Watch a run that cannot be taken now, so that its holder's silence is known when it can."""
        if (seen := look(folder)).is_held:
            self.watch.still(folder, seen)

    def failure(self, folder: Path) -> str:
        """Why another worker gave a run up since this one came; "" where none did."""
        seen = look(folder)
        return seen.outcome if seen.outcome and seen.number > self._again.get(folder, 0) else ""

    def holder(self, folder: Path) -> str:
        """Who has a run, and how long nothing was heard of it, for people."""
        seen = look(folder)
        if not seen.is_held:
            user = user_of(folder) or {}
            return f"process {user['process']} on {user['host']}" if user else "a process that is about to end"
        return f"{seen.worker}, heard of {duration(self.watch.still(folder, seen))} ago"

    def _may_take(self, folder: Path, seen: Seen) -> bool:
        """Whether a run is nobody's: its lease is over or its holder silent, and no other process is in the folder.

        A holder that is known to be gone, on this machine, needs no silence; its training may still be saving itself.
        One that is silent may be asleep with the folder's lock in its hands; without its lease it can do nothing.
        """
        if not seen.is_held:
            return user_of(folder) is None
        silent = self.watch.still(folder, seen) >= seen.seconds
        if not silent and not is_orphan(seen):
            return False
        user = user_of(folder)
        return user is None or (silent and "lease" in user)
