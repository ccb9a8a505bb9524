"""Ctrl-C and SIGTERM as a request to stop at the next step, where everything can be saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType

# How the message of a run that was stopped and saved begins.
STOPPED = "stopped by"


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal; everything is saved and the message says how to go on."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopSignal:
    """Turns Ctrl-C and SIGTERM into a request to stop after the current step; a second Ctrl-C stops at once.

    `number` is the signal that came, or None. Signals can only be caught in the main thread; elsewhere this does
    nothing and Python's own handling stays.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> StopSignal:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number
