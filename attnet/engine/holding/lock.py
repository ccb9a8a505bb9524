"""The lock of a run's folder: one process writes in it, and the lock goes when that process does.

Between machines it holds only where their file system carries locks over; a worker's lease (`lease.py`) asks for none.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
from pathlib import Path

from filelock import FileLock, Timeout

from attnet.base.errors import AttnetError, ConfigError, SaveError
from attnet.base.files.atomic import write_text
from attnet.base.json_files import read_object
from attnet.engine.holding.lease import Lease
from attnet.engine.names import LOCK, OWNER

PATIENCE = 2.0  # seconds that a training with a lease waits for who only looks whether the folder is free
# What a file system answers that has no locks: everything else works there.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_OWNER = {"process": int, "host": str, "lease": int}  # what the file says


class InUse(ConfigError):
    """Another process works in the folder."""


def hold(path: Path, lease: Lease | None = None) -> FileLock | None:
    """A lock that no second process can hold. None where the file system has no locks, and where the process that
    holds it has lost its lease to ours: it may sleep for ever, and can write nothing when it wakes.

    Raises:
        InUse: another process holds it. Lost: so has another our lease. ConfigError: the folder cannot be written, or
            .lock is no plain file: through a link what it leads to would be emptied, and a pipe never opens.
    """
    lock = FileLock(path / LOCK)
    if os.path.lexists(lock.lock_file) and not stat.S_ISREG(os.lstat(lock.lock_file).st_mode):
        raise ConfigError(f"output_dir={path}: its .lock is no plain file; take it away, or give another output_dir")
    about = {"process": os.getpid(), "host": socket.gethostname()}
    if lease is not None:
        lease.beat()
        about["lease"] = lease.number
    try:
        lock.acquire(timeout=0 if lease is None else PATIENCE)
        with contextlib.suppress(SaveError):  # a full disk; only who waits would have liked to know
            write_text(path / OWNER, json.dumps(about))
    except Timeout:
        if not os.path.exists(lock.lock_file):
            raise ConfigError(f"output_dir={path}: cannot be written; mend that, or give another one") from None
        owner = owner_of(path)
        if lease is not None and 0 < owner.get("lease", 0) < lease.number:
            return None
        who = f" by process {owner['process']} on {owner['host']}" if owner else ""
        raise InUse(f"output_dir={path}: in use{who}; wait for it, or give another output_dir") from None
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise ConfigError(
                f"output_dir={path}: cannot be written ({error.strerror}); mend that, or give another one"
            ) from None
        return None
    return lock


def user_of(path: Path) -> dict[str, object] | None:
    """Who works in a folder: its `process`, `host` and, of a worker's training, `lease`; {} where that is not known,
    None where nobody does, or no locks can tell."""
    if not os.path.exists(path / LOCK):
        return None
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return owner_of(path)
    except (NotImplementedError, OSError):
        return None
    lock.release()
    return None


def owner_of(path: Path) -> dict[str, object]:
    """What the process that has a folder says of itself, as `user_of`; {} where nothing is said."""
    with contextlib.suppress(AttnetError):
        owner = read_object(path / OWNER, _OWNER)
        if {"process", "host"} <= owner.keys():
            return owner
    return {}
