"""What every command line makes of mistakes and interruptions."""

from __future__ import annotations

import signal

import pytest

from attnet.base.errors import DataError, in_sentences
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
