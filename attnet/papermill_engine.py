"""`papermill --engine attnet NOTEBOOK OUTPUT …`: papermill's own engine, fit for trainings in a batch queue.

A request to stop (SIGTERM, SIGHUP, Ctrl-C) reaches the training in the kernel, which saves itself; the executed
notebook is kept as far as it went, and papermill ends with 128 + the signal. A parameter that the notebook does not
read is refused before anything runs.

Plain papermill gives the kernel no signal, and only warns of such a parameter, which is refused where the notebook
imports attnet. SIGTERM ends it at once, and its kernel
within a second, without asking anybody (ipykernel calls `os._exit`): what is kept is the last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

from attnet.base.errors import ConfigError
from attnet.base.notebooks import GATHERS, names_set, parameter_names, trains
from attnet.base.progress import ENGINE, kernel_shell, somebody_looks

INJECTED = "# Parameters\n"  # how papermill begins the cell that it adds


class Engine:
    """Registered as papermill's engine `attnet`. papermill loads it with every engine, so it imports the rest late."""

    @classmethod
    def execute_notebook(cls, notebook: Mapping[str, object], *words: object, **options: object) -> object:
        """As papermill's engines; ConfigError for a parameter that the notebook does not read."""
        check_parameters(notebook)
        return cls._real().execute_notebook(notebook, *words, **options)

    @classmethod
    def nb_kernel_name(cls, *words: object, **options: object) -> str:
        """As papermill's engines."""
        return cls._real().nb_kernel_name(*words, **options)

    @classmethod
    def nb_language(cls, *words: object, **options: object) -> str:
        """As papermill's engines."""
        return cls._real().nb_language(*words, **options)

    @staticmethod
    def _real() -> type:
        from attnet.base.execution import StoppableEngine

        return StoppableEngine


def check_parameters(notebook: Mapping[str, object]) -> None:
    """ConfigError for a parameter that was given and that no cell of a notebook reads."""
    names = parameter_names(notebook["cells"])
    given = notebook["metadata"].get("papermill", {}).get("parameters", {})
    if names is not None:
        _refuse_others(given, names, trains(notebook["cells"]))


def check_injected(cells: Sequence[str]) -> None:
    """The same, of the cells that a kernel has been given so far, the one at work included.

    Plain papermill tells the kernel nothing but the cell that it puts behind the one with the parameters. Of a notebook
    whose `TrainConfig.gather` comes in a later cell than `import attnet`, only names of the parameters cell are known
    here; `--engine attnet` knows all cells.
    """
    place = next((i for i, cell in enumerate(cells) if cell.startswith(INJECTED)), 0)
    names = [name for cell in cells[:place] for name in names_set(cell)]
    if names:
        _refuse_others(names_set(cells[place]), names, any(GATHERS in cell for cell in cells[place:]))


def in_kernel() -> None:
    """What `import attnet` does in the kernel of a notebook; elsewhere nothing.

    Raises:
        ConfigError: papermill was given a parameter that no cell reads.
    """
    shell = kernel_shell()
    if shell is None:
        return
    from attnet.base.notebooks import tell_errors_in_sentences

    tell_errors_in_sentences(shell)
    if ENGINE not in os.environ and not somebody_looks():  # the engine has looked at all cells; a person at their own
        check_injected(shell.user_ns.get("In", ()))


def _refuse_others(given: Iterable[str], names: Sequence[str], is_training: bool) -> None:
    unknown = [name for name in given if name not in names]
    if not unknown:
        return
    from attnet.engine.parameters import TrainConfig  # here, since most notebooks do without torch so far

    known = [*TrainConfig.fields(), *names] if is_training else names
    for name in unknown:
        if name not in known:
            raise ConfigError(f"unknown parameter {name!r}: {TrainConfig.meant(name, known)}")
