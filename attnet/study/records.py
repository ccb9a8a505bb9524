"""The records of data/results/ as rows; what is no row is named, with a line of what it is."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnet.base.files import relative_to_root, resolve_path
from attnet.base.words import table
from attnet.benchmark.grid import Setting
from attnet.engine.run_folder import Result
from attnet.model.variants import choose_variant, study_options
from attnet.study.rows import Row, kind_of

Content = Mapping[str, Any]
RESULTS = "data/results"


def read_record(file: Path) -> tuple[dict[str, Any], str]:
    """A record's content, and "" or a sentence on why it cannot be read."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        return {}, f"{relative_to_root(file)}: left out, since it cannot be read ({error})"
    return (content, "") if isinstance(content, dict) else ({}, f"{relative_to_root(file)}: left out, no JSON object")


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
        except (AttributeError, KeyError, TypeError, ValueError) as error:
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
    """A run, as `attnet.study.record` writes it. `history_before` holds the epochs of a run whose weights it went on with."""
    before, history = content.get("history_before", []), content["history"]
    history = before + [row | {"epoch": len(before) + row["epoch"]} for row in history]
    fields = {f.name: content[f.name] for f in dataclasses.fields(Result) if f.name in content}
    fields |= {"history": history, "epochs": len(before) + content["epochs"], "output_dir": Path()}
    asked = asked_by(content["command"])
    notes = [f"{len(before)} + {content['epochs']} epochs"] if before else []
    asked |= {"is_pretrain": False} if before else {}
    day = content["date"]
    return [Row.of(Result(**fields), name=file.stem, where=f"record {file.stem}", asked=asked, day=day, notes=notes)]


def asked_by(command: str) -> dict[str, str]:
    """The parameters that a recorded command gives, as `--name value` or papermill's `-p name value`."""
    words = shlex.split(command, comments=True)
    found = {word[2:]: value for word, value in itertools.pairwise(words) if word.startswith("--")}
    return found | {name: value for p, name, value in zip(words, words[1:], words[2:], strict=False) if p == "-p"}


def _steps(content: Content, file: Path) -> list[Row]:
    """Training steps alone: the fastest way (memory format, compiled or not) of each network, batch, amp and number of
    cards; the others, and those of the reference's implementation, stay in the record."""
    best: dict[Setting, float] = {}
    for row in content["rows"]:
        setting = Setting.of(row)
        alike = [other for other in best if _alike(other) == _alike(setting)]
        speed = row.get("images_per_second")
        if speed is None or setting.implementation != "ours" or any(best[other] >= speed for other in alike):
            continue
        best = {other: value for other, value in best.items() if other not in alike} | {setting: speed}
    return [_speed(content, file, setting, speed) for setting, speed in best.items()]


def _alike(setting: Setting) -> tuple[object, ...]:
    return setting.model, setting.batch_size, setting.amp, setting.device_num


def _versus(content: Content, file: Path) -> list[Row]:
    setting = Setting(content["model"], content["batch_size"], content["amp"])
    return [_speed(content, file, setting, content["images_per_second"]["ours"])]


def _speed(content: Content, file: Path, setting: Setting, speed: float) -> Row:
    environment = content["environment"]
    device = _device(environment, setting.device_num)
    kind, why = kind_of("", environment, {})
    ways = ["channels-last" if setting.channels_last else "contiguous"] + ["compiled"] * (setting.compile != "off")
    return Row(
        kind,
        file.stem,
        f"record {file.stem}",
        setting.model,
        "",
        fps=speed,
        amp=setting.amp,
        device=device,
        batch_size=setting.batch_size,
        card=environment["device"],
        torch=environment["torch"],
        date=content["date"],
        notes=(*why, "training steps alone", *ways),
    )


def _device(environment: Content, cards: object) -> str:
    """As in `Result`; records that do not name their device type are from before there was any but the CPU."""
    return f"{str(environment.get('device_type', 'CPU')).lower()}_{cards}p"


def _means(content: Content, file: Path) -> list[Row]:
    """Rows with means over seeds (an ablation, a sweep), where the record says what was trained, and on which data."""
    lines = [row for row in (content.get("baseline"), *content.get("rows", ())) if row and row.get("mean") is not None]
    rows = [_mean(content, file, row) for row in lines]
    return [row for row in rows if row is not None]


def _mean(content: Content, file: Path, row: Content) -> Row | None:
    """What a row of a record was trained with is told by its `budget`, by its own `changed` parameters and `dataset`,
    and by its first run, where `runs` are listed."""
    asked = {**content.get("budget", {}), **row["changed"]}
    run = next((run for run in content.get("runs", ()) if run["name"] == row["name"] and run["model"]), {})
    dataset = run.get("dataset") or row.get("dataset") or asked.get("dataset")
    if not dataset or not ("model" in run or "model" in asked):
        return None
    if asked.get("label_noise") and "label noise" not in dataset:
        dataset += f" (label noise {100 * asked['label_noise']:g} %)"
    environment = content["environment"]
    asked_for = asked_by(content["command"]) | asked
    device = run.get("device") or asked.get("device") or _device(environment, asked_for.get("device_num", 1))
    kind, why = kind_of(dataset, environment, asked_for)
    seeds = len([value for value in row["top1"] if value is not None])
    return Row(
        kind,
        f"{file.stem}: {row['name']}",
        f"record {file.stem}, {row['name']}",
        run.get("model") or choose_variant(asked["model"], **study_options(asked)).label,
        dataset,
        **{"top1": row["mean"], "low": row.get("low"), "high": row.get("high"), "seeds": seeds},
        fps=row.get("fps"),
        epochs=run.get("epochs") or asked.get("total_epochs"),
        amp=run.get("amp") or asked.get("amp", ""),
        device=device,
        batch_size=run.get("batch_size") or asked.get("train_batch_size"),
        card=environment["device"],
        torch=environment["torch"],
        date=content["date"],
        notes=(*why, f"mean of {seeds} seed{'s' * (seeds != 1)}, last epoch"),
    )


# What is not here is looked through for means over seeds.
_FORMS: dict[str, Callable[[Content, Path], list[Row]]] = {"training": _training, "steps": _steps, "versus": _versus}
