"""Figures of many results: that every run and its kind can be told, and every word read."""

import pytest
from conftest import check_words, words

from attnet import plots
from attnet.plots.runs import LINES, MARKS, MOST
from attnet.study.rows import Row

KINDS = ("measured", "rehearsal", "simulated")


def run(i: int, epochs: int = 5) -> Row:
    history = [{"epoch": e, "top1": 90 - 50 / e - i, "test_loss": 2 / e + i / 20} for e in range(1, epochs + 1)]
    name = f"a study/naive attention with a long name {i}/0123456789-seed{i}"
    return Row(
        KINDS[i % 3],
        name,
        name,
        "attention92",
        "cifar10, 50,000 images",
        task="cifar10",
        top1=90.0 - i,
        history=history,
    )


def published(model: str, top1: float | None) -> Row:
    return Row("published", "x", "somewhere", model, "cifar10", top1=top1)


@pytest.mark.parametrize("count", [1, 3, 12, 20])
def test_overlaid_curves_can_be_told_apart(count):
    rows = [run(i, 5 if i % 4 else 80) for i in range(count)]
    figure = plots.plot_runs([published("attention92", 95.0), *rows])
    check_words(figure)
    shown = rows[:MOST]
    for ax, what in zip(figure.axes, ("top1", "test_loss"), strict=True):
        assert [list(line.get_ydata()) for line in ax.lines] == [[e[what] for e in row.history] for row in shown]
        assert [line.get_linestyle() for line in ax.lines] == [LINES[row.kind] for row in shown]
        assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == len(shown)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert [name.rsplit(" ", 1)[1] for name in names] == [f"({row.kind})" for row in shown]
    assert all(f"-seed{i} " in name for i, name in enumerate(names))
    said = [text.get_text() for text in words(figure) if "of 20 runs" in text.get_text()]
    assert said == (["the first 14 of 20 runs"] if count == 20 else [])


def test_runs_of_very_different_lengths_share_a_logarithmic_axis():
    assert plots.plot_runs([run(0, 3), run(1, 30)]).axes[0].get_xscale() == "linear"
    figure = plots.plot_runs([run(0, 3), run(1, 300)])
    assert {ax.get_xscale() for ax in figure.axes} == {"log"}
    assert {"1", "10", "100"} <= {text.get_text() for text in words(figure)}


def test_one_bad_epoch_does_not_hide_the_others():
    bad = run(0)
    bad.history[1]["test_loss"], bad.history[2]["test_loss"] = 83.0, float("inf")
    figure = plots.plot_runs([bad, run(1)])
    check_words(figure)
    low, high = figure.axes[1].get_ylim()
    assert figure.axes[1].get_yscale() == "log" and low < 0.45 and 83 < high < 200


def test_losses_that_hardly_change_still_have_numbers():
    flat = run(0)
    for epoch in flat.history:
        epoch["test_loss"] = 0.9 - 0.05 * epoch["epoch"]
    figure = plots.plot_runs([flat])
    check_words(figure)
    assert {"0.7", "0.8"} <= {text.get_text() for text in words(figure)}


def test_a_record_from_before_the_test_loss_was_kept_is_drawn():
    old = Row("measured", "old", "old", "attention92", "cifar10", history=[{"epoch": 1, "top1": 50.0}])
    assert list(plots.plot_runs([old]).axes[0].lines[0].get_ydata()) == [50.0]


def test_top1_by_network_keeps_published_figures_apart():
    found = {"task": "cifar10", "top1": 60.0, "low": 50.0, "high": 70.0, "seeds": 3}
    mean = Row("rehearsal", "m", "m", "attention92", "cifar10, 2,000 of 50,000 images", **found)
    rows = [run(0), run(2), mean, published("attention92", 95.4), published("ResNet-164", 94.54)]
    figure = plots.plot_top1([*rows, published("attention92", None)])
    check_words(figure)
    [ax] = figure.axes
    marks = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert [line.get_xdata()[0] for line in marks] == [90.0, 88.0, 60.0, 95.4, 94.54]
    assert [line.get_marker() for line in marks] == [MARKS[row.kind]["marker"] for row in rows]
    assert [line.get_ydata()[0] for line in marks] == pytest.approx([-0.18, -0.18, -0.18, 0.18, 1.18])
    [interval] = [line for line in ax.lines if len(line.get_xdata()) == 2]
    assert list(interval.get_xdata()) == [50.0, 70.0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["attention92\ncifar10", "ResNet-164\ncifar10"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["measured", "published", "rehearsal", "simulated"]
    looks = {(m["marker"], m["color"], m.get("mfc")) for m in MARKS.values()}
    assert len(looks) == 4


@pytest.mark.parametrize("draw", [plots.plot_runs, plots.plot_top1], ids=lambda draw: draw.__name__)
def test_nothing_to_show_is_said(draw):
    [text] = words(draw([published("attention92", None)]))
    assert text.get_text().startswith("nothing to show: no row has a ")
