"""Several workers on one folder: each run is one's alone, whatever becomes of who has it; and what each says."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from made import make_result, save, wait_until
from made_sweeps import TINY, sweep_of, with_processes

from attnet.base.errors import ConfigError
from attnet.base.files.paths import repository_root
from attnet.base.processes import StopSignal, TrainingInterrupted
from attnet.engine.holding.lease import Lease, look
from attnet.engine.parameters import TrainConfig
from attnet.study.sweeps.configs import grid
from attnet.study.sweeps.runner import Runner
from attnet.study.sweeps.runs import LOG
from attnet.study.sweeps.sweep import Sweep
from attnet.study.sweeps.workers import Worker

DONE = "open('result.json', 'w').write(result)"


def held(folder: Path, seconds: float = 30.0) -> Lease:
    """The lease of a run, in the hands of another worker; of this test's process, which lives."""
    lease = Lease.take(folder, look(folder).number, seconds, "process 7 on node3")
    lease.beat()
    return lease


# ---- what others have ----


def test_a_run_that_another_has_is_left_to_it_and_its_result_is_in_the_rows(tmp_path, monkeypatch, capsys):
    started = with_processes(monkeypatch, DONE)
    sweep = sweep_of(tmp_path, "abc")
    folder = sweep.runs()[1].folder
    other, speak = held(folder), Runner._speak

    def finish_once_it_is_waited_for(runner: Runner, now: float) -> None:
        speak(runner, now)
        if not runner.jobs and other.is_held():
            (folder / "result.json").write_text(json.dumps(make_result(last_top1=77.0).to_json()))
            other.give_back()

    monkeypatch.setattr(Runner, "_speak", finish_once_it_is_waited_for)
    rows = sweep.run()
    assert [name for name, *_ in started] == ["a", "c"]
    assert [row["top1"] for row in rows] == [[50.0], [77.0], [50.0]]
    head, a, c, waiting = capsys.readouterr().out.splitlines()
    assert head == f"sweep of 3 configurations x 1 seed in {tmp_path}: 3 to do; 1 other worker is at work here"
    assert a.startswith("[1/3] a, seed 0: Top-1 50.00 %") and c.startswith("[2/3] c, seed 0: Top-1 50.00 %")
    pattern = r"waiting for runs that others have: b, seed 0 \(process 7 on node3, heard of \d\.\d s ago\)"
    assert re.fullmatch(pattern, waiting)


def test_a_run_whose_holder_is_silent_is_taken_over(tmp_path, monkeypatch):
    started = with_processes(monkeypatch, DONE)
    sweep = sweep_of(tmp_path, "a")
    other = held(sweep.runs()[0].folder, seconds=0.5)
    assert sweep.run()[0]["top1"] == [50.0]
    assert [name for name, *_ in started] == ["a"] and not other.is_held()
    assert look(other.folder).number == 2 and not look(other.folder).is_held


def test_a_run_that_was_finished_just_before_it_was_taken_is_not_run_again(tmp_path, monkeypatch):
    started = with_processes(monkeypatch, DONE)
    sweep = sweep_of(tmp_path, "a")
    (run,) = sweep.runs()
    take = Worker.take

    def others_are_quicker(worker: Worker, folder: Path) -> Lease | None:
        save(make_result(last_top1=71.0), folder)
        return take(worker, folder)

    monkeypatch.setattr(Worker, "take", others_are_quicker)
    assert sweep.run()[0]["top1"] == [71.0]
    assert not started and not look(run.folder).is_held


def test_a_run_that_is_taken_from_us_is_left_and_ended(tmp_path, monkeypatch, capsys):
    """As after this process slept: another has the run now, which is not to be failed or tried again here."""
    started = with_processes(monkeypatch, "open('here', 'w').close(); time.sleep(60)")
    sweep = sweep_of(tmp_path, "a")
    (run,) = sweep.runs()
    beat, children = Runner._beat, []

    def sleep_once_it_runs(runner: Runner) -> list:
        if (run.folder / "here").exists() and not children:
            children.extend(psutil.Process().children())
            held(run.folder)
            runner.leases[run].clock = lambda: float("inf")  # it is time to beat
        return beat(runner)

    def finish_once_it_is_waited_for(runner: Runner, now: float) -> None:
        if not runner.jobs:
            (run.folder / "result.json").write_text(json.dumps(make_result(last_top1=77.0).to_json()))

    monkeypatch.setattr(Runner, "_beat", sleep_once_it_runs)
    monkeypatch.setattr(Runner, "_speak", finish_once_it_is_waited_for)
    (row,) = sweep.run(lease=30)
    assert len(started) == 1 and (row["top1"], row["failures"]) == ([77.0], [])
    assert children and not any(child.is_running() for child in children)
    assert "a, seed 0: left to process 7 on node3, heard of 0.0 s ago; nothing was heard of this worker for 30 s" in (
        capsys.readouterr().out.splitlines()
    )
    assert look(run.folder).is_held  # the other's, which was not touched


# ---- failures ----


def test_what_failed_with_another_worker_is_not_tried_by_all_the_others(tmp_path, monkeypatch):
    started = with_processes(monkeypatch, DONE)
    sweep = sweep_of(tmp_path, "ab")
    a, _ = sweep.runs()
    other, speak = held(a.folder), Runner._speak

    def fail_once_it_is_waited_for(runner: Runner, now: float) -> None:
        speak(runner, now)
        if not runner.jobs:
            other.give_back("exit status 3; out of memory")

    monkeypatch.setattr(Runner, "_speak", fail_once_it_is_waited_for)
    rows = sweep.run()
    assert [name for name, *_ in started] == ["b"]
    assert [row["failures"] for row in rows] == [["seed 0: exit status 3; out of memory"], []]
    assert [row["failures"] for row in sweep.run()] == [[], []], "the next start tries it again"
    assert [name for name, *_ in started] == ["b", "a"]


def test_who_comes_while_others_work_does_not_try_again_what_failed_with_them(tmp_path, monkeypatch):
    started = with_processes(monkeypatch, DONE)
    sweep = sweep_of(tmp_path, "ab")
    held(sweep.runs()[0].folder).give_back("exit status 3")
    elsewhere = held(tmp_path / "another configuration" / "1234-seed0")
    assert [row["failures"] for row in sweep.run()] == [["seed 0: exit status 3"], []]
    elsewhere.give_back()
    assert [row["failures"] for row in sweep.run()] == [[], []]
    assert [name for name, *_ in started] == ["b", "a"]


def test_what_fails_here_is_told_to_others(tmp_path, monkeypatch):
    with_processes(monkeypatch, "print('no memory left', flush=True); raise SystemExit(3)")
    sweep = sweep_of(tmp_path, "a")
    sweep.run()
    assert look(sweep.runs()[0].folder).outcome == "exit status 3; no memory left"


# ---- leaving ----


def test_a_worker_that_is_stopped_frees_its_runs_at_once(tmp_path, monkeypatch):
    with_processes(monkeypatch, "open('here', 'w').close(); time.sleep(60)")
    a, b = sweep_of(tmp_path, "ab").runs()
    stop, runner = StopSignal(), Runner([a, b], 2, Worker(tmp_path))
    beat = runner._beat

    def once_both_are_here() -> list:
        if (a.folder / "here").exists() and (b.folder / "here").exists():
            assert look(a.folder).is_held and look(b.folder).is_held
            stop.number = signal.SIGTERM
        return beat()

    monkeypatch.setattr(runner, "_beat", once_both_are_here)
    with pytest.raises(TrainingInterrupted), runner:
        runner.work(stop)
    for run in (a, b):
        assert not look(run.folder).is_held and look(run.folder).outcome == ""
        assert Worker(tmp_path).take(run.folder) is not None


def test_leases_of_no_length_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="lease=0: 1 to 86400 seconds"):
        sweep_of(tmp_path, "a").run(lease=0)


# ---- real workers ----


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a sweep that gets SIGKILL leaves its run to its end")
def test_two_workers_share_a_sweep_and_one_goes_on_with_what_the_other_left(tmp_path):
    """One is killed while it trains; two others come, with another configuration in one of them; every run is done once
    and each writes the whole table."""
    given = TINY | {"total_epochs": 3}
    configs = grid(TrainConfig(**given), lr=(0.1, 0.05))
    first = Sweep(configs, (0, 1), tmp_path / "runs")
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]

    def worker(number: int, lr: str, seeds: str) -> psutil.Popen:
        words = ["--grid", f"lr={lr}", "--seeds", seeds, "--folder", str(tmp_path / "runs"), "--lease", "20"]
        output = ["--output", str(tmp_path / f"{number}.json")]
        with open(tmp_path / f"{number}.log", "w") as log:
            return psutil.Popen(
                [sys.executable, "-m", "attnet", "sweep", *words, *output, *flags],
                cwd=repository_root(), stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    workers = [worker(0, "0.1,0.05", "0,1")]
    try:
        begun = first.runs()[0].folder / "metrics.jsonl"
        wait_until(lambda: begun.exists() or workers[0].poll() is not None)
        workers[0].kill()
        workers += [worker(1, "0.1,0.05", "0,1"), worker(2, "0.05,0.02", "0")]
        assert [one.wait(600) for one in workers[1:]] == [0, 0]
    finally:
        for one in workers:
            if one.poll() is None:
                one.kill()
    for run in (*first.runs(), *Sweep(grid(TrainConfig(**given), lr=(0.02,)), (0,), tmp_path / "runs").runs()):
        log = (run.folder / LOG).read_text()
        assert log.count("run folder: ") == 1, run  # said when it is finished
        assert [int(number) for number in re.findall(r"^epoch (\d+)/", log, flags=re.MULTILINE)] == [1, 2, 3]
        assert not look(run.folder).is_held
    one, other = (json.loads((tmp_path / f"{number}.json").read_text()) for number in (1, 2))
    assert [row["name"] for row in one["rows"]] == ["lr=0.1", "lr=0.05"]
    assert [row["name"] for row in other["rows"]] == ["lr=0.05", "lr=0.02"]
    assert one["rows"][1]["top1"][:1] == other["rows"][0]["top1"] and not any(row["failures"] for row in one["rows"])
