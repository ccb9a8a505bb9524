"""Figures of ablations: every dot, bar and diamond stands where the record says, and published ones stand apart."""

import re
import statistics
from dataclasses import asdict

import pytest
from conftest import check_words, words
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from attnet import plots
from attnet.base.errors import ConfigError
from attnet.plots.figure import Picture
from attnet.plots.runs import PAPER
from attnet.study.ask import STUDIES
from attnet.study.records import records


def make_record(name: str, size: str = "full", seeds: int = 3) -> dict:
    """A record of a study with made-up Top-1: 60, 61 ... by row, spread over the seeds."""
    study = STUDIES[name]
    base = study.base(size, {})
    rows = []
    for i, row in enumerate(study.rows(base, size, ())):
        top1 = [60 + i + offset for offset in (-0.21, 0.04, 0.17)[:seeds]]
        ends = {"low": top1[0] - 0.3, "high": top1[0] + 0.5} if seeds > 1 else {"low": None, "high": None}
        content = {"name": row.name, "top1": top1, "mean": statistics.mean(top1), **ends, "parameters": 10**6 * (i + 1)}
        if row.against:
            gap = {"mean": -0.25, "low": -1.5, "high": 1.0} if seeds > 1 else {"mean": -0.25, "low": None}
            content |= {"against": row.against, "difference": gap}
        content |= {"published": asdict(row.published)} if row.published else {}
        content |= {"line": row.line, "x": row.x} if row.line else {}
        content |= {"memorisation": [{"wrong": 5.0 * i + s} for s in range(seeds)]} if name == "noise" else {}
        rows.append(content)
    budget = {"model": "attention56_cifar", "recipe": "seed", "total_epochs": 205, "train_batch_size": 64}
    return {
        **{"kind": "ablation", "study": name, "question": study.question, "axis": study.axis},
        **{"baseline": rows[0], "rows": rows[1:]},
        "budget": budget | {"dataset": "cifar10, 50,000 images", "seeds": list(range(seeds))},
    }


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def is_apart(ax: Axes) -> bool:
    """Whether a panel says that its figures are published, on its own ground."""
    return to_hex(ax.get_facecolor()) == PAPER.lower() and ax.get_title().startswith("published: Wang et al.")


RECORDS = [*((name, "full", 3) for name in STUDIES), ("residual", "rehearsal", 1), ("noise", "rehearsal", 1)]


@pytest.mark.parametrize(("name", "size", "seeds"), RECORDS)
def test_every_word_is_inside_and_apart(name, size, seeds):
    figure = plots.plot_ablation(make_record(name, size, seeds))
    assert isinstance(figure, Picture) and figure.get_figwidth() <= 11
    check_words(figure)
    title = figure.get_suptitle().splitlines()
    assert title[0] == STUDIES[name].question
    assert title[1].startswith("measured: attention56_cifar, recipe seed, 205 epochs; cifar10, 50,000 images")


def test_every_record_that_comes_with_the_repository_is_drawn():
    for record in records("ablation").values():
        check_words(plots.plot_ablation(record))


def test_rows_stand_at_their_means_in_the_order_given():
    record = make_record("residual")
    rows = [record["baseline"], *record["rows"]]
    ax, apart = plots.plot_ablation(record).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [row["name"] for row in rows]
    assert ax.yaxis_inverted() and ax.get_ylim() == apart.get_ylim()
    for y, row in enumerate(rows):
        bar, dot, seeds = ax.get_lines()[3 * y : 3 * y + 3]
        assert list(bar.get_xdata()) == [row["low"], row["high"]]
        assert list(dot.get_xdata()) == [pytest.approx(row["mean"])]
        assert list(seeds.get_xdata()) == row["top1"]
        assert {*bar.get_ydata(), *seeds.get_ydata(), *dot.get_ydata()} == {y}
    gap = "−0.25 (−1.50 to +1.00)"
    assert texts(ax) == ["60.00 %", gap, "62.00 %", gap, "64.00 %", gap, "66.00 %", gap]
    strokes = [collection.get_segments()[0] for collection in ax.collections]
    assert [(stroke[0][0], stroke[0][1], stroke[1][1]) for stroke in strokes] == [
        (pytest.approx(60 + y), y - 0.4, y + 1.4) for y in (0, 2, 4, 6)
    ], "each pair has a stroke of its own"


def test_published_figures_have_a_panel_of_their_own():
    record = make_record("attention")
    ax, apart = plots.plot_ablation(record).axes
    assert is_apart(apart) and not is_apart(ax)
    (diamonds,) = apart.get_lines()
    assert list(diamonds.get_xdata()) == [94.48, 93.76, 93.67] and list(diamonds.get_ydata()) == [0, 1, 2]
    assert texts(apart) == ["94.48", "93.76", "93.67"]
    assert (ax.get_xlabel(), apart.get_xlabel()) == ("measured Top-1 (%)", "published Top-1 (%)")
    (only,) = plots.plot_ablation(make_record("recipe")).axes
    assert only.get_xlabel() == "measured Top-1 (%)"


def line(ax: Axes, label: str) -> tuple[list[float], list[float]]:
    (found,) = [drawn for drawn in ax.get_lines() if drawn.get_label() == label]
    return list(found.get_xdata()), list(found.get_ydata())


def test_depth_is_a_line_and_the_papers_another_panel():
    record = make_record("depth")
    ax, apart = plots.plot_ablation(record).axes
    assert line(ax, "Attention, measured") == ([0, 1, 2, 3], [pytest.approx(60 + i) for i in range(4)])
    assert [label.get_text() for label in ax.get_xticklabels()] == [
        "56\n1.00 M", "92\n2.00 M", "236\n3.00 M", "452\n4.00 M"
    ]  # fmt: skip
    assert re.search(r"table.* 3\b.* 6; cifar10$", apart.get_title(), re.DOTALL)
    assert is_apart(apart) and line(apart, "Attention, published") == ([0, 1, 2, 3], [94.48, 95.01, 95.86, 96.1])
    assert [label.get_text() for label in apart.get_xticklabels()] == ["56", "92", "236", "452"]


def test_noise_has_a_line_each_network_and_a_panel_of_what_was_learned_by_heart():
    ax, heart, apart = plots.plot_ablation(make_record("noise")).axes
    for shown, first in (("trunk alone, a ResNet", 0), ("with masks", 1)):
        x, top1 = line(ax, f"{shown}, measured")
        assert top1 == [pytest.approx(60 + i) for i in range(first, 8, 2)] and [round(place) for place in x] == [
            *range(4)
        ]
        assert line(heart, shown)[1] == [5 * i + 1 for i in range(first, 8, 2)]
    assert line(apart, "ResNet-164, published")[1] == [94.07, 93.39, 91.65, 82.79]
    assert line(apart, "Attention-92, published")[1] == [94.85, 94.21, 92.73, 84.25]
    assert is_apart(apart) and not is_apart(heart)
    assert {drawn.get_linestyle() for drawn in apart.get_lines()} == {"--"}


def test_what_was_not_run_keeps_its_row_and_lines_go_on_without_it():
    record = make_record("unit")
    record["rows"][0] |= {"top1": [None, 61.0, None], "low": None, "high": None, "difference": {"mean": None}}
    record["rows"][1] |= {"top1": [], "mean": None, "low": None}
    ax, _ = plots.plot_ablation(record).axes
    assert texts(ax) == ["60.00 %", "–", "not run"]
    assert len(ax.get_lines()) == 3 + 2, "one seed has no interval"
    record["baseline"] |= {"low": -20.0, "high": 140.0}
    assert plots.plot_ablation(record).axes[0].get_xlim() == (0, 100)
    record = make_record("depth")
    record["rows"][1] |= {"top1": [None] * 3}
    assert line(plots.plot_ablation(record).axes[0], "Attention, measured")[0] == [0, 1, 3]


def test_no_line_goes_through_single_seeds():
    for seeds, linestyle in ((1, "None"), (3, "-")):
        ax = plots.plot_ablation(make_record("depth", seeds=seeds)).axes[0]
        [drawn] = [drawn for drawn in ax.get_lines() if drawn.get_label() == "Attention, measured"]
        assert drawn.get_linestyle() == linestyle


@pytest.mark.parametrize("name", ["unit", "depth"])
def test_chance_is_drawn_where_rows_are_near_it_and_said_elsewhere(name):
    record = make_record(name)
    for chance, said in ((20.0, "dashed: chance, 20 %"), (1.0, "chance, 1 %")):
        ax = plots.plot_ablation(record | {"chance": chance}).axes[0]
        dashed = [drawn for drawn in ax.get_lines() if drawn.get_linestyle() == "--"]
        assert len(dashed) == (chance > 15)
        assert (ax.get_xlabel() if name == "unit" else ax.get_ylabel()).endswith(said)


def test_a_rehearsal_says_so_across_the_figure():
    for size, stamps in (("rehearsal", 1), ("full", 0)):
        figure = plots.plot_ablation(make_record("unit") | {"size": size})
        assert [text.get_text() for text in figure.texts].count("REHEARSAL") == stamps


@pytest.mark.parametrize(
    ("dataset", "train", "stamps"), [("cifar10", 50_000, 0), ("cifar10", 10_000, 1), ("shapes", 50_000, 1)]
)
def test_a_study_of_all_images_of_real_data_is_no_rehearsal(dataset, train, stamps):
    record = make_record("unit") | {"size": "rehearsal"}
    images = {"train": train, "train_total": 50_000, "test": 10_000, "test_total": 10_000}
    record["baseline"]["result"] = {"parameters": {"mode": "rehearsal", "dataset": dataset}, "images": images}
    figure = plots.plot_ablation(record)
    assert [text.get_text() for text in figure.texts].count("REHEARSAL") == stamps


def test_nothing_to_show_is_said_and_other_records_are_refused():
    record = make_record("unit")
    for row in [record["baseline"], *record["rows"]]:
        row["top1"] = [None]
    assert [text.get_text() for text in words(plots.plot_ablation(record))] == [
        "nothing to show: no configuration was run to its end"
    ]
    with pytest.raises(ConfigError, match="result of kind 'epoch': this figure needs one of kind 'ablation'"):
        plots.plot_ablation({"kind": "epoch"})
