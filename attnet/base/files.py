"""Files: where relative paths start, writing without ever losing what was there, and the envelope of a record."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shlex
import shutil
import socket
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import BinaryIO, Protocol, TextIO

from attnet.base.errors import AttnetError, ConfigError, SaveError, shown
from attnet.base.json_files import to_json

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
# Bytes, of Linux and with few exceptions of its file systems; others take about as much.
_LONGEST_NAME, _LONGEST_PATH = 255, 4095


def repository_root() -> Path:
    """Where relative paths start: the checkout that holds this package, else the working directory."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def resolve_path(path: str | Path) -> Path:
    """An absolute path; a relative one starts at the repository root, wherever the kernel was started.

    Raises:
        ConfigError: as `expand_path`.
    """
    return repository_root() / expand_path(path)


def expand_path(path: str | Path, name: str = "path") -> str:
    """A path with `~`, `~user` and, in text, `$VARIABLE` and `${VARIABLE}` replaced: a parameter file and a notebook go
    through no shell.

    Args:
        path: of a Path a dollar is a part.
        name: the parameter that it is the value of.

    Raises:
        ConfigError: a variable or user that is not here, or what no file system takes as a path.
    """
    text = os.fspath(path)
    variables = [found[1] or found[2] for found in _VARIABLE.finditer(text)] if isinstance(path, str) else []
    if missing := [variable for variable in variables if variable not in os.environ]:
        raise ConfigError(
            f"{name}={shown(text)}: there is no environment variable {missing[0]} here; set it, or write the path out"
        )
    replaced = _VARIABLE.sub(lambda found: os.environ[found[1] or found[2]], text) if variables else text
    expanded = os.path.expanduser(replaced)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0][1:]
        why = f"there is no user {user} here" if user else "no home folder is known here (HOME is not set)"
        raise ConfigError(f"{name}={shown(text)}: {why}; write the path out, or ./{expanded} for what is called so")
    try:
        lengths = [len(os.fsencode(part)) for part in Path(expanded).parts]
    except UnicodeEncodeError:
        raise ConfigError(
            f"{name}={shown(text)}: cannot be written in this machine's encoding ({sys.getfilesystemencoding()}); "
            "give another name, or set PYTHONUTF8=1"
        ) from None
    if "\0" in expanded:
        raise ConfigError(f"{name}={shown(text)}: holds a NUL character, which no path may; take it out")
    if max(lengths, default=0) > _LONGEST_NAME or sum(lengths) + len(lengths) > _LONGEST_PATH:
        raise ConfigError(
            f"{name}={shown(text)}: too long; file systems take names of {_LONGEST_NAME} bytes and paths of "
            f"{_LONGEST_PATH}"
        )
    return expanded


def listed_folders(given: str | Sequence[str | Path]) -> list[str]:
    """Folders from a list, or from text with spaces between; one that itself holds spaces is quoted, or alone."""
    if not isinstance(given, str):
        return [str(folder) for folder in given]
    if resolve_path(given).exists():
        return [given] if given.strip() else []
    try:
        return shlex.split(given)
    except ValueError:
        raise ConfigError(f"folders={shown(given)}: a quotation mark has no partner; add it, or give a list") from None


def relative_to_root(path: Path) -> str:
    """A path as a user would type it: relative where it lies below the repository root."""
    root = repository_root()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def append_to(path: str | Path) -> TextIO:
    """Open a log to add lines to; it is made where it is missing. UTF-8, and no character is too much for it.

    A folder may come from anybody: through a link there the lines would go into a file somewhere else, and a pipe
    never opens.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
            raise OSError(error.errno, "it is no plain file; take it away") from None
        raise
    file = os.fdopen(handle, "a", encoding="utf-8", errors="replace")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no plain file; take it away")
    return file


def own_folder(path: str | Path) -> Path:
    """A folder of ours within another, made where it is missing; the outer one may come from anybody, and through a
    link there files would be made, or taken away, somewhere else.

    Raises:
        OSError: it cannot be made, or is a link or no folder.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise OSError(errno.ENOTDIR, f"{Path(path).name} in it is a link or no folder; take it away")
    return Path(path)


def open_plain(path: str | Path) -> BinaryIO:
    """Open a plain file to read it; OSError for anything else: a pipe would keep us waiting."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no plain file")
    return os.fdopen(handle, "rb")


def read_small(path: str | Path, most: int) -> bytes | None:
    """The first bytes of a plain file, `most` of them; None where there is none."""
    with contextlib.suppress(OSError, ValueError), open_plain(path) as file:
        return file.read(most)
    return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits, in a megabyte of memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


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


def output_file(output: str | Path, endings: Sequence[str] = ()) -> Path:
    """Where a result is to go, its folder made: asked before the work, so that nothing is lost after it.

    Args:
        output: a relative path starts at the repository root.
        endings: those that the file may have; none: any.

    Raises:
        ConfigError: another ending, a folder of that name, or a place that cannot be written.
    """
    file = resolve_path(output)
    if endings and file.suffix not in endings:
        raise ConfigError(f"output={str(output)!r}: give a file that ends in {' or '.join(endings)}")
    with writing(f"output={str(output)!r}"):
        file.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        raise ConfigError(f"output={str(output)!r}: is a folder; give a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ConfigError(f"output={str(output)!r}: cannot be written; give another place, or mend its permissions")
    return file


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """ConfigError in place of what the disk answers; `what` is the parameter with its value, as folder=runs/a."""
    try:
        yield
    except SaveError:
        raise
    except OSError as error:
        why = error.strerror or error
        raise ConfigError(f"{what}: cannot be written ({why}); mend that, or give another place") from None


def command_line(command: str, arguments: Sequence[str]) -> str:
    """`attnet COMMAND …` as a person types it."""
    return shlex.join(["attnet", command, *arguments])


def write_record(file: Path, content: Mapping[str, object], command: str, guard: Guard = FREE) -> None:
    """Write a measured result as JSON: `kind` and `what` first, then what was found, the command and the date.

    Args:
        file: as `output_file` gives it.
        content: `kind`, and whatever the kind holds; `environment` says on what it was measured.
        command: that makes it again.
        guard: as of `write_text`.
    """
    record = dict(content) | {"command": command}
    record.setdefault("date", date.today().isoformat())
    write_text(file, to_json(record, indent=2, ensure_ascii=False) + "\n", guard)
