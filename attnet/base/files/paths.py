"""Paths as people write them, and where relative ones start."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from attnet.base.errors import ConfigError, shown

_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})")
# Bytes, of Linux and with few exceptions of its file systems; others take about as much.
_LONGEST_NAME, _LONGEST_PATH = 255, 4095


def repository_root() -> Path:
    """Where relative paths start: the checkout that holds this package, else the working directory."""
    checkout = Path(__file__).resolve().parents[3]
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
