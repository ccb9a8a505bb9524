"""A full disk, a folder in which odd things lie: a run goes on where it can, else one sentence says why not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

import pytest

import attnet
from attnet.base.errors import ConfigError
from attnet.engine import run_folder
from attnet.engine.holding.lock import InUse
from attnet.engine.run_folder import RunFolder, new_run

TINY = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"},
    **{"train_images": 16, "test_images": 10, "train_batch_size": 8, "total_epochs": 2, "progress": "lines"},
}


def full(_path: Path) -> TextIO:
    return open("/dev/full", "a", encoding="utf-8")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's disk without room")
def test_a_run_goes_on_without_its_log_and_says_so_once(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(run_folder, "append_to", full)
    result = attnet.fit(attnet.TrainConfig(**TINY, output_dir=folder))
    shown = capsys.readouterr()
    assert result.epochs == 2 and result.output_dir == folder
    assert shown.err.count("log.txt: cannot be written (No space left on device)") == 1
    assert "epoch 2/2" in shown.out


@pytest.mark.parametrize("odd", ["folder", "pipe", "link", "link to nothing"])
def test_a_lock_that_is_no_plain_file_is_refused_and_nothing_is_emptied(tmp_path, odd):
    folder, other = tmp_path / "run", tmp_path / "other"
    folder.mkdir()
    other.write_text("theirs")
    lock = folder / ".lock"
    if odd == "folder":
        lock.mkdir()
    elif odd == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to(other if odd == "link" else tmp_path / "new")
    for claim in (lambda: RunFolder(folder), lambda: new_run(attnet.TrainConfig(output_dir=folder))):
        with pytest.raises(
            ConfigError, match=f"output_dir={folder}: its .lock is no plain file; take it away"
        ) as error:
            claim()
        assert not isinstance(error.value, InUse)
    assert other.read_text() == "theirs" and not (tmp_path / "new").exists()


def test_who_holds_a_folder_is_not_written_through_a_link(tmp_path):
    other = tmp_path / "other"
    other.write_text("theirs")
    (tmp_path / ".owner").symlink_to(other)
    with RunFolder(tmp_path):
        assert other.read_text() == "theirs"
        assert str(os.getpid()) in (tmp_path / ".owner").read_text()


def test_a_folder_that_cannot_be_written_is_a_sentence():
    with pytest.raises(ConfigError, match=r"^output_dir=/proc/1: cannot be written"):
        RunFolder(Path("/proc/1"))
