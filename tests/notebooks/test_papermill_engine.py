"""papermill's engine `attnet`: what a notebook is given, what is refused, how one fails, and how one is stopped."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import psutil
import pytest
from made import wait_until, write_notebook
from papermill.exceptions import PapermillExecutionError

from attnet.base.errors import ConfigError
from attnet.base.files.paths import repository_root
from attnet.engine.parameters import TrainConfig
from attnet.papermill_engine import check_parameters
from attnet.study.sweeps.runs import LOG, NOTEBOOK, check_notebook
from attnet.study.sweeps.sweep import Sweep

PARAMETERS = 'output_dir: str = ""\nresume: str = ""\nlr: float = 0.3\ndevice_num: int = 8'
TRAIN = "import attnet\nprint(attnet.fit(attnet.TrainConfig.gather(globals())).output_dir)"
EPOCHS = 8
TINY = {
    **{"model": "attention56_tiny", "dataset": "shapes", "mode": "rehearsal", "device_type": "CPU"},
    **{"train_images": 32, "test_images": 20, "train_batch_size": 16, "total_epochs": EPOCHS},
}
ENGINE = [sys.executable, "-m", "papermill", "--engine", "attnet"]
QUIET = ["-k", "python3", "--no-progress-bar", "--log-level", "WARNING"]


def outputs_of(notebook: Path) -> list[str]:
    """The outputs of each code cell as text; "[]" for one that was never reached."""
    cells = nbformat.read(notebook, as_version=4).cells
    return [json.dumps(cell.outputs) for cell in cells if cell.cell_type == "code"]


# -- what a notebook takes -----------------------------------------------------------------------------------------


def test_the_notebooks_that_train_can_be_used():
    for name in ("train_1p", "train_8p"):
        assert {"output_dir", "resume", "lr", "total_epochs"} <= set(check_notebook(f"notebooks/{name}.ipynb"))


@pytest.mark.parametrize(
    ("notebook", "name", "message"),
    [
        ("train_1p", "epochs", "unknown parameter 'epochs': did you mean 'total_epochs'?"),
        ("train_1p", "momentum", ""),
        ("attention_masks", "imagess", "unknown parameter 'imagess': did you mean 'images'?"),
        ("attention_masks", "images", ""),
        ("attention_masks", "weights", "unknown parameter 'weights': did you mean 'pretrained'?"),
        ("performance", "bs", "unknown parameter 'bs': did you mean 'batch_sizes'?"),
    ],
)
def test_a_parameter_that_no_cell_reads_is_refused(notebook, name, message):
    book = json.loads((repository_root() / "notebooks" / f"{notebook}.ipynb").read_text())
    book["metadata"]["papermill"] = {"parameters": {name: 3}}
    if not message:
        check_parameters(book)
        return
    with pytest.raises(ConfigError) as raised:
        check_parameters(book)
    assert str(raised.value) == message


def test_a_run_of_a_sweep_gives_its_own_parameters_and_what_is_not_usual(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: commands.append(command))
    book = write_notebook(tmp_path / "book.ipynb", PARAMETERS, TRAIN)
    (run,) = Sweep({"a": TrainConfig(momentum=0.5)}, (3,), tmp_path / "runs", notebook=book).runs()
    run.start()
    [command] = commands
    assert command[: len(ENGINE)] == ENGINE and command[-2] == "-y"
    assert command[len(ENGINE) : len(ENGINE) + 2] == [str(book), str(run.folder / NOTEBOOK)]
    own = {"output_dir": str(run.folder), "resume": "", "lr": None, "device_num": 1}
    assert json.loads(command[-1]) == own | {"momentum": 0.5, "seed": 3, "progress": "lines"}


# -- executed ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_fails_is_kept_and_said_as_an_exit_status_and_through_the_api(tmp_path):
    show, fail = "print(repr((lr, device_num)))", "raise ValueError('no luck')"
    book = write_notebook(tmp_path / "book.ipynb", PARAMETERS, show, fail, "print('never')")
    given = {"lr": None, "device_num": 1}
    out = tmp_path / "api.ipynb"
    with pytest.raises(PapermillExecutionError, match="ValueError: no luck"):
        papermill.execute_notebook(book, out, given, "attnet", kernel_name="python3", progress_bar=False)
    shown = outputs_of(out)
    assert "(None, 1)" in shown[-3] and "no luck" in shown[-2] and shown[-1] == "[]"
    assert not psutil.Process().children(recursive=True)

    command = [*ENGINE, str(book), str(tmp_path / "out.ipynb"), *QUIET, "-y", json.dumps(given)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1 and done.stderr.rstrip().endswith("ValueError: no luck")
    assert outputs_of(tmp_path / "out.ipynb")[-1] == "[]"


@pytest.mark.slow
def test_what_is_refused_leaves_nothing(tmp_path):
    book = write_notebook(tmp_path / "book.ipynb", PARAMETERS, "open('ran', 'w').close()", TRAIN)
    command = [*ENGINE, str(book), str(tmp_path / "out.ipynb"), *QUIET, "-p", "epochs", "7"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("unknown parameter 'epochs': did you mean 'total_epochs'?")
    assert [path.name for path in tmp_path.iterdir()] == ["book.ipynb"]


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGINT, signal.SIGHUP))],
    ids=["SIGTERM", "SIGINT", "SIGHUP"],
)
def test_a_training_that_is_asked_to_stop_saves_itself(tmp_path, monkeypatch, number):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run, out = tmp_path / "run", tmp_path / "out.ipynb"
    book = write_notebook(tmp_path / "book.ipynb", PARAMETERS, "print('begun')", TRAIN, "print('never')")
    given = TINY | {"total_epochs": 500, "output_dir": str(run), "device_num": 1}
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    process, family = psutil.Popen([*ENGINE, str(book), str(out), *QUIET, *words], cwd=repository_root()), []
    try:
        wait_until(lambda: (run / "metrics.jsonl").exists() or process.poll() is not None)
        assert process.poll() is None
        family = process.children(recursive=True)
        process.send_signal(number)
        assert process.wait(100) == 128 + number
        wait_until(lambda: not any(one.is_running() for one in family), 10)
    finally:
        for one in [process, *family]:
            if one.is_running():
                one.kill()
    assert family and not (run / "result.json").exists()
    assert (run / "step.pt").exists() or (run / "last.pt").exists()
    assert (run / "log.txt").read_text().splitlines()[-1].startswith("stopped by SIGINT")
    shown = outputs_of(out)
    assert "begun" in shown[-3] and "TrainingInterrupted" in shown[-2] and shown[-1] == "[]"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a sweep that gets SIGKILL leaves its run to its end")
def test_a_killed_sweep_of_notebooks_goes_on_and_leaves_nothing_running(tmp_path, monkeypatch):
    """The sweep gets SIGKILL: the training in the kernel saves, every process ends, and the next sweep goes on."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    book = write_notebook(tmp_path / "book.ipynb", PARAMETERS, TRAIN)
    flags = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "attnet", "sweep", "--folder", str(tmp_path / "runs"), "--notebook", str(book)]
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

    (row,) = sweep.run()
    assert row["failures"] == [] and len(row["top1"]) == 1
    log = (run.folder / LOG).read_text()
    assert re.findall(r"^epoch (\d+)/", log, flags=re.MULTILINE) == [str(i + 1) for i in range(EPOCHS)]
    assert str(run.folder) in outputs_of(run.folder / NOTEBOOK)[-1]
    assert not psutil.Process().children(recursive=True)
