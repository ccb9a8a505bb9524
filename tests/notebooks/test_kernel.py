"""A notebook without papermill's engine `attnet`: what is said of a mistake, and of a parameter that nobody reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from made import write_notebook
from nbclient import NotebookClient

from attnet.base.errors import ConfigError
from attnet.base.files.paths import repository_root
from attnet.papermill_engine import INJECTED, check_injected

NOTEBOOKS = sorted((repository_root() / "notebooks").glob("*.ipynb"))


def first_cells(path: Path) -> list[str]:
    """The code of a notebook up to the cell that imports attnet."""
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    imports = next(i for i, cell in enumerate(cells) if "import attnet" in cell or "from attnet" in cell)
    assert imports > 0, "parameters come first"
    return cells[: imports + 1]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_plain_papermill_is_told_of_a_parameter_that_nobody_reads(path):
    """The first cell that imports attnet sees all that there is to see: a training's `gather` stands in it."""
    parameters, *between, importing = first_cells(path)
    own = parameters.split(":")[0]
    cells = ["", parameters, f"{INJECTED}{own} = 3", *between, importing]
    check_injected(cells)
    cells[2] += "\nworking_hours = 3"
    with pytest.raises(ConfigError, match="unknown parameter 'working_hours': known are "):
        check_injected(cells)
    cells[2] = f"{INJECTED}momentum = 0.5"
    if "TrainConfig.gather(" in importing:
        check_injected(cells)
    else:
        with pytest.raises(ConfigError, match="unknown parameter 'momentum'"):
            check_injected(cells)


def test_without_a_cell_of_parameters_nothing_is_known_and_nothing_refused():
    check_injected(["", f"{INJECTED}anything = 3", "import attnet"])
    check_injected(["", "anything = 3", "import attnet"])


def test_our_errors_are_a_sentence_and_all_others_what_they_were(tmp_path):
    """In a kernel: the cell has failed all the same, and %tb shows where."""
    ours = "import attnet\nattnet.TrainConfig(epochs=3)"
    stopped = "from attnet.base.processes import TrainingInterrupted\nraise TrainingInterrupted('stopped, saved', 2)"
    cells = (ours, "%tb", "def mine():\n    return {}['missing']\nmine()", stopped)
    book = nbformat.read(write_notebook(tmp_path / "book.ipynb", "x: int = 1", *cells), as_version=4)
    NotebookClient(book, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": tmp_path}}).execute()
    (sentence,), (traceback,), (theirs,), (stop,) = (cell.outputs for cell in book.cells[1:])
    said = "ConfigError: unknown parameter 'epochs': did you mean 'total_epochs'?"
    assert (sentence.output_type, sentence.ename, sentence.traceback) == ("error", "ConfigError", [said])
    assert "attnet.TrainConfig(epochs" in str(traceback) and "Traceback" in str(traceback)
    assert theirs.ename == "KeyError" and len(theirs.traceback) > 2 and "mine" in "".join(theirs.traceback)
    assert stop.traceback == ["TrainingInterrupted: stopped, saved"]


@pytest.mark.slow
def test_plain_papermill_ends_with_an_error_status_before_anything_is_done(tmp_path):
    book = write_notebook(tmp_path / "book.ipynb", "images: int = 1", "import attnet\nprint('at work')")
    command = [sys.executable, "-m", "papermill", str(book), str(tmp_path / "out.ipynb"), "-k", "python3"]
    done = subprocess.run(
        [*command, "--no-progress-bar", "-p", "imagess", "3"],
        cwd=repository_root(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == "ConfigError: unknown parameter 'imagess': did you mean 'images'?"
    outputs = [cell.get("outputs") for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells]
    assert "at work" not in str(outputs)
