"""What a command leaves: where it is to go, asked before the work, and the envelope of a record."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

from attnet.base.errors import ConfigError, SaveError
from attnet.base.files.atomic import FREE, Guard, write_text
from attnet.base.files.paths import resolve_path
from attnet.base.json_files import to_json


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
