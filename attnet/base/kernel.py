"""What attnet does for a notebook that imports it: errors that its reader can mend are told in a sentence."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from attnet.base.errors import AttnetError
from attnet.base.processes import TrainingInterrupted
from attnet.base.progress import somebody_looks

if TYPE_CHECKING:
    from ipykernel.zmqshell import ZMQInteractiveShell

_ON_DEMAND = "(%tb in a new cell shows where)"


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
