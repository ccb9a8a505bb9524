"""Saving without ever losing what was there: atomic checkpoints, and the folder of a run.

A checkpoint is a dict of plain values and CPU tensors, so it is read by `torch.load(weights_only=True)` on any
device type.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from attnet.config import TrainConfig, parameter_fields
from attnet.errors import ConfigError, SaveError
from attnet.paths import resolve_path

# The end of the last epoch and of the one before; a position within an epoch; the best epoch's weights.
LAST, PREVIOUS, STEP, BEST = "last.pt", "previous.pt", "step.pt", "best.pt"


def epoch_files(folder: str | Path) -> list[Path]:
    """The weights a run kept along its way (`keep_epochs`), by epoch; a relative path starts at the root."""
    return sorted(resolve_path(folder).glob("epoch_*.pt"))


def save(state: Mapping[str, object], path: Path, keep: Path | None = None) -> None:
    """Write `state` so that a crash at any moment leaves a readable file.

    Written beside `path`, flushed to the disk, read back, then renamed over it. `keep` names where the file that
    was at `path` goes.

    Raises:
        SaveError: it cannot be written, for instance to a full disk; what was there is untouched.
    """
    fresh = path.with_name(path.name + ".tmp")
    try:
        with open(fresh, "wb") as file:
            torch.save(_on_cpu(state), file)
            file.flush()
            os.fsync(file.fileno())
        torch.load(fresh, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
        fresh.unlink(missing_ok=True)
        raise SaveError(
            f"{path}: could not be written ({error}); what was there before is kept. Mend that and go on with "
            f'resume="{path.parent}"'
        ) from error
    if keep is not None and path.exists():
        os.replace(path, keep)
    os.replace(fresh, path)


def load_newest(folder: Path, names: Sequence[str] = (STEP, LAST, PREVIOUS)) -> dict | None:
    """The readable checkpoint of a run folder that got farthest, or None when there is none."""
    readable = []
    for name in names:
        # Missing, or torn by a crash of the machine: then another one is whole.
        with contextlib.suppress(Exception):
            readable.append(torch.load(folder / name, map_location="cpu", weights_only=True))
    return max(readable, key=lambda state: (state["epoch"], state["step"]), default=None)


def write_text(path: Path, text: str) -> None:
    """Replace a small file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically."""
    fresh = path.with_name(path.name + ".tmp")
    fresh.write_bytes(content)
    os.replace(fresh, path)


def _on_cpu(value: object) -> object:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _on_cpu(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_on_cpu(item) for item in value]
    return value


class RunFolder:
    """One run's files: config.json, metrics.jsonl, last.pt, best.pt, log.txt, result.json.

    Held by one process at a time; the lock goes when that process does. With `held=False` it is only read.
    """

    def __init__(self, path: Path, held: bool = True) -> None:
        self.path = path
        self._lock = _lock(path) if held else None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None:
            self._lock.close()

    def log(self, line: str) -> None:
        """Append a line to log.txt; ranks that do not hold the folder stay silent."""
        if self._lock is None:
            return
        with open(self.path / "log.txt", "a") as file:
            file.write(line + "\n")

    def write_json(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file of the folder atomically."""
        write_text(self.path / name, json.dumps(content, indent=2) + "\n")

    def write_metrics(self, rows: list[dict]) -> None:
        """Replace metrics.jsonl, an object an epoch."""
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def _lock(path: Path) -> TextIO:
    """An open file that no second process can hold; ConfigError when one does."""
    file = open(path / ".lock", "a+")  # noqa: SIM115 (held open as long as the run)
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise ConfigError(f"output_dir={path}: in use by {holder}; wait for it, or give another output_dir") from None
    except (ImportError, OSError):  # Windows, or a file system without locks: everything else works
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file


def is_finished(path: Path) -> bool:
    """Whether a run ended here."""
    return (path / "result.json").exists()


def run_to_resume(config: TrainConfig) -> Path | None:
    """The interrupted run that `resume` asks for; None to begin a new one.

    Raises:
        ConfigError: `resume` names a folder without an interrupted run.
    """
    if config.resume == "auto":
        begun = [file for path in _numbered(_base(config)) if (file := path / "config.json").exists()]
        newest = max(reversed(begun), key=lambda file: file.stat().st_mtime_ns, default=None)
        return newest.parent if newest and not is_finished(newest.parent) else None
    return _resumable(resolve_path(config.resume)) if config.resume else None


def new_run(config: TrainConfig) -> RunFolder:
    """The folder of a new run: `output_dir` if no run was there, else `output_dir-2`, `-3` ...

    Raises:
        ConfigError: a folder that cannot be written.
    """
    base = _base(config)
    taken = [path for path in _numbered(base) if (path / "config.json").exists()]
    for path in _candidates(base, taken):
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder = RunFolder(path)
        except OSError as error:
            raise ConfigError(f"output_dir={path}: cannot be written ({error.strerror}); give another one") from None
        if not (path / "config.json").exists():  # nobody was quicker
            return folder
        folder.close()
    raise AssertionError("unreachable: there is always a next number")


def _base(config: TrainConfig) -> Path:
    return resolve_path(config.output_dir or "runs/train_1p")


def _numbered(base: Path) -> list[Path]:
    """`base`, `base-2`, `base-3` ... as far as they exist, in that order."""
    found = [base] if base.is_dir() else []
    if base.parent.is_dir():
        beside = (path.name for path in base.parent.iterdir())
        numbers = (name.removeprefix(base.name + "-") for name in beside if name.startswith(base.name + "-"))
        found += [base.with_name(f"{base.name}-{n}") for n in sorted(int(n) for n in numbers if n.isdecimal())]
    return found


def _candidates(base: Path, taken: list[Path]) -> Iterator[Path]:
    if base not in taken:
        yield base
    last = taken[-1] if taken else base
    suffix = last.name.removeprefix(base.name + "-")
    number = int(suffix) if suffix.isdecimal() else 1
    while True:
        number += 1
        yield base.with_name(f"{base.name}-{number}")


def _resumable(path: Path) -> Path:
    if not (path / "config.json").exists():
        raise ConfigError(f"resume={path}: no run there (no config.json); give the folder of an interrupted run")
    if is_finished(path):
        raise ConfigError(f"resume={path}: this run is finished (see result.json); begin a new one without resume")
    return path


# Parameters that may differ between the parts of one run: they decide where it runs and is shown, not what it does.
FREE = {
    *("output_dir", "resume", "progress", "data_path", "is_pretrain", "pretrained", "new_head"),
    "checkpoint_seconds",
    *("device_type", "device_id", "device_num", "accumulate", "nnodes", "node_rank", "dist_url", "max_restarts"),
    *("keep_epochs", "amp_backend", "channels_last"),
}


def inherit(stored: TrainConfig, config: TrainConfig) -> TrainConfig:
    """The configuration to continue a run with: what is not given anew is as it was."""
    old, new = stored.to_dict(), config.to_dict()
    defaults = {name: spec.default for name, spec in parameter_fields().items()}
    of_this_process = {"resume", "progress", "device_type", "device_id", "device_num"}
    given = {name for name in new if new[name] != defaults[name]} | of_this_process
    return TrainConfig(**{name: new[name] if name in given else old[name] for name in new})


def check_same_run(stored: TrainConfig, config: TrainConfig) -> None:
    """Refuse to continue a run with other parameters than it was begun with.

    Raises:
        ConfigError: the parameters that differ, with both values.
    """
    old, new = stored.to_dict(), config.to_dict()
    changed = [f"{n}={new[n]!r} (was {old[n]!r})" for n in new if n not in FREE and new[n] != old[n]]
    if changed:
        raise ConfigError(
            f"resume: this run was begun with other parameters: {', '.join(changed)}; "
            "leave them as they were, or begin a new run without resume"
        )
