"""The masks beside Grad-CAM, the image's centre and noise: do they find the object, and does the network need it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnet.data import Split
from attnet.errors import ConfigError
from attnet.intervals import Interval
from attnet.localisation import centre_prior, localise, random_maps
from attnet.masks import REDUCTIONS, attention_maps, capture
from attnet.saliency import Curves, deletion_insertion, grad_cam

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
    reduction: str = "mean",
    *,
    part: str = "mask",
    steps: int = 17,
    batch_size: int = 100,
    seed: int = 0,
) -> dict[str, Curves]:
    """Deletion and insertion by the maps of every module and by the baselines of `compare_localisation`.

    The explained class is the predicted one. Takes (modules + 3) * (2 steps - 2) passes an image.

    Returns:
        method -> its curves. Deleting what the network needs lowers the probability early (a small area);
        inserting it raises it early (a large area).
    """
    methods = _maps(model, images, modules, (reduction,), part, batch_size, seed)
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
    lines = ["| map | pointing game | AUROC | IoU | energy inside |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [
            f"**{row.scores[score]}**" if row.scores[score].mean == best[score] else str(row.scores[score])
            for score in SCORES
        ]
        lines.append(f"| {row.method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def deletion_table(curves: Mapping[str, Curves]) -> str:
    """A Markdown table: the area under each method's two curves, with 95 % confidence intervals, the best in bold."""
    low = min(curve.deletion_area.mean for curve in curves.values())
    high = max(curve.insertion_area.mean for curve in curves.values())
    lines = ["| order of the pixels | deletion (less is better) | insertion (more is better) |", "|---|---|---|"]
    for method, curve in curves.items():
        deletion, insertion = curve.deletion_area, curve.insertion_area
        cells = [f"**{deletion}**" if deletion.mean == low else str(deletion)]
        cells += [f"**{insertion}**" if insertion.mean == high else str(insertion)]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)
