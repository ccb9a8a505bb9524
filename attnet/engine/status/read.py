"""A run folder's files, read in pieces of bounded size and believed in nothing: an entry of another type than it should
have is as if it were not there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from attnet.base.errors import AttnetError
from attnet.base.files.opening import open_plain
from attnet.base.json_files import misfit, parse
from attnet.base.processes import began, is_alive, pid_of
from attnet.base.words import printable
from attnet.engine.holding import lease
from attnet.engine.holding.lock import owner_of
from attnet.engine.names import CLAIM, LOG, OURS, OWNER, PULSES

SMALL = 1 << 16  # bytes of a small file that are read at most
_RANKS, _RUNS, _FOLDERS = 1024, 2_000, 20_000  # that are looked at, at most
_FIGURES = {"lr": float, "train_loss": float, "test_loss": float, "top1": float, "fps": float, "seconds": float}
_ROW = {"epoch": int, **_FIGURES, "steps": int, "trace": list[float], "trace_of_rank_0": list[float]}
_SIGN = {
    **{"rank": int, "size": int, "pid": int, "host": str, "keeper": int | None, "every": float, "epochs": int},
    **{"epoch": int, "step": int, "steps": int, "images": int, "rate": float | None, "still": float, "ended": str},
    **{"trace": list[float], "traced": int},
}
_CONFIG = {
    **{"total_epochs": int | None, "model": str | None, "seed": int, "device_num": int, "train_batch_size": int | None},
    **{"dataset": str, "data_path": str, "mode": str, "num_classes": int | None},
    **{"train_images": int | None, "test_images": int | None},
}


def tail(file: Path, most: int) -> tuple[bytes, float]:
    """The last bytes of a plain file, and how many seconds ago it was written; b"" and infinity where there is none."""
    with contextlib.suppress(OSError, ValueError), open_plain(file) as stream:
        seen = os.fstat(stream.fileno())
        stream.seek(max(0, seen.st_size - most))
        return stream.read(most), max(0.0, time.time() - seen.st_mtime)
    return b"", float("inf")


def entries(blob: bytes, form: Mapping[str, object] = _CONFIG) -> dict[str, object]:
    """The entries of a JSON object that have their types; nothing of what is no JSON object."""
    try:
        content = parse(blob)
    except AttnetError:
        return {}
    if not isinstance(content, dict):
        return {}
    return {name: value for name, value in content.items() if name in form and not misfit({name: value}, form)}


def rows_of(blob: bytes) -> list[dict]:
    """The epochs' rows in order, without those that are torn or lack a figure."""
    rows = (entries(line, _ROW) for line in blob.splitlines() if line.strip())
    good = {row["epoch"]: row for row in rows if row.keys() >= {"epoch", *_FIGURES} and 0 < row["epoch"] <= 100_000}
    return [good[epoch] for epoch in sorted(good)]


def lines_of(blob: bytes) -> list[str]:
    return [printable(line) for line in blob.decode(errors="replace").splitlines()]


def signs_of(folder: Path) -> list[tuple[dict, float]]:
    """Each rank's last sign with its age in seconds, by rank."""
    try:
        with os.scandir(folder / PULSES) as there:
            names = [entry.name for entry in itertools.islice(there, 2 * _RANKS)]
    except (OSError, ValueError):
        return []
    found = {}
    for name in names:
        if (number := re.fullmatch(r"rank(\d{1,6})\.json", name)) and len(found) < _RANKS:
            blob, age = tail(folder / PULSES / name, SMALL)
            sign = entries(blob, _SIGN)
            if sign.get("rank") == int(number[1]) and sign.keys() >= {"size", "pid", "host", "epoch", "step", "steps"}:
                found[sign["rank"]] = sign, age
    return [found[rank] for rank in sorted(found)]


def holder(folder: Path) -> tuple[int, str, float]:
    """Process and machine that last held a folder, and seconds since then; 0 where nobody did."""
    _, age = tail(folder / OWNER, 0)
    said = owner_of(folder)
    known = bool(said) and 0 < said["process"] < 2**31
    return (said["process"], printable(said["host"])[:60], age) if known else (0, "", age)


def worker(folder: Path) -> tuple[int, str]:
    """The worker of a sweep that has a run now: its process, where that is one of this machine, else 0, and its name;
    (0, "") where none has it.
    """
    seen = lease.look(folder)
    if not seen.is_held or lease.is_orphan(seen):
        return 0, ""
    return pid_of(seen.process), printable(seen.worker)[:60]


def launcher(folder: Path) -> int:
    """The launcher of this machine that has claimed a folder and lives; 0 for none."""
    blob, age = tail(folder / CLAIM, 100)
    text = blob.decode(errors="replace").strip()
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) and lives(int(text), age) else 0


def lives(pid: int, age: float) -> bool:
    """Whether the process that wrote a file so many seconds ago lives; its number may be another's by now."""
    if not 0 < pid < 2**31 or not is_alive(pid):
        return False
    since = began(pid)
    return since is None or since <= time.time() - age + 2


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, or of one that is being started; not that of several."""
    if any(os.path.lexists(folder / name) for name in (*OURS, LOG, CLAIM, PULSES)):
        return True
    return os.path.lexists(folder / OWNER) and next(runs_below(folder), None) is None


def runs_below(folder: Path, depth: int = 3) -> Iterator[Path]:
    """Run folders below one, by name, not below each other; links are not followed."""
    return itertools.islice(_below(folder, depth, itertools.repeat(None, _FOLDERS)), _RUNS)


def _below(folder: Path, depth: int, budget: Iterator[None]) -> Iterator[Path]:
    try:
        with os.scandir(folder) as there:
            folders = sorted(e.name for e in there if not e.name.startswith(".") and e.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in folders:
        if next(budget, 0) == 0:
            return
        path = folder / name
        if any(os.path.lexists(path / file) for file in (*OURS, CLAIM, PULSES)):
            yield path
        elif depth > 1:
            yield from _below(path, depth - 1, budget)
