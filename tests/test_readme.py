"""The README says what the package does."""

import re
from pathlib import Path

import attnet
from attnet import report
from attnet.flags import parameter_table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_parameter_table_is_current():
    assert parameter_table() in README


def test_networks_are_all_there_with_their_counts():
    for name, variant in attnet.variants().items():
        assert f"| `{name}` | {variant.input_size} |" in README and f"{variant.parameters:,}" in README


def test_published_rows_are_all_there():
    for row in report.DOCUMENT:
        assert re.search(r"\s*\|\s*".join(map(re.escape, row.cells())), README)


def test_files_and_commands_that_are_named_exist():
    for name in re.findall(r"\b(?:notebooks|data/results)/[\w./-]+\.(?:ipynb|json|png)", README):
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m (attnet\.\w+)", README):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module
    targets = set(re.findall(r"^(\w+):.*##", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"`?make (\w+)", README)) <= targets


def test_notebooks_are_all_listed():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"`{path.name}`" in README
