"""A child process that runs functions of the test modules, one after another: one start of PyTorch for many checks."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import os
import selectors
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

SECONDS = 300  # the longest that one call may take


class WorkerError(AssertionError):
    """A function failed in the child; the text is its traceback and what it printed."""


class Worker:
    """A context that holds one Python process with `environment`.

    Calling it runs a module-level function there, found by module and name. Arguments and result are JSON. Leaving the
    context ends the process, and raises if the process does not end well.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def __enter__(self) -> Worker:
        self.log = tempfile.TemporaryFile("a+b")
        ours, theirs = os.pipe()
        command = [sys.executable, __file__, str(theirs)]
        self.child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            env=self.environment,
            pass_fds=[theirs],
        )
        os.close(theirs)
        self.answers = open(ours, "rb")
        return self

    def __call__(self, function: Callable, /, *args: object, **kwargs: object) -> object:
        """The function's result in the child.

        Raises:
            WorkerError: the function raised, or the process died or gave no answer in time.
        """
        folder = str(Path(inspect.getfile(function)).resolve().parent)
        start = self.log.seek(0, os.SEEK_END)
        task = {"folder": folder, "module": function.__module__, "name": function.__qualname__}
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(json.dumps(task | {"args": args, "kwargs": kwargs}).encode() + b"\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._said(f"the process had died ({self.child.wait()})", start)) from None
        line = self._answer()
        if not line:
            self.child.kill()
            raise WorkerError(self._said(f"no answer: exit status {self.child.wait()}", start))
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(self._said(answer["error"], start))
        return answer["result"]

    def __exit__(self, kind: object, *_: object) -> None:
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died before it read all
            self.child.stdin.close()
        try:
            status = self.child.wait(30)
        except subprocess.TimeoutExpired:
            self.child.kill()
            status = self.child.wait()
        self.answers.close()
        said = self._said(f"the process ended with status {status}", 0)
        self.log.close()
        if status and kind is None:
            raise WorkerError(said)

    def _answer(self) -> bytes:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.answers, selectors.EVENT_READ)
            return self.answers.readline() if waiting.select(SECONDS) else b""

    def _said(self, what: str, start: int) -> str:
        self.log.seek(start)
        return f"{what}\n--- printed ---\n{self.log.read().decode(errors='replace')}"


def _serve(answers: int) -> None:
    """The child's side: a task a line on standard input, an answer a line on `answers`."""
    with open(answers, "w") as out:
        for line in sys.stdin:
            task = json.loads(line)
            try:
                if task["folder"] not in sys.path:
                    sys.path.insert(0, task["folder"])
                function = getattr(importlib.import_module(task["module"]), task["name"])
                answer = {"result": function(*task["args"], **task["kwargs"])}
                written = json.dumps(answer)
            except Exception:
                written = json.dumps({"error": traceback.format_exc()})
            sys.stdout.flush()
            out.write(written + "\n")
            out.flush()


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules are a package's, not programs'
    _serve(int(sys.argv[1]))
