"""Texts are UTF-8 on every machine, whatever its own encoding is: who opens one says so."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attnet.base.files.atomic import write_text
from attnet.base.files.outputs import write_record
from attnet.base.files.paths import repository_root
from attnet.engine.parameters import TrainConfig
from attnet.study.sweeps.configs import read_list

PACKAGE = repository_root() / "attnet"
# Objects whose `open` is none of a text, or which have their own way.
NO_TEXT = {"os", "Image", "gzip", "tarfile", "Weights", "webbrowser", "urllib"}
STARTERS = {"run", "Popen", "check_output", "check_call", "call", "getoutput"}


def careless(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that would read or write text in the machine's encoding."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        owner = owner.id if isinstance(owner, ast.Name) else owner
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = {word.arg: word.value for word in call.keywords}
        if "encoding" in given:
            continue
        if name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile"):
            place = 0 if name.endswith("File") or (owner is not None and name == "open") else 1
            mode = given.get("mode", call.args[place] if len(call.args) > place else None)
            shown = mode.value if isinstance(mode, ast.Constant) else ("w+b" if name.endswith("File") else "r")
            if not (name == "open" and owner in NO_TEXT) and "b" not in str(shown):
                yield call
            continue
        of_a_path = name in ("read_text", "write_text") and owner is not None
        of_a_process = name in STARTERS and owner == "subprocess" and {"text", "universal_newlines"} & given.keys()
        if of_a_path or of_a_process or name in ("FileHandler", "popen", "fileinput"):
            yield call


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_whoever_opens_a_text_names_its_encoding(file):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert [f"{file.name}:{call.lineno}: {ast.unparse(call)}" for call in careless(tree)] == []


@pytest.mark.parametrize(
    "code",
    [
        "open(a)", "open(a, 'w')", "open(a, mode='r')", "path.open()", "path.open('a')", "os.fdopen(1, 'w')",
        "path.read_text()",
        "path.write_text(x)", "subprocess.run(x, text=True)", "tempfile.NamedTemporaryFile('w')",
    ],
)  # fmt: skip
def test_what_is_careless_is_found(code):
    assert len(list(careless(ast.parse(code)))) == 1
    careful = code[:-1] + (", " if code[-2] != "(" else "") + "encoding='utf-8')"
    assert list(careless(ast.parse(careful))) == []


def test_bytes_and_pictures_have_no_encoding():
    for code in (
        "open(a, 'rb')",
        "path.open('ab')",
        "Image.open(a)",
        "os.open(a, 1)",
        "subprocess.run(x)",
        "write_text(f, t)",
    ):
        assert list(careless(ast.parse(code))) == []


CHINESE = """
import sys
from pathlib import Path
from attnet.base.files.atomic import write_text
from attnet.base.errors import say
from attnet.engine.parameters import TrainConfig
from attnet.engine.run_folder import RunFolder

folder = Path(sys.argv[1])
with RunFolder(folder) as run:
    run.write_json("config.json", TrainConfig(classes="\\u732b,\\xf6\\U0001f600").to_dict())
    run.log("\\u732b \\xf6 \\U0001f600")
say(TrainConfig.load(folder / "config.json").classes.encode("unicode_escape").decode())
"""


def test_a_machine_of_another_encoding_writes_and_reads_the_same(tmp_path):
    """As under a GBK or Latin-1 locale: Python's default encoding is none of UTF-8."""
    surroundings = os.environ | {
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
    }
    words = [
        sys.executable,
        "-X",
        "warn_default_encoding",
        "-W",
        "error::EncodingWarning",
        "-c",
        CHINESE,
        str(tmp_path),
    ]
    done = subprocess.run(words, cwd=repository_root(), env=surroundings, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().strip() == "\\u732b,\\xf6\\U0001f600"
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "猫 ö 😀\n"


def test_a_small_file_is_utf8(tmp_path):
    write_text(tmp_path / "a", "猫")
    assert (tmp_path / "a").read_bytes() == "猫".encode()
    assert Path(tmp_path / "a").read_text(encoding="utf-8") == "猫"


def test_a_name_that_is_no_utf8_is_written_as_json_reads_it(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_record(tmp_path / "a.json", {"kind": "x"}, f"attnet masks --data_path {name} 猫")
    assert (
        json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["command"]
        == f"attnet masks --data_path {name} 猫"
    )


def test_a_byte_order_mark_is_no_part_of_a_text(tmp_path):
    """As editors on Windows begin a file."""
    for name, content in (("config.json", {"lr": 0.3}), ("list.json", {"a": {"lr": 0.3}})):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8-sig")
    assert TrainConfig.load(tmp_path / "config.json") == TrainConfig(lr=0.3)
    assert read_list(tmp_path / "list.json", TrainConfig()) == {"a": TrainConfig(lr=0.3)}
