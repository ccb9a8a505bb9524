"""`papermill --engine attnet NOTEBOOK OUTPUT …`: papermill's own engine, fit for trainings in a batch queue.

A request to stop (SIGTERM, SIGHUP, Ctrl-C) reaches the training in the kernel, which saves itself; the executed
notebook is kept as far as it went, and papermill ends with 128 + the signal. A parameter that the notebook does not
read is refused before anything runs.

Plain papermill gives the kernel no signal, and only warns of such a parameter. SIGTERM ends it at once, and its kernel
within a second, without asking anybody (ipykernel calls `os._exit`): what is kept is the last checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

from attnet.base.errors import ConfigError, nearest
from attnet.base.notebooks import parameter_names, trains


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
    if names is None or not given:
        return
    if trains(notebook["cells"]):
        from attnet.engine.parameters import TrainConfig  # here, since most notebooks do without torch so far

        fields = TrainConfig.fields()
        for name in given:
            if name not in fields and name not in names:
                raise ConfigError(f"unknown parameter {name!r}: {TrainConfig.meant(name)}")
        return
    for name in given:
        if name not in names:
            raise ConfigError(f"unknown parameter {name!r}: {nearest(name, names)}")
