"""`attnet watch`: one look, a line per change, a screen with keys; from files alone and without torch."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from made import ROW, begun_run

from attnet.base.files.paths import repository_root
from attnet.engine.status.facts import STATES
from attnet.watch_command import main


def command(*words: str, **options: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "attnet", "watch", *words], cwd=repository_root(), **options)


def test_one_look_tells_the_state_by_its_exit_status(tmp_path, capsys):
    run = begun_run(tmp_path / "run")
    assert main([str(run), "--once"]) == STATES["running"][0]
    text = capsys.readouterr().out
    assert "epoch 3 of 10, step 5 of 10 · 32 images/s · 7 min 30 s left" in text and "█" in text
    (run / "result.json").write_text("{}")
    assert main([str(run), "--once"]) == 0
    assert main([str(tmp_path / "nowhere"), "--once"]) == 2


@pytest.mark.parametrize("columns", ["0", "1", "4", "5", "29", "no number"])
def test_a_terminal_without_width_is_drawn_as_a_narrow_one(tmp_path, capsys, monkeypatch, columns):
    runs = [begun_run(tmp_path / name) for name in ("a", "b")]
    monkeypatch.setenv("COLUMNS", columns)
    for place in (tmp_path, *runs):
        assert main([str(place), "--once"]) == STATES["running"][0]
        assert "running" in capsys.readouterr().out


def test_it_does_without_torch():
    script = "import sys, attnet.watch_command\nassert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=repository_root(), check=True)


def test_a_run_that_trains_is_asked_to_stop_and_no_other(tmp_path, capsys):
    run = begun_run(tmp_path / "run")
    assert main([str(run), "--stop"]) == 0
    assert (run / "stop").exists() and "asked to stop" in capsys.readouterr().out
    done = begun_run(tmp_path / "done", ended="stopped")
    assert main([str(done), "--stop"]) == 2
    assert not (done / "stop").exists() and "this run is not training (stopped)" in capsys.readouterr().err


def test_a_pipe_gets_a_line_per_change(tmp_path):
    run = begun_run(tmp_path / "run")
    watcher = command(str(run), stdout=subprocess.PIPE, text=True)
    assert "running  2 of 10 epochs  train_loss 2.0000  top1 32.00 %" in watcher.stdout.readline()
    sign = json.loads((run / "pulse" / "rank0.json").read_text())
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(ROW | {"epoch": 3}) + "\n")
    (run / "pulse" / "rank0.json").write_text(json.dumps(sign | {"epoch": 3}))
    assert "running  3 of 10 epochs" in watcher.stdout.readline()
    (run / "pulse" / "rank0.json").write_text(json.dumps(sign | {"epoch": 3, "ended": "stopped"}))
    lines = watcher.stdout.read().splitlines()
    assert len(lines) == 1 and ": stopped" in lines[0]
    assert watcher.wait(20) == STATES["stopped"][0]


def at_a_terminal() -> None:
    """In the new process: Ctrl-C of its terminal is for it, also where the tests were told to ignore theirs."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def screen(tmp_path):
    """A terminal on which a run is watched: what was read of it, a way to press keys, the process."""
    run = begun_run(tmp_path / "run")
    ours, theirs = pty.openpty()
    variables = {**os.environ, "COLUMNS": "80", "LINES": "30", "PYTHONIOENCODING": "utf-8"}
    own = {"start_new_session": True, "preexec_fn": at_a_terminal}
    watcher = command(str(run), stdin=theirs, stdout=theirs, stderr=theirs, env=variables, **own)
    os.close(theirs)

    def until(words: str) -> str:
        text, deadline = "", time.monotonic() + 60
        while words not in text:
            assert time.monotonic() < deadline, text
            if select.select([ours], [], [], 0.2)[0]:
                text += os.read(ours, 65_536).decode(errors="replace")
        return text

    yield run, until, lambda key: os.write(ours, key.encode()), watcher
    watcher.kill()
    watcher.wait()
    os.close(ours)


def test_keys_on_a_terminal(screen):
    run, until, press, watcher = screen
    until("q leaves, the run goes on; s asks it to stop")
    press("s")
    until("y stops it")
    assert not (run / "stop").exists()
    press("n")
    assert "\x1b[" in until("s asks it to stop"), "redrawn in place"
    press("s")
    until("y stops it")
    press("y")
    until("saves itself after the step")
    assert (run / "stop").exists()
    press("q")
    assert watcher.wait(60) == 0


def test_ctrl_c_leaves_and_the_run_goes_on(screen):
    run, until, press, watcher = screen
    until("s asks it to stop")
    press("\x03")
    assert watcher.wait(60) == 0 and not (run / "stop").exists()


def test_a_terminal_that_shows_without_keys_to_read_promises_none(tmp_path):
    run = begun_run(tmp_path / "run")
    ours, theirs = pty.openpty()
    streams = {"stdin": subprocess.DEVNULL, "stdout": theirs, "stderr": theirs}
    # A shell's background job is told to ignore it, and so would be what it starts.
    watcher = command(str(run), **streams, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    os.close(theirs)
    try:
        text, deadline = "", time.monotonic() + 60
        while "leaves" not in text and time.monotonic() < deadline and watcher.poll() is None:
            if select.select([ours], [], [], 0.2)[0]:
                text += os.read(ours, 65_536).decode(errors="replace")
        assert "Ctrl-C leaves, the run goes on" in text and "q leaves" not in text
        watcher.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 60
        while (
            watcher.poll() is None and time.monotonic() < deadline
        ):  # a terminal goes on reading, else it cannot write
            if select.select([ours], [], [], 0.2)[0]:
                with contextlib.suppress(OSError):  # the other end is closed
                    os.read(ours, 65_536)
        assert watcher.poll() == 0
    finally:
        watcher.kill()
        watcher.wait()
        os.close(ours)
