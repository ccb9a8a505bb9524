"""Showing a run while it goes: a bar and a live curve for somebody who looks, a line an epoch for a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from attnet.base.errors import say
from attnet.base.watching import Draw, Watch
from attnet.base.words import duration

if TYPE_CHECKING:
    from torch import Tensor

    from attnet.base.watching import Look

# Seconds between signs of life within one epoch, and between refreshes of the bar's loss (each waits for the device).
HEARTBEAT, REFRESH = 120.0, 1.0
READING = 15.0  # seconds between lines while files are read
ENGINE = "ATTNET_ENGINE"  # variable by which papermill's engine `attnet` makes itself known to its kernel
_T = TypeVar("_T")


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    return _kernel() is not None


def somebody_looks() -> bool:
    """True in JupyterLab and on a terminal; False under papermill, nbconvert, in CI and in pipes.

    A front end with a person in front of it lets the kernel ask for input; headless runners do not.
    """
    kernel = _kernel()
    if kernel is None:
        return sys.stderr is not None and sys.stderr.isatty()
    try:
        return bool(kernel._allow_stdin)
    except AttributeError:
        return False


def unsaved_end() -> str:
    """What a reader of an executed notebook has to know of a training in its kernel; "" where there is nothing.

    Nothing that the kernel could do would help: papermill's end ends it by `os._exit`.
    """
    if ENGINE in os.environ or not in_notebook() or somebody_looks():
        return ""
    return (
        "SIGTERM would end this kernel at once, and what was done since the last checkpoint would be lost; under "
        "`papermill --engine attnet` a training saves itself"
    )


def kernel_shell() -> object | None:
    """The shell of the Jupyter kernel that this process is; None where it is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if getattr(shell, "kernel", None) is not None else None


def _kernel() -> object | None:
    return getattr(kernel_shell(), "kernel", None)


def tracked(items: Iterable[_T], total: int, what: str) -> Iterator[_T]:
    """Hand `items` on, with a bar for somebody who looks, else a line on stderr where it takes long."""
    if somebody_looks():
        from tqdm.auto import tqdm

        yield from tqdm(items, total=total, desc=what, unit="", dynamic_ncols=True, leave=False)
        return
    shown = time.perf_counter()
    for done, item in enumerate(items, 1):
        yield item
        if (now := time.perf_counter()) - shown >= READING and done < total:
            shown = now
            say(f"{what}: {done:,} of {total:,}", sys.stderr)


def told(what: str) -> Callable[..., None]:
    """For the `progress` of a long calculation, called with a line, or with how much is done of how much: a bar for
    somebody who looks, nothing for nobody."""
    if not somebody_looks():
        return lambda *_now: None
    from tqdm.auto import tqdm

    bar = tqdm(desc=what, unit="", dynamic_ncols=True, leave=False)

    def tell(*now: str | int) -> None:
        if len(now) == 2:
            bar.n, bar.total = now
        else:
            bar.set_description(f"{what}: {now[0]}", refresh=False)
        bar.refresh()

    return tell


def epoch_line(row: dict, epochs: int) -> str:
    """One epoch's row of metrics.jsonl as a line."""
    flipped = f" ({row['top1_flip']:.2f} % with mirror images)" if "top1_flip" in row else ""
    size = f" at {row['image_size']} pixels" if "image_size" in row else ""
    return (
        f"epoch {row['epoch']}/{epochs}{size}  lr {row['lr']:g}  train_loss {row['train_loss']:.4f}  "
        f"test_loss {row['test_loss']:.4f}  top1 {row['top1']:.2f} %{flipped}  {row['fps']:,.0f} images/s  "
        f"{duration(row['seconds'])}"
    )


class Stopwatch:
    """Wall and processor seconds of this process over stretches of work: a shared machine's wall clock says little.

    `start` and `stop` bound a stretch; `wall` and `processor` may be read within one.
    """

    def __init__(self, wall: float = 0.0, processor: float = 0.0) -> None:
        self._before, self._begun = (wall, processor), None

    def start(self) -> None:
        self._begun = (time.perf_counter(), time.process_time())

    def stop(self) -> None:
        self._before, self._begun = (self.wall, self.processor), None

    @property
    def wall(self) -> float:
        return self._before[0] + (time.perf_counter() - self._begun[0] if self._begun else 0.0)

    @property
    def processor(self) -> float:
        return self._before[1] + (time.process_time() - self._begun[1] if self._begun else 0.0)


class Progress:
    """A line an epoch through `emit`, and a sign of life every two minutes within a long one; with a `watch`, a picture
    under a notebook's cell."""

    def __init__(self, emit: Callable[[str], None], watch: Watch | None = None) -> None:
        self.emit, self.watch = emit, watch

    def start(self, first_epoch: int, epochs: int, steps: int, done: int = 0, look: Look | None = None) -> None:
        """Called once, before the first step; `first_epoch` is 1 unless the run was resumed, when `done` of its steps
        may be done. `look` as in `Sight`."""
        self.epochs, self.steps = epochs, steps
        if self.watch is not None:
            self.watch.start((first_epoch - 1) * steps + done, epochs * steps, steps, look)

    def begin_epoch(self, epoch: int, step: int) -> None:
        """`step` steps of the epoch are done already (more than 0 only after a resume)."""
        self.epoch, self.first_step = epoch, step
        self.begun = self.shown = time.perf_counter()

    def step(self, done: int, loss: Tensor) -> None:
        """`done` steps of the epoch are done; `loss` is the last one's, on the device."""
        if self.watch is not None:
            self.watch.step(loss)
        now = time.perf_counter()
        if now - self.shown >= HEARTBEAT and done < self.steps:
            self.shown = now
            left = (now - self.begun) / (done - self.first_step) * (self.steps - done)
            self.emit(f"  epoch {self.epoch}: step {done} of {self.steps}, loss {loss:.4f}, {duration(left)} left")

    def test(self, done: int, batches: int) -> None:
        """`done` test batches of the epoch are done, of so many."""
        now = time.perf_counter()
        if now - self.shown >= HEARTBEAT:
            self.shown = now
            self.emit(f"  epoch {self.epoch}: {done} of {batches} test batches")

    def end_epoch(self, rows: list[dict]) -> None:
        """An epoch is tested; `rows` are all epochs so far."""
        self.emit(epoch_line(rows[-1], self.epochs))
        if self.watch is not None:
            self.watch.end_epoch(rows)

    def close(self) -> None:
        """Nothing more comes."""


class LiveProgress(Progress):
    """A tqdm bar over the steps besides."""

    def start(self, first_epoch: int, epochs: int, steps: int, done: int = 0, look: Look | None = None) -> None:
        from tqdm.auto import tqdm

        super().start(first_epoch, epochs, steps, done, look)
        self.bar = tqdm(total=epochs * steps, initial=(first_epoch - 1) * steps, unit="step", dynamic_ncols=True)

    def begin_epoch(self, epoch: int, step: int) -> None:
        super().begin_epoch(epoch, step)
        self.bar.n = (epoch - 1) * self.steps + step
        self.bar.set_description(f"epoch {epoch}/{self.epochs}")

    def step(self, done: int, loss: Tensor) -> None:
        if self.watch is not None:
            self.watch.step(loss)
        now = time.perf_counter()
        if now - self.shown >= REFRESH:
            self.shown = now
            self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        self.bar.update()

    def test(self, done: int, batches: int) -> None:
        self.bar.set_postfix_str(f"testing, {done} of {batches} batches", refresh=True)

    def close(self) -> None:
        self.bar.close()


def make_progress(kind: str, log: Callable[[str], None], draw: Draw | None = None) -> Progress:
    """The progress display named by the parameter `progress`; every line also goes to `log`.

    `draw` makes a picture of it in a notebook: with "auto", growing where somebody looks, else one at the end.
    """
    drawn = draw is not None and in_notebook() and kind in ("auto", "live")
    if kind == "auto":
        kind = "live" if somebody_looks() else "lines"

    def emit(line: str) -> None:
        log(line)
        if kind == "live":
            from tqdm.auto import tqdm

            with tqdm.external_write_mode():  # above the bar, not into it
                say(line)
        elif kind == "lines":
            say(line)

    watch = Watch(draw, emit, live=kind == "live") if drawn else None
    return LiveProgress(emit, watch) if kind == "live" else Progress(emit, watch)
