"""Processes: being asked to stop where everything can be saved, and starting others that end with us."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TextIO

from attnet.base.device import QUEUE, Npu
from attnet.base.files.paths import repository_root

# How the message of a run that was stopped and saved begins.
STOPPED = "stopped by"
# What asks a process to end: Ctrl-C, a batch system, a terminal that closes (which Windows has no signal for).
REQUESTS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# What comes before the end: of a job's time, if a batch system was told to warn it; of one process's processor time.
JOBS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
WARNINGS = JOBS + ((signal.SIGXCPU,) if hasattr(signal, "SIGXCPU") else ())


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by a signal; everything is saved and the message says how to go on.

    `was_asked`: by a request in the run's folder, which every rank obeyed, and no signal.
    """

    def __init__(self, message: str, signal_number: int, *, was_asked: bool = False) -> None:
        super().__init__(message)
        self.signal_number, self.was_asked = signal_number, was_asked


class StopSignal:
    """Turns Ctrl-C, SIGTERM, SIGHUP and warnings of the end to come into a request to stop after the current step; a
    second Ctrl-C stops at once.

    A single one after another signal does not: Slurm's SIGTERM reaches papermill and its kernel alike, and papermill
    passes it on as an interrupt.

    `number` is the signal that came, or None. Signals can only be caught in the main thread; elsewhere this does
    nothing and Python's own handling stays. A SIGHUP that is ignored stays so: that is what `nohup` is for. So does a
    warning that somebody else heeds, or ignores.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._interrupts = 0

    def __enter__(self) -> StopSignal:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (*REQUESTS, *WARNINGS):
                before = signal.getsignal(number)
                is_ours = before is signal.SIG_DFL if number in WARNINGS else before is not signal.SIG_IGN
                if is_ours or number == signal.SIGINT:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt
        self.number = self.number or number


# -- processes of our own -----------------------------------------------------------------------------------------

_PR_SET_PDEATHSIG = 1  # of prctl(2)
# Looked up here, so that a new process has nothing left to do but the call.
_PRCTL = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def start(
    words: Sequence[str],
    log: TextIO | int,
    variables: Mapping[str, str] = MappingProxyType({}),
    *,
    without: Sequence[str] = (),
    threads: int = 0,
    end_with_us: bool = True,
) -> subprocess.Popen:
    """`python WORDS` in a session of its own at the repository root, so that Ctrl-C here reaches it only as our
    orderly request to stop.

    Args:
        words: what follows `python`.
        log: where its output goes.
        variables: set besides those of `environment`.
        without: those of `environment` that it is not to have.
        threads: OpenMP's, unless OMP_NUM_THREADS is set; 0: as it likes. They wait by spinning: more of them than
            cores make each other many times slower.
        end_with_us: on Linux, ask it to stop (SIGTERM) as soon as this process is gone, even by SIGKILL.
    """
    surroundings = {name: value for name, value in environment().items() if name not in without} | dict(variables)
    if threads:
        surroundings.setdefault("OMP_NUM_THREADS", str(threads))
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=log,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env=surroundings,
        cwd=repository_root(),
        start_new_session=True,
        preexec_fn=functools.partial(_end_with, os.getpid()) if end_with_us and _PRCTL else None,
    )


def environment() -> dict[str, str]:
    """The variables of a process of ours: it finds this very package, devices as the user set them, and speaks UTF-8.

    In a notebook's kernel torch_npu sets TASK_QUEUE_ENABLE to 0, which makes it hand operators over one by one; in
    processes of their own it can be what the user set, or torch_npu's default.
    """
    variables = dict(os.environ)
    if variables.get(QUEUE) == "0" and "torch" in sys.modules and Npu.module() is not None:
        variables.pop(QUEUE)
        begun = variable_of(os.getpid(), QUEUE)
        variables |= {} if begun is None else {QUEUE: begun}
    package, path = str(Path(__file__).parents[2]), variables.get("PYTHONPATH")
    ours = {"PYTHONPATH": os.pathsep.join([package, *([path] if path else [])])}
    return variables | ours | {"PYTHONIOENCODING": "utf-8:backslashreplace"}  # as we read what it says


def end(process: subprocess.Popen, grace: float) -> None:
    """Ask a process to stop, give it `grace` seconds to save, then make sure; Ctrl-C shortens the wait."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(max(0.0, grace))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def how_it_ended(status: int) -> str:
    """An exit status in words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _end_with(parent: int) -> None:
    _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it is gone already, and no signal will come
        os._exit(1)


def variable_of(pid: int, name: str) -> str | None:
    """A variable that a process was started with; None where it has none of that name, or it is not ours to look into.

    Linux only; elsewhere always None.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = os.fsdecode(file.read()).split("\0")
    except OSError:
        return None
    return next((value for key, _, value in (entry.partition("=") for entry in entries) if key == name), None)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):
            return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True


def began(pid: int) -> float | None:
    """When a process began, in seconds since 1970, to a second; None where that is not told (Linux tells it).

    A number is given to another process after a while: one that began after a file was written did not write it.
    """
    try:
        with open("/proc/stat", encoding="utf-8") as file:
            booted = next(int(line.split()[1]) for line in file if line.startswith("btime"))
        return booted + int(_begun(pid)) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def identity(pid: int | None = None) -> str:
    """A process of this machine, ours where none is named, told from every other of any machine: machine (as booted),
    process namespace, number, start.

    Linux only; elsewhere "".
    """
    pid = pid or os.getpid()
    return f"{machine} {pid} {_begun(pid)}" if (machine := _machine()) else ""


def pid_of(process: str) -> int:
    """The number of a process, by its `identity`, where it is one of this machine and lives; else 0."""
    machine, _, rest = process.partition(" ")
    number = rest.partition(" ")[0]
    return int(number) if number.isdecimal() and machine == _machine() and not is_gone(process) else 0


def is_gone(process: str) -> bool:
    """Whether a process, by its `identity`, was one of this machine and has ended; False where that cannot be known."""
    machine, _, rest = process.partition(" ")
    if not machine or machine != _machine():
        return False
    number, _, begun = rest.partition(" ")
    return not number.isdecimal() or not is_alive(int(number)) or _begun(int(number)) != begun


def _machine() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _begun(pid: int) -> str:
    """When a process began, in ticks since the machine was booted; "" where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
