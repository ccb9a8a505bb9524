"""Figures of benchmarks: every point, bar and line stands where the numbers say."""

import itertools
import statistics

import numpy as np
import pytest
from conftest import check_words, words
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.text import Text

from attnet import plots
from attnet.base.errors import ConfigError
from attnet.plots.figure import RED, Picture

CPU_CEILINGS = {"copy_bytes_per_second": 12e9, "matmul_flops_per_second": {"float32": 110e9, "bfloat16": 95e9}}
GPU_CEILINGS = {"copy_bytes_per_second": 3.0e12, "matmul_flops_per_second": {"float32": 52e12, "float16": 690e12}}
OUT_OF_MEMORY = "out of memory: tried to allocate 2.00 GiB with 1.21 GiB free of 79.10 GiB in all on this card, which "
OUT_OF_MEMORY += "holds 77.80 GiB already"


def make_row(ceilings: dict, share: float, **settings: object) -> dict:
    """A configuration that reaches `share` of the roof."""
    row = {"model": "attention92", "batch_size": 64, "amp": "O0", "channels_last": True, "compile": "off"}
    row |= {"device_num": 1} | settings
    peaks = ceilings["matmul_flops_per_second"]
    peak = peaks["float32"] if row["amp"] == "O0" else next(peaks[name] for name in peaks if name != "float32")
    flops = 6.5e9
    moved = {"O0": 242e6, "O1": 150e6}.get(row["amp"], 121e6) * (1 + 0.5 / row["batch_size"])
    speed = share * min(peak, ceilings["copy_bytes_per_second"] * flops / moved) / flops
    seconds = row["batch_size"] / speed
    shares = {"data": 0.03, "forward": 0.36, "backward": 0.6, "optimiser": 0.08}
    return row | {
        "step_seconds": {"median": seconds, "low": 0.98 * seconds, "high": 1.1 * seconds, "all": [seconds] * 5},
        "images_per_second": speed * row["device_num"],
        "shares": {name: part * seconds for name, part in shares.items()},
        "flops_per_image": flops, "bytes_per_image": moved,
        "flops_per_second": flops * speed, "bytes_per_second": moved * speed, "share_of_ceiling": share,
    }  # fmt: skip


def make_steps(rows: list[dict], ceilings: dict, device: str = "NVIDIA H100 80GB HBM3") -> dict:
    return {"kind": "steps", "rows": rows, "ceilings": ceilings, "environment": {"device": device}}


def cpu_steps() -> dict:
    settings = itertools.product(("O0", "O1"), ("off", "on"))
    rows = [make_row(CPU_CEILINGS, share, amp=amp, compile=compiled, batch_size=32)
            for share, (amp, compiled) in zip((0.52, 0.57, 0.21, 0.24), settings, strict=True)]  # fmt: skip
    return make_steps(rows, CPU_CEILINGS, "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz")


def gpu_steps() -> dict:
    """27 configurations and two that failed."""
    rows = []
    for i, batch in enumerate((32, 128, 512)):
        for j, amp in enumerate(("O0", "O1", "O2")):
            for k, (last, compiled) in enumerate(((False, "off"), (True, "off"), (True, "on"))):
                share = (0.05, 0.2, 0.38)[i] * (1, 0.7, 0.9)[j] * (1, 1.15, 1.7)[k]
                settings = {"batch_size": batch, "amp": amp, "channels_last": last, "compile": compiled}
                rows.append(make_row(GPU_CEILINGS, share, **settings))
    failed = {name: rows[-1][name] for name in ("model", "batch_size", "amp", "channels_last", "device_num")}
    rows.append(failed | {"compile": "graphs", "error": OUT_OF_MEMORY})
    rows.append(failed | {"batch_size": 2048, "compile": "on", "error": "out of memory"})
    return make_steps(rows, GPU_CEILINGS)


def make_curve(x: list[float], intercept: float, slope: float, **more: object) -> dict:
    """Three rounds a place around a straight line."""
    y = [[(intercept + slope * place) * (1 + 0.05 * noise) for noise in (-1, 0.2, 1)] for place in x]
    fit = {"slope": slope, "intercept": intercept, "r2": 0.99871}
    return {"x": x, "y": y, "median": [statistics.median(values) for values in y], "fit": fit} | more


def make_growth(*names: str) -> dict:
    models = ["attention56_tiny", "attention56_cifar", "attention92_cifar", "attention92", "attention92_224"]
    curves = {
        "images": make_curve([250, 500, 1000, 2000], 0.31, 0.0131, model="attention56_tiny"),
        "memory": make_curve([8, 16, 32, 64, 128], 4.1e8, 21e6, model="attention92"),
        "start_up": make_curve([118_282, 941_000, 1_900_000, 12_170_730, 50_437_834], 4.2, 0.7e-7, names=models),
        "ranks": make_curve([1, 2, 4, 8], 210, 1400.0, model="attention92"),
    }
    chosen = {name: curves[name] for name in names or curves}
    return {"kind": "growth", **chosen, "environment": {"device": "NVIDIA H100 80GB HBM3"}}


def make_epoch(rounds: int = 5) -> dict:
    train = {"ours": [11.2 + 0.1 * i for i in range(rounds)], "plain": [19.8 - 0.2 * i for i in range(rounds)]}
    test = {"ours": [0.9 + 0.02 * i for i in range(rounds)], "plain": [1.7 + 0.05 * i for i in range(rounds)]}
    return {
        "kind": "epoch", "model": "attention92", "batch_size": 128, "train_images": 50_000, "test_images": 10_000,
        "seconds": {kind: [a + b for a, b in zip(train[kind], test[kind], strict=True)] for kind in train},
        "parts": {kind: {"train": train[kind], "test": test[kind]} for kind in train},
        "ratio": {"median": 1.714, "low": 1.62, "high": 1.779},
        "environment": {"device": "NVIDIA H100 80GB HBM3"},
    }  # fmt: skip


def make_race(*sizes: int | None) -> dict:
    ours = [{"epoch": i + 1, "processor_seconds": 1800.0 * (i + 1), "top1": 30.0 + 8 * i} for i in range(len(sizes))]
    for row, size in zip(ours, sizes, strict=True):
        row |= {} if size is None else {"image_size": size}
    whole = ours[-1]["processor_seconds"]
    return {
        "kind": "race", "training": {"model": "attention92", "recipe": "fast94"}, "ours": ours,
        "reference": [{"processor_seconds": 2500.0, "top1": 41.0}, {"processor_seconds": whole, "top1": 40.0}],
        "beside": [{"processor_hours": whole / 3600, "ours": ours[-1]["top1"], "reference": 41.0}],
        "environment": {"device": "AMD EPYC 9R14"},
    }  # fmt: skip


FIGURES = {
    "roofline, few": lambda: plots.plot_roofline(cpu_steps()),
    "roofline, many": lambda: plots.plot_roofline(gpu_steps()),
    "roofline, one": lambda: plots.plot_roofline(make_steps([make_row(CPU_CEILINGS, 0.5)], CPU_CEILINGS)),
    "roofline, equals": lambda: plots.plot_roofline(make_steps([make_row(CPU_CEILINGS, 0.9)] * 6, CPU_CEILINGS)),
    "roofline, roofs of one height": lambda: plots.plot_roofline(
        cpu_steps() | {"ceilings": CPU_CEILINGS | {"matmul_flops_per_second": {"float32": 99e9, "bfloat16": 98e9}}}
    ),
    "steps, few": lambda: plots.plot_step_shares(cpu_steps()),
    "steps, many": lambda: plots.plot_step_shares(gpu_steps()),
    "growth": lambda: plots.plot_growth(make_growth()),
    "growth of two": lambda: plots.plot_growth(make_growth("memory", "start_up")),
    "growth of one": lambda: plots.plot_growth(make_growth("ranks")),
    "epochs": lambda: plots.plot_epoch(make_epoch()),
    "an epoch": lambda: plots.plot_epoch(make_epoch(1)),
    "a race": lambda: plots.plot_race(make_race(16, 16, 16, 24, 24, 24, 32)),
    "a race on full images": lambda: plots.plot_race(make_race(None, None)),
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
def test_every_word_is_inside_and_apart(figure):
    figure = figure()
    assert isinstance(figure, Picture) and figure.get_figwidth() <= 11
    check_words(figure)


FAILED = [row for row in gpu_steps()["rows"] if "error" in row]
EMPTY = {
    "no configuration ran": lambda: plots.plot_roofline(make_steps(FAILED, GPU_CEILINGS)),
    "no ceilings were measured": lambda: plots.plot_roofline(gpu_steps() | {"ceilings": {}}),
    "no configuration was tried": lambda: plots.plot_step_shares(make_steps([], {})),
    "no curve was measured": lambda: plots.plot_growth({"kind": "growth", "ranks": None}),
}


@pytest.mark.parametrize(("why", "figure"), EMPTY.items(), ids=EMPTY)
def test_nothing_to_show_is_said(why, figure):
    (text,) = words(figure())
    assert text.get_text() == f"nothing to show: {why}"


@pytest.mark.parametrize(
    ("draw", "result", "message"),
    [
        (plots.plot_roofline, make_growth(), "kind 'growth': .* needs one of kind 'steps'; .* plot_growth$"),
        (plots.plot_step_shares, make_epoch(), "kind 'epoch': .* needs one of kind 'steps'; .* plot_epoch$"),
        (plots.plot_growth, cpu_steps(), "kind 'steps': .* 'growth'; .* plot_roofline or plot_step_shares$"),
        (plots.plot_epoch, {"kind": "versus"}, "kind 'versus': .* needs one of kind 'epoch'$"),
        (plots.plot_race, make_epoch(), "kind 'epoch': .* needs one of kind 'race'; .* plot_epoch$"),
        (plots.plot_epoch, {}, "kind None: .* needs one of kind 'epoch'$"),
    ],
)
def test_a_result_of_another_kind_is_refused(draw, result, message):
    with pytest.raises(ConfigError, match=message):
        draw(result)


def test_a_race_ends_with_what_both_have_at_equal_time():
    race = make_race(16, 24, 32)
    figure = plots.plot_race(race)
    (ax,) = figure.axes
    ours, reference = (line.get_xydata().tolist() for line in ax.get_lines())
    assert ours == [[0.5, 30], [1, 38], [1.5, 46]] and reference == [[2500 / 3600, 41], [1.5, 40]]
    said = {text.get_text() for text in words(figure)}
    assert {"16 px", "24 px", "32 px"} < said
    assert "attention92 on AMD EPYC 9R14\nafter 1.50 processor hours: ours 46.00 %, the reference 41.00 %" in said
    race["beside"][-1]["reference"] = None
    assert any("the reference no test yet" in text.get_text() for text in words(plots.plot_race(race)))


def lines(ax: Axes, style: str) -> list[list[tuple[float, float]]]:
    """The points of every line drawn in this style ("None": markers alone)."""
    return [list(zip(*line.get_data(), strict=True)) for line in ax.get_lines() if line.get_linestyle() == style]


@pytest.mark.parametrize("result", [cpu_steps(), gpu_steps()], ids=["few", "many"])
def test_roofline_has_a_point_a_configuration_under_the_measured_roof(result):
    (ax,) = plots.plot_roofline(result).axes
    rows = [row for row in result["rows"] if "error" not in row]
    expected = [(row["flops_per_image"] / row["bytes_per_image"], row["flops_per_second"]) for row in rows]
    points = [point for line in lines(ax, "None") for point in line]
    np.testing.assert_allclose(points, expected)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    copy, peaks = result["ceilings"].values()
    roofs = {ridge[1]: (left, ridge, right) for left, ridge, right in lines(ax, "-")}
    assert roofs.keys() == set(peaks.values())
    for peak, ((x0, y0), (x1, y1), (x2, y2)) in roofs.items():
        assert (y0, y1, y2) == pytest.approx((x0 * copy, x1 * copy, peak)) and y1 == peak
        assert ax.get_xlim() == (x0, x2)
        assert all(x0 < x < x2 for x, _ in points)
    low, high = ax.get_ylim()
    assert low < min(y for _, y in points) and high > max(peaks.values())


@pytest.mark.parametrize("result", [cpu_steps(), gpu_steps()], ids=["under the flat part", "under the slope"])
def test_the_gap_to_the_roof_is_the_share(result):
    (ax,) = plots.plot_roofline(result).axes
    gaps = {low: low / high for (_, low), (_, high) in lines(ax, ":")}
    assert len(gaps) == len(labels(ax))
    shares = {row["flops_per_second"]: row["share_of_ceiling"] for row in result["rows"] if "error" not in row}
    assert gaps == pytest.approx({speed: shares[speed] for speed in gaps})


@pytest.mark.parametrize("result", [cpu_steps(), gpu_steps()], ids=["few", "many"])
def test_the_words_of_the_roof_stand_clear_of_it(result):
    figure = plots.plot_roofline(result)
    (ax,) = figure.axes
    boxes = {text.get_text(): text.get_window_extent() for text in words(figure)}
    copy, peaks = result["ceilings"].values()
    (slope,) = (box for word, box in boxes.items() if word.startswith("copy: "))
    x, y = ax.transData.inverted().transform((slope.x1, slope.y0))
    assert y > x * copy and slope.x0 >= ax.bbox.x0
    low, high = sorted(peaks, key=peaks.get)
    places = {name: ax.transData.transform((1, peak))[1] for name, peak in peaks.items()}
    (under,) = (box for word, box in boxes.items() if word.startswith(f"matrix product, {low}: "))
    (over,) = (box for word, box in boxes.items() if word.startswith(f"matrix product, {high}: "))
    assert under.y1 < places[low] < places[high] < over.y0
    assert max(under.x1, over.x1) <= ax.bbox.x1
    points = [ax.transData.transform(line[0])[0] for line in lines(ax, "None")]
    assert min(under.x0, over.x0) > max(points)


def labels(ax: Axes) -> list[tuple[str, tuple[float, float]]]:
    """Label and point of each annotation of a roofline that leads to a point."""
    return [(text.get_text(), text.xy) for text in ax.texts if text.arrow_patch is not None]


def test_few_configurations_all_have_a_label():
    result = cpu_steps()
    figure = plots.plot_roofline(result)
    found = {y: text for text, (_, y) in labels(figure.axes[0])}
    assert [found[row["flops_per_second"]] for row in result["rows"]] == [
        f"{name}\n{row['share_of_ceiling']:.0%} of the ceiling, {row['images_per_second']:.3g} images/s".replace(
            "%", " %"
        )
        for row, name in zip(
            result["rows"],
            ["O0, batch 32, eager", "O0, batch 32, compiled", "O1, batch 32, eager", "O1, batch 32, compiled"],
            strict=True,
        )
    ]
    title = figure.get_suptitle().splitlines()
    assert title[0] == f"attention92 on {result['environment']['device']}"
    assert title[1] == "the best reaches 57 % of the ceiling: O0, batch 32, compiled"


def test_labels_stay_beside_the_panel_however_many_share_a_place():
    (ax,) = plots.plot_roofline(make_steps([make_row(CPU_CEILINGS, 2.0)] * 6, CPU_CEILINGS)).axes
    heights = sorted(text.xyann[1] for text in ax.texts if text.arrow_patch is not None)
    assert len(heights) == 6 and heights[0] > 0 and heights[-1] <= 1
    assert np.diff(heights).min() > 0.1


def test_of_many_configurations_the_fastest_of_each_level_has_a_label():
    result = gpu_steps()
    figure = plots.plot_roofline(result)
    rows = result["rows"][:27]
    expected = {}
    for level in ("O0", "O1", "O2"):
        best = max((row for row in rows if row["amp"] == level), key=lambda row: row["images_per_second"])
        expected[best["flops_per_second"]] = f"{level}, batch 512, channels-last, compiled"
    assert {xy[1]: text.splitlines()[0] for text, xy in labels(figure.axes[0])} == expected
    assert len(lines(figure.axes[0], ":")) == 3
    assert "(2 configurations failed)" in figure.get_suptitle()


def test_a_points_look_tells_its_configuration():
    result = gpu_steps()
    figure = plots.plot_roofline(result)
    found = [line for line in figure.axes[0].get_lines() if line.get_linestyle() == "None"]
    looks = []
    for line in found:
        hollow = line.get_markerfacecolor() == "none"
        colour = line.get_markeredgecolor() if hollow else line.get_markerfacecolor()
        looks.append((colour, line.get_marker(), line.get_markersize(), hollow))
    assert len(set(looks)) == 27
    assert len({look[0] for look in looks}) == len({look[2] for look in looks}) == 3
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts() if text.get_text().strip()]
    assert said == ["O0 (float32)", "O1 (float16)", "O2 (float16)", "eager", "compiled", "channels-last", "contiguous",
                    "batch 32", "batch 128", "batch 512"]  # fmt: skip
    words(figure)
    left = [text.get_window_extent().x0 for text in legend.get_texts() if text.get_text().strip()]
    assert len({*left}) == len({*left[:3]}) + len({*left[3:5]}) + len({*left[5:7]}) + len({*left[7:]}) == 4  # columns


def test_the_legend_of_a_roofline_leaves_out_what_is_all_the_same():
    (legend,) = plots.plot_roofline(make_steps([make_row(CPU_CEILINGS, 0.5)], CPU_CEILINGS)).legends
    assert [text.get_text() for text in legend.get_texts()] == ["O0 (float32)"]


def test_the_reference_is_told_apart_and_has_a_label():
    result = gpu_steps()
    ours = result["rows"][0]
    result["rows"].append(make_row(GPU_CEILINGS, 0.01, channels_last=False, implementation="reference"))
    assert ours["amp"] == "O0" and not ours["channels_last"]
    figure = plots.plot_roofline(result)
    assert "O0, batch 64, contiguous, the reference's loop" in [
        text.splitlines()[0] for text, _ in labels(figure.axes[0])
    ]
    assert len(labels(figure.axes[0])) == 4
    shapes = [line.get_marker() for line in figure.axes[0].get_lines() if line.get_linestyle() == "None"]
    assert shapes.count("X") == 1 and shapes[-1] == "X"
    assert "the reference's loop" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_networks_and_cards_are_named_where_they_differ():
    rows = [make_row(CPU_CEILINGS, 0.5), make_row(CPU_CEILINGS, 0.3, model="attention56_tiny", device_num=2)]
    figure = plots.plot_step_shares(make_steps(rows, CPU_CEILINGS))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["O0, attention92, 1 card, eager", "O0, attention56_tiny, 2 cards, eager"]
    assert "attention92, attention56_tiny on NVIDIA" in figure.get_suptitle()


def test_speed_on_several_devices_is_that_of_one_in_the_roofline():
    rows = [make_row(CPU_CEILINGS, 0.5, device_num=4), make_row(CPU_CEILINGS, 0.6)]
    rows += [make_row(CPU_CEILINGS, 0.1, amp=amp) for amp in ("O1", "O2", "O3", "O3", "O3")]
    figure = plots.plot_roofline(make_steps(rows, CPU_CEILINGS))
    assert {y for _, (_, y) in labels(figure.axes[0])} >= {rows[1]["flops_per_second"]}
    assert rows[0]["flops_per_second"] not in {y for _, (_, y) in labels(figure.axes[0])}


def test_a_level_without_a_measured_roof_has_a_point_and_no_gap():
    ceilings = CPU_CEILINGS | {"matmul_flops_per_second": {"float32": 110e9}}
    (ax,) = plots.plot_roofline(cpu_steps() | {"ceilings": ceilings}).axes
    assert len(lines(ax, "None")) == len(labels(ax)) == 4
    assert len(lines(ax, "-")) == 1 and len(lines(ax, ":")) == 2


def test_bars_are_the_parts_of_a_step():
    result = gpu_steps()
    figure = plots.plot_step_shares(result)
    words(figure)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["batch 32", "batch 128", "batch 512", "batch 2,048"]
    for i, ax in enumerate(figure.axes[:3]):
        rows = result["rows"][9 * i : 9 * i + 9]
        bars = zip(*ax.containers, strict=True)
        for y, (row, parts) in enumerate(zip(rows, bars, strict=True)):
            widths = [part.get_width() for part in parts]
            assert widths == pytest.approx([1e3 * row["shares"][name] for name in row["shares"]])
            assert [part.get_x() for part in parts] == pytest.approx([0, *np.cumsum(widths)[:3]])
            assert {part.get_y() + part.get_height() / 2 for part in parts} == {y}
        strokes = [stroke[:, 0] for stroke in ax.collections[0].get_segments()]
        whole = [1e3 * row["step_seconds"]["median"] for row in rows]
        np.testing.assert_allclose(strokes, np.transpose([whole, whole]))
        assert [text.get_text() for text in ax.texts[:9]] == [
            f"{row['images_per_second']:,.0f} images/s" for row in rows
        ]
        for text, row in zip(ax.texts, rows, strict=False):
            assert text.xy[0] == pytest.approx(1e3 * max(sum(row["shares"].values()), row["step_seconds"]["median"]))
        assert ax.yaxis_inverted() and ax.get_xlim()[0] == 0
        assert all(Text.get_window_extent(text).x1 <= ax.bbox.x1 for text in ax.texts)
    colours = [to_hex(bars.patches[0].get_facecolor()) for bars in figure.axes[0].containers]
    assert [to_hex(handle.get_color()) for handle in figure.legends[0].legend_handles[:4]] == colours
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["data", "forward", "backward", "optimiser", "whole step"]


def test_a_step_on_several_cards_is_a_stroke_without_parts():
    rows = [make_row(CPU_CEILINGS, 0.5), make_row(CPU_CEILINGS, 0.4, device_num=2)]
    del rows[1]["shares"]
    (ax,) = plots.plot_step_shares(make_steps(rows, CPU_CEILINGS)).axes
    assert [bars.patches[1].get_width() for bars in ax.containers] == [0] * 4
    assert ax.collections[0].get_segments()[1][0][0] == 1e3 * rows[1]["step_seconds"]["median"]
    assert ax.texts[1].xy[0] == 1e3 * rows[1]["step_seconds"]["median"]


def test_configurations_that_failed_show_why():
    figure = plots.plot_step_shares(gpu_steps())
    ax = figure.axes[2]
    assert ax.get_yticklabels()[9].get_text() == "O2, channels-last, graphs"
    (shown,) = (text for text in ax.texts if text.xy[1] == 9)
    assert to_hex(shown.get_color()) == RED.lower()
    assert shown.get_text().endswith(" …") and OUT_OF_MEMORY.startswith(shown.get_text().removesuffix(" …"))
    assert [text.get_text() for text in figure.axes[3].texts] == ["out of memory"]


def test_growth_shows_rounds_median_and_fit():
    result = make_growth()
    figure = plots.plot_growth(result)
    units = {"images": (1, 1), "memory": (1, 1e9), "start_up": (1e6, 1), "ranks": (1, 1)}
    titles = ["an epoch, attention56_tiny\n0.31 s + 13.1 ms an image, r² = 0.9987",
              "peak memory, attention92\n0.41 GB + 21 MB an image, r² = 0.9987",
              "start to first step\n4.2 s + 0.07 s a million parameters, r² = 0.9987",
              "ranks together, attention92\n210 images/s + 1,400 images/s a rank, r² = 0.9987"]  # fmt: skip
    assert [ax.get_title() for ax in figure.axes] == titles
    for ax, (name, (x_unit, y_unit)) in zip(figure.axes, units.items(), strict=True):
        curve = result[name]
        dots = [point for line in lines(ax, "None") for point in line]
        expected = [(x / x_unit, y / y_unit) for x, values in zip(curve["x"], curve["y"], strict=True) for y in values]
        np.testing.assert_allclose(dots, expected)
        (median,), (fit,) = lines(ax, "-"), lines(ax, "--")
        np.testing.assert_allclose(median, np.transpose([curve["x"], curve["median"]]) / (x_unit, y_unit))
        for x, y in fit:
            assert y * y_unit == pytest.approx(curve["fit"]["intercept"] + curve["fit"]["slope"] * x * x_unit)
        assert fit[0][0] == 0 and fit[1][0] > max(x for x, _ in dots)
        assert ax.get_xlim()[0] == ax.get_ylim()[0] == 0
        assert ax.get_xlim()[1] > max(x for x, _ in dots) and ax.get_ylim()[1] > max(y for _, y in dots)
    legend = figure.axes[2].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == result["start_up"]["names"]
    assert len({handle.get_marker() for handle in legend.legend_handles}) == 5


def test_a_curve_that_is_missing_is_left_out():
    result = make_growth("memory", "ranks") | {"images": None}
    del result["ranks"]["fit"]
    memory, ranks = plots.plot_growth(result).axes
    assert memory.get_title().startswith("peak memory")
    assert ranks.get_title() == "ranks together, attention92"
    assert len(lines(memory, "--")) == 1 and not lines(ranks, "--")
    assert len(plots.plot_growth(make_growth("images", "memory", "ranks")).axes) == 3


def test_what_falls_is_written_with_a_minus():
    curve = make_curve([1, 2, 3], 950.0, -12.5)
    (ax,) = plots.plot_growth({"kind": "growth", "ranks": curve}).axes
    assert ax.get_title() == "ranks together\n950 images/s − 12.5 images/s a rank, r² = 0.9987"


@pytest.mark.parametrize("rounds", [1, 4, 5])
def test_epochs_are_medians_with_every_round(rounds):
    result = make_epoch(rounds)
    figure = plots.plot_epoch(result)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["training", "test", "whole epoch"]
    for bars, kind in zip(ax.containers, ("ours", "plain"), strict=True):
        assert bars.get_label() == kind
        groups = [result["parts"][kind]["train"], result["parts"][kind]["test"], result["seconds"][kind]]
        for i, (bar, seconds) in enumerate(zip(bars, groups, strict=True)):
            assert bar.get_height() == statistics.median(seconds)
            assert i - 0.5 < bar.get_x() < bar.get_x() + bar.get_width() < i + 0.5
            inside = [line for line in ax.get_lines()
                      if all(bar.get_x() < x < bar.get_x() + bar.get_width() for x in line.get_xdata())]  # fmt: skip
            assert [list(line.get_ydata()) for line in inside] == [seconds]
            assert len(set(inside[0].get_xdata())) == rounds
            assert f"{statistics.median(seconds):.3g} s" in [text.get_text() for text in ax.texts]
    title, setting = figure.get_suptitle().splitlines()
    assert title == "plain / ours: 1.71 (1.62–1.78)"
    assert setting == "attention92 on NVIDIA H100 80GB HBM3, batch 128, 50,000 training and 10,000 test images"


def test_an_epoch_whose_parts_were_not_measured_is_a_whole():
    result = make_epoch()
    del result["parts"]["plain"]["test"]
    (ax,) = plots.plot_epoch(result).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["training", "whole epoch"]
    del result["parts"], result["environment"]
    figure = plots.plot_epoch(result)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["whole epoch"]
    assert figure.get_suptitle().splitlines()[1].startswith("attention92, batch 128")
