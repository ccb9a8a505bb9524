"""A run is known from its folder alone: its state, how far it is, its ranks; whatever the files hold."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from made import ROW, begun_run, wait_until

from attnet.base.errors import ConfigError, SaveError
from attnet.base.processes import TrainingInterrupted, began, identity
from attnet.engine.status import pulse as pulses
from attnet.engine.status import read, words
from attnet.engine.status.facts import STATES
from attnet.engine.status.look import Looker, look
from attnet.engine.status.pulse import Pulse, ask_to_stop
from attnet.engine.status.watched import watched


def aged(folder, seconds: float) -> None:
    """As if everything had been written so long ago."""
    then = time.time() - seconds
    for file in [*folder.rglob("*"), folder]:
        os.utime(file, (then, then))


def owned_by(pid: int) -> str:
    return json.dumps({"process": pid, "host": socket.gethostname()})


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_at_work(tmp_path):
    run = begun_run(tmp_path / "run")
    (run / "last.pt").write_bytes(b"x")
    status = look(run)
    assert (status.state, status.where) == ("running", f"process {os.getpid()} here")
    assert (status.epochs, status.epoch, status.step, status.steps) == (10, 2, 5, 10)
    assert status.rate == 2.0 * 16
    assert status.left == pytest.approx(60 * 7.5), "seven epochs and a half, of a minute each"
    assert status.share == pytest.approx(0.25) and status.best["epoch"] == 2
    assert status.checkpoint[0] == "last.pt" and status.log[-1] == "epoch 2/10"
    assert [rank.state for rank in status.ranks] == ["training"] and status.exit_status == STATES["running"][0]


def test_within_the_first_epoch_time_is_told_by_the_steps(tmp_path):
    status = look(begun_run(tmp_path / "run", epochs=0, trace=[9.0, 16.0], traced=4))
    assert status.left == pytest.approx((10 * 10 - 5) / 2.0)
    assert status.begun[0]["train_loss"] == pytest.approx(4.0) and status.best is None


def test_states_of_a_run_that_is_over(tmp_path, gone):
    finished = begun_run(tmp_path / "finished")
    (finished / "result.json").write_text("{}")
    assert look(finished).state == "finished" and look(finished).share == 1

    asked = begun_run(tmp_path / "asked", ended="stopped")
    assert look(asked).state == "stopped", "though its process lives, as a notebook's does"

    killed = begun_run(tmp_path / "killed", pid=gone)
    aged(killed, 20)
    status = look(killed)
    assert status.state == "died" and "last sign" in status.why and status.exit_status == 4

    killed.joinpath("log.txt").write_text("a plan\nstopped by SIGTERM in epoch 3; everything is saved\n")
    assert look(killed).state == "stopped", "saved, before it could give its last sign"

    failed = begun_run(tmp_path / "failed", ended="AttnetError: epoch 3: training has diverged")
    assert look(failed).why == "AttnetError: epoch 3: training has diverged"


def test_a_number_that_another_process_has_by_now_is_nobody(tmp_path):
    run = begun_run(tmp_path / "run")
    if began(os.getpid()) is None:
        pytest.skip("when a process began is not told here")
    aged(run, 3600 * 24 * 365)
    assert look(run).state == "died"


def test_a_silent_process_that_lives_is_running_and_its_silence_is_told(tmp_path):
    run = begun_run(tmp_path / "run", size=2)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        old = json.loads((run / "pulse" / "rank1.json").read_text()) | {"pid": sleeper.pid}
        (run / "pulse" / "rank1.json").write_text(json.dumps(old))
        os.utime(run / "pulse" / "rank1.json", (time.time() - 40,) * 2)
        status = look(run)
        assert [rank.state for rank in status.ranks] == ["training", "no sign for 40 s"]
        assert any("1 of 2 train" in line for line in words.frame(status))
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_run_elsewhere_is_known_by_its_signs(tmp_path):
    run = begun_run(tmp_path / "run", host="far-away", pid=1)
    assert (look(run).state, look(run).where) == ("running", "process 1 on far-away")
    aged(run, 20)
    assert look(run).state == "running", "a moment's silence of a file system"
    aged(run, 60)
    assert look(run).state == "died" and "cannot be reached" in look(run).why


def test_a_run_that_begins_or_is_brought_back(tmp_path, gone):
    begins = tmp_path / "begins"
    begins.mkdir()
    (begins / ".owner").write_text(owned_by(os.getpid()))
    assert look(begins).state == "begins"
    (begins / ".owner").write_text(owned_by(gone))
    assert look(begins).state == "died"
    (begins / ".claimed").write_text(str(os.getpid()))
    assert look(begins).state == "begins"

    back = begun_run(tmp_path / "back", pid=gone, keeper=1)  # a process that was there before the file
    os.utime(back / "pulse" / "rank0.json", (time.time() - 20,) * 2)
    status = look(back)
    assert status.state == "begins" and "torchrun, process 1 here" in status.where


# -- files are believed in nothing -----------------------------------------------------------------------------------


def test_torn_and_foreign_lines_are_left_out(tmp_path):
    run = begun_run(tmp_path / "run")
    lines = ['{"epoch": 3, "lr": 0.1', "[]", "nonsense", '{"epoch": "4"}', json.dumps(ROW | {"epoch": 5, "top1": None})]
    lines += [json.dumps(ROW | {"epoch": 10**30}), json.dumps(ROW | {"epoch": -1}), json.dumps(ROW | {"trace": ["x"]})]
    with open(run / "metrics.jsonl", "a") as file:
        file.write("\n".join(lines))
    assert [row["epoch"] for row in look(run).rows] == [1, 2]


@pytest.mark.parametrize("blob", [b"", b"{", b"[1]", b"null", b"\xff\xfe\0", b'{"rank": 0}', b"[" * 50_000])
def test_damaged_files_are_as_if_they_were_not_there(tmp_path, blob):
    run = begun_run(tmp_path / "run")
    for name in ("config.json", "metrics.jsonl", "log.txt", "pulse/rank0.json", ".owner", ".claimed"):
        (run / name).write_bytes(blob)
    status = look(run)
    assert status.state in STATES and not status.rows and not status.ranks
    assert words.frame(status) and words.line(status)


@pytest.mark.parametrize("value", [10**18, -(10**18), 1e300, -1.0, 0, "x", [], {}, None, True])
def test_figures_out_of_all_bounds_do_no_harm(tmp_path, value):
    names = ("size", "pid", "host", "keeper", "every", "epochs", "epoch", "step", "steps", "images", "rate", "still")
    for name in (*names, "ended", "trace", "traced"):
        run = begun_run(tmp_path / name)
        sign = json.loads((run / "pulse" / "rank0.json").read_text()) | {name: value}
        (run / "pulse" / "rank0.json").write_text(json.dumps(sign))
        rows = [ROW | {"epoch": 3, key: value} for key in ROW if key != "epoch"]
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        status = look(run)
        lines = words.frame(status, 80)
        assert max(map(len, lines)) <= 80 and 0 <= status.share <= 1


def test_only_the_end_of_a_long_file_is_read(tmp_path):
    run = begun_run(tmp_path / "run")
    with open(run / "metrics.jsonl", "wb") as file:
        file.truncate(50 << 30)  # bytes that take no place
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + json.dumps(ROW | {"epoch": 7}).encode() + b"\n")
    blob, _ = read.tail(run / "metrics.jsonl", 1000)
    assert len(blob) == 1000
    assert [row["epoch"] for row in look(run).rows] == [7]


def test_pipes_folders_and_links_to_nowhere_are_no_files(tmp_path):
    run = begun_run(tmp_path / "run")
    for name in ("config.json", "metrics.jsonl", "log.txt"):
        (run / name).unlink()
    os.mkfifo(run / "metrics.jsonl")
    (run / "log.txt").mkdir()
    (run / "config.json").symlink_to(run / "nowhere")
    assert look(run).state == "running"


def test_what_is_written_on_a_terminal_cannot_steer_it(tmp_path):
    run = begun_run(tmp_path / "run\x1b[2J", ended="\x1b]0;bad\x07\nmore")
    (run / "log.txt").write_text("\x1b[31mred\n" + "x" * 500)
    (run / "config.json").write_text(json.dumps({"model": "\x1b[1m", "dataset": "\u202e"}))
    text = "\n".join(words.frame(look(run), 60))
    assert "\x1b" not in text and "\x07" not in text and max(map(len, text.split("\n"))) <= 60


def test_what_has_not_changed_is_not_read_again(tmp_path, monkeypatch):
    run = begun_run(tmp_path / "run")
    looker, opened, tail = Looker(run), [], read.tail
    looker.look()
    monkeypatch.setattr(
        "attnet.engine.status.look.tail", lambda file, most: opened.append(file.name) or tail(file, most)
    )
    looker.look()
    assert not opened
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(ROW | {"epoch": 3}) + "\n")
    assert len(looker.look().rows) == 3 and opened == ["metrics.jsonl"]


def test_no_run_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        watched(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="no run is there or below"):
        watched(tmp_path)


# -- several runs ----------------------------------------------------------------------------------------------------


def test_the_runs_of_a_sweep_are_a_table(tmp_path):
    begun_run(tmp_path / "lr=0.1" / "abc-seed0")
    done = begun_run(tmp_path / "lr=0.2" / "abc-seed0", epochs=10)
    (done / "result.json").write_text("{}")
    begun_run(tmp_path / "lr=0.2" / "abc-seed1", ended="stopped")
    (tmp_path / "lr=0.3").symlink_to(tmp_path / "lr=0.1")
    what = watched(tmp_path)
    what.look()
    assert "3 runs: 1 finished, 1 stopped, 1 running" in what.line()
    lines = what.frame(80, 40)
    [row] = [line for line in lines if "lr=0.2/abc-seed0" in line]
    assert row.split()[1:] == ["3", "finished", "10", "of", "10", "40.00", "–"]
    assert max(map(len, lines)) <= 80 and what.is_at_work
    assert len(what.frame(40, 3)[1:]) <= 5, "those at work stay where not all have room"
    assert "running" in "\n".join(what.frame(60, 6))


def test_a_sweep_is_stopped_by_its_process_and_its_runs_by_the_sweep(tmp_path):
    run = begun_run(tmp_path / "lr=0.1" / "abc-seed0")
    with pytest.raises(ConfigError, match="no sweep of this machine"):
        watched(tmp_path).stop()
    sweep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        (run / ".lease").mkdir()
        holder = {"worker": "the night shift", "seconds": 60.0, "process": identity(sweep.pid)}
        (run / ".lease" / "1").write_text(json.dumps(holder))
        with pytest.raises(ConfigError, match=r"this run is a sweep's.*the night shift"):
            watched(run).stop()
        assert not (run / "stop").exists()
        watched(tmp_path).stop()
        assert sweep.wait(20) == -signal.SIGTERM
        with pytest.raises(ConfigError, match="no sweep of this machine is at work there; a"):
            watched(tmp_path).stop()
        (run / ".lease" / "1").write_text(json.dumps(holder | {"process": "another-machine 1 1"}))
        with pytest.raises(ConfigError, match="no sweep of this machine is at work there, but the night shift"):
            watched(tmp_path).stop()
    finally:
        sweep.kill()
        sweep.wait()


# -- what a run writes -----------------------------------------------------------------------------------------------


def position(step: int = 0) -> dict[str, object]:
    return {"epochs": 3, "epoch": 0, "step": step, "steps": 10, "images": 16}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(pulses, "EVERY", 0.01)


def test_a_rank_gives_signs_and_takes_them_away_at_a_good_end(tmp_path, quick):
    at = [0]
    file = tmp_path / "pulse" / "rank0.json"
    with Pulse(0, 1, lambda: position(at[0])).beating(tmp_path):
        assert json.loads(file.read_text())["pid"] == os.getpid()
        at[0] = 4
        wait_until(lambda: json.loads(file.read_text())["step"] == 4)
        assert json.loads(file.read_text())["rate"] > 0
        (tmp_path / "config.json").write_text("{}")
        assert look(tmp_path).state == "running" and look(tmp_path).step == 4
    assert not (tmp_path / "pulse").exists()


def test_how_a_rank_ended_is_kept(tmp_path, quick):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RuntimeError), Pulse(0, 1, position).beating(tmp_path):
        raise RuntimeError("no more memory")
    assert look(tmp_path).why == "RuntimeError: no more memory"
    with pytest.raises(TrainingInterrupted), Pulse(0, 1, position).beating(tmp_path):
        raise TrainingInterrupted("stopped by SIGTERM", signal.SIGTERM)
    assert look(tmp_path).state == "stopped"


def test_a_request_is_heard_and_an_old_one_is_not(tmp_path, quick):
    ask_to_stop(tmp_path)
    pulse = Pulse(0, 1, position)
    with pulse.beating(tmp_path):
        time.sleep(0.1)
        assert not pulse.asked and not (tmp_path / "stop").exists()
        ask_to_stop(tmp_path)
        wait_until(lambda: pulse.asked)
    assert not (tmp_path / "stop").exists(), "obeyed or too late"


def test_signs_that_cannot_be_written_are_left_out(tmp_path, quick, monkeypatch):
    def full(*_: object) -> None:
        raise SaveError("no space left on device")

    monkeypatch.setattr(pulses, "write_text", full)
    pulse = Pulse(0, 1, position)
    with pulse.beating(tmp_path):
        (tmp_path / "stop").touch()
        wait_until(lambda: pulse.asked)
    monkeypatch.undo()
    with Pulse(0, 1, position).beating(tmp_path / "taken" / "away"):
        pass


def test_ranks_that_are_no_more_leave_no_sign(tmp_path):
    begun_run(tmp_path / "run", size=4)
    with Pulse(0, 2, position).beating(tmp_path / "run"):
        assert sorted(file.name for file in (tmp_path / "run" / "pulse").iterdir()) == ["rank0.json", "rank1.json"]


def test_signs_go_through_no_link_and_take_nothing_away_there(tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.tex").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pulse").symlink_to(tmp_path / "elsewhere")
    with Pulse(0, 1, lambda: {"epoch": 0, "step": 0, "steps": 1}).beating(tmp_path / "run"):
        ask_to_stop(tmp_path / "run")
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == ["thesis.tex"]
    assert "will not see this run (pulse in it is a link or no folder; take it away)" in capsys.readouterr().err
