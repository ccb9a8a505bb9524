"""Executing a notebook with papermill so that it can be stopped: the signal reaches the cell at work."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine
from papermill.utils import merge_kwargs, remove_args

from attnet.base.errors import say
from attnet.base.processes import StopSignal
from attnet.base.progress import ENGINE

if TYPE_CHECKING:
    from papermill.engines import NotebookExecutionManager

POLL = 0.1  # seconds between looks at the signals
STOPPING = "stopping: a training saves itself after the step that it is in; a second Ctrl-C would not wait for that"


class StoppableEngine(NBClientEngine):
    """papermill's own engine, whose kernel hears of SIGTERM, SIGHUP and Ctrl-C."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: NotebookExecutionManager,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: object = None,
        stderr_file: object = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        **options: object,
    ) -> None:
        """Execute the cells; arguments are those of papermill's engine.

        Raises:
            SystemExit: stopped by a signal, after the notebook was saved.
        """
        words = merge_kwargs(
            remove_args(["timeout", "startup_timeout", "input_path"], **options),
            timeout=execution_timeout or options.get("timeout"),
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
        )
        before, told = os.environ.get(ENGINE), False
        os.environ[ENGINE] = "1"  # for the kernel
        atexit.register(_trust, nb_man.output_path)  # papermill writes it once more when we are done
        with StopSignal() as stop:
            execution = _Execution(_Client(nb_man, **words))
            execution.start()
            while execution.is_alive():
                execution.join(POLL)
                if stop.number is not None:
                    if not told:
                        say(STOPPING, sys.stderr if stdout_file is None else stdout_file)
                    told = True
                    execution.stop()
        if before is None:
            del os.environ[ENGINE]
        if stop.number is not None:
            nb_man.save()
            say(_last_error(nb_man.nb) or "stopped between two cells", sys.stderr)
            raise SystemExit(128 + stop.number)
        if execution.error is not None:
            raise execution.error


def _trust(path: str | None) -> None:
    """Sign a notebook that was executed here, as Jupyter signs what a person executes there: scripts in its outputs,
    such as a theatre's, run when it is opened. Without a place for signatures it says so itself, where it lacks them.
    """
    if path and os.path.isfile(path):
        import nbformat
        from nbformat.sign import NotebookNotary

        with contextlib.suppress(Exception):
            silent = logging.Logger("attnet.trust", logging.CRITICAL)  # the first one says where its key is
            NotebookNotary(log=silent).sign(nbformat.read(path, as_version=4))


def _last_error(notebook: Mapping) -> str:
    """What the last cell that failed says: of a training that was stopped, how to go on."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return next((o["evalue"] for o in reversed(outputs) if o["output_type"] == "error"), "")


class _Client(PapermillNotebookClient):
    """Says when a cell is at work, so that an interrupt meets it, and begins no other once it is stopping."""

    def __init__(self, *words: object, **options: object) -> None:
        super().__init__(*words, **options)
        self.at_work, self.stopping = threading.Event(), threading.Event()

    def execute_cell(self, cell: Mapping, cell_index: int, **options: object) -> object:
        if self.stopping.is_set():
            raise KeyboardInterrupt("stopped between two cells")
        try:
            return super().execute_cell(cell, cell_index, **options)
        finally:
            self.at_work.clear()

    def process_message(self, message: dict, *words: object) -> object:
        if message["msg_type"] == "execute_input":
            self.at_work.set()
        return super().process_message(message, *words)


class _Execution(threading.Thread):
    """The cells in a thread of their own, since papermill's client takes the signals to itself where it can."""

    def __init__(self, client: _Client) -> None:
        super().__init__(daemon=True)
        self.client, self.error = client, None

    def stop(self) -> None:
        """Interrupt the cell at work, once, and let no other begin."""
        self.client.stopping.set()
        if self.client.at_work.is_set():
            self.client.at_work.clear()
            asyncio.run(self.client.km.interrupt_kernel())

    def run(self) -> None:
        try:
            self.client.execute()
        except KeyboardInterrupt:
            pass
        except BaseException as error:  # such as a kernel that died: raised again in the main thread
            self.error = error
