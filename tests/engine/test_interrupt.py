"""Stopping a run and going on: everything is saved, and the end is bit for bit that of a run never stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from made import wait_until

from attnet import TrainConfig, fit, make_plan
from attnet.base.errors import ConfigError
from attnet.base.processes import StopSignal, TrainingInterrupted
from attnet.base.progress import Progress
from attnet.engine import run_folder as checkpoint
from attnet.engine.status.look import look
from attnet.engine.status.pulse import Pulse

ROOT = Path(__file__).resolve().parents[2]
# With everything that is drawn at random, so that a difference in any of it shows in the weights.
TINY = {
    "device_type": "CPU",
    "dataset": "shapes",
    "model": "attention56_tiny",
    "test_images": 20,
    "test_batch_size": 8,
    "train_batch_size": 8,
    "mixup": 0.2,
    "cutout": 8,
    "image_sizes": "20,32",
    "progress": "lines",
}
SHORT = TINY | {"train_images": 32, "total_epochs": 2}  # 4 steps an epoch
LONG = TINY | {"train_images": 64, "total_epochs": 6}  # long enough to be stopped from outside


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes below: the number of threads decides the order of sums, and so the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same_end(folder: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits: weights, momentum, losses and Top-1 of every epoch."""
    ends = []
    for path in (folder, other):
        end = torch.load(path / "last.pt", weights_only=True)
        momentum = [entry["momentum_buffer"] for entry in end["precision"]["optimizer"]["state"].values()]
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        losses = [(row["epoch"], row["lr"], row["train_loss"], row["test_loss"], row["top1"]) for row in rows]
        ends.append((list(end["model"].values()) + momentum, losses))
        assert all(row["processor_seconds"] > 0 and row["seconds"] > 0 for row in rows)
    (tensors, losses), (others, other_losses) = ends
    assert len(tensors) > 100 and len(tensors) == len(others)
    return losses == other_losses and all(map(torch.equal, tensors, others))


def fit_in(folder: Path, parameters: dict[str, object]) -> Path:
    return fit(TrainConfig(**parameters, output_dir=folder)).output_dir


@pytest.fixture(scope="module")
def short_run(tmp_path_factory) -> Path:
    return fit_in(tmp_path_factory.mktemp("short") / "run", SHORT)


def test_a_run_asked_to_stop_in_its_folder_ends_the_same_and_an_old_request_is_nothing(
    tmp_path, short_run, monkeypatch, capsys
):
    begun = []

    class Known(Pulse):
        def __init__(self, *words: object) -> None:
            super().__init__(*words)
            begun.append(self)

    def ask(row: dict) -> None:
        (tmp_path / "run" / "stop").touch()
        wait_until(lambda: begun[0].asked)

    monkeypatch.setattr("attnet.engine.loop.Pulse", Known)
    monkeypatch.setattr("attnet.engine.status.pulse.EVERY", 0.01)
    with pytest.raises(TrainingInterrupted, match="stopped by a request in epoch 2, step 0 of 4") as stopped:
        fit(TrainConfig(**SHORT, output_dir=tmp_path / "run"), log=ask)
    assert stopped.value.was_asked and stopped.value.signal_number == signal.SIGTERM
    status = look(tmp_path / "run")
    assert (status.state, status.epoch) == ("stopped", 1) and not (tmp_path / "run" / "stop").exists()
    (tmp_path / "run" / "stop").touch()
    assert same_end(fit_in(tmp_path / "run", {"resume": str(tmp_path / "run"), "device_type": "CPU"}), short_run)
    assert look(tmp_path / "run").state == "finished" and not (tmp_path / "run" / "stop").exists()


@pytest.mark.parametrize(
    "epoch, step, number, saved",
    [
        (1, 1, signal.SIGINT, (0, 1)),  # before the first test
        (2, 3, signal.SIGTERM, (1, 3)),
        (1, 4, signal.SIGINT, (0, 4)),  # at an epoch's last step: its test is yet to come
    ],
)
def test_stopped_at_a_step_and_continued(short_run, tmp_path, monkeypatch, epoch, step, number, saved):
    def step_and_signal(self: Progress, done: int, loss: torch.Tensor) -> None:
        if (self.epoch, done) == (epoch, step):
            os.kill(os.getpid(), number)

    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "step", step_and_signal)
        with pytest.raises(TrainingInterrupted) as stopped:
            fit_in(folder, SHORT)
    assert stopped.value.signal_number == number
    assert signal.Signals(number).name in str(stopped.value) and f'resume="{folder}"' in str(stopped.value)
    assert str(stopped.value) in (folder / "log.txt").read_text()
    state = checkpoint.load_newest(folder)
    assert (state["epoch"], state["step"]) == saved
    assert not checkpoint.is_finished(folder)

    said = make_plan(TrainConfig(resume=folder, checkpoint_seconds=7, output_dir=tmp_path)).describe().splitlines()
    left = {0: "2 epochs are left", 1: "one epoch is left"}[saved[0]]
    within = f" and {saved[1]} steps of the next" if saved[1] else ""
    assert said[0] == f"resume: {folder} goes on after epoch {saved[0]} of 2{within}; {left}"
    fixed = said[1].removeprefix("as it was begun, and fixed until its end: ").split(", ")
    assert {"total_epochs=2", "mixup=0.2", f"train_images={SHORT['train_images']}"} <= set(
        fixed
    ) and "lr=0.1" not in fixed
    assert "given anew: checkpoint_seconds=7.0 (was 600.0)" in said
    with pytest.raises(ConfigError, match=r"begun with other parameters: lr=0.3 \(was 0.1\)"):
        make_plan(TrainConfig(resume=folder, lr=0.3))

    result = fit(TrainConfig(resume=folder))  # every other parameter is as it was
    assert (result.output_dir, result.epochs) == (folder, 2)
    assert same_end(folder, short_run)


@pytest.mark.parametrize("epoch", [1, 2])
def test_stopped_within_a_test_and_continued_with_it(short_run, tmp_path, monkeypatch, epoch):
    """A test takes minutes on a processor, and a batch system waits for half of one; no step is taken again."""
    tested = []

    def test_and_signal(self: Progress, done: int, batches: int) -> None:
        tested.append((self.epoch, done, batches))
        if (self.epoch, done) == (epoch, 2):
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "test", test_and_signal)
        with pytest.raises(TrainingInterrupted, match=f"by SIGTERM in epoch {epoch}, its test; everything is saved"):
            fit_in(tmp_path / "run", SHORT)
    assert tested == [(one, done, 3) for one in range(1, epoch + 1) for done in range(3)], "nothing after the signal"
    state = checkpoint.load_newest(tmp_path / "run")
    assert (state["epoch"], state["step"], len(state["rank_fps"])) == (epoch - 1, 4, 1)

    steps = []
    monkeypatch.setattr(Progress, "step", lambda self, done, loss: steps.append((self.epoch, done)))
    result = fit(TrainConfig(resume=tmp_path / "run"))
    assert same_end(tmp_path / "run", short_run)
    assert steps == [(two, done) for two in range(epoch + 1, 3) for done in range(1, 5)]
    assert result.history[epoch - 1]["fps"] == state["rank_fps"][0] > 0


KILLED = """
import os, sys
from attnet.base.progress import Progress
from attnet.engine.fit import main

def step_and_die(self, done, loss):
    if (self.epoch, done) == (1, 3):
        os.kill(os.getpid(), 9)

Progress.step = step_and_die
main(sys.argv[1:])
"""


def test_a_process_that_is_killed_goes_on_bit_for_bit(short_run, tmp_path):
    """SIGKILL within an epoch, a moment after a checkpoint there."""
    folder = tmp_path / "run"
    words = [f"--{name}={value}" for name, value in SHORT.items()] + [f"--output_dir={folder}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, *words, "--checkpoint_seconds=0.001"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    state = checkpoint.load_newest(folder)
    assert (state["epoch"], state["step"]) == (0, 2)
    assert fit(TrainConfig(output_dir=folder, resume="auto")).output_dir == folder
    assert same_end(folder, short_run)


def stop_after_an_epoch(folder: Path, number: int, *more: str) -> tuple[int, list[str], str]:
    """Run the command line until its first line of an epoch, then signal it: exit status, epochs shown, stderr."""
    arguments = [f"--{name}={value}" for name, value in LONG.items()]
    command = [sys.executable, "-m", "attnet.train", *arguments, f"--output_dir={folder}", *more]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, cwd=folder.parent, text=True, **pipes) as process:
        watchdog = threading.Timer(300, process.kill)
        watchdog.start()
        try:
            epochs = []
            for line in process.stdout:
                if line.startswith("epoch "):
                    if not epochs:
                        process.send_signal(number)
                    epochs.append(line.split("  ")[0])
            errors = process.stderr.read()
            return process.wait(), epochs, errors
        finally:
            watchdog.cancel()
            process.kill()


@pytest.mark.slow
def test_processes_stopped_three_times_end_like_one_that_never_was(tmp_path):
    folder = tmp_path / "run"
    status, epochs, errors = stop_after_an_epoch(folder, signal.SIGINT)
    assert (status, epochs[0]) == (130, "epoch 1/6 at 20 pixels"), errors
    message = re.fullmatch(
        r'attnet: stopped by SIGINT in epoch \d, .*; everything is saved\. .*resume="(.+?)".*\n', errors
    )
    assert message, errors

    status, epochs, errors = stop_after_an_epoch(folder, signal.SIGTERM, f"--resume={message[1]}")
    assert (status, epochs[0]) == (143, "epoch 2/6 at 20 pixels"), errors
    assert "stopped by SIGTERM" in errors and "Traceback" not in errors

    status, epochs, errors = stop_after_an_epoch(folder, signal.SIGKILL, "--resume=auto")
    assert (status, epochs[0]) == (-signal.SIGKILL, "epoch 3/6 at 20 pixels"), errors

    result = fit(TrainConfig(output_dir=folder, resume="auto"))
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5, 6]
    assert same_end(result.output_dir, fit_in(tmp_path / "uninterrupted", LONG))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("run")] == ["run"]


# ---- the signal itself ----


def test_the_first_signal_asks_a_second_ctrl_c_stops_at_once():
    """One Ctrl-C after SIGTERM is papermill's word for the same request, where Slurm asked both."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopSignal() as stop:
        assert stop.number is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_signals_stay_as_they_are():
    before, seen = signal.getsignal(signal.SIGINT), []

    def use() -> None:
        with StopSignal() as stop:
            seen.append((stop.number, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
