"""Fixtures: the reference implementation's names and golden outputs (tests/data)."""

import gzip
import json
import os
import tempfile
import zlib
from pathlib import Path
from unittest import mock

# Tests run side by side: threads would wait for each other's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The same arithmetic on every processor, and O0 where nothing is asked for: in processes that tests start, too.
os.environ.setdefault("ATEN_CPU_CAPABILITY", "avx2")

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

DATA = Path(__file__).parent / "assets"
TURNS = 4

# reference class -> our name
REFERENCE = {
    "ResidualAttentionModel_92_32input_update": "attention92",
    "ResidualAttentionModel_92_32input": "attention92_pooled",
    "ResidualAttentionModel_92": "attention92_224",
    "ResidualAttentionModel_56": "attention56_224",
    "ResidualAttentionModel_448input": "attention92_448",
}


def pytest_configure(config: pytest.Config) -> None:
    """Jupyter keeps what it knows of a user's notebooks in a folder that goes when the tests end."""
    folder = tempfile.TemporaryDirectory(prefix="attnet-jupyter-")
    config.add_cleanup(folder.cleanup)
    os.environ["JUPYTER_DATA_DIR"] = folder.name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--turn", type=int, help=f"of the slow tests those of this turn alone, 0 to {TURNS - 1}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a slow machine CI lets slow tests take turns, a file each, so that each runs with every fourth change."""
    turn = config.getoption("--turn")
    if turn is not None:
        others = [item for item in items if zlib.crc32(item.path.name.encode()) % TURNS != turn % TURNS]
        waiting = [item for item in others if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=waiting)
        items[:] = [item for item in items if item not in set(waiting)]


@pytest.fixture(scope="session")
def reference_variants() -> dict:
    """Per reference class: state-dict names and shapes, names it never uses, statistics of its masks."""
    return json.loads(gzip.decompress((DATA / "reference_variants.json.gz").read_bytes()))


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Logits (and masks) of the reference's classes for the weights of `draw_weights`."""
    with np.load(DATA / "golden.npz") as archive:
        return {name: archive[name] for name in archive.files}


def draw_weights(entries: list[tuple[str, list[int]]]) -> dict[str, torch.Tensor]:
    """The weights the golden outputs were computed with: each entry drawn from a seed made of its name."""
    state = {}
    for name, shape in entries:
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        value = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
        if name.endswith("running_var"):
            value = 1 + 0.1 * np.abs(value)
        elif name.endswith(("running_mean", ".bias")):
            value = 0.1 * value
        elif value.ndim == 1:
            value = 1 + 0.1 * value
        else:
            value = value * np.sqrt(1 / np.prod(shape[1:]))
        state[name] = torch.from_numpy(np.asarray(value, np.float32))
    return state


def draw_images(size: int) -> torch.Tensor:
    """The two inputs of the golden outputs, float32 [2, 3, size, size]."""
    return torch.from_numpy(np.random.RandomState(0).standard_normal((2, 3, size, size)).astype(np.float32))


def words(figure: Figure) -> list[Text]:
    """What is really written when the figure is drawn: not the ticks of hidden axes, nor what is stamped across."""
    written = []

    def draw(text: Text, *arguments: object) -> None:
        if text.get_visible() and text.get_text().strip() and text.get_gid() != "stamp" and text not in written:
            written.append(text)
        original(text, *arguments)

    original = Text.draw
    with mock.patch.object(Text, "draw", draw):
        FigureCanvasAgg(figure).draw()
    return written


def check_words(figure: Figure) -> None:
    """Every word is large enough to read, inside the figure, and touches no other."""
    boxes = []
    for text in words(figure):
        box = Text.get_window_extent(text)  # without the line that leads an annotation to its point
        assert text.get_fontsize() >= 8, text
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, text
        boxes.append((text.get_text(), box))
    for i, (word, box) in enumerate(boxes):
        for other, other_box in boxes[:i]:
            apart = box.x0 >= other_box.x1 - 1 or other_box.x0 >= box.x1 - 1
            assert apart or box.y0 >= other_box.y1 - 2 or other_box.y0 >= box.y1 - 2, (word, other)
