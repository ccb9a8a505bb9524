"""Every figure can be called as `plots.plot_...`, and the room's README names every file."""

import ast
from pathlib import Path

from attnet import plots

FOLDER = Path(plots.__file__).parent


def test_every_figure_is_offered_by_its_file_and_by_the_package():
    for path in sorted(FOLDER.glob("[!_]*.py")):
        tree = ast.parse(path.read_text())
        made = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("plot_")]
        offered = [ast.literal_eval(node.value) for node in tree.body
                   if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"]  # fmt: skip
        assert set(made) <= set(*offered), path.name
        assert all(hasattr(plots, name) for name in made), path.name


def test_the_readme_names_every_file():
    text = (FOLDER / "README.md").read_text()
    assert [path.name for path in FOLDER.glob("[!_]*.py") if f"`{path.name}`" not in text] == []
