"""Running a study, and its record, ready for JSON: every row with its difference, paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date

from attnet.base import device as devices
from attnet.base.errors import AttnetError, ConfigError
from attnet.base.host import environment
from attnet.base.words import listed, listed_seeds
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan
from attnet.engine.recipes import MODES, recipe_name
from attnet.engine.result import Result
from attnet.model.variants import choose_variant, study_options
from attnet.study.finetuning import FINETUNE
from attnet.study.ingredients import BASELINE, RECIPE, TUNING, flip_row
from attnet.study.needed import NEEDED
from attnet.study.paper import PAPER
from attnet.study.questions import Case, Study, difference, nearest
from attnet.study.records import records
from attnet.study.sweeps.sweep import Sweep

STUDIES = {study.name: study for study in (RECIPE, TUNING, *PAPER, FINETUNE, NEEDED)}
FOLDER = "runs/ablation"
WHAT = (
    "top1 is the last epoch's on the test images, not the best epoch's, so that no row profits from picking. A "
    "difference is in points of Top-1 to the row it is `against`, paired by seed; intervals are 95 %, by Student's t "
    "over seeds. What is published was measured by others, with another training, never here."
)


def find_study(name: str) -> Study:
    """A study by its name.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in STUDIES:
        raise ConfigError(f"study={name!r}: no such study: {nearest(name, STUDIES)}")
    return STUDIES[name]


@dataclass(frozen=True)
class Asked:
    """A study with the parameters of all rows, its rows and their runs; laid out, nothing done yet."""

    study: Study
    base: TrainConfig
    rows: Sequence[Case]
    sweep: Sweep


def lay_out(
    study: str = "recipe",
    *,
    size: str = "rehearsal",
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    folder: str = FOLDER,
    **parameters: object,
) -> Asked:
    """What `ablate` would run, by the same arguments; reads which runs are finished, and touches nothing.

    Raises:
        ConfigError: as `ablate`.
    """
    question = find_study(study)
    base, prepared = question.base(size, parameters), question.prepared(folder)
    rows = question.rows(base, size, only)
    question.check_given(rows, parameters, prepared)
    base = base.replace(**prepared)
    if seeds is None:
        seeds = question.seeds if size == "rehearsal" else (0, 1, 2)
    return Asked(question, base, rows, Sweep({row.name: base.replace(**row.changes) for row in rows}, seeds, folder))


def ablate(
    study: str = "recipe",
    *,
    size: str = "rehearsal",
    seeds: Sequence[int] | None = None,
    only: Sequence[str] = (),
    folder: str = FOLDER,
    parallel: int = 1,
    **parameters: object,
) -> dict[str, object]:
    """Run a study, or what is left of it, and make its record, ready for JSON.

    Args:
        study: a key of STUDIES.
        size: rehearsal, small and short; or full, which takes accelerators.
        seeds: of each row; None: the study's own in a rehearsal, else 0, 1, 2.
        only: names of some rows; those that they are held against come along.
        folder: of all runs; what is finished there is not run again.
        parallel: runs at once, on accelerators a card each, or shared where there are fewer.
        **parameters: of `TrainConfig`, for every row; they win over the size's. None is left open.

    Returns:
        `kind` "ablation", `study`, `question`, `size`, `budget`, `baseline`, the first row, and `rows`, all others:
        each with the fields of a row of `Sweep.run`, its network's `parameters`, `against` and `difference` where it
        is held against one, `published`, the paper's figure, or None, and `memorisation` by seed with label noise.

    Raises:
        AttnetError: as `make_plan` and `Sweep`, an unknown study or row, a parameter that the rows set themselves, or
            runs on different data sets in the folder.
        TrainingInterrupted: after Ctrl-C or SIGTERM; the same call goes on.
    """
    asked = lay_out(study, size=size, seeds=seeds, only=only, folder=folder, **parameters)
    question, base, rows, sweep = asked.study, asked.base, asked.rows, asked.sweep
    configs, seeds = sweep.configs, sweep.seeds
    if question.prepare is not None:
        question.prepare(folder)
    make_plan(base)  # whatever is wrong with device, data or parameters is said now, and once
    ran = {row["name"]: row for row in sweep.run(parallel)}
    results = sweep.results()
    every = [result for by_seed in results.values() for result in by_seed.values()]
    tasks = sorted({result.parameters["dataset"] for result in every})
    if len(tasks) > 1:
        raise AttnetError(f"folder={folder}: holds runs on {' and on '.join(tasks)}; give dataset, or another folder")
    first, *others = [ran[row.name] | _described(question, row, configs[row.name], results, seeds) for row in rows]
    if question is RECIPE and base.test_flip:
        others.append(flip_row(results[BASELINE], seeds))
    return {
        **{"kind": "ablation", "study": study, "question": question.question, "size": size, "what": WHAT},
        "budget": {
            **{"recipe": recipe_name(base)} | {name: getattr(base, name) for name in MODES["rehearsal"]},
            **{"model": _network(base), "seeds": list(seeds), "dataset": _data(every) or base.dataset},
            **{name: getattr(every[0], name) for name in ("amp", "device") if every},
        },
        **{"baseline": first, "rows": others, "axis": question.axis},
        **({"chance": 100 / len(every[0].per_class)} if every else {}),
        **(question.finish(configs) if question.finish else {}),
        "environment": environment(devices.choose(base.device_type, base.device_id)),
        "date": date.today().isoformat(),
    }


def findings(study: str, studies: str, seeds: str = "", **options: object) -> dict[str, dict]:
    """Where each record of a study comes from -> the record: measured here, then what lies in data/results/.

    Args:
        study: it is run here when it is among `studies`, names with commas between.
        seeds: as "0,1"; empty: those of the study.
        **options: as of `ablate`.

    Raises:
        AttnetError: as `ablate`, and an unknown name among `studies`.
    """
    chosen = [find_study(name).name for name in listed(studies)]
    found = {}
    if study in chosen:
        found["measured here"] = ablate(study, seeds=listed_seeds(seeds) or None, **options)
    for name, record in records("ablation").items():
        if record.get("study") == study:
            found[f"on record: data/results/{name}.json, {record['date']}"] = record
    return found


def _network(config: TrainConfig) -> str:
    return config.model or MODES[config.mode]["model"]


def _data(results: Sequence[Result]) -> str:
    """The data of all runs in words, whatever the noise of their labels; "" without a run."""
    if not results:
        return ""
    used, total, name = results[0].images["train"], results[0].images["train_total"], results[0].task
    name = results[0].parameters["dataset"] if results[0].parameters["label_noise"] else name
    return f"{name}, {used:,} of {total:,} images" if used < total else f"{name}, {used:,} images"


def _described(
    question: Study, row: Case, config: TrainConfig, results: Mapping[str, Mapping[int, Result]], seeds: Sequence[int]
) -> dict[str, object]:
    """What a row of the record holds beyond what `Sweep.run` says of it."""
    content: dict[str, object] = {name: getattr(row, name) for name in ("what", "source") if getattr(row, name)}
    content["changed"] = dict(row.changes)
    content["parameters"] = choose_variant(_network(config), **study_options(config.to_dict())).parameters
    if row.line:
        content |= {"line": row.line, "x": row.x}
    if row.against:
        gap = difference(_each(results[row.name], "last_top1"), _each(results[row.against], "last_top1"))
        content |= {"against": row.against, "difference": gap}
    if row.published:
        content["published"] = asdict(row.published)
    if question.measure is not None and results[row.name]:
        content |= question.measure(results[row.name])
    if any(result.memorisation for result in results[row.name].values()):
        content["memorisation"] = [results[row.name][s].memorisation if s in results[row.name] else None for s in seeds]
    return content


def _each(results: Mapping[int, Result], name: str) -> dict[int, float]:
    return {seed: getattr(result, name) for seed, result in results.items()}
