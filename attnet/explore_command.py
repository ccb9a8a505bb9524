"""The explorer of attention masks: `attnet.explore(...)` in a notebook, `attnet explore` from a shell."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnet.base.errors import in_sentences, say
from attnet.base.files.atomic import write_text
from attnet.base.files.outputs import writing
from attnet.base.files.paths import listed_folders, relative_to_root, repository_root, resolve_path
from attnet.base.notebooks import notebooks_home

if TYPE_CHECKING:
    from attnet.plots.viewer.explorer import Explorer


def explore(
    weights: str | Path = "",
    data_path: str | Path | None = None,
    pictures: str | Sequence[str | Path] = (),
    others: str | Sequence[str | Path] = (),
    *,
    folder: str | Path = "runs/explorer",
) -> Explorer:
    """The explorer, as the last line of a notebook cell.

    Args:
        weights, data_path: as `open_pretrained`; a run folder with `keep_epochs` gets a slider through its training.
        pictures: of your own to begin with, a list or text with spaces between; more can be uploaded.
        others: more weights to hold against the first, as `load_pretrained` takes them.
        folder: where views are saved.

    Raises:
        WeightsError, DataError: as `open_pretrained`; DataError also for a picture that cannot be read.
    """
    from attnet.masks.open import open_pretrained
    from attnet.model.pretrained import load_pretrained
    from attnet.plots.viewer.explorer import Explorer

    network, dataset = open_pretrained(weights, data_path)
    more = [load_pretrained(each) for each in listed_folders(others)]
    return Explorer(network, dataset, listed_folders(pictures), folder=folder, others=more)


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Open JupyterLab at the explorer's notebook; its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="attnet explore", description="Look into a network: JupyterLab opens with the explorer of its masks."
    )
    parser.add_argument("--pretrained", "--weights", default="", help="weights, as attnet.open_pretrained takes them")
    parser.add_argument("--data_path", default="", help="whose test images to look at; without CIFAR-10 shapes")
    parser.add_argument("--pictures", default="", help="pictures of your own, with spaces between")
    parser.add_argument("--others", default="", help="more weights to hold against the first, with spaces between")
    parser.add_argument("--no-browser", action="store_true", help="print the address alone")
    options = parser.parse_args(words)
    given = {name: value for name, value in vars(options).items() if name != "no_browser"}
    book = write_notebook(resolve_path("runs/explorer/explorer.ipynb"), given)
    say(f"{relative_to_root(book)}: run its cells (Run, Run All Cells)")
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={repository_root()}",
        str(relative_to_root(book)),
    ]
    return subprocess.run([*command, *(["--no-browser"] if options.no_browser else [])], check=False).returncode


def write_notebook(file: Path, parameters: dict[str, object]) -> Path:
    """The explorer's notebook with other parameters, at `file`."""
    import nbformat

    book = nbformat.read(notebooks_home() / "explorer.ipynb", as_version=4)
    place = next(i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ()))
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    with writing(str(file)):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, nbformat.writes(book))
    return file
