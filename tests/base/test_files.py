"""Files: what cannot be written is a sentence, what was there is kept, and no link is followed to somebody else's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from attnet.base.errors import ConfigError, SaveError
from attnet.base.files.atomic import OneOfMany, save, write_text
from attnet.base.files.opening import append_to
from attnet.base.files.outputs import output_file, write_record, writing
from attnet.base.files.paths import listed_folders

FULL = Path("/dev/full")  # a disk without room, on Linux


def test_a_file_is_replaced_as_a_whole(tmp_path):
    file = tmp_path / "a.txt"
    for text in ("one", "zwei äöü 猫"):
        write_text(file, text)
        assert file.read_text(encoding="utf-8") == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("write", [lambda file: write_text(file, "new"), lambda file: save({"epoch": 1}, file)])
def test_what_a_crash_left_or_somebody_laid_there_is_not_followed(tmp_path, write):
    other, file = tmp_path / "other", tmp_path / "file"
    other.write_text("theirs")
    (tmp_path / "file.tmp").symlink_to(other)
    write(file)
    assert other.read_text() == "theirs" and file.is_file() and not file.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]


def test_one_of_many_that_write_a_file_leaves_what_the_others_have_begun(tmp_path):
    others = [tmp_path / "a.txt.tmp", tmp_path / "a.txt.node3-7.tmp"]
    for file in others:
        file.write_text("half")
    write_text(tmp_path / "a.txt", "whole", OneOfMany())
    assert (tmp_path / "a.txt").read_text() == "whole" and [file.read_text() for file in others] == ["half", "half"]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("write", [lambda file: write_text(file, "new"), lambda file: save({"epoch": 1}, file)])
def test_what_cannot_be_written_is_a_sentence_and_leaves_what_was_there(tmp_path, write):
    file = tmp_path / "file"
    file.mkdir()  # no file can take its place
    with pytest.raises(SaveError, match="file: could not be written"):
        write(file)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit of a file's size")
def test_a_checkpoint_that_has_no_room_names_the_cause(tmp_path):
    """Where torch wraps what the disk answers, in words of its own."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(SaveError, match=r"could not be written \(\[Errno \d+\] File too large\); what was"):
            save({"weights": torch.zeros(100_000)}, tmp_path / "a.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [lambda file: write_text(file, "new"), lambda file: save({"epoch": 1}, file)])
def test_of_a_folder_that_is_gone_nothing_is_promised(tmp_path, write):
    with pytest.raises(SaveError, match=r"a\.pt: could not be written: .*run is gone") as error:
        write(tmp_path / "run" / "a.pt")
    assert "resume" not in str(error.value) and "kept" not in str(error.value)


def test_no_output_goes_where_none_can(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "x.json", "/proc/attnet/x.json", "/dev/null/x.json"):
        with pytest.raises(ConfigError, match=r"^output='.*x.json': cannot be written \(.+\); "):
            output_file(place)
    with pytest.raises(SaveError, match="could not be written"):
        write_record(Path("/proc/x.json"), {"kind": "steps"}, "attnet")


def test_the_disks_answer_names_the_parameter():
    full = pytest.raises(ConfigError, match=r"^folder=a: cannot be written \(No space left on device\)")
    with full, writing("folder=a"), open(FULL, "w") as file:
        file.write("x")
    with pytest.raises(SaveError), writing("folder=a"):
        raise SaveError("said already")


def test_a_list_of_folders(tmp_path, monkeypatch):
    (tmp_path / "my runs").mkdir()
    assert listed_folders(str(tmp_path / "my runs")) == [str(tmp_path / "my runs")]
    assert listed_folders("a b") == ["a", "b"] and listed_folders("'my runs' b") == ["my runs", "b"]
    assert listed_folders([tmp_path, "my runs"]) == [str(tmp_path), "my runs"]
    assert listed_folders("") == listed_folders(" ") == []
    with pytest.raises(ConfigError, match="a quotation mark has no partner"):
        listed_folders("'a b")


def test_lines_go_into_a_plain_file_of_that_name_or_nowhere(tmp_path):
    log, elsewhere = tmp_path / "log.txt", tmp_path / "elsewhere"
    for line in "ab":
        with append_to(log) as file:
            file.write(line)
    assert log.read_text() == "ab"
    elsewhere.write_text("mine")
    (tmp_path / "link").symlink_to(elsewhere)
    (tmp_path / "fresh").symlink_to(tmp_path / "not there")
    (tmp_path / "device").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a reader
    (tmp_path / "folder").mkdir()
    for name in ("link", "fresh", "device", "pipe", "folder"):
        with pytest.raises(OSError):
            append_to(tmp_path / name)
    assert elsewhere.read_text() == "mine" and not (tmp_path / "not there").exists()
