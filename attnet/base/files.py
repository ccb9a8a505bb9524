"""Files: where relative paths start, writing without ever losing what was there, and the envelope of a record."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from attnet.base.errors import ConfigError, SaveError


def repository_root() -> Path:
    """Where relative paths start: the checkout that holds this package, else the working directory."""
    checkout = Path(__file__).resolve().parents[2]
    return checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()


def resolve_path(path: str | Path) -> Path:
    """An absolute path; a relative one starts at the repository root, wherever the kernel was started."""
    return repository_root() / Path(path).expanduser()


def relative_to_root(path: Path) -> str:
    """A path as a user would type it: relative where it lies below the repository root."""
    root = repository_root()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def write_text(path: Path, text: str) -> None:
    """Replace a small file atomically; UTF-8 whatever the machine's encoding."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically.

    Raises:
        SaveError: it cannot be written; what was there is untouched.
    """
    fresh = path.with_name(path.name + ".tmp")
    try:
        fresh.write_bytes(content)
        os.replace(fresh, path)
    except OSError as error:
        raise SaveError(f"{path}: could not be written ({error}); what was there before is kept") from error


def save(state: Mapping[str, object], path: Path, keep: Path | None = None) -> None:
    """Write a checkpoint, a dict of plain values and tensors, so that a crash at any moment leaves a readable file.

    Written beside `path`, flushed to the disk, read back, then renamed over it; tensors are moved to the CPU, so that
    `torch.load(weights_only=True)` reads it on any device type. `keep` names where the file that was at `path` goes.

    Raises:
        SaveError: it cannot be written, for instance to a full disk; what was there is untouched.
    """
    import torch  # here, since most of what writes files does without

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
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output={str(output)!r}: {file.parent} cannot be made ({error.strerror})") from None
    if file.is_dir():
        raise ConfigError(f"output={str(output)!r}: is a folder; give a file in it")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise ConfigError(f"output={str(output)!r}: cannot be written; give another place, or mend its permissions")
    return file


def command_line(command: str, arguments: Sequence[str]) -> str:
    """`attnet COMMAND …` as a person types it."""
    return shlex.join(["attnet", command, *arguments])


def write_record(file: Path, content: Mapping[str, object], command: str) -> None:
    """Write a measured result as JSON: `kind` and `what` first, then what was found, the command and the date.

    Args:
        file: as `output_file` gives it.
        content: `kind`, and whatever the kind holds; `environment` says on what it was measured.
        command: that makes it again.
    """
    record = dict(content) | {"command": command}
    record.setdefault("date", date.today().isoformat())
    write_text(file, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
