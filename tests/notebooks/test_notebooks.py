"""Every notebook runs headless from top to bottom, from the root and from notebooks/, and is committed clean."""

import ast
import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbformat.sign import NotebookNotary
from papermill import inspect_notebook
from PIL import Image

import attnet
from attnet import report
from attnet.base.notebooks import parameter_names
from attnet.base.values import facts
from attnet.data import folder as folders
from attnet.engine.parameters import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Parameters of notebooks that are no TrainConfig parameters, or have another default or help there.
OWN = {
    "split",
    "pretrained",
    "output_dir",
    "device_num",
    "model",
    "module",
    "deep",
    "picture",
    "region",
    "image",
    "images",
    "run",
    "batch_sizes",
    "amps",
    "memory_formats",
    "compiles",
    "rounds",
    "epoch_images",
    "runs",
    "results",
    "where",
    "network",
    "output",
    "studies",
    "size",
    "seeds",
    "parallel",
    "folder",
}
# Names that have another default or help in one notebook alone.
OTHER = {
    "explorer.ipynb": {"data_path", "pictures", "others"},
    "ablations.ipynb": {"dataset"},
    "finetune.ipynb": {
        *("data_path", "dataset", "classes", "from_scratch", "lr"),
        *("total_epochs", "train_batch_size", "train_images", "test_images"),
    },
}
TINY = {
    "mode": "rehearsal",
    "dataset": "shapes",
    "device_type": "CPU",
    "train_images": 96,
    "test_images": 40,
    "train_batch_size": 16,
    "total_epochs": 2,
}


def papermill(notebook: str, output: Path, parameters: dict, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a notebook as a batch queue would: no terminal, output path given."""
    given = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    path = os.path.relpath(ROOT / "notebooks" / notebook, cwd)
    command = [sys.executable, "-m", "papermill", "--engine", "attnet", path, str(output), "-k", "python3"]
    command += ["--no-progress-bar", *given]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


def outputs_of(notebook: Path) -> list[dict]:
    book = nbformat.read(notebook, as_version=4)
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(outputs: list[dict], stream: str) -> str:
    return "".join(o["text"] for o in outputs if o["output_type"] == "stream" and o["name"] == stream)


def shown(outputs: list[dict], kind: str) -> list[str]:
    return [o["data"][kind] for o in outputs if kind in o.get("data", {})]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_committed_clean(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert book.metadata.kernelspec.name == "python3"
    assert book.metadata.language_info.file_extension == ".py", "nbconvert --to script needs it"
    assert [cell.metadata.get("tags", []) for cell in code].count(["parameters"]) == 1
    steps = [cell for cell in code if "parameters" not in cell.metadata.get("tags", [])]  # a line a parameter there
    assert max(len(cell.source.splitlines()) for cell in steps) <= 25
    assert book.cells[0].cell_type == "markdown" and book.cells[0].source.startswith("# ")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_every_notebook_ends_with_what_comes_next_and_no_link_is_dead(path):
    """Links are written as they work from notebooks/ and from runs/, where executed ones lie."""
    cells = nbformat.read(path, as_version=4).cells
    words = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", words)
    others = {link for link in links if not link.startswith(("https://", "attachment:"))}
    known = {f"../notebooks/{book.name}" for book in NOTEBOOKS}
    assert others <= known
    last = [cell.source for cell in cells if cell.cell_type == "markdown"][-1]
    if path.name not in ("explorer.ipynb", "start.ipynb"):  # which lead on from their first cell
        assert last.startswith("## What next") and "../notebooks/" in last


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_parameters_are_those_of_the_package(path):
    """Name, type, default and help of each parameter are TrainConfig's: they exist once."""
    cells = nbformat.read(path, as_version=4).cells
    [source] = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    for line in source.splitlines():
        statement = ast.parse(line).body[0]
        name = statement.target.id
        if name in OWN | OTHER.get(path.name, set()):
            continue
        spec = TrainConfig.fields()[name]
        assert ast.literal_eval(statement.value) == spec.default, name
        assert statement.annotation.id in {kind.__name__ for kind in TrainConfig.kinds(name)}, name
        assert line.split("  # ", 1)[1] == facts(spec).help, name


def test_the_first_page_leads_to_every_other_notebook():
    """A line and a small picture each, which the page brings along."""
    book = nbformat.read(ROOT / "notebooks" / "start.ipynb", as_version=4)
    prose = "\n".join(cell.source for cell in book.cells if cell.cell_type == "markdown")
    pictures = {name: data for cell in book.cells for name, data in cell.get("attachments", {}).items()}
    others = {path.stem for path in NOTEBOOKS} - {"start"}
    assert set(re.findall(r"\]\(\.\./notebooks/(\w+)\.ipynb\)", prose)) == others
    assert set(re.findall(r"\(attachment:(\w+)\.png\)", prose)) == others == {Path(name).stem for name in pictures}
    for data in pictures.values():
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
        assert picture.width <= 320 and len(picture.getcolors()) > 4, "a picture, and small"
    assert (ROOT / "notebooks" / "start.ipynb").stat().st_size < 300_000


@pytest.mark.slow
def test_start(tmp_path):
    done = papermill("start.ipynb", tmp_path / "out.ipynb", {"data_path": tmp_path})
    assert done.returncode != 0 and "DataError" in done.stderr.strip().splitlines()[-1], "it was given"
    done = papermill("start.ipynb", tmp_path / "out.ipynb", {}, ROOT / "notebooks")
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = outputs_of(tmp_path / "out.ipynb")
    assert text_of(outputs, "stderr") == "" and "training: recipe seed" in text_of(outputs, "stdout")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """train_1p.ipynb run from notebooks/, where JupyterLab starts kernels."""
    folder = tmp_path_factory.mktemp("trained")
    size = {**TINY, "keep_epochs": 1, "output_dir": folder / "run"}
    done = papermill("train_1p.ipynb", folder / "out.ipynb", size, ROOT / "notebooks")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_train_1p(trained):
    result = attnet.Result.load(trained / "run")
    assert result.epochs == 2 and result.dataset.startswith("shapes")
    outputs = outputs_of(trained / "out.ipynb")
    printed = text_of(outputs, "stdout")
    assert "epoch 1/2 " in printed and "epoch 2/2 " in printed
    assert text_of(outputs, "stderr") == "", "no bars, no warnings"
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 5, "a batch, the training, what is taken for what, mistakes over their masks, the theatre"
    [theatre, table] = shown(outputs, "text/html")
    assert "<iframe srcdoc=" in theatre
    executed = nbformat.read(trained / "out.ipynb", as_version=4)
    assert NotebookNotary().check_signature(executed), "JupyterLab shows what scripts draw in it"
    assert f">{result.top1:.2f}</td>" in table and "rehearsal" in table and "shapes" in table and "85.48" in table


@pytest.mark.slow
def test_evaluate_a_run_folder(trained, tmp_path):
    wanted = {"pretrained": trained / "run", "device_type": "CPU", "test_images": 100}
    done = papermill("evaluate.ipynb", tmp_path / "out.ipynb", wanted)
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = outputs_of(tmp_path / "out.ipynb")
    assert "shapes, 100 test images" in text_of(outputs, "stdout")
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == 3


@pytest.mark.slow
def test_results(trained, tmp_path):
    wanted = {"runs": trained, "network": "attention92_cifar", "output": tmp_path / "all.csv"}
    done = papermill("results.ipynb", tmp_path / "out.ipynb", wanted, ROOT / "notebooks")
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = outputs_of(tmp_path / "out.ipynb")
    assert text_of(outputs, "stderr") == "" and str(tmp_path / "all.csv") in text_of(outputs, "stdout")
    (own, whole, one), [others] = shown(outputs, "text/html"), shown(outputs, "text/markdown")
    assert str(trained / "run") in own and "record attention56_cifar" not in own and "<details>" not in own
    assert all(table.startswith("<details>") for table in (whole, one, others))
    assert str(trained / "run") in whole and "record attention56_cifar" in whole and "85.48" in whole
    assert "label noise 70 %" in one and "attention56" not in one
    assert "kill_harness" in others
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == 2
    assert f"rehearsal,run,{attnet.Result.load(trained / 'run').top1}" in (tmp_path / "all.csv").read_text()


@pytest.mark.slow
def test_architecture(tmp_path):
    wanted = {"model": "attention56_cifar", "module": "stage2.0", "deep": "attention92_cifar"}
    done = papermill("architecture.ipynb", tmp_path / "out.ipynb", wanted, ROOT / "notebooks")
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = outputs_of(tmp_path / "out.ipynb")
    assert text_of(outputs, "stderr") == ""
    assert "1,081,850 parameters" in text_of(outputs, "stdout")
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == 6
    tables = [o["data"]["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    assert len(tables) == 3 and "mask head" in tables[0] and "attention452_cifar" in tables[2]


@pytest.mark.slow
def test_performance(tmp_path):
    small = {"batch_sizes": "8", "memory_formats": "channels_last", "rounds": 1, "epoch_images": 512}
    wanted = {**small, "data_path": tmp_path, "device_type": "CPU"}
    done = papermill("performance.ipynb", tmp_path / "out.ipynb", wanted, ROOT / "notebooks")
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = outputs_of(tmp_path / "out.ipynb")
    assert text_of(outputs, "stderr") == ""
    assert "1 of 1: attention56_tiny, batch 8, O0, channels-last" in text_of(outputs, "stdout")
    [table] = [o["data"]["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    assert "attention56_tiny, batch 8" in table and "ceilings: copy" in table
    recorded = sum(len(report.records(kind)) for kind in ("epoch", "growth", "race"))
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == 4 + recorded


@pytest.mark.slow
def test_finetune_on_an_image_folder(tmp_path):
    folders.write_example(tmp_path / "mine", 5)
    small = {"total_epochs": 1, "train_batch_size": 8, "train_images": 22, "device_type": "CPU", "freeze": "stem"}
    wanted = {**small, "data_path": tmp_path / "mine", "output_dir": tmp_path / "run"}
    done = papermill("finetune.ipynb", tmp_path / "out.ipynb", wanted, ROOT / "notebooks")
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = outputs_of(tmp_path / "out.ipynb")
    assert text_of(outputs, "stderr") == ""
    printed = text_of(outputs, "stdout")
    assert "new head: 11 classes in place of the 10 of attention56_shapes" in printed and "frozen: stem" in printed
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == 7  # both trainings among them
    [table] = shown(outputs, "text/html")
    results = [attnet.Result.load(tmp_path / name) for name in ("run", "run_scratch")]
    assert all(f"{result.top1:.2f}" in table for result in results)
    assert torch.load(results[0].weights, weights_only=True)["classes"][0] == "arrow"


@pytest.mark.slow
def test_ablations(tmp_path):
    """One study is run; the others show what is on record."""
    size = {"train_images": 32, "test_images": 20, "train_batch_size": 16, "total_epochs": 1}
    given = {**size, "dataset": "shapes", "device_type": "CPU", "studies": "unit", "folder": tmp_path / "runs"}
    done = papermill("ablations.ipynb", tmp_path / "out.ipynb", given, ROOT / "notebooks")
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = outputs_of(tmp_path / "out.ipynb")
    assert text_of(outputs, "stderr") == ""
    assert "[3/3] " in text_of(outputs, "stdout")
    assert len(list((tmp_path / "runs").glob("*/*/result.json"))) == 3
    recorded = len(report.records("ablation"))
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == 1 + recorded
    tables = [o["data"]["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    [here] = [text for text in tables if "shapes, 32 of 2,000 images" in text]
    assert "79.64 (AttentionInception-56)" in here and here.startswith("<details>")
    assert len(tables) == 1 + recorded
    assert "measured here" in text_of(outputs, "stdout")


@pytest.mark.slow
def test_attention_masks_of_ones_own_picture(trained, tmp_path):
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 255, (70, 110, 3), np.uint8))
    picture.save(tmp_path / "holiday.webp")
    wanted = {"pretrained": "attention56_shapes", "picture": tmp_path / "holiday.webp", "images": 16}
    wanted["region"] = "30,10,80,60"
    done = papermill("attention_masks.ipynb", tmp_path / "out.ipynb", {**wanted, "run": trained / "run"})
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = outputs_of(tmp_path / "out.ipynb")
    assert text_of(outputs, "stderr") == ""
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) == 13
    assert "application/vnd.jupyter.widget-view+json" not in pictures[-1]["data"], "dead controls"
    tables = [o["data"]["text/markdown"] for o in outputs if "text/markdown" in o.get("data", {})]
    expected = ("pointing game", "strongest control", "inverse")
    assert [[word in table for word in expected] for table in tables] == [[i == j for j in range(3)] for i in range(3)]
    assert "Does the network need its masks at all?" in text_of(outputs, "stdout")


@pytest.mark.slow
def test_train_8p(tmp_path):
    """Eight ranks on however few cores there are."""
    size = {**TINY, "train_images": 128, "train_batch_size": 8, "output_dir": tmp_path / "run"}
    done = papermill("train_8p.ipynb", tmp_path / "out.ipynb", size)
    assert done.returncode == 0, done.stderr[-3000:]
    result = attnet.Result.load(tmp_path / "run")
    assert (result.device, result.epochs) == ("cpu_8p", 2)
    assert len(list((tmp_path / "run" / "logs").glob("rank*.log"))) == 8
    outputs = outputs_of(tmp_path / "out.ipynb")
    printed = text_of(outputs, "stdout")
    assert "torchrun --standalone --local_addr=127.0.0.1 --nproc_per_node=8" in printed and "epoch 2/2 " in printed
    assert "slowest over mean" in printed and f"FPS: {result.fps:,.0f} images/s" in printed
    # On a slow machine eight ranks take a while to begin, and the launcher says that it waits.
    said = text_of(outputs, "stderr").splitlines()
    assert [line for line in said if "no rank has begun after" not in line] == []
    assert len([o for o in outputs if "image/png" in o.get("data", {})]) == 3


@pytest.mark.slow
def test_a_rank_that_fails_stops_the_notebook_with_its_cause(tmp_path):
    """Training that diverges at once: papermill ends with an error status, and the notebook shows why."""
    wrong = {**TINY, "device_num": 2, "lr": 1000, "max_restarts": 0, "output_dir": tmp_path / "run"}
    done = papermill("train_8p.ipynb", tmp_path / "out.ipynb", wrong)
    assert done.returncode != 0
    [error] = [o for o in outputs_of(tmp_path / "out.ipynb") if o["output_type"] == "error"]
    assert error["ename"] == "LaunchError" and "training has diverged. Lower lr (1000)" in error["evalue"]


@pytest.mark.slow
def test_without_an_output_path_the_run_folder_holds_everything(tmp_path):
    """In a batch queue, with no terminal, papermill writes the notebook to standard output."""
    given = {**TINY, "device_num": 2, "total_epochs": 1, "output_dir": tmp_path / "run"}
    words = [word for name, value in given.items() for word in ("-p", name, str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "notebooks/train_8p.ipynb", "-k", "python3", *words],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    book = nbformat.reads(done.stdout[done.stdout.index("{") :], as_version=4)
    assert any(cell.get("outputs") for cell in book.cells)
    assert attnet.Result.load(tmp_path / "run").epochs == 1


@pytest.mark.slow
def test_a_wrong_parameter_stops_with_a_sentence(tmp_path):
    wrong = {**TINY, "data_path": tmp_path / "nowhere", "dataset": "cifar10", "output_dir": tmp_path / "run"}
    done = papermill("train_1p.ipynb", tmp_path / "out.ipynb", wrong)
    assert done.returncode != 0
    assert "DataError" in done.stderr and str(tmp_path / "nowhere") in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_help_explains_every_parameter(path):
    """papermill drops a parameter whose comment holds "=" (nteract/papermill #864)."""
    found = inspect_notebook(path)
    assert list(found) == parameter_names(nbformat.read(path, as_version=4).cells)
    assert all(parameter["help"] for parameter in found.values())


def test_notebooks_hold_no_paths_of_a_machine():
    for path in NOTEBOOKS:
        text = json.dumps(nbformat.read(path, as_version=4))
        assert "/home/" not in text and "/root/" not in text and str(ROOT) not in text


@pytest.mark.slow
def test_explorer(tmp_path):
    wanted = {"pretrained": "attention56_shapes", "data_path": tmp_path}
    done = papermill("explorer.ipynb", tmp_path / "out.ipynb", wanted)
    assert done.returncode == 0, done.stderr[-3000:]
    [output] = [o["data"] for o in outputs_of(tmp_path / "out.ipynb") if "image/png" in o.get("data", {})]
    assert "application/vnd.jupyter.widget-view+json" not in output, "dead controls"
