"""Draw the small pictures of `notebooks/start.ipynb` anew: `python tests/harness_start.py`.

Each is the telling part of a figure of the notebook that it leads to, from records and shipped weights; they are
attachments of the page, so that it shows them before anything has run.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import nbformat
import torch
from matplotlib.figure import Figure
from PIL import Image

import attnet
from attnet import plots, report
from attnet.engine.evaluation import Evaluation

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "notebooks" / "start.ipynb"
SIZE = (240, 150)  # pixels
COLOURS = 64


def of_record(name: str) -> dict:
    return json.loads((ROOT / "data/results" / f"{name}.json").read_text(encoding="utf-8"))


def curves() -> Figure:
    return plots.plot_curves(of_record("attention56_cifar")["history"])


def masks() -> Figure:
    network, data = attnet.open_pretrained("attention56_shapes")
    return plots.plot_figure1(network.model, data.test.images[:1], classes=network.classes)


def predictions() -> Figure:
    network, data = attnet.open_pretrained("attention56_shapes")
    split = data.test.subset(16)
    with torch.no_grad():
        logits = network.model(split.images / 255)
    return plots.plot_predictions(split, Evaluation(logits, split.labels, data.classes), range(8), columns=4)


# notebook -> its figure, and which part of it: left, top, right, bottom as shares of its width and height.
PICTURES: dict[str, tuple[Callable[[], Figure], tuple[float, float, float, float]]] = {
    "attention_masks": (masks, (0.12, 0, 0.8, 1)),
    "explorer": (lambda: plots.plot_masks(*attnet.open_pretrained("attention56_cifar"), 6), (0.01, 0.1, 0.66, 1)),
    "architecture": (lambda: plots.plot_attention_module(attnet.build_model("attention92")), (0, 0, 0.96, 1)),
    "train_1p": (curves, (0.5, 0, 1, 1)),
    "train_8p": (lambda: plots.plot_growth(of_record("cpu_growth")), (0.5, 0.53, 1, 0.95)),
    "evaluate": (predictions, (0, 0, 1, 1)),
    "finetune": (lambda: plots.plot_ablation(of_record("finetune")), (0, 0.13, 0.83, 0.87)),
    "ablations": (lambda: plots.plot_ablation(of_record("ablation")), (0, 0.08, 0.6, 0.62)),
    "performance": (lambda: plots.plot_roofline(of_record("gpu_fps")), (0, 0, 0.72, 1)),
    "results": (lambda: plots.plot_top1(report.collect("").rows), (0, 0.04, 1, 0.5)),
}


def thumbnail(figure: Figure, part: tuple[float, float, float, float]) -> bytes:
    """A part of a figure as a small PNG of few colours."""
    file = io.BytesIO()
    figure.savefig(file, dpi=150)
    whole = Image.open(file).convert("RGB")
    width, height = whole.size
    left, top, right, bottom = part
    cut = whole.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))
    cut.thumbnail(SIZE, Image.Resampling.LANCZOS)
    small = Image.new("RGB", SIZE, "white")
    small.paste(cut, ((SIZE[0] - cut.width) // 2, (SIZE[1] - cut.height) // 2))
    file = io.BytesIO()
    small.quantize(COLOURS).save(file, "PNG", optimize=True)
    return file.getvalue()


def main() -> None:
    page = nbformat.read(PAGE, as_version=4)
    made = {f"{name}.png": thumbnail(draw(), part) for name, (draw, part) in PICTURES.items()}
    for cell in page.cells:
        wanted = [name for name in made if f"attachment:{name}" in cell.source]
        if wanted:
            cell.attachments = {name: {"image/png": base64.b64encode(made[name]).decode()} for name in wanted}
    nbformat.write(page, PAGE)
    print(f"{len(made)} pictures, {sum(map(len, made.values())) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
