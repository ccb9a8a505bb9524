"""What a running training hands out to be drawn, and the picture of it under a notebook's cell.

Looking and drawing take a fiftieth of the time at most, whatever they cost: after each so much time passes as keeps it
so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

    Look = Callable[[], nn.Module | None]

SHARE = 0.02  # of the time
FIRST = 3.0  # seconds before the first picture: by then there is a loss to be seen


@dataclass(frozen=True)
class Sight:
    """A training as it stands.

    `rows` are those of metrics.jsonl so far; `losses` those of this process's steps, `first` of which were done before
    (after a resume), `steps` an epoch. `look()` gives a copy of the network as it is now, or where other processes
    train it as it was saved last, in evaluation mode; None where that is not to be had. `begun` is the epoch at work as
    a row without a test, where only files are known.
    """

    rows: Sequence[dict]
    losses: Sequence[float]
    first: int
    steps: int
    look: Look | None = None
    begun: Sequence[dict] = ()

    @property
    def epochs(self) -> float:
        """How many are done: by steps, where those are seen, else by what is tested."""
        return max((self.first + len(self.losses)) / self.steps, self.rows[-1]["epoch"] if self.rows else 0)


class Draw(Protocol):
    """Who makes a picture of a training, and what it has to see while it lasts."""

    def note(self, sight: Sight) -> None:
        """Keep what will be gone later."""

    def picture(self, sight: Sight) -> object:
        """A figure of all that is known."""


class Watch:
    """When is looked and drawn. `live` pictures replace each other under the cell while the training goes on; otherwise
    one is shown at its end. `say` is told why there is none, where a picture fails: the training goes on."""

    def __init__(self, draw: Draw, say: Callable[[str], None], *, live: bool) -> None:
        self.draw, self.say, self.live = draw, say, live
        self.handle, self.failed = None, False
        self.rows: Sequence[dict] = ()
        self.losses: list[float] = []
        self.fresh: list[Tensor] = []  # on the device: to read one is to wait for it

    def start(self, first: int, total: int, steps: int, look: Look | None = None) -> None:
        """Before the first step; `first` of `total` steps are done already, `steps` are an epoch."""
        self.first, self.total, self.steps, self.look = first, total, steps, look
        self._attempt(self.draw.note)
        self.next = time.perf_counter() + FIRST  # whatever that took, which is mostly imports

    def step(self, loss: Tensor) -> None:
        """A step is done; its loss, on the device."""
        self.fresh.append(loss)
        if self.live and time.perf_counter() >= self.next:
            self._attempt(self._show)

    def end_epoch(self, rows: Sequence[dict]) -> None:
        """An epoch is tested; `rows` are all so far. What is due is done, and at the end of the last the picture."""
        self.rows = rows
        self._read()  # the device was waited for just now
        if rows[-1]["epoch"] * self.steps >= self.total or (self.live and len(rows) == 1):
            self._attempt(self._show)
        elif time.perf_counter() >= self.next:
            self._attempt(self._show if self.live else self.draw.note)

    def _show(self, sight: Sight) -> None:
        from IPython.display import display

        self.draw.note(sight)
        picture = self.draw.picture(sight)
        if self.handle is None:
            self.handle = display(picture, display_id=True)
        else:
            self.handle.update(picture)

    def _read(self) -> None:
        if self.fresh:
            import torch

            self.losses += torch.stack(self.fresh).tolist()
            self.fresh = []

    def _attempt(self, what: Callable[[Sight], None]) -> None:
        """Do it, and put off the next for as long as this was dear."""
        if self.failed:
            return
        begun = time.perf_counter()
        try:
            self._read()
            what(Sight(self.rows, self.losses, self.first, self.steps, self.look))
        except Exception as error:  # whatever it is: a training is worth more than its picture
            self.failed = True
            self.say(f"no picture of this training: {type(error).__name__}: {error}")
        done = time.perf_counter()
        self.next = done + (done - begun) * (1 / SHARE - 1)
