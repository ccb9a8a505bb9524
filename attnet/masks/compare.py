"""Tables of every map of a network beside Grad-CAM and all controls: localisation, deletion, insertion, ROAD.

`attnet.masks.verdict` asks the questions; here is all that can be measured, in one record.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from attnet.base.errors import ConfigError
from attnet.base.intervals import Interval, confidence_interval
from attnet.base.words import table
from attnet.data.splits import Dataset, Split
from attnet.masks.controls import SEEDS, image_controls, random_maps, randomised, untrained
from attnet.masks.faithfulness import Curves, Removal
from attnet.masks.localise import localise
from attnet.masks.reduce import REDUCTIONS, reduced_maps
from attnet.masks.replace import Effect, effects, effects_table
from attnet.masks.saliency import grad_cam
from attnet.masks.statistics import MaskStatistics, mask_statistics
from attnet.model.pretrained import Pretrained

STEPS = 6  # points of a curve in `measure`: a fifth of the pixels each
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
    strangers: bool = True,
) -> list[Finding]:
    """Score the maps of every module and reduction against the objects of a split, then the baselines.

    The baselines are Grad-CAM of the predicted class at the last features; every map of the image alone
    (`IMAGE_CONTROLS`); noise; the same modules and reductions of untrained networks, the mean over three seeds; and of
    the network with its weights drawn anew from the head down. All see the same images. Without `strangers` the
    networks that have not learned are left out: most of the work, and statistics of a few images do not become them.

    Raises:
        ConfigError: a split without objects' pixels (`shapes` has them, and pictures with masks of their own), or as
            `attention_maps`.
    """
    if split.masks is None:
        raise ConfigError(
            "split: its objects' pixels are not known; those of load_dataset(None, 'shapes') are, and of pictures with "
            "a NAME.mask.png beside each"
        )
    rows = []
    options = modules, reductions, part, batch_size, seed, strangers
    for method, baseline, drawn in _maps(model, split.images, *options):
        found = [localise(maps, split.masks) for maps in drawn]
        scores = {name: _over_draws([getattr(one, name) for one in found]) for name in SCORES}
        rows.append(Finding(method, baseline, scores, sum(one.threshold for one in found) / len(found)))
    return rows


def compare_deletion(
    model: nn.Module,
    images: Tensor,
    modules: Sequence[str] | None = None,
    reductions: Sequence[str] = ("mean", "std"),
    *,
    part: str = "mask",
    steps: int = 13,
    baseline: str = "blur",
    batch_size: int = 100,
    seed: int = 0,
) -> dict[str, Curves]:
    """Deletion and insertion by the maps of every module and by the baselines of `compare_localisation`.

    The explained class is the predicted one. `baseline` is as `Removal` takes it: "linear" is ROAD. Takes 2 steps - 4
    passes an image and map; the maps of the network are joined by those of all controls.

    Returns:
        method -> its curves. Deleting what the network needs lowers the probability early (a small area);
        inserting it raises it early (a large area).
    """
    removal = Removal(model, images, steps=steps, baseline=baseline, batch_size=batch_size, seed=seed)
    methods = _maps(model, images, modules, reductions, part, batch_size, seed)
    return {method: _removed(removal, drawn) for method, _, drawn in methods}


def _removed(removal: Removal, drawn: Sequence[Tensor]) -> Curves:
    """The mean over several draws of one method."""
    curves = [removal.curves(maps) for maps in drawn]
    mean = {name: torch.stack([getattr(one, name) for one in curves]).mean(dim=0) for name in _KINDS}
    return Curves(curves[0].fractions, **mean)


_KINDS = ("deletion", "insertion")


def _over_draws(values: Sequence[Tensor]) -> Interval:
    """Values an image, [N], of several draws of one method, to the interval of their mean."""
    return confidence_interval(torch.stack(list(values)).mean(dim=0))


def _maps(
    model: nn.Module,
    images: Tensor,
    modules: Sequence[str] | None,
    reductions: Sequence[str],
    part: str,
    batch_size: int,
    seed: int,
    strangers: bool = True,
) -> Iterator[tuple[str, bool, list[Tensor]]]:
    """Name, whether it is a baseline, and maps [N, H, W] of each method, one or several draws of them."""

    def of(network: nn.Module) -> dict[tuple[str, str], Tensor]:
        return reduced_maps(network, images, part, reductions, modules, batch_size=batch_size)

    for (name, reduction), values in of(model).items():
        yield f"{name} {part} {reduction}", False, [values]
    yield "Grad-CAM", True, [grad_cam(model, images, batch_size=batch_size)]
    for name, values in image_controls(images).items():
        yield name, True, [values]
    yield "random", True, [random_maps(len(images), tuple(images.shape[-2:]), seed)]
    if not strangers:
        return
    fresh = [of(untrained(model, images, seed + number)) for number in range(SEEDS)]
    for name, reduction in fresh[0]:
        yield f"untrained: {name} {reduction}", True, [found[name, reduction] for found in fresh]
    for lost, network in randomised(model, images, seed):
        for (name, reduction), values in of(network).items():
            yield f"weights anew down to {lost}: {name} {reduction}", True, [values]


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


def road_table(curves: Mapping[str, Curves]) -> str:
    """A Markdown table of ROAD's curves, with 95 % confidence intervals, the best in bold.

    What is left of the class's probability while the most important pixels go first, and while the least important do;
    the second less the first; and in how many images the class loses with the first pixels, as such a map claims.
    """
    found = {
        method: (
            curve.deletion_area,
            curve.insertion_area,
            *map(confidence_interval, (curve.contrast, curve.right_way)),
        )
        for method, curve in curves.items()
    }
    best = [max(cells[column].mean for cells in found.values()) for column in range(4)]
    best[0] = min(cells[0].mean for cells in found.values())
    lines = [
        [method, *(f"**{cell}**" if cell.mean == top else str(cell) for cell, top in zip(cells, best, strict=True))]
        for method, cells in found.items()
    ]
    header = ("most first (less is better)", "least first (more is better)", "difference", "loses with the first")
    return table(("order of the pixels", *header), lines)


# -- everything of one network ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tables:
    """Everything that `measure` finds; `localisation` is empty where the objects' pixels are not known."""

    words: str
    statistics: Sequence[MaskStatistics]
    effects: Sequence[Effect]
    deletion: Mapping[str, Curves]
    road: Mapping[str, Curves]
    localisation: Sequence[Finding]

    def page(self) -> str:
        """Markdown: every table under its heading."""
        parts = {
            "Masks replaced": effects_table(self.effects),
            "Where the object is": localisation_table(self.localisation) if self.localisation else "",
            "Deletion and insertion, pixels blurred away": deletion_table(self.deletion),
            "ROAD, pixels imputed from those around them": road_table(self.road),
        }
        return "\n\n".join([self.words, *(f"## {title}\n\n{part}" for title, part in parts.items() if part)])

    def to_json(self) -> dict[str, object]:
        """For a record."""
        road = {
            method: areas | {"right_way": asdict(confidence_interval(self.road[method].right_way))}
            for method, areas in _areas(self.road).items()
        }
        record: dict[str, object] = {
            "tables_of": self.words,
            "statistics": [vars(row) | {"counts": row.counts.tolist()} for row in self.statistics],
            "effects": [asdict(row) for row in self.effects],
            "deletion": _areas(self.deletion),
            "road": road,
        }
        return record | ({"localisation": [asdict(row) for row in self.localisation]} if self.localisation else {})


def _areas(curves: Mapping[str, Curves]) -> dict[str, dict[str, object]]:
    return {name: {kind: asdict(getattr(curve, f"{kind}_area")) for kind in _KINDS} for name, curve in curves.items()}


def measure(network: Pretrained, dataset: Dataset, images: int = 500, deletion_images: int = 100) -> Tables:
    """Tables of a network's masks on a class-balanced subset of the test images.

    `deletion_images` are fewer, since each takes hundreds of passes. Counts larger than the data set mean all of it.
    """
    model, split = network.model, dataset.test.subset(min(images, len(dataset.test)))
    few = dataset.test.subset(min(deletion_images, len(dataset.test)))
    removals = [Removal(model, few.images, steps=STEPS, baseline=baseline) for baseline in ("blur", "linear")]
    deletion, road = {}, {}
    for method, _, drawn in _maps(model, few.images, None, ("mean", "std"), "mask", 100, 0):
        deletion[method], road[method] = (_removed(removal, drawn) for removal in removals)
    return Tables(
        f"{dataset.name}, {len(split)} test images ({len(few)} for deletion, insertion and ROAD)",
        mask_statistics(model, split.images),
        effects(model, split.images, split.labels),
        deletion,
        road,
        compare_localisation(model, split) if split.masks is not None else (),
    )
