"""What every command line makes of mistakes and interruptions."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys

import pytest

from attnet.base import notebooks
from attnet.base.errors import DataError, answer, in_sentences, say
from attnet.base.files.paths import repository_root
from attnet.base.processes import TrainingInterrupted
from attnet.base.progress import somebody_looks


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (None, 1, ""),
        (DataError("no data"), 2, "attnet: no data\n"),
        (TrainingInterrupted("stopped", signal.SIGTERM), 128 + signal.SIGTERM, "attnet: stopped\n"),
        (KeyboardInterrupt(), 128 + signal.SIGINT, "attnet: stopped by Ctrl-C\n"),
    ],
    ids=("its own status", "mistake", "stopped", "Ctrl-C"),
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
import os
from attnet.base.errors import answer, in_sentences, say

@in_sentences
def main(arguments=None):
    {line}
    return 3

sys.exit(main())
"""


@pytest.mark.parametrize(
    ("line", "status"), [("say('word')", 3), ("answer('word')", 141)], ids=["work goes on", "output alone"]
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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's disk without room")
@pytest.mark.parametrize(
    ("line", "status", "told"),
    [("say('word')", 3, ""), ("answer('word')", 2, "attnet: standard output cannot be written (No space left on")],
    ids=["work goes on", "output alone"],
)
def test_standard_output_on_a_full_disk(line, status, told):
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-c", UNREAD.format(line=line)]
        done = subprocess.run(words, cwd=repository_root(), stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == status
    assert done.stderr.decode().startswith(told) and "Traceback" not in done.stderr.decode()
    assert bool(done.stderr) == bool(told)


# Writes as a library would that knows the numbers of the standard streams alone.
CLOSED = """file = open({path!r}, 'w', encoding='utf-8')
    assert sys.stdin.read() == ''
    say('word')
    say('word', sys.stderr)
    os.write(1, b'stray')
    os.write(2, b'stray')
    file.write('ours')"""


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes streams")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_let_nothing_into_our_files(closed, tmp_path):
    file = tmp_path / "file"
    words = [sys.executable, "-c", UNREAD.format(line=CLOSED.format(path=str(file)))]
    shell = ["sh", "-c", f'exec "$0" "$@" {closed}', *words]
    done = subprocess.run(
        shell, cwd=repository_root(), stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert file.read_text(encoding="utf-8") == "ours"


def test_a_script_without_streams_or_with_one_that_knows_ascii_alone_is_spoken_to(monkeypatch, tmp_path):
    with open(tmp_path / "ascii", "w", encoding="ascii") as stream:
        say("größe", stream)
        monkeypatch.setattr(sys, "stdout", stream)
        answer("größe")
    say("closed", stream)
    assert (tmp_path / "ascii").read_text(encoding="ascii") == "gr??e\ngr??e\n"
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    say("nowhere")
    say("nowhere", sys.stderr)
    assert not somebody_looks()


@pytest.mark.parametrize("file", sorted((repository_root() / "attnet").rglob("*.py")), ids=lambda file: file.stem)
def test_whoever_prints_has_said_what_is_to_happen_where_it_cannot_be_written(file):
    """`say` and work goes on, or `answer` and a sentence; a worker's answers go to a pipe of ours."""
    if file.name in ("errors.py", "worker.py"):
        return
    calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert [f"{file.name}:{call.lineno}" for call in calls if getattr(call.func, "id", "") == "print"] == []


@pytest.mark.skipif(sys.platform != "linux", reason="others do not let a current directory be taken away")
def test_a_current_directory_that_is_gone_is_named(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    shell = ["sh", "-c", f'rmdir "{gone}"; exec "$0" -m attnet doctor', sys.executable]
    variables = os.environ | {"PYTHONPATH": str(repository_root())}
    done = subprocess.run(shell, cwd=gone, env=variables, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "attnet: the current directory is gone, taken away or made anew; `cd` to one that is there\n"
