"""`attnet sweep`: a grid or a list of configurations, each with some seeds, or a search, as one resumable job.

attnet sweep --grid lr=0.1,0.05 --grid "modules=1,1,1;2,2,2" --seeds 0,1,2 --folder runs/lr
attnet sweep --list configurations.json --notebook notebooks/train_1p.ipynb --output runs/list.csv
attnet sweep --search "lr=0.01..0.5 log" --search schedule=step,cosine --trials 40 --folder runs/search
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from attnet.base.errors import ConfigError, answer, in_sentences, say
from attnet.base.files.atomic import OneOfMany, write_text
from attnet.base.files.outputs import command_line, output_file, write_record
from attnet.base.words import listed_seeds
from attnet.engine.holding.lease import SECONDS
from attnet.engine.parameters import TrainConfig
from attnet.study.study_tables import changes_text, sweep_table
from attnet.study.sweeps.configs import BASE, OWN, grid, read_list
from attnet.study.sweeps.search import PRUNERS, SAMPLERS, Search
from attnet.study.sweeps.space import read_space
from attnet.study.sweeps.sweep import FORMS, Sweep, listing, sweep_csv, sweep_record


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attnet sweep",
        description="Train several configurations, each with several seeds. A sweep that was stopped, in whatever "
        "way, goes on when the same command is given again: what is finished is not run again. Given several times at "
        "once, on machines that share the folder, the runs are shared out.",
        epilog="Every parameter of attnet train is a flag as well and holds for every run. Exit status 1 "
        "when runs failed, 2 for a mistake in what was given, 128 + signal when stopped.",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--grid",
        action="append",
        default=[],
        metavar="PARAMETER=VALUES",
        help="values with commas between, lr=0.1,0.05; where a value has commas itself, with semicolons: "
        '"modules=1,1,1;2,2,2". Given several times: every combination',
    )
    what.add_argument(
        "--list",
        default="",
        metavar="FILE",
        help='JSON: {"name": {"lr": 0.1, ...}, ...} or [{"lr": 0.1, ...}, ...], each what a configuration changes',
    )
    what.add_argument(
        "--search",
        action="append",
        default=[],
        metavar="PARAMETER=RANGE",
        help='let optuna choose: "lr=0.01..0.5 log", total_epochs=3..10, or values with commas between, '
        "schedule=step,cosine. Given several times: all of these. It goes by Top-1 on the test images",
    )
    parser.add_argument(
        "--trials", type=int, help="with --search: how many configurations, by all workers together (default 20)"
    )
    parser.add_argument("--sampler", help=f"with --search: {', '.join(SAMPLERS)} (default tpe)")
    parser.add_argument(
        "--pruner", help=f"with --search: which runs end early, by {', '.join(PRUNERS)} (default median)"
    )
    parser.add_argument("--seeds", default="0", help="seeds of each configuration, as 0,1,2 (default 0)")
    parser.add_argument("--folder", default="runs/sweep", help="where the runs go (default runs/sweep)")
    parser.add_argument(
        "--parallel",
        type=int,
        default=1,
        help="runs at once; on accelerators a card each, or shared where there are fewer (default 1)",
    )
    parser.add_argument(
        "--lease",
        type=float,
        default=SECONDS,
        help="seconds without a sign of life after which this worker's runs go to others that sweep the same folder, "
        f"on any machine (default {SECONDS:g})",
    )
    parser.add_argument(
        "--notebook",
        default="",
        help="execute this notebook for each run through papermill, and keep it in its folder",
    )
    parser.add_argument("--output", default="", help=f"file to write, one of {', '.join(FORMS)}; CSV has a line a run")
    parser.add_argument("--dry_run", action="store_true", help="list the runs and what is finished; start nothing")
    return parser


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 1 when runs failed, 2 for a mistake in the parameters, 128 + signal when stopped."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    options, words = _parser().parse_known_args(arguments)
    base = TrainConfig.parse(words, prog="attnet sweep")
    for name, instead in OWN.items():
        if name != "progress" and name in base.given():
            hint = f"give --{instead}" if instead else "a sweep goes on by itself"
            raise ConfigError(f"{name}={getattr(base, name)!r}: each run of a sweep has its own; {hint}")
    sweep = _search(options, base) if options.search else _sweep(options, base)
    if options.dry_run:
        answer(sweep.describe() if options.search else listing(sweep))
        return 0
    file = output_file(options.output, FORMS) if options.output else None
    rows, facts = sweep.run(options.parallel, options.lease), {}
    shown = sweep_table(rows)
    if options.search:
        facts, shown = {"search": sweep.facts()}, shown + _found(rows, sweep.facts())
        sweep = sweep.sweep()
    say(shown)
    if file is not None:
        _write(file, sweep, rows, facts, shown, command_line("sweep", arguments))
    return int(any(row["failures"] for row in rows))


def _sweep(options: argparse.Namespace, base: TrainConfig) -> Sweep:
    for name in ("trials", "sampler", "pruner"):
        if getattr(options, name) is not None:
            raise ConfigError(f"{name}={getattr(options, name)!r}: belongs to a search; give --search, or leave it out")
    configs = {BASE: base}
    if options.list:
        configs = read_list(options.list, base)
    elif options.grid:
        configs = grid(base, **_values(options.grid))
    return Sweep(configs, listed_seeds(options.seeds), options.folder, notebook=options.notebook)


def _search(options: argparse.Namespace, base: TrainConfig) -> Search:
    seeds = listed_seeds(options.seeds)
    if len(seeds) != 1:
        raise ConfigError(f"seeds={options.seeds!r}: a search trains with one seed; sweep over its best with several")
    named = {"trials": options.trials, "sampler": options.sampler, "pruner": options.pruner}
    given = {"trials": 20} | {name: value for name, value in named.items() if value is not None}
    space = read_space(options.search, base)
    return Search(base, space, folder=options.folder, seed=seeds[0], notebook=options.notebook, **given)


def _write(file: Path, sweep: Sweep, rows: Sequence[Mapping], facts: Mapping, shown: str, command: str) -> None:
    """The result as a file; of several workers each writes it, whole."""
    whole = OneOfMany()
    if file.suffix == ".json":
        write_record(file, sweep_record(sweep, rows) | facts, command, whole)
    elif file.suffix == ".csv":
        write_text(file, sweep_csv(sweep), whole)
    else:
        write_text(file, f"{shown}\n\n`{command}`, {date.today().isoformat()}\n", whole)


def _found(rows: Sequence[Mapping], facts: Mapping) -> str:
    """What stands below the table of a search: which is the best, by what, and what was ended early."""
    done = [row for row in rows if row["mean"] is not None]
    lines = ["", ""]
    if done:
        best = max(done, key=lambda row: row["mean"])
        lines += [f"Best: {changes_text(best['changed'])}, {best['mean']:.2f} %. {facts['what']}", ""]
    for name, end in facts["ended_early"].items():
        reached = "" if end["top1"] is None else f" at {end['top1']:.2f} %"
        lines.append(f"- {name}: ended early after epoch {end['epoch']}{reached}")
    return "\n".join(lines).rstrip()


def _values(words: Sequence[str]) -> dict[str, list[str]]:
    """["lr=0.1,0.05", "modules=1,1,1;2,2,2"] as parameter -> values."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        values = [value.strip() for value in text.split(";" if ";" in text else ",") if value.strip()]
        if not equals or not values:
            raise ConfigError(f"grid={word!r}: PARAMETER=VALUE,VALUE is needed, as lr=0.1,0.05")
        if name in found:
            raise ConfigError(f"grid={word!r}: {name} is there already; give all its values at once")
        found[name] = values
    return found
