"""The masks beside Grad-CAM, the image's centre and noise: do they find the object, and does the network need it?

`attnet masks --pretrained WEIGHTS --images 1000 --output FILE` measures all that a network's masks can
be asked: statistics, interventions, deletion and insertion, and localisation where the objects' pixels are known.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from attnet.base.device import choose
from attnet.base.errors import ConfigError, in_sentences
from attnet.base.files import command_line, output_file, write_record
from attnet.base.host import environment
from attnet.base.intervals import Interval
from attnet.base.words import table
from attnet.data.splits import Dataset, Split
from attnet.masks.capture import capture
from attnet.masks.localise import centre_prior, localise, random_maps
from attnet.masks.open import open_pretrained
from attnet.masks.reduce import REDUCTIONS, attention_maps
from attnet.masks.replace import effects
from attnet.masks.saliency import Curves, deletion_insertion, grad_cam
from attnet.masks.statistics import mask_statistics
from attnet.model.pretrained import Pretrained

SCORES = {
    "pointing": "the maximum lies in the object",
    "auroc": "an object's pixel is above a background's",
    "iou": "overlap at the best threshold",
    "energy": "mass inside the object",
}


@dataclass(frozen=True)
class Finding:
    """How well one kind of map finds the objects: `scores` as `Localisation.summary`, shares in [0, 1].

    `threshold` is that of the IoU, on maps scaled to [0, 1]; `baseline` tells what is no mask of the network.
    """

    method: str
    baseline: bool
    scores: dict[str, Interval]
    threshold: float


def compare_localisation(
    model: nn.Module,
    split: Split,
    modules: Sequence[str] | None = None,
    reductions: Sequence[str] = REDUCTIONS,
    *,
    part: str = "mask",
    batch_size: int = 100,
    seed: int = 0,
) -> list[Finding]:
    """Score the maps of every module and reduction against the objects of a split, then the baselines.

    The baselines are Grad-CAM of the predicted class at the last features, a Gaussian at the image's centre, and
    noise drawn from `seed`. All see the same images.

    Raises:
        ConfigError: a split without objects' pixels (only `shapes` has them), or as `attention_maps`.
    """
    if split.masks is None:
        raise ConfigError("split: its objects' pixels are not known; those of load_dataset(None, 'shapes') are")
    rows = []
    for method, baseline, maps in _maps(model, split.images, modules, reductions, part, batch_size, seed):
        found = localise(maps, split.masks)
        rows.append(Finding(method, baseline, found.summary(), found.threshold))
    return rows


def compare_deletion(
    model: nn.Module,
    images: Tensor,
    modules: Sequence[str] | None = None,
    reductions: Sequence[str] = ("mean", "std"),
    *,
    part: str = "mask",
    steps: int = 13,
    batch_size: int = 100,
    seed: int = 0,
) -> dict[str, Curves]:
    """Deletion and insertion by the maps of every module and by the baselines of `compare_localisation`.

    The explained class is the predicted one. Takes (modules * reductions + 3) * (2 steps - 2) passes an image.

    Returns:
        method -> its curves. Deleting what the network needs lowers the probability early (a small area);
        inserting it raises it early (a large area).
    """
    methods = _maps(model, images, modules, reductions, part, batch_size, seed)
    targets = torch.cat([capture(model, batch).logits.argmax(dim=1) for batch in images.split(batch_size)])
    return {
        method: deletion_insertion(model, images, maps, targets, steps=steps, batch_size=batch_size, seed=seed)
        for method, _, maps in methods
    }


def _maps(
    model: nn.Module,
    images: Tensor,
    modules: Sequence[str] | None,
    reductions: Sequence[str],
    part: str,
    batch_size: int,
    seed: int,
) -> Iterator[tuple[str, bool, Tensor]]:
    """Name, whether it is a baseline, and maps [N, H, W] of each method."""
    for reduction in reductions:
        maps = attention_maps(model, images, part, reduction, modules, batch_size=batch_size)
        for name, values in maps.items():
            yield f"{name} {part} {reduction}", False, values
    size = tuple(images.shape[-2:])
    yield "Grad-CAM", True, grad_cam(model, images, batch_size=batch_size)
    yield "centre prior", True, centre_prior(len(images), size)
    yield "random", True, random_maps(len(images), size, seed)


def localisation_table(rows: Sequence[Finding]) -> str:
    """A Markdown table: a row a method, each score with its 95 % confidence interval, the best in bold."""
    best = {score: max(row.scores[score].mean for row in rows) for score in SCORES}
    lines = []
    for row in rows:
        cells = [
            f"**{row.scores[score]}**" if row.scores[score].mean == best[score] else str(row.scores[score])
            for score in SCORES
        ]
        lines.append([row.method, *cells])
    return table(("map", "pointing game", "AUROC", "IoU", "energy inside"), lines)


def deletion_table(curves: Mapping[str, Curves]) -> str:
    """A Markdown table: the area under each method's two curves, with 95 % confidence intervals, the best in bold."""
    low = min(curve.deletion_area.mean for curve in curves.values())
    high = max(curve.insertion_area.mean for curve in curves.values())
    lines = []
    for method, curve in curves.items():
        deletion, insertion = curve.deletion_area, curve.insertion_area
        cells = [f"**{deletion}**" if deletion.mean == low else str(deletion)]
        cells += [f"**{insertion}**" if insertion.mean == high else str(insertion)]
        lines.append([method, *cells])
    return table(("order of the pixels", "deletion (less is better)", "insertion (more is better)"), lines)


def measure(network: Pretrained, dataset: Dataset, images: int = 500, deletion_images: int = 100) -> dict[str, object]:
    """Every measure of a network's masks on a class-balanced subset of the test images, ready for JSON.

    `deletion_images` are fewer, since each takes hundreds of passes. Counts larger than the data set mean all of it.
    """
    split = dataset.test.subset(min(images, len(dataset.test)))
    few = dataset.test.subset(min(deletion_images, len(dataset.test)))
    statistics = mask_statistics(network.model, split.images)
    record: dict[str, object] = {
        "kind": "masks",
        "what": "the masks of a network: statistics, interventions, deletion and insertion, localisation",
        "network": network.describe(),
        "data": f"{dataset.name}, {len(split)} test images ({len(few)} for deletion and insertion)",
        "statistics": [vars(row) | {"counts": row.counts.tolist()} for row in statistics],
        "effects": [asdict(row) for row in effects(network.model, split.images, split.labels)],
        "deletion": {
            name: {"deletion": asdict(curve.deletion_area), "insertion": asdict(curve.insertion_area)}
            for name, curve in compare_deletion(network.model, few.images).items()
        },
    }
    if split.masks is not None:
        record["localisation"] = [asdict(row) for row in compare_localisation(network.model, split)]
    return record


@in_sentences
def main(arguments: Sequence[str] | None = None) -> int:
    """`attnet masks`: measure, print the tables, write the record; 2 after a sentence when it cannot be done."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="attnet masks", description="Measure what a network's masks do.")
    parser.add_argument("--pretrained", default="", help="weights, as attnet.open_pretrained takes them")
    parser.add_argument("--data_path", default="./data/cifar-10-batches-py", help="CIFAR-10, from the repository root")
    parser.add_argument("--images", type=int, default=500, help="test images")
    parser.add_argument("--deletion_images", type=int, default=100, help="test images for deletion and insertion")
    parser.add_argument("--output", default="", help="where the JSON goes; empty: standard output")
    options = parser.parse_args(words)
    file = output_file(options.output, (".json",)) if options.output else None
    network, dataset = open_pretrained(options.pretrained, options.data_path)
    record = measure(network, dataset, options.images, options.deletion_images)
    record |= {"environment": environment(choose("CPU"))}
    if file is None:
        print(json.dumps(record, indent=2))
    else:
        write_record(file, record, command_line("masks", words))
    return 0
