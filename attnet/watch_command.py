"""A run, or a sweep, watched from anywhere: `attnet watch` in a terminal, `attnet.watch(folder)` in a notebook."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnet.base.errors import AttnetError, in_sentences, say
from attnet.base.files import resolve_path
from attnet.engine.status.facts import STATES
from attnet.engine.status.watched import Watched, WatchedRuns, watched
from attnet.engine.status.words import MARKS, PLAIN

if TYPE_CHECKING:
    from attnet.plots.viewer.watching import Still, WatchView

EVERY = 2.0  # seconds between looks
NARROWEST = 30  # columns: less may be said, by COLUMNS or a window being made, and nothing is to be read there
KEYS = "q leaves, the run goes on; s asks it to stop"
LEAVE = "Ctrl-C leaves, the run goes on"  # where no keys can be read
ASKING = "stop it? It saves itself first. y stops it, any other key goes on"


def watch(folder: str | Path) -> WatchView | Still:
    """A run, or the runs of a folder, as the last line of a notebook cell: its curves, rate, time left, ranks, log.

    It follows the run until that ends, in the background: other cells run meanwhile. All of it comes from the run's
    folder, so it does not matter who started the run, and where; after closing the browser run the cell again. Where
    nobody looks, as under papermill, it is one look.

    Args:
        folder: of a run, or a folder of runs, as a sweep's; a relative path starts at the repository root.

    Raises:
        ConfigError: no run is there.
    """
    from attnet.plots.viewer.watching import view

    return view(watched(resolve_path(folder)))


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status tells the state that was seen last, 0 also when left by a key."""
    options = _parser().parse_args(arguments)
    what = watched(resolve_path(options.folder))
    if options.stop:
        say(what.stop())
        return 0
    if options.once:
        what.look()
        say("\n".join(what.frame(*_size())))
        return what.exit_status
    try:
        in_place = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        return _redrawn(what) if in_place else _told(what)
    except KeyboardInterrupt:  # Ctrl-C leaves; the run goes on
        return 0


def _parser() -> argparse.ArgumentParser:
    means = ", ".join(f"{status} {state}" for state, (status, _) in STATES.items())
    parser = argparse.ArgumentParser(
        prog="attnet watch",
        description="Follow a run, or the runs of a sweep, from its folder alone: whoever started it, on whatever "
        f"machine. It costs the run nothing. On a terminal {KEYS}.",
        epilog=f"Exit status by the state that was seen last: {means}; 0 when left by a key, 2 where no run is.",
    )
    parser.add_argument("folder", metavar="RUN|SWEEP", help="the folder of a run, or one with runs below it")
    parser.add_argument("--once", action="store_true", help="one look, then end")
    parser.add_argument("--stop", action="store_true", help="ask it to save itself and stop; resume goes on from there")
    return parser


def _size() -> tuple[int, int, str]:
    size = shutil.get_terminal_size((80, 40))
    try:
        MARKS.encode(sys.stdout.encoding or "ascii")
        marks = MARKS
    except (UnicodeError, LookupError):
        marks = PLAIN
    return max(NARROWEST, size.columns), size.lines, marks


def _told(what: Watched | WatchedRuns) -> int:
    """For a pipe or a log: a line whenever something has changed."""
    before = None
    while True:
        what.look()
        if (now := what.told()) != before:
            say(what.line())
            before = now
        if not what.is_at_work:
            return what.exit_status
        time.sleep(EVERY)


def _redrawn(what: Watched | WatchedRuns) -> int:
    """For a terminal: in place, until the run ends or a key is pressed."""
    drawn = 0
    with _keys() as pressed:
        words = KEYS if pressed else LEAVE
        while True:
            what.look()
            width, height, marks = _size()
            last = textwrap.wrap(words, width)[:3] if what.is_at_work else []
            room = max(1, height - 1 - len(last))
            lines = [*what.frame(width, room, marks)[:room], *last]
            back = f"\x1b[{drawn}F" if drawn else ""
            say(f"{back}\x1b[J" + "\n".join(lines))
            drawn = len(lines)
            if not what.is_at_work:
                return what.exit_status
            if not pressed:
                time.sleep(EVERY)
                continue
            key = pressed(EVERY)
            if key == "q":
                return 0
            if words == ASKING and key == "y":
                words = _asked(what)
            elif key or words == KEYS:
                words = ASKING if key == "s" else KEYS


def _asked(what: Watched | WatchedRuns) -> str:
    """Ask it to stop; what comes of it."""
    try:
        return what.stop()
    except AttnetError as error:
        return str(error)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str] | None]:
    """A function that waits so many seconds for a key, and gives it or ""; None where no keys can be read."""
    try:
        import select
        import termios
        import tty

        before = termios.tcgetattr(sys.stdin) if sys.stdin.isatty() else None
    except (ImportError, OSError, ValueError, AttributeError):  # of no file, or not Unix
        before = None
    if before is None:
        yield None
        return

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return os.read(sys.stdin.fileno(), 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(sys.stdin)
        yield pressed
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
