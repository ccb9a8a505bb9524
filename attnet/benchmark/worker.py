"""A process of its own for each thing that is measured, so that none disturbs another, told what to do line by line."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

from attnet.base.device import child_environment
from attnet.base.errors import AttnetError

GRACE = 60.0  # seconds a process has to end


class Worker:
    """A process that answers a line of JSON with a line of JSON; leaving the context ends it.

    Args:
        module: run as `python -m module JOB`; it calls `answer_parent`.
        job: what it is told at its start.

    `ready` is its first line. A worker's AttnetError is raised here, and so is its sudden end.
    """

    def __init__(self, module: str, job: dict[str, object]) -> None:
        words = [sys.executable, "-m", module, json.dumps(job)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment()
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
            why = ": killed, as happens when the machine's memory is full" if status == -signal.SIGKILL else ""
            raise AttnetError(f"a measuring process ended with status {status}{why}; what it said stands above")
        answer = json.loads(line)
        if "error" in answer:
            end(self.process, at_once=False)  # by itself
            raise AttnetError(answer["error"])
        return answer

    def close(self, at_once: bool = False) -> None:
        """End the process: after what it does, or at once."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # it waits for the next line
        end(self.process, at_once)
        self.process.stdout.close()


def end(process: subprocess.Popen, at_once: bool = True) -> None:
    """Make sure that a process is gone: asked as by Ctrl-C, so that it ends what it started itself, then killed."""
    if at_once and process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answer_parent(work: Callable[[argparse.Namespace], Iterator[dict]]) -> int:
    """The worker's side: print what `work` yields for the job on the command line; exit status 0, 2 or 130."""
    try:
        for answer in work(argparse.Namespace(**json.loads(sys.argv[1]))):
            print(json.dumps(answer), flush=True)
    except AttnetError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def say(line: str) -> None:
    """A sign of life; the result itself goes to standard output."""
    print(f"benchmark: {line}", file=sys.stderr, flush=True)
