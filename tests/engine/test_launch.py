"""Launching: what is started, what is shown, and that nothing is lost or left behind when something dies."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

import attnet
from attnet.base import progress, watching
from attnet.base.device import KINDS
from attnet.base.errors import ConfigError
from attnet.base.files.paths import repository_root
from attnet.base.processes import TrainingInterrupted
from attnet.base.progress import Progress
from attnet.base.watching import Sight
from attnet.engine import distributed
from attnet.engine.launching import launch as launcher
from attnet.engine.launching.launch import launch
from attnet.engine.launching.torchrun import Torchrun
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import Plan, decide
from attnet.engine.status.look import look
from attnet.engine.status.read import is_run
from attnet.engine.status.watched import watched

EPOCHS = 4
TINY = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU", "device_num": 2},
    **{"train_images": 192, "test_images": 20, "train_batch_size": 8, "total_epochs": EPOCHS, "progress": "lines"},
}
# Runs `attnet.launch` in a process of its own, as a notebook's kernel does.
KERNEL = """
import signal, sys, attnet
signal.signal(signal.SIGINT, signal.default_int_handler)  # as ipykernel does; a background job inherits "ignore"
try:
    attnet.launch(attnet.TrainConfig.parse(sys.argv[1:]))
except attnet.base.processes.TrainingInterrupted as stop:
    print("INTERRUPTED", stop, flush=True)
    sys.exit(130)
"""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def start(folder: Path, **changes: object) -> psutil.Popen:
    flags = TrainConfig(**{**TINY, **changes}, output_dir=str(folder)).flags()
    return psutil.Popen(
        [sys.executable, "-c", KERNEL, *flags], cwd=repository_root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_until(condition: Callable[[], object], process: psutil.Popen, seconds: float = 120) -> object:
    """The first truthy value of `condition`; fails when the process ends before."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "nothing happened"
        assert process.poll() is None, process.stdout.read().decode()
        time.sleep(0.05)
    return value


def ranks_of(process: psutil.Popen) -> list[psutil.Process]:
    """The training processes, by rank."""
    found = [p for p in process.children(recursive=True) if "attnet.train" in p.cmdline() and "-u" in p.cmdline()]
    return sorted(found, key=lambda p: int(p.environ()["RANK"]))


def end(process: psutil.Popen, family: list[psutil.Process]) -> None:
    """Whatever a failed test left, by its own id."""
    for one in [process, *family]:
        if one.is_running():
            one.kill()
    process.wait()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    return launch(TrainConfig(**TINY, output_dir=str(tmp_path_factory.mktemp("launch") / "run"))).output_dir


def assert_same_weights(a: Path, b: Path) -> None:
    mine, others = weights(a), weights(b)
    assert mine.keys() == others.keys()
    for name, value in mine.items():
        assert torch.equal(value, others[name]), name


@pytest.mark.slow
def test_the_shown_command_works_when_pasted(tmp_path):
    config = TrainConfig(**{**TINY, "total_epochs": 1, "train_images": 32})
    command = [sys.executable, *Torchrun(config).words(tmp_path / "pasted")]
    done = subprocess.run(command, cwd=repository_root(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "epoch 1/1" in done.stdout and attnet.Result.load(tmp_path / "pasted").device == "cpu_2p"


@pytest.mark.slow
def test_the_picture_of_many_cards_has_the_network_of_each_epoch(tmp_path, monkeypatch):
    seen: dict[float, dict[str, torch.Tensor]] = {}

    class Keep:
        def __init__(self, config: TrainConfig, plan: Plan) -> None:
            assert plan.device.kind == "CPU" and plan.config == config

        def note(self, sight: Sight) -> None:
            if (network := sight.look()) is not None:
                assert not network.training
                seen[sight.epochs] = network.state_dict()

        def picture(self, sight: Sight) -> str:
            return f"{len(sight.rows)} epochs"

    shown = []
    monkeypatch.setattr("IPython.display.display", lambda picture, display_id: shown.append(picture))
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(watching, "FIRST", 0.0)
    monkeypatch.setattr(watching, "SHARE", 1.0)
    epochs = {**TINY, "total_epochs": 2, "keep_epochs": 1, "train_images": 64, "progress": "auto"}
    result = launch(attnet.make_plan(TrainConfig(**epochs, output_dir=str(tmp_path / "run"))), draw=Keep)
    assert shown == ["2 epochs"] and 2 in seen
    for epoch, found in seen.items():
        kept = torch.load(result.output_dir / f"epoch_{epoch:03d}.pt", weights_only=True)["model"]
        assert all(torch.equal(kept[name], value) for name, value in found.items())


def test_several_machines():
    config = TrainConfig(device_num=16, nnodes=2, node_rank=1, dist_url="tcp://10.0.0.1:29400", max_restarts=1)
    words = Torchrun(config).arguments(Path("/shared/run"))
    assert words[:5] == [
        *("--nnodes=2", "--node_rank=1", "--rdzv_backend=c10d"),
        *("--rdzv_endpoint=10.0.0.1:29400", "--rdzv_id=attnet"),
    ]
    assert "--nproc_per_node=8" in words and "--standalone" not in words


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"device_num": 3, "nnodes": 2, "dist_url": "a:1"}, "device_num=3: 2 machines cannot share them evenly"),
        ({"device_num": 4, "nnodes": 2}, "nnodes=2: give dist_url=HOST:PORT"),
        ({"device_num": 4, "nnodes": 2, "dist_url": "host0"}, "dist_url='host0': HOST:PORT is needed"),
        ({"device_num": 4, "nnodes": 2, "dist_url": "host0:many"}, "dist_url='host0:many': HOST:PORT is needed"),
        ({"device_num": 4, "nnodes": 2, "dist_url": "host0:70000"}, "dist_url='host0:70000': HOST:PORT is needed"),
        (
            {"device_num": 4, "nnodes": 2, "node_rank": 2, "dist_url": "a:1"},
            "node_rank=2: machines are numbered 0 to 1",
        ),
    ],
)
def test_machines_that_cannot_work(parameters, message):
    with pytest.raises(ConfigError, match=message):
        Torchrun(TrainConfig(**parameters)).arguments(Path("/shared/run"))


def test_more_cards_than_there_are(monkeypatch, tmp_path):
    config = TrainConfig(**{**TINY, "device_num": 8}, output_dir=str(tmp_path / "run"))
    decision = decide(config)._replace(device=KINDS["GPU"]())
    monkeypatch.setattr(launcher, "decide", lambda config: decision)
    monkeypatch.setattr(launcher.devices, "count", lambda kind: 2)
    with pytest.raises(ConfigError, match="device_num=8: only 2 GPU cards are here"):
        launch(config)
    assert not (tmp_path / "run").exists()


def test_a_port_that_another_program_has():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = TrainConfig(device_num=4, nnodes=2, dist_url=f"host0:{port}")
        with pytest.raises(ConfigError, match=rf"^dist_url='host0:{port}': port {port} cannot be had on this machine"):
            Torchrun(config).check_port()
        Torchrun(config.replace(node_rank=1)).check_port()  # the port is machine 0's


def test_what_another_job_left_is_named_and_not_passed_on(monkeypatch):
    for name in [name for name in os.environ if name.startswith("PET_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PET_NNODES", "2")
    monkeypatch.setenv("MASTER_PORT", "1")
    shown = Torchrun(TrainConfig(device_num=2)).shown(Path("/run"))
    assert shown.startswith("env -u MASTER_PORT -u PET_NNODES torchrun --standalone --local_addr=127.0.0.1 ")


class Sleeper(Torchrun):
    """A launcher whose ranks never begin."""

    def words(self, folder: Path) -> list[str]:
        return ["-c", "import time; time.sleep(100)"]


def test_a_job_stopped_before_its_ranks_began_offers_no_resume(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(launcher.LAUNCHERS, "sleeper", Sleeper)
    monkeypatch.setattr(distributed, "PATIENCE", 0.1)
    monkeypatch.setenv("PET_NNODES", "2")
    timer = threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(TrainingInterrupted) as stopped:
        launch(TrainConfig(**TINY, output_dir=str(tmp_path / "run")), launcher="sleeper")
    timer.join()
    assert str(stopped.value) == "stopped before its ranks began; there is nothing to go on with, so begin again"
    assert stopped.value.signal_number == signal.SIGTERM
    said = capsys.readouterr().err
    assert "PET_NNODES: set here, by another job it seems, and not passed on" in said
    assert re.search(r"no rank has begun after [\d.]+ s; torchrun.s own words are in ", said)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("logs/rank0.log",), "stopped before anything was saved; there is nothing to go on with, so begin again"),
        (("last.pt",), "stopped, too late or too early to save: the last checkpoint is of"),
        (("last.pt", "log.txt"), "stopped; everything is saved. Go on with resume="),
    ],
)
def test_the_last_words_say_what_is_on_the_disk(tmp_path, files, message):
    (tmp_path / "log.txt").write_text("stopped by SIGTERM in an earlier job\n")
    job = launcher._Job(Torchrun(TrainConfig()), tmp_path, TrainConfig(), None)
    for name in files:
        with open(tmp_path / name, "a") as file:
            file.write("stopped by SIGTERM in epoch 1\n")
    assert job._left_behind(bool(job._last_word())).startswith(message)


def test_a_job_writes_nothing_through_a_link_and_waits_for_no_pipe(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "logs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"output_dir=.*run: cannot be written \(logs in it is a link or no folder"):
        launcher._Job(Torchrun(TrainConfig()), tmp_path / "run", TrainConfig(), None)
    assert not [*(tmp_path / "elsewhere").iterdir()]
    (tmp_path / "run" / "logs").unlink()
    job = launcher._Job(Torchrun(TrainConfig()), tmp_path / "run", TrainConfig(), None)
    for pipe in (job.rank0, job.log, job.torchrun):
        os.mkfifo(pipe)
    job.process = subprocess.CompletedProcess([], 1)
    job._show(Progress(lambda line: None))
    assert job._last_word() == "" and "its last lines, from" in job._cause()


@pytest.mark.slow
def test_a_machine_that_cannot_find_itself_and_an_older_jobs_variables(tmp_path):
    """Its host name resolves to nothing, and torchrun's options are set to another job's."""
    apart = ["unshare", "--uts", "sh", "-c", 'hostname nowhere.invalid && exec "$0" "$@"']
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a host name of its own")
    changes = {"total_epochs": 1, "train_images": 32}
    flags = TrainConfig(**{**TINY, **changes}, output_dir=str(tmp_path / "run")).flags()
    environment = os.environ | {"PET_NNODES": "2", "RANK": "", "WORLD_SIZE": "", "MASTER_PORT": "1"}
    command = [*apart, sys.executable, "-m", "attnet.train", *flags]
    done = subprocess.run(
        command, cwd=repository_root(), env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "MASTER_PORT, PET_NNODES, RANK, WORLD_SIZE: set here, by another job it seems" in done.stderr
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.slow
def test_a_rank_that_dies_is_brought_back_to_the_same_weights(undisturbed, tmp_path):
    process = start(tmp_path / "run", checkpoint_seconds=2)
    try:
        wait_until(lambda: (tmp_path / "run" / "last.pt").exists(), process)
        ranks_of(process)[1].kill()
        output = process.stdout.read().decode()
        assert process.wait() == 0, output
        assert "resume: " in output
        assert_same_weights(undisturbed, tmp_path / "run")
    finally:
        end(process, [])


@pytest.mark.slow
def test_a_rank_that_dies_for_good_is_named_with_its_last_lines(tmp_path):
    process = start(tmp_path / "run", max_restarts=0)
    try:
        wait_until(lambda: (tmp_path / "run" / "metrics.jsonl").exists(), process)
        family = process.children(recursive=True)
        ranks_of(process)[0].kill()
        output = process.stdout.read().decode()
        assert process.wait() != 0
        assert "LaunchError: rank 0 of 2 failed (killed by SIGKILL) after 0 restarts" in output
        assert f"    epoch 1/{EPOCHS}" in output and "rank0.log" in output
        assert not psutil.wait_procs(family, timeout=60)[1], "no process left behind"
    finally:
        end(process, [])


@pytest.mark.slow
def test_a_notebook_that_is_interrupted_then_killed_loses_nothing(undisturbed, tmp_path):
    """Nobody else gets its folder; then Ctrl-C in the cell, later the kernel killed: every process ends each time.

    Going on gives the undisturbed weights.
    """
    folder = tmp_path / "run"

    def epochs() -> int:
        metrics = folder / "metrics.jsonl"
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    for number, changes in ((signal.SIGINT, {}), (signal.SIGKILL, {"resume": str(folder)})):
        before = epochs()
        process = start(folder, **changes)
        family = []
        try:
            wait_until(lambda before=before: epochs() > before, process)
            family = process.children(recursive=True)
            assert len(family) >= 3
            if number == signal.SIGINT:
                with pytest.raises(ConfigError, match=rf"in use by process {ranks_of(process)[0].pid} on "):
                    attnet.fit(TrainConfig(**{**TINY, "device_num": 1, "accumulate": 2}, resume=str(folder)))
            os.kill(process.pid, number)
            process.wait(timeout=90)
            assert not psutil.wait_procs(family, timeout=60)[1], "no process left behind"
            if number == signal.SIGINT:
                assert "INTERRUPTED stopped; everything is saved" in process.stdout.read().decode()
            assert not (folder / "result.json").exists() and (folder / "step.pt").exists()
        finally:
            end(process, family)
    result = launch(TrainConfig(**TINY, resume=str(folder)))
    assert result.output_dir == folder and result.epochs == EPOCHS
    assert_same_weights(undisturbed, folder)


@pytest.mark.slow
def test_another_number_of_cards_goes_on_from_an_epochs_end(tmp_path, monkeypatch, capfd):
    """Stopped within epoch 2 of a run on two cards: two cards, or one with accumulate=2, go on from that step.

    Three micro-batches a step go on from the end of epoch 1.
    """
    folder, short = tmp_path / "run", {**TINY, "total_epochs": 2}

    def interrupt_at_step_3(self: Progress, done: int, loss: torch.Tensor) -> None:
        if (self.epoch, done) == (2, 3):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "step", interrupt_at_step_3)
        with pytest.raises(TrainingInterrupted):
            attnet.fit(TrainConfig(**{**short, "device_num": 1, "accumulate": 2}, output_dir=str(folder)))
    stored = TrainConfig.load(folder / "config.json").replace(device_num=2, accumulate=1)  # the same steps
    (folder / "config.json").write_text(json.dumps(stored.to_dict()))
    for copy in ("one", "three"):
        shutil.copytree(folder, tmp_path / copy)
    capfd.readouterr()

    result = launch(TrainConfig(resume=str(folder), progress="lines"))
    assert (result.epochs, result.device) == (2, "cpu_2p")
    assert "goes on after epoch 1, step 3" in capfd.readouterr().out

    one = attnet.fit(TrainConfig(accumulate=2, resume=str(tmp_path / "one")))
    assert one.device == "cpu_1p"
    losses = [[row["train_loss"] for row in each.history] for each in (result, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3), "over the whole epoch, whichever card took a step"
    assert "goes on after epoch 1, step 3" in capfd.readouterr().out

    assert attnet.fit(TrainConfig(accumulate=3, resume=str(tmp_path / "three"))).epochs == 2
    shown = capfd.readouterr().out
    assert "reached with 2 micro-batches a step, now there are 3; going on from the end of epoch 1" in shown


@pytest.mark.slow
def test_ranks_that_are_asked_to_stop_are_saved_and_not_brought_back(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, total_epochs=500, train_images=800)
    try:
        wait_until(lambda: is_run(folder) and look(folder).step > 0, process)
        status = look(folder)
        assert status.state == "running" and len(status.ranks) == 2
        watched(folder).stop()
        output = process.stdout.read().decode()
        assert process.wait() == 130 and "INTERRUPTED stopped by a request" in output
    finally:
        end(process, [])
    status = look(folder)
    assert status.state == "stopped" and [rank.state for rank in status.ranks] == ["stopped and saved"] * 2
    assert (folder / "logs" / "rank0.log").read_text().count("network: attention56_tiny") == 1, "begun once"
    state = torch.load(folder / "step.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (status.epoch, status.step)


@pytest.mark.slow
def test_a_batch_systems_warning_to_every_process_of_a_job_saves_it(tmp_path):
    folder = tmp_path / "run"
    process = start(folder, total_epochs=500, train_images=800)
    family = []
    try:
        wait_until(lambda: is_run(folder) and look(folder).step > 0, process)
        family = process.children(recursive=True)
        for one in [*family, process]:
            os.kill(one.pid, signal.SIGUSR1)
        output = process.stdout.read().decode()
        assert process.wait() == 130 and "INTERRUPTED stopped; everything is saved" in output
        assert not psutil.wait_procs(family, timeout=60)[1], "no process left behind"
    finally:
        end(process, family)
    assert look(folder).state == "stopped" and (folder / "step.pt").exists()
