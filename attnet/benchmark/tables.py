"""Results of every kind as Markdown tables, readable as plain text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from attnet.base.words import NONE, table
from attnet.benchmark.grid import Setting
from attnet.benchmark.loops import PARTS

Result = Mapping[str, Any]


def result_table(result: Result) -> str:
    """The figures of a result for people: tables, and what was measured on which device."""
    head = f"{result['what']}\n{result['environment']['device']}, torch {result['environment']['torch']}"
    return f"{head}\n\n{_TABLES[result['kind']](result)}"


def number(value: float | None) -> str:
    """Three digits at least, and none behind the point that nobody needs; "–" where there is no figure."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _milliseconds(seconds: float | None) -> str:
    return number(None if seconds is None else 1e3 * seconds)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def _spread(values: Mapping[str, float]) -> str:
    return f"{number(values['median'])} ({number(values['low'])}–{number(values['high'])})"


def _steps(result: Result) -> str:
    header = ["configuration", "images/s", "step ms (low–high)", "peak GB", *(f"{part} ms" for part in PARTS)]
    header += ["first step s", "test images/s", "test % of epoch", "% of ceiling"]
    rows, failed = [], []
    for row in result["rows"]:
        name = str(Setting.of(row))
        if "error" in row:
            failed.append(f"failed: {name}: {row['error']}")
            continue
        step = _spread({end: 1e3 * row["step_seconds"][end] for end in ("median", "low", "high")})
        cells = [name, number(row["images_per_second"]), step, f"{row['peak_memory_bytes'] / 1e9:.2f}"]
        cells += [_milliseconds(row.get("shares", {}).get(part)) for part in PARTS]
        cells += [number(row.get("first_step_seconds")), number(row.get("evaluation_images_per_second"))]
        rows.append([*cells, _percent(row.get("evaluation_share")), _percent(row["share_of_ceiling"])])
    ceilings = result["ceilings"]
    products = [f"{name} {speed / 1e12:.3g}" for name, speed in ceilings["matmul_flops_per_second"].items()]
    roofs = f"ceilings: copy {ceilings['copy_bytes_per_second'] / 1e9:.3g} GB/s; matrix product, TFLOP/s: "
    return "\n".join([table(header, rows), *failed, "", roofs + ", ".join(products)])


def _versus(result: Result) -> str:
    rows = [
        [kind, number(speed), number(1e3 * result["step_seconds"][kind]["median"]),
         f"{result['peak_memory_bytes'][kind] / 1e9:.2f}"]
        for kind, speed in result["images_per_second"].items()
    ]  # fmt: skip
    imports = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in result["import_seconds"].items())
    ratio = f"reference / ours, step by step: {_spread(result['ratio'])}"
    return "\n".join([table(["steps of", "images/s", "step ms", "peak GB"], rows), "", ratio, f"import: {imports}"])


def _profile(result: Result) -> str:
    sides = result["kinds"]
    whole = {side: sum(kinds.values()) for side, kinds in sides.items()}
    names = list(dict.fromkeys(name for kinds in sides.values() for name in kinds))
    rows = [
        [name, *(cell for side in sides for cell in _time_and_share(sides[side].get(name, 0.0), whole[side]))]
        for name in names
    ]
    rows.append(["all", *(cell for side in sides for cell in _time_and_share(whole[side], whole[side]))])
    return table(["operators", *(head for side in sides for head in (f"{side}, ms", "%"))], rows)


def _time_and_share(seconds: float, whole: float) -> tuple[str, str]:
    return _milliseconds(seconds), _percent(seconds / whole)


def _losses(result: Result) -> str:
    losses = result["losses"]
    rows = [
        [str(i), *(f"{value:.6f}" for value in values)]
        for i, values in enumerate(zip(*losses.values(), strict=True), 1)
    ]
    differences = [f"{pair}: at most {x:.1e} apart" for pair, x in result["largest_relative_difference"].items()]
    return "\n".join([table(["step", *losses], rows), "", *differences])


def _ranks(result: Result) -> str:
    rows = [[name, number(statistics.median(fps)), f"{number(min(fps))}–{number(max(fps))}"]
            for name, fps in result["fps"].items()]  # fmt: skip
    efficiency = f"many / one, run by run: {_spread(result['efficiency'])}"
    return "\n".join([table(["", "images/s", "low–high"], rows), "", efficiency])


def _epoch(result: Result) -> str:
    parts = {"whole epoch": result["seconds"]}
    parts |= {name: {kind: of[name] for kind, of in result["parts"].items()} for name in ("train", "test")}
    rows = [[name, *(number(statistics.median(of[kind])) for kind in ("ours", "plain"))] for name, of in parts.items()]
    ratio = f"plain / ours, round by round: {_spread(result['ratio'])}"
    return "\n".join([table(["median seconds", "ours", "plain"], rows), "", ratio])


def _growth(result: Result) -> str:
    texts = []
    for name, curve in curves(result).items():
        rows = [[f"{x:,}", number(y), f"{number(min(all_))}–{number(max(all_))}"]
                for x, y, all_ in zip(curve["x"], curve["median"], curve["y"], strict=True)]  # fmt: skip
        fit = curve.get("fit")
        line = (
            f"{fit['intercept']:.3g} + {fit['slope']:.3g} x, r² = {fit['r2']:.4f}"
            if fit
            else "no line: less than three points"
        )
        texts.append(f"{table([name, 'median', 'low–high'], rows)}\n{line}")
    return "\n\n".join(texts)


def curves(result: Result) -> dict[str, Result]:
    """The curves of a result of kind "growth" by name."""
    return {name: value for name, value in result.items() if isinstance(value, Mapping) and "median" in value}


_TABLES = {
    "steps": _steps, "profile": _profile, "versus": _versus, "losses": _losses, "ranks": _ranks, "epoch": _epoch,
    "growth": _growth,
}  # fmt: skip
