"""What a run shows: lines for a log, a bar and a curve for somebody who looks, never a bar for nobody."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from attnet.base import progress as showing
from attnet.base.progress import (
    HEARTBEAT,
    LiveProgress,
    Progress,
    epoch_line,
    make_progress,
    somebody_looks,
    told,
    tracked,
)

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    {"epoch": n, "lr": 0.1, "train_loss": 2.3, "test_loss": 2.2, "top1": 12.5, "fps": 1234.5, "seconds": 6.78}
    for n in (1, 2)
]
LOSS = torch.tensor(1.25)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, in seconds, as a one-element list to be set by a test."""
    now = [0.0]
    monkeypatch.setattr(showing.time, "perf_counter", lambda: now[0])
    return now


def show_two_epochs(shown: Progress) -> None:
    shown.emit("the plan")
    shown.start(1, 2, 3)
    for epoch in (1, 2):
        shown.begin_epoch(epoch, 0)
        for done in (1, 2, 3):
            shown.step(done, LOSS)
        shown.end_epoch(ROWS[:epoch])
    shown.close()


@pytest.mark.parametrize("kind, printed", [("lines", True), ("none", False), ("auto", True)])
def test_lines_are_one_an_epoch_and_all_are_logged(kind, printed, capsys, monkeypatch):
    monkeypatch.setattr(showing, "somebody_looks", lambda: False)
    log = []
    show_two_epochs(make_progress(kind, log.append))
    assert log == ["the plan", epoch_line(ROWS[0], 2), epoch_line(ROWS[1], 2)]
    out, err = capsys.readouterr()
    assert (out.splitlines(), err) == (log if printed else [], "")


def test_an_epochs_line():
    expected = "epoch 1/2  lr 0.1  train_loss 2.3000  test_loss 2.2000  top1 12.50 %  1,234 images/s  6.8 s"
    assert epoch_line(ROWS[0], 2) == expected


def test_a_long_epoch_gives_a_sign_of_life(clock):
    lines = []
    shown = Progress(lines.append)
    shown.start(3, 5, 100)
    shown.begin_epoch(3, 20)  # resumed in mid-epoch
    clock[0] = HEARTBEAT - 1
    shown.step(21, LOSS)
    assert lines == []
    clock[0] = HEARTBEAT
    shown.step(30, LOSS)  # 10 steps in 120 s
    shown.step(31, LOSS)
    assert lines == ["  epoch 3: step 30 of 100, loss 1.2500, 14 min left"]
    clock[0] = 3 * HEARTBEAT
    shown.step(100, LOSS)  # the test follows, or the epoch's own line
    assert len(lines) == 1
    shown.test(0, 20)
    shown.test(1, 20)
    clock[0] = 4 * HEARTBEAT
    shown.test(13, 20)
    assert lines[1:] == ["  epoch 3: 0 of 20 test batches", "  epoch 3: 13 of 20 test batches"]


def test_on_a_terminal_the_bar_is_on_stderr_and_the_lines_above_it(monkeypatch, clock):
    out, err, log = Terminal(), Terminal(), []
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    shown = make_progress("auto", log.append)
    assert isinstance(shown, LiveProgress)
    show_two_epochs(shown)
    assert log == ["the plan", epoch_line(ROWS[0], 2), epoch_line(ROWS[1], 2)]
    assert [line for line in log if line not in out.getvalue()] == []
    assert "epoch 2/2" in err.getvalue() and "6/6" in err.getvalue() and "train_loss" not in err.getvalue()
    assert shown.bar.n == 6


def test_a_resumed_bar_begins_where_the_run_was(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = LiveProgress(lambda line: None)
    shown.start(3, 5, 10)
    assert shown.bar.n == 20
    shown.begin_epoch(3, 4)
    clock[0] = 5
    shown.step(5, LOSS)
    assert (shown.bar.n, shown.bar.total) == (25, 50)
    assert "loss=1.250" in shown.bar.postfix
    shown.test(2, 7)
    assert shown.bar.postfix == "testing, 2 of 7 batches" and shown.bar.n == 25
    shown.close()


@pytest.mark.parametrize("terminal", [True, False])
def test_outside_a_notebook_a_terminal_decides(monkeypatch, terminal):
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    assert somebody_looks() is terminal


@pytest.mark.parametrize("person", [True, False])
def test_in_a_notebook_a_front_end_that_takes_input_decides(monkeypatch, person):
    """JupyterLab lets its kernel ask a person; papermill and nbconvert do not."""
    monkeypatch.setattr(showing, "_kernel", lambda: SimpleNamespace(_allow_stdin=person))
    assert somebody_looks() is person
    assert isinstance(make_progress("auto", print), LiveProgress) is person


@pytest.mark.parametrize(
    ("kind", "person", "drawn"), [("auto", True, True), ("auto", False, True), ("lines", True, False)]
)
def test_in_a_notebook_there_is_a_picture_unless_lines_are_asked_for(monkeypatch, kind, person, drawn):
    monkeypatch.setattr(showing, "in_notebook", lambda: True)
    monkeypatch.setattr(showing, "somebody_looks", lambda: person)
    watch = make_progress(kind, print, draw=SimpleNamespace()).watch
    assert (watch is not None) is drawn
    assert not drawn or watch.live is person
    assert make_progress(kind, print).watch is None


# ---- in a kernel ----


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> Iterator:
    """A client of a real kernel, started somewhere else than in the repository."""
    from jupyter_client.manager import start_new_kernel

    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    manager, client = start_new_kernel(kernel_name="python3", env=environment, cwd=tmp_path_factory.mktemp("cwd"))
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run_cell(client, code: str, somebody: bool) -> tuple[str, list[dict]]:
    """Standard output of a cell, and all its other outputs, as a front end with or without a person gets them."""
    text, others = [], []

    def receive(message: dict) -> None:
        kind, content = message["msg_type"], message["content"]
        if kind == "stream" and content["name"] == "stdout":
            text.append(content["text"])
        elif kind not in ("status", "execute_input"):
            others.append({"kind": kind, **content})

    reply = client.execute_interactive(code, allow_stdin=somebody, output_hook=receive, timeout=120)
    assert reply["content"]["status"] == "ok", others
    return "".join(text), others


TRAIN = (
    "from attnet import TrainConfig, fit\n"
    "result = fit(TrainConfig(device_type='CPU', dataset='shapes', model='attention56_tiny', total_epochs=1,\n"
    "    train_images=32, test_images=20, train_batch_size=16, output_dir={folder!r}))"
)


@pytest.mark.slow
def test_a_headless_notebook_gets_lines_and_no_bar(kernel, tmp_path):
    # papermill and nbconvert do not let the kernel ask for input
    looks = "from attnet.base.progress import in_notebook, somebody_looks; print(in_notebook(), somebody_looks())"
    assert run_cell(kernel, looks, somebody=False) == ("True False\n", [])
    text, others = run_cell(kernel, TRAIN.format(folder=str(tmp_path / "run")), somebody=False)
    assert [set(other["data"]) & {"image/png"} for other in others] == [{"image/png"}], "one picture, no bar"
    lines = text.splitlines()
    assert lines == (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert [line[:9] for line in lines].count("epoch 1/1") == 1 and lines[-1].startswith("epoch 1/1")


@pytest.mark.slow
def test_in_jupyterlab_there_are_a_bar_and_a_curve(kernel, tmp_path):
    assert run_cell(kernel, "from attnet.base.progress import *; print(somebody_looks())", somebody=True) == (
        "True\n",
        [],
    )
    text, others = run_cell(kernel, TRAIN.format(folder=str(tmp_path / "run")), somebody=True)
    assert text.count("epoch 1/1") == 1
    shown = [set(message["data"]) for message in others if message["kind"] == "display_data"]
    updated = [set(message["data"]) for message in others if message["kind"] == "update_display_data"]
    assert any("application/vnd.jupyter.widget-view+json" in kinds for kinds in shown), others
    assert any("image/png" in kinds for kinds in shown + updated), others
    assert "error" not in [message["kind"] for message in others]


def test_reading_files_is_silent_unless_it_takes_long_or_somebody_looks(clock, capfd, monkeypatch):
    def files() -> Iterator[int]:
        for number in range(40):
            clock[0] += seconds
            yield number

    seconds = 0.125
    assert list(tracked(files(), 40, "pictures read")) == list(range(40))
    assert capfd.readouterr() == ("", "")
    seconds = 1.0
    assert len(list(tracked(files(), 40, "pictures read"))) == 40
    assert capfd.readouterr().err == "pictures read: 15 of 40\npictures read: 30 of 40\n"
    monkeypatch.setattr(showing, "somebody_looks", lambda: True)
    assert len(list(tracked(files(), 40, "pictures read"))) == 40
    assert "/40 [" in capfd.readouterr().err


def test_a_long_calculation_shows_how_far_it_is_to_somebody_who_looks(monkeypatch):
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    for looks, seen in ((False, False), (True, True)):
        monkeypatch.setattr(showing, "somebody_looks", lambda looks=looks: looks)
        tell = told("six questions")
        tell("the object")
        tell(3, 7)
        assert ("six questions: the object" in err.getvalue() and "3/7" in err.getvalue()) is seen


@pytest.mark.parametrize(
    ("in_kernel", "somebody", "by_our_engine", "is_said"),
    [(True, False, False, True), (True, True, False, False), (True, False, True, False), (False, False, False, False)],
)
def test_a_training_in_a_kernel_that_nobody_asks_says_so(monkeypatch, in_kernel, somebody, by_our_engine, is_said):
    kernel = SimpleNamespace(_allow_stdin=somebody) if in_kernel else None
    monkeypatch.setattr(showing, "_kernel", lambda: kernel)
    monkeypatch.delenv(showing.ENGINE, raising=False)
    if by_our_engine:
        monkeypatch.setenv(showing.ENGINE, "1")
    assert ("papermill --engine attnet" in showing.unsaved_end()) == is_said
