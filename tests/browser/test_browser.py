"""The notebooks in JupyterLab, in a headless Chromium: they run, and the explorer's every control does something.

Needs Chromium (Debian: `apt-get install chromium`); without it these tests skip.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

import attnet

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (apt-get install chromium)"),
]

# Everything on the page at once, so that it can be found: JupyterLab usually draws only the cells in sight.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {
        "windowingMode": "none",
        "autoStartDefaultKernel": True,
    },
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
}
SMALL = {
    "mode": "rehearsal",
    "dataset": "shapes",
    "train_images": 96,
    "test_images": 40,
    "train_batch_size": 16,
    "total_epochs": 2,
    "keep_epochs": 1,
    "progress": "none",
    "device_type": "CPU",
}


def set_parameters(path: Path, **parameters: object) -> None:
    """What `papermill -p` does, for a notebook that a browser will run."""
    book = nbformat.read(path, as_version=4)
    [place] = [i for i, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", [])]
    lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(lines))
    nbformat.write(book, path)


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the repository, so that nothing is written outside temporary folders."""
    house = tmp_path_factory.mktemp("house")
    for folder in ("attnet", "notebooks"):
        shutil.copytree(
            ROOT / folder, house / folder, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        )
    shutil.copy(ROOT / "pyproject.toml", house)
    run = attnet.fit(attnet.TrainConfig(**SMALL, output_dir=str(house / "runs" / "small")))
    set_parameters(house / "notebooks" / "attention_masks.ipynb", images=12, run=str(run.output_dir))
    set_parameters(house / "notebooks" / "architecture.ipynb", model="attention56_cifar")
    return house


@pytest.fixture(scope="module")
def lab(house, tmp_path_factory) -> Iterator[str]:
    """JupyterLab on the copy; the address of its notebooks."""
    home = tmp_path_factory.mktemp("home")
    for name, content in SETTINGS.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(json.dumps(content))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"JUPYTER_CONFIG_DIR": home, "JUPYTER_DATA_DIR": home, "JUPYTER_RUNTIME_DIR": home / "runtime"}
    own |= {"JUPYTERLAB_SETTINGS_DIR": home, "IPYTHONDIR": home / "ipython", "PYTHONPATH": house}
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"),
            *("--IdentityProvider.token=", f"--ServerApp.root_dir={house}", "--ServerApp.port_retries=0"),
        ],
        cwd=house, env={**os.environ, **{k: str(v) for k, v in own.items()}},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=1).close()
                break
            except OSError:
                assert server.poll() is None, "JupyterLab ended before it listened"
                time.sleep(0.5)
        yield f"{address}/lab/tree/notebooks"
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def run_all(browser: playwright.Browser, lab: str, notebook: str) -> playwright.Page:
    """The notebook's page after every cell has run."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})  # a small laptop
    page.set_default_timeout(60_000)
    page.goto(f"{lab}/{notebook}?reset")  # without the tabs of an earlier page
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector("text=Python 3 (ipykernel) | Idle")
    prompts = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(prompt => prompt.textContent)"
    for _ in range(300):
        if all(prompt.strip() == "[ ]:" for prompt in page.evaluate(prompts)):  # not begun: it may ask which kernel
            with contextlib.suppress(playwright.TimeoutError):
                page.click(".jp-Dialog button.jp-mod-accept", timeout=1_000)
            page.click('.lm-MenuBar-itemLabel:text-is("Run")')
            page.click('.lm-Menu-itemLabel:text-is("Run All Cells")')
        time.sleep(1)
        assert_no_errors(page)
        if all(any(map(str.isdigit, prompt)) for prompt in page.evaluate(prompts)):
            break
    else:
        raise AssertionError(f"{notebook} did not end within five minutes: {page.evaluate(prompts)}")
    return page


def saved(page: playwright.Page, path: Path) -> list[dict]:
    """The outputs of the notebook as JupyterLab saves it."""
    page.keyboard.press("Control+s")
    for _ in range(60):
        book = nbformat.read(path, as_version=4)
        code = [cell for cell in book.cells if cell.cell_type == "code"]
        if all(cell.execution_count for cell in code):
            return [output for cell in code for output in cell.outputs]
        time.sleep(0.5)
    raise AssertionError(f"{path} was not saved")


def assert_no_errors(page: playwright.Page) -> None:
    bad = '[data-mime-type="application/vnd.jupyter.error"], [data-mime-type="application/vnd.jupyter.stderr"]'
    shown = page.locator(bad).all_inner_texts()
    assert not shown, "\n".join(shown)[-3000:]


def test_architecture(browser, lab, house):
    page = run_all(browser, lab, "architecture.ipynb")
    assert_no_errors(page)
    outputs = saved(page, house / "notebooks" / "architecture.ipynb")
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    tables = [output["data"]["text/markdown"] for output in outputs if "text/markdown" in output.get("data", {})]
    assert any("attention452_cifar" in table for table in tables)
    page.close()


def test_attention_masks_and_every_control_of_the_explorer(browser, lab, house, tmp_path):
    page = run_all(browser, lab, "attention_masks.ipynb")
    assert_no_errors(page)
    picture = page.locator("img[alt^='The network says']")
    picture.wait_for()

    def changes(move) -> None:
        before = picture.get_attribute("src")
        move()
        page.wait_for_function(
            "before => document.querySelector(\"img[alt^='The network says']\").getAttribute('src') != before",
            arg=before,
        )

    def choose(label: str, option: str) -> None:
        changes(lambda: page.get_by_label(label, exact=True).select_option(label=option))

    def enter(label: str, number: int) -> None:
        field = page.get_by_label(label, exact=True)
        changes(lambda: (field.fill(str(number)), field.press("Enter")))

    choose("module", "stage2.0")
    choose("show", "mask branch at 1/2")
    choose("show", "Grad-CAM")
    choose("show", "soft mask M")
    choose("channels", "main component")
    choose("channels", "one channel")
    enter("channel", 5)
    enter("overlay %", 20)
    choose("mask is", "inverse")
    changes(lambda: page.get_by_label("in every module").check())
    enter("number", 11)
    field = page.get_by_label("number", exact=True)
    field.focus()
    changes(lambda: page.keyboard.press("ArrowUp"))  # without a mouse
    photo = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (90, 160, 3), np.uint8)).save(photo, "JPEG")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="your picture").click()
    content = {"name": "holiday.jpg", "mimeType": "image/jpeg", "buffer": photo.getvalue()}
    changes(lambda: chooser.value.set_files(content))
    source = page.get_by_label("images", exact=True).locator("option:checked").inner_text()
    assert source.replace("\xa0", " ") == "your picture: holiday.jpg"
    page.get_by_role("button", name="Save view").click()
    page.wait_for_selector("text=Saved runs/explorer/view-001.png")
    assert (house / "runs" / "explorer" / "view-001.py").exists()
    assert picture.evaluate("e => e.getBoundingClientRect().right <= window.innerWidth")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="your picture").click()
    chooser.value.set_files({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    page.wait_for_selector("text=picture notes.txt is no picture that can be read")
    assert_no_errors(page)
    if shots := os.environ.get("ATTNET_SCREENSHOTS"):
        picture.scroll_into_view_if_needed()
        page.screenshot(path=Path(shots) / "explorer.png")
    outputs = saved(page, house / "notebooks" / "attention_masks.ipynb")
    assert not [output for output in outputs if output["output_type"] == "error"]
    live = [o["data"] for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert any("image/png" in data for data in live), "a picture for those who read the notebook without a kernel"
    page.close()
