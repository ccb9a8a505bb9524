"""Figures of the masks: that they show the network's own numbers, on one scale, and say what they show."""

import copy
import io
import math
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
import torch
from conftest import words
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

import attnet
from attnet import plots
from attnet.base.errors import ConfigError, WeightsError
from attnet.data.splits import Split
from attnet.engine.evaluation import Evaluation
from attnet.masks.capture import capture
from attnet.masks.reduce import attention_maps
from attnet.masks.scale import Scale, robust_scale
from attnet.model.network import evaluating
from attnet.plots.figure import GREEN, RED
from attnet.plots.sheet import BOTH_SIGNS, ONE_SIGN, span

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "aquarium_fish")


def make_model(**options: str) -> nn.Module:
    """A tiny network whose masks have something to show: fresh ones are 0.5 nearly everywhere."""
    torch.manual_seed(0)
    model = attnet.build_model("attention56_tiny", **options)
    for module in model.attention_modules().values():
        if module.mask is not None:
            module.mask.head.conv2.weight.data *= 30
    return model


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """For all tests that leave it as it is; the others get `fresh`."""
    return make_model()


@pytest.fixture
def fresh(model) -> nn.Module:
    return copy.deepcopy(model)


@pytest.fixture(scope="module")
def unmasked() -> nn.Module:
    return make_model(attention="none")


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return draw_pixels(5)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    return make_files(tmp_path_factory.mktemp("weights"), 9)


def draw_pixels(n: int, height: int = 32, width: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def outputs(model: nn.Module, images: Tensor) -> Evaluation:
    with evaluating(model):
        logits = model(images / 255)
    return Evaluation(logits, logits.argmax(dim=1), NAMES)


def maps(figure: Figure) -> list[Axes]:
    """Axes with a map, row by row."""
    return [ax for ax in figure.axes if ax.images and ax.images[0].get_array().ndim == 2]


def pictures(figure: Figure) -> list[Axes]:
    """Axes with an image in colours, row by row."""
    return [ax for ax in figure.axes if ax.images and ax.images[0].get_array().ndim == 3]


def values(axes: list[Axes]) -> list[np.ndarray]:
    return [np.asarray(ax.images[0].get_array()) for ax in axes]


def limits(axes: list[Axes]) -> set[tuple[float, float]]:
    return {ax.images[0].get_clim() for ax in axes}


def colours(axes: list[Axes]) -> set[str]:
    return {ax.images[0].get_cmap().name for ax in axes}


def bars(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.collections]


def said(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in words(figure))


# -- all of them: every word inside and apart, one width, one way to fail ------------------------------------------


def make_files(folder: Path, count: int) -> list[Path]:
    files = []
    for epoch in range(count):
        torch.manual_seed(epoch)
        state = attnet.build_model("attention56_tiny").state_dict()
        files.append(folder / f"epoch_{epoch:03d}.pt")
        torch.save({"model": state, "epoch": epoch, "top1": 10.0 * epoch + 0.25 if epoch else None}, files[-1])
    return files


def right_and_wrong(model: nn.Module, images: Tensor, wrong: int, **options: object) -> Figure:
    """With labels so that the first `wrong` images are taken for another class."""
    evaluation = outputs(model, images)
    labels = evaluation.labels.clone()
    labels[:wrong] = (labels[:wrong] + 1) % 10
    evaluation = Evaluation(evaluation.logits, labels, NAMES)
    return plots.plot_right_and_wrong(model, Split(images, labels), evaluation, "stage2.0", **options)


# Each function, with the longest name and a wrong class over every image.
EVERY: dict[str, Callable[..., Figure]] = {
    "figure1": lambda m, p, files, one, all_: plots.plot_figure1(m, p, **all_),
    "figure1, a module": lambda m, p, files, one, all_: plots.plot_figure1(m, p, ["stage2.0"], **all_),
    "overlays": lambda m, p, files, one, all_: plots.plot_overlays(m, p[0], **one),
    "overlays, trunk": lambda m, p, files, one, all_: plots.plot_overlays(m, p[0], ["stage1.0"], "trunk", "l2"),
    "module": lambda m, p, files, one, all_: plots.plot_module(m, p, "stage2.0", **all_),
    "module, after": lambda m, p, files, one, all_: plots.plot_module(m, p, "stage3.0", "masked", "pca"),
    "channels": lambda m, p, files, one, all_: plots.plot_channels(m, p[0], "stage3.0", **one),
    "a channel": lambda m, p, files, one, all_: plots.plot_channels(m, p[0], "stage1.0", "masked", count=1, **one),
    "training": lambda m, p, files, one, all_: plots.plot_masks_through_training(m, files, p, "stage2.0"),
    "a checkpoint": lambda m, p, files, one, all_: plots.plot_masks_through_training(m, files[:1], p, "stage2.0"),
    "right and wrong": lambda m, p, files, one, all_: right_and_wrong(m, p, len(p) // 2),
}
SLOW = ("figure1", "training", "channels")  # the most pictures


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in EVERY])
def test_every_word_is_inside_and_apart(model, pixels, files, name):
    check_pictures(model, pixels, files, name)


@pytest.mark.slow
@pytest.mark.parametrize("images", [(1, 32, 32), (2, 48, 40)], ids=["one", "48×40"])
def test_words_are_apart_whatever_the_images(model, files, images):
    for name in EVERY:
        check_pictures(model, draw_pixels(*images), files, name)


def check_pictures(model: nn.Module, images: Tensor, files: list[Path], name: str) -> None:
    """Words lie inside, apart from each other, and over no picture."""
    names, wrong = [NAMES[-1]] * 10, (outputs(model, images).labels + 1) % 10
    one, all_ = {"classes": names, "label": int(wrong[0])}, {"classes": names, "labels": wrong}
    figure = EVERY[name](model, images, files, one, all_)
    assert figure.get_figwidth() <= 11
    boxes = []
    for text in words(figure):
        box = text.get_window_extent()
        assert text.get_fontsize() >= 6.4, (name, text)  # 13 letters over a thumbnail; CIFAR-10's have 8 points
        assert box.x0 >= -1 and box.y0 >= -1, (name, text)
        assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, (name, text)
        boxes.append((text.get_text(), box))
    for i, (word, box) in enumerate(boxes):
        for other, other_box in boxes[:i]:
            apart = box.x0 >= other_box.x1 - 1 or other_box.x0 >= box.x1 - 1
            apart = apart or box.y0 >= other_box.y1 - 2 or other_box.y0 >= box.y1 - 2
            assert apart, (name, word, other)
    places = [ax.get_window_extent() for ax in maps(figure) + pictures(figure)]
    for word, box in boxes:
        for place in places:
            covered = min(box.x1, place.x1) - max(box.x0, place.x0) > 1
            assert not (covered and min(box.y1, place.y1) - max(box.y0, place.y0) > 2), (name, word)


def test_pictures_keep_their_proportions_and_a_notebook_gets_them_sharp(model):
    figure = plots.plot_module(model, draw_pixels(3, 48, 40), "stage3.0")
    for ax in maps(figure) + pictures(figure):
        box = ax.get_window_extent()
        assert box.height / box.width == pytest.approx(48 / 40)
    image, size = figure._repr_png_()
    assert Image.open(io.BytesIO(image)).size == pytest.approx((2 * size["width"], 2 * size["height"]), abs=1)


CALLS: dict[str, Callable] = {
    "figure1": lambda model, images, module: plots.plot_figure1(model, images, [module]),
    "figure1's channels": lambda model, images, module: plots.plot_figure1(model, images, channels={module: 0}),
    "overlays": lambda model, images, module: plots.plot_overlays(model, images[:1], [module]),
    "module": plots.plot_module,
    "channels": plots.plot_channels,
    "right and wrong": lambda model, images, module: plots.plot_right_and_wrong(
        model, Split(images, outputs(model, images).labels), outputs(model, images), module
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_unknown_module_is_said_with_those_there_are(model, pixels, call):
    with pytest.raises(ConfigError, match=r"stage4\.0.*stage1\.0, stage2\.0, stage3\.0"):
        call(model, pixels, "stage4.0")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_network_without_masks_says_so(unmasked, pixels, call):
    (text,) = words(call(unmasked, pixels[:2], "stage1.0"))
    assert text.get_text() == "nothing to show: attention='none' has no masks"


def test_without_masks_the_trunk_can_still_be_seen(unmasked, pixels):
    pixels = pixels[:2]
    trunk = attention_maps(unmasked, pixels, "trunk", modules=["stage2.0"], full_size=False)["stage2.0"]
    np.testing.assert_allclose(values(maps(plots.plot_module(unmasked, pixels, "stage2.0", "trunk"))), trunk, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, p: plots.plot_figure1(m, p[:0]), "number of images: 0"),
        (lambda m, p: plots.plot_figure1(m, p, channels={"stage1.0": 32}), r"stage1\.0'\]=32: .*0 to 31"),
        (lambda m, p: plots.plot_module(m, p, "stage1.0", columns=0), "columns: 0"),
        (lambda m, p: plots.plot_module(m, p, "stage1.0", labels=[1]), "labels: 1 for 5 images"),
        (lambda m, p: plots.plot_module(m, p, "stage1.0", "scales"), "part='scales'"),
        (lambda m, p: plots.plot_module(m, p, "stage1.0", reduction="median"), "reduction='median'"),
        (lambda m, p: plots.plot_channels(m, p, "stage1.0", count=0), "count: 0"),
        (lambda m, p: plots.plot_channels(m, p, "stage1.0", order="size"), "order='size'"),
        (lambda m, p: plots.plot_overlays(m, p, strength=1.5), r"strength=1\.5"),
        (lambda m, p: plots.plot_overlays(nn.Linear(1, 1), p), "attention_modules"),
        (lambda m, p: right_and_wrong(m, p, 2, count=0), "count: 0"),
    ],
)
def test_odd_arguments_are_refused_by_name(model, pixels, call, message):
    with pytest.raises(ConfigError, match=message):
        call(model, pixels)


# -- titles --------------------------------------------------------------------------------------------------------


def test_titles_give_class_and_confidence_and_what_it_is(model, pixels):
    pixels = pixels[:2]
    evaluation = outputs(model, pixels)
    guesses = evaluation.predictions.tolist()
    shares = (100 * evaluation.logits.softmax(dim=1).amax(dim=1)).tolist()
    truths = [guess if i else (guess + 1) % 10 for i, guess in enumerate(guesses)]
    said = [f"{NAMES[guess]} {share:.0f} %" for guess, share in zip(guesses, shares, strict=True)]
    for figure in (
        plots.plot_module(model, pixels, "stage1.0", classes=NAMES, labels=torch.tensor(truths)),
        plots.plot_figure1(model, pixels, ["stage3.0"], classes=NAMES, labels=truths),
    ):
        titles = [ax.title for ax in pictures(figure)]
        assert [title.get_text() for title in titles] == [f"{said[0]}\nis {NAMES[truths[0]]}", *said[1:]]
        assert [title.get_color() for title in titles] == [RED, GREEN]
    for figure, apart in (
        (plots.plot_overlays(model, pixels[0], ["stage3.0"], classes=NAMES, label=truths[0]), " "),
        (plots.plot_channels(model, pixels[0], "stage1.0", count=2, classes=NAMES, label=truths[0]), "\n"),
    ):
        wrong = f"{NAMES[guesses[0]]}{apart}{shares[0]:.0f} %\nis {NAMES[truths[0]]}"
        assert pictures(figure)[0].get_title() == wrong
        assert pictures(figure)[0].title.get_color() == RED


def test_without_names_and_labels_the_number_stands_in_black(model, pixels):
    guess = int(outputs(model, pixels).predictions[0])
    for classes in (None, NAMES[:guess]):  # an output more than classes
        title = pictures(plots.plot_module(model, pixels[:1], "stage1.0", classes=classes))[0].title
        assert title.get_text().startswith(f"class {guess} ") and title.get_text().endswith(" %")
        assert title.get_color() == "black"


# -- overlay -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [lambda p: p, lambda p: p / 255], ids=["uint8", "float"])
def test_an_overlay_goes_from_the_image_to_the_pure_colours(form):
    image = draw_pixels(1, 6, 5)[0]
    map_, scale = torch.linspace(-1, 2, 30).view(6, 5), Scale(0.0, 1.0, 0.0, 1.0)
    nothing, all_, half = (plots.overlay(form(image), map_, strength, scale) for strength in (0, 1, 0.5))
    np.testing.assert_allclose(nothing, image.permute(1, 2, 0).numpy() / 255, atol=1e-6)
    np.testing.assert_allclose(all_, mpl.colormaps["viridis"](map_.clamp(0, 1).double().numpy())[..., :3])
    np.testing.assert_allclose(half, (nothing + all_) / 2)


def test_where_a_mask_favours_nothing_the_image_shows_through():
    image, map_ = torch.zeros(3, 1, 5), torch.tensor([[0.2, 0.35, 0.5, 0.65, 0.8]])
    blended = plots.overlay(image, map_, 0.8, Scale(0.2, 0.8, 0.2, 0.8, 0.5))
    pure = mpl.colormaps[BOTH_SIGNS]([0, 0.25, 0.5, 0.75, 1.0])[:, :3]
    expected = np.array([0.8, 0.4, 0, 0.4, 0.8])[:, None] * pure
    np.testing.assert_allclose(blended[0], expected, atol=0.02)  # colour maps have 256 steps


def test_an_overlay_enlarges_the_map_bilinearly():
    image, map_ = torch.zeros(3, 5, 5), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    blended = plots.overlay(image, map_, 1.0, Scale(0.0, 1.0, 0.0, 1.0))
    expected = mpl.colormaps["viridis"](np.linspace(0, 1, 5))[:, :3]
    np.testing.assert_allclose(blended, np.broadcast_to(expected, (5, 5, 3)), atol=1e-6)


def test_a_flat_scale_divides_by_nothing():
    flat = torch.full((4, 4), 0.5)
    assert np.isfinite(plots.overlay(torch.zeros(3, 4, 4), flat, 1.0, Scale(0.5, 0.5, 0.5, 0.5))).all()


# -- figure 1 ------------------------------------------------------------------------------------------------------


def test_figure1_shows_feature_mask_and_masked_feature_of_the_most_varying_channel(model, pixels):
    images = pixels[:2]
    features = capture(model, images, ("trunk", "mask", "masked")).features
    figure = plots.plot_figure1(model, images)
    shown = iter(values(maps(figure)))
    for name, parts in features.items():
        spread = [parts["mask"][:, k].flatten(1).std(dim=1, correction=0).mean() for k in range(len(parts["mask"][0]))]
        channel = int(np.argmax(spread))
        for i in range(2):
            for part in ("trunk", "mask", "masked"):
                np.testing.assert_allclose(next(shown), parts[part][i, channel], rtol=1e-5, atol=1e-6)
        size = parts["mask"].shape[-1]
        assert f"{name}, {size}×{size}\nchannel {channel}\n" in said(figure)
    assert next(shown, None) is None
    np.testing.assert_allclose(values(pictures(figure)), images.permute(0, 2, 3, 1) / 255)


@pytest.mark.parametrize("n", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_figure1_compares_on_one_scale_a_module(model, n):
    figure = plots.plot_figure1(model, draw_pixels(n))
    assert (len(maps(figure)), len(pictures(figure)), colours(maps(figure))) == (9 * n, n, {BOTH_SIGNS})
    modules = {}
    for place, ax in enumerate(maps(figure)):
        modules.setdefault((np.shape(ax.images[0].get_array()), place % 3 == 1), []).append(ax)
    assert len(modules) == 6
    for (_, is_mask), same in modules.items():
        ((low, high),) = limits(same)
        middle = 0.5 if is_mask else 0
        everything = np.array(values(same))
        assert middle - low == pytest.approx(high - middle)
        assert 0.95 <= (np.abs(everything - middle) <= high - middle + 1e-6).mean() <= 0.999
        words = f"M {span(low, high)}\n(all {span(everything.min(), everything.max())})"
        assert (words if is_mask else f"feature ±{high:.2g}") in said(figure)
    assert [bar.get_title(loc="left") for bar in bars(figure)] == ["soft mask M", "feature"]


def test_figure1_takes_the_channels_and_modules_asked_for(fresh, pixels):
    with torch.no_grad():  # only channel 7 of stage2.0 varies
        weight = fresh.stages.stage2.attention[0].mask.head.conv2.weight
        weight[torch.arange(64) != 7] = 0
    figure = plots.plot_figure1(fresh, pixels[:1], ["stage3.0", "stage2.0"], channels={"stage3.0": 11})
    assert re.findall(r"(stage\S+), \d+×\d+\nchannel (\d+)", said(figure)) == [("stage2.0", "7"), ("stage3.0", "11")]


@pytest.mark.parametrize("combine", ["residual", "naive"])
def test_figure1_names_what_the_network_computes(pixels, combine):
    figure = plots.plot_figure1(make_model(combine=combine), pixels[:1])
    assert ("after: (1 + M)·T" in said(figure)) == (combine == "residual")
    trunk, mask, masked = values(maps(figure))[:3]
    np.testing.assert_allclose(masked, (mask + (combine == "residual")) * trunk, rtol=1e-4, atol=1e-5)


def test_masks_with_both_signs_have_a_scale_with_both(pixels):
    model = make_model(attention="channel")
    for shown in (
        maps(plots.plot_figure1(model, pixels[:1]))[1:2],
        maps(plots.plot_channels(model, pixels[0], "stage1.0")),
    ):
        ((low, high),) = limits(shown)
        assert (-low, colours(shown)) == (high, {BOTH_SIGNS})
        assert 0 < high < 1


# -- overlays, a module, its channels ------------------------------------------------------------------------------


def test_overlays_show_every_modules_map_on_its_own_scale(model, pixels):
    found = {name: mask.mean(dim=1)[0] for name, mask in attnet.capture_masks(model, pixels[:1]).items()}
    figure = plots.plot_overlays(model, pixels[0], strength=1)
    image, *overlays = pictures(figure)
    np.testing.assert_allclose(values([image])[0], pixels[0].permute(1, 2, 0) / 255)
    for ax, (name, map_) in zip(overlays, found.items(), strict=True):
        scale = robust_scale(map_, 0.5)
        colours, everything = span(scale.low, scale.high), span(map_.min().item(), map_.max().item())
        assert ax.get_title() == f"{name}\n{colours}\n(all {everything})"
        (shown,) = values([ax])
        expected = plots.overlay(pixels[0], map_, 1.0, scale)
        blocks = shown.reshape(32, shown.shape[0] // 32, 32, -1, 3).mean(axis=(1, 3))
        assert np.abs(blocks - expected).mean() < 0.02  # smooth within a pixel, so not the same everywhere
    (bar,) = bars(figure)
    assert [label.get_text() for label in bar.get_yticklabels()] == ["low", "high", "0.5"]


def test_an_overlay_of_no_strength_is_the_image_pixel_for_pixel(model, pixels):
    shown = values(pictures(plots.plot_overlays(model, pixels[0], strength=0))[1:])
    image = pixels[0].permute(1, 2, 0).numpy() / 255
    for picture in shown:
        factor = len(picture) // 32
        np.testing.assert_allclose(picture, image.repeat(factor, axis=0).repeat(factor, axis=1), atol=1e-6)


@pytest.mark.parametrize(("part", "reduction"), [("mask", "mean"), ("masked", "mean"), ("1/2", "channel:3")])
def test_a_module_shows_each_image_above_its_map(model, pixels, part, reduction):
    figure = plots.plot_module(model, pixels, "stage2.0", part, reduction, columns=3)
    expected = attention_maps(model, pixels, part, reduction, ["stage2.0"], full_size=False)["stage2.0"]
    np.testing.assert_allclose(values(maps(figure)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values(pictures(figure)), pixels.permute(0, 2, 3, 1) / 255)
    for picture, map_ in zip(pictures(figure), maps(figure), strict=True):
        above, below = picture.get_position(), map_.get_position()
        assert (above.x0, above.x1) == (below.x0, below.x1) and above.y0 > below.y1
    ((low, high),) = limits(maps(figure))
    scale = robust_scale(expected, 0.5 if part == "mask" else None)
    assert (low, high) == pytest.approx((scale.low, scale.high), rel=1e-5)
    assert colours(maps(figure)) == {ONE_SIGN if scale.centre is None else BOTH_SIGNS}
    first, last = span(expected.min().item(), expected.max().item()).split(" to ")
    assert f"all values:\n{first}\nto {last}" in said(figure)
    (bar,) = bars(figure)
    assert bar.get_ylim() == pytest.approx((low, high))


def test_constant_masks_still_have_a_scale(fresh, pixels):
    with torch.no_grad():
        fresh.stages.stage1.attention[0].mask.head.conv2.weight.zero_()
    ((low, high),) = limits(maps(plots.plot_module(fresh, pixels[:1], "stage1.0")))
    assert low < 0.5 < high
    assert "stage1.0\n0.480 to 0.520\n(all 0.50 to 0.50)" in said(plots.plot_overlays(fresh, pixels[0], ["stage1.0"]))


@pytest.mark.parametrize(
    ("order", "count"), [("variation", 6), ("number", 6), pytest.param("number", 70, marks=pytest.mark.slow)]
)
def test_channels_come_in_order_with_their_numbers(model, pixels, order, count):
    mask = attnet.capture_masks(model, pixels[:1])["stage2.0"][0]
    spread = mask.flatten(1).std(dim=1, correction=0)
    numbers = spread.argsort(descending=True).tolist() if order == "variation" else list(range(64))
    figure = plots.plot_channels(model, pixels[0], "stage2.0", count=count, order=order)
    assert [int(ax.get_title()) for ax in maps(figure)] == numbers[:count]
    np.testing.assert_allclose(values(maps(figure)), mask[numbers[:count]], rtol=1e-5)
    scale = robust_scale(mask[numbers[:count]], 0.5)
    assert limits(maps(figure)) == {(scale.low, scale.high)}
    assert f"{min(count, 64)} of 64 channels" in said(figure)


def test_channels_of_the_trunk_share_a_scale_around_zero(model, pixels):
    figure = plots.plot_channels(model, pixels[0], "stage2.0", "trunk", count=5)
    ((low, high),) = limits(maps(figure))
    assert (-low, high) == pytest.approx((np.quantile(np.abs(values(maps(figure))), 0.98),) * 2, rel=1e-3)


# -- through training ----------------------------------------------------------------------------------------------


def test_a_strip_has_a_column_a_checkpoint_and_leaves_the_model_alone(fresh, pixels, files):
    model, files, before = fresh, files[:3], copy.deepcopy(fresh.state_dict())
    figure = plots.plot_masks_through_training(model, files, pixels, "stage2.0", "max")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    expected = []
    for file in files:
        attnet.load_weights(model, file)
        expected.append(attention_maps(model, pixels, "mask", "max", ["stage2.0"], full_size=False)["stage2.0"])
    shown = np.stack(values(maps(figure))).reshape(5, 3, 16, 16)  # images by checkpoints
    np.testing.assert_allclose(shown, torch.stack(expected, dim=1), rtol=1e-5)
    assert [ax.get_title() for ax in maps(figure)[:3]] == ["epoch 0\n", "epoch 1\n10.2 %", "epoch 2\n20.2 %"]
    scale = robust_scale(torch.from_numpy(shown), 0.5)
    assert limits(maps(figure)) == {(scale.low, scale.high)}
    np.testing.assert_allclose(values(pictures(figure)), pixels.permute(0, 2, 3, 1) / 255)


def test_a_strip_takes_plain_weights_and_says_what_it_cannot_read(model, pixels, tmp_path):
    torch.save(model.state_dict(), tmp_path / "plain.pt")
    figure = plots.plot_masks_through_training(model, [tmp_path / "plain.pt"], pixels, "stage1.0")
    assert maps(figure)[0].get_title() == "plain\n" and "Top-1" not in said(figure)
    with pytest.raises(WeightsError, match="no such file"):
        plots.plot_masks_through_training(model, [tmp_path / "none.pt"], pixels, "stage1.0")
    with pytest.raises(ConfigError, match=r"stage9\.0"):
        plots.plot_masks_through_training(model, [tmp_path / "plain.pt"], pixels, "stage9.0")
    assert "no weights were kept" in said(plots.plot_masks_through_training(model, [], pixels, "stage1.0"))


# -- right and wrong -----------------------------------------------------------------------------------------------


def test_right_and_wrong_shows_the_surest_and_measures_them_all(model):
    images = draw_pixels(12)
    figure = right_and_wrong(model, images, 5, count=3)
    evaluation = outputs(model, images)
    sure = evaluation.logits.softmax(dim=1).amax(dim=1)
    right = [i for i in sure.argsort(descending=True).tolist() if i >= 5][:3]
    wrong = [i for i in sure.argsort(descending=True).tolist() if i < 5][:3]
    found = attnet.capture_masks(model, images)["stage2.0"].mean(dim=1)
    np.testing.assert_allclose(values(maps(figure)), found[right + wrong], rtol=1e-4)
    np.testing.assert_allclose(values(pictures(figure)), images[right + wrong].permute(0, 2, 3, 1) / 255)
    assert [ax.title.get_color() for ax in pictures(figure)] == [GREEN] * 3 + [RED] * 3
    assert all(re.fullmatch(r"\w+ \d+ %\nis \w+", ax.get_title()) for ax in pictures(figure)[3:])
    assert len(limits(maps(figure))) == 1
    for word, chosen in (("right", found[5:]), ("wrong", found[:5])):
        means, spreads = chosen.mean(dim=(1, 2)), chosen.std(dim=(1, 2), correction=0)
        text = " ".join(
            f"{name} {v.mean():.4f} ± {1.96 * v.std() / math.sqrt(len(v)):.4f}{end}"
            for name, v, end in (("mean", means, ","), ("spread over positions", spreads, ""))
        )
        assert f"Sure and {word}. All {len(chosen)} {word} images: {text}" in said(figure)


@pytest.mark.parametrize(("wrong", "word", "other"), [(0, "right", "wrong"), (5, "wrong", "right")])
def test_without_mistakes_or_without_hits_the_other_half_is_shown(model, pixels, wrong, word, other):
    figure = right_and_wrong(model, pixels, wrong)
    assert f"Sure and {word}. All 5" in said(figure) and f"and {other}" not in said(figure)
    assert len(maps(figure)) == 5


def test_an_evaluation_of_other_images_is_refused(model, pixels):
    evaluation = outputs(model, pixels[:3])
    with pytest.raises(ConfigError, match=r"evaluation of 3 images, split of 5"):
        plots.plot_right_and_wrong(model, Split(pixels, torch.zeros(5)), evaluation, "stage1.0")


# -- what the model is wrapped in, and the form of the images ------------------------------------------------------


class Wrapper(nn.Module):
    """What DistributedDataParallel looks like from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def test_wrapped_networks_and_float_images_give_the_same_pictures(model, pixels, files):
    def shown(network: nn.Module, images: Tensor) -> list[np.ndarray]:
        figures = [
            plots.plot_figure1(network, images, ["stage3.0"]),
            plots.plot_overlays(network, images[0], ["stage3.0"]),
            plots.plot_channels(network, images, "stage1.0", count=2),
            plots.plot_masks_through_training(network, files[:1], images, "stage1.0"),
        ]
        return [picture for figure in figures for picture in values(maps(figure) + pictures(figure))]

    for one, other in zip(shown(model, pixels[:1]), shown(Wrapper(model), pixels[:1] / 255), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
