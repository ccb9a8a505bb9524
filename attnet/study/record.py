"""`attnet report --record RUN_FOLDER FILE`: a finished run as one JSON file for data/results/, with its command.

attnet train --mode full --recipe fast94 --output_dir runs/fast94 --resume auto
attnet report --record runs/fast94 data/results/time_to_94.json --reach 94.3
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from attnet.base.errors import AttnetError, in_sentences
from attnet.base.files import relative_to_root, resolve_path, write_text
from attnet.engine.parameters import TrainConfig
from attnet.engine.run_folder import Result


def record(run: str | Path, reach: float | None = None) -> dict[str, object]:
    """What result.json and metrics.jsonl hold, with the command that trains the same again, ready for JSON.

    Args:
        run: folder of a finished run; a relative path starts at the repository root.
        reach: Top-1, per cent, whose first epoch is looked for.

    Returns:
        Among the run's figures, `seconds` of training and testing in all, of the first step's compiling too, but
        without the start of the process; `history`, a row an epoch; `reached`, with `reach`: the first epoch at
        least that good, its `top1`, and the `seconds` until its end, or None.

    Raises:
        AttnetError: a folder without a finished run.
    """
    folder = resolve_path(run)
    result = Result.load(folder)
    config = TrainConfig.load(folder / "config.json")
    config = config.replace(output_dir="", resume="", progress="auto", data_path=_shortened(config.data_path))
    content = {
        "kind": "training",
        **result.to_json(),
        "seconds": sum(row["seconds"] for row in result.history),
        "history": result.history,
        "command": "attnet train " + shlex.join(config.flags()),
        "date": date.fromtimestamp((folder / "result.json").stat().st_mtime).isoformat(),
    }
    return content if reach is None else content | {"reach": reach, "reached": reached(result.history, reach)}


def reached(history: Sequence[Mapping[str, float]], top1: float) -> dict[str, float] | None:
    """The first epoch with at least that Top-1 (per cent) and the seconds until its end; None when there is none."""
    seconds = 0.0
    for row in history:
        seconds += row["seconds"]
        if row["top1"] >= top1:
            return {"epoch": row["epoch"], "top1": row["top1"], "seconds": seconds}
    return None


def _shortened(path: str) -> str:
    return relative_to_root(resolve_path(path))


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 after a sentence when it cannot be done."""
    parser = argparse.ArgumentParser(prog="attnet report --record", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("file", help="the JSON file to write, e.g. data/results/best.json")
    parser.add_argument("--reach", type=float, help="Top-1 (per cent) whose first epoch, and time until then, is noted")
    words = parser.parse_args(arguments)
    content = record(words.run, words.reach)
    file = resolve_path(words.file)
    if not file.parent.is_dir():
        raise AttnetError(f"{file}: there is no folder {file.parent}; make it, or name another")
    write_text(file, json.dumps(content, indent=2) + "\n")
    line = f"{relative_to_root(file)}: Top-1 {content['top1']:.2f} %, {content['epochs']} epochs, "
    line += f"{content['seconds']:.0f} s"
    if words.reach is not None:
        found = content["reached"]
        line += f"; {words.reach:g} % " + (f"after {found['seconds']:.0f} s" if found else "not reached")
    print(line)
    return 0
