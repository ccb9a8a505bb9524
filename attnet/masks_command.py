"""`attnet masks`: what can be said of a network's masks, and what cannot."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from attnet.base.device import choose
from attnet.base.errors import in_sentences
from attnet.base.files import command_line, output_file, write_record
from attnet.base.host import environment
from attnet.masks.compare import measure
from attnet.masks.open import open_pretrained
from attnet.masks.verdict import judge


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """Answer six questions, write the record and its figure; 2 after a sentence when it cannot be done."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="attnet masks",
        description="Answer six questions about a network's masks, each against its strongest control.",
    )
    parser.add_argument("--pretrained", "--weights", default="", help="weights, as attnet.open_pretrained takes them")
    parser.add_argument("--data_path", default="./data/cifar-10-batches-py", help="CIFAR-10, from the repository root")
    parser.add_argument("--images", type=int, default=500, help="test images")
    parser.add_argument("--faithful_images", type=int, default=150, help="of them for the last two questions")
    parser.add_argument("--tables", action="store_true", help="measure every map beside every control as well: longer")
    parser.add_argument("--output", default="", help="FILE.json for the record, with FILE.png beside it")
    options = parser.parse_args(words)
    file = output_file(options.output, (".json",)) if options.output else None
    network, dataset = open_pretrained(options.pretrained, options.data_path)
    split = dataset.test.subset(min(options.images, len(dataset.test)))
    print(network.describe())
    print(f"{len(split)} test images of {dataset.name}", flush=True)

    def say(line: str) -> None:
        print(f"  {line} ...", file=sys.stderr, flush=True)

    verdict = judge(network.model, split, faithful=options.faithful_images, progress=say)
    print(verdict.page())
    if file is None:
        return 0
    from attnet.plots import plot_verdict  # here, since matplotlib takes a second to import

    record = {
        "kind": "masks",
        "what": "six questions about the masks of a network, each against its strongest control",
        "network": network.describe(),
        "data": f"{dataset.name}, {len(split)} test images",
        **verdict.to_json(),
    }
    if options.tables:
        say("tables")
        record |= measure(network, dataset, options.images, options.faithful_images)
    record |= {"environment": environment(choose("CPU"))}
    write_record(file, record, command_line("masks", words))
    plot_verdict(verdict).savefig(Path(file).with_suffix(".png"), dpi=120)
    print(f"written: {file} and its figure beside it")
    return 0
