"""Studies: what each ingredient of the strong recipes brings (recipe), and the questions of the paper.

    attnet ablation residual --seeds 0,1,2 --total_epochs 8 --train_images 10000 --output data/results/x.json
    attnet ablation residual attention depth noise unit --size full --parallel 8 --output data/results/x.json

Every parameter of `attnet train` is a flag here too, holds for every run and wins over the size's. A stopped
ablation goes on when it is started again.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from attnet.base.errors import answer, in_sentences, say
from attnet.base.files.outputs import command_line, output_file, write_record
from attnet.base.words import listed, listed_seeds
from attnet.engine.parameters import TrainConfig
from attnet.engine.recipes import RECIPES
from attnet.study.ask import FOLDER, STUDIES, ablate, find_study, lay_out
from attnet.study.ingredients import INGREDIENTS
from attnet.study.questions import SIZES
from attnet.study.study_tables import study_table
from attnet.study.sweeps.sweep import listing


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 1 when runs failed, 2 for a mistake in the parameters, 128 + signal when stopped."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # The studies come first: behind flags that only `given_parameters` knows, argparse would take values for them.
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
    options, words = _parser().parse_known_args(arguments[len(names) :])
    failed = False
    studies = [find_study(name).name for name in names or ["recipe"]]
    only = listed(options.only)
    if recipes := [f"recipe {name}" for name in listed(options.recipe_rows)]:
        only = [*(only or INGREDIENTS), *recipes]
    seeds, parameters = listed_seeds(options.seeds) or None, TrainConfig.parse_given(words, prog="attnet ablation")
    common = {"size": options.size, "folder": options.folder}
    if options.dry_run:
        sweeps = [lay_out(name, seeds=seeds, only=only, **common, **parameters).sweep for name in studies]
        answer("\n\n".join(map(listing, sweeps)))
        return 0
    files = [_file(options.output, name, len(studies)) for name in studies]
    for name, file in zip(studies, files, strict=True):
        record = ablate(name, seeds=seeds, only=only, parallel=options.parallel, **common, **parameters)
        if file:
            write_record(file, record, command_line("ablation", arguments))
        (say if file else answer)(f"\n{record['question']} {STUDIES[name].see}\n\n{study_table(record)}")
        failed |= any(row["failures"] for row in [record["baseline"], *record["rows"]])
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    rows = f"recipe: {', '.join(INGREDIENTS)}, {', '.join(f'recipe {name}' for name in RECIPES)}"
    parser = argparse.ArgumentParser(
        prog="attnet ablation",
        usage="%(prog)s [STUDY ...] [--size SIZE] [--seeds SEEDS] [--output FILE] [...]",
        description="Studies: what each ingredient of the strong recipes brings (recipe), the questions of the paper, "
        "what pretraining is worth on few images (finetune). "
        f"STUDY: some of {', '.join(STUDIES)} (default recipe).",
        epilog="Every parameter of attnet train is a flag as well and holds for every run.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--size", default="rehearsal", help=f"{' or '.join(SIZES)}: small and short, or the real one on accelerators")
    add("--output", default="", help="JSON file to write, of several studies FILE_STUDY.json; from the repository root")
    add("--seeds", default="", help="seeds of each row, as 0,1,2 (default: the study's own, 0,1,2 at full size)")
    add(
        "--parallel",
        type=int,
        default=1,
        help="runs at once; on accelerators a card each, or shared where there are fewer (default 1)",
    )
    add("--folder", default=FOLDER, help=f"where the runs go (default {FOLDER})")
    add("--only", default="", help=f"some rows, and what they are held against; of {rows}".replace("%", "%%"))
    add("--recipe_rows", default="", help="whole recipes as rows beside those of study recipe, as fast94,best")
    add("--dry_run", action="store_true", help="list the runs and what is finished; start nothing")
    return parser


def _file(output: str, study: str, studies: int) -> Path | None:
    """Where the record of a study goes."""
    if not output:
        return None
    file = output_file(output, (".json",))
    return file.with_stem(f"{file.stem}_{study}") if studies > 1 else file
