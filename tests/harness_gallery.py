"""The gallery: notebooks with what they show, for those who only read: `python tests/harness_gallery.py [NAME ...]`.

Each is executed as it stands, with CIFAR-10 where it is in `data/` and the shipped weights, and written to
`data/results/gallery/NAME.ipynb` with its pictures reduced to a palette, and a thumbnail of one of them beside for the
README. tests/notebooks/test_gallery.py says when one is out of date.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
GALLERY = ROOT / "data" / "results" / "gallery"
# Notebook -> which of its pictures stands for it.
NAMES = {"architecture": 2, "attention_masks": 3, "explorer": 0, "finetune": 1}
LINKS = "../../../notebooks/"  # from the gallery
COLOURS, THUMBNAIL = 128, (300, 150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(NAMES), metavar="NAME", help=", ".join(NAMES))
    GALLERY.mkdir(exist_ok=True)
    for name in parser.parse_args().names:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / f"{name}.ipynb"
            words = [sys.executable, "-m", "papermill", "--engine", "attnet", f"notebooks/{name}.ipynb", str(output)]
            paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
            environment = {**os.environ, "PYTHONPATH": paths}
            subprocess.run([*words, "-k", "python3", "--no-progress-bar"], cwd=ROOT, env=environment, check=True)
            file = GALLERY / f"{name}.ipynb"
            book = compact(nbformat.read(output, as_version=4))
            nbformat.write(book, file)
            thumbnail(book, NAMES[name]).save(file.with_suffix(".webp"), quality=75)
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e6:.1f} MB", flush=True)


def compact(book: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what only a kernel can use, or tells of the machine; pictures with fewer colours."""
    book.metadata = {key: book.metadata[key] for key in ("kernelspec", "language_info") if key in book.metadata}
    for cell in book.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if cell.metadata.get("tags") else {}
        if cell.cell_type != "code":
            cell.source = cell.source.replace("../notebooks/", LINKS)
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            output.get("metadata", {}).clear()
            if "text" in output:
                output.text = output.text.replace(f"{ROOT}/", "")
            data = output.get("data", {})
            if "image/png" in data:
                data.pop("text/html", None)  # a frame, which readers of a file do not show
                data["image/png"] = _reduced(data["image/png"])
            for kind in [kind for kind in data if kind.startswith("application/vnd.jupyter.widget")]:
                del data[kind]
            for kind, content in data.items():
                if kind.startswith("text/"):
                    data[kind] = "".join(content).replace(f"{ROOT}/", "")
    return book


def thumbnail(book: nbformat.NotebookNode, which: int) -> Image.Image:
    """The upper left of one of a notebook's pictures, small."""
    data = [output.get("data", {}) for cell in book.cells for output in cell.get("outputs", ())]
    pictures = [content["image/png"] for content in data if "image/png" in content]
    image = Image.open(io.BytesIO(base64.b64decode(pictures[which]))).convert("RGB")
    wide, tall = THUMBNAIL
    image = image.resize((2 * wide, round(2 * wide * image.height / image.width)), Image.Resampling.LANCZOS)
    small = Image.new("RGB", (2 * wide, 2 * tall), "white")
    small.paste(image, (0, 0))
    return small


def _reduced(picture: str) -> str:
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    main()
