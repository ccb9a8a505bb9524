"""A terminal that closes, a connection that is lost: the training saves itself, though nobody reads its words."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pty = pytest.importorskip("pty")
ROOT = Path(__file__).resolve().parents[2]
TINY = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"},
    **{"train_images": 64, "test_images": 20, "train_batch_size": 8, "total_epochs": 500},
}


@contextlib.contextmanager
def in_a_terminal(folder: Path, ignored: bool, **changes: object) -> Iterator[tuple[int, int]]:
    """`attnet train` as the session leader of a terminal: its id, and the terminal's other end."""
    parameters = TINY | changes | {"output_dir": folder}
    words = [sys.executable, "-m", "attnet.train", *(f"--{name}={value}" for name, value in parameters.items())]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        os.execve(words[0], words, os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        yield process, terminal
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process, 0)


def wait_for(file: Path, terminal: int, seconds: float = 120) -> None:
    """Read what the terminal shows, lest it blocks, until a file is there."""
    os.set_blocking(terminal, False)
    shown, deadline = b"", time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < deadline, shown.decode()
        with contextlib.suppress(BlockingIOError):
            shown += os.read(terminal, 65536)
        time.sleep(0.05)


@pytest.mark.parametrize("progress", ["live", pytest.param("lines", marks=pytest.mark.slow)])
def test_a_run_whose_terminal_closes_is_saved(tmp_path, progress):
    folder = tmp_path / "run"
    with in_a_terminal(folder, ignored=False, progress=progress) as (process, terminal):
        wait_for(folder / "last.pt", terminal)
        os.close(terminal)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    last = (folder / "log.txt").read_text().splitlines()[-1]
    assert status == 128 + signal.SIGHUP
    assert last.startswith("stopped by SIGHUP in epoch ") and f'resume="{folder}"' in last


@pytest.mark.slow
def test_nohup_goes_on_to_the_end_though_nobody_reads(tmp_path):
    folder = tmp_path / "run"
    with in_a_terminal(folder, ignored=True, progress="lines", total_epochs=3) as (process, terminal):
        wait_for(folder / "config.json", terminal)
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert (folder / "result.json").exists()


@pytest.mark.slow
def test_ranks_whose_launchers_terminal_closes_are_saved(tmp_path):
    folder = tmp_path / "run"
    with in_a_terminal(folder, ignored=False, device_num=2) as (process, terminal):
        wait_for(folder / "last.pt", terminal)
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 128 + signal.SIGHUP
    assert (folder / "log.txt").read_text().splitlines()[-1].startswith("stopped by SIGTERM in epoch ")
