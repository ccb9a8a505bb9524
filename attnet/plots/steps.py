"""Figures of training steps, as `attnet benchmark` measures them: a roofline, and where the time of a step goes.

Each takes the object of the JSON file that the benchmark wrote; one of another kind raises a ConfigError.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, RED, Picture, Result, bare, check_kind, legend_below, nothing

__all__ = ["plot_roofline", "plot_step_shares"]

WAYS = {"off": ("eager", "o"), "on": ("compiled", "s"), "graphs": ("graphs", "D"), "both": ("compiled, graphs", "v")}
WAYS |= {"reference": ("the reference's loop", "X")}
_PARTS = {"data": GREY, "forward": BLUE, "backward": ORANGE, "optimiser": GREEN}
_LEVELS = {"O0": BLUE, "O1": GREEN, "O2": ORANGE, "O3": RED}
_LABELLED = 6  # configurations that all get a label; of more, the fastest of each opt level


def plot_roofline(result: Result) -> Figure:
    """How near each training step comes to what the device can do: speed over arithmetic intensity, both logarithmic.

    To see: the roof is what was measured on the device, the bandwidth of a copy (slope) and a matrix product of the
    type (flat). A point under the slope waits for memory, one under the flat part for arithmetic; the dotted line
    is what is left to gain. Of more than 6 configurations, the fastest of each opt level and of the reference have a
    label.

    Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore
    architectures", Communications of the ACM 52(4), 2009.

    Args:
        result: of kind "steps". O0 stands under the roof of float32, other opt levels under that of the half type.
    """
    check_kind(result, "steps")
    rows = [row for row in result["rows"] if "error" not in row]
    peaks = result.get("ceilings", {}).get("matmul_flops_per_second", {})
    half = next((name for name in peaks if name != "float32"), None)
    types = ["float32" if row["amp"] == "O0" else half for row in rows]
    roofs = {name: peak for name, peak in sorted(peaks.items(), key=lambda roof: -roof[1]) if name in types}
    if not roofs:
        return nothing("no ceilings were measured" if rows else "no configuration ran")
    copy = result["ceilings"]["copy_bytes_per_second"]
    x = np.array([row["flops_per_image"] / row["bytes_per_image"] for row in rows])
    y = np.array([row["flops_per_second"] for row in rows])
    figure = Picture(figsize=(10, 4.9), layout="constrained")
    ax = figure.subplots()
    ridges = [peak / copy for peak in roofs.values()]
    left, right = min(*x, *ridges) / 3, max(5 * x.max(), 3 * max(ridges))  # right of all points, room for words
    bottom, top = y.min() / 1.6, 1.6 * max(*y, *roofs.values())
    ax.set(xscale="log", yscale="log", xlim=(left, right), ylim=(bottom, top))
    style = {"textcoords": "offset points", "ha": "right", "fontsize": 8, "zorder": 4}
    style |= {"bbox": {"fc": "white", "ec": "none", "pad": 0.5}}  # over lines to labels
    for i, (name, peak) in enumerate(roofs.items()):
        ax.plot([left, peak / copy, right], [left * copy, peak, peak], color="black", lw=1.2)
        # The lower roof's words hang below it: both may be nearly as high.
        where = {"xytext": (-4, -4 if i else 4), "va": "top" if i else "bottom"}
        ax.annotate(f"matrix product, {name}: {_short(peak, 'FLOP/s')}", (right, peak), **where, **style)
    ax.annotate(f"copy: {_short(copy, 'B/s')}", (min(ridges), min(ridges) * copy), (-14, 0), **style)
    sizes, names = sorted({row["batch_size"] for row in rows}), names_of(rows)
    shares = [f"{100 * row['share_of_ceiling']:.0f} % of the ceiling" for row in rows]
    labelled = _labelled(rows)
    for i, place in zip(labelled, _apart(np.log(y[labelled] / bottom) / np.log(top / bottom), 0.11), strict=True):
        if types[i] in roofs:
            roof = min(roofs[types[i]], x[i] * copy)
            ax.plot([x[i], x[i]], [y[i], roof], ":", color=_LEVELS[rows[i]["amp"]], lw=1.2)
        ax.annotate(f"{names[i]}\n{shares[i]}, {speed(rows[i])}", (x[i], y[i]), (1.03, place), va="center",
                    textcoords="axes fraction", fontsize=8, annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.6, "relpos": (0, 0.5)})  # fmt: skip
    for row, *point in zip(rows, x, y, strict=True):
        ax.plot(*point, **_look(row, sizes))
    ax.set(xlabel="arithmetic intensity (FLOP per byte moved)", ylabel="speed of one device (FLOP/s)")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(EngFormatter())
    bare(ax, "both")
    best = max(range(len(rows)), key=lambda i: rows[i]["share_of_ceiling"])
    failed = len(result["rows"]) - len(rows)
    words = f"the best reaches {shares[best]}: {names[best]}" + f" ({failed} configurations failed)" * bool(failed)
    figure.suptitle(f"{subject(result, rows)}\n{words}", fontsize=10)
    key = _key(rows, types, sizes)
    legend_below(figure, [dot for column in key for dot in column], columns=len(key))
    return figure


def _labelled(rows: Sequence[Result]) -> list[int]:
    """Which rows get a label: all of a few, else the fastest of each opt level and of the reference."""
    fastest = {}
    for i in sorted(range(len(rows)), key=lambda i: rows[i]["images_per_second"] / rows[i]["device_num"]):
        fastest[i if len(rows) <= _LABELLED else (rows[i]["amp"], way_of(rows[i]) == "reference")] = i
    return list(fastest.values())


def _apart(places: np.ndarray, gap: float) -> list[float]:
    """Places from 0 to 1 moved until no two are nearer than `gap`, in the same order."""
    order = np.argsort(places, kind="stable")
    moved = places[order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    moved = np.minimum(moved, 1 - gap * np.arange(len(moved))[::-1])
    return moved[np.argsort(order)].tolist()


def _look(row: Result, sizes: Sequence[int]) -> dict[str, Any]:
    """Of a roofline's point: colour for the opt level, shape for the way it is run, size: batch, hollow: contiguous."""
    colour = _LEVELS.get(row["amp"], GREY)
    fill = {"mfc": colour, "mec": "white"} if row["channels_last"] else {"mfc": "none", "mec": colour, "mew": 1.5}
    size = sizes.index(row["batch_size"])  # the smaller, the farther in front
    return {"marker": WAYS[way_of(row)][1], "ls": "", "ms": 7 + 2 * size, "zorder": 3 - size / 100, **fill}


def _key(rows: Sequence[Result], types: Sequence[str | None], sizes: Sequence[int]) -> list[list[Line2D]]:
    """A legend of what `_look` tells apart in these rows: a column a property, all of one length."""
    levels = sorted({(row["amp"], kind) for row, kind in zip(rows, types, strict=True)})
    columns = [{level if kind is None else f"{level} ({kind})": {"amp": level} for level, kind in levels}]
    for name, words in (
        ("compile", {mode: said for mode, (said, _) in WAYS.items()}),
        ("channels_last", {True: "channels-last", False: "contiguous"}),
        ("batch_size", {size: f"batch {size:,}" for size in sizes}),
    ):
        there = {way_of(row) if name == "compile" else row[name] for row in rows}
        if len(there) > 1:
            columns.append({said: {name: value} for value, said in words.items() if value in there})
    usual = {"amp": None, "compile": "off", "channels_last": True, "batch_size": sizes[0]}
    dots = [[Line2D([], [], **_look(usual | own, sizes), label=said) for said, own in part.items()] for part in columns]
    longest = max(map(len, dots))
    return [part + [Line2D([], [], ls="", label=" ")] * (longest - len(part)) for part in dots]


def _short(value: float, unit: str) -> str:
    """Three digits with an SI prefix: 3.35 TB/s."""
    return EngFormatter(unit)(float(f"{value:.3g}"))


def plot_step_shares(result: Result) -> Figure:
    """Where the time of a training step goes: a panel a batch size, a bar a configuration, images/s at its end.

    To see: which part is worth mending. The device is waited for after each part, which costs time: the black
    stroke is the whole step without these waits, and images/s follow from it. Of several cards it is all that is known.

    Args:
        result: of kind "steps"; a configuration that failed shows its error.
    """
    check_kind(result, "steps")
    rows = result["rows"]
    if not rows:
        return nothing("no configuration was tried")
    groups: dict[int, list[tuple[str, Result]]] = {batch: [] for batch in sorted({row["batch_size"] for row in rows})}
    for row, name in zip(rows, names_of(rows, batch=False), strict=True):
        groups[row["batch_size"]].append((name, row))
    heights = [0.6 + 0.23 * len(group) for group in groups.values()]
    figure = Picture(figsize=(9.5, 0.9 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (batch, group) in zip(panels, groups.items(), strict=True):
        ran = {y: row for y, (_, row) in enumerate(group) if "error" not in row}
        ends = np.zeros(len(ran))
        for part, colour in _PARTS.items():
            times = np.array([1e3 * row.get("shares", {}).get(part, 0) for row in ran.values()])
            ax.barh(list(ran), times, left=ends, color=colour, height=0.72)
            ends = ends + times
        whole = np.array([1e3 * row["step_seconds"]["median"] for row in ran.values()])
        ax.vlines(whole, np.array([*ran]) - 0.42, np.array([*ran]) + 0.42, color="black", lw=1.5)
        places = dict(zip(ran, np.maximum(ends, whole).tolist(), strict=True))
        for y, (_, row) in enumerate(group):
            words = speed(row) if y in ran else textwrap.shorten(row["error"], 80, placeholder=" …")
            ax.annotate(words, (places.get(y, 0), y), (5, 0), textcoords="offset points", va="center", fontsize=8,
                        color="black" if y in ran else RED)  # fmt: skip
        ax.set_yticks(range(len(group)), [name for name, _ in group])
        ax.set(xlim=(0, 1.25 * max(places.values(), default=0.8)), ylim=(len(group) - 0.4, -0.6))
        if not ran:
            ax.set_xticks([])
        ax.set_title(f"batch {batch:,}", fontsize=9, loc="left")
        ax.xaxis.set_major_formatter("{x:,g}")
        bare(ax, "x")
    panels[-1].set_xlabel("time of a step (ms)")
    figure.suptitle(f"where the time of a training step goes: {subject(result, rows)}", fontsize=10)
    key = [Line2D([], [], color=colour, lw=7, label=part) for part, colour in _PARTS.items()]
    key.append(Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.5, label="whole step"))
    legend_below(figure, key)
    return figure


def way_of(row: Result) -> str:
    """The key in WAYS of how a step is run."""
    return "reference" if row.get("implementation") == "reference" else row["compile"]


def names_of(rows: Sequence[Result], *, batch: bool = True) -> list[str]:
    """A name a configuration: opt level, batch, compiled or not, and what else is not the same in all rows."""
    differ = [name for name in ("model", "channels_last", "device_num") if len({row[name] for row in rows}) > 1]
    names = []
    for row in rows:
        words = {"amp": row["amp"], "batch": f"batch {row['batch_size']:,}", "compile": WAYS[way_of(row)][0]}
        words["channels_last"] = "channels-last" if row["channels_last"] else "contiguous"
        words |= {"model": row["model"], "device_num": f"{row['device_num']} card" + "s" * (row["device_num"] > 1)}
        names.append(", ".join(words[name] for name in ["amp", *["batch"] * batch, *differ, "compile"]))
    return names


def subject(result: Result, rows: Sequence[Result]) -> str:
    """The networks and the device, as far as they are told."""
    models = ", ".join(dict.fromkeys(row["model"] for row in rows))
    return " on ".join(filter(None, [models, result.get("environment", {}).get("device")]))


def speed(row: Result) -> str:
    """Images per second of a row."""
    return f"{digits(row['images_per_second'])} images/s"


def digits(value: float) -> str:
    """Three digits, more only before the point: 1,432; 3.07; −0.5."""
    return (f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}").replace("-", "−")
