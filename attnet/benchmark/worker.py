"""A process of its own for each thing that is measured, so that none disturbs another: workers, and short whole runs.

A worker is told what to do line by line, and stays for the next question; a run is `attnet train`, ranks and all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from attnet.base import errors
from attnet.base.errors import AttnetError
from attnet.base.processes import end, environment, how_it_ended, start
from attnet.engine.parameters import TrainConfig

GRACE = 60.0  # seconds a process has to end
ERROR_LENGTH = 300  # characters
SHOWN_LINES = 15


class Worker:
    """A process that answers a line of JSON with a line of JSON; leaving the context ends it.

    Args:
        words: what follows `python`, a module or script that calls `answer_parent`.
        job: what it is told at its start.

    `ready` is its first line. Whatever goes wrong in a worker is raised here as an AttnetError, its sudden end, too.
    """

    def __init__(self, *words: str, job: dict[str, object]) -> None:
        # Not by `processes.start`: it talks through pipes of its own, and what goes wrong stays on the screen.
        self.process = subprocess.Popen(
            [sys.executable, *words, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment(),
        )
        try:
            self.ready = self._answer()
        except BaseException:
            self.close(at_once=True)
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self.close(at_once=kind is not None)

    def ask(self, **what: object) -> dict:
        """Its answer; waits as long as it takes."""
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            why = ", as happens when the machine's memory is full" if status == -signal.SIGKILL else ""
            raise AttnetError(f"a measuring process ended: {how_it_ended(status)}{why}; what it said stands above")
        answer = json.loads(line)
        if "error" in answer:
            raise AttnetError(answer["error"])
        return answer

    def close(self, at_once: bool = False) -> None:
        """End the process: after what it does, or at once."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # it waits for the next line
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        end(self.process, GRACE)
        self.process.stdout.close()


def answer_parent(work: Callable[[argparse.Namespace], Iterator[dict]]) -> int:
    """The worker's side: print what `work` yields for the job on the command line; exit status 0 or 2."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that processes of its own end, too
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # what others print must not come between the answers
        try:
            for answer in work(argparse.Namespace(**json.loads(sys.argv[-1]))):
                print(json.dumps(answer), file=answers, flush=True)
        except KeyboardInterrupt:  # the parent was asked to stop, and says so
            return 128 + signal.SIGINT
        except Exception as error:
            print(json.dumps({"error": in_words(error)}), file=answers, flush=True)
            return 2
    return 0


def in_words(error: Exception) -> str:
    """What went wrong, in a line: torch's messages go on for pages."""
    if isinstance(error, AttnetError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {' '.join(lines[:2])}"
    return text if len(text) <= ERROR_LENGTH else text[:ERROR_LENGTH] + " …"


def short_run(**parameters: object) -> dict[str, object]:
    """One epoch of `mode=performance` by `attnet train`, on as many ranks as `device_num` says.

    Args:
        parameters: of `TrainConfig`, besides mode, total_epochs and output_dir.

    Returns:
        Its result.json, with the line of metrics.jsonl as "metrics".

    Raises:
        AttnetError: the run failed; its last words.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as path:
        folder = Path(path, "run")
        given = {"mode": "performance", "total_epochs": 1, "max_restarts": 0, "progress": "none"}
        flags = TrainConfig(**given | parameters, output_dir=str(folder)).flags()
        with open(f"{path}/log.txt", "w+", encoding="utf-8", errors="replace") as log:
            process = start(["-m", "attnet.train", *flags], log)
            try:
                process.wait()
            finally:
                end(process, GRACE)
            log.seek(0)
            last = "".join(log.readlines()[-SHOWN_LINES:])
        if process.returncode:
            raise AttnetError(f"a run ended: {how_it_ended(process.returncode)}; its last words:\n{last.rstrip()}")
        metrics, result = ((folder / name).read_text(encoding="utf-8") for name in ("metrics.jsonl", "result.json"))
        return json.loads(result) | {"metrics": json.loads(metrics)}


def say(line: str) -> None:
    """A sign of life; the result itself goes to standard output."""
    errors.say(f"benchmark: {line}", sys.stderr)
