"""Results of every kind as Markdown tables, readable as plain text; two of one kind beside each other."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attnet.base.errors import ConfigError
from attnet.base.host import DECISIVE
from attnet.base.json_files import JsonError, read_object
from attnet.base.words import NONE, table
from attnet.benchmark.loops import PARTS, Setting

Result = Mapping[str, Any]
QUIET = 3.0  # the slowest step over the fastest; more is other people's work


def result_table(result: Result) -> str:
    """The figures of a result for people: tables, and what was measured on which device."""
    head = f"{result['what']}\n{result['environment']['device']}, torch {result['environment']['torch']}"
    return f"{head}\n\n{_TABLES[result['kind']](result)}"


def busy(result: Result) -> str:
    """A warning where the machine did other work meanwhile: the slowest step of a configuration took more than three
    times as long as the fastest; "" where it was quiet."""
    found = {
        str(Setting.of(row)): row["step_seconds"]["high"] / row["step_seconds"]["low"]
        for row in result.get("rows", ())
        if "step_seconds" in row and row["step_seconds"]["low"] > 0
    }
    name = max(found, key=found.__getitem__, default="")
    if not name or found[name] <= QUIET:
        return ""
    return (
        f"WARNING: this machine was busy with other work: of {name}, the slowest step took {found[name]:.1f} times as "
        "long as the fastest. Compare nothing with these figures; measure again when it is idle, with more rounds"
    )


def number(value: float | None) -> str:
    """Three digits at least, and none behind the point that nobody needs; "–" where there is no figure."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread_words(values: Mapping[str, float], unit: float = 1.0) -> str:
    """A median and its range, times `unit`."""
    median, low, high = (number(unit * values[end]) for end in ("median", "low", "high"))
    return f"{median} ({low}–{high})"


def _milliseconds(seconds: float | None) -> str:
    return number(None if seconds is None else 1e3 * seconds)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def _steps(result: Result) -> str:
    header = ["configuration", "images/s", "step ms (low–high)", "peak GB", *(f"{part} ms" for part in PARTS)]
    header += ["first step s", "test images/s", "test % of epoch", "% of ceiling"]
    rows, failed = [], []
    for row in result["rows"]:
        name = str(Setting.of(row))
        if "error" in row:
            failed.append(f"failed: {name}: {row['error']}")
            continue
        cells = [name, number(row["images_per_second"]), spread_words(row["step_seconds"], 1e3)]
        cells += [f"{row['peak_memory_bytes'] / 1e9:.2f}"]
        cells += [_milliseconds(row.get("shares", {}).get(part)) for part in PARTS]
        cells += [number(row.get("first_step_seconds")), number(row.get("evaluation_images_per_second"))]
        rows.append([*cells, _percent(row.get("evaluation_share")), _percent(row["share_of_ceiling"])])
    ceilings = result["ceilings"]
    products = [f"{name} {speed / 1e12:.3g}" for name, speed in ceilings["matmul_flops_per_second"].items()]
    roofs = f"ceilings: copy {ceilings['copy_bytes_per_second'] / 1e9:.3g} GB/s; matrix product, TFLOP/s: "
    return "\n".join([table(header, rows), *failed, "", roofs + ", ".join(products)])


def _profile(result: Result) -> str:
    sides = result["kinds"]
    whole = {side: sum(kinds.values()) for side, kinds in sides.items()}
    names = list(dict.fromkeys(name for kinds in sides.values() for name in kinds))
    rows = []
    for name in [*names, "all"]:
        seconds = {side: kinds.get(name, 0.0) for side, kinds in sides.items()} if name != "all" else whole
        cells = ((_milliseconds(seconds[side]), _percent(seconds[side] / whole[side])) for side in sides)
        rows.append([name, *(cell for pair in cells for cell in pair)])
    return table(["operators", *(head for side in sides for head in (f"{side}, ms", "%"))], rows)


def _epoch(result: Result) -> str:
    parts = {"whole epoch": result["seconds"]}
    parts |= {name: {kind: of[name] for kind, of in result["parts"].items()} for name in ("train", "test")}
    rows = [[name, *(number(statistics.median(of[kind])) for kind in ("ours", "plain"))] for name, of in parts.items()]
    ratio = f"plain / ours, round by round: {spread_words(result['ratio'])}"
    return "\n".join([table(["median seconds", "ours", "plain"], rows), "", ratio])


def _growth(result: Result) -> str:
    texts = []
    for name, curve in _curves(result).items():
        rows = [
            [f"{x:,}", number(median), f"{number(min(values))}–{number(max(values))}"]
            for x, median, values in zip(curve["x"], curve["median"], curve["y"], strict=True)
        ]
        line = "no line: less than three points"
        if fit := curve.get("fit"):
            line = f"{fit['intercept']:.3g} + {fit['slope']:.3g} x, r² = {fit['r2']:.4f}"
        texts.append(f"{table([name, 'median', 'low–high'], rows)}\n{line}")
    return "\n\n".join(texts)


def _curves(result: Result) -> dict[str, Result]:
    """Name -> curve, of a result of kind "growth"."""
    return {name: value for name, value in result.items() if isinstance(value, Mapping) and "x" in value}


_TABLES = {"steps": _steps, "profile": _profile, "epoch": _epoch, "growth": _growth}

# -- two of them ---------------------------------------------------------------------------------------------------


def read_result(path: Path) -> dict[str, Any]:
    """The object of a result file.

    Raises:
        ConfigError: no such file, or no JSON object in it.
    """
    try:
        return read_object(path)
    except JsonError as error:
        raise ConfigError(f"{error}; give a file made with --output") from None


def compare(a: Result, b: Result) -> str:
    """A Markdown table of two results, figure by figure; ratios are B over A.

    Args:
        a, b: objects of result files, both of kind "steps", "epoch" or "growth".

    Raises:
        ConfigError: results of different kinds, or of a kind that is not compared.
    """
    kind = a.get("kind")
    if kind != b.get("kind"):
        raise ConfigError(f"A is of kind {kind!r}, B of kind {b.get('kind')!r}: only two of the same kind compare")
    if kind not in _FIGURES:
        raise ConfigError(f"results of kind {kind!r} are not compared; give two of {', '.join(_FIGURES)}")
    lines = [f"{name}: {_machine(result)}" for name, result in (("A", a), ("B", b))]
    here, there = _conditions(a), _conditions(b)
    for name in (name for name in here if name in there and here[name] != there[name]):
        lines.append(f"Warning: {name} differs: {here[name]} in A, {there[name]} in B; the ratios show that as well.")
    here, there = (dict(_FIGURES[kind](result)) for result in (a, b))
    rows = [[name, number(x), number(there[name]), _ratio(x, there[name])] for name, x in here.items() if name in there]
    for side, mine, other in (("A", here, there), ("B", there, here)):
        if only := [name for name in mine if name not in other]:
            lines.append(f"Only in {side}: {'; '.join(only)}")
    return "\n".join([*lines, "", table(["median", "A", "B", "B / A"], rows)])


def _machine(result: Result) -> str:
    environment = result.get("environment", {})
    return f"{environment.get('device')}, torch {environment.get('torch')}, {result.get('date')}"


def _conditions(result: Result) -> dict[str, object]:
    """What figures depend on: the machine, and every plain value that says what was measured."""
    found = {name: result.get("environment", {}).get(name) for name in DECISIVE}
    for prefix, values in {"": result, **{f"{name}: ": curve for name, curve in _curves(result).items()}}.items():
        plain = {name: value for name, value in values.items() if isinstance(value, str | int | float)}
        found |= {prefix + name: value for name, value in plain.items() if name not in _ABOUT}
    return found


_ABOUT = ("kind", "what", "date", "command", "rounds")


def _ratio(a: float | None, b: float | None) -> str:
    return NONE if not a or b is None else f"{b / a:.2f}"


def _steps_figures(result: Result) -> Iterator[tuple[str, float | None]]:
    for row in result["rows"]:
        yield f"{Setting.of(row)}: images/s", row.get("images_per_second")
        memory = row.get("peak_memory_bytes")
        yield f"{Setting.of(row)}: peak GB", None if memory is None else memory / 1e9


def _epoch_figures(result: Result) -> Iterator[tuple[str, float | None]]:
    for kind in ("ours", "plain"):
        parts = result["parts"][kind]
        values = {"s": result["seconds"][kind], "s training": parts["train"], "s testing": parts["test"]}
        for unit, all_ in (values | {"Top-1, %": result["top1"][kind]}).items():
            yield f"{kind}, {unit}", statistics.median(all_)
    yield "plain / ours", result["ratio"]["median"]


def _growth_figures(result: Result) -> Iterator[tuple[str, float | None]]:
    for name, curve in _curves(result).items():
        for x, y in zip(curve["x"], curve["median"], strict=True):
            yield f"{name}, x = {x:,}", y
        if curve.get("fit"):
            yield f"{name}, slope", curve["fit"]["slope"]


_FIGURES = {"steps": _steps_figures, "epoch": _epoch_figures, "growth": _growth_figures}
