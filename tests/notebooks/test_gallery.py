"""The gallery shows the notebooks as they are: the same cells, all executed, pictures, nothing of a machine."""

from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOWN = sorted((ROOT / "data" / "results" / "gallery").glob("*.ipynb"))


def test_the_gallery_is_there_and_linked():
    assert [file.stem for file in SHOWN] == ["architecture", "attention_masks", "explorer", "finetune"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"data/results/gallery/{file.name}" in readme for file in SHOWN)


@pytest.mark.parametrize("file", SHOWN, ids=lambda file: file.stem)
def test_it_is_what_the_notebook_says_today(file):
    book = nbformat.read(ROOT / "notebooks" / file.name, as_version=4)
    shown = nbformat.read(file, as_version=4)
    cells = [(cell.cell_type, cell.source) for cell in book.cells]
    again = f"{file.stem} has changed since: run `python tests/harness_gallery.py {file.stem}`"
    found = [(cell.cell_type, cell.source.replace("../../../notebooks/", "../notebooks/")) for cell in shown.cells]
    assert found == cells, again


@pytest.mark.parametrize("file", SHOWN, ids=lambda file: file.stem)
def test_it_shows_something_and_nothing_of_a_machine(file):
    shown = nbformat.read(file, as_version=4)
    code = [cell for cell in shown.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code if cell.source.strip())
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    text = file.read_text(encoding="utf-8")
    assert len(text) < 4_000_000 and "/home/" not in text and "/tmp/" not in text and str(ROOT) not in text
