"""`python -m attnet.notebook NOTEBOOK OUTPUT --total_epochs 3 …`: execute a training notebook, with a run's parameters.

As papermill does it, but a request to stop (SIGTERM, Ctrl-C) reaches the training in the kernel, which saves; nothing
is left running; and a failure is the notebook's own error in one line instead of papermill's traceback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnet.command import in_sentences
from attnet.config import TrainConfig, parameter_fields
from attnet.errors import AttnetError, ConfigError
from attnet.flags import parse_arguments
from attnet.interrupt import StopSignal, TrainingInterrupted
from attnet.paths import repository_root, resolve_path

if TYPE_CHECKING:
    from papermill.clientwrap import PapermillNotebookClient

NEEDED = ("output_dir", "resume")  # without them a run would neither be found nor go on
POLL = 0.1  # seconds between looks at the signals


class NotebookError(AttnetError):
    """A cell of the notebook failed; the message is its error."""


def check_notebook(notebook: str | Path) -> set[str]:
    """The names in the parameters cell of a notebook that trains.

    Raises:
        ConfigError: no such file, no notebook, or without the parameters that a run needs.
    """
    path = resolve_path(notebook)
    if not path.is_file():
        raise ConfigError(f"notebook={path}: no such file; notebooks/train_1p.ipynb is one")
    try:
        cells = json.loads(path.read_text())["cells"]
        [source] = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"notebook={path}: not a notebook with one cell tagged `parameters` ({error})") from None
    names = set(re.findall(r"^(\w+)\s*[:=]", source, flags=re.MULTILINE))
    if missing := [name for name in NEEDED if name not in names]:
        raise ConfigError(
            f"notebook={path}: its cell tagged `parameters` lacks {' and '.join(missing)}, which a run needs; "
            "notebooks/train_1p.ipynb shows how"
        )
    return names


def execute(notebook: str | Path, output: str | Path, config: TrainConfig) -> None:
    """Execute `notebook` with the parameters of `config` and write what it looks like afterwards to `output`.

    It gets every parameter of its parameters cell, whatever its defaults there, and those that are not at
    TrainConfig's. What the cells print appears on standard output.

    Raises:
        ConfigError: as `check_notebook`.
        NotebookError: a cell failed.
        TrainingInterrupted: after Ctrl-C or SIGTERM; a training is saved.
    """
    names = check_notebook(notebook)
    usual = {name: spec.default for name, spec in parameter_fields().items()}
    given = {name: value for name, value in config.to_dict().items() if name in names or value != usual[name]}
    with StopSignal() as stop:
        execution = _Execution(resolve_path(notebook), resolve_path(output), given)
        execution.start()
        while execution.is_alive():
            execution.join(POLL)
            if stop.number is not None:
                execution.stop()
        if stop.number is not None:
            raise TrainingInterrupted(str(execution.error or "stopped after the last cell"), stop.number)
        if execution.error is not None:
            raise execution.error


class _Execution(threading.Thread):
    """papermill in a thread of its own, since it takes the signals to itself where it can."""

    def __init__(self, notebook: Path, output: Path, parameters: dict[str, object]) -> None:
        super().__init__(daemon=True)
        self.words = {"input_path": str(notebook), "output_path": str(output), "parameters": parameters}
        self.client: PapermillNotebookClient | None = None
        self.at_work = threading.Event()  # the kernel has begun with the cell: an interrupt will meet it
        self.stopping = threading.Event()
        self.error: NotebookError | None = None

    def stop(self) -> None:
        """Interrupt the cell at work, once, and let no other begin."""
        self.stopping.set()
        if self.at_work.is_set():
            self.at_work.clear()
            asyncio.run(self.client.km.interrupt_kernel())

    def run(self) -> None:
        from papermill import execute_notebook
        from papermill.engines import papermill_engines
        from papermill.exceptions import PapermillExecutionError

        papermill_engines.register("attnet", _engine(self))
        try:
            execute_notebook(
                **self.words,
                engine_name="attnet",
                kernel_name="python3",
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                cwd=str(repository_root()),
            )
        except PapermillExecutionError as error:
            self.error = NotebookError(f"{error.ename}: {_ends(error.evalue)}")
        except Exception as error:  # such as a kernel that died
            self.error = NotebookError(f"{type(error).__name__}: {_ends(str(error))}")


def _engine(execution: _Execution) -> type:
    """papermill's own engine, with a client that says when a cell is at work and stops before the next one."""
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine

    class Client(PapermillNotebookClient):
        def execute_cell(self, *words: object, **options: object) -> object:
            if execution.stopping.is_set():
                raise NotebookError("stopped between two cells")
            execution.client = self
            try:
                return super().execute_cell(*words, **options)
            finally:
                execution.at_work.clear()

        def process_message(self, message: dict, *words: object) -> object:
            if message["msg_type"] == "execute_input":
                execution.at_work.set()
            return super().process_message(message, *words)

    class Engine(NBClientEngine):
        @classmethod
        def execute_managed_notebook(cls, nb_man: object, kernel_name: str, **options: object) -> object:
            for name in ("input_path", "log_output"):
                options.pop(name, None)
            timeout = options.pop("start_timeout", 60)
            return Client(nb_man, kernel_name=kernel_name, startup_timeout=timeout, **options).execute()

    return Engine


def _ends(text: str) -> str:
    """The first line of a message, and its last one, where the cause stands."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return " … ".join(dict.fromkeys([lines[0], lines[-1]]))


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 for a mistake or a notebook that failed, 128 + signal when stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m attnet.notebook",
        description=execute.__doc__.splitlines()[0],
        epilog="Every parameter of python -m attnet.train is a flag as well.",
        allow_abbrev=False,
    )
    parser.add_argument("notebook", help="a notebook that trains, such as notebooks/train_1p.ipynb")
    parser.add_argument("output", help="where the executed notebook goes")
    options, words = parser.parse_known_args(arguments)
    execute(options.notebook, options.output, parse_arguments(words))
    return 0


if __name__ == "__main__":
    sys.exit(main())
