"""Notebooks: which parameters one takes, where they are, copying them; and in one, our errors as sentences."""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from attnet.base.errors import AttnetError, in_sentences, say
from attnet.base.files.paths import expand_path, repository_root
from attnet.base.processes import TrainingInterrupted
from attnet.base.progress import somebody_looks

if TYPE_CHECKING:
    from ipykernel.zmqshell import ZMQInteractiveShell

_ON_DEMAND = "(%tb in a new cell shows where)"

GATHERS = "TrainConfig.gather("  # in a notebook that takes every parameter of a training


def parameter_names(cells: Sequence[Mapping[str, object]]) -> list[str] | None:
    """The names that the cell tagged `parameters` sets, in order; None where no cell or several are tagged so."""
    tagged = [cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", ())]
    if len(tagged) != 1:
        return None
    return names_set(source_of(tagged[0]))


def names_set(source: str) -> list[str]:
    """The names that some code gives a value to at its top, in order."""
    names = []
    for statement in ast.parse(source).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def trains(cells: Sequence[Mapping[str, object]]) -> bool:
    """Whether a notebook takes every parameter of `TrainConfig`, in its parameters cell or not."""
    return any(GATHERS in source_of(cell) for cell in cells if cell.get("cell_type") == "code")


def source_of(cell: Mapping[str, object]) -> str:
    """A cell's text, which a file holds as lines or as a whole."""
    return "".join(cell["source"])


def notebooks_home() -> Path:
    """Where the notebooks are: in the checkout, else where the wheel was installed."""
    here = repository_root() / "notebooks"
    return here if here.is_dir() else Path(sysconfig.get_path("data")) / "share" / "attnet" / "notebooks"


def tell_errors_in_sentences(shell: ZMQInteractiveShell) -> None:
    """From now on the cell of a kernel that ends in one of our errors shows its sentence in place of a traceback.

    The cell has failed all the same, for a front end and for papermill; `%tb` shows the traceback. Every other error
    is shown as ever, and so are ours where somebody has put a handler of their own there.
    """
    if not shell.custom_exceptions:
        shell.set_custom_exc((AttnetError, TrainingInterrupted), _tell)


def _tell(
    shell: ZMQInteractiveShell,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType,
    tb_offset: int | None = None,
) -> None:
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace  # for %tb
    said = f"{kind.__name__}: {error}"
    shell._showtraceback(kind, error, [f"{said}\n{_ON_DEMAND}" if somebody_looks() else said])


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """`attnet notebooks DIR`: copy them; none that is there already is written over."""
    parser = argparse.ArgumentParser(prog="attnet notebooks", description="Copy the notebooks to a folder.")
    parser.add_argument("folder", metavar="DIR", help="it is made where it is missing")
    folder = Path(expand_path(parser.parse_args(arguments).folder, "DIR"))
    found = sorted(notebooks_home().glob("*.ipynb"))
    if not found:
        raise AttnetError(f"{notebooks_home()}: no notebooks there; install attnet from a wheel or a checkout")
    if there := [file.name for file in found if (folder / file.name).exists()]:
        raise AttnetError(f"{folder}: {there[0]} is there already; give another folder, or take it away")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in found:
            shutil.copy(file, folder)
    except OSError as error:
        raise AttnetError(f"{folder}: cannot be written ({error.strerror}); give another folder") from None
    say(f"{len(found)} notebooks in {folder}; `jupyter lab {folder}` opens them")
    return 0
