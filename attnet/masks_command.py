"""`attnet masks`: what can be said of a network's masks, and what cannot; or how well they find your own objects."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from attnet.base.device import choose
from attnet.base.errors import answer, in_sentences, printable, say
from attnet.base.files.outputs import command_line, output_file, write_record
from attnet.base.files.paths import resolve_path
from attnet.base.host import environment
from attnet.base.intervals import confidence_interval
from attnet.data.folder import is_pair_folder, load_pairs
from attnet.data.registry import find_dataset
from attnet.masks.compare import compare_localisation, localisation_table, measure
from attnet.masks.open import open_pretrained
from attnet.masks.verdict import REDUCTIONS, judge
from attnet.model.pretrained import SHIPPED, load_pretrained

FEW = 30  # pictures: of fewer the bootstrap's intervals are too narrow


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Answer six questions, write the record and its figure; 2 after a sentence when it cannot be done.

    Where `--data_path` is a folder of pictures without classes, a table of how well every map finds their objects.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="attnet masks",
        description="Answer six questions about a network's masks, each against its strongest control; or, of pictures "
        "of your own with their objects' masks, say how well every map finds the objects.",
    )
    parser.add_argument("--pretrained", "--weights", default="", help="weights, as attnet.open_pretrained takes them")
    parser.add_argument(
        "--data_path",
        default="./data/cifar-10-batches-py",
        help="CIFAR-10, an image folder, or a folder of pictures with NAME.mask.png beside each NAME.jpg or .png",
    )
    parser.add_argument("--images", type=int, default=500, help="test images")
    parser.add_argument("--faithful_images", type=int, default=150, help="of them for the last two questions")
    parser.add_argument("--tables", action="store_true", help="measure every map beside every control as well: longer")
    parser.add_argument("--output", default="", help="FILE.json for the record; FILE.png with the six answers beside")
    parser.add_argument(
        "--html",
        default="",
        help="FILE.html, or FILE.webp or .gif of a run that kept epochs: images and their masks to look at anywhere; "
        "the six questions are not asked then",
    )
    parser.add_argument("--shown", type=int, default=24, help="test images in --html")
    options = parser.parse_args(words)
    file = output_file(options.output, (".json",)) if options.output else None
    if options.html:
        return _pictures(options)
    if is_pair_folder(options.data_path) and not find_dataset(options.data_path, "cifar10"):
        return _own_pictures(options, words, file)
    network, dataset = open_pretrained(options.pretrained, options.data_path)
    split = dataset.test.subset(min(options.images, len(dataset.test)))
    say(network.describe())
    say(f"{len(split)} test images of {dataset.name}")
    verdict = judge(network.model, split, faithful=options.faithful_images, progress=_say)
    tell = answer if file is None else say
    tell(verdict.page())
    record = {
        "kind": "masks",
        "what": "six questions about the masks of a network, each against its strongest control",
        "network": network.describe(),
        "data": f"{dataset.name}, {len(split)} test images",
        **verdict.to_json(),
    }
    if options.tables:
        _say("tables")
        tables = measure(network, dataset, options.images, options.faithful_images)
        tell(f"\n{tables.page()}")
        record |= tables.to_json()
    if file is None:
        return 0
    from attnet.plots import plot_verdict  # here, since matplotlib takes a second to import

    record |= {"environment": environment(choose("CPU"))}
    write_record(file, record, command_line("masks", words))
    plot_verdict(verdict).savefig(Path(file).with_suffix(".png"), dpi=120)
    say(f"written: {file} and its figure beside it")
    return 0


def _say(line: str) -> None:
    say(f"  {line} ...", sys.stderr)


def _pictures(options: argparse.Namespace) -> int:
    """Images and their masks as one file."""
    from attnet.masks.choose import telling_images
    from attnet.plots import animate_masks, make_theatre

    file = output_file(options.html, (".html", ".webp", ".gif"))
    network, dataset = open_pretrained(options.pretrained, options.data_path)
    say(network.describe())
    if file.suffix == ".html":
        make_theatre(network, dataset, min(options.shown, len(dataset.test)), progress=_say).save(file)
    else:
        chosen = telling_images(network.model, dataset.test, min(options.shown, 8))
        animate_masks(network, dataset.test.images[chosen], file)
    say(f"written: {file} ({file.stat().st_size / 1e6:.1f} MB)")
    return 0


def _own_pictures(options: argparse.Namespace, words: Sequence[str], file: Path | None) -> int:
    """A line a map: how well it finds the objects of a folder of pairs."""
    network = load_pretrained(options.pretrained or SHIPPED["cifar10"])
    split = load_pairs(options.data_path, network.size)
    split = split.subset(min(options.images, len(split)))
    area = confidence_interval(split.masks.double().mean(dim=(1, 2)))
    place = printable(resolve_path(options.data_path))
    say(network.describe())
    say(f"{len(split)} pictures of {place} with their objects, which cover {area} of a picture")
    rows = compare_localisation(network.model, split, reductions=REDUCTIONS, strangers=options.tables)
    tell = answer if file is None else say
    tell(f"\n{localisation_table(rows)}\n")
    tell(
        "Means over the pictures with 95 % intervals, shares from 0 to 1. A map that says nothing scores 0.5 (AUROC), "
        "or the object's area"
        + (f"; of {len(split)} pictures, fewer than {FEW}, intervals are too narrow" if len(split) < FEW else "")
    )
    if file is not None:
        record = {
            "kind": "localisation",
            "what": "how well every map of a network finds the objects of one's own pictures, beside image controls",
            "network": network.describe(),
            "data": f"{place}, {len(split)} pictures",
            "images": len(split),
            "area": asdict(area),
            "localisation": [asdict(row) for row in rows],
            "environment": environment(choose("CPU")),
        }
        write_record(file, record, command_line("masks", words))
        say(f"written: {file}")
    return 0
