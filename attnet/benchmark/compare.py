"""Two results of the same kind beside each other: before and after a change, one machine and another."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnet.base.device import DECISIVE
from attnet.base.errors import ConfigError
from attnet.base.words import NONE, table
from attnet.benchmark.grid import Setting
from attnet.benchmark.tables import curves, number

Result = Mapping[str, Any]


def compare(a: Result, b: Result) -> str:
    """A Markdown table of two results, matched by configuration; ratios are B over A.

    Args:
        a, b: objects of result files, both of kind "steps", "epoch" or "growth".

    Raises:
        ConfigError: results of different kinds, or of a kind that is not compared.
    """
    kinds = [result.get("kind") for result in (a, b)]
    if kinds[0] != kinds[1]:
        raise ConfigError(f"A is of kind {kinds[0]!r}, B of kind {kinds[1]!r}: only two of the same kind compare")
    if kinds[0] not in _COMPARED:
        raise ConfigError(f"results of kind {kinds[0]!r} are not compared; give two of {', '.join(_COMPARED)}")
    lines = [f"{name}: {_machine(result)}" for name, result in (("A", a), ("B", b))]
    for name in DECISIVE:
        here, there = (result.get("environment", {}).get(name) for result in (a, b))
        if here != there:
            lines.append(f"Warning: {name} differs: {here} in A, {there} in B; the ratios show that as well.")
    return "\n".join([*lines, "", *_COMPARED[kinds[0]](a, b)])


def read_result(path: Path) -> dict[str, Any]:
    """The object of a result file.

    Raises:
        ConfigError: no such file, or no JSON object in it.
    """
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not a readable result file ({error})") from error
    if not isinstance(result, dict):
        raise ConfigError(f"{path}: holds no result, but a {type(result).__name__}; give a file made with --output")
    return result


def _machine(result: Result) -> str:
    environment = result.get("environment", {})
    return f"{environment.get('device')}, torch {environment.get('torch')}, {result.get('date')}"


def _ratio(a: float | None, b: float | None) -> str:
    return NONE if a is None or b is None or not a else f"{b / a:.2f}"


def _only(names: Mapping[str, Sequence[object]]) -> list[str]:
    return [f"Only in {name}: {item}" for name, items in names.items() for item in items]


def _steps(a: Result, b: Result) -> list[str]:
    mine, theirs = ({Setting.of(row): row for row in result["rows"]} for result in (a, b))
    cells = []
    for setting in (setting for setting in mine if setting in theirs):
        rows = (mine[setting], theirs[setting])
        speeds, memories = ([row.get(name) for row in rows] for name in ("images_per_second", "peak_memory_bytes"))
        shown = ["failed" if "error" in row else number(speed) for row, speed in zip(rows, speeds, strict=True)]
        cells.append([str(setting), *shown, _ratio(*speeds), _ratio(*memories)])
    header = ["configuration", "A images/s", "B images/s", "B / A", "memory B / A"]
    only = {"A": [s for s in mine if s not in theirs], "B": [s for s in theirs if s not in mine]}
    return [table(header, cells), *_only(only)]


def _epoch(a: Result, b: Result) -> list[str]:
    lines = [
        f"Warning: {name} differs: {a.get(name)} in A, {b.get(name)} in B; these are different epochs."
        for name in ("model", "batch_size", "amp", "memory_format", "compile", "train_images", "test_images", "workers")
        if a.get(name) != b.get(name)
    ]
    cells = []
    for kind in ("ours", "plain"):
        for unit, place in (("s", "seconds"), ("s training", "train"), ("s testing", "test"), ("Top-1, %", "top1")):
            values = [result["parts"][kind][place] if place in ("train", "test") else result[place][kind]
                      for result in (a, b)]  # fmt: skip
            medians = [statistics.median(value) for value in values]
            cells.append([f"{kind}, {unit}", *map(number, medians), _ratio(*medians)])
    ratios = [result["ratio"]["median"] for result in (a, b)]
    cells.append(["plain / ours", *map(number, ratios), _ratio(*ratios)])
    return [*lines, table(["median", "A", "B", "B / A"], cells)]


def _growth(a: Result, b: Result) -> list[str]:
    mine, theirs = curves(a), curves(b)
    cells, lines = [], []
    for name in (name for name in mine if name in theirs):
        here, there = mine[name], theirs[name]
        if differing := [
            key for key in ("model", "batch_size", "global_batch_size") if here.get(key) != there.get(key)
        ]:
            key = differing[0]
            lines.append(f"Warning: {name}: {key} differs: {here.get(key)} in A, {there.get(key)} in B.")
        points = [dict(zip(curve["x"], curve["median"], strict=True)) for curve in (here, there)]
        for x in (x for x in points[0] if x in points[1]):
            values = [of[x] for of in points]
            cells.append([f"{name}, x = {x:,}", *map(number, values), _ratio(*values)])
        if here.get("fit") and there.get("fit"):
            slopes = [curve["fit"]["slope"] for curve in (here, there)]
            cells.append([f"{name}, slope", *(f"{slope:.3g}" for slope in slopes), _ratio(*slopes)])
    only = {"A": [name for name in mine if name not in theirs], "B": [name for name in theirs if name not in mine]}
    return [*lines, table(["curve", "A", "B", "B / A"], cells), *_only(only)]


_COMPARED = {"steps": _steps, "epoch": _epoch, "growth": _growth}
