"""Notebooks executed with a run's parameters: what they are given, how they fail, and how they are stopped."""

from __future__ import annotations

import json
import re
import signal
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from test_sweep import EPOCHS, TINY, wait_until

from attnet.base.files import repository_root
from attnet.engine.parameters import TrainConfig
from attnet.papermill_engine import NotebookError, check_notebook, execute
from attnet.study.runner import LOG, NOTEBOOK
from attnet.study.sweep import Sweep

PARAMETERS = 'output_dir: str = ""\nresume: str = ""\nlr: float = 0.3\ndevice_num: int = 8'


def write(path: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, path)
    return path


def test_the_notebooks_that_train_can_be_used():
    for name in ("train_1p", "train_8p"):
        assert {"output_dir", "resume", "lr", "total_epochs"} <= check_notebook(f"notebooks/{name}.ipynb")


def test_a_notebook_gets_its_own_parameters_and_what_is_not_usual_and_its_error_is_a_line(tmp_path, capsys):
    show = "print(repr((lr, device_num, momentum, output_dir, __import__('os').getcwd())))"
    fail = "raise ValueError('first line\\nmiddle\\nlast line')"
    book = write(tmp_path / "book.ipynb", show, fail, "print('never')")
    config = TrainConfig(momentum=0.5, output_dir="runs/x")
    with pytest.raises(NotebookError, match=r"^ValueError: first line … last line$"):
        execute(book, tmp_path / "out.ipynb", config)
    given = repr((None, 1, 0.5, "runs/x", str(repository_root())))
    assert given in capsys.readouterr().out
    outputs = [cell.get("outputs") for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells]
    assert given in json.dumps(outputs) and "never" not in json.dumps(outputs)
    assert not psutil.Process().children(recursive=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a sweep that gets SIGKILL leaves its run to its end")
def test_a_killed_sweep_of_notebooks_goes_on_and_leaves_nothing_running(tmp_path, monkeypatch):
    """The sweep gets SIGKILL: the training in the kernel saves, every process ends, and the next sweep goes on."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    train = "import attnet\nprint(attnet.fit(attnet.TrainConfig.gather(globals())).output_dir)"
    book = write(tmp_path / "book.ipynb", train)
    flags = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "attnet.sweep", "--folder", str(tmp_path / "runs"), "--notebook", str(book)]
    (run,) = (sweep := Sweep({"base": TrainConfig(**TINY)}, (0,), tmp_path / "runs", notebook=book)).runs()
    process = psutil.Popen([*command, *flags], cwd=repository_root())
    family: list[psutil.Process] = []
    try:
        wait_until(lambda: (run.folder / "metrics.jsonl").exists() or process.poll() is not None)
        assert process.poll() is None
        family = process.children(recursive=True)
        assert any("ipykernel_launcher" in one.cmdline() for one in family)
        process.send_signal(signal.SIGKILL)
        process.wait(100)
        wait_until(lambda: not any(one.is_running() for one in family))
    finally:
        for one in [process, *family]:
            if one.is_running():
                one.kill()
    assert run.state == "begun"
    assert (run.folder / "log.txt").read_text().splitlines()[-1].startswith("stopped by SIGINT")
    assert "TrainingInterrupted: stopped by SIGINT" in (run.folder / LOG).read_text().splitlines()[-1]

    (row,) = sweep.run()
    assert row["failures"] == [] and len(row["top1"]) == 1
    log = (run.folder / LOG).read_text()
    assert re.findall(r"^epoch (\d+)/", log, flags=re.MULTILINE) == [str(i + 1) for i in range(EPOCHS)]
    assert str(run.folder) in json.dumps(nbformat.read(run.folder / NOTEBOOK, as_version=4).cells[-1])
    assert not psutil.Process().children(recursive=True)
