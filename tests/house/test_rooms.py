"""The rooms of the package: who may import whom, and what a stranger finds in each."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter import cli

from attnet.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "attnet"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
FILES = sorted(PACKAGE.rglob("*.py"))


def test_rooms_import_lower_floors_only_and_in_no_circle(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    assert cli.lint_imports(config_filename="pyproject.toml", no_cache=True) == 0


def test_the_house_has_nine_rooms():
    assert ROOMS == ["base", "benchmark", "data", "doctor", "engine", "masks", "model", "plots", "study"]


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_says_on_one_page_what_it_is(room):
    text = (PACKAGE / room / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    for file in (PACKAGE / room).glob("*.py"):
        assert file.name == "__init__.py" or f"`{file.name}`" in text, f"{room}/README.md does not name {file.name}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_holds_what_a_head_can(room):
    assert len(list((PACKAGE / room).glob("*.py"))) <= 19


def test_files_hold_one_idea():
    long = {str(file.relative_to(ROOT)): n for file in FILES if (n := len(file.read_text().splitlines())) > 340}
    assert not long


def test_the_oldest_python_can_parse_every_file():
    for file in FILES:
        ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_texts_are_read_and_written_as_utf8():
    for file in FILES:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            careless = re.search(r"\.(read_text|write_text)\(", line) and "encoding" not in line
            assert not careless, f"{file}:{number}: {line.strip()}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0 and text.startswith(f"usage: attnet {name}") and "python -m" not in text


@pytest.mark.slow
def test_commands_explain_themselves_without_docstrings():
    script = (
        "import contextlib\n"
        "from attnet.__main__ import COMMANDS, main\n"
        "for name in COMMANDS:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        main([name, '--help'])\n"
        "    print('explained:', name)\n"
    )
    words = [sys.executable, "-OO", "-c", script]  # strips them
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [f"explained: {name}" in done.stdout for name in COMMANDS] == [True] * len(COMMANDS)


def test_the_commands_are_listed(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_an_unknown_command_is_a_sentence(capsys):
    assert main(["trian"]) == 2
    assert "did you mean 'train'?" in capsys.readouterr().err
