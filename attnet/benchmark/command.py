"""Measure training here: steps, epochs, growth; and compare results.

A sweep over every combination of the lists: speed, parts of a step, memory, testing, share of what the device can
do, each configuration in a process of its own. It is what is measured unless another kind is named.

    attnet benchmark --model attention56_tiny --batch_size 16,64 --amp O0,O2 --output data/results/sweep.json

The full sweep on a GPU: batch sizes, opt levels, plain against channels-last against compiled. --resume goes on where
it was stopped, with the same command.

    attnet benchmark --model attention92 --batch_size 32,128,512 --amp O0,O1,O2 \\
        --memory_format contiguous,channels_last --compile off,on,graphs --rounds 20 \\
        --output data/results/gpu_fps.json --resume

Instead of a sweep: --profile, --epoch, --growth; --compare A.json B.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

from attnet.base import device as devices
from attnet.base.errors import ConfigError, answer, in_sentences
from attnet.base.files.outputs import command_line, output_file, write_record
from attnet.base.files.paths import resolve_path
from attnet.base.host import environment
from attnet.benchmark import epoch, growth, profile, steps
from attnet.benchmark.tables import compare, read_result, result_table
from attnet.data.registry import find_dataset

# Kind of result -> what it measures by single values of the lists; a new kind is a module with WHAT and `measure`.
MEASURED = {"profile": profile, "epoch": epoch, "growth": growth}
ROUNDS = {"steps": 9, "profile": 9, "epoch": 3, "growth": 3}
LISTS = ("model", "batch_size", "amp", "memory_format", "compile")


def words(text: str) -> list[str]:
    """The values of a list separated by commas."""
    values = [word.strip() for word in text.split(",")]
    if not all(values):
        raise argparse.ArgumentTypeError(f"{text!r}: values separated by commas are needed")
    return values


def numbers(text: str) -> list[int]:
    """The same, of whole numbers from 1 on."""
    if not all(word.isdecimal() and int(word) for word in words(text)):
        raise argparse.ArgumentTypeError(f"{text!r}: numbers from 1 on, separated by commas, are needed")
    return [int(word) for word in words(text)]


def make_parser() -> argparse.ArgumentParser:
    """Every flag of every kind of measurement."""
    parser = argparse.ArgumentParser(
        prog="attnet benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    lists = parser.add_argument_group("lists, separated by commas; a measurement other than a sweep takes one value")
    lists.add_argument("--model", type=words, default=["attention92"], help="default attention92")
    lists.add_argument("--batch_size", type=numbers, default=[64], help="images a step and card (default 64)")
    lists.add_argument("--amp", type=words, default=["O0"], help="opt levels O0 to O3 (default O0)")
    lists.add_argument("--memory_format", type=words, help="channels_last, contiguous (default: as trained)")
    lists.add_argument("--compile", type=words, default=["off"], help="off, on, graphs, both (default off)")
    lists.add_argument("--device_num", type=numbers, default=[1], help="cards of a sweep; above 1 a short run each")
    parser.add_argument("--rounds", type=int, help="measurements of each (default 9; 3 of --epoch and --growth)")
    parser.add_argument("--device_type", default="auto", help="NPU, GPU, MPS, CPU, auto (default)")
    parser.add_argument("--output", help="JSON file to write; relative to the repository root")
    parser.add_argument("--resume", action="store_true", help="measure what the sweep in --output lacks")
    parser.add_argument("--json", action="store_true", help="print the JSON in place of a table")
    kinds = parser.add_argument_group("what to measure").add_mutually_exclusive_group()
    for flag, kind, text in (
        ("--sweep", "steps", "steps over the lists (default)"),
        ("--profile", "profile", "a step by operator"),
        ("--epoch", "epoch", "whole epochs, beside a plain loop"),
        ("--growth", "growth", "how cost grows with images, batch, network, ranks"),
    ):
        kinds.add_argument(flag, dest="kind", action="store_const", const=kind, default="steps", help=text)
    kinds.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="compare two result files")
    images = parser.add_argument_group("images of --epoch, --growth and runs on several cards")
    images.add_argument("--train_images", type=int, default=0, help="of an epoch, and at most of a run; 0: all")
    images.add_argument("--test_images", type=int, default=0, help="tested after an epoch, or by a sweep; 0: all")
    images.add_argument("--data_path", default=steps.DATA_PATH, help="CIFAR-10")
    images.add_argument("--dataset", default="auto", choices=("auto", "cifar10", "cifar100", "shapes"),
                        help="auto: CIFAR-10 if it is at --data_path, else the embedded shapes")  # fmt: skip
    images.add_argument("--workers", type=int, default=min(8, os.cpu_count() or 1),
                        help="processes of the plain loop's DataLoader (default 8, or the cores if fewer)")  # fmt: skip
    sizes = parser.add_argument_group("of --growth, lists")
    sizes.add_argument("--curves", type=words, default=list(growth.CURVES), help=f"default {','.join(growth.CURVES)}")
    sizes.add_argument("--growth_images", type=numbers, help="default 1000 to 8000; 6250 to 50000 on a card")
    sizes.add_argument("--growth_batches", type=numbers, default=growth.BATCHES, help="default 8 to 128")
    sizes.add_argument("--growth_models", type=words, default=growth.MODELS, help=f"default {','.join(growth.MODELS)}")
    sizes.add_argument("--growth_ranks", type=numbers, help="default 1,2,4 ... up to the number of cards or cores")
    return parser


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; exit status 0, or 2 for a mistake in what was asked."""
    typed = sys.argv[1:] if arguments is None else list(arguments)
    options = make_parser().parse_args(typed)
    if options.compare:
        answer(compare(*(read_result(resolve_path(path)) for path in options.compare)))
        return 0
    result = _measure(options, command_line("benchmark", typed))
    answer(json.dumps(result, indent=2) if options.json else result_table(result))
    return 0


def measure(*flags: str, **values: object) -> dict[str, object]:
    """What the command line measures, as its JSON object, from a notebook: measure("--epoch", batch_size=64).

    Raises:
        ConfigError: a mistake in what was asked.
    """
    typed = [*flags, *(f"--{name}={value}" for name, value in values.items())]
    with contextlib.redirect_stderr(sys.stdout):  # a notebook shows the other in red
        return _measure(make_parser().parse_args(typed), command_line("benchmark", typed))


def _measure(options: argparse.Namespace, command: str) -> dict[str, object]:
    """The whole result: kind and what, the figures, and what is needed to make it again."""
    kind = options.kind
    if options.resume and (kind != "steps" or not options.output):
        raise ConfigError("--resume: it goes on with the sweep in --output; give both, or neither")
    output = output_file(options.output, (".json",)) if options.output else None
    options.rounds = ROUNDS[kind] if options.rounds is None else options.rounds
    if options.rounds < 1:
        raise ConfigError(f"rounds={options.rounds}: at least 1 is needed")
    options.memory_format = options.memory_format or [steps.usual_format(options.device_type)]
    if options.dataset == "auto":
        options.dataset = "cifar10" if find_dataset(resolve_path(options.data_path)) else "shapes"
    here = environment(devices.choose(options.device_type))
    about = {"environment": here, "date": date.today().isoformat(), "command": command}

    def save(figures: dict[str, object]) -> dict[str, object]:
        what = steps.WHAT if kind == "steps" else MEASURED[kind].WHAT
        result = {"kind": kind, "what": what, **figures, **about}
        if output:
            write_record(output, result, command)
        return result

    if kind == "steps":
        return save(_sweep(options, output, save))
    _take_single_values(options, kind)
    given = {name: getattr(options, name) for name in LISTS}
    return save(given | MEASURED[kind].measure(options))


def _sweep(
    options: argparse.Namespace, output: Path | None, save: Callable[[dict[str, object]], object]
) -> dict[str, object]:
    settings = steps.grid(*(getattr(options, name) for name in (*LISTS, "device_num")))
    way = steps.Way(options.device_type, options.rounds, options.test_images, options.data_path)
    known = read_result(output) if options.resume and output.exists() else None
    return steps.sweep(settings, way, known, save)


def _take_single_values(options: argparse.Namespace, kind: str) -> None:
    """Each list becomes its only value."""
    for name in (*LISTS, "device_num"):
        values = getattr(options, name)
        if len(values) != 1:
            given = ",".join(map(str, values))
            raise ConfigError(f"--{name} {given}: --{kind} takes one value; only a sweep takes lists")
        setattr(options, name, values[0])
