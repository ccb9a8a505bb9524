"""A run as its folder tells it: is it at work, how far, how long still, each rank's state, the log's end."""

from __future__ import annotations

import contextlib
import os
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from attnet.base.errors import ConfigError
from attnet.base.processes import STOPPED as STOPPED_LINE
from attnet.base.words import duration, printable
from attnet.engine.names import CONFIG, LAST, LOG, METRICS, PREVIOUS, RESULT, STEP, STOP
from attnet.engine.status.facts import SILENT, Rank, Status
from attnet.engine.status.pulse import STOPPED
from attnet.engine.status.read import SMALL, entries, holder, is_run, launcher, lines_of, lives, rows_of, signs_of, tail

# Bytes that are read of a file at most: of metrics.jsonl its last ones, thousands of epochs.
_METRICS, _LOG = 4 << 20, 1 << 16
_LOST = 30.0  # seconds without a sign after which a run on another machine is given up
_LONGEST = 10 * 365 * 86400.0  # seconds; what would take longer is not worth a figure
_T = TypeVar("_T")


class Looker:
    """Looks at one run folder again and again; what has not changed since is not read again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kept = folder, {}

    def look(self) -> Status:
        """The run as it stands; ConfigError where there is none."""
        folder = self.folder
        if not is_run(folder):
            raise ConfigError(f"{folder}: no run is there (no {CONFIG}); give the folder of a run, or of several")
        config = self._read(CONFIG, SMALL, entries) or {}
        rows = self._read(METRICS, _METRICS, rows_of) or []
        log = self._read(LOG, _LOG, lines_of) or []
        signs = signs_of(folder)
        main = signs[0][0] if signs and signs[0][0]["rank"] == 0 else {}
        ranks = [_rank(sign, age) for sign, age in signs if sign["rank"] < max(1, main.get("size", 2**20))]
        state, where, why = _state(folder, signs, ranks, log)
        epochs = _bounded(main.get("epochs") or config.get("total_epochs"), 100_000)
        epoch = min(_bounded(main.get("epoch"), epochs) if main else max((r["epoch"] for r in rows), default=0), epochs)
        running = state == "running"
        status = Status(
            folder, state, where, why, config, rows, ranks if state != "finished" else [],
            epochs=epochs, epoch=epoch,
            step=_bounded(main.get("step"), 2**40), steps=_bounded(main.get("steps"), 2**40),
            rate=_rate(main, rows) if running else None,
            trace=main.get("trace", []) if running else [],
            traced=_bounded(main.get("traced"), 2**40),
            checkpoint=_checkpoint(folder), log=log,
            asked=running and os.path.lexists(folder / STOP),
        )  # fmt: skip
        return _with_left(status, main) if running else status

    def _read(self, name: str, most: int, form: Callable[[bytes], _T]) -> _T | None:
        """What `form` makes of a file's last bytes; as before where the file is as before."""
        file = self.folder / name
        try:
            seen = os.stat(file)
        except (OSError, ValueError):
            return None
        mark = (seen.st_mtime_ns, seen.st_size, seen.st_ino)
        if self.kept.get(name, (None,))[0] != mark:
            blob, _ = tail(file, most)
            self.kept[name] = mark, form(blob)
        return self.kept[name][1]


def look(folder: Path) -> Status:
    """A run as its folder tells it now; ConfigError where there is none."""
    return Looker(folder).look()


def _rank(sign: Mapping, age: float) -> Rank:
    names = {"rank": 0, "pid": 0, "host": "", "epoch": 0, "step": 0, "steps": 0}
    names |= {"still": 0.0, "every": 1.0, "ended": ""}
    known = {name: sign.get(name, otherwise) for name, otherwise in names.items()}
    return Rank(age=age, **known | {"host": printable(known["host"])[:60], "ended": printable(known["ended"])[:300]})


def _state(
    folder: Path, signs: list[tuple[dict, float]], ranks: list[Rank], log: Sequence[str]
) -> tuple[str, str, str]:
    """Name of the state, who works there, and why it ended."""
    if os.path.lexists(folder / RESULT):
        return "finished", "", ""
    last = log[-1] if log and log[-1].startswith(STOPPED_LINE) else ""
    if not signs:
        pid, host, age = holder(folder)
        if begun_by := launcher(folder):
            return "begins", f"process {begun_by} here", ""
        if last:
            return "stopped", "", last
        if pid and (host != socket.gethostname() or lives(pid, age)):
            return "begins", _place(pid, host), ""
        return "died", "", "it left no sign of life" if (folder / CONFIG).exists() else "it ended before it began"
    main, (sign, age) = ranks[0], signs[0]
    here, place = main.host == socket.gethostname(), _place(main.pid, main.host)
    if not main.ended and (age <= max(SILENT, 5 * main.every) or (here and lives(main.pid, age))):
        return "running", place, ""
    keeper = sign.get("keeper")
    if begun_by := launcher(folder):
        return "begins", f"process {begun_by} here brings its ranks back or ends them", ""
    if main.ended != STOPPED and here and keeper and lives(keeper, age):
        return "begins", f"torchrun, process {keeper} here, brings its ranks back or ends them", ""
    if main.ended == STOPPED or last:
        return "stopped", "", last
    told = next((f"rank {rank.rank}: {rank.ended}" for rank in ranks if rank.ended not in ("", STOPPED)), "")
    if told:
        return "died", "", told if len(ranks) > 1 else told.removeprefix("rank 0: ")
    if not here and age <= _LOST:
        return "running", place, ""
    return (
        "died",
        "",
        f"{place} gave its last sign {duration(age)} ago" + ("" if here else "; or that machine cannot be reached"),
    )


def _place(pid: int, host: str) -> str:
    return f"process {pid} " + ("here" if host == socket.gethostname() else f"on {host}")


def _bounded(value: object, most: int) -> int:
    return min(max(int(value or 0), 0), most)


def _rate(main: Mapping, rows: Sequence[dict]) -> float | None:
    rate = (main.get("rate") or 0) * main.get("images", 0)
    if rate > 0:
        return rate
    return rows[-1]["fps"] if rows else None


def _with_left(status: Status, main: Mapping) -> Status:
    """With the seconds that are left: by the last epochs, tests included; within the first one by its steps alone."""
    rows, rate = status.rows[-3:], main.get("rate") or 0
    inside = min(1.0, status.step / status.steps) if status.steps else 0.0
    if rows:
        left = statistics.median(row["seconds"] for row in rows) * (status.epochs - status.epoch - inside)
    elif rate > 0:
        left = (status.steps * (status.epochs - status.epoch) - status.step) / rate
    else:
        return status
    return Status(**{**vars(status), "left": left}) if 0 <= left <= _LONGEST else status


def _checkpoint(folder: Path) -> tuple[str, float] | None:
    """The newest checkpoint and its age in seconds."""
    found = {}
    for name in (STEP, LAST, PREVIOUS):
        with contextlib.suppress(OSError, ValueError):
            found[name] = os.stat(folder / name).st_mtime
    if not found:
        return None
    name = max(found, key=found.get)
    return name, max(0.0, time.time() - found[name])
