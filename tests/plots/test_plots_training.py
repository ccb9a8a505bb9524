"""Figures: that they show what was given, and that every word of them can be read."""

import io
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import words
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from attnet import plots
from attnet.base.watching import Sight
from attnet.data.splits import Split
from attnet.engine.evaluation import Evaluation
from attnet.engine.training import traced_steps
from attnet.plots.figure import GREEN, RED

# CIFAR-100's longest name is 13 letters.
NAMES = tuple(f"{'aquarium_fish'[: 4 + i % 10]}{i:02d}"[-13:] for i in range(100))


def make_evaluation(n: int, classes: int) -> tuple[Split, Evaluation]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 2
    images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return Split(images, labels), Evaluation(logits, labels, NAMES[:classes])


def make_rows(epochs: int, rate: Callable[[int], float] = lambda epoch: 0.1) -> list[dict]:
    return [
        {"epoch": e, "lr": rate(e), "train_loss": 2 / e, "test_loss": 2.1 / e, "top1": 90 - 50 / e + 5 * math.sin(e)}
        for e in range(1, epochs + 1)
    ]


def figures(items: int, classes: int) -> dict[str, Figure]:
    """Every function of the module on `items` images or epochs."""
    split, evaluation = make_evaluation(max(items, 200), classes)
    return {
        "batch": plots.plot_batch(split.images[:items] / 255, split.labels, NAMES),
        "curves": plots.plot_curves(make_rows(items)),
        "confusion": plots.plot_confusion(evaluation.confusion, evaluation.classes),
        "predictions": plots.plot_predictions(split, evaluation, range(items)),
    }


def titles(figure: Figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def shown(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


@pytest.mark.parametrize(("items", "classes"), [(1, 10), pytest.param(20, 100, marks=pytest.mark.slow)])
def test_figures_save_at_their_size_with_every_word_inside_and_apart(items, classes):
    for name, figure in figures(items, classes).items():
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
        width, height = Image.open(file).size
        assert (width, height) == pytest.approx(tuple(100 * figure.get_size_inches()), abs=1), name
        assert 90 <= width <= 1300, name
        assert 80 <= height <= 1300, name
        boxes = []
        for text in words(figure):
            box = text.get_window_extent()
            assert text.get_fontsize() >= 6, (name, text)
            assert box.x0 >= -1, (name, text)
            assert box.y0 >= -1, (name, text)
            assert box.x1 <= figure.bbox.width + 1, (name, text)
            assert box.y1 <= figure.bbox.height + 1, (name, text)
            if not text.get_rotation() % 90:  # the box of slanted words is larger than they are
                boxes.append((text.get_text(), box))
        for i, (word, box) in enumerate(boxes):
            for other, other_box in boxes[:i]:
                apart = box.x0 >= other_box.x1 - 1 or other_box.x0 >= box.x1 - 1
                apart = apart or box.y0 >= other_box.y1 - 2 or other_box.y0 >= box.y1 - 2
                assert apart, (name, word, other)


def test_a_notebook_gets_a_picture_without_pyplot():
    image, size = plots.plot_confusion([[1]], ["cat"])._repr_png_()
    assert Image.open(io.BytesIO(image)).size == pytest.approx((2 * size["width"], 2 * size["height"]), abs=1)


def test_batch_shows_the_images_as_they_are_with_their_classes():
    images = torch.rand(30, 3, 8, 8) * 0.5
    figure = plots.plot_batch(images, torch.arange(30) % 10, NAMES, n=12)
    assert titles(figure) == [NAMES[i % 10] for i in range(12)]
    for image, picture in zip(images, shown(figure), strict=False):
        np.testing.assert_array_equal(picture, image.permute(1, 2, 0).numpy())


def test_standardised_images_are_stretched_all_alike():
    images = torch.randn(4, 3, 8, 8) * 2
    pictures = np.stack(shown(plots.plot_batch(images, torch.zeros(4, dtype=torch.int64), NAMES)))
    assert (pictures.min(), pictures.max()) == (0, 1)
    expected = images.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(np.corrcoef(pictures.ravel(), expected.ravel())[0, 1], 1, rtol=1e-6)


def test_curves_show_the_losses_the_best_epoch_and_chance():
    rows = make_rows(12)
    rows[6]["top1"] = 93.456
    left, right = plots.plot_curves(rows, chance=10).axes
    assert "chance, 10 %" in [text.get_text() for text in right.texts]
    assert {line.get_label(): list(line.get_ydata()) for line in left.get_lines()} == {
        "train loss": [row["train_loss"] for row in rows],
        "test loss": [row["test_loss"] for row in rows],
    }
    assert list(right.get_lines()[1].get_ydata()) == [row["top1"] for row in rows]
    assert right.get_title() == "best 93.46 % in epoch 7"


def test_one_bad_epoch_does_not_flatten_all_others():
    rows = make_rows(6)
    rows[1]["test_loss"] = 50.0
    ax = plots.plot_curves(rows).axes[0]
    assert ax.get_yscale() == "log" and ax.get_ylim()[1] >= 50
    assert plots.plot_curves(make_rows(6)).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("epochs", [1, 2, 40])
def test_losses_are_drawn_from_zero_and_no_point_is_cut(epochs):
    low, high = plots.plot_curves(make_rows(epochs)).axes[0].get_ylim()
    assert low == 0
    assert high >= 1.03 * 2.1


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (lambda e: 0.1 / 10 ** sum(e > k for k in (6, 12, 18)), [6, 12, 18]),
        (lambda e: 0.05 * (1 + math.cos(math.pi * e / 20)), []),
        (lambda e: 0.1, []),
    ],
    ids=["steps", "cosine", "constant"],
)
def test_only_steps_of_the_learning_rate_are_marked(rate, expected):
    left = plots.plot_curves(make_rows(19, rate)).axes[0]
    marks = [line.get_xdata()[0] for line in left.get_lines() if line.get_linestyle() == ":"]
    assert marks == expected
    assert [text.get_text() for text in left.texts] == (["lr ÷ 10"] if expected else [])


def test_what_is_on_record_of_the_steps_is_drawn_at_its_place():
    """Sums of losses after the steps of `traced_steps`: a mean a part, in its middle."""
    row = make_rows(1)[0] | {"train_loss": 1.5, "trace": [4.0, 7.0, 9.0, 12.0]}
    line = plots.plot_curves([row]).axes[0].get_lines()[0]
    several = row | {"train_loss": 1.1, "trace": None, "trace_of_rank_0": row["trace"], "steps": 8}
    np.testing.assert_array_equal(line.get_xydata(), plots.plot_curves([several]).axes[0].get_lines()[0].get_xydata())
    ends = [0, *traced_steps(8)[:4]]
    np.testing.assert_allclose(line.get_xdata(), [(a + b) / 16 for a, b in itertools.pairwise(ends)])
    np.testing.assert_allclose(line.get_ydata(), np.diff([0, 4, 7, 9, 12]) / np.diff(ends))


def test_a_running_training_shows_its_steps_and_a_mask_as_it_is_learned():
    losses = [2 - i / 200 for i in range(200)]
    glimpses = plots.Glimpses(torch.zeros(3, 32, 32, dtype=torch.uint8), "stage3.0", 0.5)
    for epoch in (0.0, 0.5, 1.0):
        glimpses.epochs.append(epoch)
        glimpses.maps.append(torch.full((8, 8), 0.5 + epoch / 4))
    figure = plots.plot_learning(Sight([], losses, 0, 200), glimpses, 10, "rehearsal")
    left = figure.axes[0]
    [faint, smooth] = left.get_lines()
    assert list(faint.get_ydata()) == losses and faint.get_xdata()[-1] == 1
    np.testing.assert_allclose(smooth.get_ydata()[0], np.mean(losses[:5]))
    assert smooth.get_label() == "train loss, mean of 5 steps"
    assert titles(figure)[-3:] == ["at the start", "epoch 0.5", "epoch 1"]
    assert "REHEARSAL" in [text.get_text() for text in figure.texts]


def test_a_diverged_test_loss_does_not_stop_the_curves():
    rows = make_rows(3)
    rows[1]["test_loss"] = math.nan
    rows[2]["test_loss"] = math.inf
    assert words(plots.plot_curves(rows))


@pytest.mark.parametrize("form", [torch.tensor, list], ids=["tensor", "list"])
def test_confusion_gives_shares_of_the_true_class_and_right_answers_beside(form):
    counts = [[60, 12, 0, 28], [0, 0, 0, 0], [1, 0, 199, 0], [0, 0, 0, 0]]  # an output more than classes
    figure = plots.plot_confusion(form(counts), ("cat", "dog", "frog"))
    left, right = figure.axes
    np.testing.assert_allclose(left.images[0].get_array().filled(-1), [[-1, 12, 0], [0, -1, 0], [0.5, 0, -1]])
    assert left.images[0].get_clim() == (0, 12), "right answers must not fade the mistakes"
    [text] = left.texts
    assert (text.get_position(), text.get_text(), text.get_color()) == ((1, 0), "12", "white")
    assert [bar.get_width() for bar in right.patches] == [60, 0, 99.5]
    assert [text.get_text() for text in right.texts] == ["60 %", "no images", "100 %"]
    assert (left.get_xlabel(), left.get_ylabel()) == ("taken for", "true class")


def test_of_many_classes_those_that_are_mixed_up_most_are_shown():
    counts = 100 * np.eye(100, dtype=int)
    counts[70, 3] = counts[3, 90] = 40
    figure = plots.plot_confusion(counts, NAMES)
    left, right = figure.axes
    shown = [label.get_text() for label in left.get_yticklabels()]
    assert len(shown) == 20 and {NAMES[k] for k in (3, 70, 90)} <= set(shown)
    assert figure.get_suptitle() == "the 20 of 100 classes that are mixed up most"
    widths = dict(zip(shown, (bar.get_width() for bar in right.patches), strict=True))
    assert widths[NAMES[70]] == pytest.approx(100 * 100 / 140)


def chosen(indices: object) -> Figure:
    logits = torch.tensor([[9.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]]).double()
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 4, 4) * 50
    evaluation = Evaluation(logits, torch.tensor([0, 0, 1]), ("cat", "dog"))
    return plots.plot_predictions(Split(images, evaluation.labels), evaluation, indices)


@pytest.mark.parametrize("indices", [[2, 0, 1], torch.tensor([2, 0, 1])], ids=["list", "tensor"])
def test_predictions_name_guess_and_truth_and_colour_mistakes(indices: list[int] | Tensor):
    figure = chosen(indices)
    assert titles(figure) == ["class 2 100 %\nis dog", "cat 100 %", "dog 100 %\nis cat"]
    assert [ax.title.get_color() for ax in figure.axes] == [RED, GREEN, RED]
    assert [255 * picture.max() for picture in shown(figure)] == pytest.approx([100, 0, 50])


@pytest.mark.parametrize("figure", [lambda: chosen([]), lambda: plots.plot_curves([])], ids=["predictions", "curves"])
def test_nothing_to_show_is_said(figure):
    (text,) = words(figure())
    assert text.get_text().startswith("nothing to show: ")


def test_a_straggler_shows_though_all_cards_have_one_throughput():
    rows = [{"epoch": e, "rank_fps": [500.0] * 4, "rank_forward": [0.1, 0.1, 0.1 + e / 10, 0.1]} for e in (1, 2, 3)]
    left, right = plots.plot_ranks(rows).axes
    assert list(left.get_lines()[0].get_ydata()) == [2000] * 3
    assert [bar.get_height() for bar in right.patches] == pytest.approx([100, 100, 300, 100])
    slow = [bar.get_facecolor() for bar in right.patches]
    assert slow[2] != slow[0] == slow[1] == slow[3]
    assert right.get_title(loc="left") == "own pace: the slowest takes 2.00 of the mean"
    without = plots.plot_ranks([{"epoch": 1, "rank_fps": [500.0] * 4}])
    assert "each card's own pace was not measured" in [text.get_text() for text in words(without)]
