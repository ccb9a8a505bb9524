"""Figures of measures: every dot, bar and line stands where the numbers say."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import check_words, words
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from attnet.masks.statistics import MaskStatistics
from attnet.plots import measures as plots
from attnet.plots.figure import GREY, ORANGE

SCORES = ("pointing", "auroc", "iou", "energy")


def interval(mean: float, below: float = 0.02, above: float = 0.05) -> SimpleNamespace:
    return SimpleNamespace(mean=mean, low=mean - below, high=mean + above)


def make_statistics(modules: int, naive: bool = False) -> list[MaskStatistics]:
    rows = []
    for i in range(modules):
        counts = torch.arange(20) * (i + 1)
        masked = 0.4 + 0.01 * i if naive else 1.4 + 0.01 * i
        name = f"stage{i // 6 + 1}.{i % 6}"
        rows.append(MaskStatistics(name, counts, 0.0, 1.0, 0.3 + 0.02 * i, 0.1, 0.2, 0.2, 1.0, masked, 0.4 + 0.01 * i))
    return rows


def make_effects(modules: int, kinds: tuple[str, ...]) -> list[SimpleNamespace]:
    rows = [SimpleNamespace(module="none", intervention="none", top1=91.237, change=interval(0, 0, 0))]
    for i, module in enumerate([*(f"stage{i + 1}.0" for i in range(modules)), "all"]):
        for j, kind in enumerate(kinds):
            rows.append(SimpleNamespace(module=module, intervention=kind, top1=0.0, change=interval(-3.0 * i - j)))
    return rows


def make_curves(*names: str) -> dict[str, SimpleNamespace]:
    generator = torch.Generator().manual_seed(0)
    curves = {}
    for i, name in enumerate(names):
        deletion, insertion = torch.rand(2, 7, 5, generator=generator)
        curves[name] = SimpleNamespace(
            fractions=torch.linspace(0, 1, 5), deletion=deletion, insertion=insertion,
            deletion_area=interval(0.5 - 0.01 * i), insertion_area=interval(0.5 + 0.01 * i),
        )  # fmt: skip
    return curves


def make_rows(masks: int, baselines: tuple[str, ...] = ("random", "centre prior")) -> list[SimpleNamespace]:
    names = [*baselines[:1], *(f"stage{i + 1}.0 mask mean" for i in range(masks)), *baselines[1:]]
    return [
        SimpleNamespace(
            method=name,
            baseline=name in baselines,
            scores={key: interval(0.3 + 0.1 * ((i + k) % len(names)) / len(names)) for k, key in enumerate(SCORES)},
        )
        for i, name in enumerate(names)
    ]


def dots(ax: Axes) -> list[tuple[float, float, float, float, ErrorbarContainer]]:
    """x, y, and the two ends of the bar of every dot, with the series it belongs to."""
    found = []
    for series in ax.containers:
        line, _, (bar,) = series.lines
        for x, y, ((low, y0), (high, y1)) in zip(*line.get_data(), bar.get_segments(), strict=True):
            assert y == y0 == y1
            found.append((x, y, low, high, series))
    return found


def colour(series: ErrorbarContainer) -> str:
    return to_hex(series.lines[0].get_color()).lower()


FIGURES = {
    "statistics of 1": lambda: plots.plot_mask_statistics(make_statistics(1)),
    "statistics of 18": lambda: plots.plot_mask_statistics(make_statistics(18)),
    "statistics of a naive network": lambda: plots.plot_mask_statistics(make_statistics(3, naive=True)),
    "an effect": lambda: plots.plot_effects(make_effects(0, ("zero",))),
    "effects": lambda: plots.plot_effects(make_effects(6, ("zero", "one", "mean", "shuffled", "inverse"))),
    "a curve": lambda: plots.plot_deletion_insertion(make_curves("stage1.0 mask mean")),
    "curves": lambda: plots.plot_deletion_insertion(
        make_curves(*(f"stage{i}.0 mask mean" for i in range(6)), "Grad-CAM", "centre prior", "random")
    ),
    "a method": lambda: plots.plot_localisation(make_rows(1, ())),
    "methods": lambda: plots.plot_localisation(make_rows(24)),
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_every_word_is_inside_and_apart(figure):
    figure = figure()
    assert figure.get_figwidth() <= 11
    check_words(figure)


EMPTY = {
    "statistics": lambda: plots.plot_mask_statistics([]),
    "effects": lambda: plots.plot_effects(make_effects(0, ())),
    "curves": lambda: plots.plot_deletion_insertion({}),
    "methods": lambda: plots.plot_localisation([]),
}


@pytest.mark.parametrize("figure", EMPTY.values(), ids=EMPTY)
def test_nothing_to_show_is_said(figure):
    (text,) = words(figure())
    assert text.get_text().startswith("nothing to show: ")


def test_statistics_show_the_histograms_and_the_responses():
    statistics = make_statistics(3)
    left, right = plots.plot_mask_statistics(statistics).axes
    for y, (row, steps) in enumerate(zip(statistics, left.patches, strict=True)):
        tops, edges, base = steps.get_data()
        np.testing.assert_allclose(edges, np.linspace(0, 1, 21))
        heights = (base - tops) / (base - tops).max()
        np.testing.assert_allclose(heights, row.counts / row.counts.max(), atol=1e-12)
        assert y - 0.5 <= tops.min() and base <= y + 0.5  # each in its own row
    assert [label.get_text() for label in left.get_yticklabels()] == [row.module for row in statistics]
    assert left.yaxis_inverted()  # in forward order from above
    assert [text.get_text() for text in left.texts] == [f"{row.mean:.3f} ± {row.std:.3f}" for row in statistics]
    assert [line.get_xdata()[0] for line in left.get_lines()] == [row.mean for row in statistics]
    shown = {line.get_label(): list(line.get_xdata()) for line in right.get_lines()}
    assert shown == {
        "trunk T": [row.trunk for row in statistics],
        "M·T alone would leave": [row.naive for row in statistics],
        "passed on: (1 + M)·T": [row.masked for row in statistics],
    }
    assert right.get_xlim()[0] == 0
    assert right.get_title() == "M·T keeps 41 % of the trunk's response, (1 + M)·T 141 %"


def test_what_a_naive_network_passes_on_is_what_it_leaves():
    right = plots.plot_mask_statistics(make_statistics(3, naive=True)).axes[1]
    assert [line.get_label() for line in right.get_lines()] == ["trunk T", "passed on: M·T"]
    assert right.get_title() == "M·T keeps 41 % of the trunk's response"


def test_stages_have_colours_of_their_own():
    patches = plots.plot_mask_statistics(make_statistics(18)).axes[0].patches
    colours = [to_hex(patch.get_facecolor()) for patch in patches]
    assert [len(set(colours[i : i + 6])) for i in (0, 6, 12)] == [1, 1, 1] and len(set(colours)) == 3


def test_signed_masks_are_drawn_over_their_whole_range():
    (row,) = make_statistics(1)
    row = MaskStatistics(**{**row.__dict__, "low": -1.0, "mean": -0.25})
    left = plots.plot_mask_statistics([row]).axes[0]
    assert left.get_xlim() == (-1, 1)
    assert [text.get_text() for text in left.texts] == ["−0.250 ± 0.100"]


def test_effects_stand_where_the_changes_are():
    kinds = ("zero", "one", "mean", "shuffled", "inverse")
    effects = make_effects(3, kinds)
    figure = plots.plot_effects(effects)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["stage1.0", "stage2.0", "stage3.0", "all together"]
    assert ax.yaxis_inverted()
    shown = {(round(y), series.get_label().split(":")[0]): (x, low, high) for x, y, low, high, series in dots(ax)}
    modules = ["stage1.0", "stage2.0", "stage3.0", "all"]
    assert shown.keys() == {(y, kind) for y in range(4) for kind in kinds}
    for effect in effects[1:]:
        expected = effect.change.mean, effect.change.low, effect.change.high
        assert shown[modules.index(effect.module), effect.intervention] == pytest.approx(expected)
    places = [y for _, y, *_ in dots(ax)]
    assert len(set(places)) == len(places)
    assert len({colour(series) for series in ax.containers}) == len(kinds)
    assert len({series.lines[0].get_marker() for series in ax.containers}) == len(kinds)
    assert ax.get_title() == "untouched: Top-1 91.24 %"
    assert [line.get_xdata()[0] for line in ax.get_lines() if list(line.get_ydata()) == [0, 1]] == [0]
    low, high = ax.get_xlim()
    assert low < min(row[2] for row in dots(ax)) and high > 0


def test_effects_of_other_interventions_are_shown_by_name():
    (ax,) = plots.plot_effects(make_effects(1, ("zero", "blurred"))[1:]).axes
    assert [series.get_label() for series in ax.containers] == ["zero: M = 0", "blurred"]
    assert ax.get_title() == ""


def test_curves_are_the_means_over_images_best_first():
    curves = make_curves("stage1.0 mask mean", "Grad-CAM", "random")
    for ax, kind in zip(plots.plot_deletion_insertion(curves).axes, ("deletion", "insertion"), strict=True):
        labels = [line.get_label() for line in ax.get_lines()]
        areas = {name: getattr(curve, f"{kind}_area") for name, curve in curves.items()}
        expected = {
            f"{name}: {area.mean:.3f} ({area.low:.3f}–{area.high:.3f})": curves[name] for name, area in areas.items()
        }
        assert labels == list(reversed(expected))  # as made above, the last is the best of both kinds
        assert [text.get_text() for text in ax.get_legend().get_texts()] == labels
        for line in ax.get_lines():
            curve = expected[line.get_label()]
            np.testing.assert_allclose(line.get_xdata(), [0, 25, 50, 75, 100])
            np.testing.assert_allclose(line.get_ydata(), getattr(curve, kind).mean(dim=0), rtol=1e-6)
        random, grad_cam, mask = ax.get_lines()
        assert (random.get_color(), random.get_linestyle()) == (GREY, "--")
        assert (grad_cam.get_color(), grad_cam.get_linestyle()) == (ORANGE, "-")
        assert mask.get_color() not in (GREY, ORANGE)
        assert (ax.get_xlim(), ax.get_ylim()) == ((0, 100), (0, 1))


def test_many_curves_can_be_told_apart():
    ax = plots.plot_deletion_insertion(make_curves(*map(str, range(18)), "random", "centre prior", "Grad-CAM")).axes[0]
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.get_lines()}) == 21


def test_localisation_shows_each_method_and_marks_the_best_mask():
    rows = make_rows(4)
    figure = plots.plot_localisation(rows)
    order = [row for row in rows if not row.baseline] + [row for row in rows if row.baseline]
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [row.method for row in order]
    assert [to_hex(label.get_color()) == GREY for label in labels] == [row.baseline for row in order]
    assert figure.axes[0].yaxis_inverted()
    for ax, key in zip(figure.axes, SCORES, strict=True):
        best = max(range(4), key=lambda y: order[y].scores[key].mean)
        for y, (row, (x, place, low, high, series)) in enumerate(zip(order, dots(ax), strict=True)):
            score = row.scores[key]
            assert (x, place, low, high) == pytest.approx((score.mean, y, score.low, score.high))
            expected = GREY if row.baseline else ORANGE if y == best else None
            assert (colour(series) == expected.lower()) if expected else colour(series) not in (GREY, ORANGE.lower())
        assert [text.get_text() for text in ax.texts] == [f"{order[best].scores[key].mean:.3f}"]
        assert 3.5 in [line.get_ydata()[0] for line in ax.get_lines()]  # between masks and baselines
        low, high = ax.get_xlim()
        assert low <= 0 and high > max(row.scores[key].high for row in rows)


def test_a_score_that_a_method_lacks_is_left_out():
    rows = make_rows(2, ("random",))
    del rows[0].scores["iou"]
    counts = [len(dots(ax)) for ax in plots.plot_localisation(rows).axes]
    assert counts == [3, 3, 2, 3]


def test_baselines_alone_have_no_best():
    for ax in plots.plot_localisation(make_rows(0)).axes:
        assert not ax.texts and len(dots(ax)) == 2
