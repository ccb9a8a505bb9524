"""Figures of the network: that they show the object they were given, and that every word of them can be read."""

import dataclasses
import functools
import io
import itertools
import math
import weakref
from collections import Counter
from unittest import mock

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from torch import nn

import attnet
from attnet.base.errors import ConfigError
from attnet.masks.statistics import Signal
from attnet.model import anatomy
from attnet.model.anatomy import Part
from attnet.model.modules import ATTENTION_TYPES
from attnet.model.network import ResidualAttentionNetwork
from attnet.model.reach import receptive_field
from attnet.model.units import ResidualUnit
from attnet.model.variants import variants
from attnet.plots import anatomy as charts
from attnet.plots import (
    architecture,
    plot_attention_module,
    plot_network,
    plot_parts,
    plot_receptive_fields,
    plot_residual_unit,
    plot_signal,
)
from attnet.plots.figure import ORANGE, RED, SCREEN_DPI

TABLE = variants()
DRAWN: weakref.WeakKeyDictionary[Figure, dict[Text, Bbox]] = weakref.WeakKeyDictionary()
KINDS = ("stem", "unit", "module", "tail", "head")
FAST = ("attention56_tiny", "attention92")
every_network = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in TABLE]
)


@functools.cache
def meta(name: str, **options: object) -> ResidualAttentionNetwork:
    with torch.device("meta"):
        return attnet.build_model(name, **options)


@pytest.fixture(scope="module", autouse=True)
def counted_once():
    """Counting takes longer than drawing: networks that several tests draw are counted once."""
    parts, activations = functools.cache(anatomy.parts), functools.cache(anatomy.activations)
    with (
        mock.patch.object(architecture, "activations", activations),
        mock.patch.object(charts, "parts", parts),
    ):
        yield


def parts_of(name: str) -> list[Part]:
    return charts.parts(meta(name))


def of_depth(depth: int, **options: object) -> ResidualAttentionNetwork:
    """A network with a single attention module, on 64 pixels."""
    one = {"modules": (1,), "depths": (depth,), "widths": (32,), "tail_width": 32, "input_size": 64}
    with torch.device("meta"):
        return ResidualAttentionNetwork(dataclasses.replace(TABLE["attention56_tiny"], **one, **options))


def written(figure: Figure) -> dict[Text, Bbox]:
    """What is really written when the figure is drawn at notebook size, and where, in pixels; drawn once."""
    if figure in DRAWN:
        return DRAWN[figure]
    found = DRAWN[figure] = {}

    def draw(text: Text, renderer: object, *arguments: object) -> None:
        if text.get_visible() and text.get_text().strip():
            found[text] = text.get_window_extent(renderer)
        original(text, renderer, *arguments)

    original = Text.draw
    figure.dpi = SCREEN_DPI
    with mock.patch.object(Text, "draw", draw):
        FigureCanvasAgg(figure).draw()
    return found


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in written(figure)]


def assert_readable(figure: Figure) -> None:
    """At notebook size every word lies on the page, apart from every other, in letters of at least 8 points."""
    boxes = written(figure)
    width, height = figure.get_size_inches() * SCREEN_DPI
    assert boxes and width <= 11.6 * SCREEN_DPI
    assert min(text.get_fontsize() for text in boxes) >= 8
    x0, y0, x1, y1 = np.array([box.extents for box in boxes.values()]).T
    cut = (x0 < -0.5) | (y0 < -0.5) | (x1 > width + 0.5) | (y1 > height + 0.5)
    assert not cut.any(), [text for text, out in zip(boxes, cut, strict=True) if out]
    apart_x = (x0[:, None] >= x1 - 1) | (x0 >= x1[:, None] - 1)
    apart_y = (y0[:, None] >= y1 - 2) | (y0 >= y1[:, None] - 2)
    touching = np.argwhere(np.triu(~(apart_x | apart_y), k=1))
    assert not len(touching), [[list(boxes)[index].get_text() for index in pair] for pair in touching]


def panels(figure: Figure) -> dict[str, Axes]:
    return {ax.get_title(): ax for ax in figure.axes if ax.get_title()}


def with_gid(figure: Figure, gid: str) -> list:
    return [patch for patch in figure.axes[0].patches if patch.get_gid() == gid]


def assert_boxes_hold_their_words(figure: Figure) -> None:
    """Each box of a diagram has one text, and no letter of it crosses the border or lies under another box."""
    boxes = written(figure)
    for patch in (*with_gid(figure, "box"), *with_gid(figure, "card")):
        border = patch.get_window_extent()
        inside = [text for text, box in boxes.items() if border.contains(*box.get_points().mean(axis=0))]
        assert len(inside) == 1, [text.get_text() for text in inside]
        if patch.get_gid() == "box":
            box = boxes[inside[0]]
            assert border.x0 <= box.x0 and box.x1 <= border.x1 and border.y0 <= box.y0 and box.y1 <= border.y1, inside
    borders = [patch.get_window_extent() for patch in with_gid(figure, "box")]
    for one, other in itertools.combinations(borders, 2):
        assert not one.overlaps(other)


# -- the attention module ----------------------------------------------------------------------------------------


@every_network
def test_attention_modules_of_every_network_can_be_read(name):
    figure = plot_attention_module(meta(name))
    assert_readable(figure)
    assert_boxes_hold_their_words(figure)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["stage1.0", "stage4.2"])
def test_the_longest_words_fit(module):
    figure = plot_attention_module(meta("attention92_448", t=4, p=12, r=6), module)
    assert_readable(figure)
    assert_boxes_hold_their_words(figure)
    assert "12 residual units\n128×112×112" in words(figure) or module == "stage4.2"


@pytest.mark.parametrize("depth", range(5))
def test_a_box_for_every_step_with_the_shape_that_leaves_it(depth):
    model = of_depth(depth)
    figure = plot_attention_module(model, "stage1.0")
    texts = words(figure)
    steps = [step for step in anatomy.activations(model) if step[1] != "mask head"]
    shapes = Counter(anatomy.shape_text(shape) for _, _, shape in steps)
    found = Counter(line for text in texts for line in text.splitlines()[1:] if "unit" in text)
    assert found == shapes
    # pre, two trunk units, post; down, skip and up of each scale, and the coarsest; the head's three
    inner = max(depth - 1, 0)
    assert len(with_gid(figure, "box")) == 4 + 3 * inner + 1 + 3
    assert len(with_gid(figure, "+")) == 1 + inner + (depth > 0)
    assert len(with_gid(figure, "×")) == 1
    assert texts.count("max-pool") == texts.count("up-sample") == depth
    scales = [f"1/{2**k}" for k in range(1, depth + 1)]
    assert [text for text in texts if text.startswith("1/")] == scales
    assert "M" in texts and "32×64×64\nin (0, 1)" in texts


@pytest.mark.parametrize("units", [1, 2, 3, 4, 7])
def test_trunk_units_are_drawn_one_by_one_or_as_a_stack(units):
    model = of_depth(2, t=units, r=2, p=3)
    figure = plot_attention_module(model, "stage1.0")
    assert_readable(figure)
    assert_boxes_hold_their_words(figure)
    texts = words(figure)
    assert len(with_gid(figure, "box")) == 2 + (units if units < 5 else 1) + 3 + 1 + 3
    if units > 4:
        assert f"{units} residual units\n32×64×64" in texts
    elif units > 2:
        assert [f"unit {i + 1}\n32×64×64" in texts for i in range(units)] == [True] * units
    assert texts.count("3 residual units\n32×64×64") == 2  # pre and post
    assert texts.count("2 residual units\n32×32×32") == 2  # down and up
    assert "4 residual units\n32×16×16" in texts
    assert any(f"p = 3, t = {units}, r = 2, 2 poolings" in text for text in texts)


@pytest.mark.parametrize("depth", range(4))
def test_the_authors_sums_have_fewer_arms(depth):
    figures = {sums: plot_attention_module(of_depth(depth, sums=sums), "stage1.0") for sums in ("reference", "paper")}
    signs = {sums: len(with_gid(figure, "+")) for sums, figure in figures.items()}
    assert_readable(figures["paper"])
    assert signs["reference"] - signs["paper"] == (depth > 0)  # the trunk is not added to the mask branch
    lines = [len(figures[sums].axes[0].patches) + len(figures[sums].axes[0].lines) for sums in ("reference", "paper")]
    assert lines[0] > lines[1] or depth == 0  # nor a scale's own output to its skip


@pytest.mark.parametrize("attention", ATTENTION_TYPES)
@pytest.mark.parametrize("combine", ["residual", "naive"])
@pytest.mark.parametrize("depth", [0, 2])
def test_options_are_drawn(attention, combine, depth):
    figure = plot_attention_module(of_depth(depth, attention=attention, combine=combine), "stage1.0")
    assert_readable(figure)
    assert_boxes_hold_their_words(figure)
    texts = words(figure)
    sums, products = len(with_gid(figure, "+")), len(with_gid(figure, "×"))
    formula = "post((1 + M) · T)" if combine == "residual" else "post(M · T)"
    if attention in ("none", "constant"):
        assert (sums, products) == (0, 0)
        assert any(("learned number" in text and formula in text) for text in texts) == (attention == "constant")
        assert not any(text == "mask branch" or "max-pool" in text for text in texts)
        assert any("no mask branch" in text for text in texts)
        return
    assert products == 1 and sums == (combine == "residual") + (2 if depth else 0)
    assert any(formula in text and f"{attention} attention" in text for text in texts)
    last = {"mixed": "sigmoid", "channel": "÷ L2 of channels", "spatial": "standardise, sigmoid"}
    last = last.get(attention, "sigmoid, mean")
    assert last in texts
    assert ("32×64×64\nin [−1, 1]" in texts) == (attention == "channel")


def test_the_object_is_drawn_not_the_table():
    model = attnet.build_model("attention56_tiny")
    model.stages.stage2.attention[0].post.append(ResidualUnit(64, 64))
    wrapped = nn.Module()
    wrapped.module = model
    figure = plot_attention_module(wrapped, "stage2.0")
    assert "2 residual units\n64×16×16" in words(figure)
    assert "stage2.0 of attention56_tiny" in words(figure)


def test_an_unknown_module_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"module='stage4\.0': this network has stage1\.0, stage2\.0, stage3\.0"):
        plot_attention_module(meta("attention56_tiny"), "stage4.0")
    with pytest.raises(ConfigError, match=r"module='stage9': this network has stage1\.0"):
        plot_receptive_fields(meta("attention56_tiny"), modules=["stage9"])


# -- the unit, the network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "expected", "shortcut"),
    [
        (ResidualUnit(64, 64), ["1×1 conv\n64 → 16", "3×3 conv\n16 → 16", "1×1 conv\n16 → 64"], "identity"),
        (
            ResidualUnit(1024, 2048, 2),
            ["1×1 conv\n1024 → 512", "3×3 conv, stride 2\n512 → 512", "1×1 conv\n512 → 2048"],
            "1×1 conv, stride 2\n1024 → 2048",
        ),
        (ResidualUnit(8, 32), ["1×1 conv\n8 → 8", "3×3 conv\n8 → 8", "1×1 conv\n8 → 32"], "1×1 conv\n8 → 32"),
    ],
)
def test_a_unit_shows_its_convolutions_and_its_shortcut(unit, expected, shortcut):
    figure = plot_residual_unit(unit)
    assert_readable(figure)
    assert_boxes_hold_their_words(figure)
    texts = words(figure)
    convs = [text for text in texts if "conv\n" in text or "stride" in text]
    assert sorted(convs) == sorted([*expected, *([] if shortcut == "identity" else [shortcut])])
    assert texts.count("BN\nReLU") == 3
    assert ("identity" in texts) == (unit.shortcut is None)
    assert f"C = {unit.conv1.in_channels}" in texts and f"C = {unit.conv3.out_channels}" in texts


def test_a_network_shows_one_unit_of_each_kind():
    texts = words(plot_residual_unit(meta("attention92")))
    assert "stage1.0.pre.0" in texts and "stage2.entry" in texts
    assert "identity" in texts and "1×1 conv, stride 2\n128 → 256" in texts


@every_network
def test_the_whole_network_can_be_read(name):
    model = meta(name)
    figure = plot_network(model)
    assert_readable(figure)
    texts = words(figure)
    parts = [p for p in parts_of(name) if p.kind in KINDS]
    side = TABLE[name].input_size
    expected = [(3, side, side), *(p.shape for p in parts)]
    assert [text.replace("\n", "") for text in texts if "×\n" in text] == [anatomy.shape_text(s) for s in expected]
    assert len(with_gid(figure, "slab")) == 3 * len(expected)
    depths = [f"d = {module.mask.depth}" for module in model.attention_modules().values()]
    assert [text for text in texts if text.startswith("d = ")] == depths
    assert any(f"{TABLE[name].parameters:,} parameters" in text for text in texts)
    assert [text.splitlines()[0] for text in texts if text.startswith("stage ")] == [
        f"stage {i + 1}" for i in range(len(TABLE[name].widths))
    ]


def test_blocks_are_as_high_as_the_resolution_and_as_wide_as_the_channels():
    fronts = [patch.get_window_extent() for patch in with_gid(plot_network(meta("attention92")), "slab")[::3]]
    shapes = [(3, 32), (32, 32), *(p.shape[:2] for p in parts_of("attention92") if p.kind in KINDS[1:])]
    for (one, shape), (other, other_shape) in itertools.combinations(zip(fronts, shapes, strict=True), 2):
        assert np.sign(round(one.width - other.width, 3)) == np.sign(shape[0] - other_shape[0])
        assert np.sign(round(one.height - other.height, 3)) == np.sign(shape[1] - other_shape[1])


def test_a_network_without_masks_says_so():
    texts = words(plot_network(meta("attention56_tiny", attention="none")))
    assert texts.count("no mask") == 3 and not any(text.startswith("d = ") for text in texts)


# -- charts ------------------------------------------------------------------------------------------------------


@every_network
def test_bars_of_parts_add_up_and_can_be_read(name):
    figure = plot_parts(meta(name))
    assert_readable(figure)
    rows = parts_of(name)
    for ax, what in zip(figure.axes, ("parameters", "flops"), strict=True):
        pieces = [p for p in rows if p.kind != "module"]
        assert [bar.get_width() for bar in ax.patches] == pytest.approx([getattr(p, what) / 1e6 for p in pieces])
        masks = [bar.get_width() for bar in ax.patches if bar.get_facecolor()[:3] == to_rgb(ORANGE)]
        share = 100 * sum(masks) / sum(bar.get_width() for bar in ax.patches)
        assert f"{share:.0f} % in mask branches" in ax.get_title()
        shares = [float(text.get_text().strip(" %")) for text in ax.texts]
        assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares) + 1e-6)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [p.name for p in rows if p.kind not in ("pre", "trunk", "mask", "post")]


@every_network
def test_receptive_fields_are_squares_of_their_size(name):
    model = meta(name)
    figure = plot_receptive_fields(model)
    assert_readable(figure)
    texts, every = words(figure), receptive_field(model)
    assert list(panels(figure)) == list(model.attention_modules())
    for module, ax in panels(figure).items():
        fields = [field for field in every if field.module == module]
        frame, *squares = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
        assert frame.get_width() == frame.get_height() == TABLE[name].input_size
        assert [square.get_width() for square in squares] == [field.size for field in fields]
        assert all(square.get_x() == -square.get_width() / 2 == square.get_y() for square in squares)
        assert ax.get_xlim()[1] > max(square.get_width() for square in (frame, *squares)) / 2
        assert {f"trunk: {fields[1].size} pixels", f"mask: {fields[-1].size} pixels"} <= set(texts)


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_receptive_fields_lie_on_the_image(kind):
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    given = image if kind == "uint8" else image / 255
    figure = plot_receptive_fields(meta("attention92"), given, modules=["stage1.0", "stage3.2"])
    assert list(panels(figure)) == ["stage1.0", "stage3.2"]
    [shown] = panels(figure)["stage1.0"].images
    np.testing.assert_allclose(shown.get_array(), 0.45 + 0.55 * image.permute(1, 2, 0).numpy() / 255, rtol=1e-6)
    assert shown.get_extent() == [-16, 16, -16, 16]


def test_fields_of_one_size_do_not_hide_each_other():
    figure = plot_receptive_fields(meta("attention92"), modules=["stage3.0"])
    _, *squares = panels(figure)["stage3.0"].patches
    assert [square.get_width() for square in squares[1:]] == [137, 137, 137]
    assert len({str(square.get_linestyle()) for square in squares[1:]}) == 3


def test_a_field_without_end_is_said_in_words():
    figure = plot_receptive_fields(meta("attention56_tiny", attention="spatial"))
    assert_readable(figure)
    assert words(figure).count("mask: all of any image") == 3


def test_an_image_of_another_shape_is_refused():
    with pytest.raises(ConfigError, match=r"image of shape \[2, 3, 32, 32\]: one image \[3, H, W\] is needed"):
        plot_receptive_fields(meta("attention56_tiny"), torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("name", ["attention236_cifar", "attention56_tiny"])
def test_signals_are_drawn_stage_by_stage(name):
    modules = list(meta(name).attention_modules())
    rows = {
        label: {module: Signal(rate**i, 0.6 * share**i) for i, module in enumerate(modules)}
        for label, rate, share in (("(1 + M)·T", 1.5, 0.95), ("M·T", 0.9, 0.5), ("T, no mask", 1.1, 0.9))
    }
    figure = plot_signal(rows)
    assert_readable(figure)
    left, right = figure.axes
    naive = [line for line in left.get_lines() if line.get_color() == RED]
    stages = [len(list(group)) for _, group in itertools.groupby(modules, lambda module: module.split(".")[0])]
    assert [len(line.get_xdata()) for line in naive] == stages, "a line a stage: each begins anew"
    assert np.concatenate([line.get_ydata() for line in naive]) == pytest.approx(0.9 ** np.arange(len(modules)))
    kept = np.concatenate([line.get_ydata() for line in right.get_lines() if line.get_color() == RED])
    assert kept == pytest.approx(60 * 0.5 ** np.arange(len(modules)))
    assert [text.get_text() for text in left.get_legend().get_texts()] == list(rows)
    assert math.isclose(left.get_lines()[0].get_ydata()[0], 1)


def test_a_notebook_gets_a_picture_without_pyplot():
    image, size = plot_residual_unit(ResidualUnit(8, 8))._repr_png_()
    assert Image.open(io.BytesIO(image)).size == pytest.approx((2 * size["width"], 2 * size["height"]), abs=1)
