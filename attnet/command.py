"""What the command lines share: mistakes and interruptions as a sentence with an exit status, lists as text."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence

from attnet.errors import AttnetError, ConfigError
from attnet.interrupt import TrainingInterrupted

Main = Callable[[Sequence[str] | None], int]


def in_sentences(main: Main) -> Main:
    """`main(arguments) -> exit status` with a sentence in place of a traceback.

    Status 2 for an AttnetError, a mistake that the user can mend, and 128 + the signal's number for a training that
    was stopped and saved, as a shell says it.
    """

    @functools.wraps(main)
    def told(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except AttnetError as error:
            print(f"attnet: {error}", file=sys.stderr)
            return 2
        except TrainingInterrupted as stop:
            print(f"attnet: {stop}", file=sys.stderr)
            return 128 + stop.signal_number

    return told


def listed(text: str) -> list[str]:
    """ "a, b" as ["a", "b"]; nothing in, nothing out."""
    return [word.strip() for word in text.split(",") if word.strip()]


def listed_seeds(text: str) -> list[int]:
    """ "0,1,2" as [0, 1, 2]; ConfigError for anything but whole numbers."""
    if not all(word.isdecimal() for word in listed(text)):
        raise ConfigError(f"seeds={text!r}: whole numbers with commas between are needed, as 0,1,2")
    return [int(word) for word in listed(text)]
