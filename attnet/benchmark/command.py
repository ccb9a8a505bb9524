"""Measure the training step, epochs and growth, and compare results.

A sweep over every combination of the lists: speed, parts of a step, memory, testing, share of what the device can
do, each configuration in a process of its own. It is what is measured unless single values and --reference are given.

    attnet benchmark --model attention56_tiny --batch_size 16,64 --amp O0,O2 --output data/results/sweep.json

The full sweep on a GPU: batch sizes, opt levels, plain against channels-last against compiled, and the reference
repository's own network and loop beside them. --resume goes on where it was stopped, with the same command.

    attnet benchmark --model attention92 --batch_size 32,128,512 --amp O0,O1,O2 \\
        --memory_format contiguous,channels_last --compile off,on,graphs --rounds 20 \\
        --reference path/to/Residual-Attention-Network --output data/results/gpu_fps.json --resume

Our step beside the reference's, in turn, and what importing takes: single values and --reference, without --sweep.

    attnet benchmark --reference path/to/Residual-Attention-Network --output data/results/cpu_step.json

The copy of the reference needs one change to run on Python 3: `output_channels/4` to `output_channels//4` in its
model/basic_layers.py. And instead of steps: --profile, --epoch, --growth, --losses N, --ranks N;
--compare A.json B.json.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from attnet.base.errors import ConfigError, in_sentences
from attnet.base.files import resolve_path, write_text
from attnet.benchmark.compare import compare, read_result
from attnet.benchmark.grid import usual_formats
from attnet.benchmark.losses import compare_losses
from attnet.benchmark.profile import measure_profile
from attnet.benchmark.ranks import measure_ranks
from attnet.benchmark.steps import DATA_PATH, sweep
from attnet.benchmark.tables import result_table
from attnet.benchmark.versus import measure_versus
from attnet.data.registry import find_dataset

ROUNDS = {"epoch": 3, "growth": 3}  # of other kinds 9
LISTS = ("model", "batch_size", "amp", "memory_format", "compile", "device_num")


def words(text: str) -> list[str]:
    """The values of a list separated by commas."""
    values = [word.strip() for word in text.split(",")]
    if not all(values):
        raise argparse.ArgumentTypeError(f"{text!r}: values separated by commas are needed")
    return values


def numbers(text: str) -> list[int]:
    """The same, of whole numbers."""
    try:
        return [int(word) for word in words(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: whole numbers separated by commas are needed") from None


def make_parser() -> argparse.ArgumentParser:
    """Every flag of every kind of measurement."""
    parser = argparse.ArgumentParser(
        prog="attnet benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lists = parser.add_argument_group("lists, separated by commas; a measurement other than a sweep takes one value")
    lists.add_argument("--model", type=words, default=["attention92"], help="default attention92")
    lists.add_argument("--batch_size", type=numbers, default=[64], help="images a step and card (default 64)")
    lists.add_argument("--amp", type=words, default=["O0"], help="opt levels O0 to O3 (default O0)")
    lists.add_argument(
        "--memory_format", type=words, default=[], help="channels_last, contiguous (default: as trained)"
    )
    lists.add_argument("--compile", type=words, default=["off"], help="off, on, graphs (default off)")
    lists.add_argument("--device_num", type=numbers, default=[1], help="cards; above 1 a short run each (default 1)")
    parser.add_argument("--rounds", type=int, help="measurements of each (default 9; 3 of --epoch and --growth)")
    parser.add_argument("--device_type", default="auto", help="NPU, GPU, MPS, CPU, auto (default)")
    parser.add_argument("--reference", type=Path, help="inner folder of a copy of the reference repository")
    parser.add_argument("--output", help="JSON file to write; relative to the repository root")
    parser.add_argument("--resume", action="store_true", help="measure what the sweep in --output lacks")
    parser.add_argument("--json", action="store_true", help="print the JSON in place of a table")
    kinds = parser.add_argument_group("what to measure, instead of our step beside the reference's or a sweep")
    kinds.add_argument("--sweep", action="store_true", help="a sweep, even of single values with --reference")
    kinds.add_argument("--profile", action="store_true", help="a step by operator, beside --reference if given")
    kinds.add_argument("--epoch", action="store_true", help="whole epochs, beside a plain loop")
    kinds.add_argument("--growth", action="store_true", help="how cost grows with images, batch, network, ranks")
    kinds.add_argument("--losses", type=int, default=0, help="compare this many losses to float64")
    kinds.add_argument("--ranks", type=int, default=0, help="compare this many ranks with one")
    kinds.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="compare two result files")
    parser.add_argument("--train_images", type=int, default=0, help="images of an epoch; 0: all")
    parser.add_argument("--lr", type=float, default=0.1, help="learning rate for --losses (default 0.1)")
    parser.add_argument("--data_path", default=DATA_PATH, help="CIFAR-10 for whole epochs, runs and --losses")
    for name in ("epoch", "growth"):
        group = parser.add_argument_group(f"of --{name}")
        importlib.import_module(f"attnet.benchmark.{name}").add_arguments(group)
    return parser


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; exit status 0, or 2 for a mistake in what was asked."""
    options = make_parser().parse_args(arguments)
    if options.compare:
        print(compare(*(read_result(resolve_path(path)) for path in options.compare)))
        return 0
    typed = shlex.join(sys.argv[1:] if arguments is None else arguments)
    result = _measure(options, command=f"attnet benchmark {typed}")
    print(json.dumps(result, indent=2) if options.json else result_table(result))
    return 0


def measure(*flags: str, **values: object) -> dict[str, object]:
    """What the command line measures, as its JSON object, from a notebook: measure("--epoch", batch_size=64).

    Raises:
        ConfigError: a mistake in what was asked.
    """
    words = [*flags, *(f"--{name}={value}" for name, value in values.items())]
    with contextlib.redirect_stderr(sys.stdout):  # a notebook shows the other in red
        return _measure(make_parser().parse_args(words), command=f"attnet benchmark {shlex.join(words)}")


def _measure(options: argparse.Namespace, command: str) -> dict[str, object]:
    kind = _kind(options)
    options.rounds = ROUNDS.get(kind, 9) if options.rounds is None else options.rounds
    options.reference = options.reference and resolve_path(options.reference)
    options.memory_format = options.memory_format or list(usual_formats(options.device_type))
    if options.dataset == "auto":
        options.dataset = "cifar10" if find_dataset(resolve_path(options.data_path)) else "shapes"
    output = resolve_path(options.output) if options.output else None
    if output and not output.parent.is_dir():
        raise ConfigError(f"output={output}: there is no folder {output.parent}; make it, or name another")

    def save(result: dict[str, object]) -> None:
        if output:
            write_text(output, json.dumps(result | {"command": command}, indent=2) + "\n")

    if kind == "steps":
        known = read_result(output) if options.resume and output and output.exists() else None
        result = sweep(
            options.model,
            options.batch_size,
            options.amp,
            options.memory_format,
            options.compile,
            options.device_num,
            device_type=options.device_type,
            rounds=options.rounds,
            reference=options.reference,
            test_images=options.test_images,
            data_path=options.data_path,
            known=known,
            save=save,
        )
    else:
        _take_single_values(options, kind)
        result = _measurement(kind)(options)
    result = result | {"command": command}
    save(result)
    return result


def _kind(options: argparse.Namespace) -> str:
    asked = [kind for kind in ("sweep", "profile", "epoch", "growth", "losses", "ranks") if getattr(options, kind)]
    if len(asked) > 1:
        raise ConfigError(f"--{asked[0]} and --{asked[1]}: ask for one of them at a time")
    single = all(len(getattr(options, name)) <= 1 for name in LISTS) and options.device_num == [1]
    kind = asked[0] if asked else "versus" if single and options.reference else "sweep"
    if options.resume and (kind != "sweep" or not options.output):
        raise ConfigError("--resume: it goes on with the sweep in --output; give both, or neither")
    return "steps" if kind == "sweep" else kind


def _take_single_values(options: argparse.Namespace, kind: str) -> None:
    """Each list becomes its only value."""
    for name in LISTS:
        values = getattr(options, name)
        if len(values) != 1:
            raise ConfigError(
                f"--{name} {','.join(map(str, values))}: --{kind} takes one value; only a sweep takes lists"
            )
        setattr(options, name, values[0])


def _measurement(kind: str) -> Callable[[argparse.Namespace], dict[str, object]]:
    if kind in ("epoch", "growth"):
        return importlib.import_module(f"attnet.benchmark.{kind}").measure
    return {"profile": measure_profile, "versus": measure_versus, "losses": compare_losses, "ranks": measure_ranks}[
        kind
    ]
