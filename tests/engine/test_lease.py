"""Leases: one holder at a time, whoever dies, sleeps or loses a race at whatever step; and what a late writer finds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import attnet
from attnet.base.errors import ConfigError, SaveError
from attnet.base.files.paths import repository_root
from attnet.base.processes import identity, is_gone
from attnet.engine.holding import lock
from attnet.engine.holding.lease import BEATS, PLACE, VARIABLE, Lease, Lost, Watch, is_orphan, look
from attnet.engine.holding.lock import InUse, user_of
from attnet.engine.loop import Trainer
from attnet.engine.run_folder import RunFolder


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder / PLACE))


# ---- taking and giving back ----


def test_a_lease_is_one_workers_alone_until_it_is_given_back(tmp_path):
    assert not look(tmp_path).is_held and look(tmp_path).number == 0
    first = Lease.take(tmp_path, 0, 30, "a")
    assert Lease.take(tmp_path, 0, 30, "b") is None
    seen = look(tmp_path)
    assert (seen.number, seen.worker, seen.seconds, seen.is_held) == (1, "a", 30.0, True)
    first.give_back("out of memory")
    assert look(tmp_path).outcome == "out of memory" and not first.is_held()
    second = Lease.take(tmp_path, 1, 30, "b")
    assert second.number == 2 and look(tmp_path).worker == "b" and second.is_held()
    first.give_back()  # too late to matter
    assert second.is_held() and look(tmp_path).is_held


def test_of_many_that_reach_out_at_once_one_has_it(tmp_path):
    code = (
        "import pathlib, sys; from attnet.engine.holding.lease import Lease\n"
        "print('here', flush=True); sys.stdin.readline()\n"
        "print([n for n in range(40) if Lease.take(pathlib.Path(sys.argv[1]) / str(n), 0)])"
    )
    command, pipes = [sys.executable, "-c", code, str(tmp_path)], dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    workers = [subprocess.Popen(command, **pipes, text=True, cwd=repository_root()) for _ in range(3)]
    for worker in workers:
        assert worker.stdout.readline() == "here\n"
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    taken = [number for worker in workers for number in eval(worker.communicate()[0])]
    assert sorted(taken) == list(range(40))


def test_a_lease_that_is_taken_over_is_lost(tmp_path):
    first = Lease.take(tmp_path, 0, 30, "a")
    first.beat()
    second = Lease.take(tmp_path, 1, 30, "b")
    with pytest.raises(
        Lost, match=r"taken over by b after this worker had not been heard of for 30 s \(lease 1, now 2\)"
    ):
        first.check()
    clock = Clock()
    sleeper = Lease(first.marker, 30, clock)
    with pytest.raises(Lost):
        sleeper.beat()
    assert second.is_held() and not (tmp_path / PLACE / "1.beat").exists()


def stop_at(monkeypatch, step: str, then) -> None:
    """Before `step` of `Path` is done for the first time, something else happens, as while a process sleeps there."""
    original, done = getattr(Path, step), []

    def slept(path: Path, *rest: object, **others: object) -> object:
        if not done:
            done.append(path)
            then()
        return original(path, *rest, **others)

    monkeypatch.setattr(Path, step, slept)


def test_who_sleeps_before_its_first_beat_does_not_hold_what_was_taken_meanwhile(tmp_path, monkeypatch):
    """The number is won, then the process sleeps until another has taken the next one."""
    later = []
    stop_at(monkeypatch, "touch", lambda: later.append(Lease.take(tmp_path, 1, 30, "b")))
    assert Lease.take(tmp_path, 0, 30, "a") is None
    assert later[0].is_held() and look(tmp_path).worker == "b" and "1.beat" not in names(tmp_path)


def test_who_took_a_lease_and_died_before_it_had_ended_the_one_before_does_not_bring_that_back(tmp_path):
    first = Lease.take(tmp_path, 0, 30, "a")
    (tmp_path / PLACE / "2").write_text("")  # b, which got no farther
    assert first.is_held() and look(tmp_path).is_held and look(tmp_path).worker == "another worker"
    third = Lease.take(tmp_path, 2, 30, "c")
    assert third.is_held() and not first.is_held()


# ---- watching ----


def test_a_holder_is_judged_by_whether_its_beat_changes_while_one_watches(tmp_path):
    """By the watcher's clock; what the file system or the holder's machine takes for the time plays no part."""
    clock, watcher = Clock(), Clock()
    lease, watch = Lease.take(tmp_path, 0, 30, "a"), Watch(watcher)
    lease.clock = clock
    for _ in range(20):  # far longer than the lease, a beat every five seconds
        lease.beat()
        os.utime(tmp_path / PLACE / "1.beat", (0, 0))
        assert watch.still(tmp_path, look(tmp_path)) == 0
        clock.now += 30 / BEATS
        watcher.now += 30 / BEATS
    silent = []
    for _ in range(BEATS + 1):
        silent.append(watch.still(tmp_path, look(tmp_path)))
        watcher.now += 30 / BEATS
    assert silent == [30 / BEATS * n for n in range(1, BEATS + 2)]
    second = Lease.take(tmp_path, 1, 30, "b")
    assert watch.still(tmp_path, look(tmp_path)) == 0 and second.number == 2


def test_who_slept_itself_has_not_watched(tmp_path):
    watcher = Clock()
    Lease.take(tmp_path, 0, 30, "a")
    watch = Watch(watcher)
    watch.still(tmp_path, look(tmp_path))
    watcher.now += 10_000  # a laptop that was closed, with both of them on it
    assert watch.still(tmp_path, look(tmp_path)) == 2 * 30 / BEATS


def test_beats_come_when_it_is_time(tmp_path):
    clock, lease = Clock(), Lease.take(tmp_path, 0, 30, "a")
    lease.clock, said = clock, []
    for _ in range(12):
        lease.beat()
        said.append(look(tmp_path).beat)
        clock.now += 2.5
    assert len(set(said)) == 6


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a holder has to be waited for")
def test_a_holder_that_is_gone_from_this_machine_is_known_at_once(tmp_path):
    code = (
        "import pathlib, sys; from attnet.engine.holding.lease import Lease; Lease.take(pathlib.Path(sys.argv[1]), 0)"
    )
    root = repository_root()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "gone")], check=True, cwd=root)
    assert is_orphan(look(tmp_path / "gone"))
    Lease.take(tmp_path / "here", 0)
    assert not is_orphan(look(tmp_path / "here"))
    machine, pid, begun = identity().split(" ")
    assert is_gone(f"{machine} {pid} {int(begun) + 1}")  # the number is another's now
    assert not is_gone(f"elsewhere {pid} {begun}") and not is_gone("")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"worker": 3, "seconds": 1.0, "process": ""}', '{"seconds": 5.0}'])
def test_a_lease_whose_words_are_damaged_still_counts(tmp_path, text):
    Lease.take(tmp_path, 0, 30, "a")
    (tmp_path / PLACE / "1").write_text(text)
    assert look(tmp_path).is_held and look(tmp_path).worker == "another worker" and not is_orphan(look(tmp_path))


# ---- writing under a lease ----


def under(lease: Lease, monkeypatch) -> RunFolder:
    """The folder of a run, opened by a process that was started under the lease."""
    monkeypatch.setenv(VARIABLE, str(lease.marker))
    return RunFolder(lease.folder)


WRITES = {
    "checkpoint": lambda folder: folder.save("last.pt", {"epoch": 1}, keep="previous.pt"),
    "result": lambda folder: folder.write_json("result.json", {"top1": 1.0}),
    "metrics": lambda folder: folder.write_metrics([{"epoch": 1}]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("moment", ["before", "at the look", "at the rename"])
def test_nothing_is_written_once_the_lease_is_another_s(tmp_path, monkeypatch, write, moment):
    """Whenever it sleeps: before it begins, when the new file is there, or with the rename alone left to do."""
    (tmp_path / "last.pt").write_bytes(b"of the other")
    folder = under(Lease.take(tmp_path, 0, 30, "a"), monkeypatch)
    check, replace = Lease.check, os.replace
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def sleep() -> None:
        monkeypatch.setattr(Lease, "check", check)
        monkeypatch.setattr(os, "replace", replace)
        assert Lease.take(tmp_path, 1, 30, "b") is not None

    if moment == "before":
        sleep()
    elif moment == "at the look":
        monkeypatch.setattr(Lease, "check", lambda lease: (sleep(), lease.check()))
    else:
        monkeypatch.setattr(os, "replace", lambda source, target: (sleep(), os.replace(source, target)))
    with pytest.raises(Lost, match="taken over by b"):
        write(folder)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert not any(name.endswith(".tmp") for name in names(tmp_path))


def test_what_the_next_one_writes_is_never_put_in_place_by_the_one_before(tmp_path, monkeypatch):
    """Both are at the same file; the first wakes when the second has half of it."""
    first = under(Lease.take(tmp_path, 0, 30, "a"), monkeypatch)
    second = Lease.take(tmp_path, 1, 30, "b")
    second.beside(tmp_path / "result.json").write_text("half")
    with pytest.raises(Lost):
        first.write_json("result.json", {"top1": 1.0})
    assert second.beside(tmp_path / "result.json").read_text() == "half" and not (tmp_path / "result.json").exists()


def test_under_a_lease_everything_is_written_as_without(tmp_path, monkeypatch):
    folder = under(Lease.take(tmp_path, 0, 30, "a"), monkeypatch)
    for epoch in (1, 2, 3):
        folder.save("last.pt", {"epoch": epoch}, keep="previous.pt")
    folder.write_json("result.json", {"top1": 1.0})
    kept = [torch.load(tmp_path / name, weights_only=True)["epoch"] for name in ("previous.pt", "last.pt")]
    assert kept == [2, 3] and (tmp_path / "result.json").exists()
    assert not list(tmp_path.glob("*.tmp")) and not any(name.endswith(".tmp") for name in names(tmp_path))
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(SaveError, match="No space left"):
        folder.save("last.pt", {"epoch": 4}, keep="previous.pt")


def test_a_folder_of_anybody_s_makes_no_work_without_end_and_loses_nothing(tmp_path):
    (tmp_path / PLACE).mkdir()
    for name in ("999990", "mine.best.pt.tmp", "notes"):
        (tmp_path / PLACE / name).write_text("{}")
    assert Lease.take(tmp_path, look(tmp_path).number, 30, "a").number == 999_991
    assert len(os.listdir(tmp_path / PLACE)) == 6  # a marker, a beat, and that the one before is over
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / PLACE).symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is a link or no folder; take it away"):
        Lease.take(tmp_path / "run", 0, 30, "a")


def test_a_lease_counts_in_its_own_folder_alone(tmp_path, monkeypatch):
    lease = Lease.take(tmp_path / "a", 0, 30, "a")
    monkeypatch.setenv(VARIABLE, str(lease.marker))
    (tmp_path / "b").mkdir()
    assert RunFolder(tmp_path / "b").lease is None and RunFolder(tmp_path / "a").lease == Lease(lease.marker, 30.0)


# ---- leases and locks ----


def test_a_sleeper_that_holds_the_folder_s_lock_does_not_stop_who_has_its_lease_now(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.01)
    asleep = under(Lease.take(tmp_path, 0, 30, "a"), monkeypatch)
    assert user_of(tmp_path) == {"process": os.getpid(), "host": os.uname().nodename, "lease": 1}
    awake = under(Lease.take(tmp_path, 1, 30, "b"), monkeypatch)
    awake.write_json("result.json", {})
    asleep.close()
    assert user_of(tmp_path) is None


def test_who_trains_by_hand_keeps_a_worker_out(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.01)
    with RunFolder(tmp_path), pytest.raises(InUse, match=f"in use by process {os.getpid()} on "):
        under(Lease.take(tmp_path, 0, 30, "a"), monkeypatch)


def test_a_training_whose_lease_is_lost_does_not_begin(tmp_path, monkeypatch):
    lease = Lease.take(tmp_path, 0, 30, "a")
    Lease.take(tmp_path, 1, 30, "b")
    with pytest.raises(Lost):
        under(lease, monkeypatch)
    assert user_of(tmp_path) is None


def test_a_training_that_lost_its_lease_ends_with_the_step_it_is_in(tmp_path, monkeypatch):
    """And leaves what its successor finds as it was: no checkpoint, no epoch, no result of its own any more."""
    monkeypatch.setenv(VARIABLE, str(Lease.take(tmp_path, 0, 30, "a").marker))
    advance, steps = Trainer.advance, []

    def sleep_in_the_third(trainer: Trainer, batches: list) -> torch.Tensor:
        steps.append(trainer.step)
        if len(steps) == 3:
            assert Lease.take(tmp_path, 1, 30, "b") is not None
            trainer.folder.lease.clock = lambda: float("inf")  # it is time to beat
        return advance(trainer, batches)

    monkeypatch.setattr(Trainer, "advance", sleep_in_the_third)
    tiny = {"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"}
    tiny |= {"train_images": 40, "test_images": 10, "train_batch_size": 8, "total_epochs": 1}
    with pytest.raises(Lost, match="taken over by b"):
        attnet.fit(attnet.TrainConfig(**tiny, output_dir=tmp_path))
    assert len(steps) == 3 and look(tmp_path).is_held
    assert not {"last.pt", "step.pt", "metrics.jsonl", "result.json"} & set(os.listdir(tmp_path))
