"""The roofline figure of what `attnet benchmark` measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from attnet.plots.figure import BLUE, GREEN, GREY, ORANGE, RED, Picture, nothing
from attnet.plots.performance import WAYS, Row, bare, check_kind, names_of, speed, subject, way_of

_LEVELS = {"O0": BLUE, "O1": GREEN, "O2": ORANGE, "O3": RED}
_LABELLED = 6  # configurations that all get a label; of more, the fastest of each opt level


def plot_roofline(result: Row) -> Figure:
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
    dots = [dot for column in key for dot in column]
    figure.legend(handles=dots, loc="outside lower center", ncols=len(key), frameon=False, fontsize=8)
    return figure


def _labelled(rows: Sequence[Row]) -> list[int]:
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


def _look(row: Row, sizes: Sequence[int]) -> dict[str, Any]:
    """Of a roofline's point: colour for the opt level, shape for the way it is run, size: batch, hollow: contiguous."""
    colour = _LEVELS.get(row["amp"], GREY)
    fill = {"mfc": colour, "mec": "white"} if row["channels_last"] else {"mfc": "none", "mec": colour, "mew": 1.5}
    size = sizes.index(row["batch_size"])  # the smaller, the farther in front
    return {"marker": WAYS[way_of(row)][1], "ls": "", "ms": 7 + 2 * size, "zorder": 3 - size / 100, **fill}


def _key(rows: Sequence[Row], types: Sequence[str | None], sizes: Sequence[int]) -> list[list[Line2D]]:
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
