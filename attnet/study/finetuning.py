"""What pretraining is worth on few images: a network trained on `shapes`, fine-tuned to an image folder of 11 classes.

    attnet ablation finetune --output data/results/finetune.json

The folder is the example of `attnet.data.folder`: ten kinds as in `shapes`, drawn anew, and one that the network has never
seen. A study that was stopped goes on when it is started again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import date

from attnet.base import device as devices
from attnet.base.errors import AttnetError, in_sentences
from attnet.base.files import relative_to_root, resolve_path, write_text
from attnet.base.intervals import over_seeds
from attnet.base.words import listed_seeds, table
from attnet.data.folder import write_example
from attnet.data.shapes import ARROW
from attnet.engine.loop import Trainer
from attnet.engine.parameters import TrainConfig
from attnet.engine.plan import make_plan
from attnet.engine.run_folder import Result
from attnet.study.sweep import Sweep
from attnet.study.sweep_table import failures_text, mean_text

WHAT = (
    "Top-1 on the example image folder (11 classes) after the same number of steps on the same images, ten a class: "
    "from scratch, and from weights trained on shapes (10 classes) with a new head. top1 is the last epoch's on the "
    "test images, in per cent, by seed; new_class is that of the class alone which shapes lacks; a gain is in points "
    "over from scratch, paired by seed; intervals are 95 %, by Student's t over seeds. step_seconds are processor "
    "seconds of a training step on the CPU."
)
PRETRAINING = {"mode": "rehearsal", "dataset": "shapes"}
BUDGET = {
    "mode": "rehearsal",
    "dataset": "folder",
    "model": "attention56_tiny",
    "train_images": 110,
    "test_images": 0,
    "train_batch_size": 11,
    "total_epochs": 10,
}
SCRATCH, TUNED, FROZEN = "from scratch", "fine-tuned", "body frozen"
# Row -> what it is in words, and its parameters besides those of the budget and the weights.
ROWS: dict[str, tuple[str, dict[str, object]]] = {
    SCRATCH: ("all weights drawn at random, rate 0.1", {}),
    TUNED: ("all weights learn, rate 0.01", {"lr": 0.01}),
    "layer decay": (
        "rate 0.1 for the head, half of it for the part below, and so on",
        {"layer_decay": 0.5},
    ),
    FROZEN: ("the new head alone learns, rate 0.1", {"freeze": "body"}),
}


def study(seeds: Sequence[int], folder: str) -> dict[str, object]:
    """Run the study, or what is left of it, and make its record, ready for JSON.

    Raises:
        AttnetError: as `Sweep`, or a pretraining that failed.
        TrainingInterrupted: after Ctrl-C or SIGTERM; the same call goes on.
    """
    first = Sweep({"pretraining": TrainConfig(**PRETRAINING)}, (0,), folder)
    [pretraining] = first.run()
    if pretraining["failures"]:
        raise AttnetError(f"pretraining: {pretraining['failures'][0]}")
    weights = first.runs()[0].folder
    example = resolve_path(folder) / "example"
    if not example.exists():
        write_example(example)
    base = TrainConfig(**BUDGET, data_path=relative_to_root(example))
    start = {"is_pretrain": True, "pretrained": relative_to_root(weights)}
    configs = {
        name: base.replace(**changes, **({} if name == SCRATCH else start)) for name, (_, changes) in ROWS.items()
    }
    sweep = Sweep(configs, seeds, folder)
    rows = sweep.run()
    results = sweep.results()
    for row in rows:
        name, found = row["name"], results[row["name"]]
        row |= {"what": ROWS[name][0], "gain": None if name == SCRATCH else gain(found, results[SCRATCH])}
        row["new_class"] = over_seeds([result.per_class[ARROW.name] for result in found.values()])
    run = next((result for by_seed in results.values() for result in by_seed.values()), None)
    return {
        "kind": "finetune",
        "what": WHAT,
        "budget": {
            **BUDGET,
            "seeds": list(seeds),
            **{name: getattr(run, name) for name in ("dataset", "amp", "device") if run},
        },
        "pretraining": {**PRETRAINING, "top1": pretraining["top1"][0]},
        "rows": rows,
        "step_seconds": step_costs({name: configs[name] for name in (TUNED, FROZEN)}),
        "environment": devices.environment(devices.choose(base.device_type, base.device_id)),
        "date": date.today().isoformat(),
    }


def step_costs(configs: Mapping[str, TrainConfig], rounds: int = 9) -> dict[str, float]:
    """Processor seconds of a training step of each configuration on the CPU, the median of `rounds` taken in turn."""
    trainers = {name: Trainer(make_plan(config.replace(device_type="CPU"))) for name, config in configs.items()}
    micro_batches = {name: next(trainer.train_batches.epoch(0)) for name, trainer in trainers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    for trainer in trainers.values():
        trainer.train_step.train()
    for _ in range(rounds + 1):
        for name, trainer in trainers.items():
            begun = time.process_time()
            trainer.train_step(micro_batches[name], 0.01)
            seconds[name].append(time.process_time() - begun)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first ones set up


def gain(results: Mapping[int, Result], scratch: Mapping[int, Result]) -> dict[str, float | None]:
    """Points of Top-1 over from scratch, paired by seed: their mean with its interval."""
    both = [seed for seed in results if seed in scratch]
    return over_seeds([results[seed].last_top1 - scratch[seed].last_top1 for seed in both])


def study_table(record: Mapping[str, object]) -> str:
    """A Markdown table of the record; then what failed."""
    rows = [
        (
            row["name"],
            row["what"],
            mean_text(row, ".1f"),
            row["gain"] and mean_text(row["gain"], "+.1f"),
            mean_text({**row["new_class"], "low": None}, ".0f"),
        )
        for row in record["rows"]
    ]
    header = ("training", "what", "Top-1 of the last epoch (%)", "gain (points)", "new class alone (%)")
    return table(header, rows, words=(0, 1)) + failures_text(record["rows"])


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 1 when runs failed, else as `attnet.base.words.in_sentences`."""
    parser = argparse.ArgumentParser(prog="attnet ablation finetune", description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="", help="JSON file to write; relative to the repository root")
    parser.add_argument("--seeds", default="0,1,2", help="seeds of each row (default 0,1,2)")
    parser.add_argument("--folder", default="runs/finetune", help="where the runs go (default runs/finetune)")
    words = parser.parse_args(arguments)
    record = study(listed_seeds(words.seeds), words.folder)
    if words.output:
        command = shlex.join(sys.argv[1:] if arguments is None else arguments)
        record |= {"command": f"attnet ablation finetune {command}"}
        write_text(resolve_path(words.output), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    print(study_table(record))
    return int(any(row["failures"] for row in record["rows"]))
