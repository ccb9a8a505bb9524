"""Where Huawei's CANN is and which version: read from its variables and files, without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

# Where Huawei's installers put things: for all users, and for one.
ROOTS = (Path("/usr/local/Ascend"), Path(os.path.expanduser("~"), "Ascend"))
_HOME_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
_TOOLKITS = ("ascend-toolkit/latest", "cann", "latest", "nnae/latest", "cann-*")


def find_cann(environment: Mapping[str, str], roots: Sequence[Path] = ROOTS) -> Path | None:
    """CANN's folder: the one that its variables name, else the first that is where the installer puts it."""
    named = [Path(environment[name]) for name in _HOME_VARIABLES if environment.get(name)]
    usual = [path for root in roots for pattern in _TOOLKITS for path in sorted(root.glob(pattern), reverse=True)]
    return next((path for path in (*named, *usual) if path.is_dir()), None)


def cann_version(home: Path) -> str:
    """CANN's version as its installer wrote it, "" when it left none."""
    for pattern, field in (
        ("*-linux/ascend_*_install.info", r"version=(\S+)"),
        ("ascend_*_install.info", r"version=(\S+)"),
        ("version.cfg", r"\w+_(?:running|installed)_version=\[(?:[^:\]]*:)?([^\]:]+)\]"),
        ("runtime/version.info", r"Version=(\S+)"),
        ("version.info", r"Version=(\S+)"),
    ):
        for file in sorted(home.glob(pattern)):
            if version := file_field(file, field):
                return version
    return ""


def file_field(file: Path, pattern: str) -> str:
    """What a line of a file that begins with `pattern` gives as its group; "" where there is none."""
    try:
        found = re.search(rf"^\s*{pattern}", file.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""
