"""Run folders: which are finished, what they say, and how well a run used its cards."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

from attnet.base.errors import AttnetError
from attnet.base.files import relative_to_root, resolve_path
from attnet.engine.run_folder import Result

RUNS = "runs"


def finished_runs(*folders: Path) -> list[Path]:
    """Folders of finished runs at or below `folders`, each once, oldest first."""
    found = {path.parent for folder in folders for path in folder.rglob("result.json")}
    return sorted(found, key=lambda path: (path / "result.json").stat().st_mtime)


def read_runs(folders: Iterable[Path]) -> tuple[list[Result], list[str]]:
    """The results of run folders, and a sentence on each that is damaged."""
    results, warnings = [], []
    for folder in folders:
        try:
            results.append(Result.load(folder))
        except AttnetError as error:
            warnings.append(f"left out: {error}")
    return results, warnings


def scaling(result: Result, runs: str | Path = RUNS) -> str:
    """How well a run used its cards, in plain lines: each card's throughput, and the efficiency of them together.

    Efficiency is FPS over that many times the FPS of one card, taken from the newest one-card run below `runs`
    of the same network, data, batch size and precision on the same processor.
    """
    ranks = [row["rank_fps"] for row in result.history if "rank_fps" in row]
    if not ranks:
        return "one card: nothing to compare"
    each = [statistics.median(values) for values in zip(*ranks, strict=True)]
    lines = [
        f"{len(each)} cards: {', '.join(f'{fps:,.0f}' for fps in each)} images/s each, {result.fps:,.0f} together",
        f"balance (slowest over mean): {min(each) / statistics.mean(each):.3f}",
    ]
    alike = ("model", "dataset", "batch_size", "amp")
    singles = [
        single
        for single in read_runs(finished_runs(resolve_path(runs)))[0]
        if single.device == result.device.split("_")[0] + "_1p"
        and single.fps
        and all(getattr(single, name) == getattr(result, name) for name in alike)
        and single.environment["device"] == result.environment["device"]
    ]
    if not singles:
        lines.append("scaling efficiency: unknown, since no one-card run with the same settings is below runs/")
    else:
        efficiency = result.fps / (len(each) * singles[-1].fps)
        folder = relative_to_root(singles[-1].output_dir)
        lines.append(f"scaling efficiency: {efficiency:.3f} of one card's {singles[-1].fps:,.0f} images/s ({folder})")
    return "\n".join(lines)
