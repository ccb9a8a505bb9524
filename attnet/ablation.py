"""What each ingredient of the strong recipes brings: alone, added to recipe `seed` on the same small budget, and all.

    python -m attnet.ablation --seeds 0,1,2 --total_epochs 10 --train_images 5000 --output data/results/ablation.json

Every parameter of `python -m attnet.train` is a flag here too and holds for every run; what is left open is as in
mode `rehearsal`. A stopped ablation goes on when it is started again.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from attnet import device as devices
from attnet.checkpoint import write_text
from attnet.config import TrainConfig
from attnet.errors import AttnetError, ConfigError
from attnet.flags import parse_arguments
from attnet.interrupt import TrainingInterrupted
from attnet.intervals import over_seeds
from attnet.paths import resolve_path
from attnet.presets import LENGTHS, MODES, RECIPES
from attnet.result import Result
from attnet.sweep import Sweep, changes_text, failures_text, mean_text

WHAT = (
    "Each ingredient alone, added to the baseline on the same budget, and together. top1 is the last epoch's on the "
    "test images, not the best epoch's, so that no row profits from picking. A difference is in points of Top-1, "
    "paired by seed with the baseline; intervals are 95 %, by Student's t over seeds."
)
BASELINE, TOGETHER, FLIP = "baseline", "all together", "flip at test time"


@dataclass(frozen=True)
class Ingredient:
    """One change of a recipe: what it is, the source, and the parameters; a function is of the total epochs.

    Where all are used together, it takes the place of those in `replaces`.
    """

    what: str
    source: str
    parameters: Mapping[str, object]
    replaces: tuple[str, ...] = ()

    def changes(self, total_epochs: int) -> dict[str, object]:
        """The parameters for so many epochs."""
        return {name: value(total_epochs) if callable(value) else value for name, value in self.parameters.items()}


INGREDIENTS = {
    "cosine": Ingredient(
        "the rate glides to 0 along half a cosine, after an epoch of warm-up",
        'Loshchilov and Hutter, "SGDR", 2017',
        {"schedule": "cosine", "warmup_epochs": lambda epochs: min(1, epochs / 2)},
    ),
    "one-cycle": Ingredient(
        "the rate rises for a fifth of the epochs, then falls to 0, both in a straight line",
        'Smith and Topin, "Super-Convergence", 2018',
        {"schedule": "onecycle", "warmup_epochs": lambda epochs: epochs / 5},
        replaces=("cosine", "warm-up"),
    ),
    "warm-up": Ingredient(
        "the rate rises from 0 within the first epoch",
        'Goyal et al., "Accurate, Large Minibatch SGD", 2017',
        {"warmup_epochs": lambda epochs: min(1, epochs / 2)},
    ),
    "label smoothing": Ingredient(
        "a tenth of each label is spread over all classes",
        'Szegedy et al., "Rethinking the Inception Architecture", 2016',
        {"label_smoothing": 0.1},
    ),
    "no bias decay": Ingredient(
        "no weight decay on biases and norms",
        'He et al., "Bag of Tricks for Image Classification", 2019',
        {"no_bias_decay": True},
    ),
    "weight decay 5e-4": Ingredient(
        "five times the weight decay",
        'Zagoruyko and Komodakis, "Wide Residual Networks", 2016',
        {"weight_decay": 5e-4},
    ),
    "mixup": Ingredient(
        "weighted sums of two images and their labels, weights drawn from Beta(0.2, 0.2)",
        'Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018',
        {"mixup": 0.2},
    ),
    "mixup off at the end": Ingredient(
        "mixup, but not in the last quarter of the epochs",
        'He et al., "Data Augmentation Revisited", 2019',
        {"mixup": 0.2, "mixup_off_epochs": lambda epochs: math.ceil(epochs / 4)},
        replaces=("mixup",),
    ),
    "cutout": Ingredient(
        "a square of 8 pixels of each training image set to zero",
        'DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017',
        {"cutout": 8},
    ),
    "EMA": Ingredient(
        "tested with an exponential moving average of the weights, decay 0.99 a step",
        'Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; exponential as in '
        'Tarvainen and Valpola, "Mean teachers are better role models", 2017',
        {"ema": 0.99},
    ),
    "alternating flip": Ingredient(
        "each image mirrored in every other epoch instead of at random",
        'Jordan, "94 % on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024',
        {"flip": "alternating"},
    ),
    "normalize": Ingredient(
        "each colour standardised by the training set's mean and deviation",
        'LeCun et al., "Efficient BackProp", 1998',
        {"normalize": True},
    ),
}


def row_configs(base: TrainConfig, names: Sequence[str], recipes: Sequence[str] = ()) -> dict[str, TrainConfig]:
    """Row -> configuration: `base`, each ingredient alone, those of them together that do not exclude each other,
    and whole recipes, whose counts of epochs shrink in proportion to `base`'s.
    """
    epochs = base.total_epochs
    changes = {name: INGREDIENTS[name].changes(epochs) for name in names}
    if len(changes) > 1:
        replaced = {other for name in changes for other in INGREDIENTS[name].replaces}
        changes[TOGETHER] = {
            key: value for name in names if name not in replaced for key, value in changes[name].items()
        }
    for recipe in recipes:
        if recipe not in RECIPES:
            raise ConfigError(f"recipe_rows={recipe}: choose among {', '.join(RECIPES)}")
        share = epochs / LENGTHS.get(recipe, MODES["full"])["total_epochs"]
        warm_up, plain = (RECIPES[recipe][name] * share for name in ("warmup_epochs", "mixup_off_epochs"))
        counts = {"warmup_epochs": round(warm_up, 3), "mixup_off_epochs": math.ceil(plain)}
        changes[f"recipe {recipe}"] = {"recipe": recipe} | counts
    return {BASELINE: base} | {name: base.replace(**values) for name, values in changes.items()}


def on_budget(config: TrainConfig) -> TrainConfig:
    """`config` with the budget that it leaves open as in its mode, `rehearsal` unless given, and with `test_flip`."""
    mode = "rehearsal" if config.mode == "auto" else config.mode
    budget = {name: value for name, value in MODES[mode].items() if getattr(config, name) is None}
    return config.replace(mode=mode, test_flip=True, **budget)


def difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> dict[str, object]:
    """Points above the baseline by seed, where both have a value, with `mean`, `low` and `high` over the seeds."""
    by_seed = {seed: value - baseline[seed] for seed, value in values.items() if seed in baseline}
    return {**over_seeds(list(by_seed.values())), "by_seed": {str(seed): gap for seed, gap in by_seed.items()}}


def ablate(
    base: TrainConfig,
    seeds: Sequence[int],
    folder: str,
    *,
    names: Sequence[str] = tuple(INGREDIENTS),
    recipes: Sequence[str] = (),
    parallel: int = 1,
) -> dict[str, object]:
    """Run the ablation, or what is left of it, and make its record, ready for JSON.

    Raises:
        AttnetError: as `Sweep`, or runs on different data sets in the folder.
        TrainingInterrupted: after Ctrl-C or SIGTERM; the same call goes on.
    """
    base = on_budget(base)
    sweep = Sweep(row_configs(base, names, recipes), seeds, folder)
    rows = {row["name"]: row for row in sweep.run(parallel)}
    results = sweep.results()
    every = [result for by_seed in results.values() for result in by_seed.values()]
    if len(labels := sorted({result.dataset for result in every})) > 1:
        raise AttnetError(f"folder={folder}: holds runs on {' and on '.join(labels)}; give dataset, or another folder")
    top1 = {name: _each(by_seed, "last_top1") for name, by_seed in results.items()}
    for name, row in rows.items():
        row["difference"] = difference(top1[name], top1[BASELINE])
        row |= _description(name)
    baseline = rows.pop(BASELINE)
    del baseline["difference"]
    return {
        "kind": "ablation",
        "what": WHAT,
        "budget": {
            **{name: getattr(base, name) for name in ("recipe", *MODES["rehearsal"])},
            **{"seeds": list(seeds), "dataset": labels[0] if labels else base.dataset},
            **{name: getattr(every[0], name) for name in ("amp", "device") if every},
        },
        "baseline": baseline,
        "rows": [*rows.values(), _flip_row(results[BASELINE], seeds)],
        "environment": devices.environment(devices.choose(base.device_type, base.device_id)),
        "date": date.today().isoformat(),
    }


def _description(name: str) -> dict[str, str]:
    """What a row is, in words, and the source of an ingredient."""
    if name in INGREDIENTS:
        return {"what": INGREDIENTS[name].what, "source": INGREDIENTS[name].source}
    if name == TOGETHER:
        return {"what": "the rows above, without those that another one takes the place of"}
    if name == BASELINE:
        return {"what": "the recipe that everything is added to"}
    return {"what": "the whole recipe, its counts of epochs shrunk to the budget"}


def _each(results: Mapping[int, Result], name: str) -> dict[int, float]:
    return {seed: getattr(result, name) for seed, result in results.items()}


def _flip_row(plain: Mapping[int, Result], seeds: Sequence[int]) -> dict[str, object]:
    """The baseline's own runs, tested on each image and its mirror image: nothing else differs."""
    flipped = _each(plain, "top1_flip")
    return {
        "name": FLIP,
        "what": "the baseline's runs, with logits averaged over each test image and its mirror image",
        "source": 'Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012',
        "changed": {"test_flip": True},
        "top1": [flipped.get(seed) for seed in seeds],
        **over_seeds(list(flipped.values())),
        "difference": difference(flipped, _each(plain, "last_top1")),
        "failures": [],
    }


def ablation_table(record: Mapping[str, object]) -> str:
    """A Markdown table of the record: the baseline, then a row an ingredient; then what failed."""
    rows = [record["baseline"], *record["rows"]]
    lines = ["| recipe | changed | Top-1 of the last epoch (%) | difference (points) |", "|---|---|---|---|"]
    for row in rows:
        gap = row.get("difference")
        cells = [row["name"], changes_text(row["changed"]), mean_text(row)]
        lines.append("| " + " | ".join([*cells, mean_text(gap, "+.2f") if gap else "–"]) + " |")
    return "\n".join(lines) + failures_text(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 1 when runs failed, 2 for a mistake in the parameters, 128 + signal when stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m attnet.ablation",
        description=__doc__.splitlines()[0],
        epilog="Every parameter of python -m attnet.train is a flag as well and holds for every run.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", default="", help="JSON file to write; relative to the repository root")
    parser.add_argument("--seeds", default="0,1,2", help="seeds of each row (default 0,1,2)")
    parser.add_argument("--parallel", type=int, default=1, help="runs at once; on accelerators a card each (default 1)")
    parser.add_argument("--folder", default="runs/ablation", help="where the runs go (default runs/ablation)")
    parser.add_argument("--only", default="", help=f"some of: {', '.join(INGREDIENTS)}".replace("%", "%%"))
    parser.add_argument("--recipe_rows", default="", help=f"whole recipes as rows, of: {', '.join(RECIPES)}")
    options, words = parser.parse_known_args(arguments)
    try:
        names = _listed(options.only) or list(INGREDIENTS)
        for name in names:
            if name not in INGREDIENTS:
                near = difflib.get_close_matches(name, INGREDIENTS, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(INGREDIENTS)}"
                raise ConfigError(f"only={name!r}: no such ingredient: {hint}")
        if not all(word.isdecimal() for word in _listed(options.seeds)):
            raise ConfigError(f"seeds={options.seeds!r}: whole numbers with commas between are needed, as 0,1,2")
        seeds, recipes = [int(word) for word in _listed(options.seeds)], _listed(options.recipe_rows)
        if options.output:  # before the hours, not after
            resolve_path(options.output).parent.mkdir(parents=True, exist_ok=True)
        config = parse_arguments(words)
        record = ablate(config, seeds, options.folder, names=names, recipes=recipes, parallel=options.parallel)
    except AttnetError as error:
        print(f"attnet: {error}", file=sys.stderr)
        return 2
    except TrainingInterrupted as stop:
        print(f"attnet: {stop}", file=sys.stderr)
        return 128 + stop.signal_number
    command = shlex.join(sys.argv[1:] if arguments is None else arguments)
    if options.output:
        record |= {"command": f"python -m attnet.ablation {command}"}
        write_text(resolve_path(options.output), json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    print(ablation_table(record))
    return int(any(row["failures"] for row in [record["baseline"], *record["rows"]]))


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


if __name__ == "__main__":
    sys.exit(main())
