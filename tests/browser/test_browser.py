"""The notebooks in JupyterLab, in a headless Chromium: they run, and the explorer's every control does something.

Needs Chromium (Debian: `apt-get install chromium`); without it these tests skip.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from made import wait_until
from PIL import Image

import attnet
from attnet.plots import make_theatre

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
    set_parameters(house / "notebooks" / "explorer.ipynb", pretrained=str(run.output_dir), data_path="nowhere")
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


@pytest.mark.slow
def test_attention_masks_in_the_browser(browser, lab, house):
    page = run_all(browser, lab, "attention_masks.ipynb")
    assert_no_errors(page)
    page.wait_for_selector(".attnet-viewer[data-answers]")
    outputs = saved(page, house / "notebooks" / "attention_masks.ipynb")
    live = [o["data"] for o in outputs if "application/vnd.jupyter.widget-view+json" in o.get("data", {})]
    assert any("image/png" in data for data in live), "a picture for those who read the notebook without a kernel"
    page.close()


class Viewer:
    """The viewer on a page: what it shows, and moves that wait for their answer."""

    def __init__(self, page: playwright.Page) -> None:
        self.page, self.root = page, page.locator(".attnet-viewer")
        page.wait_for_selector(".attnet-viewer[data-answers]")

    def control(self, label: str) -> playwright.Locator:
        return self.root.get_by_label(label, exact=True)

    def button(self, words: str) -> playwright.Locator:
        return self.root.get_by_role("button", name=words, exact=True)

    def answered(self, move: Callable[[], object]) -> None:
        """A move that asks for another frame."""
        before = self.root.get_attribute("data-answers")
        move()
        changed = "n => document.querySelector('.attnet-viewer').dataset.answers != n"
        self.page.wait_for_function(changed, arg=before)

    def changes(self, move: Callable[[], object]) -> None:
        """A move that draws the image anew."""
        before = self.root.locator("canvas.stage").evaluate("canvas => canvas.toDataURL()")
        move()
        changed = "b => document.querySelector('.attnet-viewer canvas.stage').toDataURL() != b"
        self.page.wait_for_function(changed, arg=before)

    def enter(self, label: str, value: object) -> None:
        self.control(label).fill(str(value))
        self.control(label).press("Enter")

    def said(self) -> str:
        return self.root.locator(".status").inner_text()

    def point(self, u: float, v: float) -> str:
        """What is read off the image at a point."""
        self.root.locator("canvas.stage").scroll_into_view_if_needed()
        box = self.root.locator("canvas.stage").bounding_box()
        self.page.mouse.move(box["x"] + u * box["width"], box["y"] + v * box["height"])
        self.page.wait_for_function("() => document.querySelector('.attnet-viewer .readout canvas')")
        return self.root.locator(".readout").inner_text()


def photograph(width: int, height: int) -> dict[str, object]:
    content = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (height, width, 3), np.uint8)).save(content, "JPEG")
    return {"name": "holiday.jpg", "mimeType": "image/jpeg", "buffer": content.getvalue()}


def test_every_control_of_the_explorer(browser, lab, house):
    page = run_all(browser, lab, "explorer.ipynb")
    viewer = Viewer(page)
    viewer.answered(lambda: viewer.enter("test image", 11))
    assert viewer.said().startswith("test image 11: the network says ")
    viewer.changes(lambda: viewer.button("module stage2.0").click())
    assert "; stage2.0, " in viewer.said()
    for part in ("mask branch at 1/2", "Grad-CAM", "mask M"):
        viewer.answered(lambda part=part: viewer.control("show").select_option(label=part))
    viewer.changes(lambda: viewer.control("channels").select_option(label="mean of all channels"))
    viewer.changes(lambda: viewer.control("overlay, per cent").fill("30"))
    viewer.changes(lambda: viewer.root.locator("canvas.grid").click(position={"x": 90, "y": 30}))
    assert "; stage2.0, channel " in viewer.said()
    chosen = viewer.control("channel").input_value()
    viewer.root.locator("canvas.grid").press("ArrowRight")
    assert viewer.control("channel").input_value() != chosen
    viewer.changes(lambda: viewer.control("channel").fill("5"))
    assert "; stage2.0, channel 5 " in viewer.said()
    viewer.changes(lambda: viewer.control("channel").fill("-1"))
    at = viewer.point(0.4, 0.6)
    assert "sees the whole image" in at
    viewer.root.locator("canvas.stage").press("ArrowLeft")
    page.wait_for_function("b => document.querySelector('.attnet-viewer .readout').innerText != b", arg=at)
    viewer.button("Pin as A").click()
    viewer.answered(lambda: viewer.control("its mask is").select_option(label="0 everywhere"))
    assert viewer.root.locator(".tile").first.locator("canvas").count() == 3, "A, B and B - A"
    assert "(untouched: " in viewer.said()
    viewer.answered(lambda: viewer.control("in every module").check())
    viewer.button("Unpin A").click()
    viewer.answered(lambda: viewer.control("effects").check())
    assert viewer.root.get_by_text("mask 0: ").count() == 3
    viewer.answered(lambda: viewer.control("your picture").set_input_files(photograph(160, 90)))
    assert viewer.said().startswith("holiday.jpg: ")
    viewer.answered(lambda: viewer.button("Add a region").click())
    viewer.root.locator("canvas.stage").scroll_into_view_if_needed()
    box = viewer.root.locator("canvas.stage").bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.65 * box["width"], box["y"] + 0.5 * box["height"], steps=3)
    viewer.answered(page.mouse.up)
    notes = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    viewer.control("your picture").set_input_files(notes)
    page.wait_for_selector("text=picture notes.txt is no picture that can be read")
    viewer.button("Save view").click()
    page.wait_for_selector("text=Saved runs/explorer/view-001.png")
    assert (house / "runs" / "explorer" / "view-001.py").exists()
    viewer.button("Save as HTML").click()
    page.wait_for_selector("text=Saved runs/explorer/masks-001.html")
    for width in (1280, 1920):
        page.set_viewport_size({"width": width, "height": 1000})
        fits = "e => e.scrollWidth <= e.clientWidth + 1 && e.getBoundingClientRect().right <= innerWidth"
        assert viewer.root.evaluate(fits)
    named = "c => c.labels?.length || c.textContent || c.ariaLabel"
    controls = f"e => [...e.querySelectorAll('input, select, button')].filter(c => !({named})(c)).length"
    assert viewer.root.evaluate(controls) == 0, "every control has a name"
    assert_no_errors(page)
    if shots := os.environ.get("ATTNET_SCREENSHOTS"):
        viewer.root.screenshot(path=Path(shots) / "explorer.png")
    page.close()


def test_a_run_started_elsewhere_is_watched_and_stopped(browser, lab, house, tmp_path):
    run = house / "runs" / "live"
    given = SMALL | {"train_images": 320, "total_epochs": 50, "output_dir": str(run), "progress": "lines"}
    values = [word for name, value in given.items() for word in ("-p", name, str(value))]
    words = [
        "papermill",
        "--engine",
        "attnet",
        str(house / "notebooks" / "train_1p.ipynb"),
        str(tmp_path / "out.ipynb"),
    ]
    papermill = subprocess.Popen(
        [sys.executable, "-m", *words, *values, "-k", "python3", "--no-progress-bar"],
        cwd=house, env={**os.environ, "PYTHONPATH": str(house)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: (run / "metrics.jsonl").exists())
        cells = [
            nbformat.v4.new_code_cell(f"import attnet\nattnet.watch({str(run)!r})"),
            nbformat.v4.new_code_cell("6 * 7"),
        ]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), house / "notebooks" / "watching.ipynb")
        page = run_all(browser, lab, "watching.ipynb")  # the kernel is free: the second cell has run
        watch = page.locator(".attnet-watch")
        before = watch.inner_text()
        assert "running, process" in before and "images/s" in before and watch.locator("img").count() == 1
        page.wait_for_function("b => document.querySelector('.attnet-watch').innerText != b", arg=before)
        page.reload()  # as after closing the browser: run the cell again
        page = run_all(browser, lab, "watching.ipynb")
        watch = page.locator(".attnet-watch")
        watch.get_by_text("the last lines of log.txt").click()
        watch.get_by_text("epoch 1/50").wait_for()
        watch.get_by_role("button", name="Stop the run").click()
        if shots := os.environ.get("ATTNET_SCREENSHOTS"):
            page.screenshot(path=Path(shots) / "watch.png")
        watch.get_by_role("button", name="Yes, save and stop").click()
        assert papermill.wait(120) != 0
        watch.get_by_text("stopped by a request").first.wait_for()
        watch.get_by_role("button", name="Stop the run").wait_for(state="hidden")
        assert_no_errors(page)
        if shots:
            page.screenshot(path=Path(shots) / "watch_stopped.png")
        page.close()
    finally:
        papermill.terminate()
        papermill.wait(60)
    again = attnet.TrainConfig(resume=str(run), device_type="CPU", progress="none")
    done = attnet.make_plan(again).position
    assert done > (0, 0) and not (run / "result.json").exists(), "saved, to be resumed"


@pytest.fixture(scope="module")
def theatre(house) -> str:
    """The address of a theatre of three images and two epochs."""
    network = attnet.load_pretrained(house / "runs" / "small")
    file = make_theatre(network, attnet.load_dataset(None, "shapes"), 3).save(house / "runs" / "masks.html")
    return file.as_uri()


def test_the_theatre_opens_from_a_disk(browser, theatre):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    outside = []
    page.on("request", lambda request: outside.append(request.url) if request.url.startswith("http") else None)
    page.goto(theatre)
    viewer = Viewer(page)
    assert page.locator("#still").is_hidden()
    first = viewer.said()
    assert re.search(r"stage3\.0 \d\.\d\d", viewer.point(0.3, 0.3))
    image = viewer.root.locator(".strip button").nth(1)
    viewer.answered(image.click)
    assert viewer.said() != first
    viewer.answered(lambda: image.press("ArrowLeft"))
    assert viewer.said() == first
    for kind in ("0 everywhere", "its own"):
        viewer.answered(lambda kind=kind: viewer.control("its mask is").select_option(label=kind))
    viewer.answered(lambda: viewer.control("epoch").fill("0"))
    assert "epoch 0" in viewer.root.locator(".time").inner_text()
    viewer.control("its mask is").select_option(label="0 everywhere")
    page.wait_for_selector("text=Replaced masks are kept of epoch")
    viewer.control("its mask is").select_option(label="its own")
    viewer.answered(lambda: viewer.button("▶ Play").click())
    page.wait_for_function(
        "() => document.querySelector('.time input').value == document.querySelector('.time input').max"
    )
    assert not outside
    page.close()


def test_the_theatre_without_a_script_is_a_still_sheet(browser, theatre):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(theatre)
    assert page.locator("#still img").is_visible()
    assert page.locator("#still img").evaluate("e => e.naturalWidth") > 300
    context.close()
