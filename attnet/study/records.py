"""Results on record: a run as one JSON file with its command, and the files of data/results/ as rows.

What is no row is named, with a line of what it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from attnet.base.files.outputs import command_line
from attnet.base.files.paths import relative_to_root, resolve_path
from attnet.base.json_files import JsonError, read_object
from attnet.base.words import table
from attnet.engine.parameters import TrainConfig
from attnet.engine.result import Result, problem, standing
from attnet.engine.run_folder import CONFIG, RESULT
from attnet.study.rows import Row, on_what

Content = Mapping[str, Any]
RESULTS = "data/results"


def record(run: str | Path, reach: float | None = None) -> dict[str, object]:
    """What result.json and metrics.jsonl hold, with the command that trains the same again, ready for JSON.

    Args:
        run: folder of a finished run; a relative path starts at the repository root.
        reach: Top-1, per cent, whose first epoch is looked for.

    Returns:
        Among the run's figures, `seconds` of training and testing in all, of the first step's compiling too, but
        without the start of the process, and `processor_seconds` of every rank's process, without compilers beside
        it and what a kill lost after the last checkpoint; `history`, a row an epoch;
        `reached`, with `reach`: the first epoch at least that good, its `top1`, and the `seconds` until its end, or
        None.

    Raises:
        AttnetError: a folder without a finished run.
    """
    folder = resolve_path(run)
    result = Result.load(folder)
    config = TrainConfig.load(folder / CONFIG)
    processor = [row.get("processor_seconds") for row in result.history]  # None in runs from before it was kept
    data_path = relative_to_root(resolve_path(config.data_path))
    config = config.replace(output_dir="", resume="", progress="auto", data_path=data_path)
    content = {
        "kind": "training",
        **result.to_json(),
        "seconds": sum(row["seconds"] for row in result.history),
        "processor_seconds": None if None in processor else sum(processor),
        "history": result.history,
        "command": command_line("train", config.flags()),
        "date": date.fromtimestamp((folder / RESULT).stat().st_mtime).isoformat(),
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


# -- reading them -------------------------------------------------------------------------------------------------


def read_record(file: Path) -> tuple[dict[str, Any], str]:
    """A record's content, and "" or a sentence on why it cannot be read."""
    try:
        return read_object(file), ""
    except JsonError as error:
        return {}, f"left out: {error}"


def records(kind: str, folder: str | Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Name -> content of every record of a kind ("training", "steps", "ablation" ...) that can be read."""
    found = {file.stem: read_record(file)[0] for file in sorted(resolve_path(folder).glob("*.json"))}
    return {name: content for name, content in found.items() if content.get("kind") == kind}


@dataclass(frozen=True)
class Records:
    """What a folder of records holds: `rows`; name -> content of the `others`; sentences on damaged files."""

    rows: tuple[Row, ...]
    others: Mapping[str, Content]
    warnings: tuple[str, ...]


def read_records(folder: str | Path = RESULTS) -> Records:
    """Every *.json of a folder (data/results/), as rows where it is a training, measures training steps, or gives
    means over seeds; a kind that is not known, or is of another form, is among the others."""
    rows, others, warnings = [], {}, []
    for file in sorted(resolve_path(folder).glob("*.json")):
        content, problem = read_record(file)
        if problem:
            warnings.append(problem)
            continue
        try:
            found = _FORMS.get(str(content.get("kind")), _means)(content, file)
        except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
            warnings.append(
                f"{relative_to_root(file)}: no row, since it is not as records of kind {content.get('kind')!r} are "
                f"({type(error).__name__}: {error})"
            )
            found = []
        rows += found
        if not found:
            others[file.stem] = content
    return Records(tuple(rows), others, tuple(warnings))


def others_table(others: Mapping[str, Content]) -> str:
    """A Markdown table of the records that are no rows: name, kind, date, what."""
    lines = [[name, *(content.get(key) for key in ("kind", "date", "what"))] for name, content in others.items()]
    return table(("Record", "Kind", "Date", "What"), lines, words=range(4))


def _training(content: Content, file: Path) -> list[Row]:
    """A run. `history_before` holds the epochs of a run whose weights it went on with."""
    before, history = content.get("history_before", []), content["history"]
    history = before + [row | {"epoch": len(before) + row["epoch"]} for row in history]
    fields = {f.name: content[f.name] for f in dataclasses.fields(Result) if f.name in content}
    if wrong := problem(fields):
        raise ValueError(wrong)
    fields |= {"history": history, "epochs": len(before) + content["epochs"], "output_dir": Path()}
    notes = [f"{len(before)} + {content['epochs']} epochs"] if before else []
    if before:  # both parts are ours: it began at the beginning
        fields["parameters"] = content["parameters"] | {"is_pretrain": False}
    return [Row.of(Result(**fields), name=file.stem, where=f"record {file.stem}", day=content["date"], notes=notes)]


def _steps(content: Content, file: Path) -> list[Row]:
    """Training steps alone: the fastest way (memory format, compiled or not) of each network, batch, amp and number of
    cards; the others, and those of the reference's implementation, stay in the record."""
    best: dict[tuple, Content] = {}
    for row in content["rows"]:
        subject = (row["model"], row["batch_size"], row["amp"], row.get("device_num", 1))
        speed = row.get("images_per_second")
        if speed is None or row.get("implementation", "ours") != "ours":
            continue
        if subject not in best or speed > best[subject]["images_per_second"]:
            best[subject] = row
    return [_speed(content, file, row, row["images_per_second"]) for row in best.values()]


def _speed(content: Content, file: Path, setting: Content, speed: float) -> Row:
    environment = content["environment"]
    ways = ["channels-last" if setting.get("channels_last", True) else "contiguous"]
    ways += ["compiled"] * (setting.get("compile", "off") != "off")
    kind, why = standing({}, environment, {})
    # Records that do not name their device type are from before there was any but the CPU.
    device = f"{str(environment.get('device_type', 'CPU')).lower()}_{setting.get('device_num', 1)}p"
    return Row(
        kind,
        file.stem,
        f"record {file.stem}",
        setting["model"],
        "",
        fps=speed,
        amp=setting["amp"],
        device=device,
        batch_size=setting["batch_size"],
        **on_what(environment),
        date=content["date"],
        notes=(*why, "training steps alone", *ways),
    )


def _means(content: Content, file: Path) -> list[Row]:
    """Rows with means over seeds (an ablation, a sweep), where the record says what was trained, and on which data."""
    lines = [row for row in (content.get("baseline"), *content.get("rows", ())) if row and row.get("mean") is not None]
    return [Row.of_mean(row, content, file) for row in lines if row.get("result")]


# What is not here is looked through for means over seeds.
_FORMS: dict[str, Callable[[Content, Path], list[Row]]] = {"training": _training, "steps": _steps, "versus": _steps}
