"""What is known of a run that is watched: its state, how far it is, each of its ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from attnet.base.words import duration
from attnet.engine.status.pulse import STOPPED

SILENT, STILL = 5.0, 30.0  # seconds without a sign, and at the same step, that are worth a word
# State -> exit status of a look, and what it means.
STATES = {
    "finished": (0, "result.json is there"),
    "stopped": (3, "saved itself when it was asked to; resume goes on"),
    "died": (4, "ended without a word, or by an error; resume goes on from the last checkpoint"),
    "running": (5, "trains, tests or saves"),
    "begins": (5, "reads its data, or its ranks are started, or brought back"),
}
AT_WORK = ("running", "begins")


@dataclass(frozen=True)
class Rank:
    """One process of a run. `age` is that of its last sign, `still` how long its step has not moved, in seconds."""

    rank: int
    pid: int
    host: str
    epoch: int
    step: int
    steps: int
    age: float
    still: float
    every: float
    ended: str = ""

    @property
    def state(self) -> str:
        """In a few words. Ranks wait for each other at every step: who is silent is waited for by all others."""
        if self.ended:
            return "stopped and saved" if self.ended == STOPPED else self.ended
        if self.age > max(SILENT, 3 * self.every):
            return f"no sign for {duration(self.age)}"
        what = "testing, saving" if self.steps and self.step >= self.steps else "training"
        return f"{what}; this step for {duration(self.still)}" if self.still > STILL else what


@dataclass(frozen=True)
class Status:
    """A run as it stands.

    `state` is a name of STATES, `where` who works there, `why` what is known of its end. `epochs` in all, `epoch`s
    done, `step` of `steps` in the one at work; 0 where unknown. `rate` in images/s, `left` in seconds. `trace` are the
    sums of losses so far in the epoch at work, the last one after `traced` steps. `checkpoint` is the newest one's name
    and age in seconds. `asked`: to stop, and has not yet.
    """

    folder: Path
    state: str
    where: str = ""
    why: str = ""
    config: Mapping[str, object] = field(default_factory=dict)
    rows: Sequence[dict] = ()
    ranks: Sequence[Rank] = ()
    epochs: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    rate: float | None = None
    left: float | None = None
    trace: Sequence[float] = ()
    traced: int = 0
    checkpoint: tuple[str, float] | None = None
    log: Sequence[str] = ()
    asked: bool = False

    @property
    def is_at_work(self) -> bool:
        return self.state in AT_WORK

    @property
    def exit_status(self) -> int:
        return STATES[self.state][0]

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        if self.state == "finished":
            return 1.0
        inside = min(1.0, self.step / self.steps) if self.steps else 0.0
        return min(1.0, (self.epoch + inside) / self.epochs) if self.epochs else 0.0

    @property
    def best(self) -> dict | None:
        """The row of the epoch with the highest Top-1."""
        return max(self.rows, key=lambda row: row["top1"], default=None)

    @property
    def begun(self) -> list[dict]:
        """The epoch at work as a row without a test, where its losses are known; else nothing."""
        if len(self.trace) < 2 or not self.traced:
            return []
        mean = self.trace[-1] / self.traced
        return [{"epoch": self.epoch + 1, "steps": self.steps, "trace": list(self.trace), "train_loss": mean}]
