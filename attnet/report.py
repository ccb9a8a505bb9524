"""Run folders as rows of the document's result table, with the published rows beside them, never instead."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from attnet.errors import AttnetError, ConfigError
from attnet.paths import relative_to_root, resolve_path
from attnet.result import Result

COLUMNS = ("Top-1 (%)", "FPS (images/s)", "Epochs", "AMP", "Device", "Bs", "Network", "Data", "Source")


def records(kind: str) -> dict[str, dict]:
    """Name -> content of every measured result under data/results/ of a kind: "steps", "epoch", "ablation" ..."""
    files = sorted(resolve_path("data/results").glob("*.json"))
    found = {path.stem: json.loads(path.read_text()) for path in files}
    return {name: content for name, content in found.items() if content.get("kind") == kind}


@dataclass(frozen=True)
class Row:
    """One line of the table; None where a source gives no figure. Top-1 in per cent, FPS in images/s."""

    top1: float | None
    fps: float | None
    epochs: int | None
    amp: str
    device: str
    batch_size: int | None
    model: str
    dataset: str
    source: str

    @classmethod
    def of(cls, result: Result) -> Row:
        """The row of a run of ours."""
        fields = ("top1", "fps", "epochs", "amp", "device", "batch_size", "model", "dataset")
        return cls(
            **{name: getattr(result, name) for name in fields},
            source=f"measured: {relative_to_root(result.output_dir)}",
        )

    def cells(self) -> tuple[str, ...]:
        """The row as text, "–" where there is no figure."""
        top1 = "–" if self.top1 is None else f"{self.top1:.2f}"
        fps = "–" if self.fps is None else f"{self.fps:,.0f}"
        rest = (self.epochs, self.amp, self.device, self.batch_size, self.model, self.dataset, self.source)
        return (top1, fps, *("–" if value in (None, "") else str(value) for value in rest))


def _document(top1: float | None, fps: int, epochs: int, device: str, batch_size: int) -> Row:
    source = "published: the document, table 2"
    return Row(top1, fps, epochs, "O2", device, batch_size, "attention92", "cifar10", source)


# 3d_attention_net for PyTorch, table 2.
DOCUMENT = (
    _document(None, 1432, 1, "npu_1p", 512),
    _document(85.48, 9587, 300, "npu_8p", 512),
    _document(None, 1396, 1, "gpu_1p", 512),
    _document(85.37, 8342, 300, "gpu_8p", 512),
    _document(94.13, 723, 300, "npu_8p", 32),
    _document(94.32, 2461, 300, "gpu_8p", 32),
)


def result_table(results: Sequence[Result | Row]) -> str:
    """A Markdown table, readable as plain text, of runs and published rows in the order given."""
    rows = [row if isinstance(row, Row) else Row.of(row) for row in results]
    lines = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    padded = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines]
    return "\n".join([padded[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *padded[1:]])


def finished_runs(*folders: Path) -> list[Path]:
    """Folders of finished runs at or below `folders`, each once, oldest first."""
    found = {path.parent for folder in folders for path in folder.rglob("result.json")}
    return sorted(found, key=lambda path: (path / "result.json").stat().st_mtime)


def scaling(result: Result, runs: str | Path = "runs") -> str:
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
        for single in map(Result.load, finished_runs(resolve_path(runs)))
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


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m attnet.report [FOLDER …] [--newest FOLDER] [--published]`."""
    parser = argparse.ArgumentParser(prog="python -m attnet.report", description="Tables from run folders.")
    parser.add_argument("folders", nargs="*", default=[], help="run folders, or folders of them (default runs)")
    parser.add_argument("--newest", action="store_true", help="only the run that finished last")
    parser.add_argument("--published", action="store_true", help="the document's rows as well")
    options = parser.parse_args(arguments)
    try:
        print(_report(options.folders or ["runs"], options.newest, options.published))
    except AttnetError as error:
        print(f"attnet: {error}", file=sys.stderr)
        return 2
    return 0


def _report(folders: Sequence[str], newest: bool, published: bool) -> str:
    paths = finished_runs(*map(resolve_path, folders))
    if not paths:
        raise ConfigError(f"no finished run (result.json) below {', '.join(folders)}; make one with `make run`")
    results = [Result.load(path) for path in (paths[-1:] if newest else paths)]
    return result_table([*results, *(DOCUMENT if published else ())])


if __name__ == "__main__":
    sys.exit(main())
