"""Writing without ever losing what was there."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol

from attnet.base.errors import AttnetError, SaveError


class Guard(Protocol):
    """The right to write in a folder, which may be lost to another process (see `attnet.engine.holding.lease`)."""

    def beside(self, path: Path) -> Path:
        """Where what is to replace `path` is written first."""

    def check(self) -> None:
        """Raise an AttnetError where the right is lost: asked when the new file is there, before it is renamed."""


class Free:
    """The guard of what anybody may write."""

    def beside(self, path: Path) -> Path:
        return path.with_name(path.name + ".tmp")

    def check(self) -> None:
        pass


class OneOfMany(Free):
    """The guard of what several processes may write at once, each as a whole; the last one's stays."""

    def beside(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


FREE = Free()


def write_text(path: Path, text: str, guard: Guard = FREE) -> None:
    """Replace a small file atomically; UTF-8 whatever the machine's encoding.

    What no UTF-8 can hold, as a byte of a file's name, is written as an escape: JSON and scripts read it back.
    """
    write_bytes(path, text.encode(errors="backslashreplace"), guard)


def write_bytes(path: Path, content: bytes, guard: Guard = FREE) -> None:
    """Replace a file atomically.

    Raises:
        SaveError: it cannot be written; what was there is untouched. AttnetError: as `guard` says.
    """
    fresh = guard.beside(path)
    with _taken_away(fresh, path, guard):
        with _new(fresh) as file:
            file.write(content)
        guard.check()
        os.replace(fresh, path)


def save(state: Mapping[str, object], path: Path, keep: Path | None = None, guard: Guard = FREE) -> None:
    """Write a checkpoint, a dict of plain values and tensors, so that a crash at any moment leaves a readable file.

    Written beside `path`, flushed to the disk, read back, then renamed over it; tensors are moved to the CPU, so that
    `torch.load(weights_only=True)` reads it on any device type. `keep` names where the file that was at `path` goes.

    Raises:
        SaveError: it cannot be written, for instance to a full disk; what was there is untouched. AttnetError: as
            `guard` says.
    """
    import torch  # here, since most of what writes files does without

    fresh = guard.beside(path)
    with _taken_away(fresh, path, guard, f'. Mend that and go on with resume="{path.parent}"'):
        with _new(fresh) as file:
            torch.save(_on_cpu(state), file)
            file.flush()
            os.fsync(file.fileno())
        torch.load(fresh, map_location="cpu", weights_only=True)
        if keep is not None and path.exists():
            _copy(path, keep, guard)
        guard.check()
        os.replace(fresh, path)


def _copy(path: Path, other: Path, guard: Guard) -> None:
    """Let `other` hold what is at `path`, by a second name where the file system knows such, which costs nothing."""
    fresh = guard.beside(other)
    _remove(fresh)
    try:
        os.link(path, fresh)
    except OSError:
        shutil.copyfile(path, fresh)
    try:
        guard.check()
        os.replace(fresh, other)
    finally:
        _remove(fresh)  # still there where both were names of one file, or another's to write


@contextlib.contextmanager
def _taken_away(fresh: Path, path: Path, guard: Guard, mend: str = "") -> Iterator[None]:
    """Take a new file away that could not be put in its place; SaveError in place of what the disk answers."""
    try:
        yield
    except AttnetError:
        _remove(fresh)
        raise
    except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
        _remove(fresh)
        guard.check()  # it may be that another took it away
        what = f"{path}: could not be written"
        if not path.parent.is_dir():
            raise SaveError(f"{what}: {path.parent} is gone, taken away or called otherwise in the meantime") from error
        why = error.__context__ if isinstance(error.__context__, OSError) else error  # torch's own words hide the cause
        raise SaveError(f"{what} ({why}); what was there before is kept{mend}") from error


def _new(fresh: Path) -> BinaryIO:
    """A file that was not there a moment ago: what a crash left is taken away, and no link is followed."""
    fresh.unlink(missing_ok=True)
    return open(fresh, "xb")


def _remove(fresh: Path) -> None:
    with contextlib.suppress(OSError):
        fresh.unlink()


def _on_cpu(value: object) -> object:
    if hasattr(value, "detach"):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on_cpu(item) for item in value]
    return value
