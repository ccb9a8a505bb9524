"""Errors that a user can mend, and how they are told.

Each message names the parameter or file, its value, the rule and the way out.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

_SHOWN = 160  # characters of a value in a message
_LONGEST = 20_000  # of a line of a message, which may name forty files
Main = Callable[..., int]


class AttnetError(ValueError):
    """Base of every error that `attnet` raises on purpose; the command line prints it without a traceback.

    What it quotes may come from anybody's file: its lines are text for every terminal, of bounded length.
    """

    def __init__(self, *words: object) -> None:
        super().__init__(*(_tellable(word) if isinstance(word, str) else word for word in words))


class ConfigError(AttnetError):
    """A parameter is unknown, of the wrong type, out of range, or at odds with another one."""


class DataError(AttnetError):
    """A data set is missing, damaged, unsafe to read, or not what its name says."""


class WeightsError(AttnetError):
    """A weights file cannot be read, or does not belong to the network it is loaded into."""


class SaveError(AttnetError, OSError):
    """A checkpoint could not be written; the ones before it are whole."""


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6, otherwise: str | None = None) -> str:
    """What was probably meant, as part of a sentence; else `otherwise`, by default all that there is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are {', '.join(known)}" if otherwise is None else otherwise


def printable(text: object) -> str:
    r"""Text that every file and terminal takes: what is no UTF-8 in a file's name, or steers a terminal or the order
    of letters, as `\xb2`."""
    # Python keeps the byte 0xb2 of a name as the character 0xdcb2, which nothing can encode.
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", _escaped, str(text))


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def brief(text: str, most: int) -> str:
    """Text of `most` characters: of a longer one its beginning and its end, which often holds the way out."""
    if len(text) <= most:
        return text
    left_out = f" … ({len(text):,} characters) … "
    room = most - len(left_out)
    return text[: room - room // 3] + left_out + text[len(text) - room // 3 :]


def _tellable(message: str) -> str:
    return "\n".join(brief(printable(line), _LONGEST) for line in message.split("\n"))


def shown(value: object) -> str:
    """A value as messages name it: as Python writes it, a long one cut."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line beside the work at once, on stdout unless another stream is given.

    Where nobody can read it any more (a terminal that was closed, a pipe whose reader has ended, a full disk), the work
    that it speaks of goes on in silence.
    """
    stream = sys.stdout if stream is None else stream
    try:
        _put(text, stream)
    except (OSError, ValueError):  # ValueError: somebody has closed it
        _silence(stream)


def answer(text: str) -> None:
    """Print on stdout what a command was asked for, and leaves nowhere else.

    Raises:
        AttnetError: it cannot be written, as to a full disk. BrokenPipeError: who reads it has had enough.
    """
    try:
        _put(text, sys.stdout)
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence(sys.stdout)
        raise AttnetError(
            f"standard output cannot be written ({error.strerror}): the answer is not whole; mend that, or send it "
            "somewhere else"
        ) from None


def _put(text: str, stream: TextIO | None) -> None:
    try:
        print(text, file=stream, flush=True)
    except UnicodeEncodeError:  # in a script of somebody's own on a machine that knows ASCII alone
        print(text.encode(stream.encoding, "replace").decode(stream.encoding), file=stream, flush=True)


def _silence(stream: TextIO) -> None:
    """Lead a broken stream nowhere: what it still holds would otherwise fail again when the process ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stream of no file, none at all
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _open_streams() -> None:
    """Lead standard streams that are closed nowhere: the next file to be opened would take the number of one, and what
    any library has to say would go into that file."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            os.set_inheritable(nowhere, nowhere == number)
            setattr(sys, name, os.fdopen(nowhere, "r" if number == 0 else "w", encoding="utf-8", errors="replace"))


def in_sentences(main: Main) -> Main:
    """`main(arguments, ...) -> exit status` with a sentence in place of a traceback.

    Status 2 for an AttnetError, a mistake that the user can mend, and 128 + the signal's number for a training that
    was stopped and saved, as a shell says it, for Ctrl-C elsewhere, or for output that nobody reads to its end
    (SIGPIPE).
    """

    @functools.wraps(main)
    def told(arguments: Sequence[str] | None = None, **more: object) -> int:
        _open_streams()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a log in another encoding is no reason to fail
                stream.reconfigure(errors="replace")
        try:
            return main(arguments, **more)
        except AttnetError as error:
            say(f"attnet: {error}", sys.stderr)
            return 2
        except BrokenPipeError:  # `attnet report | head`
            _silence(sys.stdout)
            return 128 + 13
        except KeyboardInterrupt as stop:
            say(f"attnet: {str(stop) or 'stopped by Ctrl-C'}", sys.stderr)
            return 128 + getattr(stop, "signal_number", signal.SIGINT)

    return told
