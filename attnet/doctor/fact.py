"""One line of the doctor's report: what is there, what is wrong with it, and the mend. Imports no torch."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """What was found; `absent` when it is not there and not needed; a `problem` never comes without its `mend`."""

    value: str
    problem: str = ""
    mend: str = ""
    absent: bool = False

    def to_dict(self) -> dict[str, str]:
        """`state` (ok, absent, problem) and `value`, with `problem` and `mend` where there is one."""
        state = "problem" if self.problem else "absent" if self.absent else "ok"
        found = {"state": state, "value": self.value}
        return found | ({"problem": self.problem, "mend": self.mend} if self.problem else {})


def first_line(text: str) -> str:
    """The first line that says something; "" when none does."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def run_tool(*command: str, limit: float = 5.0) -> tuple[str, str] | None:
    """What a command line tool prints, and "" or why it failed; None when there is no such tool.

    Args:
        limit: seconds.
    """
    path = shutil.which(command[0])
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *command[1:]], capture_output=True, timeout=limit, stdin=subprocess.DEVNULL, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return "", f"no answer within {limit:g} s"
    except OSError as error:
        return "", str(error)
    if done.returncode == 0:
        return done.stdout, ""
    return done.stdout, first_line(done.stderr) or first_line(done.stdout) or f"exit status {done.returncode}"


def anonymous(text: str) -> str:
    """`text` without the home directory (`~` instead), the user's name in paths, and the machine's name."""
    home = os.path.expanduser("~")
    for path in {home, os.path.realpath(home)} - {"/"}:
        text = re.sub(rf"{re.escape(path)}(?![\w.-])", "~", text)
    host = socket.gethostname()
    for name, pattern in (
        (_user(), r"(?<=/){}(?=/)"),
        (host, r"(?<![\w.-]){}(?![\w-])"),
        (host.partition(".")[0], r"(?<![\w.-]){}(?![\w-])"),
    ):
        if name and name != "localhost":
            text = re.sub(pattern.format(re.escape(name)), "…", text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user need not have a name
        return os.environ.get("USERNAME", "")
