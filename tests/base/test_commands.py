"""What every command line makes of mistakes and interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from attnet.base import notebooks
from attnet.base.errors import DataError, in_sentences
from attnet.base.files import repository_root
from attnet.base.processes import TrainingInterrupted


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (None, 1, ""),
        (DataError("no data"), 2, "attnet: no data\n"),
        (TrainingInterrupted("stopped", signal.SIGTERM), 128 + signal.SIGTERM, "attnet: stopped\n"),
    ],
    ids=("its own status", "mistake", "stopped"),
)
def test_what_is_told_and_the_exit_status(capsys, raised, status, told):
    @in_sentences
    def main(arguments: list[str] | None = None) -> int:
        assert arguments == ["a"]
        if raised is not None:
            raise raised
        return 1

    assert main(["a"]) == status
    assert capsys.readouterr() == ("", told)


def test_other_errors_keep_their_traceback():
    @in_sentences
    def main(arguments: list[str] | None = None) -> int:
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        main()


@pytest.mark.parametrize("folder", ["a\0b", "x" * 100_000, "~nobody-is-called-so/x"])
def test_a_place_for_the_notebooks_that_cannot_be_is_a_sentence(folder, capsys):
    assert notebooks.main([folder]) == 2
    assert "attnet: DIR=" in capsys.readouterr().err


UNREAD = """
import sys
from attnet.base.errors import in_sentences, say

@in_sentences
def main(arguments=None):
    {line}
    return 3

sys.exit(main())
"""


@pytest.mark.parametrize(
    ("line", "status"), [("say('word')", 3), ("print('word', flush=True)", 141)], ids=["work goes on", "output alone"]
)
def test_a_pipe_whose_reader_has_ended_is_no_fault(line, status):
    end, entrance = os.pipe()
    os.close(end)
    words = [sys.executable, "-c", UNREAD.format(line=line)]
    try:
        done = subprocess.run(words, cwd=repository_root(), stdout=entrance, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(entrance)
    assert (done.returncode, done.stderr) == (status, b"")
