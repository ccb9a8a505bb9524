"""A sweep as a file: JSON with everything, CSV with a line a run, or the Markdown table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import date

from attnet.base import device as devices
from attnet.base.errors import ConfigError
from attnet.base.files import resolve_path
from attnet.study.sweep import Sweep
from attnet.study.sweep_table import sweep_table

WHAT = (
    "A row a configuration, a run a configuration and seed. top1 is the last epoch's on the test images, not the best "
    "epoch's, in per cent; intervals are 95 %, by Student's t over seeds."
)
FORMS = (".json", ".csv", ".md")
Rows = Sequence[Mapping[str, object]]


def sweep_record(sweep: Sweep, rows: Rows, command: str) -> dict[str, object]:
    """What `sweep.run` returned, with every run, the environment and the command that made it, ready for JSON."""
    results = sweep.results()
    every = [result for by_seed in results.values() for result in by_seed.values()]
    config = next(iter(sweep.configs.values()))
    return {
        "kind": "sweep",
        "what": WHAT,
        "seeds": list(sweep.seeds),
        "rows": list(rows),
        "runs": _runs(sweep),
        "environment": every[-1].environment
        if every
        else devices.environment(devices.choose(config.device_type, config.device_id)),
        "command": command,
        "date": date.today().isoformat(),
    }


def as_csv(sweep: Sweep) -> str:
    """A line a run: name, seed, the parameters that the configurations do not share, figures, folder.

    A parameter left open and the figures of a run that is not finished are empty.
    """
    runs = _runs(sweep)
    names = dict.fromkeys(name for row in runs for name in row["changed"])
    rows = [{key: row[key] for key in ("name", "seed")} | {name: "" for name in names} | row for row in runs]
    for row in rows:
        config = sweep.configs[row["name"]]
        row |= {name: getattr(config, name) for name in names}
        del row["changed"]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def check_output(output: str) -> None:
    """Make the folder of `output`, before the hours and not after; ConfigError for a suffix that is not in FORMS."""
    if not output.endswith(FORMS):
        raise ConfigError(f"output={output!r}: a name that ends in {', '.join(FORMS)} is needed")
    folder = resolve_path(output).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output={output!r}: {folder} cannot be made ({error.strerror}); give another") from None


def as_text(sweep: Sweep, rows: Rows, command: str, form: str) -> str:
    """The content of a file of that suffix."""
    if form == ".csv":
        return as_csv(sweep)
    if form == ".md":
        return f"{sweep_table(rows)}\n\n`{command}`, {date.today().isoformat()}\n"
    return json.dumps(sweep_record(sweep, rows, command), indent=2, ensure_ascii=False) + "\n"


def _runs(sweep: Sweep) -> list[dict[str, object]]:
    """Every run with its figures, None where it is not finished."""
    results, changed, found = sweep.results(), sweep.changed(), []
    for run in sweep.runs():
        result = results[run.name].get(run.config.seed)
        what = ("dataset", "model", "epochs", "batch_size", "amp", "device")
        found.append(
            {
                "name": run.name,
                "seed": run.config.seed,
                "changed": changed[run.name],
                **{name: result and getattr(result, name) for name in what},
                "top1_last": result and result.last_top1,
                "top1_best": result and result.top1,
                "fps": result and result.fps,
                "seconds": result and sum(row["seconds"] for row in result.history),
                "folder": run.config.output_dir,
            }
        )
    return found
